"""Running a plan: a run as stores and services have it, how it begins and goes on, and the answers it is given."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..agents.registry import Step
from ..errors import Interrupted, ResultInvalid
from ..stores.store import Lines, Row
from ..workflows.model import Workflow
from ..workflows.pinned import Pins
from .call import NodeCall
from .performing import Performing
from .plan import PlanNode
from .records import RECOVERED, RESUMED, STARTED
from .stepping import step_of
from .values import copied
from .waits import Answer, Wait
from .walker import Token
from .writing import dumps

logger = logging.getLogger("agentmap_asgi.execution")


class Run(Performing):
    """One execution (or one sub-workflow of it) on its way through a plan."""

    __slots__ = ()

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
                    what = f"A process ended while {node.name!r} ran, which may not run twice"
                    why = f"{what}; retry the execution, or mark the agent idempotent"
                    logger.warning("%s: it ends as interrupted. %s", self.root.id, why)
                    self._stop(Interrupted(why), node)
                    return
        if self.extra.ready:
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

    # Answers.

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
