"""The host's own dependencies around the workflow routes: how often, in which order, and what they leave open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from faces import ASKED, GUARDED, ROWS, client, everyone, service_of
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer, SecurityScopes

from agentmap_asgi import AgentMapService, include_agentmap_routes

pytest_plugins = ("sources",)

log: list[str] = []


async def pool() -> AsyncIterator[str]:
    log.append("pool opens")
    try:
        yield "pool"
    finally:
        log.append("pool closes")


def session(of: Annotated[str, Depends(pool)]) -> Iterator[str]:
    log.append("session opens")
    try:
        yield f"session of {of}"
    finally:
        log.append("session closes")


def user(database: Annotated[str, Depends(session)]) -> str:
    log.append("user")
    return "ada"


def lock(database: Annotated[str, Depends(session)]) -> Iterator[None]:
    log.append("lock")
    try:
        yield
    finally:
        log.append("unlock")


ONCE = ["pool opens", "session opens", "lock", "user", "unlock", "session closes", "pool closes"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", GUARDED)
async def test_dependencies_open_and_close_once_a_request(name: str, granted: AgentMapService) -> None:
    """In every operation: what two of them need is made once, and closed last first, after the answer was made."""
    app = FastAPI()
    include_agentmap_routes(app, service=granted, dependencies=[Depends(lock)], principal=user)
    async with client(app, prefix="/workflows") as http:
        asked = replace(ASKED[name], path=await ASKED[name].ready(http))
        log.clear()
        assert (await asked.send(http, ROWS[name])).status_code == asked.status
        assert log == ONCE


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"graph_name": "Boom"}, 200),
        ({"graph_name": "Gone"}, 404),
        ({"graph_name": "Bad"}, 409),
        ({"graph": "Hello"}, 422),
    ],
)
async def test_they_close_whatever_became_of_the_run(body: Any, status: int, service: AgentMapService) -> None:
    """A failed run, a refused one, a body that does not fit."""
    app = FastAPI()
    include_agentmap_routes(app, service=service, dependencies=[Depends(lock)], principal=user)
    async with client(app, prefix="/workflows") as http:
        log.clear()
        assert (await http.post("/execute", json=body)).status_code == status
        assert log == ONCE


@pytest.mark.anyio
async def test_what_a_dependency_refuses_closes_what_was_open(service: AgentMapService) -> None:
    """The run does not begin, and the refusal is the host's own."""

    def refuse(database: Annotated[str, Depends(session)]) -> None:
        raise HTTPException(402, "Pay first")

    app = FastAPI()
    include_agentmap_routes(app, service=service, dependencies=[Depends(refuse)])
    async with client(app, prefix="/workflows") as http:
        log.clear()
        answer = await http.post("/execute", json={"graph_name": "Hello"})
    assert (answer.status_code, answer.json()) == (402, {"detail": "Pay first"})
    assert log == ["pool opens", "session opens", "session closes", "pool closes"]
    assert service.list_workflows()["workflows"][0]["statistics"] == {"executions": {}}


@pytest.mark.anyio
async def test_overrides_reach_deep(service: AgentMapService) -> None:
    """`dependency_overrides` replaces what a dependency needs, too, and only while it is there."""
    app = FastAPI()
    include_agentmap_routes(app, service=service, principal=user)
    app.dependency_overrides[session] = lambda: "fake"
    async with client(app, prefix="/workflows") as http:
        log.clear()
        assert (await http.get("/list")).status_code == 200
        assert log == ["user"]
        app.dependency_overrides.clear()
        assert (await http.get("/list")).status_code == 200
        assert log[1:] == [line for line in ONCE if "lock" not in line]


SCHEMES: dict[str, Any] = {
    "APIKeyHeader": APIKeyHeader(name="X-API-Key"),
    "HTTPBearer": HTTPBearer(),
    "OAuth2PasswordBearer": OAuth2PasswordBearer("token"),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("where", ["dependencies", "principal", "router"])
def test_the_hosts_document_shows_which_credentials_each_operation_takes(
    where: str, scheme: str, service: AgentMapService
) -> None:
    """Every operation of the table names the scheme; there is none without."""
    app = FastAPI()
    guard = Depends(SCHEMES[scheme])
    if where == "router":
        router = APIRouter(dependencies=[guard])
        include_agentmap_routes(router, service=service)
        app.include_router(router)
    elif where == "dependencies":
        include_agentmap_routes(app, service=service, dependencies=[guard])
    else:
        include_agentmap_routes(app, service=service, principal=guard)
    document = app.openapi()
    found = {one["operationId"]: one.get("security") for path in document["paths"].values() for one in path.values()}
    assert len(found) == len(ROWS)
    open_ones = [  # one-time links, where the host does not guard everything
        one["operationId"] for path, ones in document["paths"].items() if "/link/" in path for one in ones.values()
    ]
    assert {name for name, security in found.items() if security != [{scheme: []}]} <= {*open_ones}
    assert list(document["components"]["securitySchemes"]) == [scheme]


scoped = OAuth2PasswordBearer("token", scopes={"run": "Run workflows"})


def current(scopes: SecurityScopes, token: Annotated[str, Depends(scoped)]) -> str:
    if not set(scopes.scopes) <= set(token.split("+")):
        raise HTTPException(403, "That token does not reach")
    return "ada"


@pytest.mark.anyio
async def test_scopes_of_the_host_are_asked_for(folder: Path) -> None:
    """`Security(…, scopes=[…])` works and is shown; public operations show no credentials."""
    service = await service_of(folder, public={"health"}, authorize=everyone)
    app = FastAPI()
    include_agentmap_routes(app, service=service, principal=Security(current, scopes=["run"]))
    paths: Any = app.openapi()["paths"]
    assert paths["/workflows/execute"]["post"]["security"] == [{"OAuth2PasswordBearer": ["run"]}]
    assert "security" not in paths["/workflows/health"]["get"]
    async with client(app, prefix="/workflows") as http:
        for name, asked in GUARDED.items():
            expected = {"": 401, "Bearer look": 403, "Bearer look+run": asked.status}
            if name == "health":
                expected = dict.fromkeys(expected, 200)
            for credentials, status in expected.items():
                headers = {"authorization": credentials} if credentials else {}
                assert (await asked.send(http, ROWS[name], headers=headers)).status_code == status, (name, credentials)
