"""What an execution does: lines, branches, joins, failures, functions, fields, cancellation, loops and queues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flows import Row, chain, node, run, service, serving, visited

from agentmap_asgi.agents.registry import Call, Outcome, agent
from agentmap_asgi.errors import InputInvalid, Overloaded, ShuttingDown
from agentmap_asgi.services.agentmap import AgentMapService

pytestmark = pytest.mark.anyio

HANG = 30


async def echoed(call: Call) -> Any:
    await asyncio.sleep(0)
    return next(iter(call.inputs.values()), None)


async def broken(call: Call) -> Any:
    raise ValueError(f"broken {call.node.name}")


@agent(inline=True)
def broken_inline(call: Call) -> Any:
    raise ValueError(f"broken {call.node.name}")


def broken_thread(call: Call) -> Any:
    raise ValueError(f"broken {call.node.name}")


async def refused(call: Call) -> Any:
    return Outcome("no", success=False)


AGENTS: dict[str, Any] = {
    "echoed": echoed,
    "broken": broken,
    "broken_inline": broken_inline,
    "broken_thread": broken_thread,
    "no": refused,
    "thready": lambda call: next(iter(call.inputs.values()), None),
}


class Signals:
    """An agent that says when it has begun and waits to be let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.calls = 0

    async def __call__(self, call: Call) -> Any:
        self.calls += 1
        self.begun.set()
        await self.go_on.wait()
        return call.inputs or "done"


# The way through a workflow.


@pytest.mark.parametrize("kind", ["echo", "echoed", "thready"])
async def test_a_line_runs_from_its_first_row_to_its_end(kind: str, tmp_path: Path) -> None:
    """Each node sees what those before it wrote; the document says what happened."""
    rows = [
        node("A", kind, inputs="x", output="a", edge="B"),
        node("B", kind, inputs="a", output="b", ok="C"),
        node("C", kind, inputs="b", output="x"),
    ]
    async with serving(tmp_path, rows, agents=AGENTS) as made:
        document = await made.execute_workflow("Flow", {"x": [1], "other": None}, {"principal": "ann"})
        assert document["result"] == {"x": [1], "other": None, "a": [1], "b": [1]}
        assert (document["success"], document["status"], document["error"]) == (True, "completed", None)
        assert (document["graph_name"], document["nodes_executed"], document["owner"]) == ("Flow", 3, "ann")
        assert document["created_at"] <= document["started_at"] <= document["completed_at"]
        assert document["execution_time"] >= 0
        assert await made.get_execution_status(document["execution_id"]) == document
        assert await visited(made, document) == ["A", "B", "C"]


@pytest.mark.parametrize("kind", ["default", "echoed", "thready"])
async def test_a_join_runs_once_for_uneven_branches(kind: str, tmp_path: Path) -> None:
    """Branches of unequal length meet in one run; a branch that is not taken is not waited for."""
    rows = [
        node("S", edge="A|B|C"),
        node("A", kind, edge="J"),
        node("B", kind, edge="B2"),
        node("B2", kind, edge="J"),
        node("C", "branching", ok="J", ko="Z", context={"when": "take"}),
        node("J", kind, edge="K"),
        node("K", kind),
        node("Z", kind),
    ]
    async with serving(tmp_path, rows, agents=AGENTS) as made:
        for take in (True, False):
            document = await made.execute_workflow("Flow", {"take": take})
            assert document["status"] == "completed"
            ran = await visited(made, document)
            assert sorted(ran) == sorted(["S", "A", "B", "B2", "C", "J", "K", *([] if take else ["Z"])])
            assert ran.index("J") > max(ran.index(name) for name in ("A", "B2", "C"))


async def test_a_branch_sees_the_state_at_its_fork_and_its_own_writes(tmp_path: Path) -> None:
    """What one branch writes another does not see; the join sees both."""
    first_done = asyncio.Event()

    async def first(call: Call) -> Any:
        first_done.set()
        return "first"

    async def second(call: Call) -> Any:
        await first_done.wait()
        await asyncio.sleep(0)
        return call.state

    rows = [
        node("S", prompt="s", output="s", edge="A|B"),
        node("A", "first", output="a", edge="J"),
        node("B", "second", output="b", edge="J"),
        node("J", "aggregator", inputs="s|a|b", output="j"),
    ]
    document = await run(tmp_path, rows, {"x": 1}, agents={"first": first, "second": second})
    assert document["result"]["j"] == {"s": "s", "a": "first", "b": {"x": 1, "s": "s"}}


