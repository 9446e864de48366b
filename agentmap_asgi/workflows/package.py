"""The ZIP files that spreadsheets are, read within bounds, and their XML."""

from __future__ import annotations

import io
import zipfile
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from xml.parsers import expat

from .columns import letter

UNPACKED: Final = 8
"""How many times larger than allowed for a file its parts may be when they are unpacked, together."""

MOST_COLUMNS: Final = 16_384
MOST_FILLED: Final = 100_000
"""Cells that merged ranges may fill, in a whole file."""


class Unreadable(ValueError):
    """A file that is no spreadsheet that can be read: the code of its diagnostic, and what is wrong."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class Note(NamedTuple):
    """Something to be said of a cell; positions are from 0."""

    code: str
    message: str
    row: int
    column: int
    text: str | None = None


Range = tuple[int, int, int, int]
"""First row, first column, last row, last column, from 0."""


class Grid:
    """The cells of one sheet that are not empty, and what there is to say of them."""

    __slots__ = ("cells", "merged", "name", "notes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.cells: dict[int, dict[int, str]] = {}
        """By row, then by column, from 0."""
        self.merged: list[Range] = []
        self.notes: list[Note] = []

    def finish(self, package: Package) -> None:
        """Fill what was merged with the text of its first cell, and leave out the blank end. Raises Unreadable."""
        package.spend(sum(len(text) for cells in self.cells.values() for text in cells.values()))
        rows = [row for row, cells in self.cells.items() if any(text.strip() for text in cells.values())]
        last_row = max(rows, default=-1)
        for row in [row for row in self.cells if row > last_row]:
            del self.cells[row]
        last_column = max((column for cells in self.cells.values() for column in cells), default=-1)
        left, first = MOST_FILLED, None
        numbers = sorted(self.cells)
        for top, start, bottom, end in sorted(self.merged):
            text = self.cells.get(top, {}).get(start, "")
            if not text or (top, start) == (bottom, end):
                continue
            first = first or (top, start, bottom, end)
            width = min(end, max(last_column, start)) - start + 1
            # A range may reach to the end of the sheet; where nothing else is, nothing is filled.
            # A row that is blank otherwise stays blank.
            for row in numbers[bisect_left(numbers, top) : bisect_right(numbers, min(bottom, last_row))]:
                left -= width
                package.spend(len(text) * width)
                if left < 0:
                    raise Unreadable("AM-E008", f"The merged cells of the sheet {self.name!r} are too many")
                cells = self.cells[row]
                for column in range(start, start + width):
                    cells[column] = text
        if first is not None:
            top, start, bottom, end = first
            where = f"{spot(top, start)}:{spot(bottom, end)}"
            message = f"The merged cells {where}, like those below, are read as if each held the text of the first"
            self.notes.append(Note("AM-V005", message, top, start))

    def rows(self) -> Iterator[list[str]]:
        """The rows from the first on, blank ones too, each with its cells from the first on."""
        after = 0
        for row in sorted(self.cells):
            for _ in range(after, row):
                yield []
            after = row + 1
            cells = self.cells[row]
            line = [""] * (max(cells, default=-1) + 1)
            for column, text in cells.items():
                line[column] = text
            yield line


class Package:
    """A ZIP file's parts, by name."""

    def __init__(self, data: bytes, limit: int) -> None:
        """`limit` is the size in bytes that all parts which are read may have together."""
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as exc:
            raise _damaged() from exc
        self.names = frozenset(self._zip.namelist())
        self._left = self._texts = limit

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def spend(self, characters: int) -> None:
        """Count what cells hold: few bytes can be the text of many cells. Raises Unreadable when nothing is left."""
        self._texts -= characters
        if self._texts < 0:
            raise Unreadable("AM-E004", "The texts of the spreadsheet's cells are too large together")

    def read(self, name: str) -> bytes:
        """A part. Raises Unreadable when it is damaged, or larger than is left."""
        try:
            info = self._zip.getinfo(name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
                raise _damaged()
            with self._zip.open(info) as part:
                found = part.read(self._left + 1)
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, RuntimeError, OSError) as exc:
            raise exc if isinstance(exc, Unreadable) else _damaged() from exc
        self._left -= len(found)
        if self._left < 0:
            raise Unreadable("AM-E004", "The spreadsheet is too large when it is unpacked")
        return found


Start = Callable[[Mapping[str, str]], None]


def parse(
    data: bytes,
    start: Mapping[str, Start],
    end: Mapping[str, Callable[[], None]] | None = None,
    text: Callable[[str], None] | None = None,
) -> None:
    """Go through a part's XML. Elements are known by their names without prefix, attributes too.

    Raises Unreadable when it is no XML, or has a document type, which no spreadsheet has.
    """
    starting: dict[str, Start | None] = {}
    ending: dict[str, Callable[[], None] | None] = {}
    """By the names that are met, prefix and all."""
    enders = end or {}
    parser = expat.ParserCreate("utf-8" if not data.startswith((b"\xff\xfe", b"\xfe\xff")) else None)
    parser.buffer_text = True

    def starts(name: str, attributes: dict[str, str]) -> None:
        try:
            handler = starting[name]
        except KeyError:
            handler = starting[name] = start.get(name) or start.get(name.rpartition(":")[2])
        if handler is not None:
            handler(attributes)

    def ends(name: str) -> None:
        try:
            handler = ending[name]
        except KeyError:
            handler = ending[name] = enders.get(name) or enders.get(name.rpartition(":")[2])
        if handler is not None:
            handler()

    def refuse(*_: Any) -> None:
        raise _damaged()

    parser.StartElementHandler = starts
    parser.EndElementHandler = ends
    parser.StartDoctypeDeclHandler = refuse
    if text is not None:
        parser.CharacterDataHandler = text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as exc:
        raise _damaged() from exc


def attribute(attributes: Mapping[str, str], name: str) -> str | None:
    """An attribute by its name without prefix."""
    if name in attributes:
        return attributes[name]
    return next((value for key, value in attributes.items() if key.rpartition(":")[2] == name), None)


def number(text: str) -> str:
    """A number as a spreadsheet shows it: fifteen digits, whole ones without a point."""
    try:
        value = float(text)
    except ValueError:
        return text
    if value == int(value) if abs(value) < 1e15 else False:
        return str(int(value))
    return format(value, ".15G")


def spot(row: int, column: int) -> str:
    """A cell as spreadsheets call it."""
    return f"{letter(column)}{row + 1}"


def _damaged() -> Unreadable:
    return Unreadable("AM-E008", "The spreadsheet is damaged, or none that can be read")
