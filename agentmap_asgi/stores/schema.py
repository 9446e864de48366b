"""The tables of the store file, and how those of older versions become those of newer ones. SQL text only."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from .store import Row

APPLICATION_ID: Final = 0x41674D70
"""Says that a SQLite file is one of ours ("AgMp")."""

SEALED: Final = ("waits", "head", "document")
"""Columns of the executions that go through the codec and have a checksum, `<name>_sum`."""

COLUMNS: Final = tuple(field.name for field in fields(Row))
CHANGEABLE: Final = frozenset(COLUMNS) - {"id", "namespace", "fence"}
BRIEF: Final = tuple(name for name in COLUMNS if name not in ("head", "document"))

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE executions (
            id TEXT PRIMARY KEY NOT NULL,
            namespace TEXT NOT NULL,
            graph_id TEXT NOT NULL,
            graph_name TEXT NOT NULL,
            definition TEXT NOT NULL,
            status TEXT NOT NULL,
            owner TEXT,
            tags TEXT NOT NULL,
            created INTEGER NOT NULL,
            started INTEGER,
            ended INTEGER,
            runner TEXT,
            fence INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            retry_of TEXT,
            key TEXT,
            key_body TEXT,
            sequence INTEGER NOT NULL,
            steps INTEGER NOT NULL,
            wake INTEGER,
            waits NOT NULL,
            waits_sum INTEGER NOT NULL,
            head NOT NULL,
            head_sum INTEGER NOT NULL,
            document,
            document_sum INTEGER
        )""",
        "CREATE INDEX executions_created ON executions (namespace, created, id)",
        "CREATE INDEX executions_graph ON executions (namespace, graph_id, created, id)",
        "CREATE INDEX executions_definition ON executions (definition)",
        "CREATE INDEX executions_live ON executions (namespace, runner) WHERE status IN ('queued', 'running')",
        "CREATE INDEX executions_wake ON executions (namespace, wake) WHERE wake IS NOT NULL",
        "CREATE INDEX executions_ended ON executions (namespace, ended) WHERE ended IS NOT NULL",
        "CREATE UNIQUE INDEX executions_key ON executions (namespace, key) WHERE key IS NOT NULL",
        """CREATE TABLE entries (
            execution TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
            path TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            text NOT NULL,
            sum INTEGER NOT NULL,
            PRIMARY KEY (execution, path, sequence)
        ) WITHOUT ROWID""",
        "CREATE TABLE definitions (hash TEXT PRIMARY KEY NOT NULL, text TEXT NOT NULL, sum INTEGER NOT NULL)",
        """CREATE TABLE pins (
            execution TEXT NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
            definition TEXT NOT NULL,
            PRIMARY KEY (execution, definition)
        ) WITHOUT ROWID""",
        "CREATE INDEX pins_definition ON pins (definition)",
        """CREATE TABLE commands (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            execution TEXT NOT NULL,
            kind TEXT NOT NULL,
            payload NOT NULL,
            outcome,
            seen INTEGER
        )""",
        "CREATE INDEX commands_execution ON commands (execution)",
        "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value NOT NULL) WITHOUT ROWID",
    ),
    (
        """CREATE TABLE versions (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            namespace TEXT NOT NULL,
            graph_id TEXT NOT NULL,
            definition TEXT NOT NULL,
            since INTEGER NOT NULL
        )""",
        "CREATE INDEX versions_graph ON versions (namespace, graph_id, number)",
        "CREATE INDEX versions_definition ON versions (definition)",
        """INSERT INTO versions (namespace, graph_id, definition, since)
            SELECT namespace, graph_id, definition, min(created) FROM executions
            WHERE definition IN (SELECT hash FROM definitions)
            GROUP BY namespace, graph_id, definition ORDER BY min(created)""",
    ),
    ("ALTER TABLE entries ADD COLUMN last INTEGER",),
)
"""One row for each version: the statements that make it out of the version before. Rows are added, never changed."""


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(name if name not in SEALED else f"{name}, {name}_sum" for name in names)


FULL_NAMES: Final = _names(COLUMNS)
BRIEF_NAMES: Final = _names(BRIEF)

