"""When an execution will be done: from how long those before it took. Honest about not knowing."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

LEAST: Final = 3
"""Samples without which nothing is said."""
MOST: Final = 200
"""Newest samples that count."""


class Durations:
    """How long the completed executions of one workflow took, in seconds."""

    __slots__ = ("_sorted", "_times")

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._times: deque[float] = deque(seconds, MOST)
        self._sorted: list[float] | None = None
        """Made when somebody asks."""

    def __len__(self) -> int:
        return len(self._times)

    def add(self, seconds: float) -> None:
        self._times.append(seconds)
        self._sorted = None

    def left(self, elapsed: float) -> tuple[float, float] | None:
        """(p50, p90) of the seconds left after `elapsed`, from those that took longer; None when none did.

        Quantiles by the nearest rank.
        """
        if self._sorted is None:
            self._sorted = sorted(self._times)
        longer = self._sorted[bisect_right(self._sorted, elapsed) :]
        if not longer:
            return None
        return longer[(len(longer) - 1) // 2] - elapsed, longer[-(-9 * len(longer) // 10) - 1] - elapsed


def estimate(known: Durations | None, elapsed: float, *, loops: bool) -> dict[str, Any]:
    """The `estimate` of a document: p50_seconds_left, p90_seconds_left, samples, reason (why there is none)."""
    samples = 0 if known is None else len(known)
    reason = None
    left = None
    if loops:
        reason = "The workflow has a loop, which may go round any number of times"
    elif known is None or samples < LEAST:
        reason = f"Fewer than {LEAST} executions of this version have completed"
    else:
        left = known.left(elapsed)
        if left is None:
            reason = "It has taken longer than any before"
    p50, p90 = (None, None) if left is None else (round(left[0], 6), round(left[1], 6))
    return {"p50_seconds_left": p50, "p90_seconds_left": p90, "samples": samples, "reason": reason}
