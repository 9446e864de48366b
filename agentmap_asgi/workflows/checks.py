"""What the graph of a workflow says about it, in linear time. Runs whenever a file is loaded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ..agents.registry import Agent, fold
from ..execution.fields import SPECIAL
from . import columns
from .codes import CODES, diagnostic
from .columns import COLUMNS
from .diagnostics import Diagnostic
from .graph import Effort, Flow, Loop, Targets, flow, loops, named, simple_order, survey
from .model import FunctionRoute, Node, Workflow
from .options import place_of
from .text import ERROR_VALUES, Guess, spoiled

RESERVED: Final = frozenset(
    {"audit", "docs", "execute", "executions", "health", "list", "metrics", "openapi.json", "ready", "reload"}
    | {"resume", "ui", "validate", "workflows"}
)
"""Workflow names that stand for something else in the HTTP paths."""

BEHIND: Final = {
    **dict.fromkeys(("batch", "stream"), "Start it by its graph_name in POST /execute."),
    **dict.fromkeys(
        ("diff", "graph", "schema", "source", "versions"), "With its file it is called file::{name}, not file/{name}."
    ),
}
"""Words that HTTP paths have further behind, and how a workflow of that name is reached nevertheless."""

_BRACED: Final = re.compile(r"\{([^\W\d][\w-]*)")
"""What may be a field in a Prompt."""

_SIGNS: Final = {";": "semicolon", "\t": "tab", "|": "bar"}
"""What delimiters are called, but for the comma."""

_CONTEXT: Final = COLUMNS[columns.CONTEXT].name

ITEM_FIELDS: Final = ("item", "index")


class Report:
    """Takes the findings of one workflow and gives each its place."""

    __slots__ = ("contexts", "delimiter", "effort", "file", "graph", "guess", "into", "letters", "misspelt", "spaced")

    def __init__(
        self,
        into: list[Diagnostic],
        file: str,
        graph: str,
        *,
        letters: Mapping[str, str | None] | None = None,
        guess: Guess | None = None,
        effort: Effort | None = None,
        misspelt: bool = False,
        contexts: Mapping[str, str] = MappingProxyType({}),
        delimiter: str = "",
        spaced: Collection[str] = (),
    ) -> None:
        """`misspelt` says that a column has gone missing under a header that is reported already. `contexts` are
        Context cells as written, by node. `delimiter` stands between the cells of a text file; `spaced` are targets
        whose routing cell begins with a space.
        """
        self.into = into
        self.file = file
        self.graph = graph
        self.letters = letters or {}
        self.guess = guess or Guess()
        self.effort = effort or Effort()
        self.misspelt = misspelt
        self.contexts = contexts
        self.delimiter = delimiter
        self.spaced = spaced

    def __call__(
        self, code: str, message: str, node: Node | None, column: str | int | None = None, **more: Any
    ) -> None:
        name = COLUMNS[column].name if isinstance(column, int) else column
        if node is not None:
            more |= {"node": node.name, "row": node.row, "line": node.line}
        if name is not None:
            more |= {"column_name": name, "column": self.letters.get(name)}
            if name == _CONTEXT and node is not None and more.get("text") and node.name in self.contexts:
                more["place"] = place_of(self.contexts[node.name], more["text"])
        self.into.append(diagnostic(code, message, file=self.file, graph=self.graph, **more))

    def retract(self, explained: Collection[tuple[str, int, str]]) -> None:
        """Take back findings, by (code, row, text), that others explain."""
        if explained:
            self.into[:] = [one for one in self.into if (one.code, one.row, one.text) not in explained]


def check(
    nodes: Mapping[str, Node],
    agents: Mapping[str, Agent],
    report: Report,
    *,
    showing: Mapping[str, Agent] = MappingProxyType({}),
    targets: Targets | None = None,
    torn: bool = False,
    cut: bool = False,
    siblings: Collection[str] = (),
) -> None:
    """Report what is wrong with the graph.

    `agents` are those with checks, reads or targets of their own, by node; `showing` those that use fields of their
    Prompt. `targets` are what the routing cells name,
    if no cell has a function; the loader has them at hand. `torn` says that nodes or edges are missing for reasons
    reported already, so that what looks unreachable may not be; `cut`, that rows of the file were never read, so that
    the graph says nothing. `siblings` are the file's workflows.
    """
    if report.graph in RESERVED:
        message = f"The name {report.graph!r} stands for an operation in HTTP paths"
        hint = f"Rename the workflow, or reach it under /workflows/{report.graph}."
        report("AM-N006", message, next(iter(nodes.values()), None), columns.GRAPH, text=report.graph, hint=hint)
    elif report.graph in BEHIND:
        message = f"The name {report.graph!r} has a meaning of its own in some HTTP paths"
        hint = BEHIND[report.graph].format(name=report.graph)
        first = next(iter(nodes.values()), None)
        report("AM-N006", message, first, columns.GRAPH, text=report.graph, hint=hint, severity="info")
    if not nodes:
        return
    if "|" in "".join(nodes):
        _check_names(nodes, report)
    if agents:
        torn = _check_agents(nodes, agents, report, siblings) or torn
    if cut or report.graph in ERROR_VALUES:  # rows that have lost their workflow miss its nodes
        return
    edges = flow(nodes, agents, targets, effort=report.effort)
    entry = next(iter(nodes))
    try:
        order = simple_order(edges, entry)
    except KeyError:  # an unknown target
        torn = _check_targets(nodes, edges, report) or torn
        order = simple_order(edges, entry)
    component: Mapping[str, int] = {}
    if order is None:
        found = survey(_closed(edges), [entry])
        order, component = found.order, found.component
        if len(component) - bool(edges.anywhere) < len(nodes) and not torn:
            _check_reach(nodes, edges, component, report)
        if found.cyclic:
            _check_loops(nodes, edges, found.cyclic, agents, report, torn=torn)
    if not report.misspelt:
        _check_fields(nodes, agents, showing, order, component, report)


def _check_names(nodes: Mapping[str, Node], report: Report) -> None:
    for name, node in nodes.items():
        if "|" in name:
            message = f"The name {name!r} holds '|', which separates names in routing cells, so nothing can lead to it"
            report("AM-N007", message, node, columns.NODE, text=name)


def _check_agents(
    nodes: Mapping[str, Node], agents: Mapping[str, Agent], report: Report, siblings: Collection[str]
) -> bool:
    """True when edges are missing for want of the options that would say them."""
    torn = False
    unread = {found.node for found in report.into if found.code in ("AM-A003", "AM-A006", "AM-F005", "AM-V002")}
    # A Context that is no options at all is reported already.
    worded = {found.node for found in report.into if found.code == "AM-A008" and found.text is None}
    types: Counter[str] = Counter()
    for name, agent in agents.items():
        node = nodes[name]
        kind = (node.options.get("nodeType") or node.options.get("node_type")) if agent.wide else None
        if kind and node.options.get("nodes") in (None, "", "all"):
            types = types or Counter(fold(other.agent_type) for other in nodes.values())
            torn = _check_node_type(node, str(kind), types, report) or torn
        if agent.check is not None and name not in unread:
            for found in agent.check(node):
                if found.severity != "error" and (report.misspelt or name in worded):
                    continue
                more = {"severity": found.severity, "hint": found.hint, "text": found.text}
                report(found.code, found.message, node, found.column_name, **more)
                torn = torn or (agent.targets is not None and found.code == "AM-A004")
        workflow = node.options.get("workflow") if agent.sub_workflow else None
        if isinstance(workflow, str) and workflow.startswith("::") and workflow[2:].strip() not in siblings:
            near = report.guess(workflow[2:], siblings)
            hint = f"Did you mean ::{near}?" if near else None
            message = f"The file has no workflow {workflow[2:]!r}"
            report("AM-R011", message, node, columns.CONTEXT, text=workflow, hint=hint)
    return torn


def _check_node_type(node: Node, kind: str, types: Counter[str], report: Report) -> bool:
    """Report an orchestrator whose candidates are the nodes of a type that no other node has."""
    if types[fold(kind)] > (fold(node.agent_type) == fold(kind)):
        return False
    near = report.guess(fold(kind), [name for name in types if name])
    hint = f"Did you mean {near!r}?" if near else "Name a type that nodes of this workflow have, or give nodes."
    message = f"The orchestrator {node.name!r} chooses among nodes of the type {kind!r}, and there is none"
    severity = "warning" if node.options.get("default_target") else "error"
    report("AM-A004", message, node, columns.CONTEXT, text=kind, hint=hint, severity=severity)
    return True


def check_idle_cells(node: Node, agent: Agent | None, report: Report) -> None:
    """Report the routing cells of a node that its Edge makes idle."""
    if node.on_success:
        message = f"{node.name!r} has an Edge, so its Success_Next is never taken"
        report("AM-R008", message, node, columns.SUCCESS)
    if node.on_failure and agent is not None and agent.rich and agent.targets is None and not agent.sub_workflow:
        message = f"{node.name!r} has an Edge, so its Failure_Next is taken only when the agent raises, not for a no"
        report("AM-R008", message, node, columns.FAILURE)


def _check_targets(nodes: Mapping[str, Node], edges: Flow, report: Report) -> bool:
    """Report unknown targets and take them out of `edges`. A near name is taken as meant, so that what follows it is
    not reported too. True when an edge is missing for want of one.
    """
    torn = False
    spelled: dict[str, str] = {}
    shifted: set[int | None] = set()
    spaced: Collection[str] = ()
    explained: set[tuple[str, int, str]] = set()
    for name, targets in edges.targets.items():
        for target in targets:
            if target not in nodes:
                break
        else:
            continue
        kept = []
        for target in dict.fromkeys(targets):
            if target in nodes:
                kept.append(target)
                continue
            if not spelled:
                spelled = {_plain(known): known for known in reversed(list(nodes))}
                shifted = {found.row for found in report.into if found.code == "AM-D002"}
                if not any(name in report.spaced for name in nodes):  # else cells are written so for the eye
                    spaced = report.spaced
            if nodes[name].row in shifted:  # the text of another cell, which is reported already
                torn = True
                continue
            near = spelled.get(_plain(target))
            safe = near is not None
            if near is None and not _separated(target):
                near = report.guess(target, nodes)
            node = nodes[name]
            column = _column_of(node, target)
            message = f"The node {name!r} leads to {target!r}, and {node.graph!r} has no such node"
            hint = f"Did you mean {near!r}?" if near else None
            fix = near if safe else None
            meant = [near] if near else []
            if not safe and (parts := _separated(target)):
                meant = [part for part in parts if part in nodes]
                hint = f"Several targets are separated by |: {'|'.join(parts)}"
                fix = "|".join(parts) if len(meant) == len(parts) else None
            suspect = spoiled(target)
            if suspect is not None and not meant:
                explained.add((suspect.code, node.row, target))
                hint = f"It looks like what a spreadsheet made of a name. {CODES[suspect.code].remedy}"
            if hint is None and report.delimiter and _cut(node, target, nodes, spaced):
                sign = _SIGNS.get(report.delimiter, "comma")
                hint = f"{CODES['AM-R001'].remedy} If the {sign} before it belongs to a text, put that cell in quotes."
            report("AM-R001", message, node, column, text=target, hint=hint, fix=fix)
            torn = torn or not meant
            kept += meant
        edges.targets[name] = tuple(kept)
    report.retract(explained)
    return torn


def _cut(node: Node, target: str, nodes: Mapping[str, Node], spaced: Collection[str]) -> bool:
    """Whether a target is likely the rest of a text that an unquoted delimiter has cut: it looks like one, or a target
    stands in a cell for something else.
    """
    if not (node.prompt or node.description or node.options):
        return False
    if target in spaced or any(sign in target for sign in " {}"):
        return True
    others = (*node.outputs, *(field.source for field in node.inputs), node.description)
    return any(text in nodes and text != node.name for text in others)


def _separated(target: str) -> list[str]:
    """The names in a target that are separated by other signs than |."""
    parts = [part.strip() for part in re.split(r"[,;\n]", target)]
    return [part for part in parts if part] if len(parts) > 1 else []


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def _column_of(node: Node, target: str) -> int:
    for column, route in (
        (columns.EDGE, node.edge),
        (columns.SUCCESS, node.on_success),
        (columns.FAILURE, node.on_failure),
    ):
        if target in named(route):
            return column
    return columns.CONTEXT


def _closed(edges: Flow) -> dict[str, tuple[str, ...]]:
    """The targets, where nodes that may lead anywhere lead to one more node, which leads to all: linear in size."""
    if not edges.anywhere:
        return edges.targets
    every = tuple(edges.targets)
    closed = {name: (*names, ANYWHERE) if name in edges.anywhere else names for name, names in edges.targets.items()}
    closed[ANYWHERE] = every
    return closed


ANYWHERE: Final = "\0anywhere"
"""A node that no file can name."""


def _check_reach(nodes: Mapping[str, Node], edges: Flow, reached: Mapping[str, int], report: Report) -> None:
    """One finding for each place where an unreachable part begins."""
    lost = {name: tuple(t for t in edges.targets[name] if t not in reached) for name in nodes if name not in reached}
    part = survey(lost, lost).component
    entered = {part[target] for name, targets in lost.items() for target in targets if part[target] != part[name]}
    first: dict[int, str] = {}
    for name in lost:
        first.setdefault(part[name], name)
    starts = [name for number, name in first.items() if number not in entered]
    for name in starts:
        node = nodes[name]
        message = f"No node that can run leads to {name!r}"
        followers = len(survey(lost, [name]).order) - 1 if len(starts) <= 20 else 0
        if followers:
            message += f", nor to the {followers} after it" if followers > 1 else ", nor to the one after it"
        report("AM-R002", message, node, columns.NODE, text=name)


def _check_loops(
    nodes: Mapping[str, Node],
    edges: Flow,
    cyclic: list[list[str]],
    agents: Mapping[str, Agent],
    report: Report,
    *,
    torn: bool,
) -> None:
    targets = edges.targets
    if not edges.anywhere and not torn:
        for members in cyclic:
            inside = set(members)
            if any(_can_leave(nodes[name], targets[name], inside, agents.get(name)) for name in members):
                continue
            first = nodes[members[0]]
            if len(members) == 1:
                message = f"{first.name!r} leads to itself and nowhere else, so it runs until max_steps ends it"
                report("AM-R004", message, first, columns.EDGE, text=first.name)
            else:
                shown = ", ".join(members[:5]) + (", …" if len(members) > 5 else "")
                message = f"The loop of {shown} leads nowhere else, so it runs until max_steps ends it"
                report("AM-R003", message, first, columns.EDGE)
    found = loops(targets, next(iter(nodes)), effort=report.effort)
    forks = _forks(nodes)
    for loop in found:
        if loop.others:
            _check_entries(nodes, targets, loop, report, forks=forks)
    if not found.complete:
        too_large(nodes, report, "its loops within loops are not")


def too_large(nodes: Mapping[str, Node], report: Report, left_out: str) -> None:
    """Note that an analysis was not made."""
    message = f"The workflow {report.graph!r} has so many nodes and edges that {left_out} looked at"
    report("AM-R012", message, next(iter(nodes.values())), columns.GRAPH, text=report.graph)


def _check_entries(
    nodes: Mapping[str, Node], targets: Targets, loop: Loop[str], report: Report, *, forks: bool
) -> None:
    """A loop that is entered at several nodes: often a join that sends back into one of its own branches."""
    entered = frozenset((loop.header, *loop.others))
    for name in loop.others if forks else ():
        back = next(
            (target for target in targets[name] if target in entered and nodes[target].row < nodes[name].row), None
        )
        if back is not None:
            message = f"{name!r} joins branches and sends back to {back!r}, which is inside one of them"
            hint = f"When the branches run side by side, {back!r} first waits for the others. Send back to the fork."
            report("AM-R010", message, nodes[name], columns.NODE, text=back, hint=hint)
            return
    shown = ", ".join(map(repr, loop.others[:5]))
    message = f"The loop of {loop.header!r} can also be entered at {shown}; {loop.header!r} counts as its start"
    report("AM-R009", message, nodes[loop.header], columns.NODE)


def _forks(nodes: Mapping[str, Node]) -> bool:
    """Whether any cell starts branches."""
    routes = (route for node in nodes.values() for route in (node.edge, node.on_success, node.on_failure))
    return any(len(named(route)) > 1 for route in routes)


def _can_leave(node: Node, targets: Iterable[str], inside: Collection[str], agent: Agent | None) -> bool:
    """Whether a node of a loop can lead out of it or end its branch."""
    if any(target not in inside for target in targets):
        return True
    functions = any(isinstance(route, FunctionRoute) for route in (node.edge, node.on_success, node.on_failure))
    if functions or not targets:
        return True
    # An answer whose side is not set ends the branch; agents that route by themselves may also choose not to.
    decides = agent is not None and (agent.rich or agent.sub_workflow)
    return decides and not node.edge and not (node.on_success and node.on_failure)


def _check_fields(
    nodes: Mapping[str, Node],
    agents: Mapping[str, Agent],
    showing: Mapping[str, Agent],
    order: Iterable[str],
    component: Mapping[str, int],
    report: Report,
) -> None:
    early, written, _ = _early_reads(nodes, agents, showing, order)
    if not early or not written:
        return
    late = {field: reader for field, reader in early.items() if field in written}
    if not late:
        return
    writers: dict[str, list[str]] = {field: [] for field in late}
    for name in order:
        for field in _writes(nodes[name], agents) if name in nodes else ():
            if field in writers:
                writers[field].append(name)
    for field, reader in late.items():
        node = nodes[reader]
        if reader in writers[field]:
            continue  # a counter or the like: it goes on from what the caller gives
        writer = writers[field][0]
        looping = component and any(component.get(w) == component.get(reader) for w in writers[field])
        shown = field in shown_by(node, showing.get(reader))
        verb, column = ("shows", columns.PROMPT) if shown else ("reads", columns.INPUTS)
        message = f"{reader!r} {verb} {field!r} before {writer!r} (row {nodes[writer].row}) has written it"
        hint = "In the first round it is null, unless the caller gives it." if looping else None
        if shown:
            hint = f"Until then {{{field}}} stays in the text as it is, unless the caller gives it."
        report("AM-F001", message, node, column, text=field, severity="info" if looping else None, hint=hint)


def _early_reads(
    nodes: Mapping[str, Node], agents: Mapping[str, Agent], showing: Mapping[str, Agent], order: Iterable[str]
) -> tuple[dict[str, str], set[str], set[str]]:
    """({field: the first node that reads it while no node before has written it}, all fields written, those of the
    first that some node must have: a Prompt does without).
    """
    written: set[str] = set()
    early: dict[str, str] = {}
    needed: set[str] = set()
    for node in map(nodes.get, order):
        if node is None:
            continue  # ANYWHERE
        for entry in node.inputs:
            source = entry[0]
            if source not in written and source not in needed:
                _note(source, node, written, early, needed)
        name = node.name
        if name in agents or node.map_over:
            for source in further_reads(node, agents.get(name)):
                if source not in written and source not in needed:
                    _note(source, node, written, early, needed)
        if name in showing:
            head, _, rest = node.prompt.partition("{")[2].partition("}")
            if "{" in rest or (head not in written and head not in early):  # most prompts show one known field
                for head in _BRACED.findall(node.prompt):
                    if head not in written and head not in early:  # seldom, so the Prompt is taken apart only here
                        _note_shown(node, showing[name], written, early)
                        break
        written.update(_writes(node, agents))
    return early, written, needed


def _writes(node: Node, agents: Mapping[str, Agent]) -> tuple[str, ...]:
    """Fields that a node writes; only of agents that are known is the left side of `parent=child` one."""
    return written_by(node) if node.name in agents else node.outputs


def _note(source: str, node: Node, written: set[str], early: dict[str, str], needed: set[str] | None) -> None:
    head = source.partition(".")[0]
    if head in SPECIAL or head in written or (node.map_over and head in ITEM_FIELDS):
        return
    early.setdefault(head, node.name)
    if needed is not None:
        needed.add(head)


def _note_shown(node: Node, agent: Agent, written: set[str], early: dict[str, str]) -> None:
    for source in agent.mentions(node) if agent.mentions is not None else ():
        _note(source, node, written, early, None)


def further_reads(node: Node, agent: Agent | None) -> tuple[str, ...]:
    """Fields that a node reads and its Input_Fields do not name."""
    own = tuple(agent.reads(node)) if agent is not None and agent.reads is not None else ()
    return (*own, node.map_over) if node.map_over else own


def shown_by(node: Node, agent: Agent | None) -> set[str]:
    """First parts of the fields that a node uses if they are there, and does not read otherwise."""
    if agent is None or agent.mentions is None:
        return set()
    names = {name.partition(".")[0] for name in agent.mentions(node)} - SPECIAL
    names -= {field.source.partition(".")[0] for field in node.inputs}
    return names.difference(ITEM_FIELDS) if node.map_over else names


def written_by(node: Node) -> tuple[str, ...]:
    """Fields that a node writes: the left side of a sub-workflow's `parent=child`."""
    return tuple(name.partition("=")[0] for name in node.outputs)


