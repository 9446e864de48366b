"""Running a plan: the walk of inline nodes from one to the next, how a run waits, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from contextvars import Context
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

from ..agents.registry import Step
from ..engines.engine import Journal
from ..errors import (
    AgentFailed,
    BranchLimit,
    Cancelled,
    DeadlineExceeded,
    Interrupted,
    LimitReached,
    NodeFailure,
    ResultInvalid,
    RoutingInvalid,
    StateTooLarge,
    StepLimit,
)
from ..scopes import RunScope
from ..stores.store import Lines, Row
from ..workflows.model import FunctionRoute, Workflow
from ..workflows.pinned import Pins
from .call import NodeCall
from .failures import as_failure
from .host import NO_FACTS, Facts, Host
from .ledger import Ledger, Written
from .live import Listener
from .performing import PAUSE_AFTER, Performing
from .plan import Plan, PlanNode, Targets
from .records import (
    BEGAN,
    ENDED,
    FINISHED,
    RAN,
    RECOVERED,
    RESUMED,
    STARTED,
    SUSPENDED,
    Finish,
    Record,
    stamp,
    width,
)
from .stepping import step_of
from .usage import Usage, add
from .values import NESTS, begun, copied, fresh, masked, weight
from .waits import Answer, Suspend, Wait, wait_of
from .walker import Token, Walker
from .writing import dumps

logger = logging.getLogger("agentmap_asgi.execution")

LIGHT: Final = 4096
"""Texts of built-ins up to this length are not weighed one by one; `max_steps` bounds how many there can be."""
TINY: Final = 64
"""The same for agents."""
SHORTEST_SECRET: Final = 4
"""Characters; what is shorter stands in too many innocent texts to be masked."""

Visit = tuple[int, int]
"""A run of a node: its number and which visit it is."""
T = TypeVar("T")


class Extra:
    """What only runs have that wait, are brought back, or run other workflows."""

    __slots__ = ("answered", "attempts", "begun", "children", "items", "left", "listeners", "open", "owners", "parts",
                 "ready", "restored", "spent", "usage", "waiting", "watchers")  # fmt: skip

    def __init__(self) -> None:
        self.begun: set[Visit] = set()
        """Runs of nodes that began before this run was restored, or before they waited, and have not finished."""
        self.attempts: dict[Visit, int] = {}
        """The next attempt of nodes that were being tried before this run was restored."""
        self.items: dict[Visit, dict[int, tuple[Any, Any]]] = {}
        """Items of a Map_Over that were done before this run was restored: (value, error) by index."""
        self.left: set[tuple[int, int, int | None]] = set()
        """Runs of nodes, and items, whose attempt was given up while a thread of it still runs."""
        self.children: dict[str, Run] = {}
        """Sub-workflows that have not been taken account of, by step."""
        self.ready: list[Token] = []
        """What can run in a restored run that has not gone on yet."""
        self.waiting: dict[Visit, Token] = {}
        self.answered: dict[Visit, tuple[Wait, Answer]] = {}
        self.restored: dict[str, list[Any]] = {}
        """Entries of sub-workflows that began before this run was restored, by path; in the root."""
        self.open: dict[str, Wait] = {}
        """Open waits of the whole execution by path; in the root."""
        self.owners: dict[str, tuple[Run, Token]] = {}
        """Who waits there; in the root."""
        self.watchers: set[Callable[[], None]] = set()
        """Called when there is something new to tell; in the root."""
        self.listeners: set[Listener] = set()
        """Who is told what nobody keeps; in the root."""
        self.spent: dict[tuple[int, int, int | None], Usage] = {}
        """What runs of nodes, and items of them, that have not finished have used, failed attempts included."""
        self.usage: Usage = {}
        """What this run and its sub-workflows have used."""
        self.parts: Mapping[str, Plan] = {}
        """The sub-workflows that a new execution begins with, by place."""


_NO_EXTRA: Final = Extra()
"""Shared by the many runs that have nothing of it; never changed. Fewer objects are less to collect."""
_NO_TOKENS: Final[Any] = MappingProxyType({})
_NO_FIELDS: Final[dict[str, Any]] = {}
_NO_TEXTS: Final[frozenset[str]] = frozenset()
_NO_TASKS: Final[Any] = frozenset()
_NO_FUTURES: Final[Any] = ()


class Run(Performing):
    """One execution (or one sub-workflow of it) on its way through a plan."""

    __slots__ = ("__weakref__", "_deadline", "_root", "_secrets", "_size", "_timer", "_waiters", "_walker",
                 "_weighed", "_weight", "attempt", "context", "counted", "created_ns", "depth", "document",
                 "ended_ns", "extra", "facts", "failures", "fence", "given", "host", "id", "initial", "journal", "kept",
                 "ledger", "lost", "on_end", "parent", "parent_token", "path", "plan", "plan_for", "queued",
                 "records", "result", "scope", "settled", "started_ns", "status", "tasks", "threads_left",
                 "wall_offset")  # fmt: skip

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
        facts: Facts = NO_FACTS,
        parent: Run | None = None,
        parent_token: Token | None = None,
        step: str = "",
    ) -> None:
        """`values` is the run's own. `plan_for` finds a sub-workflow; `on_end` is awaited once at the end.

        A sub-workflow has a parent, the token that stands on the node that runs it, and that node's `step` in paths.
        """
        clock = host.context.clock
        self.id = execution_id
        self.plan = plan
        self.scope = scope
        self.context = context
        self.facts = facts
        self.parent = parent
        self.parent_token = parent_token
        if parent is None:
            self._root: Run | None = None
            self.path = ""
            self.depth: int = 0
        else:
            self._root = parent.root
            self.path = f"{parent.path}/{step}" if parent.path else step
            self.depth = parent.depth + 1
        self.records: list[Record] = []
        self.kept = 0
        """How many of the records are in the store."""
        self.given = 0
        """How many of them writes have been given."""
        self.status = "queued"
        self.queued = False
        """It had to wait for a slot."""
        self.error: dict[str, Any] | None = None
        self.failures: Sequence[dict[str, Any]] = ()
        self.steps = 0
        self.counted = 0
        """Steps of the execution, those of its sub-workflows included; counted in the root."""
        self.created_ns = self.started_ns = now = clock.monotonic_ns()
        self.wall_offset = clock.time_ns() - now
        self.document: dict[str, Any] | None = None
        """The document as it was written last."""
        self.ended_ns = 0
        self.settled = False
        """Terminal or suspended, kept, and everything it opened is closed."""
        self.lost = False
        """Another runner has it now; nothing of what happens here counts."""
        self.attempt = 1
        self.fence = 0
        self.on_end = on_end
        self.host = host
        self.plan_for = plan_for
        self._walker: Walker = plan.walker()
        known = {"execution_id": execution_id, "graph_name": plan.workflow.name, "nodes": plan.nodes, "run": self}
        self.initial = values.copy()
        self.result = Token(0, values, known)
        """The branch that starts; at the end the merge of all."""
        self.busy: dict[Token, None] = _NO_TOKENS
        """Branches whose nodes are being performed."""
        self._secrets: AbstractSet[str] = _NO_TEXTS
        """What agents of this run were given and must not tell."""
        self.extra: Extra = _NO_EXTRA
        """What only runs have that wait, are brought back or run other workflows. Changed through `own`."""
        self.sequence = 2
        """The number of the next event."""
        self._size: int | None = None
        """About, in bytes; None until something is weighed."""
        self._weighed: Any = None
        self._weight = 0
        self.tasks: set[asyncio.Task[Any]] = _NO_TASKS
        self.threads_left = 0
        """Threads of agents that were given up and still use what this run has opened."""
        self._waiters: list[asyncio.Future[None]] = _NO_FUTURES
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = now + int(host.config.execution_timeout * 1e9)
        self.journal: Journal | None = None
        """Where the engine keeps the outcomes of nodes; in the root."""
        self.ledger: Ledger | None = None
        if host.store.durable:
            if parent is None:
                self.ledger = Ledger(self, host.store, host.loop, self._lose)
            else:
                self.ledger = self.root.ledger

    @property
    def root(self) -> Run:
        """The execution that this is a sub-workflow of, or the run itself (no attribute: that would be a cycle)."""
        return self if self._root is None else self._root

    def add_task(self, task: asyncio.Task[Any]) -> None:
        if self.tasks is _NO_TASKS:
            self.tasks = set()
        self.tasks.add(task)

    @property
    def key_base(self) -> str:
        """What idempotency keys begin with: the id, with that of the first execution when this is a retry."""
        origin = self.root.facts.origin
        return self.id if origin is None else origin + self.id.removeprefix(self.root.id)

    @property
    def open(self) -> Mapping[str, Wait]:
        """Open waits of the execution by path; of the root."""
        return self.extra.open

    @property
    def done(self) -> int:
        """Runs of nodes that have ended: neither performed just now nor waiting."""
        at_work = {(token.at, token.visit) for token in self.busy} | self.extra.begun
        return self.steps - len(at_work)

    @property
    def has_waited(self) -> bool:
        """Somewhere in it an answer was waited for."""
        return self.extra is not _NO_EXTRA and any(record[1] == SUSPENDED for record in self.records)

    def own(self) -> Extra:
        """Where what few runs have can be changed."""
        if self.extra is _NO_EXTRA:
            self.extra = Extra()
        return self.extra

    @property
    def finished(self) -> bool:
        return self.ended_ns != 0

    def secret(self, name: str) -> str:
        value = self.host.context.secret(name)
        if len(value) >= SHORTEST_SECRET:
            self._secrets = self._secrets | {value}
        return value

    def masked(self, value: T) -> T:
        """A JSON value without the secrets that agents of this run were given."""
        return masked(value, self._secrets) if self._secrets else value

    def held_back(self, text: str) -> int:
        """How many of the last characters of a text may be the beginning of a secret, which the next ones may end."""
        return max((begun(text, secret) for secret in self._secrets), default=0)

    @property
    def heard(self) -> bool:
        """Whether anybody is told what is not kept."""
        return bool(self.root.extra.listeners)

    def tell(self, event: str, node: str, visit: int, item: int | None, /, **more: Any) -> None:
        """Tell those who watch what is not kept; may be called in any thread."""
        if not self.heard:
            return
        try:
            here = asyncio.get_running_loop() is self.host.loop
        except RuntimeError:
            here = False
        if not here:
            with suppress(RuntimeError):  # the loop is closed
                self.host.loop.call_soon_threadsafe(partial(self.tell, event, node, visit, item, **more))
            return
        root = self.root
        if self.finished or root.finished:
            return
        step = f"{node}#{visit}" if item is None else f"{node}#{visit}/{item}"
        told = {
            "sequence": None,
            "event": event,
            "at": stamp(self.host.context.clock.time_ns()),
            "node": node,
            "visit": visit,
            "path": f"{self.path}/{step}" if self.path else step,
            **more,
        }
        for listener in root.extra.listeners:
            listener.put(root.sequence - 1, told)

    def spend(self, token: Token, item: int | None, used: Mapping[str, int], *, counted: bool = False) -> None:
        """Note what a node uses (tokens, requests, …). What its sub-workflow has used is `counted` already."""
        if not used:
            return
        for place in dict.fromkeys((None, item)):
            add(self.own().spent.setdefault((token.at, token.visit, place), {}), used)
        if not counted:
            self.used(used)

    def used(self, used: Mapping[str, int]) -> None:
        """Count it for this run, and for those it is a part of."""
        run: Run | None = self
        while run is not None:
            add(run.own().usage, used)
            run = run.parent

    @property
    def usage(self) -> Usage:
        return self.extra.usage

    @property
    def current(self) -> list[str]:
        """The nodes that are being performed."""
        return [self.plan.nodes[token.at].name for token in self.busy]

    def sub_run(self, plan: Plan, id: str, values: dict[str, Any], token: Token, step: str) -> Run:
        """A sub-workflow, not begun, of the node that the token stands on."""
        return Run(
            self.host,
            plan,
            id,
            values,
            scope=self.scope,
            context=self.context,
            plan_for=self.plan_for,
            parent=self,
            parent_token=token,
            step=step,
        )

    # What a store is given.

    @property
    def key(self) -> str | None:
        return self.facts.key

    def lines(self) -> Sequence[Lines]:
        return ()

    def row(self) -> Row:
        """The execution as it began."""
        workflow, facts, offset = self.plan.workflow, self.facts, self.wall_offset
        head: dict[str, Any] = {"state": self.initial, "context": _jsonable(self.context)}
        if facts.origin is not None:
            head["origin"] = facts.origin
        if self.extra.parts:
            head["parts"] = {place: plan.workflow.version for place, plan in self.extra.parts.items()}
        return Row(
            id=self.id,
            namespace=self.host.store.namespace,
            graph_id=workflow.graph_id,
            graph_name=workflow.name,
            definition=workflow.version,
            status="queued" if self.status == "queued" else "running",
            owner=facts.owner,
            tags=facts.tags,
            created=self.created_ns + offset,
            started=None if self.status == "queued" else self.started_ns + offset,
            runner=self.host.runner_id,
            retry_of=facts.retry_of,
            key=facts.key,
            key_body=facts.key_body,
            head=dumps(head),
        )

    def pins(self) -> Mapping[str, str]:
        return Pins(self.pinned())

    def pinned(self) -> list[Workflow]:
        """The workflows that it began with, its own and its sub-workflows'."""
        return [plan.workflow for plan in (self.plan, *self.extra.parts.values())]

    def told(self) -> None:
        """There is something new to tell to those who watch the execution."""
        for watcher in list(self.extra.watchers):
            watcher()

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

    def _lose(self, error: BaseException | None) -> None:
        """Another runner has claimed the execution, or (`error`) what has happened in it cannot be written."""
        logger.error("%s: what happens here is not kept any more; the execution ends here", self.id)
        self.leave("Another process has the execution" if error is None else "It cannot be written into the store")
        if error is not None:
            self.host.give_up(self)

    # Beginning, and going on.

    def start(self) -> None:
        """Begin, and go as far as inline nodes lead; what must be awaited goes on in a task of its own."""
        now = self.started_ns
        if self.queued:
            self.started_ns = now = self.host.context.clock.monotonic_ns()
            self._deadline = now + int(self.host.config.execution_timeout * 1e9)
        version = None if self.parent is None else self.plan.workflow.version
        self.records.append((1, STARTED, 0, 0, now, now, version))
        self.go_on([self._walker.start(self.result)])

    def go_on(self, ready: list[Token], *, recovered: bool = False) -> None:
        """Run what can run now: `ready` tokens, and those that were performed when a restored run was left."""
        clock = self.host.context.clock
        self.status = "running"
        perform: list[Token] = []
        if recovered:
            now = clock.monotonic_ns()
            self.records.append((self.sequence, RECOVERED, 0, 0, now, now, self.attempt))
            self.sequence += 1
        if self.extra.begun:
            perform = [token for token in ready if (token.at, token.visit) in self.extra.begun]
            ready = [token for token in ready if (token.at, token.visit) not in self.extra.begun]
            for token in perform:
                node = self.plan.nodes[token.at]
                if (token.at, token.visit) not in self.extra.answered and not self._may_go_on(token, node):
                    self._stop(Interrupted(f"A process ended while {node.name!r} ran, which may not run twice"), node)
                    return
        self.extra.ready = []
        self._pump(ready, perform)
        if self.status == "running" and not self.ended_ns:
            for token in perform:
                self.spawn(self._drive([], [token]))
            if ready:
                self.spawn(self._drive(ready, []))
            left = (self._deadline - clock.monotonic_ns()) / 1e9
            self._timer = self.host.loop.call_later(left, self._out_of_time)

    def _may_go_on(self, token: Token, node: PlanNode) -> bool:
        """Whether a node that began before, and whose end the store does not have, can be performed."""
        if node.may_run_again:
            return True
        journal = self.root.journal
        return journal is not None and journal.has(step_of(self, token))

    def extend_deadline(self) -> None:
        """A restored run has the whole time again: waiting does not count."""
        self._deadline = self.host.context.clock.monotonic_ns() + int(self.host.config.execution_timeout * 1e9)

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
        if self._waiters is _NO_FUTURES:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

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
            self.tasks = _NO_TASKS
            self._waiters = _NO_FUTURES
            self.status = "interrupted"
            self.ended_ns = self.host.context.clock.monotonic_ns()
            self.records.append((self.sequence, ENDED, 0, 0, self.started_ns, self.ended_ns, (self.status, self.error)))
            self.sequence += 1
            self.settled = True
            if not self.host.store.durable:
                self.host.store.append(Written.of(self))

    # The walk: inline nodes, one after the other, without tasks.

    def _pump(self, ready: list[Token], perform: list[Token]) -> None:
        """Walk `ready` tokens until each is consumed, stands before a node to perform, or a turn is over."""
        turn = PAUSE_AFTER
        if self.host.context.clock.monotonic_ns() > self._deadline:
            self._out_of_time()
        nodes = self.plan.nodes
        while ready and turn > 0 and not self.ended_ns:
            token = ready.pop()
            if nodes[token.at].step is None:
                perform.append(token)
            else:
                turn -= self._walk(token, turn, ready, perform)
        if not ready and not self.ended_ns:
            self._rest()

    def _rest(self) -> None:
        """When nothing can run any more: the run has ended, or waits for answers."""
        walker = self._walker
        if walker.running > len(walker.parked) + len(self.extra.waiting) or self.status != "running":
            return
        if self.extra.waiting:
            self._suspend()
        else:
            self._finish("failed" if walker.parked else "completed")

    def _walk(self, token: Token, turn: int, ready: list[Token], perform: list[Token]) -> int:
        """Run inline nodes from where the token stands. Returns how many."""
        root = self.root
        allowed = self.host.config.max_steps - root.counted
        if allowed <= 0:
            self.out_of_steps()
            return 1
        plan, walker = self.plan, self._walker
        nodes, cyclic, limit = plan.nodes, plan.cyclic, plan.limit
        values, stamps, token_stamp = token.values, token.stamps, token.stamp
        alone = walker.alone
        append, clock = self.records.append, self.host.context.clock.monotonic_ns
        sequence = self.sequence
        turn = min(turn, allowed)
        used = 0
        at, visit = token.at, token.visit
        straight = alone and not cyclic and stamps is None
        targets: tuple[int, ...] | None
        began = clock()
        while used < turn:
            node = nodes[at]
            step = node.step
            if step is None:
                perform.append(token)
                break
            used += 1
            try:
                value = step(values, token)
                if straight and node.quick and value is not None:  # the same as below, for what most nodes are
                    if value.__class__ is str:
                        if len(value) > LIGHT:
                            self.weigh(value, values)
                    elif value.__class__ in NESTS:
                        self.weigh(value, values)
                    values[node.output] = value  # type: ignore[index]  # a quick node has one
                    token.flag = True
                    ended = clock()
                    append((sequence, RAN, at, visit, began, ended, value))
                    sequence += 2
                    began = ended
                    at = token.at = node.ok
                    continue
                targets = None
                if node.plain:
                    field = None if value is None else node.output  # null stores nothing
                    follow = node.ok
                    if follow < 0 or not alone:
                        targets = self.targets(token, node, True, None, {} if field is None else {field: value})
                    if field is not None:
                        kind = value.__class__
                        if kind is dict or kind is list or (kind is str and len(value) > LIGHT):
                            self.weigh(value, values)
                        values[field] = value
                        if stamps is not None:
                            stamps[field] = token_stamp
                    token.flag = True
                    if node.asks:
                        value = Finish({} if field is None else {field: value}, True, targets or ())
                else:
                    if value.__class__ is Suspend:
                        raise value
                    delta, flag, goto = node.settled(value, limit)
                    self.weigh_all(delta, values)
                    targets = self.targets(token, node, flag, goto, delta)
                    token.write(delta)
                    token.flag = flag
                    follow = -1
                    if alone and len(targets) == 1 and (not plan.forks or not plan.joins[targets[0]]):
                        follow = targets[0]
                    value = Finish(delta, flag, targets)
            except BaseException as exc:  # an agent's own failure, whatever it is, becomes a value
                ended = clock()
                self.sequence = sequence
                self.steps += used
                root.counted += used
                if isinstance(exc, Suspend):
                    self.record(BEGAN, token, began, began, 1)
                    ready.extend(reversed(self.suspended(token, node, exc)))
                else:
                    ready.extend(reversed(self.failed(token, node, exc, began, ended, 1, RAN)))
                return used
            ended = clock()
            append((sequence, RAN, at, visit, began, ended, value))
            sequence += 2
            began = ended
            if follow >= 0 and alone:
                if cyclic:
                    walker.follow(token, follow)
                    at, visit = follow, token.visit
                else:
                    at = token.at = follow
                continue
            self.sequence = sequence
            self.steps += used
            root.counted += used
            if alone and not targets:
                walker.end(token)
            else:
                ready.extend(reversed(self.complete(token, targets or ())))
            return used
        else:
            ready.append(token)
        self.sequence = sequence
        self.steps += used
        root.counted += used
        return used or 1

    def _out_of_time(self) -> None:
        self._stop(DeadlineExceeded())

    def out_of_steps(self) -> None:
        self._stop(StepLimit(f"The execution ran {self.root.counted} nodes, as many as max_steps allows"))

    def weigh_all(self, delta: dict[str, Any], values: dict[str, Any]) -> None:
        """Weigh what a node sets. One small value is not looked at: `max_steps` bounds how many there can be."""
        if len(delta) == 1:
            for value in delta.values():
                kind = value.__class__
                if kind in NESTS or (kind is str and len(value) > TINY):
                    self.weigh(value, values)
        elif delta:
            self.weigh(delta, values)

    def weigh(self, value: Any, values: dict[str, Any]) -> None:
        """Count what a node adds to the state; when it seems too much, count exactly."""
        if self._size is None:
            self._size = weight(values)
        if value is not self._weighed:
            self._weighed = value
            self._weight = weight(value, 1)  # a field of the state, which is an object itself
        self._size += self._weight  # also of a value passed on as it is: in JSON it is there twice
        limit = self.host.config.max_state_bytes
        if self._size > limit:
            self._size = weight(values) + self._weight
            if self._size > limit:
                raise StateTooLarge(f"The state has about {self._size} bytes; at most {limit} are allowed")

    def targets(
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
        answer = function(fresh(values))
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

    def advance(self, token: Token, targets: tuple[int, ...]) -> list[Token]:
        """As `complete`; a token that is alone goes along a single edge at once, as in the walk."""
        plan = self.plan
        if len(targets) != 1 or not self._walker.alone or (plan.forks and plan.joins[targets[0]]):
            return self.complete(token, targets)
        if plan.cyclic:
            self._walker.follow(token, targets[0])
        else:
            token.at = targets[0]
        return [token]

    def complete(self, token: Token, targets: tuple[int, ...]) -> list[Token]:
        ready = self._walker.complete(token, targets)
        if self._walker.branches > self.host.config.max_branches:
            self._stop(BranchLimit(f"More than {self.host.config.max_branches} branches are open at once"))
            return []
        return ready

    def failed(
        self, token: Token, node: PlanNode, exc: BaseException, began: int, ended: int, attempt: int, kind: int
    ) -> list[Token]:
        """A node has failed: note it, and go where its row says, or park it."""
        failure = as_failure(exc)
        if isinstance(failure, LimitReached | Interrupted):
            self._stop(failure, node)
            return []
        error = self.error_of(failure, node, attempt)
        log = logger.error if self.host.config.debug_errors else logger.debug
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
                error, targets = self.error_of(as_failure(wrong), node, attempt), None
        token.flag = False
        token.note_error(node.name, error["message"])
        sequence = self.sequence
        self.records.append(
            (
                sequence,
                kind,
                token.at,
                token.visit,
                began,
                ended,
                Finish({}, False, targets or (), attempt, error, targets is None, self.spent(token)),
            )
        )
        self.sequence = sequence + width(kind)
        if targets is None:
            token.failure = error
            return self._walker.park(token)
        return self.complete(token, targets)

    def spent(self, token: Token, item: int | None = None) -> Usage | None:
        """What the run of a node, or an item of it, that has just finished has used in all."""
        return self.extra.spent.pop((token.at, token.visit, item), None) if self.extra.spent else None

    def error_of(self, failure: NodeFailure, node: PlanNode | None, attempt: int) -> dict[str, Any]:
        return {
            "code": failure.code,
            "message": self.masked(failure.message),
            "node": None if node is None else node.name,
            "agent_type": None if node is None else node.agent.name,
            "attempt": attempt,
            "retryable": failure.retryable,
            "source": {"file": self.plan.workflow.file, "row": None if node is None else node.node.row},
        }

    # Waiting.

    def suspended(self, token: Token, node: PlanNode, suspend: Suspend) -> list[Token]:
        """A node waits for an answer, or its sub-workflow does: its branch stands, the others go on."""
        key = (token.at, token.visit)
        if suspend.__class__ is Suspend:
            step = f"{node.name}#{token.visit}"
            path = f"{self.path}/{step}" if self.path else step
            clock = self.host.context.clock
            now = clock.monotonic_ns()
            try:
                longest = self.host.config.max_wait_days * 86_400
                asked = wait_of(
                    suspend, path, node.name, now + self.wall_offset, limit=self.plan.limit, longest=longest
                )
                wait = self.masked(asked)
                if suspend.on_timeout is not None:
                    self.after_timeout(node, suspend.on_timeout)
            except NodeFailure as exc:
                return self.failed(token, node, exc, now, now, 1, FINISHED)
            self.record(SUSPENDED, token, now, now, wait)
            self._also_in_root(SUSPENDED, now, wait)
            self.root.own().open[path] = wait
            self.root.own().owners[path] = (self, token)
            if wait["expires"] is not None:
                self.host.expects()
        self.own().begun.add(key)
        self.own().waiting[key] = token
        return []

    def after_timeout(self, node: PlanNode, name: str) -> int:
        """The number of the node that an on_timeout names. Raises RoutingInvalid when no way leads there."""
        number = self.plan.index.get(name)
        if number is None or number not in self.plan.edges[node.index]:
            raise RoutingInvalid(f"on_timeout names {name!r}, to which {node.name!r} has no route")
        return number

    def _also_in_root(self, kind: int, now: int, data: Any) -> None:
        """What happens to the waits of a sub-workflow is an event of the execution too."""
        run = self
        if run.parent is None:
            return
        while run.parent is not self.root:
            assert run.parent is not None  # noqa: S101  # every run descends from the root
            run = run.parent
        assert run.parent_token is not None  # noqa: S101
        self.root.record(kind, run.parent_token, now, now, data)

    def answer(self, path: str, answer: Answer) -> None:
        """Take the answer of an open wait of a running execution; called on the root. KeyError when it is not open."""
        run, token = self.extra.owners.pop(path)
        wait = self.extra.open.pop(path)
        run._take(token, wait, answer)

    def _take(self, token: Token, wait: Wait, answer: Answer) -> None:
        now = self.host.context.clock.monotonic_ns()
        data = answer.to_dict(wait["path"])
        self.record(RESUMED, token, now, now, data)
        self._also_in_root(RESUMED, now, data)
        self.answered(token, wait, answer)
        self._leave_wait(token)

    def answered(self, token: Token, wait: Wait, answer: Answer) -> None:
        """Note an answer; the node makes its result of it when it goes on."""
        self.own().answered[token.at, token.visit] = (wait, answer)

    def waits_at(self, token: Token, wait: Wait) -> None:
        """Put a restored branch back where it waited."""
        self.own().waiting[token.at, token.visit] = token
        self.root.own().open[wait["path"]] = wait
        self.root.own().owners[wait["path"]] = (self, token)

    def _leave_wait(self, token: Token) -> None:
        """The branch goes on, and so do the nodes that wait because this run does."""
        if self.extra.waiting.pop((token.at, token.visit), None) is None:
            return  # its task is about to see that the sub-workflow waits, and now does not
        if self.status == "suspended":  # a sub-workflow, in an execution that runs
            self.status = "running"
            self.settled = False
            self.extend_deadline()
            assert self.parent is not None  # noqa: S101
            assert self.parent_token is not None  # noqa: S101
            self.parent._leave_wait(self.parent_token)
        self.spawn(self._drive([], [token]))

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

    # The end.

    def _stop(self, failure: LimitReached | Interrupted, node: PlanNode | None = None) -> None:
        """End now, whatever still runs."""
        if not self.finished:
            self.error = self.error_of(failure, node, 1)
            kinds = {"cancelled": "cancelled", "interrupted": "interrupted"}
            self._finish(kinds.get(failure.code, "failed"))

    def _finish(self, status: str) -> None:
        walker = self._walker
        if status == "failed" and self.error is None:
            self.failures = [token.failure for token in walker.failed() if token.failure is not None]
            self.error = self.failures[0]
        extra = self.extra
        cut = [*extra.waiting.values(), *self.busy, *extra.ready] if self.busy or extra is not _NO_EXTRA else ()
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
        self.tasks = _NO_TASKS
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
        self._waiters = _NO_FUTURES
        if self.parent is None:
            if self.extra.watchers:
                self.told()
            self.host.settled(self)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def inline_call(node: PlanNode) -> Step:
    """The step of a host's inline agent."""
    run = node.agent.run
    assert run is not None  # noqa: S101

    def step(values: dict[str, Any], position: Any) -> Any:
        return run(NodeCall(position.facts["run"], node, position, values))

    return step


def _jsonable(context: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's context JSON can keep; live objects that a hook has put there cannot outlive the process."""
    found = {}
    for name, value in context.items():
        try:
            found[name] = copied(value)
        except ResultInvalid:
            logger.debug("The context's %r is a live object and is not kept", name)
    return found
