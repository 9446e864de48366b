"""Executions that wait for answers: what is asked, which answers fit, what happens meanwhile and after."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from flows import Row, node, service, serving, visited, write

from agentmap_asgi import Suspend
from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.errors import AnswerGone, ExecutionConflict, InputInvalid, RequestRefused
from agentmap_asgi.execution.waits import Answer
from agentmap_asgi.services.agentmap import AgentMapService
from agentmap_asgi.testing import FakeClock, ScriptedAgent

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).parent / "answering.py"
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"


def kept(url: str, **more: Any) -> dict[str, Any]:
    """Settings: this store, and an eager patrol."""
    return {"storage_url": url, "patrol_seconds": 0.01, **more}


async def at_rest(made: AgentMapService, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document when the execution has ended, or only waits."""
    while True:
        found = await made.wait_for_execution(document["execution_id"], 10)
        if found["status"] not in ("queued", "running"):
            return found


async def answered(
    made: AgentMapService, document: Mapping[str, Any], action: str = "answer", data: Any = None, **more: Any
) -> dict[str, Any]:
    return await at_rest(made, await made.resume_execution(document["execution_id"], action, data, **more))


def paths(document: Mapping[str, Any]) -> list[str]:
    return [wait["path"] for wait in document["waiting"]]


FORM = {
    "type": "object",
    "properties": {"days": {"type": "integer", "minimum": 1}, "why": {"enum": ["rest", "work"]}},
    "required": ["days"],
    "additionalProperties": False,
}
ANSWERS: list[tuple[str, dict[str, Any], tuple[str, Any], Any]] = [
    ("human", {}, ("approve", None), {"approved": True, "comment": None, "by": "ada"}),
    ("human", {"type": "approval"}, ("reject", {"comment": "no"}), {"approved": False, "comment": "no", "by": "ada"}),
    ("human", {"type": "approval"}, ("approve", "go"), {"approved": True, "comment": "go", "by": "ada"}),
    ("human", {"type": "choice", "options": ["red", "green"]}, ("answer", "green"), "green"),
    ("human", {"interaction_type": "CHOICE", "options": "red|green"}, ("answer", "red"), "red"),
    ("human", {"type": "text_input"}, ("answer", "Hello"), "Hello"),
    ("human", {"type": "edit"}, ("answer", {"lines": [1]}), {"lines": [1]}),
    ("human", {"type": "form", "form": FORM}, ("answer", {"days": 3}), {"days": 3}),
    ("suspend", {}, ("answer", [1, {"a": None}]), [1, {"a": None}]),
    ("suspend", {"form": {"type": "number"}}, ("answer", 2.5), 2.5),
    ("input", {}, ("answer", 0), 0),
    ("input", {"form": {"type": "string"}}, ("answer", "x"), "x"),
]


@pytest.mark.parametrize(("kind", "context", "answer", "expected"), ANSWERS)
async def test_an_answer_becomes_the_result(
    kind: str, context: dict[str, Any], answer: tuple[str, Any], expected: Any, url: str, tmp_path: Path
) -> None:
    """The execution stands until then, shows what it asks, and goes on with the answer."""
    rows = [
        node("Ask", kind, prompt="For {x}?", inputs="x", output="a", context=context, ok="End", ko="End"),
        node("End", "echo", inputs="a", output="copy"),
    ]
    async with serving(tmp_path, rows, config=kept(url)) as made:
        document = await made.execute_workflow("Flow", {"x": "it"})
        assert (document["status"], document["success"], document["result"]) == ("suspended", None, {"x": "it"})
        (wait,) = document["waiting"]
        assert (wait["path"], wait["node"], wait["prompt"]) == ("Ask#1", "Ask", "For it?")
        assert wait["value"] == ("it" if context.get("type") == "edit" else None)
        assert document["thread_id"] == document["execution_id"]
        assert document["interrupt_info"] == {"type": wait["type"], "node": "Ask", "prompt": "For it?"}
        done = await answered(made, document, *answer, by="ada")
        assert (done["status"], done["result"]) == ("completed", {"x": "it", "a": expected, "copy": expected})
        assert "waiting" not in done
        names = [event["event"] for event in await made.get_execution_events(done["execution_id"])]
        assert names[:5] == ["started", "node_started", "suspended", "resumed", "node_finished"]
        assert await visited(made, done) == ["Ask", "End"]


REFUSED: list[tuple[str, dict[str, Any], tuple[str, Any], str, str]] = [
    ("human", {}, ("answer", True), "/action", "approve or reject"),
    ("human", {}, ("approve", {"comment": 5}), "/data", "comment of an approval is a text"),
    ("human", {"type": "choice", "options": ["red", "green"]}, ("answer", "blue"), "/data", "red, green"),
    ("human", {"type": "choice", "options": ["red"]}, ("approve", None), "/action", "action answer"),
    ("human", {"type": "text_input"}, ("answer", 5), "/data", "a text"),
    ("human", {"type": "form", "form": FORM}, ("answer", []), "/data", "an object"),
    ("human", {"type": "form", "form": FORM}, ("answer", {}), "/data", "lacks days"),
    ("human", {"type": "form", "form": FORM}, ("answer", {"days": "x"}), "/data/days", 'says type: "integer"'),
    ("human", {"type": "form", "form": FORM}, ("answer", {"days": 1, "why": 1}), "/data/why", '["rest", "work"]'),
    ("human", {"type": "form", "form": FORM}, ("answer", {"days": 1, "a": 1}), "/data", "no other fields than days"),
    ("suspend", {}, ("reject", None), "/action", "action answer"),
    ("suspend", {}, ("sing", None), "/action", "answer, approve, reject or cancel"),
    ("suspend", {}, ("answer", {1: 2}), "/data", "keys must be strings"),
    ("input", {}, ("answer", None), "/data", "not null"),
]


