"""The checker sees what it is there for: each planted breach of a promise is found, and a clean run has none."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from checker import Lives, check, connect
from processes import Nursery
from world import EFFECTS, GRAPHS, MEANT, STORE, TOLD, append, lines

Change = Callable[[Path, sqlite3.Connection], Any]


def _some(folder: Path, connection: sqlite3.Connection, graph: str) -> str:
    query = "SELECT id FROM executions WHERE graph_name = ? ORDER BY id"
    return str(connection.execute(query, (graph,)).fetchone()[0])


def _effect(graph: str, key: str) -> Change:
    def plant(folder: Path, connection: sqlite3.Connection) -> None:
        append(folder / EFFECTS, {"key": f"{_some(folder, connection, graph)}/{key}", "pid": 1, "attempt": 1})

    return plant


def _told(graph: str, **line: Any) -> Change:
    def plant(folder: Path, connection: sqlite3.Connection) -> None:
        append(folder / TOLD, {"answer": _some(folder, connection, graph), **line})

    return plant


def _set(graph: str, columns: str) -> Change:
    def plant(folder: Path, connection: sqlite3.Connection) -> None:
        connection.execute(f"UPDATE executions SET {columns} WHERE id = ?", (_some(folder, connection, graph),))

    return plant


def _entry(graph: str, kind: int, change: str) -> Change:
    def plant(folder: Path, connection: sqlite3.Connection) -> None:
        name = _some(folder, connection, graph)
        taken_apart(connection)
        query = "SELECT sequence FROM entries WHERE execution = ? AND path = '' AND text LIKE ? ORDER BY sequence"
        (number,) = connection.execute(query, (name, f"% [{kind},%")).fetchone()
        connection.execute(change, {"execution": name, "sequence": number, "far": 1_000})

    return plant


def _result(folder: Path, connection: sqlite3.Connection) -> None:
    name = _some(folder, connection, "Fork")
    (text,) = connection.execute("SELECT document FROM executions WHERE id = ?", (name,)).fetchone()
    document = json.loads(text)
    document["result"]["m"].pop()
    connection.execute("UPDATE executions SET document = ? WHERE id = ?", (json.dumps(document), name))


def _less(file: str, word: str) -> Change:
    """A list without its lines that hold a word."""

    def plant(folder: Path, connection: sqlite3.Connection) -> None:
        kept = [line for line in lines(folder / file) if word not in json.dumps(line)]
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in kept))

    return plant


def _forgotten(folder: Path, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("DELETE FROM executions WHERE id = ?", (_some(folder, connection, "Chain"),))


def taken_apart(connection: sqlite3.Connection) -> None:
    """Each entry in a row of its own, so that single ones can be changed."""
    rows = connection.execute("SELECT execution, path, text FROM entries").fetchall()
    connection.execute("DELETE FROM entries")
    for execution, path, piece in rows:
        for line in piece.split("\n"):
            number = int(line.partition(" ")[0])
            entry = (execution, path, number, line, 0, number)
            connection.execute(
                "INSERT INTO entries (execution, path, sequence, text, sum, last) VALUES (?, ?, ?, ?, ?, ?)", entry
            )


DELETE = "DELETE FROM entries WHERE execution = :execution AND path = '' AND sequence = :sequence"
COPY = (
    "INSERT INTO entries SELECT execution, path, :far, :far || substr(text, instr(text, ' ')), sum, :far FROM entries "
    "WHERE execution = :execution AND path = '' AND sequence = :sequence"
)
PLANTED: dict[str, tuple[Change, str]] = {
    "an accepted execution is gone": (_forgotten, "it was accepted and is gone"),
    "an effect comes after the end of its node was committed": (_effect("Chain", "C#1"), "it ran again"),
    "an effect comes twice without a crash": (_effect("Asks", "A#1"), "2 effects with 0 crashes"),
    "a node that may not run twice does": (_effect("Once", "O#1"), "may not run twice"),
    "an idempotency key changes from attempt to attempt": (
        _effect("Nest", "G#1@2/X#1"),
        "no key that this workflow has",
    ),
    "a node that no workflow has runs": (_effect("Chain", "Z#1"), "no key that this workflow has"),
    "a node runs without effect": (_less(EFFECTS, "L2#1"), "had no effect"),
    "nobody runs a running execution": (_set("Fork", "status = 'running'"), "left without an owner"),
    "nobody runs a queued execution": (_set("Fork", "status = 'queued'"), "left without an owner"),
    "an execution that had ended goes on": (_set("Fork", "status = 'running'"), "it had ended completed"),
    "an execution waits for ever": (_set("Pair", "status = 'suspended'"), "it still waits"),
    "an execution fails": (_set("Pair", "status = 'failed'"), "nothing here fails"),
    "an execution that may go on is given up": (_set("Pair", "status = 'interrupted'"), "may run again"),
    "the result is another one": (_result, "it ended with"),
    "two are told that their answers count": (_told("Asks", path="W#1", data={}), "was answered twice"),
    "an answer is taken that nobody gave": (_less(MEANT, '"W#1"'), "an answer that nobody gave"),
    "an execution is there that nobody wanted": (_less(MEANT, '"n"'), "nobody wanted it"),
    "an event is lost": (_entry("Chain", BEGAN := 2, DELETE), "is missing before"),
    "the last event is lost": (_entry("Chain", ENDED := 6, DELETE), "its terminal events are []"),
    "there are two last events": (_entry("Chain", ENDED, COPY), "its terminal events are"),
    "a node ends twice": (_entry("Chain", FINISHED := 3, COPY), "has ended 2 times"),
    "the events are miscounted": (_set("Chain", "sequence = sequence + 1"), "it says it has"),
    "a node begins before that is committed": (_entry("Asks", BEGAN, DELETE), "before its start was committed"),
    "a node's end is lost": (_entry("Asks", FINISHED, DELETE), "are too many or missing"),
}


@pytest.fixture(scope="module")
def finished(forks: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two of each workflow have ended without a fault."""
    folder = tmp_path_factory.mktemp("finished")
    for graph in GRAPHS:
        forks.make("work", folder, starts=2, clients=2, graphs=[graph]).until("closed")
    forks.sweep()
    return folder


@pytest.fixture
def world(finished: Path, tmp_path: Path) -> Path:
    for file in (STORE, EFFECTS, TOLD, MEANT):
        (tmp_path / file).write_bytes((finished / file).read_bytes())
    return tmp_path


def test_a_run_without_faults_breaks_no_promise(world: Path) -> None:
    """Everything has ended as it should, once."""
    report = check(world, Lives())
    report.assert_good(least=12)
    assert (report.executions, report.completed, report.repeated, report.answers) == (12, 12, 0, 8)


@pytest.mark.parametrize("name", PLANTED)
def test_a_breach_is_found(name: str, world: Path) -> None:
    """One is planted, and named."""
    plant, named = PLANTED[name]
    lives = Lives()
    lives.crash(world)
    lives.crashes = 0
    with closing(connect(world / STORE)) as connection:
        plant(world, connection)
        connection.commit()
    report = check(world, lives)
    assert any(named in text for text in report.violations), report.violations
    with pytest.raises(AssertionError):
        report.assert_good()


def test_nothing_done_is_not_good(world: Path) -> None:
    """A run without work keeps every promise, and shows nothing."""
    with closing(connect(world / STORE)) as connection:
        for table in ("entries", "pins", "executions"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()
    for file in (EFFECTS, TOLD, MEANT):
        (world / file).write_text("")
    report = check(world, Lives())
    assert not report.violations
    with pytest.raises(AssertionError):
        report.assert_good()
