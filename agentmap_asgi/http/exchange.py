"""One request: what its handler needs to know of it, read from the ASGI scope when asked."""

from __future__ import annotations

from random import getrandbits
from typing import Any, Final
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.types import Receive, Scope

from ..workflows.checks import RESERVED
from .calls import Calls

_SEGMENT_SAFE: Final = "-._~!$&'()*+,;=:@"
_VISIBLE: Final = bytes(range(0x21, 0x7F))


class Exchange:
    """A request on its way through one operation."""

    __slots__ = (
        "calls",
        "head",
        "headers",
        "host_params",
        "params",
        "prefix",
        "principal",
        "receive",
        "request_id",
        "scope",
        "seen",
    )

    def __init__(
        self, calls: Calls, scope: Scope, receive: Receive, prefix: str, request: Request | None = None
    ) -> None:
        self.calls = calls
        self.scope = scope
        self.receive = receive
        self.prefix = prefix
        """The path before the operation's own, decoded, without a slash at its end."""
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.seen = request
        """The Request object that a host's code was given; it may have read the body."""
        self.params: dict[str, str] = {}
        """Path parameters of the operation."""
        self.host_params: dict[str, Any] = {}
        """Path parameters of the prefix."""
        self.principal: Any = None
        self.head: bool = scope["method"] == "HEAD"
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if _visible(given) else f"{getrandbits(128):032x}"

    def header(self, name: bytes) -> str:
        """A header's value, empty when it was not sent. The name in lower case."""
        value = self.headers.get(name)
        return "" if value is None else value.decode("latin-1")

    @property
    def request(self) -> Request:
        """The request as Starlette shows it, for the functions of the host."""
        if self.seen is None:
            self.seen = Request(self.scope, self.receive)
        return self.seen

    @property
    def instance(self) -> str:
        """The path of the request as a URI reference, cut when it is very long."""
        return "/" + quote(self.scope["path"].lstrip("/")[:1_000], safe="/" + _SEGMENT_SAFE, errors="replace")

    def query(self, name: str) -> str | None:
        """The last value of a query parameter."""
        values = parse_qs(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get(name)
        return values[-1] if values else None

    def link(self, path: str) -> str:
        """A path of this surface as seen by the client; `path` is quoted already."""
        return quote(self.prefix, safe="/" + _SEGMENT_SAFE, errors="replace") + path if self.prefix else path

    def workflow_link(self, graph_id: str) -> str:
        """Where a workflow is described."""
        if graph_id.isidentifier() and graph_id.isascii() and graph_id not in RESERVED:
            return self.link(f"/{graph_id}")
        # A reserved word leads to its operation, and clients take dots out of paths.
        short = graph_id not in RESERVED and graph_id.strip(".") and "/" not in graph_id and "::" not in graph_id
        return self.link(("/" if short else "/workflows/") + quote(graph_id, safe=_SEGMENT_SAFE, errors="replace"))


def _visible(value: bytes) -> bool:
    return 0 < len(value) <= 128 and value.isascii() and not value.strip(_VISIBLE)
