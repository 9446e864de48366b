"""Settings of engines that do not go together are refused, each with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flows import node, service

from agentmap_asgi.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "temporal"}, "The setting engine is one of local, dbos"),
        ({"engine": "dbos"}, "set storage_url to postgresql://"),
        ({"engine": "dbos", "storage_url": "sqlite:///x.db"}, "set storage_url to postgresql://"),
        ({"engine": "dbos", "engine_url": "postgresql://db/x"}, "set storage_url to postgresql://"),
        ({"engine_url": "postgresql://db/x"}, "The setting engine_url is for the engine dbos"),
        ({"max_running_everywhere": 5}, "The setting max_running_everywhere is for the engine dbos"),
        ({"run_executions": False}, "set engine to dbos, and start a worker"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigError, match=message):
        service(tmp_path, [node("A")], config=settings)