@pytest.mark.parametrize(("kind", "context", "answer", "pointer", "said"), REFUSED)
async def test_an_answer_that_does_not_fit_is_refused(
    kind: str, context: dict[str, Any], answer: tuple[str, Any], pointer: str, said: str, url: str, tmp_path: Path
) -> None:
    """The error points at the place, says what would fit, and nothing has happened."""
    rows = [node("Ask", kind, output="a", context=context)]
    async with serving(tmp_path, rows, config=kept(url)) as made:
        document = await made.execute_workflow("Flow", {})
        with pytest.raises(InputInvalid) as caught:
            await made.resume_execution(document["execution_id"], *answer)
        assert said in caught.value.message
        assert pointer in [error["pointer"] for error in caught.value.errors]
        assert await made.get_execution_status(document["execution_id"]) == document


async def test_input_asks_only_for_what_is_missing(url: str, tmp_path: Path) -> None:
    """One of several fields is missing: all are asked for, the known ones are shown, and nothing else is written."""
    rows = [node("Ask", "input", prompt="Who?", output="name|town")]
    async with serving(tmp_path, rows, config=kept(url)) as made:
        assert (await made.execute_workflow("Flow", {"name": None, "town": "Bern"}))["status"] == "completed"
        document = await made.execute_workflow("Flow", {"town": "Bern", "rank": 1})
        (wait,) = document["waiting"]
        assert (wait["type"], wait["value"], wait["form"]["required"]) == ("input", {"town": "Bern"}, ["name", "town"])
        for data in ({"name": "Ada"}, {"name": "Ada", "town": "Bern", "rank": 9}, "Ada"):
            with pytest.raises(InputInvalid):
                await made.resume_execution(document["execution_id"], data=data)
        done = await answered(made, document, data={"name": "Ada", "town": "Basel"})
        assert done["result"] == {"name": "Ada", "town": "Basel", "rank": 1}


@pytest.mark.parametrize(("action", "way"), [("approve", "yes"), ("reject", "no")])
async def test_a_rejection_is_a_no(action: str, way: str, url: str, tmp_path: Path) -> None:
    """It goes to Failure_Next, and the flag is false there; the execution is completed nevertheless."""
    rows = [
        node("Ask", "human", output="a", ok="Y", ko="N"),
        node("Y", "aggregator", inputs="last_action_success", output="yes"),
        node("N", "aggregator", inputs="last_action_success", output="no"),
    ]
    async with serving(tmp_path, rows, config=kept(url)) as made:
        done = await answered(made, await made.execute_workflow("Flow", {}), action)
        assert done["success"] is True
        assert done["result"][way] == {"last_action_success": way == "yes"}
        assert await visited(made, done) == ["Ask", way[0].upper()]


async def test_parallel_waits_are_independent(url: str, tmp_path: Path) -> None:
    """Other branches run on meanwhile, each wait has its own answer, and the join runs once, after all."""
    go = asyncio.Event()

    async def work(call: Call) -> Any:
        await go.wait()
        return "worked"

    rows = [
        node("S", edge="A|B|W"),
        node("A", "human", output="a", edge="J"),
        node("B", "suspend", output="b", edge="J"),
        node("W", "work", output="w", edge="J"),
        node("J", "aggregator", inputs="a.approved|b|w", output="all"),
    ]
    async with serving(tmp_path, rows, config=kept(url), agents={"work": work}) as made:
        started = await made.start_execution("Flow", {})
        with pytest.raises(ExecutionConflict, match="A#1, B#1"):
            await made.resume_execution(started["execution_id"], "approve")
        with pytest.raises(ExecutionConflict, match="Nothing waits at 'C'; open waits: A#1, B#1"):
            await made.resume_execution(started["execution_id"], node="C")
        early = await made.resume_execution(started["execution_id"], "approve", node="A")
        assert (early["status"], paths(early)) == ("running", ["B#1"])
        go.set()
        document = await at_rest(made, started)
        assert (document["status"], paths(document)) == ("suspended", ["B#1"])
        assert {name: document["result"][name] for name in ("w",)} == {"w": "worked"}
        assert document["result"]["a"]["approved"] is True
        with pytest.raises(ExecutionConflict, match="Nothing waits at 'A'"):
            await made.resume_execution(started["execution_id"], "approve", node="A")
        done = await answered(made, document, data=5, node="B#1")
        assert done["result"]["all"] == {"a.approved": True, "b": 5, "w": "worked"}
        assert Counter(await visited(made, done)) == Counter("SABWJ")


NESTED = [
    node("G", "graph", inputs="x", output="x", context="{workflow=::Middle}", edge="Z"),
    node("Z", prompt="end", output="z"),
    node("M0", "count", output="m", edge="M", graph="Middle"),
    node("M", "graph", inputs="x", output="x", context="{workflow=::Inner}", graph="Middle"),
    node("I0", "count", output="i", edge="I", graph="Inner"),
    node("I", "human", prompt="{x}?", output="said", ok="E", ko="E", graph="Inner"),
    node("E", "count", output="e", graph="Inner"),
]


