"""Constructing, mounting, starting and stopping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from faces import Gate, client, host_context, service_of
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Router

from agentmap_asgi import (
    AgentMapApp,
    AgentMapConfig,
    AgentMapService,
    combine_lifespans,
    create_app,
    include_agentmap_routes,
    mount_agentmap,
)
from agentmap_asgi.errors import ConfigError, UnknownExecution
from agentmap_asgi.http.keys import SCOPES, new_key
from agentmap_asgi.testing import AgentMapClient

pytest_plugins = ("sources",)

HELLO = {"graph_name": "Hello", "initial_state": {"name": "Ada"}}


class Watched(AgentMapService):
    """Writes down when it is started and closed."""

    log: list[str]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.log = []

    async def start(self) -> None:
        self.log.append("start")
        await super().start()

    async def aclose(self) -> None:
        self.log.append("close")
        await super().aclose()


@pytest.fixture
def watched(folder: Path) -> Watched:
    return Watched(context=host_context(), source=folder)


def test_a_service_stands_for_itself(folder: Path, service: AgentMapService) -> None:
    """`service=` excludes what a service is made of."""
    others: list[dict[str, Any]] = [{"source": folder}, {"config": AgentMapConfig()}, {"context": host_context()}]
    for other in others:
        with pytest.raises(TypeError, match=next(iter(other))):
            AgentMapApp(service=service, **other)
        renamed = {name.replace("source", "csv_file"): value for name, value in other.items()}
        with pytest.raises(TypeError, match="service="):
            include_agentmap_routes(FastAPI(), service=service, **renamed)
    with pytest.raises(TypeError, match="its own"):
        mount_agentmap(Starlette(), "/w", AgentMapApp(service=service), context=host_context())


def test_a_source_that_is_not_there_is_found_at_construction(tmp_path: Path) -> None:
    """ConfigError; and a file with errors is none."""
    with pytest.raises(ConfigError, match="nowhere"):
        AgentMapApp(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="csv_path"):
        AgentMapApp()
    (tmp_path / "bad.csv").write_text("GraphName,Node,AgentType\nG,A,ecko\n")
    assert AgentMapApp(tmp_path).service.list_workflows()["workflows"][0]["status"] == "broken"


def test_the_argument_beats_the_setting(folder: Path, tmp_path: Path) -> None:
    """`source` is used, and `csv_path` is not even read."""
    app = AgentMapApp(folder / "greetings.csv", config=AgentMapConfig(csv_path=str(tmp_path / "nowhere")))
    assert {workflow["file"] for workflow in app.service.list_workflows()["workflows"]} == {"greetings.csv"}


def test_an_app_is_made_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For `uvicorn --factory`."""
    monkeypatch.setenv("AGENTMAP_CSV_PATH", str(folder))
    assert create_app().service.list_workflows()["total_count"] > 0


@pytest.mark.anyio
async def test_a_mount_alone_works(watched: Watched) -> None:
    """Nobody runs the lifespan of what is mounted; the first execution starts what it needs."""
    app = Starlette(routes=[Mount("/w", AgentMapApp(service=watched))])
    async with AgentMapClient(app) as http:
        assert (await http.post("/w/execute", json=HELLO)).status_code == 200
    assert watched.log == []
    await watched.aclose()


def test_each_loop_is_served(folder: Path) -> None:
    """A client that makes a new event loop for each request is answered each time."""
    app = AgentMapApp(folder, context=host_context())

    async def once() -> int:
        async with client(app) as http:
            return (await http.post("/execute", json=HELLO)).status_code

    assert [asyncio.run(once()) for _ in range(3)] == [200, 200, 200]


def starlette_argument(service: AgentMapService) -> Starlette:
    workflows = AgentMapApp(service=service)
    app = Starlette(lifespan=workflows.lifespan)
    app.mount("/w", workflows)
    return app


def fastapi_argument(service: AgentMapService) -> FastAPI:
    workflows = AgentMapApp(service=service)
    app = FastAPI(lifespan=workflows.lifespan)
    app.mount("/w", workflows)
    return app


def mounted(host: Callable[[], Any]) -> Callable[[AgentMapService], Any]:
    def build(service: AgentMapService) -> Any:
        app = host()
        mount_agentmap(app, "/w", AgentMapApp(service=service))
        return app

    return build


