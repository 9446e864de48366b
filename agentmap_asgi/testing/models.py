"""A server on this machine that speaks as OpenAI, Anthropic and Google do, and says what a script tells it."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from .protocols import PROTOCOLS, Answer, Protocol

NEVER: Final = sys.maxsize
"""Words after which an answer is cut off that is not."""
MOST_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Says:
    """The model says `text`, word by word when it is streamed. `reason` is `stop` or `length` (it had to end)."""

    text: str
    reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Asks:
    """The model asks for tools: `Asks(("look_up", {"id": 3}))`. Arguments that are a text are sent as they are."""

    calls: tuple[tuple[str, Mapping[str, Any] | str], ...]

    def __init__(self, *calls: tuple[str, Mapping[str, Any] | str]) -> None:
        object.__setattr__(self, "calls", calls)


@dataclass(frozen=True, slots=True)
class Fails:
    """The server refuses with an HTTP status, and says when to come again (`retry_after`, in seconds), or where to
    go (`location`).
    """

    status: int = 500
    retry_after: float | None = None
    message: str = "The server does as it was told"
    location: str = ""


@dataclass(frozen=True, slots=True)
class Hangs:
    """The server says nothing (in a stream, nothing after so many words), until the client goes."""

    text: str = ""
    after: int = 0


@dataclass(frozen=True, slots=True)
class Breaks:
    """The connection ends in the middle of the answer, in a stream after so many words."""

    text: str
    after: int = 1


@dataclass(frozen=True, slots=True)
class Garbles:
    """The answer has the status 200, and is not what the protocol says."""

    body: str = "<html>It works!</html>"


Turn = str | Mapping[str, Any] | list[Any] | Says | Asks | Fails | Hangs | Breaks | Garbles


@dataclass(slots=True)
class Asked:
    """A request that came in."""

    protocol: str
    """`openai`, `anthropic` or `google`."""
    model: str
    system: str
    messages: list[tuple[str, str]]
    """(role, text) of what follows the system message; roles are `user`, `assistant` and `tool`."""
    tools: list[str]
    stream: bool
    headers: dict[str, str]
    body: dict[str, Any]
    gone: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set when the client has closed the connection before the answer was complete."""

    @property
    def user(self) -> str:
        """What the user said last."""
        return next((text for role, text in reversed(self.messages) if role == "user"), "")


