"""How a run ends, is left, or waits for answers, and how it is waited for."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Any, Final

from ..errors import AgentFailed, Cancelled, DeadlineExceeded, Interrupted, LimitReached, NodeFailure, StepLimit
from .ledger import Written
from .plan import PlanNode
from .records import ENDED, STARTED
from .run_state import NO_EXTRA, NO_FUTURES, NO_TASKS, RunState

logger = logging.getLogger("agentmap_asgi.execution")

_NO_FIELDS: Final[dict[str, Any]] = {}


class Ending(RunState):
    """A run that can end."""

    __slots__ = ()

    # Waiting for it.

    async def wait(self) -> None:
        """Return when the run is terminal or suspended, kept and closed. Cancelling the wait does not touch the run."""
        if not self.settled:
            await self._waiter()

    async def wait_for(self, seconds: float) -> None:
        """As `wait`, for so long at most."""
        if not self.settled:
            waiter = self._waiter()
            timer = self.host.loop.call_later(seconds, _release, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                if not self.settled:
                    self._waiters.remove(waiter)

    def _waiter(self) -> asyncio.Future[None]:
        waiter = self.host.loop.create_future()
        if self._waiters is NO_FUTURES:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

    # Ending it from outside.

    def cancel(self) -> None:
        """End the run now: running agents are cancelled, results that come later are dropped."""
        if self.status == "queued":
            self.started_ns = self.host.context.clock.monotonic_ns()
        self._begun_at_least()
        self._stop(Cancelled())

    def interrupt_now(self, why: str) -> None:
        """End the run as interrupted, also when it has not begun."""
        self._begun_at_least()
        self._stop(Interrupted(why))

    def _begun_at_least(self) -> None:
        """What ends before it has begun has a first event all the same."""
        if not self.records:
            self.records.append((1, STARTED, 0, 0, self.started_ns, self.started_ns, None))

    def interrupt(self) -> None:
        """Note that the event loop has closed under the run; nothing of it goes on."""
        if not self.finished:
            self.error = {**self.error_of(NodeFailure("The event loop closed before the execution ended"), None, 1)}
            self.error.update(code="interrupted", retryable=True)
            self.tasks = NO_TASKS
            self._waiters = NO_FUTURES
            self.status = "interrupted"
            self.ended_ns = self.host.context.clock.monotonic_ns()
            self.records.append((self.sequence, ENDED, 0, 0, self.started_ns, self.ended_ns, (self.status, self.error)))
            self.sequence += 1
            self.settled = True
            if not self.host.store.durable:
                self.host.store.append(Written.of(self))

    def leave(self, why: str = "The process stops") -> None:
        """End here without a trace in the store: whoever takes the execution on next goes on with it."""
        if not self.settled:
            self.lost = True
            # Of one that is suspended nothing runs, and the write that says so may still be on its way.
            if not self.ended_ns and self.status != "suspended":
                self._stop(Interrupted(why))
            self._settle()

    def hand_over(self) -> None:
        """Another process runs the execution, which has not begun here, or has not gone on."""
        if not self.settled:
            self.lost = True
            self._settle()

    def lose(self, error: BaseException | None) -> None:
        """Another runner has claimed the execution, or (`error`) what has happened in it cannot be written."""
        logger.error("%s: what happens here is not kept any more; the execution ends here", self.id)
        self.leave("Another process has the execution" if error is None else "It cannot be written into the store")
        if error is not None:
            self.host.give_up(self)

    # The end.

    def _out_of_time(self) -> None:
        self._stop(DeadlineExceeded())

    def out_of_steps(self) -> None:
        self._stop(StepLimit(f"The execution ran {self.root.counted} nodes, as many as max_steps allows"))

    def _stop(self, failure: LimitReached | Interrupted, node: PlanNode | None = None) -> None:
        """End now, whatever still runs."""
        if not self.finished:
            self.error = self.error_of(failure, node, 1)
            kinds = {"cancelled": "cancelled", "interrupted": "interrupted"}
            self._finish(kinds.get(failure.code, "failed"))

    def _suspend(self) -> None:
        """Nothing can run until an answer comes: give everything back."""
        self.status = "suspended"
        self.result = self._walker.result(self.extra.waiting.values())
        if self._timer is not None:
            self._timer.cancel()
        if self.parent is not None:
            self._settle()
            return
        self.host.ended(self)
        self._close_soon([])

    def _finish(self, status: str) -> None:
        walker = self._walker
        if status == "failed" and self.error is None:
            self.failures = [token.failure for token in walker.failed() if token.failure is not None]
            self.error = self.failures[0]
        extra = self.extra
        cut = [*extra.waiting.values(), *self.busy, *extra.ready] if self.busy or extra is not NO_EXTRA else ()
        if walker.ended is not None or walker.parked or walker.waiting or cut:
            self.result = walker.result(cut)
        was_suspended = self.status == "suspended"
        self.status = status
        now = self.host.context.clock.monotonic_ns()
        self.ended_ns = now
        self.records.append((self.sequence, ENDED, 0, 0, self.started_ns, now, (status, self.error)))
        self.sequence += 1
        if self._timer is not None:
            self._timer.cancel()
        for child in list(extra.children.values()) if extra.children else ():
            if child.status == "suspended":
                child.cancel()
        if self.parent is None:
            if extra.open:
                extra.open.clear()
                extra.owners.clear()
            if not was_suspended:
                self.host.ended(self)
        else:
            for path in [path for path, (run, _) in self.root.extra.owners.items() if run is self]:
                del self.root.extra.open[path], self.root.extra.owners[path]
        others = []
        if self.tasks:
            current = asyncio.current_task(self.host.loop)
            others = [task for task in self.tasks if task is not current and not task.done()]
            for task in others:
                task.cancel()
        self._close_soon(others)

    def _close_soon(self, others: list[asyncio.Task[Any]]) -> None:
        """Close what was opened, then keep the end, then settle. Without a task when nothing has to be awaited."""
        top = self.parent is None
        hook = self.on_end is not None and self.ended_ns
        if others or (top and (hook or not self.scope.empty)):
            closing = self.host.loop.create_task(self._close(others), context=Context())
            self.add_task(closing)
            closing.add_done_callback(self._closed)
        elif not top:
            self._settle()
        elif self.ledger is not None:
            if not self.lost:
                self.ledger.close(self._over)
        else:
            self.host.store.append(Written.of(self))
            self._settle()

    async def _close(self, others: list[asyncio.Task[Any]]) -> None:
        if others:
            _, left = await asyncio.wait(others, timeout=self.host.config.cancel_grace)
            for task in left:
                self.host.leaked(task, self)
        if self.parent is not None:
            return
        if not self.scope.empty:
            error = None if self.error is None else AgentFailed(self.error["message"])
            if self.threads_left:
                self.threads_left = -self.threads_left  # whoever returns last closes it
            else:
                await self.scope.aclose(error)
        if self.lost:
            return
        if self.on_end is not None and self.ended_ns:
            await self.on_end(self)
        if self.ledger is not None:
            await self.ledger.ask()
        else:
            self.host.store.append(Written.of(self))

    def _over(self) -> None:
        self.tasks = NO_TASKS
        self._settle()

    def _closed(self, closing: asyncio.Future[None]) -> None:
        if not closing.cancelled() and closing.exception() is not None:
            logger.error("%s: closing failed", self.id, exc_info=closing.exception())
        self._over()

    def _settle(self) -> None:
        if self.settled:
            return
        self.settled = True
        if self.ended_ns:
            self.result.facts = _NO_FIELDS  # else it would have the run itself
            self._walker = None  # type: ignore[assignment]  # nothing walks any more
            self._timer = None
            self.ledger = None  # which has the run as well; what leads in a circle costs the collector of garbage
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = NO_FUTURES
        if self.parent is None:
            if self.extra.watchers:
                self.told()
            self.host.settled(self)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
