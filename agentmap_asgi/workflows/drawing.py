"""A workflow as a picture: JSON for programs, Mermaid and DOT for people. Text only; nothing is fetched or run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    return Picture(arrows, anywhere, missing)


def _routed(node: Node) -> Iterator[Arrow]:
    routes = (("edge", "", node.edge), ("success", "success", node.on_success), ("failure", "failure", node.on_failure))
    for kind, label, route in routes:
        if isinstance(route, FunctionRoute):
            kind, label = "function", f"func:{route.function}"
        for target in named(route):
            yield Arrow(node.name, target, kind, label)


def _case_labels(node: Node) -> dict[str, str]:
    """What a switch looks for, and when a wait goes on without an answer, by target."""
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
    for option, label in (("default", "default"), ("on_timeout", "timeout")):
        otherwise = node.options.get(option)
        if isinstance(otherwise, str):
            labels.setdefault(otherwise, label)
    return labels


def to_dict(workflow: Workflow, registry: Registry | None = None) -> dict[str, Any]:
    """Nodes and edges as plain JSON values. A target that does not exist is a node with `missing`."""
    drawn = picture(workflow, registry)
    nodes: list[dict[str, Any]] = [
        {
            "id": node.name,
            "agent_type": node.agent_type,
            "description": node.description,
            "input_fields": [field.source for field in node.inputs],
            "output_fields": list(node.outputs),
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


def to_networkx(drawn: Mapping[str, Any]) -> Any:
    """The drawing that `to_dict` describes as a `networkx.MultiDiGraph`; edges have `kind` and `label`."""
    import networkx  # type: ignore[import-untyped]  # a tenth of a second of start-up, and running needs none of it

    graph = networkx.MultiDiGraph(graph_id=drawn["graph_id"], entry=drawn["entry"])
    for node in drawn["nodes"]:
        graph.add_node(node["id"], **{name: what for name, what in node.items() if name != "id"})
    for edge in drawn["edges"]:
        graph.add_edge(edge["source"], edge["target"], kind=edge["kind"], label=edge["label"])
    return graph


def to_mermaid(drawn: Mapping[str, Any]) -> str:
    """The drawing that `to_dict` describes as a Mermaid flowchart."""
    numbers = _numbers(drawn)
    lines = ["flowchart TD"]
    for name, node in numbers.items():
        label = "<br/>".join(map(_mermaid, _label(name, node.drawn)))
        if node.drawn.get("missing"):
            lines.append(f'    {node.number}["{label}?"]:::missing')
        else:
            shape = '(["{}"])' if node.drawn.get("entry") else '["{}"]'
            lines.append(f"    {node.number}{shape.format(label)}")
    for source, target, kind, label in _lines(drawn, numbers):
        line = "-.->" if kind == "failure" else "-->"
        text = f'|"{_mermaid(label)}"|' if label else ""
        lines.append(f"    {source} {line}{text} {target}")
    lines.append("    classDef missing stroke-dasharray:4")
    return "\n".join(lines) + "\n"


def to_dot(drawn: Mapping[str, Any]) -> str:
    """The drawing that `to_dict` describes as a Graphviz graph."""
    numbers = _numbers(drawn)
    lines = [f'digraph "{_dot(str(drawn.get("name", "")))}" {{', "    node [shape=box];"]
    for name, node in numbers.items():
        label = "\\n".join(map(_dot, _label(name, node.drawn)))
        style = ", style=dashed" if node.drawn.get("missing") else ", style=rounded" if node.drawn.get("entry") else ""
        lines.append(f'    {node.number} [label="{label}{"?" if node.drawn.get("missing") else ""}"{style}];')
    for source, target, kind, label in _lines(drawn, numbers):
        style = ", style=dashed" if kind == "failure" else ""
        lines.append(f'    {source} -> {target} [label="{_dot(label)}"{style}];')
    lines.append("}")
    return "\n".join(lines) + "\n"


class _Numbered(NamedTuple):
    number: str
    """Names stand only in labels: as ids, words like `end` would be read as commands."""
    drawn: Mapping[str, Any]


def _numbers(drawn: Mapping[str, Any]) -> dict[str, _Numbered]:
    return {str(node["id"]): _Numbered(f"n{at}", node) for at, node in enumerate(drawn["nodes"])}


def _lines(drawn: Mapping[str, Any], numbers: Mapping[str, _Numbered]) -> Iterator[tuple[str, str, str, str]]:
    """(source, target, kind, label) of each edge whose ends are both drawn; a host's filter may have left some out."""
    for edge in drawn["edges"]:
        source, target = numbers.get(str(edge["source"])), numbers.get(str(edge["target"]))
        if source is not None and target is not None:
            yield source.number, target.number, str(edge.get("kind", "edge")), str(edge.get("label") or "")


def _label(name: str, node: Mapping[str, Any]) -> list[str]:
    kind = str(node.get("agent_type") or "default")
    agent = [kind] if kind != "default" else []
    return [name, *agent, *(f"{function} → any" for function in node.get("routes_anywhere", ()))]


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
