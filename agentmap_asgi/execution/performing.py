"""Nodes that are awaited: a task for each branch, attempts under the row's policies, calls of agents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeVar

from ..errors import (
    AgentFailed,
    Cancelled,
    Interrupted,
    LimitReached,
    NodeTimeout,
)
from ..scopes import NodeScope
from ..workflows.model import Retry
from .call import NodeCall
from .composites import Held, mapped, sub_workflow
from .failures import as_failure, as_value, cancelled_from_outside
from .plan import PlanNode
from .records import BEGAN, FINISHED, RAN, RETRIED, Finish
from .stepping import stepped
from .waits import Answer, Suspend, Wait, outcome
from .walker import Token
from .walking import PAUSE_AFTER, Walking

Run = Any
"""An `executor.Run`, which imports this module."""
logger = logging.getLogger("agentmap_asgi.execution")

ONCE: Final = Retry()

Settled = tuple[dict[str, Any], bool, int | None]
T = TypeVar("T")


def _running() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


class Performing(Walking):
    """A run whose nodes may be awaited."""

    __slots__ = ()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.host.loop.create_task(work, context=Context())
        self.add_task(task)
        task.add_done_callback(self._driven)

    def _driven(self, task: asyncio.Task[Any]) -> None:
        if self.tasks:
            self.tasks.discard(task)
        if task.cancelled():
            if self.host.loop_ends:
                self.root.leave("The event loop stops")
            else:
                self._stop(Cancelled())
        elif task.exception() is not None and not self.finished:
            logger.error("%s: a branch ended with an unexpected error", self.id, exc_info=task.exception())
            self.error = self.error_of(AgentFailed("An internal error ended a branch"), None, 1)
            self._finish("failed")

    async def _drive(self, ready: list[Token], perform: list[Token]) -> None:
        """One branch after the other in this task; a task of its own for each further one that must be awaited."""
        performed = 0
        nodes = self.plan.nodes
        while not self.ended_ns:
            if ready:  # a turn of the walk is over
                for token in perform:
                    self.spawn(self._drive([], [token]))
                perform = []
                await asyncio.sleep(0)
            elif perform:
                for token in perform[1:]:
                    self.spawn(self._drive([], [token]))
                ready = (await self._perform(perform[0]))[::-1]
                perform = []
                performed += 1
                if not performed % PAUSE_AFTER:  # agents that never wait give no turns by themselves
                    await asyncio.sleep(0)
                if len(ready) == 1 and nodes[ready[0].at].step is None:  # nothing to walk in between
                    ready, perform = perform, ready
                    continue
            else:
                return
            if not self.ended_ns:
                self._pump(ready, perform)

    async def _perform(self, token: Token) -> list[Token]:
        """Run the node the token stands on; the tokens that can run after it."""
        node = self.plan.nodes[token.at]
        clock = self.host.context.clock.monotonic_ns
        began = clock()
        if began > self._deadline:  # the timer waits for a turn, which agents that never wait do not give
            self._out_of_time()
            return []
        key = (token.at, token.visit)
        root = self.root
        answered = self.extra.answered.pop(key, None)
        number = -1
        if key not in self.extra.begun:
            if root.counted >= self.host.config.max_steps:
                self.out_of_steps()
                return []
            self.steps += 1
            root.counted += 1
            number = self.sequence
            self.record(BEGAN, token, began, began, 1)
        if not self.busy:
            self.busy = {}
        self.busy[token] = None
        try:
            if self.host.writes_steps:
                await self.keep()
            elif self.ledger is not None and self.ledger.opening:
                await self.ledger.ask()
            attempt = 1
            if answered is not None:
                delta, flag, goto = self._answer_read(node, *answered)
            elif node.direct and not self.extra.attempts and root.journal is None:
                delta, flag, goto = await self.direct(token, node)
                delta = self.masked(delta)
            else:
                (delta, flag, goto), attempt = await self._attempts(token, node)
            if self.ended_ns:
                return []
            self.weigh_all(delta, token.values)
            targets = self.targets(token, node, flag, goto, delta)
        except GeneratorExit:
            raise
        except Suspend as suspend:
            return [] if self.ended_ns else self.suspended(token, node, suspend)
        except BaseException as exc:  # as in the walk
            if self.ended_ns:
                return []
            if isinstance(exc, asyncio.CancelledError):
                raise
            self.extra.begun.discard(key)
            attempt = getattr(exc, "attempt", 1)
            return self.failed(token, node, exc, began, clock(), attempt, FINISHED)
        finally:
            self.busy.pop(token, None)
        self.extra.begun.discard(key)
        token.write(delta)
        token.flag = flag
        finish = Finish(delta, flag, targets, attempt, usage=self.spent(token))
        if self.sequence == number + 1 and len(self.records) > max(self.kept, self.given):
            self._rewrite(number, token, began, clock(), finish)
        else:
            self.record(FINISHED, token, began, clock(), finish)
        return self.advance(token, targets)

    def _rewrite(self, number: int, token: Token, began: int, ended: int, finish: Finish) -> None:
        """One record of a node's beginning and end, where nothing has happened between them and no write has been given
        the first.
        """
        self.records[-1] = (number, RAN, token.at, token.visit, began, ended, finish)
        self.sequence = number + 2
        if self.extra.watchers and self.ledger is None:
            self.told()

    async def keep(self) -> None:
        """Write what has happened so far; with `durability="sync"`, and at the start, wait until it is kept."""
        assert self.ledger is not None  # noqa: S101  # steps are written where there is a durable store
        kept = self.ledger.ask()
        if self.host.waits_for_commits or self.ledger.opening:
            await kept

    def _answer_read(self, node: PlanNode, wait: Wait, answer: Answer) -> Settled:
        """What an answer changes, and where it leads."""
        result = outcome(wait, answer)
        if result.goto is None:
            return node.declared(result.value), result.success, None
        return {}, False, self.after_timeout(node, result.goto)

    async def _attempts(self, token: Token, node: PlanNode) -> tuple[Settled, int]:
        if node.node.map_over is not None:
            results = await mapped(self, token, node, node.node.map_over)
            return (node.stored(results), True, None), 1
        (delta, flag, goto), attempt = await self.tried(token, node, token.values, None, node.settled)
        return (self.masked(delta), flag, goto), attempt

    async def tried(
        self, token: Token, node: PlanNode, values: dict[str, Any], item: int | None, read: Callable[[Any, int], T]
    ) -> tuple[T, int]:
        """As `tries`; what the engine keeps the outcome of is not done again."""
        journal = self.root.journal
        if journal is None or node.agent.run is None:
            return await self.tries(token, node, values, item, read)
        return await stepped(self, journal, token, node, values, item, read)

    async def tries(
        self,
        token: Token,
        node: PlanNode,
        values: dict[str, Any],
        item: int | None,
        read: Callable[[Any, int], T],
        noted: list[tuple[int, dict[str, Any], float]] | None = None,
    ) -> tuple[T, int]:
        """Attempts until one succeeds and can be read, or the row's Retry is used up: (what was read, attempt).

        `noted` is told those that failed: (attempt, error, seconds until the next).
        """
        retry = node.node.retry or ONCE
        delay = retry.delay
        attempt = 1 if item is not None else self.extra.attempts.pop((token.at, token.visit), 1)
        while True:
            try:
                if node.bounds is None:
                    result = await self._attempt(token, node, values, attempt, item)
                else:
                    work = partial(self._attempt, token, node, values, attempt, item)
                    result = await self.host.limits.under(node.bounds, values, token, work)
                return read(result, self.plan.limit), attempt
            except Held:
                if attempt > 1:
                    self.own().attempts[token.at, token.visit] = attempt  # it goes on with the same sub-workflow
                raise
            except (GeneratorExit, Suspend):
                raise
            except BaseException as exc:  # as in the walk
                if self.finished or cancelled_from_outside(exc):
                    raise
                failure = as_failure(exc)
                kind = "timeout" if isinstance(failure, NodeTimeout) else "error"
                again = not isinstance(failure, LimitReached | Interrupted) and (
                    kind in retry.on or failure.code in retry.on
                )
                if self.extra.left and (token.at, token.visit, item) in self.extra.left:
                    self.extra.left.discard((token.at, token.visit, item))
                    again = again and node.may_run_again
                if attempt >= retry.attempts or not again:
                    failure.attempt = attempt  # type: ignore[attr-defined]
                    raise failure from exc
                now = self.host.context.clock.monotonic_ns()
                note = (attempt, self.error_of(failure, node, attempt), delay)
                self.record(RETRIED, token, now, now, note)
                if noted is not None:
                    noted.append(note)
            await asyncio.sleep(delay)
            delay = min(delay * retry.backoff, retry.max_delay)
            attempt += 1

    async def _attempt(
        self, token: Token, node: PlanNode, values: dict[str, Any], attempt: int, item: int | None
    ) -> Any:
        timeout = node.node.timeout
        work = self.called(token, node, values, attempt, item)
        if timeout is None:
            return await work
        task = self.host.loop.create_task(as_value(work), context=Context())
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout)
        except asyncio.CancelledError:
            await self._ended(task)
            raise
        if not done:
            await self._ended(task)
            raise NodeTimeout(f"The attempt took longer than {timeout:g} s")
        value, error = task.result()
        if error is not None:
            raise error
        return value

    async def _ended(self, task: asyncio.Task[Any]) -> None:
        """Cancel an attempt, and wait until it has ended, as long as its grace."""
        task.cancel()
        try:
            await asyncio.wait({task}, timeout=self.host.config.cancel_grace)
        finally:
            self.host.leaked(task, self)

    async def direct(self, token: Token, node: PlanNode) -> Settled:
        """The one attempt at a node that only has to be awaited; what `tries` and `called` do for all others."""
        call = NodeCall(self, node, token, token.values)
        run = node.agent.run
        assert run is not None  # noqa: S101  # a direct node has one
        failure: BaseException | None = None
        self.host.watch()
        try:
            value = await run(call)
            if value.__class__ is Suspend:
                raise value
            call.said()
            return node.settled(value, self.plan.limit)
        except GeneratorExit as exc:
            if self.finished or not _running():
                raise  # the coroutine is being closed
            failure = exc
            raise AgentFailed("The agent raised GeneratorExit") from exc
        except asyncio.CancelledError as exc:
            failure = exc
            if self.finished or cancelled_from_outside(exc):
                raise
            raise as_failure(exc) from exc
        except BaseException as exc:
            failure = exc
            raise
        finally:
            self.host.unwatch()
            if call.node_scope is not None:
                await call.node_scope.aclose(failure)

    async def called(self, token: Token, node: PlanNode, values: dict[str, Any], attempt: int, item: int | None) -> Any:
        """Call the node's agent once."""
        agent = node.agent
        if node.compiled is not None:
            return node.compiled(values, token)
        if agent.sub_workflow:
            return await sub_workflow(self, token, node, values, attempt, item)
        call = NodeCall(self, node, token, values, attempt, item)
        run = agent.run
        assert run is not None  # noqa: S101  # an agent is compiled, runs, or is a sub-workflow
        failure: BaseException | None = None
        try:
            if agent.services:
                call.node_scope = self.scope.node_scope()
                await call.node_scope.prepare(agent.services)
            if agent.mode == "thread":
                value = await self.host.threads.run(run, call)
            elif agent.mode == "async":
                self.host.watch()
                try:
                    value = await run(call)
                finally:
                    self.host.unwatch()
            else:
                value = run(call)
            if value.__class__ is Suspend:
                raise value
            call.said()
        except GeneratorExit as exc:
            if self.finished or not _running():
                raise  # the coroutine is being closed
            failure = exc
            raise AgentFailed("The agent raised GeneratorExit") from exc
        except BaseException as exc:
            failure = exc
            raise
        else:
            return value
        finally:
            scope = call.node_scope
            if failure is not None and self.host.threads.left_behind(call, self._returned(scope, failure)):
                self.root.threads_left += 1
                self.own().left.add((token.at, token.visit, item))
            elif scope is not None:
                await scope.aclose(failure)

    def _returned(self, scope: NodeScope | None, failure: BaseException) -> Callable[[], None]:
        """What to do when a thread that was given up returns: only then what it uses can be closed."""
        root = self.root

        async def close(services: list[Any]) -> None:
            for opened in services:
                await opened.aclose(failure)

        def returned() -> None:
            services: list[Any] = [] if scope is None else [scope]
            if root.threads_left < 0:  # the run has ended, and left its services to the last thread
                root.threads_left += 1
                if not root.threads_left:
                    services.append(root.scope)
            else:
                root.threads_left -= 1
            if services:
                task = self.host.loop.create_task(close(services), context=Context())
                self.host.threads.closing.add(task)
                task.add_done_callback(self.host.threads.closing.discard)

        return returned
