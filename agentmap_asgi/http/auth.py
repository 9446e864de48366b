"""Who may call: the host's `authenticate` and `authorize`, asked at the edge of every calls."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..context import AgentMapContext
from ..errors import AmbiguousWorkflow, UnknownWorkflow
from .exchange import Exchange
from .keys import Keys, Scope
from .problems import forbidden, unauthenticated

_IDS: Final = ("execution_id", "thread_id", "token")


async def authenticate(exchange: Exchange, scope: Scope | None) -> Response | None:
    """Set the exchange's principal. A Response is the host's own answer; Refusal 401 when there is no principal.

    With API keys, the request must have one that allows `scope`, whoever else is asked; its name is the principal when
    nobody else says who calls. A plain function is called in the event loop, so it must not block; give a coroutine
    function if it has to wait.
    """
    context = exchange.calls.service.context
    if exchange.calls.keys is not None:
        name = key_name(exchange, exchange.calls.keys, scope)
        if exchange.principal is None:
            exchange.principal = name
    if context.authenticate is None:
        owner_of(exchange.principal, context)  # a principal of the host's own finding
        return None
    found = context.authenticate(exchange.request)
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, Response):
        return found
    if nobody(found):
        raise unauthenticated()
    exchange.principal = found
    owner_of(found, context)
    return None


async def way_in(exchange: Exchange) -> Response | None:
    """Where the host sends a stranger who asks for a page: the redirect that its `authenticate` gives, if it does."""
    if exchange.calls.service.context.authenticate is None:
        return None
    try:
        found = exchange.calls.service.context.authenticate(exchange.request)
        if inspect.isawaitable(found):
            found = await found
    except HTTPException:
        return None
    return found if isinstance(found, Response) and 300 <= found.status_code < 400 else None


def key_name(exchange: Exchange, keys: Keys, scope: Scope | None) -> str:
    """The name of the API key that was sent. Raises Refusal: 401 without a valid one, 403 when it lacks the scope."""
    sent = exchange.headers.get(b"x-api-key")
    if sent is None:
        kind, _, rest = exchange.headers.get(b"authorization", b"").partition(b" ")
        sent = rest.strip() if kind.lower() == b"bearer" else b""
    key = keys.find(sent)
    if key is None or key.expired(exchange.calls.service.context.clock.time_ns()):
        raise unauthenticated()
    if scope is not None and scope not in key.scopes:
        raise forbidden()
    return key.name


def nobody(principal: Any) -> bool:
    """Whether the host said that it knows no such caller: None, False, or a text that names nobody."""
    return principal is None or principal is False or (isinstance(principal, str) and not principal.strip())


def owner_of(principal: Any, context: AgentMapContext) -> str | None:
    """The text that stands for a principal in executions. Raises TypeError when it has none."""
    if principal is None:
        return None
    if context.principal_key is not None:
        key: Any = context.principal_key(principal)
        if nobody(key):
            raise TypeError(f"principal_key gives {key!r} for a {type(principal).__name__}; it must name the caller")
        return str(key)
    if isinstance(principal, str):
        return principal
    for name in ("id", "sub"):
        key = principal.get(name) if isinstance(principal, Mapping) else getattr(principal, name, None)
        if not nobody(key):
            return str(key)
    raise TypeError(
        f"The principal is a {type(principal).__name__} without id or sub; give AgentMapContext(principal_key=...)"
    )


async def ask(exchange: Exchange, verb: str, graph: str | None, execution: dict[str, Any] | None = None) -> Any:
    """What the host's `authorize` says of doing this to a workflow (its graph id) or to an execution (its document)."""
    authorize = exchange.calls.service.context.authorize
    if authorize is None:
        return True
    answer = authorize(exchange.principal, verb, graph, execution)
    return await answer if inspect.isawaitable(answer) else answer


async def allowed(exchange: Exchange, verb: str, graph: str | None) -> bool:
    """Whether the caller may do this to a workflow."""
    return bool(await ask(exchange, verb, graph))


async def permit(exchange: Exchange, verb: str, name: str) -> None:
    """Refuse what the caller may not do with a workflow: 404 when it may not even see it, else 403.

    `authorize` is asked about the graph id (`file::Name`) that the name stands for.
    """
    service = exchange.calls.service
    if service.context.authorize is None:
        return
    try:
        graph_id = service.catalogue.find(name).graph_id
    except AmbiguousWorkflow as exc:
        seen = [candidate for candidate in exc.candidates if await allowed(exchange, "workflow", candidate)]
        raise (AmbiguousWorkflow(name, seen) if seen else UnknownWorkflow(name)) from None
    if await allowed(exchange, verb, graph_id):
        return
    if verb == "workflow" or not await allowed(exchange, "workflow", graph_id):
        raise UnknownWorkflow(name)
    raise forbidden()


async def permit_plain(exchange: Exchange, verb: str) -> None:
    """Refuse what the caller may not do at all."""
    if not await allowed(exchange, verb, None):
        raise forbidden()


def audited(exchange: Exchange) -> dict[str, Any]:
    """What the audit log says of a request: who sent it from where, and what it was about."""
    try:
        who = owner_of(exchange.principal, exchange.calls.service.context)
    except Exception:  # the host's principal_key; the answer to the request has said so already
        who = None
    traceparent = exchange.traceparent
    return {
        "workflow": exchange.workflow or "/".join(v for n, v in exchange.params.items() if n not in _IDS) or None,
        "execution_id": exchange.execution_id,
        "principal": who or exchange.said("principal"),
        "client": exchange.client,
        "request_id": exchange.request_id,
        "trace_id": None if traceparent is None else traceparent[3:35],
    }
