"""Where executions live: one for each event loop, with its slots, its threads and its watch over blocked loops."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import Overloaded, ShuttingDown
from ..scopes import AppScope
from .executor import Run
from .threads import Threads

logger = logging.getLogger("agentmap_asgi.execution")


class Runtime:
    """The executions of one event loop."""

    def __init__(self, config: AgentMapConfig, context: AgentMapContext, on_ended: Callable[[Run], None]) -> None:
        """`on_ended` is called once for each execution that is terminal."""
        self._on_ended = on_ended
        self.config = config
        self.context = context
        self.loop = asyncio.get_running_loop()
        self.services = AppScope(context)
        self.threads = Threads(self.loop, config.max_threads)
        self.running: set[Run] = set()
        """Executions that hold a slot; sub-workflows run in their parent's."""
        self.leaks: set[asyncio.Task[Any]] = set()
        """Tasks of agents that did not end when they were cancelled."""
        self.stopping = False
        self._queue: deque[Run] = deque()
        self._watchdog = Watchdog(self.loop, config.blocking_threshold)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def admit(self) -> None:
        """Raise Overloaded or ShuttingDown when nothing more can be taken on."""
        if self.stopping:
            raise ShuttingDown()
        if len(self.running) >= self.config.max_running and len(self._queue) >= self.config.max_queued:
            raise Overloaded()

    def submit(self, run: Run) -> None:
        """Start a run, or queue it until a slot is free."""
        if len(self.running) >= self.config.max_running or self._queue:
            run.queued = True
            self._queue.append(run)
        else:
            self.running.add(run)
            run.start()

    def ended(self, run: Run) -> None:
        if run.parent_id is not None:
            return
        self._on_ended(run)
        if run in self.running:
            self.running.discard(run)
            if self._queue:
                self.loop.call_soon(self._start_next)
        elif run in self._queue:
            self._queue.remove(run)

    def _start_next(self) -> None:
        while self._queue and len(self.running) < self.config.max_running:
            run = self._queue.popleft()
            self.running.add(run)
            run.start()

    def leaked(self, task: asyncio.Task[Any], run: Run) -> None:
        if not task.done():
            self.leaks.add(task)
            task.add_done_callback(self.leaks.discard)
            logger.warning("%s: an agent did not end within %g s of its cancellation", run.id, self.config.cancel_grace)

    def watch(self) -> None:
        self._watchdog.enter()

    def unwatch(self) -> None:
        self._watchdog.leave()

    def abandon(self) -> None:
        """The loop has closed under its executions: they are interrupted."""
        self._watchdog.stop()
        for run in [*self.running, *self._queue]:
            run.interrupt()

    async def aclose(self) -> None:
        """Take nothing more on, give what runs `shutdown_grace` seconds, cancel the rest, close app services."""
        self.stopping = True
        queued, self._queue = list(self._queue), deque()
        for run in queued:
            run.cancel()
        going = [self.loop.create_task(run.wait(), context=Context()) for run in self.running]
        if going:
            await asyncio.wait(going, timeout=self.config.shutdown_grace)
        for run in list(self.running):
            run.cancel()
        if going:
            await asyncio.wait(going, timeout=self.config.cancel_grace * 2)
        self._watchdog.stop()
        await self.services.aclose()


class Watchdog:
    """Warns, with the line, when an agent keeps the event loop from turning.

    A thread asks the loop for a sign of life while agents are awaited, and looks at the loop's stack when none comes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threshold: float) -> None:
        self._loop = loop
        self._threshold = threshold
        self._loop_thread = threading.get_ident()
        self._awaited = 0
        self._wake = threading.Event()
        self._beat = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        self._awaited += 1
        if self._awaited == 1 and self._threshold:
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="agentmap-watchdog", daemon=True)
                self._thread.start()

    def leave(self) -> None:
        self._awaited -= 1

    def stop(self) -> None:
        self._stopped.set()
        self._wake.set()
        self._beat.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._threshold / 2):
            if not self._awaited:
                self._wake.clear()
                self._wake.wait(60.0)
                continue
            self._beat.clear()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
            except RuntimeError:  # the loop is closed
                return
            if not self._beat.wait(self._threshold):
                self._warn()
                self._beat.wait()

    def _warn(self) -> None:
        """Name the agent on the loop's stack; what else keeps a loop busy is not ours to report."""
        frame = sys._current_frames().get(self._loop_thread)
        while frame is not None and frame.f_code is not _CALLED:
            inner, frame = frame, frame.f_back
        if frame is not None:
            node = frame.f_locals["node"]
            where = f"{inner.f_code.co_filename}:{inner.f_lineno}, in {inner.f_code.co_name}"
            logger.warning(
                "The agent of %s/%s (%s) has blocked the event loop for %g s at %s; make it await, or a plain "
                "function, which runs in a thread",
                node.node.graph, node.name, node.agent.name, self._threshold, where,
            )  # fmt: skip


_CALLED: Final = Run.called.__code__
