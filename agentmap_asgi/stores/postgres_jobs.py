"""What is written into PostgreSQL: many writes become a few statements, and each is told what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import ExecutionConflict, StoreDamaged, StoreUnavailable
from . import postgres_sql as sql
from .jobs import Job
from .postgres_columns import PostgresColumns
from .postgres_link import KINDS, Bytes, Connection, Integers, Texts
from .store import Batch, Row, Start

T = TypeVar("T")


class Write(Job[T]):
    """A job of the writer. All of one transaction are prepared, sent and settled together."""

    __slots__ = ("entries", "pins")
    entries: list[tuple[Any, ...]]
    pins: Mapping[str, str]

    def recall(self, connection: Connection, columns: PostgresColumns) -> T:
        """What came of it, when it was committed and nobody was told. Raises StoreUnavailable when that is unknown."""
        raise StoreUnavailable("The connection broke off, and whether it was done is not known")

    def topics(self) -> Iterable[str]:
        """What others may wait for."""
        return (self.execution,) if self.execution else ()

    def undo(self, connection: Connection) -> None:
        """It was committed after its caller was told that it was not: nothing may be left that nobody looks after."""


class Do(Write[T]):
    """Anything else that is to be done in the order of the writes."""

    __slots__ = ("_function", "_topics")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[[Connection], T],
        execution: str = "",
        topics: Sequence[str] = (),
    ) -> None:
        super().__init__(loop, execution)
        self._function = function
        self._topics = topics

    def topics(self) -> Iterable[str]:
        return (*super().topics(), *self._topics)

    def run(self, connection: Connection) -> T:
        return self._function(connection)


class Ask(Do[tuple[int, str | None]]):
    """A request; its number, and who is to do it."""

    __slots__ = ()

    def topics(self) -> Iterable[str]:
        return (self.value[1],) if self.value is not None and self.value[1] is not None else ()


class Claim(Write[Row | None]):
    """`values` are those of `sql.CLAIM`: status, runner, attempt, namespace, id, and status, runner, fence before."""

    __slots__ = ("_cursor", "_values")

    def __init__(self, loop: asyncio.AbstractEventLoop, values: Sequence[Any]) -> None:
        super().__init__(loop, values[4])
        self._values = values
        self._cursor: Any = None

    def send(self, connection: Connection) -> None:
        self._cursor = connection.execute(sql.CLAIM, self._values, binary=True)

    def settle(self, columns: PostgresColumns) -> None:
        found = self._cursor.fetchone()
        try:
            self.value = None if found is None else columns.row(found)
        except StoreDamaged as exc:
            self.error = exc

    def recall(self, connection: Connection, columns: PostgresColumns) -> Row | None:
        row = found(connection, columns, sql.FIND, self.execution)
        return row if row is not None and (row.runner, row.fence) == (self._values[1], self._values[7] + 1) else None

    def undo(self, connection: Connection) -> None:
        _, runner, _, namespace, name, status, _, fence = self._values
        connection.execute(
            "UPDATE executions SET status = %s, runner = NULL WHERE namespace = %s AND id = %s AND runner = %s "
            "AND fence = %s",
            [status, namespace, name, runner, fence + 1],
        )


class Create(Write[Row | None]):
    __slots__ = ("start", "values")

    def topics(self) -> Iterable[str]:
        return ()  # nobody knows of it yet

    def __init__(self, loop: asyncio.AbstractEventLoop, start: Start) -> None:
        super().__init__(loop, start.id)
        self.start = start

    def prepare(self, columns: PostgresColumns) -> None:  # type: ignore[override]
        self.values = columns.values(self.start.row())
        self.entries = columns.entries(self.start.id, self.start.lines())
        self.pins = self.start.pins()

    def recall(self, connection: Connection, columns: PostgresColumns) -> Row | None:
        row = found(connection, columns, sql.FIND, self.execution)
        # Ids are as good as random; one that a client has chosen twice differs in its time.
        if row is not None and (row.created, row.key) == (self.start.row().created, self.start.key):
            return None
        return taken(connection, columns, self.start)

    def undo(self, connection: Connection) -> None:
        connection.execute(
            "UPDATE executions SET runner = NULL WHERE id = %s AND status IN ('queued', 'running') AND fence = %s",
            [self.execution, self.start.row().fence],
        )


class Append(Write[bool]):
    __slots__ = ("batch", "names", "values")

    def __init__(self, loop: asyncio.AbstractEventLoop, batch: Batch) -> None:
        super().__init__(loop, batch.id)
        self.batch = batch

    def prepare(self, columns: PostgresColumns) -> None:  # type: ignore[override]
        batch = self.batch
        self.names, values = columns.changed(batch)
        columns.check(self.names)
        self.values = [batch.id, batch.fence, *values]
        self.entries = columns.entries(batch.id, batch.lines())
        self.pins = batch.pins()

    def recall(self, connection: Connection, columns: PostgresColumns) -> bool:
        row = found(connection, columns, sql.FIND, self.execution)
        return row is not None and row.fence == self.batch.fence


def found(connection: Connection, columns: PostgresColumns, query: str, value: str) -> Row | None:
    row = connection.execute(query, [columns.namespace, value], binary=True).fetchone()
    return None if row is None else columns.row(row)


def taken(connection: Connection, columns: PostgresColumns, start: Start) -> Row:
    """Why a new execution was not kept: the one that has its id or its key. Raises ExecutionConflict when that is in
    another namespace, of which nothing is told.
    """
    row = found(connection, columns, sql.FIND, start.id)
    if row is None and start.key is not None:
        row = found(connection, columns, sql.FIND_KEY, start.key)
    if row is None:
        raise ExecutionConflict("There is an execution of this id already")
    return row


class Wave:
    """Writes of one transaction that need not come one after the other: one of each execution, at most."""

    def __init__(self, connection: Connection, columns: PostgresColumns, shared: int, known: set[str]) -> None:
        """`shared` is the lock that keeps definitions from being forgotten; `known` are definitions that are there."""
        self._connection = connection
        self._columns = columns
        self._shared = shared
        self._known = known
        self.defined: set[str] = set()
        """Definitions that this transaction has written."""
        self._locked = False
        self._writes: dict[str, Create | Append] = {}
        self._sent: list[tuple[Any, Sequence[Create | Append]]] = []
        self._claims: list[Claim] = []

    def do(self, job: Write[Any]) -> None:
        if isinstance(job, Create | Append):
            if job.execution in self._writes:
                self.flush()
            self._writes[job.execution] = job
        elif isinstance(job, Claim):
            self.flush()
            job.send(self._connection)
            self._claims.append(job)
        else:
            assert isinstance(job, Do)  # noqa: S101
            self.flush()
            job.value = job.run(self._connection)

    def flush(self) -> None:
        """Send what has come together."""
        writes, self._writes = list(self._writes.values()), {}
        if not writes:
            return
        pins = {name: write.pins for write in writes for name in write.pins}
        if pins:
            self._define(pins)
        creates = [write for write in writes if isinstance(write, Create)]
        if creates:
            entries = _entries(creates)
            columns = _arrays(sql.FULL, [create.values for create in creates])
            self._send(sql.create(entries=bool(entries)), [*columns, *entries], creates)
        appends: dict[tuple[str, ...], list[Append]] = {}
        for write in writes:
            if isinstance(write, Append):
                appends.setdefault(write.names, []).append(write)
        for names, some in appends.items():
            entries = _entries(some)
            columns = _arrays(("id", "fence", *sql.spread(names)), [append.values for append in some])
            query = sql.append(names, entries=bool(entries))
            self._send(query, [*columns, self._columns.namespace, *entries], some)
        # What an execution began with is in its row already, where it is the only one.
        kept = [(w.execution, name) for w in writes if isinstance(w, Append) or len(w.pins) > 1 for name in w.pins]
        if kept:
            self._connection.execute(sql.PIN, [Texts(some) for some in zip(*kept, strict=True)])

    def _define(self, pins: Mapping[str, Mapping[str, str]]) -> None:
        if not self._locked:
            self._connection.execute(sql.SHARE, [self._shared])
            self._locked = True
        there = [name for name in pins if name in self._known or name in self.defined]
        if there:
            self._connection.execute(sql.DEFINED, [len(there), Texts(there)])
        if len(there) < len(pins):
            new = sorted(pins.keys() - set(there))
            texts = [pins[name][name] for name in new]
            sums = [self._columns.sum_of(text) for text in texts]
            self._connection.execute(sql.DEFINE, [Texts(new), Texts(texts), Integers(sums)])
            self.defined.update(new)

    def _send(self, query: str, values: Sequence[Any], writes: Sequence[Create | Append]) -> None:
        self._sent.append((self._connection.execute(query, values), writes))

    def settle(self) -> list[Create]:
        """Tell the writes whether they have passed; those new ones that have not are given back."""
        lacking = []
        for claim in self._claims:
            claim.settle(self._columns)
        for cursor, writes in self._sent:
            passed = {name for (name,) in cursor.fetchall()}
            for write in writes:
                if isinstance(write, Append):
                    write.value = write.execution in passed
                elif write.execution in passed:
                    write.value = None
                else:
                    lacking.append(write)
        return lacking


def _entries(writes: Sequence[Create | Append]) -> list[Any]:
    rows = [entry for write in writes for entry in write.entries]
    if not rows:
        return []
    executions, paths, numbers, texts, sums = zip(*rows, strict=True)
    return [Texts(executions), Texts(paths), Integers(numbers), Bytes(texts), Integers(sums)]


def _arrays(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Any]:
    kinds = [KINDS[sql.kind_of(column)] for column in columns]
    return [kind(values) for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)]
