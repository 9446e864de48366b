"""Time limits for waits that are nearly always over at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Final, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

T = TypeVar("T")

COARSEST: Final = 1.0


class Deadlines:
    """Bounds many waits with one timer, which looks at all of them now and then: a timer for each costs more than the
    wait itself. A wait may take up to a quarter (at most a second) longer than its limit.
    """

    def __init__(self) -> None:
        self._watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
        self._last: tuple[asyncio.AbstractEventLoop, _Watch] | None = None

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` in the current task; TimeoutError when it takes longer."""
        try:
            first = work.send(None)
        except StopIteration as done:  # nothing had to be waited for
            return cast(T, done.value)
        loop = asyncio.get_running_loop()
        last = self._last  # read once: other threads may have loops of their own
        if last is None or last[0] is not loop:
            last = self._last = (loop, self._watches.setdefault(loop, _Watch()))
        watch = last[1]
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101  # a coroutine runs in a task
        watch.begin(task, loop, seconds)
        try:
            return await _Rest(work, first)
        except asyncio.CancelledError:
            if watch.expired(task) and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            watch.until.pop(task, None)


class _Rest(Generic[T]):
    """What is left of a coroutine that was begun: it waits for `first`."""

    __slots__ = ("_first", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], first: Any) -> None:
        self._work = work
        self._first = first

    def __await__(self) -> Generator[Any, Any, T]:
        work, item = self._work, self._first
        try:
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    work.close()
                    raise
                except BaseException as exc:
                    item = work.throw(exc)
                else:
                    item = work.send(sent)
        except StopIteration as done:
            return cast(T, done.value)


class _Watch:
    """The waits of one event loop."""

    __slots__ = ("_busy", "_cancelled", "_ticking", "until")

    def __init__(self) -> None:
        self.until: dict[asyncio.Task[Any], float] = {}
        self._cancelled: set[asyncio.Task[Any]] = set()
        self._busy = False
        self._ticking = False

    def begin(self, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._busy = True
        self.until[task] = loop.time() + seconds
        if not self._ticking:
            self._ticking = True
            self._later(loop, min(COARSEST, seconds / 4))

    def expired(self, task: asyncio.Task[Any]) -> bool:
        if task in self._cancelled:
            self._cancelled.discard(task)
            return True
        return False

    def _later(self, loop: asyncio.AbstractEventLoop, step: float) -> None:
        loop.call_later(step, self._tick, loop, step)

    def _tick(self, loop: asyncio.AbstractEventLoop, step: float) -> None:
        now = loop.time()
        for task, until in list(self.until.items()):
            if until <= now:
                del self.until[task]
                self._cancelled.add(task)
                task.cancel()
        self._ticking = self._busy
        if self._busy:
            self._busy = bool(self.until)
            self._later(loop, step)
