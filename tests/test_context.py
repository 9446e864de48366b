"""The context object: which services there are, how long they live, and how they end."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

import agentmap_asgi.scopes
from agentmap_asgi.context import AgentMapContext, AppScope, Value, scoped
from agentmap_asgi.errors import ServiceMissing

pytestmark = pytest.mark.anyio


class Diary:
    """Factories that write down what happens to what they make."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def generator(self, name: str) -> Callable[[], Iterator[str]]:
        def make() -> Iterator[str]:
            self.lines.append(f"open {name}")
            try:
                yield name
            except BaseException as error:
                self.lines.append(f"{name} saw {type(error).__name__}")
                raise
            finally:
                self.lines.append(f"close {name}")

        return make

    def async_generator(self, name: str) -> Callable[[], AsyncIterator[str]]:
        async def make() -> AsyncIterator[str]:
            await anyio.lowlevel.checkpoint()
            self.lines.append(f"open {name}")
            try:
                yield name
            finally:
                await anyio.lowlevel.checkpoint()
                self.lines.append(f"close {name}")

        return make


class Session:
    """Like an SQLAlchemy session: usable as it is, and a context manager that closes it."""

    def __init__(self) -> None:
        self.closed = False
        self.entered = 0

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


class AsyncClient:
    """Like an async client: opened and closed by `async with`; entering gives something else than the client."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def __aenter__(self) -> list[str]:
        await anyio.lowlevel.checkpoint()
        self.lines.append("open")
        return self.lines

    async def __aexit__(self, *details: object) -> None:
        await anyio.lowlevel.checkpoint()
        self.lines.append("close")


@asynccontextmanager
async def attempt(context: AgentMapContext) -> AsyncIterator[Any]:
    """One node attempt in one run of one app."""
    app = AppScope(context)
    run = app.run_scope()
    node = run.node_scope()
    try:
        yield node
    finally:
        await node.aclose()
        await run.aclose()
        await app.aclose()


async def resolved(thing: Any) -> Any:
    async with attempt(AgentMapContext({"x": thing})) as node:
        return await node.resolve("x")


async def test_an_object_is_the_service_itself() -> None:
    """Objects, also callable ones, are handed out as they are."""
    thing = SimpleNamespace()
    assert await resolved(thing) is thing
    callable_object = functools.lru_cache(maxsize=None)(len)
    assert await resolved(Value(len)) is len
    assert await resolved(Value(callable_object)) is callable_object


async def test_functions_and_classes_are_factories() -> None:
    """What a function returns or a class makes is the service, sync or async."""

    async def make() -> str:
        await anyio.lowlevel.checkpoint()
        return "made later"

    class Thing:
        pass

    assert await resolved(lambda: "made") == "made"
    assert await resolved(make) == "made later"
    assert await resolved(lambda: make()) == "made later"
    assert isinstance(await resolved(Thing), Thing)
    assert await resolved(functools.partial(str.upper, "made")) == "MADE"


async def test_nothing_is_resolved_before_it_is_asked_for() -> None:
    """A factory may be given before what it reads exists."""
    state = SimpleNamespace()
    context = AgentMapContext({"pool": lambda: state.pool})
    async with attempt(context) as node:
        state.pool = "the pool"
        assert await node.resolve("pool") == "the pool"


async def test_an_object_a_factory_only_looks_up_stays_open() -> None:
    """`lambda: app.state.pool` hands out the host's object: it is neither entered nor closed."""
    state = SimpleNamespace(session=Session())

    async def look_up() -> Session:
        return state.session  # type: ignore[no-any-return]

    assert await resolved(lambda: state.session) is state.session
    assert await resolved(look_up) is state.session
    assert state.session.entered == 0
    assert not state.session.closed


async def test_what_a_factory_makes_is_closed_when_it_can_be() -> None:
    """A context manager that a plain function or a class makes is entered and exited."""
    session = await resolved(lambda: Session())
    assert (session.entered, session.closed) == (1, True)
    assert (await resolved(Session)).closed
    assert await resolved(AsyncClient) == ["open", "close"]


async def test_an_object_given_as_a_value_is_never_entered_nor_closed() -> None:
    """A client that the host opened stays the host's."""
    client, session = AsyncClient(), Session()
    assert await resolved(client) is client
    assert client.lines == []
    assert await resolved(session) is session
    assert not session.closed


async def test_entering_can_be_chosen() -> None:
    """`scoped(..., enter=)` decides against the rule of thumb."""
    session = Session()
    assert not (await resolved(scoped(lambda: Session(), "run", enter=False))).closed
    assert (await resolved(scoped(lambda: session, "run", enter=True))).closed


