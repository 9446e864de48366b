"""What is told to those who watch an execution, and kept nowhere; and what nodes say they have used."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from flows import node, serving

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.execution.live import LONGEST, MOST_EVENTS, Listener, merged
from agentmap_asgi.execution.values import begun
from agentmap_asgi.services.agentmap import AgentMapService

pytestmark = pytest.mark.anyio


class Speaker:
    """Says what it is told to, once somebody listens."""

    def __init__(self, *said: Any) -> None:
        self.said = said
        self.heard = asyncio.Event()

    async def __call__(self, call: Call) -> str:
        await self.heard.wait()
        for method, *values in self.said:
            getattr(call, method)(*values)
        return "".join(values[0] for method, *values in self.said if method == "token")


async def events_of(made: AgentMapService, speaker: Speaker, state: dict[str, Any] | None = None) -> list[Any]:
    """All events of an execution of Flow, of which the reader has been there from the start."""
    started = await made.start_execution("Flow", state or {})
    found = []
    async for event in made.stream_execution(started["execution_id"]):
        found.append(event)
        if event and event["event"] == "node_started":
            speaker.heard.set()
    return [event for event in found if event]


async def test_what_an_agent_says_is_told_in_order(tmp_path: Path) -> None:
    """Between the stored events, without a number, with the place of the node."""
    speaker = Speaker(("report", 0.5, "half"), ("log", "a line\nof two"), ("token", "Hel"), ("token", "lo"))
    async with serving(tmp_path, [node("A", "says", output="a")], agents={"says": speaker}) as made:
        found = await events_of(made, speaker)
        names = [event["event"] for event in found]
        assert names == ["started", "node_started", "progress", "log", "token", "node_finished", "completed"]
        progress, log, token = found[2:5]
        for event in (progress, log, token):
            assert (event["sequence"], event["node"], event["visit"], event["path"]) == (None, "A", 1, "A#1")
        assert (progress["progress"], progress["message"]) == (0.5, "half")
        assert (log["message"], log["fields"]) == ("a line of two", {})
        assert (token["text"], token["offset"], token["attempt"]) == ("Hello", 0, 1)
        document = (await made.list_executions())[0]
        again = [event async for event in made.stream_execution(document["execution_id"])]
        assert [event["event"] for event in again if event] == ["started", "node_started", "node_finished", "completed"]
        assert again == await made.get_execution_events(document["execution_id"])


async def test_agents_in_threads_are_heard(tmp_path: Path) -> None:
    """Their lines come before the end of their node."""
    speaker = Speaker()

    def working(call: Call) -> int:
        for part in range(3):
            call.report(part / 3)
        call.log("done", rows={1, 2}, name="x")
        return 1

    rows = [node("A", "says", edge="B"), node("B", "works")]
    async with serving(tmp_path, rows, agents={"says": speaker, "works": working}) as made:
        found = await events_of(made, speaker)
    names = [event["event"] for event in found]
    assert names[-6:] == ["progress", "progress", "progress", "log", "node_finished", "completed"]
    assert found[-3]["fields"] == {"rows": "{1, 2}", "name": "x"}


async def test_places_in_sub_workflows_and_items(tmp_path: Path) -> None:
    """The path leads to the node through those that run its workflow, and to the item of a list."""
    speaker = Speaker(("report", 1.0))
    rows = [
        node("Sub", "graph", context={"workflow": "::Child"}, edge="Each"),
        node("Each", "says", map_over="list"),
        node("In", "says", graph="Child"),
    ]
    async with serving(tmp_path, rows, agents={"says": speaker}) as made:
        found = await events_of(made, speaker, {"list": [1, 2]})
    assert [event["path"] for event in found if event["event"] == "progress"] == ["Sub#1/In#1", "Each#1/0", "Each#1/1"]


async def test_secrets_are_masked_in_what_is_told(tmp_path: Path) -> None:
    """Also one that comes in pieces; what only looks like its beginning is told when it is clear."""
    speaker = Speaker(
        ("secret", "KEY"),
        ("log", "the key is hunter22"),
        ("token", "it is hun"),
        ("token", "ter2"),
        ("token", "2 or hunt"),
        ("token", "ing, hun"),
    )
    rows = [node("A", "says", output="a")]
    async with serving(tmp_path, rows, agents={"says": speaker}, secrets={"KEY": "hunter22"}) as made:
        found = await events_of(made, speaker)
    assert [event["message"] for event in found if event["event"] == "log"] == ["the key is ***"]
    tokens = [event for event in found if event["event"] == "token"]
    assert "".join(token["text"] for token in tokens) == "it is *** or hunting, hun"
    assert "hunter22" not in str(found)


def test_the_beginning_of_a_secret() -> None:
    """The longest end of a text that a secret begins with."""
    assert [begun(text, "abab") for text in ("", "x", "xa", "xab", "xaba", "abab", "b")] == [0, 0, 1, 2, 3, 2, 0]


def test_a_slow_reader_gets_fewer_events() -> None:
    """Pieces of one text are joined; past a bound the oldest go, which is told; a text that begins anew is another."""
    rings: list[None] = []
    listener = Listener(lambda: rings.append(None))

    def token(text: str, offset: int, path: str = "A#1") -> None:
        listener.put(3, {"event": "token", "path": path, "attempt": 1, "offset": offset, "text": text})

    for number in range(10):
        token("x", number)
    token("y", 0)
    token("z", 0, "B#1")
    assert [event["text"] for _, event in listener.take()] == ["x" * 10, "y", "z"]
    assert len(rings) == 12
    for number in range(3 * LONGEST // 100):
        token("x" * 100, 100 * number)
    assert [len(event["text"]) for _, event in listener.take()] == [LONGEST // 100 * 100 + 100] * 2 + [16300]
    for number in range(MOST_EVENTS + 5):
        listener.put(number, {"event": "progress", "at": "now", "progress": number})
    (after, gap), *rest = listener.take()
    assert (after, gap) == (4, {"sequence": None, "event": "gap", "at": "now", "lost": 5})
    assert [event["progress"] for _, event in rest] == list(range(5, MOST_EVENTS + 5))
    assert listener.take() == []


def test_live_events_stand_where_they_happened() -> None:
    """After the stored event that came before them, as far as that is there."""
    stored = [{"sequence": number} for number in (4, 5, 6)]
    live = [(after, {"sequence": None, "after": after}) for after in (2, 4, 6, 9)]
    order = [event.get("after", event["sequence"]) for event in merged(stored, live)]
    assert order == [2, 4, 4, 5, 6, 6, 9]


@agent(idempotent=True)
async def spending(call: Call) -> str:
    call.spend(requests=1, input_tokens=10, output_tokens=call.attempt)
    if call.attempt < call.options.get("attempts", 1):
        raise RuntimeError("once more")
    return "done"


USING = [
    node("A", "spends", retry="2", context={"attempts": 2}, edge="Sub"),
    node("Sub", "graph", context={"workflow": "::Child"}, edge="Each"),
    node("Each", "spends", map_over="list", output="each", edge="Ask"),
    node("Ask", "suspend", output="answer", edge="Bad"),
    node("Bad", "spends", context={"attempts": 2}),
    node("In", "spends", graph="Child"),
]


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_what_nodes_use_is_counted(tmp_path: Path, durability: str) -> None:
    """Of each node, failed attempts, items and sub-workflows included, and of the execution, over a restart too."""
    settings = {"storage_url": f"sqlite:///{tmp_path}/runs.db", "durability": durability}
    async with serving(tmp_path, USING, agents={"spends": spending}, config=settings) as made:
        asked = await made.execute_workflow("Flow", {"list": [1, 2]})
    assert asked["usage"] == {"requests": 5, "input_tokens": 50, "output_tokens": 6, "tokens": 56}
    async with serving(tmp_path, USING, agents={"spends": spending}, config=settings) as made:
        ended = await made.resume_execution(asked["execution_id"], data="x")
        ended = await made.until_settled(asked["execution_id"], 10)
        assert (ended["status"], ended["usage"]["tokens"]) == ("failed", 67)
        events = await made.get_execution_events(asked["execution_id"])
        used = {event["node"]: event["usage"] for event in events if event["event"] == "node_finished"}
        assert used == {
            "A": {"requests": 2, "input_tokens": 20, "output_tokens": 3},
            "Sub": {"requests": 1, "input_tokens": 10, "output_tokens": 1},
            "Each": {"requests": 2, "input_tokens": 20, "output_tokens": 2},
            "Ask": {},
            "Bad": {"requests": 1, "input_tokens": 10, "output_tokens": 1},
        }
        items = [event["usage"]["requests"] for event in events if event["event"] == "item_finished"]
        assert items == [1, 1]
        again = await made.retry_execution(asked["execution_id"])
        again = await made.until_settled(again["execution_id"], 10)
        assert again["usage"] == {"requests": 1, "input_tokens": 10, "output_tokens": 1, "tokens": 11}


async def test_an_execution_that_uses_nothing_says_so(tmp_path: Path) -> None:
    """With an empty object."""
    async with serving(tmp_path, [node("A", "echo")]) as made:
        assert (await made.execute_workflow("Flow", {}))["usage"] == {}
