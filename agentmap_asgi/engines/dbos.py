"""Executions on DBOS Transact: each stretch of one, from a start or an answer to its end or to a wait, is a workflow of
DBOS, and each run of a node a step of it. Any process of the same namespace can run it.

The store says who has an execution and what happened in it; DBOS says who runs it and which nodes are done. A node's
outcome is kept by DBOS before anything of it counts, and what the store has not heard of when a process dies is told to
it by whoever goes on. A process is dead when its runner is, so DBOS's own recovery service is not needed.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar

from anyio import to_thread
from dbos import DBOS, SetWorkflowID, error

from ..errors import Interrupted, NodeFailure, StoreUnavailable
from ..execution.ledger import AGAIN
from ..stores.store import GOING, Row
from . import instance

if TYPE_CHECKING:
    from ..execution.executor import Run
    from ..execution.runtime import Runtime

logger = logging.getLogger("agentmap_asgi.execution")

T = TypeVar("T")

POLL_SECONDS: Final = 0.25
"""Between two looks of a process at the queue."""
CLAIMS: Final = 20
"""Tries to claim an execution that DBOS has given to this process."""
MOST_TIDIED: Final = 500
MOST_LOOKED_AT: Final = 500
UNFINISHED: Final = ("PENDING", "ENQUEUED", "DELAYED", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
"""States of a workflow of DBOS that can go on."""


class Left(NamedTuple):
    """An execution that was left to others."""

    workflow: str
    seen: str | None = None
    """A process that was seen to have it from DBOS, and not to have claimed it."""


class DBOSEngine:
    """The engine of one runtime. Belongs to its event loop."""

    def __init__(self, runtime: Runtime, url: str) -> None:
        self.runtime = runtime
        self.config = runtime.config
        self.url = url
        self.namespace = runtime.store.namespace
        self.queue = f"agentmap:{self.namespace}"
        self._mine: bool | None = None
        """Whether the instance of DBOS is ours; None while there is none."""
        self._given: dict[str, tuple[Run, Callable[[], None]]] = {}
        """Runs that begin here, by the workflow that they are about to begin in."""
        self._left: dict[str, Left] = {}
        """Executions that were left to others, until they are seen to have been taken."""

    # What the runtime calls.

    async def open(self) -> None:
        executor = self.runtime.runner_id
        assert executor is not None  # noqa: S101
        listens = self.config.run_executions and self.config.patrol_seconds > 0
        self._mine = await to_thread.run_sync(
            instance.acquire, self.url, self.namespace, executor, listens, self.config.worker_lease, self._segment
        )
        at_once, every_second = self.config.max_running_everywhere, self.config.max_starts_per_second
        await DBOS.register_queue_async(
            self.queue,
            worker_concurrency=min(self.config.max_running, at_once or self.config.max_running),
            global_concurrency=at_once or None,
            limiter={"limit": every_second, "period": 1.0} if every_second else None,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update" if self.config.run_executions else "never_update",
        )

    def elsewhere(self, run: Run, full: bool) -> bool:
        if run.journal is not None:  # DBOS has given it to this process
            return False
        shared = self.config.max_running_everywhere or self.config.max_starts_per_second
        return full or bool(shared) or not self.config.run_executions

    def hand_over(self, run: Run) -> None:
        self.runtime.job(self._enqueued(run))

    def left(self, execution_id: str | None = None) -> bool:
        return bool(self._left) if execution_id is None else execution_id in self._left

    def begin(self, run: Run, go: Callable[[], None]) -> None:
        if run.journal is not None:
            go()
        else:
            self.runtime.job(self._started(run, go))

    async def begun(self, row: Row) -> bool:
        """One that is in the queue waits for its turn; the process that died had only put it there. So it had when
        another process is about to claim it.
        """
        latest = await self._asked(self._latest(row))
        if latest is None or latest.status == "ENQUEUED":
            return False
        return latest.executor_id == row.runner or not self._mine  # a host's own DBOS has names of its own

    async def take_over(self, row: Row) -> bool:
        """Have the workflow that was under way go on wherever there is a slot, or begin one."""
        logger.warning("%s: its process has ended; it goes on (attempt %d)", row.id, row.attempt)
        try:
            latest = await self._asked(self._latest(row))
            if latest is not None and latest.status == "ENQUEUED":
                self._left[row.id] = Left(latest.workflow_id)
            elif latest is not None and latest.status in UNFINISHED:
                await self._asked(self._resume(row.id, latest.workflow_id))
            else:
                fresh = self._workflow_id(row.id, row.created, row.fence)
                await self._asked(self._enqueue(fresh, row.id, row.fence))
        except StoreUnavailable:
            self.runtime.let_go(row)
            raise
        return True

    @staticmethod
    async def _asked(question: Awaitable[T]) -> T:
        """Raises StoreUnavailable when DBOS cannot answer: the next look tries again, or that of another process."""
        try:
            return await question
        except Exception as exc:
            raise StoreUnavailable(f"DBOS does not answer: {exc}") from exc

    async def look_after(self) -> None:
        await self._asked(self._end_cancelled())
        await self._asked(self._give_out_again())

    async def _end_cancelled(self) -> None:
        """End what runs here and was cancelled by the means of DBOS."""
        here = {run.journal.workflow_id: run for run in self.runtime.running if isinstance(run.journal, StepJournal)}
        if here:
            ids, status = list(here), "CANCELLED"
            found = await DBOS.list_workflows_async(
                workflow_ids=ids, status=status, load_input=False, load_output=False
            )
            for workflow in found:
                here[workflow.workflow_id].cancel()

    async def _give_out_again(self) -> None:
        """Give out again what a process was given and died, or stopped, before it could claim it."""
        some = {left.workflow: execution for execution, left in islice(self._left.items(), MOST_LOOKED_AT)}
        if not some:
            return
        found = await DBOS.list_workflows_async(workflow_ids=list(some), load_input=False, load_output=False)
        for workflow in found:
            execution = some[workflow.workflow_id]
            left = self._left.get(execution)
            if left is None or left.workflow != workflow.workflow_id:
                continue
            again = await self._given_out_again(execution, left, workflow)
            if self._left.get(execution) is left:  # else it was taken, or left once more
                del self._left[execution]
                if again is not None:
                    self._left[execution] = again  # the last to be looked at next time

    async def _given_out_again(self, execution: str, left: Left, workflow: Any) -> Left | None:
        """What is left of it; None when somebody has taken it. What fails here is tried again at the next look."""
        if workflow.status == "ENQUEUED":
            return Left(left.workflow)
        if not await self._unclaimed(execution):
            return None
        if workflow.status == "CANCELLED":
            await self.runtime.cancel_unclaimed(execution)
        elif workflow.status != "PENDING":
            await self._begin_anew(execution)
        elif left.seen == workflow.executor_id:
            await self._resume(execution, left.workflow)
        else:
            return Left(left.workflow, workflow.executor_id)
        return None

    async def _begin_anew(self, execution: str) -> None:
        """Its workflow has ended without having run it, which nothing here does: somebody has touched DBOS's tables."""
        row = await self.runtime.reclaim(execution)
        if row is not None:
            await self._enqueue(self._workflow_id(row.id, row.created, row.fence), row.id, row.fence)

    async def _unclaimed(self, execution: str) -> bool:
        row = await self.runtime.store.find(execution)
        mine = row is not None and row.status in GOING and row.runner == self.runtime.runner_id
        return mine and execution not in self.runtime.live

    async def tidy(self, before: int) -> None:
        old = await DBOS.list_workflows_async(
            name=instance.WORKFLOW,
            workflow_id_prefix=f"{self.queue}:",
            status=["SUCCESS", "ERROR", "CANCELLED"],
            completed_before=datetime.fromtimestamp(before / 1e9, UTC).isoformat(),
            limit=MOST_TIDIED,
            load_input=False,
            load_output=False,
        )
        if old:
            await DBOS.delete_workflows_async([one.workflow_id for one in old])

    async def aclose(self) -> None:
        if self._mine is not None:
            mine, self._mine = self._mine, None
            await to_thread.run_sync(instance.release, self.namespace, mine)

    # Beginning.

    def _workflow_id(self, execution_id: str, created: int, fence: int) -> str:
        """The same for every try to begin the same segment. An id that was used before has another time of birth."""
        return f"{self._prefix(execution_id, created)}{fence}"

    def _prefix(self, execution_id: str, created: int) -> str:
        return f"{self.queue}:{execution_id}:{created // 1000:x}:"

    def _id_of(self, run: Run) -> str:
        return self._workflow_id(run.id, run.created_ns + run.wall_offset, run.fence)

    async def _started(self, run: Run, go: Callable[[], None]) -> None:
        """Begin a segment in this process."""
        workflow_id = self._id_of(run)
        self._given[workflow_id] = (run, go)
        for delay in _again():
            if run.finished or run.lost:
                self._given.pop(workflow_id, None)
                return
            try:
                with SetWorkflowID(workflow_id):
                    await DBOS.start_workflow_async(instance.segment, self.namespace, run.id, run.fence)
                return
            except Exception as exc:  # whatever keeps a database from answering
                logger.error("%s: DBOS cannot begin it, the execution waits: %s", run.id, exc)
            await asyncio.sleep(delay)

    async def _enqueued(self, run: Run) -> None:
        """Leave a run to whichever process has a slot."""
        for delay in _again():
            if run.finished or run.lost:
                return
            try:
                await self._enqueue(self._id_of(run), run.id, run.fence)
            except Exception as exc:  # as above
                logger.error("%s: DBOS cannot take it, the execution waits: %s", run.id, exc)
                await asyncio.sleep(delay)
            else:
                run.hand_over()
                return

    async def _enqueue(self, workflow_id: str, execution_id: str, fence: int) -> None:
        with SetWorkflowID(workflow_id):
            await DBOS.enqueue_workflow_async(self.queue, instance.segment, self.namespace, execution_id, fence)
        self._left[execution_id] = Left(workflow_id)

    async def _resume(self, execution_id: str, workflow_id: str) -> None:
        await DBOS.resume_workflow_async(workflow_id, queue_name=self.queue)
        self._left[execution_id] = Left(workflow_id)

    async def _elsewhere(self, execution_id: str, workflow_id: str) -> NoReturn:
        """Give a workflow back that DBOS has given to this process, which stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.cancel_grace):
                await self._resume(execution_id, workflow_id)
        raise asyncio.CancelledError

    async def _latest(self, row: Row) -> Any:
        """The newest workflow of an execution."""
        found = await DBOS.list_workflows_async(
            workflow_id_prefix=self._prefix(row.id, row.created),
            sort_desc=True,
            limit=1,
            load_input=False,
            load_output=False,
        )
        return found[0] if found else None

    # A segment, as DBOS calls it: maybe on a loop of its own.

    async def _segment(self, execution_id: str, fence: int, workflow_id: str) -> str:
        context, loop = contextvars.copy_context(), self.runtime.loop

        async def outside() -> str:
            """Not in the workflow's context, where each call of DBOS would be a step of it."""
            work = self._run(execution_id, fence, workflow_id, context)
            return await loop.create_task(work, context=contextvars.Context())

        if asyncio.get_running_loop() is loop:
            return await outside()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(outside(), loop))

    async def _run(self, execution_id: str, fence: int, workflow_id: str, context: contextvars.Context) -> str:
        given = self._given.pop(workflow_id, None)
        journal = StepJournal(self, workflow_id, context)
        if given is not None:
            run, go = given
            if run.finished or run.lost:
                return run.status
            run.journal = journal
            journal.run = run
            go()
        else:
            found = await self._claimed(execution_id, fence, workflow_id, journal)
            if isinstance(found, str):
                return found
            run = found
        await run.wait()
        if run.lost:  # whoever has it next goes on with this workflow
            raise asyncio.CancelledError
        return run.status

    async def _claimed(self, execution_id: str, fence: int, workflow_id: str, journal: StepJournal) -> Run | str:
        """Claim an execution and let it go on; or why there is nothing to do."""
        runtime = self.runtime
        self._left.pop(execution_id, None)
        for delay in _again():
            if runtime.stopping:
                await self._elsewhere(execution_id, workflow_id)
            try:
                for _ in range(CLAIMS):
                    row = await runtime.store.find(execution_id)
                    if row is None or row.status not in GOING:
                        return "gone" if row is None else row.status
                    fresh = row.fence == fence
                    if not fresh:
                        latest = await self._latest(row)
                        if latest is not None and latest.workflow_id != workflow_id:
                            return "superseded"
                    assert runtime.runner is not None  # noqa: S101
                    claimed = await runtime.store.claim(row, runtime.runner)
                    if claimed is None:
                        continue
                    await journal.load()
                    run = await runtime.restored(claimed)
                    if run is None:
                        return "interrupted"
                    if runtime.stopping:  # since it was asked
                        runtime.let_go(claimed)
                        await self._elsewhere(execution_id, workflow_id)
                    run.journal = journal
                    journal.run = run
                    run.queued = not run.records
                    if fresh:
                        runtime.go_on(run)
                    else:
                        runtime.recover(run)
                    return run
                raise asyncio.CancelledError
            except Exception as exc:  # of a database; one that left this workflow would end it
                logger.warning("%s: it cannot be claimed just now: %s", execution_id, exc)
            await asyncio.sleep(delay)
        raise AssertionError


