"""Small files for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterable

from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.agents.registry import Agent
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.workflows.diagnostics import Diagnostic
from agentmap_asgi.workflows.loader import Loaded, read_workflows
from agentmap_asgi.workflows.model import Node, Workflow

REGISTRY = BUILTINS.extended({"lookup": Agent(name="lookup", summary="Needs a service.", services=("database",))})


def load(
    data: bytes | str,
    file: str = "flows.csv",
    *,
    functions: frozenset[str] | None = frozenset({"pick"}),
    config: AgentMapConfig | None = None,
) -> Loaded:
    """Read a file as a host would that has the service `database` and the function `pick`."""
    return read_workflows(
        data.encode() if isinstance(data, str) else data,
        file,
        registry=REGISTRY,
        config=config,
        services=frozenset({"database"}),
        functions=functions,
    )


def workflow(data: bytes | str) -> Workflow:
    """The only workflow of a file."""
    (found,) = load(data).workflows
    return found


def node(header: str, cells: str, *, name: str = "A") -> Node:
    """The node of a row in a file with the columns GraphName, Node and those of `header`."""
    return workflow(f"GraphName,Node,{header}\nG,{name},{cells}\n").nodes[name]


def codes(found: Loaded | Iterable[Diagnostic]) -> list[str]:
    """The codes of the diagnostics, in order."""
    return [problem.code for problem in (found.findings if isinstance(found, Loaded) else found)]


def cell(text: str) -> str:
    """A text as a quoted CSV cell."""
    return '"' + text.replace('"', '""') + '"'
