"""The thread that writes: group commit over one connection, which is made anew when it breaks off.

What was given while the last transaction ran is the next one. All its statements are sent at once, so a transaction
costs one way to the server and back. When something in it cannot be written, it is done again with a savepoint for each
write, so that the others are not harmed.

A connection may break off while a transaction is committed. Each transaction therefore writes its number, and a new
connection looks whether the last one is there before it is done again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import errors

from ..errors import StoreUnavailable, StoreUnusable
from . import postgres_sql as sql
from .jobs import answer
from .postgres_columns import PostgresColumns
from .postgres_jobs import Append, Wave, Write, taken
from .postgres_link import Connection, Link, broken, key_of, own_fault, said, told, writer_of
from .postgres_sql import LEAVE, MARK, MARKED, REGISTER

logger = logging.getLogger("agentmap_asgi.stores")

GROUP: Final = 2_000
"""Writes of one transaction, at most."""
PATIENCE: Final = 5.0
"""Seconds for which a break of the connection is hidden from who writes."""
AGAIN: Final = 0.1
"""Seconds between two tries to connect."""
RETRY: Final = 1.0
"""Seconds between two tries when nothing new is to be written."""

Queue: TypeAlias = "SimpleQueue[Write[Any] | Callable[[], object] | None]"
"""Jobs, and what else is to be done in the writer's thread; None is the end."""


class _Unsuitable(Exception):
    """One of the writes cannot be made: all are made again, one by one."""


