"""Clients and data for the host's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi.testclient import TestClient
from main import app
from sqlalchemy.orm import Session
from your_database import SessionLocal
from your_models import create_test_user

__all__ = ["authenticated_client", "create_test_user", "mock_db"]


@contextmanager
def authenticated_client() -> Iterator[TestClient]:
    """A client that Ada uses."""
    with TestClient(app, headers={"Authorization": "Bearer ada-token"}) as client:
        yield client


@contextmanager
def mock_db() -> Iterator[Session]:
    """A session with the database of the tests."""
    with SessionLocal() as session:
        yield session
