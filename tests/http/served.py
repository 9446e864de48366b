"""A server process for the tests of streams: workflows whose gate is a file, so that it outlives the process."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import uvicorn

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext, Call, agent


@agent(idempotent=True)
async def step(call: Call) -> str:
    """Goes on when a file with the node's name is there."""
    while not (Path(os.environ["GATES"]) / call.node.name).exists():  # noqa: ASYNC110  # it comes from another process
        await asyncio.sleep(0.02)
    return call.node.name


def main(folder: str, port: str) -> None:
    config = AgentMapConfig(storage_url=f"sqlite:///{folder}/executions.db", shutdown_grace=0.2)
    app = AgentMapApp(f"{folder}/flows", config=config, context=AgentMapContext(agents={"step": step}))
    uvicorn.run(app, port=int(port), log_level="error")


if __name__ == "__main__":
    main(*sys.argv[1:])
