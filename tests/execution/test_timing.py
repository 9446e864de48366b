"""The outcome of an execution does not depend on timing: random workflows, each run in many orders of completion."""

from __future__ import annotations

import asyncio
import csv
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from graphs import (
    MAX_RUNS,
    SHAPES,
    Act,
    Choice,
    Graph,
    Row,
    Sight,
    act,
    difference,
    downstream,
    edges_of,
    orders,
    play,
    random_graph,
    walker_of,
)

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService, Call, agent
from agentmap_asgi.agents.registry import Outcome as Result
from agentmap_asgi.errors import AgentFailed
from agentmap_asgi.execution.order import Order
from agentmap_asgi.execution.walker import Stamp, Token, Walker

GRAPHS = 300
ORDERS = 6


def found(kind: type[Walker], graphs: int, *, start: int = 0) -> tuple[str | None, int]:
    """(the first counterexample, graphs that could be told)."""
    told = 0
    for seed in range(start, start + graphs):
        graph = random_graph(random.Random(seed))
        try:
            differs = difference(graph, seed, ORDERS, kind)
        except LookupError:
            continue
        told += 1
        if differs:
            return f"graph {seed}, {graph}: {differs}", told
    return None, told


@pytest.mark.long
def test_the_outcome_does_not_depend_on_timing(rounds: int) -> None:
    """Final state, flag, errors, failed and waiting nodes, and what each run saw: the same in every order.

    Nor does a join wait for ever: in the end only those wait to which a failed node leads.
    """
    counterexample, told = found(Walker, GRAPHS * rounds)
    assert counterexample is None
    assert told > GRAPHS * rounds * 0.8


def test_the_random_workflows_are_varied() -> None:
    """They have joins, loops, failures, branches that wait in vain, and nodes that run again; few run for too long."""
    count: Counter[str] = Counter()
    for seed in range(GRAPHS):
        graph = SHAPES[seed % len(SHAPES)](random.Random(seed))
        outcome = play(graph, seed, next(orders(seed)), walker_of(graph))
        if outcome is None:
            count["too long"] += 1
            continue
        order = Order(edges_of(graph))
        visits = Counter(seen.node for seen, times in outcome.runs for _ in range(times))
        count["loops"] += bool(order.loops)
        count["ambiguous loops"] += any(len(entrances(graph, part)) > 1 for part in loop_parts(graph))
        count["failed"] += outcome.status == "failed"
        count["several failed"] += len(outcome.failed) > 1
        count["joins wait in vain"] += bool(outcome.waiting)
        count["handled"] += bool(outcome.errors) and outcome.status == "completed"
        count["nodes run again"] += max(visits.values()) > 1
    assert count["too long"] < GRAPHS * 0.2
    for what in ("loops", "ambiguous loops", "failed", "joins wait in vain", "handled", "nodes run again"):
        assert count[what] > GRAPHS * 0.05, what
    assert count["several failed"]


def loop_parts(graph: Graph) -> list[set[int]]:
    """Sets of nodes that lead to each other."""
    behind = [downstream(edges_of(graph), [node]) for node in range(len(graph))]
    return [{n for n in behind[node] if node in behind[n]} for node in behind[0] | {0} if node in behind[node]]


def entrances(graph: Graph, part: set[int]) -> set[int]:
    """The nodes of a part that the entry, or another node within its reach, leads to from outside."""
    edges = edges_of(graph)
    outside = (downstream(edges, [0]) | {0}) - part
    return {target for node in outside for target in edges[node] if target in part} | ({0} & part)


# Walkers that are wrong, each in one way, are found out by the same property.


class ByArrival(Walker):
    """The last write of a field wins, as the clock says."""

    moment = 0

    def complete(self, token: Token, targets: Sequence[int]) -> list[Token]:
        self.moment += 1
        late: Stamp = ((self.moment, 0, 0),)
        for field, stamp in (token.stamps or {}).items():
            if stamp == token.stamp:
                token.stamps[field] = late  # type: ignore[index]  # there are stamps
        return super().complete(token, targets)


class Changed:
    """An Order with an answer of its own."""

    def __init__(self, order: Order, *, ancestors: Sequence[int] | None = None, before: Sequence[int] | None) -> None:
        self.headers = order.headers
        self.ancestors = order.ancestors if ancestors is None else ancestors
        self._before = before

    def before(self, join: int) -> int:
        return 0 if self._before is None else self._before[join]


class Impatient(Walker):
    """A join starts with the first branch that arrives."""

    def __init__(self, edges: Any, joins: Any, forks: bool, order: Any) -> None:
        super().__init__(edges, joins, forks, lambda: Changed(order(), ancestors=[0] * len(edges), before=None))


class Unordered(Walker):
    """A join does not wait for other joins that wait."""

    def __init__(self, edges: Any, joins: Any, forks: bool, order: Any) -> None:
        super().__init__(edges, joins, forks, lambda: Changed(order(), before=None))


class TooPatient(Walker):
    """Joins of one loop wait for each other."""

    def __init__(self, edges: Any, joins: Any, forks: bool, order: Any) -> None:
        super().__init__(edges, joins, forks, lambda: Changed(order(), before=order().ancestors))


class FirstComeFirst(Walker):
    """What is downstream of a failure may start."""

    def park(self, token: Token) -> list[Token]:
        super().park(token)
        self._mask &= ~(1 << token.at)
        ready: list[Token] = []
        if self.waiting:
            self._release(ready)
        return ready


