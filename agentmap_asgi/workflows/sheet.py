"""From the bytes of a file, or the cells of a spreadsheet, to the records of its rows: encoding, delimiter, header."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, cast

from . import columns
from .codes import diagnostic
from .columns import MOST_GUESSES, Layout
from .diagnostics import Diagnostic
from .text import ERROR_VALUES, SIGNS, normalised

if TYPE_CHECKING:
    from .package import Grid

DELIMITERS: Final = ",;\t|"
HEAD: Final = 64 * 1024
"""Characters in which the header is expected."""

HEAD_ROWS: Final = 1_000
"""Rows in which the header is found; blank and comment rows may stand before it."""

TITLES: Final = 20
"""Rows below what should be the header in which another one is looked for, to say so."""

END: Final = "\0"
"""The last line handed to the csv reader. A quote that is never closed swallows it; no file can hold it."""

SIGNATURE: Final = b"PK\x03\x04"
"""How spreadsheets begin."""

SUFFIXES: Final = frozenset({".xlsx", ".xlsm", ".ods"})

_SEP = re.compile(r'"?sep=([^"\r\n])"?[,;\t|]*(?:\r\n|\r|\n|$)', re.I)


def suffix_of(data: bytes) -> str:
    """How a file with these bytes is called, when nobody has said it."""
    if not data.startswith(SIGNATURE):
        return ".csv"
    return ".ods" if b"opendocument.spreadsheet" in data[:200] else ".xlsx"


@dataclass(slots=True, eq=False, repr=False)
class Sheet:
    """An open file, its header read. `records` goes on with the first row after the header."""

    records: _Reader
    lines: int
    """Text lines of the file, END not counted."""
    delimiter: str
    header: list[str]
    layout: Layout
    row: int
    """The header's row."""
    skipped: int
    """Blank and comment rows before the header."""
    comments: bool
    """Whether any row can be a comment."""
    international: bool
    """Whether any cell needs more than ASCII."""
    diagnostics: list[Diagnostic]
    again: Callable[[], Iterator[list[str]]]
    """All rows once more, from the first on."""
    signs: bool = False
    """Whether any cell has typographic signs or invisible characters."""
    likely: int | None = None
    """The row that looks like the header, where this one does not."""
    text: str = ""
    """All of a text file."""
    first: int = 1
    """The number of the first record of the text: 0 for the line `sep=`, which is no row."""


class _Reader(Iterator[list[str]]):
    """The type of csv.reader, which has no public name."""

    line_num: int


def read(data: bytes, file: str, *, max_bytes: int) -> Sheet | list[Diagnostic]:
    """Open a file. Gives its diagnostics alone when no row can be read."""
    if len(data) > max_bytes:
        message = f"The file has {len(data)} bytes; at most {max_bytes} are allowed"
        return [diagnostic("AM-E004", message, file=file)]
    text, suspicious = decoded(data)
    if "\0" in text:
        return [_not_text(data, text, file)]
    text, written, delimiter = dialect(text)
    count = _lines(text)
    lines = chain(io.StringIO(text, newline=""), (END,))
    records: _Reader = csv.reader(lines, delimiter=delimiter)  # type: ignore[assignment]
    row = -1 if written else 0

    def again() -> Iterator[list[str]]:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        return islice(rows, 1, None) if written else rows

    opened = _headed(records, count, row, file, delimiter=delimiter, again=again)
    if isinstance(opened, list):
        return opened
    opened.text, opened.first = text, row + 1
    opened.comments = "#" in text
    opened.international = not text.isascii()
    opened.signs = opened.international and SIGNS.search(text) is not None
    cells = opened.header
    if suspicious is not None:
        code, offset, message = suspicious
        offset = max(offset + 1 - written.end(), 0) if written else offset
        at_row, line, position = locate(text, offset, delimiter)
        name = normalised(cells[position]) if position < len(cells) else None
        place: dict[str, Any] = {
            "row": at_row - bool(written),
            "line": line,
            "column": columns.letter(position),
            "column_name": name,
        }
        opened.diagnostics.append(diagnostic(code, message, file=file, **place))
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        opened.diagnostics.append(diagnostic("AM-E007", "The file is in UTF-16 and was read as such", file=file))
    if delimiter != DELIMITERS[0]:
        shown = {"\t": "tabs"}.get(delimiter, f"{delimiter!r}")
        message = f"The cells are separated by {shown}" + ", as the line sep= says" * (written is not None)
        opened.diagnostics.append(diagnostic("AM-D006", message, file=file, row=opened.row))
    return opened


