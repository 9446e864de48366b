"""The ways in which hosts serve the operations, and the requests that call each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from anyio import to_thread
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext, AgentMapService, Call, agent
from agentmap_asgi.execution.waits import Suspend
from agentmap_asgi.http.operations import OPERATIONS, Operation
from agentmap_asgi.services.fastapi import include_agentmap_routes

FILES: Mapping[str, str] = {
    "greetings.csv": (
        "GraphName,Node,AgentType,Input_Fields,Output_Field,Prompt,Edge\n"
        "Hello,Greet,echo,name,greeting,Hello {name}!,Part\n"
        "Hello,Part,echo,name,farewell,Bye {name}!,\n"
        "Tell,Tell,tell,,told,,\n"
        "Boom,Boom,boom,,never,,\n"
        "Wait,Wait,gate,,waited,,\n"
        "Ask,Ask,ask,,answer,,Told\n"
        "Ask,Told,echo,answer,told,,\n"
        "Twin,Only,default,,one,first,\n"
        "list,Only,echo,,one,a reserved name,\n"
        '"two words & a %",Only,echo,,one,odd,\n'
    ),
    "others.csv": (
        "GraphName,Node,AgentType,Output_Field,Prompt,Edge\nTwin,Only,default,one,second,\nBad,A,ecko,x,,Nowhere\n"
    ),
}
PREFIX = "/workflows"


class Gate:
    """An agent that waits until the test lets it through."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.through = asyncio.Event()

    async def __call__(self, call: Call) -> str:
        self.reached.set()
        await self.opened.wait()
        self.through.set()
        return "through"


@agent(inline=True)
def tell(call: Call) -> dict[str, Any]:
    return dict(call.context)


@agent(inline=True)
def boom(call: Call) -> str:
    raise RuntimeError("boom")


@agent
async def ask(call: Call) -> Suspend:
    """Waits for an approval."""
    return Suspend("May it go on?", type="approval")


def everyone(principal: Any, operation: str, graph: str | None, execution: str | None = None) -> bool:
    """An `authorize` that lets everybody do everything."""
    return True


def host_context(**more: Any) -> AgentMapContext:
    """The context object of the tests; `more` are further arguments of it."""
    agents = {"tell": tell, "boom": boom, "gate": boom, "ask": ask, **more.pop("agents", {})}
    return AgentMapContext(agents=agents, **more)


def everything(folder: Path) -> AgentMapConfig:
    """Settings that serve all operations. Hidden folders hold no workflows, so the audit log may lie among them."""
    hidden = (folder if folder.is_dir() else folder.parent) / ".audit"
    more: dict[str, Any] = {"audit_path": str(hidden / "audit.jsonl"), "link_secret": "s" * 32}
    return AgentMapConfig(enable_metrics=True, enable_audit_logging=True, **more)


async def service_of(
    folder: Path,
    config: AgentMapConfig | None = None,
    kind: type[AgentMapService] = AgentMapService,
    **context: Any,
) -> AgentMapService:
    """A service made in a thread, because it reads files. Without a config everything is enabled."""
    config = config or everything(folder)
    make = partial(kind, config, context=host_context(**context), source=folder)
    return await to_thread.run_sync(make)


