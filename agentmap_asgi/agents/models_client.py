"""The clients of one app and event loop: attempts, fallbacks, and how many requests a provider is sent."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from anyio import to_thread

from ..errors import ConfigError, ModelFailed, ModelUnavailable
from ..providers import Provider as ModelProvider
from ..scopes import Provider
from .models_talk import Question, Reply

if TYPE_CHECKING:
    from .models_sdk import Conversation

MOST_DELAY: Final = 30.0
"""Seconds between two attempts, at most, when the provider does not say how many."""
MOST_PATIENCE: Final = 120.0
"""Seconds that a provider may ask to wait; past it the request is given up, or goes to the fallback."""
EXTRA: Final = "pip install 'agentmap-asgi[llm]'"


class Seat(NamedTuple):
    """A model of a provider, and how it is reached."""

    provider: ModelProvider
    model: str
    key: str | None


class Told(Protocol):
    """What is told about a request while it is made: a Call."""

    def log(self, message: str, **fields: Any) -> None: ...
    def token(self, text: str, *, last: bool = False) -> None: ...
    def again(self) -> None: ...
    def spend(self, **used: int) -> None: ...


class Gate:
    """Lets so many requests at once, and so many in a time, to a provider; none while it wants to be spared."""

    def __init__(self, provider: ModelProvider) -> None:
        self._places = asyncio.Semaphore(provider.concurrency)
        self._window = provider.window
        self._began: deque[float] = deque()
        self._turn = asyncio.Lock()
        self._spared_until = 0.0

    async def __aenter__(self) -> None:
        await self._places.acquire()
        try:
            await self._in_time()
        except BaseException:
            self._places.release()
            raise

    async def __aexit__(self, *exc: object) -> None:
        self._places.release()

    async def _in_time(self) -> None:
        clock = asyncio.get_running_loop().time
        async with self._turn:
            await asyncio.sleep(self._spared_until - clock())
            if self._window is None:
                return
            most, seconds = self._window
            if len(self._began) >= most and (left := self._began[0] + seconds - clock()) > 0:
                await asyncio.sleep(left)
            self._began.append(clock())
            while len(self._began) > most:
                self._began.popleft()

    def spare(self, seconds: float) -> None:
        """The provider wants no request for so long."""
        self._spared_until = max(self._spared_until, asyncio.get_running_loop().time() + seconds)


class Models:
    """Clients by provider, model and key; they are made at the first request and closed with the app."""

    def __init__(self) -> None:
        self._models: dict[Seat, Any] = {}
        self._closers: list[Callable[[], Any]] = []
        self._gates: dict[str, Gate] = {}
        self._trusted: dict[bool, Any] = {}
        self._making = asyncio.Lock()
        self._sdk: Any = None

    async def __aenter__(self) -> Models:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for close in self._closers:
            with suppress(Exception):  # a connection that is broken already
                await close()

    async def conversation(self, question: Question) -> Conversation:
        """What is said begins with the question. Raises ConfigError without the packages."""
        if self._sdk is None:
            async with self._making:
                self._sdk = self._sdk or await to_thread.run_sync(_sdk)
        begun: Conversation = self._sdk.Conversation(question)
        return begun

    async def _model(self, seat: Seat) -> Any:
        if seat not in self._models:
            async with self._making:
                if seat not in self._models:
                    made, close = await to_thread.run_sync(self._make, seat)
                    self._models[seat] = made
                    self._closers.append(close)
        return self._models[seat]

    def _make(self, seat: Seat) -> Any:
        """In a thread."""
        encrypted = not seat.provider.base_url.startswith("http:")
        if encrypted not in self._trusted:
            self._trusted[encrypted] = self._sdk.certificates(seat.provider)
        return self._sdk.model_of(*seat, self._trusted[encrypted])

    async def ask(self, call: Told, seats: list[Seat], question: Question, conversation: Conversation) -> Reply:
        """The reply of the first seat that gives one. Raises the failure of the last: ModelUnavailable, ModelFailed."""
        for number, seat in enumerate(seats, 1):
            try:
                return await self._attempts(call, seat, question, conversation)
            except (ModelUnavailable, ModelFailed) as failure:
                if number == len(seats):
                    raise
                other = seats[number]
                call.log(f"{failure.message}; {other.provider.name}:{other.model} is asked instead")
                call.again()
        raise AssertionError("there is a seat")

    async def _attempts(self, call: Told, seat: Seat, question: Question, conversation: Conversation) -> Reply:
        provider = seat.provider
        gate = self._gates.setdefault(provider.name, Gate(provider))
        model = await self._model(seat)
        delay = provider.delay
        attempt = 1
        while True:
            try:
                async with gate:
                    call.spend(requests=1)
                    on_text = call.token if question.stream else None
                    reply: Reply = await self._sdk.asked(model, provider, question, conversation, on_text)
                call.spend(**reply.used)
            except ModelUnavailable as failure:
                wait = failure.retry_after
                if wait is not None and wait > MOST_PATIENCE:
                    message = f"{failure.message}, and wants {wait:g} s before the next one"
                    raise ModelUnavailable(message, retry_after=wait) from failure
                if attempt >= provider.attempts:
                    raise
                if wait is None:
                    wait = min(delay, MOST_DELAY) * random.uniform(0.75, 1.25)  # noqa: S311  # not all at once
                else:
                    gate.spare(wait)
                call.log(f"{failure.message}; attempt {attempt + 1} of {provider.attempts} in {wait:.3g} s")
                call.again()
            else:
                return reply
            await asyncio.sleep(wait)
            delay *= 2
            attempt += 1


MODELS: Final = Provider("models", "app", Models, enter=True)
"""How the clients are opened: once for an app and its event loop."""


def _sdk() -> Any:
    try:
        return import_module(".models_sdk", __package__)
    except ImportError as exc:
        raise ConfigError(f"The agents for models need the package {exc.name}: {EXTRA}") from exc
