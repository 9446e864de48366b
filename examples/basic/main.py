"""An existing FastAPI application that gets workflows with one call. `uvicorn main:app` in this folder runs it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from agentmap_asgi.services.fastapi import include_agentmap_routes

app = FastAPI(title="My Application")


@app.get("/users/{user_id}")
async def get_user(user_id: int) -> dict[str, object]:
    return {"user_id": user_id, "name": "John Doe"}


include_agentmap_routes(app, prefix="/workflows", csv_file=Path(__file__).parent / "workflows.csv")
