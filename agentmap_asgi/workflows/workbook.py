"""Spreadsheets as workflow files: every sheet that holds workflows, or the one that is named."""

from __future__ import annotations

from ..errors import nearest
from . import columns, excel, opendocument
from .codes import diagnostic
from .diagnostics import Diagnostic
from .package import UNPACKED, Grid, Package, Unreadable
from .sheet import HEAD_ROWS, Sheet, of_grid


def grids(data: bytes, *, max_bytes: int, max_rows: int) -> list[Grid]:
    """The sheets of a spreadsheet, empty ones too, with the texts of their cells. Raises Unreadable."""
    if len(data) > max_bytes:
        raise Unreadable("AM-E004", f"The file has {len(data)} bytes; at most {max_bytes} are allowed")
    with Package(data, max_bytes * UNPACKED) as package:
        if "content.xml" in package.names and "mimetype" in package.names:
            return opendocument.grids(package, max_rows + HEAD_ROWS + 1)
        if "[Content_Types].xml" in package.names:
            return excel.grids(package)
    hint = None
    if any(name.startswith("Index/") for name in package.names):
        hint = "This looks like a file of Numbers: export it as Excel or CSV (UTF-8)."
    raise Unreadable("AM-E001", "This is an archive, and no spreadsheet that can be read", hint)


def sheets(found: list[Grid], file: str, only: str | None) -> tuple[list[tuple[Grid, Sheet]], list[Diagnostic], int]:
    """The sheets that hold workflows, what there is to say of the others, and how many rows these have."""
    if only is not None:
        named = [grid for grid in found if grid.name == only]
        if not named:
            names = [grid.name for grid in found]
            near = nearest(only, names)
            hint = f"Did you mean {near!r}?" if near else f"There are {', '.join(map(repr, names[:20]))}."
            return [], [diagnostic("AM-E009", f"There is no sheet {only!r}", hint=hint, file=file)], 0
        found = named
    opened: list[tuple[Grid, Sheet]] = []
    problems: list[Diagnostic] = []
    left_out: list[tuple[Grid, list[Diagnostic]]] = []
    for grid in found:
        if not grid.cells:
            continue
        sheet = of_grid(grid, file)
        if isinstance(sheet, list):
            left_out.append((grid, sheet))
        elif sheet.layout.cells[columns.NODE]:
            opened.append((grid, sheet))
        elif sheet.likely is not None or len(columns_of(sheet)) > 1 or sheet.layout.misspelt or len(found) == 1:
            problems += [placed(one, grid.name) for one in sheet.diagnostics]
        else:
            left_out.append((grid, sheet.diagnostics))
    if not opened and not problems and left_out:
        grid, reasons = left_out.pop(0)
        problems += [placed(one, grid.name) for one in reasons]
    if not any(grid.cells for grid in found):
        problems.append(diagnostic("AM-D005", "The spreadsheet has no cells", file=file))
    rows = 0
    for grid, _ in left_out:
        count = len(grid.cells)
        message = f"The sheet {grid.name!r} has no column Node, so its {count} row{'s' * (count != 1)} are no workflow"
        problems.append(diagnostic("AM-E010", message, file=file, sheet=grid.name))
        rows += count
    return opened, problems, rows


def columns_of(sheet: Sheet) -> list[int]:
    """The columns of the language that a sheet has."""
    return [column for column, positions in enumerate(sheet.layout.cells) if positions]


def placed(found: Diagnostic, sheet: str) -> Diagnostic:
    """A diagnostic of a sheet. A sheet has no text lines."""
    return Diagnostic(**(found.to_dict() | {"sheet": found.sheet or sheet, "line": None}))
