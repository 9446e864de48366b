"""What was done to a file to read it, for its author to see: one note for each rule, at the first place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import columns
from .codes import diagnostic
from .columns import COLUMNS
from .diagnostics import Diagnostic
from .sheet import Sheet, skippable
from .text import SIGNS, normalised


def notes(opened: Sheet, file: str) -> list[Diagnostic]:
    """What goes beyond reading a plain file."""
    return [*_renamed(opened, file), *(_signs(opened, file) if opened.signs else ())]


def _renamed(opened: Sheet, file: str) -> Iterator[Diagnostic]:
    """Columns whose names are more than another spelling of those of the language."""
    named = []
    for column, positions in enumerate(opened.layout.cells):
        for position in positions[:1]:
            text = normalised(opened.header[position])
            if _letters(text) != _letters(COLUMNS[column].name):
                named.append((position, text, COLUMNS[column].name))
    if named:
        position, text, _ = named[0]
        message = "Columns are read under other names: " + ", ".join(f"{text} as {name}" for _, text, name in named)
        place: dict[str, Any] = {"row": opened.row, "column": columns.letter(position), "column_name": named[0][2]}
        yield diagnostic("AM-H004", message, file=file, text=text, **place)


def _letters(name: str) -> str:
    return name.replace("_", "").casefold()


def _signs(opened: Sheet, file: str) -> Iterator[Diagnostic]:
    """The first cell, of those whose signs do not count, that has typographic ones."""
    wanted = [
        (position, column)
        for column, positions in enumerate(opened.layout.cells)
        if column not in columns.FREE
        for position in positions
    ]
    for row, cells in enumerate(opened.again(), 1):
        if row <= opened.row or not any(map(SIGNS.search, cells)) or skippable(cells):
            continue
        for position, column in wanted:
            written = cells[position].strip() if position < len(cells) else ""
            plain = normalised(written)
            if written != plain:
                message = (
                    f"Typographic signs and invisible characters, here and below, are read as plain ones: {plain!r}"
                )
                place: dict[str, Any] = {
                    "row": row,
                    "column": columns.letter(position),
                    "column_name": COLUMNS[column].name,
                }
                yield diagnostic("AM-N009", message, file=file, text=written, fix=plain, **place)
                return
