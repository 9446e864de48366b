"""The cells of OpenDocument spreadsheets (.ods), as texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .package import MOST_COLUMNS, Grid, Note, Package, Unreadable, number, parse, spot

_TIME = re.compile(r"PT(\d{1,9})H(\d{1,9})M(\d{1,9})(?:[.,]\d+)?S")
_SPACES = re.compile(r"[ \t\r\n]+")

MOST_CELLS: Final = 1_000_000
"""Cells of a document that are not empty; few bytes can stand for very many."""

MOST_SPACES: Final = 1_000_000
"""Spaces of a document that elements stand for."""


def grids(package: Package, most_rows: int) -> list[Grid]:
    """Every sheet, in the order of the document; no more than about `most_rows` rows of each. Raises Unreadable."""
    if "META-INF/manifest.xml" in package.names and b"encryption-data" in package.read("META-INF/manifest.xml"):
        raise Unreadable("AM-E008", "The spreadsheet is protected by a password", "Save it without a password.")
    reader = _Document(most_rows)
    reader.read(package.read("content.xml"))
    for grid in reader.grids:
        grid.finish(package)
    return reader.grids


class _Document:
    """Goes through the XML of a document."""

    def __init__(self, most_rows: int) -> None:
        self.grids: list[Grid] = []
        self._most_rows = most_rows
        self._left = MOST_CELLS
        self._spaces = MOST_SPACES
        self._depth = 0
        """Of tables in each other; those in cells are no sheets."""
        self._row = 0
        self._rows_repeated = 1
        self._column = 0
        self._cells: dict[int, str] = {}
        self._attributes: Mapping[str, str] = {}
        self._pieces: list[str] | None = None
        self._paragraphs: list[str] = []
        self._aside = 0
        """Depth of comments and drawings, whose texts are not the cell's."""
        self._uncached: list[tuple[int, int]] = []
        self._typed: tuple[int, int, str] | None = None

    def read(self, data: bytes) -> None:
        aside = dict.fromkeys(("office:annotation", "draw:frame", "draw:custom-shape", "text:note"), self._start_aside)
        parse(
            data,
            {
                "table:table": self._start_table,
                "table:table-row": self._start_row,
                "table:table-cell": self._start_cell,
                "table:covered-table-cell": self._start_cell,
                "text:p": self._start_paragraph,
                "text:h": self._start_paragraph,
                "text:s": self._space,
                "text:tab": lambda _: self._add("\t"),
                "text:line-break": lambda _: self._add("\n"),
                **aside,
            },
            {
                "table:table": self._end_table,
                "table:table-row": self._end_row,
                "table:table-cell": self._end_cell,
                "table:covered-table-cell": self._end_cell,
                "text:p": self._end_paragraph,
                "text:h": self._end_paragraph,
                **dict.fromkeys(aside, self._end_aside),
            },
            lambda text: self._add(_SPACES.sub(" ", text)),
        )

    def _start_table(self, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self.grids.append(Grid(attributes.get("table:name", "")))
            self._row = 0
            self._uncached, self._typed = [], None

    def _end_table(self) -> None:
        self._depth -= 1
        if self._depth:
            return
        notes = self.grids[-1].notes
        if self._uncached:
            row, column = self._uncached[0]
            more = f" and {len(self._uncached) - 1} more" * (len(self._uncached) > 1)
            message = f"The formula in {spot(row, column)}{more} has no value: the program that wrote it computes none"
            notes.append(Note("AM-V006", message, row, column))
        if self._typed is not None:
            row, column, text = self._typed
            message = f"Dates, times and truth values, here and below, are read as texts like {text!r}"
            notes.append(Note("AM-V007", message, row, column, text))

    def _start_row(self, attributes: Mapping[str, str]) -> None:
        if self._depth == 1:
            self._rows_repeated = _repeated(attributes.get("table:number-rows-repeated"))
            self._column = 0
            self._cells = {}

    def _end_row(self) -> None:
        if self._depth != 1:
            return
        if self._cells:
            self._left -= len(self._cells) * min(self._rows_repeated, self._most_rows)
            if self._left < 0:
                raise Unreadable("AM-E008", f"The sheet {self.grids[-1].name!r} has too many cells")
            for row in range(self._row, min(self._row + self._rows_repeated, self._most_rows)):
                self.grids[-1].cells[row] = dict(self._cells)
        self._row += self._rows_repeated

    def _start_cell(self, attributes: Mapping[str, str]) -> None:
        if self._depth == 1:
            self._attributes = attributes
            self._paragraphs = []

    def _end_cell(self) -> None:
        if self._depth != 1:
            return
        attributes = self._attributes
        repeated = _repeated(attributes.get("table:number-columns-repeated"))
        text = self._value(attributes)
        if text:
            end = min(self._column + repeated, MOST_COLUMNS)
            self._cells.update(dict.fromkeys(range(self._column, end), text))
            across = _repeated(attributes.get("table:number-columns-spanned"))
            down = _repeated(attributes.get("table:number-rows-spanned"))
            if across > 1 or down > 1:
                self.grids[-1].merged.append(
                    (self._row, self._column, self._row + down - 1, min(self._column + across, MOST_COLUMNS) - 1)
                )
        elif "table:formula" in attributes and attributes.get("office:value-type") != "string":
            self._uncached.append((self._row, self._column))
        self._column += repeated

    def _value(self, attributes: Mapping[str, str]) -> str:
        shown = "\n".join(self._paragraphs)
        if attributes.get("calcext:value-type") == "error":
            return shown
        match attributes.get("office:value-type"):
            case "float" | "percentage" | "currency":
                return number(attributes.get("office:value", shown))
            case "boolean":
                return self._seen(attributes.get("office:boolean-value", shown).upper())
            case "date":
                return self._seen(attributes.get("office:date-value", shown).replace("T", " ", 1).removesuffix("Z"))
            case "time":
                found = _TIME.fullmatch(attributes.get("office:time-value", ""))
                return self._seen(":".join(part.zfill(2) for part in found.groups()) if found else shown)
            case "string":
                return shown or attributes.get("office:string-value", "")
        return shown

    def _seen(self, text: str) -> str:
        if self._typed is None:
            self._typed = (self._row, self._column, text)
        return text

    def _start_paragraph(self, _: Mapping[str, str]) -> None:
        if not self._aside:
            self._pieces = []

    def _end_paragraph(self) -> None:
        if not self._aside and self._pieces is not None:
            self._paragraphs.append("".join(self._pieces))
            self._pieces = None

    def _space(self, attributes: Mapping[str, str]) -> None:
        count = _repeated(attributes.get("text:c"))
        self._spaces -= count
        if self._spaces < 0:
            raise Unreadable("AM-E008", f"The sheet {self.grids[-1].name!r} has too many spaces")
        self._add(" " * count)

    def _add(self, text: str) -> None:
        if self._pieces is not None and not self._aside:
            self._pieces.append(text)

    def _start_aside(self, _: Mapping[str, str]) -> None:
        self._aside += 1

    def _end_aside(self) -> None:
        self._aside -= 1


def _repeated(text: str | None) -> int:
    if not text or not text.isascii() or not text.isdigit():
        return 1
    return max(1, min(int(text[:9]), 10**8))