@pytest.mark.parametrize("first", ["A", "B"])
async def test_the_later_target_wins_whichever_finished_first(first: str, tmp_path: Path) -> None:
    """When two branches write one field, the order of the routing cell decides, never the clock."""
    done = asyncio.Event()

    async def write(call: Call) -> Any:
        if call.node.name != first:
            await done.wait()
        done.set()
        return call.node.name

    rows = [node("S", edge="A|B"), node("A", "write", output="f"), node("B", "write", output="f")]
    assert (await run(tmp_path, rows, agents={"write": write}))["result"] == {"f": "B"}


async def test_branches_run_at_the_same_time(tmp_path: Path) -> None:
    """Async branches wait for each other here, which only works side by side."""
    arrived: list[str] = []
    all_there = asyncio.Event()

    async def meet(call: Call) -> Any:
        arrived.append(call.node.name)
        if len(arrived) == 3:
            all_there.set()
        await all_there.wait()

    rows = [node("S", edge="A|B|C"), *(node(name, "meet") for name in "ABC")]
    document = await asyncio.wait_for(run(tmp_path, rows, agents={"meet": meet}), HANG)
    assert document["status"] == "completed"


@pytest.mark.parametrize("kind", ["echo", "echoed"])
async def test_a_loop_runs_until_its_condition_ends_it(kind: str, tmp_path: Path) -> None:
    """Cycles are allowed, and visits are counted."""

    @agent(inline=True)
    def inc(call: Call) -> Any:
        return (call.inputs["n"] or 0) + 1

    rows = [
        node("A", "inc", inputs="n", output="n", edge="E"),
        node("E", kind, inputs="n", output="last", edge="B"),
        node("B", "branching", ok="A", context={"when": "n < 5"}),
    ]
    async with serving(tmp_path, rows, agents={**AGENTS, "inc": inc}) as made:
        document = await made.execute_workflow("Flow", {})
        assert document["result"] == {"n": 5, "last": 5}
        events = await made.get_execution_events(document["execution_id"])
        visits = [event["visit"] for event in events if event["event"] == "node_finished" and event["node"] == "A"]
        assert visits == [1, 2, 3, 4, 5]


# Success and failure.

HANDLER = [node("H", prompt="handled", output="h"), node("N", prompt="next", output="n")]

RAISED: list[tuple[str, dict[str, str], str, dict[str, str]]] = [
    ("nothing set", {}, "failed", {}),
    ("Edge only", {"edge": "N"}, "failed", {}),
    ("Success_Next only", {"ok": "N"}, "failed", {}),
    ("Failure_Next", {"ko": "H"}, "completed", {"h": "handled"}),
    ("both sides", {"ok": "N", "ko": "H"}, "completed", {"h": "handled"}),
    ("Edge and Failure_Next", {"edge": "N", "ko": "H"}, "completed", {"h": "handled"}),
    ("continue along Edge", {"edge": "N", "context": "{on_error=continue}"}, "completed", {"n": "next"}),
    ("continue along Success_Next", {"ok": "N", "context": "{on_error=continue}"}, "completed", {"n": "next"}),
    ("continue and end", {"context": "{on_error=continue}"}, "completed", {}),
]


@pytest.mark.parametrize("kind", ["broken", "broken_inline", "broken_thread", "orchestrator"])
@pytest.mark.parametrize(("routes", "status", "result"), [row[1:] for row in RAISED], ids=[row[0] for row in RAISED])
async def test_where_a_raised_error_leads(
    kind: str, routes: dict[str, Any], status: str, result: dict[str, str], tmp_path: Path
) -> None:
    """Failure_Next handles it, with or without Edge; else the execution fails there, unless the row says continue."""
    rows = [node("A", kind, output="a", **routes), *HANDLER]
    async with serving(tmp_path, rows, agents=AGENTS) as made:
        document = await made.execute_workflow("Flow", {"x": 1})
        assert (document["status"], document["result"]) == (status, {"x": 1, **result})
        assert document["success"] is (status == "completed")
        error = document["error"]
        assert (error is None) is (status == "completed")
        if error:
            assert (error["node"], error["source"]) == ("A", {"file": "flows.csv", "row": 2})
        finished = [
            e for e in await made.get_execution_events(document["execution_id"]) if e["event"] == "node_finished"
        ]
        assert (finished[0]["status"], finished[0]["success"], finished[0]["state_delta"]) == ("failed", False, {})
        assert finished[0]["error"]["node"] == "A"
        assert [e["node"] for e in finished[1:]] == finished[0]["edge_taken"]


