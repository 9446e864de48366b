"""A FastAPI application with workflows among its own routes, behind its own dependencies.

Run it with `uvicorn main:app` in this folder; http://127.0.0.1:8000/docs shows all routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService, Call, agent
from agentmap_asgi.services.fastapi import include_agentmap_routes

USERS = {"ada-token": "ada", "bob-token": "bob"}
bearer = HTTPBearer(auto_error=False)


class Session:
    """Stands for a database session."""

    def __init__(self, customers: dict[int, dict[str, Any]]) -> None:
        self._customers = customers
        self.open = True

    def customer(self, number: int) -> dict[str, Any]:
        assert self.open
        return self._customers[number]


def session() -> Iterator[Session]:
    opened = Session(app.state.customers)
    try:
        yield opened
    finally:
        opened.open = False


@agent(services=["database"])
def find_customer(call: Call) -> dict[str, Any]:
    database: Session = call.service("database")
    return database.customer(call.inputs["customer_id"])


def current_user(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    user = USERS.get(credentials.credentials) if credentials else None
    if user is None:
        raise HTTPException(401, "Who are you?")
    return user


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.customers = {1: {"name": "Grace", "orders": 0}, 2: {"name": "Linus", "orders": 12}}
    yield


app = FastAPI(title="Shop", lifespan=lifespan)
workflows = AgentMapService(
    AgentMapConfig(csv_path=str(Path(__file__).parent / "welcome.csv")),
    context=AgentMapContext(database_session_factory=session, agents={"find_customer": find_customer}),
)


@app.get("/customers/{number}")
async def customer(number: int, request: Request) -> dict[str, Any]:
    """A route of the host that runs a workflow itself."""
    answer = await workflows.execute_workflow("Welcome", {"customer_id": number})
    return {"greeting": answer["result"]["text"], **request.app.state.customers.get(number, {})}


include_agentmap_routes(app, prefix="/workflows", service=workflows, principal=Depends(current_user))
