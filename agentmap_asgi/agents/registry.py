"""What an agent is, and the table that finds one by the name in a row."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeVar, overload

from ..errors import ConfigError, nearest
from ..execution.fields import Position
from ..scopes import Provider
from ..workflows.diagnostics import Finding
from ..workflows.model import Node
from .options import Options, options_from

if TYPE_CHECKING:
    from ..config import AgentMapConfig
    from ..context import AgentMapContext

ThingT = TypeVar("ThingT", bound=Callable[..., Any])
T = TypeVar("T")
Mode = Literal["inline", "async", "thread"]
"""How an agent is called: in the walk itself (short, never blocking), awaited, or in a worker thread."""


class Call(Protocol):
    """What an agent is given. All values are the agent's own copies; changing them changes nothing else."""

    @property
    def inputs(self) -> dict[str, Any]:
        """The fields of Input_Fields; absent ones are None."""

    @property
    def prompt(self) -> str:
        """The Prompt with its fields filled in."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The row's Context, with `secret:NAME` values looked up, and declared options as their declaration says."""

    @property
    def state(self) -> dict[str, Any]:
        """The whole state before this node."""

    @property
    def context(self) -> Mapping[str, Any]:
        """What the host said about this run: principal, request id, …"""

    @property
    def node(self) -> Node: ...
    @property
    def graph_name(self) -> str: ...
    @property
    def execution_id(self) -> str: ...
    @property
    def attempt(self) -> int:
        """1 for the first attempt."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this run of the node; pass it to services that accept one."""

    def service(self, name: str) -> Any:
        """A service the agent declared (`services=`); ServiceMissing when it was not declared or does not exist."""

    async def resolve(self, name: str) -> Any:
        """Any service of the context object, opened on first use."""

    def secret(self, name: str) -> str:
        """A secret of the context object; it is masked in what this execution says. Raises ServiceMissing."""

    def report(self, progress: float, message: str = "") -> None:
        """Say how far the work is: 0.0 to 1.0. Those who watch the execution see it as a `progress` event."""

    def log(self, message: str, **fields: Any) -> None:
        """A line in the log, with the execution's and the node's names, and a `log` event for those who watch."""

    def token(self, text: str, *, last: bool = False) -> None:
        """A piece of a text that is being made, as a `token` event for those who watch. `last` ends the text."""

    def again(self) -> None:
        """The pieces of text that follow are of an answer that begins anew."""

    def spend(self, **used: int) -> None:
        """Count what the node uses: `call.spend(requests=1, input_tokens=20)`; it stands under `usage`."""


class InnerCall(Call, Protocol):
    """What built-in agents are given besides."""

    async def opened(self, provider: Provider) -> Any:
        """What a built-in agent shares with others of its app, run or attempt."""

    async def in_thread(self, function: Callable[[], T]) -> T:
        """A function's result, called in a worker thread as agents that are plain functions are."""

    @property
    def choices(self) -> dict[str, Node]:
        """The nodes that the agent may route to by itself."""


class Outcome(NamedTuple):
    """A result with more to say than its value; a plain value means `Outcome(value)`."""

    value: Any
    success: bool = True
    """Becomes `last_action_success` and chooses between Success_Next and Failure_Next."""
    goto: str | None = None
    """The next node, for agents that route by themselves; it must be among the agent's `targets`."""
    updates: Mapping[str, Any] | None = None
    """State fields that are set besides."""