ANSWERED: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("nothing set", {}, {}),
    ("Edge", {"edge": "N"}, {"n": "next"}),
    ("Edge beats Failure_Next", {"edge": "N", "ko": "H"}, {"n": "next"}),
    ("Failure_Next", {"ko": "H"}, {"h": "handled"}),
    ("one-sided", {"ok": "N"}, {}),
]


@pytest.mark.parametrize("kind", ["no", "failure"])
@pytest.mark.parametrize(("routes", "result"), [row[1:] for row in ANSWERED], ids=[row[0] for row in ANSWERED])
async def test_where_a_no_leads(kind: str, routes: dict[str, Any], result: dict[str, str], tmp_path: Path) -> None:
    """An agent that merely says no has not failed: Edge, else Failure_Next, else that branch ends."""
    document = await run(tmp_path, [node("A", kind, **routes), *HANDLER], agents=AGENTS)
    assert (document["status"], document["result"]) == ("completed", result)


async def test_independent_branches_run_on_after_a_failure(tmp_path: Path) -> None:
    """Nothing downstream of a failure starts, the rest runs to its end, and then the execution has failed."""
    rows = [
        node("S", edge="A|B"),
        node("A", "broken", edge="J"),
        node("B", "echoed", inputs="x", output="b", edge="B2|J"),
        node("B2", "echoed", inputs="b", output="b2"),
        node("J", prompt="j", output="j"),
    ]
    document = await run(tmp_path, rows, {"x": 1}, agents=AGENTS)
    assert (document["status"], document["error"]["node"]) == ("failed", "A")
    assert document["result"] == {"x": 1, "b": 1, "b2": 1}


@pytest.mark.parametrize("first", ["A", "B"])
async def test_the_error_of_the_branch_that_stands_first_is_reported(first: str, tmp_path: Path) -> None:
    """Of several failures the order of the routing cell chooses, whichever came first."""
    done = asyncio.Event()

    async def fail(call: Call) -> Any:
        if call.node.name != first:
            await done.wait()
        done.set()
        raise ValueError(call.node.name)

    rows = [node("S", edge="A|B"), node("A", "fail"), node("B", "fail")]
    assert (await run(tmp_path, rows, agents={"fail": fail}))["error"]["node"] == "A"


@pytest.mark.parametrize(("ko", "flag"), [("N", True), ("", False)])
async def test_the_flag_after_a_join(ko: str, flag: bool, tmp_path: Path) -> None:
    """`last_action_success` after a join is false when any joined branch's last node said no."""
    rows = [
        node("S", edge="A|B"),
        node("A", "failure", ok="J", ko="N" if ko else "J"),
        node("N", edge="J"),
        node("B", edge="J"),
        node("J", "aggregator", inputs="last_action_success", output="j"),
    ]
    assert (await run(tmp_path, rows))["result"]["j"] == {"last_action_success": flag}


# Routing functions.


async def routed(
    folder: Path, cell: str, function: Callable[[dict[str, Any]], Any], kind: str = "default", column: str = "edge"
) -> tuple[dict[str, Any], list[str]]:
    cells: dict[str, Any] = {column: cell}
    rows = [node("S", kind, inputs="x", output="s", **cells), *(node(name) for name in "ABC")]
    async with serving(folder, rows, functions={"f": function}, agents=AGENTS) as made:
        document = await made.execute_workflow("Flow", {"x": 1})
        return document, (await visited(made, document))[1:]


