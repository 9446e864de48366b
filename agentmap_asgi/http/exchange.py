"""One request: what its handler needs to know of it, read from the ASGI scope when asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.types import Receive, Scope

from ..execution.identity import random_bytes
from ..workflows.checks import RESERVED
from .calls import Calls

SLASHED: Final = "agentmap_asgi.slashed"
"""In the scope of a request whose path had a slash at its end, where a router has taken that away."""

_SEGMENT_SAFE: Final = "-._~!$&'()*+,;=:@"
_VISIBLE: Final = bytes(range(0x21, 0x7F))
_NOTHING: Final[Mapping[str, Any]] = {}
_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-[!-~]{0,200})?"
)


class Exchange:
    """A request on its way through one operation."""

    __slots__ = (
        "calls",
        "execution_id",
        "head",
        "headers",
        "host_params",
        "host_query",
        "params",
        "path",
        "plain",
        "prefix",
        "principal",
        "receive",
        "request_id",
        "scope",
        "seen",
        "workflow",
    )

    def __init__(
        self, calls: Calls, scope: Scope, receive: Receive, prefix: str, path: str, request: Request | None = None
    ) -> None:
        self.calls = calls
        self.scope = scope
        self.receive = receive
        self.prefix = prefix
        """The path before the operation's own, decoded, without a slash at its end."""
        self.path = path
        """The operation's own path, decoded."""
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.seen = request
        """The Request object that a host's code was given; it may have read the body."""
        self.plain = False
        """The body is values of JSON that nobody else has, which need no copy; once `run_context` was called, also what
        the run is told beside it.
        """
        self.params: dict[str, str] = {}
        """Path parameters of the operation."""
        self.host_params: dict[str, Any] = {}
        """Path parameters of the prefix."""
        self.host_query: Collection[str] = ()
        """Names of query parameters that the host's dependencies read."""
        self.principal: Any = None
        self.head: bool = scope["method"] == "HEAD"
        self.workflow: str | None = None
        """The workflow that was asked for, and the execution that came of it; for the audit log."""
        self.execution_id: str | None = None
        named = self._named_by_host() if "workflow_context" in scope.get("state", _NOTHING) else None
        if named is None and b"x-request-id" in self.headers:
            named = self._named_by_client()
        self.request_id = named or random_bytes().hex()

    def said(self, name: str) -> str | None:
        """A text that a middleware of the host has put into `request.state.workflow_context`."""
        said = self.scope.get("state", _NOTHING).get("workflow_context")
        if said is None:
            return None
        text = said.get(name) if isinstance(said, Mapping) else None
        return text if isinstance(text, str) else None

    def _named_by_host(self) -> str | None:
        """The id that the host gave the request, so that the answer, the run and the audit log have the same one."""
        named = self.said("request_id")
        return named if named is not None and named.isascii() and _visible(named.encode()) else None

    def _named_by_client(self) -> str | None:
        given = self.headers.get(b"x-request-id", b"")
        return given.decode() if _visible(given) else None

    def header(self, name: bytes) -> str:
        """A header's value, empty when it was not sent. The name in lower case."""
        value = self.headers.get(name)
        return "" if value is None else value.decode("latin-1")

    @property
    def traceparent(self) -> str | None:
        """The caller's place in a trace (W3C Trace Context); None when it sent none, or none that is well formed."""
        given = self.headers.get(b"traceparent")
        if given is None:
            return None
        text = given.decode("latin-1")
        found = _TRACEPARENT.fullmatch(text)
        if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
            return None
        return text if found["trace"].strip("0") and found["parent"].strip("0") else None

    @property
    def client(self) -> str | None:
        """The address the request came from."""
        client = self.scope.get("client")
        return str(client[0]) if client else None

    @property
    def request(self) -> Request:
        """The request as Starlette shows it, for the functions of the host."""
        if self.seen is None:
            self.seen = Request(self.scope, self.receive)
        return self.seen

    @property
    def instance(self) -> str:
        """The path that the client used, as a URI reference, cut when it is very long."""
        whole = (self.prefix + self.path).lstrip("/")
        return "/" + quote(whole[:1_000], safe="/" + _SEGMENT_SAFE, errors="replace")

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
