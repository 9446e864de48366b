"""`sql`: named statements over an engine or a session, sync and async, with values that are only ever bound."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, service
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from agentmap_asgi.agents.sql import statements
from agentmap_asgi.agents.sql_call import _plain
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.errors import ConfigError

SHOP = """
-- What a shop asks.

-- name: orders_of
SELECT id, customer, amount FROM orders WHERE customer = :customer ORDER BY id;

-- name: some
SELECT id FROM orders WHERE id IN :ids ORDER BY id

-- name: total
SELECT sum(amount) FROM orders WHERE customer = :customer

-- name: add_order
INSERT INTO orders (customer, amount, lines) VALUES (:customer, :amount, :lines)

-- name: all
SELECT * FROM orders

-- name: broken
SELECT gone FROM orders WHERE customer = :customer
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A database, and the statements beside it."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, amount REAL, lines TEXT)")
        rows = [("Ada", 30.0), ("Bob", 7.5), ("Ada", 4.0)]
        connection.executemany("INSERT INTO orders (customer, amount) VALUES (?, ?)", rows)
        connection.commit()
    path.with_suffix(".sql").write_text(SHOP)
    return path


@pytest.fixture(params=["engine", "async engine", "session", "async session"])
def database(request: pytest.FixtureRequest, shop: Path) -> Iterator[dict[str, Any]]:
    """How a host may give it: settings and context keywords."""
    driver = "sqlite+aiosqlite" if "async" in request.param else "sqlite"
    url = f"{driver}:///{shop}"
    config: dict[str, Any] = {"sql_path": str(shop.with_suffix(".sql")), "sql_max_rows": 3}
    if "engine" in request.param:
        yield {"config": {**config, "sql_url": url}}
    elif driver == "sqlite":
        engine = create_engine(url)
        yield {"config": config, "database_session_factory": sessionmaker(engine)}
        engine.dispose()
    else:
        made = create_async_engine(url)
        yield {"config": config, "database_session_factory": async_sessionmaker(made)}
        asyncio.run(made.dispose())


CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Any]] = {
    "rows": ("orders_of", {}, {"customer": "Bob"}, [{"id": 2, "customer": "Bob", "amount": 7.5}]),
    "no rows": ("orders_of", {}, {"customer": "Eve"}, []),
    "a row": ("orders_of", {"result": "row"}, {"customer": "Ada"}, {"id": 1, "customer": "Ada", "amount": 30.0}),
    "no row": ("orders_of", {"result": "row"}, {"customer": "Eve"}, None),
    "a value": ("total", {"result": "value"}, {"customer": "Ada"}, 34.0),
    "a list": ("some", {}, {"ids": [1, 3, 9]}, [{"id": 1}, {"id": 3}]),
    "params": ("orders_of", {"result": "count", "params": {"customer": "{who.name}"}}, {"who": {"name": "Ada"}}, 2),
    "a text that looks like SQL": ("orders_of", {}, {"customer": "x' OR 1=1 --"}, []),
    "a text that looks like a field": ("orders_of", {}, {"customer": "{who}", "who": "Ada"}, []),
    "an insert": ("add_order", {"result": "count", "params": {"customer": "{name}", "amount": 1, "lines": [{"n": 1}]}},
                  {"name": "Eve"}, 1),
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "context", "state", "expected"), CALLS.values(), ids=CALLS)
async def test_statements(
    name: str, context: dict[str, Any], state: dict[str, Any], expected: Any, database: dict[str, Any], tmp_path: Path
) -> None:
    """Rows, a row, a value or a count; what was written is there afterwards."""
    rows = [node("A", "sql", prompt=name, inputs="|".join(state), output="out", context=context)]
    document = await run(tmp_path, rows, state, **database)
    assert document["success"], document["error"]
    assert document["result"].get("out") == expected

    def written() -> list[Any]:
        with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
            return connection.execute("SELECT lines FROM orders WHERE customer = 'Eve'").fetchall()

    assert await asyncio.to_thread(written) == ([(json.dumps([{"n": 1}]),)] if name == "add_order" else [])


@pytest.mark.anyio
async def test_failures(database: dict[str, Any], tmp_path: Path, shop: Path) -> None:
    """Too many rows, what the database refuses, no rows where some are wanted; without the values."""
    await asyncio.to_thread(_add, shop)
    cases = [
        ("all", {}, "more than the 3 rows of sql_max_rows"),
        ("broken", {}, "'broken' failed: OperationalError: no such column: gone"),
        ("add_order", {"result": "row", "params": {"customer": "x", "amount": 1, "lines": ""}}, "gives no rows"),
    ]
    for name, context, words in cases:
        rows = [node("A", "sql", prompt=name, inputs="customer", output="out", context=context)]
        document = await run(tmp_path, rows, {"customer": "top-secret"}, **database)
        assert document["error"]["code"] == "data_unusable"
        assert words in document["error"]["message"]
        assert "top-secret" not in document["error"]["message"]