@pytest.mark.parametrize("kind", ["echo", "echoed"])
@pytest.mark.parametrize(
    ("cell", "answer", "nodes"),
    [
        ("func:f(A|B)", "A", ["A"]),
        ("func:f(A|B)", ["A", "B"], ["A", "B"]),
        ("func:f(A|B)", ("B", "B"), ["B"]),
        ("func:f(A|B)", None, []),
        ("func:f(A|B)", [], []),
        ("func:f", "C", ["C"]),
        ("func:f", ["C", "A"], ["C", "A"]),
    ],
)
async def test_a_routing_function_says_where_to_go(
    cell: str, answer: Any, nodes: list[str], kind: str, tmp_path: Path
) -> None:
    """It returns a name, several, or none, among those it declared or, undeclared, any."""
    document, ran = await routed(tmp_path, cell, lambda state: answer, kind)
    assert (document["status"], ran) == ("completed", nodes)


def unreachable(state: dict[str, Any]) -> Any:
    raise ZeroDivisionError("no way")


@pytest.mark.parametrize("kind", ["echo", "echoed", "broken", "broken_inline"])
@pytest.mark.parametrize(
    ("cell", "function", "code", "message"),
    [
        ("func:f(A|B)", lambda state: "C", "routing_invalid", "does not list"),
        ("func:f", lambda state: "Z", "routing_invalid", "no node"),
        ("func:f(A|B)", lambda state: 5, "routing_invalid", "must return node names"),
        ("func:f(A|B)", lambda state: ["A", None], "routing_invalid", "must return node names"),
        ("func:f(A|B)", lambda state: {"A": 1}, "routing_invalid", "must return node names"),
        ("func:f(A|B)", lambda state: True, "routing_invalid", "must return node names"),
        ("func:f(A|B)", unreachable, "agent_error", "no way"),
    ],
)
async def test_a_wrong_answer_of_a_routing_function_fails_the_node(
    cell: str, function: Callable[[dict[str, Any]], Any], code: str, message: str, kind: str, tmp_path: Path
) -> None:
    """An answer that is no declared node, or an exception, is a failure of the node it stands on."""
    column = "ko" if kind.startswith("broken") else "ok"
    document, ran = await routed(tmp_path, cell, function, kind, column)
    assert (document["status"], ran) == ("failed", [])
    assert (document["error"]["code"], document["error"]["node"]) == (code, "S")
    assert message in document["error"]["message"]


@pytest.mark.parametrize("kind", ["echo", "echoed"])
async def test_a_routing_function_sees_the_state_with_the_nodes_own_result(kind: str, tmp_path: Path) -> None:
    """It gets a copy of the state as the node left it."""
    seen: list[Any] = []

    def look(state: dict[str, Any]) -> Any:
        seen.append(dict(state))
        state.clear()
        return "A"

    document, _ = await routed(tmp_path, "func:f(A)", look, kind)
    assert seen == [{"x": 1, "s": 1}]
    assert document["result"] == {"x": 1, "s": 1}


@pytest.mark.parametrize("kind", ["echo", "echoed"])
async def test_a_node_whose_routing_function_fails_has_no_result(kind: str, tmp_path: Path) -> None:
    """The event of a failed node and the state agree: nothing was written."""
    document, _ = await routed(tmp_path, "func:f(A)", unreachable, kind)
    assert document["result"] == {"x": 1}


# Fields.


@pytest.mark.parametrize(
    ("output", "result", "expected"),
    [
        ("", {"a": 1}, {}),
        ("a", {"a": 1}, {"a": {"a": 1}}),
        ("a", None, {}),
        ("a|b", {"a": 1}, {"a": 1, "b": None}),
        ("a|b", {"b": 2, "c": 3}, {"a": None, "b": 2, "c": 3}),
        ("a|b", [1, 2], {"a": [1, 2], "b": None}),
        ("a|b", None, {"a": None, "b": None}),
        ("a|b", {}, {"a": None, "b": None}),
        ("a", {"state_updates": {"b": 1, "c": {"d": 2}}}, {"b": 1, "c": {"d": 2}}),
        ("", {"state_updates": {"b": 1}}, {"b": 1}),
        ("a", {"state_updates": {}}, {}),
        ("a", {"state_updates": 5}, {"a": {"state_updates": 5}}),
        ("a", {"state_updates": {"b": 1}, "more": 2}, {"a": {"state_updates": {"b": 1}, "more": 2}}),
    ],
)
async def test_what_an_output_field_takes(output: str, result: Any, expected: dict[str, Any], tmp_path: Path) -> None:
    """One name takes the result, several take its keys, and `state_updates` is merged as given."""

    async def give(call: Call) -> Any:
        return result

    assert (await run(tmp_path, [node("A", "give", output=output)], agents={"give": give}))["result"] == expected


