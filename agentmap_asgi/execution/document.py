"""The execution document: what callers, the status and the history are given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from ..stores.store import FINISHED, GOING, Row
from .host import Facts
from .plan import Plan
from .records import shown_wait, stamp
from .usage import shown as usage_shown
from .values import fresh
from .waits import Wait, waits_of


class Shown(Protocol):
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
    document: dict[str, Any] | None

    @property
    def open(self) -> Mapping[str, Wait]: ...

    attempt: int

    @property
    def facts(self) -> Facts: ...
    @property
    def current(self) -> list[str]: ...
    @property
    def usage(self) -> Mapping[str, int]: ...
    @property
    def done(self) -> int: ...


def document(run: Shown, *, shown: str | None = None, shared: bool = False) -> dict[str, Any]:
    """The document of a run that lives here, as plain JSON values of its own.

    `success` is true when completed, false when failed, cancelled or interrupted, and None before the end. `result` is
    the final state; for other ends, and while suspended, the state so far. Times are RFC 3339, `execution_time` is in
    seconds. `shown` is the status to show when the end is not kept yet. With `shared` the result is the run's own, for
    those who only write it down.
    """
    status = shown or run.status
    offset = run.wall_offset
    ended = 0 if shown else run.ended_ns
    still = ended or status == "suspended"
    started = stamp(run.started_ns + offset) if status != "queued" else None
    facts = run.facts
    found: dict[str, Any] = {
        "success": None if not ended else status == "completed",
        "status": status,
        "execution_id": run.id,
        "graph_name": run.plan.workflow.name,
        "graph_id": run.plan.workflow.graph_id,
        "result": (run.result.values if shared else fresh(run.result.values)) if still else None,
        "error": fresh(run.error) if ended and run.error is not None else None,
        "execution_time": (ended - run.started_ns) / 1e9 if ended else None,
        "nodes_executed": run.steps,
        "created_at": started if run.created_ns == run.started_ns else stamp(run.created_ns + offset),
        "started_at": started,
        "completed_at": stamp(ended + offset) if ended else None,
        "estimated_completion": None,
        "definition": run.plan.workflow.version,
        "owner": facts.owner,
        "tags": list(facts.tags),
        "attempt": run.attempt,
        "retry_of": facts.retry_of,
        "usage": usage_shown(usage) if (usage := run.usage) else {},
    }
    if not ended:
        found["progress"] = {"nodes_done": run.done, "current": run.current}
        found["waiting"] = [shown_wait(wait) for wait in run.open.values()]
        if status == "suspended":
            found |= _asked(found["waiting"], run.id)
    return found


def settled_document(run: Shown, *, shared: bool = False) -> dict[str, Any]:
    """The same of a run that has settled: from the one that was made to be written, when there is one."""
    found = run.document
    if found is None or not run.ended_ns:
        return document(run, shared=shared)
    error, usage = found["error"], found["usage"]
    return {
        **found,
        "result": found["result"] if shared else fresh(found["result"]),
        "error": fresh(error) if error else None,
        "tags": [*found["tags"]],
        "usage": fresh(usage) if usage else {},
    }


def _asked(waiting: list[dict[str, Any]], execution_id: str) -> dict[str, Any]:
    """The same under AgentMap's own names."""
    first = waiting[0] if waiting else {}
    return {
        "thread_id": execution_id,
        "interrupt_info": {"type": first.get("type"), "node": first.get("node"), "prompt": first.get("prompt")},
        "message": first.get("prompt") or "The execution waits for an answer",
    }


def stored_document(row: Row) -> dict[str, Any]:
    """The document of an execution that lives in a store only, or in another process."""
    if row.document is not None and row.status not in GOING:
        found: dict[str, Any] = json.loads(row.document)
        return found
    return listed(row)


def listed(row: Row) -> dict[str, Any]:
    """What a row tells without its document."""
    ended = row.ended if row.status in FINISHED else None
    return {
        "success": None if ended is None else row.status == "completed",
        "status": row.status,
        "execution_id": row.id,
        "graph_name": row.graph_name,
        "graph_id": row.graph_id,
        "result": None,
        "error": None,
        "execution_time": None if ended is None else (ended - (row.started or row.created)) / 1e9,
        "nodes_executed": row.steps,
        "created_at": stamp(row.created),
        "started_at": None if row.started is None else stamp(row.started),
        "completed_at": None if ended is None else stamp(ended),
        "estimated_completion": None,
        "definition": row.definition,
        "owner": row.owner,
        "tags": list(row.tags),
        "attempt": row.attempt,
        "retry_of": row.retry_of,
        "progress": {"nodes_done": row.steps, "current": []},
        "waiting": [shown_wait(wait) for wait in waits_of(row.id, row.waits)],
    }
