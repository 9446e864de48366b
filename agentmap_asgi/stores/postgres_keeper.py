"""The thread that says that this process lives, sees who of the others does not, and carries news between them.

It has a connection of its own. The lock belongs to that connection, so the server frees it when the process ends. News
are not part of the transactions that they tell of: these would have to wait for each other.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final

import psycopg
from psycopg import errors

from ..errors import StoreUnusable
from .postgres_link import Connection, Link, key_of, said, writer_of
from .postgres_peers import Peer, Peers
from .postgres_sql import BEAT, BURY, CUT_OFF, LOCK, LOOK
from .postgres_writer import TERMINATE, backend_of

logger = logging.getLogger("agentmap_asgi.stores")

GLANCE: Final = 0.1
"""Seconds between two looks at the others."""
SEEN: Final = 3 * GLANCE
"""Seconds after which the others have seen a heartbeat that follows a silence."""
BURIAL: Final = 600.0
"""Seconds between two looks for those that are long gone."""
SPACING: Final = 0.005
"""Seconds between two tellings of news, at the least."""
PAYLOAD: Final = 7_900
"""Bytes of one notification; PostgreSQL takes 7,999."""


class Keeper:
    """What the thread knows."""

    def __init__(self, link: Link, namespace: str, source: str | None, lease: float) -> None:
        self.process = f"{os.getpid()}-{secrets.token_hex(8)}"
        self.dead: frozenset[str] = frozenset()
        """Processes that have died, as far as is known; none while the server cannot be asked."""
        self.others: tuple[Peer, ...] = ()
        self.forgotten: Callable[[], None] = lambda: None
        """Called when this process was forgotten by the others and is known again."""
        self.heard: Callable[[Sequence[str]], None] = lambda topics: None
        """Called with the topics of which others have news."""
        self.buried: Callable[[], None] = lambda: None
        """Called when one more of the others has died."""
        self._link = link
        self._news: deque[str] = deque()
        self._told = 0.0
        self._channel = f"agentmap_{key_of(link.schema, namespace) & (2**64 - 1):x}"
        self._about = (self.process, namespace, source, f"{socket.gethostname()}:{os.getpid()}")
        self._lock = int.from_bytes(secrets.token_bytes(8), "big", signed=True)
        self._peers = Peers(lease)
        self._lease = lease
        self._heard_of, self._known_from = time.monotonic(), 0.0
        """When the last heartbeat was written, and when the others know of the first one after a silence or a break."""
        self._pause = min(lease / 5, 2.0)
        self._connection: Connection | None = None
        self._backend: tuple[int, Any] | None = None
        self._reconnected: float | None = None
        self._beaten = self._buried = 0.0
        self._ending = self._hurried = self._greeted = False
        self._woken, self._waking = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waking, False)
        self._thread = threading.Thread(target=self._run, name="agentmap-store-keeper", daemon=True)

    @property
    def known(self) -> bool:
        """The others know that this process lives. What it takes on else, they would take from it at once."""
        return self._known_from <= time.monotonic() < self._heard_of + self._lease

    def begin(self) -> None:
        """Be known to the others when it returns. Raises StoreUnusable."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """End the thread. The lock is held on."""
        self._ending = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        os.close(self._woken)
        os.close(self._waking)

    def tell(self, topics: Iterable[str]) -> None:
        """Let the other processes know. From any thread."""
        if self.others:
            self._news.extend(topics)
            self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._waking, b".")

    def _run(self) -> None:
        failing = False
        while not self._ending:
            try:
                self._wait(GLANCE)
                self._turn()
            except (psycopg.Error, StoreUnusable) as exc:
                self.dead = frozenset()
                if self._connection is not None:
                    self._connection.close()
                if not failing:
                    failing = True
                    logger.warning("The server of %s does not answer the heartbeat: %s", self._link.shown, said(exc))
            except Exception:  # without this thread the process would count as dead
                logger.exception("Looking after the other processes failed")
                time.sleep(GLANCE)
            else:
                if failing:
                    failing = False
                    logger.warning("The server of %s answers the heartbeat again", self._link.shown)

    def _wait(self, seconds: float) -> None:
        """Until it is time to look at the others; meanwhile news are told and heard."""
        end = time.monotonic() + seconds
        self._hurried = False
        while not (self._ending or self._hurried) and (left := end - time.monotonic()) > 0:
            there = self._connection is not None and not self._connection.closed
            pause = max(0.0, self._told + SPACING - time.monotonic()) if self._news else left
            sources: list[Any] = [] if self._news else [self._woken]
            if there:
                sources.append(self._connection)
            ready = _readable(sources, min(pause, left))
            if self._woken in ready:
                with suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            if self._connection is None or not there:
                self._news.clear()
                continue
            if self._connection in ready:
                self._hear(self._connection)
            if self._news and time.monotonic() >= self._told + SPACING:
                self._told = time.monotonic()
                for payload in _payloads(self._news):
                    self._connection.execute("SELECT pg_notify(%s, %s)", [self._channel, payload])
                self._hear(self._connection)

    def _hear(self, connection: Connection) -> None:
        mine = connection.info.backend_pid
        for note in connection.notifies(timeout=0):
            if note.pid != mine:
                self._hurried = self._hurried or not self.others  # somebody has just come
                with suppress(ValueError):
                    self.heard([str(topic) for topic in json.loads(note.payload)])

    def _turn(self) -> None:
        connection = self._connected()
        now = time.monotonic()
        if now - self._beaten >= self._pause:
            found = connection.execute(BEAT, [*self._about, self._lock]).fetchone()
            if found is not None and found[0]:
                self.forgotten()
            if now - self._heard_of >= self._lease or self._known_from == inf:
                self._known_from = time.monotonic() + SEEN  # that may have taken long
            self._beaten = self._heard_of = now
        if not self._greeted:
            self._greeted = True
            connection.execute("SELECT pg_notify(%s, '[]')", [self._channel])
        self.others = tuple(Peer(*row) for row in connection.execute(LOOK, [self.process]).fetchall())
        dead = self._peers.dead(self.others, time.monotonic(), self._reconnected)
        new = dead - self.dead
        if new:  # the rows of a transaction that they have begun, and stand still in, are for those who go on
            with suppress(errors.InsufficientPrivilege):  # of another role; then `lock_timeout` bounds the wait
                connection.execute(CUT_OFF, [[writer_of(process) for process in new]])
        self.dead = dead
        if new:
            self.buried()
        if self.dead and now - self._buried >= BURIAL:
            self._buried = now
            connection.execute(BURY, [sorted(self.dead)])
        self._hear(connection)  # what came with the answers

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            # What only this thread writes may be lost with the server: it is written again and again.
            connection = self._link.connect(synchronous_commit="off")
            try:
                if self._backend is not None:  # it may hold the lock still
                    connection.execute(TERMINATE, self._backend)
                    self._reconnected = time.monotonic()
                    self._known_from = inf
                self._backend = backend_of(connection)
                connection.execute(LOCK, [self._lock])
                connection.execute(f"LISTEN {self._channel}".encode())
                self._greeted = False
            except BaseException:
                with suppress(psycopg.Error):
                    connection.close()
                raise
            self._connection = connection
            self._beaten = 0.0
        return self._connection


def _readable(sources: list[Any], seconds: float) -> list[Any]:
    """Those that can be read. `select.select` knows no files whose numbers are beyond 1,023."""
    with selectors.DefaultSelector() as selector:
        for source in sources:
            selector.register(source, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(max(seconds, 0.0))]


def _payloads(news: deque[str]) -> Iterator[str]:
    """All topics, each once, in as few texts as they fit in."""
    topics: dict[str, None] = {}
    with suppress(IndexError):
        while True:
            topics[news.popleft()] = None
    some: list[str] = []
    size = 2
    for topic in topics:
        length = len(json.dumps(topic)) + 2
        if some and size + length > PAYLOAD:
            yield json.dumps(some)
            some, size = [], 2
        if size + length <= PAYLOAD:  # one that is longer than any id is not told of
            some.append(topic)
            size += length
    if some:
        yield json.dumps(some)
