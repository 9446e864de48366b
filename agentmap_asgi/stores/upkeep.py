"""Looking after a store file: is it in order, a copy of it, and what is old. Works beside processes that use it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from zlib import crc32

from ..config import masked
from ..errors import ConfigError, StoreDamaged, StoreUnusable
from . import schema
from .columns import Columns
from .files import connect, existing, problems, ready, schema_problems
from .sqlite import SQLiteStore

DAY: Final = 86_400 * 10**9


@dataclass(slots=True)
class Report:
    """What was found in a store file."""

    reasons: list[str] = field(default_factory=list)
    """What is wrong, a sentence each."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Executions, by namespace and status."""
    entries: int = 0
    definitions: int = 0


class Closed:
    """Stands for a codec whose key is not at hand: checksums are those of what is stored, so it need not be read."""

    def encode(self, data: bytes, /) -> bytes:
        return data

    def decode(self, data: bytes, /) -> bytes:
        return b""


def place(url: str) -> Path:
    """The file of a `sqlite:///` URL, or of a path. Raises ConfigError for a store that has no file."""
    kind, sign, rest = url.partition("://")
    if sign and kind != "sqlite":
        raise ConfigError(f"storage_url={masked(url)!r} is kept in no file; name one, like agentmap_data/agentmap.db")
    return Path(rest.removeprefix("/") if sign else url)


def check(path: Path) -> Report:
    """Look at everything: SQLite's own structures, the tables, each row and each checksum."""
    report = Report()
    existing(path)
    try:
        ready(path)
        with closing(connect(path, 10.0)) as connection:
            connection.execute("PRAGMA query_only = ON")
            _look(connection, report)
    except StoreUnusable as exc:
        report.reasons.append(exc.message)
    except UnicodeDecodeError:
        report.reasons.append(f"The store {path} is damaged: it holds texts that are none")
    except sqlite3.DatabaseError as exc:
        report.reasons.append(f"The store {path} is damaged: {exc}")
    return report


def _look(connection: sqlite3.Connection, report: Report) -> None:
    connection.execute("BEGIN")  # all is seen as it was at one moment
    report.reasons += problems(connection, thorough=True)
    report.reasons += schema_problems(connection)
    for namespace, status, count in connection.execute(
        "SELECT namespace, status, count(*) FROM executions GROUP BY namespace, status ORDER BY namespace, status"
    ):
        report.counts.setdefault(str(namespace), {})[str(status)] = count
    columns = Columns("", Closed())
    for found in connection.execute(f"SELECT {schema.FULL_NAMES} FROM executions"):
        try:
            columns.row(found, strict=True)
        except StoreDamaged as exc:
            report.reasons.append(exc.message)
    for execution, *found in connection.execute("SELECT execution, path, sequence, text, sum, last FROM entries"):
        try:
            if isinstance(found[2], bytes):  # without the key it is not known how many there are
                columns.entry(str(execution), *found[:4])
                report.entries += 1
            else:
                report.entries += len(columns.taken_apart(str(execution), *found))
        except StoreDamaged as exc:
            report.reasons.append(exc.message)
    for name, text, total in connection.execute("SELECT hash, text, sum FROM definitions"):
        report.definitions += 1
        if not isinstance(text, str) or crc32(text.encode()) != total:
            report.reasons.append(f"The checksum of definition {name} is wrong")
    for table, number, *_ in connection.execute("PRAGMA foreign_key_check"):
        report.reasons.append(f"Row {number} of {table} belongs to no execution")
    for execution, name in connection.execute(
        "SELECT id, definition FROM executions WHERE status IN ('queued', 'running', 'suspended') "
        "AND definition NOT IN (SELECT hash FROM definitions)"
    ):
        report.reasons.append(f"The unfinished execution {execution} has lost its definition {name}")

    for graph_id, name in connection.execute(
        "SELECT DISTINCT graph_id, definition FROM versions WHERE definition NOT IN (SELECT hash FROM definitions)"
    ):
        report.reasons.append(f"The version {name} of {graph_id} has lost its definition")


def backup(path: Path, target: Path) -> int:
    """Copy a store, as it is at one moment, to a file that must not be there; its size in bytes."""
    existing(path)
    if target.exists():
        raise ConfigError(f"{target} is there already; name a file that is not")
    draft = target.with_name(target.name + ".new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if draft.exists():
            raise ConfigError(f"{draft} is there: another backup is being made, or was not finished; remove it")
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as exc:
        raise ConfigError(f"{target} cannot be made: {exc.strerror}") from exc
    try:
        with closing(connect(path, 10.0)) as source, closing(sqlite3.connect(draft, isolation_level=None)) as copy:
            source.backup(copy)
            found = problems(copy)
        if found:
            raise ConfigError(f"The copy is not in order: {found[0]}")
        os.link(draft, target)  # unlike a renaming it never replaces what somebody has put there meanwhile
    except (sqlite3.Error, OSError) as exc:
        raise ConfigError(f"The store {path} cannot be copied to {target}: {exc}") from exc
    finally:
        for end in ("", "-wal", "-shm"):
            with suppress(OSError):
                draft.with_name(draft.name + end).unlink()
    return target.stat().st_size


def prune(path: Path, days: int, now: int | None = None) -> int:
    """Forget executions that ended more than some days ago, of all namespaces; how many there were."""
    existing(path)
    if days < 1:
        raise ConfigError("Executions stay for a day at least, because of their idempotency keys")
    with closing(connect(path, 10.0)) as connection:
        namespaces = [name for (name,) in connection.execute("SELECT DISTINCT namespace FROM executions")]
    moment = time.time_ns() if now is None else now
    return sum(asyncio.run(_prune(path, name, moment - days * DAY, moment)) for name in namespaces)


async def _prune(path: Path, namespace: str, before: int, now: int) -> int:
    store = SQLiteStore(path, namespace=namespace)
    await store.open()
    total = 0
    try:
        while found := await store.prune(before, now):
            total += found
    finally:
        await store.aclose()
    return total
