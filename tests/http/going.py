"""Executions that take as long as a test wants, behind both faces and over both kinds of stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from anyio import to_thread
from faces import Gate
from faces import client as client_of
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from starlette.types import ASGIApp, Message

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext, AgentMapService, Call, Suspend, agent
from agentmap_asgi.services.fastapi import include_agentmap_routes

CSV = (
    "GraphName,Node,AgentType,Input_Fields,Output_Field,Prompt,Edge\n"
    "Hello,Greet,echo,name,greeting,Hello {name}!,Part\n"
    "Hello,Part,echo,name,farewell,Bye {name}!,\n"
    "Slow,Before,echo,name,before,Hello {name}!,Gate\n"
    "Slow,Gate,gate,,passed,,After\n"
    "Slow,After,echo,name,after,Bye {name}!,\n"
    "Fails,First,echo,name,first,Hi,Second\n"
    "Fails,Second,once,,second,,\n"
    "Ask,Ask,ask,who,answer,,Told\n"
    "Ask,Told,echo,answer,told,,\n"
    "Both,Fork,echo,,fork,,Ada|Bob\n"
    "Both,Ada,ask,ada,ada_says,,\n"
    "Both,Bob,ask,bob,bob_says,,\n"
)
PREFIX = "/workflows"


@agent
async def ask(call: Call) -> Suspend:
    """Asks those whom its input names."""
    who = next(iter(call.inputs.values()), None)
    return Suspend("May it go on?", type="approval", assignees=[who] if isinstance(who, str) else who or [])


class Once:
    """Fails the first time."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, call: Call) -> str:
        self.calls += 1
        if self.calls == 1:
            raise RuntimeError("the first time")
        return "second"


@dataclass
class User:
    """Who calls, as the header says: `id` or `id:role`."""

    id: str
    roles: tuple[str, ...] = ()


def user(request: Request) -> User | None:
    name, _, role = request.headers.get("x-user", "").partition(":")
    return User(name, (role,) if role else ()) if name else None


@dataclass
class Serving:
    """A service that is being served."""

    http: httpx.AsyncClient
    app: ASGIApp
    service: AgentMapService
    gate: Gate

    async def start(self, graph_name: str, user: str | None = None, **body: Any) -> dict[str, Any]:
        """Start without waiting; the answer's document."""
        headers = {} if user is None else {"x-user": user}
        answer = await self.http.post(
            "/execute", json={"graph_name": graph_name, "mode": "async", **body}, headers=headers
        )
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def settled(self, execution_id: str, user: str | None = None) -> dict[str, Any]:
        """The document once it has ended or waits."""
        headers = {} if user is None else {"x-user": user}
        while True:
            answer = await self.http.get(f"/executions/{execution_id}?wait=5", headers=headers)
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            if found["status"] not in ("queued", "running"):
                return found


def _mounted(service: AgentMapService) -> ASGIApp:
    return Starlette(routes=[Mount(PREFIX, AgentMapApp(service=service))])


def _included(service: AgentMapService) -> ASGIApp:
    app = FastAPI()
    include_agentmap_routes(app, prefix=PREFIX, service=service)
    return app


FACES: Mapping[str, Callable[[AgentMapService], ASGIApp]] = {"mounted": _mounted, "included": _included}
STORES = ("memory", "sqlite")


@asynccontextmanager
async def serving(
    folder: Path,
    face: str = "mounted",
    store: str = "memory",
    *,
    settings: Mapping[str, Any] | None = None,
    kind: type[AgentMapService] = AgentMapService,
    **context: Any,
) -> AsyncIterator[Serving]:
    """Everything that a test of executions needs."""
    gate = Gate()
    (folder / "flows").mkdir(exist_ok=True)
    (folder / "flows" / "flows.csv").write_text(CSV, encoding="utf-8")
    url = "memory://" if store == "memory" else f"sqlite:///{folder / 'executions.db'}"
    agents = {"gate": gate, "ask": ask, "once": Once(), **context.pop("agents", {})}
    config = AgentMapConfig(storage_url=url, **(settings or {}))
    made = AgentMapContext(agents=agents, **context)
    service = await to_thread.run_sync(partial(kind, config, context=made, source=folder / "flows"))
    app = await to_thread.run_sync(FACES[face], service)
    await service.start()
    try:
        async with client_of(app, prefix=PREFIX) as http:
            yield Serving(http, app, service, gate)
    finally:
        gate.opened.set()
        await service.aclose()


@dataclass
class Listener:
    """A client that reads a stream while it is sent, and may go away."""

    app: ASGIApp
    path: str
    method: str = "GET"
    headers: Mapping[str, str] = ()  # type: ignore[assignment]
    body: bytes = b""

    def __post_init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._left = asyncio.Event()
        self._text = ""
        self._asked = False
        self.status = 0
        self.ended = False

    async def __aenter__(self) -> Listener:
        path, _, query = self.path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": self.method, "scheme": "http",
            "path": PREFIX + path, "raw_path": (PREFIX + path).encode(), "root_path": "",
            "query_string": query.encode(), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            "headers": [(k.lower().encode(), v.encode()) for k, v in dict(self.headers or {}).items()],
        }  # fmt: skip

        async def receive() -> Message:
            if not self._asked:
                self._asked = True
                return {"type": "http.request", "body": self.body, "more_body": False}
            await self._left.wait()
            return {"type": "http.disconnect"}

        self._task = asyncio.ensure_future(self.app(scope, receive, self._messages.put))
        started = await self._messages.get()
        self.status = started["status"]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.leave()
        await asyncio.wait_for(self._task, 20)

    def leave(self) -> None:
        """Go away."""
        self._left.set()

    async def event(self) -> dict[str, Any] | None:
        """The next event as `{"id", "event", "data", "comments"}`; None when the stream has ended."""
        comments: list[str] = []
        while True:
            block, sign, rest = self._text.partition("\n\n")
            if not sign:
                if self.ended:
                    return None
                message = await asyncio.wait_for(self._messages.get(), 20)
                self._text += message["body"].decode()
                self.ended = not message.get("more_body", False)
                continue
            self._text = rest
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            comments += [line[2:] for line in block.split("\n") if line.startswith(":")]
            if "data" in fields:
                data = json.loads(fields["data"])
                number = int(fields["id"]) if "id" in fields else None
                return {"id": number, "event": fields["event"], "data": data, "comments": comments}
            if comments:
                return {"id": None, "event": None, "data": None, "comments": comments}


def parsed(text: str) -> list[dict[str, Any]]:
    """The events of a whole stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            found.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
    return found
