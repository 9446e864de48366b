"""Looks at what is left when everything has ended, and says which promise was broken.

It reads the store with `sqlite3` (or psycopg) and plain JSON, not with the code that is being tested, and compares it
with the effects of the agents and with what clients were told.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from world import EFFECTS, KEYS, MEANT, STORE, TOLD, VISITS, WAITS, lines, placed, result_of

RAN, BEGAN, FINISHED, ENDED, ITEM = 1, 2, 3, 6, 5
"""Kinds of entries. Fixed here, because they are in files."""
TERMINAL: Final = ("completed", "failed", "cancelled", "interrupted")


@dataclass
class Stored:
    """One execution in the store file."""

    id: str
    graph: str
    status: str
    sequence: int
    runner: str | None
    attempt: int
    waits: list[dict[str, Any]]
    start: dict[str, Any]
    document: dict[str, Any] | None
    mark: str
    below: str
    """The mark of its sub-workflow."""
    entries: dict[str, list[tuple[int, list[Any]]]]

    def keys(self, *kinds: int) -> Iterator[str]:
        """Idempotency keys of the visits (and items) that have an entry of these kinds."""
        for path, entries in self.entries.items():
            base = f"{self.id}/{path}" if path else self.id
            for _, (kind, name, visit, _, _, *data) in entries:
                if kind in kinds:
                    yield f"{base}/{name}#{visit}" + (f"/{data[0]}" if kind == ITEM else "")


def connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)


def _mark(definition: str) -> str:
    found = re.search(r'"mark": ?"(\w*)', definition)
    return found[1] if found else ""


def tables(file: Path) -> Any:
    """A connection to where the executions of a folder are kept."""
    where = placed(file.parent)
    if not where:
        return connect(file)
    import psycopg
    from psycopg.conninfo import make_conninfo

    return psycopg.connect(make_conninfo(where["storage_url"], options=f"-c search_path={where['storage_schema']}"))


def stored(file: Path) -> dict[str, Stored]:
    with closing(tables(file)) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ" if placed(file.parent) else "BEGIN")
        texts = dict(connection.execute("SELECT hash, text FROM definitions").fetchall())
        entries: dict[str, dict[str, list[tuple[int, list[Any]]]]] = defaultdict(lambda: defaultdict(list))
        for execution, path, first, piece in connection.execute(
            "SELECT execution, path, sequence, text FROM entries ORDER BY execution, path, sequence"
        ).fetchall():
            # SQLite has the entries of a write in one row, a line each with its number before it; PostgreSQL has bytes.
            piece = piece.decode() if isinstance(piece, bytes) else piece
            for line in [f"{first} {piece}"] if piece.startswith("[") else piece.split("\n"):
                number, _, text = line.partition(" ")
                entries[execution][path].append((int(number), json.loads(text)))
        found = {}
        for row in connection.execute(
            "SELECT id, graph_name, status, sequence, runner, attempt, waits, head, document, definition "
            "FROM executions WHERE namespace = 'world'"
        ).fetchall():
            name, graph, status, sequence, runner, attempt, waits, head, document, definition = row
            began = json.loads(head)
            below = next(iter(began.get("parts", {}).values()), definition)
            found[name] = Stored(
                name,
                graph,
                status,
                sequence,
                runner,
                attempt,
                waits=json.loads(waits),
                start=began["state"],
                document=None if document is None else json.loads(document),
                mark=_mark(texts.get(definition, "")),
                below=_mark(texts.get(below, "")),
                entries=entries[name],
            )
        return found


@dataclass
class Lives:
    """What was known each time a process had died: the promises are about what came later."""

    crashes: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    """Visits whose end was committed, and how many effects they had then."""
    ended: dict[str, str] = field(default_factory=dict)
    """Executions that had ended, and how."""

    def crash(self, folder: Path) -> None:
        """Note what is committed. Nobody else may be running, or `finished` is a moment late, which is harmless."""
        self.crashes += 1
        if not (folder / STORE).exists() and not placed(folder):
            return
        found = stored(folder / STORE)
        effects = Counter(line["key"] for line in lines(folder / EFFECTS))
        for execution in found.values():
            for key in execution.keys(RAN, FINISHED, ITEM):
                self.finished.setdefault(key, effects[key])
            if execution.status in TERMINAL:
                self.ended.setdefault(execution.id, execution.status)


@dataclass
class Report:
    violations: list[str]
    executions: int
    completed: int
    interrupted: int
    effects: int
    repeated: int
    """Effects beyond the first of their key."""
    answers: int

    def assert_good(self, *, least: int = 1) -> None:
        assert not self.violations, "\n".join(self.violations[:20])
        assert self.executions >= least, self
        assert self.completed >= least, self
        assert self.effects >= 2 * least, self


def check(folder: Path, lives: Lives, *, durability: str = "sync", over: bool = True) -> Report:
    """Everything has ended, or waits for answers (`over` says that nothing should), and no process lives."""
    found = stored(folder / STORE)
    effects = Counter(line["key"] for line in lines(folder / EFFECTS))
    told, meant = list(lines(folder / TOLD)), list(lines(folder / MEANT))
    starts = {line["start"]: line for line in told if "start" in line}
    wrong: list[str] = []

    # P1: what was accepted is there. P5: an answer that was taken is the one that counts, and the only one.
    answers: dict[str, dict[str, Any]] = defaultdict(dict)
    for line in told:
        if "answer" in line:
            execution, path = line["answer"], line["path"]
            if path in answers[execution]:
                wrong.append(f"{execution}: {path} was answered twice, and both were told that theirs counts")
            answers[execution][path] = line["data"]
    wrong += [f"{name}: it was accepted and is gone" for name in starts.keys() - found.keys()]
    wrong += [f"{name}: it was answered and is gone" for name in answers.keys() - found.keys()]
    intended: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for line in meant:
        if "answer" in line:
            intended[line["answer"], line["path"]].append(line["data"])
    numbers = {line["n"] for line in meant if "n" in line}

    for one in found.values():
        wrong += [
            f"{one.id} ({one.graph}, {one.status}): {text}" for text in _execution(one, effects, durability, over)
        ]
        if one.start["n"] not in numbers:
            wrong.append(f"{one.id}: nobody wanted it")
        given = {}
        for path in WAITS.get(one.graph, ()):
            taken = [
                d[0]["data"]
                for _, (kind, _, _, _, _, *d) in one.entries.get("", [])
                if kind == 8 and d[0]["path"] == path
            ]
            if len(taken) > 1:
                wrong.append(f"{one.id}: {path} has {len(taken)} answers")
            if taken:
                given[path] = taken[0]
                if taken[0] not in intended[one.id, path]:
                    wrong.append(f"{one.id}: {path} has an answer that nobody gave")
            if path in answers[one.id] and answers[one.id][path] != given.get(path):
                wrong.append(f"{one.id}: {path} was answered {answers[one.id][path]!r}, and has {given.get(path)!r}")
        if one.status == "completed" and len(given) == len(WAITS.get(one.graph, ())):
            expected = result_of(one.graph, one.start, one.mark, one.below, given)
            if one.document is None or one.document["result"] != expected:
                wrong.append(f"{one.id}: it ended with {one.document and one.document['result']}, not {expected}")

    # P2: what was committed stays, and is not done again.
    for key, count in lives.finished.items():
        if effects[key] > count:
            wrong.append(f"{key}: its end was committed, and it ran again")
    for name, status in lives.ended.items():
        if name not in found or found[name].status != status:
            wrong.append(f"{name}: it had ended {status}, and is {found[name].status if name in found else 'gone'}")
    for key, count in effects.items():
        if count > 1 + lives.crashes:
            wrong.append(f"{key}: {count} effects with {lives.crashes} crashes")
        execution = found.get(key.split("/")[0])
        if execution is None:
            wrong.append(f"{key}: an effect of an execution that is not there")
        elif key.removeprefix(execution.id + "/") not in KEYS[execution.graph]:
            wrong.append(f"{key}: no key that this workflow has")

    return Report(
        wrong,
        len(found),
        sum(one.status == "completed" for one in found.values()),
        sum(one.status == "interrupted" for one in found.values()),
        sum(effects.values()),
        sum(effects.values()) - len(effects),
        sum(map(len, answers.values())),
    )


def _execution(one: Stored, effects: Counter[str], durability: str, over: bool) -> Iterator[str]:
    # P3: nothing runs that nobody runs.
    if one.status in ("queued", "running"):
        yield f"it is left without an owner (runner {one.runner})"
    if one.status == "suspended" and over:
        yield "it still waits"
    if one.status == "suspended" and not one.waits:
        yield "it waits for nothing"
    if one.status in ("failed", "cancelled"):
        yield f"nothing here fails: {one.document and one.document['error']}"
    if one.status == "interrupted" and one.graph not in ("Once", "Poison"):
        yield f"all its nodes may run again: {one.document and one.document['error']}"

    # P2: each visit ends once, and in one that completed, all of them.
    ends = Counter(one.keys(RAN, FINISHED))
    yield from (f"{key} has ended {count} times" for key, count in ends.items() if count > 1)
    if one.status == "completed":
        own = {key.removeprefix(one.id + "/") for key in ends if key.count("/") == 1}
        if own != set(VISITS[one.graph]):
            yield f"the nodes {sorted(own ^ set(VISITS[one.graph]))} are too many or missing"
        if lacking := [key for key in KEYS[one.graph] if not effects[f"{one.id}/{key}"]]:
            yield f"{lacking} had no effect"
    mine = {key: count for key, count in effects.items() if key.startswith(one.id + "/")}
    if durability == "sync":
        began = set(one.keys(BEGAN))
        for key, count in mine.items():
            visit = re.sub(r"/\d+$", "", key)
            if visit not in began:
                yield f"{key} had an effect before its start was committed"
            if one.graph == "Once" and key.endswith("/O#1") and count > 1:
                yield f"{key} may not run twice, and had {count} effects"

    # P11: events are numbered without gaps, and the last says how it ended.
    expected = 1
    for number, (kind, *_) in one.entries.get("", []):
        if number != expected:
            yield f"event {expected} is missing before {number}"
        expected = number + (2 if kind == RAN else 1)
    if one.sequence != expected - 1:
        yield f"it says it has {one.sequence} events, and has {expected - 1}"
    terminal = [number for number, (kind, *_) in one.entries.get("", []) if kind == ENDED]
    if one.status in TERMINAL and terminal != [one.sequence]:
        yield f"its terminal events are {terminal} of {one.sequence}"
    if one.status not in TERMINAL and terminal:
        yield "it has a terminal event and goes on"