Step = Callable[[dict[str, Any], Position], Any]
"""An agent compiled for one node: (values, position) -> result value, or Outcome if the agent is `rich`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agent:
    """One kind of node: a row of the registry.

    An agent is called with a Call (`run`), or, for the small built-ins, compiled once for each node into a function of
    the state (`compile`), which is never awaited and needs no Call.
    """

    name: str
    summary: str
    aliases: tuple[str, ...] = ()
    mode: Mode = "inline"
    run: Callable[[Call], Any] | None = None
    compile: Callable[[Node, Site], Step | None] | None = None
    """None for a row that is `run`."""
    rich: bool = False
    """Its results are Outcomes (they set the flag or route)."""
    sub_workflow: bool = False
    """The node runs another workflow; the executor does it."""
    waits: bool = False
    """It waits for answers from outside; a row's Timeout says how long."""
    services: tuple[str, ...] = ()
    """Services of the context object it needs; a missing one is found when the workflow is loaded."""
    expected_params: tuple[str, ...] = ()
    """Parameter names bound by position to Input_Fields without colons."""
    idempotent: bool = False
    """It may run again after a crash."""
    repeatable: Callable[[Node], bool] | None = None
    """The same for a row, where it depends on the options."""
    outside: bool = False
    """Its results come from outside (a model, a server): they are data, whatever they look like. They set the fields of
    Output_Field and no others, and `state_updates` in them means nothing."""
    state_prompt: bool = True
    """Its Prompt may read the whole state, not only its inputs."""
    reads: Callable[[Node], Iterable[str]] | None = None
    """State fields it must have beyond Input_Fields, for the checks."""
    samples: Callable[[Node], Mapping[str, Any]] | None = None
    """Values of state fields that lead somewhere, to show what a caller may give."""
    targets: Callable[[Node, Mapping[str, Node]], tuple[str, ...]] | None = None
    """(node, all nodes of the workflow) -> names of the nodes it may route to by itself."""
    wide: bool = False
    """These may be (almost) all nodes, whatever the row says."""
    options: Options | None = None
    """The options it takes, by key; None when that is not known, as with the host's own."""
    inputs: str = ""
    """What it does with its inputs, in a few words."""
    output: str = ""
    """What its result is, in a few words."""
    configure: Callable[[AgentMapConfig, AgentMapContext], Agent] | None = None
    """Gives the agent as the settings of one service allow it; agents that touch the world are off without."""
    mentions: Callable[[Node], Iterable[str]] | None = None
    """State fields that it uses if they are there, like those in its Prompt."""
    check: Callable[[Node], Iterable[Finding]] | None = None
    """What is wrong with a row's options."""
    only_text: Callable[[Node], bool] | None = None
    """Whether all that a row does is to make a text, which is lost without an Output_Field."""


class Site(NamedTuple):
    """What a compiled agent may know of its surroundings."""

    nodes: Mapping[str, Node]
    """All nodes of the workflow by name."""
    max_output: int = 1024 * 1024
    """Size of a node's output in bytes (characters for texts)."""


def fold(name: str) -> str:
    """The form in which agent names are compared: `EchoAgent`, `echo_agent` and `ECHO` are one."""
    plain = "".join(c for c in name.casefold() if c.isalnum())
    return plain.removesuffix("agent") or plain


_ELSEWHERE: Final = ("vector_reader", "vector_writer", "blob_reader", "blob_writer")
ABSENT: Final = {fold(name): name for name in _ELSEWHERE}
"""Agent types that AgentMap's files may name and that are not built in here, by their folded names."""


class Registry:
    """Agents by name and alias. Immutable; `extended` gives a new one."""

    def __init__(self, agents: Iterable[Agent] = ()) -> None:
        self._agents: dict[str, Agent] = {}
        self._by_fold: dict[str, Agent] = {}
        self._written: dict[str, Agent | None] = {}
        for agent in agents:
            self._agents[agent.name] = agent
            for name in (agent.name, *agent.aliases):
                self._by_fold[fold(name)] = agent

    def find(self, written: str) -> Agent | None:
        """The agent a row names, in any case and with or without the word Agent; empty means `default`."""
        try:
            return self._written[written]
        except KeyError:
            agent = self._by_fold.get(fold(written or "default"))
            if len(self._written) < 10_000:
                self._written[written] = agent
            return agent

    def __getitem__(self, name: str) -> Agent:
        return self._agents[name]

    def __iter__(self) -> Iterator[Agent]:
        return iter(self._agents.values())

    def nearest(self, written: str) -> str | None:
        """The name most like an unknown one."""
        names = [name for agent in self for name in (agent.name, *agent.aliases)]
        return nearest(written, names) or nearest(fold(written), names)

    def configured(self, config: AgentMapConfig, context: AgentMapContext) -> Registry:
        """This registry with its agents as the settings of one service allow them."""
        return Registry(agent if agent.configure is None else agent.configure(config, context) for agent in self)

    def extended(self, host: Mapping[str, Any]) -> Registry:
        """This registry with the host's own agents, which win over built-ins of the same name."""
        if not host:
            return self
        return Registry([*self, *(as_agent(name, thing) for name, thing in host.items())])


