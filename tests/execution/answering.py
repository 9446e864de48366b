"""A process that answers every wait of a store, when it is told to: python answering.py FOLDER NUMBER.

Called `dies` it ends at the first node that runs after an answer.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService
from agentmap_asgi.agents.registry import Call
from agentmap_asgi.errors import ExecutionConflict


async def main(folder: Path, number: str) -> None:
    def note(call: Call) -> Any:
        if number == "dies":
            os._exit(9)
        with (folder / "notes").open("a", encoding="utf-8") as notes:
            notes.write(f"{call.execution_id} {call.inputs['a']}\n")

    config = AgentMapConfig(storage_url=f"sqlite:///{folder}/runs.db")
    context = AgentMapContext(agents={"note": note})
    made = AgentMapService(config, source=folder / "flows.csv", context=context)
    await made.start()
    known = await made.list_executions(status=("suspended",), limit=1_000)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    async def answer(execution: str) -> str | None:
        try:
            await made.resume_execution(execution, data=number)
        except ExecutionConflict:
            return None
        while (await made.wait_for_execution(execution, 10))["status"] != "completed":
            pass
        return execution

    won = await asyncio.gather(*(answer(one["execution_id"]) for one in known))
    await made.aclose()
    print(*(one for one in won if one is not None), flush=True)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
