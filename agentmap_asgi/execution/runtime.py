"""Where executions live: one for each event loop, with its slots, its threads and its watch over blocked loops."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from typing import Any, Final, TypeVar
from zlib import crc32

from anyio import to_thread

from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..engines.engine import Engine, Local
from ..errors import (
    AgentMapError,
    NodeFailure,
    Overloaded,
    RequestRefused,
    ShuttingDown,
    StoreDamaged,
    StoreUnavailable,
    SubworkflowFailed,
)
from ..scopes import AppScope
from ..stores.store import GOING, Command, Entry, Filter, Lines, Row, Runner, Store, lines_of
from ..workflows.model import Workflow
from ..workflows.pinned import unpinned
from .document import stored_document
from .executor import Run
from .host import Facts
from .ledger import AGAIN
from .limits import Limits
from .parts import kept
from .plan import Plan
from .records import ENDED, RESUMED, SUSPENDED, stamp, width
from .replay import restore
from .threads import Threads
from .waits import EXPIRED, Answer, waits_of, wake_of
from .watchdog import Watchdog

logger = logging.getLogger("agentmap_asgi.execution")

T = TypeVar("T")

PATIENCE: Final = 500
"""Looks, ten milliseconds apart, whether a sub-workflow is back."""
TAKERS: Final = 16
"""Executions that are brought back at once."""
TAKING: Final = 2.0
"""Seconds that are waited for them."""
MOST_PRUNED: Final = 500
"""Executions that are forgotten in one write."""


class Runtime:
    """The executions of one event loop."""

    def __init__(
        self,
        config: AgentMapConfig,
        context: AgentMapContext,
        store: Store,
        *,
        plan: Callable[[Workflow], Plan],
        plan_for: Callable[[], Callable[[Workflow, str], Plan]],
        on_ended: Callable[[Run], None],
        on_reload: Callable[[], Awaitable[None]],
        on_end: Callable[[Run], Awaitable[None]] | None = None,
        engine: Callable[[Runtime], Engine] | None = None,
    ) -> None:
        """`plan` compiles a workflow, `plan_for` gives what finds sub-workflows as they are now. `engine` makes the
        engine; without one, executions run here.

        `on_reload` is awaited when another process has read the workflow files again.
        `on_ended` is called once for each execution that has ended here, before it is kept; `on_end` is awaited then.
        """
        self._on_ended = on_ended
        self._on_reload = on_reload
        self.generation = 0
        """Of the workflow files, as the processes of a store count them."""
        self._plan = plan
        self._plan_for = plan_for
        self.on_end = on_end
        self.config = config
        self.context = context
        self.store = store
        self.loop = asyncio.get_running_loop()
        self.services = AppScope(context)
        self.threads = Threads(self.loop, config.max_threads)
        self.limits = Limits()
        self.running: set[Run] = set()
        """Executions that hold a slot; sub-workflows run in their parent's."""
        self.live: dict[str, Run] = {}
        """Executions that are here: queued, running, or not yet kept in the store as they ended."""
        self.leaks: set[asyncio.Task[Any]] = set()
        """Tasks of agents that did not end when they were cancelled."""
        self.stopping = False
        self._told: float | None = None
        """When the server around it was told to stop."""
        self.runner: Runner | None = None
        self.runner_id: str | None = None
        self._taking: set[str] = set()
        """Executions that are being brought back."""
        self._deaths = 0
        """Processes that had died when it was looked for executions that nobody runs."""
        self.writes_steps = store.durable and config.durability != "exit"
        self.waits_for_commits = store.durable and config.durability == "sync"
        self._opening: asyncio.Task[None] | None = None
        self._patrol: asyncio.Task[None] | None = None
        self._damaged: set[str] = set()
        """Executions that the log has named as damaged."""
        self._handing_back: set[asyncio.Task[None]] = set()
        self._queue: dict[Run, Callable[[], None]] = {}
        """What waits for a slot, and how it goes on then; in order."""
        self._jobs: set[asyncio.Task[Any]] = set()
        self._commands: set[int] = set()
        """Requests of other processes that are being done."""
        self._watchdog = Watchdog(self.loop, config.blocking_threshold)
        self.watch, self.unwatch = self._watchdog.enter, self._watchdog.leave
        self.engine: Engine = Local() if engine is None else engine(self)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def loop_ends(self) -> bool:
        patrol = self._patrol
        return patrol is not None and not self.stopping and (patrol.done() or patrol.cancelling() > 0)

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

    def expects(self) -> None:
        if self._patrol is None and not self.stopping and self.config.patrol_seconds:
            self._patrol = self.loop.create_task(self._watch_over(), context=Context())

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
            # Else it is about to be kept, and who asks finds it ended.

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

    async def reclaim(self, execution_id: str) -> Row | None:
        """Claim an execution that was handed over here, and that nobody has taken yet."""
        assert self.runner is not None  # noqa: S101
        row = await self.store.find(execution_id)
        if row is None or row.status not in GOING or row.runner != self.runner_id or row.id in self.live:
            return None
        return await self.store.claim(row, self.runner, status=row.status)

    async def cancel_unclaimed(self, execution_id: str) -> str | None:
        """End an execution that was handed over here, if nobody has taken it yet."""
        claimed = await self.reclaim(execution_id)
        run = None if claimed is None else await self.restored(claimed)
        if run is None:
            return None
        self.end(run, run.cancel)
        await run.wait()
        return "done"

    async def _answered_unclaimed(self, execution_id: str, path: str, answer: Answer) -> str | None:
        claimed = await self.reclaim(execution_id)
        if claimed is None:
            return None
        wait = next((wait for wait in waits_of(claimed.id, claimed.waits) if wait["path"] == path), None)
        if wait is None:
            return "late"
        given = await self._answered(claimed, wait, answer, self.context.clock.time_ns())
        return "done" if await self.store.append(given) else None

    def job(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something in a task of its own, which whoever waits for it does not stop in the middle."""
        task = self.loop.create_task(work, context=Context())
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    def give_up(self, run: Run) -> None:
        self.job(self._given_up(run))

    async def _given_up(self, run: Run) -> None:
        for delay in chain(AGAIN, repeat(AGAIN[-1])):
            try:
                row = await self.store.find(run.id)
                if row is not None and row.fence == run.fence and row.status in GOING:
                    await self._end_stored(row, "What has happened in it cannot be written")
            except StoreUnavailable:  # else it would seem to run as long as this process does
                await asyncio.sleep(delay)
            else:
                return

    async def _end_stored(self, row: Row, message: str, *, damaged: bool = False) -> None:
        """Say in the store that an execution goes on no more."""
        changes, last = given_up(row, message, self.context.clock.time_ns(), damaged=damaged)
        try:
            await self.store.append(Given(row, changes, [last]))
        except ValueError:  # there is an entry of this number
            await self.store.append(Given(row, {**changes, "sequence": row.sequence}))

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

    # Executions that are brought back.

    async def restored(self, row: Row, *, back: str = "running") -> Run | None:
        """A claimed execution as it stands in the store; `ready` holds what can run. None: it is interrupted now.

        Raises StoreUnavailable when the store cannot be read just now; the execution is `back` then, and nobody's.
        """
        try:
            head = json.loads(row.head)
            plan = await self.plan_of(row.definition, row.graph_id)
            entries = await self.store.entries(row.id, path=None)
            run = Run(
                self,
                plan,
                row.id,
                dict(head["state"]),
                scope=self.services.run_scope(),
                context=dict(head["context"]),
                plan_for=await self.kept_plans(head),
                on_end=self.on_end,
                facts=Facts(row.owner, tuple(row.tags), row.retry_of, row.key, row.key_body, head.get("origin")),
            )
            run.fence, run.attempt = row.fence, row.attempt
            run.created_ns = row.created - run.wall_offset
            run.started_ns = (row.started or row.created) - run.wall_offset
            own = []
            for entry in entries:
                if entry.path:
                    run.own().restored.setdefault(entry.path, []).append(entry)
                else:
                    own.append(entry)
            # Those of sub-workflows are brought back with their nodes; until then they are known, and not answered.
            run.own().open = {wait["path"]: wait for wait in waits_of(row.id, row.waits)}
            if own:
                run.own().ready = restore(run, own)
            if own and run.sequence != row.sequence + 1:
                raise StoreDamaged(row.id, f"it has {run.sequence - 1} events, and should have {row.sequence}")
            return run
        except StoreUnavailable:
            self._hand_back(row, back)
            raise
        except (RequestRefused, NodeFailure, StoreDamaged, KeyError, ValueError, TypeError, RecursionError) as exc:
            message = exc.message if isinstance(exc, AgentMapError) else "What is stored of it is damaged"
            logger.error("%s: the execution cannot go on: %s", row.id, message)
            try:
                await self._end_stored(row, message)
            except StoreUnavailable:
                self._hand_back(row, back)
                raise
            return None

    def let_go(self, row: Row) -> None:
        """Let go of an execution that was claimed here and that nobody runs."""
        self._hand_back(row, row.status)

    def _hand_back(self, row: Row, status: str) -> None:
        """Let go of a claimed execution that did not come to run: else it would seem to run as long as this process."""
        task = self.loop.create_task(
            self._handed_back(Given(row, {"status": status, "runner": None})), context=Context()
        )
        self._handing_back.add(task)
        task.add_done_callback(self._handing_back.discard)

    async def _handed_back(self, back: Given) -> None:
        for delay in chain(AGAIN, repeat(AGAIN[-1])):
            try:
                await self.store.append(back)
            except StoreUnavailable:
                await asyncio.sleep(delay)
            else:
                return

    def go_on(self, run: Run, *, recovered: bool = False) -> None:
        """Let a restored run go on, when there is a slot."""
        self.live[run.id] = run
        # One without records was accepted, and no more.
        go = partial(run.go_on, run.extra.ready, recovered=recovered) if run.records else run.start
        self._when_free(run, go, self.full)

    def end(self, run: Run, how: Callable[[], None]) -> None:
        """End a restored run; that needs no slot."""
        self.live[run.id] = run
        self.running.add(run)
        how()

    @property
    def full(self) -> bool:
        return len(self.running) >= self.config.max_running or bool(self._queue)

    def starts(self, run: Run) -> bool:
        """Whether a new run would begin here at once."""
        return not self.full and not self.engine.elsewhere(run, False)

    def begins_ahead(self, run: Run) -> bool:
        """Whether a new run may begin before it is kept, so that what it does at once is kept with its start.

        It must be the only one of its id, and have nothing to tell the host when it ends. Nodes that are
        awaited wait until it is kept.
        """
        return run.ledger is not None and run.on_end is None and isinstance(self.engine, Local) and self.starts(run)

    async def begun_ahead(self, run: Run) -> Row | None:
        """Begin a run, and return when it is kept; or the row that has its id, and the run has ended here."""
        assert run.ledger is not None  # noqa: S101
        ledger = run.ledger
        kept = ledger.open()
        self.submit(run)
        if not ledger.flying:  # what is awaited first asks in a task, which has its turn before this
            self.loop.call_soon(ledger.write)
        return await kept

    def _when_free(self, run: Run, go: Callable[[], None], full: bool) -> None:
        if self.engine.elsewhere(run, full):
            self.engine.hand_over(run)
        elif full:
            self._queue[run] = go
        else:
            self.running.add(run)
            self.engine.begin(run, go)

    async def plan_of(self, definition: str, graph_id: str) -> Plan:
        """The plan of a content hash: the one that is served, or the one that the store has pinned."""
        plan = self._served(definition, graph_id)
        if plan is None:
            plan = self._unpinned(await self._pinned(definition), definition)
        return plan

    async def plans_of(self, definitions: Iterable[str]) -> dict[str, Plan]:
        """The plans of those content hashes that can be had."""
        plans = {}
        for definition in definitions:
            with suppress(StoreDamaged, NodeFailure, RequestRefused):
                plans[definition] = self._unpinned(await self._pinned(definition), definition)
        return plans

    async def kept_plans(self, head: Mapping[str, Any]) -> Callable[[Workflow, str], Plan]:
        """Finds the sub-workflows of a stored execution, in the versions it began with."""
        versions: dict[str, str] = dict(head.get("parts") or {})
        plans = {}
        for version in set(versions.values()):
            plans[version] = partial(self._unpinned, await self._pinned(version), version)
        return kept(versions, plans, self._plan_for()) if versions else self._plan_for()

    async def _pinned(self, definition: str) -> str:
        text = await self.store.pinned(definition)
        if text is None:
            raise StoreDamaged(None, f"the definition {definition} is not there")
        return text

    def _unpinned(self, text: str, version: str) -> Plan:
        return self._plan(unpinned(text, version))

    def _served(self, definition: str, graph_id: str) -> Plan | None:
        try:
            plan = self._plan_for()(Workflow("", "", "", {}, None), graph_id)
        except RequestRefused:
            return None
        return plan if plan.workflow.version == definition else None

    async def pinned_plan(
        self, caller: Workflow, reference: str, entries: list[Any], plan_for: Callable[[Workflow, str], Plan]
    ) -> Plan:
        definition = json.loads(entries[0].text)[5]
        try:
            plan = plan_for(caller, reference)
            if plan.workflow.version == definition:
                return plan
        except RequestRefused:
            pass
        text = await self.store.pinned(definition)
        if text is None:
            raise SubworkflowFailed(f"The definition that {reference!r} began with is not in the store")
        return self._unpinned(text, definition)

    # Answers.

    async def take_answer(self, run: Run, path: str, answer: Answer) -> Run:
        """Take an answer for an execution that runs here; who goes on with it. KeyError: the wait is open no more."""
        for _ in range(PATIENCE):
            if path in run.extra.owners or path not in run.open:
                break
            await asyncio.sleep(0.01)  # the sub-workflow that waits is being brought back
        if run.status == "suspended":  # by now
            await run.wait()
            row = await self.store.find(run.id)
            again = None if row is None else await self.resume(row, path, answer)
            if again is None:
                raise KeyError(path)
            return again
        run.answer(path, answer)
        if run.ledger is not None:
            kept = run.ledger.ask()
            await asyncio.wait({kept})
            if kept.cancelled():  # the execution was lost meanwhile, and whoever has it knows whether it was kept
                raise KeyError(path)
        return run

    async def resume(self, row: Row, path: str, answer: Answer) -> Run | None:
        """Take an answer for a suspended execution, and let it go on here. None when somebody else was first.

        When it returns, the answer is kept. A caller who does not wait for that stops nothing in the middle.
        """
        if self.stopping:
            raise ShuttingDown()
        return await asyncio.shield(self.job(self._resumed(row, path, answer)))

    async def end_suspended(self, row: Row) -> Run | None:
        """Cancel a suspended execution. None when somebody else was first."""
        return await asyncio.shield(self.job(self._ended_suspended(row)))

    async def _ended_suspended(self, row: Row) -> Run | None:
        assert self.runner is not None  # noqa: S101
        claimed = await self.store.claim(row, self.runner)
        run = None if claimed is None else await self.restored(claimed, back="suspended")
        if run is not None:
            self.end(run, run.cancel)
        return run

    async def _resumed(self, row: Row, path: str, answer: Answer) -> Run | None:
        assert self.runner is not None  # noqa: S101
        wait = next((wait for wait in waits_of(row.id, row.waits) if wait["path"] == path), None)
        if wait is None or row.status != "suspended":  # who runs it takes its answers
            return None
        claimed = await self.store.claim(row, self.runner)
        if claimed is None:
            return None
        now = self.context.clock.time_ns()
        try:
            given = await self._answered(claimed, wait, answer, now)
            if not await self.store.append(given):
                return None  # another process has taken it on since, with the wait still open
            claimed.waits, claimed.sequence = given.changes()["waits"], given.changes()["sequence"]
        except (StoreUnavailable, StoreDamaged):
            self._hand_back(claimed, "suspended")
            raise
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as exc:
            self._hand_back(claimed, "suspended")
            raise StoreDamaged(row.id, "its entries are not what they should be") from exc
        run = await self.restored(claimed)
        if run is not None:
            self.go_on(run)
        return run

    async def _answered(self, row: Row, wait: Mapping[str, Any], answer: Answer, now: int) -> Given:
        """The entry of an answer, in the records of the (sub-)workflow that waits and in those of the execution."""
        path: str = wait["path"]
        entries: list[Entry] = []
        everything = await self.store.entries(row.id, path=None)
        paths = {entry.path for entry in everything}
        below = path.removesuffix(wait["node"] + path[path.rfind("#") :]).rstrip("/")
        top = row.sequence
        for place in dict.fromkeys((below, "")):
            if place not in paths:
                raise StoreDamaged(row.id, "its entries are not all there")
            own = [entry for entry in everything if entry.path == place]
            last = own[-1]
            number = last.sequence + width(json.loads(last.text)[0])
            asked = next((
                found for entry in reversed(own)
                if (found := json.loads(entry.text))[0] == SUSPENDED and found[5]["path"] == path
            ), None)  # fmt: skip
            if asked is None or (not place and number != row.sequence + 1):
                raise StoreDamaged(row.id, "its entries are not all there")
            text = json.dumps([RESUMED, asked[1], asked[2], now, now, answer.to_dict(path)], ensure_ascii=False)
            entries.append(Entry(place, number, text))
            if not place:
                top = number
        waits = [one for one in waits_of(row.id, row.waits) if one["path"] != path]
        return Given(row, {"sequence": top, "waits": json.dumps(waits), "wake": wake_of(waits)}, entries)

    # Slots.

    def admit(self) -> None:
        """Raise Overloaded or ShuttingDown when nothing more can be taken on."""
        if self.stopping:
            raise ShuttingDown()
        if len(self.running) >= self.config.max_running and len(self._queue) >= self.config.max_queued:
            raise Overloaded()

    def submit(self, run: Run) -> None:
        """Start a run, or queue it until a slot is free."""
        self.live[run.id] = run
        run.queued = self.full
        self._when_free(run, run.start, run.queued)

    def ended(self, run: Run) -> None:
        if run.parent is not None:
            return
        if run in self.running:
            self.running.discard(run)
            if self._queue:
                self.loop.call_soon(self._start_next)
        else:
            self._queue.pop(run, None)
        if run.ended_ns and not run.lost:
            self._on_ended(run)

    def settled(self, run: Run) -> None:
        if self.live.get(run.id) is run:
            del self.live[run.id]

    def _start_next(self) -> None:
        while self._queue and len(self.running) < self.config.max_running and not self.stopping:
            run = next(iter(self._queue))
            go = self._queue.pop(run)
            self.running.add(run)
            run.extend_deadline()
            self.engine.begin(run, go)

    def leaked(self, task: asyncio.Task[Any], run: Run) -> None:
        if not task.done():
            self.leaks.add(task)
            task.add_done_callback(self.leaks.discard)
            logger.warning("%s: an agent did not end within %g s of its cancellation", run.id, self.config.cancel_grace)

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


class Given:
    """A write that is not a live run's."""

    __slots__ = ("_changes", "_lines", "fence", "id")

    def __init__(self, row: Row | Run, changes: Mapping[str, Any], entries: Iterable[Entry] = ()) -> None:
        self.id = row.id
        self.fence = row.fence
        self._changes = changes
        self._lines = lines_of(entries)

    @property
    def status(self) -> str | None:
        return self._changes.get("status")

    def changes(self) -> Mapping[str, Any]:
        return self._changes

    def lines(self) -> Iterable[Lines]:
        return self._lines

    def pins(self) -> Mapping[str, str]:
        return {}


def given_up(row: Row, message: str, now: int, *, damaged: bool = False) -> tuple[dict[str, Any], Entry]:
    """The columns of an execution that cannot go on, and its last entry. It is interrupted; or failed, when what it
    began with is damaged, for then a retry could not begin with anything.
    """
    status = "failed" if damaged else "interrupted"
    error = {"code": StoreDamaged.code if damaged else status, "message": message, "node": None, "agent_type": None,
             "attempt": row.attempt, "retryable": not damaged, "source": {"file": None, "row": None}}  # fmt: skip
    ended = replace(row, status="running", ended=now)
    found = stored_document(ended) | {
        "success": False, "status": status, "error": error, "completed_at": stamp(now), "result": {},
    }  # fmt: skip
    for name in ("progress", "waiting"):
        found.pop(name, None)
    number, started = row.sequence + 1, row.started or row.created
    last = Entry("", number, json.dumps([ENDED, None, 0, started, now, status, error], ensure_ascii=False))
    changes = {"status": status, "ended": now, "runner": None, "wake": None, "waits": "[]", "sequence": number,
               "document": json.dumps(found, ensure_ascii=False)}  # fmt: skip
    return changes, last


def expired(waits: Iterable[Mapping[str, Any]], now: int) -> list[str]:
    return [wait["path"] for wait in waits if wait["expires"] is not None and wait["expires"] <= now]
