"""What people see: the page and the documentation of the operations. The files hold no data and ask for it through the
operations, with whatever credentials the browser or its user has; so they are shown to everybody who may see a sign-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from anyio import to_thread
from starlette.responses import Response

from ..ui.files import File, files
from .exchange import SLASHED, Exchange
from .operations import Operation
from .problems import not_found
from .reading import knows
from .replies import Reply, no_content

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
    )
)
"""Only files of this origin, nothing inline, in nobody's frame."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


async def page(exchange: Exchange) -> Response:
    """`GET /ui/`"""
    # The files name each other relatively, so that they are found behind proxies that say nothing of a prefix.
    return await sent(exchange, "index.html") if _slashed(exchange) else _moved("ui/")


async def door(exchange: Exchange) -> Response:
    """`GET /`"""
    return _moved(exchange.link("/ui/") if exchange.prefix else "ui/")


async def documentation(exchange: Exchange) -> Response:
    """`GET /docs`"""
    return _moved("../docs") if _slashed(exchange) else await sent(exchange, "docs.html")


async def file(exchange: Exchange) -> Response:
    """`GET /ui/{file}`"""
    name = exchange.params["file"]
    if name.endswith(".html"):
        raise not_found()
    return await sent(exchange, name)


def _slashed(exchange: Exchange) -> bool:
    return exchange.path.endswith("/") or SLASHED in exchange.scope


def _moved(place: str) -> Reply:
    return Reply(b"", 307, b"text/plain", {"Location": place, "Cache-Control": "no-cache"})


async def sent(exchange: Exchange, name: str, more: Mapping[str, str] | None = None) -> Response:
    """One of the files, with further headers."""
    found: File | None = (await to_thread.run_sync(files)).get(name)
    if found is None:
        raise not_found()
    headers = {**HEADERS, "ETag": found.tag, **(more or {})}
    if knows(exchange.header(b"if-none-match"), found.tag):
        return no_content(304, headers)
    return Reply(found.body, 200, found.kind, headers)


PAGES: Final = (
    Operation(
        method="GET", path="/", name="door", handler=door, summary="The way to the page", scope="read", answer=None
    ),
    Operation(method="GET", path="/ui", name="ui", handler=page, summary="The page", scope="read", answer=None),
    Operation(
        method="GET", path="/ui/{file}", name="ui_file", handler=file, summary="Its files", scope="read", answer=None
    ),
    Operation(
        method="GET",
        path="/docs",
        name="docs",
        handler=documentation,
        summary="The operations, for people",
        scope="read",
        answer=None,
    ),
)
"""They are served with the setting `enable_docs`, and stand in no description of the operations."""
