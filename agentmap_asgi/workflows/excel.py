"""The cells of Excel workbooks (.xlsx), as texts.

Formulas count with the values that were saved with them. Error values stay, as the text that the cell shows.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from .package import MOST_COLUMNS, Grid, Note, Package, Unreadable, attribute, number, parse, spot

_REFERENCE = re.compile(r"\$?([A-Za-z]{1,3})\$?([0-9]{1,7})")
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!(?:h+|m+|s+)\])[^\]]*\]', re.I)
_SURROGATES: Final = range(0xD800, 0xE000)

DATES: Final = frozenset({14, 15, 16, 17, 27, 28, 29, 30, 31, 36, 50, 51, 52, 53, 54, 55, 56, 57, 58})
TIMES: Final = frozenset({18, 19, 20, 21, 32, 33, 34, 35, 45, 46, 47})
MOMENTS: Final = frozenset({22})
"""Number formats of Excel's own that show a date, a time, both."""

MOST_ROWS: Final = 1_048_576


def grids(package: Package) -> list[Grid]:
    """Every sheet of cells, in the order of the workbook. Raises Unreadable."""
    book = _target(package, "", "officeDocument") or "xl/workbook.xml"
    sheets: list[tuple[str, str]] = []
    since_1904 = False

    def sheet(attributes: Mapping[str, str]) -> None:
        sheets.append((attributes.get("name", ""), attribute(attributes, "id") or ""))

    def properties(attributes: Mapping[str, str]) -> None:
        nonlocal since_1904
        since_1904 = attributes.get("date1904") in ("1", "true")

    parse(package.read(book), {"sheet": sheet, "workbookPr": properties})
    targets = _relations(package, book)
    shared = _shared(package, next((path for kind, path in targets.values() if kind == "sharedStrings"), None))
    styles = _styles(package, next((path for kind, path in targets.values() if kind == "styles"), None))
    found = []
    for name, identity in sheets:
        kind, path = targets.get(identity, ("", ""))
        if kind == "worksheet":
            reader = _Sheet(name, shared, styles, since_1904)
            reader.read(package.read(path))
            reader.grid.finish(package)
            found.append(reader.grid)
    return found


def _relations(package: Package, part: str) -> dict[str, tuple[str, str]]:
    """What a part refers to: by id its kind and its path."""
    folder, name = posixpath.split(part)
    found: dict[str, tuple[str, str]] = {}

    def relation(attributes: Mapping[str, str]) -> None:
        kind = attributes.get("Type", "").rpartition("/")[2]
        target = posixpath.normpath(posixpath.join("/" + folder, attributes.get("Target", ""))).lstrip("/")
        found[attributes.get("Id", "")] = (kind, target)

    path = posixpath.join(folder, "_rels", name + ".rels")
    if path in package.names:
        parse(package.read(path), {"Relationship": relation})
    return found


def _target(package: Package, part: str, wanted: str) -> str | None:
    return next((path for kind, path in _relations(package, part).values() if kind == wanted), None)


def _shared(package: Package, path: str | None) -> list[str]:
    """The texts that cells refer to by number."""
    texts: list[str] = []
    pieces: list[str] = []
    inside = phonetic = False

    def start_text(_: Mapping[str, str]) -> None:
        nonlocal inside
        inside = not phonetic

    def end_text() -> None:
        nonlocal inside
        inside = False

    def start_phonetic(_: Mapping[str, str]) -> None:
        nonlocal phonetic
        phonetic = True

    def end_phonetic() -> None:
        nonlocal phonetic
        phonetic = False

    def end_item() -> None:
        texts.append(unescaped("".join(pieces)))
        pieces.clear()

    if path is not None and path in package.names:
        parse(
            package.read(path),
            {"t": start_text, "rPh": start_phonetic},
            {"t": end_text, "rPh": end_phonetic, "si": end_item},
            lambda text: pieces.append(text) if inside else None,
        )
    return texts


