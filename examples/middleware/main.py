"""Middleware of the host around its own routes and the workflows, and what it tells the runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from fastapi import FastAPI, Request, Response

from agentmap_asgi import AgentMapContext, Call, agent, include_agentmap_routes

logger = logging.getLogger("shop")
app = FastAPI()
Next = Callable[[Request], Awaitable[Response]]


@app.middleware("http")
async def log_requests(request: Request, call_next: Next) -> Response:
    began = time.perf_counter()
    response = await call_next(request)
    taken = time.perf_counter() - began
    logger.info("%s %s - %d - %.3fs", request.method, request.url.path, response.status_code, taken)
    return response


@app.middleware("http")
async def tell_the_run(request: Request, call_next: Next) -> Response:
    """What is put into `workflow_context` reaches the run, and stands above what the caller says."""
    if not request.url.path.startswith("/workflows/"):
        return await call_next(request)
    request.state.workflow_context = {"request_id": str(uuid4()), "timestamp": datetime.now(UTC).isoformat()}
    response = await call_next(request)
    response.headers["X-Workflow-Request-ID"] = request.state.workflow_context["request_id"]
    return response


@agent(inline=True)
def told(call: Call) -> dict[str, object]:
    return dict(call.context)


@app.get("/")
async def root() -> dict[str, str]:
    return {"message": "My existing API"}


include_agentmap_routes(
    app,
    prefix="/workflows",
    csv_file=Path(__file__).parent / "workflows.csv",
    context=AgentMapContext(agents={"told": told}),
)
