"""What those who watch an execution are told at once, and nobody keeps: progress, log lines, pieces of a result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

MOST_EVENTS: Final = 256
"""Events that one reader may be behind; then the oldest are dropped."""
LONGEST: Final = 16 * 1024
"""Characters up to which pieces of one text that a reader has not taken yet are joined."""

PROGRESS: Final = "progress"
LOG: Final = "log"
TOKEN: Final = "token"  # noqa: S105  # the field's word for a piece of text

GAP: Final = "gap"
"""Events of this kind are missing here: the reader was too slow."""

Event = dict[str, Any]


class Listener:
    """The live events that one reader has not taken yet. `ring` is called when there is something new."""

    __slots__ = ("_events", "_gap", "_ring")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._events: deque[tuple[int, Event]] = deque()
        self._gap: tuple[int, Event] | None = None
        self._ring = ring

    def put(self, after: int, event: Event) -> None:
        """`after` is the number of the stored event that it comes after."""
        if event["event"] == TOKEN and self._events and _goes_on(self._events[-1][1], event):
            self._events[-1][1]["text"] += event["text"]
        else:
            self._events.append((after, dict(event)))
            if len(self._events) > MOST_EVENTS:
                self._lose(*self._events.popleft())
        self._ring()

    def _lose(self, after: int, event: Event) -> None:
        """The reader is told where something is missing, and how much."""
        before = 0 if self._gap is None else self._gap[1]["lost"]
        self._gap = after, {"sequence": None, "event": GAP, "at": event["at"], "lost": before + 1}

    def take(self) -> list[tuple[int, Event]]:
        found = list(self._events) if self._gap is None else [self._gap, *self._events]
        self._events.clear()
        self._gap = None
        return found


def _goes_on(before: Event, event: Event) -> bool:
    """Whether a piece of text follows the one before, so that a slow reader can have both as one."""
    return bool(
        before["event"] == TOKEN
        and before["path"] == event["path"]
        and before["attempt"] == event["attempt"]
        and before["offset"] + len(before["text"]) == event["offset"]
        and event["offset"] - before["offset"] < LONGEST
    )


def merged(stored: Iterable[Mapping[str, Any]], live: Iterable[tuple[int, Event]]) -> list[dict[str, Any]]:
    """Stored and live events in the order in which they happened."""
    rest = [dict(event) for event in stored]
    found: list[dict[str, Any]] = []
    at = 0
    for after, event in live:
        while at < len(rest) and rest[at]["sequence"] <= after:
            found.append(rest[at])
            at += 1
        found.append(event)
    return [*found, *rest[at:]]
