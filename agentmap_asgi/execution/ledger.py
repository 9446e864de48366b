"""What an execution writes into its store, in order: one write at a time, each with everything that has happened since.

A write that the store cannot make just now (a full disk, a locked file) is made again until it succeeds; meanwhile the
execution stands still, and nothing of it is lost. A write that is refused, because another runner has taken the
execution on, ends the run here without a word.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ..errors import StoreUnavailable
from ..stores.store import Entry, Store
from ..workflows.pinned import pinned
from .document import document
from .records import texts

logger = logging.getLogger("agentmap_asgi.execution")

Run = Any
"""An `executor.Run`, which imports this module."""
AGAIN: Final = (0.05, 0.2, 1.0, 2.0, 5.0)
"""Seconds before a write is made again; the last counts from then on."""


class Slice:
    """The records of one run from `begin` to `end`."""

    __slots__ = ("begin", "end", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.begin = run.kept
        self.end = len(run.records)


class Written:
    """One write of an execution: a Batch of the store. Its texts are made when the store writes it."""

    __slots__ = ("_changes", "_root", "_slices", "_whole", "fence", "id")

    def __init__(self, root: Run, slices: list[Slice]) -> None:
        self.id = root.id
        self.fence = root.fence
        self._root = root
        self._slices = slices
        self._whole = root.ended_ns != 0 or root.status == "suspended"
        offset = root.wall_offset
        self._changes: dict[str, Any] = {
            "status": root.status,
            "steps": root.steps,
            "sequence": root.sequence - 1,
            "started": root.started_ns + offset,
            "ended": root.ended_ns + offset if root.ended_ns else None,
            "waits": json.dumps(list(root.open.values())) if root.open else "[]",
            "wake": min((wait["expires"] for wait in root.open.values() if wait["expires"]), default=None),
        }
        if self._whole:
            self._changes["runner"] = None

    @classmethod
    def of(cls, root: Run) -> Written:
        """Everything that a run and its sub-workflows have not written yet; for stores that forget with the process."""
        slices = []
        look = [root]
        while look:
            run = look.pop()
            if len(run.records) > run.kept:
                slices.append(Slice(run))
                run.kept = len(run.records)
            look.extend(run.children.values())
        return cls(root, slices)

    @property
    def status(self) -> str:
        return str(self._changes["status"])

    @property
    def slices(self) -> list[Slice]:
        return self._slices

    def changes(self) -> Mapping[str, Any]:
        if self._whole:
            text = json.dumps(document(self._root), ensure_ascii=False, separators=(",", ":"))
            return {**self._changes, "document": text}
        return self._changes

    def entries(self) -> Iterator[Entry]:
        for part in self._slices:
            run = part.run
            for sequence, text in texts(run.plan, run.records[part.begin : part.end], run.wall_offset):
                yield Entry(run.path, sequence, text)

    def pins(self) -> Mapping[str, str]:
        return {
            part.run.plan.workflow.version: pinned(part.run.plan.workflow)
            for part in self._slices
            if part.begin == 0 and part.run.path
        }


class Ledger:
    """The writes of one execution. `lost` is called when another runner has it."""

    __slots__ = ("_flying", "_loop", "_lost", "_root", "_store", "_tries", "_waiters", "tree")

    def __init__(self, root: Run, store: Store, loop: asyncio.AbstractEventLoop, lost: Callable[[], None]) -> None:
        self._root = root
        self._store = store
        self._loop = loop
        self._lost = lost
        self._flying = False
        self._tries = 0
        self._waiters: list[asyncio.Future[None]] = []
        self.tree: list[Run] = [root]
        """The run and its sub-workflows that have records to write."""

    def ask(self) -> asyncio.Future[None]:
        """Everything that has happened up to now is kept when the future is done; it is cancelled if never."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        if not self._flying:
            self._fly()
        return waiter

    def _fly(self) -> None:
        slices = [part for run in self.tree if (part := Slice(run)).end > part.begin]
        batch = Written(self._root, slices)
        waiters, self._waiters = self._waiters, []
        self._flying = True
        self._send(batch, waiters)

    def _send(self, batch: Written, waiters: list[asyncio.Future[None]]) -> None:
        sent = asyncio.ensure_future(self._store.append(batch))
        sent.add_done_callback(lambda done: self._landed(batch, waiters, done))

    def _landed(self, batch: Written, waiters: list[asyncio.Future[None]], sent: asyncio.Future[bool]) -> None:
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
        self._flying = False
        if sent.cancelled() or error is not None or not sent.result():
            if error is not None:
                logger.error("%s: writing failed; what comes now is not kept", batch.id, exc_info=error)
            for waiter in [*waiters, *self._waiters]:
                waiter.cancel()
            self._waiters = []
            self._lost()
            return
        for part in batch.slices:
            part.run.kept = part.end
        self.tree = [run for run in self.tree if run is self._root or not run.finished or run.kept < len(run.records)]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._root.told()
        if self._waiters:
            self._fly()
