"""Rows and documents: CSV texts read and written, and what queries, sorting and limits make of them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ..errors import DataUnusable
from ..execution.conditions import ConditionError
from ..execution.fields import MISSING, descend
from ..execution.values import text_of
from .routing import condition

Record = dict[str, Any]

DELIMITERS: Final = ",;\t|"
NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?")
"""A text that says the same as a number: no sign in front, no leading zeros, no exponent, no more digits than fit."""
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would calculate."""
SIGNED: Final = re.compile(r"[+-][\d\s().,/-]*")
"""A number or a telephone number with its sign: nothing in it could be called."""
CONTROLS: Final = ("limit", "offset", "sort", "order", "columns")
"""Keys of a query object that are no fields, as in AgentMap."""


def read_csv(data: bytes, *, encoding: str, delimiter: str, numbers: bool) -> tuple[list[str], list[Record]]:
    """(header, rows). Rows are objects by header; a column of which every text is a NUMBER has numbers.

    Raises DataUnusable, naming the row as a spreadsheet counts.
    """
    text = decoded(data, encoding)
    sign = delimiter or _delimiter(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
    header: list[str] = []
    table: list[list[str]] = []
    try:
        for number, cells in enumerate(lines, 1):
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header):
                    twice = next(name for name in header if header.count(name) > 1)
                    raise DataUnusable(f"Two columns are called {twice!r}")
                continue
            if len(cells) > len(header):
                if any(cell.strip() for cell in cells[len(header) :]):
                    raise DataUnusable(f"Row {number} has more cells than the header")
                del cells[len(header) :]
            table.append(cells + [""] * (len(header) - len(cells)))
    except csv.Error as exc:
        raise DataUnusable(f"Row {lines.line_num} cannot be read: {exc}") from None
    columns: list[list[Any]] = [list(column) for column in zip(*table, strict=True)] if table else []
    if numbers:
        columns = [_numbers(column) for column in columns]
    return header, [dict(zip(header, row, strict=True)) for row in zip(*columns, strict=True)]


def _delimiter(text: str) -> str:
    head = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=head.count)


def _numbers(column: list[Any]) -> list[Any]:
    given = [cell.strip() for cell in column if cell.strip()]
    if not given or not all(map(NUMBER.fullmatch, given)):
        return column
    return [(float(cell) if "." in cell else int(cell)) if cell.strip() else None for cell in column]


def write_csv(header: Sequence[str], rows: Iterable[Record], *, encoding: str, delimiter: str) -> bytes:
    """The text of a table; nothing at all without columns."""
    if not header:
        return b""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter or ",", lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(row.get(name)) for name in header] for row in rows)
    return encoded(out.getvalue(), encoding)


def _cell(value: Any) -> str:
    return "" if value is None else text_of(value)


def guarded(rows: Iterable[Record]) -> list[Record]:
    """Rows in which texts that a spreadsheet would calculate have a ' in front, names of columns included."""
    return [{_guard(name): _guard(value) for name, value in row.items()} for row in rows]


def _guard(value: Any) -> Any:
    risky = isinstance(value, str) and value.startswith(FORMULA) and not SIGNED.fullmatch(value)
    return f"'{value}" if risky else value