@pytest.mark.parametrize(
    ("mode", "result", "status"),
    [
        ("ignore", {"a": 1, "c": 3}, "completed"),
        ("warn", {"a": 1, "c": 3}, "completed"),
        ("error", {"a": 1, "b": 2}, "completed"),
        ("error", {"a": 1}, "failed"),
        ("error", {"a": 1, "b": 2, "c": 3}, "failed"),
    ],
)
async def test_output_validation(mode: str, result: Any, status: str, tmp_path: Path) -> None:
    """With `error` a result must have exactly the keys of Output_Field."""

    async def give(call: Call) -> Any:
        return result

    rows = [node("A", "give", output="a|b", context={"output_validation": mode})]
    document = await run(tmp_path, rows, agents={"give": give})
    assert document["status"] == status
    if status == "failed":
        assert (document["error"]["code"], document["result"]) == ("result_invalid", {})


async def test_state_updates_may_set_the_flag(tmp_path: Path) -> None:
    """`last_action_success` among the updates routes, and is not stored."""

    async def give(call: Call) -> Any:
        return {"state_updates": {"last_action_success": call.inputs["good"], "u": 1}}

    rows = [node("A", "give", inputs="good", ok="Y", ko="N"), node("Y", prompt="y", output="o"), node("N")]
    for good in (True, False):
        document = await run(tmp_path, rows, {"good": good}, agents={"give": give})
        assert document["result"] == {"good": good, "u": 1, **({"o": "y"} if good else {})}


async def test_special_names_are_readable_and_never_stored(tmp_path: Path) -> None:
    """The execution's own facts can be inputs, and stand in prompts and conditions."""
    names = "last_action_success|errors|error|execution_id|graph_name|node_name"
    rows = [
        node("A", "broken", ko="B"),
        node("B", "aggregator", inputs=names, output="facts", edge="C"),
        node("C", prompt="{graph_name}/{node_name}/{last_action_success}/{errors.0}", output="text", edge="D"),
        node("D", "branching", ok="E", ko="F", context={"when": "'broken A' in error and node_name == 'D'"}),
        node("E", prompt="yes", output="went"),
        node("F", prompt="no", output="went"),
    ]
    document = await run(tmp_path, rows, agents=AGENTS)
    assert document["result"] == {
        "facts": {
            "last_action_success": False,
            "errors": ["ValueError: broken A"],
            "error": "ValueError: broken A",
            "execution_id": document["execution_id"],
            "graph_name": "Flow",
            "node_name": "B",
        },
        "text": "Flow/C/true/ValueError: broken A",
        "went": "yes",
    }


@pytest.mark.parametrize("name", ["errors", "error", "last_action_success", "execution_id", "graph_name", "node_name"])
async def test_special_names_are_refused_from_outside(name: str, tmp_path: Path) -> None:
    """Neither a caller nor a result can set them."""

    async def give(call: Call) -> Any:
        return {"a": 1, name: 2}

    async with serving(tmp_path, [node("A", "give", output="a|b")], agents={"give": give}) as made:
        with pytest.raises(InputInvalid, match=name):
            await made.execute_workflow("Flow", {name: 1})
        assert (await made.execute_workflow("Flow", {}))["error"]["code"] == "result_invalid"


# Ending, and being ended.


async def test_the_caller_may_go_away(tmp_path: Path) -> None:
    """Cancelling the call does not end the execution."""
    agent_ = Signals()
    async with serving(tmp_path, [node("A", "wait", output="a")], agents={"wait": agent_}) as made:
        call = asyncio.create_task(made.execute_workflow("Flow", {}))
        await agent_.begun.wait()
        (ours,) = list(made._runtime().running)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await made.get_execution_status(ours.id))["status"] == "running"
        agent_.go_on.set()
        await ours.wait()
        assert (await made.get_execution_status(ours.id))["result"] == {"a": "done"}


