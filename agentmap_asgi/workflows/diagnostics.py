"""What is wrong with a file, where, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

Severity = Literal["error", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem of a workflow file.

    `row` is the row a spreadsheet shows (1-based, blank and comment rows count); `line` the text line where the row
    begins; `column` the spreadsheet's letter; `text` the part of the cell concerned, `cell_line` and `cell_character`
    (both from 1) its place inside a Context; `fix`, where it is safe to apply by machine, what `text` should be there.
    """

    code: str
    severity: Severity
    message: str
    hint: str = ""
    file: str = ""
    sheet: str | None = None
    row: int | None = None
    line: int | None = None
    column: str | None = None
    column_name: str | None = None
    node: str | None = None
    graph: str | None = None
    text: str | None = None
    fix: str | None = None
    cell_line: int | None = None
    cell_character: int | None = None

    def __str__(self) -> str:
        place = self.file + (f", sheet {self.sheet}" if self.sheet is not None else "")
        if self.row is not None:
            place += f", row {self.row}"
            if self.line is not None and self.line != self.row:
                place += f" (text line {self.line})"
        if self.column_name:
            place += f", column {self.column_name}" + (f" ({self.column})" if self.column else "")
        if self.cell_character is not None:
            line = f"line {self.cell_line} " if self.cell_line != 1 else ""
            place += f", {line}character {self.cell_character}"
        stop = "" if self.message.endswith((".", "?", "!")) else "."
        hint = f"{stop} {self.hint}" if self.hint else ""
        return f"{place}: {self.code} {self.message}{hint}"

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


class Finding(NamedTuple):
    """What an agent's own check says of one cell; the checks turn it into a Diagnostic with its place."""

    code: str
    severity: Severity
    message: str
    hint: str
    column_name: str
    text: str | None = None