def decoded(data: bytes, encoding: str) -> str:
    """Raises DataUnusable."""
    try:
        return data.decode("utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding)
    except LookupError:
        raise DataUnusable(f"The encoding {encoding!r} is unknown") from None
    except UnicodeError:
        raise DataUnusable(f"The file is not {encoding}; name its encoding in Context") from None


def encoded(text: str, encoding: str) -> bytes:
    """Raises DataUnusable."""
    try:
        return text.encode(encoding)
    except LookupError:
        raise DataUnusable(f"The encoding {encoding!r} is unknown") from None
    except UnicodeError as exc:
        raise DataUnusable(f"The encoding {encoding} has no room for {exc.object[exc.start : exc.end]!r}") from None  # type: ignore[attr-defined]


def header_of(rows: Iterable[Record], known: Sequence[str] = ()) -> list[str]:
    """The columns of rows: those known already, then new ones in the order in which they come."""
    return list(dict.fromkeys([*known, *(name for row in rows for name in row)]))


def records_of(data: Any) -> list[Record]:
    """Rows from what an agent was given: a list of objects, one object, or columns and rows. Raises DataUnusable."""
    if isinstance(data, dict) and isinstance(data.get("rows"), list) and isinstance(data.get("columns"), list):
        names = [str(name) for name in data["columns"]]
        if all(isinstance(row, list) and len(row) == len(names) for row in data["rows"]):
            return [dict(zip(names, row, strict=True)) for row in data["rows"]]
    rows = [data] if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataUnusable("The data to write are no rows: give an object, a list of objects, or columns and rows")
    return rows


def selected(rows: Sequence[Any], query: Any, controls: Mapping[str, Any], inputs: Record) -> list[Any]:
    """The rows that a query leaves, sorted, from `offset` on, at most `limit`, with the `columns` wanted.

    A query is an object of values (or lists of values) by field, or a condition, in which a name that the row does not
    have is that of an input. An object's own limit, offset, sort, order and columns count before those in `controls`.
    Raises DataUnusable.
    """
    given = dict(controls)
    if isinstance(query, dict):
        given |= {name: query[name] for name in CONTROLS if query.get(name) is not None}
        query = {name: value for name, value in query.items() if name not in CONTROLS}
    found = [row for row in rows if matches(row)] if (matches := matcher(query, inputs)) else list(rows)
    for name, down in reversed(_orders(given.get("sort"), given.get("order"))):
        found.sort(key=lambda row, name=name: _rank(field_of(row, name)), reverse=down)  # type: ignore[misc]
    offset, limit = _count("offset", given.get("offset")), given.get("limit")
    found = found[offset or 0 :] if limit is None else found[offset or 0 :][: _count("limit", limit)]
    columns = given.get("columns")
    if columns:
        names = columns if isinstance(columns, list) else [part.strip() for part in str(columns).split("|")]
        found = [{name: field_of(row, name) for name in names} for row in found]
    return found


def matcher(query: Any, inputs: Record) -> Callable[[Any], bool] | None:
    """What tells whether a row fits a query; None when all do. Raises DataUnusable."""
    if query in (None, "", {}):
        return None
    if isinstance(query, str):
        try:
            test = condition(query).compile(
                lambda name: lambda row, position: field_of(row, name, field_of(inputs, name, MISSING))
            )
        except ConditionError as exc:
            raise DataUnusable(f"The query {query!r} is not understood: {exc}") from None
        nowhere: Any = None
        return lambda row: isinstance(row, dict) and test(row, nowhere)
    if not isinstance(query, dict):
        raise DataUnusable("A query is a condition, or an object of values by field")
    wanted = [(name, value if isinstance(value, list) else [value]) for name, value in query.items()]
    return lambda row: all(any(same(field_of(row, name), one) for one in values) for name, values in wanted)


def same(value: Any, wanted: Any) -> bool:
    """Whether two values are one, also when one of them is a text of the other: rows of a CSV file may be texts."""
    if isinstance(value, bool) or isinstance(wanted, bool) or value is None or wanted is None:
        return bool(value == wanted) and type(value) is type(wanted)
    return bool(value == wanted) or (
        isinstance(value, str) != isinstance(wanted, str) and text_of(value) == text_of(wanted)
    )


def field_of(row: Any, name: str, otherwise: Any = None) -> Any:
    """A field, or one inside it: `a.b`, and `list.0`."""
    if isinstance(row, dict) and name in row:
        return row[name]
    found = descend(row, name.split("."))
    return otherwise if found is MISSING else found


def _orders(sort: Any, order: Any) -> list[tuple[str, bool]]:
    """(field, descending) for `name`, `-name`, `name desc`, several with commas, |, or as a list."""
    if sort in (None, "", []):
        return []
    parts = sort if isinstance(sort, list) else re.split(r"[,|]", str(sort))
    down = str(order or "asc").strip().casefold().startswith("desc")
    found = []
    for part in parts:
        name, _, way = str(part).strip().partition(" ")
        turned = way.strip().casefold().startswith("desc") or name.startswith("-")
        found.append((name.removeprefix("-"), down or turned))
    return found


def _rank(value: Any) -> tuple[int, Any]:
    """Numbers, then texts, then everything else by its text; nothing last."""
    if value is None or value == "":
        return 3, 0
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, text_of(value))


def _count(name: str, value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataUnusable(f"{name} is {value!r}, which is no number of rows")
    return value
