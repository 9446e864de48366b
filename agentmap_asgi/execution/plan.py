"""A workflow compiled for running: nodes by number, successors as numbers, getters and templates parsed. Immutable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..agents.options import is_secret
from ..agents.registry import Agent, Outcome, Registry, Site, Step
from ..errors import Interrupted, ResultInvalid, RoutingInvalid
from ..workflows.model import FunctionRoute, Node, Route, Workflow
from .fields import SPECIAL, bind, finder, getter
from .limits import Bounds, bounds_of
from .order import Order
from .templates import Renderer, Template
from .values import copied
from .walker import Walker

logger = logging.getLogger("agentmap_asgi")

END: Final = -1
"""No successor."""
ASK: Final = -2
"""Where to go is not a single edge: the walker decides."""

Targets = tuple[int, ...] | FunctionRoute


class PlanNode:
    """One node, ready to run."""

    __slots__ = ("agent", "asks", "bindings", "bounds", "child_fields", "choices", "collect", "compiled", "continues",
                 "direct", "error", "failure", "index", "leads", "may_run_again", "name", "node", "ok", "output",
                 "outputs", "plain", "prompt", "quick", "step", "success", "trusted")  # fmt: skip

    index: int
    name: str
    node: Node
    agent: Agent
    step: Step | None
    """Called in the walk itself; None when the node must be performed (awaited, threaded, or under a policy)."""
    compiled: Step | None
    """The built-in's step, also when a policy stands around it."""
    direct: bool
    """All there is to do is to await the agent: no services, no policies."""
    plain: bool
    """The step's result is a JSON value that goes to `output`, and the flag is true: nothing else to look at."""
    quick: bool
    """A plain node with one field, that one other node follows."""
    asks: bool
    """A routing function says where a success leads."""
    may_run_again: bool
    """Running it twice does no harm."""
    trusted: bool
    """Results are made of JSON values already: no copy, no check."""
    output: str | None
    outputs: tuple[str, ...]
    collect: str
    """`output_validation` of the row: ignore, warn or error."""
    ok: int
    success: Targets
    failure: Targets
    leads: tuple[str, ...]
    """The names of the nodes that a success leads to, when no function says it."""
    error: Targets | None
    """Where a raised failure leads; None parks it."""
    continues: bool
    """`on_error: continue`."""
    choices: Mapping[str, int]
    """Nodes the agent may route to by itself."""
    bindings: tuple[Any, ...]
    bounds: Bounds | None
    """How many of it at once, and how often, over all executions."""
    prompt: Renderer
    child_fields: tuple[tuple[str, str], ...]
    """Sub-workflows: (field of this state, field of the child's state) for each `parent=child` of Output_Field."""

    def settled(self, result: Any, max_output: int) -> tuple[dict[str, Any], bool, int | None]:
        """(what changes in the state, flag, node it routes to or None) from an agent's result.

        Raises ResultInvalid, OutputTooLarge or RoutingInvalid.
        """
        flag, goto, updates = True, None, None
        also: dict[str, Any] = {}
        value = result
        if result.__class__ is Outcome:
            value, flag, goto_name, updates = result
            if goto_name is not None:
                goto = self.choices.get(goto_name)
                if goto is None:
                    raise RoutingInvalid(f"{goto_name!r} is not among the nodes that {self.name!r} may route to")
        if not self.trusted:
            if value.__class__ is str and value.isascii() and len(value) + 2 <= max_output:
                pass  # as it is, like the constants
            elif value is not None and value is not True and value is not False:
                value = copied(value, "The result", limit=max_output)
            if updates is not None:
                also = copied(dict(updates), "The result", limit=max_output)
            if self.agent.outside:
                return {**self.declared(value), **also}, flag, goto
            if value.__class__ is dict and len(value) == 1 and value.get("state_updates").__class__ is dict:
                return self._updates({**value["state_updates"], **also}, flag, goto)
        return (self.stored(value) | also if also else self.stored(value)), flag, goto

    def _updates(
        self, updates: dict[str, Any], flag: bool, goto: int | None
    ) -> tuple[dict[str, Any], bool, int | None]:
        delta = dict(updates)
        flag = bool(delta.pop("last_action_success", flag))
        for name in delta:
            if name in SPECIAL:
                raise ResultInvalid(f"state_updates sets {name!r}, which cannot be stored")
        return delta, flag, goto

    def item_value(self, result: Any, max_output: int) -> Any:
        """What one item of a Map_Over gives."""
        value = result.value if result.__class__ is Outcome else result
        return value if self.trusted else copied(value, "The result", limit=max_output)

    def declared(self, value: Any) -> dict[str, Any]:
        """The same for a value that comes from outside: no fields but those."""
        if value.__class__ is dict and len(self.outputs) > 1:
            value = {name: value[name] for name in self.outputs if name in value}
        return self.stored(value)

    def stored(self, value: Any) -> dict[str, Any]:
        """The fields that a result value sets, by Output_Field."""
        if not self.outputs:
            return {}
        if len(self.outputs) == 1:
            return {} if value is None else {self.outputs[0]: value}  # null stores nothing
        if value.__class__ is not dict:
            return dict.fromkeys(self.outputs) | {self.outputs[0]: value}
        if self.collect != "ignore":
            missing = [name for name in self.outputs if name not in value]
            extra = [name for name in value if name not in self.outputs]
            if missing or extra:
                differs = f"The result has {'no ' + ', '.join(missing) if missing else 'also ' + ', '.join(extra)}"
                if self.collect == "error":
                    raise ResultInvalid(f"{differs}, and output_validation is error")
                logger.warning("The node %s of %s: %s", self.name, self.node.graph, differs)
        delta = {name: value.get(name) for name in self.outputs}
        for name, field in value.items():
            if name in SPECIAL:
                raise ResultInvalid(f"The result has the key {name!r}, which cannot be stored")
            delta[name] = field
        return delta


