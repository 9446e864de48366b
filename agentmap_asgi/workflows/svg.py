"""A drawn workflow as SVG: made here, without network, scripts or links. Texts of the workflow are only ever texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from unicodedata import east_asian_width

from . import layout
from .layout import Box, Curve, Size

NAME_SIZE: Final = 13.0
KIND_SIZE: Final = 11.0
PADDING: Final = 14.0
LEAST_WIDTH: Final = 96.0
MOST_WIDTH: Final = 240.0
LINE_HEIGHT: Final = 16.0
LABEL_HEIGHT: Final = 18.0
LABEL_WIDTH: Final = 170.0

STYLE: Final = """
svg{--paper:#fff;--ink:#1c2430;--soft:#566172;--line:#7b8798;--box:#f4f6f9;--edge:#c3cbd6;--good:#1f7a4d;--bad:#b3261e;
--busy:#1f5fbf;--wait:#8a5a00;background:var(--paper)}
@media(prefers-color-scheme:dark){svg{--paper:#14181f;--ink:#e8ecf2;--soft:#a5b0c0;--line:#8793a6;--box:#1f2631;
--edge:#465163;--good:#5fc994;--bad:#ff8a80;--busy:#82b1ff;--wait:#f0b95a}}
text{font-family:system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;text-anchor:middle;fill:var(--ink)}
.name{font-size:13px;font-weight:600}.kind{font-size:11px;fill:var(--soft)}.label{font-size:11px;fill:var(--soft)}
.box{fill:var(--box);stroke:var(--edge);stroke-width:1.25}.entry .box{stroke:var(--ink);stroke-width:2}
.line{fill:none;stroke:var(--line);stroke-width:1.5}.head{fill:var(--line)}.back{fill:var(--paper)}
.failure:not(.success) .line{stroke-dasharray:5 4}.missing .box{stroke-dasharray:4 3;stroke:var(--bad)}
.completed .box{stroke:var(--good);stroke-width:2}.failed .box{stroke:var(--bad);stroke-width:2.5}
.running .box{stroke:var(--busy);stroke-width:2.5}.waiting .box{stroke:var(--wait);stroke-width:2.5}
.cut .box{stroke:var(--bad);stroke-dasharray:4 3}.skipped,.pending{opacity:.62}
.taken .line{stroke:var(--good);stroke-width:2.25}.taken .head{fill:var(--good)}
"""
MARKS: Final = {"completed": "✓", "failed": "✕", "running": "▶", "waiting": "?", "cut": "–"}
"""What says a state without colour."""

_NO_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NARROW: Final = frozenset("ijlI|!.,:;'`")
_SLIM: Final = frozenset('frt()[]{}-/\\ "*')
_BROAD: Final = frozenset("mwMW@%&")


class Joined(NamedTuple):
    """All edges from one node to another, which are drawn as one line."""

    source: str
    target: str
    kinds: tuple[str, ...]
    label: str
    taken: int


def to_svg(drawn: Mapping[str, Any]) -> str:
    """The drawing that `drawing.to_dict` describes, perhaps with the states of an execution, as an SVG document."""
    nodes = {str(node["id"]): node for node in drawn["nodes"]}
    numbers = {name: at for at, name in enumerate(nodes)}
    lines = {name: _lines(node) for name, node in nodes.items()}
    edges = [edge for edge in _joined(drawn["edges"]) if edge.source in nodes and edge.target in nodes]
    labels = [_cut(edge.label, KIND_SIZE, LABEL_WIDTH) for edge in edges]
    shapes = [
        layout.Edge(numbers[edge.source], numbers[edge.target], _label_size(label))
        for edge, label in zip(edges, labels, strict=True)
    ]
    title = f"Workflow {drawn.get('name', '')}"
    try:
        placed = layout.layout([_size(lines[name]) for name in nodes], shapes, numbers.get(drawn.get("entry") or ""))
    except layout.TooLarge:
        note = f"{len(nodes)} nodes and {len(edges)} edges are too many for a drawing; ask for format=dot or json"
        return _document(title, note, 640, 60, [_text(note, "name", 320, 34)])
    parts = []
    for edge, label, line in zip(edges, labels, placed.lines, strict=True):
        kinds = " ".join(
            dict.fromkeys([*edge.kinds, *(["taken"] if edge.taken else []), *(["up"] if line.back else [])])
        )
        parts.append(f'<g class="edge {kinds}" data-source={_quoted(edge.source)} data-target={_quoted(edge.target)}>')
        times = f", {edge.taken} times" if edge.taken > 1 else ", taken" if edge.taken else ""
        parts.append(
            f"<title>{_escaped(f'{edge.source} to {edge.target}: {edge.label or edge.kinds[0]}{times}')}</title>"
        )
        parts += [f'<path class="line" d="{_path(line.curves)}"/>', _head(line.curves[-1])]
        if line.label is not None:
            parts += [_rectangle("back", line.label, 4), _middle_text(label, "label", line.label)]
        parts.append("</g>")
    for (name, node), box in zip(nodes.items(), placed.nodes, strict=True):
        parts += _node(name, node, lines[name], box)
    summary = f"{len(nodes)} nodes, {len(edges)} lines, from top to bottom"
    return _document(title, summary, placed.width, placed.height, parts)


def _document(title: str, summary: str, width: float, height: float, parts: Iterable[str]) -> str:
    size = f'viewBox="0 0 {_number(width)} {_number(height)}" width="{_number(width)}" height="{_number(height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={_quoted(f"{title}: {summary}")}>'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>\n"])


def _joined(edges: Iterable[Mapping[str, Any]]) -> list[Joined]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for edge in edges:
        found.setdefault((str(edge["source"]), str(edge["target"])), []).append(edge)
    return [
        Joined(
            *pair,
            tuple(dict.fromkeys(str(edge.get("kind", "edge")) for edge in held)),
            ", ".join(dict.fromkeys(str(edge["label"]) for edge in held if edge.get("label"))),
            max(int(edge.get("taken") or 0) for edge in held),
        )
        for pair, held in found.items()
    ]


def _lines(node: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(class, text) of each line of a box."""
    found = [("name", f"{node['id']}?" if node.get("missing") else str(node["id"]))]
    kind = str(node.get("agent_type") or "")
    if kind and kind != "default":
        found.append(("kind", kind))
    found += [("kind", f"{function} → any") for function in node.get("routes_anywhere", ())]
    sizes = {"name": NAME_SIZE, "kind": KIND_SIZE}
    return [(style, _cut(text, sizes[style], MOST_WIDTH - 2 * PADDING)) for style, text in found]


def _size(lines: list[tuple[str, str]]) -> Size:
    widest = max(width_of(text, NAME_SIZE if style == "name" else KIND_SIZE) for style, text in lines)
    # Room for the mark that says how a node is, which may come while one looks.
    width = max(LEAST_WIDTH, widest + 2 * PADDING + 12)
    return Size(width, LINE_HEIGHT * len(lines) + 18)


def _label_size(label: str) -> Size | None:
    return Size(width_of(label, KIND_SIZE) + 8, LABEL_HEIGHT) if label else None


def _node(name: str, node: Mapping[str, Any], lines: list[tuple[str, str]], box: Box) -> list[str]:
    marks = ["node", *(["entry"] if node.get("entry") else []), *(["missing"] if node.get("missing") else [])]
    state = str(node.get("state") or "")
    if state.isalpha():
        marks.append(state)
    about = [name, *(text for _, text in lines[1:]), *([state] if state else []), str(node.get("description") or "")]
    found = [f'<g class="{" ".join(marks)}" data-node={_quoted(name)}>']
    found.append(f"<title>{_escaped(', '.join(text for text in about if text))}</title>")
    found.append(_rectangle("box", box, box.height / 2 if node.get("entry") else 7))
    top = box.y + box.height / 2 - LINE_HEIGHT * len(lines) / 2
    sign = MARKS.get(state)
    mark = f'<tspan class="mark">{f"{sign} " if sign else ""}</tspan>'
    for at, (style, text) in enumerate(lines):
        y = top + LINE_HEIGHT * at + 12
        found.append(_text(text, style, box.x + box.width / 2, y, "" if at else mark))
    return [*found, "</g>"]


def _middle_text(text: str, style: str, box: Box) -> str:
    return _text(text, style, box.x + box.width / 2, box.y + box.height / 2 + 4)


def _text(text: str, style: str, x: float, y: float, before: str = "") -> str:
    return f'<text class="{style}" x="{_number(x)}" y="{_number(y)}">{before}{_escaped(text)}</text>'


def _rectangle(style: str, box: Box, radius: float) -> str:
    places = zip(("x", "y", "width", "height"), box, strict=True)
    placed = " ".join(f'{name}="{_number(value)}"' for name, value in places)
    return f'<rect class="{style}" {placed} rx="{_number(radius)}"/>'


def _path(curves: list[Curve]) -> str:
    (x, y), *rest = (tuple(map(_number, curve)) for curve in curves)
    letters = {2: "L", 6: "C"}
    return f"M{x} {y}" + "".join(letters[len(curve)] + " ".join(curve) for curve in rest)


def _head(end: Curve) -> str:
    """Every line arrives from above."""
    x, y = end[-2:]
    return f'<path class="head" d="M{_number(x - 4)} {_number(y - 8)}h8l-4 8z"/>'


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _cut(text: str, size: float, most: float) -> str:
    """The text in one line, as much of it as has room."""
    shown = " ".join(text.split())
    if width_of(shown, size) <= most:
        return shown
    room, fits = most - width_of("…", size), 0
    while (room := room - width_of(shown[fits], size)) >= 0:
        fits += 1
    return shown[:fits] + "…"


def width_of(text: str, size: float) -> float:
    """Pixels that a text of this font size takes at the most: fonts differ, so each letter counts generously."""
    return sum(map(_em, text)) * size


def _em(sign: str) -> float:
    if sign in _NARROW:
        return 0.34
    if sign in _SLIM:
        return 0.46
    if sign in _BROAD:
        return 1.0
    if east_asian_width(sign) in "WF":
        return 1.05
    return 0.78 if sign.isupper() or not sign.isascii() else 0.65


def _escaped(text: str) -> str:
    plain = _NO_XML.sub("\ufffd", text)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    signs = {'"': "&quot;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"}
    return '"' + "".join(signs.get(sign, sign) for sign in _escaped(text)) + '"'
