"""What an agent is given when it is called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from ..agents.options import SECRET, read_declared
from ..errors import ResultInvalid, ServiceMissing
from ..scopes import NodeScope, Provider, RunScope
from ..workflows.model import Node
from .fields import gather
from .host import Host
from .live import LOG, PROGRESS, TOKEN
from .plan import Plan, PlanNode
from .values import copied, fresh
from .walker import Token

logger = logging.getLogger("agentmap_asgi.agents")
T = TypeVar("T")
walk_logger = logging.getLogger("agentmap_asgi.execution")


class Running(Protocol):
    """What a call needs of its execution."""

    host: Host
    plan: Plan

    @property
    def id(self) -> str: ...
    @property
    def key_base(self) -> str: ...
    @property
    def context(self) -> Mapping[str, Any]: ...
    @property
    def scope(self) -> RunScope: ...
    def secret(self, name: str) -> str: ...
    def masked(self, value: Any) -> Any: ...
    @property
    def heard(self) -> bool: ...
    def tell(self, event: str, node: str, visit: int, item: int | None, /, **more: Any) -> None: ...
    def spend(self, token: Token, item: int | None, used: Mapping[str, int]) -> None: ...
    def held_back(self, text: str) -> int: ...


class NodeCall:
    """One attempt of one run of a node. Everything is made when the agent asks for it."""

    __slots__ = ("_inputs", "_offset", "_plan", "_run", "_said", "_token", "_values", "attempt", "item", "node_scope")

    def __init__(
        self,
        run: Running,
        plan: PlanNode,
        token: Token,
        values: dict[str, Any],
        attempt: int = 1,
        item: int | None = None,
    ) -> None:
        self._run = run
        self._plan = plan
        self._token = token
        self._values = values
        self._inputs: dict[str, Any] | None = None
        self._said = ""
        self._offset = 0
        self.attempt = attempt
        self.item = item
        self.node_scope: NodeScope | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        if self._inputs is None:
            self._inputs = fresh(gather(self._plan.bindings, self._values, self._token))
        return self._inputs

    @property
    def prompt(self) -> str:
        return self._plan.prompt(self._values, self._token)

    @property
    def options(self) -> dict[str, Any]:
        options = {name: self._revealed(copied(value)) for name, value in self._plan.node.options.items()}
        known = self._plan.agent.options
        return options if known is None else read_declared(options, known)

    def _revealed(self, value: Any) -> Any:
        """A value, or the values in a list or an object, with `secret:NAME` looked up."""
        if isinstance(value, str):
            return self._run.secret(value.removeprefix(SECRET)) if value.startswith(SECRET) else value
        if isinstance(value, dict):
            return {key: self._revealed(item) for key, item in value.items()}
        return [self._revealed(item) for item in value] if isinstance(value, list) else value

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = fresh(self._values)
        return state

    @property
    def context(self) -> dict[str, Any]:
        return {name: _own(value) for name, value in self._run.context.items()}

    @property
    def node(self) -> Node:
        return self._plan.node

    @property
    def graph_name(self) -> str:
        return self._plan.node.graph

    @property
    def execution_id(self) -> str:
        return self._run.id

    @property
    def idempotency_key(self) -> str:
        key = f"{self._run.key_base}/{self._plan.name}#{self._token.visit}"
        return key if self.item is None else f"{key}/{self.item}"

    def service(self, name: str) -> Any:
        if self.node_scope is None:
            raise ServiceMissing(f"The agent did not declare the service {name!r}; add it to services=[…]")
        return self.node_scope.get(name)

    async def resolve(self, name: str) -> Any:
        if self.node_scope is None:
            self.node_scope = self._run.scope.node_scope()
        return await self.node_scope.resolve(name)

    async def opened(self, provider: Provider) -> Any:
        """What a built-in agent shares with others of its app, run or attempt."""
        if self.node_scope is None:
            self.node_scope = self._run.scope.node_scope()
        return await self.node_scope.opened(provider)

    async def in_thread(self, function: Callable[[], T]) -> T:
        """A function's result, called in a worker thread as agents that are plain functions are."""
        result: T = await self._run.host.threads.run(lambda _: function(), self)
        return result

    @property
    def choices(self) -> dict[str, Node]:
        """The nodes that the agent may route to by itself."""
        nodes = self._run.plan.nodes
        return {name: nodes[index].node for name, index in self._plan.choices.items()}

    def secret(self, name: str) -> str:
        return self._run.secret(name)

    def spend(self, **used: int) -> None:
        self._run.spend(self._token, self.item, used)

    def report(self, progress: float, message: str = "") -> None:
        walk_logger.debug(
            "%s: %s#%d is at %.0f %%", self.execution_id, self._plan.name, self._token.visit, progress * 100
        )
        if self._run.heard:
            self._tell(PROGRESS, progress=progress, message=self._run.masked(message))

    def log(self, message: str, **fields: Any) -> None:
        extra = {"execution_id": self.execution_id, "graph_name": self.graph_name, "node": self._plan.name}
        told = self._run.masked(fields)
        line = "".join(c if c.isprintable() else " " for c in self._run.masked(message))
        logger.info("%s/%s: %s", self.graph_name, self._plan.name, line, extra={"agentmap": extra | told})
        if self._run.heard:
            self._tell(LOG, message=line, fields={name: _plain(value) for name, value in told.items()})

    def token(self, text: str, *, last: bool = False) -> None:
        if not self._run.heard:
            self._offset += len(text)
            return
        said = self._said + text
        keep = 0 if last else self._run.held_back(said)
        self._said = said[len(said) - keep :]
        piece = said[: len(said) - keep]
        if piece:
            self._tell(TOKEN, text=self._run.masked(piece), offset=self._offset, attempt=self.attempt)
            self._offset += len(self._run.masked(piece))

    def said(self) -> None:
        """The agent has returned: tell what was held back."""
        if self._said:
            self.token("", last=True)

    def again(self) -> None:
        """The pieces of text that follow are of an answer that begins anew."""
        self._said, self._offset = "", 0

    def _tell(self, event: str, /, **more: Any) -> None:
        self._run.tell(event, self._plan.name, self._token.visit, self.item, **more)


def _plain(value: Any) -> Any:
    """A JSON value as it is, anything else as its text."""
    try:
        return copied(value)
    except ResultInvalid:
        return str(value)[:1000].encode("utf-8", "replace").decode()


def _own(value: Any) -> Any:
    """A copy of a JSON value; anything else that a hook has put there is the host's, and given as it is."""
    try:
        return copied(value)
    except ResultInvalid:
        return value
