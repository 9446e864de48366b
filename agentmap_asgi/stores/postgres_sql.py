"""The tables in PostgreSQL, how those of older versions become those of newer ones, and what is said to them.

SQL text only. Names stand without their schema: each connection has it as its `search_path`.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from .schema import BRIEF, COLUMNS, SEALED

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE executions (
            id text COLLATE "C" PRIMARY KEY,
            namespace text COLLATE "C" NOT NULL,
            graph_id text COLLATE "C" NOT NULL,
            graph_name text COLLATE "C" NOT NULL,
            definition text COLLATE "C" NOT NULL,
            status text COLLATE "C" NOT NULL,
            owner text COLLATE "C",
            tags jsonb NOT NULL,
            created bigint NOT NULL,
            started bigint,
            ended bigint,
            runner text COLLATE "C",
            fence bigint NOT NULL,
            attempt bigint NOT NULL,
            retry_of text COLLATE "C",
            key text COLLATE "C",
            key_body text COLLATE "C",
            sequence bigint NOT NULL,
            steps bigint NOT NULL,
            wake bigint,
            waits bytea NOT NULL,
            waits_sum bigint NOT NULL,
            head bytea NOT NULL,
            head_sum bigint NOT NULL,
            document bytea,
            document_sum bigint
        ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02)""",
        "CREATE INDEX executions_created ON executions (namespace, created, id)",
        "CREATE INDEX executions_graph ON executions (namespace, graph_id, created, id)",
        "CREATE INDEX executions_definition ON executions (definition)",
        "CREATE INDEX executions_live ON executions (namespace, runner) WHERE status IN ('queued', 'running')",
        "CREATE INDEX executions_wake ON executions (namespace, wake) WHERE wake IS NOT NULL",
        "CREATE INDEX executions_ended ON executions (namespace, ended) WHERE ended IS NOT NULL",
        "CREATE UNIQUE INDEX executions_key ON executions (namespace, key) WHERE key IS NOT NULL",
        # Without a foreign key: an entry is written by the statement that has changed its execution, or not at all.
        """CREATE TABLE entries (
            execution text COLLATE "C" NOT NULL,
            path text COLLATE "C" NOT NULL,
            sequence bigint NOT NULL,
            text bytea NOT NULL,
            sum bigint NOT NULL,
            PRIMARY KEY (execution, path, sequence)
        )""",
        'CREATE TABLE definitions (hash text COLLATE "C" PRIMARY KEY, text text NOT NULL, sum bigint NOT NULL)',
        """CREATE TABLE pins (
            execution text COLLATE "C" NOT NULL,
            definition text COLLATE "C" NOT NULL,
            PRIMARY KEY (execution, definition)
        )""",
        "CREATE INDEX pins_definition ON pins (definition)",
        """CREATE TABLE commands (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            execution text COLLATE "C" NOT NULL,
            kind text NOT NULL,
            payload bytea NOT NULL,
            outcome bytea,
            seen bigint
        )""",
        "CREATE INDEX commands_execution ON commands (execution)",
        """CREATE TABLE processes (
            id text COLLATE "C" PRIMARY KEY,
            namespace text COLLATE "C" NOT NULL,
            source text,
            place text NOT NULL,
            lock bigint NOT NULL,
            began timestamptz NOT NULL DEFAULT clock_timestamp(),
            beat timestamptz NOT NULL DEFAULT clock_timestamp()
        ) WITH (fillfactor = 50)""",
        'CREATE TABLE runners (id text COLLATE "C" PRIMARY KEY, process text COLLATE "C" NOT NULL)',
        """CREATE TABLE commits (process text COLLATE "C" PRIMARY KEY, number bigint NOT NULL)
            WITH (fillfactor = 50)""",
    ),
    (
        """CREATE TABLE versions (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            namespace text COLLATE "C" NOT NULL,
            graph_id text COLLATE "C" NOT NULL,
            definition text COLLATE "C" NOT NULL,
            since bigint NOT NULL
        )""",
        "CREATE INDEX versions_graph ON versions (namespace, graph_id, number)",
        "CREATE INDEX versions_definition ON versions (definition)",
        """INSERT INTO versions (namespace, graph_id, definition, since)
            SELECT namespace, graph_id, definition, min(created) FROM executions
            WHERE definition IN (SELECT hash FROM definitions)
            GROUP BY namespace, graph_id, definition ORDER BY min(created)""",
    ),
)
"""One row for each version: the statements that make it out of the version before. Rows are added, never changed."""

META: Final = 'CREATE TABLE meta (name text COLLATE "C" PRIMARY KEY, value bigint NOT NULL)'
TABLES: Final = (
    *(
        "executions",
        "entries",
        "definitions",
        "pins",
        "commands",
        "processes",
        "runners",
        "commits",
        "versions",
        "meta",
    ),
)
VERSION: Final = "SELECT value FROM meta WHERE name = 'version'"

