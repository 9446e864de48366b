"""What the paths through a workflow say about its fields. More than linear, so it runs on demand only: in `check` and
for `POST /validate`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from ..agents.registry import Agent, Registry
from ..execution.fields import SPECIAL
from ..execution.templates import Template
from . import columns
from .checks import ITEM_FIELDS, Report, further_reads, shown_by, too_large, written_by
from .diagnostics import Diagnostic
from .graph import MOST_WORK, Effort, Flow, Loop, flow, forward, loops, named, survey
from .model import FunctionRoute, Node, Workflow

ALIKE: Final = 0.8
"""How like each other names are of which one may be the other, misspelt."""


def check_paths(
    workflow: Workflow, registry: Registry, *, effort: Effort | None = None, given: Collection[str] = ()
) -> tuple[Diagnostic, ...]:
    """Fields read before they are written on some path, written by parallel branches, misspelt, or never read; texts
    that go into no field.

    `given` are fields that callers are known to give. Nothing is said of workflows that are broken.
    """
    effort = effort or Effort()
    found: list[Diagnostic] = []
    if workflow.broken or workflow.entry is None:
        return ()
    agents = {
        name: agent for name, node in workflow.nodes.items() if (agent := registry.find(node.agent_type)) is not None
    }
    report = Report(found, workflow.file, workflow.name, guess=effort.guess)
    _check_texts(workflow.nodes.values(), agents, report)
    edges = flow(workflow.nodes, agents, effort=effort)
    if edges.anywhere:
        return tuple(found)  # where any node may follow, no path tells anything
    work = _work(workflow, edges)
    effort.paths -= min(work, MOST_WORK)
    inner = loops(edges.targets, workflow.entry, effort=effort) if work <= MOST_WORK and effort.paths >= 0 else None
    if inner is None or not inner.complete:
        too_large(workflow.nodes, report, "the fields on its single paths are not")
        return tuple(found)
    paths = _Paths(workflow, edges, agents, inner)
    known = {(problem.code, problem.text) for problem in workflow.diagnostics}
    _check_reads(paths, report, known)
    _check_parallel_writes(paths, report)
    unread = paths.unread()
    unread -= _check_spelling(paths, report, unread, given)
    _check_unread(paths, report, unread - paths.results())
    return tuple(sorted(found, key=lambda problem: problem.row or 0))


def paths_of(
    workflows: Iterable[Workflow], registry: Registry, given: Callable[[Workflow], Collection[str]] = lambda _: ()
) -> list[Diagnostic]:
    """What `check_paths` says of each workflow; the work for all of them together is bounded."""
    effort = Effort()
    return [
        one for workflow in workflows for one in check_paths(workflow, registry, effort=effort, given=given(workflow))
    ]


def _work(workflow: Workflow, edges: Flow) -> int:
    size = sum(map(len, edges.targets.values()))
    size += sum(len(node.inputs) + len(node.outputs) + 1 for node in workflow.nodes.values())
    return size * len(workflow.nodes)


class _Paths:
    """A workflow without its loop-back edges, so that every path ends."""

    def __init__(
        self, workflow: Workflow, edges: Flow, agents: Mapping[str, Agent], inner: Iterable[Loop[str]]
    ) -> None:
        self.nodes = workflow.nodes
        self.agents = agents
        self.entry = str(workflow.entry)
        self.reads = {name: self._reads(node) for name, node in self.nodes.items()}
        self._shown: dict[str, set[str]] = {}
        self.after = forward(edges.targets, inner)
        # Of several targets the one visited last comes first in the order: it is to be that of the cell.
        self.order = survey({name: names[::-1] for name, names in self.after.items()}, [self.entry]).order
        self.before: dict[str, list[str]] = {name: [] for name in self.order}
        for name in self.order:
            for target in self.after[name]:
                self.before[target].append(name)
        self.forks = [
            (name, route)
            for name in self.order
            for route in (self.nodes[name].edge, self.nodes[name].on_success, self.nodes[name].on_failure)
            if len(named(route)) > 1 and not isinstance(route, FunctionRoute)
        ]
        self.below = {target: self.reached(target) for _, route in self.forks for target in named(route)}
        """The target of a fork -> all nodes that its branch can run."""

    def reached(self, start: str) -> set[str]:
        found, look = {start}, [start]
        for name in look:
            new = [target for target in self.after[name] if target not in found]
            found.update(new)
            look += new
        return found

    def branches(self, fork: Iterable[str]) -> dict[str, str]:
        """The nodes that only one branch of a fork runs, in order, each with the target its branch begins with."""
        found: dict[str, str] = {}
        shared = set()
        for target in fork:
            for name in self.below[target]:
                if name in found:
                    shared.add(name)
                found[name] = target
        return {name: found[name] for name in self.order if name in found and name not in shared}

    def _reads(self, node: Node) -> set[str]:
        """First parts of the fields a node needs."""
        heads = {field[0].partition(".")[0] for field in node.inputs}
        agent = self.agents.get(node.name)
        if node.map_over or (agent is not None and agent.reads is not None):
            heads.update(name.partition(".")[0] for name in further_reads(node, agent))
        heads -= SPECIAL
        return heads.difference(ITEM_FIELDS) if node.map_over else heads

    def shown(self, name: str) -> set[str]:
        """Those of its Prompt that it does without."""
        if name not in self._shown:
            self._shown[name] = shown_by(self.nodes[name], self.agents.get(name))
        return self._shown[name]

    def place(self, node: Node, field: str) -> int:
        """The column in which a node names a field."""
        if any(entry.source.partition(".")[0] == field for entry in node.inputs):
            return columns.INPUTS
        if field in self.shown(node.name):
            return columns.PROMPT
        return columns.MAP_OVER if field == (node.map_over or "").partition(".")[0] else columns.CONTEXT

    def mentions(self, node: Node) -> set[str]:
        """Fields that a node may use in any way."""
        agent = self.agents.get(node.name)
        names = self.reads[node.name]
        if "{" in node.prompt:
            if agent is not None and agent.mentions is not None:
                names = names | self.shown(node.name)
            else:
                names = names.union(name.partition(".")[0] for name in Template(node.prompt).names)
        if node.options and agent is not None:
            names = names.union(word.partition(".")[0] for text in _texts(node.options) for word in _words(text))
        return names

    def unread(self) -> set[str]:
        """Fields that nodes write and none uses; none at all where a sub-workflow gets the whole state."""
        if any(not node.inputs and self._runs_another(node) for node in self.nodes.values()):
            return set()
        written = {field for name in self.order for field in written_by(self.nodes[name])}
        return written.difference(*map(self.mentions, self.nodes.values()))

    def results(self) -> set[str]:
        """Fields of the last nodes that write any, on some path: what the caller reads."""
        found: set[str] = set()
        idle: set[str] = set()  # nodes from which the workflow can end without another write
        for name in reversed(self.order):
            node = self.nodes[name]
            if self._can_end(node) or not idle.isdisjoint(self.after[name]):
                found.update(written_by(node))
                if not node.outputs or self.decides(node):
                    idle.add(name)
        return found

    def decides(self, node: Node) -> bool:
        """Whether the use of a node is where it leads."""
        agent = self.agents.get(node.name)
        return agent is not None and agent.rich and not agent.sub_workflow

    def _runs_another(self, node: Node) -> bool:
        agent = self.agents.get(node.name)
        return agent is not None and agent.sub_workflow

    def _can_end(self, node: Node) -> bool:
        """Whether a branch can end with a node, short of an error."""
        if not self.after[node.name]:
            return True
        agent = self.agents.get(node.name)
        if node.edge or (agent is not None and agent.targets is not None and not agent.waits):
            return False
        answers = agent is not None and agent.rich
        return not (node.on_success and (node.on_failure or not answers))


def _check_texts(nodes: Iterable[Node], agents: Mapping[str, Agent], report: Report) -> None:
    """Texts that no node is given. What a last node makes may be a note for people."""
    for node in nodes:
        only_text = agents[node.name].only_text if not node.outputs and node.name in agents else None
        if only_text is None or not (node.edge or node.on_success) or not only_text(node):
            continue
        if not any(map(columns.suggestion, node.extra)):  # the field may stand under a header that is misspelt
            message = f"{node.name!r} makes a text and has no Output_Field, so the nodes after it do not get it"
            report("AM-F007", message, node, columns.OUTPUT)


def _check_reads(paths: _Paths, report: Report, known: set[tuple[str, str | None]]) -> None:
    """A field that some paths to its reader write and others do not."""
    if all(len(before) < 2 for before in paths.before.values()):
        return  # one path leads to each node
    forks = [paths.branches(named(route)) for _, route in paths.forks]
    sure: dict[str, frozenset[str]] = {}  # written on every path up to the end of the node
    maybe: dict[str, frozenset[str]] = {}
    said = set()
    for name in paths.order:
        node = paths.nodes[name]
        before = paths.before[name]
        maybe_in: frozenset[str] = frozenset().union(*(maybe[source] for source in before))
        sure_in: frozenset[str] = frozenset()
        if before and name != paths.entry:
            sure_in = _certain(before, forks, sure)
        doubtful = maybe_in - sure_in
        reads = paths.reads[name]
        for field in sorted((reads | paths.shown(name)) & doubtful) if doubtful else ():
            if ("AM-F001", field) not in known and field not in said and field not in written_by(node):
                said.add(field)
                verb, column = ("reads", columns.INPUTS) if field in reads else ("shows", columns.PROMPT)
                message = f"{name!r} {verb} {field!r}, which is not written on every path that leads to it"
                hint = None if field in reads else f"There {{{field}}} stays in the text as it is."
                report("AM-F001", message, node, column, text=field, hint=hint)
        own = frozenset(written_by(node))
        sure[name] = sure_in | own
        maybe[name] = maybe_in | own


def _certain(
    sources: list[str], forks: Sequence[Mapping[str, str]], sure: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    """What is written for certain where `sources` meet: branches of a fork all arrive, other ways exclude each other.

    `forks` are the branches of each fork, outer forks first.
    """
    for at, branches in enumerate(forks if len(sources) > 1 else ()):
        arriving: dict[str | None, list[str]] = {}
        for source in sources:
            arriving.setdefault(branches.get(source), []).append(source)
        others = arriving.pop(None, [])
        if len(arriving) > 1:
            inner = forks[at + 1 :]
            joined = frozenset[str]().union(*(_certain(part, inner, sure) for part in arriving.values()))
            return joined & _certain(others, inner, sure) if others else joined
    return frozenset.intersection(*(sure[source] for source in sources))


def _check_parallel_writes(paths: _Paths, report: Report) -> None:
    said = set()
    for name, route in paths.forks:
        writers: dict[str, list[tuple[str, str]]] = {}
        for member, branch in paths.branches(named(route)).items():
            for field in written_by(paths.nodes[member]):
                if all(other != branch for other, _ in writers.get(field, ())):
                    writers.setdefault(field, []).append((branch, member))
        for field, found in writers.items():
            if len(found) > 1 and (field, found[-1]) not in said:
                said.add((field, found[-1]))
                shown = " and ".join(repr(member) for _, member in found)
                message = f"{shown} write {field!r} side by side; after {name!r} the value of the later branch counts"
                report("AM-F003", message, paths.nodes[found[-1][1]], columns.OUTPUT, text=field)


def _check_spelling(paths: _Paths, report: Report, unread: set[str], given: Collection[str]) -> set[str]:
    """Report fields that no node writes, while a node before writes one of nearly the same name that nobody reads.
    Gives the latter.
    """
    explained: set[str] = set()
    writers: dict[str, Node] = {}
    for name in paths.order if unread else ():
        if paths.after[name]:
            for field in unread.intersection(written_by(paths.nodes[name])):
                writers.setdefault(field, paths.nodes[name])
    done = {*given, *(field for node in paths.nodes.values() for field in written_by(node))} if writers else set()
    nearest: dict[str, str | None] = {}
    for name in paths.order if writers else ():
        node = paths.nodes[name]
        for field in sorted((paths.reads[name] | paths.shown(name)) - done):
            if field not in nearest:
                nearest[field] = report.guess(field, writers, cutoff=ALIKE)
            near = nearest[field]
            if near is None or name == writers[near].name or name not in paths.reached(writers[near].name):
                continue
            writer = writers[near]
            verb = "reads" if field in paths.reads[name] else "shows"
            message = (
                f"{name!r} {verb} {field!r}, which no node writes; {near!r}, which {writer.name!r} (row {writer.row}) "
                "writes, is not read"
            )
            hint = f"Did you mean {near!r}? If not, the caller gives {field!r}."
            report("AM-F008", message, node, paths.place(node, field), text=field, hint=hint)
            done.add(field)
            explained.add(near)
    return explained


def _check_unread(paths: _Paths, report: Report, unread: set[str]) -> None:
    for name in paths.order if unread else ():
        node = paths.nodes[name]
        if not paths.after[name] or paths.decides(node):
            continue
        for field in written_by(node):
            if field in unread:
                message = f"No node reads {field!r}, which {name!r} writes; only the caller sees it"
                report("AM-F002", message, node, columns.OUTPUT, text=field)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _words(text: str) -> Iterable[str]:
    """Names in an option: of a condition, a template, or a field's own."""
    return "".join(sign if sign.isalnum() or sign in "_.-" else " " for sign in text).split()