@pytest.mark.parametrize("rows", ["line", "branches", "map", "child", "retry", "timeout"])
async def test_cancelled_is_cancelled(rows: str, tmp_path: Path) -> None:
    """`cancel_execution` ends an execution wherever it stands; its agents see it, and what they return is dropped."""
    begun = asyncio.Event()
    going: set[str] = set()

    async def work(call: Call) -> Any:
        going.add(call.idempotency_key)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            going.discard(call.idempotency_key)
            return "late"

    flows: dict[str, list[Row]] = {
        "line": [node("A", "work", output="a", edge="B", ko="B"), node("B", prompt="b", output="b")],
        "branches": [node("A", edge="B|C"), node("B", "work", output="b"), node("C", "work", output="c")],
        "map": [node("A", "work", output="a", map_over="xs", ko="B"), node("B", prompt="b", output="b")],
        "child": [node("A", "graph", output="a", ko="B", context="{workflow=::Child}"), node("B", output="b")],
        "retry": [node("A", "work", output="a", retry="3")],
        "timeout": [node("A", "work", output="a", timeout="1h", retry="3", ko="B"), node("B", output="b")],
    }
    child = [node("C", "work", output="c", graph="Child")]
    async with serving(tmp_path, [*flows[rows], *child], agents={"work": work}) as made:
        call = asyncio.create_task(made.execute_workflow("Flow", {"xs": [1, 2]}))
        await begun.wait()
        (ours,) = list(made._runtime().running)
        document = await asyncio.wait_for(made.cancel_execution(ours.id), HANG)
        assert (document["status"], document["success"]) == ("cancelled", False)
        assert (document["error"]["code"], document["result"]) == ("cancelled", {"xs": [1, 2]})
        assert await asyncio.wait_for(call, HANG) == document
        assert not going
        assert await made.cancel_execution(ours.id) == document
        assert made.readiness()["running"] == 0
        assert [e["event"] for e in await made.get_execution_events(ours.id)][-1] == "cancelled"


async def test_a_finished_execution_is_not_cancelled(tmp_path: Path) -> None:
    """Cancelling what has ended changes nothing."""
    async with serving(tmp_path, [node("A")]) as made:
        document = await made.execute_workflow("Flow", {})
        assert await made.cancel_execution(document["execution_id"]) == document


