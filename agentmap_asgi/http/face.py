"""One way in to a service: the operations behind their guards. No request leaves it without an answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import AgentMapError, ConfigError, nearest
from ..services.agentmap import AgentMapService
from .auth import audited, authenticate, way_in
from .calls import Calls, logger
from .exchange import Exchange
from .linking import PLACE, hide
from .openapi import document
from .operations import OPERATIONS, Operation
from .origins import refuse_foreign
from .problems import Refusal, problem_reply
from .querying import refuse_unknown
from .routes import Routes, WrongMethod, own_paths


def _pages() -> tuple[Operation, ...]:
    from .pages import PAGES  # nothing of the page is there when it is off

    return PAGES


class Face(Calls):
    """What the ASGI app and the FastAPI routes share.

    `guarded` says that the host guards the routes itself, `named` that it also says who calls.
    """

    def __init__(
        self,
        service: AgentMapService,
        *,
        docs: bool | None = None,
        audit: bool | None = None,
        guarded: bool = False,
        named: bool = False,
    ) -> None:
        super().__init__(service)
        self.asks = self.asks or named
        self._instruments = service.instruments
        if audit:
            self._instruments.open_audit()
        served = {
            "": True,
            "docs": self.config.enable_docs if docs is None else docs,
            "metrics": self._instruments.metrics is not None,
            "audit": self._instruments.audit is not None and audit is not False,
            "links": bool(self.config.link_secret),
        }
        self.operations = tuple(row for row in OPERATIONS if served[row.needs])
        self.pages = _pages() if served["docs"] else ()
        self._shown = frozenset(row.name for row in self.pages)
        self.routes = Routes((*self.operations, *self.pages))
        self.public = service.context.public
        names = [row.name for row in OPERATIONS]
        for name in self.public.difference(names):
            close = nearest(name, names)
            hint = f"; did you mean {close!r}?" if close else f"; they are {', '.join(names)}"
            raise ConfigError(f"public={name!r} is no operation{hint}")
        self.public |= {row.name for row in self.operations if row.open}
        if self.keys is None and service.context.authenticate is None:
            self._say_who_is_asked(guarded, named)

    def _say_who_is_asked(self, guarded: bool, named: bool) -> None:
        """Nothing here asks callers who they are: refuse that or say so, unless the host does."""
        if not guarded and self.config.require_api_key:
            raise ConfigError(
                "require_api_key=True, and nobody is asked for a key: put the line that `agentmap-asgi keys new` "
                "prints into api_keys (or the variable AGENTMAP_API_KEYS), or give AgentMapContext(authenticate=...), "
                "or dependencies=[...] to include_agentmap_routes"
            )
        if not guarded:
            logger.warning(
                "The workflows are open to every caller: give AgentMapContext(authenticate=...) or "
                "AgentMapConfig(api_keys=...), or dependencies=[...] to include_agentmap_routes"
            )
        elif not named:
            logger.warning(
                "The dependencies guard the workflows but do not say who calls, so all callers that pass share their "
                "executions: give principal=Depends(...) to include_agentmap_routes"
            )

    async def page(self, exchange: Exchange, name: str, headers: Mapping[str, str]) -> Response | None:
        """A file of the page; None where the page is off."""
        if not self.pages:
            return None
        from .pages import sent  # as above

        return await sent(exchange, name, headers)

    @cached_property
    def description(self) -> dict[str, Any]:
        """The OpenAPI document, but for its servers."""
        return document(self.operations, keys=self.keys is not None, public=self.public)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request to the mounted app."""
        prefix, paths = own_paths(scope)
        exchange = Exchange(self, scope, receive, prefix, paths[0])
        exchange.host_params = scope.get("path_params", exchange.host_params)
        operation, exchange.params = self.routes.find(scope["method"], paths[0])
        for path in paths[1:]:
            if isinstance(operation, Refusal):
                other, exchange.params = self.routes.find(scope["method"], path)
                if not isinstance(other, Refusal) or other.status != 404:
                    operation, exchange.path = other, path
        response = await self.answer(exchange, operation)
        await response(scope, receive, send)

    async def answer(self, exchange: Exchange, operation: Operation | Refusal) -> Response:
        """The response to a request, whatever happens. `operation` may be the reason why there is none."""
        code: str | None = None
        if exchange.path.startswith(PLACE):
            hide(exchange)
        try:
            host_answer = None
            if isinstance(operation, WrongMethod) and operation.names <= self.public:
                pass  # the path is no secret
            elif isinstance(operation, Refusal):
                host_answer = await authenticate(exchange, None)
            elif operation.name in self._shown:
                host_answer = None if operation.parameters else await way_in(exchange)
            elif (self.asks or exchange.principal is not None) and operation.name not in self.public:
                host_answer = await authenticate(exchange, operation.scope)
            if host_answer is not None:
                response = host_answer
            elif isinstance(operation, Refusal):
                raise operation
            else:
                refuse_foreign(exchange)
                refuse_unknown(exchange, operation)
                response = await operation.handler(exchange)
        except (Refusal, AgentMapError, HTTPException) as exc:
            refusal = self.refusal(exc, exchange.request_id)
            code = refusal.code
            response = problem_reply(refusal, exchange.instance, exchange.request_id)
        except Exception as exc:
            refusal = self.unexpected(exc, exchange.request_id)
            code = refusal.code
            response = problem_reply(refusal, exchange.instance, exchange.request_id)
        response.raw_headers.append((b"x-request-id", exchange.request_id.encode()))
        if self._instruments.on:
            name = None if isinstance(operation, Refusal) else operation.name
            self._instruments.answered(name, response.status_code, code=code, **audited(exchange))
        if exchange.head:
            response.body = b""
        return response
