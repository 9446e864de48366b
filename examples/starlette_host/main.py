"""A Starlette application that mounts workflows: shared services, an agent of its own, its own authentication.

Run it with `uvicorn main:app` in this folder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agentmap_asgi import AgentMapContext, Call, agent, mount_agentmap

TOKENS = {"Bearer ada-token": "ada", "Bearer bob-token": "bob"}


class Directory:
    """Stands for the host's database."""

    def __init__(self) -> None:
        self.customers = {1: {"name": "Grace", "orders": 0}, 2: {"name": "Linus", "orders": 12}}


@agent(services=["directory"])
async def find_customer(call: Call) -> dict[str, Any]:
    directory: Directory = call.service("directory")
    return directory.customers[call.inputs["customer_id"]]


def authenticate(request: Request) -> str | None:
    """Who calls; None is a 401."""
    return TOKENS.get(request.headers.get("authorization", ""))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.directory = Directory()
    yield


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"The shop knows {len(request.app.state.directory.customers)} customers.")


app = Starlette(routes=[Route("/", home)], lifespan=lifespan)
mount_agentmap(
    app,
    "/workflows",
    Path(__file__).parent / "welcome.csv",
    context=AgentMapContext(
        services={"directory": lambda: app.state.directory},
        agents={"find_customer": find_customer},
        authenticate=authenticate,
    ),
)
