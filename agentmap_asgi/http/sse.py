"""Event streams (Server-Sent Events): the events of an execution as the store has them, and as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import AgentMapError
from ..execution.writing import encode
from ..stores.store import FINISHED
from .exchange import Exchange
from .filtering import filtered
from .leaving import leaving
from .problems import RETRY_AFTER, Refusal, invalid_field
from .replies import no_content

SSE: Final = "text/event-stream"
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""
STALLED: Final = 20.0
"""Seconds a client gets to read what was sent; one that does not comes again."""
CHUNK: Final = 64 * 1024
HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)
RETRY: Final = b"retry: 3000\n\n"
LONGEST_NUMBER: Final = 18

Event = Mapping[str, Any]
Batches = AsyncGenerator[list[dict[str, Any]]]


def told(event: Event, execution_id: str, graph_name: str) -> dict[str, Any]:
    """An event with what a reader needs who sees nothing else."""
    return {
        **event,
        "execution_id": execution_id,
        "graph_name": graph_name,
        "is_terminal": event["event"] in FINISHED,
    }


def formatted(event: Event, data: Any) -> bytes:
    """An event as it is sent; `data` is its JSON value. JSON has no line ends outside its strings, and none in them.

    One that nobody keeps has no number, so that a reader that comes again asks for what follows the last that has.
    """
    sent = b"event: %s\ndata: %s\n\n" % (event["event"].encode(), encode(data))
    return sent if event["sequence"] is None else b"id: %d\n%s" % (event["sequence"], sent)


def comment(text: str) -> bytes:
    """What readers skip."""
    return f": {text}\n\n".encode()


def chunks(parts: Iterable[bytes]) -> list[bytes]:
    """The parts joined, in pieces of about CHUNK bytes."""
    found: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= CHUNK:
            found.append(b"".join(waiting))
            waiting, size = [], 0
    return [*found, b"".join(waiting)] if waiting else found


def number_of(exchange: Exchange) -> int:
    """The number of the last event that the client has: `Last-Event-ID`, else `?after=`."""
    text = exchange.header(b"last-event-id").strip() or exchange.query("after") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER):
        raise invalid_field("", "after", "Last-Event-ID, or after, is the whole number of an event")
    return int(text)


def follows(exchange: Exchange) -> bool:
    """Whether the stream goes on while the execution waits for answers."""
    match exchange.query("follow"):
        case None | "false":
            return False
        case "true":
            return True
    raise invalid_field("", "follow", "follow is true or false")


def refuse_too_many(exchange: Exchange) -> None:
    """Raises Refusal 503 when as many streams are open as may be."""
    if exchange.calls.streams >= exchange.calls.config.max_streams:
        detail = "Too many event streams are open here"
        raise Refusal(503, "too_many_streams", detail, headers={"Retry-After": RETRY_AFTER})


async def event_stream(
    exchange: Exchange,
    execution_id: str,
    graph_name: str,
    after: int,
    follow: bool,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The stream from the event after `after` on. 204 when that was the last: clients of SSE do not come again then."""
    refuse_too_many(exchange)
    batches = exchange.calls.service.stream_batches(execution_id, after=after, follow=follow)
    first: list[dict[str, Any]] | None = await anext(batches, None)
    if first is None:
        return no_content(204, {"Cache-Control": "no-store", **(headers or {})})
    stream = EventStream(exchange, execution_id, graph_name, batches, headers or {})
    await stream.begin(first)
    if exchange.head:
        await batches.aclose()
        head = no_content(200)
        head.raw_headers = stream.raw_headers
        return head
    refuse_too_many(exchange)
    return stream


class EventStream(Response):
    """Sends events until the execution ends or waits, the client goes, the server stops, or the stream is too old."""

    def __init__(
        self,
        exchange: Exchange,
        execution_id: str,
        graph_name: str,
        batches: Batches,
        headers: Mapping[str, str],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self.raw_headers = [*HEADERS, *((k.lower().encode(), v.encode("latin-1")) for k, v in headers.items())]
        self._exchange = exchange
        self._names = execution_id, graph_name
        self._first: list[bytes] = []
        self._batches = batches

    async def begin(self, batch: list[dict[str, Any]]) -> None:
        """Make the first texts, while errors can still be told as such."""
        self._first = [RETRY, *await self._texts(batch)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        calls = self._exchange.calls
        calls.streams += 1
        gone = asyncio.get_running_loop().create_task(_gone(receive))
        try:
            async with aclosing(self._batches):
                await self._stream(send, gone)
        except (OSError, TimeoutError):
            pass  # the client has gone, or does not read
        finally:
            calls.streams -= 1
            gone.cancel()

    async def _stream(self, send: Send, gone: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        calls = self._exchange.calls
        begun = spoken = loop.time()
        farewell = ""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await _send(send, self._first)
        try:
            async for batch in self._batches:
                now = loop.time()
                if gone.done():
                    gone.result()
                    return
                if batch:
                    try:
                        texts = await self._texts(batch)
                    except Exception as exc:  # of the host's filter
                        raise _Unsent(exc) from exc
                    await _send(send, texts)
                    spoken = now
                elif now - spoken >= HEARTBEAT:
                    await _send(send, [comment("still there")])
                    spoken = now
                if leaving(calls.service):
                    farewell = "the server is stopping; come again"
                    break
                if now - begun >= calls.config.max_stream_seconds:
                    farewell = "this stream has been open for long; come again"
                    break
        except AgentMapError:  # deleted meanwhile, or the store does not answer
            farewell = "the execution cannot be read now; come again"
        except _Unsent as exc:
            calls.unexpected(exc.reason, self._exchange.request_id)
            farewell = "something went wrong here"
        if farewell:
            await _send(send, [comment(farewell)])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _texts(self, batch: list[dict[str, Any]]) -> list[bytes]:
        found = []
        for event in batch:
            document = told(event, *self._names)
            found.append(formatted(event, await filtered(self._exchange, document)))
        return found


class _Unsent(Exception):
    """An event could not be shown."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


async def _send(send: Send, parts: Iterable[bytes]) -> None:
    for body in chunks(parts):
        async with asyncio.timeout(STALLED):
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
