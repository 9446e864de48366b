"""Responses: JSON with as little work as a response needs, and text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ..execution.writing import encode

JSON: Final = b"application/json"
PROBLEM: Final = b"application/problem+json"


class Reply(Response):
    """A finished response. `media_type` is the whole Content-Type header."""

    def __init__(
        self,
        body: bytes,
        status: int = 200,
        media_type: bytes = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", media_type)]
        if headers:
            self.raw_headers += [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON response."""
    return Reply(encode(value), status, JSON, headers)


def no_content(status: int = 204, headers: Mapping[str, str] | None = None) -> Reply:
    """A response that has no content, so no length and no type."""
    reply = Reply(b"", status, JSON, headers)
    reply.raw_headers = reply.raw_headers[2:]
    return reply


def text_reply(text: str, media_type: str = "text/plain", headers: Mapping[str, str] | None = None) -> Reply:
    """A text that browsers must not take for something else."""
    kind = f"{media_type}; charset=utf-8".encode("latin-1")
    return Reply(text.encode(), 200, kind, {"X-Content-Type-Options": "nosniff", **(headers or {})})