async def test_a_queue_of_executions(tmp_path: Path) -> None:
    """Past `max_running` executions wait in order, past `max_queued` they are refused; a queued one can be ended."""
    order: list[int] = []
    go_on = asyncio.Event()

    async def work(call: Call) -> Any:
        order.append(call.inputs["n"])
        await go_on.wait()

    config = {"max_running": 2, "max_queued": 3}
    async with serving(tmp_path, [node("A", "work", inputs="n")], config=config, agents={"work": work}) as made:
        calls = [asyncio.create_task(made.execute_workflow("Flow", {"n": n})) for n in range(5)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == [0, 1]
        assert (made.readiness()["running"], made.readiness()["queued"]) == (2, 3)
        with pytest.raises(Overloaded):
            await made.execute_workflow("Flow", {"n": 99})
        queued = list(made._runtime()._queue)[1]
        status = await made.get_execution_status(queued.id)
        assert (status["status"], status["started_at"], status["success"]) == ("queued", None, None)
        assert (await made.cancel_execution(queued.id))["status"] == "cancelled"
        go_on.set()
        documents = await asyncio.wait_for(asyncio.gather(*calls), HANG)
        assert [document["status"] for document in documents] == [*["completed"] * 3, "cancelled", "completed"]
        assert order == [0, 1, 2, 4]


async def test_sub_workflows_run_in_their_parents_slot(tmp_path: Path) -> None:
    """One slot is enough for any depth."""
    rows = [
        node("A", "graph", output="a=c", context="{workflow=::Child}"),
        node("C", "echoed", inputs="x", output="c", graph="Child"),
    ]
    document = await asyncio.wait_for(run(tmp_path, rows, {"x": 1}, config={"max_running": 1}, agents=AGENTS), HANG)
    assert document["result"]["a"] == 1


async def test_closing_lets_executions_end_in_their_grace(tmp_path: Path) -> None:
    """`aclose` takes nothing more on, waits for what runs, and ends what waits."""
    agent_ = Signals()
    rows = [node("A", "wait", output="a")]
    async with serving(tmp_path, rows, config={"max_running": 1}, agents={"wait": agent_}) as made:
        first = asyncio.create_task(made.execute_workflow("Flow", {}))
        second = asyncio.create_task(made.execute_workflow("Flow", {}))
        await agent_.begun.wait()
        closing = asyncio.create_task(made.aclose())
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await made.execute_workflow("Flow", {})
        assert not made.readiness()["ready"]
        agent_.go_on.set()
        await asyncio.wait_for(closing, HANG)
        assert (await first)["status"] == "completed"
        assert (await second)["status"] == "cancelled"
        assert agent_.calls == 1
        assert (await made.execute_workflow("Flow", {}))["status"] == "completed"


async def test_closing_ends_what_outlives_the_grace(tmp_path: Path) -> None:
    """Past `shutdown_grace` executions are cancelled."""
    agent_ = Signals()
    config = {"shutdown_grace": 0.01}
    async with serving(tmp_path, [node("A", "wait")], config=config, agents={"wait": agent_}) as made:
        call = asyncio.create_task(made.execute_workflow("Flow", {}))
        await agent_.begun.wait()
        await asyncio.wait_for(made.aclose(), HANG)
        assert (await call)["status"] == "cancelled"


async def test_closing_without_a_start_is_fine(tmp_path: Path) -> None:
    """`aclose` may be called at any time, and again."""
    async with serving(tmp_path, [node("A")]) as made:
        await made.aclose()
        await made.start()
        await made.aclose()
        await made.aclose()


# Event loops.


async def once(made: AgentMapService) -> dict[str, Any]:
    return await made.execute_workflow("Flow", {"x": 1})


@pytest.fixture
def made(tmp_path: Path) -> AgentMapService:
    """A service that is used outside any test loop."""
    rows = [node("A", "echoed", inputs="x", output="a", edge="B"), node("B", "thready", inputs="a", output="b")]
    return service(tmp_path, [*rows, *chain(3, graph="Inline")], agents=AGENTS)


def test_a_service_works_in_one_loop_after_the_other(made: AgentMapService) -> None:
    """Each event loop has its own runtime; closing the service is not needed between them."""
    for _ in range(3):
        assert asyncio.run(once(made))["result"] == {"x": 1, "a": 1, "b": 1}
    assert len(made._runtimes) == 1


def test_executions_of_a_loop_that_closed_have_ended(tmp_path: Path) -> None:
    """What a closing loop leaves behind is terminal, and the next loop starts afresh."""
    agent_: list[Signals] = []

    async def wait(call: Call) -> Any:
        return await agent_[-1](call)

    left = service(tmp_path, [node("A", "wait")], agents={"wait": wait})

    async def leave() -> str:
        agent_.append(Signals())
        call = asyncio.create_task(left.execute_workflow("Flow", {}))
        await agent_[-1].begun.wait()
        (ours,) = list(left._runtime().running)
        del call
        return ours.id

    async def look(execution_id: str) -> dict[str, Any]:
        await left.start()
        return await left.get_execution_status(execution_id)

    first = asyncio.run(leave())
    status = asyncio.run(look(first))
    assert status["status"] in ("cancelled", "interrupted")
    assert status["success"] is False
    assert left._runtimes.popitem()[1].running == set()


def test_a_loop_that_is_closed_without_a_word_interrupts_its_executions(tmp_path: Path) -> None:
    """When nobody cancels the tasks of a loop, its executions are interrupted when the next loop begins."""
    left = service(tmp_path, [node("A", "wait")], agents={"wait": Signals()})
    loop = asyncio.new_event_loop()
    call = loop.create_task(left.execute_workflow("Flow", {}))
    for _ in range(5):
        loop.call_soon(loop.stop)
        loop.run_forever()
    (ours,) = list(left._runtimes[loop].running)
    for task in (call, *ours.tasks):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # destroyed on purpose
    loop.close()

    async def look() -> dict[str, Any]:
        await left.start()
        return await left.get_execution_status(ours.id)

    status = asyncio.run(look())
    assert (status["status"], status["error"]["code"], status["error"]["retryable"]) == (
        "interrupted",
        "interrupted",
        True,
    )
