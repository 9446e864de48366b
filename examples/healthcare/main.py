"""A platform for health data: every access is written down, and no name leaves in the clear."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from phi import sealed, without_identifiers
from pydantic import BaseModel

from agentmap_asgi import AgentMapContext
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.services.fastapi import AgentMapService, include_agentmap_routes

ROLES = {"dora": "healthcare_provider", "vera": "healthcare_provider", "ada": "patient"}
AUDITORS = {"vera"}


def get_current_user(x_user: Annotated[str, Header()]) -> str:
    if x_user not in ROLES:
        raise HTTPException(401)
    return x_user


def require_role(role: str) -> Callable[[str], str]:
    def check(user: Annotated[str, Depends(get_current_user)]) -> str:
        if ROLES[user] != role:
            raise HTTPException(403)
        return user

    return check


class ComplianceAgentMapService(AgentMapService):
    async def execute_workflow(
        self, graph_name: str, initial_state: dict[str, Any], context: Any = None
    ) -> dict[str, Any]:
        """Workflows need no identifiers, so they get none: neither the state nor the store ever holds them."""
        return await super().execute_workflow(graph_name, without_identifiers(initial_state), context)

    async def filter_response(self, document: dict[str, Any], request_context: dict[str, Any]) -> dict[str, Any]:
        """Every document passes here on its way out over HTTP. A middleware only sees a stream of bytes."""
        return sealed(document)


def may(who: str, operation: str, workflow: str | None, execution: str | None = None) -> bool:
    """Without an `authorize` nobody could read the audit log over HTTP."""
    return operation != "audit" or who in AUDITORS


class Appointment(BaseModel):
    patient_id: int
    patient_name: str
    type: str


app = FastAPI(title="Healthcare Platform")
agentmap_service = ComplianceAgentMapService(
    AgentMapConfig(
        csv_path=Path(__file__).parent / "workflows.csv", audit_path=os.environ.get("AUDIT_PATH", "audit.jsonl")
    ),
    context=AgentMapContext(authorize=may),
)
include_agentmap_routes(
    app,
    prefix="/care/workflows",
    service=agentmap_service,
    principal=Depends(require_role("healthcare_provider")),
    enable_audit_logging=True,
)


@app.post("/appointments")
async def schedule_appointment(
    appointment: Appointment, user: Annotated[str, Depends(get_current_user)]
) -> dict[str, Any]:
    care_plan = await agentmap_service.execute_workflow(
        "PatientCareCoordination", appointment.model_dump(), {"principal": user}
    )
    return {"care_plan": care_plan["result"]["plan"]}
