"""Retry, Timeout and Map_Over."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, serving

from agentmap_asgi.agents.registry import Call, Outcome, agent
from agentmap_asgi.testing import ScriptedAgent

pytestmark = pytest.mark.anyio


async def events_of(folder: Path, rows: Any, state: Any = None, **more: Any) -> tuple[dict[str, Any], list[Any]]:
    async with serving(folder, rows, **more) as service:
        document = await service.execute_workflow("Flow", state or {})
        return document, await service.get_execution_events(document["execution_id"])


# Retry.


@pytest.mark.parametrize("retry", ["3", '{"attempts": 3}', '{"attempts": 3, "on": ["error"]}'])
async def test_attempts_are_made_until_one_succeeds(retry: str, tmp_path: Path) -> None:
    """A failed attempt is an event, and the agent is called again with its number."""
    bank = ScriptedAgent(ValueError("one"), ValueError("two"), "done")
    document, events = await events_of(tmp_path, [node("A", "bank", output="a", retry=retry)], agents={"bank": bank})
    assert document["result"] == {"a": "done"}
    assert [call.attempt for call in bank.calls] == [1, 2, 3]
    retries = [(event["attempt"], event["error"]["message"]) for event in events if event["event"] == "node_retry"]
    assert retries == [(1, "ValueError: one"), (2, "ValueError: two")]
    (finished,) = [event for event in events if event["event"] == "node_finished"]
    assert (finished["attempt"], finished["status"]) == (3, "completed")
    assert document["nodes_executed"] == 1


async def test_the_last_failure_counts_when_all_attempts_fail(tmp_path: Path) -> None:
    """After the last attempt the node has failed, with that attempt's error."""
    bank = ScriptedAgent(ValueError("one"), ValueError("two"))
    document, events = await events_of(tmp_path, [node("A", "bank", retry="2")], agents={"bank": bank})
    assert (document["error"]["message"], document["error"]["attempt"]) == ("ValueError: two", 2)
    assert [event["event"] for event in events] == ["started", "node_started", "node_retry", "node_finished", "failed"]


async def test_a_node_without_retry_is_tried_once(tmp_path: Path) -> None:
    """Retry is asked for; the Context key says the same as the column."""
    bank = ScriptedAgent(ValueError("one"), "done", ValueError("three"), "done")
    agents = {"bank": bank}
    assert (await run(tmp_path, [node("A", "bank")], agents=agents))["status"] == "failed"
    bank.calls.clear()
    bank.script = bank.script[2:]
    assert (await run(tmp_path, [node("A", "bank", context={"retry": 2})], agents=agents))["status"] == "completed"


@pytest.mark.parametrize(("on", "attempts"), [(["timeout"], 1), (["error"], 3), (["timeout", "error"], 3)])
async def test_only_the_named_kinds_are_tried_again(on: list[str], attempts: int, tmp_path: Path) -> None:
    """`on` says which failures are worth another attempt."""
    bank = ScriptedAgent(ValueError("no"), repeat=True)
    retry = json.dumps({"attempts": 3, "on": on})
    document = await run(tmp_path, [node("A", "bank", retry=retry)], agents={"bank": bank})
    assert (len(bank.calls), document["error"]["attempt"]) == (attempts, attempts)


async def test_an_invalid_result_is_tried_again(tmp_path: Path) -> None:
    """A result that is no JSON is a failed attempt."""
    results = [{1}, "fine"]

    async def bank(call: Call) -> Any:
        return results[call.attempt - 1]

    document = await run(tmp_path, [node("A", "bank", output="a", retry="2")], agents={"bank": bank})
    assert document["result"] == {"a": "fine"}


async def test_a_limit_is_not_tried_again(tmp_path: Path) -> None:
    """A bound of the execution ends it at once."""
    document, events = await events_of(
        tmp_path, [node("A", "graph", retry="3", context="{workflow=::Flow}")], config={"max_depth": 0}
    )
    assert document["error"]["code"] == "depth_limit"
    assert "node_retry" not in [event["event"] for event in events]


async def test_each_attempt_begins_with_fresh_inputs(tmp_path: Path) -> None:
    """What a failed attempt did to its inputs is gone in the next."""

    async def bank(call: Call) -> Any:
        call.inputs["x"].append(call.attempt)
        if call.attempt < 3:
            raise ValueError
        return call.inputs["x"]

    document = await run(
        tmp_path, [node("A", "bank", inputs="x", output="a", retry="3")], {"x": []}, agents={"bank": bank}
    )
    assert document["result"] == {"x": [], "a": [3]}


