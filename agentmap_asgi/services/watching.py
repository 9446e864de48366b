"""Executions are watched: waited for, listened to, listed, drawn, looked into."""

from __future__ import annotations

import asyncio
import json
import logging
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from ..errors import ExecutionConflict, NodeFailure, StoreDamaged
from ..execution.document import listed
from ..execution.executor import Run
from ..execution.live import Listener, merged
from ..execution.overlay import overlaid
from ..execution.records import Record, events, events_of
from ..execution.visits import entries_of, parts_in, visits
from ..stores.store import FINISHED, LOST_HEAD, Filter
from ..workflows import drawing
from .starting import Starting

logger = logging.getLogger("agentmap_asgi.execution")

LOOK_SECONDS: Final = 0.25
"""How often one who reads a stream of an execution that runs here can look whether it still wants to."""
SHORT: Final = (
    *("success", "status", "execution_id", "graph_name", "error", "execution_time", "nodes_executed", "created_at"),
    *("graph_id", "started_at", "completed_at", "definition", "owner", "tags", "attempt", "retry_of"),
)
"""What a list says of an execution."""


class Watching(Starting):
    """The part of a service that shows executions."""

    # Waiting for what happens.

    async def wait_for_execution(self, execution_id: str, seconds: float) -> dict[str, Any]:
        """The document when something has changed: at the latest after so many seconds. Raises UnknownExecution.

        An execution that has ended, or waits for answers only, is given at once.
        """
        async for _ in self._changes(execution_id, seconds):
            break
        return await self.get_execution_status(execution_id)

    async def until_settled(self, execution_id: str, seconds: float) -> dict[str, Any]:
        """The document when it has ended, waits for answers only, or so many seconds are over."""
        async for _ in self._changes(execution_id, seconds):
            pass
        return await self.get_execution_status(execution_id)

    async def _changes(self, execution_id: str, seconds: float) -> AsyncIterator[bool]:
        """An item each time an execution may have changed; ends when it has ended or is suspended, or time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        mark: tuple[Any, ...] = ()
        bell = self.store.bell(execution_id)
        try:
            while (left := until - loop.time()) > 0:
                run = self._live(execution_id)
                if run is not None:
                    if not await _told(run, left):
                        return
                else:
                    row = await self._row(execution_id)
                    if row.status in FINISHED or row.status == "suspended":
                        return
                    now = (row.status, row.sequence, row.waits, row.fence)
                    if mark in ((), now):
                        mark = now
                        await bell.rings(min(self.store.look, left))
                        continue
                    mark = now
                yield True
        finally:
            bell.close()

    @property
    def stopping(self) -> bool:
        """Whether this event loop takes nothing more on."""
        raise NotImplementedError

    def told_to_stop(self) -> None:
        """The server around it is about to stop: what runs has `shutdown_grace` seconds from now on."""
        self._runtime().told_to_stop()

    # Events.

    async def get_execution_events(self, execution_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """What happened in an execution so far, in order: events with a greater sequence. Raises UnknownExecution."""
        run = self._live(execution_id)
        if run is not None:
            # The record before may stand for two events, of which one is asked for.
            begin = bisect_left(run.records, after - 1, key=_number) if after > 1 else 0
            records = run.records[begin:] if run.ledger is None else run.records[begin : run.kept]
            found = list(events(run.plan, records, run.wall_offset))
        else:
            await self._row(execution_id)
            entries = await self.store.entries(execution_id, after=max(0, after - 1))
            found = [event for entry in entries for event in events_of(entry.sequence, entry.text)]
        return [event for event in found if event["sequence"] > after]

    async def stream_execution(
        self, execution_id: str, *, after: int = 0, follow: bool = False
    ) -> AsyncIterator[dict[str, Any] | None]:
        """The events of an execution as they happen, from the one after `after` on. Raises UnknownExecution.

        Between them stand `progress`, `log` and `token` events, which are kept nowhere: their `sequence` is None, and
        only the process that runs the execution has them.

        Ends with the execution, or when it only waits for answers (with `follow` it goes on then). An item is None when
        nothing has happened, a few times a second, so that whoever reads can look whether it still wants to.
        """
        async with aclosing(self.stream_batches(execution_id, after=after, follow=follow)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event
                if not batch:
                    yield None

    async def stream_batches(
        self, execution_id: str, *, after: int = 0, follow: bool = False
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """As `stream_execution`, with all events that are there at one moment together; empty when nothing happened."""
        reader = _Reader()
        bell = self.store.bell(execution_id)
        try:
            while True:
                run = self._live(execution_id)
                reader.attend(run)
                status = await self._status_of(execution_id, run)
                found = await self.get_execution_events(execution_id, after=after)
                if found:
                    after = found[-1]["sequence"]
                told = reader.live.take()
                batch = merged(found, told) if told else found
                if batch:
                    yield batch
                if status in FINISHED or (status == "suspended" and not follow):
                    return
                if not batch:
                    yield batch
                if run is not None:
                    await reader.rings(LOOK_SECONDS)
                else:
                    await bell.rings(self.store.look)
        finally:
            bell.close()
            reader.attend(None)

    async def _status_of(self, execution_id: str, run: Run | None) -> str:
        """The status whose events are all there already."""
        if run is not None:
            return run.status if run.settled else "running"
        return (await self._row(execution_id)).status

    # Looking.

    async def list_executions(
        self,
        *,
        graph: str | None = None,
        status: tuple[str, ...] = (),
        owner: str | None = None,
        tag: str | None = None,
        since: int | None = None,
        until: int | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Executions, the newest first, as short documents. Times are nanoseconds since 1970.

        `before` goes on after the (created_ns, execution_id) of the last one.
        """
        await self._ready_runtime()
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            wanted = Filter(graph, tuple(status), owner, tag, since, until, before, limit)
            rows = await self.store.select(wanted)
            for row in rows:
                run = self._live(row.id)
                try:
                    shown = self._shown(run) if run is not None else listed(row)
                except StoreDamaged as exc:
                    logger.error("It is left out of a list: %s", exc.message)
                    continue
                if (not status or shown["status"] in status) and len(found) < limit:
                    short: dict[str, Any] = {name: shown[name] for name in SHORT if name in shown}
                    found.append({**short, "created_ns": row.created, "waiting": shown.get("waiting", [])})
            if len(rows) < limit:
                break
            before = rows[-1].created, rows[-1].id
        return found

    async def draw_execution(self, execution_id: str) -> dict[str, Any]:
        """The graph, in the version that the execution began with, and what became of each node and edge of it.

        `state` of a node is `pending`, `running`, `waiting`, `completed`, `failed`, `cut` (the execution ended under
        it) or `skipped` (the execution ended without it). Raises UnknownExecution.
        """
        runtime = await self._ready_runtime()
        run = self._live(execution_id)
        if run is None:
            row = await self._row(execution_id)
            status, plan = row.status, await runtime.plan_of(row.definition, row.graph_id)
        else:
            status, plan = run.status if run.settled else "running", run.plan
        found = await self.get_execution_events(execution_id)
        drawn = drawing.to_dict(plan.workflow, self.registry)
        return {"execution_id": execution_id, "status": status, **overlaid(drawn, found, status in FINISHED)}

    async def get_execution_nodes(self, execution_id: str, *, node: str | None = None) -> list[dict[str, Any]]:
        """What each run of a node was given and what it wrote, in the order in which they began; those of a
        sub-workflow follow the node that runs it. `node` is a name, or a path like `Approve#1`, to get those only.

        Inputs are those that the node saw, with the version that the execution began with. Raises UnknownExecution,
        and ExecutionConflict when that version cannot be read any more.
        """
        runtime = await self._ready_runtime()
        run = self._live(execution_id)
        if run is not None and not self.store.durable:
            state, plan, ended = run.initial, run.plan, run.settled and run.finished
            entries = list(entries_of(run))
        else:
            row = await self._row(execution_id)
            if row.head == LOST_HEAD:
                raise ExecutionConflict("What the execution began with is damaged in the store")
            state, ended = json.loads(row.head)["state"], row.status in FINISHED
            try:
                plan = await runtime.plan_of(row.definition, row.graph_id)
            except NodeFailure as exc:
                raise ExecutionConflict(exc.message) from None
            entries = await self.store.entries(execution_id, path=None)
        plans = await runtime.plans_of(parts_in(entries))
        found = visits(plan, state, execution_id, entries, plans.get, ended=ended)
        return found if node is None else [one for one in found if node in (one["node"], one["path"])]


