"""Query parameters that an operation does not have: a filter with a mistake in its name must not list everything."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from ..errors import nearest
from .exchange import Exchange
from .operations import Operation
from .problems import LONGEST_NAME, Refusal

MOST_NAMED: Final = 20


def refuse_unknown(exchange: Exchange, operation: Operation) -> None:
    """Raises Refusal 422 for a query parameter that the operation does not know, naming what was probably meant.

    Operations without any parameters do not look at the query. What the host reads by itself passes.
    """
    sent = exchange.scope.get("query_string", b"")
    if not sent or not operation.query:
        return
    known = [row.name for row in operation.query]
    passing = {*known, *exchange.host_query, *exchange.calls.config.host_parameters}
    asked = dict.fromkeys(name for name, _ in parse_qsl(sent.decode("latin-1"), keep_blank_values=True))
    errors = [
        {"pointer": "", "code": "unknown_parameter", "message": _message(name, known)}
        for name in asked
        if name not in passing
    ]
    if errors:
        raise Refusal(422, "invalid_request", errors[0]["message"], errors=errors[:MOST_NAMED])


def _message(name: str, known: list[str]) -> str:
    close = nearest(name, known) if len(name) <= LONGEST_NAME else None
    hint = f"did you mean {close!r}?" if close else f"there are {', '.join(known)}"
    return f"A query parameter is unknown; {hint}"
