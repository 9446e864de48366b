"""`concurrency` and `rate`: how many at once and how often, over all executions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, service, serving

from agentmap_asgi.agents.registry import agent
from agentmap_asgi.execution.limits import MOST_KEYS, Bounds, Limits, Rate, bound_of, rate_of


class Busy:
    """An agent that counts how many of its calls go on at once, and ends each when several turns have passed."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0

    async def __call__(self, call: Any) -> int:
        self.now += 1
        self.calls += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(20):
                await asyncio.sleep(0)
        finally:
            self.now -= 1
        return self.most


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/s", Rate(10, 1)),
        ("100 / minute", Rate(100, 60)),
        ("5/10s", Rate(5, 10)),
        ("1/500ms", Rate(1, 0.5)),
        ("7/Hours", Rate(7, 3600)),
        ("0/s", None),
        ("10", None),
        ("10/fortnight", None),
        ("10/sx", None),
        ("-1/s", None),
        (10, None),
    ],
)
def test_how_a_rate_is_written(text: Any, rate: Rate | None) -> None:
    """So many in a time, or in several of them."""
    assert rate_of(text) == rate


@pytest.mark.parametrize(
    "value", [0, -1, True, "3", 1.5, {}, {"limit": 0}, {"limit": 1, "key": ""}, {"limit": 1, "k": 1}]
)
def test_what_is_no_bound(value: Any) -> None:
    """A row with it is wrong when it is loaded."""
    assert bound_of("concurrency", value) is None


@pytest.mark.anyio
async def test_executions_share_the_places_of_a_node(tmp_path: Path) -> None:
    """Of twenty executions three are at the node at once, and all get there."""
    busy = Busy()
    rows = [node("A", "busy", output="most", context={"concurrency": 3})]
    async with serving(tmp_path, rows, agents={"busy": busy}) as made:
        documents = await asyncio.gather(*(made.execute_workflow("Flow", {}) for _ in range(20)))
    assert all(document["success"] for document in documents)
    assert (busy.most, busy.calls) == (3, 20)


@pytest.mark.anyio
async def test_nodes_share_the_places_of_a_key(tmp_path: Path) -> None:
    """Also nodes of different workflows; another key is another matter, and so is a key with another value in it."""
    shared, own, filled = Busy(), Busy(), Busy()
    rows = []
    for number in range(4):
        graph = f"Flow{number}"
        rows.append(node("A", "shared", edge="B", graph=graph, context={"concurrency": {"limit": 2, "key": "crm"}}))
        rows.append(node("B", "own", edge="C", graph=graph, context={"concurrency": 1}))
        rows.append(node("C", "filled", graph=graph, context={"concurrency": {"limit": 1, "key": "of {customer}"}}))
    agents = {"shared": shared, "own": own, "filled": filled}
    async with serving(tmp_path, rows, agents=agents) as made:
        started = [made.execute_workflow(f"Flow{n % 4}", {"customer": n % 8}) for n in range(16)]
        assert all(document["success"] for document in await asyncio.gather(*started))
    assert shared.most == 2
    assert 1 < own.most <= 4
    assert 1 < filled.most <= 8


@pytest.mark.anyio
async def test_items_of_a_list(tmp_path: Path) -> None:
    """A number is of one execution, an object of all."""
    busy = Busy()
    items = {"items": list(range(12))}
    for bound, most in ((4, 4), ({"limit": 2, "key": "x"}, 2)):
        busy.most = 0
        rows = [node("A", "busy", output="out", map_over="items", context={"concurrency": bound})]
        document = await run(tmp_path, rows, items, agents={"busy": busy})
        assert (document["success"], busy.most) == (True, most)


@pytest.mark.anyio
async def test_a_built_in_agent_has_bounds_too(tmp_path: Path) -> None:
    """And a plain function, and one that is called inline; a failure gives its place back, as a cancellation does."""

    @agent(inline=True)
    def quick(call: Any) -> Any:
        return 1 // call.inputs["n"]

    bound = {"concurrency": {"limit": 1, "key": "k"}}
    rows = [
        node("A", "quick", inputs="n", output="q", ko="B", context=bound),
        node("B", "echo", inputs="n", output="e", context=bound),
    ]
    async with serving(tmp_path, rows, agents={"quick": quick}) as made:
        for _ in range(3):
            assert (await made.execute_workflow("Flow", {"n": 0}))["result"]["e"] == 0


class Still:
    """A Position that has no special names."""

    def special(self, name: str) -> Any:
        raise AssertionError


@pytest.mark.anyio
async def test_a_rate_spreads_what_comes_at_once() -> None:
    """As many as the rate allows begin at once, the others evenly after them."""
    limits, loop = Limits(), asyncio.get_running_loop()
    bounds = Bounds(None, (Rate(4, 0.2), lambda values, position: "k"))
    begun: list[float] = []
    first = loop.time()

    async def work() -> None:
        begun.append(loop.time() - first)

    await asyncio.gather(*(limits.under(bounds, {}, Still(), work) for _ in range(8)))
    assert len(begun) == 8
    for number, at in enumerate(sorted(begun)[4:], 1):
        assert at >= number * 0.05 - 0.002


@pytest.mark.anyio
async def test_keys_are_forgotten() -> None:
    """Places when nobody holds one or waits, rates when their time is over."""
    limits = Limits()

    async def work() -> None: ...

    for number in range(MOST_KEYS + 10):
        name = str(number)
        render = lambda values, position, name=name: name  # noqa: E731
        await limits.under(Bounds((1, render), (Rate(1_000_000, 1), render)), {}, Still(), work)
    assert len(limits._places) == 0
    assert len(limits._rates) <= MOST_KEYS


@pytest.mark.anyio
async def test_who_is_cancelled_while_waiting_takes_no_place(tmp_path: Path) -> None:
    """The next one gets it."""
    limits = Limits()
    bounds = Bounds((1, lambda values, position: "k"), None)
    gate = asyncio.Event()

    async def done() -> int:
        return 1

    first = asyncio.create_task(limits.under(bounds, {}, Still(), gate.wait))
    second = asyncio.create_task(limits.under(bounds, {}, Still(), done))
    third = asyncio.create_task(limits.under(bounds, {}, Still(), done))
    await asyncio.sleep(0)
    second.cancel()
    gate.set()
    assert await asyncio.wait_for(third, 10) == 1
    assert second.cancelled()
    await first
    assert limits._places == {}


def test_wrong_bounds_are_said_when_a_file_is_loaded(tmp_path: Path) -> None:
    """Where they would be used; an agent of the host's may have options of these names with another meaning."""
    for context, codes in (
        ({"rate": "10/s", "concurrency": {"limit": 3, "key": "crm"}}, []),
        ({"rate": "often"}, ["AM-A004"]),
        ({"concurrency": {"limit": 3, "keys": "crm"}}, ["AM-A004"]),
    ):
        made = service(tmp_path, [node("A", "echo", context=context)])
        assert [one["code"] for one in made.get_workflow_definition("Flow")["diagnostics"]] == codes
    own = {"tax": agent(options={"rate": float})(lambda call: call.options["rate"])}
    for agents in (own, {"tax": lambda call: 1}):
        made = service(tmp_path, [node("A", "tax", context={"rate": 0.19})], agents=agents)
        assert made.get_workflow_definition("Flow")["diagnostics"] == []
