"""What a run knows: where it stands, what has happened, what it has used, and whom it tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar

from ..engines.engine import Journal
from ..errors import NodeFailure, StateTooLarge
from ..scopes import RunScope
from ..workflows.model import Workflow
from .host import NO_FACTS, Facts, Host
from .ledger import Ledger
from .live import Listener
from .plan import Plan, PlanNode
from .records import SUSPENDED, Record, stamp
from .usage import Usage, add
from .values import NESTS, begun, masked, weight
from .waits import Answer, Wait
from .walker import Token, Walker

logger = logging.getLogger("agentmap_asgi.execution")

Run = Any
"""An `executor.Run`, which imports this module."""
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


NO_EXTRA: Final = Extra()
"""Shared by the many runs that have nothing of it; never changed. Fewer objects are less to collect."""
_NO_TOKENS: Final[Any] = MappingProxyType({})
_NO_TEXTS: Final[frozenset[str]] = frozenset()
NO_TASKS: Final[Any] = frozenset()
NO_FUTURES: Final[Any] = ()


class RunState:
    """One execution, or one sub-workflow of it. What it does is in the classes that are made of this one."""

    __slots__ = ("__weakref__", "_deadline", "_root", "_secrets", "_size", "_timer", "_waiters", "_walker",
                 "_weighed", "_weight", "attempt", "busy", "context", "counted", "created_ns", "depth", "document",
                 "ended_ns", "error", "extra", "facts", "failures", "fence", "given", "host", "id", "initial",
                 "journal", "kept", "ledger", "lost", "on_end", "parent", "parent_token", "path", "plan", "plan_for",
                 "queued", "records", "result", "scope", "sequence", "settled", "started_ns", "status", "steps",
                 "tasks", "threads_left", "wall_offset")  # fmt: skip

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
        parent: Self | None = None,
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
        self.parent: Self | None = parent
        self.parent_token = parent_token
        if parent is None:
            self._root: Self | None = None
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
        self.extra: Extra = NO_EXTRA
        """What only runs have that wait, are brought back or run other workflows. Changed through `own`."""
        self.sequence = 2
        """The number of the next event."""
        self._size: int | None = None
        """About, in bytes; None until something is weighed."""
        self._weighed: Any = None
        self._weight = 0
        self.tasks: set[asyncio.Task[Any]] = NO_TASKS
        self.threads_left = 0
        """Threads of agents that were given up and still use what this run has opened."""
        self._waiters: list[asyncio.Future[None]] = NO_FUTURES
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = now + int(host.config.execution_timeout * 1e9)
        self.journal: Journal | None = None
        """Where the engine keeps the outcomes of nodes; in the root."""
        self.ledger: Ledger | None = None
        if host.store.durable:
            if parent is None:
                self.ledger = Ledger(self, host.store, host.loop)
            else:
                self.ledger = self.root.ledger

    @property
    def root(self) -> Self:
        """The execution that this is a sub-workflow of, or the run itself (no attribute: that would be a cycle)."""
        return self if self._root is None else self._root

    def add_task(self, task: asyncio.Task[Any]) -> None:
        if self.tasks is NO_TASKS:
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
        return self.extra is not NO_EXTRA and any(record[1] == SUSPENDED for record in self.records)

    def own(self) -> Extra:
        """Where what few runs have can be changed."""
        if self.extra is NO_EXTRA:
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

    # What happens, and who is told.

    def record(self, kind: int, token: Token, began: int, ended: int, data: Any) -> None:
        if not self.ended_ns:  # what comes later is dropped
            self.records.append((self.sequence, kind, token.at, token.visit, began, ended, data))
            self.sequence += 1
            if self.extra.watchers and self.ledger is None:
                self.told()

    def told(self) -> None:
        """There is something new to tell to those who watch the execution."""
        for watcher in list(self.extra.watchers):
            watcher()

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

    @property
    def current(self) -> list[str]:
        """The nodes that are being performed."""
        return [self.plan.nodes[token.at].name for token in self.busy]

    # What it uses, and what it may not exceed.

    def spend(self, token: Token, item: int | None, used: Mapping[str, int], *, counted: bool = False) -> None:
        """Note what a node uses (tokens, requests, …). What its sub-workflow has used is `counted` already."""
        if not used:
            return
        for place in dict.fromkeys((None, item)):
            add(self.own().spent.setdefault((token.at, token.visit, place), {}), used)
        if not counted:
            self.used(used)

    def spent(self, token: Token, item: int | None = None) -> Usage | None:
        """What the run of a node, or an item of it, that has just finished has used in all."""
        return self.extra.spent.pop((token.at, token.visit, item), None) if self.extra.spent else None

    def used(self, used: Mapping[str, int]) -> None:
        """Count it for this run, and for those it is a part of."""
        run: RunState | None = self
        while run is not None:
            add(run.own().usage, used)
            run = run.parent

    @property
    def usage(self) -> Usage:
        return self.extra.usage

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
