"""A workflow as a text of its own, so that an execution can go on with the version it began with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import StoreDamaged
from .model import Field, FunctionRoute, Node, Retry, Route, Workflow


class Pins(Mapping[str, str]):
    """The texts of workflows by content hash, made when they are asked for."""

    __slots__ = ("_workflows",)

    def __init__(self, workflows: Iterable[Workflow]) -> None:
        self._workflows = {workflow.version: workflow for workflow in workflows}

    def __getitem__(self, version: str) -> str:
        return pinned(self._workflows[version])

    def __iter__(self) -> Iterator[str]:
        return iter(self._workflows)

    def __len__(self) -> int:
        return len(self._workflows)


def pinned(workflow: Workflow) -> str:
    """JSON that `unpinned` makes the same workflow of, but for its diagnostics."""
    nodes = [
        {
            "name": node.name,
            "agent_type": node.agent_type,
            "prompt": node.prompt,
            "description": node.description,
            "inputs": node.inputs,
            "outputs": node.outputs,
            "edge": _route(node.edge),
            "on_success": _route(node.on_success),
            "on_failure": _route(node.on_failure),
            "options": dict(node.options),
            "retry": node.retry,
            "timeout": node.timeout,
            "map_over": node.map_over,
            "tool_source": node.tool_source,
            "tools": node.tools,
            "row": node.row,
            "line": node.line,
        }
        for node in workflow.nodes.values()
    ]
    facts = {"name": workflow.name, "file": workflow.file, "stem": workflow.stem, "entry": workflow.entry}
    return json.dumps({**facts, "nodes": nodes}, ensure_ascii=False, separators=(",", ":"))


def unpinned(text: str, version: str) -> Workflow:
    """The workflow of a pinned text. Raises StoreDamaged when it is not the one of this content hash."""
    try:
        found = json.loads(text)
        nodes = {node["name"]: _node(node, found["name"]) for node in found["nodes"]}
        workflow = Workflow(found["name"], found["file"], found["stem"], nodes, found["entry"])
        same = workflow.version == version
    except (ValueError, KeyError, TypeError, AttributeError):
        same = False
    if not same:
        raise StoreDamaged(None, f"the definition {version} is not what it was")
    return workflow


def _route(route: Route) -> Any:
    if isinstance(route, FunctionRoute):
        return {"function": route.function, "declared": route.declared}
    return route


def _read_route(value: Any) -> Route:
    if isinstance(value, dict):
        declared = value["declared"]
        return FunctionRoute(value["function"], None if declared is None else tuple(declared))
    return tuple(value)


def _node(found: dict[str, Any], graph: str) -> Node:
    retry = found["retry"]
    return Node(
        name=found["name"],
        graph=graph,
        agent_type=found["agent_type"],
        prompt=found["prompt"],
        description=found["description"],
        inputs=tuple(Field(*field) for field in found["inputs"]),
        outputs=tuple(found["outputs"]),
        edge=_read_route(found["edge"]),
        on_success=_read_route(found["on_success"]),
        on_failure=_read_route(found["on_failure"]),
        options=found["options"],
        retry=None if retry is None else Retry(retry[0], retry[1], retry[2], retry[3], tuple(retry[4])),
        timeout=found["timeout"],
        map_over=found["map_over"],
        tool_source=found["tool_source"],
        tools=tuple(found["tools"]),
        row=found["row"],
        line=found["line"],
    )
