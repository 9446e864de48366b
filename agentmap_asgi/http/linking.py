"""One-time links over HTTP: making them, and what their holders see and answer."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from .body import read_json, read_optional_json
from .exchange import Exchange
from .executing import fitted
from .filtering import filtered
from .owners import look
from .problems import forbidden
from .replies import json_reply
from .schemas import LinkAnswerBody, LinksBody

PLACE: Final = "/resume/link/"
"""Where links lead. What follows is a credential."""
HEADERS: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"}


async def make(exchange: Exchange) -> Response:
    """`POST /executions/{execution_id}/links`"""
    body = fitted(LinksBody, await read_optional_json(exchange, exchange.calls.config))
    sight = await look(exchange, "execution_links")
    if not sight.whole:
        raise forbidden()
    made = await exchange.calls.service.make_links(
        sight.document["execution_id"], node=body.node, assignee=body.assignee, expires_in=body.expires_in
    )
    links = [{**link, "href": exchange.link(PLACE + link["token"])} for link in made]
    return json_reply(await filtered(exchange, {"links": links}), 201, HEADERS)


async def show(exchange: Exchange) -> Response:
    """`GET /resume/link/{token}`: for programs what is asked, for browsers the page that asks it."""
    if b"text/html" in exchange.headers.get(b"accept", b""):
        page = await exchange.calls.page(exchange, "answer.html", HEADERS)
        if page is not None:
            return page
    asked = await exchange.calls.service.look_at_link(exchange.params["token"])
    return json_reply(await filtered(exchange, asked), headers=HEADERS)


async def answer(exchange: Exchange) -> Response:
    """`POST /resume/link/{token}`"""
    body = fitted(LinkAnswerBody, await read_json(exchange, exchange.calls.config))
    token = exchange.params["token"]
    done: dict[str, Any] = await exchange.calls.service.answer_link(token, body.action, body.data)
    exchange.execution_id = done["execution_id"]
    return json_reply(await filtered(exchange, done), headers=HEADERS)


def hide(exchange: Exchange) -> None:
    """Take the token out of what logs show: servers write the path when the response begins."""
    path = exchange.path
    exchange.path = f"{PLACE}…"
    if path.startswith(PLACE) and len(path) > len(PLACE):
        token = path[len(PLACE) :]
        exchange.scope["path"] = exchange.scope["path"].replace(token, "...")
        if "raw_path" in exchange.scope:
            exchange.scope["raw_path"] = exchange.scope["path"].encode("utf-8", "replace")
