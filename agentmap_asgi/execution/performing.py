"""Nodes that are awaited: a task for each branch, attempts under the row's policies, agents, sub-workflows, items."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..agents.registry import Outcome
from ..errors import (
    AgentFailed,
    Cancelled,
    DepthLimit,
    Interrupted,
    LimitReached,
    MapOverInvalid,
    NodeFailure,
    NodeTimeout,
    RequestRefused,
    StepLimit,
    SubworkflowFailed,
)
from ..scopes import NodeScope
from ..workflows.model import Retry
from .call import NodeCall
from .failures import as_failure, as_value, cancelled_from_outside
from .fields import MISSING, gather, getter
from .plan import PlanNode
from .records import BEGAN, FINISHED, ITEM, RAN, RETRIED, Finish
from .replay import replayed
from .stepping import stepped
from .usage import Usage
from .waits import Answer, Suspend, Wait, outcome
from .walker import Token

if TYPE_CHECKING:
    from ..scopes import RunScope
    from ..workflows.model import Workflow
    from .host import Host
    from .ledger import Ledger
    from .plan import Plan
    from .records import Record

Run = Any
"""An `executor.Run`, which imports this module."""
logger = logging.getLogger("agentmap_asgi.execution")

ONCE: Final = Retry()
PAUSE_AFTER: Final = 256
"""Nodes between two turns of the event loop."""

Settled = tuple[dict[str, Any], bool, int | None]
T = TypeVar("T")


class Held(Suspend):
    """The node's sub-workflow waits for an answer, and the node with it."""


def _running() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


