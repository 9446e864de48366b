"""The fakes that come with the package."""

from __future__ import annotations

import builtins
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flows import node, run
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentmap_asgi.agents.registry import Call, as_agent
from agentmap_asgi.context import Clock
from agentmap_asgi.testing import AgentMapClient, FakeClock, Recorded, ScriptedAgent

pytestmark = pytest.mark.anyio


def a_call(attempt: int = 1, **inputs: Any) -> Call:
    return cast(Call, SimpleNamespace(node=SimpleNamespace(name="Pay"), inputs=inputs, prompt="Pay!", attempt=attempt))


def test_a_fake_clock_moves_when_told() -> None:
    """Both of its times go forward together, and never by themselves."""
    clock: Clock = FakeClock(start=100)
    assert clock.time_ns() == 100_000_000_000
    before = clock.monotonic_ns()
    cast(FakeClock, clock).advance(1.5)
    assert clock.time_ns() == 101_500_000_000
    assert clock.monotonic_ns() - before == 1_500_000_000
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-1)


async def test_an_execution_takes_no_time_under_a_fake_clock(tmp_path: Path) -> None:
    """And ends nevertheless."""
    document = await run(tmp_path, [node("A", prompt="a", output="a")], clock=FakeClock())
    assert (document["success"], document["execution_time"], document["result"]) == (True, 0.0, {"a": "a"})


async def test_a_scripted_agent_follows_its_script() -> None:
    """Entries are returned or raised in order; calls are recorded; a call too many is an error."""
    agent = ScriptedAgent({"paid": True}, TimeoutError("slow"), ValueError)
    assert await agent(a_call(amount=3)) == {"paid": True}
    with pytest.raises(TimeoutError, match="slow"):
        await agent(a_call())
    with pytest.raises(ValueError, match=r"^$"):
        await agent(a_call(attempt=2))
    with pytest.raises(AssertionError, match="The script of node 'Pay' has 3 entries; call 4"):
        await agent(a_call())
    assert agent.calls[0] == Recorded("Pay", {"amount": 3}, "Pay!", 1)
    assert [call.attempt for call in agent.calls] == [1, 1, 2, 1]


async def test_a_scripted_agent_may_repeat_its_last_entry() -> None:
    """`repeat` is for nodes that run any number of times; each call gets a copy of its own."""
    agent = ScriptedAgent(1, {"a": []}, repeat=True)
    first, second, third = [await agent(a_call()) for _ in range(3)]
    assert (first, second, third) == (1, {"a": []}, {"a": []})
    assert second is not third
    with pytest.raises(AssertionError):
        await ScriptedAgent(repeat=True)(a_call())


def test_a_scripted_agent_can_be_registered() -> None:
    """It is awaited in the event loop, without a thread."""
    assert as_agent("bank", ScriptedAgent(1)).mode == "async"


async def test_the_client_runs_the_lifespan() -> None:
    """Start and stop of the app stand around the requests, which see the lifespan's state."""
    lines = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        lines.append("start")
        yield {"pool": "the pool"}
        lines.append("stop")

    async def pool(request: Request) -> JSONResponse:
        return JSONResponse(request.state.pool)

    async with AgentMapClient(Starlette(routes=[Route("/", pool)], lifespan=lifespan), headers={"x-a": "b"}) as http:
        assert http.headers["x-a"] == "b"
        assert (await http.get("/")).json() == "the pool"
        assert lines == ["start"]
    assert lines == ["start", "stop"]


async def test_the_client_works_for_apps_without_a_lifespan() -> None:
    """An app that raises on, or returns from, the lifespan scope is called without one."""

    async def raising(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await JSONResponse(1)(scope, receive, send)

    async def returning(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await JSONResponse(1)(scope, receive, send)

    for app in (raising, returning):
        async with AgentMapClient(app) as http:
            assert (await http.get("/")).json() == 1


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_lifespan_that_fails_is_an_error(phase: str) -> None:
    """The exception of the app is the cause."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if phase == "startup":
            raise OSError("no disk")
        yield
        raise OSError("no disk")

    with pytest.raises(RuntimeError, match=f"(?s)The app's {phase} failed: .*no disk") as caught:
        async with AgentMapClient(Starlette(lifespan=lifespan)):
            pass
    assert isinstance(caught.value.__cause__, OSError)


async def test_without_httpx_the_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx is asked for only when the client is used."""
    real_import = builtins.__import__

    def no_httpx(name: str, *rest: Any) -> Any:
        if name == "httpx":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.delitem(sys.modules, "httpx", raising=False)
    monkeypatch.setattr(builtins, "__import__", no_httpx)
    with pytest.raises(RuntimeError, match="pip install httpx"):
        await AgentMapClient(Starlette()).__aenter__()