class Plan:
    """A workflow ready to run. Made once for each version of a workflow and shared by its executions."""

    __slots__ = (
        "_order",
        "cyclic",
        "edges",
        "forks",
        "functions",
        "index",
        "inline",
        "joins",
        "limit",
        "nodes",
        "references",
        "workflow",
    )

    def __init__(
        self,
        workflow: Workflow,
        registry: Registry,
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        max_output: int = 1024 * 1024,
        inline_call: Callable[[PlanNode], Step] | None = None,
        once: bool = False,
    ) -> None:
        """`inline_call` makes the step of a host's inline agent, which needs a Call. With `once`, agents that may not
        run again are performed, so that their beginning and their end are kept. Raises Interrupted for an agent that
        does not exist.
        """
        self.workflow = workflow
        self.functions = functions or {}
        self.limit = max_output
        nodes = workflow.nodes
        self.index = index = {name: number for number, name in enumerate(nodes)}
        site = Site(nodes, max_output)
        everything = tuple(range(len(nodes)))

        def numbers(route: Route) -> tuple[int, ...]:
            if isinstance(route, FunctionRoute):
                return everything if route.declared is None else tuple(index[name] for name in route.declared)
            return tuple(index[name] for name in route)

        self.references: tuple[str, ...] = ()
        """The sub-workflows that rows name."""
        self.nodes: list[PlanNode] = []
        self.edges: list[tuple[int, ...]] = []
        self.forks = False
        for node in nodes.values():
            try:
                agent = registry[node.agent_type]
            except KeyError:  # a version of former times
                message = f"There is no agent {node.agent_type!r} any more, which the node {node.name!r} needs"
                raise Interrupted(message) from None
            plan = _compiled(node, agent, site, index, len(self.nodes))
            named = node.options.get("workflow") if agent.sub_workflow else None
            if isinstance(named, str) and named:
                self.references += (named,)
            routes = (node.edge, node.on_success, node.on_failure)
            reach = [number for route in routes for number in numbers(route)]
            reach += plan.choices.values()
            self.nodes.append(plan)
            self.edges.append(tuple(dict.fromkeys(reach)))
            self.forks = self.forks or any(isinstance(r, FunctionRoute) or len(r) > 1 for r in routes)
        self.joins = _joins(self.edges)
        self.cyclic = any(other <= number for number, targets in enumerate(self.edges) for other in targets)
        """Some edge leads back (or is drawn against the order of the rows): nodes may run more than once."""
        for plan in self.nodes:
            plan.ok = self._single(plan.success)
            plan.quick = plan.plain and plan.ok >= 0 and plan.output is not None
            free = plan.may_run_again or not once
            if plan.step is None and free and _inline(plan) and inline_call is not None:
                plan.step = inline_call(plan)
        self.inline = all(plan.step is not None for plan in self.nodes)
        """No node of it is ever awaited."""
        self._order: Order | None = None

    def _single(self, targets: Targets) -> int:
        if isinstance(targets, FunctionRoute) or len(targets) > 1:
            return ASK
        if not self.forks:
            return targets[0] if targets else END
        return targets[0] if targets and not self.joins[targets[0]] else ASK

    def order(self) -> Order:
        if self._order is None:
            self._order = Order(self.edges)
        return self._order

    @property
    def loops(self) -> bool:
        """A node may run any number of times."""
        return self.cyclic and bool(self.order().headers)

    def walker(self) -> Walker:
        return Walker(self.edges, self.joins, self.forks, self.order)


