"""Executions kept in one SQLite file, which several processes of a machine may share.

One thread writes, one reads, each with a connection of its own; the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import sqlite3
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar
from zlib import crc32

import anyio
import anyio.to_thread

from ..errors import StoreDamaged, StoreUnavailable, StoreUnusable
from . import schema
from .columns import Codec, Columns
from .files import connect, make, ready
from .jobs import Append, Create, Desk, Do, Job, Note, answer, own_fault, told, unavailable
from .locks import FileLock, RunnerFile, RunnerFiles
from .selecting import selecting
from .store import (
    FINISHED,
    UNFINISHED,
    Batch,
    Bell,
    Command,
    Entry,
    Filter,
    Hourglass,
    Row,
    Runner,
    Served,
    Start,
    Version,
)
from .writer import Queue, Writer

T = TypeVar("T")
logger = logging.getLogger("agentmap_asgi.stores")

PRUNED: Final = 20_000
"""Entries of one execution after the other that a transaction forgets, about."""
A_DAY: Final = 86_400 * 10**9


class _Runner:
    """A runner of this process; its file is locked as long as it lives."""

    def __init__(self, file: RunnerFile, closing: Callable[[RunnerFile], None]) -> None:
        self.id = file.id
        self.file = file
        self.live = True
        self._closing = closing

    def close(self) -> None:
        if self.live:
            self.live = False
            self._closing(self.file)


class SQLiteStore:
    """One namespace of a store file. `source` says which workflows are served: one namespace, one source.

    Without a source nothing is run, and nobody who does is in the way.

    `busy_timeout` is how many seconds a write or a read waits for other processes. The file is made when it is missing;
    whatever else is in its place is refused by `open`.
    """

    durable = True
    shared = False
    look = 0.2
    deaths = 0

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str,
        source: str | None = None,
        codec: Codec | None = None,
        busy_timeout: float = 10.0,
    ) -> None:
        self.path = Path(path)
        self.namespace = namespace
        self._source = source
        self._columns = Columns(namespace, codec)
        self._reading = Columns(namespace, codec)
        self._busy_timeout = busy_timeout
        self._gate = threading.Lock()
        """Held while the store is opened and closed, in a thread."""
        self._open = False
        self._writes: Queue = SimpleQueue()
        self._reads: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection
        self._lock: FileLock
        self._runner_files = RunnerFiles(self.path.with_name(self.path.name + ".runners"))
        self._runners: dict[str, _Runner] = {}
        self._spare: _Runner | StoreUnusable | None = None
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
            if not self._open:
                self._start()
            if self._source is not None and not isinstance(self._spare, _Runner):
                # Made here, so that `runner` has no file to make on the event loop.
                self._spare = self._new_runner()

    def _start(self) -> None:
        ready(self.path)
        try:
            self._lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        except OSError as exc:
            raise StoreUnusable(f"The store {self.path} cannot be locked: {exc.strerror}") from exc
        try:
            with self._lock.turn(self._busy_timeout):
                if not self.path.exists():
                    make(self.path)
                    logger.info("The store %s was made", self.path)
                self._writer = connect(self.path, self._busy_timeout, upgrade=True)
            try:
                self._reader = connect(self.path, self._busy_timeout, checked=False)
                self._reader.execute("PRAGMA query_only = ON")
                desk = Desk(self._writer, self._columns)
                writer = Writer(self.path, self._writes, desk, self._lock, self._busy_timeout)
            except BaseException:
                self._writer.close()
                raise
        except BaseException:
            self._lock.close()
            raise
        self._threads = [
            threading.Thread(target=writer.run, name="agentmap-store-writer", daemon=True),
            threading.Thread(target=self._read_on, name="agentmap-store-reader", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._open = True

    def _end(self) -> None:
        with self._gate:
            self._open = False
            for runner in list(self._runners.values()):
                runner.close()
            self._runners.clear()
            if isinstance(self._spare, _Runner):
                self._spare.close()
            self._spare = None
            if not self._threads:
                return
            self._reads.put(None)
            self._writes.put(None)
            for thread in self._threads:
                thread.join()
            self._threads = []
            self._reader.close()
            # The last one to close a SQLite file copies the log into it, so that is done in turn as well.
            with suppress(StoreUnavailable), self._lock.turn(self._busy_timeout):
                self._writer.close()
            self._writer.close()
            self._lock.close()

    def _forked(self) -> None:
        """In a child process: nothing of this is its own. Open files are let go, so that locks are not held by it."""
        self._open = False
        self._threads = []
        for runner in [*self._runners.values(), *([self._spare] if isinstance(self._spare, _Runner) else [])]:
            runner.live = False
            with suppress(OSError):
                os.close(runner.file.file)
        self._runners = {}
        self._spare = None

    # Jobs, given on the event loop.

    def _write(self, job: Job[T]) -> asyncio.Future[T]:
        if self._open:
            self._writes.put(job)
        else:
            job.future.set_exception(StoreUnavailable("The store is closed"))
        return job.future

    def create(self, start: Start) -> Awaitable[Row | None]:
        return self._write(Create(asyncio.get_running_loop(), start))

    def append(self, batch: Batch) -> Awaitable[bool]:
        return self._write(Append(asyncio.get_running_loop(), batch))

    def _change(self, function: Callable[[sqlite3.Connection], T], execution: str = "") -> asyncio.Future[T]:
        return self._write(Do(asyncio.get_running_loop(), function, execution))

    def _read(self, function: Callable[[sqlite3.Connection], T], execution: str = "") -> asyncio.Future[T]:
        job = Do(asyncio.get_running_loop(), function, execution)
        if self._open:
            self._reads.put(job)
        else:
            job.future.set_exception(StoreUnavailable("The store is closed"))
        return job.future

    # The reader's thread. All is fetched before it is looked at: a half-read answer that an error keeps alive would
    # keep the reader in the past.

    def _read_on(self) -> None:
        desk = Desk(self._reader, self._reading)
        going = True
        while going:
            jobs: list[Job[Any]] = []
            given = self._reads.get()
            try:
                while True:
                    if given is None:
                        going = False
                    else:
                        jobs.append(given)
                        self._look(given, desk)
                        if len(jobs) == 100:
                            break
                    given = self._reads.get_nowait()
            except Empty:
                pass
            answer(jobs)

    def _look(self, job: Job[Any], desk: Desk) -> None:
        try:
            job.value = job.do(desk)
        except BaseException as exc:
            if own_fault(exc):
                job.error = told(exc)
            elif getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                job.error = StoreDamaged(job.execution, str(exc))
            elif isinstance(exc, UnicodeDecodeError):
                job.error = StoreDamaged(job.execution, "it holds texts that are none")
            else:
                job.error = unavailable("read", exc)

    def _rows(self, found: list[Any]) -> list[Row]:
        """Rows of a list. A damaged one is left out and named in the log, once."""
        rows = []
        for columns in found:
            try:
                rows.append(self._reading.row(columns))
            except StoreDamaged as exc:
                if exc.message not in self._named:
                    self._named.add(exc.message)
                    logger.error("%s", exc)
        return rows

    def _list(self, query: str, values: list[Any]) -> asyncio.Future[list[Row]]:
        return self._read(lambda connection: self._rows(connection.execute(query, values).fetchall()))

    def _one(self, query: str, value: str, execution: str = "") -> asyncio.Future[Row | None]:
        def look(connection: sqlite3.Connection) -> Row | None:
            found = connection.execute(query, (self.namespace, value)).fetchone()
            return None if found is None else self._reading.row(found)

        return self._read(look, execution)

    # What is asked.

    async def find(self, execution_id: str) -> Row | None:
        return await self._one(schema.FIND, execution_id, execution_id)

    async def find_key(self, key: str) -> Row | None:
        return await self._one(schema.FIND_KEY, key)

    async def entries(self, execution_id: str, *, after: int = 0, path: str | None = "") -> list[Entry]:
        query = schema.ENTRIES if path is None else schema.ENTRIES_OF_PATH
        values = {"execution": execution_id, "after": after, "namespace": self.namespace, "path": path}

        def look(connection: sqlite3.Connection) -> list[Entry]:
            pieces = [
                self._reading.taken_apart(execution_id, *row) for row in connection.execute(query, values).fetchall()
            ]
            return [entry for piece in pieces for entry in piece if entry.sequence > after]

        return await self._read(look, execution_id)

    async def select(self, wanted: Filter) -> list[Row]:
        statuses = (f"status IN ({', '.join('?' * len(wanted.statuses))})", wanted.statuses)
        tag = "json_valid(tags) AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)"
        return await self._list(*selecting(schema.BRIEF_NAMES, self.namespace, wanted, "?", statuses, tag))

    async def claim(
        self, row: Row, runner: Runner, *, status: str = "running", attempt: int | None = None
    ) -> Row | None:
        values = (status, runner.id, attempt, self.namespace, row.id, row.status, row.runner, row.fence)

        def claim(connection: sqlite3.Connection) -> Row | None:
            if not connection.execute(schema.CLAIM, values).rowcount:
                return None
            return self._columns.row(connection.execute(schema.FIND, (self.namespace, row.id)).fetchone())

        return await self._change(claim, row.id)

    async def stranded(self) -> list[Row]:
        def look(connection: sqlite3.Connection) -> list[Row]:
            runners = [name for (name,) in connection.execute(schema.RUNNERS, (self.namespace,)).fetchall()]
            dead = json.dumps([name for name in runners if not self._alive(str(name))])
            return self._rows(connection.execute(schema.STRANDED, (self.namespace, dead)).fetchall())

        return await self._read(look)

    def _alive(self, identity: str) -> bool:
        mine = self._runners.get(identity)
        return mine.live if mine is not None else self._runner_files.alive(identity)

    async def due(self, now: int) -> list[Row]:
        return await self._list(schema.DUE, [self.namespace, now])

    async def pinned(self, definition: str) -> str | None:
        def look(connection: sqlite3.Connection) -> str | None:
            found = connection.execute("SELECT text, sum FROM definitions WHERE hash = ?", (definition,)).fetchone()
            if found is None:
                return None
            text, total = found
            if not isinstance(text, str) or crc32(text.encode(errors="surrogatepass")) != total:
                raise StoreDamaged(None, f"the checksum of definition {definition} is wrong")
            return text

        return await self._read(look)

    def note(self, served: Sequence[Served]) -> Awaitable[None]:
        return self._write(Note(asyncio.get_running_loop(), served))

    async def versions(self, graph_id: str) -> list[Version]:
        def look(connection: sqlite3.Connection) -> list[Version]:
            found = connection.execute(schema.VERSIONS, (self.namespace, graph_id)).fetchall()
            return [Version(str(definition), int(since)) for definition, since in found]

        return await self._read(look)

    async def delete(self, execution_id: str) -> bool:
        def delete(connection: sqlite3.Connection) -> bool:
            found = connection.execute(
                "SELECT status FROM executions WHERE namespace = ? AND id = ?", (self.namespace, execution_id)
            ).fetchone()
            if found is None or found[0] in UNFINISHED:
                return False
            _forget(connection, execution_id)
            return True

        return await self._change(delete, execution_id)

    async def prune(self, before: int, now: int, limit: int = 500) -> int:
        def prune(connection: sqlite3.Connection) -> tuple[int, bool]:
            values = (self.namespace, before, json.dumps(FINISHED), limit - total)
            count = entries = 0
            for (identity,) in connection.execute(schema.ENDED, values).fetchall():
                if entries >= PRUNED:
                    return count, True
                entries += _forget(connection, identity)
                count += 1
            connection.execute(schema.UNREFERENCED)
            # Requests that nobody asks about any more: those that were there at a pruning a day ago.
            connection.execute("DELETE FROM commands WHERE seen < ?", (now - A_DAY,))
            connection.execute("UPDATE commands SET seen = ? WHERE seen IS NULL", (now,))
            return count, False

        total, more = 0, True
        while more:
            count, more = await self._change(prune)
            total += count
        return total

    async def durations(self, graph_id: str, limit: int = 200) -> Sequence[tuple[str, int, int]]:
        values = (self.namespace, graph_id, limit)
        return await self._read(lambda connection: connection.execute(schema.DURATIONS, values).fetchall())

    # Runners and their requests to each other.

    def runner(self) -> Runner:
        runner, self._spare = self._spare, None
        if runner is None:
            runner = self._new_runner()
        if isinstance(runner, StoreUnusable):
            raise runner
        self._runners[runner.id] = runner
        return runner

    def _new_runner(self) -> _Runner | StoreUnusable:
        about = {"namespace": self.namespace, "source": self._source}
        try:
            file = self._runner_files.make(about)
            for other in self._runner_files.living():
                source = other.get("source")
                if other.get("namespace") == self.namespace and source not in (None, self._source):
                    file.close()
                    return StoreUnusable(
                        f"The store {self.path} is in use for the namespace {self.namespace!r} with the workflows of "
                        f"{str(source)!r}; give these here one of their own (the setting `namespace`)"
                    )
        except OSError as exc:
            return StoreUnusable(f"The store {self.path} cannot be written: {exc}")
        return _Runner(file, self._closing)

    def _closing(self, file: RunnerFile) -> None:
        """Files are the business of the writer's thread; this may be called on an event loop."""

        def close() -> None:
            file.close()
            self._runners.pop(file.id, None)

        self._writes.put(close)

    async def ask(self, execution_id: str, kind: str, payload: str) -> int:
        def ask(connection: sqlite3.Connection) -> int:
            values = (execution_id, kind, self._columns.tell(payload))
            return (
                connection.execute("INSERT INTO commands (execution, kind, payload) VALUES (?, ?, ?)", values).lastrowid
                or 0
            )

        return await self._change(ask)

    async def asked(self, runner: Runner) -> list[Command]:
        def look(connection: sqlite3.Connection) -> list[Command]:
            found = connection.execute(schema.ASKED, (self.namespace, runner.id)).fetchall()
            return [Command(n, execution, kind, self._reading.told(text)) for n, execution, kind, text in found]

        return await self._read(look)

    async def answer(self, number: int, outcome: str) -> None:
        def answer(connection: sqlite3.Connection) -> None:
            text = self._columns.tell(outcome)
            connection.execute("UPDATE commands SET outcome = ? WHERE number = ? AND outcome IS NULL", (text, number))

        await self._change(answer)

    async def outcome(self, number: int) -> str | None:
        def look(connection: sqlite3.Connection) -> str | None:
            found = connection.execute("SELECT outcome FROM commands WHERE number = ?", (number,)).fetchone()
            return None if found is None or found[0] is None else self._reading.told(found[0])

        def forget(connection: sqlite3.Connection) -> bool:
            return connection.execute("DELETE FROM commands WHERE number = ?", (number,)).rowcount > 0

        found = await self._read(look)
        if found is not None:
            await self._change(forget)
        return found

    async def withdraw(self, number: int) -> bool:
        def withdraw(connection: sqlite3.Connection) -> bool:
            query = "DELETE FROM commands WHERE number = ? AND outcome IS NULL"
            return connection.execute(query, (number,)).rowcount > 0

        return await self._change(withdraw)

    def bell(self, topic: str) -> Bell:
        return Hourglass()

    async def generation(self, *, bump: bool = False) -> int:
        name = f"generation {self.namespace}"

        def look(connection: sqlite3.Connection) -> int:
            found = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
            return int(found[0]) if found is not None else 0

        def grow(connection: sqlite3.Connection) -> int:
            return int(connection.execute(schema.BUMP, (name,)).fetchone()[0])

        return await (self._change(grow) if bump else self._read(look))


def _forget(connection: sqlite3.Connection, execution: str) -> int:
    """Delete an execution; the number of its entries."""
    entries = connection.execute("DELETE FROM entries WHERE execution = ?", (execution,)).rowcount
    connection.execute("DELETE FROM commands WHERE execution = ?", (execution,))
    connection.execute("DELETE FROM executions WHERE id = ?", (execution,))
    return entries
