"""Responses: JSON with as little work as a response needs, and text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.responses import Response

JSON: Final = b"application/json"
PROBLEM: Final = b"application/problem+json"


def plain_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises TypeError or ValueError for what JSON cannot write."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _fastest() -> Callable[[Any], bytes]:
    try:
        import orjson
    except ImportError:
        return plain_json
    # Without these it would write kinds of objects that the standard library refuses.
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    dumps = orjson.dumps

    def encode(value: Any) -> bytes:
        try:
            return dumps(value, None, options)
        except TypeError:
            return plain_json(value)  # what only the standard library can write, or its error

    return encode


encode: Final = _fastest()


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
