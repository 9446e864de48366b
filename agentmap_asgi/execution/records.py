"""What happened in an execution: one record a fact; how a store keeps records, and how they read as events.

A record is a tuple (sequence, kind, node number, visit, started, ended, data); times are monotonic nanoseconds. Records
are written in the walk and become something else only when somebody asks.

An entry is a record as JSON keeps it, an array: [kind, node, visit, started, ended, …] with the names of nodes and with
nanoseconds since 1970, so that it can be read without the workflow it came from. Events are made from entries, those of
a live execution too: what a stream shows does not depend on where it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from .plan import Plan
from .writing import dumps_each

STARTED: Final = 0
"""Data is None, or for a sub-workflow the content hash of its definition."""
RAN: Final = 1
"""A node that ran in the walk itself; stands for two events, `sequence` (started) and `sequence + 1` (finished)."""
BEGAN: Final = 2
FINISHED: Final = 3
RETRIED: Final = 4
ITEM: Final = 5
"""One item of a Map_Over; data is (index, value, error)."""
ENDED: Final = 6
SUSPENDED: Final = 7
"""A node waits; data is the wait as an object. In the execution's own records also for nodes of its sub-workflows."""
RESUMED: Final = 8
"""A wait has its answer, data, or has expired."""
RECOVERED: Final = 9
"""Another runner goes on after a crash; data is the attempt."""
PATCHED: Final = 10
"""A retry has changed the state that a node is about to see; data is what was written."""

Record = tuple[int, int, int, int, int, int, Any]
Entry = list[Any]
NODELESS: Final = (STARTED, ENDED, RECOVERED)


class Finish(NamedTuple):
    """How a node's run ended. For plain nodes a RAN record holds the bare value instead."""

    delta: dict[str, Any]
    flag: bool
    targets: tuple[int, ...]
    attempt: int = 1
    error: dict[str, Any] | None = None
    parked: bool = False
    """Nothing handles the error."""
    usage: dict[str, int] | None = None
    """What it used: tokens, requests, …"""


def stamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC, microseconds, from nanoseconds since 1970."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return "%s.%06dZ" % (_second(seconds), rest // 1000)  # noqa: UP031  # half the time of an f-string


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def width(kind: int) -> int:
    """How many events, and so numbers, a record stands for."""
    return 2 if kind == RAN else 1


def texts(plan: Plan, records: Sequence[Record], wall_offset: int) -> list[str]:
    """The entries of records, as JSON texts. `wall_offset` is what makes a monotonic time one since 1970."""
    nodes = plan.nodes
    entries: list[Entry] = []
    for _, kind, at, visit, started, ended, data in records:
        if kind == RAN and data.__class__ is not Finish:  # a plain node, as most are
            node = nodes[at]
            delta = {} if data is None or node.output is None else {node.output: data}
            entries.append([RAN, node.name, visit, started + wall_offset, ended + wall_offset, delta, True, node.leads,
                            1, None, False])  # fmt: skip
            continue
        name = None if kind in NODELESS else nodes[at].name
        entry: Entry = [kind, name, visit, started + wall_offset, ended + wall_offset]
        if kind in (RAN, FINISHED):
            targets = [nodes[target].name for target in data.targets]
            entry += [data.delta, data.flag, targets, data.attempt, data.error, data.parked]
            if data.usage:
                entry.append(data.usage)
        elif kind in (RETRIED, ITEM, ENDED):
            entry += data
        else:
            entry.append(data)
        entries.append(entry)
    return dumps_each(entries)


def events(plan: Plan, records: Sequence[Record], wall_offset: int) -> Iterator[dict[str, Any]]:
    """The records as events, in order; all values are copies."""
    for record, text in zip(records, texts(plan, records, wall_offset), strict=True):
        yield from events_of(record[0], text)


def events_of(sequence: int, text: str) -> Iterator[dict[str, Any]]:
    """The event, or two, that an entry stands for."""
    kind, node, visit, started, ended, *data = json.loads(text)
    place = {} if node is None else {"node": node, "visit": visit}

    def event(name: str, at: int, offset: int = 0, /, **more: Any) -> dict[str, Any]:
        return {"sequence": sequence + offset, "event": name, "at": stamp(at), **place, **more}

    if kind == STARTED:
        yield event("started", started)
    elif kind == ENDED:
        yield event(data[0], ended, error=data[1])
    elif kind == BEGAN:
        yield event("node_started", started, attempt=data[0])
    elif kind == RETRIED:
        yield event("node_retry", ended, attempt=data[0], error=data[1], delay_seconds=data[2])
    elif kind == ITEM:
        yield event("item_finished", ended, index=data[0], value=data[1], error=data[2], usage=dict(*data[3:]))
    elif kind == SUSPENDED:
        yield event("suspended", ended, waiting=shown_wait(data[0]))
    elif kind == RESUMED:
        yield event("resumed", ended, **{name: data[0].get(name) for name in ("path", "action", "by")})
    elif kind == RECOVERED:
        yield event("recovered", ended, attempt=data[0])
    elif kind == PATCHED:
        yield event("patched", ended, state_delta=data[0])
    else:
        delta, flag, targets, attempt, error, _, *usage = data
        if kind == RAN:
            yield event("node_started", started, attempt=1)
        yield event(
            "node_finished",
            ended,
            int(kind == RAN),
            status="failed" if error else "completed",
            duration_seconds=(ended - started) / 1e9,
            success=flag,
            state_delta=delta,
            edge_taken=targets,
            attempt=attempt,
            error=error,
            usage=usage[0] if usage else {},
        )


def shown_wait(wait: dict[str, Any]) -> dict[str, Any]:
    """A wait as callers see it."""
    shown = {name: wait[name] for name in ("path", "node", "type", "prompt", "options", "form", "assignees", "value")}
    expires = wait["expires"]
    return {**shown, "expires_at": None if expires is None else stamp(expires)}


def unspent(found: Entry) -> Entry:
    """An entry as it stands in a retry, which has not used again what the execution before it has used."""
    fields = {RAN: 11, FINISHED: 11, ITEM: 8}.get(found[0])
    return found[:fields]
