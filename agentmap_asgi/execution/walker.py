"""Where an execution stands: tokens that move along the graph, wait at joins, merge and end.

Pure: no clock, no I/O, no randomness. A driver runs the node a token stands on, then says where it goes
(`complete`); the walker answers with the tokens that can run now. The outcome does not depend on the order in which a
driver completes them:

* Only joins wait; a token that arrives anywhere else can run at once.
* A join runs when no running node can still reach it, and no waiting join comes before it.
* What branches wrote is merged by stamps, which follow from the graph, never by arrival.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from .order import Order

Stamp = tuple[tuple[int, int, int], ...]
"""Where in the fork structure a write was made. Elements are (number, step, tag): a branch of a fork to k targets is
(position in the cell, joins since, -k), a round of a loop (round, joins since, header + 1), the root (0, joins, 0)."""

ROOT: Final[Stamp] = ((0, 0, 0),)


class ErrorEntry(NamedTuple):
    """An error that a branch has met. Sorts by stamp, then by the branch's own order."""

    stamp: Stamp
    ordinal: int
    node: str
    message: str


class Token:
    """A branch: the node it stands on and the state as it sees it.

    `stamps` holds the stamp of each field written since the execution first forked (None before that).
    """

    __slots__ = ("at", "errors", "facts", "failure", "flag", "stamp", "stamps", "values", "visit")

    def __init__(
        self,
        at: int,
        values: dict[str, Any],
        facts: dict[str, Any],
        *,
        stamp: Stamp = ROOT,
        stamps: dict[str, Stamp] | None = None,
        flag: bool = True,
        errors: tuple[ErrorEntry, ...] = (),
    ) -> None:
        self.at = at
        self.values = values
        self.facts = facts
        """Readable special names that are the same for the whole execution."""
        self.stamp = stamp
        self.stamps = stamps
        self.flag = flag
        self.errors = errors
        self.visit = 1
        self.failure: dict[str, Any] | None = None
        """What the driver says of the failure of a parked token."""

    def special(self, name: str) -> Any:
        if name == "last_action_success":
            return self.flag
        if name == "errors":
            return [entry.message for entry in self.errors]
        if name == "error":
            return self.errors[-1].message if self.errors else None
        if name == "node_name":
            return self.facts["nodes"][self.at].name
        return self.facts[name]

    def write(self, delta: dict[str, Any]) -> None:
        self.values.update(delta)
        if self.stamps is not None:
            for field in delta:
                self.stamps[field] = self.stamp

    def note_error(self, node: str, message: str) -> None:
        self.errors = (*self.errors, ErrorEntry(self.stamp, len(self.errors), node, message))

    def child(self, at: int, stamp: Stamp) -> Token:
        stamps = {} if self.stamps is None else self.stamps.copy()
        return Token(at, self.values.copy(), self.facts, stamp=stamp, stamps=stamps, flag=self.flag, errors=self.errors)


def merge(tokens: Sequence[Token]) -> tuple[dict[str, Any], dict[str, Stamp] | None, tuple[ErrorEntry, ...], bool]:
    """(values, stamps, errors, flag) of several branches: for each field the write with the greatest stamp."""
    first = tokens[0]
    if len(tokens) == 1:
        return first.values, first.stamps, first.errors, first.flag
    values = first.values
    stamps = {} if first.stamps is None else first.stamps
    errors = first.errors
    flag = first.flag
    seen: set[ErrorEntry] | None = None
    for token in tokens[1:]:
        flag = flag and token.flag
        if token.errors is not errors and token.errors:
            seen = (seen or set(errors)) | set(token.errors)
        others = token.values
        for field, stamp in (token.stamps or {}).items():
            mine = stamps.get(field)
            if mine is None or stamp > mine:
                stamps[field] = stamp
                values[field] = others[field]
    if seen is not None:
        errors = tuple(sorted(seen))
    return values, stamps, errors, flag


def joined_stamp(stamps: Iterable[Stamp]) -> Stamp:
    """While all children of one fork are among the stamps they become their parent, one step on; then the greatest."""
    found = set(stamps)
    if len(found) == 1:
        return found.pop()
    while True:
        families: dict[tuple[Stamp, int], list[Stamp]] = {}
        for stamp in found:
            tag = stamp[-1][2]
            if tag < 0:
                families.setdefault((stamp[:-1], tag), []).append(stamp)
        complete = [(key, members) for key, members in families.items() if len({m[-1][0] for m in members}) == -key[1]]
        if not complete:
            return max(found)
        for (parent, _), members in complete:
            found.difference_update(members)
            number, step, tag = parent[-1]
            found.add((*parent[:-1], (number, step + 1, tag)))


