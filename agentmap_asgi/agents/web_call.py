"""One HTTP request of a node: resolved once, sent to the address that was checked, bounded in time and size."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from anyio import to_thread

from ..errors import ConfigError, DataUnusable, NodeTimeout, NotAllowed, RemoteFailed
from ..execution.values import text_of
from . import web_options as web
from .filling import WHOLE, Filling
from .options import is_secret
from .registry import Call, Outcome
from .web_guard import Place, Rules, following, place_of

AGAIN: Final = frozenset({429, 502, 503, 504})
MOVED: Final = frozenset({301, 302, 303, 307, 308})
CREDENTIALS: Final = frozenset({"authorization", "cookie", "idempotency-key"})
MOST_PAUSE: Final = 60.0
Resolve = Callable[[str, int], Awaitable[list[str]]]


class Request(NamedTuple):
    method: str
    place: Place
    headers: dict[str, str]
    content: bytes | None
    private: frozenset[str]
    """Headers, in lower case, that are for the first host only."""


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, by the machine's resolver. Raises RemoteFailed."""
    import socket

    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise RemoteFailed(f"The name {host} cannot be resolved: {exc.strerror}") from None
    return [str(entry[4][0]) for entry in found]


class Web:
    """What the requests of one service share: what is allowed, the bounds, and whom TLS trusts."""

    def __init__(
        self, rules: Rules, *, timeout: float, most: int, authority: str | None = None, resolver: Resolve = resolve
    ) -> None:
        """`timeout` in seconds and `most` in bytes are for one request; `authority` is a file of certificates."""
        try:
            import httpx2
        except ImportError:
            raise ConfigError("The agent http needs an HTTP client: pip install 'agentmap-asgi[http]'") from None
        self._httpx: Any = httpx2
        self._rules = rules
        self._timeout = timeout
        self._most = most
        self._authority = authority
        self._resolve = resolver
        self._tls: ssl.SSLContext | None = None

    async def run(self, call: Call) -> Any:
        """The agent. Raises NotAllowed, RemoteFailed, NodeTimeout or DataUnusable."""
        options = call.options
        request = _request(call)
        response = await self._tried(request, options["retries"], options["redirects"])
        fine = response.status < 400
        if not fine and options["fail_on_status"]:
            raise RemoteFailed(f"{request.place.shown} answered {response.status}")
        body = _body(response, options["answer"])
        if options["result"] == "body":
            return Outcome(body, fine)
        return Outcome({"status": response.status, "headers": response.headers, "body": body}, fine)

    async def _tried(self, request: Request, retries: int, redirects: int) -> Response:
        """The answer, after as many further attempts as are allowed. What may have been done is not done again."""
        for attempt in range(retries + 1):
            last = attempt == retries
            pause = random.uniform(0.5, 1.0) * 2**attempt / 2  # noqa: S311  # spreads retries, hides nothing
            try:
                async with asyncio.timeout(self._timeout):
                    response = await self._followed(request, redirects)
            except TimeoutError:
                if last or request.method not in web.REPEATABLE:
                    raise NodeTimeout(f"{request.place.shown} took longer than {self._timeout:g} s") from None
            except RemoteFailed as exc:
                if last or not (exc.unsent or request.method in web.REPEATABLE):
                    raise
            else:
                again = response.status in AGAIN and (request.method in web.REPEATABLE or response.status in (429, 503))
                if last or not again:
                    return response
                pause = max(pause, _asked_pause(response.headers))
            await asyncio.sleep(min(pause, MOST_PAUSE))
        raise AssertionError("an attempt returns or raises")  # pragma: no cover

    async def _followed(self, request: Request, redirects: int) -> Response:
        while True:
            response = await self._sent(request)
            location = response.headers.get("location")
            if response.status not in MOVED or location is None or not redirects:
                return response
            redirects -= 1
            request = _redirected(request, following(request.place, location), response.status)

    async def _sent(self, request: Request) -> Response:
        """One request, after its place and all addresses of its host were checked."""
        place, httpx = request.place, self._httpx
        self._rules.check(place)
        literal = place.address
        found = [str(literal)] if literal is not None else await self._resolve(place.host, place.port)
        addresses = self._rules.check_addresses(place, found)
        if place.scheme == "https" and self._tls is None:
            self._tls = await to_thread.run_sync(self._trust)
        # A client of its own: a kept connection would belong to an address, and could serve another name there.
        client = httpx.AsyncClient(
            verify=self._tls or False, trust_env=False, follow_redirects=False, timeout=self._timeout
        )
        async with client:
            for number, address in enumerate(addresses, 1):
                url = httpx.URL(
                    scheme=place.scheme, host=address, port=place.port, raw_path=place.target.encode("ascii")
                )
                more = {"sni_hostname": place.host} if literal is None else {}
                made = client.build_request(
                    *(request.method, url),
                    headers={**request.headers, "Host": place.netloc},
                    content=request.content,
                    extensions={"timeout": httpx.Timeout(self._timeout).as_dict(), **more},
                )
                try:
                    answer = await client.send(made, stream=True)
                except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                    if number == len(addresses):
                        why = str(exc)[:200] or "the connection failed"
                        raise RemoteFailed(f"{place.shown} cannot be reached: {why}", unsent=True) from None
                    continue
                except httpx.HTTPError as exc:
                    raise RemoteFailed(f"{place.shown} did not answer: {_kind(exc)}") from None
                try:
                    return await self._read(answer, place)
                finally:
                    await answer.aclose()
        raise AssertionError("an address is tried or raises")  # pragma: no cover

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._authority)
        except OSError:
            raise ConfigError("http_ca_path names no file of certificates") from None

    async def _read(self, answer: Any, place: Place) -> Response:
        unpacked = _Unpacked(answer.headers.get("content-encoding", ""), self._most)
        try:
            async for chunk in answer.aiter_raw():
                if not unpacked.take(chunk):
                    raise DataUnusable(f"{place.shown} sent more than the {self._most} bytes of http_max_bytes")
            content = unpacked.end()
        except self._httpx.HTTPError as exc:
            raise RemoteFailed(f"{place.shown} broke off its answer: {_kind(exc)}") from None
        except zlib.error:
            raise DataUnusable(f"{place.shown} sent a body that is not {unpacked.encoding}") from None
        headers: dict[str, str] = {}
        for name, value in answer.headers.multi_items():
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        return Response(answer.status_code, headers, content)