def _styles(package: Package, path: str | None) -> list[str]:
    """For each style of cells `date`, `time`, `moment`, `elapsed` or nothing."""
    formats: dict[int, str] = {}
    styles: list[str] = []
    inside = False

    def number_format(attributes: Mapping[str, str]) -> None:
        formats[_whole(attributes.get("numFmtId"))] = shows(attributes.get("formatCode", ""))

    def start_styles(_: Mapping[str, str]) -> None:
        nonlocal inside
        inside = True

    def end_styles() -> None:
        nonlocal inside
        inside = False

    def style(attributes: Mapping[str, str]) -> None:
        if inside:
            number = _whole(attributes.get("numFmtId"))
            builtin = "date" if number in DATES else "time" if number in TIMES else ""
            styles.append(formats.get(number, "moment" if number in MOMENTS else builtin))

    if path is not None and path in package.names:
        parse(
            package.read(path),
            {"numFmt": number_format, "cellXfs": start_styles, "xf": style},
            {"cellXfs": end_styles},
        )
    return styles


def shows(code: str) -> str:
    """What a number format of the author's shows: `date`, `time`, `moment` (both), `elapsed`, or nothing of these."""
    signs = _LITERAL.sub("", code.split(";", maxsplit=1)[0]).lower()
    if "general" in signs:
        return ""
    elapsed = "[h" in signs or "[m" in signs or "[s" in signs
    date = "y" in signs or "d" in signs
    time = "h" in signs or "s" in signs
    if elapsed:
        return "elapsed"
    if date or time:
        return "moment" if date and time else "date" if date else "time"
    return "date" if "m" in signs else ""