class Writer:
    """What the thread knows. `process` is whose writes these are."""

    def __init__(self, link: Link, queue: Queue, columns: PostgresColumns, process: str) -> None:
        self.queue = queue
        self.runners: list[str] = []
        """Those of this process; registered before anything is written under their names."""
        self._registered = self._registering = 0
        """How many of them are."""
        self._link = link
        self._columns = columns
        self._process = process
        self._connection: Connection | None = None
        self._backend: tuple[int, Any] | None = None
        self._number = 0
        self._todo: list[Write[Any]] = []
        self._doubt: list[Write[Any]] = []
        """Writes of transaction `_number`, of which it is not known whether it was committed."""
        self._refused: set[Write[Any]] = set()
        """Those of them whose callers were told that they are not made."""
        self._held: set[str] = set()
        """Executions that wait until a doubt is over."""
        self._known: set[str] = set()
        self._shared = key_of(link.schema, "definitions")
        self._unsettled: dict[str, asyncio.AbstractEventLoop] = {}
        """Executions with a failed write that the caller does not know of yet: what comes after it is not written."""
        self._failing = False
        self.committed: Callable[[Sequence[Write[Any]]], None] = lambda jobs: None
        """Called with what has been committed."""

    # The thread.

    def run(self) -> None:
        going = True
        while going:
            jobs: list[Write[Any]] = []
            try:
                # What is in doubt is cleared up also when nobody writes.
                given = self.queue.get(timeout=RETRY if self._doubt or self._todo else None)
                while True:
                    if isinstance(given, Write):
                        if self._may_be_written(given):
                            jobs.append(given)
                        else:
                            given.error = StoreUnavailable("An earlier write of this execution has failed")
                            answer([given])
                        if len(jobs) == GROUP:
                            break
                    elif given is None:
                        going = False
                    else:
                        given()
                    given = self.queue.get_nowait()
            except Empty:
                pass
            if jobs or self._todo or self._doubt:
                self._commit(jobs)
        self._leave()

    def _may_be_written(self, job: Write[Any]) -> bool:
        if job.execution in self._held:
            return False
        return not self._unsettled or self._unsettled.get(job.execution) is not job.loop

    def register_again(self) -> None:
        """Somebody has taken this process for dead long ago, and forgotten its runners."""
        self._registered = 0

    def close_runner(self, name: str) -> None:
        if name in self.runners:
            at = self.runners.index(name)
            del self.runners[at]
            self._registered -= at < self._registered
        with suppress(psycopg.Error, StoreUnusable):
            self._connected().execute(sql.UNREGISTER, [name])

    def _leave(self) -> None:
        """Say that this process is gone, and what it ran is anybody's."""
        with suppress(psycopg.Error, StoreUnusable):
            connection = self._connected()
            with connection.transaction():
                for statement in LEAVE:
                    connection.execute(statement, [self._process])
        waiting = [*self._todo, *(job for job in self._doubt if job not in self._refused)]
        for job in waiting:
            job.error = StoreUnavailable("The store was closed before the server could be reached again")
        answer(waiting)
        if self._connection is not None:
            self._connection.close()

    def _commit(self, jobs: list[Write[Any]]) -> None:
        """Write, and when the connection breaks off, connect and write again for a while."""
        self._prepare(jobs)
        end = time.monotonic() + (0 if self._failing else PATIENCE)
        while self._todo or self._doubt:
            try:
                connection = self._connected()
                todo, self._todo = self._todo, []
                if todo:
                    self._number += 1
                    self._doubt = todo
                    self._transact(connection, todo)
                    self._doubt = []
                    self._answer(todo)
                    self.committed(todo)
                if self._failing:
                    self._failing = False
                    logger.warning("The store %s can be written again", self._link.shown)
            except Exception as exc:
                lost = broken(self._connection, exc)
                if not lost:  # nothing of it was committed
                    self._todo, self._doubt = [*self._doubt, *self._todo], []
                    for job in self._todo:
                        job.error = None
                if time.monotonic() >= end or not _passing(exc, lost):
                    self._fail(exc)
                    return
                time.sleep(AGAIN)

    def _prepare(self, jobs: list[Write[Any]]) -> None:
        wrong = []
        for job in jobs:
            try:
                job.prepare(self._columns)
            except BaseException as exc:
                job.error = told(exc)
                wrong.append(job)
            else:
                self._todo.append(job)
        if wrong:
            self._answer(wrong)

    def _fail(self, exc: Exception) -> None:
        """Tell those who wait; but an execution whose step may have been written waits on, for it must not be twice."""
        if not self._failing:
            self._failing = True
            logger.error("The store %s cannot be written: %s", self._link.shown, said(exc))
        self._held = {job.execution for job in self._doubt if isinstance(job, Append)}
        refused = [job for job in self._doubt if not isinstance(job, Append) and job not in self._refused]
        self._refused |= set(refused)
        failed = [*refused, *self._todo]
        self._todo = []
        for job in failed:
            job.error = unavailable("written", exc)
        self._answer(failed)

    # Connections.

    def _connected(self) -> Connection:
        """The connection, made anew when it is broken; what was in doubt is cleared up then."""
        if self._connection is None or self._connection.closed:
            connection = self._link.connect()
            try:
                if self._backend is not None:
                    self._succeed(connection)
                self._backend = backend_of(connection)
                connection.execute(sql.WRITES, [writer_of(self._process)])
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _succeed(self, connection: Connection) -> None:
        """See what became of the transaction that the connection before has left."""
        assert self._backend is not None  # noqa: S101
        connection.execute(TERMINATE, self._backend)
        marked = connection.execute(MARKED, [self._process]).fetchone()
        doubt = [job for job in self._doubt if job not in self._refused]
        if marked is None or marked[0] != self._number:
            for job in doubt:
                job.error = None  # of one that could not be made, which will be seen again
            self._todo = [*doubt, *self._todo]
        elif self._doubt:
            for job in self._refused:
                job.undo(connection)
            for job in doubt:
                self._recall(connection, job)
            self._answer(doubt)
            logger.info("A transaction of %d writes was committed as its connection broke off", len(self._doubt))
        self._doubt, self._refused, self._held = [], set(), set()

    def _recall(self, connection: Connection, job: Write[Any]) -> None:
        if job.error is not None:  # it alone could not be made
            return
        try:
            job.value = job.recall(connection, self._columns)
        except Exception as exc:
            if not isinstance(exc, StoreUnavailable) and not own_fault(exc):
                raise
            job.error = told(exc)

    # Transactions.

    def _transact(self, connection: Connection, jobs: list[Write[Any]]) -> None:
        try:
            self._together(connection, jobs)
        except _Unsuitable:
            self._singly(connection, jobs)

    def _together(self, connection: Connection, jobs: list[Write[Any]]) -> None:
        wave = self._wave(connection)
        try:
            with connection.pipeline():
                self._begin(connection)
                for job in jobs:
                    wave.do(job)
                wave.flush()
                connection.execute("COMMIT")
        except BaseException as exc:
            _roll_back(connection)
            if isinstance(exc, errors.DivisionByZero):  # a definition that was there is gone: it goes along next time
                self._known.clear()
            if not connection.closed and own_fault(exc):
                raise _Unsuitable from exc
            raise
        self._known |= wave.defined
        self._registered = self._registering
        self._settle(connection, wave)

    def _singly(self, connection: Connection, jobs: list[Write[Any]]) -> None:
        defined: set[str] = set()
        waves = []
        try:
            self._begin(connection)
            for job in jobs:
                wave = self._wave(connection)
                connection.execute("SAVEPOINT one")
                try:
                    wave.do(job)
                    wave.flush()
                except BaseException as exc:
                    if connection.closed or not own_fault(exc):
                        raise
                    connection.execute("ROLLBACK TO one")
                    job.error = told(exc)
                else:
                    waves.append(wave)
                    defined |= wave.defined
                connection.execute("RELEASE one")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
        self._known |= defined
        self._registered = self._registering
        for wave in waves:
            self._settle(connection, wave)

    def _wave(self, connection: Connection) -> Wave:
        return Wave(connection, self._columns, self._shared, self._known)

    def _begin(self, connection: Connection) -> None:
        connection.execute("BEGIN")
        connection.execute(MARK, [self._process, self._number])
        self._registering = len(self.runners)
        if self._registered < self._registering:
            connection.execute(REGISTER, [self.runners[self._registered : self._registering], self._process])

    def _settle(self, connection: Connection, wave: Wave) -> None:
        for create in wave.settle():
            try:
                create.value = taken(connection, self._columns, create.start)
            except BaseException as exc:
                create.error = told(exc) if own_fault(exc) else unavailable("read", exc)

    def _answer(self, jobs: list[Write[Any]]) -> None:
        failed = {job.execution: job.loop for job in jobs if job.execution and isinstance(job.error, StoreUnavailable)}
        if not failed:
            answer(jobs)
            return

        def settle() -> None:
            for execution in failed:
                self._unsettled.pop(execution, None)

        # Until the callers know, what they have given already must not be written after a gap.
        self._unsettled |= failed
        answer(jobs, lambda: self.queue.put(settle))


def _roll_back(connection: Connection) -> None:
    """See that nothing is left of a transaction that has failed. A connection that cannot say so is closed: it may be
    one that the server is about to end, and what it has committed is looked up over the next one.
    """
    if not connection.closed:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()


TERMINATE: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"


def backend_of(connection: Connection) -> tuple[int, Any]:
    """Who serves a connection, so that it can be ended over another one."""
    found = connection.execute(
        "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    ).fetchone()
    assert found is not None  # noqa: S101
    return int(found[0]), found[1]


def _passing(exc: Exception, connection_lost: bool) -> bool:
    """Whether it may be gone in a moment."""
    return connection_lost or isinstance(exc, errors.DeadlockDetected | errors.SerializationFailure)


def unavailable(done: str, exc: BaseException) -> StoreUnavailable:
    """What a caller is told; what the server says may name places, and is for the log."""
    if isinstance(exc, StoreUnavailable):
        return StoreUnavailable(exc.message)
    error = StoreUnavailable(f"The store cannot be {done} just now; the log has the reason")
    error.__cause__ = exc
    return error
