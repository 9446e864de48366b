"""What is noted about a service while it works: its audit log, its metrics, and a line in the log for each end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from .. import logs
from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..execution.document import document
from ..execution.executor import Run
from ..workflows.catalogue import Changes
from ..workflows.model import Workflow
from .audit import Audit, digest, owner, trace_id
from .metrics import Metrics

logger = logging.getLogger(logs.LOGGERS[0])

UNNOTED: Final = ("health", "ready", "metrics", "door", "ui", "ui_file", "docs")
"""What the audit log leaves out: operations that monitors call all the time, and the files of the page."""


class Instruments:
    """The audit log and the metrics of a service, each None unless the settings enable it. Raises ConfigError."""

    def __init__(self, config: AgentMapConfig, context: AgentMapContext) -> None:
        self._config = config
        self._context = context
        self.metrics = Metrics() if config.enable_metrics else None
        self.audit: Audit | None = None
        self._doors: WeakKeyDictionary[Run, tuple[str, str | None]] = WeakKeyDictionary()
        if config.enable_audit_logging:
            self.open_audit()

    @property
    def on(self) -> bool:
        return self.audit is not None or self.metrics is not None

    def open_audit(self) -> None:
        """Keep the audit log from now on. Raises ConfigError when its file cannot be opened."""
        if self.audit is None:
            self.audit = Audit(self._config.audit_path, self._context.clock)

    def started(self, run: Run, values: dict[str, Any], door: str, client: str | None) -> None:
        """An execution was accepted."""
        if self.audit is not None:
            self._doors[run] = (door, client)
            workflow = run.plan.workflow
            self.audit.note(
                "started",
                door=door,
                operation="execute_workflow",
                workflow=workflow.graph_id,
                definition=workflow.version,
                execution_id=run.id,
                principal=owner(run.context),
                client=client,
                request_id=run.context.get("request_id"),
                trace_id=trace_id(run.context),
                input_sha256=digest(values),
            )

    def ended(self, run: Run, known: Callable[[Workflow], bool]) -> None:
        """An execution has ended. `known` says whether a workflow is still there."""
        if logger.isEnabledFor(logging.DEBUG):
            request_id = run.context.get("request_id")
            logger.debug("%s: %s is %s (request id %s)", run.id, run.plan.workflow.graph_id, run.status, request_id)
        if self.metrics is not None:
            self.metrics.ended(run, known(run.plan.workflow))
        if self.audit is not None:
            door, client = self._doors.pop(run, (None, None))
            found = document(run)
            self.audit.note(
                "ended",
                door=door,
                operation="execute_workflow",
                workflow=run.plan.workflow.graph_id,
                execution_id=run.id,
                principal=owner(run.context),
                client=client,
                request_id=run.context.get("request_id"),
                trace_id=trace_id(run.context),
                execution_status=found["status"],
                code=(found["error"] or {}).get("code"),
                seconds=found["execution_time"],
                result_sha256=digest(found["result"]),
            )

    def refused(self, door: str, code: str, **facts: Any) -> None:
        """An execution was not accepted."""
        if self.audit is not None:
            self.audit.note("refused", door=door, operation="execute_workflow", code=code, **facts)

    def answered(self, operation: str | None, status: int, **facts: Any) -> None:
        """A request has its answer."""
        if self.metrics is not None:
            self.metrics.answered(operation or "none", status)
        if self.audit is not None and operation not in UNNOTED:
            self.audit.note("request", door="http", operation=operation, status=status, **facts)

    def reloaded(self, changes: Changes) -> None:
        """The workflow files were read again."""
        moved = bool(changes.changed or changes.added or changes.removed)
        if self.metrics is not None:
            self.metrics.reloaded("changed" if moved else "unchanged", changes.removed)
        if self.audit is not None and moved:
            self.audit.note(
                "reloaded", operation="reload", changed=changes.changed, added=changes.added, removed=changes.removed
            )
        if moved:
            logger.info(
                "Workflow files were read again: %d workflows changed, %d added, %d removed",
                len(changes.changed), len(changes.added), len(changes.removed),
            )  # fmt: skip
