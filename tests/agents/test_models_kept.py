"""Model nodes in a durable store: what is known again after a wait, a crash, or a change of the settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from flows import node, service, serving

from agentmap_asgi.agents.gathering import gathered
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.context import AgentMapContext
from agentmap_asgi.execution.plan import Plan
from agentmap_asgi.testing.models import Asks, FakeModels, Hangs
from agentmap_asgi.workflows.loader import read_workflows

pytestmark = pytest.mark.anyio


def look(number: int) -> str:
    """Looks up."""
    return f"order {number}"


ROWS = [
    node("Ask", "llm", inputs="text", output="answer", context={"memory_key": "talk"}, edge="Human"),
    node("Human", "suspend", output="more", edge="Again"),
    node("Again", "llm", inputs="more", output="last", context={"memory_key": "talk"}),
]


def settings(folder: Path, fake: FakeModels) -> dict[str, Any]:
    return {"storage_url": f"sqlite:///{folder}/runs.db", "providers": fake.providers(delay=0.01)}


async def test_a_conversation_goes_on_after_a_wait(tmp_path: Path) -> None:
    """In another process: the memory and the usage are those of the whole execution."""
    async with FakeModels("first", "second") as fake:
        config = settings(tmp_path, fake)
        async with serving(tmp_path, ROWS, config=config) as made:
            asked = await made.execute_workflow("Flow", {"text": "Hi"})
            assert (asked["status"], asked["usage"]["requests"]) == ("suspended", 1)
        async with serving(tmp_path, ROWS, config=config) as made:
            await made.resume_execution(asked["execution_id"], data="And?")
            done = await made.until_settled(asked["execution_id"], 10)
        assert fake.requests[1].messages == [("user", "Hi"), ("assistant", "first"), ("user", "And?")]
    assert (done["result"]["last"], done["usage"]["requests"]) == ("second", 2)
    assert [message["content"] for message in done["result"]["talk"]] == ["Hi", "first", "And?", "second"]


async def test_a_model_is_asked_again_after_a_crash(tmp_path: Path) -> None:
    """By whoever opens the store next; the first request is closed when its process stops."""
    rows = [node("Ask", "llm", inputs="text", output="answer")]
    async with FakeModels(Hangs(), "at last") as fake:
        config = {**settings(tmp_path, fake), "shutdown_grace": 0.0}
        first = await anyio.to_thread.run_sync(lambda: service(tmp_path, rows, config=config))
        started = await first.start_execution("Flow", {"text": "Hi"})
        while not fake.requests:  # noqa: ASYNC110  # the fake is no part of what is tested
            await asyncio.sleep(0.01)
        await first.aclose()
        await asyncio.wait_for(fake.requests[0].gone.wait(), 5)
        async with serving(tmp_path, rows, config=config) as made:
            await made.start()
            done = await made.until_settled(started["execution_id"], 10)
    assert (done["status"], done["result"]["answer"]) == ("completed", "at last")


@pytest.mark.parametrize(
    ("row", "again"),
    [
        (node("A", "llm", inputs="x"), True),
        (node("A", "llm", inputs="x", tools="look"), False),
        (node("A", "llm", inputs="x", tools="look", context={"idempotent": True}), True),
        (node("A", "summary", inputs="x", context={"llm": True}), True),
        (node("A", "tool_agent", inputs="x", tools="look"), False),
    ],
)
def test_what_may_run_again(row: dict[str, str], again: bool) -> None:
    """Asking does no harm; a tool may."""
    from flows import sheet

    config = AgentMapConfig(providers={"x": {"base_url": "http://127.0.0.1:1", "model": "m"}})
    registry = gathered(config, AgentMapContext(tools=[look]))
    (workflow,) = read_workflows(sheet([row]).encode(), "flows.csv", registry=registry).workflows
    assert workflow.errors == ()
    (plan,) = Plan(workflow, registry).nodes
    assert plan.may_run_again is again


async def test_settings_that_are_gone_are_said(tmp_path: Path) -> None:
    """An execution goes on with the rows that it began with; a tool that is there no more fails its node."""
    rows = [
        node("Human", "suspend", output="more", edge="Ask"),
        node("Ask", "llm", inputs="more", output="a", ko="Tell", tools="look"),
        node("Tell", "echo", inputs="error", output="why", edge="Use"),
        node("Use", "tool_agent", inputs="more", tools="look", ko="End"),
        node("End", "echo", inputs="error", output="end"),
    ]
    async with FakeModels(Asks(("look", {"number": 1}))) as fake:
        config = settings(tmp_path, fake)
        async with serving(tmp_path, rows, config=config, tools=[look]) as made:
            asked = await made.execute_workflow("Flow", {})
        del config["providers"]
        async with serving(tmp_path, rows, config=config) as made:
            await made.resume_execution(asked["execution_id"], data=1)
            done = await made.until_settled(asked["execution_id"], 10)
    assert done["result"]["why"] == "There is no tool 'look'", done
    assert done["result"]["end"] == "There is no tool for this row any more"
