"""Workflows for tests: rows as calls of `node`, and a service over the CSV file they make."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.context import AgentMapContext
from agentmap_asgi.services.agentmap import AgentMapService

Row = dict[str, str]

COLUMNS = (
    *("GraphName", "Node", "AgentType", "Prompt", "Input_Fields", "Output_Field", "Edge", "Success_Next"),
    *("Failure_Next", "Context", "Retry", "Timeout", "Map_Over", "Tool_Source", "Available_Tools"),
)


def node(
    name: str,
    agent: str = "",
    *,
    prompt: str = "",
    inputs: str = "",
    output: str = "",
    edge: str = "",
    ok: str = "",
    ko: str = "",
    context: Mapping[str, Any] | str = "",
    retry: str = "",
    timeout: str = "",
    map_over: str = "",
    source: str = "",
    tools: str = "",
    graph: str = "Flow",
) -> Row:
    """One row."""
    options = context if isinstance(context, str) else json.dumps(context)
    cells = (graph, name, agent, prompt, inputs, output, edge, ok, ko, options, retry, timeout, map_over, source, tools)
    return dict(zip(COLUMNS, cells, strict=True))


def chain(length: int, agent: str = "default", *, graph: str = "Flow") -> list[Row]:
    """So many nodes in a line."""
    return [node(f"N{i}", agent, edge=f"N{i + 1}" if i + 1 < length else "", graph=graph) for i in range(length)]


def sheet(rows: list[Row] | str) -> str:
    """The rows as a CSV file."""
    if isinstance(rows, str):
        return rows
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write(folder: Path, rows: list[Row] | str) -> Path:
    path = folder / "flows.csv"
    path.write_text(sheet(rows), encoding="utf-8")
    return path


def service(
    folder: Path,
    rows: list[Row] | str,
    *,
    kind: type[AgentMapService] = AgentMapService,
    config: Mapping[str, Any] | None = None,
    **context: Any,
) -> AgentMapService:
    """A service over the rows; keywords go to the context object. Reads a file, so not for the event loop."""
    settings = AgentMapConfig(**config) if config else None
    return kind(settings, source=write(folder, rows), context=AgentMapContext(**context))


@asynccontextmanager
async def serving(
    folder: Path,
    rows: list[Row] | str,
    *,
    kind: type[AgentMapService] = AgentMapService,
    config: Mapping[str, Any] | None = None,
    **context: Any,
) -> AsyncIterator[AgentMapService]:
    """The same from within the event loop, closed at the end."""
    made = await anyio.to_thread.run_sync(lambda: service(folder, rows, kind=kind, config=config, **context))
    try:
        yield made
    finally:
        await made.aclose()


async def run(
    folder: Path,
    rows: list[Row] | str,
    state: dict[str, Any] | None = None,
    *,
    graph: str = "Flow",
    config: Mapping[str, Any] | None = None,
    **context: Any,
) -> dict[str, Any]:
    """The document of one execution."""
    async with serving(folder, rows, config=config, **context) as made:
        return await made.execute_workflow(graph, state or {})


async def visited(made: AgentMapService, document: Mapping[str, Any]) -> list[str]:
    """The names of the nodes that ran, in the order in which they started."""
    events = await made.get_execution_events(document["execution_id"])
    return [event["node"] for event in events if event["event"] == "node_started"]
