"""A workflow as a picture: JSON for programs, Mermaid and DOT for people. Text only; nothing is fetched or run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from ..agents.registry import Registry
from .graph import named
from .model import FunctionRoute, Node, Workflow


class Arrow(NamedTuple):
    """One edge of the picture."""

    source: str
    target: str
    kind: str
    """edge, success, failure, function, or case (the agent chooses)."""
    label: str


MOST_CASES: Final = 5_000
"""Edges drawn for agents that choose by themselves; past it a node is only said to lead anywhere."""


class Picture(NamedTuple):
    """What is drawn, whatever the form."""

    arrows: list[Arrow]
    anywhere: dict[str, list[str]]
    """Node -> what may lead it to any node: functions without declared targets, and agents with too many to draw."""
    missing: list[str]
    """Targets that do not exist."""
    numbers: dict[str, str]
    """Node -> its id. Names stand only in labels: as ids, words like `end` would be read as commands."""


def picture(workflow: Workflow, registry: Registry | None = None) -> Picture:
    """All edges in row order. Without a registry those that agents choose by themselves are left out."""
    arrows: list[Arrow] = []
    anywhere: dict[str, list[str]] = {}
    cases = 0
    for name, node in workflow.nodes.items():
        arrows.extend(_routed(node))
        routes = (node.edge, node.on_success, node.on_failure)
        functions = [f"func:{r.function}" for r in routes if isinstance(r, FunctionRoute) and r.declared is None]
        agent = registry.find(node.agent_type) if registry is not None else None
        if agent is not None and agent.targets is not None:
            targets = agent.targets(node, workflow.nodes) if cases < MOST_CASES else None
            if targets is None or cases + len(targets) > MOST_CASES:
                cases = MOST_CASES
                functions.append(agent.name)
            else:
                cases += len(targets)
                labels = _case_labels(node)
                arrows += [Arrow(name, target, "case", labels.get(target, "")) for target in targets]
        if functions:
            anywhere[name] = functions
    missing = list(dict.fromkeys(arrow.target for arrow in arrows if arrow.target not in workflow.nodes))
    numbers = {name: f"n{at}" for at, name in enumerate([*workflow.nodes, *missing])}
    return Picture(arrows, anywhere, missing, numbers)


def _routed(node: Node) -> Iterator[Arrow]:
    routes = (("edge", "", node.edge), ("success", "success", node.on_success), ("failure", "failure", node.on_failure))
    for kind, label, route in routes:
        if isinstance(route, FunctionRoute):
            kind, label = "function", f"func:{route.function}"
        for target in named(route):
            yield Arrow(node.name, target, kind, label)


def _case_labels(node: Node) -> dict[str, str]:
    """What a switch looks for, by target."""
    cases = node.options.get("cases")
    pairs: list[tuple[Any, Any]] = []
    if isinstance(cases, dict):
        pairs = [(target, key) for key, target in cases.items()]
    elif isinstance(cases, list):
        pairs = [(case.get("to"), case.get("when")) for case in cases if isinstance(case, dict)]
    labels: dict[str, str] = {}
    for target, text in pairs:
        if isinstance(target, str):
            labels[target] = f"{labels[target]}, {text}" if target in labels else str(text)
    otherwise = node.options.get("default")
    if isinstance(otherwise, str):
        labels.setdefault(otherwise, "default")
    return labels


def to_dict(workflow: Workflow, registry: Registry | None = None) -> dict[str, Any]:
    """Nodes and edges as plain JSON values. A target that does not exist is a node with `missing`."""
    drawn = picture(workflow, registry)
    nodes: list[dict[str, Any]] = [
        {
            "id": node.name,
            "agent_type": node.agent_type,
            "description": node.description,
            "entry": node.name == workflow.entry,
            "row": node.row,
            "missing": False,
            "routes_anywhere": drawn.anywhere.get(node.name, []),
        }
        for node in workflow.nodes.values()
    ]
    nodes += [{"id": name, "missing": True} for name in drawn.missing]
    return {
        "graph_id": workflow.graph_id,
        "name": workflow.name,
        "entry": workflow.entry,
        "nodes": nodes,
        "edges": [arrow._asdict() for arrow in drawn.arrows],
    }


def to_mermaid(workflow: Workflow, registry: Registry | None = None) -> str:
    """A Mermaid flowchart."""
    drawn = picture(workflow, registry)
    number = drawn.numbers
    lines = ["flowchart TD"]
    for node in workflow.nodes.values():
        shape = '(["{}"])' if node.name == workflow.entry else '["{}"]'
        lines.append(f"    {number[node.name]}{shape.format('<br/>'.join(_label(node, drawn, _mermaid)))}")
    lines += [f'    {number[name]}["{_mermaid(name)}?"]:::missing' for name in drawn.missing]
    for source, target, kind, label in drawn.arrows:
        line = "-.->" if kind == "failure" else "-->"
        text = f'|"{_mermaid(label)}"|' if label else ""
        lines.append(f"    {number[source]} {line}{text} {number[target]}")
    lines.append("    classDef missing stroke-dasharray:4")
    return "\n".join(lines) + "\n"


def to_dot(workflow: Workflow, registry: Registry | None = None) -> str:
    """A Graphviz graph."""
    drawn = picture(workflow, registry)
    number = drawn.numbers
    lines = [f'digraph "{_dot(workflow.name)}" {{', "    node [shape=box];"]
    for node in workflow.nodes.values():
        shape = ", style=rounded" if node.name == workflow.entry else ""
        label = "\\n".join(_label(node, drawn, _dot))
        lines.append(f'    {number[node.name]} [label="{label}"{shape}];')
    lines += [f'    {number[name]} [label="{_dot(name)}?", style=dashed];' for name in drawn.missing]
    for source, target, kind, label in drawn.arrows:
        style = ", style=dashed" if kind == "failure" else ""
        lines.append(f'    {number[source]} -> {number[target]} [label="{_dot(label)}"{style}];')
    lines.append("}")
    return "\n".join(lines) + "\n"


def _label(node: Node, drawn: Picture, escape: Callable[[str], str]) -> list[str]:
    agent = [node.agent_type] if node.agent_type != "default" else []
    return [escape(text) for text in (node.name, *agent, *(f"{f} → any" for f in drawn.anywhere.get(node.name, ())))]


_PLAIN: Final = frozenset(" _")


def _mermaid(text: str) -> str:
    """Letters and digits as they are, everything else as a numbered entity: no sign can end a label or start markup."""
    shown = " ".join(text.split())
    return "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in shown)


def _dot(text: str) -> str:
    shown = " ".join(text.split())
    return "".join(c for c in shown if c.isprintable()).replace("\\", "\\\\").replace('"', '\\"')


def node_to_dict(node: Node) -> dict[str, Any]:
    """A node as plain JSON values, for people who look at a workflow."""
    return {
        "name": node.name,
        "agent_type": node.agent_type,
        "description": node.description,
        "prompt": node.prompt,
        "input_fields": [field.source for field in node.inputs],
        "output_fields": list(node.outputs),
        "row": node.row,
    }
