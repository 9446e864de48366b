"""`agentmap-asgi store`: check, backup, prune."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest
from writes import FakeBatch, batch, start

from agentmap_asgi.__main__ import main
from agentmap_asgi.stores.sqlite import SQLiteStore
from agentmap_asgi.stores.store import Filter
from agentmap_asgi.stores.upkeep import DAY, prune


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with two namespaces."""
    path = tmp_path / "store.db"

    async def fill() -> None:
        for namespace in ("one", "two"):
            store = SQLiteStore(path, namespace=namespace, source="flows.csv")
            await store.open()
            for number in range(3):
                name = f"{namespace}-{number}"
                await store.create(start(name, definition="d", pins={"d": "text"}))
                await store.append(batch(name, ("", 1, "text"), status="completed", ended=number * DAY))
            await store.create(start(f"{namespace}-open", status="suspended", definition="d"))
            await store.append(FakeBatch(f"{namespace}-open", given={"e": "sub"}))
            await store.aclose()

    asyncio.run(fill())
    return path


def names(path: Path, namespace: str) -> list[str]:
    async def look() -> list[str]:
        store = SQLiteStore(path, namespace=namespace)
        await store.open()
        found = await store.select(Filter())
        await store.aclose()
        return sorted(row.id for row in found)

    return asyncio.run(look())


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_a_store_in_order_is_counted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By namespace and status; the exit status is 0."""
    assert main(["store", "check", "--store", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "one: 3 completed, 1 suspended",
        "two: 3 completed, 1 suspended",
        "8 executions, 6 entries, 2 definitions: nothing wrong",
    ]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE entries SET text = 'other' WHERE execution = 'one-1'", "execution one-1 is damaged"),
        ("UPDATE executions SET head = '[]' WHERE id = 'two-2'", "execution two-2 is damaged"),
        ("UPDATE executions SET status = 'fine' WHERE id = 'two-2'", "execution two-2 is damaged"),
        ("UPDATE definitions SET text = 'other' WHERE hash = 'e'", "definition e"),
        ("DELETE FROM definitions WHERE hash = 'd'", "execution one-open has lost its definition d"),
        ("DELETE FROM executions WHERE id = 'one-1'", "entries belongs to no execution"),
        ("CREATE VIEW v AS SELECT 1", "it has a view v"),
        ("PRAGMA user_version = 99", "newer version"),
    ],
)
def test_whatever_is_wrong_is_named(
    path: Path, statement: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the exit status is 1."""
    change(path, statement)
    assert main(["store", "check", "--store", str(path)]) == 1
    assert reason in capsys.readouterr().out


def test_a_file_of_rubbish_is_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether SQLite can read some of it or nothing."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(os.urandom(size - 4_096))
    assert main(["store", "check", "--store", str(path)]) == 1
    assert "damaged" in capsys.readouterr().out


def test_an_empty_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is there, and it is wrong."""
    (tmp_path / "store.db").touch()
    assert main(["store", "check", "--store", str(tmp_path / "store.db")]) == 1
    assert "is empty" in capsys.readouterr().out
    assert main(["store", "prune", "--days", "1", "--store", str(tmp_path / "store.db")]) == 2
    assert (tmp_path / "store.db").stat().st_size == 0


def test_checksums_of_what_is_encrypted_are_checked_without_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are those of what is stored."""

    class Turned:
        def encode(self, data: bytes) -> bytes:
            return data[::-1]

        decode = encode

    async def fill() -> None:
        store = SQLiteStore(tmp_path / "s.db", namespace="n", codec=Turned())
        await store.open()
        await store.create(start("a", status="failed"))
        await store.append(batch("a", ("", 1, "text")))
        await store.aclose()

    asyncio.run(fill())
    assert main(["store", "check", "--store", str(tmp_path / "s.db")]) == 0
    change(tmp_path / "s.db", "UPDATE entries SET text = x'00'")
    assert main(["store", "check", "--store", str(tmp_path / "s.db")]) == 1
    assert "execution a" in capsys.readouterr().out


def test_a_missing_store_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is one of no file; the exit status is 2."""
    for words in (["check"], ["backup", str(tmp_path / "copy.db")], ["prune", "--days", "1"]):
        assert main(["store", *words, "--store", str(tmp_path / "none.db")]) == 2
        assert "There is no store" in capsys.readouterr().err
    assert main(["store", "check", "--store", "memory://"]) == 2
    assert "is kept in no file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_store_is_that_of_the_settings(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path or a URL in the command wins."""
    assert main(["store", "check", "--store", f"sqlite:///{path}"]) == 0
    monkeypatch.setenv("AGENTMAP_STORAGE_URL", f"sqlite:///{path}")
    assert main(["store", "check"]) == 0
    assert capsys.readouterr().out.count("8 executions") == 2


def test_a_backup_is_made_while_the_store_is_in_use(path: Path, tmp_path: Path) -> None:
    """It is whole, has what was committed, and only its owner may read it."""
    target = tmp_path / "copies" / "copy.db"

    async def use() -> None:
        store = SQLiteStore(path, namespace="one", source="flows.csv")
        await store.open()
        await store.create(start("late", definition="d"))
        status = await asyncio.to_thread(main, ["store", "backup", str(target), "--store", str(path)])
        assert status == 0
        assert await store.append(batch("late", ("", 1, "more")))
        await store.aclose()

    asyncio.run(use())
    assert [one.name for one in target.parent.iterdir()] == ["copy.db"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert main(["store", "check", "--store", str(target)]) == 0
    assert "late" in names(target, "one")


def test_a_backup_replaces_nothing(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even what an unfinished one has left."""
    target = tmp_path / "copy.db"
    target.write_text("mine")
    assert main(["store", "backup", str(target), "--store", str(path)]) == 2
    assert target.read_text() == "mine"
    target.rename(tmp_path / "copy.db.new")
    assert main(["store", "backup", str(target), "--store", str(path)]) == 2
    (tmp_path / "copy.db.new").unlink()
    (tmp_path / "file").touch()
    assert main(["store", "backup", str(tmp_path / "file" / "copy.db"), "--store", str(path)]) == 2
    assert "cannot be made" in capsys.readouterr().err
    assert main(["store", "backup", str(target), "--store", str(path)]) == 0


def test_pruning_is_by_days_and_for_all_namespaces(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unfinished executions stay, for how long they may have waited."""
    assert prune(path, 2, now=3 * DAY + 1) == 4
    assert names(path, "one") == ["one-2", "one-open"]
    assert main(["store", "prune", "--days", "1", "--store", str(path)]) == 0
    assert names(path, "two") == ["two-open"]
    assert capsys.readouterr().out == "2 executions forgotten\n"
    assert main(["store", "prune", "--days", "0", "--store", str(path)]) == 2


def test_pruning_is_in_nobodys_way(path: Path) -> None:
    """A process that serves the namespace neither is hindered nor hinders."""

    async def use() -> None:
        store = SQLiteStore(path, namespace="one", source="flows.csv")
        await store.open()
        runner = store.runner()
        assert await asyncio.to_thread(prune, path, 1, 9 * DAY) == 6
        await store.create(start("new", runner=runner.id))
        assert await store.stranded() == []
        await store.aclose()

    asyncio.run(use())
