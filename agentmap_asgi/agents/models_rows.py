"""The rows of agents that ask models or call tools. What they do is imported when a workflow has such a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any, Final

from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..workflows.diagnostics import Finding
from ..workflows.model import Node
from ..workflows.options import parts
from .basic import prompt_mentions
from .options import Option, declared
from .registry import Agent, Call

TALKING: Final = (
    Option("model", summary="The model; else that of the provider."),
    Option("temperature", "number", "How freely it answers.", least=0, most=2),
    Option("max_tokens", "whole", "Length of the answer, in tokens.", least=1),
    Option("fallback", "names", "Providers, or `provider:model`, that are asked when this one does not answer."),
)
PROVIDER: Final = Option("provider", summary="The provider, by its name in the settings; else the first that fits.")
LLM: Final = Option("llm", "any", "A provider, or true for the first: a model does it, instead of the rules.")
OPTIONS: Final = declared(
    PROVIDER,
    *TALKING,
    Option("response_schema", "object", "A JSON Schema; the answer is an object that fits it."),
    Option("stream", "truth", "Pieces of the answer are told to those who watch, as `token` events."),
    Option("tools", "names", "Tools that it may use; also Available_Tools."),
    Option("max_rounds", "whole", "How often it may ask for tools.", default=8, least=1),
    Option("memory_key", summary="The state field in which the conversation is kept."),
    Option("memory_limit", "whole", "Messages that are kept.", default=20, aliases=("max_memory_messages",), least=0),
)
TOOL_OPTIONS: Final = declared(
    Option(
        "strategy",
        summary="How one of several tools is chosen: by its name and words in the request, or by a model. "
        "By a model when the row names a provider or a model.",
        choices=("name", "model"),
    ),
    Option("tools", "names", "As Available_Tools."),
    PROVIDER,
    *TALKING,
)
MODELS: Final = "models"
TOOLS: Final = "tools_agent"


class Later:
    """What a row does and checks, by the names of functions of a module of this folder, for one service.

    Each function is called with a Desk (the providers and tools of the service), then with `given`.
    """

    def __init__(self, module: str, run: str, check: str, *given: Any) -> None:
        self._names = module, run, check
        self._given = given
        self._service: tuple[AgentMapConfig, AgentMapContext] | None = None
        self._desk: Any = None

    def row(self, agent: Agent) -> Agent:
        """The agent; it stays off until it is configured."""

        def configure(config: AgentMapConfig, context: AgentMapContext) -> Agent:
            module, run, check = self._names
            ours = Later(module, run, check, *self._given)
            ours._service = config, context
            return ours.row(agent)

        return replace(agent, mode="async", run=self._run, check=self._check, configure=configure)

    async def _run(self, call: Call) -> Any:
        module, run, _ = self._names
        return await getattr(_module(module), run)(self._at(), *self._given, call)

    def _check(self, node: Node) -> Iterator[Finding]:
        module, _, check = self._names
        found: Iterator[Finding] = getattr(_module(module), check)(self._at(), *self._given, node)
        return found

    def _at(self) -> Any:
        if self._desk is None:
            self._desk = _module(MODELS).desk_of(*(self._service or (None, None)))
        return self._desk


def _module(name: str) -> Any:
    return import_module(f".{name}", __package__)


def model_agent(name: str, kind: str, aliases: tuple[str, ...], summary: str) -> Agent:
    """llm, or one that is called as a provider is."""
    row = Agent(
        name=name,
        summary=summary,
        aliases=aliases,
        inputs="what the user says; several as `name: value`",
        output="the text of the answer, or an object that fits response_schema",
        mentions=mentions,
        only_text=_only_answers,
        options=OPTIONS,
        outside=True,
        repeatable=lambda node: not tool_names(node),
    )
    return Later(MODELS, "llm", "check_llm", kind).row(row)


def tool_agent() -> Agent:
    row = Agent(
        name="tool_agent",
        summary="Calls a Python function of the host's, or one of several.",
        aliases=("tool",),
        inputs="the arguments, by name, or by position",
        output="what the tool returns",
        mentions=mentions,
        options=TOOL_OPTIONS,
        outside=True,
    )
    return Later(TOOLS, "tool_agent", "check").row(row)


def also_by_model(row: Agent, run: str) -> Agent:
    """An agent that asks a model when Context has `llm`; else nothing of this is imported."""
    own = {id(one): one for one in (row.options or {}).values()}.values()
    made = Later(MODELS, run, "check_with_model").row(replace(row, options=declared(*own, LLM, *TALKING)))
    return _checked(made, row)


def _checked(made: Agent, row: Agent) -> Agent:
    """With the check that the row has in any case."""
    by_model, configure = made.check, made.configure
    assert by_model is not None  # noqa: S101  # Later gives both
    assert configure is not None  # noqa: S101

    def check(node: Node) -> Iterable[Finding]:
        own = row.check(node) if row.check is not None else ()
        return [*own, *(by_model(node) if node.options.get("llm") else ())]

    return replace(made, check=check, configure=lambda config, context: _checked(configure(config, context), row))


def mentions(node: Node) -> tuple[str, ...]:
    memory = node.options.get("memory_key")
    return (*prompt_mentions(node), *((str(memory),) if memory else ()))


def _only_answers(node: Node) -> bool:
    """A model that uses no tools, and whose answer is neither remembered nor told while it is made."""
    return not (node.options.get("memory_key") or node.options.get("stream") or tool_names(node))


def tool_names(node: Node) -> list[str]:
    """The tools that a row names, in Context or in Available_Tools."""
    named = node.options.get("tools")
    return [text for one in (*(parts(named) if named else ()), *node.tools) if (text := str(one).strip())]
