"""A CSV file as its author wrote it, row by row: to show a cell, to change one, to write the file anew.

Rows that are not changed keep their text, comments among them.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from . import columns
from .cells import names
from .columns import COLUMNS, Layout
from .package import Unreadable
from .sheet import decoded, dialect, first_late_quote, skippable
from .text import NOTHING, normalised

_LISTS: Final = frozenset(
    {columns.OUTPUT, columns.EDGE, columns.SUCCESS, columns.FAILURE, columns.TOOLS, columns.INPUTS}
)
"""Columns whose cells are lists of names, separated by |."""


@dataclass(slots=True)
class Row:
    """A row: its cells, and its text with the end of the line."""

    cells: list[str]
    text: str
    line: int
    """The text line where it begins, from 1."""


@dataclass(slots=True)
class Table:
    """All rows of a file, the header among them."""

    rows: list[Row]
    """The row of a spreadsheet's number N is `rows[N - 1]`."""
    delimiter: str
    newline: str
    mark: bool
    """Whether it begins with a byte order mark, or was in an encoding that needs none when it is written."""
    sep: str = ""
    """The line `sep=`, with its end."""
    header: int = 0
    """The header's index in `rows`."""
    layout: Layout = field(default_factory=lambda: columns.layout(()))

    def row(self, number: int | None) -> Row | None:
        """The row that a diagnostic names."""
        return self.rows[number - 1] if number is not None and 0 < number <= len(self.rows) else None

    def change(self, row: int, position: int, text: str) -> None:
        """Put a text into a cell. `row` is a spreadsheet's number."""
        found = self.rows[row - 1]
        cells = [*found.cells, *[""] * (position + 1 - len(found.cells))]
        if cells[position] == text and len(cells) == len(found.cells):
            return
        cells[position] = text
        self.rows[row - 1] = Row(cells, self._line(cells), found.line)

    def _line(self, cells: Sequence[str]) -> str:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=self.delimiter, lineterminator=self.newline).writerow(cells)
        return out.getvalue()

    def written(self) -> bytes:
        """The file's bytes, in UTF-8."""
        return (codecs.BOM_UTF8 if self.mark else b"") + (self.sep + "".join(row.text for row in self.rows)).encode()

    def formatted(self) -> Table:
        """The same file as one would write it by hand: names of the language in the header, cells without spaces
        around them, lists without empty parts, full rows, one blank row where several were. Comments stay.
        """
        layout = self.layout
        head = [normalised(cell) for cell in self.rows[self.header].cells[: layout.width]]
        for column, positions in enumerate(layout.cells):
            if len(positions) == 1:
                head[positions[0]] = COLUMNS[column].name
        meaning = {position: column for column, positions in enumerate(layout.cells) for position in positions}
        rows: list[Row] = []
        for index, row in enumerate(self.rows):
            if index != self.header and skippable(row.cells):
                if _is_comment(row.cells):
                    rows.append(Row(row.cells, row.text.rstrip("\r\n ") + self.newline, row.line))
                elif rows and rows[-1].cells:
                    rows.append(Row([], self.newline, row.line))
                continue
            cells = head if index == self.header else _formatted(row.cells, layout.width, meaning)
            rows.append(Row(cells, self._line(cells), row.line))
        while rows and not rows[-1].cells:
            rows.pop()
        header = next(at for at, row in enumerate(rows) if row.cells is head)
        sep = self.sep.rstrip("\r\n") + self.newline if self.sep else ""
        return Table(rows, self.delimiter, self.newline, self.mark, sep, header, columns.layout(head))


def _is_comment(cells: Sequence[str]) -> bool:
    """Of a row that is skipped: whether it is not blank."""
    return bool(cells) and cells[0].lstrip().startswith("#")


def _formatted(cells: Sequence[str], width: int, meaning: dict[int, int]) -> list[str]:
    found = [_cell(text, meaning.get(position)) for position, text in enumerate(cells)]
    while len(found) > width and not found[-1]:
        found.pop()
    return found + [""] * (width - len(found))


def _cell(text: str, column: int | None) -> str:
    if column is None or column in columns.FREE:
        return text.strip()
    plain = normalised(text)
    if column not in _LISTS or "|" not in plain or "(" in plain or plain[:5].lower() == "func:":
        return plain
    if any(part.strip() in NOTHING for part in plain.split("|")):
        return plain  # whoever reads it should see the note
    return "|".join(names(plain)[0])


def read(data: bytes) -> Table:
    """A CSV file's rows. Raises Unreadable for what is no CSV file, or cannot be taken apart with certainty."""
    text, doubtful = decoded(data)
    if "\0" in text:
        raise Unreadable("AM-E001", "This is no CSV file")
    if doubtful is not None and doubtful[0] == "AM-E003":
        raise Unreadable(doubtful[0], doubtful[2])
    body, written, delimiter = dialect(text)
    late = first_late_quote(body, delimiter) if '"' in body else None
    if late is not None:
        raise Unreadable("AM-D001", f"The quote that opens in text line {late[1]} is closed too late")
    if written is not None:
        body = body[1:]
    lines = list(io.StringIO(body, newline=""))
    shift = 1 if written is not None else 0
    rows = list(_rows(lines, delimiter, shift))
    marked = data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or doubtful is not None
    # Line breaks in cells and blank rows have no say: what is written decides the same when it is read again.
    ends = [row.text.endswith("\r\n") for row in rows if not skippable(row.cells) or _is_comment(row.cells)]
    newline = "\r\n" if sum(ends) * 2 > len(ends) else "\n"
    table = Table(rows, delimiter, newline, marked, written[0] if written is not None else "")
    header = next((at for at, row in enumerate(rows) if not skippable(row.cells)), None)
    if header is None:
        raise Unreadable("AM-D005", "The file has no header line")
    table.header = header
    table.layout = columns.layout(rows[header].cells)
    return table


def _rows(lines: list[str], delimiter: str, shift: int) -> Iterator[Row]:
    end = "\0"  # no file holds it, so only a quote that is not closed can swallow it
    reader = csv.reader([*lines, end], delimiter=delimiter)
    before = 0
    try:
        for cells in reader:
            if before == len(lines):
                return
            if reader.line_num > len(lines):
                raise Unreadable("AM-D001", f"The quote that opens in text line {before + shift + 1} is not closed")
            yield Row(cells, "".join(lines[before : reader.line_num]), before + shift + 1)
            before = reader.line_num
    except csv.Error as exc:
        raise Unreadable("AM-D004", f"Text line {before + shift + 1} cannot be read: {exc}") from exc
