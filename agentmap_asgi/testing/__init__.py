"""What tests of workflows need: a client with the app's lifespan, scripted agents, a clock that stands still."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..agents.registry import Call

if TYPE_CHECKING:
    import httpx

ASGIApp = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
Message = MutableMapping[str, Any]


class FakeClock:
    """A clock that moves only by `advance`: `AgentMapContext(clock=FakeClock())`."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._wall = round(start * 1e9)
        self._monotonic = 10**9  # no process is that young; 0 means never

    def time_ns(self) -> int:
        return self._wall

    def monotonic_ns(self) -> int:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass, at once. Nothing that sleeps is woken."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._wall += round(seconds * 1e9)
        self._monotonic += round(seconds * 1e9)


class Recorded(NamedTuple):
    """What a scripted agent was given in one call."""

    node: str
    inputs: dict[str, Any]
    prompt: str
    attempt: int


class ScriptedAgent:
    """An agent that follows a list: `agents={"bank": ScriptedAgent({"paid": True}, TimeoutError("slow"))}`.

    Each call takes the next entry: an exception is raised, anything else returned. The last entry is repeated when
    `repeat` is true; otherwise a call past the end raises AssertionError. `calls` holds what the agent was given.
    """

    def __init__(self, *script: Any, repeat: bool = False) -> None:
        self.script = script
        self.repeat = repeat
        self.calls: list[Recorded] = []

    async def __call__(self, call: Call) -> Any:
        self.calls.append(Recorded(call.node.name, copy.deepcopy(call.inputs), call.prompt, call.attempt))
        turn = len(self.calls)
        if self.repeat and self.script:
            turn = min(turn, len(self.script))
        if turn > len(self.script):
            raise AssertionError(f"The script of node {call.node.name!r} has {len(self.script)} entries; call {turn}")
        entry = self.script[turn - 1]
        if isinstance(entry, BaseException) or (isinstance(entry, type) and issubclass(entry, BaseException)):
            raise entry
        return copy.deepcopy(entry)


class AgentMapClient:
    """`async with AgentMapClient(app) as http:` gives an httpx.AsyncClient that calls `app` in this process.

    The app's lifespan runs around it, as under a server: RuntimeError when it fails. Keyword arguments go to
    httpx.AsyncClient.
    """

    def __init__(self, app: ASGIApp, *, base_url: str = "http://test", **options: Any) -> None:
        self._lifespan = _Lifespan(app)
        self._options = {"base_url": base_url, **options}
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> httpx.AsyncClient:
        try:
            import httpx
        except ImportError:
            raise RuntimeError("agentmap_asgi.testing.AgentMapClient needs httpx: pip install httpx") from None
        await self._lifespan.startup()
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(self._lifespan.call), **self._options)
        return self._http

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._http is not None:
                await self._http.aclose()
        finally:
            await self._lifespan.shutdown()


class _Lifespan:
    """One run of an app's lifespan, in a task of its own as under a server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def call(self, scope: Message, receive: Any, send: Any) -> None:
        """The app, with the state its lifespan left."""
        if self._state:
            scope["state"] = dict(self._state)
        await self._app(scope, receive, send)

    async def startup(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        self._task = asyncio.create_task(self._app(scope, self._to_app.get, self._from_app.put))
        if not await self._exchange("startup"):
            self._task.exception()  # the app has no lifespan, and may have said so by raising; servers go on too
            self._task = None

    async def shutdown(self) -> None:
        if self._task is not None:
            await self._exchange("shutdown")
            await self._task

    async def _exchange(self, phase: str) -> bool:
        """Send one lifespan message and wait for the answer; False when the app ends without any."""
        assert self._task is not None  # noqa: S101  # set by startup
        self._to_app.put_nowait({"type": f"lifespan.{phase}"})
        answer = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait((answer, self._task), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            return False
        message = answer.result()
        if message["type"] == f"lifespan.{phase}.failed":
            await asyncio.wait((self._task,))
            raise RuntimeError(f"The app's {phase} failed: {message.get('message', '')}") from self._task.exception()
        return True
