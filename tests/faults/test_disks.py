"""Disks that are full for a while, and store files that were damaged."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from checker import Lives, check, connect, stored
from processes import Nursery, Worker, log, wait_for
from world import STORE, TOLD, count

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of a few megabytes over a folder; the log of the store alone may have eight."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _filled(folder: Path) -> Path:
    """A file that leaves a few kilobytes of the disk."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with ballast.open("r+b") as file:
        file.truncate(max(0, ballast.stat().st_size - 40_000))
    return ballast


@pytest.mark.parametrize("again", ["space", "space after a kill"])
def test_a_full_disk_loses_nothing(again: str, nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """Executions stand still until there is space, and end; or are taken on when the process is killed meanwhile."""
    for number in range(1 if rounds == 1 else 10):
        folder = tmp_path / str(number)
        disk = folder / "disk"
        disk.mkdir(parents=True)
        lives = Lives()
        with small_disk(disk):
            _on_a_full_disk(again, nursery, folder, lives, number)
            report = check(folder, lives)
            report.assert_good(least=3)
            assert again != "space" or report.repeated == 0
        (folder / STORE).unlink()


def _on_a_full_disk(again: str, nursery: Nursery, folder: Path, lives: Lives, number: int) -> None:
    (folder / STORE).symlink_to(folder / "disk" / STORE)
    given = {"storage": str(folder / "disk" / STORE)}
    worker = nursery.make("work", folder, seed=number, starts=60, **given)
    worker.until("started")
    wait_for(lambda: count(folder / TOLD) >= 6)
    ballast = _filled(folder / "disk")
    wait_for(lambda: "cannot be written" in log(folder))
    time.sleep(0.3)
    if again == "space":
        ballast.unlink()
        worker.until("closed")
        assert "can be written again" in log(folder)
    else:
        worker.kill()
        ballast.unlink()
        lives.crash(folder)
    worker.wait()
    nursery.drain(folder, **given)
    nursery.sweep()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are set on Linux only")
def test_a_file_that_may_not_grow_loses_nothing(nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """The system's own limit, set while executions run, and lifted again."""
    import resource

    for number in range(1 if rounds == 1 else 10):
        folder = tmp_path / str(number)
        folder.mkdir()
        worker = nursery.make("work", folder, seed=number, starts=60)
        worker.until("started")
        wait_for(lambda: count(folder / TOLD) >= 6)  # noqa: B023
        _, hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        size = (folder / f"{STORE}-wal").stat().st_size
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (max(size + 20_000, 60_000), hard))
        wait_for(lambda: "cannot be written" in log(folder))  # noqa: B023
        time.sleep(0.3)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (hard, hard))
        worker.until("closed")
        worker.wait()
        report = check(folder, Lives())
        report.assert_good(least=20)
        assert report.repeated == 0


# Damage.


def _bytes(at: int, data: bytes, file: str = STORE) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with (folder / file).open("r+b") as opened:
            opened.seek(at)
            opened.write(data)

    return damage


def _size(share: float, file: str = STORE) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        size = (folder / file).stat().st_size
        with (folder / file).open("r+b") as opened:
            opened.truncate(int(size * share))

    return damage


def _sql(statement: str, target: str = "suspended") -> Callable[[Path], None]:
    """A change by hand, of an execution that waits or runs."""

    def damage(folder: Path) -> None:
        with closing(connect(folder / STORE)) as connection:
            query = "SELECT id FROM executions WHERE status = ? AND graph_name IN ('Asks', 'Chain') ORDER BY id"
            (victim,) = connection.execute(query, (target,)).fetchone()
            (folder / "victim").write_text(victim)
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(statement, {"id": victim} if ":id" in statement else {})
            connection.commit()

    return damage


def _without_the_file(folder: Path) -> None:
    (folder / STORE).unlink()


