"""Where executions live: one for each event loop. It opens, looks after what others leave and ask, and ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from typing import Any, Final
from zlib import crc32

from anyio import to_thread

from ..errors import AgentMapError, RequestRefused, StoreDamaged, StoreUnavailable
from ..stores.store import GOING, Command, Filter, Row
from .answering import Answering
from .executor import Run
from .restoring import Given
from .waits import EXPIRED, Answer, waits_of

logger = logging.getLogger("agentmap_asgi.execution")

TAKERS: Final = 16
"""Executions that are brought back at once."""
TAKING: Final = 2.0
"""Seconds that are waited for them."""
MOST_PRUNED: Final = 500
"""Executions that are forgotten in one write."""


class Runtime(Answering):
    """The executions of one event loop."""

    # Getting ready, and looking after what others left.

    async def prepare(self) -> None:
        """Open the store, once. Raises StoreUnusable."""
        if self.runner is not None:
            return
        if self._opening is None:
            self._opening = self.loop.create_task(self._open(), context=Context())
        try:
            await asyncio.shield(self._opening)
        finally:
            if self._opening is not None and self._opening.done() and self.runner is None:
                self._opening = None

    async def _open(self) -> None:
        await self.store.open()
        if self.store.durable:
            self.runner = await to_thread.run_sync(self.store.runner)
        else:
            self.runner = self.store.runner()
        self.runner_id = self.runner.id
        try:
            await self.engine.open()
        except BaseException:
            runner, self.runner, self.runner_id = self.runner, None, None
            await to_thread.run_sync(runner.close)
            raise
        if self.store.durable:
            self.generation = await self.store.generation()
        if self.store.durable or await self.store.select(Filter(statuses=("suspended",), limit=1)):
            self.expects()

    async def _watch_over(self) -> None:
        """Until the end: requests of other processes, waits that expire, executions whose process has died.

        Only waits where nothing outlives the process; then it begins with the first that expires.
        """
        duties = (
            (self._serve, 1),
            (self._expire, 5),
            (self._recover, 1 if self.store.shared else 5),
            (self.engine.look_after, 5),
            (self._follow, 5),
            (self._prune, 3_000),
        )
        turn = 0
        bell = self.store.bell(self.runner_id or "")
        while not self.stopping:
            for duty, every in duties if self.store.durable else duties[1:2]:
                if turn % every == 0:
                    try:
                        await duty()
                    except StoreUnavailable as exc:
                        logger.warning("The store does not answer: %s", exc.message)
                    except Exception:  # the next turn tries again
                        logger.exception("Looking after the executions failed")
            turn += 1
            until = self.loop.time() + self.config.patrol_seconds
            while (left := until - self.loop.time()) > 0 and await bell.rings(left) and not self.stopping:
                if self.store.deaths != self._deaths:
                    break
                with suppress(StoreUnavailable):
                    await self._serve()

    # What other processes ask.

    async def _serve(self) -> None:
        """Do what other processes ask of executions that run here."""
        assert self.runner is not None  # noqa: S101
        if not self.live and not self.engine.left():
            return
        for command in await self.store.asked(self.runner):
            if command.number in self._commands:
                continue  # it is being done
            run = self.live.get(command.execution)
            if self.engine.left(command.execution) if run is None else not run.finished:
                self._commands.add(command.number)
                self.job(self._obey(command, run))

    async def _obey(self, command: Command, run: Run | None) -> None:
        try:
            said = await self._obeyed(command, run)
            if said is not None:
                await self.store.answer(command.number, said)
        except StoreUnavailable:
            logger.warning("%s: an answer for another process is lost", command.execution)
        finally:
            self._commands.discard(command.number)

    async def _obeyed(self, command: Command, run: Run | None) -> str | None:
        """What to answer; None when somebody else will."""
        try:
            payload = json.loads(command.payload)
            if command.kind == "cancel":
                if run is None:
                    return await self.cancel_unclaimed(command.execution)
                if run.status == "suspended":  # and about to be kept: then nobody runs it, and anybody may end it
                    await run.wait()
                    return "late"
                run.cancel()
                await run.wait()
            elif command.kind == "answer":
                answer = Answer(**payload["answer"])
                if run is None:
                    return await self._answered_unclaimed(command.execution, payload["path"], answer)
                await self.take_answer(run, payload["path"], answer)
            else:
                return "unknown"
        except (RequestRefused, StoreDamaged, KeyError, TypeError, ValueError):
            return "late"
        return "done"

    # What has to go on.

    async def _expire(self) -> None:
        """Let the executions go on whose waits have been open for too long."""
        now = self.context.clock.time_ns()
        for run in list(self.live.values()):
            if run.open and run.status == "running":
                for path in expired(run.open.values(), now):
                    if path in run.extra.owners:
                        run.answer(path, Answer(EXPIRED))
        if not self.store.durable or len(self.running) < self.config.max_running:
            for row in await self.store.due(now):
                if self.stopping or len(self.running) >= self.config.max_running:
                    return
                await self._or_ended(row, self._expired(row, now))

    async def _expired(self, row: Row, now: int) -> None:
        found = await self.store.find(row.id)
        if found is not None:
            for path in expired(waits_of(found.id, found.waits), now)[:1]:
                await self.resume(found, path, Answer(EXPIRED))

    async def _recover(self) -> None:
        """Go on with executions whose process has died."""
        self._deaths = self.store.deaths
        rows = [row for row in await self.store.stranded() if row.id not in self.live and row.id not in self._taking]
        # Each process begins with others, so that they share the work and do not run after the same ones.
        rows.sort(key=lambda row: crc32(f"{self.runner_id} {row.id}".encode()))
        left = iter(rows)
        takers = [self.job(self._take(left)) for _ in range(min(TAKERS - len(self._taking), len(rows)))]
        if takers:  # what takes long, because somebody holds a lock, holds up nothing else
            await asyncio.wait(takers, timeout=TAKING)

    async def _take(self, rows: Iterator[Row]) -> None:
        for row in rows:
            if self.stopping or len(self.running) + len(self._taking) >= self.config.max_running:
                return
            self._taking.add(row.id)
            try:
                await self._or_ended(row, self._recovered(row))
            except StoreUnavailable as exc:
                logger.warning("%s: it cannot be taken on just now: %s", row.id, exc.message)
                return
            except Exception:  # the next look tries again
                logger.exception("%s: taking it on failed", row.id)
            finally:
                self._taking.discard(row.id)

    async def _recovered(self, row: Row) -> None:
        found = await self.store.find(row.id)
        # Another process may have been faster, and lives.
        if found is not None and found.status in GOING and found.fence == row.fence:
            await self._take_on(found)

    async def _or_ended(self, row: Row, work: Coroutine[Any, Any, None]) -> None:
        """A damaged execution fails, and those after it go on. One that is only encoded by another codec is left alone,
        and named once.
        """
        try:
            await work
        except StoreDamaged as exc:
            if row.id not in self._damaged:
                self._damaged.add(row.id)
                logger.error("%s: the execution cannot go on: %s", row.id, exc.message)
            if not exc.unread:
                with suppress(AgentMapError, ValueError):  # the next turn tries again
                    await self._end_stored(row, exc.message, damaged=True)

    async def _take_on(self, row: Row) -> None:
        assert self.runner is not None  # noqa: S101
        # One that was left in an orderly stop, or only waited for its turn, has nobody who died under it.
        died = row.runner is not None and await self.engine.begun(row)
        claimed = await self.store.claim(row, self.runner, attempt=row.attempt + died)
        if claimed is None:
            return
        if await self.engine.take_over(claimed):
            return
        logger.warning("%s: its process has ended; it goes on here (attempt %d)", row.id, claimed.attempt)
        run = await self.restored(claimed)
        if run is not None:
            self.recover(run)

    def recover(self, run: Run) -> None:
        """Let a restored run go on after a crash, unless there were too many."""
        if run.attempt > self.config.max_recoveries + 1:
            why = f"Its process has ended {run.attempt - 1} times; the execution may be what ends it"
            self.end(run, lambda: run.interrupt_now(why))
        else:
            self.go_on(run, recovered=True)

    # What other processes have changed, and what is old.

    async def _follow(self) -> None:
        """Read the workflow files again when another process has."""
        now = await self.store.generation()
        if now != self.generation:
            self.generation = now
            await self._on_reload()

    async def _prune(self) -> None:
        if self.config.retention_days:
            now = self.context.clock.time_ns()
            keep = max(self.config.retention_days * 24, self.config.idempotency_hours) * 3_600
            more = True
            while more:
                more = await self.store.prune(now - int(keep * 1e9), now, MOST_PRUNED) >= MOST_PRUNED
            await self.engine.tidy(now - int(keep * 1e9))

    # The end.

    def abandon(self) -> None:
        """The loop has closed under its executions: they are interrupted; a durable store has them still running."""
        self._watchdog.stop()
        for run in [*self.running, *self._queue]:
            run.interrupt()
        if self.runner is not None:
            self.runner.close()

    def told_to_stop(self) -> None:
        if self._told is None:
            self._told = self.loop.time()

    @property
    def _grace(self) -> float:
        """Seconds that running executions still get."""
        grace = self.config.shutdown_grace
        return grace if self._told is None else max(0.0, self._told + grace - self.loop.time())

    async def aclose(self) -> None:
        """Take nothing more on, give what runs `shutdown_grace` seconds, close app services.

        What runs longer is left to whoever opens the store next; without a durable store it is cancelled.
        """
        self.stopping = True
        queued, self._queue = list(self._queue), {}
        if self._patrol is not None:
            self._patrol.cancel()
            await asyncio.wait({self._patrol})
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=self.config.cancel_grace)
        for run in queued:
            if self.store.durable:
                run.leave()
            else:
                run.cancel()
        # Also those that have ended and are not kept yet, and those that come to run meanwhile.
        end = self.loop.time() + self._grace
        waited: set[Run] = set()
        going: list[asyncio.Task[None]] = []
        while more := [run for run in self.live.values() if run not in waited]:
            waited.update(more)
            going += [self.loop.create_task(run.wait(), context=Context()) for run in more]
            await asyncio.wait(going, timeout=max(0.0, end - self.loop.time()))
        staying = [run for run in self.live.values() if run.ledger is not None and not run.settled]
        for run in list(self.live.values()):
            if run.ledger is None:
                run.cancel()
        if staying:
            asks = [run.ledger.ask() for run in staying if run.ledger is not None]
            await asyncio.wait(asks, timeout=self.config.cancel_grace)
            for run in staying:
                run.leave()
        if going:
            await asyncio.wait(going, timeout=self.config.cancel_grace * 2)
        await self._let_go([*queued, *staying] if self.store.durable else [])
        self._watchdog.stop()
        for task in self._handing_back:
            task.cancel()  # whoever opens the store next sees that its owner is gone
        if self.threads.closing:
            await asyncio.wait(self.threads.closing, timeout=self.config.cancel_grace)
        await self.engine.aclose()
        await self.services.aclose()
        if self.runner is not None:
            await to_thread.run_sync(self.runner.close)
            self.runner = None

    async def _let_go(self, left: list[Run]) -> None:
        """Say in the store that nobody has these executions, so that the next one goes on with them at once."""
        gone = [asyncio.ensure_future(self.store.append(Given(run, {"runner": None}))) for run in left]
        if gone:
            await asyncio.wait(gone, timeout=self.config.cancel_grace)
            for one in gone:
                if one.done() and not one.cancelled():
                    one.exception()  # who opens the store next sees that the owner is gone


def expired(waits: Iterable[Mapping[str, Any]], now: int) -> list[str]:
    return [wait["path"] for wait in waits if wait["expires"] is not None and wait["expires"] <= now]
