"""Tests of the application: its routes, the workflows' routes, what they share, and what is replaced for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from main import app, get_current_user, service

from agentmap_asgi.testing import AgentMapClient

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FixedAppraiser:
    def worth(self, name: str) -> int:
        return 7


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The application with its lifespan running."""
    async with AgentMapClient(app) as http:
        yield http


async def new_item(client: httpx.AsyncClient) -> dict[str, object]:
    answer = await client.post("/items", json={"name": "lamp"})
    assert answer.status_code == 201
    return {"graph_name": "ItemProcessing", "initial_state": {"item_id": answer.json()["id"]}}


async def test_workflows_share_the_authentication(client: httpx.AsyncClient) -> None:
    assert (await client.get("/workflows/list")).status_code == 401
    headers = {"Authorization": "Bearer token-of-ada"}
    assert (await client.get("/workflows/list", headers=headers)).json()["total_count"] == 1


async def test_a_dependency_is_overridden(client: httpx.AsyncClient) -> None:
    app.dependency_overrides[get_current_user] = lambda: "tester"
    try:
        assert (await client.get("/workflows/list")).status_code == 200
    finally:
        app.dependency_overrides.clear()


async def test_workflows_share_the_database(client: httpx.AsyncClient) -> None:
    client.headers["Authorization"] = "Bearer token-of-ada"
    body = await new_item(client)
    with service.override(appraiser=FixedAppraiser()):
        answer = (await client.post("/workflows/execute", json=body)).json()
    assert answer["result"]["text"] == "It is worth 7"
    assert answer["owner"] == "ada"
    state = body["initial_state"]
    assert isinstance(state, dict)
    assert (await client.get(f"/items/{state['item_id']}")).json()["status"] == "processed"


async def test_a_failure_outside_is_handled_in_the_workflow(client: httpx.AsyncClient) -> None:
    client.headers["Authorization"] = "Bearer token-of-ada"
    answer = (await client.post("/workflows/execute", json=await new_item(client))).json()
    assert (answer["success"], answer["result"]["text"]) == (True, "We will look at it later")