def _number(record: Record) -> int:
    return record[0]


class _Bell:
    """Rings when a run has something new to tell."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._event = asyncio.Event()
        run.own().watchers.add(self._event.set)
        if run.settled:
            self._event.set()

    async def rings(self, seconds: float) -> bool:
        return await _rings(self._event, seconds)

    def close(self) -> None:
        self._run.extra.watchers.discard(self._event.set)


class _Reader:
    """One who reads a stream: has what the run tells without keeping it, and waits for more."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._event = asyncio.Event()
        self.live = Listener(self._event.set)

    def attend(self, run: Run | None) -> None:
        """Listen to this run, and to no other; what has been told up to now has been heard."""
        self._event.clear()
        if run is not self._run:
            if self._run is not None:
                self._run.extra.watchers.discard(self._event.set)
                self._run.extra.listeners.discard(self.live)
            self._run = run
            if run is not None:
                run.own().watchers.add(self._event.set)
                run.own().listeners.add(self.live)
        if run is not None and run.settled:
            self._event.set()

    async def rings(self, seconds: float) -> None:
        await _rings(self._event, seconds)


async def _rings(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):  # `wait_for` loses a cancellation that comes with the ring (3.11)
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _told(run: Run, seconds: float) -> bool:
    bell = _Bell(run)
    try:
        return await bell.rings(seconds)
    finally:
        bell.close()
