"""Services in agents: opened for them, closed after them; and secrets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, serving

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.context import scoped

pytestmark = pytest.mark.anyio


class Session:
    """A database session that knows whether it is open."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.open = True


class Database:
    """Makes sessions, and remembers how each ended."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.seen: list[str] = []

    def __call__(self) -> Iterator[Session]:
        return self._session()

    def _session(self) -> Iterator[Session]:
        session = Session(len(self.sessions))
        self.sessions.append(session)
        try:
            yield session
        except BaseException as error:
            self.seen.append(type(error).__name__)
            raise
        finally:
            session.open = False

    @property
    def open(self) -> int:
        return sum(session.open for session in self.sessions)


@agent(services=["database"])
async def asynchronous(call: Call) -> Any:
    session = call.service("database")
    assert session.open
    await asyncio.sleep(0)
    return session.number


@agent(services=["database"])
def threaded(call: Call) -> Any:
    assert call.service("database").open
    return call.service("database").number


@agent(services=["database"], inline=True)
def inline(call: Call) -> Any:
    assert call.service("database").open
    return call.service("database").number


async def resolving(call: Call) -> Any:
    session = await call.resolve("database")
    assert session is await call.resolve("database")
    assert session.open
    return session.number


class Configured:
    session: Any = None

    def configure_database_service(self, session: Any) -> None:
        self.session = session

    async def process(self, inputs: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        assert self.session.open
        return self.session.number


class ConfiguredThread(Configured):
    def process(self, inputs: dict[str, Any]) -> Any:
        assert self.session.open
        return self.session.number


KINDS: dict[str, Any] = {
    "async": asynchronous,
    "thread": threaded,
    "inline": inline,
    "resolve": resolving,
    "class": Configured,
    "class thread": ConfiguredThread,
    "object": Configured(),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_node_has_a_session_of_its_own(kind: str, tmp_path: Path) -> None:
    """The service `database` is made for one attempt of one node and closed after it, also in parallel branches."""
    database = Database()
    rows = [
        node("S", "work", output="s", edge="A|B"),
        node("A", "work", output="a"),
        node("B", "work", output="b", retry="2", timeout="1h"),
    ]
    document = await run(tmp_path, rows, agents={"work": KINDS[kind]}, database_session_factory=lambda: database())
    assert document["status"] == "completed", document["error"]
    assert sorted(document["result"].values()) == [0, 1, 2]
    assert database.open == 0
    assert database.seen == []


@pytest.mark.parametrize("kind", ["async", "thread", "resolve"])
async def test_a_failed_attempt_closes_its_session_with_the_error(kind: str, tmp_path: Path) -> None:
    """A session sees how its attempt ended, and the next attempt has another."""
    database = Database()

    @agent(services=["database"])
    async def asynchronous(call: Call) -> Any:
        raise ValueError(call.service("database").number)

    @agent(services=["database"])
    def threaded(call: Call) -> Any:
        raise ValueError(call.service("database").number)

    async def resolving(call: Call) -> Any:
        raise ValueError((await call.resolve("database")).number)

    agents = {"work": {"async": asynchronous, "thread": threaded, "resolve": resolving}[kind]}
    rows = [node("A", "work", retry="2")]
    document = await run(tmp_path, rows, agents=agents, database_session_factory=lambda: database())
    assert document["error"]["message"] == "ValueError: 1"
    assert (database.open, database.seen) == (0, ["ValueError", "ValueError"])


@pytest.mark.parametrize("how", ["timeout", "cancel", "deadline", "cancel under a timeout", "cancel a child"])
async def test_an_attempt_that_is_ended_closes_its_session(how: str, tmp_path: Path) -> None:
    """Sessions of a node, and then the services of the run, are closed when the execution is ended."""
    database = Database()
    begun = asyncio.Event()
    ended: list[str] = []

    @agent(services=["database", "mail"])
    async def work(call: Call) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):
                await asyncio.sleep(0)
            assert call.service("database").open
            ended.append("agent")

    def mail() -> Iterator[str]:
        try:
            yield "mail"
        finally:
            ended.append(f"mail, {database.open} open")

    cells: dict[str, Any] = {}
    if how in ("timeout", "cancel under a timeout"):
        cells["timeout"] = "10ms" if how == "timeout" else "1h"
    rows = [node("A", "work", **cells)]
    if how == "cancel a child":
        rows = [node("A", "graph", context="{workflow=::Child}"), node("C", "work", graph="Child")]
    config = {"execution_timeout": 0.02} if how == "deadline" else {}
    more: dict[str, Any] = {"database_session_factory": lambda: database(), "services": {"mail": mail}}
    async with serving(tmp_path, rows, config=config, agents={"work": work}, **more) as service:
        call = asyncio.create_task(service.execute_workflow("Flow", {}))
        if how.startswith("cancel"):
            await begun.wait()
            (ours,) = list(service._runtime().running)
            await service.cancel_execution(ours.id)
        document = await asyncio.wait_for(call, 30)
        expected = {"timeout": "timeout", "deadline": "deadline"}.get(how, "cancelled")
        assert document["error"]["code"] == expected
        assert (database.open, ended) == (0, ["agent", "mail, 0 open"])


async def test_services_of_the_run_are_shared_and_closed_at_its_end(tmp_path: Path) -> None:
    """Other services live for the run, sub-workflows included; `scoped` says otherwise."""
    lines: list[str] = []

    def making(name: str) -> Any:
        def make() -> Iterator[str]:
            lines.append(f"open {name}")
            try:
                yield name
            finally:
                lines.append(f"close {name}")

        return make

    @agent(services=["mail", "each", "whole"])
    async def work(call: Call) -> Any:
        lines.append(call.node.name)

    services = {
        "mail": making("mail"),
        "each": scoped(making("each"), "node"),
        "whole": scoped(making("whole"), "app"),
    }
    rows = [
        node("A", "work", edge="B"),
        node("B", "graph", context="{workflow=::Child}", edge="C"),
        node("C", "suspend"),
        node("D", "work", graph="Child"),
    ]
    async with serving(tmp_path, rows, agents={"work": work}, services=services) as service:
        for _ in range(2):
            await service.execute_workflow("Flow", {})
    one = ["open mail", "open each", "A", "close each", "open each", "D", "close each", "close mail"]
    first = [one[0], one[1], "open whole", *one[2:]]
    assert lines == [*first, *one, "close whole"]


async def test_a_service_that_cannot_be_made_fails_the_node(tmp_path: Path) -> None:
    """What a factory raises is a failure like any; so is one that raises while it closes not."""

    def broken() -> Any:
        raise ConnectionError("no database")

    rows = [node("A", "work", ko="H"), node("H", prompt="{error}", output="h")]
    document = await run(tmp_path, rows, agents={"work": asynchronous}, database_session_factory=broken)
    assert document["result"]["h"] == "ConnectionError: no database"


@pytest.mark.parametrize(("name", "words"), [("mail", "did not declare"), ("mial", "did you mean 'mail'")])
@pytest.mark.parametrize("declares", [True, False])
async def test_an_undeclared_service_is_resolved_or_refused(
    name: str, words: str, declares: bool, tmp_path: Path
) -> None:
    """`call.service` gives what was declared; the failure says what to do."""

    async def work(call: Call) -> Any:
        return call.service(name)

    thing = agent(services=["other"])(work) if declares else work
    services = {"mail": object(), "other": object()}
    document = await run(tmp_path, [node("A", "work")], agents={"work": thing}, services=services)
    assert document["error"]["code"] == "service_missing"
    if declares or name == "mail":
        assert words in document["error"]["message"]


async def test_parallel_calls_of_one_class_keep_their_own_services(tmp_path: Path) -> None:
    """A class agent's services are set on an object for that call alone."""
    database = Database()
    both: list[int] = []
    met = asyncio.Event()

    class Meeting(Configured):
        async def process(self, inputs: dict[str, Any]) -> Any:
            before = self.session.number
            both.append(before)
            if len(both) == 2:
                met.set()
            await met.wait()
            return self.session.number == before

    rows = [node("S", edge="A|B"), node("A", "meet", output="a"), node("B", "meet", output="b")]
    document = await run(tmp_path, rows, agents={"meet": Meeting}, database_session_factory=lambda: database())
    assert document["result"] == {"a": True, "b": True}
    assert sorted(both) == [0, 1]


