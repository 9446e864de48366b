"""Executions kept in memory, for as long as the process lives."""

from __future__ import annotations

from collections import OrderedDict

from ..execution.executor import Run


class MemoryStore:
    """All unfinished executions and the newest `keep` finished ones."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._runs: dict[str, Run] = {}
        self._finished: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        self._runs[run.id] = run

    def finish(self, run: Run) -> None:
        """Note that a run is terminal; the oldest finished one makes room."""
        self._finished[run.id] = None
        while len(self._finished) > self._keep:
            oldest, _ = self._finished.popitem(last=False)
            del self._runs[oldest]

    def find(self, execution_id: str) -> Run | None:
        return self._runs.get(execution_id)
