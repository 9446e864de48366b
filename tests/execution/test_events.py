"""What happened in an execution, as events and as its document."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from flows import node, serving
from hypothesis import given
from hypothesis import strategies as st

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.errors import UnknownExecution
from agentmap_asgi.execution.identity import execution_id
from agentmap_asgi.execution.records import stamp
from agentmap_asgi.testing import FakeClock


@agent(inline=True)
def inline(call: Call) -> Any:
    return {"b": 1, "c": 2}


async def waited(call: Call) -> Any:
    return "w"


AGENTS: dict[str, Any] = {"inline": inline, "waited": waited, "thread": lambda call: "t"}

ROWS = [
    node("A", "echo", inputs="x", output="a", edge="B"),
    node("B", "inline", output="b|d", edge="C|D"),
    node("C", "waited", output="e", edge="J"),
    node("D", "thread", output="f", edge="J"),
    node("J", "branching", ok="K", ko="L", context={"when": "x > 1"}),
    node("K", "orchestrator", ko="L", context={"nodes": ["L"]}),
    node("L"),
]


@pytest.mark.anyio
async def test_every_run_of_a_node_is_two_events(tmp_path: Path) -> None:
    """Numbered without gaps from 1: started, then for each node its start and its end, then the end."""
    async with serving(tmp_path, ROWS, agents=AGENTS) as service:
        document = await service.execute_workflow("Flow", {"x": 5})
        events = await service.get_execution_events(document["execution_id"])
    assert [event["sequence"] for event in events] == list(range(1, 2 + 2 * 7 + 1))
    assert (events[0]["event"], events[-1]["event"], events[-1]["error"]) == ("started", "completed", None)
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    ended = {event["node"]: event for event in events if event["event"] == "node_finished"}
    assert list(ended)[:2] == ["A", "B"]
    assert ended["A"]["state_delta"] == {"a": 5}
    assert ended["B"]["state_delta"] == {"b": 1, "d": None, "c": 2}
    assert (ended["C"]["state_delta"], ended["D"]["state_delta"]) == ({"e": "w"}, {"f": "t"})
    taken = {name: event["edge_taken"] for name, event in ended.items()}
    expected = {"A": ["B"], "B": ["C", "D"], "C": ["J"], "D": ["J"], "J": ["K"], "K": ["L"], "L": []}
    assert taken == expected
    assert {name for name, event in ended.items() if event["status"] == "failed"} == {"K"}
    assert ended["K"]["error"]["code"] == "routing_invalid"
    assert ended["K"]["success"] is False
    state: dict[str, Any] = {"x": 5}
    for event in ended.values():
        state |= event["state_delta"]
    assert state == document["result"]
    json.dumps(events)


@pytest.mark.anyio
async def test_times_come_from_the_clock_of_the_context(tmp_path: Path) -> None:
    """Times are RFC 3339 in UTC, durations are seconds of the monotonic clock."""
    clock = FakeClock(start=1_000_000_000.5)

    @agent(inline=True)
    def late(call: Call) -> Any:
        clock.advance(90)

    async with serving(tmp_path, [node("A", "late")], agents={"late": late}, clock=clock) as service:
        document = await service.execute_workflow("Flow", {})
        (finished,) = [
            event
            for event in await service.get_execution_events(document["execution_id"])
            if event["event"] == "node_finished"
        ]
    assert document["created_at"] == document["started_at"] == "2001-09-09T01:46:40.500000Z"
    assert document["completed_at"] == finished["at"] == "2001-09-09T01:48:10.500000Z"
    assert document["execution_time"] == finished["duration_seconds"] == 90.0


@pytest.mark.anyio
async def test_an_unknown_execution_is_said_to_be_unknown(tmp_path: Path) -> None:
    """Status, events and cancellation of an id that does not exist raise UnknownExecution."""
    async with serving(tmp_path, [node("A")]) as service:
        with pytest.raises(UnknownExecution):
            await service.get_execution_status("nope")
        with pytest.raises(UnknownExecution):
            await service.cancel_execution("nope")
        with pytest.raises(UnknownExecution):
            await service.get_execution_events("nope")


@pytest.mark.anyio
async def test_only_the_newest_finished_executions_are_kept(tmp_path: Path) -> None:
    """Past `max_kept` the oldest finished execution is forgotten."""
    async with serving(tmp_path, [node("A")], config={"max_kept": 2}) as service:
        ids = [(await service.execute_workflow("Flow", {}))["execution_id"] for _ in range(3)]
        with pytest.raises(UnknownExecution):
            await service.get_execution_status(ids[0])
        for kept in ids[1:]:
            assert (await service.get_execution_status(kept))["status"] == "completed"
        assert len(await service.list_executions()) == 2


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_a_time_stamp_is_rfc_3339(nanoseconds: int) -> None:
    """Microseconds and Z, always."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", stamp(nanoseconds))


@given(st.integers(0, 2**47 * 1_000_000))
def test_an_execution_id_is_a_version_7_uuid(now: int) -> None:
    """Its first 48 bits are the milliseconds, so ids sort by time."""
    text = execution_id(now)
    made = uuid.UUID(text)
    assert (str(made), made.version, made.variant) == (text, 7, uuid.RFC_4122)
    assert made.int >> 80 == now // 1_000_000
    assert execution_id(now) != text
