"""Where the boxes and lines of a drawn graph go: layers from top to bottom, after Sugiyama, Tagawa and Toda (1981).

Every line runs straight down inside a layer, in a column of its own, and bends between layers only, where there are no
boxes: so no box, label or line ever lies on a box or label. Lines that lead back go up beside the others. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

MOST_CELLS: Final = 40_000
"""Boxes, labels, and places where lines cross a layer; larger graphs are not drawn."""
MOST_WORK: Final = 400_000
"""Cells looked at while lines are untangled and boxes are moved."""
NODE_GAP: Final = 28.0
LINE_GAP: Final = 14.0
PORT_GAP: Final = 16.0
"""Between lines that leave or reach a box side by side."""
LEAST_GAP: Final = 20.0
MOST_GAP: Final = 64.0
MARGIN: Final = 20.0
SWEEPS: Final = 12


class Size(NamedTuple):
    width: float
    height: float


class Box(NamedTuple):
    """`x` and `y` are of the upper left corner."""

    x: float
    y: float
    width: float
    height: float


class Edge(NamedTuple):
    """`source` and `target` are numbers of nodes; `label` is None when there is none."""

    source: int
    target: int
    label: Size | None = None


Curve = tuple[float, ...]
"""Two numbers: a straight line to that point; six: a cubic one. The first of a line says where it begins."""


class Line(NamedTuple):
    curves: list[Curve]
    label: Box | None
    back: bool
    """It leads up."""


class Layout(NamedTuple):
    width: float
    height: float
    nodes: list[Box]
    lines: list[Line]


class TooLarge(Exception):
    """More cells than MOST_CELLS."""


@dataclass(slots=True)
class _Cell:
    """A box, a label, or a place where a line crosses a layer."""

    width: float
    height: float = 0.0
    thin: bool = True
    x: float = 0.0
    """Of its middle."""
    at: int = 0
    """Its place in the layer."""
    up: list[tuple[int, float]] = field(default_factory=list)
    down: list[tuple[int, float]] = field(default_factory=list)


def layout(sizes: Sequence[Size], edges: Sequence[Edge], first: int | None = None) -> Layout:
    """Lay out a graph. `first` is the node that it begins with. Raises TooLarge."""
    if not sizes:
        return Layout(2 * MARGIN, 2 * MARGIN, [], [])
    made = _Made(sizes, edges, first)
    made.untangle()
    made.place()
    return made.result()


class _Made:
    """A layout in the making."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[Edge], first: int | None) -> None:
        self.count = len(sizes)
        self.edges = edges
        back = _back_edges(self.count, edges, first)
        rank = _ranks(self.count, edges, back)
        # A layer for the nodes of each rank, and one before and after it where labels stand and lines turn.
        needed = {2 * r + 2 for r in rank}
        for at, edge in enumerate(edges):
            if at in back:
                needed |= {2 * rank[edge.target] + 1, 2 * rank[edge.source] + 3}
            elif edge.label is not None:
                needed.add(2 * rank[edge.source] + 3)
        dense = {level: at for at, level in enumerate(sorted(needed))}
        self.layers: list[list[int]] = [[] for _ in dense]
        self.cells = [_Cell(size.width, size.height, thin=False) for size in sizes]
        self.level = [dense[2 * r + 2] for r in rank]
        for node in range(self.count):
            self.layers[self.level[node]].append(node)
        self.chains: list[list[int]] = []
        self.labelled: list[int | None] = []
        self.turns = back
        for at, edge in enumerate(edges):
            self._route(edge, at in back)
        self.work = MOST_WORK

    def _new(self, level: int, size: Size | None = None) -> int:
        if len(self.cells) >= MOST_CELLS:
            raise TooLarge
        cell = _Cell(1.0) if size is None else _Cell(size.width, size.height)
        self.cells.append(cell)
        self.layers[level].append(len(self.cells) - 1)
        return len(self.cells) - 1

    def _join(self, upper: int, lower: int, weight: float = 1.0) -> None:
        straight = weight * (8.0 if self.cells[upper].thin and self.cells[lower].thin else 1.0)
        self.cells[upper].down.append((lower, straight))
        self.cells[lower].up.append((upper, straight))

    def _route(self, edge: Edge, back: bool) -> None:
        """Give the edge a cell on each layer that it crosses."""
        low, high = self.level[edge.source], self.level[edge.target]
        label: int | None = None
        if not back:
            chain = [self._new(level, edge.label if level == low + 1 else None) for level in range(low + 1, high)]
            if edge.label is not None:
                label = chain[0]
            for upper, lower in pairwise([edge.source, *chain, edge.target]):
                self._join(upper, lower)
        else:
            leaving = label = self._new(low + 1, edge.label)
            label = None if edge.label is None else label
            lane = [self._new(level) for level in range(low + 1, high - 2, -1)]
            arriving = self._new(high - 1)
            self._join(edge.source, leaving)
            self._join(lane[1], leaving, 0.5)  # so that it stays near
            for lower, upper in pairwise(lane):
                self._join(upper, lower)
            self._join(arriving, lane[-2], 0.5)
            self._join(arriving, edge.target)
            chain = [leaving, *lane, arriving]
        self.chains.append(chain)
        self.labelled.append(label)

    # Order within the layers.

    def untangle(self) -> None:
        """Order the cells of each layer so that few lines cross."""
        self._first_order()
        best, least = [list(layer) for layer in self.layers], self._crossings()
        stale = 0
        for sweep in range(2 * SWEEPS):
            if not least or stale > 4 or self.work < 0:
                break
            down = sweep % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                self._sort(layer, down)
            if len(self.cells) < 3_000:
                self._swap()
            found = self._crossings()
            stale += 1
            if found < least:
                best, least, stale = [list(layer) for layer in self.layers], found, 0
        self.layers = best
        self._number()

    def _number(self) -> None:
        for layer in self.layers:
            for at, cell in enumerate(layer):
                self.cells[cell].at = at

    def _first_order(self) -> None:
        """By a walk from the top in the order of the rows."""
        seen: set[int] = set()
        ordered: list[list[int]] = [[] for _ in self.layers]
        level = {cell: at for at, layer in enumerate(self.layers) for cell in layer}
        stack = [cell for layer in reversed(self.layers) for cell in reversed(layer)]
        while stack:
            cell = stack.pop()
            if cell in seen:
                continue
            seen.add(cell)
            ordered[level[cell]].append(cell)
            stack += [below for below, _ in reversed(self.cells[cell].down) if below not in seen]
        self.layers = ordered
        self._number()

    def _sort(self, layer: list[int], down: bool) -> None:
        cells = self.cells

        def middle(cell: int) -> float:
            near = cells[cell].up if down else cells[cell].down
            if not near:
                return float(cells[cell].at)
            self.work -= len(near)
            return sum(cells[other].at * weight for other, weight in near) / sum(weight for _, weight in near)

        layer.sort(key=middle)
        for at, cell in enumerate(layer):
            cells[cell].at = at

    def _swap(self) -> None:
        """Swap neighbours where that takes crossings away."""
        cells = self.cells
        for layer in self.layers:
            for at in range(len(layer) - 1):
                left, right = cells[layer[at]], cells[layer[at + 1]]
                now = then = 0
                for mine, theirs in ((left.up, right.up), (left.down, right.down)):
                    self.work -= len(mine) * len(theirs)
                    for one, _ in mine:
                        for other, _ in theirs:
                            now += cells[one].at > cells[other].at
                            then += cells[one].at < cells[other].at
                if then < now and self.work > 0:
                    layer[at], layer[at + 1] = layer[at + 1], layer[at]
                    left.at, right.at = at + 1, at

    def _crossings(self) -> int:
        cells, total = self.cells, 0
        for layer in self.layers:
            seen: list[int] = []
            for cell in layer:
                below = sorted(cells[other].at for other, _ in cells[cell].down)
                self.work -= len(below)
                total += sum(len(seen) - bisect_left(seen, at + 1) for at in below)
                for at in below:
                    insort(seen, at)
        return total

    # Places.

    def place(self) -> None:
        """Move the cells sideways, each towards the middle of what it is joined to, without passing its neighbours."""
        for layer in self.layers:
            self._settle(layer, [0.0] * len(layer), [1.0] * len(layer))
        rounds = SWEEPS if len(self.cells) < 4_000 else 3
        for sweep in range(2 * rounds):
            both = sweep >= 2 * rounds - 4
            down = sweep % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                wanted, weights = [], []
                for cell in (self.cells[number] for number in layer):
                    near = [*cell.up, *cell.down] if both else cell.up if down else cell.down
                    weight = sum(w for _, w in near)
                    wanted.append(sum(self.cells[o].x * w for o, w in near) / weight if near else cell.x)
                    weights.append(weight or 0.01)
                self._settle(layer, wanted, weights)

    def _settle(self, layer: list[int], wanted: list[float], weights: list[float]) -> None:
        """The places nearest to those wanted that keep order and distance: pooling of adjacent violators."""
        cells = [self.cells[number] for number in layer]
        offset, offsets = 0.0, [0.0]
        for left, right in pairwise(cells):
            gap = LINE_GAP if left.thin or right.thin else NODE_GAP
            offset += (left.width + right.width) / 2 + gap
            offsets.append(offset)
        blocks: list[tuple[float, float, int]] = []
        for want, weight, off in zip(wanted, weights, offsets, strict=True):
            value, size = want - off, 1
            while blocks and blocks[-1][0] >= value:
                other, more, held = blocks.pop()
                value, weight = (value * weight + other * more) / (weight + more), weight + more
                size += held
            blocks.append((value, weight, size))
        at = 0
        for value, _, size in blocks:
            for cell in cells[at : at + size]:
                cell.x = value + offsets[at]
                at += 1

    # The result.

    def result(self) -> Layout:
        cells = self.cells
        left = min(cell.x - cell.width / 2 for cell in cells)
        right = max(cell.x + cell.width / 2 for cell in cells)
        for cell in cells:
            cell.x += MARGIN - left
        bands = self._bands()
        middle = [(top + bottom) / 2 for top, bottom in bands]
        boxes = [
            Box(cell.x - cell.width / 2, middle[level] - cell.height / 2, cell.width, cell.height)
            for cell, level in zip(cells, self.level, strict=False)
        ]
        leaving, arriving = self._ports()
        lines = []
        for at, edge in enumerate(self.edges):
            label = self.labelled[at]
            box = None
            if label is not None:
                cell, level = cells[label], self.level[edge.source] + 1
                box = Box(cell.x - cell.width / 2, middle[level] - cell.height / 2, cell.width, cell.height)
            begin: Curve = (leaving[at], boxes[edge.source].y + boxes[edge.source].height)
            end: Curve = (arriving[at], boxes[edge.target].y)
            lines.append(Line(self._curves(at, edge, begin, end, bands), box, at in self.turns))
        return Layout(right - left + 2 * MARGIN, bands[-1][1] + MARGIN, boxes, lines)

    def _bands(self) -> list[tuple[float, float]]:
        """Top and bottom of each layer; the farther lines go sideways between two, the farther apart they are."""
        bands: list[tuple[float, float]] = []
        y, gap = MARGIN, 0.0
        for at, layer in enumerate(self.layers):
            height = max((self.cells[cell].height for cell in layer), default=0.0)
            y += gap
            bands.append((y, y + height))
            y += height
            far = max((abs(self.cells[o].x - self.cells[c].x) for c in layer for o, _ in self.cells[c].down), default=0)
            turns = at in self._turning
            gap = min(MOST_GAP, LEAST_GAP + far * 0.08 + (8.0 if turns else 0.0))
        return bands

    @property
    def _turning(self) -> set[int]:
        return {self.level[self.edges[at].source] + 1 for at in self.turns}

    def _ports(self) -> tuple[list[float], list[float]]:
        """Where lines leave and reach their boxes: side by side, in the order of where they come from and go to."""
        ends: list[list[float]] = [[0.0] * len(self.edges), [0.0] * len(self.edges)]
        for side, into in enumerate(ends):
            at_node: dict[int, list[int]] = {}
            for at, edge in enumerate(self.edges):
                at_node.setdefault(edge.target if side else edge.source, []).append(at)
            for node, held in at_node.items():
                cell = self.cells[node]
                far = -1 if side else 0
                others = {at: self._other(at, far, node) for at in held}
                held.sort(key=others.__getitem__)
                step = min(PORT_GAP, 0.8 * cell.width / max(1, len(held) - 1))
                for place, at in enumerate(held):
                    into[at] = cell.x + (place - (len(held) - 1) / 2) * step
        return ends[0], ends[1]

    def _other(self, at: int, far: int, node: int) -> float:
        chain, edge = self.chains[at], self.edges[at]
        if chain:
            return self.cells[chain[far]].x
        return self.cells[edge.source if node == edge.target and far else edge.target].x

    def _curves(
        self,
        at: int,
        edge: Edge,
        begin: Curve,
        end: Curve,
        bands: list[tuple[float, float]],
    ) -> list[Curve]:
        chain = [self.cells[cell].x for cell in self.chains[at]]
        low, high = self.level[edge.source], self.level[edge.target]
        found: list[Curve] = [begin, (begin[0], bands[low][1])]
        if at not in self.turns:
            for level, x in enumerate(chain, low + 1):
                found += [_bend(found[-1], x, bands[level][0]), (x, bands[level][1])]
            return [*found, _bend(found[-1], end[0], bands[high][0]), end]
        leaving, *lane, arriving = chain
        top, bottom = bands[low + 1]
        found += [_bend(found[-1], leaving, top), (leaving, bottom), _turn(leaving, lane[0], bottom, LEAST_GAP)]
        found.append((lane[0], top))
        for level, x in zip(range(low, high - 2, -1), lane[1:], strict=True):
            found += [_bend(found[-1], x, bands[level][1]), (x, bands[level][0])]
        top, bottom = bands[high - 1]
        found += [_turn(lane[-1], arriving, top, -LEAST_GAP), (arriving, bottom)]
        return [*found, _bend(found[-1], end[0], bands[high][0]), end]


