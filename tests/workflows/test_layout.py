"""Drawn graphs are measured: no box, label or line lies on a box or label that is not its own."""

from __future__ import annotations

import bisect
import itertools
import random
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sheets import REGISTRY, cell, workflow

from agentmap_asgi.workflows import layout as layouts
from agentmap_asgi.workflows.drawing import to_dict
from agentmap_asgi.workflows.layout import Box, Curve, Edge, Layout, Size, TooLarge, layout
from agentmap_asgi.workflows.svg import LABEL_WIDTH, MOST_WIDTH, to_svg, width_of

SVG = "{http://www.w3.org/2000/svg}"
NARROW, WIDE = Size(96.0, 50.0), Size(240.0, 66.0)
LABEL = Size(60.0, 18.0)
Pairs = Sequence[tuple[int, int]]


def chain(count: int) -> Pairs:
    return [(at, at + 1) for at in range(count - 1)]


def joined(branches: int) -> Pairs:
    return [pair for at in range(1, branches + 1) for pair in ((0, at), (at, branches + 1))]


def tangle(seed: int, count: int = 60) -> Pairs:
    """A tree, and as many further edges in all directions."""
    chance = random.Random(seed)
    tree = [(chance.randrange(max(0, at - 8), at), at) for at in range(1, count)]
    return tree + [(chance.randrange(count), chance.randrange(count)) for _ in range(count // 2)]


SHAPES: dict[str, Pairs] = {
    "alone": [],
    "linear": chain(6),
    "branching": [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)],
    "joined": joined(8),
    "looped": [(0, 1), (1, 2), (2, 0), (1, 1), (2, 3), (3, 1)],
    "everywhere": [(a, b) for a in range(7) for b in range(7)],
    "sixty in a line": chain(60),
    "sixty side by side": joined(58),
    **{f"sixty, tangled {seed}": tangle(seed) for seed in range(6)},
}


def made(pairs: Pairs, labels: bool = True) -> Layout:
    count = max((max(pair) for pair in pairs), default=0) + 1
    sizes = [WIDE if at % 3 == 1 else NARROW for at in range(count)]
    edges = [Edge(a, b, LABEL if labels and at % 2 else None) for at, (a, b) in enumerate(dict.fromkeys(pairs))]
    return layout(sizes, edges, 0)


def points(curves: Sequence[Curve]) -> Iterator[tuple[float, float]]:
    """Places on a line, close together."""
    x, y = curves[0]
    for curve in curves[1:]:
        ends = [(x, y), *((curve[at], curve[at + 1]) for at in range(0, len(curve), 2))]
        steps = max(2, int(max(abs(ends[-1][0] - x), abs(ends[-1][1] - y)) / 7))
        for step in range(1, steps + 1):
            t = step / steps
            if len(ends) == 2:
                yield x + (ends[1][0] - x) * t, y + (ends[1][1] - y) * t
            else:
                parts = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3]
                yield (
                    sum(p * place[0] for p, place in zip(parts, ends, strict=True)),
                    sum(p * place[1] for p, place in zip(parts, ends, strict=True)),
                )
        x, y = curve[-2:]


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def inside(x: float, y: float, box: Box) -> bool:
    return box.x + 0.5 < x < box.x + box.width - 0.5 and box.y + 0.5 < y < box.y + box.height - 0.5


def problems(found: Layout) -> list[str]:
    """Everything that lies where something else is, or outside of the picture."""
    labels = [(at, line.label) for at, line in enumerate(found.lines) if line.label is not None]
    boxes = [*((f"node {at}", box) for at, box in enumerate(found.nodes)), *((f"label {at}", b) for at, b in labels)]
    wrong = [f"{a} on {b}" for (a, one), (b, other) in itertools.combinations(boxes, 2) if overlap(one, other)]
    for name, box in boxes:
        if box.x < 0 or box.y < 0 or box.x + box.width > found.width or box.y + box.height > found.height:
            wrong.append(f"{name} is outside")
    rows = sorted(boxes, key=lambda named: named[1].y)
    tops, tallest = [box.y for _, box in rows], max(box.height for _, box in rows)
    for at, line in enumerate(found.lines):
        for x, y in points(line.curves):
            near = rows[bisect.bisect_left(tops, y - tallest) : bisect.bisect_right(tops, y)]
            wrong += [f"line {at} on {name}" for name, box in near if name != f"label {at}" and inside(x, y, box)]
            if not (0 <= x <= found.width and 0 <= y <= found.height):
                wrong.append(f"line {at} is outside")
    return sorted(set(wrong))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "no labels"])
