"""A host's database: SQLAlchemy on a SQLite file in the working folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite:///host.db")

engine = create_engine(DATABASE_URL)
SessionLocal = sessionmaker(bind=engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The host's tables."""


async def create_db_pool() -> sessionmaker[Session]:
    """What the host opens when it starts."""
    Base.metadata.create_all(engine)
    return SessionLocal


def get_db_session(pool: sessionmaker[Session]) -> Iterator[Session]:
    """A session of the pool, closed after use."""
    with pool() as session:
        yield session


def get_db() -> Iterator[Session]:
    """The dependency of routes: a session for one request."""
    Base.metadata.create_all(engine)
    with SessionLocal() as session:
        yield session


def rows(table: Any) -> list[Any]:
    """Everything in a table, for those who look at it afterwards."""
    with SessionLocal() as session:
        return list(session.query(table))
