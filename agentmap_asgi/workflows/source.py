"""The rows of a workflow as its file has them, for people who look for the cell that a diagnostic names."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any

from . import columns, sheet
from .diagnostics import Diagnostic
from .model import Workflow
from .sheet import Sheet
from .text import normalised

Rows = dict[int, list[str]]


def rows_of(
    data: bytes | None,
    workflow: Workflow,
    found: Iterable[Diagnostic],
    *,
    max_bytes: int,
    max_rows: int,
    only: str | None = None,
) -> dict[str, Any]:
    """`columns` (letter and name of each), and `rows` (number, node, cells): those of the workflow's nodes and those
    that its diagnostics name. Both are empty when the file cannot be read. Nothing of other workflows is in it.
    `only` is the sheet of a spreadsheet that is read.
    """
    diagnostics = list(found)
    names = {node.row: node.name for node in workflow.nodes.values()}
    wanted = {*names, *(one.row for one in diagnostics if one.row is not None and one.graph == workflow.name)}
    read = [(one, _rows(one, wanted, max_rows)) for one in _opened(data, workflow.file, max_bytes, max_rows, only)]
    # A workflow stands in one sheet: the one that has most of its nodes in these rows.
    best = max(read, key=lambda pair: _fitting(pair[0], pair[1], names), default=None)
    header, rows = ([], {}) if best is None else (best[0].header, best[1])
    return {
        "graph_id": workflow.graph_id,
        "file": workflow.file,
        "columns": [{"letter": columns.letter(at), "name": name} for at, name in enumerate(header)],
        "rows": [{"row": row, "node": names.get(row), "cells": cells} for row, cells in rows.items()],
        "diagnostics": [one.to_dict() for one in diagnostics],
    }


def _opened(data: bytes | None, file: str, max_bytes: int, max_rows: int, only: str | None) -> list[Sheet]:
    if data is None:
        return []
    if data.startswith(sheet.SIGNATURE):
        from . import workbook
        from .package import Unreadable

        try:
            grids = workbook.grids(data, max_bytes=max_bytes, max_rows=max_rows)
        except Unreadable:
            return []
        return [one for _, one in workbook.sheets(grids, file, only)[0]]
    opened = sheet.read(data, file, max_bytes=max_bytes)
    return [opened] if isinstance(opened, Sheet) else []


def _rows(opened: Sheet, wanted: set[int], max_rows: int) -> Rows:
    found: Rows = {}
    try:
        for row, cells in enumerate(opened.records, opened.row + 1):
            # The end of the file, or a quote that is never closed; a diagnostic of the file says it.
            if opened.records.line_num > opened.lines or row > opened.row + max_rows:
                break
            if row in wanted and not sheet.skippable(cells):
                found[row] = list(cells)
    except csv.Error:
        pass  # as above
    return found


def _fitting(opened: Sheet, rows: Rows, names: dict[int, str]) -> int:
    places = opened.layout.cells[columns.NODE]
    cells = (
        (names[row], held[place])
        for row, held in rows.items()
        for place in places
        if row in names and place < len(held)
    )
    return sum(normalised(cell) == name for name, cell in cells)
