"""Who may still reach a join: ancestors, loops and the order in which waiting joins start.

All of it follows from the graph alone. Sets of nodes are bit masks (Python integers, bit i = node i).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..workflows.graph import loops, survey


class Order:
    """What a walk asks of the graph when more than one branch is about. Only nodes reachable from node 0 count."""

    def __init__(self, edges: Sequence[Sequence[int]]) -> None:
        targets = dict(enumerate(edges))
        found = survey(targets, [0])
        self._predecessors: list[list[int]] = [[] for _ in edges]
        for node in found.component:
            for other in edges[node]:
                self._predecessors[other].append(node)
        self._component = [0] * len(edges)
        """node -> mask of its strongly connected component"""
        self.ancestors = [0] * len(edges)
        """node -> mask of all nodes with a path to it (itself included when it is in a loop)"""
        self._find_ancestors(found.component, {node for part in found.cyclic for node in part})
        self.loops = [(loop.header, _mask(loop.members)) for loop in loops(targets, 0)]
        """(header, mask of the members) of each loop; an edge from a member into the header is loop-back"""
        self.headers = frozenset(header for header, _ in self.loops)
        self._before: dict[int, int] = {}

    def _find_ancestors(self, component: dict[int, int], cyclic: set[int]) -> None:
        parts: dict[int, list[int]] = {}
        for node, number in component.items():
            parts.setdefault(number, []).append(node)
        for number in sorted(parts, reverse=True):  # those that lead here first
            part = parts[number]
            mask = _mask(part)
            above = 0
            for node in part:
                self._component[node] = mask
                for other in self._predecessors[node]:
                    if not mask >> other & 1:
                        above |= self.ancestors[other] | 1 << other
            for node in part:
                self.ancestors[node] = above | mask if node in cyclic else above

    def before(self, join: int) -> int:
        """Mask of the nodes that come before a join: a join that waits there starts first.

        Its ancestors outside its component, and the nodes of the component that reach it without a loop-back edge of a
        loop that contains it.
        """
        known = self._before.get(join)
        if known is not None:
            return known
        component = self._component[join]
        around = {header: members for header, members in self.loops if members >> join & 1}
        inside, work = 0, [join]
        while work:
            node = work.pop()
            # A header belongs to one loop only: without its loop-back edges it is in none of the loops inside.
            back = around.get(node, 0)
            for source in self._predecessors[node]:
                bit = 1 << source
                if component & bit and not (inside | back) & bit:
                    inside |= bit
                    work.append(source)
        self._before[join] = self.ancestors[join] & ~component | inside
        return self._before[join]


def _mask(nodes: Sequence[int] | frozenset[int]) -> int:
    mask = 0
    for node in nodes:
        mask |= 1 << node
    return mask
