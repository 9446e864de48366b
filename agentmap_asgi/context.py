"""What a host hands in: live services and callbacks, shared by all executions of one app."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any, Final, Protocol

from .config import AgentMapConfig
from .databases import engine_of
from .errors import ServiceMissing, nearest
from .scopes import AppScope, Level, Provider, Value, as_provider, scoped

__all__ = ["AgentMapContext", "AppScope", "Clock", "SystemClock", "Value", "scoped"]

DATABASE: Final = "database"
CACHE: Final = "cache"
SQL: Final = "sql"
"""The engine of the setting `sql_url`."""


class Clock(Protocol):
    """Where times come from. Tests hand in their own."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, for what people read."""

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back, for durations and deadlines."""


class PayloadCodec(Protocol):
    """Bytes into bytes and back; called in the threads of the store."""

    def encode(self, data: bytes, /) -> bytes: ...
    def decode(self, data: bytes, /) -> bytes: ...


class SystemClock:
    """The machine's own clocks."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


class AgentMapContext:
    """The host's live objects, given once at construction; nothing is opened here.

    services: name -> a factory (a function, generator function or class, called without arguments) or the object
    itself. database_session_factory: makes the service `database`, one for each attempt of a node. cache_service: the
    service `cache`, an object or a factory. authenticate: `(Request) -> principal | None | Response`, sync or async.
    authorize: `(principal, operation, graph, execution=None) -> bool`. agents: name -> function or class.
    functions: name -> routing function for `func:name` cells, `(state) -> name | list of names`.
    tools: functions that `tool_agent` and models may call, or name -> function.
    secrets: name -> value, or a function of the name. input_schemas: workflow -> pydantic model.
    payload_codec: what turns stored states, events and documents into other bytes and back, as encryption does.

    Raises TypeError for a factory that needs arguments, for a name given twice, for an `authenticate` or
    `authorize` that does not take these arguments, and for a routing function that is none or is async.
    """

    def __init__(
        self,
        services: Mapping[str, Any] | None = None,
        *,
        database_session_factory: Any = None,
        cache_service: Any = None,
        authenticate: Callable[..., Any] | None = None,
        authorize: Callable[..., Any] | None = None,
        principal_key: Callable[[Any], str] | None = None,
        public: Iterable[str] = (),
        agents: Mapping[str, Any] | None = None,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        tools: Iterable[Callable[..., Any]] | Mapping[str, Callable[..., Any]] = (),
        secrets: Mapping[str, str] | Callable[[str], str] | None = None,
        input_schemas: Mapping[str, Any] | None = None,
        payload_codec: PayloadCodec | None = None,
        on_error: Callable[..., Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._providers = _providers(services or {}, database_session_factory, cache_service)
        self._base: AgentMapContext | None = None
        _check_arguments("authenticate", authenticate, "(request)", 1)
        _check_arguments("authorize", authorize, "(principal, operation, graph, execution=None)", 4)
        self.authenticate = authenticate
        self.authorize = authorize
        self.principal_key = principal_key
        self.public = frozenset((public,) if isinstance(public, str) else public)
        self.agents = dict(agents or {})
        self.functions = dict(functions or {})
        for name, function in self.functions.items():
            _check_function(name, function)
        self.tools: Mapping[str, Any] | tuple[Any, ...] = dict(tools) if isinstance(tools, Mapping) else tuple(tools)
        self.secrets = secrets
        self.input_schemas = dict(input_schemas or {})
        for method in ("encode", "decode") if payload_codec is not None else ():
            if not callable(getattr(payload_codec, method, None)):
                raise TypeError(f"payload_codec needs encode(bytes) and decode(bytes); it has no {method}")
        self.payload_codec = payload_codec
        self.on_error = on_error
        self.clock: Clock = clock or SystemClock()

    @property
    def service_names(self) -> frozenset[str]:
        """What agents may ask for."""
        own = frozenset(self._providers)
        return own if self._base is None else own | self._base.service_names

    def extended(self, config: AgentMapConfig) -> AgentMapContext:
        """This context with the live objects of the settings. Raises TypeError for a name that both have."""
        own = dict(config.custom_services or {})
        if config.sql_url and SQL not in own and SQL not in self.service_names:
            own[SQL] = scoped(engine_of(config.sql_url), "app")
        added = _providers(own, config.database_session_factory, config.cache_service, "custom_services")
        if not added:
            return self
        for name in sorted(added.keys() & self.service_names):
            raise TypeError(f"The service {name!r} is given twice: in the context object and in the config")
        made = copy(self)
        made._providers, made._base = added, self
        return made

    def having_tools(self, tools: Mapping[str, Any]) -> AgentMapContext:
        """This context with tools that have been looked at."""
        if not tools:
            return self
        made = copy(self)
        made.tools = dict(tools)
        return made

    def provider(self, name: str) -> Provider:
        """How a service is made. Raises ServiceMissing."""
        found = self._found(name)
        if found is None:
            raise ServiceMissing(_unknown("service", name, self.service_names))
        return found

    def _found(self, name: str) -> Provider | None:
        found = self._providers.get(name)
        return self._base._found(name) if found is None and self._base is not None else found

    @contextmanager
    def override(self, **services: Any) -> Iterator[None]:
        """Replace services for a while, for tests: `with context.override(cache=FakeCache()): ...`.

        Functions, generator functions and classes are factories, as in `services`, and live as long as what they
        replace. Services that are open already stay as they are. Raises TypeError for an unknown name.
        """
        replaced: dict[str, Provider] = {}
        others: dict[str, Any] = {}
        for name, thing in services.items():
            if name not in self.service_names:
                raise TypeError(_unknown("service", name, self.service_names))
            if name in self._providers:
                replaced[name] = as_provider(name, thing, self._level(name), where=f"The override {name!r}")
            else:
                others[name] = thing
        before = {name: self._providers[name] for name in replaced}
        with ExitStack() as stack:
            if self._base is not None and others:
                stack.enter_context(self._base.override(**others))
            stack.callback(self._providers.update, before)
            self._providers.update(replaced)
            yield

    def _level(self, name: str) -> Level:
        known = self._providers[name]
        return known.level if known.make is not None else _default_level(name)

    def secret(self, name: str) -> str:
        """The value of a secret. Raises ServiceMissing, naming the secret, when there is none."""
        value: Any = None
        if callable(self.secrets):
            try:
                value = self.secrets(name)
            except LookupError:
                value = None
        elif self.secrets is not None:
            value = self.secrets.get(name)
        if value is None:
            known = self.secrets if isinstance(self.secrets, Mapping) else ()
            raise ServiceMissing(_unknown("secret", name, known))
        if not isinstance(value, str):
            raise TypeError(f"The secret {name!r} is not a text but a {type(value).__name__}")
        return value


def _check_arguments(name: str, function: Callable[..., Any] | None, wanted: str, count: int) -> None:
    if function is None:
        return
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions do not tell
        return
    try:
        signature.bind(*range(count))
    except TypeError:
        raise TypeError(f"{name} is called with {wanted}, which {signature} does not take") from None


def _check_function(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"functions[{name!r}] is a {type(function).__name__}; give a function of the state")
    call = getattr(type(function), "__call__", None)  # noqa: B004 - an object may be async by its class
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(kind(thing) for kind in kinds for thing in (function, call)):
        raise TypeError(
            f"functions[{name!r}] is async or a generator; a routing function is called between two nodes and returns "
            "node names at once. Have an agent fetch what it needs, and let the function read that from the state"
        )


def _providers(services: Mapping[str, Any], database: Any, cache: Any, label: str = "services") -> dict[str, Provider]:
    for name, given, keyword in ((DATABASE, database, "database_session_factory"), (CACHE, cache, "cache_service")):
        if name in services and given is not None:
            raise TypeError(f"The service {name!r} is given twice: in {label} and as {keyword}")
    table = {
        name: as_provider(name, thing, _default_level(name), where=f"{label}[{name!r}]")
        for name, thing in services.items()
    }
    if database is not None:
        table[DATABASE] = made = as_provider(
            DATABASE, database, _default_level(DATABASE), where="database_session_factory", any_callable=True
        )
        if made.make is None and not isinstance(database, Value):
            raise TypeError(
                f"database_session_factory is a {type(database).__name__}; give a function that makes a session, "
                "because a session must not be shared by parallel nodes"
            )
    if cache is not None:
        table[CACHE] = as_provider(CACHE, cache, _default_level(CACHE), where="cache_service", any_callable=True)
    return table


def _default_level(name: str) -> Level:
    return "node" if name == DATABASE else "run"


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    close = nearest(name, list(known))
    return f"There is no {kind} {name!r} in the context object" + (f"; did you mean {close!r}?" if close else "")
