"""Executions kept in PostgreSQL, which processes on many machines may share.

One thread writes, a few read, one says that the process lives, each with a connection of its own; the event loop never
waits for the server.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, TypeVar
from zlib import crc32

import anyio
import anyio.to_thread
import psycopg

from ..errors import StoreDamaged, StoreUnavailable
from . import postgres_sql as sql
from .columns import Codec
from .jobs import answer
from .postgres_bells import Belfry, LoopBell
from .postgres_columns import PostgresColumns
from .postgres_jobs import Append, Ask, Claim, Create, Do, Write, found
from .postgres_keeper import GLANCE, Keeper
from .postgres_link import Connection, Link, broken, key_of, own_fault, said, told
from .postgres_writer import AGAIN, Queue, Writer, unavailable
from .selecting import selecting
from .store import FINISHED, MOST_VERSIONS, Batch, Bell, Command, Entry, Filter, Row, Runner, Served, Start, Version

T = TypeVar("T")
logger = logging.getLogger("agentmap_asgi.stores")

READERS: Final = 3
"""Connections that read, at most."""
READ_PATIENCE: Final = 3.0
"""Seconds for which a break of the connection is hidden from who reads."""
UNKNOWN_SECONDS: Final = 5.0
"""Seconds for which a claim waits until the others see again that this process lives."""
PRUNED: Final = 50
"""Executions that a transaction forgets."""
A_DAY: Final = 86_400 * 10**9


class _Runner:
    """A runner of this process."""

    def __init__(self, identity: str, closing: Callable[[_Runner], None]) -> None:
        self.id = identity
        self.live = True
        self._closing = closing

    def close(self) -> None:
        if self.live:
            self.live = False
            self._closing(self)


class PostgresStore:
    """One namespace of the tables in a schema of a PostgreSQL database. They are made when they are missing.

    `url` is a `postgresql://` URL, with all that libpq knows. `worker_lease` is after how many seconds without a
    heartbeat a process counts as dead. `source` says which workflows are served; without one nothing is run.
    """

    durable = True
    shared = True
    look = 1.0

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        schema: str = "agentmap",
        source: str | None = None,
        codec: Codec | None = None,
        worker_lease: float = 15.0,
    ) -> None:
        self.namespace = namespace
        self.schema = schema
        self._link = Link(url, schema)
        self.shown = self._link.shown
        """The URL without its password."""
        self._source = source
        self._lease = worker_lease
        self._columns = PostgresColumns(namespace, codec)
        self._gate = threading.Lock()
        """Held while the store is opened and closed, in a thread."""
        self._open = False
        self._writes: Queue = SimpleQueue()
        self._reads: SimpleQueue[Do[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._keeper: Keeper
        self._writer: Writer
        self._bells = Belfry()
        self._runners: dict[str, _Runner] = {}
        self._closed: set[str] = set()
        """Runners that were closed since the store was opened."""
        self._made = 0
        self.deaths = 0
        self._named: set[str] = set()
        """What the log has said of damaged executions."""
        forked = weakref.WeakMethod(self._forked)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: (method := forked()) and method())

    # Opening and closing, in a thread of anyio's.

    async def open(self) -> None:
        await anyio.to_thread.run_sync(self._begin, limiter=anyio.CapacityLimiter(math.inf))

    async def aclose(self) -> None:
        self._open = False
        await anyio.to_thread.run_sync(self._end, limiter=anyio.CapacityLimiter(math.inf))

    def _begin(self) -> None:
        with self._gate:
            if self._open:
                return
            self._link.ready()
            self._keeper = Keeper(self._link, self.namespace, self._source, self._lease)
            self._writer = Writer(self._link, self._writes, self._columns, self._keeper.process)
            self._keeper.forgotten = self._writer.register_again
            self._keeper.heard = self._bells.heard
            self._keeper.buried = self._mourn
            self._writer.committed = self._tell
            self._keeper.begin()
            self._made = 0
            self._closed = set()
            self._threads = [
                threading.Thread(target=self._writer.run, name="agentmap-store-writer", daemon=True),
                *(
                    threading.Thread(target=self._read_on, name="agentmap-store-reader", daemon=True)
                    for _ in range(READERS)
                ),
            ]
            for thread in self._threads:
                thread.start()
            self._warn()
            self._open = True

    def _warn(self) -> None:
        for other in self._keeper.others:
            if (
                other.id not in self._keeper.dead
                and other.namespace == self.namespace
                and None not in (other.source, self._source)
                and other.source != self._source
            ):
                logger.warning(
                    "The store %s is in use for the namespace %r with the workflows of %r too; if these here are not "
                    "the same, give them one of their own (the setting `namespace`)",
                    self.shown, self.namespace, other.source,
                )  # fmt: skip
                return

    def _end(self) -> None:
        with self._gate:
            self._open = False
            for runner in self._runners.values():
                runner.live = False
            self._runners.clear()
            if not self._threads:
                return
            self._keeper.stop()
            for _ in range(READERS):
                self._reads.put(None)
            self._writes.put(None)
            for thread in self._threads:
                thread.join()
            self._threads = []
            self._keeper.close()

    def _forked(self) -> None:
        """In a child process: nothing of this is its own."""
        self._open = False
        self._threads = []
        self._runners = {}

    def _tell(self, jobs: Sequence[Write[Any]]) -> None:
        """Let other processes know what was committed; in the writer's thread."""
        if self._keeper.others:
            self._keeper.tell(topic for job in jobs if job.error is None for topic in job.topics())

    def _mourn(self) -> None:
        """Let the runners here know that a process has died; in the keeper's thread."""
        self.deaths += 1
        self._bells.heard(list(self._runners))

    # Jobs, given on the event loop.

    def _write(self, job: Write[T]) -> asyncio.Future[T]:
        if self._open:
            self._writes.put(job)
        else:
            job.future.set_exception(StoreUnavailable("The store is closed"))
        return job.future

    def create(self, start: Start) -> Awaitable[Row | None]:
        return self._create(start) if self._keeper.known or not self._open else self._create_known(start)

    def _create(self, start: Start) -> asyncio.Future[Row | None]:
        return self._write(Create(asyncio.get_running_loop(), start))

    async def _create_known(self, start: Start) -> Row | None:
        await self._known()
        return await self._create(start)

    async def _known(self) -> None:
        """Return when the others count this process as alive; else they would take from it what it takes on."""
        until = time.monotonic() + UNKNOWN_SECONDS
        while not self._keeper.known:
            if time.monotonic() >= until:
                raise StoreUnavailable(
                    "The other processes do not see that this one lives; it takes nothing on just now"
                )
            await asyncio.sleep(GLANCE)

    def append(self, batch: Batch) -> Awaitable[bool]:
        return self._write(Append(asyncio.get_running_loop(), batch))

    def _change(
        self, function: Callable[[Connection], T], execution: str = "", topics: Sequence[str] = ()
    ) -> asyncio.Future[T]:
        return self._write(Do(asyncio.get_running_loop(), function, execution, topics))

    def _read(self, function: Callable[[Connection], T], execution: str = "") -> asyncio.Future[T]:
        job = Do(asyncio.get_running_loop(), function, execution)
        if self._open:
            self._reads.put(job)
        else:
            job.future.set_exception(StoreUnavailable("The store is closed"))
        return job.future

    # A reader's thread.

    def _read_on(self) -> None:
        connection: Connection | None = None
        while (job := self._reads.get()) is not None:
            end = time.monotonic() + READ_PATIENCE
            while True:
                try:
                    if connection is None or connection.closed:
                        connection = self._link.connect()
                    job.value = job.run(connection)
                    break
                except BaseException as exc:
                    if own_fault(exc):
                        job.error = told(exc)
                        break
                    if not broken(connection, exc) or time.monotonic() >= end:
                        job.error = unavailable("read", exc)
                        logger.warning("The store %s cannot be read: %s", self.shown, said(exc))
                        break
                    time.sleep(AGAIN)
            answer([job])
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _rows(self, rows: list[Any]) -> list[Row]:
        """Rows of a list. A damaged one is left out and named in the log, once."""
        able = []
        for columns in rows:
            try:
                able.append(self._columns.row(columns))
            except StoreDamaged as exc:
                if exc.message not in self._named:
                    self._named.add(exc.message)
                    logger.error("%s", exc)
        return able

    def _list(self, query: str, values: Sequence[Any]) -> asyncio.Future[list[Row]]:
        return self._read(lambda connection: self._rows(connection.execute(query, values, binary=True).fetchall()))

    # What is asked.

    async def find(self, execution_id: str) -> Row | None:
        return await self._read(lambda connection: found(connection, self._columns, sql.FIND, execution_id))

    async def find_key(self, key: str) -> Row | None:
        return await self._read(lambda connection: found(connection, self._columns, sql.FIND_KEY, key))

    async def entries(self, execution_id: str, *, after: int = 0, path: str | None = "") -> list[Entry]:
        query = sql.ENTRIES if path is None else sql.ENTRIES_OF_PATH
        values = {"id": execution_id, "after": after, "namespace": self.namespace, "path": path}

        def look(connection: Connection) -> list[Entry]:
            rows = connection.execute(query, values, binary=True).fetchall()
            return [self._columns.entry(execution_id, *row) for row in rows]

        return await self._read(look)

    async def select(self, wanted: Filter) -> list[Row]:
        statuses = ("status = ANY(%s::text[])", (list(wanted.statuses),))
        tag = "tags @> to_jsonb(%s::text)"
        return await self._list(*selecting(sql.BRIEF_NAMES, self.namespace, wanted, "%s", statuses, tag))

    async def claim(
        self, row: Row, runner: Runner, *, status: str = "running", attempt: int | None = None
    ) -> Row | None:
        await self._known()
        values = (status, runner.id, attempt, self.namespace, row.id, row.status, row.runner, row.fence)
        return await self._write(Claim(asyncio.get_running_loop(), values))

    async def stranded(self) -> list[Row]:
        dead = sorted(self._keeper.dead) if self._open else []
        return await self._list(sql.STRANDED, [self.namespace, sorted(self._closed), dead])

    async def due(self, now: int) -> list[Row]:
        return await self._list(sql.DUE, [self.namespace, now])

    async def pinned(self, definition: str) -> str | None:
        def look(connection: Connection) -> str | None:
            row = connection.execute("SELECT text, sum FROM definitions WHERE hash = %s", [definition]).fetchone()
            if row is None:
                return None
            text, total = row
            if crc32(text.encode()) != total:
                raise StoreDamaged(None, f"the checksum of definition {definition} is wrong")
            return str(text)

        return await self._read(look)

    def note(self, served: Sequence[Served]) -> Awaitable[None]:
        def note(connection: Connection) -> None:
            connection.execute(sql.SHARE, [key_of(self.schema, "definitions")])
            connection.execute(sql.ALONE, [key_of(self.schema, "versions")])  # of two that note one, one does
            for one in served:
                newest = connection.execute(sql.NEWEST, [self.namespace, one.graph_id]).fetchone()
                if newest is not None and newest[0] == one.definition:
                    continue
                there = connection.execute("SELECT 1 FROM definitions WHERE hash = %s", [one.definition]).fetchone()
                if there is None:
                    text = one.text()
                    connection.execute(
                        "INSERT INTO definitions (hash, text, sum) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                        [one.definition, text, crc32(text.encode())],
                    )
                connection.execute(sql.NOTE, [self.namespace, one.graph_id, one.definition, one.since])
                old = {"namespace": self.namespace, "graph": one.graph_id, "most": MOST_VERSIONS}
                connection.execute(sql.OLD_VERSIONS, old)

        return self._change(note)

    async def versions(self, graph_id: str) -> list[Version]:
        def look(connection: Connection) -> list[Version]:
            found = connection.execute(sql.VERSIONS, [self.namespace, graph_id]).fetchall()
            return [Version(str(definition), int(since)) for definition, since in found]

        return await self._read(look)

    async def delete(self, execution_id: str) -> bool:
        def delete(connection: Connection) -> bool:
            values = [self.namespace, execution_id, list(FINISHED)]
            if connection.execute(sql.DELETE, values).fetchone() is None:
                return False
            forget(connection, [execution_id])
            return True

        return await self._change(delete, execution_id)

    async def prune(self, before: int, now: int, limit: int = 500) -> int:
        def prune(connection: Connection) -> int:
            with connection.transaction():
                values = [self.namespace, before, list(FINISHED), min(PRUNED, limit - total)]
                names = [name for (name,) in connection.execute(sql.ENDED, values).fetchall()]
                forget(connection, names)
            return len(names)

        def tidy(connection: Connection) -> None:
            # Requests that nobody asks about any more: those that were there at a pruning a day ago.
            connection.execute("DELETE FROM commands WHERE seen < %s", [now - A_DAY])
            connection.execute("UPDATE commands SET seen = %s WHERE seen IS NULL", [now])
            with connection.transaction():  # nobody else may refer to a definition meanwhile
                connection.execute(sql.ALONE, [key_of(self.schema, "definitions")])
                connection.execute(sql.UNREFERENCED)

        total = 0
        while total < limit:
            count = await self._read(prune)
            total += count
            if not count:
                break
        await self._read(tidy)
        return total

    async def durations(self, graph_id: str, limit: int = 200) -> Sequence[tuple[str, int, int]]:
        values = (self.namespace, graph_id, limit)
        return await self._read(lambda connection: connection.execute(sql.DURATIONS, values, binary=True).fetchall())

    # Runners and their requests to each other.

    def runner(self) -> Runner:
        if not self._open:
            raise StoreUnavailable("The store is closed")
        self._made += 1
        runner = _Runner(f"{self._keeper.process}.{self._made}", self._closing)
        self._runners[runner.id] = runner
        self._writer.runners.append(runner.id)
        return runner

    def _closing(self, runner: _Runner) -> None:
        self._runners.pop(runner.id, None)
        self._closed.add(runner.id)
        if self._open:
            self._writes.put(lambda: self._writer.close_runner(runner.id))

    async def ask(self, execution_id: str, kind: str, payload: str) -> int:
        def ask(connection: Connection) -> tuple[int, str | None]:
            values = [execution_id, kind, self._columns.tell(payload), execution_id]
            row = connection.execute(sql.ASK, values).fetchone()
            return (0, None) if row is None else (int(row[0]), row[1])

        return (await self._write(Ask(asyncio.get_running_loop(), ask)))[0]

    async def asked(self, runner: Runner) -> list[Command]:
        def look(connection: Connection) -> list[Command]:
            rows = connection.execute(sql.ASKED, [self.namespace, runner.id], binary=True).fetchall()
            return [Command(n, execution, kind, self._columns.told(text)) for n, execution, kind, text in rows]

        return await self._read(look)

    async def answer(self, number: int, outcome: str) -> None:
        def answer(connection: Connection) -> None:
            text = self._columns.tell(outcome)
            connection.execute("UPDATE commands SET outcome = %s WHERE number = %s AND outcome IS NULL", [text, number])

        await self._change(answer, topics=(str(number),))

    async def outcome(self, number: int) -> str | None:
        def look(connection: Connection) -> str | None:
            row = connection.execute("SELECT outcome FROM commands WHERE number = %s", [number], binary=True).fetchone()
            return None if row is None or row[0] is None else self._columns.told(row[0])

        def forget(connection: Connection) -> None:
            connection.execute("DELETE FROM commands WHERE number = %s", [number])

        said = await self._read(look)
        if said is not None:
            await self._change(forget)
        return said

    async def withdraw(self, number: int) -> bool:
        def withdraw(connection: Connection) -> bool:
            query = "DELETE FROM commands WHERE number = %s AND outcome IS NULL RETURNING number"
            return connection.execute(query, [number]).fetchone() is not None

        return await self._change(withdraw)

    def bell(self, topic: str) -> Bell:
        return LoopBell(self._bells, topic)

    async def generation(self, *, bump: bool = False) -> int:
        name = f"generation {self.namespace}"

        def look(connection: Connection) -> int:
            row = connection.execute(sql.BUMP if bump else sql.GENERATION, [name]).fetchone()
            return 0 if row is None else int(row[0])

        return await (self._change(look) if bump else self._read(look))


def forget(connection: Connection, executions: list[str]) -> None:
    """Delete what executions had besides their rows."""
    for statement in sql.FORGET if executions else ():
        connection.execute(statement, [executions])