_INTEGERS: Final = {
    *("created", "started", "ended", "fence", "attempt", "sequence", "steps", "wake"),
    *(f"{name}_sum" for name in SEALED),
}


def kind_of(column: str) -> str:
    """The type in which values of a column of the executions are sent."""
    return "bigint" if column in _INTEGERS else "bytea" if column in SEALED else "text"


def spread(names: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of a Row as columns of the table: each sealed one has its checksum behind it."""
    return tuple(part for name in names for part in ((name, f"{name}_sum") if name in SEALED else (name,)))


def _shown(names: tuple[str, ...]) -> str:
    return ", ".join("tags::text" if name == "tags" else name for name in spread(names))


def _arrays(columns: tuple[str, ...]) -> str:
    return ", ".join(f"%s::{kind_of(column)}[]" for column in columns)


FULL: Final = spread(COLUMNS)
FULL_NAMES: Final = _shown(COLUMNS)
BRIEF_NAMES: Final = _shown(BRIEF)

_ENTRIES: Final = (
    ", told AS (INSERT INTO entries (execution, path, sequence, text, sum) SELECT e.* "
    "FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[], %s::bigint[]) AS e (execution, path, sequence, "
    "text, sum) JOIN turned ON turned.id = e.execution)"
)
"""Adds the entries of those executions that the statement has turned."""


@cache
def create(*, entries: bool) -> str:
    """New executions, from arrays of FULL; the ids of those that are kept come back."""
    values = ", ".join(f"v.{name}::jsonb" if name == "tags" else f"v.{name}" for name in FULL)
    return (
        f"WITH turned AS (INSERT INTO executions ({', '.join(FULL)}) SELECT {values} "
        f"FROM unnest({_arrays(FULL)}) AS v ({', '.join(FULL)}) ON CONFLICT DO NOTHING RETURNING id)"
        f"{_ENTRIES if entries else ''} SELECT id FROM turned"
    )


@cache
def append(names: tuple[str, ...], *, entries: bool) -> str:
    """Changes of executions, from arrays of their ids, fences and new values; the ids of those that changed come back.

    After the arrays comes the namespace, then those of the entries.
    """
    columns = spread(names)
    changes = ", ".join(f"{name} = v.{name}{'::jsonb' if name == 'tags' else ''}" for name in columns)
    return (
        f"WITH turned AS (UPDATE executions AS e SET {changes or 'fence = e.fence'} "
        f"FROM unnest({_arrays(('id', 'fence', *columns))}) AS v ({', '.join(('id', 'fence', *columns))}) "
        "WHERE e.id = v.id AND e.fence = v.fence AND e.namespace = %s RETURNING e.id)"
        f"{_ENTRIES if entries else ''} SELECT id FROM turned"
    )


DEFINE: Final = (
    "INSERT INTO definitions (hash, text, sum) SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[]) "
    "ON CONFLICT DO NOTHING"
)
DEFINED: Final = "SELECT 1 / (count(*) = %s)::int FROM definitions WHERE hash = ANY(%s::text[])"
"""Fails by a division by zero when one of so many definitions is missing, and undoes the transaction."""
PIN: Final = (
    "INSERT INTO pins (execution, definition) "
    "SELECT * FROM unnest(%s::text[], %s::text[]) AS p (execution, definition) "
    "WHERE EXISTS (SELECT FROM executions WHERE id = p.execution) ON CONFLICT DO NOTHING"
)
SHARE: Final = "SELECT pg_advisory_xact_lock_shared(%s)"
ALONE: Final = "SELECT pg_advisory_xact_lock(%s)"

FIND: Final = f"SELECT {FULL_NAMES} FROM executions WHERE namespace = %s AND id = %s"
FIND_KEY: Final = f"SELECT {FULL_NAMES} FROM executions WHERE namespace = %s AND key = %s"
_OWN: Final = "AND EXISTS (SELECT FROM executions WHERE id = %(id)s AND namespace = %(namespace)s)"
ENTRIES: Final = (
    "SELECT path, sequence, text, sum FROM entries WHERE execution = %(id)s AND sequence > %(after)s "
    f"{_OWN} ORDER BY path, sequence"
)
ENTRIES_OF_PATH: Final = (
    "SELECT path, sequence, text, sum FROM entries WHERE execution = %(id)s AND sequence > %(after)s "
    f"AND path = %(path)s {_OWN} ORDER BY sequence"
)
CLAIM: Final = (
    "UPDATE executions SET status = %s, runner = %s, fence = fence + 1, attempt = coalesce(%s, attempt) "
    "WHERE namespace = %s AND id = %s AND status = %s AND runner IS NOT DISTINCT FROM %s AND fence = %s "
    f"RETURNING {FULL_NAMES}"
)
STRANDED: Final = (
    f"SELECT {BRIEF_NAMES} FROM executions AS e WHERE namespace = %s AND status IN ('queued', 'running') "
    "AND NOT EXISTS (SELECT FROM runners AS r JOIN processes AS p ON p.id = r.process "
    "WHERE r.id = e.runner AND r.id <> ALL(%s::text[]) AND p.id <> ALL(%s::text[])) ORDER BY created, id"
)
DUE: Final = (
    f"SELECT {BRIEF_NAMES} FROM executions WHERE namespace = %s AND wake IS NOT NULL AND wake <= %s "
    "AND status = 'suspended' ORDER BY wake, id"
)
DELETE: Final = "DELETE FROM executions WHERE namespace = %s AND id = %s AND status = ANY(%s::text[]) RETURNING id"
ENDED: Final = (
    "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE namespace = %s AND ended < %s "
    "AND status = ANY(%s::text[]) ORDER BY ended, id LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id"
)
FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE execution = ANY(%s::text[])" for table in ("entries", "pins", "commands")
)
UNREFERENCED: Final = (
    "DELETE FROM definitions WHERE NOT EXISTS (SELECT FROM executions WHERE definition = hash) "
    "AND NOT EXISTS (SELECT FROM pins WHERE definition = hash) "
    "AND NOT EXISTS (SELECT FROM versions WHERE definition = hash)"
)
NEWEST: Final = "SELECT definition FROM versions WHERE namespace = %s AND graph_id = %s ORDER BY number DESC LIMIT 1"
NOTE: Final = "INSERT INTO versions (namespace, graph_id, definition, since) VALUES (%s, %s, %s, %s)"
OLD_VERSIONS: Final = (
    "DELETE FROM versions WHERE namespace = %(namespace)s AND graph_id = %(graph)s AND number NOT IN "
    "(SELECT number FROM versions WHERE namespace = %(namespace)s AND graph_id = %(graph)s "
    "ORDER BY number DESC LIMIT %(most)s)"
)
VERSIONS: Final = "SELECT definition, since FROM versions WHERE namespace = %s AND graph_id = %s ORDER BY number DESC"
DURATIONS: Final = (
    "SELECT definition, started, ended FROM executions WHERE namespace = %s AND graph_id = %s "
    "AND status = 'completed' AND started IS NOT NULL AND ended IS NOT NULL ORDER BY created DESC, id DESC LIMIT %s"
)
ASK: Final = (
    "INSERT INTO commands (execution, kind, payload) VALUES (%s, %s, %s) "
    "RETURNING number, (SELECT runner FROM executions WHERE id = %s)"
)
ASKED: Final = (
    "SELECT number, execution, kind, payload FROM commands WHERE outcome IS NULL "
    "AND EXISTS (SELECT FROM executions WHERE id = execution AND namespace = %s AND runner = %s) ORDER BY number"
)
GENERATION: Final = "SELECT value FROM meta WHERE name = %s"
BUMP: Final = (
    "INSERT INTO meta (name, value) VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET value = meta.value + 1 "
    "RETURNING value"
)

REGISTER: Final = "INSERT INTO runners (id, process) SELECT unnest(%s::text[]), %s ON CONFLICT DO NOTHING"
UNREGISTER: Final = "DELETE FROM runners WHERE id = %s"
MARK: Final = (
    "INSERT INTO commits (process, number) VALUES (%s, %s) ON CONFLICT (process) DO UPDATE SET number = excluded.number"
)
MARKED: Final = "SELECT number FROM commits WHERE process = %s FOR UPDATE"

BEAT: Final = (
    "INSERT INTO processes (id, namespace, source, place, lock) VALUES (%s, %s, %s, %s, %s) "
    "ON CONFLICT (id) DO UPDATE SET beat = clock_timestamp() RETURNING xmax = 0"
)
LOCK: Final = "SELECT pg_advisory_lock(%s)"
WRITES: Final = "SELECT pg_advisory_lock_shared(%s)"
"""Says whose writes a session makes, for `CUT_OFF`."""
CUT_OFF: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (classid::bigint << 32 | objid::bigint) = ANY(%s::bigint[])"
)
LOOK: Final = (
    "SELECT id, extract(epoch FROM clock_timestamp() - beat)::float8, "
    "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid::bigint = (lock >> 32) & 4294967295 AND objid::bigint = lock & 4294967295), "
    "extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8, namespace, source "
    "FROM processes WHERE id <> %s"
)
"""The other processes: how many seconds ago each was heard of, whether it holds its lock, how long the server is up."""
BURY: Final = (
    "DELETE FROM processes AS p WHERE beat < clock_timestamp() - interval '1 day' AND id = ANY(%s::text[]) "
    "AND NOT EXISTS (SELECT FROM executions AS e JOIN runners AS r ON r.id = e.runner WHERE r.process = p.id "
    "AND e.status IN ('queued', 'running'))"
)
LEAVE: Final = tuple(
    f"DELETE FROM {table} WHERE {column} = %s"
    for table, column in (("runners", "process"), ("commits", "process"), ("processes", "id"))
)
