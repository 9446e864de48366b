"""What differs between two versions of workflows: by workflow, node and cell.

What nodes say is compared, not how it is written: the order of rows and columns, spaces, the delimiter and the encoding
make no difference. The entry point does, which is the first row of a workflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from . import columns
from .columns import COLUMNS
from .model import Field, FunctionRoute, Node, Route, Workflow

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class CellChange:
    """One cell of a node. None for a cell that is empty, or was."""

    column: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class NodeChange:
    """One node; of one that was added or removed, each cell that is not empty. Rows are those of the files."""

    kind: Kind
    node: str
    cells: tuple[CellChange, ...]
    old_row: int | None = None
    new_row: int | None = None


@dataclass(frozen=True, slots=True)
class WorkflowChange:
    """One workflow, with every node that is not as it was."""

    kind: Kind
    workflow: str
    nodes: tuple[NodeChange, ...]
    entry: tuple[str | None, str | None] | None = None
    """(old, new) when it begins at another node."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "change": self.kind,
            "workflow": self.workflow,
            "entry": None if self.entry is None else {"old": self.entry[0], "new": self.entry[1]},
            "nodes": [
                {
                    "change": node.kind,
                    "node": node.node,
                    "old_row": node.old_row,
                    "new_row": node.new_row,
                    "cells": [{"column": cell.column, "old": cell.old, "new": cell.new} for cell in node.cells],
                }
                for node in self.nodes
            ],
        }

    def lines(self) -> Iterator[str]:
        """The change as text: a line for each workflow and node, and two for each cell of several lines."""
        yield f"{_SIGNS[self.kind]} workflow {self.workflow}"
        if self.entry is not None and self.kind == "changed":
            yield f"    begins at {self.entry[1]}, before at {self.entry[0]}"
        for node in self.nodes:
            row = node.new_row if node.new_row is not None else node.old_row
            yield f"  {_SIGNS[node.kind]} node {node.node} (row {row})"
            for cell in node.cells:
                yield from _cell_lines(cell, node.kind)


_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def compared(old: Iterable[Workflow], new: Iterable[Workflow]) -> list[WorkflowChange]:
    """The workflows that differ, by name: those of `new` in their order, then those that are gone."""
    before = {workflow.name: workflow for workflow in old}
    after = {workflow.name: workflow for workflow in new}
    changes = [compare(before.get(name), workflow) for name, workflow in after.items()]
    changes += [compare(workflow, None) for name, workflow in before.items() if name not in after]
    return [change for change in changes if change is not None]


def compare(old: Workflow | None, new: Workflow | None) -> WorkflowChange | None:
    """What differs between two versions of a workflow, None when nothing does."""
    before: Mapping[str, Node] = {} if old is None else old.nodes
    after: Mapping[str, Node] = {} if new is None else new.nodes
    nodes = [change for name, node in after.items() if (change := _node(before.get(name), node)) is not None]
    nodes += [_removed(node) for name, node in before.items() if name not in after]
    if new is None:
        return None if old is None else WorkflowChange("removed", old.name, tuple(nodes))
    if old is None:
        return WorkflowChange("added", new.name, tuple(nodes))
    entry = None if old.entry == new.entry else (old.entry, new.entry)
    return WorkflowChange("changed", new.name, tuple(nodes), entry) if nodes or entry else None


def cells(node: Node) -> dict[str, str]:
    """What a node says, as the texts of its columns; empty ones are left out, unknown columns follow."""
    child = node.agent_type == "graph"
    said = {
        columns.AGENT: node.agent_type,
        columns.PROMPT: node.prompt,
        columns.DESCRIPTION: node.description,
        columns.INPUTS: "|".join(_field(field, child=child) for field in node.inputs),
        columns.OUTPUT: "|".join(node.outputs),
        columns.EDGE: _route(node.edge),
        columns.SUCCESS: _route(node.on_success),
        columns.FAILURE: _route(node.on_failure),
        columns.CONTEXT: _json(dict(node.options)) if node.options else "",
        columns.TOOL_SOURCE: node.tool_source,
        columns.TOOLS: "|".join(node.tools),
        columns.RETRY: "" if node.retry is None else _json(node.retry._asdict()),
        columns.TIMEOUT: "" if node.timeout is None else f"{node.timeout:g}s",
        columns.MAP_OVER: node.map_over or "",
    }
    return {COLUMNS[column].name: text for column, text in said.items() if text} | {
        title: text for title, text in node.extra.items() if text
    }


def _node(old: Node | None, new: Node) -> NodeChange | None:
    after = cells(new)
    if old is None:
        return NodeChange("added", new.name, tuple(CellChange(c, None, t) for c, t in after.items()), None, new.row)
    before = cells(old)
    if before == after:
        return None
    changes = tuple(
        CellChange(column, before.get(column), after.get(column))
        for column in {**after, **before}
        if before.get(column) != after.get(column)
    )
    return NodeChange("changed", new.name, changes, old.row, new.row)


def _removed(old: Node) -> NodeChange:
    return NodeChange("removed", old.name, tuple(CellChange(c, t, None) for c, t in cells(old).items()), old.row)


def _cell_lines(cell: CellChange, kind: Kind) -> Iterator[str]:
    if kind != "changed":
        sign, text = ("+", cell.new) if kind == "added" else ("-", cell.old)
        yield from _shown(f"      {sign} {cell.column}: ", text or "")
        return
    for sign, some in (("-", cell.old), ("+", cell.new)):
        if some is not None:
            yield from _shown(f"      {sign} {cell.column}: ", some)


def _shown(head: str, text: str) -> Iterator[str]:
    first, *rest = text.splitlines() or [""]
    yield head + first
    for line in rest:
        yield f"{' ' * len(head)}{line}"


def _field(field: Field, *, child: bool) -> str:
    if field.parameter is None:
        return field.source
    return f"{field.parameter}={field.source}" if child else f"{field.source}:{field.parameter}"


def _route(route: Route) -> str:
    if isinstance(route, FunctionRoute):
        return f"func:{route.function}" + ("" if route.declared is None else f"({'|'.join(route.declared)})")
    return "|".join(route)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
