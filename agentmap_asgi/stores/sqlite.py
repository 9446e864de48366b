"""Executions kept in one SQLite file, which several processes of a machine may share.

One thread writes, one reads, each with a connection of its own; the event loop never waits for the disk. What was given
while the last commit ran is the next transaction. When something in it cannot be written, the transaction is done again
with a savepoint for each write, so that the others are not harmed.
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
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar
from zlib import crc32

import anyio
import anyio.to_thread

from ..errors import StoreDamaged, StoreUnavailable, StoreUnusable
from . import schema
from .files import connect, make, ready
from .locks import FileLock, RunnerFile, RunnerFiles
from .store import FINISHED, UNFINISHED, Batch, Command, Entry, Filter, Row, Runner, Start

T = TypeVar("T")
logger = logging.getLogger("agentmap_asgi.stores")

FIXED: Final = (3, 51, 3)
"""Older SQLite may damage a file when two processes commit and begin the log anew in the same moment."""
GROUP: Final = 5_000
"""Writes of one transaction, at most."""
CHECKPOINT: Final = 2_000
"""Pages of the log (about) after which they are copied into the file."""
PRUNED: Final = 20_000
"""Entries after which a round of pruning ends."""
A_DAY: Final = 86_400 * 10**9


class Codec(Protocol):
    """Encrypts what is stored. What `decode` cannot read, it raises ValueError for."""

    def encode(self, data: bytes, /) -> bytes: ...
    def decode(self, data: bytes, /) -> bytes: ...


class _Unsuitable(Exception):
    """One of the writes cannot be made: all are made again, one by one."""


class _Healed(tuple[str, ...]):
    """Ids of executions whose failed write the caller knows of by now."""


class _Job(Generic[T]):
    """Something to be done in a thread, and who waits for it."""

    __slots__ = ("error", "execution", "future", "loop", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop, execution: str = "") -> None:
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.execution = execution
        self.value: T | None = None
        self.error: BaseException | None = None

    def prepare(self, sheet: _Sheet) -> None:
        """What can be done before the transaction begins."""

    def do(self, connection: sqlite3.Connection, sheet: _Sheet) -> T:
        raise NotImplementedError


class _Do(_Job[T]):
    __slots__ = ("_function",)

    def __init__(
        self, loop: asyncio.AbstractEventLoop, function: Callable[[sqlite3.Connection], T], execution: str = ""
    ) -> None:
        super().__init__(loop, execution)
        self._function = function

    def do(self, connection: sqlite3.Connection, sheet: _Sheet) -> T:
        sheet.flush(connection)
        return self._function(connection)


class _Create(_Job[Row | None]):
    __slots__ = ("_row", "_start")

    def __init__(self, loop: asyncio.AbstractEventLoop, start: Start) -> None:
        super().__init__(loop, start.id)
        self._start = start

    def prepare(self, sheet: _Sheet) -> None:
        self._row = sheet.values(self._start.row())

    def do(self, connection: sqlite3.Connection, sheet: _Sheet) -> Row | None:
        if not connection.execute(schema.INSERT, self._row).rowcount:
            return sheet.taken(connection, self._start.id, self._start.key)
        pins = self._start.pins()
        if pins:
            sheet.pin(connection, pins)
        return None


class _Append(_Job[bool]):
    __slots__ = ("_batch", "_entries", "_update", "_values")

    def __init__(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        super().__init__(loop, batch.id)
        self._batch = batch

    def prepare(self, sheet: _Sheet) -> None:
        batch = self._batch
        self._update, self._values = sheet.changes(batch)
        self._entries = sheet.entries(batch.id, batch.entries())

    def do(self, connection: sqlite3.Connection, sheet: _Sheet) -> bool:
        if not connection.execute(self._update, self._values).rowcount:
            return False
        sheet.waiting += self._entries
        pins = self._batch.pins()
        if pins:
            sheet.pin(connection, pins)
            connection.executemany(
                "INSERT OR IGNORE INTO pins (execution, definition) VALUES (?, ?)",
                [(self._batch.id, name) for name in pins],
            )
        return True


class _Sheet:
    """How rows and texts become columns, and columns rows. `waiting` are entries that are yet to be written."""

    def __init__(self, namespace: str, codec: Codec | None) -> None:
        self.namespace = namespace
        self.waiting: list[tuple[Any, ...]] = []
        self._codec = codec
        self._updates: dict[tuple[str, ...], str] = {}

    def seal(self, text: str) -> tuple[str | bytes, int]:
        data = text.encode()
        if self._codec is None:
            return text, crc32(data)
        data = self._codec.encode(data)
        return data, crc32(data)

    def unseal(self, execution: str, what: str, value: Any, total: Any, start: int = 0) -> str:
        if isinstance(value, str):
            data, text = value.encode(errors="surrogatepass"), value
            if crc32(data, start) != total:
                raise StoreDamaged(execution, f"the checksum of {what} is wrong")
            return text
        if not isinstance(value, bytes):
            raise StoreDamaged(execution, f"{what} is no text")
        if crc32(value, start) != total:
            raise StoreDamaged(execution, f"the checksum of {what} is wrong")
        if self._codec is None:
            raise StoreDamaged(execution, f"{what} is encoded, and no codec is given")
        try:
            return self._codec.decode(value).decode()
        except Exception as exc:  # the host's code, and it may raise what its library raises
            raise StoreDamaged(execution, f"the codec cannot read {what} ({type(exc).__name__})") from exc

    def tell(self, text: str) -> str | bytes:
        return self.seal(text)[0]

    def told(self, value: Any) -> str:
        data = value.encode() if isinstance(value, str) else bytes(value)
        return self.unseal("", "a request", value, crc32(data))

    def values(self, row: Row) -> list[Any]:
        """All columns, in the order of FULL_NAMES."""
        waits, head = self.seal(row.waits), self.seal(row.head)
        document = (None, None) if row.document is None else self.seal(row.document)
        return [
            row.id, self.namespace, row.graph_id, row.graph_name, row.definition, row.status, row.owner,
            json.dumps(row.tags) if row.tags else "[]", row.created, row.started, row.ended, row.runner, row.fence,
            row.attempt, row.retry_of, row.key, row.key_body, row.sequence, row.steps, row.wake,
            *waits, *head, *document,
        ]  # fmt: skip

    def changes(self, batch: Batch) -> tuple[str, list[Any]]:
        """The UPDATE of a batch and what it is given."""
        changes = batch.changes()
        names = tuple(changes)
        update = self._updates.get(names)
        if update is None:
            update = self._updates[names] = self._update(names)
        values: list[Any] = []
        for name, value in changes.items():
            if name in schema.SEALED:
                values += (None, None) if value is None else self.seal(value)
            elif name == "tags":
                values.append(json.dumps(value))
            else:
                values.append(value)
        values += (batch.id, self.namespace, batch.fence)
        return update, values

    def _update(self, names: tuple[str, ...]) -> str:
        wrong = [name for name in names if name not in schema.CHANGEABLE]
        if wrong:
            raise ValueError(f"An execution's {', '.join(wrong)} cannot be changed by a batch")
        columns = [f"{name} = ?" if name not in schema.SEALED else f"{name} = ?, {name}_sum = ?" for name in names]
        changed = ", ".join(columns) or "fence = fence"
        return f"UPDATE executions SET {changed} WHERE id = ? AND namespace = ? AND fence = ?"

    def entries(self, execution: str, entries: Iterable[Entry]) -> list[tuple[Any, ...]]:
        codec = self._codec
        # The number goes into the checksum, so that a text in the wrong place is found as well.
        if codec is None:
            return [(execution, path, n, text, crc32(text.encode(), n)) for path, n, text in entries]
        rows = []
        for path, n, text in entries:
            data = codec.encode(text.encode())
            rows.append((execution, path, n, data, crc32(data, n)))
        return rows

    def flush(self, connection: sqlite3.Connection) -> None:
        if self.waiting:
            connection.executemany(schema.INSERT_ENTRY, self.waiting)
            self.waiting = []

    def pin(self, connection: sqlite3.Connection, pins: Any) -> None:
        for name in pins:
            if connection.execute("SELECT 1 FROM definitions WHERE hash = ?", (name,)).fetchone() is None:
                text = pins[name]
                connection.execute(
                    "INSERT INTO definitions (hash, text, sum) VALUES (?, ?, ?)", (name, text, crc32(text.encode()))
                )

    def taken(self, connection: sqlite3.Connection, identity: str, key: str | None) -> Row:
        """Why a new execution could not be kept: the one that has its id or its key."""
        found = connection.execute(schema.FIND, (self.namespace, identity)).fetchone()
        if found is None and key is not None:
            found = connection.execute(schema.FIND_KEY, (self.namespace, key)).fetchone()
        if found is None:
            raise ValueError(f"The id {identity} is taken in another namespace")
        return self.row(found)

    def row(self, columns: Sequence[Any]) -> Row:
        """The row of FULL_NAMES or BRIEF_NAMES. Raises StoreDamaged for one that cannot have been written by us."""
        names = schema.COLUMNS if len(columns) == len(schema.COLUMNS) + len(schema.SEALED) else schema.BRIEF
        identity = columns[0] if isinstance(columns[0], str) else repr(columns[0])
        given = iter(columns)
        values: dict[str, Any] = {}
        for name in names:
            value = next(given)
            if name in schema.SEALED:
                total = next(given)
                if value is not None or name != "document":
                    value = self.unseal(identity, f"its {name}", value, total)
            elif name == "tags":
                value = _tags(identity, value)
            elif not _fits(name, value):
                raise StoreDamaged(identity, f"its {name} is {value!r}"[:200])
            values[name] = value
        return Row(**values)


_INTEGERS: Final = {"created", "fence", "attempt", "sequence", "steps"}
_MAYBE_INTEGERS: Final = {"started", "ended", "wake"}
_MAYBE_TEXTS: Final = {"owner", "runner", "retry_of", "key", "key_body"}


def _fits(name: str, value: Any) -> bool:
    if name == "status":
        return value in UNFINISHED or value in FINISHED
    if name in _INTEGERS or name in _MAYBE_INTEGERS:
        return isinstance(value, int) or (value is None and name in _MAYBE_INTEGERS)
    return isinstance(value, str) or (value is None and name in _MAYBE_TEXTS)


def _tags(identity: str, value: Any) -> tuple[str, ...]:
    try:
        tags = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise StoreDamaged(identity, "its tags are no list of texts")
    return tuple(tags)


def _own_fault(exc: BaseException) -> bool:
    """Whether an error comes from what was to be written, and not from the file or the disk."""
    if not isinstance(exc, sqlite3.Error):
        return not isinstance(exc, OSError | MemoryError | StoreUnavailable)
    if isinstance(exc, sqlite3.OperationalError):
        return getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    return isinstance(
        exc,
        sqlite3.IntegrityError
        | sqlite3.DataError
        | sqlite3.InterfaceError
        | sqlite3.ProgrammingError
        | sqlite3.NotSupportedError,
    )


def _error(exc: BaseException) -> BaseException:
    """What a caller is told: sqlite3 stays in this module, and a future cannot carry StopIteration."""
    if isinstance(exc, sqlite3.Error | StopIteration):
        told = ValueError(f"This cannot be written: {exc!r}")
        told.__cause__ = exc
        return told
    return exc


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

    `busy_timeout` is how many seconds a write or a read waits for other processes. The file is made when it is missing;
    whatever else is in its place is refused by `open`.
    """

    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str,
        source: str = "",
        codec: Codec | None = None,
        busy_timeout: float = 10.0,
    ) -> None:
        self.path = Path(path)
        self.namespace = namespace
        self._source = source
        self._sheet = _Sheet(namespace, codec)
        self._reading = _Sheet(namespace, codec)
        self._busy_timeout = busy_timeout
        self._gate = threading.Lock()
        """Held while the store is opened and closed, in a thread."""
        self._open = False
        self._writes: SimpleQueue[_Job[Any] | _Healed | RunnerFile | None] = SimpleQueue()
        self._reads: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection
        self._lock: FileLock
        self._place: tuple[int, int]
        self._runner_files = RunnerFiles(self.path.with_name(self.path.name + ".runners"))
        self._runners: dict[str, _Runner] = {}
        self._spare: _Runner | StoreUnusable | None = None
        self._unsettled: set[str] = set()
        """Executions with a failed write that the caller does not know of yet: what comes after it is not written."""
        self._written = 0
        """Writes since the log was last copied into the file; a transaction counts as a few."""
        self._pages = 1.0
        """Pages of the log that such a write was worth last time."""
        self._failing = False
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
            if not isinstance(self._spare, _Runner):
                # Made here, so that `runner` has no file to make on the event loop.
                self._spare = self._new_runner()

    def _start(self) -> None:
        ready(self.path)
        try:
            self._lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        except OSError as exc:
            raise StoreUnusable(f"The store {self.path} cannot be locked: {exc.strerror}") from exc
        try:
            with self._turn(always=True):
                if not self.path.exists():
                    make(self.path)
                    logger.info("The store %s was made", self.path)
                self._writer = connect(self.path, self._busy_timeout)
            try:
                self._reader = connect(self.path, self._busy_timeout, checked=False)
                self._reader.execute("PRAGMA query_only = ON")
                self._place = _place(self.path)
            except BaseException:
                self._writer.close()
                raise
        except BaseException:
            self._lock.close()
            raise
        self._unsettled.clear()
        self._threads = [
            threading.Thread(target=self._write_on, name="agentmap-store-writer", daemon=True),
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
            with suppress(StoreUnavailable), self._turn(always=True):
                self._checkpoint("TRUNCATE")
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

    def _write(self, job: _Job[T]) -> asyncio.Future[T]:
        if self._open:
            self._writes.put(job)
        else:
            job.future.set_exception(StoreUnavailable("The store is closed"))
        return job.future

    def create(self, start: Start) -> Awaitable[Row | None]:
        return self._write(_Create(asyncio.get_running_loop(), start))

    def append(self, batch: Batch) -> Awaitable[bool]:
        return self._write(_Append(asyncio.get_running_loop(), batch))

    def _change(self, function: Callable[[sqlite3.Connection], T], execution: str = "") -> asyncio.Future[T]:
        return self._write(_Do(asyncio.get_running_loop(), function, execution))

    def _read(self, function: Callable[[sqlite3.Connection], T], execution: str = "") -> asyncio.Future[T]:
        job = _Do(asyncio.get_running_loop(), function, execution)
        if self._open:
            self._reads.put(job)
        else:
            job.future.set_exception(StoreUnavailable("The store is closed"))
        return job.future

    # The writer's thread.

    def _write_on(self) -> None:
        going = True
        while going:
            jobs: list[_Job[Any]] = []
            given = self._writes.get()
            try:
                while True:
                    if isinstance(given, _Job):
                        if not self._unsettled or given.execution not in self._unsettled:
                            jobs.append(given)
                        else:
                            given.error = StoreUnavailable("An earlier write of this execution has failed")
                            _answer([given])
                        if len(jobs) == GROUP:
                            break
                    elif given is None:
                        going = False
                    elif isinstance(given, _Healed):
                        self._unsettled.difference_update(given)
                    else:
                        given.close()
                        self._runners.pop(given.id, None)
                    given = self._writes.get_nowait()
            except Empty:
                pass
            if jobs:
                self._commit(jobs)
                self._answer(jobs)
                if self._written * self._pages >= CHECKPOINT:
                    with suppress(StoreUnavailable), self._turn():
                        self._checkpoint("PASSIVE")

    def _commit(self, jobs: list[_Job[Any]]) -> None:
        able = []
        for job in jobs:
            try:
                job.prepare(self._sheet)
            except BaseException as exc:
                job.error = _error(exc)
            else:
                able.append(job)
        if not able:
            return
        try:
            with self._turn():
                self._present()
                try:
                    self._transact(able)
                except _Unsuitable:
                    self._transact_singly(able)
                self._written += 3 + len(able)
        except Exception as exc:
            if not self._failing:
                self._failing = True
                logger.error("The store %s cannot be written: %s", self.path, exc)
            for job in able:
                if job.error is None:
                    job.error = _unavailable("written", exc)
        else:
            if self._failing:
                self._failing = False
                logger.info("The store %s can be written again", self.path)

    def _transact(self, jobs: list[_Job[Any]]) -> None:
        connection, sheet = self._writer, self._sheet
        sheet.waiting = []
        with self._transaction():
            try:
                for job in jobs:
                    job.value = job.do(connection, sheet)
                sheet.flush(connection)
            except BaseException as exc:
                if _own_fault(exc):
                    raise _Unsuitable from exc
                raise

    def _transact_singly(self, jobs: list[_Job[Any]]) -> None:
        connection, sheet = self._writer, self._sheet
        with self._transaction():
            for job in jobs:
                sheet.waiting = []
                connection.execute("SAVEPOINT one")
                try:
                    job.value = job.do(connection, sheet)
                    sheet.flush(connection)
                except BaseException as exc:
                    if not _own_fault(exc):
                        raise
                    connection.execute("ROLLBACK TO one")
                    job.error = _error(exc)
                connection.execute("RELEASE one")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._writer.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            raise

    @contextmanager
    def _turn(self, *, always: bool = False) -> Iterator[None]:
        """The turn among processes, where SQLite alone does not keep it."""
        if not always and sqlite3.sqlite_version_info >= FIXED:
            yield
            return
        if not self._lock.acquire(self._busy_timeout):
            raise StoreUnavailable("The store is held by another process")
        try:
            yield
        finally:
            self._lock.release()

    def _present(self) -> None:
        """A file that was removed or replaced would take writes that nobody ever reads."""
        try:
            there = _place(self.path)
        except OSError as exc:
            raise StoreUnavailable(f"The store file is gone ({exc.strerror}); start again") from exc
        if there != self._place:
            raise StoreUnavailable("The store file was replaced by another; start again")

    def _checkpoint(self, kind: str) -> None:
        try:
            _, pages, _ = self._writer.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()
        except sqlite3.Error as exc:  # what was committed is safe in the log; the next one may succeed
            logger.debug("The log of the store %s cannot be copied: %s", self.path, exc)
        else:
            if pages > 0 and self._written:
                self._pages = min(max(pages / self._written, 0.1), 10.0)
        self._written = 0

    def _answer(self, jobs: list[_Job[Any]]) -> None:
        failed = {job.execution for job in jobs if job.execution and isinstance(job.error, StoreUnavailable)}
        if not failed:
            _answer(jobs)
            return
        # Until the callers know, what they have given already must not be written after a gap.
        self._unsettled |= failed
        healed = _Healed(failed)
        _answer(jobs, lambda: self._writes.put(healed))

    # The reader's thread.

    def _read_on(self) -> None:
        going = True
        while going:
            jobs: list[_Job[Any]] = []
            given = self._reads.get()
            try:
                while True:
                    if given is None:
                        going = False
                    else:
                        jobs.append(given)
                        self._look(given)
                        if len(jobs) == 100:
                            break
                    given = self._reads.get_nowait()
            except Empty:
                pass
            _answer(jobs)

    def _look(self, job: _Job[Any]) -> None:
        try:
            job.value = job.do(self._reader, self._reading)
        except BaseException as exc:
            if _own_fault(exc):
                job.error = _error(exc)
            elif getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                job.error = StoreDamaged(job.execution, str(exc))
            else:
                job.error = _unavailable("read", exc)

    def _rows(self, found: Iterable[Sequence[Any]]) -> list[Row]:
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
        query = schema.ENTRIES.format(path="" if path is None else "AND path = ?")
        values = (execution_id, after, *(() if path is None else (path,)), self.namespace)

        def look(connection: sqlite3.Connection) -> list[Entry]:
            return [self._entry(execution_id, *found) for found in connection.execute(query, values)]

        return await self._read(look, execution_id)

    def _entry(self, execution: str, path: Any, sequence: Any, text: Any, total: Any) -> Entry:
        if not isinstance(sequence, int) or not isinstance(path, str):
            raise StoreDamaged(execution, f"an entry has the number {sequence!r}"[:200])
        return Entry(path, sequence, self._reading.unseal(execution, f"entry {sequence}", text, total, sequence))

    async def select(self, wanted: Filter) -> list[Row]:
        terms: list[tuple[str, tuple[Any, ...]]] = [("namespace = ?", (self.namespace,))]
        if wanted.graph is not None:
            terms.append(("(graph_id = ? OR graph_name = ?)", (wanted.graph, wanted.graph)))
        if wanted.statuses:
            terms.append((f"status IN ({', '.join('?' * len(wanted.statuses))})", wanted.statuses))
        if wanted.owner is not None:
            terms.append(("owner = ?", (wanted.owner,)))
        if wanted.tag is not None:
            terms.append(("json_valid(tags) AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", (wanted.tag,)))
        if wanted.since is not None:
            terms.append(("created >= ?", (wanted.since,)))
        if wanted.until is not None:
            terms.append(("created < ?", (wanted.until,)))
        if wanted.before is not None:
            terms.append(("(created, id) < (?, ?)", wanted.before))
        query = (
            f"SELECT {schema.BRIEF_NAMES} FROM executions WHERE {' AND '.join(term for term, _ in terms)} "
            "ORDER BY created DESC, id DESC LIMIT ?"
        )
        values = [value for _, some in terms for value in some]
        return await self._read(lambda connection: self._rows(connection.execute(query, (*values, wanted.limit))))

    async def claim(
        self, row: Row, runner: Runner, *, status: str = "running", attempt: int | None = None
    ) -> Row | None:
        values = (status, runner.id, attempt, self.namespace, row.id, row.status, row.runner, row.fence)

        def claim(connection: sqlite3.Connection) -> Row | None:
            if not connection.execute(schema.CLAIM, values).rowcount:
                return None
            return self._sheet.row(connection.execute(schema.FIND, (self.namespace, row.id)).fetchone())

        return await self._change(claim, row.id)

    async def stranded(self) -> list[Row]:
        def look(connection: sqlite3.Connection) -> list[Row]:
            runners = [name for (name,) in connection.execute(schema.RUNNERS, (self.namespace,))]
            dead = json.dumps([name for name in runners if not self._alive(str(name))])
            return self._rows(connection.execute(schema.STRANDED, (self.namespace, dead)))

        return await self._read(look)

    def _alive(self, identity: str) -> bool:
        mine = self._runners.get(identity)
        return mine.live if mine is not None else self._runner_files.alive(identity)

    async def due(self, now: int) -> list[Row]:
        return await self._read(lambda connection: self._rows(connection.execute(schema.DUE, (self.namespace, now))))

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
        def prune(connection: sqlite3.Connection) -> int:
            values = (self.namespace, before, json.dumps(FINISHED), limit)
            old = [identity for (identity,) in connection.execute(schema.ENDED, values)]
            count = entries = 0
            for identity in old:
                entries += _forget(connection, identity)
                count += 1
                if entries >= PRUNED:
                    break
            connection.execute(schema.UNREFERENCED)
            # Requests that nobody asks about any more: those that were there at a pruning a day ago.
            connection.execute("DELETE FROM commands WHERE seen < ?", (now - A_DAY,))
            connection.execute("UPDATE commands SET seen = ? WHERE seen IS NULL", (now,))
            return count

        return await self._change(prune)

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
                if other.get("namespace") == self.namespace and other.get("source") != self._source:
                    file.close()
                    return StoreUnusable(
                        f"The store {self.path} is in use for the namespace {self.namespace!r} with the workflows of "
                        f"{str(other.get('source'))!r}; give these here one of their own (the setting `namespace`)"
                    )
        except OSError as exc:
            return StoreUnusable(f"The store {self.path} cannot be written: {exc}")
        return _Runner(file, self._writes.put)

    async def ask(self, execution_id: str, kind: str, payload: str) -> int:
        def ask(connection: sqlite3.Connection) -> int:
            values = (execution_id, kind, self._sheet.tell(payload))
            return (
                connection.execute("INSERT INTO commands (execution, kind, payload) VALUES (?, ?, ?)", values).lastrowid
                or 0
            )

        return await self._change(ask)

    async def asked(self, runner: Runner) -> list[Command]:
        def look(connection: sqlite3.Connection) -> list[Command]:
            found = connection.execute(schema.ASKED, (self.namespace, runner.id))
            return [Command(n, execution, kind, self._reading.told(text)) for n, execution, kind, text in found]

        return await self._read(look)

    async def answer(self, number: int, outcome: str) -> None:
        def answer(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE commands SET outcome = ? WHERE number = ?", (self._sheet.tell(outcome), number))

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

    async def generation(self, *, bump: bool = False) -> int:
        name = f"generation {self.namespace}"

        def look(connection: sqlite3.Connection) -> int:
            found = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
            return int(found[0]) if found is not None else 0

        def grow(connection: sqlite3.Connection) -> int:
            return int(connection.execute(schema.BUMP, (name,)).fetchone()[0])

        return await (self._change(grow) if bump else self._read(look))


def _place(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _forget(connection: sqlite3.Connection, execution: str) -> int:
    """Delete an execution; the number of its entries."""
    entries = connection.execute("DELETE FROM entries WHERE execution = ?", (execution,)).rowcount
    connection.execute("DELETE FROM commands WHERE execution = ?", (execution,))
    connection.execute("DELETE FROM executions WHERE id = ?", (execution,))
    return entries


def _unavailable(done: str, exc: BaseException) -> StoreUnavailable:
    if isinstance(exc, StoreUnavailable):
        return StoreUnavailable(exc.message)
    error = StoreUnavailable(f"The store cannot be {done} just now: {exc}")
    error.__cause__ = exc
    return error


def _answer(jobs: Iterable[_Job[Any]], then: Callable[[], None] = lambda: None) -> None:
    """Tell who waits, with one call for each loop; `then` is called on one of the loops, when they know."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job[Any]]] = {}
    for job in jobs:
        loops.setdefault(job.loop, []).append(job)
    last = len(loops) - 1
    for number, (loop, some) in enumerate(loops.items()):
        told = then if number == last else None
        try:
            loop.call_soon_threadsafe(_settle, some, told)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            if told is not None:
                told()


def _settle(jobs: list[_Job[Any]], then: Callable[[], None] | None) -> None:
    for job in jobs:
        future = job.future
        if future.done():  # cancelled
            continue
        if job.error is None:
            future.set_result(job.value)
        else:
            future.set_exception(job.error)
    if then is not None:
        then()
