"""Where in the text of a file a diagnostic points: a line, and the characters of the cell's text in it."""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple

from .diagnostics import Diagnostic
from .table import Table

SHOWN: Final = 100
"""Characters of a line that are shown, with the cell among them."""


class Place(NamedTuple):
    """A part of a text line; characters count from 0."""

    line: int
    text: str
    """The line, without its end."""
    start: int
    end: int
    """Equal to `start` when it is the line as a whole."""


def position_of(column: str | None) -> int | None:
    """The position of a column's letter, from 0."""
    if not column or not column.isascii() or not column.isalpha():
        return None
    number = 0
    for sign in column.upper():
        number = number * 26 + ord(sign) - 64
    return number - 1


def place(found: Diagnostic, table: Table) -> Place | None:
    """Where a diagnostic of a CSV file points; None when it is about the file as a whole."""
    row = table.row(found.row)
    if row is None:
        return None
    position = position_of(found.column)
    spans = _spans(row.text, table.delimiter)
    start = end = 0
    if position is not None and position < len(spans):
        start, end = spans[position]
        raw = row.text[start:end]
        if found.cell_character is not None and position < len(row.cells):
            start += _offset(raw, row.cells[position], found.cell_line or 1, found.cell_character)
            end = min(start + 1, end)
        elif found.text and (at := raw.find(written := _written(found.text, raw))) >= 0:
            start += at
            end = start + len(written)
        elif raw.startswith('"') and raw.endswith('"') and len(raw) > 2:
            start, end = start + 1, end - 1
        elif raw.strip():
            start, end = start + len(raw) - len(raw.lstrip()), end - len(raw) + len(raw.rstrip())
    lines = row.text[:start].splitlines(keepends=True) or [""]
    if lines[-1].endswith(("\n", "\r")):
        lines.append("")
    number = len(lines) - 1
    whole = (row.text.splitlines() or [""])[number] if row.text.splitlines() else ""
    begin = len(lines[-1])
    return Place(
        row.line + number,
        whole,
        begin,
        min(begin + max(end - start, 1 if position is not None and position < len(spans) else 0), len(whole)),
    )


def _spans(text: str, delimiter: str) -> list[tuple[int, int]]:
    """Where the cells of a row begin and end, quotes included."""
    spans = []
    start = at = 0
    quoted = False
    body = text.rstrip("\r\n")
    while at < len(body):
        sign = body[at]
        if sign == '"' and (quoted or at == start):
            if quoted and body[at + 1 : at + 2] == '"':
                at += 1
            else:
                quoted = not quoted
        elif sign == delimiter and not quoted:
            spans.append((start, at))
            start = at + 1
        at += 1
    return [*spans, (start, len(body))]


def _written(text: str, raw: str) -> str:
    """A text as it stands in a cell."""
    return text.replace('"', '""') if raw.startswith('"') else text


def _offset(raw: str, cell: str, line: int, character: int) -> int:
    """Where in a cell as it is written a character of the cell's text is."""
    text = cell.strip()
    lead = len(cell) - len(cell.lstrip())
    before = text.split("\n")[: line - 1]
    index = lead + sum(len(part) + 1 for part in before) + character - 1
    quoted = raw.startswith('"')
    at = 1 if quoted else 0
    for sign in cell[:index]:
        at += 2 if quoted and sign == '"' else 1
    return min(at, max(len(raw) - 1, 0))


def drawn(found: Place) -> list[str]:
    """The line with its number, and carets under the cell's text."""
    line, text, start, end = found
    left = max(0, min(start - SHOWN // 3, len(text) - SHOWN))
    shown = "".join(sign if sign.isprintable() else " " for sign in text[left : left + SHOWN])
    head = "…" if left else ""
    tail = "…" if left + SHOWN < len(text) else ""
    number = f"{line:>6} | "
    lines = [f"{number}{head}{shown}{tail}"]
    if end > start:
        before, under = shown[: start - left], shown[start - left : end - left]
        lines.append(f"{' ' * 6} | {' ' * (len(head) + _width(before))}{'^' * max(_width(under), 1)}")
    return lines


def of_cells(cells: list[str], row: int, position: int | None, text: str | None) -> Place:
    """The same for a row of a spreadsheet, its cells side by side."""
    flat = [" ".join(cell.split()) for cell in cells]
    line = " | ".join(flat)
    if position is None or position >= len(flat):
        return Place(row, line, 0, 0)
    start = sum(len(cell) + 3 for cell in flat[:position])
    wanted = " ".join(text.split()) if text else ""
    at = flat[position].find(wanted) if wanted else -1
    if at >= 0:
        return Place(row, line, start + at, start + at + len(wanted))
    return Place(row, line, start, start + len(flat[position]))


def _width(text: str) -> int:
    """Columns of a terminal."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )
