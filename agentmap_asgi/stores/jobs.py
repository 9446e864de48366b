"""What the threads of a store do for its callers, and how these are told."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from zlib import crc32

from ..errors import ExecutionConflict, StoreUnavailable
from . import schema
from .columns import Columns
from .store import MOST_VERSIONS, Batch, Row, Served, Start

T = TypeVar("T")


class Desk:
    """What the thread of a connection works with. `waiting` are pieces that are yet to be written."""

    def __init__(self, connection: sqlite3.Connection, columns: Columns) -> None:
        self.connection = connection
        self.columns = columns
        self.waiting: list[tuple[Any, ...]] = []
        self._pinned: set[str] = set()
        """Definitions that are there, as long as the transaction that has looked goes on."""

    def begin(self) -> None:
        """A transaction begins, or a part of one that may be taken back."""
        self.waiting = []
        self._pinned.clear()

    def flush(self) -> None:
        if self.waiting:
            self.connection.executemany(schema.INSERT_PIECE, self.waiting)
            self.waiting = []

    def pin(self, pins: Mapping[str, str]) -> None:
        """Keep those definitions that are not there yet; the text is asked for only then."""
        for name in pins:
            if name in self._pinned:
                continue
            if not self.pinned(name):
                text = pins[name]
                self.connection.execute(
                    "INSERT INTO definitions (hash, text, sum) VALUES (?, ?, ?)", (name, text, crc32(text.encode()))
                )
            self._pinned.add(name)

    def pinned(self, definition: str) -> bool:
        query = "SELECT 1 FROM definitions WHERE hash = ?"
        return self.connection.execute(query, (definition,)).fetchone() is not None

    def keep(self, execution: str, definitions: Iterable[str]) -> None:
        """An execution needs these definitions as long as it is there."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO pins (execution, definition) VALUES (?, ?)",
            [(execution, name) for name in definitions],
        )

    def taken(self, identity: str, key: str | None) -> Row:
        """Why a new execution could not be kept: the one that has its id or its key. Raises ExecutionConflict when that
        is in another namespace, of which nothing is told.
        """
        namespace = self.columns.namespace
        found = self.connection.execute(schema.FIND, (namespace, identity)).fetchone()
        if found is None and key is not None:
            found = self.connection.execute(schema.FIND_KEY, (namespace, key)).fetchone()
        if found is None:
            raise ExecutionConflict("There is an execution of this id already")
        return self.columns.row(found)


class Job(Generic[T]):
    """Something to be done in a thread, and who waits for it."""

    __slots__ = ("error", "execution", "future", "loop", "value")

    def __init__(self, loop: asyncio.AbstractEventLoop, execution: str = "") -> None:
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.execution = execution
        self.value: T | None = None
        self.error: BaseException | None = None

    def prepare(self, columns: Columns) -> None:
        """What can be done before the transaction begins."""

    def do(self, desk: Desk) -> T:
        raise NotImplementedError


class Do(Job[T]):
    __slots__ = ("_function",)

    def __init__(
        self, loop: asyncio.AbstractEventLoop, function: Callable[[sqlite3.Connection], T], execution: str = ""
    ) -> None:
        super().__init__(loop, execution)
        self._function = function

    def do(self, desk: Desk) -> T:
        desk.flush()
        desk.begin()  # the function may take definitions out
        return self._function(desk.connection)


class Create(Job[Row | None]):
    __slots__ = ("_pieces", "_row", "_start")

    def __init__(self, loop: asyncio.AbstractEventLoop, start: Start) -> None:
        super().__init__(loop, start.id)
        self._start = start

    def prepare(self, columns: Columns) -> None:
        self._row = columns.values(self._start.row())
        self._pieces = columns.pieces(self._start.id, self._start.lines())

    def do(self, desk: Desk) -> Row | None:
        if not desk.connection.execute(schema.INSERT, self._row).rowcount:
            return desk.taken(self._start.id, self._start.key)
        desk.waiting += self._pieces
        pins = self._start.pins()
        if pins:
            desk.pin(pins)
        if len(pins) > 1:  # its own definition is in its row
            desk.keep(self._start.id, pins)
        return None


class Append(Job[bool]):
    __slots__ = ("_batch", "_pieces", "_update", "_values")

    def __init__(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        super().__init__(loop, batch.id)
        self._batch = batch

    def prepare(self, columns: Columns) -> None:
        batch = self._batch
        self._update, self._values = columns.changes(batch)
        self._pieces = columns.pieces(batch.id, batch.lines())

    def do(self, desk: Desk) -> bool:
        if not desk.connection.execute(self._update, self._values).rowcount:
            return False
        desk.waiting += self._pieces
        pins = self._batch.pins()
        if pins:
            desk.pin(pins)
            desk.keep(self._batch.id, pins)
        return True


class Note(Job[None]):
    __slots__ = ("_served",)

    def __init__(self, loop: asyncio.AbstractEventLoop, served: Sequence[Served]) -> None:
        super().__init__(loop)
        self._served = served

    def prepare(self, columns: Columns) -> None:
        for one in self._served:  # the hash of a large workflow takes a while
            _ = one.definition

    def do(self, desk: Desk) -> None:
        namespace, connection = desk.columns.namespace, desk.connection
        for one in self._served:
            newest = connection.execute(schema.NEWEST, (namespace, one.graph_id)).fetchone()
            if newest == (one.definition,):
                continue
            if not desk.pinned(one.definition):
                desk.pin({one.definition: one.text()})
            connection.execute(schema.NOTE, (namespace, one.graph_id, one.definition, one.since))
            old = {"namespace": namespace, "graph": one.graph_id, "most": MOST_VERSIONS}
            connection.execute(schema.OLD_VERSIONS, old)


def own_fault(exc: BaseException) -> bool:
    """Whether an error comes from what was to be written, and not from the file or the disk."""
    if not isinstance(exc, sqlite3.Error):  # of a damaged file, SQLite's own words may be none
        return not isinstance(exc, OSError | MemoryError | StoreUnavailable | UnicodeDecodeError)
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


def told(exc: BaseException) -> BaseException:
    """What a caller is told: sqlite3 stays in these modules, and a future cannot carry StopIteration."""
    if isinstance(exc, sqlite3.Error | StopIteration):
        error = ValueError(f"This cannot be written: {exc!r}")
        error.__cause__ = exc
        return error
    return exc


def unavailable(done: str, exc: BaseException) -> StoreUnavailable:
    if isinstance(exc, StoreUnavailable):
        return StoreUnavailable(exc.message)
    error = StoreUnavailable(f"The store cannot be {done} just now: {exc}")
    error.__cause__ = exc
    return error


def answer(jobs: Iterable[Job[Any]], then: Callable[[], None] = lambda: None) -> None:
    """Tell who waits, with one call for each loop; `then` is called on one of the loops, when they know."""
    loops: dict[asyncio.AbstractEventLoop, list[Job[Any]]] = {}
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


def _settle(jobs: list[Job[Any]], then: Callable[[], None] | None) -> None:
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
