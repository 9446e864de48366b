"""The routes that `include_agentmap_routes` adds are routes like the host's own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from anyio import to_thread
from faces import GUARDED, ROWS, client, host_context, service_of
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.security import APIKeyHeader
from starlette.applications import Starlette

from agentmap_asgi import AgentMapConfig, AgentMapService, include_agentmap_routes
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.services import fastapi as door

pytest_plugins = ("sources",)

HELLO = {"graph_name": "Hello", "initial_state": {"name": "Ada"}}
scheme = APIKeyHeader(name="X-API-Key", auto_error=False)


def current_user(key: Annotated[str | None, Depends(scheme)]) -> str:
    if key is None:
        raise HTTPException(401, "Who are you?")
    return key


def test_the_guides_import_works() -> None:
    """Both names come from one module."""
    assert door.AgentMapService is AgentMapService
    assert door.include_agentmap_routes is include_agentmap_routes


@pytest.mark.anyio
@pytest.mark.parametrize("argument", ["dependencies", "principal", "principal function", "router", "inclusion"])
async def test_the_hosts_dependencies_guard_every_route(argument: str, granted: AgentMapService) -> None:
    """The refusal is the host's own, and overrides replace it."""
    app = FastAPI()
    guard = Depends(current_user)
    if argument == "router":
        router = APIRouter(dependencies=[guard])
        include_agentmap_routes(router, service=granted)
        app.include_router(router)
    elif argument == "inclusion":
        router = APIRouter()
        include_agentmap_routes(router, service=granted)
        app.include_router(router, dependencies=[guard])
    elif argument == "dependencies":
        include_agentmap_routes(app, service=granted, dependencies=[guard])
    else:
        include_agentmap_routes(app, service=granted, principal=guard if argument == "principal" else current_user)
    async with client(app, prefix="/workflows") as http:
        for name, asked in GUARDED.items():
            refused = await asked.send(http, ROWS[name])
            assert (refused.status_code, refused.json()) == (401, {"detail": "Who are you?"}), name
            assert (await http.head(asked.path)).status_code == 401, name
            other = await http.put(asked.path)
            assert (other.status_code, other.json()) == (401, {"detail": "Who are you?"}), name
            passed = await asked.send(http, ROWS[name], headers={"x-api-key": "ada"})
            assert passed.status_code == asked.status, name
            other = await http.put(asked.path, headers={"x-api-key": "ada"})
            assert (other.status_code, other.json()["code"]) == (405, "method_not_allowed"), name
        app.dependency_overrides[current_user] = lambda: "tester"
        assert (await http.get("/list")).status_code == 200
        told = (await http.post("/execute", json={"graph_name": "Tell"})).json()["result"]["told"]
        assert told["principal"] == ("tester" if argument.startswith("principal") else None)


@pytest.mark.anyio
@pytest.mark.parametrize("found", [None, False, "", " "])
async def test_nobody_is_refused(found: Any, service: AgentMapService) -> None:
    """A principal dependency that gives None, as optional logins do, or an empty text, lets nobody in."""
    app = FastAPI()
    include_agentmap_routes(app, service=service, principal=lambda: found)
    async with client(app, prefix="/workflows") as http:
        for name, asked in GUARDED.items():
            answer = await asked.send(http, ROWS[name])
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), name


@pytest.mark.anyio
@pytest.mark.parametrize("argument", ["dependencies", "principal"])
async def test_public_operations_are_open(argument: str, folder: Path) -> None:
    """They get neither the dependencies nor the principal of the call."""
    service = await service_of(folder, public={"health", "ready"})
    app = FastAPI()
    guard: Any = [Depends(current_user)] if argument == "dependencies" else Depends(current_user)
    include_agentmap_routes(app, service=service, **{argument: guard})
    async with client(app, prefix="/workflows") as http:
        found = {name: (await asked.send(http, ROWS[name])).status_code for name, asked in GUARDED.items()}
        wrong = {name: (await http.delete(asked.path)).status_code for name, asked in GUARDED.items()}
    assert found == {name: 200 if name in ("health", "ready") else 401 for name in GUARDED}
    assert wrong == {name: 405 if name in ("health", "ready") else 401 for name in GUARDED}


