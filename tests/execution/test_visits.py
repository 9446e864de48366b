"""What went into each run of a node, and what came out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from flows import node, serving

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.errors import ExecutionConflict, StoreDamaged, UnknownExecution
from agentmap_asgi.execution.visits import visits
from agentmap_asgi.stores.store import Entry

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sync", "exit"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "memory":
        return {"storage_url": "memory://"}
    return {"storage_url": f"sqlite:///{tmp_path}/runs.db", "durability": request.param, "patrol_seconds": 0.01}


def told(found: list[dict[str, Any]]) -> list[tuple[str, str, Any, Any]]:
    return [(one["path"], one["status"], one["inputs"], one["output"]) for one in found]


async def plus(call: Call) -> Any:
    return sum(call.inputs.values())


async def test_inputs_are_those_that_the_node_saw(settings: dict[str, Any], tmp_path: Path) -> None:
    """Not what others wrote since: in a chain, on branches that write the same field, in a loop, and with the names
    that the agent sees.
    """
    rows = [
        node("A", "plus", inputs="n:one", output="n", edge="B"),
        node("B", "plus", inputs="n:one|n:two", output="n", edge="C|D"),
        node("C", "plus", inputs="n|x", output="n", edge="E"),
        node("D", "plus", inputs="n", output="n", edge="E"),
        node("E", "plus", inputs="n", output="n"),
    ]
    async with serving(tmp_path, rows, config=settings, agents={"plus": plus}) as made:
        document = await made.execute_workflow("Flow", {"n": 3, "x": 100})
        found = await made.get_execution_nodes(document["execution_id"])
        assert sorted(told(found)) == [
            ("A#1", "completed", {"one": 3}, {"n": 3}),
            ("B#1", "completed", {"one": 3, "two": 3}, {"n": 6}),
            ("C#1", "completed", {"n": 6, "x": 100}, {"n": 106}),
            ("D#1", "completed", {"n": 6}, {"n": 6}),
            ("E#1", "completed", {"n": 6}, {"n": 6}),
        ]
        (one,) = await made.get_execution_nodes(document["execution_id"], node="C#1")
        assert (one["agent_type"], one["attempt"], one["edge_taken"], one["success"]) == ("plus", 1, ["E"], True)
        assert one["ended_at"] >= one["started_at"]
        with pytest.raises(UnknownExecution):
            await made.get_execution_nodes("nobody")


async def test_each_round_of_a_loop_and_each_failure_is_told(settings: dict[str, Any], tmp_path: Path) -> None:
    """With its own inputs; a failure has its error, and nothing written."""

    async def fails(call: Call) -> Any:
        raise ValueError("no")

    rows = [
        node("A", "plus", inputs="n", output="last", edge="B"),
        node("B", "fails", inputs="last|last_action_success", output="b", ok="C", ko="C"),
        node("C", "plus", inputs="n|last", output="n", edge="D"),
        node("D", "echo", inputs="n", output="d", edge="func:more(A|End)"),
        node("End", prompt="{error}", output="end"),
    ]
    functions = {"more": lambda state: "A" if state["n"] < 10 else "End"}
    agents: dict[str, Any] = {"plus": plus, "fails": fails}
    async with serving(tmp_path, rows, config=settings, agents=agents, functions=functions) as made:
        document = await made.execute_workflow("Flow", {"n": 3})
        assert document["status"] == "completed", document
        found = await made.get_execution_nodes(document["execution_id"])
        rounds = [one for one in found if one["node"] in ("A", "C")]
        assert [(one["path"], one["inputs"], one["output"]) for one in rounds] == [
            ("A#1", {"n": 3}, {"last": 3}),
            ("C#1", {"n": 3, "last": 3}, {"n": 6}),
            ("A#2", {"n": 6}, {"last": 6}),
            ("C#2", {"n": 6, "last": 6}, {"n": 12}),
        ]
        failed = await made.get_execution_nodes(document["execution_id"], node="B")
        assert [(one["status"], one["output"], one["error"]["code"]) for one in failed] == [
            ("failed", {}, "agent_error")
        ] * 2
        assert [one["inputs"]["last_action_success"] for one in failed] == [True, True]


async def test_what_goes_on_is_told_as_far_as_it_is(settings: dict[str, Any], tmp_path: Path) -> None:
    """A node that runs, one that waits, and one that the end has cut off have inputs, and no output."""
    started, hold = asyncio.Event(), asyncio.Event()

    @agent(idempotent=True)
    async def slow(call: Call) -> Any:
        started.set()
        await hold.wait()

    rows = [
        node("F", edge="A|B"),
        node("A", "human", prompt="?", inputs="n", output="a"),
        node("B", "slow", inputs="n"),
    ]
    async with serving(tmp_path, rows, config={**settings, "shutdown_grace": 0.01}, agents={"slow": slow}) as made:
        document = await made.start_execution("Flow", {"n": 1})
        await started.wait()
        found = told(await made.get_execution_nodes(document["execution_id"]))
        if settings.get("durability") != "exit":
            assert ("B#1", "running", {"n": 1}, None) in found
            assert ("A#1", "waiting", {"n": 1}, None) in found or "sync" in str(settings)
        await made.cancel_execution(document["execution_id"])
        found = told(await made.get_execution_nodes(document["execution_id"]))
        assert [one for one in found if one[0] != "F#1"] == [
            ("A#1", "cut", {"n": 1}, None),
            ("B#1", "cut", {"n": 1}, None),
        ]


async def test_sub_workflows_and_items_are_told(settings: dict[str, Any], tmp_path: Path) -> None:
    """Each run of a node of a sub-workflow after the node that runs it, each item with its own inputs."""
    rows = [
        node("Each", "plus", inputs="item|n", output="sums", map_over="list", edge="Sub"),
        node("Sub", "graph", inputs="m=n", context="{workflow=::Child}", output="got=m", edge="Whole"),
        node("Whole", "graph", context="{workflow=::Child}", output="whole=n", edge="Many"),
        node("Many", "graph", inputs="m=item", context="{workflow=::Child}", output="many=m", map_over="list"),
        node("In", "plus", inputs="m|n", output="m", graph="Child", edge="More"),
        node("More", "plus", inputs="m", output="m", graph="Child"),
    ]

    async def plus(call: Call) -> Any:
        return sum(value for value in call.inputs.values() if value)

    async with serving(tmp_path, rows, config=settings, agents={"plus": plus}) as made:
        document = await made.execute_workflow("Flow", {"n": 5, "list": [1, 2]})
        assert document["status"] == "completed", document
        found = await made.get_execution_nodes(document["execution_id"])
        each = found[0]
        assert each["inputs"] == {"n": 5}
        assert [(item["index"], item["inputs"], item["output"]) for item in sorted(each["items"], key=str)] == [
            (0, {"item": 1, "n": 5, "index": 0}, 6),
            (1, {"item": 2, "n": 5, "index": 1}, 8),
        ]
        if settings["storage_url"] == "memory://":
            return  # it forgets what a sub-workflow did when that has ended
        below = {one["path"]: (one["inputs"], one["output"]) for one in found if "/" in one["path"]}
        assert below["Sub#1/In#1"] == ({"m": 5, "n": None}, {"m": 5})
        assert below["Whole#1/In#1"] == ({"m": None, "n": 5}, {"m": 5})
        assert below["Whole#1/More#1"] == ({"m": 5}, {"m": 5})
        assert below["Many#1/1/In#1"] == ({"m": 2, "n": None}, {"m": 2})
        assert [one["path"] for one in found][1:4] == ["Sub#1", "Sub#1/In#1", "Sub#1/More#1"]
        assert next(one for one in found if one["path"] == "Whole#1")["inputs"]["list"] == [1, 2]


async def test_an_older_version_is_read_as_it_was(tmp_path: Path) -> None:
    """The file was edited since, and the process is another one; a retry shows what was changed for it."""
    settings = {"storage_url": f"sqlite:///{tmp_path}/runs.db", "patrol_seconds": 0.01}
    old = [node("A", "plus", inputs="n:one", output="n", edge="B"), node("B", "plus", inputs="n:two", output="n")]
    async with serving(tmp_path, old, config=settings, agents={"plus": plus}) as made:
        document = await made.execute_workflow("Flow", {"n": 3})
    new = [node("A", "plus", inputs="m:other", output="m", edge="C"), node("C", "plus", inputs="m", output="m")]
    async with serving(tmp_path, new, config=settings, agents={"plus": plus}) as made:
        found = await made.get_execution_nodes(document["execution_id"])
        assert [one["inputs"] for one in found] == [{"one": 3}, {"two": 3}]
        again = await made.retry_execution(document["execution_id"], start="B", state_patch={"n": 7})
        await made.until_settled(again["execution_id"], 10)
        found = await made.get_execution_nodes(again["execution_id"])
        assert [one["inputs"] for one in found] == [{"one": 3}, {"two": 7}]
    async with serving(tmp_path, new, config=settings) as made:
        with pytest.raises(ExecutionConflict, match="plus"):
            await made.get_execution_nodes(document["execution_id"])


async def test_entries_that_do_not_fit_are_damaged(tmp_path: Path) -> None:
    """A node that could not have run there, or text that is no entry."""
    async with serving(tmp_path, [node("A", "echo", edge="B"), node("B", "echo")]) as made:
        runtime = await made._ready_runtime()
        workflow = made.catalogue.find("Flow")
        plan = await runtime.plan_of(workflow.version, workflow.graph_id)
        for text in ('[1, "B", 1, 0, 0, {}, true, [], 1, null, false]', '[1, "Z", 1, 0, 0]', "{}", "["):
            with pytest.raises(StoreDamaged):
                visits(plan, {}, "e", [Entry("", 2, text)], lambda _: None, ended=True)