REFUSED: dict[str, Callable[[Path], None]] = {
    "emptied": _size(0.0),
    "cut off": _size(0.5),
    "its first page overwritten": _bytes(0, b"\xff" * 4096),
    "a page in its middle overwritten": _bytes(3 * 4096, b"\x5a" * 4096),
    "another program's": _sql("PRAGMA application_id = 7"),
    "of a newer version": _sql("PRAGMA user_version = 99"),
    "with a trigger": _sql("CREATE TRIGGER t AFTER UPDATE ON executions BEGIN DELETE FROM entries; END"),
    "without a table": _sql("DROP TABLE commands"),
    "gone, and its log there": _without_the_file,
}
ISOLATED: dict[str, Callable[[Path], None]] = {
    "a state changed": _sql("UPDATE executions SET head = replace(head, '\"n\":', '\"n\":1') WHERE id = :id"),
    "a status that there is not": _sql("UPDATE executions SET status = 'done' WHERE id = :id"),
    "a wait changed": _sql("UPDATE executions SET waits = '[]' WHERE id = :id"),
    "a wait that is no JSON": _sql("UPDATE executions SET waits = '{', waits_sum = 366298937 WHERE id = :id"),
    "a document changed": _sql("UPDATE executions SET document = '{}' WHERE id = :id"),
    "an entry changed": _sql(
        "UPDATE entries SET text = replace(text, ',1,', ',2,') WHERE execution = :id AND sequence = 3"
    ),
    "an entry deleted": _sql("DELETE FROM entries WHERE execution = :id AND sequence = 3"),
    "its last entry deleted": _sql("DELETE FROM entries WHERE execution = :id AND sequence = 5"),
    "an entry moved": _sql("UPDATE entries SET sequence = 50 WHERE execution = :id AND sequence = 3"),
    "a number that is none": _sql("UPDATE executions SET sequence = 'many' WHERE id = :id"),
    "a running one's state changed": _sql("UPDATE executions SET head = '{}' WHERE id = :id", "running"),
    "a running one's entry changed": _sql(
        "UPDATE entries SET text = text || ' ' WHERE execution = :id AND sequence = 1", "running"
    ),
    "a running one's last entry deleted": _sql(
        "DELETE FROM entries WHERE execution = :id AND sequence = "
        "(SELECT max(sequence) FROM entries WHERE execution = :id)",
        "running",
    ),
    "its definition gone": _sql("UPDATE executions SET definition = 'sha256:none' WHERE id = :id"),
}