async def test_generators_are_closed() -> None:
    """A generator function, an async one, and a function that returns either: the code after `yield` runs."""
    diary = Diary()
    for thing in (
        diary.generator("a"),
        diary.async_generator("b"),
        lambda: diary.generator("c")(),
        lambda: diary.async_generator("d")(),
        contextmanager(diary.generator("e")),
        asynccontextmanager(diary.async_generator("f")),
    ):
        assert await resolved(thing) in "abcdef"
    assert diary.lines == [f"{what} {name}" for name in "abcdef" for what in ("open", "close")]


async def test_closing_is_in_reverse_order_and_the_node_goes_before_the_run() -> None:
    """Node, run and app end in this order; within one of them the last opened is closed first."""
    diary = Diary()
    context = AgentMapContext(
        {
            "app": scoped(diary.generator("app"), "app"),
            "one": diary.generator("one"),
            "two": diary.async_generator("two"),
        },
        database_session_factory=diary.generator("database"),
    )
    async with attempt(context) as node:
        await node.prepare(("one", "database", "two", "app"))
    assert diary.lines[4:] == ["close database", "close two", "close one", "close app"]


async def test_a_session_lives_for_one_attempt_and_a_run_service_for_the_run() -> None:
    """Two nodes of a run share what is run-scoped and never a session; two runs share what is app-scoped."""
    context = AgentMapContext(
        {"mine": lambda: Session(), "ours": scoped(lambda: Session(), "app")},
        database_session_factory=lambda: Session(),
    )
    app = AppScope(context)
    run = app.run_scope()
    first, second = run.node_scope(), run.node_scope()
    for name, shared in (("database", False), ("mine", True), ("ours", True)):
        assert (await first.resolve(name) is await second.resolve(name)) is shared
    session, mine, ours = [await first.resolve(name) for name in ("database", "mine", "ours")]
    await first.aclose()
    assert session.closed
    assert not mine.closed
    await second.aclose()
    await run.aclose()
    assert mine.closed
    assert not ours.closed
    other = app.run_scope().node_scope()
    assert await other.resolve("ours") is ours
    assert await other.resolve("mine") is not mine
    await app.aclose()
    assert ours.closed


async def test_scopes_are_empty_until_something_is_opened() -> None:
    """Objects need no closing; a made service does."""
    app = AppScope(AgentMapContext({"value": 1, "made": lambda: Session()}))
    run = app.run_scope()
    node = run.node_scope()
    await node.prepare(("value",))
    assert (node.empty, run.empty, app.empty) == (True, True, True)
    await node.prepare(("made",))
    assert (node.empty, run.empty, app.empty) == (True, False, True)
    await run.aclose()


async def test_branches_that_ask_at_once_get_one_object() -> None:
    """A run-scoped factory is called once, however many branches wait for it."""
    made = []

    async def make() -> object:
        await anyio.lowlevel.checkpoint()
        made.append(object())
        await anyio.lowlevel.checkpoint()
        return made[-1]

    run = AppScope(AgentMapContext({"x": make})).run_scope()
    got = []

    async def branch() -> None:
        got.append(await run.node_scope().resolve("x"))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(branch)
    assert got == made * 5


async def test_a_factory_that_raises_fails_only_the_asker() -> None:
    """Its exception travels as it is, and the next who asks tries again."""
    answers: list[Any] = [ValueError("no connection"), "connected"]

    def make() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async with attempt(AgentMapContext({"x": make})) as node:
        with pytest.raises(ValueError, match="no connection"):
            await node.prepare(("x",))
        assert await node.resolve("x") == "connected"


async def test_a_cancelled_opening_leaves_nothing_behind() -> None:
    """A branch cancelled while it opens a service lets the next one open it."""
    diary = Diary()
    gate = anyio.Event()

    async def make() -> AsyncIterator[str]:
        diary.lines.append("open")
        try:
            await gate.wait()
            yield "ready"
        finally:
            diary.lines.append("close")

    async with attempt(AgentMapContext({"x": make})) as node:
        async with anyio.create_task_group() as group:
            group.start_soon(node.resolve, "x")
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert diary.lines == ["open", "close"]
        gate.set()
        assert await node.resolve("x") == "ready"
    assert diary.lines == ["open", "close", "open", "close"]


async def test_generators_see_how_the_work_ended() -> None:
    """`aclose(error)` raises the error at the `yield`, so that a transaction is rolled back."""
    diary = Diary()
    node = AppScope(AgentMapContext(database_session_factory=diary.generator("db"))).run_scope().node_scope()
    await node.prepare(("database",))
    await node.aclose(LookupError("agent failed"))
    assert diary.lines == ["open db", "db saw LookupError", "close db"]