def test_nothing_overlaps(shape: str, labels: bool) -> None:
    """Boxes, labels and lines of every shape keep apart, and each line ends at the top of its target."""
    pairs = SHAPES[shape]
    found = made(pairs, labels)
    assert problems(found) == []
    for (source, target), line in zip(dict.fromkeys(pairs), found.lines, strict=True):
        (x0, y0), (x1, y1) = line.curves[0][-2:], line.curves[-1][-2:]
        begin, end = found.nodes[source], found.nodes[target]
        assert begin.x <= x0 <= begin.x + begin.width
        assert y0 == pytest.approx(begin.y + begin.height)
        assert end.x <= x1 <= end.x + end.width
        assert y1 == pytest.approx(end.y)


@pytest.mark.long
def test_nothing_overlaps_in_any_graph(rounds: int) -> None:
    """Whatever leads where."""
    node = st.integers(0, 19)

    @settings(max_examples=40 * rounds)
    @given(st.lists(st.tuples(node, node), max_size=40), st.booleans())
    def check(pairs: Pairs, labels: bool) -> None:
        assert problems(made(pairs, labels)) == []

    check()


def test_lines_lead_down_but_for_loops() -> None:
    """A node stands below those that lead to it; what closes a loop leads up."""
    found = made(SHAPES["looped"])
    ups = [pair for pair, line in zip(SHAPES["looped"], found.lines, strict=True) if line.back]
    assert ups == [(2, 0), (1, 1), (3, 1)]
    assert [box.y for box in found.nodes] == sorted(box.y for box in found.nodes)


def test_few_lines_cross() -> None:
    """A picture that can be drawn without crossings is: two ladders, given in the wrong order."""
    pairs = [(0, 1), (0, 2), (1, 4), (2, 3), (3, 5), (4, 6)]
    crossed = layouts._Made([NARROW] * 7, [Edge(*pair) for pair in pairs], 0)
    crossed.untangle()
    assert crossed._crossings() == 0


def test_a_line_is_straight() -> None:
    """The nodes of a chain stand exactly below each other."""
    found = made(chain(8), labels=False)
    assert len({round(box.x + box.width / 2, 3) for box in found.nodes}) == 1


def test_large_graphs_are_drawn_fast_or_not_at_all() -> None:
    """Thousands of nodes in a line take a moment; what has more crossings than cells is refused at once."""
    begun = time.process_time()
    assert len(made(chain(5_000)).nodes) == 5_000
    with pytest.raises(TooLarge):
        layout([NARROW] * 3_000, [Edge(a, b) for a, b in zip(range(2_000), range(2_999, 999, -1), strict=True)] + [
            Edge(a, a + 1) for a in range(2_999)
        ])  # fmt: skip
    assert time.process_time() - begun < 20


FLOW = workflow(
    "GraphName,Node,AgentType,Edge,Success_Next,Failure_Next,Context\n"
    "G,Start,,Check|end,,,\n"
    "G,Check,branching,,Pick,Start,{when=x}\n"
    'G,Pick,switch,,,,"{""field"": ""k"", ""cases"": {""a"": ""end"", ""b"": ""end""}, ""default"": ""Start""}"\n'
    "G,end,echo,func:pick,,,\n"
)


