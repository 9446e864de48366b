"""Batches as CSV tables that a spreadsheet may open: no cell of them is a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..execution.writing import plain_json
from .exchange import Exchange
from .problems import invalid_field
from .replies import Reply

CSV_TYPE: Final = "text/csv"
FIXED: Final = ("index", "status", "execution_id", "success", "error_code", "error")
"""The columns that each table begins with; the fields of the results follow."""

_FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")


def wants_csv(exchange: Exchange) -> bool:
    """Whether the caller asks for a table, by `?format=csv` or by preferring `text/csv` in Accept."""
    match exchange.query("format"):
        case "csv":
            return True
        case "json":
            return False
        case None:
            accept = exchange.header(b"accept")
            return CSV_TYPE in accept and _weight(accept, CSV_TYPE) > _weight(accept, "application/json")
    raise invalid_field("", "format", "format is one of json, csv")


def _weight(accept: str, wanted: str) -> float:
    """How much an Accept header likes a media type: the most exact range that fits counts."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        given = [piece[2:].strip() for piece in parameters if piece.startswith("q=")]
        try:
            weights[kind] = float(given[0]) if given else 1.0
        except ValueError:
            weights[kind] = 0.0
    for kind in (wanted, f"{wanted.partition('/')[0]}/*", "*/*"):
        if kind in weights:
            return weights[kind]
    return 0.0


def table_reply(outcomes: Iterable[Mapping[str, Any]]) -> Reply:
    """The outcomes of a batch as `text/csv`: a row each, in order, a column for each field of any result."""
    rows: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []
    names: dict[str, None] = {}
    for outcome in outcomes:
        document = outcome.get("execution") or {}
        error = outcome.get("error") or document.get("error") or {}
        result = document.get("result", document)  # a host that shapes its answers may have no result
        fields = result if isinstance(result, Mapping) else {}
        names |= dict.fromkeys(fields)
        told = (error.get("code"), error.get("detail") or error.get("message")) if isinstance(error, Mapping) else ()
        head = (outcome["index"], outcome["status"], document.get("execution_id"), document.get("success"), *told)
        rows.append((head + (None,) * (len(FIXED) - len(head)), fields))
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)  # quoted, so that no other separator cuts a cell open
    writer.writerow([*FIXED, *(cell(f"result.{name}" if name in FIXED else name) for name in names)])
    for head, fields in rows:
        writer.writerow([cell(value) for value in (*head, *(fields.get(name) for name in names))])
    headers = {
        "Content-Disposition": 'attachment; filename="executions.csv"',
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept",
    }
    return Reply(out.getvalue().encode(), 200, b"text/csv; charset=utf-8; header=present", headers)


def cell(value: Any) -> str:
    """A value as the text of a cell. Texts that a spreadsheet would compute get an apostrophe before them."""
    if value is None:
        return ""
    if isinstance(value, str):
        guarded = value.startswith(_FORMULA) or value.lstrip().startswith(_FORMULA)
        return "'" + value if guarded else value
    return plain_json(value).decode()
