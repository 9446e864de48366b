"""The store file: whether a place can hold one, how it is made, and how it is opened and brought up to date."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import StoreUnavailable, StoreUnusable
from .locks import REMOTE, file_system
from .schema import APPLICATION_ID, MIGRATIONS

SMALL: Final = 16 * 1024 * 1024
"""Bytes up to which a file is looked through when it is opened."""

PRAGMAS: Final = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cell_size_check = ON",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 0",
    "PRAGMA journal_size_limit = 16777216",
    *(("PRAGMA fullfsync = ON", "PRAGMA checkpoint_fullfsync = ON") if sys.platform == "darwin" else ()),
)


def ready(path: Path) -> None:
    """See that a store can be at a place, and make its folder. Raises StoreUnusable."""
    path = path.absolute()
    with suppress(OSError):
        kind = file_system(path, Path("/proc/self/mounts").read_text(encoding="utf-8"))
        if kind in REMOTE:
            raise StoreUnusable(f"The store {path} is on a network file system ({kind}), which cannot lock it; move it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else None
    except OSError as exc:
        raise StoreUnusable(f"The store {path} cannot be made: {exc.strerror} ({exc.filename})") from exc
    if path.is_dir():
        raise StoreUnusable(f"The store {path} is a folder; name a file")
    log = path.with_name(path.name + "-wal")
    # The file is looked for again: another process may have made it, and its log, meanwhile.
    if size is None and log.exists() and log.stat().st_size and not path.exists():
        raise StoreUnusable(
            f"The store {path} is missing, but its log {log.name} is there with what was written last; "
            "put the file back, or move the log away to begin anew"
        )
    if size == 0:
        raise StoreUnusable(f"The store {path} is empty, which no store ever is; put it back, or move it away")
    unwritable = path if size is not None and not _writable(path) else path.parent
    if not _writable(unwritable):
        raise StoreUnusable(f"The store {path} cannot be written: {unwritable} is read-only for this process")


def existing(path: Path) -> None:
    """Raises StoreUnusable for a file that is not there: whoever looks after a store does not make one."""
    if not path.exists():
        raise StoreUnusable(f"There is no store {path}")


def _writable(path: Path) -> bool:
    # A file that nobody may write is meant to be left alone, also by root, who could.
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)


def make(path: Path) -> None:
    """A new store file. It gets its name when it is complete, so that a crash leaves none or a whole one."""
    draft = path.with_name(path.name + ".new")
    for leftover in (draft, *(draft.with_name(draft.name + end) for end in ("-wal", "-shm", "-journal"))):
        leftover.unlink(missing_ok=True)
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(draft, isolation_level=None)
        try:
            for pragma in (f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA journal_mode = WAL", *PRAGMAS):
                connection.execute(pragma).fetchall()
            migrate(connection, MIGRATIONS)
        finally:
            connection.close()
        draft.replace(path)
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except (sqlite3.Error, OSError) as exc:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise StoreUnusable(f"The store {path} cannot be made: {exc}") from exc


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """Bring a file to the newest version, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in migrations[_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def connect(path: Path, busy_timeout: float, *, checked: bool = True, upgrade: bool = False) -> sqlite3.Connection:
    """A connection to a store file that is there. Raises StoreUnusable, or StoreUnavailable when others hold it.

    `checked` looks whether it is a store in order, `upgrade` brings an older format up to date.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=busy_timeout,
        )
    except sqlite3.Error as exc:
        raise StoreUnusable(f"The store {path} cannot be opened: {exc}") from exc
    try:
        for pragma in PRAGMAS:
            connection.execute(pragma).fetchall()
        if checked:
            _check(connection, path)
        if upgrade and _version(connection) < len(MIGRATIONS):
            migrate(connection, MIGRATIONS)
    except UnicodeDecodeError as exc:  # in the words with which SQLite says what is wrong
        connection.close()
        raise StoreUnusable(f"The store {path} is damaged, or no store: it holds texts that are none") from exc
    except sqlite3.DatabaseError as exc:
        connection.close()
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreUnavailable(f"The store cannot be opened just now: {exc}") from exc
        raise StoreUnusable(f"The store {path} is damaged, or no store: {exc}") from exc
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _version(connection)
    if application != APPLICATION_ID:
        raise StoreUnusable(f"The store {path} is a SQLite file of another program; name another place")
    if version > len(MIGRATIONS):
        raise StoreUnusable(
            f"The store {path} was written by a newer version (its format is {version}, this one knows up to "
            f"{len(MIGRATIONS)}); update agentmap-asgi"
        )
    size, log = path.stat().st_size, path.with_name(path.name + "-wal")
    ((pages,), (page,)) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    if size < pages * page and not (log.exists() and log.stat().st_size):
        raise StoreUnusable(f"The store {path} is damaged: {size} bytes of {pages * page} are there")
    if size <= SMALL:
        for problem in problems(connection):
            raise StoreUnusable(f"The store {path} is damaged: {problem}")
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise StoreUnusable(f"The store {path} is on a file system that cannot share memory between processes; move it")
    for problem in schema_problems(connection):
        raise StoreUnusable(f"The store {path} is not as it was made: {problem}")


def problems(connection: sqlite3.Connection, *, thorough: bool = False) -> list[str]:
    """What SQLite itself finds wrong."""
    found = connection.execute(f"PRAGMA {'integrity_check' if thorough else 'quick_check(1)'}").fetchall()
    return [str(text) for (text,) in found if text != "ok"]


def schema_problems(connection: sqlite3.Connection) -> list[str]:
    """Tables that lack or differ, and triggers and views, which would act by themselves."""
    query = "SELECT name, type, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    model = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(model, MIGRATIONS[: _version(connection)])
        wanted = {name: (kind, sql) for name, kind, sql in model.execute(query)}
    finally:
        model.close()
    found = {name: (kind, sql) for name, kind, sql in connection.execute(query)}
    wrong = [f"{what[0]} {name} is missing or different" for name, what in wanted.items() if found.get(name) != what]
    return wrong + [f"it has a {kind} {name}" for name, (kind, _) in found.items() if kind in ("trigger", "view")]