async def test_a_wait_two_workflows_down(url: str, tmp_path: Path) -> None:
    """It is shown and answered in the execution under its path; nothing that had run there runs again."""
    count = ScriptedAgent(1, 2, 3)
    async with serving(tmp_path, NESTED, config=kept(url), agents={"count": count}) as made:
        document = await made.execute_workflow("Flow", {"x": "x"})
        assert (document["status"], paths(document)) == ("suspended", ["G#1/M#1/I#1"])
        assert document["waiting"][0]["prompt"] == "x?"
        done = await answered(made, document, "approve", "fine", by="ada", node="I")
        said = {"approved": True, "comment": "fine", "by": "ada"}
        assert done["result"]["x"] == {"x": {"x": "x", "i": 2, "said": said, "e": 3}, "m": 1}
        assert (done["result"]["z"], len(count.calls)) == ("end", 3)
        names = [(event["event"], event.get("node")) for event in await made.get_execution_events(done["execution_id"])]
        assert names == [
            ("started", None), ("node_started", "G"), ("suspended", "G"), ("resumed", "G"), ("node_finished", "G"),
            ("node_started", "Z"), ("node_finished", "Z"), ("completed", None),
        ]  # fmt: skip


async def test_waits_of_several_sub_workflows_are_answered_one_after_the_other(url: str, tmp_path: Path) -> None:
    """The second answer may come while the first one is being taken; nothing is lost between."""
    rows = [
        node("S", edge="A|B|C"),
        *(node(name, "graph", output=f"{name}=y", context="{workflow=::Child}") for name in "ABC"),
        node("Q", "suspend", output="y", graph="Child"),
    ]
    async with serving(tmp_path, rows, config=kept(url)) as made:
        document = await made.execute_workflow("Flow", {})
        assert sorted(paths(document)) == ["A#1/Q#1", "B#1/Q#1", "C#1/Q#1"]
        first = await made.resume_execution(document["execution_id"], data=1, node="A#1/Q#1")
        assert sorted(paths(first)) == ["B#1/Q#1", "C#1/Q#1"]
        others = [made.resume_execution(document["execution_id"], data=n, node=f"{n}#1/Q#1") for n in "BC"]
        await asyncio.gather(*others)
        done = await at_rest(made, document)
        assert (done["status"], done["result"]) == ("completed", {"A": 1, "B": "B", "C": "C"})


async def test_an_answer_at_the_very_moment_of_the_question(url: str, tmp_path: Path) -> None:
    """The node that runs a sub-workflow need not have seen yet that this one waits."""
    rows = [
        node("S", edge="A|B"),
        node("A", "graph", output="a=y", context="{workflow=::Child}"),
        node("B", "later", output="b"),
        node("Q", "suspend", output="y", graph="Child"),
    ]
    go = asyncio.Event()

    async def later(call: Call) -> Any:
        await go.wait()

    async with serving(tmp_path, rows, config=kept(url), agents={"later": later}) as made:
        started = await made.start_execution("Flow", {})
        run = made._runtime().live[started["execution_id"]]
        while not run.open:
            await asyncio.sleep(0)
        await made.resume_execution(started["execution_id"], data=7)
        go.set()
        done = await at_rest(made, started)
        assert (done["status"], done["result"]) == ("completed", {"a": 7})


async def test_a_wait_in_a_loop(url: str, tmp_path: Path) -> None:
    """Each round asks anew, under its own visit."""
    rows = [
        node("Ask", "human", context={"type": "text_input"}, output="word", edge="More"),
        node("More", "branching", context={"when": "word != 'stop'"}, ok="Ask", ko="End"),
        node("End", prompt="last: {word}", output="end"),
    ]
    async with serving(tmp_path, rows, config=kept(url)) as made:
        document = await made.execute_workflow("Flow", {})
        for number, word in enumerate(["go", "on", "stop"], 1):
            assert paths(document) == [f"Ask#{number}"]
            document = await answered(made, document, data=word, node="Ask")
        assert document["result"]["end"] == "last: stop"


TIMED = [
    node("Ask", "human", prompt="?", output="a", ok="Y", ko="N", context={"timeout": "2d", "on_timeout": "Late"}),
    node("Y", prompt="yes", output="way"),
    node("N", prompt="no", output="way"),
    node("Late", prompt="late {last_action_success}", output="way"),
]


async def test_a_wait_that_expires_takes_its_own_way(url: str, tmp_path: Path) -> None:
    """Nothing is stored, and the flag is false; an answer that comes then is gone. Until then answers count."""
    clock = FakeClock()
    async with serving(tmp_path, TIMED, config=kept(url), clock=clock) as made:
        document = await made.execute_workflow("Flow", {})
        assert document["waiting"][0]["expires_at"] == "2023-11-16T22:13:20.000000Z"
        clock.advance(2 * 86_400 - 1)
        assert (await answered(made, document, "reject"))["result"]["way"] == "no"
        document = await made.execute_workflow("Flow", {})
        clock.advance(2 * 86_400)
        with pytest.raises(AnswerGone):
            await made.resume_execution(document["execution_id"], "approve")
        while (done := await made.get_execution_status(document["execution_id"]))["status"] != "completed":
            await asyncio.sleep(0.01)
        assert done["result"] == {"way": "late false"}
        resumed = [e for e in await made.get_execution_events(done["execution_id"]) if e["event"] == "resumed"]
        assert [(event["action"], event["by"]) for event in resumed] == [("expired", None)]


