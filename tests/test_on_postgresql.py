"""A service whose executions are kept in PostgreSQL."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from flows import node, sheet
from postgresql import Server

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService
from agentmap_asgi.agents.registry import Call

pytestmark = pytest.mark.anyio
ROWS = [
    node("A", "echo", inputs="x", output="a", edge="W", graph="Asks"),
    node("W", "suspend", output="w", edge="B", graph="Asks"),
    node("B", "echo", inputs="w", output="b", graph="Asks"),
    node("S", "slow", output="s", graph="Slow"),
]


async def slow(call: Call) -> None:
    await asyncio.sleep(300)


def service(server: Server, folder: Path, schema: str, **settings: Any) -> AgentMapService:
    source = folder / "flows.csv"
    source.write_text(sheet(ROWS))
    given = {"patrol_seconds": 0.05, "storage_schema": schema, **settings}
    config = AgentMapConfig(storage_url=server.url(), **given)
    return AgentMapService(config, source=source, context=AgentMapContext(agents={"slow": slow}))


async def test_any_process_shows_and_answers_what_another_runs(postgres: Server, tmp_path: Path) -> None:
    """Status, events and a stream come from one service, the execution from another; so does its answer."""
    schema = postgres.schema()
    one, two = [await asyncio.to_thread(service, postgres, tmp_path, schema) for _ in range(2)]
    await asyncio.gather(one.start(), two.start())
    begun = await one.start_execution("Asks", {"x": 1})
    name = begun["execution_id"]
    found = await two.until_settled(name, 10)
    assert found["status"] == "suspended"
    seen = [event["event"] async for event in two.stream_execution(name) if event is not None]
    assert seen[-1] == "suspended"
    await two.resume_execution(name, "answer", "yes")
    assert (await one.until_settled(name, 10))["result"] == {"x": 1, "a": 1, "w": "yes", "b": "yes"}
    assert [event["event"] for event in await one.get_execution_events(name)] == [
        event["event"] for event in await two.get_execution_events(name)
    ]
    await one.aclose()
    await two.aclose()


async def test_news_come_at_once(postgres: Server, tmp_path: Path) -> None:
    """A step, an answer and a cancellation of another process are known long before the next look."""
    schema = postgres.schema()
    one, two = [await asyncio.to_thread(service, postgres, tmp_path, schema, patrol_seconds=30) for _ in range(2)]
    await asyncio.gather(one.start(), two.start())
    two.store.look = 60.0
    loop = asyncio.get_running_loop()
    begun = loop.time()
    running = await one.start_execution("Slow", {})
    name = running["execution_id"]
    stream = two.stream_execution(name)
    seen = []
    async for event in stream:
        if event is not None:
            seen.append(event["event"])
        if event is not None and event["event"] == "node_started":
            break
    await two.cancel_execution(name)  # asks the first, whose patrol would look in half a minute
    async for event in stream:
        if event is not None:
            seen.append(event["event"])
    assert seen == ["started", "node_started", "cancelled"]
    assert loop.time() - begun < 25  # the patrol would have looked after 30, the stream after 60
    await one.aclose()
    await two.aclose()
