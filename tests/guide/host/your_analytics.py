"""A host's analytics: what happened, counted."""

from __future__ import annotations

from collections import Counter
from typing import Any


class AnalyticsService:
    """Events in the order in which they came."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def track_event(self, name: str, properties: dict[str, Any]) -> None:
        self.events.append((name, properties))

    def get_real_time_metrics(self) -> dict[str, int]:
        return dict(Counter(name for name, _ in self.events))


_service = AnalyticsService()


def get_analytics_service() -> AnalyticsService:
    """The one of this process, as a dependency and for everybody else."""
    return _service
