"""Who reaches whom, loops, and what comes before a join: the same as networkx and the rules, read literally, say."""

from __future__ import annotations

import random
from collections.abc import Sequence

import networkx as nx  # type: ignore[import-untyped]
import pytest
from graphs import edges_of, random_graph
from hypothesis import given
from hypothesis import strategies as st

from agentmap_asgi.execution.order import Order
from agentmap_asgi.workflows.graph import survey

Edges = list[tuple[int, ...]]
Pairs = set[tuple[int, int]]


@st.composite
def some_edges(draw: st.DrawFn) -> Edges:
    size = draw(st.integers(1, 9))
    return [tuple(draw(st.lists(st.integers(0, size - 1), max_size=4, unique=True))) for _ in range(size)]


def reachable(edges: Sequence[Sequence[int]]) -> nx.DiGraph:
    """What the entry leads to."""
    graph = nx.DiGraph((node, target) for node, targets in enumerate(edges) for target in targets)
    graph.add_nodes_from(range(len(edges)))
    return graph.subgraph(nx.descendants(graph, 0) | {0})


def members(mask: int) -> set[int]:
    return {node for node in range(mask.bit_length()) if mask >> node & 1}


def ancestors(graph: nx.DiGraph, node: int) -> set[int]:
    """Nodes with a path of at least one edge to `node`."""
    before: set[int] = set(graph.predecessors(node))
    return before.union(*(nx.ancestors(graph, source) for source in before))


def cyclic_parts(graph: nx.DiGraph) -> list[set[int]]:
    return [
        part for part in nx.strongly_connected_components(graph) if len(part) > 1 or graph.has_edge(*(list(part) * 2))
    ]


def loops_by_the_rule(graph: nx.DiGraph) -> list[tuple[set[int], int, Pairs]]:
    """(members, header, loop-back edges): the header is the earliest row entered from outside; then again inside."""
    found = []
    left = graph.copy()
    while parts := cyclic_parts(left):
        for part in parts:
            entered = {v for u, v in left.edges if v in part and u not in part} | ({0} & part)
            header = min(entered)
            back = {(u, v) for u, v in left.edges if v == header and u in part}
            found.append((part, header, back))
        for _, _, back in found:
            left.remove_edges_from(back)
    return found


def before_by_the_rule(graph: nx.DiGraph, join: int) -> set[int]:
    part: set[int] = next(part for part in nx.strongly_connected_components(graph) if join in part)
    forward = graph.subgraph(part).copy()
    for loop, _, back in loops_by_the_rule(graph):
        if join in loop:
            forward.remove_edges_from(back)
    outside = ancestors(graph, join) - part
    return outside.union(ancestors(forward, join))


def parts(edges: Sequence[Sequence[int]]) -> set[frozenset[int]]:
    component = survey(dict(enumerate(edges)), [0]).component
    return {frozenset(node for node in component if component[node] == number) for number in component.values()}


def check(edges: Sequence[Sequence[int]]) -> None:
    graph = reachable(edges)
    order = Order(edges)
    assert parts(edges) == {frozenset(part) for part in nx.strongly_connected_components(graph)}
    assert {(frozenset(members(inside)), header) for header, inside in order.loops} == {
        (frozenset(part), header) for part, header, _ in loops_by_the_rule(graph)
    }
    assert order.headers == {header for header, _ in order.loops}
    for node in graph:
        assert members(order.ancestors[node]) == ancestors(graph, node)
        assert members(order.before(node)) == before_by_the_rule(graph, node)
    before = {node: members(order.before(node)) for node in graph}
    for node in graph:
        assert node not in before[node]
        for earlier in before[node]:
            assert before[earlier] <= before[node]


@pytest.mark.long
@given(some_edges())
def test_order_follows_the_rules(edges: Edges) -> None:
    """Components, ancestors, loops, headers and what comes before, and the last is a strict partial order."""
    check(edges)


@pytest.mark.long
def test_order_follows_the_rules_in_workflows(rounds: int) -> None:
    """The same in graphs that look like workflows: hubs, nested loops and forks."""
    for seed in range(200 * rounds):
        check(edges_of(random_graph(random.Random(seed))))


def test_components_are_numbered_successors_first() -> None:
    """A component has a lower number than those that lead to it."""
    assert survey({0: [1], 1: [2], 2: [1, 3], 3: []}, [0]).component == {3: 0, 2: 1, 1: 1, 0: 2}


def test_only_what_the_entry_reaches_counts() -> None:
    """A row that nothing leads to keeps no join waiting, and a loop there is none."""
    order = Order([[1], [], [1, 3], [2]])
    assert members(order.ancestors[1]) == {0}
    assert order.loops == []


def test_a_node_in_a_loop_is_its_own_ancestor() -> None:
    """Outside of loops it is not."""
    order = Order([[1], [2, 3], [1], [3, 4], []])
    assert [members(mask) for mask in order.ancestors] == [set(), {0, 1, 2}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3}]


def test_nested_loops_have_their_own_headers() -> None:
    """The inner header comes after the outer one."""
    order = Order([[1], [2], [3], [2, 1, 4], []])
    assert [(header, members(inside)) for header, inside in order.loops] == [(1, {1, 2, 3}), (2, {2, 3})]
    assert members(order.before(1)) == {0}
    assert members(order.before(2)) == {0, 1}


def test_the_earlier_of_two_entrances_is_the_header() -> None:
    """Which the checks of the file say as well."""
    assert Order([[1, 2], [2], [1]]).headers == {1}


def test_the_entry_is_entered_from_outside() -> None:
    """A loop through the first row has it as its header."""
    order = Order([[1], [2], [0, 1]])
    assert [header for header, _ in order.loops] == [0, 1]


def test_order_of_ten_thousand_nodes() -> None:
    """A chain, a chain with an edge back from each node, and one great loop: no recursion, and it ends."""
    size = 10_000
    chain: list[list[int]] = [[node + 1] for node in range(size - 1)]
    assert Order([*chain, []]).ancestors[-1].bit_count() == size - 1
    assert Order([*chain, [0]]).before(size - 1).bit_count() == size - 1
    pairs = Order([*([node + 1, node - node % 2] for node in range(size - 1)), []])
    assert len(pairs.loops) == size // 2
    assert pairs.before(size - 1).bit_count() == size - 1