async def test_no_wait_lasts_longer_than_the_setting_says(url: str, tmp_path: Path) -> None:
    """One without a time of its own, or with a longer one, says when it expires, and does; 0 is no bound."""
    clock = FakeClock()
    rows = [node("F", edge="A|B"), node("A", "human", output="a", ko="G"), node("G", prompt="gone", output="g")]
    rows.append(node("B", "human", output="b", timeout="90d", ko="G"))
    async with serving(tmp_path, rows, config=kept(url), clock=clock) as made:
        document = await made.execute_workflow("Flow", {})
        assert [wait["expires_at"] for wait in document["waiting"]] == ["2023-12-14T22:13:20.000000Z"] * 2
        clock.advance(30 * 86_400)
        while (found := await made.get_execution_status(document["execution_id"]))["status"] != "completed":
            await asyncio.sleep(0.01)
        assert found["result"] == {"g": "gone"}
    bounds = [(0, [None, "2024-02-12T22:13:20.000000Z"]), (0.5, ["2023-11-15T10:13:20.000000Z"] * 2)]
    for days, expected in bounds:
        settings = {"storage_url": "memory://", "max_wait_days": days}
        async with serving(tmp_path, rows, config=settings, clock=FakeClock()) as made:
            document = await made.execute_workflow("Flow", {})
            assert [wait["expires_at"] for wait in document["waiting"]] == expected


async def test_an_answer_after_the_end_of_a_wait_is_gone(url: str, tmp_path: Path) -> None:
    """Also when the execution has gone on and ended; a wait that somebody has answered is a conflict."""
    clock = FakeClock()
    async with serving(tmp_path, TIMED, config=kept(url), clock=clock) as made:
        document = await made.execute_workflow("Flow", {})
        path, asked = document["waiting"][0]["path"], document["waiting"][0]["node"]
        clock.advance(2 * 86_400)
        while (await made.get_execution_status(document["execution_id"]))["status"] != "completed":
            await asyncio.sleep(0.01)
        for node_or_path in (None, asked, path):
            with pytest.raises(AnswerGone):
                await made.resume_execution(document["execution_id"], "approve", node=node_or_path)
        with pytest.raises(ExecutionConflict):
            await made.resume_execution(document["execution_id"], "approve", node="Late")
        document = await made.execute_workflow("Flow", {})
        await answered(made, document, "reject")
        with pytest.raises(ExecutionConflict):
            await made.resume_execution(document["execution_id"], "approve", node=path)


async def test_an_answer_to_a_wait_that_has_expired_is_gone_while_another_is_open(url: str, tmp_path: Path) -> None:
    """Each wait is looked at by itself."""
    rows = [node("F", edge="A|B"), node("A", "human", timeout="1s", ko="G", output="a"), node("B", "human", output="b")]
    rows.append(node("G", prompt="gone", output="g"))
    clock = FakeClock()
    async with serving(tmp_path, rows, config=kept(url), clock=clock) as made:
        document = await made.execute_workflow("Flow", {})
        assert paths(document) == ["A#1", "B#1"]
        clock.advance(1)
        while paths(await at_rest(made, document)) != ["B#1"]:
            await asyncio.sleep(0.01)
        with pytest.raises(AnswerGone):
            await made.resume_execution(document["execution_id"], "approve", node="A")
        assert (await answered(made, document, "approve"))["status"] == "completed"


async def test_what_is_completed_has_nothing_that_failed(url: str, tmp_path: Path) -> None:
    """A retry of what failed is a conflict that says what can be run again; from the start it runs."""
    async with serving(tmp_path, [node("A", prompt="hi", output="a")], config=kept(url)) as made:
        document = await made.execute_workflow("Flow", {})
        for dry in (True, False):
            with pytest.raises(ExecutionConflict, match="from start, or from a node"):
                await made.retry_execution(document["execution_id"], dry_run=dry)
        for start in ("start", "A"):
            again = await made.retry_execution(document["execution_id"], start=start)
            assert (await at_rest(made, again))["status"] == "completed"


async def test_a_wait_that_expires_without_a_way_fails(url: str, tmp_path: Path) -> None:
    """As the node's own failure: Failure_Next handles it, but for approvals too the error is told apart from a no."""
    rows = [node("Ask", "suspend", timeout="1s", ko="H"), node("H", prompt="{error}", output="h")]
    clock = FakeClock()
    async with serving(tmp_path, rows, config=kept(url), clock=clock) as made:
        document = await made.execute_workflow("Flow", {})
        clock.advance(1)
        while (done := await made.get_execution_status(document["execution_id"]))["status"] != "completed":
            await asyncio.sleep(0.01)
        assert done["result"]["h"] == "Nobody answered 'Ask' in time"
        finished = [e for e in await made.get_execution_events(done["execution_id"]) if e["event"] == "node_finished"]
        assert finished[0]["error"]["code"] == "wait_expired"


async def test_a_wait_expires_while_other_branches_run_and_in_sub_workflows(url: str, tmp_path: Path) -> None:
    """Whatever else the execution does."""
    rows = [
        node("S", edge="W|A|G"),
        node("W", "work"),
        node("A", "suspend", timeout="5s", context={"on_timeout": "Late"}),
        node("Late", prompt="late", output="late"),
        node("G", "graph", output="g=y", context="{workflow=::Child}"),
        node("Q", "suspend", timeout="6s", context={"on_timeout": "R"}, graph="Child"),
        node("R", prompt="late too", output="y", graph="Child"),
    ]
    go = asyncio.Event()

    async def work(call: Call) -> Any:
        await go.wait()

    clock = FakeClock()
    async with serving(tmp_path, rows, config=kept(url), clock=clock, agents={"work": work}) as made:
        started = await made.start_execution("Flow", {})
        while len((await made.get_execution_status(started["execution_id"]))["waiting"]) < 2:
            await asyncio.sleep(0)
        clock.advance(10)
        while (await made.get_execution_status(started["execution_id"]))["waiting"]:
            await asyncio.sleep(0.01)
        go.set()
        done = await at_rest(made, started)
        assert (done["status"], done["result"]) == ("completed", {"late": "late", "g": "late too"})


