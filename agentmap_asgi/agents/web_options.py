"""The options of the agent `http`."""

from __future__ import annotations

from typing import Final

from .options import Option, declared

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Methods that do the same when they are called twice."""
KEPT: Final = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"),
        *("keep-alive", "proxy-authorization", "proxy-connection", "accept-encoding"),
    )
)
"""Headers that are not a row's to say."""

URL: Final = Option("url", summary="Where to; fields in it are percent-encoded. Else the Prompt.")
METHOD: Final = Option("method", "text", "What is done there.", "GET", choices=METHODS)
PATH: Final = Option("path", summary="What follows the url.")
QUERY: Final = Option("query", "object", "Parameters; a list gives one several times, null none.", aliases=("params",))
HEADERS: Final = Option("headers", "object", "Headers.")
BODY: Final = Option("body", "any", "What is sent: as JSON, or a text as it is.", aliases=("json", "data"))
FORM: Final = Option("form", "object", "What is sent as a form.")
BEARER: Final = Option("bearer", summary="secret:NAME of a token for the header Authorization.")
BASIC: Final = Option("basic", summary="secret:NAME of user:password for the header Authorization.")
OPTIONS: Final = declared(
    *(URL, METHOD, PATH, QUERY, HEADERS, BODY, FORM, BEARER, BASIC),
    Option("answer", "text", "How the body is read; auto goes by its type.", "auto",
           choices=("auto", "json", "text", "base64")),
    Option("result", "text", "all: status, headers and body; body: the body alone.", "all", choices=("all", "body")),
    Option("fail_on_status", "truth", "A status from 400 on fails the node; else it only answers no.", True),
    Option("retries", "whole", "More attempts after 429, 502, 503, 504 and failed connections.", 0, least=0, most=10),
    Option("redirects", "whole", "Redirects that are followed.", 0, least=0, most=5),
)  # fmt: skip