def input_schema(workflow: Workflow, agents: Mapping[str, Agent]) -> dict[str, Any]:
    """What a caller gives, as JSON Schema (2020-12): the fields that are read before any node can have written them.

    Required are those that no node writes; one that a node writes as well (a counter, a loop's feedback) is optional,
    and so is one that only Prompts show, or that an `input` node asks for when it is missing. Of types only the lists
    of Map_Over are known. `agents` are those with `reads`, `mentions` or `targets`, by node.
    """
    nodes = workflow.nodes
    early: dict[str, str] = {}
    written: set[str] = set()
    needed: set[str] = set()
    lists = {node.map_over for node in nodes.values()}
    samples: dict[str, Any] = {}
    for name, agent in agents.items():
        samples = dict(agent.samples(nodes[name]) if agent.samples is not None else ()) | samples
    if workflow.entry is not None:
        edges = flow(nodes, agents)
        for name, targets in edges.targets.items():
            edges.targets[name] = tuple(target for target in targets if target in nodes)
        order = simple_order(edges, workflow.entry) or survey(_closed(edges), [workflow.entry]).order
        early, written, needed = _early_reads(nodes, agents, agents, order)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": workflow.name,
        "type": "object",
        "properties": {
            field: {"description": f"{'Read' if field in needed else 'Shown'} by {reader}"}
            | ({"type": "array"} if field in lists else {})
            | ({"examples": [samples[field]]} if field in samples else {})
            for field, reader in early.items()
        },
        "required": [field for field in early if field in needed and field not in written],
        "additionalProperties": True,
    }