@pytest.fixture(scope="module")
def left(forks: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a kill has left it: executions that wait, some that run, some that have ended, and a log."""
    folder = tmp_path_factory.mktemp("left")
    first = forks.make("work", folder, starts=6, clients=2, graphs=["Chain", "Asks"])
    first.until("closed")
    first.wait()
    second = forks.make("work", folder, starts=10, clients=2, answers=False, graphs=["Asks", "Pair"])
    second.until("closed")
    second.wait()
    third = forks.make("work", folder, clients=2, answers=False, graphs=["Chain"], state={"slow": 0.06})
    third.until("started")
    told = count(folder / TOLD)
    wait_for(lambda: count(folder / TOLD) > told + 4)
    third.kill()
    forks.sweep()
    return folder


def _copied(left: Path, folder: Path) -> dict[str, str]:
    shutil.copytree(left, folder, dirs_exist_ok=True)
    statuses = {one.id: one.status for one in stored(folder / STORE).values()}
    assert set(statuses.values()) >= {"completed", "suspended", "running"}
    (folder / "before").write_text(" ".join(statuses))
    return statuses


def _opened(nursery: Nursery, folder: Path) -> str:
    worker: Worker = nursery.make("opening", folder)
    said = worker.until("opened", "refused")
    worker.wait()
    return said


@pytest.mark.parametrize("name", REFUSED)
def test_a_damaged_file_is_refused_and_left_as_it_is(name: str, nursery: Nursery, left: Path, tmp_path: Path) -> None:
    """Nothing is made anew in its place; with the damage undone, everything is there."""
    statuses = _copied(left, tmp_path)
    if name != "gone, and its log there":  # else the log would mend the file
        with closing(sqlite3.connect(tmp_path / STORE)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = {file: (tmp_path / file).read_bytes() for file in (STORE, f"{STORE}-wal") if (tmp_path / file).exists()}
    REFUSED[name](tmp_path)
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(tmp_path / STORE)) as connection:
        if name not in ("gone, and its log there", "emptied"):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if name == "gone, and its log there":
        (tmp_path / STORE).unlink(missing_ok=True)
        (tmp_path / f"{STORE}-wal").write_bytes(whole.get(f"{STORE}-wal") or b"x" * 100)
    digest = _digest(tmp_path)
    said = _opened(nursery, tmp_path)
    assert said.startswith("refused store_unusable"), said
    assert _digest(tmp_path) == digest

    for file in (STORE, f"{STORE}-wal", f"{STORE}-shm"):
        (tmp_path / file).unlink(missing_ok=True)
    for file, data in whole.items():
        (tmp_path / file).write_bytes(data)
    assert {one.id: one.status for one in stored(tmp_path / STORE).values()} == statuses


def _digest(folder: Path) -> str:
    path = folder / STORE
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "none"


@pytest.mark.parametrize("name", ISOLATED)
def test_a_damaged_execution_is_isolated(name: str, nursery: Nursery, left: Path, tmp_path: Path) -> None:
    """It is never run on with wrong data; all others go on and end."""
    _copied(left, tmp_path)
    ISOLATED[name](tmp_path)
    victim = (tmp_path / "victim").read_text()
    others = nursery.make("drain_others", tmp_path, victim=victim)
    shown = others.until("victim")
    others.until("drained")
    others.wait()
    assert shown.split()[1] in ("store_damaged", "interrupted", "conflict") or "'store_damaged'" in shown, shown
    with closing(connect(tmp_path / STORE)) as connection:
        connection.execute("DELETE FROM executions WHERE id = ?", (victim,))
        connection.execute("DELETE FROM entries WHERE execution = ?", (victim,))
        connection.commit()
    lives = Lives(crashes=1)
    report = check(tmp_path, lives)
    wrong = [text for text in report.violations if not text.startswith(victim)]
    assert not wrong, wrong
    assert report.completed >= 10


def test_a_read_only_file_is_refused_and_goes_on_when_it_is_writable_again(
    nursery: Nursery, left: Path, tmp_path: Path
) -> None:
    """Its reason is named, and nothing of it changes."""
    _copied(left, tmp_path)
    (tmp_path / STORE).chmod(0o400)
    said = _opened(nursery, tmp_path)
    assert said.startswith("refused store_unusable"), said
    assert "read-only" in said
    (tmp_path / STORE).chmod(0o600)
    lives = Lives()
    lives.crash(tmp_path)
    nursery.drain(tmp_path)
    check(tmp_path, lives).assert_good(least=10)


def test_pages_that_are_damaged_anywhere_are_never_taken_for_good(
    nursery: Nursery, left: Path, tmp_path: Path, rounds: int
) -> None:
    """A few bytes anywhere: the file is refused, or what is not damaged goes on; no execution ends wrongly."""
    dice = random.Random(0)
    said = []
    for number in range(2 if rounds == 1 else 30):
        folder = tmp_path / str(number)
        _copied(left, folder)
        file = dice.choice([name for name in (STORE, f"{STORE}-wal") if (folder / name).exists()])
        size = (folder / file).stat().st_size
        with (folder / file).open("r+b") as opened:
            opened.seek(dice.randrange(size))
            opened.write(dice.randbytes(dice.choice((1, 8, 512))))
        said.append(_opened(nursery, folder).split()[0])
        nursery.sweep()
        if said[-1] == "opened":
            with suppress(sqlite3.DatabaseError, ValueError):
                wrong = [
                    text for text in check(folder, Lives(crashes=1), over=False).violations if "ended with" in text
                ]
                assert not wrong, wrong
    print(f"refused {said.count('refused')}, opened {said.count('opened')}")
