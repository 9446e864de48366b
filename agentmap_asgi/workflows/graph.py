"""A workflow as a graph: where nodes lead, in which order they can run, and its loops. Linear, and pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from ..agents.registry import Agent
from .model import FunctionRoute, Node, Route
from .text import Guess

Targets = dict[str, tuple[str, ...]]
"""Node -> the nodes its cells and its agent name, in cell order; repeats and unknown names are possible."""

MOST_EDGES: Final = 1_000_000
"""Edges that agents may add by naming (almost) all nodes; past it they count as leading anywhere."""

MOST_LOOP_WORK: Final = 1_500_000
"""Nodes and edges looked at while loops are analysed; loops that are nested deeper are left out."""

MOST_WORK: Final = 3_000_000
"""Nodes times edges and fields; larger workflows are not analysed path by path."""


class Effort:
    """What is left of these bounds. The workflows of a file share one: it may hold thousands."""

    __slots__ = ("edges", "guess", "loops", "paths")

    def __init__(self, guess: Guess | None = None) -> None:
        self.edges = MOST_EDGES
        self.loops = MOST_LOOP_WORK
        self.paths = 3 * MOST_WORK
        self.guess = guess or Guess()


NOWHERE: Final[frozenset[str]] = frozenset()


class Flow(NamedTuple):
    """Where the nodes of a workflow lead."""

    targets: Targets
    anywhere: frozenset[str]
    """Nodes that may lead to any node: their routing function declares no targets."""


def flow(
    nodes: Mapping[str, Node],
    agents: Mapping[str, Agent],
    targets: Targets | None = None,
    *,
    effort: Effort | None = None,
) -> Flow:
    """The edges of a workflow. `agents` needs only those that have `targets`, by node.

    `targets`, when given, are those of the routing cells, and no cell has a function.
    """
    functions: list[str] = []
    if targets is None:
        targets = {}
        for name, node in nodes.items():
            routes = (node.edge, node.on_success, node.on_failure)
            targets[name] = tuple(target for route in routes for target in named(route))
            if any(isinstance(route, FunctionRoute) for route in routes):
                functions.append(name)
    elif not agents:
        return Flow(targets, NOWHERE)
    anywhere = {
        name
        for name in functions
        for route in (nodes[name].edge, nodes[name].on_success, nodes[name].on_failure)
        if isinstance(route, FunctionRoute) and route.declared is None
    }
    effort = effort or Effort()
    for name, agent in agents.items():
        if agent.targets is not None and name in nodes:
            effort.edges -= len(nodes) if agent.wide else 0
            if agent.wide and effort.edges < 0:
                anywhere.add(name)
            else:
                targets[name] += agent.targets(nodes[name], nodes)
    return Flow(targets, frozenset(anywhere))


def named(route: Route) -> tuple[str, ...]:
    """The nodes that a routing cell names."""
    if isinstance(route, FunctionRoute):
        return route.declared or ()
    return route


def simple_order(flow: Flow, entry: str) -> list[str] | None:
    """All nodes so that each stands after those that lead to it; None when there are loops or unreachable nodes.

    Most workflows are settled by this one pass. Raises KeyError for an unknown target.
    """
    targets = flow.targets
    incoming = dict.fromkeys(targets, 0)
    for names in targets.values():
        for name in names:
            incoming[name] += 1
    if incoming[entry] or flow.anywhere:
        return None
    order = [entry]
    for name in order:
        for target in targets[name]:
            left = incoming[target] - 1
            incoming[target] = left
            if not left:
                order.append(target)
    return order if len(order) == len(targets) else None


K = TypeVar("K", bound=Hashable)
"""A node: by name here, by number in compiled plans."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Survey(Generic[K]):
    """What can be reached from the starts."""

    order: list[K]
    """Reachable nodes; without loops each stands after those that lead to it."""
    component: dict[K, int]
    """Node -> number of its strongly connected component; a component has a lower number than those leading to it."""
    cyclic: list[list[K]]
    """Components that hold a loop, each in row order."""


def survey(targets: Mapping[K, Collection[K]], starts: Iterable[K]) -> Survey[K]:
    """Strongly connected components, by Tarjan's algorithm (1972) without recursion, from `starts` on.

    All targets must be keys of `targets`.
    """
    number: dict[K, int] = {}
    low: dict[K, int] = {}
    component: dict[K, int] = {}
    cyclic: list[list[K]] = []
    finished: list[K] = []
    open_nodes: list[K] = []
    components = 0
    for start in starts:
        if start in number:
            continue
        number[start] = low[start] = len(number)
        open_nodes.append(start)
        path = [(start, iter(targets[start]))]
        while path:
            name, rest = path[-1]
            for target in rest:
                if target not in number:
                    number[target] = low[target] = len(number)
                    open_nodes.append(target)
                    path.append((target, iter(targets[target])))
                    break
                if target not in component:
                    low[name] = min(low[name], number[target])
            else:
                path.pop()
                finished.append(name)
                if path:
                    above = path[-1][0]
                    low[above] = min(low[above], low[name])
                if low[name] == number[name]:
                    members = []
                    while True:
                        member = open_nodes.pop()
                        component[member] = components
                        members.append(member)
                        if member == name:
                            break
                    components += 1
                    if len(members) > 1 or name in targets[name]:
                        cyclic.append(members)
    finished.reverse()
    if cyclic:
        rows = {name: at for at, name in enumerate(targets)}
        for members in cyclic:
            members.sort(key=rows.__getitem__)
    return Survey(finished, component, cyclic)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Loop(Generic[K]):
    """A loop: where it begins, and through which other nodes it can be entered."""

    header: K
    members: frozenset[K]
    others: tuple[K, ...]


class Loops(list[Loop[K]]):
    """Loops, outer ones first."""

    complete: bool = True
    """False when the effort did not suffice and deeper ones were left out."""


def loops(targets: Mapping[K, Collection[K]], entry: K, *, effort: Effort | None = None) -> Loops[K]:
    """The loops that `entry` reaches, outer ones first. With `effort` the work is bounded.

    The header of a loop is the node it is entered at; of several, the one in the earliest row. Edges from inside into
    the header are loop-back edges; without them, the loops inside show themselves.
    """
    found: Loops[K] = Loops()
    whole = survey(targets, [entry])
    if not whole.cyclic:
        return found
    rows = {name: at for at, name in enumerate(targets)}
    incoming: dict[K, list[K]] = {name: [] for name in targets}
    for name, names in targets.items():
        for target in dict.fromkeys(names):
            incoming[target].append(name)
    regions, reachable = whole.cyclic, whole.component
    for members in regions:
        inside = frozenset(members)
        if effort is not None:
            effort.loops -= sum(len(targets[name]) + len(incoming[name]) + 1 for name in members)
            if effort.loops < 0:
                found.complete = False
                break
        entered = [
            name
            for name in members
            if name == entry or any(source in reachable and source not in inside for source in incoming[name])
        ]
        header = min(entered, key=rows.__getitem__)
        found.append(Loop(header, inside, tuple(name for name in entered if name != header)))
        inner = {name: [t for t in targets[name] if t in inside and t != header] for name in members}
        regions.extend(survey(inner, members).cyclic)
    return found


def forward(targets: Mapping[K, Collection[K]], loops: Iterable[Loop[K]]) -> dict[K, list[K]]:
    """The graph without its loop-back edges."""
    back = {(name, loop.header) for loop in loops for name in loop.members}
    return {
        name: [target for target in dict.fromkeys(names) if (name, target) not in back]
        for name, names in targets.items()
    }