async def test_delays_grow_by_backoff_up_to_the_longest(tmp_path: Path) -> None:
    """Each retry event says how long it waits: delay, times backoff, at most max_delay."""
    retry = json.dumps({"attempts": 5, "delay": "1ms", "backoff": 2, "max_delay": "3ms"})
    bank = ScriptedAgent(ValueError("no"), repeat=True)
    _, events = await events_of(tmp_path, [node("A", "bank", retry=retry)], agents={"bank": bank})
    delays = [event["delay_seconds"] for event in events if event["event"] == "node_retry"]
    assert delays == [0.001, 0.002, 0.003, 0.003]


# Timeout.


@pytest.mark.parametrize("timeout", ["10ms", "0.01", "0.01s"])
async def test_an_attempt_past_its_timeout_has_failed(timeout: str, tmp_path: Path) -> None:
    """The agent is cancelled, and the node fails with `timeout`, which Failure_Next handles."""
    cancelled: list[bool] = []

    async def slow(call: Call) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    rows = [node("A", "slow", timeout=timeout, ko="H"), node("H", "aggregator", inputs="error", output="h")]
    document, events = await events_of(tmp_path, rows, agents={"slow": slow})
    assert document["result"]["h"] == {"error": "The attempt took longer than 0.01 s"}
    assert cancelled == [True]
    error = next(event["error"] for event in events if event["event"] == "node_finished")
    assert (error["code"], error["retryable"]) == ("timeout", True)


async def test_a_timeout_is_for_each_attempt(tmp_path: Path) -> None:
    """An attempt that timed out is tried again when `on` allows it."""

    async def slow(call: Call) -> Any:
        if call.attempt == 1:
            await asyncio.Event().wait()
        return call.attempt

    for on, expected in (("timeout", {"a": 2}), ("error", {})):
        retry = json.dumps({"attempts": 2, "on": [on]})
        document = await run(
            tmp_path, [node("A", "slow", output="a", retry=retry, timeout="500ms")], agents={"slow": slow}
        )
        assert document["result"] == expected


async def test_an_attempt_within_its_timeout_is_not_touched(tmp_path: Path) -> None:
    """Results and failures come through a Timeout as they are."""
    bank = ScriptedAgent("fine", ValueError("no"), SystemExit(1))
    rows = [node("A", "bank", output="a", timeout="1h")]
    agents = {"bank": bank}
    assert (await run(tmp_path, rows, agents=agents))["result"] == {"a": "fine"}
    assert (await run(tmp_path, rows, agents=agents))["error"]["message"] == "ValueError: no"
    assert (await run(tmp_path, rows, agents=agents))["error"]["message"] == "SystemExit: 1"


@pytest.mark.parametrize(("idempotent", "calls"), [(False, 1), (True, 2)])
async def test_a_thread_that_timed_out_is_tried_again_only_if_idempotent(
    idempotent: bool, calls: int, tmp_path: Path
) -> None:
    """The first attempt may still be at work, so a second one must be harmless."""
    let_go = threading.Event()
    called: list[int] = []

    @agent(idempotent=idempotent)
    def stuck(call: Call) -> Any:
        called.append(call.attempt)
        let_go.wait(30)

    document = await run(tmp_path, [node("A", "stuck", retry="2", timeout="500ms")], agents={"stuck": stuck})
    let_go.set()
    assert document["error"]["code"] == "timeout"
    assert len(called) == calls


async def test_the_row_may_say_that_it_is_idempotent(tmp_path: Path) -> None:
    """`"idempotent": true` in Context counts like the agent's own word."""
    let_go = threading.Event()
    called: list[int] = []

    def stuck(call: Call) -> Any:
        called.append(call.attempt)
        if call.attempt == 1:
            let_go.wait(30)
        return call.attempt

    rows = [node("A", "stuck", output="a", retry="2", timeout="500ms", context={"idempotent": True})]
    document = await run(tmp_path, rows, agents={"stuck": stuck})
    let_go.set()
    assert document["result"] == {"a": 2}


async def test_policies_stand_around_built_ins_too(tmp_path: Path) -> None:
    """Retry and Timeout on a built-in change nothing about its result."""
    rows = [
        node("A", "branching", inputs="x", retry="2", timeout="1h", ok="B", ko="C"),
        node("B", prompt="{x}", output="o", timeout="1h"),
        node("C"),
    ]
    assert (await run(tmp_path, rows, {"x": "yes"}))["result"] == {"x": "yes", "o": "yes"}


# Map_Over.


