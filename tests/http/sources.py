"""Fixtures: workflow files on disk, and a service that serves them."""

from __future__ import annotations

from pathlib import Path

import pytest
from faces import FILES, everyone, everything, host_context

from agentmap_asgi import AgentMapService


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of workflow files, read-only."""
    path = tmp_path_factory.mktemp("sources")
    for name, text in FILES.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def service(folder: Path) -> AgentMapService:
    return AgentMapService(everything(folder), context=host_context(), source=folder)


@pytest.fixture
def granted(folder: Path) -> AgentMapService:
    """The same, where callers may do everything: read the audit log, too."""
    return AgentMapService(everything(folder), context=host_context(authorize=everyone), source=folder)