def _add(shop: Path) -> None:
    with closing(sqlite3.connect(shop)) as connection:
        connection.execute("INSERT INTO orders (customer) VALUES ('Zoe')")
        connection.commit()


def test_what_can_be_seen_is_said_when_a_file_is_loaded(tmp_path: Path, shop: Path) -> None:
    """Statements and parameters that there are not; that no statements or no database are configured."""
    path = str(shop.with_suffix(".sql"))
    full = {"sql_path": path, "sql_url": "sqlite://"}
    cases: list[tuple[dict[str, str], dict[str, Any], list[str]]] = [
        (node("A", "sql", prompt="orders_of", inputs="customer"), full, []),
        (node("A", "sql", inputs="who:customer", context={"statement": "total", "result": "value"}), full, []),
        (node("A", "sql", prompt="order_of", inputs="customer"), full, ["AM-A004"]),
        (node("A", "sql", prompt="{statement}", inputs="customer"), full, ["AM-A004"]),
        (node("A", "sql"), full, ["AM-A004"]),
        (node("A", "sql", prompt="orders_of", inputs="name"), full, ["AM-A004"]),
        (node("A", "sql", prompt="orders_of", context={"params": {}}), full, ["AM-A004"]),
        (node("A", "sql", prompt="all", context={"result": "everything"}), full, ["AM-A004"]),
        (node("A", "sql", prompt="all"), {}, ["AM-A009"]),
        (node("A", "sql", prompt="all"), {"sql_path": path}, ["AM-A009"]),
    ]
    for row, config, expected in cases:
        made = service(tmp_path, [row], config=config)
        found = made.get_workflow_definition("Flow")["diagnostics"]
        assert [one["code"] for one in found] == expected, found
    made = service(tmp_path, [node("A", "sql", prompt="order_of", inputs="customer")], config=full)
    assert "'orders_of'" in made.get_workflow_definition("Flow")["diagnostics"][0]["hint"]


def test_only_what_reads_runs_again_after_a_crash(tmp_path: Path, shop: Path) -> None:
    """A statement that writes may have been done."""
    config = {"sql_path": str(shop.with_suffix(".sql")), "sql_url": "sqlite://"}
    rows = [
        node("A", "sql", prompt="all", edge="B"),
        node("B", "sql", prompt="add_order", inputs="customer|amount|lines"),
    ]
    made = service(tmp_path, rows, config=config)
    repeatable = made.registry["sql"].repeatable
    assert repeatable is not None
    assert [repeatable(one) for one in made.catalogue.find("Flow").nodes.values()] == [True, False]


def test_statements_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    """By their names, or those of their files; what is wrong is said at the start."""
    (tmp_path / "a.sql").write_text("-- name: one\nSELECT 1;\n-- name: two\n-- comment\nSELECT 2\n")
    (tmp_path / "three.sql").write_text("SELECT 3;\n")
    assert statements(str(tmp_path)) == {"one": "SELECT 1", "two": "-- comment\nSELECT 2", "three": "SELECT 3"}
    (tmp_path / "b.sql").write_text("-- name: one\nSELECT 1\n")
    with pytest.raises(ConfigError, match="'one' is given twice"):
        statements(str(tmp_path))
    (tmp_path / "b.sql").write_text("-- name: four\n;\n")
    with pytest.raises(ConfigError, match=r"'four' in .* is empty"):
        statements(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        statements(str(tmp_path / "gone"))


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["nonsense", "nosuch://user:hunter2@host/x", "mysql+nodriver://u:hunter2@h/x"])
async def test_a_url_that_cannot_be_used_keeps_its_password(url: str, tmp_path: Path, shop: Path) -> None:
    """In the error, and in the text of the settings."""
    config = {"sql_path": str(shop.with_suffix(".sql")), "sql_url": url}
    document = await run(tmp_path, [node("A", "sql", prompt="all", output="out")], config=config)
    assert "sql_url" in document["error"]["message"]
    assert "hunter2" not in json.dumps(document) + repr(AgentMapConfig(sql_url=url))


def test_values_become_json() -> None:
    """Times, decimals, ids and bytes have one form each."""
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal
    from uuid import UUID

    values: list[tuple[Any, Any]] = [
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00+00:00"),
        (datetime(2026, 1, 2, tzinfo=UTC).date(), "2026-01-02"),
        (Decimal("2.00"), 2),
        (Decimal("0.1"), 0.1),
        (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        (timedelta(seconds=1.5), 1.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\xff", "/w=="),
        ([b"", {1: None}], ["", {"1": None}]),
    ]
    for given, expected in values:
        assert _plain(given) == expected
