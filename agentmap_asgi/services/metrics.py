"""Numbers for Prometheus: what ran, how it ended, how long it took. No payloads, and labels whose values are few."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Final

from ..errors import ConfigError
from ..execution.executor import Run
from ..execution.records import FINISHED, RAN, Finish
from ..execution.runtime import Runtime

EXECUTION_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 3_600)
NODE_BUCKETS: Final = (0.00001, 0.0001, 0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
UNKNOWN: Final = "other"
"""The label of a workflow that has been removed while it ran."""


class Metrics:
    """The numbers of one service, in a registry of its own. Raises ConfigError without prometheus-client."""

    def __init__(self) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise ConfigError(
                "enable_metrics needs the package prometheus-client: pip install 'agentmap-asgi[metrics]'"
            ) from None
        self._prometheus = prometheus
        self.registry = registry = prometheus.CollectorRegistry()
        self._executions = prometheus.Counter(
            "agentmap_executions", "Executions that have ended", ("workflow", "status", "worker"), registry=registry
        )
        self._durations = prometheus.Histogram(
            "agentmap_execution_seconds",
            "From the start of an execution to its end",
            ("workflow", "worker"),
            registry=registry,
            buckets=EXECUTION_BUCKETS,
        )
        self._nodes = prometheus.Histogram(
            "agentmap_node_seconds",
            "Runs of nodes, all attempts together; nodes of sub-workflows are in the node that ran them",
            ("agent_type", "status", "worker"),
            registry=registry,
            buckets=NODE_BUCKETS,
        )
        self._requests = prometheus.Counter(
            "agentmap_requests", "HTTP requests", ("operation", "status", "worker"), registry=registry
        )
        self._reloads = prometheus.Counter(
            "agentmap_reloads", "Readings of the workflow files", ("outcome", "worker"), registry=registry
        )
        self._now = prometheus.Gauge(
            "agentmap_now", "What is going on: running, queued, threads", ("what", "worker"), registry=registry
        )
        self._workflows = prometheus.Gauge(
            "agentmap_workflows", "Workflows: ok, stale, broken", ("status", "worker"), registry=registry
        )

    def ended(self, run: Run, known: bool) -> None:
        """Count an execution that has ended. `known` says that its workflow is still there."""
        worker = str(os.getpid())
        workflow = run.plan.workflow.graph_id if known else UNKNOWN
        self._executions.labels(workflow, run.status, worker).inc()
        self._durations.labels(workflow, worker).observe((run.ended_ns - run.started_ns) / 1e9)
        nodes = run.plan.nodes
        series: dict[tuple[str, bool], Any] = {}
        for _, kind, number, _, began, ended, data in run.records:
            if kind in (RAN, FINISHED):
                failed = data.__class__ is Finish and data.error is not None
                key = (nodes[number].agent.name, failed)
                if key not in series:
                    series[key] = self._nodes.labels(key[0], "failed" if failed else "completed", worker)
                series[key].observe((ended - began) / 1e9)

    def answered(self, operation: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(operation, str(status), str(os.getpid())).inc()

    def reloaded(self, outcome: str, removed: Iterable[str] = ()) -> None:
        """Count a reading of the files, and forget the workflows that are gone."""
        self._reloads.labels(outcome, str(os.getpid())).inc()
        for graph_id in removed:
            self._executions.remove_by_labels({"workflow": graph_id})
            self._durations.remove_by_labels({"workflow": graph_id})

    def text(self, runtimes: Collection[Runtime], statuses: Iterable[str]) -> tuple[bytes, str]:
        """All numbers as Prometheus reads them, and the content type of that. `statuses` are those of the workflows."""
        worker = str(os.getpid())
        self._now.labels("running", worker).set(sum(len(runtime.running) for runtime in runtimes))
        self._now.labels("queued", worker).set(sum(runtime.queued for runtime in runtimes))
        self._now.labels("threads", worker).set(sum(runtime.threads.in_use for runtime in runtimes))
        found = Counter(statuses)
        for status in ("ok", "stale", "broken"):
            self._workflows.labels(status, worker).set(found[status])
        return self._prometheus.generate_latest(self.registry), self._prometheus.CONTENT_TYPE_LATEST
