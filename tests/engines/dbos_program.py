"""A process of the tests of DBOS: a worker, or one that takes executions on and runs none.

Says what it does line by line on standard output, and what its agents do in a file that all processes append to.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.context import AgentMapContext
from agentmap_asgi.services.agentmap import AgentMapService


def say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


class Diary:
    """What agents do."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "diary", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, what: str, call: Call) -> None:
        line = {"what": what, "key": call.idempotency_key, "pid": os.getpid(), "at": time.time_ns()}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    async def acted(self, call: Call) -> str:
        self.write("began", call)
        await asyncio.sleep(random.uniform(0.002, 0.06))
        self.write("ended", call)
        return call.node.name


def service(folder: Path, settings: dict[str, Any]) -> AgentMapService:
    diary = Diary(folder)

    @agent(idempotent=True)
    async def work(call: Call) -> str:
        return await diary.acted(call)

    @agent(idempotent=True)
    async def slow(call: Call) -> str:
        diary.write("began", call)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            diary.write("cancelled", call)
            raise
        return ""

    @agent(idempotent=True)
    async def poison(call: Call) -> str:
        diary.write("began", call)
        os._exit(1)

    @agent
    async def once(call: Call) -> str:
        return await diary.acted(call)

    @agent(idempotent=True)
    async def flaky(call: Call) -> str:
        done = await diary.acted(call)
        if call.attempt < 2:
            raise ValueError("the first attempt")
        return done

    agents = {"work": work, "once": once, "flaky": flaky, "slow": slow, "poison": poison}
    context = AgentMapContext(agents=agents)
    return AgentMapService(AgentMapConfig(**settings), context=context, source=folder / "flows.csv")


async def front(made: AgentMapService) -> None:
    """Obeys a line after the other: start a workflow, answer a wait, wait for the end."""

    async def obey(told: dict[str, Any]) -> None:
        match told["do"]:
            case "start":
                found = await made.start_execution(told["graph"], told.get("state", {}))
            case "answer":
                found = await made.resume_execution(told["id"], "answer", told["data"])
            case "settled":
                found = await made.until_settled(told["id"], told["seconds"])
            case "events":
                found = {"events": await made.get_execution_events(told["id"])}
            case "cancel":
                found = await made.cancel_execution(told["id"])
        say(number=told["number"], document=found)

    tasks: set[asyncio.Task[None]] = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = asyncio.create_task(obey(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    made = await asyncio.to_thread(service, folder, settings)
    await made.start()
    say(ready=os.getpid())
    try:
        if made.config.run_executions:
            await asyncio.to_thread(sys.stdin.read)
        else:
            await front(made)
    finally:
        await made.aclose()


asyncio.run(main())
