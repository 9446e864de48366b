"""What happened in an execution: one record a fact, and how records read as events and documents.

A record is a tuple (sequence, kind, node number, visit, started, ended, data); times are monotonic nanoseconds.
Records are written in the walk and become dicts only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from .plan import Plan
from .values import copied

STARTED: Final = 0
RAN: Final = 1
"""A node that ran in the walk itself; stands for two events, `sequence` (started) and `sequence + 1` (finished)."""
BEGAN: Final = 2
FINISHED: Final = 3
RETRIED: Final = 4
ITEM: Final = 5
"""One item of a Map_Over; data is (index, value, error)."""
ENDED: Final = 6

Record = tuple[int, int, int, int, int, int, Any]


class Finish(NamedTuple):
    """How a node's run ended. For plain nodes a RAN record holds the bare value instead."""

    delta: dict[str, Any]
    flag: bool
    targets: tuple[int, ...]
    attempt: int = 1
    error: dict[str, Any] | None = None


def stamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC, microseconds, from nanoseconds since 1970."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def events(plan: Plan, records: Sequence[Record], wall_offset: int) -> Iterator[dict[str, Any]]:
    """The records as events, in order; all values are copies.

    `wall_offset` is what makes a monotonic time one since 1970.
    """
    for sequence, kind, number, visit, started, ended, data in records:
        node = plan.nodes[number] if kind not in (STARTED, ENDED) else None
        place = {} if node is None else {"node": node.name, "visit": visit}

        def event(name: str, at: int, offset: int = 0, /, **more: Any) -> dict[str, Any]:
            return {"sequence": sequence + offset, "event": name, "at": stamp(at + wall_offset), **place, **more}  # noqa: B023

        if kind == STARTED:
            yield event("started", started)
        elif kind == ENDED:
            status, error = data
            yield event(status, ended, error=copied(error))
        elif kind == BEGAN:
            yield event("node_started", started, attempt=data)
        elif kind == RETRIED:
            attempt, error, delay = data
            yield event("node_retry", ended, attempt=attempt, error=copied(error), delay_seconds=delay)
        elif kind == ITEM:
            index, value, error = data
            yield event("item_finished", ended, index=index, value=copied(value), error=copied(error))
        else:
            if kind == RAN:
                yield event("node_started", started, attempt=1)
            assert node is not None  # noqa: S101
            plain = data.__class__ is not Finish
            finish = Finish({node.output: data} if node.output else {}, True, ()) if plain else data
            yield event(
                "node_finished",
                ended,
                int(kind == RAN),
                status="failed" if finish.error else "completed",
                duration_seconds=(ended - started) / 1e9,
                success=finish.flag,
                state_delta=copied(finish.delta),
                edge_taken=[plan.nodes[target].name for target in finish.targets]
                if not plain
                else (
                    [plan.nodes[node.ok].name] if node.ok >= 0 else [plan.nodes[t].name for t in _fixed(node.success)]
                ),
                attempt=finish.attempt,
                error=copied(finish.error),
            )


def document(run: Ended) -> dict[str, Any]:
    """The execution document: what callers, the status and the history are given. Plain JSON values of its own.

    `success` is true when completed, false when failed or cancelled, and None before the end. `result` is the final
    state, or for a failed execution the state so far. Times are RFC 3339, `execution_time` is in seconds.
    """
    status = run.status
    offset = run.wall_offset
    ended = run.ended_ns
    started = stamp(run.started_ns + offset) if status != "queued" else None
    return {
        "success": None if not ended else status == "completed",
        "status": status,
        "execution_id": run.id,
        "graph_name": run.plan.workflow.name,
        "result": copied(run.result.values) if ended else None,
        "error": copied(run.error),
        "execution_time": (ended - run.started_ns) / 1e9 if ended else None,
        "nodes_executed": run.steps,
        "created_at": started if run.created_ns == run.started_ns else stamp(run.created_ns + offset),
        "started_at": started,
        "completed_at": stamp(ended + offset) if ended else None,
        "estimated_completion": None,
        "definition": run.plan.workflow.version,
        "owner": run.context.get("principal"),
    }


class Ended(Protocol):
    """What a document needs of a run."""

    id: str
    plan: Plan
    status: str
    error: dict[str, Any] | None
    result: Any
    steps: int
    created_ns: int
    started_ns: int
    ended_ns: int
    wall_offset: int
    context: Any


def _fixed(targets: Any) -> tuple[int, ...]:
    return targets if targets.__class__ is tuple else ()
