"""The walk: inline nodes, one after the other, without tasks; and where each node leads."""

from __future__ import annotations

import logging
import traceback
from typing import Any, Final

from ..errors import BranchLimit, Interrupted, LimitReached, NodeFailure, RoutingInvalid
from ..workflows.model import FunctionRoute
from .ending import Ending
from .failures import as_failure
from .plan import PlanNode, Targets
from .records import BEGAN, FINISHED, RAN, SUSPENDED, Finish, width
from .run_state import LIGHT
from .values import NESTS, fresh
from .waits import Suspend, wait_of
from .walker import Token

logger = logging.getLogger("agentmap_asgi.execution")

PAUSE_AFTER: Final = 256
"""Nodes between two turns of the event loop."""


class Walking(Ending):
    """A run that goes from node to node."""

    __slots__ = ()

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

    # Where a node leads.

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

    # Waiting for answers.

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
