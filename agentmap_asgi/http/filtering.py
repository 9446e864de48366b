"""What a run and the hooks of the host are told about a request, and the host's last word on what leaves."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from ..execution.records import stamp
from .auth import owner_of
from .exchange import Exchange
from .owners import with_told_ids

_NOTHING: Final[Mapping[str, Any]] = {}


async def filtered(exchange: Exchange, document: dict[str, Any]) -> dict[str, Any]:
    """The document as the host's `filter_response` lets it out, with the ids that the caller knows."""
    calls = exchange.calls
    document = with_told_ids(exchange, document)
    if not calls.filters:
        return document
    return await calls.service.filter_response(deepcopy(document), run_context(exchange, None))


def run_context(exchange: Exchange, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run is told about its request. What the caller says comes first, so that the host's words replace it."""
    host = exchange.calls.service.context
    who = owner_of(exchange.principal, host)
    ours = {
        "principal": who,
        "request_id": exchange.request_id,
        "timestamp": stamp(host.clock.time_ns()),
    }
    if b"traceparent" in exchange.headers and (traceparent := exchange.traceparent) is not None:
        ours["traceparent"] = traceparent
    said = exchange.scope.get("state", _NOTHING).get("workflow_context")
    if given is None and said is None and not exchange.host_params:
        exchange.plain &= who is None or (who.__class__ is str and who.isascii())
        return ours
    exchange.plain = False
    params = {name: v if isinstance(v, str | int | float) else str(v) for name, v in exchange.host_params.items()}
    context = {**(given or _NOTHING), **params, **ours}
    if "traceparent" not in ours:
        context.pop("traceparent", None)
    if said is not None:
        if not isinstance(said, Mapping):
            raise TypeError(f"request.state.workflow_context is a {type(said).__name__}; it must be a dict")
        context.update(said)
        if who is not None:
            context["principal"] = who
    return context
