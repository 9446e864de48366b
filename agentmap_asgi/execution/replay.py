"""Bringing a run back from its entries: the walk is walked again, with the results that the nodes had.

Nothing is run. The walker is deterministic, so a run that is brought back stands where it stood, whichever order its
nodes had finished in. Entries come from a file that anybody may have changed: what does not fit raises
StoreDamaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..errors import NodeFailure, StoreDamaged
from ..stores.store import Entry
from .records import (
    BEGAN,
    ENDED,
    FINISHED,
    ITEM,
    NODELESS,
    PATCHED,
    RAN,
    RESUMED,
    RETRIED,
    STARTED,
    SUSPENDED,
    Finish,
    width,
)
from .usage import add, less
from .values import copied
from .waits import Answer
from .walker import Token

Run = Any
"""An `executor.Run`, which imports this module."""


def replayed(run: Run, entries: Iterable[Entry]) -> None:
    """Bring back a sub-workflow from the entries of its path, and let it go on from there.

    Nothing goes on in one that has ended, or that waits for answers only.
    """
    ready = restore(run, entries)
    if run.status == "running":
        run.extend_deadline()
        run.go_on(ready)


def restore(run: Run, entries: Iterable[Entry]) -> list[Token]:
    """The same without going on: the tokens that can run. Raises StoreDamaged for entries that do not fit."""
    try:
        return _Replay(run).through(entries)
    except (ValueError, KeyError, TypeError, IndexError, NodeFailure, RecursionError) as exc:
        raise StoreDamaged(run.root.id, "its entries do not fit each other") from exc


class _Replay:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.offset = run.wall_offset
        self.running: dict[tuple[int, int], Token] = {}
        self.begun: set[tuple[int, int]] = set()
        self.waits: dict[tuple[int, int], dict[str, Any]] = {}

    def through(self, entries: Iterable[Entry]) -> list[Token]:
        run = self.run
        self._place([run._walker.start(run.result)])
        run.status = "running"
        last = 1
        for _, sequence, text in entries:
            kind, name, visit, began, ended, *data = json.loads(text)
            at = 0 if kind in NODELESS else run.plan.index[name]
            self._one(sequence, kind, at, visit, began - self.offset, ended - self.offset, data)
            last = sequence + width(kind) - 1
        run.sequence = last + 1
        run.kept = len(run.records)
        if self.begun:
            run.own().begun = self.begun
        for key, wait in self.waits.items():
            if key in self.running:
                run.waits_at(self.running.pop(key), wait)
        return list(self.running.values())

    def _one(self, sequence: int, kind: int, at: int, visit: int, began: int, ended: int, data: list[Any]) -> None:
        run = self.run
        key = (at, visit)
        kept: Any = data[0] if data else None
        if kind in (RAN, FINISHED):
            kept = self._finished(kind, key, *data)
        elif kind == STARTED:
            if run.parent is not None:
                run.started_ns = began
        elif kind == ENDED:
            status, error = kept = (data[0], data[1])
            self._end(status, error, ended)
        elif kind == BEGAN:
            self._begin(key)
        elif kind == RETRIED:
            kept = tuple(data)
            run.own().attempts[key] = data[0] + 1
        elif kind == ITEM:
            index, value, error, *usage = kept = tuple(data)
            run.own().items.setdefault(key, {})[index] = (value, error)
            for used in usage:
                run.used(used)
                add(run.own().spent.setdefault((at, visit, None), {}), used)
        elif kind == SUSPENDED:
            if self._own(kept, key):
                self._begin(key)
                self.waits[key] = kept
        elif kind == RESUMED:
            if self._own(kept, key):
                run.answered(self.running[key], self.waits.pop(key), Answer(kept["action"], kept["data"], kept["by"]))
        elif kind == PATCHED:
            self.running[key].write(copied(kept))
        run.records.append((sequence, kind, at, visit, began, ended, kept))

    def _own(self, data: dict[str, Any], key: tuple[int, int]) -> bool:
        """Whether a wait is of a node of this run, and not of a sub-workflow's."""
        step = f"{self.run.plan.nodes[key[0]].name}#{key[1]}"
        return bool(data["path"] == (f"{self.run.path}/{step}" if self.run.path else step))

    def _begin(self, key: tuple[int, int]) -> None:
        if key not in self.begun:
            self.begun.add(key)
            self._count()

    def _count(self) -> None:
        self.run.steps += 1
        self.run.root.counted += 1

    def _finished(
        self, kind: int, key: tuple[int, int], delta: dict[str, Any], flag: bool, names: list[str], attempt: int,
        error: dict[str, Any] | None, parked: bool, usage: dict[str, int] | None = None,
    ) -> Finish:  # fmt: skip
        run = self.run
        token = self.running.pop(key)
        if kind == RAN:
            self._count()
        self.begun.discard(key)
        run.extra.items.pop(key, None)
        run.extra.attempts.pop(key, None)
        items = run.extra.spent.pop((*key, None), {}) if run.extra.spent else {}
        if usage:
            run.used(less(usage, items))
        targets = tuple(run.plan.index[name] for name in names)
        token.flag = flag
        if error is None:
            token.write(copied(delta))
        else:
            token.note_error(run.plan.nodes[key[0]].name, error["message"])
        finish = Finish(delta, flag, targets, attempt, error, parked, usage)
        if parked:
            token.failure = error
            run._walker.park(token)
        else:
            self._place(run._walker.complete(token, targets))
        return finish

    def _place(self, tokens: list[Token]) -> None:
        for token in tokens:
            self.running[token.at, token.visit] = token

    def _end(self, status: str, error: dict[str, Any] | None, ended: int) -> None:
        run = self.run
        run.status, run.error, run.ended_ns = status, error, ended
        run.result = run._walker.result(self.running.values()) if self.running or _merged(run) else run.result
        self.running.clear()
        self.waits.clear()
        run.settled = True


def _merged(run: Run) -> bool:
    walker = run._walker
    return walker.ended is not None or bool(walker.parked or walker.waiting)
