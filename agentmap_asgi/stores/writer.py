"""The thread that writes: group commit, one write's fault not another's, turns among processes, the log.

What was given while the last commit ran is the next transaction. When something in it cannot be written, it is done
again with a savepoint for each write, so that the others are not harmed.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias

from ..errors import StoreUnavailable
from .jobs import Desk, Job, answer, own_fault, told, unavailable
from .locks import FileLock

logger = logging.getLogger("agentmap_asgi.stores")

FIXED: Final = (3, 51, 3)
"""Older SQLite may damage a file when two processes commit and begin the log anew in the same moment."""
GROUP: Final = 5_000
"""Writes of one transaction, at most."""
CHECKPOINT: Final = 2_000
"""Pages of the log (about) after which they are copied into the file."""


class _Unsuitable(Exception):
    """One of the writes cannot be made: all are made again, one by one."""


Queue: TypeAlias = "SimpleQueue[Job[Any] | Callable[[], object] | None]"
"""Jobs, and what else is to be done in the writer's thread; None is the end."""


class Writer:
    """What the thread knows of the file. `lock` is what processes take turns by."""

    def __init__(self, path: Path, queue: Queue, desk: Desk, lock: FileLock, timeout: float) -> None:
        self.queue = queue
        self._path = path
        self._desk = desk
        self._lock = lock
        self._timeout = timeout
        self._place = _place(path)
        self._unsettled: dict[str, asyncio.AbstractEventLoop] = {}
        """Executions with a failed write that the caller does not know of yet: what comes after it is not written."""
        self._written = 0
        """Writes since the log was last copied into the file; a transaction counts as a few."""
        self._pages = 1.0
        """Pages of the log that such a write was worth last time."""
        self._failing = False

    def run(self) -> None:
        going = True
        while going:
            jobs: list[Job[Any]] = []
            given = self.queue.get()
            try:
                while True:
                    if isinstance(given, Job):
                        if not self._unsettled or self._unsettled.get(given.execution) is not given.loop:
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
            if jobs:
                self._commit(jobs)
                self._answer(jobs)
                if self._written * self._pages >= CHECKPOINT:
                    with suppress(StoreUnavailable), self.turn():
                        self.checkpoint("PASSIVE")

    def _commit(self, jobs: list[Job[Any]]) -> None:
        able = []
        for job in jobs:
            try:
                job.prepare(self._desk.columns)
            except BaseException as exc:
                job.error = told(exc)
            else:
                able.append(job)
        if not able:
            return
        try:
            with self.turn():
                self._present()
                try:
                    self._transact(able)
                except _Unsuitable:
                    self._transact_singly(able)
                self._written += 3 + len(able)
        except Exception as exc:
            if not self._failing:
                self._failing = True
                logger.error("The store %s cannot be written: %s", self._path, exc)
            for job in able:
                if job.error is None:
                    job.error = unavailable("written", exc)
        else:
            if self._failing:
                self._failing = False
                logger.info("The store %s can be written again", self._path)

    def _transact(self, jobs: list[Job[Any]]) -> None:
        desk = self._desk
        desk.begin()
        with self._transaction():
            try:
                for job in jobs:
                    job.value = job.do(desk)
                desk.flush()
            except BaseException as exc:
                if own_fault(exc):
                    raise _Unsuitable from exc
                raise

    def _transact_singly(self, jobs: list[Job[Any]]) -> None:
        desk = self._desk
        with self._transaction():
            for job in jobs:
                desk.begin()
                desk.connection.execute("SAVEPOINT one")
                try:
                    job.value = job.do(desk)
                    desk.flush()
                except BaseException as exc:
                    if not own_fault(exc):
                        raise
                    desk.connection.execute("ROLLBACK TO one")
                    job.error = told(exc)
                desk.connection.execute("RELEASE one")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._desk.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._desk.connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                if self._desk.connection.in_transaction:
                    self._desk.connection.execute("ROLLBACK")
            raise

    def turn(self) -> AbstractContextManager[None]:
        """The turn among processes, where SQLite alone does not keep it."""
        return nullcontext() if sqlite3.sqlite_version_info >= FIXED else self._lock.turn(self._timeout)

    def _present(self) -> None:
        """A file that was removed or replaced would take writes that nobody ever reads."""
        try:
            there = _place(self._path)
        except OSError as exc:
            raise StoreUnavailable(f"The store file is gone ({exc.strerror}); start again") from exc
        if there != self._place:
            raise StoreUnavailable("The store file was replaced by another; start again")

    def checkpoint(self, kind: str) -> None:
        try:
            _, pages, _ = self._desk.connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()
        except sqlite3.Error as exc:  # what was committed is safe in the log; the next one may succeed
            logger.debug("The log of the store %s cannot be copied: %s", self._path, exc)
        else:
            if pages > 0 and self._written:
                self._pages = min(max(pages / self._written, 0.1), 10.0)
        self._written = 0

    def _answer(self, jobs: list[Job[Any]]) -> None:
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


def _place(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
