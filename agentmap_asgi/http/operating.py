"""The operations for those who run the service: reading the files again, numbers, the audit log."""

from __future__ import annotations

from typing import Any, Final

from anyio import to_thread
from starlette.responses import Response

from ..errors import ConfigError
from .auth import permit_plain
from .exchange import Exchange
from .filtering import filtered
from .paging import time_of, whole_number
from .problems import Refusal
from .replies import Reply, json_reply

METRICS: Final = "text/plain"
MOST_LINES: Final = 1_000
LIMIT: Final = {"type": "integer", "minimum": 1, "maximum": MOST_LINES}
TIME: Final = {"type": "string", "format": "date-time"}


async def reload(exchange: Exchange) -> Response:
    """`POST /reload`"""
    await permit_plain(exchange, "reload")
    return json_reply(await filtered(exchange, await exchange.calls.service.reload()))


async def metrics(exchange: Exchange) -> Response:
    """`GET /metrics`"""
    await permit_plain(exchange, "metrics")
    body, kind = exchange.calls.service.metrics()
    return Reply(body, 200, kind.encode("latin-1"), {"Cache-Control": "no-store"})


async def audit(exchange: Exchange) -> Response:
    """`GET /audit`: it says what all others do, so being known is not enough; somebody must have said who may."""
    context = exchange.calls.service.context
    asked_for_key = exchange.calls.keys is not None and "audit" not in context.public
    if context.authorize is None and not asked_for_key:
        detail = "The audit log is for API keys with the scope admin, and for callers whom authorize lets read it"
        raise Refusal(403, "forbidden", detail)
    await permit_plain(exchange, "audit")
    log = exchange.calls.service.instruments.audit
    if log is None:
        raise ConfigError("The audit log is off; give AgentMapConfig(enable_audit_logging=True)")
    limit, since = whole_number("limit", exchange.query("limit"), 100, MOST_LINES), _since(exchange.query("since"))
    workflow, principal = exchange.query("workflow"), exchange.query("principal")

    def read() -> tuple[list[dict[str, Any]], bool]:
        return log.newest(limit, since=since, workflow=workflow, principal=principal)

    entries, complete = await to_thread.run_sync(read)
    found = await filtered(exchange, {"entries": entries, "complete": complete})
    return json_reply(found, headers={"Cache-Control": "no-store"})


def _since(text: str | None) -> str:
    """The time as the lines of the log have it."""
    return "" if text is None else time_of("since", text).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