class Walker:
    """The tokens of one execution."""

    __slots__ = ("_counts", "_edges", "_forks", "_joins", "_mask", "_order", "_several_ended", "_waiting_mask",
                 "branches", "ended", "parked", "running", "visits", "waiting")  # fmt: skip

    def __init__(self, edges: Sequence[Sequence[int]], joins: Sequence[bool], forks: bool, order: Any) -> None:
        self._edges = edges
        self._joins = joins
        self._forks = forks
        self._order = order
        """() -> Order, made when it is first needed."""
        self.running = 0
        """Tokens on nodes, parked ones included."""
        self.waiting: dict[int, list[Token]] = {}
        self.parked: list[Token] = []
        """Tokens whose node failed and whose failure nothing handles; nothing downstream of them starts."""
        self.ended: Token | None = None
        """The merge of all branches that have ended."""
        self.visits: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        self._mask = 0
        self._waiting_mask = 0
        self._several_ended = False
        self.branches = 0
        """Tokens in all: running, parked and waiting."""

    def start(self, token: Token) -> Token:
        """Place the first token; it can run at once."""
        self.running = self.branches = 1
        self._open(token)
        return token

    @property
    def alone(self) -> bool:
        """One token and nothing else: the driver may move it along single edges itself (see `follow`)."""
        return self.running == 1 and not self.waiting

    @property
    def active(self) -> bool:
        """Something can still run."""
        return self.running > len(self.parked)

    def follow(self, token: Token, at: int) -> None:
        """Move a token that is alone."""
        token.at = at
        self._open(token)

    def end(self, token: Token) -> None:
        """A token that is alone has come to its end."""
        self.running = self.branches = 0
        self._end(token)

    def park(self, token: Token) -> list[Token]:
        """A failure that nothing handles: the token stays, and keeps what is downstream of it from starting."""
        if self.running == 1:
            self._counts = {token.at: 1}
            self._mask = 1 << token.at
        self.parked.append(token)
        return []

    def complete(self, token: Token, targets: Sequence[int]) -> list[Token]:
        """The token's node has run and leads to `targets`: the tokens that can run now, in a fixed order."""
        self._leave(token.at)
        self.branches -= 1
        ready: list[Token] = []
        if not targets:
            self._end(token)
        elif len(targets) == 1:
            token.at = targets[0]
            self._place(token, ready)
        else:
            base, tag = token.stamp, -len(targets)
            for position, target in enumerate(targets):
                self._place(token.child(target, (*base, (position, 0, tag))), ready)
        if self.waiting:
            self._release(ready)
        return ready

    def _leave(self, at: int) -> None:
        if self.running == 1:  # a token that was alone moved without being counted
            self._counts = {}
            self._mask = 0
        else:
            left = self._counts[at] - 1
            self._counts[at] = left
            if not left:
                self._mask &= ~(1 << at)
        self.running -= 1

    def _enter(self, at: int) -> None:
        count = self._counts.get(at, 0)
        if not count:
            self._mask |= 1 << at
        self._counts[at] = count + 1
        self.running += 1

    def _open(self, token: Token) -> None:
        visit = self.visits.get(token.at, 0) + 1
        self.visits[token.at] = token.visit = visit
        if self._forks and self._joins[token.at] and token.at in self._order().headers:
            tag = token.at + 1
            stamp = token.stamp
            for depth, element in enumerate(stamp):
                if element[2] == tag:
                    stamp = stamp[:depth]
                    break
            token.stamp = (*stamp, (visit, 0, tag))
            if token.stamps is None:
                token.stamps = {}

    def _place(self, token: Token, ready: list[Token]) -> None:
        at = token.at
        self.branches += 1
        if self._joins[at]:
            tokens = self.waiting.get(at)
            if tokens is None:
                self.waiting[at] = [token]
                self._waiting_mask |= 1 << at
            else:
                tokens.append(token)
        else:
            self._enter(at)
            self._open(token)
            ready.append(token)

    def _end(self, token: Token) -> None:
        if self.ended is None:
            self.ended = token
        else:
            ended = self.ended
            ended.values, ended.stamps, ended.errors, ended.flag = merge([ended, token])
            self._several_ended = True

    def _release(self, ready: list[Token]) -> None:
        """Start every waiting join that nothing can reach any more, judged from one snapshot."""
        if not self.running and len(self.waiting) == 1:
            free = list(self.waiting)
        else:
            order: Order = self._order()
            ancestors, mask, waiting_mask = order.ancestors, self._mask, self._waiting_mask
            free = [
                join
                for join in self.waiting
                if not mask & (above := ancestors[join])
                and not ((rivals := waiting_mask & above) and rivals & order.before(join))
            ]
            if not free:
                return
            free.sort()
        for join in free:
            tokens = self.waiting.pop(join)
            self._waiting_mask &= ~(1 << join)
            self.branches -= len(tokens) - 1
            if len(tokens) > 1:
                tokens.sort(key=_by_stamp)  # so that the order of the fields does not tell who came first
            token = tokens[0]
            if len(tokens) > 1:
                stamp = joined_stamp(t.stamp for t in tokens)
                token.values, token.stamps, token.errors, token.flag = merge(tokens)
                token.stamp = stamp
            self._enter(join)
            self._open(token)
            ready.append(token)

    def result(self, others: Iterable[Token] = ()) -> Token:
        """The merge of everything there is: the ended branches, and where there are any the parked and waiting ones.

        `others` are further branches, which the driver has cut off.
        """
        others = tuple(others)
        if self.ended is not None and not self.parked and not self.waiting and not others:
            if self._several_ended:
                self.ended.values = _in_order(self.ended)
            return self.ended
        tokens = [] if self.ended is None else [self.ended]
        tokens += self.parked
        for waiting in self.waiting.values():
            tokens += waiting
        tokens += others
        merged = tokens[0].child(tokens[0].at, tokens[0].stamp)
        copies = [merged, *tokens[1:]]
        merged.values, merged.stamps, merged.errors, merged.flag = merge(copies)
        merged.values = _in_order(merged)
        return merged

    def failed(self) -> list[Token]:
        """The parked tokens in the order of their stamps."""
        return sorted(self.parked, key=_by_stamp)


def _by_stamp(token: Token) -> Stamp:
    return token.stamp


def _in_order(token: Token) -> dict[str, Any]:
    """The values; what was written since the first fork stands in the order of the stamps, not as branches ended.

    A text that an agent makes of the state shows the order of its fields.
    """
    stamps = token.stamps or {}
    values = {field: value for field, value in token.values.items() if field not in stamps}
    values.update((field, token.values[field]) for _, field in sorted((at, field) for field, at in stamps.items()))
    return values
