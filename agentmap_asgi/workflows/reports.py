"""Diagnostics as others read them: people in a terminal, programs, code scanning (SARIF), annotations on GitHub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from .codes import CODES
from .diagnostics import Diagnostic
from .package import Grid, Unreadable
from .places import Place, drawn, of_cells, place, position_of
from .sheet import SIGNATURE
from .table import Table, read
from .workbook import grids

Source = Callable[[str], bytes | None]
"""Gives the bytes of a file by the name that diagnostics have of it."""

PAGE: Final = "docs/diagnostics.md"
_LEVELS: Final = {"error": "error", "warning": "warning", "info": "note"}
_COMMANDS: Final = {"error": "error", "warning": "warning", "info": "notice"}
_HUGE: Final = 1 << 30


class Places:
    """Finds the places of diagnostics; each file is read once."""

    def __init__(self, source: Source, path: Callable[[str], str] = str) -> None:
        """`path` gives where a file is for those who look for it: from the root of a repository, where checks run."""
        self.path = path
        self._source = source
        self._files: dict[str, Table | dict[str, Grid] | None] = {}

    def __call__(self, found: Diagnostic) -> Place | None:
        if found.row is None:
            return None
        if found.file not in self._files:
            self._files[found.file] = self._read(found.file)
        held = self._files[found.file]
        if isinstance(held, Table):
            return place(found, held)
        grid = held.get(found.sheet or "") if held else None
        if grid is None:
            return None
        cells = grid.cells.get(found.row - 1, {})
        line = [cells.get(at, "") for at in range(max(cells, default=-1) + 1)]
        return of_cells(line, found.row, position_of(found.column), found.text)

    def _read(self, file: str) -> Table | dict[str, Grid] | None:
        data = self._source(file)
        if data is None:
            return None
        try:
            if data.startswith(SIGNATURE):
                return {grid.name: grid for grid in grids(data, max_bytes=_HUGE, max_rows=_HUGE)}
            return read(data)
        except Unreadable:
            return None


def text(found: Sequence[Diagnostic], places: Places) -> Iterator[str]:
    """A line for each diagnostic, then the row with carets under the cell's text."""
    for one in found:
        yield f"{one.severity}: {_told(one)}"
        spot = places(one)
        if spot is not None and spot.text:
            yield from drawn(spot)


def _told(one: Diagnostic) -> str:
    """The message, with the node when it does not name it itself."""
    if one.node is None or repr(one.node) in one.message:
        return str(one)
    return f"{one} (node {one.node!r}" + (f" of {one.graph!r})" if one.graph else ")")


def json_lines(found: Sequence[Diagnostic], _: Places) -> Iterator[str]:
    """One JSON object a line."""
    for one in found:
        yield json.dumps(one.to_dict(), ensure_ascii=False)


def github(found: Sequence[Diagnostic], places: Places) -> Iterator[str]:
    """Workflow commands of GitHub Actions, which shows them at their lines."""
    for one in found:
        spot = places(one)
        facts = {"file": places.path(one.file), "title": f"{one.code} {CODES[one.code].title}"}
        if spot is not None:
            facts |= {"line": str(spot.line)}
            if spot.end > spot.start:
                facts |= {"col": str(spot.start + 1), "endColumn": str(spot.end)}
        told = ",".join(f"{name}={_escaped(value, more=':,')}" for name, value in facts.items())
        yield f"::{_COMMANDS[one.severity]} {told}::{_escaped(_told(one))}"


def _escaped(value: str, more: str = "") -> str:
    for sign in "%\r\n" + more:
        value = value.replace(sign, f"%{ord(sign):02X}")
    return value


def sarif(found: Sequence[Diagnostic], places: Places) -> Iterator[str]:
    """A SARIF 2.1.0 log."""
    codes = sorted({one.code for one in found})
    rules = [
        {
            "id": code,
            "shortDescription": {"text": CODES[code].title},
            "help": {"text": CODES[code].remedy},
            "defaultConfiguration": {"level": _LEVELS[CODES[code].severity]},
        }
        for code in codes
    ]
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "agentmap-asgi", "rules": rules}},
                "columnKind": "unicodeCodePoints",
                "results": [_result(one, places(one), codes, quote(places.path(one.file))) for one in found],
            }
        ],
    }
    yield json.dumps(log, ensure_ascii=False, indent=2)


def _result(one: Diagnostic, spot: Place | None, codes: Sequence[str], uri: str) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": uri}}
    if spot is not None and one.sheet is None:
        region: dict[str, Any] = {"startLine": spot.line, "snippet": {"text": spot.text}}
        if spot.end > spot.start:
            region |= {"startColumn": spot.start + 1, "endColumn": spot.end + 1}
        physical["region"] = region
    logical = [{"name": name, "kind": kind} for name, kind in ((one.graph, "module"), (one.node, "member")) if name]
    location: dict[str, Any] = {"physicalLocation": physical}
    if logical:
        location["logicalLocations"] = logical
    result: dict[str, Any] = {
        "ruleId": one.code,
        "ruleIndex": codes.index(one.code),
        "level": _LEVELS[one.severity],
        "message": {"text": _told(one)},
        "locations": [location],
        "properties": {key: value for key, value in one.to_dict().items() if value is not None},
    }
    region = physical.get("region", {})
    if one.fix is not None and "endColumn" in region:
        where = {key: region[key] for key in ("startLine", "startColumn", "endColumn")}
        change = {"deletedRegion": where, "insertedContent": {"text": one.fix}}
        result["fixes"] = [
            {"artifactChanges": [{"artifactLocation": physical["artifactLocation"], "replacements": [change]}]}
        ]
    return result


FORMATS: Final[Mapping[str, Callable[[Sequence[Diagnostic], Places], Iterator[str]]]] = {
    "text": text,
    "json": json_lines,
    "sarif": sarif,
    "github": github,
}
