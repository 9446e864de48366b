"""Running a plan: the walk of inline nodes, and tasks for those that must be awaited."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any, Final, Protocol, TypeVar

from ..agents.registry import Outcome, Step
from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import (
    AgentFailed,
    BranchLimit,
    Cancelled,
    DeadlineExceeded,
    DepthLimit,
    LimitReached,
    MapOverInvalid,
    NodeFailure,
    NodeTimeout,
    RequestRefused,
    RoutingInvalid,
    StateTooLarge,
    StepLimit,
    SubworkflowFailed,
)
from ..scopes import RunScope
from ..workflows.model import FunctionRoute, Retry, Workflow
from .call import NodeCall
from .events import BEGAN, ENDED, FINISHED, ITEM, RAN, RETRIED, STARTED, Finish, Record
from .fields import MISSING, gather, getter
from .plan import Plan, PlanNode, Targets
from .threads import Threads
from .values import copied, masked, weight
from .walker import Token

logger = logging.getLogger("agentmap_asgi.execution")

PAUSE_AFTER: Final = 256
"""Nodes between two turns of the event loop."""
LIGHT: Final = 4096
"""Texts up to this length are not weighed one by one; `max_steps` bounds how many there can be."""
SHORTEST_SECRET: Final = 4
"""Characters; what is shorter stands in too many innocent texts to be masked."""
ONCE: Final = Retry()

Settled = tuple[dict[str, Any], bool, int | None]
T = TypeVar("T")


class Host(Protocol):
    """What a run needs of the process around it."""

    config: AgentMapConfig
    context: AgentMapContext
    loop: asyncio.AbstractEventLoop
    threads: Threads

    def watch(self) -> None:
        """An async agent starts: watch that it does not block the loop."""

    def unwatch(self) -> None: ...
    def leaked(self, task: asyncio.Task[Any], run: Run) -> None:
        """A task that did not end when it was cancelled."""

    def ended(self, run: Run) -> None:
        """The run's slot is free."""


