"""What a list of executions is asked for, and where it goes on."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from ..stores.store import FINISHED, UNFINISHED
from .exchange import Exchange
from .problems import Refusal, invalid_field

MOST: Final = 200
USUAL: Final = 50
STATUSES: Final = (*UNFINISHED, *FINISHED)
TIME: Final = {"type": "string", "format": "date-time"}
STATUS: Final = {"type": "string", "pattern": f"^({'|'.join(STATUSES)})(,({'|'.join(STATUSES)}))*$"}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR: Final = re.compile(r"(\d{1,19}):(.{1,512})", re.DOTALL)


class Page(NamedTuple):
    """Part of a list. Times are nanoseconds since 1970."""

    graph: str | None
    statuses: tuple[str, ...]
    tag: str | None
    since: int | None
    until: int | None
    waiting_for_me: bool
    before: tuple[int, str] | None
    limit: int


def page_of(exchange: Exchange) -> Page:
    """What the query asks for. Raises Refusal 422."""
    graph, cursor = exchange.query("graph"), exchange.query("cursor")
    if graph is not None and "/" in graph and "::" not in graph:
        graph = "::".join(graph.rsplit("/", 1))
    return Page(
        graph,
        _statuses(exchange.query("status")),
        exchange.query("tag"),
        _nanoseconds("since", exchange.query("since")),
        _nanoseconds("until", exchange.query("until")),
        _me(exchange.query("waiting_for")),
        None if cursor is None else _place(cursor),
        whole_number("limit", exchange.query("limit"), USUAL, MOST),
    )


def next_link(exchange: Exchange, before: tuple[int, str] | None) -> tuple[str | None, str | None]:
    """The `Link` header and the cursor that lead on; None at the end."""
    if before is None:
        return None, None
    cursor = urlsafe_b64encode(f"{before[0]}:{before[1]}".encode()).decode().rstrip("=")
    asked = parse_qsl(exchange.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    query = urlencode([*((name, value) for name, value in asked if name != "cursor"), ("cursor", cursor)])
    return f'<{exchange.link("/executions")}?{query}>; rel="next"', cursor


def whole_number(name: str, text: str | None, usual: int, most: int, *, least: int = 1) -> int:
    """A query parameter between `least` and `most`."""
    if text is None:
        return usual
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
        raise invalid_field("", name, f"{name} is a whole number from {least} to {most}")
    return int(text)


def time_of(name: str, text: str) -> datetime:
    """A query parameter that is a time, in UTC."""
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError(text)
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid_field("", name, f"{name} is a time with its zone, like 2026-01-31T12:00:00Z") from None


def _nanoseconds(name: str, text: str | None) -> int | None:
    return None if text is None else (time_of(name, text) - _EPOCH) // timedelta(microseconds=1) * 1000


def _statuses(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    found = tuple(text.split(","))
    if not set(found) <= set(STATUSES):
        raise invalid_field("", "status", f"status is one or several of {', '.join(STATUSES)}, with commas between")
    return found


def _me(text: str | None) -> bool:
    if text not in (None, "me"):
        raise invalid_field("", "waiting_for", "waiting_for is me")
    return text is not None


def _place(cursor: str) -> tuple[int, str]:
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
    except (Error, ValueError):
        raise _bad_cursor() from None
    found = _CURSOR.fullmatch(text)
    if found is None or int(found[1]) >= 2**63:
        raise _bad_cursor()
    return int(found[1]), found[2]


def _bad_cursor() -> Refusal:
    return invalid_field("", "cursor", "cursor is the next_cursor of an answer")


def query_schema(least: int, most: int) -> dict[str, Any]:
    """The JSON Schema of a whole number."""
    return {"type": "integer", "minimum": least, "maximum": most}
