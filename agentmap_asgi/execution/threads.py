"""Worker threads for agents that are plain functions: bounded, also by those that nobody waits for any more."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread


class Threads:
    """At most `most` threads at once. A call that is cancelled keeps its thread, and its place, until it returns."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._places = anyio.CapacityLimiter(most)
        self._unbounded = anyio.CapacityLimiter(math.inf)
        self.abandoned: set[_Work] = set()
        """Calls that were cancelled and still run."""
        self.closing: set[asyncio.Task[None]] = set()
        """Closings of what calls used that were given up."""

    @property
    def in_use(self) -> int:
        return int(self._places.borrowed_tokens)

    async def run(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """`function(argument)` in a thread; whatever it raises, KeyboardInterrupt included, is raised here."""
        work = _Work(self, function, argument)
        await self._places.acquire_on_behalf_of(work)
        try:
            value, error = await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._unbounded)
        except asyncio.CancelledError:
            if work.begin():
                self.free(work)  # it never started, and now never will
            elif not work.over:
                self.abandoned.add(work)
            raise
        if error is not None:
            raise error
        return value

    def left_behind(self, argument: Any, returned: Callable[[], None]) -> bool:
        """Whether a call with this argument was given up and still runs; then `returned` is called when it returns."""
        for work in self.abandoned:
            if work.argument is argument:
                work.left = returned
                return True
        return False

    def free(self, work: _Work) -> None:
        self.abandoned.discard(work)
        self._places.release_on_behalf_of(work)
        if work.left is not None:
            work.left()

    def returned(self, work: _Work) -> None:
        """Called in the thread."""
        with suppress(RuntimeError):  # the loop is closed, and its places with it
            self._loop.call_soon_threadsafe(self.free, work)


class _Work:
    """One call in a thread. Its exception travels as a value: some would end the thread or the event loop."""

    __slots__ = ("_begun", "_function", "_lock", "_threads", "argument", "left", "over")

    def __init__(self, threads: Threads, function: Callable[[Any], Any], argument: Any) -> None:
        self._threads = threads
        self._function = function
        self.argument = argument
        self._lock = threading.Lock()
        self._begun = False
        self.over = False
        self.left: Callable[[], None] | None = None
        """Called on the loop when a call that was given up returns."""

    def begin(self) -> bool:
        """True for the first who asks: the thread that makes the call, or who gives it up before."""
        with self._lock:
            first = not self._begun
            self._begun = True
            return first

    def __call__(self) -> tuple[Any, BaseException | None]:
        if not self.begin():
            return None, None
        try:
            return self._function(self.argument), None
        except BaseException as exc:
            return None, exc
        finally:
            self.over = True
            self._threads.returned(self)
