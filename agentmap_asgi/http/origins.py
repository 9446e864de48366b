"""Requests that another site makes in a visitor's browser, with the visitor's cookies."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from .body import media_type
from .exchange import Exchange
from .problems import Refusal

SIMPLE: Final = frozenset({"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""Content types that a browser sends to other sites without asking them first."""
REMEMBERED: Final = frozenset({"", "basic", "digest", "ntlm", "negotiate"})
"""Kinds of `Authorization` that a browser sends by itself once its user has signed in; scripts set the others."""
OWN: Final = frozenset({"same-origin", "none"})


def refuse_foreign(exchange: Exchange) -> None:
    """Raises Refusal 403 for a change that a page of another origin asks for by a request which its browser sends
    without asking us. One with a JSON body or a credential in a header is asked for first: the host's rules for other
    origins (CORS) say whether it comes at all.
    """
    headers = exchange.headers
    if exchange.scope["method"] != "POST" or (b"sec-fetch-site" not in headers and b"origin" not in headers):
        return
    if b"x-api-key" in headers or media_type(exchange) not in SIMPLE:
        return
    if exchange.header(b"authorization").partition(" ")[0].lower() not in REMEMBERED:
        return
    site = exchange.header(b"sec-fetch-site")
    own = site in OWN if site else urlsplit(exchange.header(b"origin")).netloc == exchange.header(b"host")
    if not own:
        detail = "A page of another origin asks for this; send the body as application/json"
        raise Refusal(403, "cross_origin", detail)
