"""What the executions of one event loop share, and the slots they run in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..engines.engine import Engine, Local
from ..errors import Overloaded, ShuttingDown
from ..scopes import AppScope
from ..stores.store import Row, Runner, Store
from ..workflows.model import Workflow
from .executor import Run
from .limits import Limits
from .plan import Plan
from .threads import Threads
from .watchdog import Watchdog

logger = logging.getLogger("agentmap_asgi.execution")

T = TypeVar("T")


class Slots:
    """The executions of one event loop, and the turn of each."""

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
        engine: Callable[[Any], Engine] | None = None,
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

    # Work of its own.

    def job(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something in a task of its own, which whoever waits for it does not stop in the middle."""
        task = self.loop.create_task(work, context=Context())
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    def leaked(self, task: asyncio.Task[Any], run: Run) -> None:
        if not task.done():
            self.leaks.add(task)
            task.add_done_callback(self.leaks.discard)
            logger.warning("%s: an agent did not end within %g s of its cancellation", run.id, self.config.cancel_grace)

    def expects(self) -> None:
        if self._patrol is None and not self.stopping and self.config.patrol_seconds:
            self._patrol = self.loop.create_task(self._watch_over(), context=Context())

    async def _watch_over(self) -> None:
        raise NotImplementedError

    @property
    def loop_ends(self) -> bool:
        patrol = self._patrol
        return patrol is not None and not self.stopping and (patrol.done() or patrol.cancelling() > 0)

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

    async def begun_ahead(self, run: Run) -> Row | None:
        """Begin a run, and return when it is kept; or the row that has its id, and the run has ended here."""
        assert run.ledger is not None  # noqa: S101
        ledger = run.ledger
        kept = ledger.open()
        self.submit(run)
        if not ledger.flying:  # what is awaited first asks in a task, which has its turn before this
            self.loop.call_soon(ledger.write)
        return await kept

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

    def _when_free(self, run: Run, go: Callable[[], None], full: bool) -> None:
        if self.engine.elsewhere(run, full):
            self.engine.hand_over(run)
        elif full:
            self._queue[run] = go
        else:
            self.running.add(run)
            self.engine.begin(run, go)

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