SECRET = "hush-hush-hush"


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_a_secret_reaches_the_agent_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """`secret:NAME` is looked up when the node runs; prompts, state, events and the definition never hold it."""
    seen: list[Any] = []

    async def asynchronous(call: Call) -> Any:
        seen.append(dict(call.options))
        return [call.prompt, call.state]

    def threaded(call: Call) -> Any:
        seen.append(dict(call.options))
        return [call.prompt, call.state]

    work: Any = {"async": asynchronous, "thread": threaded, "inline": agent(inline=True)(threaded)}[kind]
    context = {"key": "secret:BANK", "other": "not secret:BANK"}
    rows = [
        node("A", "work", prompt="{key} {BANK} {context}", output="o", context=context, edge="B"),
        node("B", prompt="{key} {BANK}", output="p", context=context),
    ]
    async with serving(tmp_path, rows, agents={"work": work}, secrets={"BANK": SECRET}) as service:
        document = await service.execute_workflow("Flow", {"x": 1})
        assert seen == [{"key": SECRET, "other": "not secret:BANK"}]
        everything = [
            document,
            await service.get_execution_events(document["execution_id"]),
            service.get_workflow_definition("Flow"),
            service.list_workflows(),
        ]
    assert document["status"] == "completed"
    assert SECRET not in json.dumps(everything)