def included(service: AgentMapService) -> FastAPI:
    app = FastAPI()
    include_agentmap_routes(app, prefix="/w", service=service)
    return app


def included_in_router(service: AgentMapService) -> FastAPI:
    app, inner, router = FastAPI(), APIRouter(), APIRouter()
    include_agentmap_routes(inner, prefix="/w", service=service)
    router.include_router(inner)
    app.include_router(router)
    return app


WIRED = [starlette_argument, fastapi_argument, mounted(Starlette), mounted(FastAPI), mounted(Router), included]
WIRED += [included_in_router]


@pytest.mark.anyio
@pytest.mark.parametrize("build", WIRED, ids=["Starlette(lifespan)", "FastAPI(lifespan)", "mounted in Starlette",
    "mounted in FastAPI", "mounted in Router", "included", "included in a router"])  # fmt: skip
async def test_the_hosts_lifespan_starts_and_closes(build: Callable[[AgentMapService], Any], watched: Watched) -> None:
    """Wired, the service lives exactly as long as the host, as often as the host does."""
    app = await to_thread.run_sync(build, watched)
    for _ in range(2):
        watched.log.clear()
        async with AgentMapClient(app) as http:
            assert watched.log == ["start"]
            assert (await http.post("/w/execute", json=HELLO)).status_code == 200
        assert watched.log == ["start", "close"]


@pytest.mark.anyio
async def test_served_alone_it_has_a_lifespan(watched: Watched) -> None:
    """The server's own lifespan messages start and close it."""
    async with AgentMapClient(AgentMapApp(service=watched)) as http:
        assert watched.log == ["start"]
        assert (await http.post("/execute", json=HELLO)).status_code == 200
    assert watched.log == ["start", "close"]


class NeverReady(AgentMapService):
    async def start(self) -> None:
        raise OSError("the store cannot be opened")


@pytest.mark.anyio
async def test_a_start_that_fails_stops_the_server(folder: Path) -> None:
    """The server is told why, and does not serve."""
    app = AgentMapApp(service=await service_of(folder, kind=NeverReady))
    with pytest.raises(RuntimeError, match="the store cannot be opened"):
        async with AgentMapClient(app):
            raise AssertionError("it was served")


@pytest.mark.anyio
async def test_a_lifespan_may_be_entered_twice(watched: Watched) -> None:
    """A host that wires it in two places closes it once, at the end."""
    app = AgentMapApp(service=watched)
    async with app.lifespan(None):
        async with app.lifespan(None):
            assert "close" not in watched.log
        assert "close" not in watched.log
    assert watched.log.count("close") == 1


@pytest.mark.anyio
async def test_lifespans_combine(watched: Watched) -> None:
    """In order, back in reverse, with their states; the host's own opens first and closes last."""

    def host(name: str, state: dict[str, Any] | None) -> Callable[[Any], Any]:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[dict[str, Any] | None]:
            watched.log.append(f"open {name}")
            yield state
            watched.log.append(f"shut {name}")

        return lifespan

    workflows = AgentMapApp(service=watched)
    app = Starlette(lifespan=combine_lifespans(host("a", {"a": 1}), workflows.lifespan, host("b", {"b": 2})))
    scope_state: dict[str, Any] = {}
    async with app.router.lifespan_context(app) as state:
        scope_state.update(state or {})
    assert scope_state == {"a": 1, "b": 2}
    assert watched.log == ["open a", "start", "open b", "shut b", "close", "shut a"]
    async with combine_lifespans()(None) as nothing:
        assert nothing is None


@pytest.mark.anyio
async def test_mounting_keeps_the_hosts_own_lifespan(watched: Watched) -> None:
    """Its events too, also those added later."""
    app = FastAPI()
    mount_agentmap(app, "/w", service=watched)
    app.router.on_startup.append(lambda: watched.log.append("host starts"))
    app.router.on_shutdown.append(lambda: watched.log.append("host stops"))
    async with AgentMapClient(app):
        pass
    assert watched.log == ["host starts", "start", "close", "host stops"]


@pytest.mark.anyio
async def test_a_source_is_mounted_in_one_line(folder: Path) -> None:
    """`mount_agentmap(app, path, source)` makes the app and gives it back."""
    app = Starlette()
    mount = lambda: mount_agentmap(app, "/w", folder, context=host_context())  # noqa: E731
    workflows = await to_thread.run_sync(mount)
    assert isinstance(workflows, AgentMapApp)
    async with AgentMapClient(app) as http:
        assert (await http.post("/w/execute/Hello", json={})).status_code == 200