class _Unpacked:
    """A body piece by piece, unpacked no further than it may be."""

    def __init__(self, encoding: str, most: int) -> None:
        self.encoding = encoding.strip().lower()
        self._most = most
        self._out = bytearray()
        if self.encoding not in ("", "identity", "gzip", "deflate"):
            raise DataUnusable(f"An answer came in the encoding {self.encoding[:20]!r}, which was not asked for")
        self._unpack = zlib.decompressobj(47) if self.encoding in ("gzip", "deflate") else None

    def take(self, chunk: bytes) -> bool:
        """Whether it is still small enough."""
        if self._unpack is None:
            self._out += chunk
        else:
            self._out += self._unpack.decompress(chunk, self._most + 1 - len(self._out))
            if self._unpack.unconsumed_tail:
                return False
        return len(self._out) <= self._most

    def end(self) -> bytes:
        return bytes(self._out)


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__


# What is sent.


def _request(call: Call) -> Request:
    """The request that a row describes, filled in. Raises NotAllowed."""
    filling, options = Filling(call), call.options
    given = call.node.options
    written = str(given.get("url") or call.node.prompt).strip()
    url = filling(written, _encoded) if WHOLE.fullmatch(written) is None else text_of(filling(written))
    if options.get("path") is not None:
        path = filling(str(given["path"]), _encoded)
        url = f"{url.rstrip('/')}/{path.lstrip('/')}"
    query = _pairs(filling.option(web.QUERY) or {})
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query, quote_via=quote)
    headers: dict[str, str] = {}
    private = set(CREDENTIALS)
    for name, value in (filling.option(web.HEADERS) or {}).items():
        if name.strip().casefold() in web.KEPT:
            raise NotAllowed(f"The header {name} is not for a row to say")
        if value is not None:
            headers[name.strip()] = text_of(value)
    raw = given.get(web.HEADERS.name)
    private |= {name.strip().casefold() for name, value in (raw or {}).items() if is_secret(value)}
    bearer, basic = filling.option(web.BEARER), filling.option(web.BASIC)
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    elif basic is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(str(basic).encode()).decode()
    content = _content(filling, headers)
    method = options["method"]
    if method not in web.REPEATABLE:
        _default(headers, "Idempotency-Key", call.idempotency_key)
    _default(headers, "User-Agent", "agentmap-asgi")
    _default(headers, "Accept", "application/json, text/*;q=0.9, */*;q=0.1")
    headers["Accept-Encoding"] = "gzip, identity"
    for name, value in headers.items():
        if not name.isascii() or any(sign in name + value for sign in "\r\n\0"):
            raise NotAllowed(f"The header {name!r} holds a sign that no header may have")
    sent = {name: value.encode("utf-8").decode("latin-1") for name, value in headers.items()}
    hidden = is_secret(written) or is_secret(given.get("path"))
    return Request(method, place_of(url, hidden=hidden), sent, content, frozenset(private))


