"""Executions kept in memory, for as long as the process lives. What is written is read when somebody asks for it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from .store import (
    FINISHED,
    GOING,
    MOST_VERSIONS,
    Batch,
    Bell,
    Command,
    Entry,
    Filter,
    Hourglass,
    Row,
    Runner,
    Served,
    Start,
    Version,
    chosen,
)

T = TypeVar("T")
logger = logging.getLogger("agentmap_asgi.stores")


MOST_NOTED: Final = 1_000
"""So many versions wait until they are looked at."""


class _Given(Generic[T]):
    """An answer that is there already. Unlike a future it needs no event loop, and may be awaited again and again."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, T]:
        return self._value
        yield


_CREATED: _Given[Row | None] = _Given(None)
_WRITTEN: _Given[bool] = _Given(True)
_REFUSED: _Given[bool] = _Given(False)
_NOTED: _Given[None] = _Given(None)


class _TransientRunner:
    __slots__ = ("id", "live")

    def __init__(self, number: int) -> None:
        self.id = f"runner-{number}"
        self.live = True

    def close(self) -> None:
        self.live = False


def _entries(given: Start | Batch) -> list[Entry]:
    return [entry for lines in given.lines() for entry in lines.entries()]


_NO_NUMBERS: Final[frozenset[int]] = frozenset()


class _Record:
    """One execution: how it began, what was written since, and how much of that has been read."""

    __slots__ = ("_broken", "_changed", "_entries", "_listed", "_row", "batches", "fence", "namespace", "start")

    def __init__(self, start: Start, namespace: str) -> None:
        self.start = start
        self.namespace = namespace
        self.batches: list[Batch] = []
        self.fence: int | None = None
        """None until somebody claims it: before that only its creator can write."""
        self._row: Row | None = None
        self._changed = 0
        self._entries: list[Entry] | None = None
        self._listed = 0
        self._broken: AbstractSet[int] = _NO_NUMBERS
        """Numbers of batches that could not be read: they count as not written."""

    def row(self) -> Row:
        if self._row is None:
            self._row = replace(self.start.row(), namespace=self.namespace)
        while self._changed < len(self.batches):
            number = self._changed
            self._changed += 1
            if number in self._broken:
                continue
            try:
                changes = self.batches[number].changes()
            except Exception:
                self._lose(number)
                continue
            for name, value in changes.items():
                setattr(self._row, name, value)
        return self._row

    def entries(self) -> list[Entry]:
        if self._entries is None:
            self._entries = sorted(_entries(self.start))
        if self._listed < len(self.batches):
            while self._listed < len(self.batches):
                number = self._listed
                self._listed += 1
                if number in self._broken:
                    continue
                try:
                    self._entries += _entries(self.batches[number])
                except Exception:
                    self._lose(number)
            self._entries.sort()
        return self._entries

    def pins(self, definition: str) -> Iterator[str]:
        for pins in (self.start.pins(), *(batch.pins() for batch in self.batches)):
            if definition in pins:
                yield pins[definition]

    def _lose(self, number: int) -> None:
        self._broken |= {number}
        logger.exception("What was written of execution %s cannot be read", self.start.id)


@dataclass(slots=True, eq=False, repr=False)
class _Question:
    execution: str
    kind: str
    payload: str
    outcome: str | None = None


class _Noted:
    """A version as its text, so that the workflow it came from may go."""

    __slots__ = ("_text", "definition", "graph_id", "since")

    def __init__(self, served: Served) -> None:
        self.graph_id = served.graph_id
        self.definition = served.definition
        self.since = served.since
        self._text = served.text()

    def text(self) -> str:
        return self._text


