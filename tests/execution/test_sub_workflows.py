"""Workflows as nodes of others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from flows import node, run, serving, sheet

from agentmap_asgi.agents.registry import Call
from agentmap_asgi.context import AgentMapContext
from agentmap_asgi.services.agentmap import AgentMapService
from agentmap_asgi.testing import ScriptedAgent

pytestmark = pytest.mark.anyio


async def broken(call: Call) -> Any:
    raise ValueError("broken")


CHILD = [
    node("C1", "echo", inputs="x", output="y", edge="C2", graph="Child"),
    node("C2", prompt="<{y}>", output="z", graph="Child"),
]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"inputs": "", "output": ""}, {}),
        ({"inputs": "", "output": "o"}, {"o": {"x": 1, "other": [2], "y": 1, "z": "<1>"}}),
        ({"inputs": "x", "output": "o"}, {"o": {"x": 1, "y": 1, "z": "<1>"}}),
        ({"inputs": "x=other.0", "output": "o=z"}, {"o": "<2>"}),
        ({"inputs": "x=gone", "output": "o=z"}, {"o": "<{y}>"}),
        ({"inputs": "x:other", "output": "a=y|b=z|c"}, {"a": [2], "b": "<[2]>", "c": None}),
        ({"inputs": "x", "output": "o=gone"}, {}),
        ({"inputs": "x", "output": "y|z"}, {"y": 1, "z": "<1>", "x": 1}),
    ],
)
async def test_what_goes_in_and_comes_out(cells: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    """Input_Fields choose the child's state (empty: all of it), Output_Field what is taken from it."""
    rows = [node("A", "graph", context="{workflow=::Child}", **cells), *CHILD]
    document = await run(tmp_path, rows, {"x": 1, "other": [2]})
    assert document["status"] == "completed"
    assert document["result"] == {"x": 1, "other": [2], **expected}
    assert document["nodes_executed"] == 1


async def test_a_failed_child_fails_its_node(tmp_path: Path) -> None:
    """The child's error is told by the parent's; Failure_Next handles it, and Retry tries the child again."""
    rows = [node("A", "graph", output="o", context="{workflow=::Child}"), node("C", "broken", graph="Child")]
    document = await run(tmp_path, rows, agents={"broken": broken})
    assert (document["error"]["code"], document["error"]["node"]) == ("subworkflow_failed", "A")
    assert "Child ended failed: ValueError: broken" in document["error"]["message"]
    handled = [rows[0] | {"Failure_Next": "H"}, rows[1], node("H", prompt="h", output="h")]
    assert (await run(tmp_path, handled, agents={"broken": broken}))["result"] == {"h": "h"}
    bank = ScriptedAgent(ValueError("once"), "paid")
    again = [node("A", "graph", output="o=c", context="{workflow=::Child}", retry="2"),
             node("C", "bank", output="c", graph="Child")]  # fmt: skip
    assert (await run(tmp_path, again, agents={"bank": bank}))["result"] == {"o": "paid"}


async def test_the_steps_of_a_child_count(tmp_path: Path) -> None:
    """A child that never ends uses up the steps of the whole execution, so nothing handles it."""
    rows = [
        node("A", "graph", context="{workflow=::Child}", ko="H"),
        node("H", prompt="{error}", output="h"),
        node("C", edge="C", graph="Child"),
    ]
    document = await run(tmp_path, rows)
    assert (document["status"], document["error"]["code"]) == ("failed", "step_limit")
    assert "h" not in document["result"]


async def test_the_childs_errors_and_flag_are_its_own(tmp_path: Path) -> None:
    """A handled error of the child is not the parent's; the child's last flag is the node's."""
    rows = [
        node("A", "graph", ok="Y", ko="N", context="{workflow_field=which}"),
        node("Y", "aggregator", inputs="errors", output="yes"),
        node("N", "aggregator", inputs="errors", output="no"),
        node("C", "broken", ko="D", graph="Good"),
        node("D", "success", graph="Good"),
        node("E", "failure", graph="Bad"),
    ]
    for which, expected in (("Good", "yes"), ("Bad", "no"), ("::Bad", "no"), ("flows::Bad", "no")):
        document = await run(tmp_path, rows, {"which": which}, agents={"broken": broken})
        assert document["result"][expected] == {"errors": []}


