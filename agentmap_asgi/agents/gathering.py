"""All agents of one service: the built-in ones as its settings allow them, and the host's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..config import AgentMapConfig
from ..context import AgentMapContext
from .builtin import BUILTINS
from .folder import load_agents
from .options import rows_of, shown_default
from .plugins import installed
from .registry import Agent, Registry


def gathered(config: AgentMapConfig, context: AgentMapContext) -> Registry:
    """The agents that rows may name. Raises ConfigError for those of the host that cannot be used."""
    own = dict(context.agents)
    if config.custom_agents_path is not None:
        own |= load_agents(config.custom_agents_path, own)
    if context.tools or config.tools_path is not None:
        from .tools import load_tools  # which needs pydantic

        context = context.having_tools(load_tools(config, context))
    return BUILTINS.configured(config, context).extended({**installed(BUILTINS), **own})


def described(agent: Agent) -> dict[str, Any]:
    """An agent as plain JSON values; `options` is null when they are not known."""
    return {
        "name": agent.name,
        "aliases": list(agent.aliases),
        "summary": agent.summary,
        "inputs": agent.inputs,
        "output": agent.output,
        "services": list(agent.services),
        "idempotent": agent.idempotent or agent.compile is not None,
        "options": None
        if agent.options is None
        else {row.name: {**row.schema, "aliases": list(row.aliases)} for row in rows_of(agent.options)},
    }


def lines_of(agents: Iterable[Agent]) -> Iterator[str]:
    """The same for people."""
    for agent in agents:
        also = f" (also {', '.join(agent.aliases)})" if agent.aliases else ""
        yield f"{agent.name}{also}: {agent.summary}" if agent.summary else f"{agent.name}{also}"
        facts = {"inputs": agent.inputs, "result": agent.output, "services": ", ".join(agent.services)}
        yield from (f"  {name}: {text}" for name, text in facts.items() if text)
        for row in rows_of(agent.options):
            keys = ", ".join((row.name, *row.aliases))
            default = "" if row.default is None else f" [{shown_default(row.default)}]"
            yield f"  {keys} = {row.shown}{default}  {row.summary}".rstrip()
        yield ""
