"""Each call of a workflow is a row in the host's own table."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import JSON, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.services.fastapi import AgentMapService, include_agentmap_routes


class Base(DeclarativeBase):
    pass


class WorkflowExecution(Base):
    __tablename__ = "workflow_executions"
    id: Mapped[int] = mapped_column(primary_key=True)
    graph_name: Mapped[str]
    initial_state: Mapped[dict[str, Any]] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    status: Mapped[str]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    principal: Mapped[str | None]


class DatabaseIntegratedAgentMapService(AgentMapService):
    """Takes a sessionmaker. A `get_db` that yields is made for `Depends`; called by itself it gives no session."""

    def __init__(self, config: AgentMapConfig, sessions: sessionmaker[Session]) -> None:
        super().__init__(config)
        self._sessions = sessions

    async def execute_workflow(
        self, graph_name: str, initial_state: dict[str, Any], context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        who = (context or {}).get("principal")
        row = await to_thread.run_sync(self._begin, graph_name, initial_state, who)
        try:
            result = await super().execute_workflow(graph_name, initial_state, context)
        except Exception as exc:
            await to_thread.run_sync(self._end, row, "error", {"error": type(exc).__name__})
            raise
        await to_thread.run_sync(self._end, row, result["status"], result)
        return result

    def _begin(self, graph_name: str, initial_state: dict[str, Any], principal: str | None) -> int:
        with self._sessions.begin() as session:  # a short transaction: none is open while the workflow runs
            row = WorkflowExecution(
                graph_name=graph_name,
                initial_state=initial_state,
                status="running",
                started_at=datetime.now(UTC),
                principal=principal,
            )
            session.add(row)
            session.flush()
            return row.id

    def _end(self, number: int, status: str, result: dict[str, Any]) -> None:
        with self._sessions.begin() as session:
            row = session.get_one(WorkflowExecution, number)
            row.status, row.result, row.completed_at = status, result, datetime.now(UTC)


engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///executions.db"))
SessionLocal = sessionmaker(engine)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    Base.metadata.create_all(engine)
    yield
    engine.dispose()


app = FastAPI(lifespan=lifespan)
config = AgentMapConfig(csv_path=Path(__file__).parent / "workflows.csv")
agentmap_service = DatabaseIntegratedAgentMapService(config, SessionLocal)
include_agentmap_routes(app, prefix="/workflows", service=agentmap_service)