@asynccontextmanager
async def client(
    app: ASGIApp, *, root_path: str = "", prefix: str = "", **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Calls `app` in process; paths are relative to `prefix`."""
    transport = httpx.ASGITransport(app, root_path=root_path, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://test{prefix}", **options) as http:
        yield http


@dataclass(frozen=True)
class Way:
    """How a host serves a service: the application, where clients find the operations, and what the server adds."""

    name: str
    build: Callable[[AgentMapService], ASGIApp]
    prefix: str
    """Before the operations in the requests the server gets."""
    public: str
    """Before the operations in links."""
    root_path: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Path parameters of the prefix."""

    @asynccontextmanager
    async def client(self, service: AgentMapService, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = await to_thread.run_sync(self.build, service)
        async with client(app, root_path=self.root_path, prefix=self.prefix, **options) as http:
            yield http


def _mounted(service: AgentMapService, path: str = PREFIX) -> Starlette:
    return Starlette(routes=[Mount(path, AgentMapApp(service=service))])


def _fastapi_mounted(service: AgentMapService, path: str = PREFIX) -> FastAPI:
    app = FastAPI()
    app.mount(path, AgentMapApp(service=service))
    return app


def _fastapi_nested(service: AgentMapService) -> FastAPI:
    outer = FastAPI()
    outer.mount("/{tenant}/api", _fastapi_mounted(service))
    return outer


def _included(service: AgentMapService, prefix: str = PREFIX) -> FastAPI:
    app = FastAPI()
    include_agentmap_routes(app, prefix=prefix, service=service)
    return app


def _included_in_router(service: AgentMapService) -> FastAPI:
    app, router = FastAPI(), APIRouter(prefix="/api")
    include_agentmap_routes(router, prefix=PREFIX, service=service)
    app.include_router(router, prefix="/v1")
    return app


def _included_and_mounted(service: AgentMapService) -> FastAPI:
    outer = FastAPI()
    outer.mount("/inner", _included(service))
    return outer


def _two_apps(service: AgentMapService) -> Starlette:
    other = AgentMapApp(service=AgentMapService(source=service.catalogue.source, context=service.context))
    return Starlette(routes=[Mount("/other", other), Mount(PREFIX, AgentMapApp(service=service))])


WAYS = (
    Way("alone", lambda service: AgentMapApp(service=service), "", ""),
    Way("in Starlette", _mounted, PREFIX, PREFIX),
    Way("in FastAPI", _fastapi_mounted, PREFIX, PREFIX),
    Way("nested", lambda s: Starlette(routes=[Mount("/api", _mounted(s))]), "/api/workflows", "/api/workflows"),
    Way(
        "under a parameter",
        lambda s: _mounted(s, "/{tenant}/wf"),
        "/a%20b/wf",
        "/a%20b/wf",
        params={"tenant": "a b"},
    ),
    Way("alone, root_path in the path", lambda s: AgentMapApp(service=s), "/proxy", "/proxy", "/proxy"),
    Way("alone, root_path stripped", lambda s: AgentMapApp(service=s), "", "/proxy", "/proxy"),
    Way("alone, root_path twice", lambda s: AgentMapApp(service=s), "/proxy/proxy", "/proxy", "/proxy"),
    Way("alone, at a root_path like a route", lambda s: AgentMapApp(service=s), PREFIX, PREFIX, PREFIX),
    Way("in Starlette, root_path in the path", _mounted, "/proxy/workflows", "/proxy/workflows", "/proxy"),
    Way("in Starlette, root_path stripped", _mounted, PREFIX, "/proxy/workflows", "/proxy"),
    Way(
        "in FastAPI, under a parameter",
        lambda s: _fastapi_mounted(s, "/{tenant}/wf"),
        "/a%20b/wf",
        "/a%20b/wf",
        params={"tenant": "a b"},
    ),
    Way("in FastAPI, nested", _fastapi_nested, "/a/api/workflows", "/a/api/workflows", params={"tenant": "a"}),
    Way("in FastAPI, root_path in the path", _fastapi_mounted, "/proxy/workflows", "/proxy/workflows", "/proxy"),
    Way("in FastAPI, root_path stripped", _fastapi_mounted, PREFIX, "/proxy/workflows", "/proxy"),
    Way(
        "in FastAPI, nested, root_path in the path",
        _fastapi_nested,
        "/p/a/api/workflows",
        "/p/a/api/workflows",
        "/p",
        {"tenant": "a"},
    ),
    Way("one of two", _two_apps, PREFIX, PREFIX),
    Way("included", _included, PREFIX, PREFIX),
    Way("included, root_path stripped", _included, PREFIX, "/proxy/workflows", "/proxy"),
    Way("included, root_path in the path", _included, "/proxy/workflows", "/proxy/workflows", "/proxy"),
    Way("included, root_path like a route's start", _included, PREFIX, "/wor/workflows", "/wor"),
    Way("included in a router", _included_in_router, "/v1/api/workflows", "/v1/api/workflows"),
    Way("included, then mounted", _included_and_mounted, "/inner/workflows", "/inner/workflows"),
    Way(
        "included under parameters",
        lambda s: _included(s, "/{tenant}/{number:int}/wf"),
        "/a%20b/7/wf",
        "/a%20b/7/wf",
        params={"tenant": "a b", "number": 7},
    ),
)


@dataclass(frozen=True)
class Asked:
    """A request that an operation answers without refusing it. `{id}` is an execution of `needs`, made before."""

    path: str
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    needs: str = "Hello"
    status: int = 200

    async def ready(self, http: httpx.AsyncClient, **more: Any) -> str:
        """The path, once what it names is there."""
        if "{id}" not in self.path and "{token}" not in self.path:
            return self.path
        answer = await http.post("/execute", json={"graph_name": self.needs}, **more)
        made = answer.json().get("execution_id")
        if made is None:  # the host's filter has it
            made = f"e-{uuid4()}"
            await http.post("/execute", json={"graph_name": self.needs, "execution_id": made}, **more)
        if "{id}" in self.path:
            return self.path.replace("{id}", made)
        links = (await http.post(f"/executions/{made}/links", json={}, **more)).json().get("links")
        return self.path.replace("{token}", links[0]["token"] if links else "none")

    async def send(self, http: httpx.AsyncClient, row: Operation, **more: Any) -> httpx.Response:
        body: dict[str, Any] = {"content": self.content} if self.json is None else {"json": self.json}
        given = more.pop("headers", {})
        path, headers = await self.ready(http, headers=given), {**self.headers, **given}
        return await http.request(row.method, path, headers=headers, **body, **more)


ASKED: Mapping[str, Asked] = {
    "execute": Asked("/execute", {"graph_name": "Hello", "initial_state": {"name": "Ada"}}),
    "execute_stream": Asked("/execute/stream", {"graph_name": "Hello", "initial_state": {"name": "Ada"}}),
    "execute_batch": Asked("/execute/batch", {"executions": [{"graph_name": "Hello"}]}),
    "execute_graph": Asked("/execute/Hello", {"inputs": {"name": "Ada"}}),
    "execute_file_graph": Asked("/execute/greetings/Hello", {"inputs": {"name": "Ada"}}),
    "list": Asked("/list"),
    "validate": Asked("/validate", content=b"GraphName,Node\nA,B\n", headers={"content-type": "text/csv"}),
    "health": Asked("/health"),
    "ready": Asked("/ready"),
    "executions": Asked("/executions"),
    "execution": Asked("/executions/{id}"),
    "execution_events": Asked("/executions/{id}/events"),
    "execution_nodes": Asked("/executions/{id}/nodes"),
    "execution_stream": Asked("/executions/{id}/stream"),
    "execution_graph": Asked("/executions/{id}/graph"),
    "cancel": Asked("/executions/{id}/cancel"),
    "resume": Asked("/executions/{id}/resume", {"action": "approve"}, needs="Ask"),
    "retry": Asked("/executions/{id}/retry", {"from": "start"}, status=201),
    "delete": Asked("/executions/{id}", status=204),
    "resume_thread": Asked("/resume/{id}", {"action": "approve"}, needs="Ask"),
    "execution_links": Asked("/executions/{id}/links", {}, needs="Ask", status=201),
    "link": Asked("/resume/link/{token}", needs="Ask"),
    "answer_link": Asked("/resume/link/{token}", {"action": "approve"}, needs="Ask"),
    "reload": Asked("/reload"),
    "metrics": Asked("/metrics"),
    "audit": Asked("/audit"),
    "openapi": Asked("/openapi.json"),
    "graph_by_id": Asked("/workflows/greetings::Hello/graph"),
    "schema_by_id": Asked("/workflows/greetings/Hello/schema"),
    "versions_by_id": Asked("/workflows/greetings::Hello/versions"),
    "diff_by_id": Asked("/workflows/greetings::Hello/diff?from=current"),
    "source_by_id": Asked("/workflows/greetings/Hello/source"),
    "workflow_by_id": Asked("/workflows/greetings::Hello"),
    "graph": Asked("/Hello/graph"),
    "schema": Asked("/Hello/schema"),
    "versions": Asked("/Hello/versions"),
    "diff": Asked("/Hello/diff?from=current"),
    "source": Asked("/Hello/source"),
    "workflow": Asked("/Hello"),
}
ROWS = {row.name: row for row in OPERATIONS}
GUARDED: Mapping[str, Asked] = {name: asked for name, asked in ASKED.items() if not ROWS[name].open}
"""Those that ask for credentials; a one-time link is one itself."""