class TransientStore:
    """All unfinished executions and the newest `keep` finished ones."""

    durable = False
    shared = False
    look = 0.2
    deaths = 0

    def __init__(self, namespace: str = "", keep: int = 1_000) -> None:
        self.namespace = namespace
        self._keep = keep
        self._records: dict[str, _Record] = {}
        self._keys: dict[str, str] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()
        """Ids, in the order in which they ended. The first of a plain dict is hard to find when many were taken out."""
        self._runners: dict[str, _TransientRunner] = {}
        self._made = 0
        self._questions: dict[int, _Question] = {}
        self._asked = 0
        self._generation = 0
        self._versions: dict[str, list[Served]] = {}
        """Of each workflow, the oldest first."""
        self._noted: list[Served] = []
        """What nobody has asked about yet, so that it is not looked at."""

    def __len__(self) -> int:
        return len(self._records)

    async def open(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def create(self, start: Start) -> _Given[Row | None]:
        identity, key = start.id, start.key
        if identity in self._records:
            return _Given(_copy(self._records[identity].row()))
        if key is not None:
            if key in self._keys:
                return _Given(_copy(self._records[self._keys[key]].row()))
            self._keys[key] = identity
        self._records[identity] = _Record(start, self.namespace)
        return _CREATED

    def append(self, batch: Batch) -> _Given[bool]:
        record = self._records.get(batch.id)
        if record is None or (record.fence is not None and record.fence != batch.fence):
            return _REFUSED
        record.batches.append(batch)
        status = batch.status
        if status is not None:
            self._turned(batch.id, status)
        return _WRITTEN

    def _turned(self, identity: str, status: str) -> None:
        finished = self._finished
        if status not in FINISHED:
            finished.pop(identity, None)
            return
        finished[identity] = None
        while len(finished) > self._keep:
            self._forget(next(iter(finished)))

    def _forget(self, identity: str) -> None:
        record = self._records.pop(identity)
        self._finished.pop(identity, None)
        if record.start.key is not None:
            del self._keys[record.start.key]
        if self._questions:
            for number in [n for n, question in self._questions.items() if question.execution == identity]:
                del self._questions[number]

    async def find(self, execution_id: str) -> Row | None:
        record = self._records.get(execution_id)
        return None if record is None else _copy(record.row())

    async def find_key(self, key: str) -> Row | None:
        identity = self._keys.get(key)
        return None if identity is None else await self.find(identity)

    async def entries(self, execution_id: str, *, after: int = 0, path: str | None = "") -> list[Entry]:
        record = self._records.get(execution_id)
        if record is None:
            return []
        return [e for e in record.entries() if e.sequence > after and (path is None or e.path == path)]

    def _rows(self) -> Iterator[Row]:
        return (record.row() for record in self._records.values())

    async def select(self, wanted: Filter) -> list[Row]:
        found = sorted((row for row in self._rows() if chosen(row, wanted)), key=_age, reverse=True)
        return _brief(found[: wanted.limit])

    async def claim(
        self, row: Row, runner: Runner, *, status: str = "running", attempt: int | None = None
    ) -> Row | None:
        record = self._records.get(row.id)
        if record is None:
            return None
        mine = record.row()
        if (mine.status, mine.runner, mine.fence) != (row.status, row.runner, row.fence):
            return None
        mine.status, mine.runner = status, runner.id
        mine.fence = record.fence = mine.fence + 1
        if attempt is not None:
            mine.attempt = attempt
        self._turned(row.id, status)
        return _copy(mine)

    async def stranded(self) -> list[Row]:
        return _brief(
            sorted(
                (
                    row
                    for row in self._rows()
                    if row.status in GOING and not (row.runner in self._runners and self._runners[row.runner].live)
                ),
                key=_age,
            )
        )

    async def due(self, now: int) -> list[Row]:
        waiting = [row for row in self._rows() if row.status == "suspended" and row.wake is not None]
        return _brief(
            sorted((row for row in waiting if (row.wake or 0) <= now), key=lambda row: (row.wake or 0, row.id))
        )

    async def pinned(self, definition: str) -> str | None:
        for found in (text for record in self._records.values() for text in record.pins(definition)):
            return found
        self._sort_versions()
        every = (one for versions in self._versions.values() for one in versions)
        return next((one.text() for one in every if one.definition == definition), None)

    def note(self, served: Sequence[Served]) -> _Given[None]:
        self._noted += served
        if len(self._noted) > MOST_NOTED:
            self._sort_versions()
        return _NOTED

    def _sort_versions(self) -> None:
        for one in self._noted:
            known = self._versions.setdefault(one.graph_id, [])
            if not known or known[-1].definition != one.definition:
                known.append(_Noted(one))
                del known[:-MOST_VERSIONS]
        self._noted = []

    async def versions(self, graph_id: str) -> list[Version]:
        self._sort_versions()
        return [Version(one.definition, one.since) for one in reversed(self._versions.get(graph_id, ()))]

    async def delete(self, execution_id: str) -> bool:
        record = self._records.get(execution_id)
        if record is None or record.row().status not in FINISHED:
            return False
        self._forget(execution_id)
        return True

    async def prune(self, before: int, now: int, limit: int = 500) -> int:
        ended = [row for row in self._rows() if row.status in FINISHED and row.ended is not None and row.ended < before]
        ended.sort(key=lambda row: (row.ended or 0, row.id))
        for row in ended[:limit]:
            self._forget(row.id)
        return len(ended[:limit])

    async def durations(self, graph_id: str, limit: int = 200) -> Sequence[tuple[str, int, int]]:
        rows = [row for row in self._rows() if row.graph_id == graph_id and row.status == "completed"]
        rows.sort(key=_age, reverse=True)
        timed = [(r.definition, r.started, r.ended) for r in rows if r.started is not None and r.ended is not None]
        return timed[:limit]

    def runner(self) -> Runner:
        for dead in [identity for identity, runner in self._runners.items() if not runner.live]:
            del self._runners[dead]
        self._made += 1
        runner = _TransientRunner(self._made)
        self._runners[runner.id] = runner
        return runner

    async def ask(self, execution_id: str, kind: str, payload: str) -> int:
        self._asked += 1
        self._questions[self._asked] = _Question(execution_id, kind, payload)
        return self._asked

    async def asked(self, runner: Runner) -> list[Command]:
        found = []
        for number, question in self._questions.items():
            record = self._records.get(question.execution)
            if question.outcome is None and record is not None and record.row().runner == runner.id:
                found.append(Command(number, question.execution, question.kind, question.payload))
        return found

    async def answer(self, number: int, outcome: str) -> None:
        question = self._questions.get(number)
        if question is not None and question.outcome is None:
            question.outcome = outcome

    async def outcome(self, number: int) -> str | None:
        question = self._questions.get(number)
        if question is None or question.outcome is None:
            return None
        del self._questions[number]
        return question.outcome

    async def withdraw(self, number: int) -> bool:
        question = self._questions.get(number)
        if question is None or question.outcome is not None:
            return False
        del self._questions[number]
        return True

    def bell(self, topic: str) -> Bell:
        return Hourglass()

    async def generation(self, *, bump: bool = False) -> int:
        self._generation += bump
        return self._generation


def _age(row: Row) -> tuple[int, str]:
    return row.created, row.id


def _copy(row: Row) -> Row:
    return replace(row)


def _brief(rows: Iterable[Row]) -> list[Row]:
    return [replace(row, head="{}", document=None) for row in rows]