@pytest.mark.parametrize("debug_errors", [True, False])
async def test_a_secret_in_an_error_is_masked(
    debug_errors: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that carries a secret that the node was given shows it nowhere: answer, events, log."""
    caplog.set_level(logging.DEBUG, logger="agentmap_asgi")

    async def work(call: Call) -> Any:
        call.log(f"asking with {call.options['key']}", key=call.options["key"])
        raise ValueError(f"401 for {call.options['key']}")

    rows = [node("A", "work", retry="2", context={"key": "secret:BANK"})]
    config = {"debug_errors": debug_errors}
    async with serving(tmp_path, rows, config=config, agents={"work": work}, secrets={"BANK": SECRET}) as service:
        document = await service.execute_workflow("Flow", {})
        events = await service.get_execution_events(document["execution_id"])
    assert document["error"]["message"] == "ValueError: 401 for ***"
    assert SECRET not in json.dumps([document, events])
    assert "ValueError: 401 for ***" in caplog.text
    assert SECRET not in caplog.text + "".join(repr(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize("kind", ["async", "thread", "inline", "map"])
async def test_a_secret_in_a_result_is_masked(kind: str, tmp_path: Path) -> None:
    """What a node returns is kept without the secrets it was given, wherever they stand in it."""

    async def asynchronous(call: Call) -> Any:
        return {"sent": [f"Bearer {call.options['key']}"], call.options["key"]: 1}

    def threaded(call: Call) -> Any:
        return {"sent": [f"Bearer {call.options['key']}"], call.options["key"]: 1}

    work: Any = {"thread": threaded, "inline": agent(inline=True)(threaded)}.get(kind, asynchronous)
    rows = [node("A", "work", output="o", context={"key": "secret:BANK"}, map_over="xs" if kind == "map" else "")]
    document = await run(tmp_path, rows, {"xs": [1]}, agents={"work": work}, secrets={"BANK": SECRET})
    found = document["result"]["o"]
    assert (found[0] if kind == "map" else found) == {"sent": ["Bearer ***"], "***": 1}


async def test_a_missing_secret_fails_the_node_by_name(tmp_path: Path) -> None:
    """The failure names the secret that is missing."""

    async def work(call: Call) -> Any:
        return dict(call.options)

    rows = [node("A", "work", context={"key": "secret:BANC"})]
    document = await run(tmp_path, rows, agents={"work": work}, secrets={"BANK": SECRET})
    assert document["error"]["code"] == "service_missing"
    assert "did you mean 'BANK'" in document["error"]["message"]
