"""A dashboard that counts workflows by hooks, and runs reports after its answer was sent."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.services.fastapi import AgentMapService, include_agentmap_routes


class AnalyticsService:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def track_event(self, name: str, properties: dict[str, Any]) -> None:
        self.events.append({"event": name, "at": datetime.now(UTC), **properties})

    def get_real_time_metrics(self) -> dict[str, int]:
        return dict(Counter(event["event"] for event in self.events))


class AnalyticsAgentMapService(AgentMapService):
    """The hooks run once for each execution, however it was started: by a route, in a batch, in this process."""

    def __init__(self, config: AgentMapConfig, analytics_service: AnalyticsService) -> None:
        super().__init__(config)
        self.analytics = analytics_service

    async def pre_workflow_execution(
        self, graph_name: str, initial_state: dict[str, Any], context: dict[str, Any]
    ) -> None:
        self.analytics.track_event("workflow_started", {"workflow": graph_name, "user": context.get("principal")})

    async def post_workflow_execution(self, graph_name: str, result: dict[str, Any], context: dict[str, Any]) -> None:
        properties = {"workflow": graph_name, "user": context.get("principal"), "success": result["success"]}
        self.analytics.track_event("workflow_completed", {**properties, "duration": result["execution_time"]})


class Report(BaseModel):
    type: str
    date_range: str
    format: str = "pdf"


def require_admin_role(x_user: Annotated[str, Header()]) -> str:
    if not x_user.startswith("admin"):
        raise HTTPException(403)
    return x_user


app = FastAPI(title="Analytics Dashboard")
analytics_service = AnalyticsService()
config = AgentMapConfig(csv_path=Path(__file__).parent / "workflows.csv")
agentmap_service = AnalyticsAgentMapService(config, analytics_service)
include_agentmap_routes(app, prefix="/workflows", service=agentmap_service, principal=Depends(require_admin_role))


@app.get("/dashboard/metrics")
async def get_dashboard_metrics() -> dict[str, int]:
    return analytics_service.get_real_time_metrics()


@app.post("/reports/generate", status_code=202)
async def generate_report(
    report: Report, background: BackgroundTasks, user: Annotated[str, Depends(require_admin_role)]
) -> dict[str, str]:
    state = {"report_type": report.type, "date_range": report.date_range, "output_format": report.format}
    background.add_task(agentmap_service.execute_workflow, "ReportGeneration", state, {"principal": user})
    return {"message": "Report generation started", "status": "processing"}