async def test_waiting_takes_no_time_and_no_slot(url: str, tmp_path: Path) -> None:
    """The deadline counts what runs, `max_running` what runs; the node's Timeout bounds the wait and not an attempt."""
    clock = FakeClock()
    rows = [node("Ask", "human", output="a", edge="B", timeout="9d"), node("B", prompt="b", output="b")]
    config = kept(url, max_running=1, max_queued=0, execution_timeout=60.0)
    async with serving(tmp_path, rows, config=config, clock=clock) as made:
        documents = [await made.execute_workflow("Flow", {}) for _ in range(3)]
        assert {document["status"] for document in documents} == {"suspended"}
        assert made.readiness()["running"] == 0
        clock.advance(7 * 86_400)
        for document in documents:
            assert (await answered(made, document, "approve"))["status"] == "completed"


async def test_no_thread_is_used(url: str, tmp_path: Path) -> None:
    """The built-in agents ask within the walk."""
    rows = [node("A", "human", edge="B", output="a"), node("B", "suspend", edge="C"), node("C", "input", output="c")]
    async with serving(tmp_path, rows, config=kept(url)) as made:
        plan = made._plan(made.catalogue.find("Flow"))
        assert all(one.step is not None for one in plan.nodes)
        await made.execute_workflow("Flow", {})
        assert made._runtime().threads.in_use == 0


@pytest.mark.parametrize("kind", ["returns", "raises", "inline", "thread"])
async def test_own_agents_wait(kind: str, url: str, tmp_path: Path) -> None:
    """By returning or raising Suspend; the answer is the node's result, and the agent is not called again."""
    calls: list[int] = []

    async def returns(call: Call) -> Any:
        calls.append(call.attempt)
        return Suspend("Sure?", type="choice", options=["yes", "no"], assignees=["ada", "role:boss"])

    async def raises(call: Call) -> Any:
        raise await returns(call)

    @agent(inline=True)
    def inline(call: Call) -> Any:
        calls.append(1)
        return Suspend("Sure?", type="choice", options=["yes", "no"], assignees=["ada", "role:boss"])

    def thread(call: Call) -> Any:
        raise inline(call)

    agents = {"returns": returns, "raises": raises, "inline": inline, "thread": thread}
    rows = [node("A", kind, output="a", edge="B", retry="3", timeout="1h"), node("B", "echo", inputs="a", output="b")]
    async with serving(tmp_path, rows, config=kept(url), agents=agents) as made:
        document = await made.execute_workflow("Flow", {})
        (wait,) = document["waiting"]
        assert (wait["prompt"], wait["assignees"]) == ("Sure?", ["ada", "role:boss"])
        with pytest.raises(InputInvalid, match="yes, no"):
            await made.resume_execution(document["execution_id"], data="maybe")
        done = await answered(made, document, data="yes")
        assert (done["result"], calls) == ({"a": "yes", "b": "yes"}, [1])


async def test_an_answer_writes_only_what_the_row_says(url: str, tmp_path: Path) -> None:
    """Nobody sets other fields of the state from outside, whatever the answer looks like."""

    async def ask(call: Call) -> Any:
        return Suspend()

    evil = {"state_updates": {"paid": True, "last_action_success": False}, "a": 1, "paid": True}
    rows = [node("A", "ask", output="a", edge="B"), node("B", "ask", output="a|b")]
    async with serving(tmp_path, rows, config=kept(url), agents={"ask": ask}) as made:
        document = await answered(made, await made.execute_workflow("Flow", {}), data=evil)
        assert document["result"] == {"a": evil}
        done = await answered(made, document, data=evil)
        assert done["result"] == {"a": 1, "b": None}


@pytest.mark.parametrize(
    ("suspend", "code"),
    [
        ({"prompt": 5}, "result_invalid"),
        ({"value": {1}}, "result_invalid"),
        ({"value": "x" * 2_000_000}, "output_too_large"),
        ({"assignees": [5]}, "result_invalid"),
        ({"form": {"type": "objekt"}}, "result_invalid"),
        ({"form": {"$ref": "https://example.org/form.json"}}, "result_invalid"),
        ({"on_timeout": "Nowhere", "expires_in": 5}, "routing_invalid"),
        ({"type": "approvall"}, "agent_error"),
        ({"type": "choice"}, "agent_error"),
        ({"options": "abc"}, "agent_error"),
        ({"expires_in": 0}, "agent_error"),
    ],
)
async def test_what_cannot_be_waited_for_fails_the_node(
    suspend: dict[str, Any], code: str, url: str, tmp_path: Path
) -> None:
    """At once, and not when the answer comes."""

    async def ask(call: Call) -> Any:
        return Suspend(**suspend)

    async with serving(tmp_path, [node("A", "ask")], config=kept(url), agents={"ask": ask}) as made:
        document = await made.execute_workflow("Flow", {})
        assert (document["status"], document["error"]["code"]) == ("failed", code)


