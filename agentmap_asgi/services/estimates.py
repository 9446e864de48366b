"""When an execution will be done: from how long those before it took from there on. Honest about not knowing."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

LEAST: Final = 3
"""Samples without which nothing is said."""
MOST: Final = 200
"""Newest samples that count."""
MOST_PLACES: Final = 500
"""Runs of nodes of one workflow that are remembered."""
SHORTEST: Final = 0.05
"""Seconds: of an execution that took less nobody asks how far it is."""
PAUSE: Final = 0.1
"""Seconds between two executions whose nodes are looked at, when many complete: the newest would tell the same."""

Place = tuple[str, int]
"""A run of a node: its name and which visit it is."""


class Durations:
    """How long the completed executions of one workflow took, in seconds, and how long from each of its nodes on."""

    __slots__ = ("_looked", "_places", "_sorted", "_times")

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._times: deque[float] = deque(seconds, MOST)
        self._sorted: list[float] | None = None
        """Made when somebody asks."""
        self._places: dict[Place, deque[tuple[float, float]]] = {}
        """(seconds in the node, seconds from its beginning to the end of the execution)"""
        self._looked = 0
        """When nodes were looked at last, in nanoseconds of the monotonic clock."""

    def __len__(self) -> int:
        return len(self._times)

    def add(self, seconds: float) -> None:
        self._times.append(seconds)
        self._sorted = None

    def looks(self, now_ns: int) -> bool:
        """Whether the nodes of an execution that has completed now shall be noted."""
        if len(self._times) == MOST and now_ns - self._looked < PAUSE * 1e9:
            return False
        self._looked = now_ns
        return True

    def note(self, place: Place, inside: float, left: float) -> None:
        """A completed execution was so long in a run of a node, and so long from its beginning to the end."""
        known = self._places.get(place)
        if known is None:
            if len(self._places) >= MOST_PLACES:
                return
            known = self._places[place] = deque(maxlen=MOST)
        known.append((inside, left))

    def samples(self, place: Place) -> int:
        """How many executions have passed there."""
        return len(self._places.get(place, ()))

    def left(self, elapsed: float) -> tuple[float, float] | None:
        """(p50, p90) of the seconds left after `elapsed`, from those that took longer; None when none did."""
        if self._sorted is None:
            self._sorted = sorted(self._times)
        longer = self._sorted[bisect_right(self._sorted, elapsed) :]
        return _quantiles([one - elapsed for one in longer])

    def left_at(self, place: Place, elapsed: float) -> tuple[float, float] | None:
        """The same of one that has been so long in a run of a node, from those that were there for longer."""
        return _quantiles(sorted(left - elapsed for inside, left in self._places[place] if inside > elapsed))


def _quantiles(ordered: Sequence[float]) -> tuple[float, float] | None:
    """p50 and p90 by the nearest rank."""
    if not ordered:
        return None
    return ordered[(len(ordered) - 1) // 2], ordered[-(-9 * len(ordered) // 10) - 1]


def estimate(
    known: Durations | None, elapsed: float, *, loops: bool, places: Sequence[tuple[Place, float]] = ()
) -> dict[str, Any]:
    """The `estimate` of a document: p50_seconds_left, p90_seconds_left, samples, reason (why there is none).

    `places` are the runs of nodes that are going on, and for how long: where enough executions have passed there, they
    tell more than those that went other ways. Of branches the one that takes longest counts.
    """
    samples = 0 if known is None else len(known)
    reason = None
    left = None
    if loops:
        reason = "The workflow has a loop, which may go round any number of times"
    elif known is None or samples < LEAST:
        reason = f"Fewer than {LEAST} executions of this version have completed"
    else:
        passed = [(place, inside) for place, inside in places if known.samples(place) >= LEAST]
        if passed and len(passed) == len(places):
            samples = min(known.samples(place) for place, _ in passed)
            found = [known.left_at(place, inside) for place, inside in passed]
            left = max(one for one in found if one is not None) if all(found) else None
        else:
            left = known.left(elapsed)
        if left is None:
            reason = "It has taken longer than any before"
    p50, p90 = (None, None) if left is None else (round(left[0], 6), round(left[1], 6))
    return {"p50_seconds_left": p50, "p90_seconds_left": p90, "samples": samples, "reason": reason}