@pytest.mark.anyio
async def test_dependencies_with_yield_close_after_the_run(folder: Path) -> None:
    """As for any route."""
    log: list[str] = []

    class Noting(AgentMapService):
        async def execute_workflow(self, *args: Any) -> dict[str, Any]:
            log.append("run")
            return await super().execute_workflow(*args)

    async def session() -> AsyncIterator[None]:
        log.append("open")
        yield
        log.append("close")

    def lock() -> Iterator[None]:
        log.append("lock")
        yield
        log.append("unlock")

    app = FastAPI()
    service = await service_of(folder, kind=Noting)
    include_agentmap_routes(app, service=service, dependencies=[Depends(session), Depends(lock)])
    async with client(app, prefix="/workflows") as http:
        assert (await http.post("/execute", json=HELLO)).status_code == 200
    assert log == ["open", "lock", "run", "unlock", "close"]


@pytest.mark.anyio
async def test_dependencies_may_read_the_body_and_the_path(service: AgentMapService) -> None:
    """The body is still there for the operation; parameters of the prefix are the host's to use."""

    async def look(request: Request, tenant: str, x_extra: Annotated[str, Header()] = "") -> str:
        assert (await request.json())["graph_name"]
        return f"{tenant}{x_extra}"

    app = FastAPI()
    include_agentmap_routes(app, prefix="/{tenant}/wf", service=service, principal=look)
    async with client(app) as http:
        answer = await http.post("/acme/wf/execute", json={"graph_name": "Tell"}, headers={"x-extra": "!"})
    told = answer.json()["result"]["told"]
    assert (told["principal"], told["tenant"]) == ("acme!", "acme")


@pytest.mark.anyio
async def test_a_dependency_that_takes_the_body_away_leaves_none(service: AgentMapService) -> None:
    """Streams are read once: the answer is a refusal, and nothing waits."""

    async def consume(request: Request) -> None:
        async for _ in request.stream():
            pass

    app = FastAPI()
    include_agentmap_routes(app, service=service, dependencies=[Depends(consume)])
    async with client(app, prefix="/workflows") as http:
        answer = await http.post("/execute", json=HELLO)
    assert answer.status_code == 500


