"""Connections to PostgreSQL: made, checked and brought up to date; what their errors mean; values in arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from struct import pack
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import errors, pq, sql
from psycopg.adapt import Buffer, Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..config import masked
from ..errors import StoreUnavailable, StoreUnusable
from .postgres_sql import META, MIGRATIONS, TABLES, VERSION

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

DEFAULTS: Final = {
    "application_name": "agentmap-asgi",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""What a URL leaves out. A server that is gone without a word is noticed after about fifteen seconds."""
SETTINGS: Final = {
    "client_encoding": "UTF8",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "60s",
}
"""Of each session. A process that stands still must not hold rows that others wait for; but of a transaction that is
sent in parts, and not to its end, the server does not count how long it is idle: see `postgres_sql.CUT_OFF`.
"""


class Array:
    """Values that are sent as one array, in PostgreSQL's binary format."""

    __slots__ = ("items",)
    oid = 0
    of = 0

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def parts(self) -> list[bytes]:
        raise NotImplementedError


_NULL: Final = pack("!i", -1)


class Bytes(Array):
    __slots__ = ()
    oid, of = 1001, 17

    def parts(self) -> list[bytes]:
        found = []
        for item in self.items:
            if item is None:
                found.append(_NULL)
            else:
                found += (pack("!i", len(item)), item)
        return found


class Texts(Array):
    __slots__ = ()
    oid, of = 1009, 25

    def parts(self) -> list[bytes]:
        found = []
        for item in self.items:
            if item is None:
                found.append(_NULL)
            else:
                data = item.encode()
                found += (pack("!i", len(data)), data)
        return found


class Integers(Array):
    __slots__ = ()
    oid, of = 1016, 20

    def parts(self) -> list[bytes]:
        return [_NULL if item is None else pack("!iq", 8, item) for item in self.items]


KINDS: Final[dict[str, type[Array]]] = {"bytea": Bytes, "text": Texts, "bigint": Integers}


class _ArrayDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: Array) -> Buffer:
        return b"".join([pack("!iiiii", 1, 1, obj.of, len(obj.items), 1), *obj.parts()])


_DUMPERS: Final = {kind: type(f"_{kind.__name__}Dumper", (_ArrayDumper,), {"oid": kind.oid}) for kind in KINDS.values()}


def key_of(*words: str) -> int:
    """The number of an advisory lock that stands for some words."""
    return int.from_bytes(hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest(), "big", signed=True)


def writer_of(process: str) -> int:
    """The number of the advisory lock that the session holds which makes the writes of a process."""
    return key_of("writer", process)