async def test_a_form_of_an_own_agent_may_have_references(url: str, tmp_path: Path) -> None:
    """As those that pydantic writes have; one that goes round in a circle refuses every answer, and nothing breaks."""

    async def ask(call: Call) -> Any:
        return Suspend(type="form", form=call.inputs["form"])

    pair = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"]}
    rows = [node("A", "ask", inputs="form", output="a")]
    async with serving(tmp_path, rows, config=kept(url), agents={"ask": ask}) as made:
        document = await made.execute_workflow("Flow", {"form": pair})
        with pytest.raises(InputInvalid, match="/data/a"):
            await made.resume_execution(document["execution_id"], data={"a": "x"})
        assert (await answered(made, document, data={"a": 1}))["result"]["a"] == {"a": 1}
        document = await made.execute_workflow("Flow", {"form": {"$ref": "#"}})
        with pytest.raises(InputInvalid, match="itself without end"):
            await made.resume_execution(document["execution_id"], data={})


async def test_items_of_a_list_cannot_wait(url: str, tmp_path: Path) -> None:
    """Neither an own agent under Map_Over nor a sub-workflow there; the error says so, and nothing is left open."""

    async def ask(call: Call) -> Any:
        return Suspend("?")

    own = [node("A", "ask", map_over="list")]
    below = [node("A", "graph", map_over="list", context="{workflow=::Child}"), node("Q", "suspend", graph="Child")]
    for rows, code in ((own, "agent_error"), (below, "subworkflow_failed")):
        async with serving(tmp_path, rows, config=kept(url), agents={"ask": ask}) as made:
            document = await made.execute_workflow("Flow", {"list": [1, 2]})
            assert (document["status"], document["error"]["code"]) == ("failed", code)
            assert "Map_Over" in document["error"]["message"]
            assert "cannot wait for an answer" in document["error"]["message"]


async def test_secrets_are_not_shown_in_what_is_asked(url: str, tmp_path: Path) -> None:
    """Neither in the document nor in the events."""

    async def ask(call: Call) -> Any:
        key = call.options["key"]
        return Suspend(f"Use {key}?", type="edit", value={"key": [key]})

    rows = [node("A", "ask", context={"key": "secret:KEY"})]
    async with serving(tmp_path, rows, config=kept(url), agents={"ask": ask}, secrets={"KEY": "hunter22"}) as made:
        document = await made.execute_workflow("Flow", {})
        assert (document["waiting"][0]["prompt"], document["waiting"][0]["value"]) == ("Use ***?", {"key": ["***"]})
        events = await made.get_execution_events(document["execution_id"])
        assert "hunter22" not in json.dumps([document, events])


async def test_the_state_so_far_is_shown(url: str, tmp_path: Path) -> None:
    """While it waits, and when it is cancelled then, also where a sub-workflow waits."""
    rows = [
        node("A", prompt="a", output="a", edge="B|G"),
        node("B", prompt="b", output="b"),
        node("G", "graph", context="{workflow=::Child}", output="g"),
        node("Q", "suspend", graph="Child"),
    ]
    async with serving(tmp_path, rows, config=kept(url)) as made:
        document = await made.execute_workflow("Flow", {"x": 1})
        assert document["result"] == {"x": 1, "a": "a", "b": "b"}
        ended = await made.resume_execution(document["execution_id"], "cancel")
        assert (ended["status"], ended["success"]) == ("cancelled", False)
        assert ended["result"] == {"x": 1, "a": "a", "b": "b"}
        assert (ended["error"]["code"], "waiting" in ended) == ("cancelled", False)
        assert await made.get_execution_status(document["execution_id"]) == ended
        with pytest.raises(ExecutionConflict, match="is cancelled; nothing waits"):
            await made.resume_execution(document["execution_id"])
        assert await made.cancel_execution(document["execution_id"]) == ended


async def test_a_retry_asks_again(url: str, tmp_path: Path) -> None:
    """A run that was cancelled while it waited is taken up where it waited."""
    count = ScriptedAgent(1)
    rows = [node("A", "count", output="n", edge="Ask"), node("Ask", "human", output="a")]
    async with serving(tmp_path, rows, config=kept(url), agents={"count": count}) as made:
        document = await made.execute_workflow("Flow", {})
        with pytest.raises(ExecutionConflict, match="is suspended"):
            await made.retry_execution(document["execution_id"])
        await made.cancel_execution(document["execution_id"])
        again = await at_rest(made, await made.retry_execution(document["execution_id"]))
        assert (again["status"], paths(again), again["retry_of"]) == ("suspended", ["Ask#1"], document["execution_id"])
        done = await answered(made, again, "approve", by="ada")
        assert done["result"] == {"n": 1, "a": {"approved": True, "comment": None, "by": "ada"}}


async def test_of_many_answers_one_counts(url: str, tmp_path: Path) -> None:
    """Fifty at once: one is taken, the others are conflicts, and the node after it runs once."""
    count = ScriptedAgent("once")
    rows = [node("Ask", "suspend", output="a", edge="B"), node("B", "count", output="b")]
    async with serving(tmp_path, rows, config=kept(url), agents={"count": count}) as made:
        document = await made.execute_workflow("Flow", {})

        async def one(number: int) -> int | None:
            try:
                await made.resume_execution(document["execution_id"], data=number)
            except ExecutionConflict:
                return None
            return number

        won = [number for number in await asyncio.gather(*map(one, range(50))) if number is not None]
        done = await at_rest(made, document)
        assert len(won) == 1
        assert done["result"] == {"a": won[0], "b": "once"}