def _again() -> Iterator[float]:
    return chain(AGAIN, repeat(AGAIN[-1]))


class StepJournal:
    """The steps of one workflow of DBOS. Their numbers follow the order in which nodes begin, which is not the same in
    every run; so steps are known by their names, and those that are new get numbers that nobody had.
    """

    def __init__(self, engine: DBOSEngine, workflow_id: str, context: contextvars.Context) -> None:
        self._engine = engine
        self.workflow_id = workflow_id
        self._context = context
        """In which DBOS knows its workflow."""
        self._kept: dict[str, Any] = {}
        self._last = 0
        self.run: Run | None = None

    async def load(self) -> None:
        """Read what was kept before."""
        for step in await DBOS.list_workflow_steps_async(self.workflow_id):
            self._last = max(self._last, step["function_id"])
            if step["error"] is None:
                self._kept.setdefault(step["function_name"], step["output"])

    def has(self, step: str) -> bool:
        return step in self._kept

    async def outcome(self, step: str, work: Callable[[], Awaitable[str]]) -> str:
        if step in self._kept:
            return self._read(step, self._kept.pop(step))
        reserved = self._context.run(DBOS.reserve_step)
        while reserved.step_id <= self._last:
            reserved = self._context.run(DBOS.reserve_step)
        task = self._engine.runtime.loop.create_task(
            reserved.run_async({"name": step}, self._step, work), context=self._context.copy()
        )
        run = self.run
        assert run is not None  # noqa: S101
        try:
            return self._read(step, await task)
        except NodeFailure:
            raise
        except error.DBOSWorkflowCancelledError:
            run.cancel()
        except error.DBOSWorkflowConflictIDError:
            logger.error("%s: another process has it; the execution ends here", run.id)
            run.leave("Another process has the execution")
        except Exception as exc:
            logger.error("%s: DBOS cannot keep what %s gave", run.id, step, exc_info=exc)
            raise Interrupted("The engine cannot keep what the node gave") from exc
        raise asyncio.CancelledError

    async def _step(self, work: Callable[[], Awaitable[str]]) -> str:
        return self._written(await work())

    def _written(self, text: str) -> str:
        codec = self._engine.runtime.context.payload_codec
        return text if codec is None else b64encode(codec.encode(text.encode())).decode("ascii")

    def _read(self, step: str, kept: Any) -> str:
        """Raises Interrupted for what was not written here."""
        codec = self._engine.runtime.context.payload_codec
        try:
            text: str = kept if codec is None else codec.decode(b64decode(kept)).decode()
        except (TypeError, ValueError) as exc:
            raise Interrupted(f"What the engine has of {step} is damaged") from exc
        return text


def engine_for(url: str) -> Callable[[Runtime], DBOSEngine]:
    """Makes the engine of a runtime. `url` is a PostgreSQL database, as libpq writes it."""
    return partial(DBOSEngine, url=url.replace("postgres://", "postgresql://", 1))