class Link:
    """How to come to the tables: a URL and a schema."""

    def __init__(self, url: str, schema: str) -> None:
        self.url = url
        self.schema = schema
        self.shown = masked(url)

    def connect(self, **settings: str) -> Connection:
        """A new connection in autocommit. Raises StoreUnusable, which may be over in a moment."""
        given = self._given()
        try:
            connection = psycopg.connect(given, autocommit=True, prepare_threshold=1)
        except psycopg.Error as exc:
            raise StoreUnusable(
                f"The server of {self.shown} cannot be used: {said(exc)}. See whether it runs, and whether host, port, "
                "database, user and password of storage_url (AGENTMAP_STORAGE_URL) are right"
            ) from exc
        try:
            for kind, dumper in _DUMPERS.items():
                connection.adapters.register_dumper(kind, dumper)
            path = sql.Identifier(self.schema).as_string(connection)
            values = {**SETTINGS, **settings, "search_path": path}
            connection.execute(
                "SELECT " + ", ".join(["set_config(%s, %s, false)"] * len(values)),
                [text for pair in values.items() for text in pair],
            )
        except psycopg.Error as exc:
            connection.close()
            raise StoreUnusable(f"The store {self.shown} cannot be used just now: {said(exc)}") from exc
        return connection

    def _given(self) -> str:
        """What libpq is told. Raises StoreUnusable; what libpq says of a wrong URL may hold parts of a password."""
        remedy = (
            f"The storage_url {self.shown} cannot be read: it looks like postgresql://user:password@host:5432/name, "
            "and special characters of a user or a password are written as %XX"
        )
        try:
            given = conninfo_to_dict(self.url)
        except psycopg.Error as exc:
            raise StoreUnusable(remedy) from exc
        ports = str(given.get("port") or "").split(",")
        if "@" in self.url.partition("://")[2].partition("?")[0].partition("/")[2] or not all(
            port == "" or (port.isascii() and port.isdigit()) for port in ports
        ):
            raise StoreUnusable(remedy)
        return make_conninfo("", **{**DEFAULTS, **given})

    def existing(self) -> None:
        """Raises StoreUnusable for tables that are not there: whoever looks after a store does not make one."""
        with closing(self.connect()) as connection:
            if not self._version(connection, connection.info.user):
                raise StoreUnusable(f"There are no tables in the schema {self.schema} of {self.shown}")

    def ready(self) -> None:
        """See that the tables are there, and make them or bring them up to date. Raises StoreUnusable."""
        connection = self.connect()
        try:
            self._ready(connection)
        except psycopg.Error as exc:
            if connection.closed or not isinstance(exc, psycopg.ProgrammingError):
                raise StoreUnusable(f"The store {self.shown} cannot be used just now: {said(exc)}") from exc
            raise StoreUnusable(f"The schema {self.schema} of {self.shown} cannot be used: {said(exc)}") from exc
        finally:
            connection.close()

    def _ready(self, connection: Connection) -> None:
        (encoding, user, base) = _one(
            connection, "SELECT current_setting('server_encoding'), current_user, current_database()"
        )
        if encoding != "UTF8":
            raise StoreUnusable(
                f"The database {base} is in {encoding}; make one in UTF8: CREATE DATABASE … ENCODING 'UTF8' "
                "TEMPLATE template0"
            )
        version = self._version(connection, user)
        if version > len(MIGRATIONS):
            raise StoreUnusable(
                f"The schema {self.schema} of {self.shown} was written by a newer version (its format is {version}, "
                f"this one knows up to {len(MIGRATIONS)}); update agentmap-asgi"
            )
        if version < len(MIGRATIONS):
            try:
                self._migrate(connection)
            except errors.InsufficientPrivilege as exc:
                raise StoreUnusable(
                    f"The user {user} may not {'change' if version else 'make'} the tables in the schema {self.schema} "
                    f"of the database {base}: {said(exc)}. Let their owner do it (agentmap-asgi store migrate --grant "
                    f"{user}), or allow it (GRANT CREATE ON {self._allowing(connection, base)} TO {user})"
                ) from exc
        lacking = [
            f"{right} on {table}"
            for table in TABLES
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
            if not _one(connection, "SELECT has_table_privilege(%s, %s)", self._named(table), right)[0]
        ]
        if lacking:
            raise StoreUnusable(
                f"The user {user} lacks rights in the schema {self.schema}: {', '.join(lacking)}. Let the owner of the "
                f"tables grant them: agentmap-asgi store migrate --grant {user}"
            )

    def _named(self, table: str) -> str:
        return f"{sql.Identifier(self.schema).as_string()}.{table}"

    def _allowing(self, connection: Connection, base: str) -> str:
        there = _one(connection, "SELECT to_regnamespace(%s)", sql.Identifier(self.schema).as_string())[0]
        return f"DATABASE {base}" if there is None else f"SCHEMA {self.schema}"

    def _version(self, connection: Connection, user: str) -> int:
        try:
            if _one(connection, "SELECT to_regclass(%s)", self._named("meta"))[0] is None:
                return 0
            found = connection.execute(VERSION).fetchone()
        except errors.InsufficientPrivilege as exc:
            raise StoreUnusable(
                f"The user {user} may not use the schema {self.schema} of {self.shown}: {said(exc)}. Let the owner of "
                f"its tables grant that: agentmap-asgi store migrate --grant {user}"
            ) from exc
        if found is None:
            raise StoreUnusable(
                f"The schema {self.schema} of {self.shown} is that of another program; name another (the setting "
                "storage_schema)"
            )
        return int(found[0])

    def _migrate(self, connection: Connection) -> None:
        """In one transaction, and one process at a time."""
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [key_of(self.schema, "migration")])
            name = sql.Identifier(self.schema)
            if _one(connection, "SELECT to_regnamespace(%s)", name.as_string())[0] is None:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
            if _one(connection, "SELECT to_regclass(%s)", self._named("meta"))[0] is None:
                connection.execute(META)
                connection.execute("INSERT INTO meta (name, value) VALUES ('version', 0)")
            for statements in MIGRATIONS[int(_one(connection, VERSION)[0]) :]:
                for statement in statements:
                    connection.execute(statement.encode())
            connection.execute("UPDATE meta SET value = %s WHERE name = 'version'", [len(MIGRATIONS)])


def _one(connection: Connection, query: Any, *values: Any) -> tuple[Any, ...]:
    found = connection.execute(query, values).fetchone()
    assert found is not None  # noqa: S101
    return found


def said(exc: BaseException) -> str:
    """What the server says, in one line."""
    text = (isinstance(exc, psycopg.Error) and exc.diag.message_primary) or str(exc) or type(exc).__name__
    return " ".join(line.strip() for line in text.splitlines() if line.strip()).rstrip(".?")


def broken(connection: Connection | None, exc: BaseException) -> bool:
    """Whether there is no connection any more: it broke off, or the server has just said that it ends it."""
    if connection is None or connection.closed:
        return True
    if isinstance(exc, psycopg.Error) and (exc.sqlstate or "").startswith("57P"):
        connection.close()
        return True
    return False


def own_fault(exc: BaseException) -> bool:
    """Whether an error comes from what was to be written or asked, and not from the server or the way to it."""
    if not isinstance(exc, psycopg.Error):
        return not isinstance(exc, OSError | MemoryError | StoreUnavailable | StoreUnusable)
    if isinstance(exc, errors.InsufficientPrivilege | errors.UndefinedTable | errors.InvalidSchemaName):
        return False
    return isinstance(
        exc, psycopg.DataError | psycopg.IntegrityError | psycopg.ProgrammingError | psycopg.NotSupportedError
    )


def told(exc: BaseException) -> BaseException:
    """What a caller is told: psycopg stays in these modules, and a future cannot carry StopIteration."""
    if isinstance(exc, psycopg.Error | StopIteration):
        error = ValueError(f"This cannot be written: {said(exc)}")
        error.__cause__ = exc
        return error
    return exc