async def test_what_runs_is_not_taken_from_who_runs_it(url: str, tmp_path: Path) -> None:
    """A question that is open in a running execution is for that to answer; nobody else goes on with it."""
    go = asyncio.Event()

    async def work(call: Call) -> Any:
        await go.wait()

    rows = [node("S", edge="W|A"), node("W", "work"), node("A", "suspend", output="a")]
    async with serving(tmp_path, rows, config=kept(url), agents={"work": work}) as made:
        started = await made.start_execution("Flow", {})
        runtime = made._runtime()
        run = runtime.live[started["execution_id"]]
        while not run.open:
            await asyncio.sleep(0)
        row = replace(run.row(), status="running", waits=json.dumps(list(run.open.values())))
        assert await runtime.resume(row, "A#1", Answer("answer", 1)) is None
        go.set()
        assert (await answered(made, await at_rest(made, started), data=2))["result"] == {"a": 2}


# What outlives the process.


def sqlite(tmp_path: Path) -> dict[str, Any]:
    return kept(f"sqlite:///{tmp_path}/runs.db")


async def test_the_process_that_was_asked_may_stop_running_it(tmp_path: Path) -> None:
    """The execution is suspended before the answer of another process was looked at: that one goes on with it."""
    go = asyncio.Event()

    async def work(call: Call) -> Any:
        await go.wait()

    rows = [node("S", edge="W|A"), node("W", "work"), node("A", "suspend", output="a")]
    lazy = sqlite(tmp_path) | {"patrol_seconds": 60.0}
    async with serving(tmp_path, rows, config=lazy, agents={"work": work}) as here:
        started = await here.start_execution("Flow", {})
        run = here._runtime().live[started["execution_id"]]
        while not run.open:
            await asyncio.sleep(0)
        assert run.ledger is not None
        await run.ledger.ask()
        async with serving(tmp_path, rows, config=lazy, agents={"work": work}) as there:
            answer = asyncio.create_task(there.resume_execution(started["execution_id"], data=1))
            runner = here._runtime().runner
            assert runner is not None
            while not await here.store.asked(runner):
                await asyncio.sleep(0.01)
            go.set()
            await answer
            assert (await at_rest(there, started))["result"] == {"a": 1}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_an_answer_after_a_restart(durability: str, tmp_path: Path) -> None:
    """Another service over the same file shows what is asked, and goes on; what had run does not run again."""
    config = sqlite(tmp_path) | {"durability": durability}
    first = ScriptedAgent(1, 2)
    async with serving(tmp_path, NESTED, config=config, agents={"count": first}) as made:
        document = await made.execute_workflow("Flow", {"x": "x"})
    then = ScriptedAgent(3)
    async with serving(tmp_path, NESTED, config=config, agents={"count": then}) as made:
        assert await made.get_execution_status(document["execution_id"]) == document
        assert [one["execution_id"] for one in await made.list_executions(status=("suspended",))] == [
            document["execution_id"]
        ]
        done = await answered(made, document, "reject", by="ada")
        assert done["status"] == "completed"
        assert done["result"]["x"]["x"]["said"] == {"approved": False, "comment": None, "by": "ada"}
        assert (len(first.calls), len(then.calls)) == (2, 1)


async def test_a_wait_expires_while_nobody_is_there(tmp_path: Path) -> None:
    """Whoever opens the store next lets it go its way."""
    clock = FakeClock()
    async with serving(tmp_path, TIMED, config=sqlite(tmp_path), clock=clock) as made:
        document = await made.execute_workflow("Flow", {})
    clock.advance(3 * 86_400)
    async with serving(tmp_path, TIMED, config=sqlite(tmp_path), clock=clock) as made:
        await made.start()
        while (done := await made.get_execution_status(document["execution_id"]))["status"] != "completed":
            await asyncio.sleep(0.01)
        assert done["result"] == {"way": "late false"}


@pytest.mark.parametrize("restart", [False, True])
async def test_an_answer_finds_the_version_it_was_asked_by(restart: bool, tmp_path: Path) -> None:
    """The file may change meanwhile, also that of a sub-workflow, and the process may end."""

    def rows(text: str) -> list[Row]:
        return [
            node("Ask", "human", output="a", edge="G"),
            node("G", "graph", context="{workflow=::Child}", output="g=y", edge="End"),
            node("End", prompt=f"{text} {{g}}", output="end"),
            node("Q", "suspend", output="q", edge="R", graph="Child"),
            node("R", prompt=f"{text} below", output="y", graph="Child"),
        ]

    made = await anyio.to_thread.run_sync(lambda: service(tmp_path, rows("old"), config=sqlite(tmp_path)))
    document = await made.execute_workflow("Flow", {})
    below = await answered(made, await made.execute_workflow("Flow", {}), "approve")
    assert paths(below) == ["G#1/Q#1"]
    await anyio.to_thread.run_sync(write, tmp_path, [*rows("new"), node("More", "success")])
    if restart:
        await made.aclose()
        made = await anyio.to_thread.run_sync(
            lambda: service(tmp_path, [*rows("new"), node("More", "success")], config=sqlite(tmp_path))
        )
    else:
        await made.reload()
    try:
        done = await answered(made, below, data=1)
        assert (done["result"]["end"], done["definition"]) == ("old old below", document["definition"])
        assert paths(await answered(made, document, "approve")) == ["G#1/Q#1"]
        fresh = await made.execute_workflow("Flow", {})
        assert fresh["definition"] != document["definition"]
        await made.cancel_execution(fresh["execution_id"])
    finally:
        await made.aclose()


