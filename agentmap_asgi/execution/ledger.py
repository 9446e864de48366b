"""What an execution writes into its store, in order: one write at a time, each with everything that has happened since.

A write that the store cannot make just now (a full disk, a locked file) is made again until it succeeds; meanwhile the
execution stands still, and nothing of it is lost. A write that is refused, because another runner has taken the
execution on, ends the run here without a word.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, Final

from ..errors import ShuttingDown, StoreUnavailable
from ..stores.store import Lines, Row, Store
from ..workflows.model import Workflow
from ..workflows.pinned import Pins
from .document import document
from .records import texts
from .waits import wake_of
from .writing import dumps

logger = logging.getLogger("agentmap_asgi.execution")

Run = Any
"""An `executor.Run`, which imports this module."""
_number: Final = itemgetter(0)
AGAIN: Final = (0.05, 0.2, 1.0, 2.0, 5.0)
"""Seconds before a write is made again; the last counts from then on."""


class Written:
    """One write of an execution: a Batch of the store. Its texts are made when the store writes it.

    Nothing of a run that has ended, or is suspended, changes any more, so the last write is made of it as late as that.
    """

    __slots__ = ("_begin", "_changes", "_end", "_others", "_root", "fence", "id", "status")

    def __init__(self, root: Run, others: tuple[Slice, ...]) -> None:
        self.id: str = root.id
        self.fence: int = root.fence
        self.status: str = root.status
        self._root = root
        self._begin: int = root.kept
        self._end = len(root.records)
        self._others = others
        self._changes = None if root.ended_ns or root.status == "suspended" else columns_of(root)

    @classmethod
    def of(cls, root: Run) -> Written:
        """Everything that a run and its sub-workflows have not written yet; for stores that forget with the process."""
        others: list[Slice] = []
        look = list(root.extra.children.values())
        while look:
            run = look.pop()
            if len(run.records) > run.kept:
                others.append((run, run.kept, len(run.records)))
                run.kept = len(run.records)
            look.extend(run.extra.children.values())
        written = cls(root, tuple(others))
        root.kept = len(root.records)
        return written

    def given(self) -> None:
        """It is on its way: what it has of records stays as it is."""
        self._root.given = self._end
        for run, _, end in self._others:
            run.given = end

    def landed(self) -> None:
        """It is in the store."""
        self._root.kept = self._end
        for run, _, end in self._others:
            run.kept = end

    def changes(self) -> Mapping[str, Any]:
        if self._changes is not None:
            return self._changes
        self._root.document = found = document(self._root, shared=True)
        return {**columns_of(self._root), "runner": None, "document": dumps(found)}

    def lines(self) -> list[Lines]:
        return [
            Lines(run.path, list(map(_number, records)), texts(run.plan, records, run.wall_offset))
            for run, begin, end in ((self._root, self._begin, self._end), *self._others)
            if (records := run.records[begin:end])
        ]

    def pins(self) -> Mapping[str, str]:
        return Pins(self.began())

    def began(self) -> list[Workflow]:
        """Those of the sub-workflows that have begun."""
        return [run.plan.workflow for run, begin, _ in self._others if begin == 0]


class Begun:
    """The first write of an execution that has begun already: a Start of the store, with what has happened so far."""

    __slots__ = ("_root", "id", "key", "written")

    def __init__(self, written: Written, root: Run) -> None:
        self.id: str = root.id
        self.key: str | None = root.key
        self.written = written
        self._root = root

    def row(self) -> Row:
        began: Row = self._root.row()
        for name, value in self.written.changes().items():
            setattr(began, name, value)
        return began

    def lines(self) -> list[Lines]:
        return self.written.lines()

    def pins(self) -> Mapping[str, str]:
        return Pins([*self._root.pinned(), *self.written.began()])


Waiter = asyncio.Future[None] | Callable[[], None]
"""Done, or called, when what has happened before is kept; cancelled, or called all the same, if never."""
Slice = tuple[Run, int, int]
"""The records of a sub-workflow from one to another."""


def columns_of(root: Run) -> dict[str, Any]:
    """What the row says of a run now."""
    offset = root.wall_offset
    return {
        "status": root.status,
        "steps": root.steps,
        "sequence": root.sequence - 1,
        "started": root.started_ns + offset,
        "ended": root.ended_ns + offset if root.ended_ns else None,
        "waits": json.dumps(list(root.extra.open.values())) if root.extra.open else "[]",
        "wake": wake_of(root.extra.open.values()),
    }


class Ledger:
    """The writes of one execution. `lost` is called when another runner has it."""

    __slots__ = ("_loop", "_opened", "_root", "_store", "_tries", "_waiters", "flying", "tree")

    def __init__(self, root: Run, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._root = root
        self._store = store
        self._loop = loop
        self.flying = False
        """A write is on its way."""
        self._opened: asyncio.Future[Row | None] | None = None
        """Of an execution that is not kept yet, and has begun: done with the row that is in its way, or None."""
        self._tries = 0
        self._waiters: list[Waiter] = []
        self.tree: list[Run] = []
        """Sub-workflows that have records to write."""

    def open(self) -> asyncio.Future[Row | None]:
        """The execution begins before it is kept: its first write keeps it, when something asks for one, and at the
        latest with `write`. The future is done then, as `Store.create` is; the run has ended here when that did not
        succeed.
        """
        self._opened = self._loop.create_future()
        return self._opened

    @property
    def opening(self) -> bool:
        """The execution has begun, and is not kept yet."""
        return self._opened is not None

    def write(self) -> None:
        """Write an execution that has begun, and that nothing has asked to be kept."""
        if self._opened is not None and not self.flying:
            self._fly()

    def _kept(self, written: Written, waiters: list[Waiter], sent: asyncio.Future[Row | None]) -> None:
        """The execution is kept, or cannot be: another has its id, or the store cannot be written."""
        opened, self._opened, self.flying = self._opened, None, False
        error = None if sent.cancelled() else sent.exception()
        there = sent.result() if error is None and not sent.cancelled() else None
        kept = error is None and there is None and not sent.cancelled()
        if not kept:
            self._give_up(waiters)
            self._root.leave("It could not be kept")
        else:
            self._follow(written, waiters)
        if opened is not None and not opened.done():
            if error is not None:
                opened.set_exception(error)
            elif sent.cancelled():
                opened.cancel()
            else:
                opened.set_result(there)

    def ask(self) -> asyncio.Future[None]:
        """Everything that has happened up to now is kept when the future is done; it is cancelled if never."""
        waiter = self._loop.create_future()
        if self._root.lost:
            waiter.cancel()
            return waiter
        self._waiters.append(waiter)
        if not self.flying:
            self._fly()
        return waiter

    def close(self, then: Callable[[], None]) -> None:
        """Write what is left of a run that has ended, or is suspended; `then` is called when it is kept, or never will
        be. What `ask` does, with a turn of the event loop less.
        """
        self._waiters.append(then)
        if not self.flying:
            self._fly()

    def _fly(self) -> None:
        others = [(run, run.kept, len(run.records)) for run in self.tree if len(run.records) > run.kept]
        batch = Written(self._root, tuple(others))
        batch.given()
        waiters, self._waiters = self._waiters, []
        self.flying = True
        self._send(batch, waiters)

    def _send(self, batch: Written, waiters: list[Waiter]) -> None:
        if self._root.lost:
            self._give_up(waiters)
            opened, self._opened = self._opened, None
            if opened is not None and not opened.done():  # left before it was kept: nothing has begun
                opened.set_exception(ShuttingDown())
            return
        if self._opened is not None:
            created = asyncio.ensure_future(self._store.create(Begun(batch, self._root)))
            created.add_done_callback(partial(self._kept, batch, waiters))
            return
        sent = asyncio.ensure_future(self._store.append(batch))
        sent.add_done_callback(partial(self._landed, batch, waiters))

    def _landed(self, batch: Written, waiters: list[Waiter], sent: asyncio.Future[bool]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if isinstance(error, StoreUnavailable):
            delay = AGAIN[min(self._tries, len(AGAIN) - 1)]
            if not self._tries:
                logger.error("%s: the store cannot be written, the execution waits: %s", batch.id, error.message)
            self._tries += 1
            self._loop.call_later(delay, self._send, batch, waiters)
            return
        if self._tries:
            logger.warning("%s: the store can be written again", batch.id)
            self._tries = 0
        self.flying = False
        if sent.cancelled() or error is not None or not sent.result():
            if error is not None:
                logger.error("%s: what has happened cannot be written", batch.id, exc_info=error)
            self._give_up(waiters)
            self._root.lose(error)
            return
        self._follow(batch, waiters)

    def _follow(self, batch: Written, waiters: list[Waiter]) -> None:
        """A write is in the store."""
        batch.landed()
        if self.tree:
            self.tree = [run for run in self.tree if not run.finished or run.kept < len(run.records)]
        for waiter in waiters:
            if not isinstance(waiter, asyncio.Future):
                waiter()
            elif not waiter.done():
                waiter.set_result(None)
        self._root.told()
        if self._root.lost:
            self._give_up([])
        elif self._waiters:
            self._fly()

    def _give_up(self, waiters: list[Waiter]) -> None:
        for waiter in [*waiters, *self._waiters]:
            if isinstance(waiter, asyncio.Future):
                waiter.cancel()
            else:  # after whoever gives up has said so
                self._loop.call_soon(waiter)
        self._waiters = []