async def test_cancellation_does_not_reach_the_closers() -> None:
    """A cancelled run still closes what it opened, to the last await."""
    diary = Diary()
    run = AppScope(AgentMapContext({"a": diary.async_generator("a"), "b": diary.async_generator("b")})).run_scope()

    async def branch() -> None:
        node = run.node_scope()
        try:
            await node.prepare(("a", "b"))
            await anyio.sleep_forever()
        finally:
            await node.aclose()
            await run.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(branch)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert diary.lines == ["open a", "open b", "close b", "close a"]


async def test_a_closer_that_raises_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with the service's name."""
    diary = Diary()

    def bad() -> Iterator[str]:
        yield "bad"
        raise OSError("disk on fire")

    async with attempt(AgentMapContext({"good": diary.generator("good"), "bad": bad})) as node:
        await node.prepare(("good", "bad"))
    assert diary.lines == ["open good", "close good"]
    assert [record.getMessage() for record in caplog.records] == ["Closing the service 'bad' failed"]


async def test_an_interrupt_in_a_closer_waits_for_the_others() -> None:
    """KeyboardInterrupt travels on after everything is closed."""
    diary = Diary()

    def bad() -> Iterator[str]:
        yield "bad"
        raise KeyboardInterrupt

    run = AppScope(AgentMapContext({"good": diary.generator("good"), "bad": bad})).run_scope()
    await run.node_scope().prepare(("good", "bad"))
    with pytest.raises(KeyboardInterrupt):
        await run.aclose()
    assert diary.lines == ["open good", "close good"]