def test_mounting_names_what_is_wrong(folder: Path) -> None:
    """The application, or the path."""
    wrong: Any = object()
    with pytest.raises(TypeError, match="app is a object; mount_agentmap takes"):
        mount_agentmap(wrong, "/w", folder)
    with pytest.raises(ConfigError, match="path='w' must begin with a slash"):
        mount_agentmap(Starlette(), "w", folder)


@pytest.mark.anyio
async def test_two_apps_share_nothing(tmp_path: Path) -> None:
    """Same names, other rows, other agents, in one process."""

    def build(name: str) -> AgentMapApp:
        source = tmp_path / f"{name}.csv"
        source.write_text(f"GraphName,Node,AgentType,Output_Field,Prompt\nSame,A,default,text,from {name}\n")
        return AgentMapApp(source)

    one, two = [await to_thread.run_sync(build, name) for name in ("one", "two")]
    app = Starlette(routes=[Mount("/one", one), Mount("/two", two)])
    async with client(app) as http:
        for name in ("one", "two"):
            document = (await http.post(f"/{name}/execute/Same", json={})).json()
            assert document["result"] == {"text": f"from {name}"}
            assert document["links"]["workflow"].startswith(f"/{name}/")
            assert (await http.get(f"/{name}/list")).json()["total_count"] == 1


def side_by_side(kind: str, one: AgentMapService, two: AgentMapService) -> FastAPI:
    """A host with two services, below `/one` and `/two`."""
    host = FastAPI()
    for path, service in (("/one", one), ("/two", two)):
        if kind == "included" or (kind == "mixed" and path == "/two"):
            include_agentmap_routes(host, prefix=path, service=service)
        else:
            mount_agentmap(host, path, service=service)
    return host


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["mounted", "included", "mixed"])
async def test_what_one_app_does_the_other_does_not_know(kind: str, folder: Path, tmp_path: Path) -> None:
    """Keys, executions, numbers, the audit log and the end: each app has its own, of the same files."""
    keys = [new_key(name, SCOPES) for name in ("one", "two")]
    configs = [
        AgentMapConfig(
            api_keys=[key.line],
            enable_metrics=True,
            enable_audit_logging=True,
            audit_path=str(tmp_path / f"{key.name}.jsonl"),
        )
        for _, key in keys
    ]
    one, two = [await service_of(folder, config) for config in configs]
    host = await to_thread.run_sync(side_by_side, kind, one, two)
    ours, theirs = ({"x-api-key": secret} for secret, _ in keys)
    async with AgentMapClient(host) as http:
        done = (await http.post("/one/execute", json=HELLO, headers=ours)).json()
        assert done["success"]
        assert (await http.get("/two/list", headers=ours)).status_code == 401
        assert await one.get_execution_status(done["execution_id"])
        with pytest.raises(UnknownExecution):
            await two.get_execution_status(done["execution_id"])
        assert "agentmap_executions_total{" in (await http.get("/one/metrics", headers=ours)).text
        assert "agentmap_executions_total{" not in (await http.get("/two/metrics", headers=theirs)).text
        for path, headers, found in (("/one", ours, True), ("/two", theirs, False)):
            assert ("started" in (await http.get(f"{path}/audit", headers=headers)).text) is found
        await one.aclose()
        assert (await http.get("/two/ready", headers=theirs)).json()["ready"] is True
        assert (await http.post("/two/execute", json=HELLO, headers=theirs)).json()["success"]


@pytest.mark.anyio
async def test_stopping_refuses_new_runs(folder: Path) -> None:
    """While what runs may end, `/ready` and new executions are 503; probes of life go on."""
    gate = Gate()
    service = await service_of(folder, agents={"gate": gate})
    app = AgentMapApp(service=service)
    async with client(app) as http:
        running = asyncio.create_task(http.post("/execute", json={"graph_name": "Wait"}))
        await gate.reached.wait()
        closing = asyncio.create_task(service.aclose())
        await asyncio.sleep(0)
        ready = await http.get("/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert ready.headers["retry-after"]
        refused = await http.post("/execute", json=HELLO)
        assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
        assert (await http.get("/health")).status_code == 200
        gate.opened.set()
        assert (await running).json()["success"] is True
        await closing
