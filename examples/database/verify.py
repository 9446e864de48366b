"""Completed, failed and refused calls all have their row, over HTTP, in a batch and in this process."""

from __future__ import annotations

import asyncio
import os
import tempfile

FOLDER = tempfile.TemporaryDirectory()
os.environ["DATABASE_URL"] = f"sqlite:///{FOLDER.name}/executions.db"

from main import SessionLocal, WorkflowExecution, agentmap_service, app  # noqa: E402

from agentmap_asgi.testing import AgentMapClient  # noqa: E402


async def main() -> None:
    async with AgentMapClient(app) as http:
        greet = {"graph_name": "Greet", "initial_state": {"name": "Ada"}}
        assert (await http.post("/workflows/execute", json=greet)).json()["success"] is True
        items = [{"graph_name": "GreetAll", "initial_state": {"names": "no list"}}, {"graph_name": "Gone"}]
        await http.post("/workflows/execute/batch", json={"executions": items, "max_concurrency": 1})
        await agentmap_service.execute_workflow("Greet", {"name": "Bob"}, {"principal": "bob"})
        with SessionLocal() as session:
            rows = session.query(WorkflowExecution).order_by(WorkflowExecution.id).all()
        for row in rows:
            print(row.graph_name, row.status)
        assert [row.status for row in rows] == ["completed", "failed", "error", "completed"]
        assert [row.principal for row in rows] == [None, None, None, "bob"]
        assert all(row.completed_at >= row.started_at for row in rows if row.completed_at)


if __name__ == "__main__":
    with FOLDER:
        asyncio.run(main())
