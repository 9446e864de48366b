"""The thread that says that this process lives, and sees who of the others does not: its lock, its heartbeat.

It has a connection of its own. The lock belongs to that connection, so the server frees it when the process ends.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import psycopg

from ..errors import StoreUnavailable, StoreUnusable
from .postgres_link import Connection, Link, said
from .postgres_peers import Peer, Peers
from .postgres_sql import BEAT, BURY, LOCK, LOOK
from .postgres_writer import TERMINATE, backend_of

logger = logging.getLogger("agentmap_asgi.stores")

GLANCE: Final = 0.2
"""Seconds between two looks at the others."""
BURIAL: Final = 600.0
"""Seconds between two looks for those that are long gone."""


class Keeper:
    """What the thread knows."""

    def __init__(self, link: Link, namespace: str, source: str | None, lease: float) -> None:
        self.process = f"{os.getpid()}-{secrets.token_hex(8)}"
        self.dead: frozenset[str] = frozenset()
        """Processes that have died, as far as is known; none while the server cannot be asked."""
        self.others: tuple[Peer, ...] = ()
        self.forgotten: Callable[[], None] = lambda: None
        """Called when this process was forgotten by the others and is known again."""
        self._link = link
        self._about = (self.process, namespace, source, f"{socket.gethostname()}:{os.getpid()}")
        self._lock = int.from_bytes(secrets.token_bytes(8), "big", signed=True)
        self._peers = Peers(lease)
        self._pause = min(lease / 5, 2.0)
        self._connection: Connection | None = None
        self._backend: tuple[int, Any] | None = None
        self._reconnected: float | None = None
        self._beaten = self._buried = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentmap-store-keeper", daemon=True)

    def begin(self) -> None:
        """Be known to the others when it returns. Raises StoreUnavailable or StoreUnusable."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """End the thread. The lock is held on."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _run(self) -> None:
        failing = False
        while not self._ending.wait(GLANCE):
            try:
                self._turn()
            except (psycopg.Error, StoreUnavailable, StoreUnusable) as exc:
                self.dead = frozenset()
                if self._connection is not None:
                    self._connection.close()
                if not failing:
                    failing = True
                    logger.warning("The server of %s does not answer the heartbeat: %s", self._link.shown, said(exc))
            else:
                if failing:
                    failing = False
                    logger.warning("The server of %s answers the heartbeat again", self._link.shown)

    def _turn(self) -> None:
        connection = self._connected()
        now = time.monotonic()
        if now - self._beaten >= self._pause:
            found = connection.execute(BEAT, [*self._about, self._lock]).fetchone()
            if found is not None and found[0]:
                self.forgotten()
            self._beaten = now
        self.others = tuple(Peer(*row) for row in connection.execute(LOOK, [self.process]).fetchall())
        self.dead = self._peers.dead(self.others, time.monotonic(), self._reconnected)
        if self.dead and now - self._buried >= BURIAL:
            self._buried = now
            connection.execute(BURY, [sorted(self.dead)])

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            # What only this thread writes may be lost with the server: it is written again and again.
            connection = self._link.connect(synchronous_commit="off")
            try:
                if self._backend is not None:  # it may hold the lock still
                    connection.execute(TERMINATE, self._backend)
                    self._reconnected = time.monotonic()
                self._backend = backend_of(connection)
                connection.execute(LOCK, [self._lock])
            except BaseException:
                with suppress(psycopg.Error):
                    connection.close()
                raise
            self._connection = connection
            self._beaten = 0.0
        return self._connection