def dialect(text: str) -> tuple[str, re.Match[str] | None, str]:
    """(the text with an empty line in place of `sep=`, that line, the delimiter)."""
    written = _SEP.match(text)
    if written:
        # Spreadsheets hide this line: it counts as a text line and not as a row.
        text = "\n" + text[written.end() :]
    return text, written, _delimiter(text, written[1] if written else None)


def of_grid(grid: Grid, file: str) -> Sheet | list[Diagnostic]:
    """Open a sheet of a spreadsheet, its header read. Gives its diagnostics alone when it has none."""
    records = _Grid(grid)
    opened = _headed(cast("_Reader", records), records.count, 0, file, delimiter="", again=grid.rows)
    if isinstance(opened, Sheet):
        texts = [text for cells in grid.cells.values() for text in cells.values()]
        opened.comments = opened.international = True
        opened.signs = any(not text.isascii() and SIGNS.search(text) for text in texts)
        for code, message, row, column, text in grid.notes:
            name = normalised(opened.header[column]) if column < len(opened.header) else None
            place: dict[str, Any] = {
                "row": row + 1,
                "column": columns.letter(column),
                "column_name": name or None,
                "text": text,
            }
            opened.diagnostics.append(diagnostic(code, message, file=file, **place))
    return opened


class _Grid(Iterator[list[str]]):
    """The rows of a spreadsheet, as csv.reader gives those of a text."""

    def __init__(self, grid: Grid) -> None:
        self.count = max(grid.cells, default=-1) + 1
        self.line_num = 0
        self._rows = grid.rows()

    def __next__(self) -> list[str]:
        row = next(self._rows)
        self.line_num += 1
        return row


def _headed(
    records: _Reader,
    count: int,
    row: int,
    file: str,
    *,
    delimiter: str,
    again: Callable[[], Iterator[list[str]]],
) -> Sheet | list[Diagnostic]:
    """Read the header. `row` is the number of the row before the first."""
    try:
        for cells in records:
            if records.line_num > count or row >= HEAD_ROWS:
                break
            row += 1
            if row and not skippable(cells):
                found = columns.layout(cells)
                likely = None if found.cells[columns.NODE] else _likely(again(), row)
                diagnostics = _header_problems(cells, found, file, row, likely)
                return Sheet(
                    records,
                    count,
                    delimiter,
                    cells,
                    found,
                    row,
                    skipped=row - 1,
                    comments=True,
                    international=True,
                    diagnostics=diagnostics,
                    again=again,
                    likely=likely,
                )
    except csv.Error as exc:
        return [diagnostic("AM-D004", f"The first rows cannot be read: {exc}", file=file)]
    return [diagnostic("AM-D005", "The file has no header line", file=file)]


def _likely(rows: Iterator[list[str]], row: int) -> int | None:
    """The row a little below `row` that names columns of the language, as the header does."""
    try:
        for at, cells in enumerate(islice(rows, row, row + TITLES), row + 1):
            found = {columns.known(cell) for cell in cells}
            if columns.NODE in found and len(found - {None}) > 1:
                return at
    except csv.Error:
        pass
    return None


