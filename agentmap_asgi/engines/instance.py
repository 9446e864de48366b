"""The one DBOS instance of a process: the host's own when it has one, else ours. Nothing else here knows of it.

DBOS keeps its instance and its registered functions for the whole process, so what is registered is one function, and
which engine it belongs to is told by the namespace among its arguments.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from string import ascii_lowercase, digits
from typing import Any, Final

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, WorkflowSerializationFormat

from ..errors import StoreUnusable

logger = logging.getLogger("agentmap_asgi.execution")

PROTOCOL: Final = 1
"""Of our workflow: its arguments, its steps and what they return. Processes with another one leave it alone."""
WORKFLOW: Final = "agentmap_asgi.segment"

NOTICING: Final[dict[str, Any]] = {
    "application_name": "agentmap-asgi-dbos",
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""A server that is gone without a word is noticed after about fifteen seconds."""

_PLAIN: Final = frozenset(f"{ascii_lowercase}{digits}-")

Segment = Callable[[str, int, str], Awaitable[str]]
"""What runs a segment: (execution id, fence, workflow id) -> status."""

_segments: dict[str, Segment] = {}
"""By namespace. Of the process, as DBOS's own registry is."""
_lock = threading.Lock()
_ours: list[str] = []
"""The namespace that an instance of ours is for."""


@DBOS.workflow(
    name=WORKFLOW,
    max_recovery_attempts=None,  # `max_recoveries` counts
    serialization_type=WorkflowSerializationFormat.PORTABLE,
)
async def segment(namespace: str, execution_id: str, fence: int) -> str:
    """An execution from where it stands to where it ends, or only waits for answers."""
    run = _segments.get(namespace)
    if run is None:  # it is stopping, or starting: whoever has the execution next goes on with it
        raise asyncio.CancelledError
    workflow_id = DBOS.workflow_id
    assert workflow_id is not None  # noqa: S101
    return await run(execution_id, fence, workflow_id)


def acquire(url: str, namespace: str, executor: str, listens: bool, lease: float, run: Segment) -> bool:
    """Have DBOS running, with `run` for the segments of a namespace. Blocks. True when the instance is ours.

    After `lease` seconds a process that stands still holds no rows any more that others wait for.

    Raises StoreUnusable when DBOS cannot use the database, or the process has an instance of ours for another one.
    """
    with _lock:
        if namespace in _segments:
            raise StoreUnusable(
                f"This process runs the namespace {namespace!r} on DBOS already, on another event loop or in another "
                "app; give this app a namespace of its own"
            )
        if _ours:
            raise StoreUnusable(
                f"DBOS has one instance in a process, and this process has it for the namespace {_ours[0]!r}; run "
                f"{namespace!r} in another process, or make DBOS(config=…) yourself, which both share"
            )
        _segments[namespace] = run  # it may be given something as soon as DBOS runs
        try:
            mine = _launched(url, namespace, executor, listens, lease)
        except BaseException as exc:
            del _segments[namespace]
            if not isinstance(exc, Exception):
                raise
            raise StoreUnusable(f"DBOS cannot use its database: {type(exc).__name__}: {exc}") from exc
        if mine:
            _ours.append(namespace)
        return mine


def _launched(url: str, namespace: str, executor: str, listens: bool, lease: float) -> bool:
    config: DBOSConfig = {
        "name": application(namespace),
        "system_database_url": url,
        "application_version": f"{application(namespace)}-{PROTOCOL}",
        "executor_id": executor,
        "serializer": DBOSPortableJSONSerializer(),
        "sys_db_idle_transaction_timeout_sec": lease,
        "db_engine_kwargs": {"connect_args": {n: v for n, v in NOTICING.items() if f"{n}=" not in url}},
        "log_level": "CRITICAL",  # what matters to executions is said by the engine
        "console_log_level": "CRITICAL",
    }
    instance: Any = DBOS(config=config)  # gives the one that is there
    mine = bool(executor == DBOS.executor_id)
    if not mine:
        if not instance._launched:
            DBOS.launch()
        return False
    try:
        if not listens:
            DBOS.listen_queues([])
        DBOS.launch()
    except BaseException:
        DBOS.destroy()
        raise
    return True


def application(namespace: str) -> str:
    """A namespace as the name of an application of DBOS, which has lower-case letters, digits, `-` and `_` only."""
    plain = (one if one in _PLAIN else f"_{one.encode().hex()}_" for one in namespace)
    return f"agentmap-{''.join(plain)}"[:256]


def release(namespace: str, mine: bool) -> None:
    """Let go of DBOS. Blocks until an instance of ours has ended."""
    with _lock:
        _segments.pop(namespace, None)
        if mine:
            _ours.remove(namespace)
            DBOS.destroy()