class Sharing(Walker):
    """Branches share one state."""

    def complete(self, token: Token, targets: Sequence[int]) -> list[Token]:
        ready = super().complete(token, targets)
        for other in ready[1:]:
            if len(targets) > 1:
                other.values = ready[0].values
        return ready


@pytest.mark.parametrize("kind", [ByArrival, Impatient, Unordered, TooPatient, FirstComeFirst, Sharing])
def test_a_wrong_walker_is_found_out(kind: type[Walker]) -> None:
    """The property above sees the difference."""
    assert found(kind, GRAPHS)[0] is not None


# The same through the service, with agents that are awaited.


class Turns:
    """Lets waiting agents go on one at a time, in the order that `choose` says. Nothing sleeps."""

    def __init__(self, choose: Choice) -> None:
        self._choose = choose
        self._waiting: list[tuple[Token, asyncio.Future[None]]] = []

    async def wait(self, node: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((Token(node, {}, {}), turn))
        await turn

    async def serve(self, work: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
        """Let agents go on until `work` is done. AssertionError when nobody waits and it still is not."""
        idle = 0
        while not work.done():
            await asyncio.sleep(0)
            idle += 1
            if idle % 8 == 0 and self._waiting:  # by now all that can start has started
                _, turn = self._waiting.pop(self._choose([token for token, _ in self._waiting]))
                turn.set_result(None)
                idle = 0
            assert idle < 10_000, "nothing runs, nobody waits, and the execution has no end"
        return work.result()


class Bench:
    """A workflow as a file, agents that do what `act` says, and a service that runs it."""

    def __init__(self, graph: Graph, seed: int, folder: Path) -> None:
        self.graph = graph
        self.seed = seed
        self.turns = Turns(lambda tokens: 0)
        self.runs: list[Sight] = []
        path = folder / "workflow.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["GraphName", "Node", "AgentType", "Input_Fields", "Success_Next", "Failure_Next", "Output_Field"]
            )
            kinds = random.Random(seed)
            for number, row in enumerate(graph):
                kind = kinds.choice(("awaited", "awaited", "inline"))
                success, failure = ("|".join(f"n{target}" for target in cell) for cell in row)
                writer.writerow(["G", f"n{number}", kind, "last_action_success|errors", success, failure, ""])
        inline = agent(inline=True)(lambda call: self.inline(call))
        context = AgentMapContext(agents={"awaited": self.awaited, "inline": inline})
        config = AgentMapConfig(max_steps=MAX_RUNS, max_branches=10_000, blocking_threshold=0)
        self.service = AgentMapService(config, context=context, source=path)

    def _look(self, call: Call) -> Sight:
        given: Mapping[str, Any] = call.inputs
        node = int(call.node.name[1:])
        seen = Sight(node, tuple(call.state.items()), given["last_action_success"], tuple(given["errors"]))
        self.runs.append(seen)
        return seen

    def _result(self, done: Act) -> Result:
        if done.error is not None:
            raise AgentFailed(done.error)
        return Result({"state_updates": done.delta}, done.flag)

    def inline(self, call: Call) -> Result:
        return self._result(act(self.graph, self.seed, self._look(call)))

    async def awaited(self, call: Call) -> Result:
        seen = self._look(call)
        await self.turns.wait(seen.node)
        return self._result(act(self.graph, self.seed, seen))

    async def execute(self, choose: Choice) -> tuple[dict[str, Any], frozenset[tuple[Sight, int]]]:
        """(execution document, what the runs saw)."""
        self.turns = Turns(choose)
        self.runs = []
        work = asyncio.ensure_future(self.service.execute_workflow("G", {"steps": 0, "given": self.seed}))
        document = await self.turns.serve(work)
        return document, frozenset(Counter(self.runs).items())


@pytest.mark.long
@pytest.mark.anyio
@pytest.mark.blocks  # it writes the workflow files
async def test_executions_end_as_the_walk_says(rounds: int, tmp_path: Path) -> None:
    """Whatever agent answers first: the state, the error and what the agents saw are those of a walk by hand."""
    told = 0
    for seed in range(40 * rounds):
        graph = reachable_part(random_graph(random.Random(seed)))
        expected = play(graph, seed, next(orders(seed)), walker_of(graph))
        if expected is None:
            continue
        told += 1
        bench = Bench(graph, seed, tmp_path)
        for _, choose in zip(range(4), orders(seed), strict=False):
            document, runs = await bench.execute(choose)
            assert document["status"] == expected.status, (seed, graph, document["error"])
            assert list(document["result"].items()) == list(expected.values), (seed, graph)
            assert runs == expected.runs, (seed, graph)
            if expected.failed:
                node, message = expected.failed[0]
                assert (document["error"]["node"], document["error"]["message"]) == (f"n{node}", message)
        await bench.service.aclose()
    assert told > 40 * rounds * 0.7


def reachable_part(graph: Graph) -> Graph:
    """Without the rows that nothing leads to, which the checks of a file do not like."""
    found, work = [0], [0]
    edges = edges_of(graph)
    while work:
        for target in edges[work.pop()]:
            if target not in found:
                found.append(target)
                work.append(target)
    number = {node: place for place, node in enumerate(sorted(found))}
    return tuple(
        Row(
            tuple(number[target] for target in graph[node].success),
            tuple(number[target] for target in graph[node].failure),
        )
        for node in sorted(found)
    )
