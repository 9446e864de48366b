"""CSV workflows as an ASGI app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agents.options import Option
    from .agents.registry import Call, agent
    from .app import AgentMapApp, create_app
    from .config import AgentMapConfig
    from .context import AgentMapContext
    from .errors import AgentMapError
    from .execution.waits import Suspend
    from .services.agentmap import AgentMapService
    from .services.fastapi import include_agentmap_routes
    from .services.migration import MigrationHelper
    from .services.mounting import combine_lifespans, mount_agentmap

__version__ = "0.1.0"

__all__ = [
    "AgentMapApp",
    "AgentMapConfig",
    "AgentMapContext",
    "AgentMapError",
    "AgentMapService",
    "Call",
    "MigrationHelper",
    "Option",
    "Suspend",
    "agent",
    "combine_lifespans",
    "create_app",
    "include_agentmap_routes",
    "mount_agentmap",
]

# Names are imported when they are asked for: nobody pays for FastAPI, pydantic or Starlette who does not use them.
_HOMES = {
    "AgentMapApp": "app",
    "AgentMapConfig": "config",
    "AgentMapContext": "context",
    "AgentMapError": "errors",
    "AgentMapService": "services.agentmap",
    "Call": "agents.registry",
    "MigrationHelper": "services.migration",
    "Option": "agents.options",
    "Suspend": "execution.waits",
    "agent": "agents.registry",
    "combine_lifespans": "services.mounting",
    "create_app": "app",
    "include_agentmap_routes": "services.fastapi",
    "mount_agentmap": "services.mounting",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    thing = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "Any", "annotations"})
