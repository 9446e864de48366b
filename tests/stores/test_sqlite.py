"""The store file: what is refused, what is damaged, a full disk, several processes, and processes that are killed."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from writes import FakeBatch, FakeStart, batch, row, start

from agentmap_asgi.errors import ExecutionConflict, StoreDamaged, StoreUnavailable, StoreUnusable
from agentmap_asgi.stores import files, schema
from agentmap_asgi.stores.locks import FileLock, RunnerFiles, file_system
from agentmap_asgi.stores.schema import APPLICATION_ID, MIGRATIONS
from agentmap_asgi.stores.sqlite import SQLiteStore
from agentmap_asgi.stores.store import Entry, Filter, Row, Runner
from agentmap_asgi.stores.upkeep import check

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).parent / "program.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


@asynccontextmanager
async def opened(path: Path, namespace: str = "tests", **options: Any) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, namespace=namespace, **{"source": "flows.csv", **options})
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


async def runner_of(store: SQLiteStore) -> Runner:
    await store.open()
    return store.runner()


def change(path: Path, *statements: str) -> None:
    """What a hand does to the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


# What is at the place.


async def test_a_missing_file_is_made_with_its_folder_and_a_line_in_the_log(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once; only its owner may read it."""
    with caplog.at_level(logging.INFO, "agentmap_asgi"):
        async with opened(path):
            pass
        async with opened(path):
            pass
    assert [record.message for record in caplog.records] == [f"The store {path} was made"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in path.parent.iterdir()) == ["store.db", "store.db.lock", "store.db.runners"]


def contents(path: Path) -> dict[str, bytes]:
    there = [one for one in path.parent.glob("store.db*") if one.is_file() and not one.name.endswith((".lock", "-shm"))]
    return {one.name: text for one in there if (text := one.read_bytes())}


async def refusal(path: Path) -> str:
    """Why a place is refused; what is there stays as it is."""
    before = contents(path)
    with pytest.raises(StoreUnusable) as caught:
        async with opened(path):
            pass
    assert contents(path) == before
    return caught.value.message


@pytest.fixture
async def kept(path: Path) -> Path:
    """A store file with a few executions in it."""
    async with opened(path) as store:
        await asyncio.gather(*(store.create(start(f"e{n}", head='{"x": "' + "y" * 500 + '"}')) for n in range(200)))
    return path


async def test_an_empty_file_is_refused(path: Path) -> None:
    """It was a store once, or will be another program's file."""
    path.parent.mkdir()
    path.touch()
    assert "is empty" in await refusal(path)


async def test_what_is_no_sqlite_file_is_refused(path: Path) -> None:
    """It is not overwritten."""
    path.parent.mkdir()
    path.write_bytes(b"GraphName,Node\n" * 100)
    assert "no store" in await refusal(path)


async def test_another_programs_file_is_refused(path: Path) -> None:
    """By its application id."""
    path.parent.mkdir()
    change(path, "CREATE TABLE t (a)")
    assert "of another program" in await refusal(path)


async def test_a_newer_format_is_refused(kept: Path) -> None:
    """With the remedy."""
    change(kept, "PRAGMA user_version = 99")
    assert "newer version" in await refusal(kept)


@pytest.mark.parametrize("cut", [100, 4_000, 40_000])
async def test_a_file_that_was_cut_off_is_refused(kept: Path, cut: int) -> None:
    """At any place."""
    os.truncate(kept, kept.stat().st_size - cut)
    assert "damaged" in await refusal(kept)


async def test_a_large_file_that_was_cut_off_is_refused(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is too large to be looked through."""
    monkeypatch.setattr(files, "SMALL", 0)
    os.truncate(kept, kept.stat().st_size - 8_192)
    assert "damaged" in await refusal(kept)


async def test_a_schema_that_is_no_text_is_refused(kept: Path) -> None:
    """SQLite says what is wrong in words that hold the damaged ones."""
    whole = kept.read_bytes()
    place = whole.index(b"CREATE TABLE entries") + 8
    kept.write_bytes(whole[:place] + b"\x81\xfe" + whole[place + 2 :])
    assert "damaged" in await refusal(kept)
    assert "damaged" in (await asyncio.to_thread(check, kept)).reasons[0]


async def test_a_page_that_was_overwritten_is_refused(kept: Path) -> None:
    """Small files are looked through."""
    with kept.open("r+b") as file:
        file.seek(4_096 * 3)
        file.write(b"\xff" * 4_096)
    assert "damaged" in await refusal(kept)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON executions BEGIN DELETE FROM entries; END",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE commands",
        "DROP INDEX executions_key",
        "ALTER TABLE executions ADD COLUMN more",
    ],
)
async def test_a_file_with_other_tables_is_refused(kept: Path, statement: str) -> None:
    """And one with triggers or views, which would act by themselves."""
    change(kept, statement)
    assert "not as it was made" in await refusal(kept)


async def test_a_read_only_file_is_refused(kept: Path) -> None:
    """Also by root, who could write it."""
    kept.chmod(0o444)
    assert "read-only" in await refusal(kept)


async def test_a_folder_is_refused(path: Path) -> None:
    """A store is one file."""
    path.mkdir(parents=True)
    assert "is a folder" in await refusal(path)


async def test_a_place_under_a_file_is_refused(tmp_path: Path) -> None:
    """Its folder cannot be made."""
    (tmp_path / "file").touch()
    assert "cannot be made" in await refusal(tmp_path / "file" / "store.db")


async def test_a_missing_file_whose_log_is_there_is_refused(path: Path) -> None:
    """The log has what was written last, and would be read into a new file."""
    path.parent.mkdir()
    path.with_name("store.db-wal").write_bytes(b"x" * 100)
    assert "is missing, but its log" in await refusal(path)


async def test_what_a_crash_left_of_a_new_file_is_no_obstacle(path: Path) -> None:
    """A file gets its name when it is complete."""
    path.parent.mkdir()
    path.with_name("store.db.new").write_bytes(b"half")
    path.with_name("store.db.new-wal").write_bytes(b"half")
    async with opened(path) as store:
        assert await store.create(start("a")) is None


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount() -> None:
    """Spaces in mount points are written as octal numbers."""
    mounts = (
        "/dev/sda / ext4 rw 0 0\nserver:/a /srv nfs4 rw 0 0\n/dev/sdb /srv/local ext4 rw 0 0\n"
        "//h/s /mnt/my\\040share cifs rw 0 0\nbroken line\n"
    )
    kinds = {"/srv/x/s.db": "nfs4", "/srv/local/s.db": "ext4", "/srvx/s.db": "ext4", "/mnt/my share/s.db": "cifs"}
    assert {place: file_system(Path(place), mounts) for place in kinds} == kinds
    assert file_system(Path("/a"), "") == ""


def test_older_formats_become_the_newest() -> None:
    """Each version's statements run once, in one transaction; a failure leaves the file as it was."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    first = ("CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    files.migrate(connection, [first])
    with pytest.raises(sqlite3.OperationalError):
        files.migrate(connection, [first, ("ALTER TABLE t ADD COLUMN b", "nonsense")])
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    newer = [first, ("ALTER TABLE t ADD COLUMN b", "UPDATE t SET b = a + 1"), ("UPDATE t SET a = b + 1",)]
    files.migrate(connection, newer)
    files.migrate(connection, newer)
    assert connection.execute("SELECT a, b FROM t").fetchall() == [(3, 2)]
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    connection.close()


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    assert isinstance(version, int)
    return version


async def test_a_file_of_an_older_format_is_brought_up_to_date_when_it_is_opened(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds stays."""
    monkeypatch.setattr(files, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE more (a)",)))
    (await asyncio.to_thread(files.connect, kept, 1.0)).close()
    assert version_of(kept) == len(MIGRATIONS)  # whoever only looks changes nothing
    async with opened(kept) as store:
        assert await store.find("e7") is not None
    assert version_of(kept) == len(MIGRATIONS) + 1


def test_versions_are_those_of_executions_where_none_were_noted() -> None:
    """A file of the first format gets the versions that its executions began with, the oldest first."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    files.migrate(connection, MIGRATIONS[:1])
    for name in ("new", "old"):
        connection.execute("INSERT INTO definitions VALUES (?, '{}', 0)", (name,))
    for identity, definition, created in (("a", "new", 30), ("b", "old", 10), ("c", "old", 20), ("d", "gone", 5)):
        made = (identity, definition, created)
        connection.execute(
            "INSERT INTO executions (id, namespace, graph_id, graph_name, definition, status, tags, created, fence, "
            "attempt, sequence, steps, waits, waits_sum, head, head_sum) "
            "VALUES (?, 'n', 'f::G', 'G', ?, 'completed', '[]', ?, 1, 1, 0, 0, '[]', 0, '{}', 0)",
            made,
        )
    files.migrate(connection, MIGRATIONS[:2])
    found = connection.execute("SELECT namespace, graph_id, definition, since FROM versions ORDER BY number").fetchall()
    assert found == [("n", "f::G", "old", 10), ("n", "f::G", "new", 30)]
    connection.close()


def test_the_file_says_what_it_is() -> None:
    """The application id is a constant of the format."""
    assert int.from_bytes(b"AgMp", "big") == APPLICATION_ID


async def test_the_connection_is_set_for_power_loss_and_for_strangers_files(path: Path) -> None:
    """Every commit is on the disk, the log is copied by us, the schema is not trusted."""
    wanted = {
        "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0, "wal_autocheckpoint": 0,
        "busy_timeout": 10_000, "user_version": len(MIGRATIONS),
    }  # fmt: skip
    async with opened(path) as store:

        def ask(connection: sqlite3.Connection) -> dict[str, Any]:
            return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}

        assert await store._change(ask) == wanted


# What is in the file.

DAMAGES = {
    "entry": "UPDATE entries SET text = text || ' ' WHERE execution = 'a'",
    "entry moved": "UPDATE entries SET sequence = 7 WHERE execution = 'a'",
    "entry blob": "UPDATE entries SET text = x'00' WHERE execution = 'a'",
    "entry null": "UPDATE entries SET text = 3.5 WHERE execution = 'a'",
    "head": "UPDATE executions SET head = '{}' WHERE id = 'a'",
    "document": "UPDATE executions SET document = '{\"a\":2}' WHERE id = 'a'",
    "waits": "UPDATE executions SET waits = x'ff' WHERE id = 'a'",
    "tags": "UPDATE executions SET tags = '{' WHERE id = 'a'",
    "tags type": "UPDATE executions SET tags = '[1]' WHERE id = 'a'",
    "status": "UPDATE executions SET status = 'fine' WHERE id = 'a'",
    "created": "UPDATE executions SET created = 'now' WHERE id = 'a'",
    "owner": "UPDATE executions SET owner = x'ff' WHERE id = 'a'",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_execution_says_so_and_harms_no_other(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its name is in the error, and in the log when it is left out of a list."""
    async with opened(path) as store:
        for name in "ab":
            await store.create(start(name, head='{"x": 1}', document='{"a": 1}'))
            await store.append(batch(name, ("", 1, "text")))
    change(path, DAMAGES[damage])
    async with opened(path) as store:
        with pytest.raises(StoreDamaged, match="execution a is damaged") as caught:
            await asyncio.gather(store.find("a"), store.entries("a"))
        assert caught.value.execution_id == "a"
        assert await store.find("b") == row("b", head='{"x": 1}', document='{"a": 1}')
        assert await store.entries("b") == [Entry("", 1, "text")]
        for _ in range(2):
            assert "b" in [found.id for found in await store.select(Filter())]
        assert "b" in [found.id for found in await store.stranded()]
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) <= 1


async def test_an_error_that_somebody_keeps_does_not_hold_the_reader_back(path: Path) -> None:
    """What was read half is let go, so that the next who reads sees what was written since."""
    async with opened(path) as store:
        for name in "ab":
            await store.create(start(name))
            await store.append(batch(name, ("", 1, "one"), ("", 2, "two")))
        await store._change(lambda c: c.execute("UPDATE entries SET text = 'x' WHERE execution = 'a'").rowcount)
        with pytest.raises(StoreDamaged) as kept:
            await store.entries("a")
        await store.append(batch("b", ("", 3, "three")))
        assert len(await store.entries("b")) == 3
        assert kept.value.__traceback__ is not None


async def test_a_damaged_execution_cannot_be_claimed(path: Path) -> None:
    """The claim is undone, and says why."""
    async with opened(path) as store:
        await store.create(start("a"))
        known = await store.find("a")
        assert known is not None
        await store._change(lambda connection: connection.execute("UPDATE executions SET head = '[]'").rowcount)
        with pytest.raises(StoreDamaged):
            await store.claim(known, await runner_of(store))
        fence = await store._read(lambda connection: connection.execute("SELECT fence FROM executions").fetchone())
        assert fence == (1,)


async def test_a_damaged_definition_says_so(path: Path) -> None:
    """By its hash."""
    async with opened(path) as store:
        await store.create(start("a", pins={"d": "text"}))
        await store._change(lambda connection: connection.execute("UPDATE definitions SET text = 'other'").rowcount)
        with pytest.raises(StoreDamaged, match="definition d"):
            await store.pinned("d")


async def test_a_file_that_is_damaged_while_it_is_open_says_so(path: Path) -> None:
    """SQLite finds it, and the message names the execution that was asked for."""
    async with opened(path) as store:
        await asyncio.gather(*(store.create(start(f"e{n}", head='{"x": "' + "y" * 900 + '"}')) for n in range(300)))
        store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with path.open("r+b") as file:
            file.seek(4_096)
            file.write(os.urandom(path.stat().st_size - 4_096))
        store._reader.execute("PRAGMA shrink_memory")
        with pytest.raises(StoreDamaged, match="execution e7"):
            await store.find("e7")
        with pytest.raises((StoreDamaged, StoreUnavailable)):
            await store.select(Filter())


class Shift:
    """A codec with a key; a wrong one does not decode."""

    def __init__(self, key: int) -> None:
        self._key = key

    def encode(self, data: bytes) -> bytes:
        return bytes([self._key, *(byte ^ self._key for byte in data)])

    def decode(self, data: bytes) -> bytes:
        if data[0] != self._key:
            raise ValueError("another key")
        return bytes(byte ^ self._key for byte in data[1:])


async def test_a_codec_encrypts_states_and_entries(path: Path) -> None:
    """The secret is nowhere in the file; without the key, or with another, an execution cannot be read."""
    secret = "open sesame"
    async with opened(path) as store:
        await store.create(start("before"))
    async with opened(path, codec=Shift(7)) as store:
        await store.create(start("a", head=secret, document=secret, waits=secret))
        await store.append(batch("a", ("", 1, secret)))
        number = await store.ask("a", "answer", secret)
        await store.answer(number, secret)
        assert await store.entries("a") == [Entry("", 1, secret)]
        assert await store.find("before") == row("before")
    assert secret.encode() not in path.read_bytes()
    for codec in (None, Shift(8)):
        async with opened(path, codec=codec) as store:
            with pytest.raises(StoreDamaged, match="codec"):
                await store.find("a")
            with pytest.raises(StoreDamaged, match="codec"):
                await store.entries("a")
            assert await store.find("before") == row("before")


async def test_namespaces_share_a_file_and_see_only_their_own(path: Path) -> None:
    """Executions, keys, lists, what is stranded or due, and generations."""
    async with opened(path, "one") as one, opened(path, "two") as two:
        await one.create(start("a", key="k"))
        await one.append(batch("a", ("", 1, "x")))
        assert await two.create(start("b", key="k", status="suspended", wake=1)) is None
        assert await two.find("a") is None
        assert await two.entries("a") == []
        assert not await two.append(batch("a", ("", 2, "y")))
        assert [found.id for found in await two.select(Filter())] == ["b"]
        assert [found.id for found in await one.stranded()] == ["a"]
        assert await two.stranded() == []
        assert await one.due(1) == []
        known = await one.find("a")
        assert known is not None
        assert await two.claim(known, await runner_of(two)) is None
        assert await one.generation(bump=True) == 1
        assert await two.generation() == 0
        with pytest.raises(ExecutionConflict, match="There is an execution of this id already"):
            await two.create(start("a"))


async def test_one_namespace_has_one_source(path: Path) -> None:
    """Two that live with different workflows are refused, one after the other is fine; the setting is named."""
    async with opened(path, source="/a/flows") as first:
        runner = await runner_of(first)
        async with opened(path, source="/b/flows") as second:
            with pytest.raises(StoreUnusable, match="`namespace`"):
                second.runner()
        async with opened(path, source="/a/flows") as third:
            assert third.runner().id != runner.id
        async with opened(path, "other", source="/b/flows") as fourth:
            assert fourth.runner().id != runner.id
    async with opened(path, source="/b/flows") as last:
        assert last.runner().id != runner.id


# Writing.


class Slow(FakeBatch):
    """Waits, in the writer's thread, until the test has given the rest."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.taken = threading.Event()
        self.gate = threading.Event()

    def changes(self) -> Any:
        self.taken.set()
        self.gate.wait(60)
        return super().changes()


async def test_what_is_given_meanwhile_is_one_transaction(path: Path) -> None:
    """A hundred writes behind a slow one are committed together, and their callers told together."""
    async with opened(path) as store:
        await store.create(start("a"))
        slow = Slow("a", {"steps": 1})
        commits: list[str] = []
        store._writer.set_trace_callback(lambda text: commits.append(text) if text.startswith("COMMIT") else None)
        first = store.append(slow)
        await asyncio.to_thread(slow.taken.wait)
        rest = [store.create(start(f"e{number}")) for number in range(100)]
        slow.gate.set()
        assert await first
        assert [await one for one in rest] == [None] * 100
        store._writer.set_trace_callback(None)
        assert len(commits) == 2


FAULTS: dict[str, Callable[[], Any]] = {
    "raises": lambda: FakeBatch("b", {"steps": 1}, [Entry("", 5, "x")], fault=RuntimeError("no")),
    "no such column": lambda: batch("b", nonsense=1),
    "not its own": lambda: batch("b", fence=1, namespace="other"),
    "entry that is there": lambda: batch("b", ("", 1, "again")),
    "entry twice": lambda: batch("b", ("", 5, "x"), ("", 5, "y")),
    "wrong type": lambda: batch("b", steps=object()),
    "too large": lambda: batch("b", steps=1 << 70),
    "null": lambda: batch("b", status=None),
    "surrogate": lambda: batch("b", ("", 5, "\ud800")),
    "definition": lambda: FakeBatch("b", {}, [Entry("", 5, "x")], given={"h": None}),  # type: ignore[dict-item]
    "a start": lambda: FakeStart(row("d"), fault=RuntimeError("no")),
    "a start without": lambda: FakeStart(row("d", graph_id=None)),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_write_that_cannot_be_made_harms_none_of_its_group(path: Path, fault: str) -> None:
    """It raises to its caller and writes nothing of its own."""
    async with opened(path) as store:
        for name in "abc":
            await store.create(start(name))
            await store.append(batch(name, ("", 1, "one")))
        bad = FAULTS[fault]()
        given = [
            store.append(batch("a", ("", 2, "two"), steps=2)),
            store.create(bad) if isinstance(bad, FakeStart) else store.append(bad),
            store.append(batch("b", ("", 9, "nine"), sequence=9)),
            store.create(start("new", pins={"new": "text"})),
            store.append(batch("c", ("", 2, "two"), steps=2)),
        ]
        results: list[Any] = await asyncio.gather(*given, return_exceptions=True)
        error = results.pop(1)
        assert isinstance(error, Exception)
        assert not isinstance(error, sqlite3.Error | StoreUnavailable)
        assert results == [True, True, None, True]
        assert await store.find("b") == row("b", sequence=9)
        assert [e.sequence for e in await store.entries("b")] == [1, 9]
        assert [e.sequence for e in await store.entries("c")] == [1, 2]
        assert await store.pinned("new") == "text"
        assert await store.find("d") is None


async def test_a_caller_who_has_gone_is_no_harm(path: Path) -> None:
    """What was given is written, whether somebody waits for it or not."""
    async with opened(path) as store:
        waiting = asyncio.ensure_future(store.create(start("a")))
        waiting.cancel()
        assert await store.create(start("b")) is None
        assert await store.find("a") is not None


async def test_a_loop_that_is_closed_is_no_harm(path: Path) -> None:
    """Its write is made; the next loop goes on with the same store."""
    store = SQLiteStore(path, namespace="tests")

    def elsewhere(name: str) -> None:
        async def give() -> None:
            await store.open()
            store.create(start(name))

        loop = asyncio.new_event_loop()
        loop.run_until_complete(give())
        loop.close()

    for name in "ab":
        await asyncio.to_thread(elsewhere, name)
    await store.open()
    assert await store.create(start("c")) is None
    assert [found.id for found in await store.select(Filter())] == ["c", "b", "a"]
    await store.aclose()


async def test_a_closed_store_says_so(path: Path) -> None:
    """Reads and writes alike."""
    store = SQLiteStore(path, namespace="tests")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.create(start("a"))
        with pytest.raises(StoreUnavailable):
            await store.find("a")
        await store.open()
        await store.aclose()


async def full(store: SQLiteStore, pages: int | None) -> None:
    """As if the disk were full: the file may not grow; None: it may again."""

    def limit(connection: sqlite3.Connection) -> None:
        (now,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {1 << 30 if pages is None else now + pages}")

    await store._change(limit)


async def test_a_full_disk_fails_the_writes_that_wait_and_loses_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They raise StoreUnavailable and are not made later; when there is room, others are. The log says it twice."""
    async with opened(path) as store:
        await store.create(start("a"))
        await store.append(batch("a", ("", 1, "one")))
        await full(store, 0)
        caplog.clear()
        with caplog.at_level(logging.INFO, "agentmap_asgi"):
            big = "x" * 100_000
            results = await asyncio.gather(
                store.append(batch("a", ("", 2, big), steps=2)),
                store.create(start("b", head=big)),
                return_exceptions=True,
            )
            assert [type(one) for one in results] == [StoreUnavailable, StoreUnavailable]
            with pytest.raises(StoreUnavailable):
                await store.append(batch("a", ("", 2, big), steps=2))
            assert await store.find("a") == row("a")
            await full(store, None)
            assert await store.append(batch("a", ("", 3, "three")))
        assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
        assert [e.sequence for e in await store.entries("a")] == [1, 3]
        assert await store.find("b") is None


async def test_what_follows_a_failed_write_is_not_written_before_the_caller_knows(path: Path) -> None:
    """No gap: a write that was given already, of the same execution, fails as well; those of others do not."""
    async with opened(path) as store:
        for name in "ab":
            await store.create(start(name))
        await full(store, 0)
        slow = Slow("a", {"steps": 1}, [Entry("", 1, "x" * 100_000)])
        first = store.append(slow)
        await asyncio.to_thread(slow.taken.wait)
        second, other = store.append(batch("a", ("", 2, "y"))), store.append(batch("b", ("", 1, "y")))
        slow.gate.set()
        results = await asyncio.gather(first, second, other, return_exceptions=True)
        assert isinstance(results[0], StoreUnavailable)
        assert isinstance(results[1], StoreUnavailable)
        assert results[2] is True
        assert await store.append(batch("a", ("", 3, "z")))
        assert [e.sequence for e in await store.entries("a")] == [3]


async def test_a_loop_that_ends_with_a_failed_write_leaves_its_execution_to_the_next(path: Path) -> None:
    """Nobody will ever know of the failure there."""
    async with opened(path) as store:
        await store.create(start("a", runner="gone"))
        known = await store.find("a")
        assert known is not None
        await full(store, 0)

        slow = Slow("a", {}, [Entry("", 1, "x" * 100_000)])
        loops: list[asyncio.AbstractEventLoop] = []

        def elsewhere() -> None:
            async def give() -> None:
                store.append(slow)

            loops.append(asyncio.new_event_loop())
            loops[0].run_until_complete(give())

        await asyncio.to_thread(elsewhere)
        slow.gate.set()
        with suppress(StoreUnavailable):  # in the same transaction or in the next: the failed one is over then
            await store.generation(bump=True)
        assert await store.claim(known, await runner_of(store)) is not None
        assert await store.append(batch("a", ("", 1, "x"), fence=2))
        loops[0].close()


async def test_a_locked_file_fails_the_writes_after_a_while(path: Path) -> None:
    """Another program that holds the file does not hold the callers for ever; then writing goes on."""
    async with opened(path, busy_timeout=0.05) as store:
        await store.create(start("a"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await store.append(batch("a", ("", 1, "one")))
        assert await store.find("a") == row("a")
        other.execute("ROLLBACK")
        other.close()
        assert await store.append(batch("a", ("", 1, "one")))


@pytest.mark.skipif(sqlite3.sqlite_version_info >= (3, 51, 3), reason="this SQLite needs no lock of ours")
async def test_a_turn_that_nobody_ends_fails_the_writes_after_a_while(path: Path) -> None:
    """A process that was stopped in its turn holds the others up, and they say so."""
    async with opened(path, busy_timeout=0.05) as store:
        lock = FileLock(path.with_name("store.db.lock"))
        assert lock.acquire(0)
        with pytest.raises(StoreUnavailable):
            await store.create(start("a"))
        lock.release()
        lock.close()
        assert await store.create(start("a")) is None


async def test_a_sqlite_without_the_fault_takes_no_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own locks are enough then."""
    async with opened(path, busy_timeout=0.05) as store:
        lock = FileLock(path.with_name("store.db.lock"))
        assert lock.acquire(0)
        monkeypatch.setattr("agentmap_asgi.stores.writer.FIXED", (3,))
        assert await store.create(start("a")) is None
        lock.release()
        lock.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_taken_away_gets_no_more_writes(path: Path, replaced: bool) -> None:
    """Nobody would ever read them."""
    async with opened(path) as store:
        await store.create(start("a"))
        if replaced:
            shutil.copy(path, path.with_name("copy"))
            path.with_name("copy").replace(path)
        else:
            path.unlink()
        with pytest.raises(StoreUnavailable, match="start again"):
            await store.append(batch("a", ("", 1, "one")))


async def test_the_log_is_copied_into_the_file_again_and_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not grow without end."""
    monkeypatch.setattr("agentmap_asgi.stores.writer.CHECKPOINT", 100)
    log = path.with_name("store.db-wal")
    async with opened(path) as store:
        await store.create(start("a"))
        largest = 0
        for number in range(1, 300):
            await store.append(batch("a", ("", number, "x" * 2_000)))
            largest = max(largest, os.stat(log).st_size)
        assert largest < 3_000_000
        assert path.stat().st_size > 500_000
    assert not log.exists()


async def test_pruning_many_entries_takes_several_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that other writes are not held up; it still takes as many executions as it was told to."""
    monkeypatch.setattr("agentmap_asgi.stores.sqlite.PRUNED", 50)
    async with opened(path) as store:
        for name in "abcdef":
            await store.create(start(name))
            for number in range(1, 40):
                await store.append(batch(name, ("", number, "x")))
            await store.append(batch(name, ("", 40, "x"), status="failed", ended=1))
        commits: list[str] = []
        store._writer.set_trace_callback(lambda text: commits.append(text) if text.startswith("COMMIT") else None)
        assert await store.prune(2, 2, limit=5) == 5
        assert len(commits) == 3
        assert await store.prune(2, 2, limit=5) == 1


@pytest.mark.parametrize(
    ("query", "values", "indexes"),
    [
        (schema.RUNNERS, 1, ["executions_live"]),
        (schema.STRANDED, 2, ["executions_live"]),
        (schema.DUE, 2, ["executions_wake"]),
        (schema.ENDED, 4, ["executions_ended"]),
        (schema.UNREFERENCED, 0, ["executions_definition", "pins_definition"]),
        (schema.ASKED, 2, ["sqlite_autoindex_executions_1"]),
        (schema.FIND_KEY, 2, ["executions_key"]),
        (schema.DURATIONS, 3, ["executions_graph"]),
        (schema.ENTRIES, "execution after namespace", ["PRIMARY KEY"]),
        (schema.ENTRIES_OF_PATH, "execution after namespace path", ["PRIMARY KEY"]),
    ],
)
def test_what_is_asked_again_and_again_goes_by_an_index(query: str, values: int | str, indexes: list[str]) -> None:
    """A store with many executions stays quick."""
    given = ["1"] * values if isinstance(values, int) else dict.fromkeys(values.split(), "1")
    connection = sqlite3.connect(":memory:", isolation_level=None)
    files.migrate(connection, MIGRATIONS)
    plan = "\n".join(line[3] for line in connection.execute(f"EXPLAIN QUERY PLAN {query}", given))
    assert [name for name in indexes if name not in plan] == []
    assert "SCAN executions" not in plan
    assert "SCAN entries" not in plan
    connection.close()


async def test_requests_that_nobody_asks_about_are_forgotten(path: Path) -> None:
    """A day after a pruning has seen them."""
    day = 86_400 * 10**9
    async with opened(path) as store:
        await store.create(start("a", runner="r"))
        first = await store.ask("a", "cancel", "{}")
        await store.prune(0, day)
        await store.prune(0, 2 * day)
        assert await store.withdraw(first)
        await store.ask("a", "cancel", "{}")
        await store.prune(0, 3 * day)
        await store.prune(0, 4 * day + 1)
        assert await store._read(lambda c: c.execute("SELECT count(*) FROM commands").fetchone()) == (0,)


# Processes.


@contextmanager
def program(*words: str, limit: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """tests/stores/program.py in a process of its own; killed at the end."""
    here = Path(__file__).parent
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent.parent), str(here)])}
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def tell(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


async def test_processes_that_claim_the_same_executions_win_each_once(path: Path) -> None:
    """Three at once, over a hundred executions."""
    async with opened(path) as store:
        await asyncio.gather(*(store.create(start(f"e{n:03}", status="suspended", fence=0)) for n in range(100)))
    with program("claim", str(path)) as one, program("claim", str(path)) as two, program("claim", str(path)) as three:
        processes = (one, two, three)
        assert [line(process) for process in processes] == ["ready"] * 3
        for process in processes:
            tell(process, "go")
        won = [line(process).split() for process in processes]
        assert sorted(name for names in won for name in names) == [f"e{n:03}" for n in range(100)]
        async with opened(path) as store:
            assert {found.fence for found in await store.select(Filter(limit=100))} == {1}
            assert await store.stranded() == []


async def test_processes_that_come_upon_a_missing_file_make_it_once(path: Path) -> None:
    """And all write into the one."""
    with ExitStack() as stack:
        processes = [stack.enter_context(program("write_one", str(path), f"e{number}")) for number in range(4)]
        assert [line(process) for process in processes] == ["ready"] * 4
        for process in processes:
            tell(process, "go")
        assert [line(process) for process in processes] == ["written"] * 4
    async with opened(path) as store:
        assert {found.id for found in await store.select(Filter())} == {"e0", "e1", "e2", "e3"}


async def test_a_killed_process_strands_its_executions_and_a_stopped_one_does_not(path: Path) -> None:
    """Whoever may go on is not taken over."""
    async with opened(path) as store:
        with program("run", str(path), "a") as killed, program("run", str(path), "b") as stopped:
            assert [line(killed), line(stopped)] == ["running", "running"]
            assert await store.stranded() == []
            stopped.send_signal(signal.SIGSTOP)
            killed.kill()
            killed.wait()
            assert [found.id for found in await store.stranded()] == ["a"]
            mine = await runner_of(store)
            (found,) = await store.stranded()
            claimed = await store.claim(found, mine)
            assert claimed is not None
            assert await store.stranded() == []
            assert await store.append(batch("a", ("", 9, "mine"), fence=claimed.fence))
            assert not await store.append(batch("a", ("", 10, "its"), fence=found.fence))
            assert len(list(path.with_name("store.db.runners").iterdir())) == 3  # the dead one's file was removed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_forked_child_does_not_keep_its_parents_runner_alive(path: Path) -> None:
    """An agent that forks workers would else hold up the recovery after a crash."""
    with program("fork", str(path), "a") as parent:
        assert line(parent) == "running"
        child = int(line(parent))
        try:
            parent.kill()
            parent.wait()
            async with opened(path) as store:
                assert [found.id for found in await store.stranded()] == ["a"]
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
async def test_a_file_that_may_not_grow_fails_writes_and_loses_none(path: Path) -> None:
    """The system's own error, in the middle of a commit: what was acknowledged is there, what failed is not."""
    with program("grow", str(path)) as process:
        acknowledged, failed, again = (line(process).split() for _ in range(3))
    assert len(acknowledged) > 10
    assert failed
    assert again
    async with opened(path) as store:
        there = {found.id for found in await store.select(Filter(limit=100_000))}
    assert there == {*acknowledged, *again}


@pytest.mark.long
async def test_what_was_acknowledged_survives_kill_9(path: Path, rounds: int) -> None:
    """At any moment; entries have no gaps, and the file is in order."""
    for number in range(min(rounds, 100) + 2):
        with program("write", str(path), str(number)) as process:
            for _ in range(3 + number % 5):
                acknowledged = line(process)
            process.kill()
            rest, _ = process.communicate()
            last = int((rest.rstrip("\n").splitlines() or [acknowledged])[-1] or acknowledged)
        async with opened(path) as store:
            found = await store.find(f"round-{number}")
            assert found is not None
            entries = await store.entries(found.id)
            assert [e.sequence for e in entries] == list(range(1, len(entries) + 1))
            assert found.sequence == len(entries) >= last
            assert [found.id for found in await store.stranded()] == [found.id]
            assert await store.append(batch(found.id, status="interrupted"))


def test_runner_files_are_swept_while_others_are_made(tmp_path: Path) -> None:
    """Four threads make and sweep; a living one is never seen dead."""
    folder = tmp_path / "runners"
    wrong: list[str] = []

    def churn() -> None:
        files = RunnerFiles(folder)
        for _ in range(100):
            made = files.make({"namespace": "n"})
            files.living()
            if not files.alive(made.id):
                wrong.append(made.id)
            made.close()
            if files.alive(made.id):
                wrong.append(made.id)

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(folder.iterdir()) == []


def test_what_is_in_a_runner_file_is_not_trusted(tmp_path: Path) -> None:
    """Rubbish is passed over, and no name leads out of the folder."""
    files = RunnerFiles(tmp_path)
    made = files.make({"namespace": "n"})
    os.ftruncate(made.file, 0)
    os.pwrite(made.file, b"{[", 0)
    assert files.living() == []
    assert files.alive(made.id)
    for name in ("", ".", "..", "../x", f"../{tmp_path.name}/{made.id}", "1-g"):
        assert not files.alive(name)
    made.close()


def test_a_row_can_be_made_from_its_columns() -> None:
    """The table has a column for each field of the Row."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    files.migrate(connection, MIGRATIONS)
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(executions)")}
    assert columns == {*Row.__dataclass_fields__, "waits_sum", "head_sum", "document_sum"}
    connection.close()
