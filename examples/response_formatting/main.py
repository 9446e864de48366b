"""Answers in the form that the rest of the API has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.services.fastapi import AgentMapService, include_agentmap_routes


class CustomAgentMapService(AgentMapService):
    async def format_execution_response(
        self, result: dict[str, Any], request_context: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "status": "success" if result["success"] else "error",
            "data": {name: result[name] for name in ("graph_name", "result", "execution_time", "nodes_executed")},
            "error": result["error"],
            "metadata": {
                "timestamp": request_context["timestamp"],
                "request_id": request_context["request_id"],
                "api_version": "v1",
            },
            "links": result["links"],  # they begin with the prefix, whatever it is
        }


app = FastAPI()
custom_service = CustomAgentMapService(AgentMapConfig(csv_path=Path(__file__).parent / "workflows.csv"))
include_agentmap_routes(app, prefix="/api/v1/workflows", service=custom_service)
