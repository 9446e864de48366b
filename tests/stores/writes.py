"""Starts and batches as a test wants them, and rows that differ in what is named only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentmap_asgi.stores.store import Entry, Lines, Row, lines_of


def row(identity: str, **columns: Any) -> Row:
    given: dict[str, Any] = {
        "namespace": "tests",
        "graph_id": "file::Graph",
        "graph_name": "Graph",
        "definition": "hash",
        "status": "running",
        "created": 1,
        "fence": 1,
    }
    return Row(id=identity, **{**given, **columns})


@dataclass
class FakeStart:
    made: Row
    given: Mapping[str, str] = field(default_factory=dict)
    fault: BaseException | None = None
    listed: Iterable[Entry] = ()

    @property
    def id(self) -> str:
        return self.made.id

    @property
    def key(self) -> str | None:
        return self.made.key

    def lines(self) -> Iterable[Lines]:
        return lines_of(self.listed)

    def row(self) -> Row:
        if self.fault is not None:
            raise self.fault
        return self.made

    def pins(self) -> Mapping[str, str]:
        return self.given


@dataclass
class FakeServed:
    definition: str
    since: int = 1
    graph_id: str = "file::Graph"

    def text(self) -> str:
        return f"text of {self.definition}"


@dataclass
class FakeBatch:
    id: str
    changed: Mapping[str, Any] = field(default_factory=dict)
    listed: Iterable[Entry] = ()
    fence: int = 1
    given: Mapping[str, str] = field(default_factory=dict)
    fault: BaseException | None = None

    @property
    def status(self) -> str | None:
        found: str | None = self.changed.get("status")
        return found

    def changes(self) -> Mapping[str, Any]:
        return self.changed

    def lines(self) -> Iterable[Lines]:
        if self.fault is not None:
            raise self.fault
        return lines_of(self.listed)

    def pins(self) -> Mapping[str, str]:
        return self.given


def start(identity: str, *, pins: Mapping[str, str] | None = None, **columns: Any) -> FakeStart:
    return FakeStart(row(identity, **columns), pins or {})


def batch(identity: str, *entries: tuple[str, int, str], fence: int = 1, **changes: Any) -> FakeBatch:
    return FakeBatch(identity, changes, [Entry(*one) for one in entries], fence)
