"""Everything is bounded, and each bound has a named error."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from flows import Row, chain, node, run, serving

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.errors import InputInvalid, OutputTooLarge
from agentmap_asgi.testing import FakeClock

pytestmark = pytest.mark.anyio


async def same(call: Call) -> Any:
    return call.inputs.get("x")


def grown(call: Call) -> Any:
    return call.inputs["x"] * 2


def complete(count: int) -> list[Row]:
    """Every node leads to every other."""
    names = [f"N{i}" for i in range(count)]
    return [node(name, edge="|".join(other for other in names if other != name)) for name in names]


@pytest.mark.parametrize("kind", ["default", "same", "thread", "inline"])
async def test_steps(kind: str, tmp_path: Path) -> None:
    """A loop that never ends is ended after `max_steps` nodes, and no Failure_Next handles that."""
    rows = [node("A", kind, inputs="x", edge="B", ko="H"), node("B", kind, inputs="x", edge="A", ko="H"), node("H")]
    agents = {"same": same, "thread": lambda call: 1, "inline": agent(inline=True)(lambda call: 1)}
    document = await run(tmp_path, rows, config={"max_steps": 101}, agents=agents)
    assert (document["status"], document["error"]["code"]) == ("failed", "step_limit")
    assert document["nodes_executed"] == 101


@pytest.mark.parametrize("kind", ["default", "same"])
async def test_as_many_steps_as_allowed_complete(kind: str, tmp_path: Path) -> None:
    """The limit itself is within the limit, one more is not."""
    for limit, status in ((50, "completed"), (49, "failed")):
        document = await run(tmp_path, chain(50, kind), config={"max_steps": limit}, agents={"same": same})
        assert document["status"] == status


@pytest.mark.parametrize("kind", ["default", "same"])
async def test_branches(kind: str, tmp_path: Path) -> None:
    """More branches than `max_branches` at once end the execution."""
    rows = [node("S", edge="|".join(f"B{i}" for i in range(20))), *(node(f"B{i}", kind) for i in range(20))]
    for limit, status in ((20, "completed"), (19, "failed")):
        document = await run(tmp_path, rows, config={"max_branches": limit}, agents={"same": same})
        assert document["status"] == status
    assert document["error"]["code"] == "branch_limit"


async def test_branches_that_double(tmp_path: Path) -> None:
    """Branches that fork again and again are ended, however many nodes there are."""
    rows = [
        node("A", edge="A1|A2"), node("A1", edge="B"), node("A2", edge="B"), node("B", "same", edge="A1|A2|B1"),
        node("B1", edge="A1|A2"),
    ]  # fmt: skip
    document = await run(tmp_path, rows, agents={"same": same})
    assert document["status"] == "failed"
    assert document["error"]["code"] in ("branch_limit", "step_limit")


@pytest.mark.parametrize("handled", [True, False])
async def test_depth(handled: bool, tmp_path: Path) -> None:
    """A workflow that runs itself is ended at `max_depth`, with or without Failure_Next."""
    rows = [node("A", "graph", ko="H" if handled else "", context="{workflow=::Flow}"), *([node("H")] * handled)]
    document = await run(tmp_path, rows, config={"max_depth": 5})
    assert (document["status"], document["error"]["code"]) == ("failed", "depth_limit")


async def test_depth_allows_what_it_says(tmp_path: Path) -> None:
    """`max_depth` nestings work, one more does not."""
    rows = [node("A", "graph", output="r=r", context=f"{{workflow=::G{i + 1}}}", graph=f"G{i}") for i in range(3)]
    rows.append(node("A", prompt="bottom", output="r", graph="G3"))
    assert (await run(tmp_path, rows, graph="G0", config={"max_depth": 3}))["result"] == {"r": "bottom"}
    document = await run(tmp_path, rows, graph="G0", config={"max_depth": 2})
    assert document["error"]["code"] == "depth_limit"


@pytest.mark.parametrize("kind", ["echo", "same", "thread"])
async def test_state_size(kind: str, tmp_path: Path) -> None:
    """A state that grows past `max_state_bytes` ends the execution, and no Failure_Next handles that."""
    rows = [node(f"N{i}", kind, inputs="x", output=f"y{i}", edge=f"N{i + 1}", ko="H") for i in range(9)]
    agents = {"same": same, "thread": lambda call: call.inputs["x"]}
    rows += [node("N9"), node("H")]
    document = await run(tmp_path, rows, {"x": ["y" * 5_000]}, config={"max_state_bytes": 30_000}, agents=agents)
    assert (document["status"], document["error"]["code"]) == ("failed", "state_too_large")


async def test_state_size_of_the_start(tmp_path: Path) -> None:
    """An initial state past the limit is refused before anything starts."""
    async with serving(tmp_path, [node("A")], config={"max_state_bytes": 1_000}) as service:
        with pytest.raises((InputInvalid, OutputTooLarge)):
            await service.execute_workflow("Flow", {"x": "y" * 1_000})
        assert (await service.execute_workflow("Flow", {"x": "y" * 900}))["success"]


async def test_state_size_counts_what_the_caller_gave(tmp_path: Path) -> None:
    """The initial state is part of the state."""
    rows = [node("A", "same", inputs="x", output="y")]
    document = await run(tmp_path, rows, {"x": "y" * 900}, config={"max_state_bytes": 1_000}, agents={"same": same})
    assert document["status"] == "failed"


async def test_state_depth(tmp_path: Path) -> None:
    """A value that is nested once more in each round fails the node that nests it too deep."""
    rows = [node("A", "aggregator", inputs="a", output="a", edge="A")]
    document = await run(tmp_path, rows, {"a": 1})
    assert (document["status"], document["error"]["code"]) == ("failed", "result_invalid")
    assert document["nodes_executed"] < 70


@pytest.mark.parametrize("kind", ["own", "default", "echo", "summary", "success"])
async def test_output_size(kind: str, tmp_path: Path) -> None:
    """An output past `max_output_bytes` fails its node; Failure_Next handles that."""
    rows = [
        node("A", kind, prompt="" if kind == "summary" else "{x}{x}", inputs="x:x|x:z", output="y", ko="H"),
        node("H"),
    ]
    config = {"max_output_bytes": 1_500}

    async def own(call: Call) -> Any:
        return call.inputs["x"] * 2

    for state, nodes in (({"x": "y" * 500}, 1), ({"x": "y" * 900}, 2)):
        document = await run(tmp_path, rows, state, config=config, agents={"own": own})
        assert (document["status"], document["nodes_executed"]) == ("completed", nodes)
        assert ("y" in document["result"]) is (nodes == 1)


@pytest.mark.parametrize("prompt", ["{x}{x}", "{x}" * 50, "{x}" * 5_000])
async def test_prompts_that_double(prompt: str, tmp_path: Path) -> None:
    """A prompt that repeats itself grows without bound only on paper."""
    rows = [node("A", prompt=prompt, output="x", edge="A")]
    document = await run(tmp_path, rows, {"x": "ab"})
    assert (document["status"], document["error"]["code"]) == ("failed", "output_too_large")
    assert document["nodes_executed"] < 25


@pytest.mark.parametrize("kind", ["grown", "aggregator"])
async def test_results_that_double(kind: str, tmp_path: Path) -> None:
    """Results that double end in a named error too."""
    inputs = "x" if kind == "grown" else "x:a|x:b"
    rows = [node("A", kind, inputs=inputs, output="x", edge="A")]
    config = {"max_state_bytes": 100_000, "max_output_bytes": 50_000}
    document = await run(tmp_path, rows, {"x": ["ab"]}, config=config, agents={"grown": grown})
    assert document["error"]["code"] in ("output_too_large", "state_too_large")


async def test_execution_timeout_while_waiting(tmp_path: Path) -> None:
    """An execution that waits past `execution_timeout` fails with `deadline`, and its agent is cancelled."""
    cancelled = asyncio.Event()

    async def forever(call: Call) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    rows = [node("A", "forever", ko="H"), node("H")]
    document = await run(tmp_path, rows, config={"execution_timeout": 0.02}, agents={"forever": forever})
    assert (document["status"], document["error"]["code"]) == ("failed", "deadline")
    assert document["error"]["retryable"] is True
    assert cancelled.is_set()


async def test_execution_timeout_among_agents_that_never_wait(tmp_path: Path) -> None:
    """Async agents that keep the processor give the loop no turn; the next one is not called all the same."""
    clock = FakeClock()
    called: list[str] = []

    async def busy(call: Call) -> None:
        called.append(call.node.name)
        clock.advance(60.0)

    rows = [node("A", "busy", edge="B"), node("B", "busy", edge="C"), node("C", "busy")]
    document = await run(tmp_path, rows, config={"execution_timeout": 100.0}, agents={"busy": busy}, clock=clock)
    assert (document["status"], document["error"]["code"]) == ("failed", "deadline")
    assert called == ["A", "B"]


async def test_many_small_values_of_one_node_count(tmp_path: Path) -> None:
    """`max_state_bytes` holds for a node that sets thousands of short fields, whichever way it sets them."""

    async def many(call: Call) -> dict[str, Any]:
        return {"state_updates": {f"{call.node.name}{number}": number for number in range(100)}}

    rows = [node(f"N{number}", "many", edge=f"N{number + 1}" if number < 99 else "") for number in range(100)]
    document = await run(tmp_path, rows, config={"max_state_bytes": 20_000}, agents={"many": many})
    assert (document["status"], document["error"]["code"]) == ("failed", "state_too_large")
    assert document["nodes_executed"] < 30


async def test_execution_timeout_while_busy(tmp_path: Path) -> None:
    """Inline nodes that never wait meet the deadline too."""
    clock = FakeClock()

    @agent(inline=True)
    def late(call: Call) -> Any:
        clock.advance(1)

    rows = [node("A", "late", edge="A")]
    config = {"execution_timeout": 100, "max_steps": 10_000}
    document = await run(tmp_path, rows, config=config, agents={"late": late}, clock=clock)
    assert document["error"]["code"] == "deadline"
    assert document["execution_time"] < 1_000


async def test_execution_timeout_in_a_sub_workflow(tmp_path: Path) -> None:
    """The deadline of an execution is that of its sub-workflows."""

    async def forever(call: Call) -> Any:
        await asyncio.Event().wait()

    rows = [node("A", "graph", context="{workflow=::Child}"), node("C", "forever", graph="Child")]
    document = await run(tmp_path, rows, config={"execution_timeout": 0.02}, agents={"forever": forever})
    assert document["error"]["code"] == "deadline"


async def test_threads(tmp_path: Path) -> None:
    """No more than `max_threads` plain functions run at once, and all of them run."""
    lock, now, most = threading.Lock(), 0, 0
    pair = threading.Barrier(2)

    def work(call: Call) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        pair.wait(30)
        with lock:
            now -= 1
        pair.wait(30)
        return call.node.name

    names = [f"B{i}" for i in range(6)]
    rows = [node("S", edge="|".join(names)), *(node(name, "work", output=name) for name in names)]
    document = await run(tmp_path, rows, config={"max_threads": 2}, agents={"work": work})
    assert document["result"] == {name: name for name in names}
    assert most == 2


@pytest.mark.parametrize("kind", ["default", "same"])
async def test_a_complete_graph_of_100_nodes_ends(kind: str, tmp_path: Path) -> None:
    """Every node leading to every other is ended by a bound."""
    rows = [row | {"AgentType": kind} for row in complete(100)]
    document = await asyncio.wait_for(run(tmp_path, rows, agents={"same": same}), 60)
    assert document["error"]["code"] in ("branch_limit", "step_limit")


@pytest.mark.parametrize(("limit", "code"), [(1_000, "step_limit"), (10_000, None)])
@pytest.mark.parametrize("kind", ["default", "same"])
async def test_a_chain_of_ten_thousand_nodes_ends(kind: str, limit: int, code: str | None, tmp_path: Path) -> None:
    """A very long line runs as far as `max_steps` allows."""
    document = await asyncio.wait_for(
        run(tmp_path, chain(10_000, kind), config={"max_steps": limit}, agents={"same": same}), 60
    )
    assert (document["error"] and document["error"]["code"]) == code
    assert document["nodes_executed"] == limit


async def test_a_busy_execution_lets_others_run(tmp_path: Path) -> None:
    """A long stretch of inline nodes gives the event loop its turns."""
    turns = 0
    over = False

    async def count() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    async with serving(tmp_path, chain(2_000), config={"max_steps": 2_000}) as service:
        counting = asyncio.create_task(count())
        assert (await service.execute_workflow("Flow", {}))["success"]
        over = True
        await counting
    assert turns > 4


async def test_async_agents_that_never_wait_let_others_run(tmp_path: Path) -> None:
    """The same for a long stretch of async agents that return at once."""
    turns = 0
    over = False

    async def count() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    async with serving(tmp_path, chain(2_000, "same"), config={"max_steps": 2_000}, agents={"same": same}) as service:
        counting = asyncio.create_task(count())
        assert (await service.execute_workflow("Flow", {}))["success"]
        over = True
        await counting
    assert turns > 4