class Run:
    """One execution (or one sub-workflow of it) on its way through a plan."""

    __slots__ = ("__weakref__", "_deadline", "_host", "_plan_for", "_secrets", "_sequence", "_size", "_tasks", "_timer",
                 "_waiters", "_walker", "_weighed", "_weight", "context", "created_ns", "depth", "ended_ns", "error",
                 "failures", "id", "on_end", "parent_id", "plan", "queued", "records", "result", "scope", "settled",
                 "started_ns", "status", "steps", "wall_offset")  # fmt: skip

    def __init__(
        self,
        host: Host,
        plan: Plan,
        execution_id: str,
        values: dict[str, Any],
        *,
        scope: RunScope,
        context: Mapping[str, Any],
        plan_for: Callable[[Workflow, str], Plan],
        on_end: Callable[[Run], Awaitable[None]] | None = None,
        parent: Run | None = None,
    ) -> None:
        """`values` is the run's own. `plan_for` finds a sub-workflow; `on_end` is awaited once at the end."""
        clock = host.context.clock
        self.id = execution_id
        self.plan = plan
        self.scope = scope
        self.context = context
        self.parent_id = None if parent is None else parent.id
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.records: list[Record] = []
        self.status = "queued"
        self.queued = False
        """It had to wait for a slot."""
        self.error: dict[str, Any] | None = None
        self.failures: list[dict[str, Any]] = []
        self.steps = 0
        self.created_ns = self.started_ns = now = clock.monotonic_ns()
        self.wall_offset = clock.time_ns() - now
        self.ended_ns = 0
        self.settled = False
        """Terminal, and everything it opened is closed."""
        self.on_end = on_end
        self._host = host
        self._plan_for = plan_for
        self._walker = plan.walker()
        facts = {"execution_id": execution_id, "graph_name": plan.workflow.name, "nodes": plan.nodes, "run": self}
        self.result = Token(0, values, facts)
        """The branch that starts; at the end the merge of all."""
        self._secrets: set[str] = set()
        """What agents of this run were given and must not tell."""
        self._sequence = 2
        self._size: int | None = None
        """About, in bytes; None until something is weighed."""
        self._weighed: Any = None
        self._weight = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = now + int(host.config.execution_timeout * 1e9)

    @property
    def finished(self) -> bool:
        return self.ended_ns != 0

    def secret(self, name: str) -> str:
        value = self._host.context.secret(name)
        if len(value) >= SHORTEST_SECRET:
            self._secrets.add(value)
        return value

    def masked(self, value: T) -> T:
        """A JSON value without the secrets that agents of this run were given."""
        return masked(value, self._secrets) if self._secrets else value

    def progress(self, node: str, visit: int, share: float, message: str) -> None:
        logger.debug("%s: %s#%d is at %.0f %%", self.id, node, visit, share * 100)

    def start(self) -> None:
        """Begin, and go as far as inline nodes lead; what must be awaited goes on in a task of its own."""
        now = self.started_ns
        if self.queued:
            self.started_ns = now = self._host.context.clock.monotonic_ns()
            self._deadline = now + int(self._host.config.execution_timeout * 1e9)
        self.status = "running"
        self.records.append((1, STARTED, 0, 0, now, now, None))
        ready = [self._walker.start(self.result)]
        perform: list[Token] = []
        self._pump(ready, perform)
        if not self.finished:
            self._spawn(self._drive(ready, perform))
            left = (self._deadline - now) / 1e9
            self._timer = self._host.loop.call_later(left, self._stop, DeadlineExceeded())

    async def wait(self) -> None:
        """Return when the run is terminal and closed. Cancelling the wait does not touch the run."""
        if not self.settled:
            waiter = self._host.loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def cancel(self) -> None:
        """End the run now: running agents are cancelled, results that come later are dropped."""
        if self.status == "queued":
            self.started_ns = self._host.context.clock.monotonic_ns()
        self._stop(Cancelled())

    def interrupt(self) -> None:
        """Note that the event loop has closed under the run; nothing of it goes on."""
        if not self.finished:
            self.error = {**self._error(NodeFailure("The event loop closed before the execution ended"), None, 1)}
            self.error.update(code="interrupted", retryable=True)
            self._tasks.clear()
            self._waiters.clear()
            self.status = "interrupted"
            self.ended_ns = self._host.context.clock.monotonic_ns()
            self.records.append(
                (self._sequence, ENDED, 0, 0, self.started_ns, self.ended_ns, (self.status, self.error))
            )
            self.settled = True

    # The walk: inline nodes, one after the other, without tasks.

    def _pump(self, ready: list[Token], perform: list[Token]) -> None:
        """Walk `ready` tokens until each is consumed, stands before a node to perform, or a turn is over."""
        turn = PAUSE_AFTER
        if self._host.context.clock.monotonic_ns() > self._deadline:
            self._stop(DeadlineExceeded())
        while ready and turn > 0 and not self.ended_ns:
            turn -= self._walk(ready.pop(), turn, ready, perform)
        if not ready and not self.ended_ns and not self._walker.active:
            self._finish("failed" if self._walker.parked else "completed")

    def _walk(self, token: Token, turn: int, ready: list[Token], perform: list[Token]) -> int:
        """Run inline nodes from where the token stands. Returns how many."""
        allowed = self._host.config.max_steps - self.steps
        if allowed <= 0:
            self._stop(StepLimit(f"The execution ran {self.steps} nodes, as many as max_steps allows"))
            return 1
        plan, walker = self.plan, self._walker
        nodes, cyclic, limit = plan.nodes, plan.cyclic, plan.limit
        values, stamps, token_stamp = token.values, token.stamps, token.stamp
        alone = walker.alone
        append, clock = self.records.append, self._host.context.clock.monotonic_ns
        sequence = self._sequence
        turn = min(turn, allowed)
        used = 0
        at = token.at
        began = clock()
        while used < turn:
            node = nodes[at]
            step = node.step
            if step is None:
                perform.append(token)
                break
            used += 1
            targets: tuple[int, ...] | None = None
            try:
                value = step(values, token)
                if node.plain:
                    field = node.output
                    follow = node.ok
                    if follow < 0 or not alone:
                        targets = self._targets(token, node, True, None, {} if field is None else {field: value})
                    if field is not None:
                        kind = value.__class__
                        if (kind is str and len(value) > LIGHT) or kind is dict or kind is list:
                            self._weigh(value, values)
                        values[field] = value
                        if stamps is not None:
                            stamps[field] = token_stamp
                    token.flag = True
                else:
                    delta, flag, goto = node.settled(value, limit)
                    for part in delta.values():
                        self._weigh(part, values)
                    targets = self._targets(token, node, flag, goto, delta)
                    token.write(delta)
                    token.flag = flag
                    follow = -1
                    if alone and len(targets) == 1 and (not plan.forks or not plan.joins[targets[0]]):
                        follow = targets[0]
                    value = Finish(delta, flag, targets)
            except BaseException as exc:  # an agent's own failure, whatever it is, becomes a value
                ended = clock()
                self._sequence = sequence
                self.steps += used
                ready.extend(reversed(self._failed(token, node, exc, began, ended, 1, RAN)))
                return used
            ended = clock()
            append((sequence, RAN, at, token.visit, began, ended, value))
            sequence += 2
            began = ended
            if follow >= 0 and alone:
                if cyclic:
                    walker.follow(token, follow)
                    at = follow
                else:
                    at = token.at = follow
                continue
            self._sequence = sequence
            self.steps += used
            ready.extend(reversed(self._complete(token, targets or ())))
            return used
        else:
            ready.append(token)
        self._sequence = sequence
        self.steps += used
        return used or 1

    def _weigh(self, value: Any, values: dict[str, Any]) -> None:
        """Count what a node adds to the state; when it seems too much, count exactly."""
        if self._size is None:
            self._size = weight(values)
        if value is not self._weighed:
            self._weighed = value
            self._weight = weight(value, 1)  # a field of the state, which is an object itself
        self._size += self._weight  # also of a value passed on as it is: in JSON it is there twice
        limit = self._host.config.max_state_bytes
        if self._size > limit:
            self._size = weight(values) + self._weight
            if self._size > limit:
                raise StateTooLarge(f"The state has about {self._size} bytes; at most {limit} are allowed")

    def _targets(
        self, token: Token, node: PlanNode, flag: bool, goto: int | None, delta: dict[str, Any]
    ) -> tuple[int, ...]:
        """Where the node leads; `delta` is what it is about to write."""
        if goto is not None:
            return (goto,)
        targets: Targets = node.success if flag else node.failure
        if isinstance(targets, FunctionRoute):
            return self._asked(targets, {**token.values, **delta})
        return targets

    def _asked(self, route: FunctionRoute, values: dict[str, Any]) -> tuple[int, ...]:
        """Where a host's routing function leads."""
        function = self.plan.functions.get(route.function)
        if function is None:
            raise RoutingInvalid(f"There is no routing function {route.function!r} in the context object")
        answer = function(copied(values))
        names = [answer] if isinstance(answer, str) else [] if answer is None else answer
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise RoutingInvalid(f"The routing function {route.function!r} must return node names")
        found = []
        for name in dict.fromkeys(names):
            if route.declared is not None and name not in route.declared:
                raise RoutingInvalid(
                    f"{route.function!r} returned {name!r}, which func:{route.function}(…) does not list"
                )
            number = self.plan.index.get(name)
            if number is None:
                raise RoutingInvalid(f"{route.function!r} returned {name!r}, which is no node")
            found.append(number)
        return tuple(found)

    def _complete(self, token: Token, targets: tuple[int, ...]) -> list[Token]:
        ready = self._walker.complete(token, targets)
        if self._walker.branches > self._host.config.max_branches:
            self._stop(BranchLimit(f"More than {self._host.config.max_branches} branches are open at once"))
            return []
        return ready

    def _failed(
        self, token: Token, node: PlanNode, exc: BaseException, began: int, ended: int, attempt: int, kind: int
    ) -> list[Token]:
        """A node has failed: note it, and go where its row says, or park it."""
        failure = as_failure(exc)
        if isinstance(failure, LimitReached):
            self._stop(failure, node)
            return []
        error = self._error(failure, node, attempt)
        log = logger.error if self._host.config.debug_errors else logger.debug
        if self._secrets:
            trace = self.masked("".join(traceback.format_exception(exc)))
            log("%s: node %r failed: %s\n%s", self.id, node.name, failure.code, trace)
        else:
            log("%s: node %r failed: %s", self.id, node.name, failure.code, exc_info=exc)
        targets = node.error
        if isinstance(targets, FunctionRoute):
            try:
                targets = self._asked(targets, token.values)
            except BaseException as wrong:  # the host's function, whatever it raises
                error, targets = self._error(as_failure(wrong), node, attempt), None
        token.flag = False
        token.note_error(node.name, error["message"])
        sequence = self._sequence
        self.records.append(
            (sequence, kind, token.at, token.visit, began, ended, Finish({}, False, targets or (), attempt, error))
        )
        self._sequence = sequence + (2 if kind == RAN else 1)
        if targets is None:
            token.failure = error
            return self._walker.park(token)
        return self._complete(token, targets)

    def _error(self, failure: NodeFailure, node: PlanNode | None, attempt: int) -> dict[str, Any]:
        return {
            "code": failure.code,
            "message": self.masked(failure.message),
            "node": None if node is None else node.name,
            "agent_type": None if node is None else node.agent.name,
            "attempt": attempt,
            "retryable": failure.retryable,
            "source": {"file": self.plan.workflow.file, "row": None if node is None else node.node.row},
        }

    # The end.

    def _stop(self, failure: LimitReached, node: PlanNode | None = None) -> None:
        """End now, whatever still runs."""
        if not self.finished:
            self.error = self._error(failure, node, 1)
            self._finish("cancelled" if isinstance(failure, Cancelled) else "failed")

    def _finish(self, status: str) -> None:
        walker = self._walker
        if status == "failed" and self.error is None:
            self.failures = [token.failure for token in walker.failed() if token.failure is not None]
            self.error = self.failures[0]
        if walker.ended is not None or walker.parked or walker.waiting:
            self.result = walker.result()
        self.status = status
        now = self._host.context.clock.monotonic_ns()
        self.ended_ns = now
        self.records.append((self._sequence, ENDED, 0, 0, self.started_ns, now, (status, self.error)))
        if self._timer is not None:
            self._timer.cancel()
        self._host.ended(self)
        others = []
        if self._tasks:
            current = asyncio.current_task(self._host.loop)
            others = [task for task in self._tasks if task is not current and not task.done()]
            for task in others:
                task.cancel()
        if others or self.on_end is not None or (self.parent_id is None and not self.scope.empty):
            closing = self._host.loop.create_task(self._close(others), context=Context())
            self._tasks.add(closing)
            closing.add_done_callback(self._closed)
        else:
            self._settle()

    async def _close(self, others: list[asyncio.Task[Any]]) -> None:
        if others:
            _, left = await asyncio.wait(others, timeout=self._host.config.cancel_grace)
            for task in left:
                self._host.leaked(task, self)
        if self.parent_id is None and not self.scope.empty:
            await self.scope.aclose(None if self.error is None else AgentFailed(self.error["message"]))
        if self.on_end is not None:
            await self.on_end(self)

    def _closed(self, closing: asyncio.Task[None]) -> None:
        self._tasks.clear()
        if not closing.cancelled() and closing.exception() is not None:
            logger.error("%s: closing failed", self.id, exc_info=closing.exception())
        self._settle()

    def _settle(self) -> None:
        self.settled = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Nodes that are awaited.

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._host.loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._driven)

    def _driven(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._stop(Cancelled())
        elif task.exception() is not None and not self.finished:
            logger.error("%s: a branch ended with an unexpected error", self.id, exc_info=task.exception())
            self.error = self._error(AgentFailed("An internal error ended a branch"), None, 1)
            self._finish("failed")

    async def _drive(self, ready: list[Token], perform: list[Token]) -> None:
        """One branch after the other in this task; a task of its own for each further one that must be awaited."""
        performed = 0
        while not self.finished:
            if ready:  # a turn of the walk is over
                for token in perform:
                    self._spawn(self._drive([], [token]))
                perform = []
                await asyncio.sleep(0)
            elif perform:
                for token in perform[1:]:
                    self._spawn(self._drive([], [token]))
                ready = (await self._perform(perform[0]))[::-1]
                perform = []
                performed += 1
                if not performed % PAUSE_AFTER:  # agents that never wait give no turns by themselves
                    await asyncio.sleep(0)
            else:
                return
            if not self.finished:
                self._pump(ready, perform)

    async def _perform(self, token: Token) -> list[Token]:
        """Run the node the token stands on; the tokens that can run after it."""
        config = self._host.config
        if self.steps >= config.max_steps:
            self._stop(StepLimit(f"The execution ran {self.steps} nodes, as many as max_steps allows"))
            return []
        self.steps += 1
        node = self.plan.nodes[token.at]
        clock = self._host.context.clock.monotonic_ns
        began = clock()
        self._record(BEGAN, token, began, began, 1)
        try:
            (delta, flag, goto), attempt = await self._attempts(token, node)
            if self.finished:
                return []
            for value in delta.values():
                self._weigh(value, token.values)
            targets = self._targets(token, node, flag, goto, delta)
        except GeneratorExit:
            raise
        except BaseException as exc:  # as in the walk
            if self.finished:
                return []
            if isinstance(exc, asyncio.CancelledError):
                raise
            attempt = getattr(exc, "attempt", 1)
            return self._failed(token, node, exc, began, clock(), attempt, FINISHED)
        token.write(delta)
        token.flag = flag
        self._record(FINISHED, token, began, clock(), Finish(delta, flag, targets, attempt))
        return self._complete(token, targets)

    def _record(self, kind: int, token: Token, began: int, ended: int, data: Any) -> None:
        if not self.finished:  # what comes later is dropped
            self.records.append((self._sequence, kind, token.at, token.visit, began, ended, data))
            self._sequence += 1

    async def _attempts(self, token: Token, node: PlanNode) -> tuple[Settled, int]:
        if node.node.map_over is not None:
            results = await self._mapped(token, node, node.node.map_over)
            return (node.stored(results), True, None), 1
        (delta, flag, goto), attempt = await self._tried(token, node, token.values, None, node.settled)
        return (self.masked(delta), flag, goto), attempt

    async def _tried(
        self, token: Token, node: PlanNode, values: dict[str, Any], item: int | None, read: Callable[[Any, int], T]
    ) -> tuple[T, int]:
        """Attempts until one succeeds and can be read, or the row's Retry is used up: (what was read, attempt)."""
        retry = node.node.retry or ONCE
        delay = retry.delay
        attempt = 1
        while True:
            try:
                result = await self._attempt(token, node, values, attempt, item)
                return read(result, self.plan.limit), attempt
            except GeneratorExit:
                raise
            except BaseException as exc:  # as in the walk
                if self.finished or _cancelled_from_outside(exc):
                    raise
                failure = as_failure(exc)
                kind = "timeout" if isinstance(failure, NodeTimeout) else "error"
                again = not isinstance(failure, LimitReached) and (kind in retry.on or failure.code in retry.on)
                if isinstance(failure, NodeTimeout) and node.agent.mode == "thread":
                    again = again and (node.agent.idempotent or node.node.options.get("idempotent") is True)
                if attempt >= retry.attempts or not again:
                    failure.attempt = attempt  # type: ignore[attr-defined]
                    raise failure from exc
                now = self._host.context.clock.monotonic_ns()
                self._record(RETRIED, token, now, now, (attempt, self._error(failure, node, attempt), delay))
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
        task = self._host.loop.create_task(_as_value(work), context=Context())
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
            await asyncio.wait({task}, timeout=self._host.config.cancel_grace)
        finally:
            self._host.leaked(task, self)

    async def called(self, token: Token, node: PlanNode, values: dict[str, Any], attempt: int, item: int | None) -> Any:
        """Call the node's agent once."""
        agent = node.agent
        if node.compiled is not None:
            return node.compiled(values, token)
        if agent.sub_workflow:
            return await self._sub_workflow(token, node, values, item)
        call = NodeCall(self, node, token, values, attempt, item)
        run = agent.run
        assert run is not None  # noqa: S101  # an agent is compiled, runs, or is a sub-workflow
        failure: BaseException | None = None
        try:
            if agent.services:
                call.node_scope = self.scope.node_scope()
                await call.node_scope.prepare(agent.services)
            if agent.mode == "thread":
                value = await self._host.threads.run(run, call)
            elif agent.mode == "async":
                self._host.watch()
                try:
                    value = await run(call)
                finally:
                    self._host.unwatch()
            else:
                value = run(call)
        except BaseException as exc:
            failure = exc
            raise
        else:
            return value
        finally:
            if call.node_scope is not None:
                await call.node_scope.aclose(failure)

    async def _sub_workflow(self, token: Token, node: PlanNode, values: dict[str, Any], item: int | None) -> Outcome:
        reference = node.node.options.get("workflow")
        if not reference:
            reference = getter(str(node.node.options.get("workflow_field")))(values, token)
        if not isinstance(reference, str) or not reference:
            raise SubworkflowFailed("The state does not say which workflow to run")
        if self.depth + 1 > self._host.config.max_depth:
            raise DepthLimit(f"Sub-workflows are nested deeper than {self._host.config.max_depth}")
        try:
            plan = self._plan_for(self.plan.workflow, reference)
        except RequestRefused as exc:
            raise SubworkflowFailed(exc.message) from None
        inputs = gather(node.bindings, values, token) if node.node.inputs else dict(values)
        child = Run(
            self._host,
            plan,
            f"{self.id}/{node.name}#{token.visit}" + ("" if item is None else f"/{item}"),
            inputs,
            scope=self.scope,
            context=self.context,
            plan_for=self._plan_for,
            parent=self,
        )
        child.start()
        try:
            await child.wait()
        except asyncio.CancelledError:
            child.cancel()
            await child.wait()  # its agents use services of this run
            raise
        if child.status != "completed":
            error = child.error or {}
            if error.get("code") == DepthLimit.code:
                raise DepthLimit(error["message"])
            raise SubworkflowFailed(f"{plan.workflow.name} ended {child.status}: {error.get('message')}")
        state, flag = child.result.values, child.result.flag
        if not node.child_fields:
            return Outcome(state, flag)
        named = dict(node.child_fields)
        picked = {ours: state.get(named.get(ours, ours)) for ours in node.outputs}
        return Outcome(picked if len(picked) > 1 else picked[node.outputs[0]], flag)

    async def _mapped(self, token: Token, node: PlanNode, field: str) -> list[Any]:
        """Run the node once for each item of a list, so many at a time; results in the order of the items."""
        items = getter(field)(token.values, token)
        if items is MISSING or items is None:
            items = []
        if not isinstance(items, list):
            raise MapOverInvalid(f"Map_Over names {field!r}, which is no list")
        options = node.node.options
        on_error = options.get("on_item_error", "fail")
        places = asyncio.Semaphore(max(1, int(options.get("concurrency", 10))))
        results: list[Any] = [MISSING] * len(items)

        async def one(index: int, item: Any) -> NodeFailure | None:
            async with places:
                clock = self._host.context.clock.monotonic_ns
                began = clock()
                try:
                    values = {**token.values, "item": item, "index": index}
                    value, _ = await self._tried(token, node, values, index, node.item_value)
                except NodeFailure as failure:
                    error = self._error(failure, node, getattr(failure, "attempt", 1))
                    self._record(ITEM, token, began, clock(), (index, None, error))
                    if on_error == "collect":
                        results[index] = {"error": {"code": error["code"], "message": error["message"]}}
                    return failure if on_error == "fail" or isinstance(failure, LimitReached) else None
                results[index] = value = self.masked(value)
                self._record(ITEM, token, began, clock(), (index, value, None))
                return None

        tasks = [self._host.loop.create_task(one(index, item), context=Context()) for index, item in enumerate(items)]
        self._tasks.update(tasks)
        try:
            for task in tasks:
                failure = await task
                if failure is not None:
                    raise failure
        finally:
            left = [task for task in tasks if not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=self._host.config.cancel_grace)
            self._tasks.difference_update(tasks)
        return [result for result in results if result is not MISSING]


def inline_call(node: PlanNode) -> Step:
    """The step of a host's inline agent."""
    run = node.agent.run
    assert run is not None  # noqa: S101

    def step(values: dict[str, Any], position: Any) -> Any:
        return run(NodeCall(position.facts["run"], node, position, values))

    return step


def as_failure(exc: BaseException) -> NodeFailure:
    """The failure that an exception means for its node."""
    if isinstance(exc, NodeFailure) and exc.args and exc.args[0] == _text(exc.args[0]):
        return exc
    if isinstance(exc, asyncio.CancelledError):
        return AgentFailed("The agent raised CancelledError, though nobody cancelled it")
    text = " ".join(_text(exc).split())[:500]
    return AgentFailed(f"{type(exc).__name__}: {text}" if text else type(exc).__name__)


def _text(thing: Any) -> str:
    """`str(thing)` as text that JSON can write; empty when it cannot be made (exceptions may break in `__str__`)."""
    try:
        return str(thing).encode("utf-8", "replace").decode()
    except BaseException:
        return ""


def _cancelled_from_outside(exc: BaseException) -> bool:
    """The task itself was cancelled, for example by a loop that closes; an agent that merely raises is not that."""
    if not isinstance(exc, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _as_value(work: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """A result or an exception, as a value: some exceptions would end the event loop if a task raised them."""
    try:
        return await work, None
    except GeneratorExit:
        raise
    except BaseException as exc:
        if _cancelled_from_outside(exc):
            raise
        return None, exc
