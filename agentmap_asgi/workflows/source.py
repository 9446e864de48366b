"""The rows of a workflow as its file has them, for people who look for the cell that a diagnostic names."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any

from . import sheet
from .columns import letter
from .diagnostics import Diagnostic
from .model import Workflow


def rows_of(data: bytes | None, workflow: Workflow, found: Iterable[Diagnostic], *, max_bytes: int) -> dict[str, Any]:
    """`columns` (letter and name of each), and `rows` (number, node, cells): those of the workflow's nodes and those
    that its diagnostics name. Both are empty when the file cannot be read. Nothing of other workflows is in it.
    """
    diagnostics = list(found)
    names = {node.row: node.name for node in workflow.nodes.values()}
    wanted = {*names, *(one.row for one in diagnostics if one.row is not None and one.graph == workflow.name)}
    opened = None if data is None else sheet.read(data, workflow.file, max_bytes=max_bytes)
    columns: list[dict[str, str]] = []
    rows: list[dict[str, Any]] = []
    if isinstance(opened, sheet.Sheet):
        columns = [{"letter": letter(at), "name": name} for at, name in enumerate(opened.header)]
        number = opened.row
        try:
            for cells in opened.records:
                if opened.records.line_num > opened.lines:  # the end, or a quote that is never closed
                    break
                number += 1
                if number in wanted and not sheet.skippable(cells):
                    rows.append({"row": number, "node": names.get(number), "cells": cells})
        except csv.Error:
            pass  # a diagnostic of the file says it
    return {
        "graph_id": workflow.graph_id,
        "file": workflow.file,
        "columns": columns,
        "rows": rows,
        "diagnostics": [one.to_dict() for one in diagnostics],
    }