INSERT: Final = (
    f"INSERT INTO executions ({FULL_NAMES}) VALUES ({', '.join('?' * (len(COLUMNS) + len(SEALED)))}) "
    "ON CONFLICT DO NOTHING"
)
INSERT_PIECE: Final = "INSERT INTO entries (execution, path, sequence, text, sum, last) VALUES (?, ?, ?, ?, ?, ?)"
"""A piece holds the entries of one write, from `sequence` to `last`, a line each: the number, a space, the text. Rows
without `last` are of a time when each entry was a row, and hold the text alone."""
FIND: Final = f"SELECT {FULL_NAMES} FROM executions WHERE namespace = ? AND id = ?"
FIND_KEY: Final = f"SELECT {FULL_NAMES} FROM executions WHERE namespace = ? AND key = ?"
ENTRIES: Final = (
    "SELECT path, sequence, text, sum, last FROM entries "
    "WHERE execution = :execution AND coalesce(last, sequence) > :after "
    "AND EXISTS (SELECT 1 FROM executions WHERE id = :execution AND namespace = :namespace) ORDER BY path, sequence"
)
ENTRIES_OF_PATH: Final = (
    "SELECT path, sequence, text, sum, last FROM entries "
    "WHERE execution = :execution AND path = :path AND sequence >= coalesce("
    "(SELECT max(sequence) FROM entries WHERE execution = :execution AND path = :path AND sequence <= :after), 0) "
    "AND coalesce(last, sequence) > :after "
    "AND EXISTS (SELECT 1 FROM executions WHERE id = :execution AND namespace = :namespace) ORDER BY sequence"
)
CLAIM: Final = (
    "UPDATE executions SET status = ?, runner = ?, fence = fence + 1, attempt = coalesce(?, attempt) "
    "WHERE namespace = ? AND id = ? AND status = ? AND runner IS ? AND fence = ?"
)
RUNNERS: Final = (
    "SELECT DISTINCT runner FROM executions "
    "WHERE namespace = ? AND status IN ('queued', 'running') AND runner IS NOT NULL"
)
STRANDED: Final = (
    f"SELECT {BRIEF_NAMES} FROM executions INDEXED BY executions_live "
    "WHERE namespace = ? AND status IN ('queued', 'running') "
    "AND (runner IS NULL OR runner IN (SELECT value FROM json_each(?))) ORDER BY created, id"
)
DUE: Final = (
    f"SELECT {BRIEF_NAMES} FROM executions WHERE namespace = ? AND wake IS NOT NULL AND wake <= ? "
    "AND status = 'suspended' ORDER BY wake, id"
)
ENDED: Final = (
    "SELECT id FROM executions WHERE namespace = ? AND ended IS NOT NULL AND ended < ? "
    "AND status IN (SELECT value FROM json_each(?)) ORDER BY ended, id LIMIT ?"
)
UNREFERENCED: Final = (
    "DELETE FROM definitions WHERE NOT EXISTS (SELECT 1 FROM executions WHERE definition = hash) "
    "AND NOT EXISTS (SELECT 1 FROM pins WHERE definition = hash) "
    "AND NOT EXISTS (SELECT 1 FROM versions WHERE definition = hash)"
)
NEWEST: Final = "SELECT definition FROM versions WHERE namespace = ? AND graph_id = ? ORDER BY number DESC LIMIT 1"
NOTE: Final = "INSERT INTO versions (namespace, graph_id, definition, since) VALUES (?, ?, ?, ?)"
OLD_VERSIONS: Final = (
    "DELETE FROM versions WHERE namespace = :namespace AND graph_id = :graph AND number NOT IN "
    "(SELECT number FROM versions WHERE namespace = :namespace AND graph_id = :graph ORDER BY number DESC LIMIT :most)"
)
VERSIONS: Final = "SELECT definition, since FROM versions WHERE namespace = ? AND graph_id = ? ORDER BY number DESC"
DURATIONS: Final = (
    "SELECT definition, started, ended FROM executions WHERE namespace = ? AND graph_id = ? AND status = 'completed' "
    "AND typeof(started) = 'integer' AND typeof(ended) = 'integer' ORDER BY created DESC, id DESC LIMIT ?"
)
ASKED: Final = (
    "SELECT number, execution, kind, payload FROM commands WHERE outcome IS NULL "
    "AND EXISTS (SELECT 1 FROM executions WHERE id = execution AND namespace = ? AND runner = ?) ORDER BY number"
)
BUMP: Final = (
    "INSERT INTO meta (name, value) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value"
)
