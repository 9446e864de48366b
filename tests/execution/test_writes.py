"""How often an execution is written, and what one write holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from flows import node, serving

from agentmap_asgi.agents.registry import Call
from agentmap_asgi.services.agentmap import AgentMapService

pytestmark = pytest.mark.anyio

ROWS = [
    node("A", "waits", output="a", edge="B"),
    node("B", "echo", inputs="a", output="b", edge="C"),
    node("C", "waits", output="c"),
]


async def waits(call: Call) -> Any:
    await asyncio.sleep(0)
    return call.node.name


def counted(made: AgentMapService) -> list[list[str]]:
    """What each write holds, as kinds of events; the store is the real one."""
    writes: list[list[str]] = []
    store = made.store
    create, append = store.create, store.append

    def kinds(given: Any) -> list[str]:
        return [text[1 : text.index(",")] for lines in given.lines() for text in lines.texts]

    def creating(start: Any) -> Any:
        writes.append(kinds(start))
        return create(start)

    def appending(batch: Any) -> Any:
        writes.append(kinds(batch))
        return append(batch)

    store.create, store.append = creating, appending  # type: ignore[method-assign]
    return writes


STARTED, RAN, BEGAN, FINISHED, ENDED = "01236"


@pytest.mark.parametrize(
    ("durability", "expected"),
    [
        ("sync", [[STARTED, BEGAN], [FINISHED, RAN, BEGAN], [FINISHED, ENDED]]),
        ("exit", [[STARTED, BEGAN], [FINISHED, RAN, RAN, ENDED]]),
    ],
)
async def test_an_execution_is_written_no_more_often_than_is_promised(
    tmp_path: Path, durability: str, expected: list[list[str]]
) -> None:
    """The start and the first awaited node share a write. What nobody has been given yet of a node is one record."""
    config = {"storage_url": f"sqlite:///{tmp_path / 'store.db'}", "durability": durability}
    async with serving(tmp_path, ROWS, config=config, agents={"waits": waits}) as made:
        writes = counted(made)
        found = await made.execute_workflow("Flow", {})
        assert found["success"]
        assert writes == expected


@pytest.mark.parametrize("storage", ["sync", "async", "exit", "memory"])
async def test_events_are_the_same_however_they_are_written(tmp_path: Path, storage: str) -> None:
    config: dict[str, Any] = {"storage_url": "memory://"}
    if storage != "memory":
        config = {"storage_url": f"sqlite:///{tmp_path / 'store.db'}", "durability": storage}
    async with serving(tmp_path, ROWS, config=config, agents={"waits": waits}) as made:
        found = await made.execute_workflow("Flow", {})
        events = await made.get_execution_events(found["execution_id"])
    assert [event["sequence"] for event in events] == list(range(1, 9))
    assert [(event["event"], event.get("node")) for event in events] == [
        ("started", None),
        *((name, which) for which in "ABC" for name in ("node_started", "node_finished")),
        ("completed", None),
    ]
    assert [event["edge_taken"] for event in events if event["event"] == "node_finished"] == [["B"], ["C"], []]


async def test_who_watches_sees_an_awaited_node_begin_before_it_ends(tmp_path: Path) -> None:
    """In memory a node has one record in the end; whoever has seen its beginning is then given its end alone."""
    go = asyncio.Event()

    async def stands(call: Call) -> Any:
        await go.wait()
        return 1

    rows = [node("A", "stands", output="a")]
    async with serving(tmp_path, rows, config={"storage_url": "memory://"}, agents={"stands": stands}) as made:
        begun = await made.start_execution("Flow", {})
        seen = []
        async for event in made.stream_execution(begun["execution_id"]):
            if event is None:
                continue
            seen.append((event["sequence"], event["event"]))
            if event["event"] == "node_started":
                go.set()
    assert seen == [(1, "started"), (2, "node_started"), (3, "node_finished"), (4, "completed")]


async def test_the_document_of_one_caller_is_not_that_of_another(tmp_path: Path) -> None:
    """What a caller changes in it changes nothing of what is kept, or is told later."""
    config = {"storage_url": f"sqlite:///{tmp_path / 'store.db'}"}
    async with serving(tmp_path, [node("A", "echo", inputs="x", output="a")], config=config) as made:
        run, _ = await made._begun("Flow", {"x": {"deep": [1]}}, None, None)
        assert run is not None
        await run.wait()
        first = await made._document(run)
        first["result"]["a"]["deep"].append(2)
        first["tags"].append("mine")
        second = await made._document(run)
        kept = await made.get_execution_status(run.id)
    assert second["result"]["a"] == kept["result"]["a"] == {"deep": [1]}
    assert second["tags"] == kept["tags"] == []
    assert second == kept