class _Sheet:
    """Goes through the XML of a sheet."""

    def __init__(self, name: str, shared: list[str], styles: list[str], since_1904: bool) -> None:
        self.grid = Grid(name)
        self._shared = shared
        self._styles = styles
        self._since_1904 = since_1904
        self._row = self._column = -1
        self._columns: dict[str, int] = {}
        """By their letters."""
        self._cells: dict[int, str] = {}
        self._kind = ""
        self._style = ""
        self._pieces: list[str] = []
        self._reads = False
        self._formula = False
        self._phonetic = False
        self._uncached: list[tuple[int, int]] = []
        self._typed: tuple[int, int, str] | None = None

    def read(self, data: bytes) -> None:
        parse(
            data,
            {
                "row": self._start_row,
                "c": self._start_cell,
                "f": self._start_formula,
                "v": self._start_text,
                "t": self._start_text,
                "rPh": self._start_phonetic,
                "mergeCell": self._merge,
            },
            {
                "row": self._end_row,
                "c": self._end_cell,
                "v": self._end_text,
                "t": self._end_text,
                "rPh": self._end_phonetic,
            },
            self._text,
        )
        if self._uncached:
            row, column = self._uncached[0]
            more = f" and {len(self._uncached) - 1} more" * (len(self._uncached) > 1)
            message = f"The formula in {spot(row, column)}{more} has no value: the program that wrote it computes none"
            self.grid.notes.append(Note("AM-V006", message, row, column))
        if self._typed is not None:
            row, column, text = self._typed
            message = f"Dates, times and truth values, here and below, are read as texts like {text!r}"
            self.grid.notes.append(Note("AM-V007", message, row, column, text))

    def _start_row(self, attributes: Mapping[str, str]) -> None:
        row = _whole(attributes.get("r")) - 1
        self._row = row if row >= 0 else self._row + 1
        if self._row >= MOST_ROWS:
            raise Unreadable("AM-E008", f"The sheet {self.grid.name!r} has a row {self._row + 1}")
        self._column = -1
        self._cells = self.grid.cells.get(self._row, {})

    def _end_row(self) -> None:
        if self._cells:
            self.grid.cells[self._row] = self._cells

    def _start_cell(self, attributes: Mapping[str, str]) -> None:
        reference = attributes.get("r")
        if reference is None:
            self._column += 1
        else:
            letters = reference.rstrip("0123456789")
            column = self._columns.get(letters)
            if column is None:
                column = self._columns[letters] = column_of(letters + "1")
            self._column = column
        if not 0 <= self._column < MOST_COLUMNS:
            raise Unreadable("AM-E008", f"The sheet {self.grid.name!r} has a cell {(reference or '')[:20]!r}")
        self._kind = attributes.get("t", "n")
        self._style = attributes.get("s", "")
        self._formula = False
        self._pieces = []

    def _start_formula(self, _: Mapping[str, str]) -> None:
        self._formula = True

    def _start_text(self, _: Mapping[str, str]) -> None:
        self._reads = not self._phonetic

    def _end_text(self) -> None:
        self._reads = False

    def _start_phonetic(self, _: Mapping[str, str]) -> None:
        self._phonetic = True

    def _end_phonetic(self) -> None:
        self._phonetic = False

    def _text(self, text: str) -> None:
        if self._reads:
            self._pieces.append(text)

    def _end_cell(self) -> None:
        raw = "".join(self._pieces)
        if not raw:
            if self._formula and self._kind != "str":
                self._uncached.append((self._row, self._column))
            return
        text = self._value(raw)
        if text:
            self._cells[self._column] = text

    def _value(self, raw: str) -> str:
        match self._kind:
            case "s":
                number_of = _whole(raw.strip())
                return self._shared[number_of] if 0 <= number_of < len(self._shared) else ""
            case "inlineStr" | "str":
                return unescaped(raw)
            case "b":
                return self._seen("TRUE" if raw.strip() in ("1", "true") else "FALSE")
            case "d":
                return self._seen(raw.strip().replace("T", " ", 1))
            case "e":
                return raw.strip()
        style = _whole(self._style) if self._style else 0
        kind = self._styles[style] if 0 <= style < len(self._styles) else ""
        shown = _moment(raw, kind, self._since_1904) if kind else None
        return number(raw.strip()) if shown is None else self._seen(shown)

    def _seen(self, text: str) -> str:
        if self._typed is None:
            self._typed = (self._row, self._column, text)
        return text

    def _merge(self, attributes: Mapping[str, str]) -> None:
        first, _, last = attributes.get("ref", "").partition(":")
        start, end = _REFERENCE.fullmatch(first), _REFERENCE.fullmatch(last or first)
        if start and end:
            self.grid.merged.append((int(start[2]) - 1, column_of(first), int(end[2]) - 1, column_of(last or first)))


def column_of(reference: str) -> int:
    """The column of a cell like `AB12`, from 0; -1 when it is none."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        return -1
    column = 0
    for sign in found[1].upper():
        column = column * 26 + ord(sign) - 64
    return column - 1


def unescaped(text: str) -> str:
    """Signs that XML cannot hold are written `_x000D_`."""
    return _ESCAPED.sub(_sign, text) if "_x" in text else text


def _sign(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    return found[0] if number in _SURROGATES or not number else chr(number)


def _moment(raw: str, kind: str, since_1904: bool) -> str | None:
    """A date or time as text; None when the number stands for none."""
    try:
        days = float(raw)
    except ValueError:
        return None
    if not 0 <= days < 2_958_466:
        return None
    if kind == "elapsed":
        return _clock(round(days * 86_400))
    if since_1904:
        begin = datetime(1904, 1, 1)  # a sheet knows no time zone
    else:
        begin = datetime(1899, 12, 31 if days < 60 else 30)  # Excel has a 29th of February 1900
    moment = begin + timedelta(seconds=round(days * 86_400))
    if kind == "time" and days < 1:
        return f"{moment:%H:%M:%S}"
    if kind == "date" and days == int(days):
        return f"{moment:%Y-%m-%d}"
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _whole(text: str | None) -> int:
    """A number of digits, -1 for anything else."""
    return int(text) if text and len(text) < 10 and text.isascii() and text.isdigit() else -1
