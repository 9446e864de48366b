"""Hosts that serve the page on this machine, and visitors who look at it and note what should not be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from anyio import to_thread
from axe_playwright_python.base import AXE_SCRIPT
from fastapi import FastAPI
from playwright.async_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from agentmap_asgi import (
    AgentMapApp,
    AgentMapConfig,
    AgentMapContext,
    AgentMapService,
    Call,
    agent,
    include_agentmap_routes,
)

NASTY = '<img src=x onerror="document.title=1">'
FLOWS = (
    "GraphName,Node,AgentType,Input_Fields,Output_Field,Prompt,Edge,Success_Next,Failure_Next,Context,Retry\n"
    "Hello,Greet,echo,name,greeting,Hello {name}!,Part,,,,\n"
    "Hello,Part,echo,name,farewell,Bye {name}!,,,,,\n"
    "Slow,Before,echo,name,before,,Gate|Aside,,,,\n"
    "Slow,Gate,gate,before,waited,,After,,,,\n"
    "Slow,Aside,echo,before,aside,,After,,,,\n"
    "Slow,After,echo,waited,after,,,,,,\n"
    "Fails,First,echo,name,first,,Second,,,,\n"
    "Fails,Second,flaky,first,second,,Third,,,,2\n"
    "Fails,Third,echo,second,third,,,,,,\n"
    'Leave,Ask,human,,request,When?,,Approve,,"{""type"": ""form"", ""form"": {""type"": ""object"", ""properties"": '
    '{""day"": {""type"": ""string""}, ""days"": {""type"": ""integer""}, ""kind"": {""enum"": [""paid"", ""unpaid""]}}'
    ', ""required"": [""day"", ""days""], ""additionalProperties"": false}}",\n'
    "Leave,Approve,human,,approval,{request.days} days?,,Colour,Tell,,\n"
    'Leave,Colour,human,,colour,Which?,,Note,,"{""type"": ""choice"", ""options"": [""red"", ""green""]}",\n'
    'Leave,Note,human,,note,A note?,,Edit,,"{""type"": ""text_input""}",\n'
    'Leave,Edit,human,note,note,Correct it,,Tell,,"{""type"": ""edit""}",\n'
    "Leave,Tell,echo,note,told,,,,,,\n"
    "Count,Tick,tick,n,n,,Enough,,,,\n"
    'Count,Enough,branching,n,enough,,,Done,Tick,"{""when"": ""n >= 250""}",\n'
    "Count,Done,echo,n,done,,,,,,\n"
    "Long,Ready,gate,,ready,,Tick,,,,\n"
    "Long,Tick,tick,n,n,,Enough,,,,\n"
    'Long,Enough,branching,n,enough,,,Done,Tick,"{""when"": ""n >= 250""}",\n'
    "Long,Done,echo,n,done,,,,,,\n"
    f'Nasty,"{NASTY.replace(chr(34), chr(34) * 2)}",echo,text,out,"<script>alert(1)</script>",,,,,\n'
    "Story,Begin,echo,name,begun,,Tell,,,,\nStory,Tell,talk,begun,told,,,,,,\n"
    'Review,Check,human,name,ok,All right?,,Said,Said,"{""assignees"": [""bob""]}",\n'
    "Review,Said,echo,name,said,,,,,,\n"
    "Bad,A,ecko,x,y,,Nowhere,,,,\n"
)


@dataclass
class World:
    """What the agents of a host do."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    spoken: asyncio.Event = field(default_factory=asyncio.Event)
    works: bool = False

    def context(self, **more: Any) -> AgentMapContext:
        async def gate(call: Call) -> str:
            await self.gate.wait()
            return "through"

        async def talk(call: Call) -> str:
            await self.spoken.wait()
            call.report(0.4, "Reading")
            call.log("Page one is read", pages=1)
            call.token("Once upon ")
            call.token("a time")
            await self.gate.wait()
            return "told"

        @agent(inline=True)
        def flaky(call: Call) -> str:
            if not self.works:
                raise RuntimeError("The line is busy")
            return "done"

        @agent(inline=True)
        def tick(call: Call) -> int:
            return int(call.inputs.get("n") or 0) + 1

        return AgentMapContext(agents={"gate": gate, "talk": talk, "flaky": flaky, "tick": tick}, **more)


