"""Mends by machine what can be mended without asking: the cells of diagnostics that have a `fix`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from . import columns
from .columns import COLUMNS
from .diagnostics import Diagnostic
from .places import position_of
from .sheet import skippable
from .table import Table, read
from .text import normalised

MOST_ROUNDS: Final = 5
"""A mended cell may show what was hidden behind it."""


def fixed(data: bytes, check: Callable[[bytes], Iterable[Diagnostic]]) -> tuple[bytes, int]:
    """(the bytes of a CSV file with all fixes, how many cells these are). `check` gives the diagnostics of its bytes.

    The bytes are the same when there is nothing to fix. Raises Unreadable.
    """
    total = 0
    for _ in range(MOST_ROUNDS):
        table = read(data)
        count = 0
        found = list(check(data))
        for problem in found:
            count += _fix(problem, table)
        recoded = any(problem.code == "AM-E002" for problem in found)
        if not count and not recoded:
            break
        data = table.written()
        total += count + recoded
    return data, total


def _fix(problem: Diagnostic, table: Table) -> int:
    """How many cells were changed."""
    row, position, fix = table.row(problem.row), position_of(problem.column), problem.fix
    if fix is None or row is None or position is None or problem.row is None:
        return 0
    if problem.code == "AM-N004":
        return _fill_down(table, position)
    if problem.code == "AM-N009":
        return _make_plain(table)
    written = row.cells[position] if position < len(row.cells) else ""
    if not problem.text:
        return 0
    at = written.find(problem.text)
    if at < 0:
        return 0
    table.change(problem.row, position, written[:at] + fix + written[at + len(problem.text) :])
    return 1


def _fill_down(table: Table, position: int) -> int:
    """Write the workflow's name where it was left out, in every row."""
    nodes = table.layout.cells[columns.NODE]
    count, last = 0, ""
    for number, row in enumerate(table.rows[table.header + 1 :], table.header + 2):
        if skippable(row.cells):
            continue
        name = normalised(row.cells[position]) if position < len(row.cells) else ""
        node = any(at < len(row.cells) and normalised(row.cells[at]) for at in nodes)
        if not name and node and last:
            table.change(number, position, last)
            count += 1
        last = name or last
    return count


def _make_plain(table: Table) -> int:
    """Write plain signs where typographic ones make no difference."""
    positions = [
        position
        for column in range(len(COLUMNS))
        if column not in columns.FREE
        for position in table.layout.cells[column]
    ]
    count = 0
    for number, row in enumerate(table.rows[table.header + 1 :], table.header + 2):
        if skippable(row.cells):
            continue
        for position in positions:
            written = row.cells[position].strip() if position < len(row.cells) else ""
            plain = normalised(written)
            if written != plain:
                table.change(number, position, plain)
                count += 1
    return count
