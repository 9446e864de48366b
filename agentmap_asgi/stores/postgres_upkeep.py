"""Looking after the tables in PostgreSQL: are they in order, what is old, and who may use them."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import Any, Final
from zlib import crc32

import psycopg
from psycopg import sql as names

from ..errors import ConfigError, StoreDamaged, StoreUnusable
from . import postgres_sql as sql
from .postgres import PostgresStore
from .postgres_columns import PostgresColumns
from .postgres_link import Connection, Link, said
from .upkeep import DAY, Closed, Report

ROWS: Final = 2_000
"""Rows that are fetched at once."""
_TRIGGERS: Final = (
    "SELECT t.tgname, t.tgrelid::regclass::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid "
    "WHERE NOT t.tgisinternal AND c.relnamespace = to_regnamespace(%s) ORDER BY 1"
)


def check(url: str, schema: str) -> Report:
    """Look at every row and every checksum, as all is at one moment. Raises StoreUnusable."""
    report = Report()
    link = Link(url, schema)
    link.existing()
    with closing(link.connect(statement_timeout="0", idle_in_transaction_session_timeout="0")) as connection:
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            _look(connection, report, schema)
        except psycopg.Error as exc:
            if connection.closed:
                raise StoreUnusable(f"The store {link.shown} cannot be read just now: {said(exc)}") from exc
            report.reasons.append(f"The schema {schema} of {link.shown} cannot be read: {said(exc)}")
    return report


def _rows(connection: Connection, query: str) -> Any:
    with connection.cursor("looking", binary=True) as cursor:
        cursor.itersize = ROWS
        yield from cursor.execute(query.encode())


def _look(connection: Connection, report: Report, schema: str) -> None:
    for name, table in connection.execute(_TRIGGERS, [names.Identifier(schema).as_string()]).fetchall():
        report.reasons.append(f"The table {table} has a trigger {name}, which acts by itself")
    for namespace, status, count in connection.execute(
        "SELECT namespace, status, count(*) FROM executions GROUP BY namespace, status ORDER BY namespace, status"
    ).fetchall():
        report.counts.setdefault(namespace, {})[status] = count
    columns = PostgresColumns("", Closed())
    for row in _rows(connection, f"SELECT {sql.FULL_NAMES} FROM executions"):
        try:
            columns.row(row, strict=True)
        except StoreDamaged as exc:
            report.reasons.append(exc.message)
    for execution, *row in _rows(connection, "SELECT execution, path, sequence, text, sum FROM entries"):
        report.entries += 1
        try:
            columns.entry(execution, *row)
        except StoreDamaged as exc:
            report.reasons.append(exc.message)
    for name, text, total in _rows(connection, "SELECT hash, text, sum FROM definitions"):
        report.definitions += 1
        if crc32(text.encode()) != total:
            report.reasons.append(f"The checksum of definition {name} is wrong")
    for table in ("entries", "pins"):
        query = f"SELECT DISTINCT execution FROM {table} WHERE execution NOT IN (SELECT id FROM executions)"
        for (name,) in connection.execute(query.encode()).fetchall():
            report.reasons.append(f"Rows of {table} belong to an execution {name} that is not there")
    for execution, name in connection.execute(
        "SELECT id, definition FROM executions WHERE status IN ('queued', 'running', 'suspended') "
        "AND definition NOT IN (SELECT hash FROM definitions)"
    ).fetchall():
        report.reasons.append(f"The unfinished execution {execution} has lost its definition {name}")


def prune(url: str, schema: str, days: int, now: int | None = None) -> int:
    """Forget executions that ended more than some days ago, of all namespaces; how many there were."""
    if days < 1:
        raise ConfigError("Executions stay for a day at least, because of their idempotency keys")
    link = Link(url, schema)
    link.existing()
    with closing(link.connect()) as connection:
        namespaces = [name for (name,) in connection.execute("SELECT DISTINCT namespace FROM executions").fetchall()]
    moment = time.time_ns() if now is None else now
    return sum(asyncio.run(_prune(url, schema, name, moment - days * DAY, moment)) for name in namespaces)


async def _prune(url: str, schema: str, namespace: str, before: int, now: int) -> int:
    store = PostgresStore(url, namespace=namespace, schema=schema)
    await store.open()
    total = 0
    try:
        while found := await store.prune(before, now):
            total += found
    finally:
        await store.aclose()
    return total


def migrate(url: str, schema: str, grant: str | None = None) -> int:
    """Make the tables or bring them up to date, and let a role use them; the version that they have then.

    Raises StoreUnusable.
    """
    link = Link(url, schema)
    link.ready()
    if grant is not None:
        role, place = names.Identifier(grant), names.Identifier(schema)
        with closing(link.connect()) as connection, connection.transaction():
            try:
                connection.execute(names.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(place, role))
                connection.execute(
                    names.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}").format(
                        place, role
                    )
                )
            except psycopg.Error as exc:
                raise StoreUnusable(f"The rights cannot be granted to {grant}: {said(exc)}") from exc
    return len(sql.MIGRATIONS)
