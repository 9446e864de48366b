"""One FastAPI route for each operation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from fastapi.security import APIKeyQuery
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from ..errors import ConfigError
from ..http.auth import nobody
from ..http.exchange import SLASHED, Exchange
from ..http.face import Face
from ..http.lifespan import Lifespan
from ..http.openapi import described, refused, with_schemas
from ..http.operations import OPERATIONS, Operation
from ..http.problems import Refusal, unauthenticated
from ..http.routes import below
from ..workflows.checks import RESERVED
from .agentmap import AgentMapService

HEAD: Final = "agentmap_asgi.head"
REFUSED: Final = "agentmap_asgi.refused"
_PARAMETER = re.compile(r"{(\w+)(:\w+)?}")


def add_routes(
    app: FastAPI | APIRouter,
    service: AgentMapService,
    *,
    prefix: str,
    dependencies: Sequence[Dependency] | None,
    principal: Callable[..., Any] | Dependency | None,
    docs: bool,
    audit: bool | None,
) -> None:
    """Add them under `prefix`, with the lifespan of the service. Raises ConfigError for a prefix that cannot be."""
    taken = {name for row in OPERATIONS for name in row.parameters}
    for name, _ in _PARAMETER.findall(prefix):
        if name in taken:
            raise ConfigError(f"prefix={prefix!r} has the parameter {name}, which the routes below have; rename it")
    outer = app.router if isinstance(app, FastAPI) else app
    guarded = bool(dependencies or principal or outer.dependencies)
    face = Face(service, docs=docs, audit=audit, guarded=guarded, named=principal is not None)
    kind = type("OperationRoute", (_OperationRoute,), {"face": face})
    router = APIRouter(route_class=kind, lifespan=Lifespan(service))
    who = principal if isinstance(principal, Dependency) or principal is None else Depends(principal)
    for row in (*face.operations, *face.pages):
        page = row in face.pages
        if row.path == "/":
            continue  # the bare prefix is the host's
        public = page or row.name in face.public
        found = described(row)
        endpoint = _endpoint(face, row, prefix, None if public else who)
        router.add_api_route(
            row.path,
            endpoint,
            methods=[row.method],
            name=row.name,
            summary=row.summary,
            response_model=None,
            dependencies=None if public else dependencies,
            include_in_schema=docs and not page,
            responses=_responses(found),
            openapi_extra=_extra(found),
        )
    app.include_router(router, prefix=prefix.rstrip("/"), tags=["workflows"])


class _OperationRoute(APIRoute):
    """A route that tolerates a slash at its end, answers HEAD where it answers GET, and refuses as the app does."""

    face: Face

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        match, found = super().matches(_tolerant(scope, self.methods or ()))
        if match is not Match.NONE and found["path_params"].get("workflow_name") in RESERVED:
            return Match.NONE, {}
        return match, found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = self.methods or ()
        scope = _tolerant(scope, methods)
        if scope["method"] not in methods:
            # Through the endpoint all the same, so that the host's dependencies refuse strangers before we say 405.
            refused, head = scope["method"], scope["method"] == "HEAD"
            scope = {**scope, "method": next(iter(methods)), REFUSED: refused, HEAD: head}
        await super().handle(scope, receive, send)


def _tolerant(scope: Scope, methods: Collection[str]) -> Scope:
    """The scope as the route's own pattern and methods expect it."""
    changes: dict[str, Any] = {}
    if len(scope["path"]) > 1 and scope["path"].endswith("/"):
        changes |= {"path": scope["path"].rstrip("/") or "/", SLASHED: True}
    if scope["method"] == "HEAD" and "GET" in methods:
        changes |= {"method": "GET", HEAD: True}
    return {**scope, **changes} if changes else scope


def _exchange(face: Face, row: Operation, request: Request) -> Exchange:
    """The exchange of a routed request."""
    params = dict(request.path_params)
    own = {name: params.pop(name) for name in row.parameters}
    path = row.plain_path.format(**own)
    root, public = request.scope.get("root_path", "").rstrip("/"), request.scope["path"]
    if root and below(root, public) is None:
        public = root + public
    prefix = public.rstrip("/").removesuffix(path).strip("/")
    exchange = Exchange(face, request.scope, request.receive, f"/{prefix}" if prefix else "", path, request)
    exchange.params, exchange.host_params = own, params
    exchange.head = request.scope.get(HEAD, False)
    return exchange


def _endpoint(face: Face, row: Operation, prefix: str, who: Dependency | None) -> Callable[..., Awaitable[Response]]:
    """A function with the signature that FastAPI reads: path parameters, and the principal as a dependency."""

    async def endpoint(request: Request, **given: Any) -> Response:
        exchange = _exchange(face, row, request)
        if request.scope["query_string"]:
            exchange.host_query = _host_query(request.scope["route"].dependant)
        asked: Operation | Refusal = row
        if REFUSED in request.scope:
            asked, _ = face.routes.find(request.scope[REFUSED], exchange.path)
        if who is not None:
            exchange.principal = given["agentmap_principal"]
            if nobody(exchange.principal):
                exchange.principal, asked = None, unauthenticated()
        return await face.answer(exchange, asked)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)]
    for name, convertor in _PARAMETER.findall(prefix):
        parameters.append(inspect.Parameter(name, keyword, annotation=Any if convertor else str))
    parameters += [inspect.Parameter(name, keyword, annotation=str) for name in row.parameters]
    if who is not None:
        parameters.append(inspect.Parameter("agentmap_principal", keyword, annotation=Any, default=who))
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect looks for
    endpoint.__name__ = row.name
    endpoint.__doc__ = row.summary
    return endpoint


def _host_query(dependant: Any) -> set[str]:
    """The query parameters that the host's dependencies take, API keys among them."""
    found = {field.alias for field in dependant.query_params}
    if isinstance(dependant.call, APIKeyQuery):
        found.add(dependant.call.model.name)
    return found.union(*map(_host_query, dependant.dependencies))


def _responses(found: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The answers of an operation. A refusal as 422 is named always, or FastAPI would describe its own."""
    answers: dict[int | str, dict[str, Any]] = {422: with_schemas(refused(422))}
    return answers | {int(status): with_schemas(response) for status, response in found["responses"].items()}


def _extra(found: dict[str, Any]) -> dict[str, Any]:
    """What FastAPI cannot see in the endpoint's signature: the body, the query, and headers."""
    extra = {"parameters": [one for one in found["parameters"] if one["in"] != "path"]}
    return extra | ({"requestBody": with_schemas(found["requestBody"])} if "requestBody" in found else {})
