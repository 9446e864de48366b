"""Many executions over few connections: each limit stands where it belongs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import QueuePool, create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from agentmap_asgi import AgentMapConfig, AgentMapContext, Call, agent, include_agentmap_routes

POOL = 5
engine = create_engine(
    os.environ.get("DATABASE_URL", "sqlite:///counter.db"),
    poolclass=QueuePool,
    pool_size=POOL,
    max_overflow=0,
    pool_recycle=3600,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS counts (number INTEGER)"))
    yield
    engine.dispose()


@agent(services=["database"])
def count(call: Call) -> int:
    """A plain function waits for a connection in its thread; the event loop does not."""
    session: Session = call.service("database")
    session.execute(text("INSERT INTO counts VALUES (:number)"), {"number": call.inputs["number"]})
    session.commit()
    return int(call.inputs["number"])


app = FastAPI(lifespan=lifespan)
config = AgentMapConfig(
    max_running=50,  # executions at once, all others wait
    max_threads=2 * POOL,  # plain functions at once
)
context = AgentMapContext(agents={"count": count}, database_session_factory=sessionmaker(engine))

service = include_agentmap_routes(
    app, prefix="/workflows", csv_file=Path(__file__).parent / "workflows.csv", config=config, context=context
)