@overload
def agent(thing: ThingT, /) -> ThingT: ...
@overload
def agent(
    *,
    name: str = "",
    services: Iterable[str] = (),
    expected_params: Iterable[str] = (),
    idempotent: bool = False,
    inline: bool = False,
    summary: str = "",
    options: Any = None,
    output: str = "",
) -> Callable[[ThingT], ThingT]: ...
def agent(
    thing: Any = None,
    /,
    *,
    name: str = "",
    services: Iterable[str] = (),
    expected_params: Iterable[str] = (),
    idempotent: bool = False,
    inline: bool = False,
    summary: str = "",
    options: Any = None,
    output: str = "",
) -> Any:
    """Mark a function or a class as an agent, and declare what it needs: `@agent`, `@agent(services=["database"])`.

    `name` is what rows call it when it stands in the folder `custom_agents_path`; without one it is its own name.
    `services` are names of the context object's services. `inline` promises that a plain function returns at once and
    never blocks, so that it is called without a thread. `idempotent` says that it may run again after a crash.
    `options` are the keys of Context it takes, by name: a type, a tuple of words, or an Option; others are noted, and
    wrong values reported, when a file is loaded. `summary` and `output` are for people.
    """
    mark = {
        "name": name,
        "services": tuple(services),
        "expected_params": tuple(expected_params),
        "idempotent": idempotent,
        "inline": inline,
        "summary": summary,
        "options": options,
        "output": output,
    }

    def declare(thing: Any) -> Any:
        thing.__agentmap__ = mark
        return thing

    if isinstance(thing, str):
        raise TypeError(f"@agent takes keywords: @agent(name={thing!r})")
    return declare if thing is None else declare(thing)


def as_agent(name: str, thing: Any) -> Agent:
    """An Agent from what a host registers: a function of one Call, an object or class with `process(inputs)`.

    A class is instantiated once, without arguments. `configure_<x>_service(service)` methods declare the service `x`;
    each call gets a copy of the object, on which they are called before `process`. Raises ConfigError when `thing` is
    none of these.
    """
    if isinstance(thing, Agent):
        return thing
    if isinstance(thing, type):
        try:
            thing = thing()
        except TypeError as exc:
            raise ConfigError(f"The agent {name!r} cannot be made without arguments: {exc}") from None
    if hasattr(thing, "process"):
        return _from_object(name, thing)
    if not callable(thing):
        raise ConfigError(
            f"The agent {name!r} is a {type(thing).__name__}; register a function of one argument (the call), "
            "or a class with process(self, inputs)"
        )
    declared: dict[str, Any] = getattr(thing, "__agentmap__", {})
    is_async = inspect.iscoroutinefunction(thing) or inspect.iscoroutinefunction(type(thing).__call__)
    if inspect.isgeneratorfunction(thing) or inspect.isasyncgenfunction(thing):
        raise ConfigError(f"The agent {name!r} is a generator; return the result instead of yielding it")
    return Agent(
        name=name,
        summary=declared.get("summary") or _first_line(thing),
        mode="async" if is_async else "inline" if declared.get("inline") else "thread",
        run=thing,
        services=declared.get("services", ()),
        expected_params=declared.get("expected_params", ()),
        idempotent=declared.get("idempotent", False),
        state_prompt=False,
        options=_options(name, declared.get("options")),
        inputs=", ".join(declared.get("expected_params", ())),
        output=declared.get("output") or _returned(thing),
    )


def _from_object(name: str, thing: Any) -> Agent:
    setters = {
        attribute.removeprefix("configure_").removesuffix("_service"): attribute
        for attribute in dir(thing)
        if attribute.startswith("configure_") and attribute.endswith("_service")
    }
    declared: dict[str, Any] = getattr(thing, "__agentmap__", {})
    is_async = inspect.iscoroutinefunction(thing.process)

    def configured(call: Call) -> Any:
        """An object for this call alone: parallel nodes must not share a session that was set on it."""
        own = copy(thing) if setters else thing
        for service, setter in setters.items():
            getattr(own, setter)(call.service(service))
        return own

    async def run_async(call: Call) -> Any:
        return await configured(call).process(call.inputs)

    def run_thread(call: Call) -> Any:
        return configured(call).process(call.inputs)

    params = declared.get("expected_params") or tuple(getattr(thing, "expected_params", ()))
    return Agent(
        name=name,
        summary=declared.get("summary") or _first_line(thing),
        mode="async" if is_async else "inline" if declared.get("inline") else "thread",
        run=run_async if is_async else run_thread,
        services=tuple(dict.fromkeys((*setters, *declared.get("services", ()), *getattr(thing, "services", ())))),
        expected_params=params,
        idempotent=bool(declared.get("idempotent") or getattr(thing, "idempotent", False)),
        state_prompt=False,
        options=_options(name, declared.get("options")),
        inputs=", ".join(params),
        output=declared.get("output") or _returned(thing.process),
    )


def _options(name: str, given: Any) -> Options | None:
    try:
        return options_from(given)
    except ConfigError as exc:
        raise ConfigError(f"The agent {name!r}: {exc.message}") from None


def _returned(function: Any) -> str:
    """The type that a function says it returns, when it says so."""
    found = getattr(function, "__annotations__", {}).get("return", "")
    text = found if isinstance(found, str) else getattr(found, "__name__", str(found))
    return "" if text in ("", "Any", "None") else text


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]
