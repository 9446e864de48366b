"""Workflows that take a while, served so that clients need not wait: `uvicorn main:app`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext, Call, agent

WORKFLOWS = Path(__file__).parent / "workflows"


class Road:
    """Where the lorry drives: closed for a while, or for good."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.accident = False


def make_app(road: Road, storage_url: str = "memory://") -> AgentMapApp:
    """The app over a road."""

    @agent(idempotent=True)
    async def carry(call: Call) -> str:
        await road.open.wait()
        if road.accident:
            raise RuntimeError("The lorry has lost the parcel")
        return "on its way"

    context = AgentMapContext(agents={"carry": carry})
    return AgentMapApp(WORKFLOWS, config=AgentMapConfig(storage_url=storage_url), context=context)


app = make_app(Road())