def _bend(begin: Curve, x: float, y: float) -> Curve:
    """From where a curve ended, to a point, upright at both ends."""
    x0, y0 = begin[-2:]
    if abs(x0 - x) < 0.5:
        return (x, y)
    half = (y0 + y) / 2
    return (x0, half, x, half, x, y)


def _turn(begin: float, end: float, y: float, depth: float) -> Curve:
    """Around and back, below `y` or above."""
    return (begin, y + depth, end, y + depth, end, y)


def _back_edges(count: int, edges: Sequence[Edge], first: int | None) -> frozenset[int]:
    """The edges that close a loop when the graph is walked in depth from the first node."""
    targets: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for at, edge in enumerate(edges):
        targets[edge.source].append((edge.target, at))
    back: set[int] = set()
    done, active = [False] * count, [False] * count
    starts = range(count) if first is None else [first, *range(count)]
    for start in starts:
        if done[start]:
            continue
        active[start] = True
        path = [(start, iter(targets[start]))]
        while path:
            node, rest = path[-1]
            for target, at in rest:
                if active[target]:
                    back.add(at)
                elif not done[target]:
                    active[target] = True
                    path.append((target, iter(targets[target])))
                    break
            else:
                path.pop()
                active[node], done[node] = False, True
    return frozenset(back)


def _ranks(count: int, edges: Sequence[Edge], back: frozenset[int]) -> list[int]:
    """Each node's layer: below all that lead to it, and as near as can be to what it leads to if nothing does."""
    below: list[list[int]] = [[] for _ in range(count)]
    above = [0] * count
    for at, edge in enumerate(edges):
        if at not in back:
            below[edge.source].append(edge.target)
            above[edge.target] += 1
    sources = [node for node in range(count) if not above[node]]
    rank, order = [0] * count, list(sources)
    for node in order:
        for target in below[node]:
            rank[target] = max(rank[target], rank[node] + 1)
            above[target] -= 1
            if not above[target]:
                order.append(target)
    for node in sources[1:]:
        if below[node]:
            rank[node] = min(rank[target] for target in below[node]) - 1
    return rank
