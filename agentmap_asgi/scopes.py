"""When a service is opened and when it is closed: scopes of the app, of a run and of one node attempt."""

from __future__ import annotations

import dis
import functools
import inspect
import logging
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import anyio

from .errors import ServiceMissing

logger = logging.getLogger("agentmap_asgi")

Level = Literal["node", "run", "app"]
LEVELS: Final = ("node", "run", "app")
CLOSE_SECONDS: Final = 30.0
"""How long one async closer may take; closing is shielded from cancellation, so it needs an end of its own."""

_CALLS: Final = frozenset(("CALL", "CALL_KW", "CALL_FUNCTION_EX"))


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """The object itself is the service, also when it is a function or a class. It is never entered nor closed."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Scoped:
    """A factory with its scope; made by `scoped`."""

    factory: Callable[[], Any]
    level: Level
    enter: bool | None


def scoped(factory: Callable[[], Any], level: Level, *, enter: bool | None = None) -> Scoped:
    """Say how long what a factory makes lives: for one `"node"` attempt, one `"run"`, or the whole `"app"`.

    `enter=False` hands the object out as it is: it is neither entered nor closed. `enter=True` does both, also for an
    object that the factory only looks up.
    """
    if level not in LEVELS:
        raise TypeError(f'scoped() takes "node", "run" or "app", not {level!r}')
    if not callable(factory):
        raise TypeError(f"scoped() takes a factory, not {factory!r}; an object that exists already needs no scope")
    return Scoped(factory, level, enter)


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """One service by name: a value, or how to make it."""

    name: str
    level: Level = "app"
    make: Callable[[], Any] | None = None
    enter: bool = False
    value: Any = None


def as_provider(name: str, thing: Any, level: Level, *, where: str, any_callable: bool = False) -> Provider:
    """The provider for what a host gave under `name`. Raises TypeError, naming `where`, for a factory with arguments.

    `any_callable` makes every callable a factory (`sessionmaker(...)` is an object that makes sessions).
    """
    if isinstance(thing, Value):
        return Provider(name, value=thing.value)
    enter: bool | None = None
    if isinstance(thing, Scoped):
        thing, level, enter = thing.factory, thing.level, thing.enter
    elif not (
        isinstance(thing, type | functools.partial) or inspect.isroutine(thing) or (any_callable and callable(thing))
    ):
        return Provider(name, value=thing)
    needed = _required(thing)
    if needed:
        called = getattr(thing, "__name__", None) or type(thing).__name__
        raise TypeError(
            f"{where} needs arguments ({', '.join(needed)}); a factory is called without any: "
            f"give a function, for example lambda: {'make' if called == '<lambda>' else called}(...)"
        )
    if inspect.isasyncgenfunction(thing):
        return Provider(name, level, asynccontextmanager(thing), enter=True)
    if inspect.isgeneratorfunction(thing):
        return Provider(name, level, contextmanager(thing), enter=True)
    return Provider(name, level, thing, enter=not _looks_up(thing) if enter is None else enter)


def _required(factory: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some built-in functions do not tell
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _looks_up(factory: Any) -> bool:
    """Whether a function calls nothing (`lambda: app.state.pool`): what it returns existed before and is the host's."""
    code = getattr(factory, "__code__", None)
    return code is not None and not any(step.opname in _CALLS for step in dis.get_instructions(code))


class Providers(Protocol):
    """Where scopes find services by name: the context object."""

    def provider(self, name: str) -> Provider:
        """Raises ServiceMissing."""


class _Opened:
    """What a scope holds once something was opened in it."""

    __slots__ = ("closers", "locks", "services")

    def __init__(self) -> None:
        self.services: dict[Provider, Any] = {}
        self.locks: dict[Provider, anyio.Lock] = {}
        self.closers: list[tuple[str, Any]] = []