def test_a_workflow_is_drawn() -> None:
    """A group for each node and for each pair that is joined, with what they are called; labels on lines."""
    root = ET.fromstring(to_svg(to_dict(FLOW, REGISTRY)))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Workflow G: 4 nodes, 6 lines, from top to bottom"
    assert [group.get("data-node") for group in root.iter(f"{SVG}g") if group.get("data-node")] == list(FLOW.nodes)
    pairs = [(g.get("data-source"), g.get("data-target"), g.get("class")) for g in root.iter(f"{SVG}g")]
    assert ("Pick", "Start", "edge case up") in pairs
    assert {t.text for t in root.iter(f"{SVG}text") if t.get("class") == "label"} == {
        "success", "failure", "a, b", "default",
    }  # fmt: skip
    assert [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "kind"] == [
        "branching", "switch", "echo", "func:pick → any",
    ]  # fmt: skip


def test_states_are_drawn() -> None:
    """The state of a node is its class, a sign before its name and part of what it is called."""
    drawn = to_dict(FLOW, REGISTRY)
    drawn["nodes"] = [
        {**node, "state": state}
        for node, state in zip(drawn["nodes"], ["completed", "failed", "running", "pending"], strict=True)
    ]
    drawn["edges"][0]["taken"] = 2
    text = to_svg(drawn)
    root = ET.fromstring(text)
    assert [g.get("class") for g in root.iter(f"{SVG}g") if g.get("data-node")] == [
        "node entry completed", "node failed", "node running", "node pending",
    ]  # fmt: skip
    assert ["".join(t.itertext()) for t in root.iter(f"{SVG}text") if t.get("class") == "name"] == [
        "✓ Start", "✕ Check", "▶ Pick", "end",
    ]  # fmt: skip
    assert "Start to Check: edge, 2 times" in text
    assert 'class="edge edge taken"' in text


@pytest.mark.parametrize(
    "name",
    ['"/><script>x</script>', "a&b", "<![CDATA[x]]>", "ÄÖÜ 日本語", "x" * 300, "&#0;", "it's", "\u0007bell"],
)
def test_names_are_only_text(name: str) -> None:
    """Nothing that a cell holds becomes markup, and what XML cannot hold is replaced."""
    drawn = to_dict(workflow(f"GraphName,Node,Edge\n{cell(name)},{cell(name)},{cell(name)}\n"), REGISTRY)
    root = ET.fromstring(to_svg(drawn))
    assert {one.tag.removeprefix(SVG) for one in root.iter()} == {
        "svg",
        "style",
        "g",
        "title",
        "path",
        "rect",
        "text",
        "tspan",
    }
    (group,) = [one for one in root.iter(f"{SVG}g") if one.get("data-node")]
    assert group.get("data-node") == name.replace("\u0007", "\ufffd")


def test_texts_have_room() -> None:
    """Names and labels are cut to what fits into their boxes; the whole name is in the title."""
    drawn = to_dict(workflow(f"GraphName,Node,Edge\nG,{'W' * 90},Next\nG,Next,{'W' * 90}\n"), REGISTRY)
    drawn["edges"][0]["label"] = "case " * 40
    root = ET.fromstring(to_svg(drawn))
    for text in root.iter(f"{SVG}text"):
        most, size = (LABEL_WIDTH, 11.0) if text.get("class") == "label" else (MOST_WIDTH, 13.0)
        assert width_of("".join(text.itertext()), size) <= most
    assert any((title.text or "").startswith("W" * 90) for title in root.iter(f"{SVG}title"))


def test_what_is_too_large_says_so() -> None:
    """The image then names the other formats."""
    nodes = [{"id": f"N{at}", "entry": at == 0} for at in range(layouts.MOST_CELLS // 100)]
    names = [node["id"] for node in nodes]
    edges = [
        {"source": a, "target": b, "kind": "case", "label": ""} for a in names[:120] for b in names[-1:] + names[:1]
    ]
    edges += [{"source": a, "target": b, "kind": "edge", "label": "x"} for a, b in itertools.pairwise(names)]
    assert "format=dot" in to_svg({"name": "G", "entry": "N0", "nodes": nodes, "edges": edges})