@pytest.mark.parametrize("which", [None, "", 5, "Nowhere", "::Nowhere", "flows::Nowhere", "Broken", "../flows::Child"])
async def test_a_child_that_cannot_be_run_fails_its_node(which: Any, tmp_path: Path) -> None:
    """A name from the state that is no healthy workflow is a failure, not an error of the call."""
    rows = [node("A", "graph", context="{workflow_field=which}"), *CHILD, node("B", edge="Gone", graph="Broken")]
    document = await run(tmp_path, rows, {"which": which})
    assert (document["status"], document["error"]["code"]) == ("failed", "subworkflow_failed")


async def test_names_are_found_in_the_callers_file_first(tmp_path: Path) -> None:
    """`::Name` and a plain name mean the caller's own file; `file::Name` another; a plain name may be anywhere."""
    main = [
        node("A", "graph", output="a=o", context="{workflow=::Child}", edge="B"),
        node("B", "graph", output="b=o", context="{workflow=Child}", edge="C"),
        node("C", "graph", output="c=o", context="{workflow=other::Child}", edge="D"),
        node("D", "graph", output="d=o", context="{workflow=Only}"),
        node("X", prompt="here", output="o", graph="Child"),
    ]
    other = [
        node("X", prompt="there", output="o", graph="Child"),
        node("Y", "graph", output="o=o", context="{workflow=Child}", graph="Only"),
    ]
    (tmp_path / "main.csv").write_text(sheet(main))
    (tmp_path / "other.csv").write_text(sheet(other))
    service = await anyio.to_thread.run_sync(lambda: AgentMapService(source=tmp_path, context=AgentMapContext()))
    document = await service.execute_workflow("Flow", {})
    await service.aclose()
    assert document["result"] == {"a": "here", "b": "here", "c": "there", "d": "there"}


async def test_parallel_children_do_not_see_each_other(tmp_path: Path) -> None:
    """Two runs of one child side by side keep their own states."""
    arrived: list[Any] = []
    both = asyncio.Event()

    async def meet(call: Call) -> Any:
        arrived.append(call.inputs["x"])
        if len(arrived) == 2:
            both.set()
        await both.wait()
        return call.state

    rows = [
        node("S", edge="A|B"),
        node("A", "graph", inputs="x=l", output="a=seen", context="{workflow=::Child}"),
        node("B", "graph", inputs="x=r", output="b=seen", context="{workflow=::Child}"),
        node("C", "meet", inputs="x", output="seen", graph="Child"),
    ]
    document = await run(tmp_path, rows, {"l": 1, "r": 2}, agents={"meet": meet})
    assert (document["result"]["a"], document["result"]["b"]) == ({"x": 1}, {"x": 2})


async def test_a_child_with_a_timeout_is_ended(tmp_path: Path) -> None:
    """Past its Timeout the child's agents are cancelled."""
    ended = asyncio.Event()

    async def forever(call: Call) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    rows = [
        node("A", "graph", timeout="200ms", ko="H", context="{workflow=::Child}"),
        node("H", prompt="{error}", output="h"),
        node("C", "forever", graph="Child"),
    ]
    document = await run(tmp_path, rows, agents={"forever": forever})
    assert "took longer" in document["result"]["h"]
    assert ended.is_set()


async def test_a_run_keeps_the_versions_it_began_with(tmp_path: Path) -> None:
    """A child that changes on disk while its parent waits is run as it was."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(call: Call) -> Any:
        begun.set()
        await go_on.wait()

    def rows(prompt: str) -> Any:
        return [
            node("A", "wait", edge="B"),
            node("B", "graph", output="b=o", context="{workflow=::Child}"),
            node("C", prompt=prompt, output="o", graph="Child"),
        ]

    async with serving(tmp_path, rows("old"), agents={"wait": wait}) as service:
        call = asyncio.create_task(service.execute_workflow("Flow", {}))
        await begun.wait()
        await anyio.to_thread.run_sync(lambda: (tmp_path / "flows.csv").write_text(sheet(rows("new"))))
        await anyio.to_thread.run_sync(service.catalogue.load)
        go_on.set()
        assert (await call)["result"] == {"b": "old"}
        assert (await service.execute_workflow("Flow", {}))["result"] == {"b": "new"}