async def service_of(
    folder: Path,
    world: World,
    config: dict[str, Any] | None = None,
    kind: type[AgentMapService] = AgentMapService,
    **more: Any,
) -> AgentMapService:
    def made() -> AgentMapService:
        path = folder / "flows.csv"
        path.write_text(FLOWS, encoding="utf-8")
        return kind(
            AgentMapConfig(**{"shutdown_grace": 0.1, **(config or {})}), source=path, context=world.context(**more)
        )

    return await to_thread.run_sync(made)


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """The address of a server in this event loop."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn says it by this only
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def mounted(service: AgentMapService) -> ASGIApp:
    app = AgentMapApp(service=service)
    return Starlette(routes=[Mount("/workflows", app)], lifespan=app.lifespan)


def included(service: AgentMapService) -> ASGIApp:
    app = FastAPI()
    include_agentmap_routes(app, prefix="/api/wf", service=service)
    return app


def stripped(service: AgentMapService) -> ASGIApp:
    """Behind a proxy that takes its prefix away and tells nobody."""
    inner = mounted(service)

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix("/deep/proxy")
            assert path != scope["path"], f"a request outside of the prefix: {path}"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await inner(scope, receive, send)

    return proxy


WAYS: dict[str, tuple[Callable[[AgentMapService], ASGIApp], str]] = {
    "alone": (lambda service: AgentMapApp(service=service), "/"),
    "mounted": (mounted, "/workflows/"),
    "included": (included, "/api/wf/"),
    "stripped": (stripped, "/deep/proxy/workflows/"),
}


@dataclass
class Visit:
    """A visitor's tab."""

    page: Page
    service: AgentMapService
    root: str
    """The address of the mount, with a slash at its end."""
    wrong: list[str] = field(default_factory=list)
    """What should not be: errors, and requests that leave the mount."""
    expected: set[int | str] = field(default_factory=set)
    """Statuses of refusals that the test provokes, or other words; the browser notes each in its console."""

    async def go(self, where: str) -> None:
        await self.page.goto(f"{self.root}ui/#/{where}")
        await expect(self.page.locator("html")).to_have_attribute("data-shown", f"#/{where}")

    async def start(self, graph: str, state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """An execution that a program starts."""
        answer = await self.page.request.post(
            f"{self.root}execute", data={"graph_name": graph, "initial_state": state or {}, **more}
        )
        found: dict[str, Any] = await answer.json()
        return found


FLAWS = """async (options) => {
    const { violations } = await axe.run(document, { resultTypes: ['violations'], ...options })
    return violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html).join(' ')}`)
}"""


async def flaws(page: Page, *rules: str) -> list[str]:
    """What axe-core finds wrong with what is shown, by all of its rules or by these. A document is given it once."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE_SCRIPT)
    found: list[str] = await page.evaluate(FLAWS, {"runOnly": list(rules)} if rules else {})
    return found


@asynccontextmanager
async def visiting(browser: Browser, service: AgentMapService, root: str, **options: Any) -> AsyncIterator[Visit]:
    """A tab of its own; at its end nothing may have gone wrong in it."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = await context.new_page()
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    visit = Visit(page, service, root)

    def console(message: Any) -> None:
        words = (f"status of {one} " if isinstance(one, int) else one for one in visit.expected)
        refused = any(word in message.text for word in words)
        if message.type in ("error", "warning") and not refused:
            visit.wrong.append(f"{message.type}: {message.text}")

    page.on("console", console)
    page.on("pageerror", lambda error: visit.wrong.append(f"raised: {error}"))
    page.on("dialog", lambda dialog: visit.wrong.append(f"dialog: {dialog.message}"))
    page.on("request", lambda r: None if r.url.startswith(root) else visit.wrong.append(f"request: {r.url}"))
    try:
        yield visit
        assert visit.wrong == [], visit.wrong
    finally:
        await context.close()


@asynccontextmanager
async def visited(
    browser: Browser,
    folder: Path,
    world: World | None = None,
    way: str = "alone",
    config: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Visit]:
    """A tab at a host that serves the flows."""
    service = await service_of(folder, world or World(), config)
    build, prefix = WAYS[way]
    async with listening(await to_thread.run_sync(build, service)) as base:
        try:
            async with visiting(browser, service, base + prefix, **options) as visit:
                yield visit
        finally:
            await service.aclose()