class _Scope:
    """Services opened so far, in order. A scope in which nothing is opened costs one small object."""

    __slots__ = ("_closed", "_opened")

    def __init__(self) -> None:
        self._closed = False
        self._opened: _Opened | None = None

    @property
    def empty(self) -> bool:
        """Nothing was opened, so there is nothing to close."""
        return self._opened is None

    async def _open(self, provider: Provider) -> Any:
        opened = self._opened
        if opened is None:
            opened = self._opened = _Opened()
        elif provider in opened.services:
            return opened.services[provider]
        async with opened.locks.setdefault(provider, anyio.Lock(fast_acquire=True)):
            if provider not in opened.services:
                self._refuse_if_closed(provider)
                opened.services[provider] = await self._make(provider, opened)
            return opened.services[provider]

    async def _make(self, provider: Provider, opened: _Opened) -> Any:
        assert provider.make is not None  # noqa: S101  # values never come here
        made = provider.make()
        if inspect.iscoroutine(made) or (inspect.isawaitable(made) and not _is_manager(made)):
            made = await made
        if inspect.isgenerator(made):  # `lambda: get_session(pool)`, where get_session yields
            manager: Any = contextmanager(functools.partial(_same, made))()
        elif inspect.isasyncgen(made):
            manager = asynccontextmanager(functools.partial(_same, made))()
        elif provider.enter and _is_manager(made):
            manager = made
        else:
            return made
        service = await manager.__aenter__() if _is_async(manager) else manager.__enter__()
        opened.closers.append((provider.name, manager))
        if self._closed:  # the scope ended while a left-behind task was still opening
            await self.aclose()
            self._refuse_if_closed(provider)
        return service

    def _refuse_if_closed(self, provider: Provider) -> None:
        if self._closed:
            raise RuntimeError(f"The service {provider.name!r} was asked for after its {provider.level} had ended")

    async def aclose(self, error: BaseException | None = None) -> None:
        """Close what was opened, last first. `error` is how the work ended; generators and managers see it.

        Cancellation does not reach the closers. One that raises or hangs is logged, and the others still run.
        """
        self._closed = True
        interrupt: BaseException | None = None
        while self._opened is not None and self._opened.closers:
            name, manager = self._opened.closers.pop()
            try:
                await _close(name, manager, error)
            except Exception as exc:  # a service of the host's, whatever it raises
                if exc is not error:
                    logger.exception("Closing the service %r failed", name)
            except BaseException as exc:  # the rest is closed first
                interrupt = exc
        if interrupt is not None:
            raise interrupt


async def _close(name: str, manager: Any, error: BaseException | None) -> None:
    details = (None, None, None) if error is None else (type(error), error, error.__traceback__)
    if not _is_async(manager):
        manager.__exit__(*details)
        return
    with anyio.move_on_after(CLOSE_SECONDS, shield=True) as deadline:
        await manager.__aexit__(*details)
    if deadline.cancelled_caught:
        logger.error("Closing the service %r took longer than %g s and was given up", name, CLOSE_SECONDS)


def _same(thing: Any) -> Any:
    return thing


def _is_async(thing: Any) -> bool:
    return hasattr(type(thing), "__aenter__") and hasattr(type(thing), "__aexit__")


def _is_manager(thing: Any) -> bool:
    return _is_async(thing) or (hasattr(type(thing), "__enter__") and hasattr(type(thing), "__exit__"))


class AppScope(_Scope):
    """From the start of an app to its end, in one event loop."""

    __slots__ = ("_services",)

    def __init__(self, services: Providers) -> None:
        super().__init__()
        self._services = services

    def run_scope(self) -> RunScope:
        return RunScope(self)


class RunScope(_Scope):
    """From the start of a run (or its resumption) to its end or suspension; shared by its branches."""

    __slots__ = ("_app",)

    def __init__(self, app: AppScope) -> None:
        super().__init__()
        self._app = app

    def node_scope(self) -> NodeScope:
        return NodeScope(self)


class NodeScope(_Scope):
    """One attempt of one node."""

    __slots__ = ("_prepared", "_run")

    def __init__(self, run: RunScope) -> None:
        super().__init__()
        self._run = run
        self._prepared: dict[str, Any] = {}

    async def prepare(self, names: tuple[str, ...]) -> None:
        """Open the services an agent declared, so that `get` need not wait."""
        for name in names:
            self._prepared[name] = await self.resolve(name)

    def get(self, name: str) -> Any:
        """A prepared service. Raises ServiceMissing."""
        try:
            return self._prepared[name]
        except KeyError:
            pass
        self._run._app._services.provider(name)  # an unknown name is said first
        raise ServiceMissing(
            f"The agent did not declare the service {name!r}: add services=[{name!r}] to @agent, "
            f"or use `await call.resolve({name!r})`"
        )

    async def resolve(self, name: str) -> Any:
        """Any service, opened on first use. Raises ServiceMissing; what a factory raises travels as it is."""
        return await self.opened(self._run._app._services.provider(name))

    async def opened(self, provider: Provider) -> Any:
        """What a provider gives, opened on first use."""
        run = self._run
        if provider.make is None:
            return provider.value
        scope: _Scope = self if provider.level == "node" else run if provider.level == "run" else run._app
        return await scope._open(provider)