class Gate:
    """Counts how many items are at work at once, and lets them go when so many have come."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.now = self.most = 0
        self.open = asyncio.Event()

    async def __call__(self, call: Call) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == self.wanted:
            self.open.set()
        await self.open.wait()
        self.now -= 1
        return call.inputs["item"]


@pytest.mark.parametrize(("concurrency", "expected"), [(None, 10), (1, 1), (3, 3), (50, 25)])
async def test_items_run_side_by_side_up_to_concurrency(concurrency: int | None, expected: int, tmp_path: Path) -> None:
    """As many items at once as `concurrency` says, ten unless it says otherwise; the results are in order."""
    gate = Gate(expected)
    context = {} if concurrency is None else {"concurrency": concurrency}
    rows = [node("A", "gate", output="ys", map_over="xs", context=context)]
    document = await asyncio.wait_for(run(tmp_path, rows, {"xs": list(range(25))}, agents={"gate": gate}), 30)
    assert gate.most == expected
    assert document["result"]["ys"] == list(range(25))


async def test_results_are_in_the_order_of_the_items(tmp_path: Path) -> None:
    """Whoever finishes first, the results come back in order, and each item is an event."""
    last_first = [asyncio.Event() for _ in range(5)]
    last_first[4].set()

    async def backwards(call: Call) -> Any:
        index = call.inputs["index"]
        await last_first[index].wait()
        if index:
            last_first[index - 1].set()
        return [index, call.inputs["item"], call.inputs["also"]]

    rows = [node("A", "backwards", inputs="also", output="ys", map_over="deep.xs")]
    document, events = await events_of(
        tmp_path, rows, {"deep": {"xs": list("abcde")}, "also": "!"}, agents={"backwards": backwards}
    )
    assert document["result"]["ys"] == [[i, c, "!"] for i, c in enumerate("abcde")]
    assert [event["index"] for event in events if event["event"] == "item_finished"] == [4, 3, 2, 1, 0]
    assert "item" not in document["result"]
    assert document["nodes_executed"] == 1


@pytest.mark.parametrize(
    ("mode", "status", "result"),
    [
        ("fail", "failed", None),
        ("skip", "completed", [0, 2]),
        ("collect", "completed", [0, {"error": {"code": "agent_error", "message": "ValueError: odd"}}, 2]),
    ],
)
async def test_on_item_error(mode: str, status: str, result: Any, tmp_path: Path) -> None:
    """A failed item fails the node, is left out, or stands as an error in its place."""

    async def even(call: Call) -> Any:
        if call.inputs["item"] % 2:
            raise ValueError("odd")
        return call.inputs["item"]

    rows = [node("A", "even", output="ys", map_over="xs", context={"on_item_error": mode})]
    document = await run(tmp_path, rows, {"xs": [0, 1, 2]}, agents={"even": even})
    assert document["status"] == status
    assert document["result"].get("ys") == result
    if status == "failed":
        assert document["error"]["message"] == "ValueError: odd"


async def test_a_failed_item_cancels_the_others(tmp_path: Path) -> None:
    """With `fail` the items that still run are cancelled, and those that wait never start."""
    started: list[int] = []
    cancelled: list[int] = []

    async def work(call: Call) -> Any:
        index = call.inputs["index"]
        started.append(index)
        if index == 0:
            raise ValueError("first")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(index)
            raise

    rows = [
        node("A", "work", map_over="xs", context={"concurrency": 2}, ko="H"),
        node("H", prompt="{error}", output="h"),
    ]
    document = await run(tmp_path, rows, {"xs": list(range(5))}, agents={"work": work})
    assert document["result"]["h"] == "ValueError: first"
    assert cancelled == started[1:]
    assert len(started) < 5


@pytest.mark.parametrize(("state", "result"), [({"xs": []}, []), ({"xs": None}, []), ({}, [])])
async def test_nothing_to_map_over(state: dict[str, Any], result: list[Any], tmp_path: Path) -> None:
    """An empty, null or missing list gives an empty list, and the agent is not called."""
    bank = ScriptedAgent()
    document = await run(tmp_path, [node("A", "bank", output="ys", map_over="xs")], state, agents={"bank": bank})
    assert document["result"]["ys"] == result
    assert not bank.calls


@pytest.mark.parametrize("value", ["abc", {"a": 1}, 5, True])
async def test_what_is_no_list_fails_the_node(value: Any, tmp_path: Path) -> None:
    """Map_Over takes a list."""
    document = await run(tmp_path, [node("A", "echo", output="ys", map_over="xs")], {"xs": value})
    assert document["error"]["code"] == "map_over_invalid"


async def test_a_built_in_runs_once_an_item(tmp_path: Path) -> None:
    """Built-ins see `item` and `index` as inputs and in their Prompt."""
    rows = [
        node("A", prompt="{index}:{item.n}/{all}", inputs="all", output="ys", map_over="xs", edge="B"),
        node("B", "echo", inputs="item", output="zs", map_over="ys", edge="C"),
        node("C", "branching", output="big", map_over="ns", context={"when": "item > 1"}),
    ]
    document = await run(tmp_path, rows, {"xs": [{"n": "a"}, {"n": "b"}], "all": 2, "ns": [1, 2]})
    assert document["result"]["ys"] == document["result"]["zs"] == ["0:a/2", "1:b/2"]
    assert document["result"]["big"] == [False, True]


@pytest.mark.parametrize("kind", ["thread", "inline", "class"])
async def test_every_kind_of_agent_maps(kind: str, tmp_path: Path) -> None:
    """Threads, inline functions and classes run once an item too."""

    class Squares:
        def process(self, inputs: dict[str, Any]) -> Any:
            return inputs["item"] ** 2

    agents: dict[str, Any] = {
        "thread": lambda call: call.inputs["item"] ** 2,
        "inline": agent(inline=True)(lambda call: call.inputs["item"] ** 2),
        "class": Squares,
    }
    rows = [node("A", "square", output="ys", map_over="xs")]
    assert (await run(tmp_path, rows, {"xs": [1, 2, 3]}, agents={"square": agents[kind]}))["result"]["ys"] == [1, 4, 9]


async def test_a_sub_workflow_runs_once_an_item(tmp_path: Path) -> None:
    """Each item has a sub-execution of its own."""
    rows = [
        node("A", "graph", inputs="n=item|i=index", output="ys=out", map_over="xs", context="{workflow=::Child}"),
        node("C", prompt="{n}@{i}", output="out", graph="Child"),
    ]
    assert (await run(tmp_path, rows, {"xs": ["a", "b"]}))["result"]["ys"] == ["a@0", "b@1"]


async def test_a_sub_workflow_without_input_fields_has_the_whole_state_and_the_item(tmp_path: Path) -> None:
    """Empty Input_Fields pass the state on, with `item` and `index` beside it."""
    rows = [
        node("A", "graph", output="ys=out", map_over="xs", context="{workflow=::Child}"),
        node("C", "aggregator", inputs="also|item|index", output="out", graph="Child"),
    ]
    document = await run(tmp_path, rows, {"xs": ["a"], "also": 1})
    assert document["result"] == {"xs": ["a"], "also": 1, "ys": [{"also": 1, "item": "a", "index": 0}]}


async def test_retry_and_timeout_are_for_each_item(tmp_path: Path) -> None:
    """One item's failed attempts do not count for another."""
    calls: list[tuple[int, int]] = []

    async def work(call: Call) -> Any:
        calls.append((call.inputs["index"], call.attempt))
        if call.inputs["index"] == 1 and call.attempt == 1:
            raise ValueError
        if call.inputs["index"] == 2 and call.attempt == 1:
            await asyncio.Event().wait()
        return call.attempt

    rows = [node("A", "work", output="ys", map_over="xs", retry="2", timeout="500ms")]
    document = await run(tmp_path, rows, {"xs": [0, 0, 0]}, agents={"work": work})
    assert document["result"]["ys"] == [1, 2, 2]
    assert sorted(calls) == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2)]


