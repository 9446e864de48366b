"""Agents that use the host's database, cache and services. Nothing of it exists yet when the service is made."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cache import Cache, connect
from fastapi import FastAPI
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.services.fastapi import AgentMapService, include_agentmap_routes

HERE = Path(__file__).parent


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class UserService:
    def __init__(self, pool: sessionmaker[Session]) -> None:
        self._pool = pool

    def name_of(self, user_id: int) -> str:
        with self._pool() as session:
            return session.get_one(User, user_id).name


class NotificationService:
    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def send(self, user_id: int, text: str) -> int:
        return await self._cache.push(f"messages:{user_id}", text)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///shop.db"))
    Base.metadata.create_all(engine)
    app.state.db_pool = sessionmaker(engine)
    app.state.cache = connect(os.environ.get("REDIS_URL"))
    yield
    await app.state.cache.aclose()
    engine.dispose()


app = FastAPI(lifespan=lifespan)


def new_session() -> Any:
    return app.state.db_pool()


config = AgentMapConfig(
    csv_path=HERE / "workflows.csv",
    custom_agents_path=HERE / "custom_agents",
    database_session_factory=new_session,  # one for each attempt of a node, closed after it
    cache_service=lambda: app.state.cache,
    custom_services={
        "user_service": lambda: UserService(app.state.db_pool),
        "notification_service": lambda: NotificationService(app.state.cache),
    },
)
agentmap_service = AgentMapService(config)
include_agentmap_routes(app, prefix="/workflows", service=agentmap_service)