def decoded(data: bytes) -> tuple[str, tuple[str, int, str] | None]:
    """The text, and (code, offset in the text, message) of what is doubtful about it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
        try:
            data.decode("utf-16")
        except UnicodeDecodeError:
            message = "Some bytes are no UTF-16 characters; the first of them are in this cell"
            return text, ("AM-E003", max(text.find("\ufffd"), 0), message)
        return text, None
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode(), None
    except UnicodeDecodeError as exc:
        text = body.decode("cp1252", "replace")
        # Windows-1252 has one character a byte, so offsets in bytes and in the text are the same.
        if "\ufffd" in text:
            message = "The file is neither UTF-8 nor Windows-1252; this cell has a byte that neither knows"
            return text, ("AM-E003", text.index("\ufffd"), message)
        message = "The file is not UTF-8 and was read as Windows-1252; this is the first cell where it matters"
        return text, ("AM-E002", exc.start, message)


def skippable(cells: list[str]) -> bool:
    """Whether a row is blank, or a comment: its first cell begins with #."""
    if not any(cells):
        return True
    first = cells[0].strip()
    if first.startswith("#") and first not in ERROR_VALUES:
        return True
    return not any(map(normalised, cells))


def locate(text: str, offset: int, delimiter: str) -> tuple[int, int, int]:
    """(row, text line, position of the cell) of a character."""
    row, line, end, width = 0, 1, 0, 1
    reader = csv.reader(io.StringIO(f"{text[:offset]}x", newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            row, width = row + 1, len(cells)
            line, end = end + 1, reader.line_num
    except csv.Error:
        row += 1
    return row, line, max(width - 1, 0)


def late_quote(record: str, delimiter: str) -> int | None:
    """Where in the text of a record its first quoted cell begins behind whose closing quote more text stands.

    That quote was meant to open another cell: the one before it was not closed, and the rows between them are inside
    this cell. Or it stands inside a text, and should have been doubled.
    """
    try:
        for _ in csv.reader(io.StringIO(record, newline=""), delimiter=delimiter, strict=True):
            pass
    except csv.Error:  # it does not even allow blanks behind a quote
        found = _late(delimiter).match(record)
        return None if found is None else found.end()
    return None


@lru_cache
def _late(delimiter: str) -> re.Pattern[str]:
    """All cells before one whose closing quote is followed by text."""
    sign = re.escape(delimiter)
    blanks, rest, quoted = rf"[^\S\r\n{sign}]*+", rf"[^\r\n{sign}]", r'"(?:[^"]|"")*+"'
    return re.compile(rf'(?:(?:{quoted}{blanks}|(?!"){rest}*+){sign})*+(?={quoted}{blanks}{rest})')


def _strays(cells: list[str], line: str) -> bool:
    """Whether a row behind a cell of several lines begins with what is left of that cell: its first cell, which is a
    name, is not quoted and has a quote in it.
    """
    return bool(cells) and '"' in cells[0] and not line.startswith('"') and not skippable(cells)


def first_late_quote(text: str, delimiter: str, first: int = 1) -> tuple[int, int, int] | None:
    """(row, text line, position) of the first cell over several lines that is closed too late, or by a quote at the end
    of a line, so that what is left of that cell begins a row. `first` is the number of the first row.
    """
    lines = list(io.StringIO(text, newline=""))
    records: _Reader = csv.reader(lines, delimiter=delimiter)  # type: ignore[assignment]
    before, last = 0, None
    try:
        for row, cells in enumerate(records, first):
            end = records.line_num
            if last is not None and _strays(cells, lines[before]):
                return last
            last = None
            if end > before + 1:
                whole = "".join(lines[before:end])
                at = late_quote(whole, delimiter)
                if at is not None:
                    _, line, position = locate(whole, at, delimiter)
                    return row, before + line, position
                last = row, before + 1, next((at for at, cell in enumerate(cells) if "\n" in cell or "\r" in cell), 0)
            before = end
    except csv.Error:
        pass
    return None


def _lines(text: str) -> int:
    """How many lines `io.StringIO(text, newline="")` gives: \\n, \\r and \\r\\n each end one."""
    ends = text.count("\n")
    if "\r" in text:
        ends += text.count("\r") - text.count("\r\n")
    return ends + (not text.endswith(("\n", "\r")) and text != "")


def _delimiter(text: str, written: str | None) -> str:
    """The delimiter under which the header line has most known columns; the one of `sep=` is tried first."""
    best, most = written or DELIMITERS[0], 0
    for delimiter in dict.fromkeys((written or "") + DELIMITERS):
        try:
            header = _header(text, delimiter, skip=written is not None)
        except (TypeError, ValueError):
            continue  # `sep=` names a sign that cannot be one
        count = len({columns.known(cell) for cell in header} - {None})
        if count > most:
            best, most = delimiter, count
            if delimiter == written:
                break
    return best if best in DELIMITERS or most else DELIMITERS[0]


def _header(text: str, delimiter: str, *, skip: bool) -> list[str]:
    """The header under a delimiter. It is looked for in the beginning of a file, and in all of it only if need be."""
    for part in (text[:HEAD], text) if len(text) > HEAD else (text,):
        try:
            records = csv.reader(io.StringIO(part, newline=""), delimiter=delimiter)
            for row, cells in enumerate(islice(records, HEAD_ROWS)):
                if (row or not skip) and not skippable(cells):
                    return cells
        except csv.Error:
            pass
    return []


def _header_problems(header: list[str], found: Layout, file: str, row: int, likely: int | None) -> list[Diagnostic]:
    problems = []
    if likely is not None:
        message = f"Row {row} is no header; row {likely} looks like one"
        above = f"row {row}" if likely == row + 1 else f"rows {row} to {likely - 1}"
        remedy = f"Begin {above} with #, or remove what stands above the header."
        return [diagnostic("AM-H001", message, hint=remedy, file=file, row=row)]
    explained = set()
    for column in (columns.NODE,):
        if not found.cells[column]:
            name = columns.COLUMNS[column].name
            near = [(at, text) for at, text in found.unknown[:MOST_GUESSES] if _means(text) == column]
            hint = None
            if near:
                hint = f"Did you mean the header {near[0][1]!r} to be {name}?"
                explained.add(near[0][0])
            shown = ", ".join(filter(None, map(normalised, header)))[:300]
            message = f"The header has no column {name}; it has {shown}"
            problems.append(diagnostic("AM-H001", message, hint=hint, file=file, row=row, column_name=name))
    mended: set[int | None] = set()  # a second column of one meaning would change what the first one says
    for number, (position, text) in enumerate(found.unknown):
        if position not in explained:
            near_name = columns.suggestion(text) if number < MOST_GUESSES else None
            meant = columns.known(near_name) if near_name else None
            hint = f"Did you mean {near_name}? Otherwise it is kept and has no effect." if near_name else None
            lacks = meant is not None and not found.cells[meant]
            problems.append(
                diagnostic(
                    "AM-H002",
                    f"The column {text!r} is unknown",
                    severity="warning" if lacks else None,  # its cells may be meant, routing among them
                    hint=hint,
                    file=file,
                    row=row,
                    column=columns.letter(position),
                    column_name=text,
                    text=text,
                    fix=near_name if lacks and meant not in mended else None,
                )
            )
            mended.add(meant)
    for column, positions in enumerate(found.cells):
        if len(positions) > 1:
            written = " and ".join(repr(normalised(header[position])) for position in positions)
            problems.append(
                diagnostic(
                    "AM-H003",
                    f"The columns {written} both mean {columns.COLUMNS[column].name}",
                    file=file,
                    row=row,
                    column=columns.letter(positions[1]),
                    column_name=columns.COLUMNS[column].name,
                )
            )
    return problems


def _means(header: str) -> int | None:
    near = columns.suggestion(header)
    return None if near is None else columns.known(near)


def _not_text(data: bytes, text: str, file: str) -> Diagnostic:
    if data.startswith(b"PK\x03\x04"):
        return diagnostic("AM-E001", "This is an archive, and no CSV file", file=file)
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        message = "This is a spreadsheet of Excel's old format (.xls), or one with a password"
        return diagnostic("AM-E001", message, hint="Save it as .xlsx or CSV (UTF-8), without a password.", file=file)
    line = text.count("\n", 0, text.index("\0")) + 1
    message = f"Line {line} has a NUL byte, so this is no text (or UTF-16 without its mark)"
    return diagnostic("AM-E001", message, file=file, line=line)
