"""What a workflow is: nodes and where they lead, as read from rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .diagnostics import Diagnostic


class Field(NamedTuple):
    """One entry of Input_Fields: `source` is the state field (dotted path), `parameter` the name the agent sees.

    `parameter` is None when the cell had no colon: then it is the source, or an agent's declared parameter by position.
    """

    source: str
    parameter: str | None = None


class FunctionRoute(NamedTuple):
    """A routing cell `func:name(A|B)`; `declared` is None when no targets are given (it may reach any node)."""

    function: str
    declared: tuple[str, ...] | None = None


Route = tuple[str, ...] | FunctionRoute
"""Where a routing cell leads: node names in cell order without repeats, or a function that says so. Empty: nowhere."""


class Retry(NamedTuple):
    """How often an attempt is made. Delays in seconds; `on` holds the kinds of failure that are tried again."""

    attempts: int = 1
    delay: float = 0.0
    backoff: float = 1.0
    max_delay: float = 60.0
    on: tuple[str, ...] = ("timeout", "error")


@dataclass(slots=True, eq=False)
class Node:
    """One row. Written once by the loader and never changed after (plain slots: a load makes thousands)."""

    name: str
    graph: str
    agent_type: str
    """The registry's name of the agent, or the text as written when no agent has it."""
    prompt: str
    inputs: tuple[Field, ...]
    outputs: tuple[str, ...]
    edge: Route
    on_success: Route
    on_failure: Route
    options: Mapping[str, Any]
    row: int
    line: int
    description: str = ""
    retry: Retry | None = None
    timeout: float | None = None
    """Seconds for each attempt."""
    map_over: str | None = None
    tool_source: str = ""
    tools: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    """Cells of unknown columns, by header."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class Workflow:
    """A workflow as its file defines it, with everything that is wrong with it."""

    name: str
    file: str
    """The file's path relative to the source folder, with forward slashes (its name, when the source is a file)."""
    stem: str
    """`file` without its suffix: the left part of `file::Name`."""
    nodes: dict[str, Node]
    """By name, in row order."""
    entry: str | None
    diagnostics: tuple[Diagnostic, ...] = ()
    graph_id: str = field(init=False, repr=False)
    """`stem::name`."""
    _version: str | None = field(default=None, init=False, repr=False)
    _broken: bool | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.graph_id = f"{self.stem}::{self.name}"

    @property
    def version(self) -> str:
        """SHA-256 of what the nodes say, hexadecimal, made when first asked for.

        Cosmetic changes of the file keep it: order of columns, blank rows, unknown columns, delimiter, encoding.
        """
        if self._version is None:
            content = json.dumps([_content(node) for node in self.nodes.values()], sort_keys=True)
            self._version = hashlib.sha256(content.encode()).hexdigest()
        return self._version

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.severity == "error")

    @property
    def broken(self) -> bool:
        if self._broken is None:
            self._broken = any(d.severity == "error" for d in self.diagnostics)
        return self._broken


def _content(node: Node) -> list[Any]:
    return [
        *(node.name, node.agent_type, node.prompt, node.description, node.inputs, node.outputs),
        *(node.edge, node.on_success, node.on_failure, dict(node.options)),
        *(node.retry, node.timeout, node.map_over, node.tool_source, node.tools),
    ]