def _encoded(text: str) -> str:
    """A field inside a URL: one part of it, never more."""
    return "%2E" * len(text) if text in (".", "..") else quote(text, safe="")


def _pairs(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not isinstance(query, dict):
        raise NotAllowed("query is no object")
    return [
        (name, text_of(one))
        for name, value in query.items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None
    ]


def _content(filling: Filling, headers: dict[str, str]) -> bytes | None:
    form, body = filling.option(web.FORM), filling.option(web.BODY)
    if form is not None:
        _default(headers, "Content-Type", "application/x-www-form-urlencoded")
        return urlencode(_pairs(form)).encode("ascii")
    if body is None:
        return None
    if isinstance(body, str):
        _default(headers, "Content-Type", "text/plain; charset=utf-8")
        return body.encode("utf-8")
    _default(headers, "Content-Type", "application/json")
    return json.dumps(body, ensure_ascii=False).encode("utf-8")


def _default(headers: dict[str, str], name: str, value: str) -> None:
    if name.casefold() not in {known.casefold() for known in headers}:
        headers[name] = value


def _redirected(request: Request, place: Place, status: int) -> Request:
    """The request that a redirect means; another host gets no credentials."""
    method, content, headers = request.method, request.content, dict(request.headers)
    if status == 303 or (status in (301, 302) and method == "POST"):
        method, content = ("HEAD" if method == "HEAD" else "GET"), None
        headers = {name: value for name, value in headers.items() if not name.casefold().startswith("content-")}
    if place.origin != request.place.origin:
        headers = {name: value for name, value in headers.items() if name.casefold() not in request.private}
    return Request(method, place, headers, content, request.private)


# What comes back.


def _asked_pause(headers: Mapping[str, str]) -> float:
    """Seconds of Retry-After, when it is a number."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isdecimal() and len(text) < 6 else 0.0


def _body(response: Response, answer: str) -> Any:
    """The body as the row wants it. Raises DataUnusable."""
    kind, _, parameters = response.headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    is_json = kind == "application/json" or kind.endswith("+json")
    if answer == "base64":
        return base64.b64encode(response.content).decode()
    if not response.content:
        return None
    if answer == "json" or (answer == "auto" and is_json):
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError):
            raise DataUnusable("The answer is no JSON") from None
    charset = next(
        (part.partition("=")[2].strip(' "') for part in parameters.split(";") if "charset=" in part), "utf-8"
    )
    try:
        return response.content.decode(charset)
    except (LookupError, UnicodeError):
        raise DataUnusable('The answer is no text; {"answer": "base64"} takes it as it is') from None
