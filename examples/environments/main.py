"""One program, other settings in each environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.services.fastapi import include_agentmap_routes

HERE = Path(__file__).parent


def get_agentmap_config(environment: str, **more: Any) -> AgentMapConfig:
    base: dict[str, Any] = {"csv_path": HERE / "workflows.csv", "custom_agents_path": HERE / "custom_agents", **more}
    match environment:
        case "development":
            return AgentMapConfig(**base, log_level="DEBUG", enable_hot_reload=True)
        case "staging":
            return AgentMapConfig(**base, log_level="INFO", enable_metrics=True)
        case "production":
            # Without a key nobody could call, so that is refused at the start. `agentmap-asgi keys new` makes them.
            return AgentMapConfig(
                **base,
                log_level="WARNING",
                enable_docs=False,
                enable_metrics=True,
                enable_audit_logging=True,
                require_api_key=True,
                api_keys=os.environ.get("AGENTMAP_API_KEYS", ""),
            )
    return AgentMapConfig(**base)


def create_app(environment: str, **more: Any) -> FastAPI:
    app = FastAPI()
    include_agentmap_routes(app, prefix="/workflows", config=get_agentmap_config(environment, **more))
    return app
