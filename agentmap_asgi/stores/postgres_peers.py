"""Which of the processes that share a store have died: decided from what the server says of them, without asking it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

GRACE: Final = 0.3
"""Seconds without its lock after which a process is dead: one whose connection broke off is back sooner."""


class Peer(NamedTuple):
    """Another process, as the server sees it."""

    id: str
    silent: float
    """Seconds since its last heartbeat."""
    locked: bool
    """It holds its lock: its connection is there."""
    up: float
    """Seconds since the server has started."""
    namespace: str
    source: str | None


class Peers:
    """What one process knows of the others. Times are those of its own monotonic clock, in seconds.

    After `lease` seconds without a heartbeat a process counts as dead, whatever its lock says; without its lock after
    GRACE. When the server was not there for anybody, or not for us, everybody gets the whole lease to come back.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._missing: dict[str, float] = {}
        """Since when a process has been seen without its lock."""

    def dead(self, peers: Iterable[Peer], now: float, reconnected: float | None) -> frozenset[str]:
        """The ids of those that have died. `reconnected` is when our own connection was made anew, if it ever was."""
        found = set()
        missing = {}
        for peer in peers:
            calm = peer.up if reconnected is None else min(peer.up, now - reconnected)
            if not peer.locked:
                missing[peer.id] = self._missing.get(peer.id, now)
                if now - missing[peer.id] >= (GRACE if calm >= self._lease else self._lease):
                    found.add(peer.id)
            if min(peer.silent, calm) >= self._lease:
                found.add(peer.id)
        self._missing = missing
        return frozenset(found)