@pytest.mark.parametrize("graph", ["Flow", "Child"])
async def test_an_agent_that_is_gone_interrupts(graph: str, tmp_path: Path) -> None:
    """With its name; once it is back, a retry goes on."""
    rows = [
        node("Ask", "human", output="a", edge="B" if graph == "Flow" else "", graph=graph),
        node("B", "lost", output="b", graph=graph),
    ]
    if graph == "Child":
        rows[0] |= {"Edge": "B"}
        rows.insert(0, node("G", "graph", context="{workflow=::Child}", output="b=b"))
    lost = ScriptedAgent("found")
    async with serving(tmp_path, rows, config=sqlite(tmp_path), agents={"lost": lost}) as made:
        document = await made.execute_workflow("Flow", {})
    async with serving(tmp_path, rows, config=sqlite(tmp_path)) as made:
        ended = await answered(made, document, "approve")
        assert (ended["status"], ended["error"]["code"], ended["error"]["retryable"]) == (
            "interrupted",
            "interrupted",
            True,
        )
        assert "'lost'" in ended["error"]["message"]
    async with serving(tmp_path, rows, config=sqlite(tmp_path), agents={"lost": lost}) as made:
        again = await at_rest(made, await made.retry_execution(document["execution_id"]))
        if again["status"] == "suspended":
            again = await answered(made, again, "approve")
        assert (again["status"], again["result"]["b"], len(lost.calls)) == ("completed", "found", 1)


async def test_four_processes_answer_each_wait_once(tmp_path: Path) -> None:
    """A hundred suspended executions, four processes that answer all of them at once: each is answered by one."""
    rows = [node("Ask", "suspend", output="a", edge="B"), node("B", "note", inputs="a", output="b")]
    async with serving(tmp_path, rows, config=sqlite(tmp_path), agents={"note": ScriptedAgent()}) as made:
        started = [made.execute_workflow("Flow", {}) for _ in range(100)]
        ids = sorted(document["execution_id"] for document in await asyncio.gather(*started))
    won = await anyio.to_thread.run_sync(raced, tmp_path)
    assert sorted(one for lines in won for one in lines) == ids
    noted = (tmp_path / "notes").read_text(encoding="utf-8").splitlines()
    assert sorted(noted) == sorted(f"{one} {number}" for number, lines in enumerate(won) for one in lines)
    async with serving(tmp_path, rows, config=sqlite(tmp_path), agents={"note": ScriptedAgent()}) as made:
        done = [await made.get_execution_status(one) for one in ids]
        assert {document["status"] for document in done} == {"completed"}


def raced(folder: Path) -> list[list[str]]:
    """The executions that each of four processes has answered."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )
        for number in range(4)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = []
        for process in processes:
            out, _ = process.communicate(timeout=100)
            assert process.returncode == 0
            found.append(out.split())
        return found
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_an_answer_outlives_the_process_that_took_it(tmp_path: Path) -> None:
    """It is kept before anything goes on, so whoever takes the execution on has it."""

    @agent(idempotent=True)
    async def note(call: Call) -> Any:
        return f"noted {call.inputs['a']}"

    rows = [node("Ask", "suspend", output="a", edge="B"), node("B", "note", inputs="a", output="b")]
    async with serving(tmp_path, rows, config=sqlite(tmp_path), agents={"note": note}) as made:
        document = await made.execute_workflow("Flow", {})
    died = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, str(PROGRAM), str(tmp_path), "dies"],
            input="go\n", capture_output=True, text=True, env=ENVIRONMENT, check=False,
        )
    )  # fmt: skip
    assert died.returncode == 9, died.stderr
    async with serving(tmp_path, rows, config=sqlite(tmp_path), agents={"note": note}) as made:
        await made.start()
        while (done := await made.get_execution_status(document["execution_id"]))["status"] != "completed":
            await asyncio.sleep(0.01)
        assert (done["result"], done["attempt"]) == ({"a": "dies", "b": "noted dies"}, 2)


async def test_an_unknown_execution_is_not_answered(url: str, tmp_path: Path) -> None:
    """Nor is one that runs and waits for nothing, or has ended."""
    async with serving(tmp_path, [node("A", prompt="a", output="a")], config=kept(url)) as made:
        with pytest.raises(RequestRefused):
            await made.resume_execution("01920000-0000-7000-8000-000000000000")
        document = await made.execute_workflow("Flow", {})
        with pytest.raises(ExecutionConflict, match="is completed; nothing waits"):
            await made.resume_execution(document["execution_id"], data=1)


async def test_another_process_may_answer(tmp_path: Path) -> None:
    """While the execution still runs here; what does not fit, or comes twice, is refused there as here."""
    go = asyncio.Event()

    async def work(call: Call) -> Any:
        await go.wait()

    rows = [
        node("S", edge="A|W|G"),
        node("A", "suspend", output="a"),
        node("W", "work"),
        node("G", "graph", context="{workflow=::Child}", output="g=y"),
        node("Q", "human", context={"type": "text_input"}, output="y", graph="Child"),
    ]
    agents = {"work": work}
    async with serving(tmp_path, rows, config=sqlite(tmp_path), agents=agents) as here:
        started = await here.start_execution("Flow", {})
        identity = started["execution_id"]
        while len((await here.get_execution_status(identity))["waiting"]) < 2:
            await asyncio.sleep(0)
        await here._runtime().live[identity].ledger.ask()  # type: ignore[union-attr]
        async with serving(tmp_path, rows, config=sqlite(tmp_path), agents=agents) as there:
            with pytest.raises(InputInvalid, match="a text"):
                await there.resume_execution(identity, data=1, node="Q")
            assert paths(await there.resume_execution(identity, data="far", node="Q")) == ["A#1"]
            with pytest.raises(ExecutionConflict):
                await there.resume_execution(identity, data="far", node="Q")
        go.set()
        document = await at_rest(here, started)
        assert paths(document) == ["A#1"]
        assert (await answered(here, document, data=1))["result"] == {"a": 1, "g": "far"}