async def test_an_outcome_of_an_item_is_its_value(tmp_path: Path) -> None:
    """An item's flag and route do not count; its value does."""

    async def work(call: Call) -> Any:
        return Outcome(call.inputs["item"], success=False)

    rows = [node("A", "work", output="ys", map_over="xs", ok="B"), node("B", prompt="on", output="b")]
    document = await run(tmp_path, rows, {"xs": [1]}, agents={"work": work})
    assert document["result"] == {"xs": [1], "ys": [1], "b": "on"}


# Keys.


async def test_the_idempotency_key_of_a_visit(tmp_path: Path) -> None:
    """The key is root_execution/node#visit[/item]: the same for every attempt, different for every visit and item."""
    keys: list[str] = []

    async def note(call: Call) -> Any:
        keys.append(call.idempotency_key)
        if call.attempt == 1:
            raise ValueError
        return (call.inputs.get("n") or 0) + 1

    rows = [
        node("A", "note", inputs="n", output="n", retry="2", edge="B"),
        node("B", "branching", ok="A", ko="M", context={"when": "n < 2"}),
        node("M", "note", map_over="xs", retry="2", edge="S"),
        node("S", "graph", context="{workflow=::Child}", edge="T"),
        node("T", "graph", map_over="xs", context="{workflow=::Child}"),
        node("C", "note", retry="2", graph="Child"),
    ]
    document = await run(tmp_path, rows, {"xs": [0, 0]}, agents={"note": note})
    assert document["status"] == "completed"
    root = document["execution_id"]
    expected = ["A#1", "A#2", "M#1/0", "M#1/1", "S#1/C#1", "T#1/0/C#1", "T#1/1/C#1"]
    assert sorted(keys) == sorted(2 * [f"{root}/{key}" for key in expected])
