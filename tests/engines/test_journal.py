"""What an engine's journal has is not done again, whatever the store has not been told: the seam between the two."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from flows import Row, node, service

from agentmap_asgi import Suspend
from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.engines.engine import Local
from agentmap_asgi.services.agentmap import AgentMapService


class Journal:
    """In memory."""

    def __init__(self, kept: dict[str, str]) -> None:
        self.kept = kept

    def has(self, step: str) -> bool:
        return step in self.kept

    async def outcome(self, step: str, work: Callable[[], Awaitable[str]]) -> str:
        if step not in self.kept:
            self.kept[step] = await work()
        return self.kept[step]


class Engine(Local):
    """The local one, with a journal."""

    def __init__(self, kept: dict[str, str]) -> None:
        self.kept = kept

    def begin(self, run: Any, go: Callable[[], None]) -> None:
        run.journal = Journal(self.kept)
        go()


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  # it looks into another loop's time
        await asyncio.sleep(0.005)


class World:
    """A service whose event loop ends while a node runs, before the store is told anything but the start."""

    def __init__(self, folder: Path, rows: list[Row], *, durability: str = "exit", **agents: Any) -> None:
        self.kept: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.reached = False
        self.may_end = False

        @agent(idempotent=True)
        async def last(call: Call) -> str:
            self.calls["last"] += 1
            self.reached = True
            await until(lambda: self.may_end)
            return "last"

        async def slow(call: Call) -> str:
            self.reached = True
            await asyncio.Event().wait()
            return ""

        async def work(call: Call) -> str:
            self.calls[call.idempotency_key.partition("/")[2]] += 1
            return f"{call.node.name} done"

        config = {"storage_url": f"sqlite:///{folder}/runs.db", "durability": durability, "patrol_seconds": 0.01}
        self.made: AgentMapService = service(
            folder, rows, config=config, agents={"last": last, "slow": slow, "work": work, **agents}
        )
        self.made._engine = lambda runtime: Engine(self.kept)

    def run(self, state: dict[str, Any]) -> str:
        async def until_last() -> str:
            found = await self.made.start_execution("Flow", state)
            await until(lambda: self.reached)
            return str(found["execution_id"])

        return asyncio.run(until_last())

    def again(self, execution_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        async def recovered() -> tuple[dict[str, Any], list[dict[str, Any]]]:
            self.may_end = True
            await self.made.start()
            found = await self.made.until_settled(execution_id, 10)
            events = await self.made.get_execution_events(execution_id)
            await self.made.aclose()
            return found, events

        return asyncio.run(recovered())


def test_what_the_journal_has_is_not_done_again(tmp_path: Path) -> None:
    """Nodes, items and nodes of sub-workflows keep their results; the store is told of them when it goes on."""
    rows = [
        node("A", "work", output="a", edge="M"),
        node("M", "work", output="m", map_over="xs", edge="G"),
        node("G", "graph", output="g", context={"workflow": "::Child"}, edge="L"),
        node("L", "last", output="l"),
        node("C", "work", output="c", graph="Child"),
    ]
    world = World(tmp_path, rows)
    execution = world.run({"xs": [1, 2]})
    assert set(world.kept) == {"A#1", "M#1/0", "M#1/1", "G#1/C#1"}
    found, events = world.again(execution)
    assert (found["status"], found["attempt"]) == ("completed", 2)
    assert world.calls == {"A#1": 1, "M#1/0": 1, "M#1/1": 1, "G#1/C#1": 1, "last": 2}
    assert found["result"]["m"] == ["M done", "M done"]
    assert found["result"]["g"]["c"] == "C done"
    assert [one["node"] for one in events if one["event"] == "node_finished"] == ["A", "M", "G", "L"]


def test_attempts_and_failures_are_told_again(tmp_path: Path) -> None:
    """The events of attempts that failed, and the way that a failure leads, are those of before."""
    tries: Counter[str] = Counter()

    async def flaky(call: Call) -> str:
        tries[call.node.name] += 1
        if call.node.name == "Bad" or tries["Flaky"] < 3:
            raise ValueError(f"try {tries[call.node.name]}")
        return "at last"

    rows = [
        node("Flaky", "flaky", output="a", retry="3", edge="Bad"),
        node("Bad", "flaky", output="b", ko="L"),
        node("L", "last", output="l"),
    ]
    world = World(tmp_path, rows, flaky=flaky)
    execution = world.run({})
    found, events = world.again(execution)
    assert (found["status"], tries) == ("completed", {"Flaky": 3, "Bad": 1})
    retried = [(one["attempt"], one["error"]["message"]) for one in events if one["event"] == "node_retry"]
    assert retried == [(1, "ValueError: try 1"), (2, "ValueError: try 2")]
    failed = next(one for one in events if one["event"] == "node_finished" and one["node"] == "Bad")
    assert (failed["error"]["code"], failed["error"]["message"]) == ("agent_error", "ValueError: try 1")


def test_a_wait_is_asked_once(tmp_path: Path) -> None:
    """An agent that waited is not called again; what it asks is what it asked."""
    asked = 0

    async def ask(call: Call) -> Suspend:
        nonlocal asked
        asked += 1
        return Suspend(f"Question {asked}?", type="choice", options=["a", "b"])

    world = World(tmp_path, [node("S", edge="Ask|L"), node("Ask", "ask", output="x"), node("L", "last")], ask=ask)
    execution = world.run({})
    found, _ = world.again(execution)
    assert (found["status"], asked) == ("suspended", 1)
    assert [(one["prompt"], one["options"]) for one in found["waiting"]] == [("Question 1?", ["a", "b"])]


@pytest.mark.parametrize("known", [True, False])
def test_a_node_that_may_not_run_twice_goes_on_when_its_end_is_known(known: bool, tmp_path: Path) -> None:
    """The store knows that it began; the journal knows how it ended. Without that it is interrupted."""
    world = World(tmp_path, [node("A", "slow", output="l")], durability="sync")
    execution = world.run({})
    if known:
        world.kept["A#1"] = '{"value":[{"l":"kept"},true,null],"attempt":1,"retried":[],"usage":{}}'
    found, _ = world.again(execution)
    assert found["status"] == ("completed" if known else "interrupted")
    assert found["result"] == ({"l": "kept"} if known else {})


def test_what_was_used_is_counted_once(tmp_path: Path) -> None:
    """Tokens of nodes, of items and of failed attempts, also when the store has not heard of them."""
    tries: Counter[str] = Counter()

    async def costly(call: Call) -> str:
        tries[call.idempotency_key] += 1
        call.spend(input_tokens=10)
        if tries[call.idempotency_key] == 1:
            raise ValueError("the first time")
        return "paid"

    rows = [
        node("A", "costly", output="a", retry="2", edge="M"),
        node("M", "costly", output="m", map_over="xs", retry="2", edge="L"),
        node("L", "last"),
    ]
    world = World(tmp_path, rows, costly=costly)
    execution = world.run({"xs": [1, 2]})
    found, events = world.again(execution)
    assert found["usage"] == {"input_tokens": 60, "tokens": 60}
    used = {one["node"]: one["usage"] for one in events if one["event"] == "node_finished"}
    assert used == {"A": {"input_tokens": 20}, "M": {"input_tokens": 40}, "L": {}}


DAMAGED = (
    "",
    "[]",
    "{}",
    '{"value":1,"error":{}}',
    '{"value":5,"attempt":1,"retried":[],"usage":{}}',
    '{"value":[{},true,null],"attempt":1,"retried":[]}',
    '{"wait":{}}',
)


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_record_interrupts(text: str, tmp_path: Path) -> None:
    """What is no outcome is not taken for one; the node is named."""
    world = World(tmp_path, [node("A", "work", output="a", edge="L"), node("L", "last")])
    execution = world.run({})
    assert json.loads(world.kept["A#1"])["value"] == [{"a": "A done"}, True, None]
    world.kept["A#1"] = text
    found, _ = world.again(execution)
    assert (found["status"], found["error"]["node"]) == ("interrupted", "A")
    assert "A#1" in found["error"]["message"]