class FakeModels:
    """Models without a key: `async with FakeModels("Hello!") as fake: AgentMapConfig(providers=fake.providers())`.

    Each request takes the next entry of the script: a text is what the model says, an object or a list is said as JSON,
    and `Says`, `Asks`, `Fails`, `Hangs`, `Breaks` and `Garbles` are what else may happen. A function is called with the
    request (Asked) and gives one of these. The last entry is repeated when `repeat` is true; otherwise a request past
    the end is refused. Without a script the model says what the user said. `requests` holds what was asked.
    """

    def __init__(self, *script: Turn | Callable[[Asked], Turn], repeat: bool = False) -> None:
        self.script: tuple[Any, ...] = script
        self.repeat = repeat
        self.requests: list[Asked] = []
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = 0
        """The port to listen on; 0 for any that is free."""
        self.url = ""

    async def __aenter__(self) -> FakeModels:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None  # noqa: S101  # set on entry
        self._server.close()
        for writer in self._open.values():
            writer.transport.abort()
        if self._open:
            await asyncio.wait(self._open)

    def providers(self, **more: Any) -> dict[str, dict[str, Any]]:
        """A table for `AgentMapConfig(providers=…)` with an entry for each protocol; keywords go into all of them."""
        return {
            name: {"base_url": self.url + protocol.prefix, "model": f"fake-{name}", **more}
            for name, protocol in PROTOCOLS.items()
        }

    def _turn(self, asked: Asked) -> Turn:
        number = len(self.requests)
        if not self.script:
            return Says(asked.user or asked.system)
        if self.repeat:
            number = min(number, len(self.script))
        if number > len(self.script):
            message = f"The script of FakeModels has {len(self.script)} entries; this is request {number}"
            return Fails(400, message=message)
        turn = self.script[number - 1]
        found: Turn = turn(asked) if callable(turn) else turn
        return found

    # The server.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._open[task] = writer
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # the client has gone, or speaks something else
        finally:
            del self._open[task]
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is over."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        size = int(headers.get("content-length", "0"))
        if size > MOST_BYTES:
            return False
        body = await reader.readexactly(size)
        path = first.split(" ")[1].partition("?")[0]
        for name, protocol in PROTOCOLS.items():
            if protocol.serves(path):
                asked = Asked(name, headers=headers, **protocol.read(path, json.loads(body)))
                self.requests.append(asked)
                return await self._answer(asked, protocol, self._turn(asked), reader, writer)
        await _send(writer, 404, {}, b'{"error": {"message": "There is nothing at this path"}}')
        return True

    async def _answer(
        self,
        asked: Asked,
        protocol: Protocol,
        turn: Turn,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        answer, cut = Answer(""), NEVER
        match turn:
            case Fails(status, retry_after, message, location):
                headers = {"location": location} if location else {}
                if retry_after is not None:
                    whole_seconds = str(math.ceil(retry_after))
                    headers |= {"retry-after": whole_seconds, "retry-after-ms": str(round(retry_after * 1000))}
                await _send(writer, status, headers, json.dumps(protocol.error(status, message)).encode())
                return True
            case Garbles(text):
                await _send(writer, 200, {}, text.encode(), "text/html")
                return True
            case Hangs() | Breaks():
                answer, cut = Answer(turn.text), turn.after
            case Says(text, reason):
                answer = Answer(text, reason=reason)
            case Asks(calls):
                answer = Answer("", calls)
            case _:
                answer = Answer(turn if isinstance(turn, str) else json.dumps(turn, ensure_ascii=False))
        answer = answer._replace(model=asked.model, asked=asked.system.split() + _words(asked.messages))
        watching = asyncio.ensure_future(reader.read(1))  # nothing more is sent before the answer, unless it is the end
        try:
            if asked.stream:
                whole = await self._stream(writer, protocol, answer, cut, watching, asked)
            elif cut == NEVER:
                await _send(writer, 200, {}, json.dumps(protocol.whole(answer)).encode())
                whole = True
            else:
                if isinstance(turn, Breaks):
                    sent = json.dumps(protocol.whole(answer)).encode()
                    writer.write(_head(200, {"content-length": str(len(sent))}) + sent[: len(sent) // 2])
                    await writer.drain()
                whole = False
            if not whole and isinstance(turn, Hangs):
                await watching
                asked.gone.set()
            return whole and not watching.done()
        finally:
            if watching.done():
                asked.gone.set()
            watching.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await watching

    async def _stream(
        self,
        writer: asyncio.StreamWriter,
        protocol: Protocol,
        answer: Answer,
        cut: int,
        watching: asyncio.Future[bytes],
        asked: Asked,
    ) -> bool:
        """Send the answer in pieces; False when it was cut off."""
        words = answer.text.split(" ") if answer.text else []
        pieces = [*words[:1], *(f" {word}" for word in words[1:])]
        writer.write(_head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))
        async for event in _slowly(protocol.pieces(answer, pieces[:cut], cut == NEVER)):
            if watching.done():
                return False
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
        if cut != NEVER:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _slowly(events: Iterable[bytes]) -> AsyncIterator[bytes]:
    for event in events:
        yield event
        await asyncio.sleep(0)


def _words(messages: list[tuple[str, str]]) -> list[str]:
    return [word for _, text in messages for word in text.split()]


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} As told", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send(
    writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str], body: bytes, kind: str = "application/json"
) -> None:
    writer.write(_head(status, {"content-type": kind, "content-length": str(len(body)), **headers}) + body)
    await writer.drain()


async def serve(port: int = 8001) -> None:
    """Serve, until it is cancelled, models that say what the user says."""
    fake = FakeModels()
    fake.port = port
    async with fake:
        table = "\n\n".join(
            f'[providers.{name}]\nbase_url = "{entry["base_url"]}"\nmodel = "{entry["model"]}"'
            for name, entry in fake.providers().items()
        )
        print(f"# Models that say what the user says, until Ctrl+C. Settings that reach them:\n{table}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(*map(int, sys.argv[1:2])))