async def test_a_closer_that_hangs_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing has a deadline of its own, because cancellation does not reach it."""
    monkeypatch.setattr(agentmap_asgi.scopes, "CLOSE_SECONDS", 0.01)

    async def hanging() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    with caplog.at_level(logging.ERROR):
        assert await resolved(hanging) == 1
    assert "was given up" in caplog.text


async def test_a_left_behind_task_cannot_open_a_service() -> None:
    """After the end of a scope nothing is opened in it; what was being opened is closed at once."""
    diary = Diary()
    gate = anyio.Event()

    async def make() -> AsyncIterator[int]:
        await gate.wait()
        diary.lines.append("open")
        yield 1
        diary.lines.append("close")

    run = AppScope(AgentMapContext({"x": make})).run_scope()
    errors = []

    async def ask() -> None:
        try:
            await run.node_scope().resolve("x")
        except RuntimeError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await run.aclose()
        gate.set()
    await ask()
    assert diary.lines == ["open", "close"]
    assert errors == ["The service 'x' was asked for after its run had ended"] * 2


async def test_get_gives_prepared_services_only() -> None:
    """`get` never waits; the error says what to do for a service that was not declared, or does not exist."""
    async with attempt(AgentMapContext({"mail": 1, "queue": 2})) as node:
        await node.prepare(("mail",))
        assert node.get("mail") == 1
        with pytest.raises(ServiceMissing, match=r"did not declare the service 'queue'.*resolve\('queue'\)"):
            node.get("queue")
        with pytest.raises(ServiceMissing, match=r"no service 'mial'.*did you mean 'mail'"):
            node.get("mial")
        with pytest.raises(ServiceMissing, match=r"no service 'moon' in the context object$"):
            await node.resolve("moon")
        with pytest.raises(ServiceMissing):
            await node.prepare(("moon",))


async def test_the_cache_service_is_an_object_or_a_factory() -> None:
    """It is the service `cache`."""
    context = AgentMapContext(cache_service={"a": 1})
    assert context.service_names == {"cache"}
    async with attempt(context) as node:
        assert await node.resolve("cache") == {"a": 1}
    async with attempt(AgentMapContext(cache_service=lambda: {"b": 2})) as node:
        assert await node.resolve("cache") == {"b": 2}


async def test_a_callable_object_makes_sessions() -> None:
    """`database_session_factory=sessionmaker(...)` works, although that is an object and not a function."""

    class Sessionmaker:
        def __call__(self, **options: Any) -> Session:
            return Session()

    async with attempt(AgentMapContext(database_session_factory=Sessionmaker())) as node:
        session = await node.resolve("database")
        assert session.entered == 1
    assert session.closed


def test_routing_functions_are_plain_functions() -> None:
    """An async one would give a coroutine in place of node names, so it is refused when the context is made."""

    async def later(state: dict[str, Any]) -> str:
        return "A"

    class Later:
        async def __call__(self, state: dict[str, Any]) -> str:
            return "A"

    def items(state: dict[str, Any]) -> Iterator[str]:
        yield "A"

    for function in (later, Later(), partial(later), items):
        with pytest.raises(TypeError, match=r"functions\['pick'\] is async or a generator"):
            AgentMapContext(functions={"pick": function})
    with pytest.raises(TypeError, match=r"functions\['pick'\] is a str"):
        AgentMapContext(functions={"pick": "A"})  # type: ignore[dict-item]
    assert AgentMapContext(functions={"pick": lambda state: "A"}).functions


def test_wrong_services_are_refused_at_construction() -> None:
    """A name given twice, a factory with arguments, a session for all: a TypeError that names the place."""

    class NeedsPool:
        def __init__(self, pool: Any, size: int = 1) -> None: ...

    with pytest.raises(TypeError, match="'database' is given twice"):
        AgentMapContext({"database": 1}, database_session_factory=Session)
    with pytest.raises(TypeError, match="'cache' is given twice"):
        AgentMapContext({"cache": 1}, cache_service=2)
    with pytest.raises(TypeError, match=r"services\['users'\] needs arguments \(pool\).*lambda: NeedsPool\(\.\.\.\)"):
        AgentMapContext({"users": NeedsPool})
    with pytest.raises(TypeError, match=r"database_session_factory needs arguments \(request\)"):
        AgentMapContext(database_session_factory=lambda request: Session())
    with pytest.raises(TypeError, match="database_session_factory is a Session; give a function"):
        AgentMapContext(database_session_factory=Session())
    with pytest.raises(TypeError, match='takes "node", "run" or "app", not \'request\''):
        scoped(Session, "request")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a factory"):
        scoped(Session(), "run")  # type: ignore[arg-type]


def test_a_built_in_without_a_signature_is_a_factory() -> None:
    """Where Python cannot tell the arguments, the first call will."""
    assert AgentMapContext({"x": dict, "y": threading.Lock}).service_names == {"x", "y"}


async def test_override_replaces_services_for_a_while() -> None:
    """Also app-scoped ones that are open already; afterwards everything is as before."""
    context = AgentMapContext({"queue": scoped(lambda: [1], "app")}, cache_service="real")
    app = AppScope(context)
    assert await app.run_scope().node_scope().resolve("queue") == [1]
    with context.override(cache="fake", queue=lambda: [2]):
        node = app.run_scope().node_scope()
        assert await node.resolve("cache") == "fake"
        fake = await node.resolve("queue")
        assert fake == [2]
        assert await app.run_scope().node_scope().resolve("queue") is fake
        with context.override(cache=lambda: "made"):
            assert await node.resolve("cache") == "made"
        assert await node.resolve("cache") == "fake"
    assert await app.run_scope().node_scope().resolve("cache") == "real"
    with pytest.raises(TypeError, match="did you mean 'cache'"), context.override(cash=1):
        pass  # pragma: no cover


def test_secrets_come_from_a_mapping_or_a_function() -> None:
    """A missing one is an error that names the secret, never a value."""

    def look_up(name: str) -> str:
        return {"TOKEN": "t0p"}[name]

    for secrets in ({"TOKEN": "t0p"}, look_up):
        context = AgentMapContext(secrets=secrets)
        assert context.secret("TOKEN") == "t0p"
        with pytest.raises(ServiceMissing, match="no secret 'TOKN'") as caught:
            context.secret("TOKN")
        assert "t0p" not in str(caught.value)
    with pytest.raises(ServiceMissing, match="did you mean 'TOKEN'"):
        AgentMapContext(secrets={"TOKEN": "t0p"}).secret("TOKN")
    with pytest.raises(ServiceMissing, match="no secret"):
        AgentMapContext().secret("TOKEN")
    with pytest.raises(TypeError, match="'TOKEN' is not a text but a bytes"):
        AgentMapContext(secrets={"TOKEN": b"t0p"}).secret("TOKEN")  # type: ignore[dict-item]


def test_one_public_operation_may_be_given_as_a_text() -> None:
    """`public="health"` does not mean six letters."""
    assert AgentMapContext(public="health").public == {"health"}
    assert AgentMapContext(public=["health", "ready"]).public == {"health", "ready"}


def test_who_is_asked_takes_the_arguments() -> None:
    """A function that cannot be called as it will be is a TypeError at construction, with the arguments."""
    with pytest.raises(TypeError, match=r"authorize is called with \(principal, operation, graph, execution=None\)"):
        AgentMapContext(authorize=lambda principal, operation: True)
    with pytest.raises(TypeError, match=r"authenticate is called with \(request\), which \(\) does not take"):
        AgentMapContext(authenticate=lambda: "ada")
    AgentMapContext(authorize=lambda *all_of_it: True, authenticate=dict)
