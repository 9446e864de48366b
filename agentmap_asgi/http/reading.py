"""The operations that tell about workflows and about this process. They run and import nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from ..errors import StoreUnavailable, StoreUnusable
from ..execution.writing import encode
from ..workflows.sheet import suffix_of
from .auth import allowed, permit, permit_plain
from .body import read_bytes
from .exchange import Exchange
from .filtering import filtered
from .problems import invalid_field
from .replies import JSON, Reply, json_reply, no_content, text_reply
from .typed import Typed, chosen, with_workflows

FILE_TYPES: Final = (
    "text/csv",
    "text/plain",
    "application/csv",
    "application/octet-stream",
    "application/vnd.ms-excel",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.oasis.opendocument.spreadsheet",
)
MERMAID: Final = "text/vnd.mermaid"
DOT: Final = "text/vnd.graphviz"
SVG: Final = "image/svg+xml"
IMAGE: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
"""An image that is opened by itself runs and fetches nothing."""
TEXTS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "mermaid": (MERMAID, {}),
    "dot": (DOT, {}),
    "svg": (SVG, IMAGE),
}
FORMS: Final = ("json", *TEXTS)


async def list_workflows(exchange: Exchange) -> Response:
    """`GET /list`"""
    await permit_plain(exchange, "list")
    found = dict(exchange.calls.service.list_workflows())
    workflows = []
    for workflow in found["workflows"]:
        graph_id = workflow["graph_id"]
        if await allowed(exchange, "workflow", graph_id):
            workflows.append({**workflow, "links": _links(exchange, graph_id)})
    found |= {"workflows": workflows, "total_count": len(workflows)}
    if exchange.calls.service.context.authorize is not None:
        found.pop("problems", None)  # they name files that the caller may not know of
    body = encode(await filtered(exchange, found))
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if knows(exchange.header(b"if-none-match"), tag):
        return no_content(304, headers)
    return Reply(body, 200, JSON, headers)


def knows(header: str, tag: str) -> bool:
    """Whether `If-None-Match` says that the client has what has this tag."""
    return any(part.strip().removeprefix("W/") in (tag, "*") for part in header.split(",")) if header else False


async def workflow(exchange: Exchange) -> Response:
    """`GET /{workflow_name}` and `GET /workflows/{graph_id}`"""
    name = await _named(exchange, "workflow")
    definition = exchange.calls.service.get_workflow_definition(name)
    links = _links(exchange, definition.get("graph_id", name))
    return json_reply(await filtered(exchange, {**definition, "links": links}))


async def schema(exchange: Exchange) -> Response:
    """`GET /{workflow_name}/schema`"""
    name = await _named(exchange, "workflow")
    found = exchange.calls.service.get_workflow_schema(name)
    return Reply(encode(await filtered(exchange, found)), 200, b"application/schema+json")


async def source(exchange: Exchange) -> Response:
    """`GET /{workflow_name}/source`"""
    name = await _named(exchange, "source")
    found = await exchange.calls.service.get_workflow_source(name)
    return json_reply(await filtered(exchange, found), headers={"Cache-Control": "no-store"})


async def graph(exchange: Exchange) -> Response:
    """`GET /{workflow_name}/graph`"""
    name = await _named(exchange, "workflow")
    return await drawing(exchange, exchange.calls.service.draw_workflow(name, "json"), FORMS)


async def drawing(
    exchange: Exchange, drawn: dict[str, Any], forms: Sequence[str], headers: Mapping[str, str] | None = None
) -> Response:
    """A drawing in the form that is asked for, made of what the host's filter lets out."""
    form = exchange.query("format") or "json"
    if form not in forms:
        raise invalid_field("", "format", f"format is one of {', '.join(forms)}")
    shown = await filtered(exchange, drawn)
    if form == "json":
        return json_reply(shown, headers=headers)
    kind, more = TEXTS[form]
    text = await exchange.calls.service.redraw(shown, form)
    return text_reply(text, kind, {**more, **(headers or {})})


async def versions(exchange: Exchange) -> Response:
    """`GET /{workflow_name}/versions`"""
    name = await _named(exchange, "versions")
    return json_reply(await filtered(exchange, await exchange.calls.service.list_versions(name)))


async def difference(exchange: Exchange) -> Response:
    """`GET /{workflow_name}/diff`"""
    name = await _named(exchange, "diff")
    old, new = exchange.query("from") or "previous", exchange.query("to") or "current"
    return json_reply(await filtered(exchange, await exchange.calls.service.diff_versions(name, old, new)))


async def _named(exchange: Exchange, verb: str) -> str:
    (name,) = exchange.params.values()
    await permit(exchange, verb, name)
    return name


def _links(exchange: Exchange, graph_id: str) -> dict[str, str]:
    own = exchange.workflow_link(graph_id)
    more = {name: f"{own}/{name}" for name in ("graph", "schema", "versions")}
    return {"self": own, **more, "execute": exchange.link("/execute")}


async def validate(exchange: Exchange) -> Response:
    """`POST /validate`"""
    await permit_plain(exchange, "validate")
    config = exchange.calls.config
    data = await read_bytes(exchange, FILE_TYPES, config.max_csv_bytes, config.body_timeout)
    file = exchange.query("file") or f"workflows{suffix_of(data)}"
    found = await exchange.calls.service.check_upload(data, file, exchange.query("sheet"))
    return json_reply(await filtered(exchange, found))


async def health(exchange: Exchange) -> Response:
    """`GET /health`"""
    return json_reply(await filtered(exchange, {"status": "ok"}), headers={"Cache-Control": "no-store"})


async def ready(exchange: Exchange) -> Response:
    """`GET /ready`"""
    service = exchange.calls.service
    state: dict[str, Any] = service.readiness()
    if state["ready"]:
        try:
            await service.probe_store()
        except (StoreUnusable, StoreUnavailable) as exc:
            reason = exchange.calls.refusal(exc, exchange.request_id).detail
            state = {**state, "ready": False, "reason": reason}
    else:
        state = {**state, "reason": "The process is stopping"}
    headers = {"Cache-Control": "no-store"}
    sent = await filtered(exchange, state)
    if state["ready"]:
        return json_reply(sent, headers=headers)
    return json_reply(sent, 503, {**headers, "Retry-After": "1"})


async def describe(exchange: Exchange) -> Response:
    """`GET /openapi.json`"""
    service = exchange.calls.service
    workflows = [
        Typed(workflow, service.get_workflow_schema(workflow.graph_id), unique)
        for workflow, unique in chosen(service.catalogue.workflows)
        if await allowed(exchange, "workflow", workflow.graph_id)
        and await allowed(exchange, "execute", workflow.graph_id)
    ]
    document = with_workflows(exchange.calls.description, workflows)
    return json_reply(await filtered(exchange, {**document, "servers": [{"url": exchange.link("") or "/"}]}))
