"""Bounds over all processes, and what becomes of DBOS's records."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from flows import node, serving
from postgresql import Server

from agentmap_asgi.agents.registry import Call, agent

pytestmark = pytest.mark.anyio


async def test_bounds_hold_and_records_are_forgotten(hosts_dbos: str, tmp_path: Path) -> None:
    """`max_running_everywhere` counts executions of all processes; DBOS forgets those that the store forgets."""
    from dbos import DBOS

    at_work = most = 0

    @agent(idempotent=True)
    async def work(call: Call) -> str:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.05)
        at_work -= 1
        return "done"

    config: dict[str, Any] = {
        "engine": "dbos", "engine_url": hosts_dbos, "storage_url": hosts_dbos, "storage_schema": Server.schema(),
        "namespace": "bounds", "max_running_everywhere": 2,
    }  # fmt: skip
    async with serving(tmp_path, [node("A", "work", output="a")], config=config, agents={"work": work}) as made:
        documents = await asyncio.gather(*(made.execute_workflow("Flow", {}) for _ in range(6)))
        assert [document["result"] for document in documents] == [{"a": "done"}] * 6
        assert most == 2

        async def kept() -> list[str]:
            found = await DBOS.list_workflows_async(workflow_id_prefix="agentmap:bounds:")
            return [workflow.status for workflow in found]

        while await kept() != ["SUCCESS"] * 6:  # noqa: ASYNC110  # DBOS keeps the end after the store has it
            await asyncio.sleep(0.05)
        engine = made._runtime().engine
        await engine.tidy(time.time_ns() - 60 * 10**9)
        assert len(await kept()) == 6
        await engine.tidy(time.time_ns() + 10**9)
        assert await kept() == []
