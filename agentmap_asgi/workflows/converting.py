"""From CSV to Excel workbooks and back. No cell is lost, and none is taken for a number, a date or a formula."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable
from typing import Any, Final

from ..errors import ConfigError, nearest
from .package import MOST_COLUMNS, Grid, spot
from .workbook import grids

LONGEST: Final = 32_767
"""Signs that a cell of Excel holds."""
MOST_ROWS: Final = 1_048_576
WIDEST: Final = 60
"""Characters; wider columns are cut by the eye, not in the file."""

_HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]")
_ESCAPE: Final = re.compile("_(?=x[0-9A-Fa-f]{4}_)")
_NO_NAME: Final = re.compile(r"[\[\]:*?/\\]")


def to_workbook(rows: Iterable[list[str]], title: str) -> bytes:
    """A workbook with one sheet of texts, its header in bold. Raises ConfigError for what a workbook cannot hold."""
    try:
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.styles import Alignment, Font
        from openpyxl.utils import get_column_letter
    except ImportError:
        raise ConfigError("Writing workbooks needs openpyxl: pip install 'agentmap-asgi[xlsx]'") from None
    book = Workbook(write_only=True)
    sheet = book.create_sheet(_NO_NAME.sub(" ", title).strip(" '")[:31] or "Workflows")
    table = list(rows)
    head = next((at for at, row in enumerate(table) if any(row) and not row[0].lstrip().startswith("#")), None)
    _check(table)
    widths: dict[int, int] = {}
    for row in table:
        for at, text in enumerate(row):
            widths[at] = max(widths.get(at, 8), min(len(text) + 2, WIDEST))
    for at, width in widths.items():
        sheet.column_dimensions[get_column_letter(at + 1)].width = width
    if head is not None:
        sheet.freeze_panes = f"A{head + 2}"
    for number, row in enumerate(table):
        cells: list[Any] = []
        for text in row:
            if not text:
                cells.append(None)
                continue
            cell = WriteOnlyCell(sheet, value=_escaped(text))
            cell.data_type = "s"  # also where it begins with =
            cell.number_format = "@"
            if number == head:
                cell.font = Font(bold=True)
            elif "\n" in text:
                cell.alignment = Alignment(wrap_text=True, vertical="top")
            cells.append(cell)
        sheet.append(cells)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _check(table: list[list[str]]) -> None:
    if len(table) > MOST_ROWS:
        raise ConfigError(f"A sheet has at most {MOST_ROWS} rows, not {len(table)}")
    for number, row in enumerate(table):
        if len(row) > MOST_COLUMNS:
            raise ConfigError(f"A sheet has at most {MOST_COLUMNS} columns; row {number + 1} has {len(row)}")
        for at, text in enumerate(row):
            if len(text.encode("utf-16-le", "surrogatepass")) // 2 > LONGEST:
                message = f"The text in {spot(number, at)} has {len(text)} signs, and a cell holds {LONGEST}"
                raise ConfigError(f"{message}; move it to a file of the prompts folder")


def _escaped(text: str) -> str:
    text = _ESCAPE.sub("_x005F_", text)
    return _HIDDEN.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def to_csv(rows: Iterable[list[str]], delimiter: str = ",") -> bytes:
    """CSV in UTF-8, with a mark where Excel needs one to see that."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    for row in rows:
        if any(row):
            writer.writerow(row)
        else:
            out.write("\r\n")
    text = out.getvalue()
    return (b"" if text.isascii() else codecs.BOM_UTF8) + text.encode()


def only_sheet(data: bytes, wanted: str | None) -> Grid:
    """The sheet that is named, or the only one with cells. Raises ConfigError, and Unreadable."""
    found = grids(data, max_bytes=1 << 26, max_rows=MOST_ROWS)
    names = [grid.name for grid in found]
    if wanted is not None:
        if wanted not in names:
            near = nearest(wanted, names)
            raise ConfigError(f"There is no sheet {wanted!r}" + (f"; did you mean {near!r}?" if near else ""))
        return found[names.index(wanted)]
    filled = [grid for grid in found if grid.cells]
    if len(filled) != 1:
        shown = ", ".join(repr(grid.name) for grid in filled) or "none with cells"
        raise ConfigError(f"A CSV file holds one sheet; name one with --sheet ({shown})")
    return filled[0]
