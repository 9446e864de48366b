"""Random workflows with deterministic agents, and ways to run them in any order of completion."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from agentmap_asgi.execution.order import Order
from agentmap_asgi.execution.walker import Token, Walker

FUEL = 10
"""A branch that has seen so many steps and errors takes a way out where there is one."""
MAX_RUNS = 400
"""Past this an execution is given up: which nodes have run by then may depend on timing."""


class Row(NamedTuple):
    """Where a node leads, as its Success_Next and Failure_Next cells say; numbers of nodes."""

    success: tuple[int, ...] = ()
    failure: tuple[int, ...] = ()


Graph = tuple[Row, ...]


def edges_of(graph: Graph) -> list[tuple[int, ...]]:
    return [tuple(dict.fromkeys(row.success + row.failure)) for row in graph]


def joins_of(edges: Sequence[Sequence[int]]) -> list[bool]:
    sources = Counter(target for targets in edges for target in targets)
    sources[0] += 1
    return [sources[node] > 1 for node in range(len(edges))]


def walker_of(graph: Graph, kind: type[Walker] = Walker) -> Walker:
    edges = edges_of(graph)
    forks = any(len(cell) > 1 for row in graph for cell in row)
    order: list[Order] = []

    def made() -> Order:
        if not order:
            order.append(Order(edges))
        return order[0]

    return kind(edges, joins_of(edges), forks, made)


# What nodes do.


class Sight(NamedTuple):
    """What a node sees when it starts. The order of the fields counts: an agent may print its state."""

    node: int
    values: tuple[tuple[str, Any], ...]
    flag: bool
    errors: tuple[str, ...]


class Act(NamedTuple):
    """What a node does: it writes and says yes or no, or raises `error`."""

    delta: dict[str, Any]
    flag: bool
    error: str | None = None


def sight(token: Token) -> Sight:
    errors = tuple(entry.message for entry in token.errors)
    return Sight(token.at, tuple(token.values.items()), token.flag, errors)


def act(graph: Graph, seed: int, seen: Sight) -> Act:
    """A pure function of what the node sees."""
    at = seen.node
    chance = zlib.crc32(repr((seed, *seen)).encode())
    steps = 1 + next((value for field, value in seen.values if field == "steps"), 0)
    row = graph[at]
    if chance % (6 if row.failure else 16) == 0:
        return Act({}, False, f"{at} fails at {chance}")
    delta = {"steps": steps, f"by{at % 5}": chance}
    if chance & 64:
        delta[f"any{chance % 4}"] = at
    if steps + len(seen.errors) > FUEL:
        forward = [flag for flag, cell in ((True, row.success), (False, row.failure)) if all(t > at for t in cell)]
        return Act(delta, min(forward, key=lambda flag: len(row[not flag])) if forward else bool(chance & 128))
    return Act(delta, bool(chance % 8) if row.success else not chance % 8)


def targets_of(row: Row, done: Act) -> tuple[int, ...] | None:
    """None: nothing handles the error."""
    if done.error is None:
        return row.success if done.flag else row.failure
    return row.failure or None


# Orders of completion.

Choice = Callable[[list[Token]], int]
"""Which of the branches under way moves next, by its place in the list (oldest first)."""


def orders(seed: int) -> Iterator[Choice]:
    """Ever new ways to choose: the oldest, the newest, anyone, always the fastest node, fast and slow at random."""
    rng = random.Random(seed)
    yield lambda tokens: 0
    yield lambda tokens: len(tokens) - 1
    while True:
        speed = [rng.random() for _ in range(64)]
        yield lambda tokens: rng.randrange(len(tokens))
        yield lambda tokens, speed=speed: min(range(len(tokens)), key=lambda i: speed[tokens[i].at % 64])  # type: ignore[misc]
        yield lambda tokens, speed=speed: max(  # type: ignore[misc]
            range(len(tokens)), key=lambda i: speed[tokens[i].at % 64] * rng.random()
        )


class Outcome(NamedTuple):
    """Everything an execution leaves behind that must not depend on timing."""

    status: str
    values: tuple[tuple[str, Any], ...]
    flag: bool
    errors: tuple[str, ...]
    failed: tuple[tuple[int, str], ...]
    """(node, error) of the parked branches, first the one that stands first."""
    waiting: tuple[int, ...]
    """Joins that never ran."""
    runs: frozenset[tuple[Sight, int]]
    """What each run saw, and how often just so."""


class Stuck(AssertionError):
    """A join waits for ever."""


def play(graph: Graph, seed: int, choose: Choice, walker: Walker) -> Outcome | None:
    """Run to the end, or None past MAX_RUNS. `choose` mixes starts and completions. Raises Stuck."""
    initial: dict[str, Any] = {"steps": 0, "given": seed}
    under_way = [walker.start(Token(0, initial, {}))]
    started: dict[int, tuple[Sight, Act]] = {}
    runs: list[Sight] = []
    while under_way:
        place = choose(under_way)
        token = under_way[place]
        if id(token) not in started:
            seen = sight(token)
            started[id(token)] = seen, act(graph, seed, seen)
            runs.append(seen)
            if len(runs) > MAX_RUNS:
                return None
            continue
        del under_way[place]
        seen, done = started.pop(id(token))
        assert sight(token) == seen, "a branch was changed while its node ran"
        token.flag = done.flag
        if done.error is not None:
            token.note_error(str(token.at), done.error)
        token.write(done.delta)
        targets = targets_of(graph[token.at], done)
        if targets is None:
            token.failure = {"message": done.error}
            under_way += walker.park(token)
        else:
            under_way += walker.complete(token, targets)
        assert walker.running == len(under_way) + len(walker.parked)
        assert walker.branches == walker.running + sum(map(len, walker.waiting.values()))
    assert not walker.active
    _check_nothing_waits_in_vain(graph, walker)
    end = walker.result()
    return Outcome(
        "failed" if walker.parked else "completed",
        tuple(end.values.items()),
        end.flag,
        tuple(entry.message for entry in end.errors),
        tuple((token.at, (token.failure or {})["message"]) for token in walker.failed()),
        tuple(sorted(walker.waiting)),
        frozenset(Counter(runs).items()),
    )


def _check_nothing_waits_in_vain(graph: Graph, walker: Walker) -> None:
    if walker.waiting:
        behind = downstream(edges_of(graph), [token.at for token in walker.parked])
        for join in walker.waiting:
            if join not in behind:
                raise Stuck(f"{join} waits, though no failed node leads to it")


def downstream(edges: Sequence[Sequence[int]], nodes: Sequence[int]) -> set[int]:
    """The nodes that a path with at least one edge leads to."""
    found: set[int] = set()
    work = list(nodes)
    while work:
        for target in edges[work.pop()]:
            if target not in found:
                found.add(target)
                work.append(target)
    return found


def difference(graph: Graph, seed: int, times: int, kind: type[Walker] = Walker) -> str | None:
    """What differs between several orders of completion, or None. LookupError when the graph runs too long to tell."""
    known: Outcome | None = None
    for number, choose in zip(range(times), orders(seed), strict=False):
        try:
            outcome = play(graph, seed, choose, walker_of(graph, kind))
        except (Stuck, RecursionError) as exc:
            return str(exc)
        if outcome is None:
            if number:
                return "one order comes to an end, another does not"
            raise LookupError(f"more than {MAX_RUNS} runs")
        known = known or outcome
        for field, mine, other in zip(Outcome._fields, known, outcome, strict=True):
            if mine != other:
                return f"{field} in order {number}: {other!r} instead of {mine!r}"
    return None


# Random graphs.


def _cells(rng: random.Random, choices: Sequence[int], forks: float) -> tuple[int, ...]:
    wanted = 1 if rng.random() > forks else rng.randint(2, 4)
    return tuple(rng.sample(choices, min(wanted, len(choices))))


def _forward(rng: random.Random, size: int, forks: float) -> list[Row]:
    """Each node leads some nodes further down; no loops."""
    rows = []
    for node in range(size):
        near = range(node + 1, min(size, node + 1 + rng.choice((3, 5, size))))
        failure = _cells(rng, near, forks) if near and rng.random() < 0.2 else ()
        rows.append(Row(_cells(rng, near, forks) if near else (), failure))
    return rows


def acyclic(rng: random.Random) -> Graph:
    return tuple(_forward(rng, rng.randint(3, 14), 0.5))


def looping(rng: random.Random) -> Graph:
    """Some cells lead back, also into the middle of other loops."""
    rows = _forward(rng, rng.randint(3, 11), rng.choice((0.2, 0.4)))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(rows))
        back = (rng.randrange(at + 1),)
        rows[at] = (
            Row(rows[at].success, back) if rng.random() < 0.5 else Row(back, rows[at].failure or rows[at].success)
        )
        if rng.random() < 0.3:
            rows[at] = Row(tuple(dict.fromkeys(rows[at].success + back)), rows[at].failure)
    return tuple(rows)


def hub(rng: random.Random) -> Graph:
    """One node that hands out work and gets it back."""
    size = rng.randint(3, 8)
    centre = rng.randrange(2)
    spokes = list(range(centre + 1, size))
    rows = [Row((n + 1,)) if n < centre else Row((centre,) if rng.random() < 0.7 else ()) for n in range(size)]
    for spoke in spokes:
        if rng.random() < 0.3:
            rows[spoke] = Row((rng.choice(spokes),), rows[spoke].success)
    rows[centre] = Row(_cells(rng, spokes, 0.8), _cells(rng, spokes, 0.5) if rng.random() < 0.3 else ())
    return tuple(rows)


def dense(rng: random.Random) -> Graph:
    """Anything leads anywhere."""
    size = rng.randint(2, 7)
    everything = range(size)
    return tuple(
        Row(_cells(rng, everything, 0.25), _cells(rng, everything, 0.2) if rng.random() < 0.3 else ())
        for _ in everything
    )


def nested(rng: random.Random) -> Graph:
    """Forks with joins inside loops inside forks, with a shortcut now and then."""
    rows: list[Row] = []

    def block(depth: int) -> tuple[int, list[int]]:
        """(entry, nodes whose success is still open)."""
        entry = len(rows)
        rows.append(Row())
        kind = rng.choice(("fork", "loop", "chain")) if depth else "node"
        if kind == "node":
            return entry, [entry]
        if kind == "chain":
            inner, left = block(depth - 1)
            rows[entry] = Row((inner,))
            return entry, left
        if kind == "fork":
            parts = [block(depth - 1) for _ in range(rng.randint(2, 3))]
            rows[entry] = Row(tuple(part[0] for part in parts))
            left = [node for part in parts for node in part[1]]
            if rng.random() < 0.2:
                return entry, left
            join = len(rows)
            rows.append(Row())
            for node in left:
                rows[node] = Row((*rows[node].success, join), rows[node].failure)
            return entry, [join]
        inner, left = block(depth - 1)
        rows[entry] = Row((inner,))
        last = len(rows)
        rows.append(Row((), (entry,)))
        for node in left:
            rows[node] = Row((*rows[node].success, last), rows[node].failure)
        return entry, [last]

    block(rng.randint(2, 3))
    for _ in range(rng.randint(0, 2)):
        at, to = rng.randrange(len(rows)), rng.randrange(len(rows))
        row = rows[at]
        if to not in row.success and len(row.success) < 4:
            rows[at] = Row((*row.success, to), row.failure)
    return tuple(rows)


SHAPES: tuple[Callable[[random.Random], Graph], ...] = (acyclic, looping, hub, dense, nested)


def random_graph(rng: random.Random) -> Graph:
    return rng.choice(SHAPES)(rng)