class Performing:
    """The part of a Run that awaits. `executor` has the rest."""

    __slots__ = ("busy", "error", "sequence", "steps")

    if TYPE_CHECKING:  # what `executor.Run` has
        host: Host
        plan: Plan
        id: str
        path: str
        depth: int

        @property
        def root(self) -> Run: ...

        extra: Any

        def own(self) -> Any: ...
        def add_task(self, task: asyncio.Task[Any]) -> None: ...

        parent: Run | None
        scope: RunScope
        context: Mapping[str, Any]
        plan_for: Callable[[Workflow, str], Plan]
        ledger: Ledger | None
        records: list[Record]
        kept: int
        given: int
        _deadline: int
        sequence: int
        steps: int
        error: dict[str, Any] | None
        busy: dict[Token, None]
        ended_ns: int
        tasks: set[asyncio.Task[Any]]

        @property
        def finished(self) -> bool: ...
        def _stop(self, failure: Cancelled) -> None: ...
        def _finish(self, status: str) -> None: ...
        def _pump(self, ready: list[Token], perform: list[Token]) -> None: ...
        @property
        def key_base(self) -> str: ...
        def secret(self, name: str) -> str: ...
        @property
        def heard(self) -> bool: ...
        def tell(self, event: str, node: str, visit: int, item: int | None, /, **more: Any) -> None: ...
        def spend(self, token: Token, item: int | None, used: Mapping[str, int], *, counted: bool = False) -> None: ...
        def spent(self, token: Token, item: int | None = None) -> Usage | None: ...
        def sub_run(self, plan: Plan, id: str, values: dict[str, Any], token: Token, step: str) -> Run: ...
        def told(self) -> None: ...
        def out_of_steps(self) -> None: ...
        def _out_of_time(self) -> None: ...
        def masked(self, value: T) -> T: ...
        def held_back(self, text: str) -> int: ...
        def weigh_all(self, delta: dict[str, Any], values: dict[str, Any]) -> None: ...
        def error_of(self, failure: NodeFailure, node: PlanNode | None, attempt: int) -> dict[str, Any]: ...
        def suspended(self, token: Token, node: PlanNode, suspend: Suspend) -> list[Token]: ...
        def after_timeout(self, node: PlanNode, name: str) -> int: ...
        def advance(self, token: Token, targets: tuple[int, ...]) -> list[Token]: ...
        def targets(
            self, token: Token, node: PlanNode, flag: bool, goto: int | None, delta: dict[str, Any]
        ) -> tuple[int, ...]: ...
        def failed(
            self,
            token: Token,
            node: PlanNode,
            exc: BaseException,
            began: int,
            ended: int,
            attempt: int,
            kind: int,
        ) -> list[Token]: ...

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
                await self._kept()
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
        if self.parent is None and self.extra.watchers and self.ledger is None:
            self.told()

    async def _kept(self) -> None:
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

    def record(self, kind: int, token: Token, began: int, ended: int, data: Any) -> None:
        if not self.ended_ns:  # what comes later is dropped
            self.records.append((self.sequence, kind, token.at, token.visit, began, ended, data))
            self.sequence += 1
            if self.parent is None and self.extra.watchers and self.ledger is None:
                self.told()

    async def _attempts(self, token: Token, node: PlanNode) -> tuple[Settled, int]:
        if node.node.map_over is not None:
            results = await self._mapped(token, node, node.node.map_over)
            return (node.stored(results), True, None), 1
        (delta, flag, goto), attempt = await self._tried(token, node, token.values, None, node.settled)
        return (self.masked(delta), flag, goto), attempt

    async def _tried(
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
            return await self._sub_workflow(token, node, values, attempt, item)
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

    async def _sub_workflow(
        self, token: Token, node: PlanNode, values: dict[str, Any], attempt: int, item: int | None
    ) -> Outcome:
        reference = node.node.options.get("workflow")
        if not reference:
            reference = getter(str(node.node.options.get("workflow_field")))(values, token)
        if not isinstance(reference, str) or not reference:
            raise SubworkflowFailed("The state does not say which workflow to run")
        if self.depth + 1 > self.host.config.max_depth:
            raise DepthLimit(f"Sub-workflows are nested deeper than {self.host.config.max_depth}")
        name = f"{node.name}#{token.visit}" + ("" if item is None else f"/{item}")
        step = name if attempt == 1 else f"{name}@{attempt}"
        child = self.extra.children.get(step)
        if child is None:
            child = await self._child(token, node, values, reference, name, step)
        try:
            while not child.settled:  # an answer may have come before this task has seen that the child waits
                await child.wait()
        except asyncio.CancelledError:
            child.cancel()
            await child.wait()  # its agents use services of this run
            raise
        if child.status == "suspended":
            if item is not None:
                child.cancel()
                raise SubworkflowFailed("A sub-workflow under Map_Over cannot wait for an answer")
            raise Held()
        self.extra.children.pop(step, None)
        self.spend(token, item, child.usage, counted=True)
        if child.status != "completed":
            error = child.error or {}
            if error.get("code") == DepthLimit.code:
                raise DepthLimit(error["message"])
            if child.status == "interrupted":
                raise Interrupted(error["message"])
            if error.get("code") == StepLimit.code:
                raise StepLimit(error["message"])
            raise SubworkflowFailed(f"{child.plan.workflow.name} ended {child.status}: {error.get('message')}")
        state, flag = child.result.values, child.result.flag
        if not node.child_fields:
            return Outcome(state, flag)
        named = dict(node.child_fields)
        picked = {ours: state.get(named.get(ours, ours)) for ours in node.outputs}
        return Outcome(picked if len(picked) > 1 else picked[node.outputs[0]], flag)

    async def _child(
        self, token: Token, node: PlanNode, values: dict[str, Any], reference: str, name: str, step: str
    ) -> Run:
        """The sub-workflow of a node, begun, or going on from where a restored execution left it."""
        inputs = gather(node.bindings, values, token) if node.node.inputs else dict(values)
        path = f"{self.path}/{step}" if self.path else step
        entries = self.root.extra.restored.pop(path, None)
        if entries is not None:
            plan = await self.host.pinned_plan(self.plan.workflow, reference, entries, self.plan_for)
        else:
            try:
                plan = self.plan_for(self.plan.workflow, reference)
            except RequestRefused as exc:
                raise SubworkflowFailed(exc.message) from None
        child = self.sub_run(plan, f"{self.id}/{name}", inputs, token, step)
        self.own().children[step] = child
        if self.ledger is not None:
            self.ledger.tree.append(child)
        if entries is None:
            child.start()
        else:
            replayed(child, entries)
        return child

    def _item_spent(self, token: Token, index: int) -> tuple[Usage, ...]:
        spent = self.spent(token, index)
        return () if spent is None else (spent,)

    async def _mapped(self, token: Token, node: PlanNode, field: str) -> list[Any]:
        """Run the node once for each item of a list, so many at a time; results in the order of the items."""
        items = getter(field)(token.values, token)
        if items is MISSING or items is None:
            items = []
        if not isinstance(items, list):
            raise MapOverInvalid(f"Map_Over names {field!r}, which is no list")
        options = node.node.options
        on_error = options.get("on_item_error", "fail")
        given = options.get("concurrency")
        most = max(1, given) if isinstance(given, int) else 10
        results: list[Any] = [MISSING] * len(items)
        done = self.extra.items.pop((token.at, token.visit), {})
        for index, (value, error) in done.items():
            if index < len(items) and error is None:
                results[index] = value

        async def one(index: int, item: Any) -> NodeFailure | None:
            clock = self.host.context.clock.monotonic_ns
            began = clock()
            try:
                values = {**token.values, "item": item, "index": index}
                value, _ = await self._tried(token, node, values, index, node.item_value)
            except Suspend:
                return AgentFailed("A node with Map_Over cannot wait for an answer")
            except NodeFailure as failure:
                error = self.error_of(failure, node, getattr(failure, "attempt", 1))
                self.record(ITEM, token, began, clock(), (index, None, error, *self._item_spent(token, index)))
                if on_error == "collect":
                    results[index] = {"error": {"code": error["code"], "message": error["message"]}}
                return failure if on_error == "fail" or isinstance(failure, LimitReached) else None
            results[index] = value = self.masked(value)
            self.record(ITEM, token, began, clock(), (index, value, None, *self._item_spent(token, index)))
            if self.host.writes_steps:
                await self._kept()
            return None

        left = iter([index for index, result in enumerate(results) if result is MISSING])
        running: dict[asyncio.Task[NodeFailure | None], int] = {}
        failed: tuple[int, NodeFailure] | None = None  # the first in the order of the items, not of the clock
        try:
            while True:
                while failed is None and len(running) < most and (index := next(left, None)) is not None:
                    task = self.host.loop.create_task(one(index, items[index]), context=Context())
                    self.add_task(task)
                    running[task] = index
                if not running or (failed is not None and min(running.values()) > failed[0]):
                    break
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    index = running.pop(task)
                    self.tasks.discard(task)
                    failure = task.result()
                    if failure is not None and (failed is None or index < failed[0]):
                        failed = index, failure
            if failed is not None:
                raise failed[1]
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=self.host.config.cancel_grace)
            if self.tasks:
                self.tasks.difference_update(running)
        return [result for result in results if result is not MISSING]