def _joins(edges: list[tuple[int, ...]]) -> list[bool]:
    sources: list[int] = [0] * len(edges)
    sources[0] = 1  # the entry's virtual edge
    for targets in edges:
        for other in targets:
            sources[other] += 1
    return [count > 1 for count in sources]


def _inline(plan: PlanNode) -> bool:
    """A host's agent that runs in the walk: declared inline, without services, policies or secrets."""
    node, agent = plan.node, plan.agent
    return (
        agent.mode == "inline"
        and agent.run is not None
        and not agent.services
        and node.retry is None
        and node.timeout is None
        and node.map_over is None
        and plan.bounds is None
        and not has_secrets(node.options)
    )


def has_secrets(value: Any) -> bool:
    """Whether `secret:NAME` stands in a value, an object's or a list's included."""
    if isinstance(value, str):
        return is_secret(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(map(has_secrets, inner))


def _compiled(node: Node, agent: Agent, site: Site, index: Mapping[str, int], number: int) -> PlanNode:
    plan = PlanNode()
    plan.index, plan.name, plan.node, plan.agent = number, node.name, node, agent
    timed = node.timeout is not None and not agent.waits
    plan.bindings = bind(node.inputs, agent.expected_params)
    plan.bounds = bounds_of(
        node.options,
        f"{node.graph}::{node.name}",
        finder(plan.bindings, state=True),
        items=node.map_over is not None,
        foreign=agent.options or {},
    )
    policies = node.retry is not None or timed or node.map_over is not None or plan.bounds is not None
    plan.compiled = None if agent.compile is None else agent.compile(node, site)
    plan.step = None if policies else plan.compiled
    plan.trusted = plan.compiled is not None or agent.sub_workflow
    if node.map_over is not None:
        plan.bindings = (*plan.bindings, ("item", getter("item")), ("index", getter("index")))
    plan.child_fields = ()
    plan.outputs = node.outputs
    if agent.sub_workflow:
        pairs = [name.partition("=") for name in node.outputs]
        plan.child_fields = tuple((ours.strip(), theirs.strip()) for ours, sign, theirs in pairs if sign)
        plan.outputs = tuple(ours.strip() for ours, _, _ in pairs)
    plan.output = plan.outputs[0] if len(plan.outputs) == 1 else None
    plan.plain = plan.trusted and not agent.rich and len(plan.outputs) < 2
    plan.collect = str(node.options.get("output_validation", "ignore"))
    find = finder(plan.bindings, state=agent.state_prompt)
    plan.prompt = Template(node.prompt).compile(find, limit=site.max_output)
    chosen = agent.targets(node, site.nodes) if agent.targets is not None else ()
    plan.choices = {name: index[name] for name in chosen if name in index}
    plan.continues = node.options.get("on_error") == "continue"

    def targets(route: Route) -> Targets:
        return route if isinstance(route, FunctionRoute) else tuple(index[name] for name in route)

    # Edge replaces Success_Next, and Failure_Next when the agent merely says no; a raised error has its own way.
    plan.success = targets(node.edge or node.on_success)
    plan.failure = targets(node.edge or node.on_failure)
    plan.error = targets(node.on_failure) if node.on_failure else plan.success if plan.continues else None
    plan.direct = (
        agent.mode == "async"
        and agent.run is not None
        and not (policies or agent.sub_workflow or agent.services)
        and plan.compiled is None
    )
    plan.ok, plan.quick = END, False
    plan.asks = isinstance(plan.success, FunctionRoute)
    route = node.edge or node.on_success
    plan.leads = () if isinstance(route, FunctionRoute) else tuple(route)
    plan.may_run_again = (
        agent.idempotent
        or agent.sub_workflow
        or plan.compiled is not None
        or node.options.get("idempotent") is True
        or (agent.repeatable is not None and agent.repeatable(node))
    )
    return plan