@pytest.mark.anyio
@pytest.mark.parametrize("shown", [None, True, False])
async def test_routes_are_in_the_hosts_document(shown: bool | None, service: AgentMapService) -> None:
    """With bodies, parameters and security schemes; `enable_docs=False` keeps them out, and takes ours away too."""
    app = FastAPI()
    include_agentmap_routes(app, service=service, principal=Depends(current_user), enable_docs=shown)

    @app.get("/own")
    def own() -> None:
        """The host's."""

    document = app.openapi()
    async with client(app) as http:
        described = await http.get("/workflows/openapi.json", headers={"x-api-key": "k"})
        assert (await http.post("/workflows/execute", json=HELLO, headers={"x-api-key": "k"})).status_code == 200
    if shown is False:
        assert list(document["paths"]) == ["/own"]
        assert described.status_code == 404
        return
    assert described.status_code == 200
    assert set(document["paths"]) == {"/own", *(f"/workflows{row.plain_path}" for row in ROWS.values())}
    execute = document["paths"]["/workflows/execute"]["post"]
    assert execute["security"] == [{"APIKeyHeader": []}]
    body = execute["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) >= {"graph_name", "initial_state"}
    assert "application/problem+json" in execute["responses"]["422"]["content"]
    parameters = document["paths"]["/workflows/{workflow_name}/graph"]["get"]["parameters"]
    assert {(one["name"], one["in"]) for one in parameters} == {("workflow_name", "path"), ("format", "query")}
    assert "HTTPValidationError" not in str(document)


@pytest.mark.anyio
async def test_two_includes_live_side_by_side(folder: Path) -> None:
    """Other sources, other guards, one document without double names."""
    one, two = await service_of(folder), await service_of(folder / "others.csv")
    app = FastAPI()
    include_agentmap_routes(app, prefix="/one", service=one)
    include_agentmap_routes(app, prefix="/two", service=two, dependencies=[Depends(current_user)])
    ids = [row["operationId"] for path in app.openapi()["paths"].values() for row in path.values()]
    assert len(ids) == len(set(ids)) == 2 * len(ROWS)
    async with client(app) as http:
        assert (await http.get("/one/Hello")).status_code == 200
        assert (await http.get("/two/list")).status_code == 401
        assert (await http.get("/two/Hello", headers={"x-api-key": "k"})).status_code == 404


@pytest.mark.anyio
async def test_the_hosts_routes_stay_the_hosts(service: AgentMapService) -> None:
    """What we do not answer is left to routes that come later, and to the host's own 404."""
    app = FastAPI()
    include_agentmap_routes(app, service=service)

    @app.post("/workflows/{name}/publish")
    def publish(name: str) -> str:
        return name

    @app.get("/workflows/Hello/executions")
    def executions() -> str:
        return "the host's"

    @app.put("/workflows/list")
    def put() -> str:
        return "put"

    async with client(app) as http:
        assert (await http.post("/workflows/Hello/publish")).json() == "Hello"
        assert (await http.get("/workflows/Hello/executions")).json() == "the host's"
        assert (await http.put("/workflows/list")).json() == "put"
        assert (await http.get("/workflows/a/b/c/d")).json() == {"detail": "Not Found"}


def test_contradictions_are_refused(folder: Path) -> None:
    """Two sources of the principal."""
    with pytest.raises(TypeError, match="principal="):
        include_agentmap_routes(
            FastAPI(), csv_file=folder, context=host_context(authenticate=lambda request: "ada"), principal=current_user
        )


@pytest.mark.parametrize(
    ("app", "arguments", "error", "said"),
    [
        (FastAPI(), {"csv_file": "nowhere.csv"}, ConfigError, "'nowhere.csv'; create it.*csv_file"),
        (FastAPI(), {"prefix": "workflows"}, ConfigError, "prefix='workflows' must begin with a slash"),
        (FastAPI(), {"prefix": None}, ConfigError, "prefix=None must begin with a slash"),
        (FastAPI(), {"prefix": ""}, ConfigError, "prefix='' would .* own paths .*APIRouter"),
        (FastAPI(), {"prefix": "/"}, ConfigError, "prefix='/' would .* own paths"),
        (FastAPI(), {"prefix": "/{workflow}/x"}, ConfigError, "prefix='/{workflow}/x' has the parameter workflow"),
        (FastAPI(), {"dependencies": Depends(scheme)}, TypeError, r"dependencies=\[Depends\(current_user\)\]"),
        (FastAPI(), {"dependencies": scheme}, TypeError, r"dependencies=\[Depends\(current_user\)\]"),
        (FastAPI(), {"dependencies": [scheme]}, TypeError, "one of these is a APIKeyHeader"),
        (Starlette(), {}, TypeError, "app is a Starlette; .*mount_agentmap"),
        (None, {}, TypeError, "app is a NoneType; .*FastAPI"),
    ],
)
def test_mistakes_name_the_argument(
    app: Any, arguments: dict[str, Any], error: type[Exception], said: str, folder: Path
) -> None:
    """And the remedy."""
    with pytest.raises(error, match=said):
        include_agentmap_routes(app, **{"csv_file": folder, "context": host_context(), **arguments})


@pytest.mark.anyio
async def test_a_router_may_have_the_prefix(service: AgentMapService) -> None:
    """Then the routes need none of their own."""
    app, router = FastAPI(), APIRouter(prefix="/flows")
    include_agentmap_routes(router, prefix="", service=service)
    app.include_router(router)
    async with client(app) as http:
        assert (await http.post("/flows/execute", json=HELLO)).json()["links"]["workflow"] == "/flows/Hello"


def test_a_service_is_made_from_arguments_or_settings(folder: Path) -> None:
    """`csv_file` beats `csv_path`; the service is given back."""
    app = FastAPI()
    config = AgentMapConfig(csv_path=str(folder / "others.csv"))
    service = include_agentmap_routes(app, csv_file=folder / "greetings.csv", config=config, context=host_context())
    assert "Hello" in {workflow["name"] for workflow in service.list_workflows()["workflows"]}
    other = include_agentmap_routes(app, prefix="/o", config=config, enable_audit_logging=False)
    assert {workflow["name"] for workflow in other.list_workflows()["workflows"]} == {"Twin", "Bad"}


@pytest.mark.parametrize(
    ("build", "warned"),
    [
        (lambda service: include_agentmap_routes(FastAPI(), service=service), True),
        (lambda service: include_agentmap_routes(FastAPI(), service=service, dependencies=[]), True),
        (lambda service: include_agentmap_routes(FastAPI(), service=service, dependencies=[Depends(scheme)]), False),
        (lambda service: include_agentmap_routes(FastAPI(), service=service, principal=scheme), False),
        (lambda service: include_agentmap_routes(FastAPI(dependencies=[Depends(scheme)]), service=service), False),
    ],
)
def test_open_routes_are_warned_of(
    build: Any, warned: bool, service: AgentMapService, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless the host guards them."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "agentmap_asgi.http"):
        build(service)
    assert ("open to every caller" in caplog.text) is warned


@pytest.mark.anyio
async def test_a_source_is_included_in_one_line(folder: Path) -> None:
    """As in the guide."""
    app = FastAPI()
    await to_thread.run_sync(
        lambda: include_agentmap_routes(app, prefix="/workflows/", csv_file=folder, context=host_context())
    )
    async with client(app) as http:
        assert (await http.post("/workflows/execute", json=HELLO)).json()["success"] is True
