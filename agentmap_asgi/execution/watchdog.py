"""Watching that no agent keeps the event loop from turning."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Final

from .performing import Performing

logger = logging.getLogger("agentmap_asgi.execution")


class Watchdog:
    """Warns, with the line, when an agent keeps the event loop from turning.

    A thread asks the loop for a sign of life while agents are awaited, and looks at the loop's stack when none comes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threshold: float) -> None:
        self._loop = loop
        self._threshold = threshold
        self._loop_thread = threading.get_ident()
        self._awaited = 0
        self._asleep = True
        """Its thread waits, or has not begun: it must be woken. Otherwise it will look by itself."""
        self._wake = threading.Event()
        self._beat = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self) -> None:
        self._awaited += 1
        if self._asleep and self._threshold:
            self._asleep = False
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
                self._asleep = True
                if not self._awaited:  # nobody has come meanwhile, who saw it awake
                    self._wake.wait()
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
        inner = frame = sys._current_frames().get(self._loop_thread)
        while frame is not None and frame.f_code not in _CALLED:
            inner, frame = frame, frame.f_back
        if frame is not None and inner is not None:
            node = frame.f_locals["node"]
            where = f"{inner.f_code.co_filename}:{inner.f_lineno}, in {inner.f_code.co_name}"
            logger.warning(
                "The agent of %s/%s (%s) has blocked the event loop for %g s at %s; make it await, or a plain "
                "function, which runs in a thread",
                node.node.graph, node.name, node.agent.name, self._threshold, where,
            )  # fmt: skip


_CALLED: Final = (Performing.called.__code__, Performing.direct.__code__)
