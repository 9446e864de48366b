"""Bells that ring when another process has news. Each belongs to one event loop, and so does what knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary, WeakSet


class LoopBell:
    """One who waits on an event loop."""

    def __init__(self, belfry: Belfry, topic: str) -> None:
        self._belfry = belfry
        self.topic = topic
        self._event = asyncio.Event()
        belfry.add(self)

    def ring(self) -> None:
        self._event.set()

    async def rings(self, seconds: float) -> bool:
        """Wait until it rings, at most so long; then it may ring again."""
        try:
            async with asyncio.timeout(seconds):  # `wait_for` loses a cancellation that comes with the ring (3.11)
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True

    def close(self) -> None:
        self._belfry.remove(self)


class Belfry:
    """All bells of a store."""

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, WeakSet[LoopBell]]] = WeakKeyDictionary()
        """By topic. What belongs to a loop changes on it only; bells that nobody closes vanish by themselves."""

    def add(self, bell: LoopBell) -> None:
        topics = self._loops.setdefault(asyncio.get_running_loop(), {})
        topics.setdefault(bell.topic, WeakSet()).add(bell)

    def remove(self, bell: LoopBell) -> None:
        topics = self._loops.get(asyncio.get_running_loop(), {})
        bells = topics.get(bell.topic)
        if bells is not None:
            bells.discard(bell)
            if not bells:
                del topics[bell.topic]

    def heard(self, topics: Sequence[str]) -> None:
        """There are news. From any thread."""
        for loop, known in list(self._loops.items()):
            if known:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(_ring, known, topics)


def _ring(known: dict[str, WeakSet[LoopBell]], topics: Sequence[str]) -> None:
    for topic in topics:
        for bell in list(known.get(topic, ())):
            bell.ring()
