"""Processes that are stopped for a while, asked to end, or killed beside others that go on."""

from __future__ import annotations

import random
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
from checker import Lives, check, connect, stored
from processes import Nursery, log, stopped, wait_for
from steps import ended, few, of, owners
from world import EFFECTS, GRACE, STORE, TOLD, count

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def test_what_a_killed_process_left_goes_on_in_another(nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """Two work on one store; one is killed, and the other takes its executions on, without a restart."""
    taken = 0
    for number in few(rounds, 20):
        folder = tmp_path / str(number)
        folder.mkdir()
        one = nursery.make("work", folder, seed=number, state={"slow": 0.05})
        two = nursery.make("work", folder, seed=number + 1_000, starts=20)
        one.until("started")
        two.until("started")
        wait_for(lambda: len(of(one, folder)) >= 2)  # noqa: B023
        time.sleep(random.Random(number).random() * 0.3)
        one.kill()
        left = of(one, folder)
        lives = Lives(crashes=1)
        wait_for(lambda: not of(one, folder))  # noqa: B023
        two.until("closed")
        two.wait()
        taken += len(left)
        assert not owners(folder)
        ended(nursery, folder, lives)
    print(f"{len(few(rounds, 20))} kills, {taken} executions taken on")
    assert taken > 0


def test_what_a_stopped_process_runs_is_not_taken_from_it(nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """It stands still for seconds, whatever it holds; others go on, and leave its executions to it."""
    kept = 0
    for number in few(rounds, 8):
        folder = tmp_path / str(number)
        folder.mkdir()
        one = nursery.make("work", folder, seed=number, starts=30, state={"slow": 0.1})
        two = nursery.make("work", folder, seed=number + 1_000, starts=40)
        one.until("started")
        two.until("started")
        wait_for(lambda: len(of(one, folder)) >= 2)  # noqa: B023
        time.sleep(random.Random(number).random() * 0.3)
        with stopped(one):
            before = of(one, folder)
            effects = count(folder / EFFECTS)
            time.sleep(2.0 if rounds == 1 else random.Random(number).choice((3.0, 12.0)))
            assert of(one, folder) == before
            kept += len(before)
            others = count(folder / EFFECTS) - effects
        one.until("closed")
        two.until("closed")
        one.wait()
        two.wait()
        report = ended(nursery, folder, Lives())
        assert report.repeated == 0
        assert report.interrupted == 0
        print(f"{len(before)} executions of a stopped process stayed its own; others had {others} effects meanwhile")
    assert kept > 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_is_asked_to_end_does_so_and_loses_nothing(
    processes: int, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """Its nodes get their grace; what runs longer is left to the next process. It is gone a second later."""
    slowest = left = 0.0
    for number in few(rounds, 10):
        folder = tmp_path / str(number)
        folder.mkdir()
        slow = [0.05, 30.0][number % 2 if rounds > 1 else processes - 1]
        workers = [nursery.make("work", folder, seed=number + n, state={"slow": slow}) for n in range(processes)]
        for worker in workers:
            worker.until("started")
        wait_for(lambda: count(folder / TOLD) >= 4)  # noqa: B023
        time.sleep(random.Random(number).random() * 0.3)
        began = time.monotonic()
        for worker in workers:
            worker.send(signal.SIGTERM)
        for worker in workers:
            worker.until("closed")
            worker.wait()
        took = time.monotonic() - began
        slowest = max(slowest, took)
        assert took < 10  # the figure is printed; how long it takes is up to what else the machine does
        assert not list((folder / f"{STORE}.runners").iterdir())
        lives = Lives()
        lives.crash(folder)  # what was left is a crash to those that go on
        left += len(owners(folder))
        if slow > 1:
            _quicken(folder)
        ended(nursery, folder, lives)
        assert "ERROR" not in log(folder)
    print(f"slowest end after {slowest:.2f} s with a grace of {GRACE} s; {left:.0f} executions left to others")


def _quicken(folder: Path) -> None:
    """So that the test does not wait for the slow nodes: the state says how slow they are."""
    from zlib import crc32

    with closing(connect(folder / STORE)) as connection:
        for name, head in connection.execute("SELECT id, head FROM executions").fetchall():
            quick = head.replace('"slow":30.0', '"slow":0.01')
            connection.execute(
                "UPDATE executions SET head = ?, head_sum = ? WHERE id = ?", (quick, crc32(quick.encode()), name)
            )
        connection.commit()


def test_a_store_that_another_program_holds_is_waited_for(nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """For seconds nobody can write; then everything goes on, and nothing is lost."""
    for number in few(rounds, 3):
        folder = tmp_path / str(number)
        folder.mkdir()
        worker = nursery.make("work", folder, seed=number, starts=30)
        worker.until("started")
        wait_for(lambda: count(folder / TOLD) >= 4)  # noqa: B023
        holder = nursery.make("hold", folder, seconds=1.5 if rounds == 1 else 12.0)  # the store gives up after ten
        holder.until("held")
        asked = count(folder / TOLD)
        holder.until("let")
        assert count(folder / TOLD) <= asked + 8  # nothing was acknowledged that could not be written
        worker.until("closed")
        worker.wait()
        report = ended(nursery, folder, Lives())
        assert report.repeated == 0


@pytest.mark.parametrize("fault", ["clocks that jump", "files that change", "both, and kills"])
def test_the_world_changes_and_executions_go_on(fault: str, nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """The clock is set by an hour again and again; the workflows are read anew every few milliseconds: each execution
    goes on with the version it began with."""
    given = {"clock": fault != "files that change", "reloads": fault != "clocks that jump"}
    lives = Lives()
    for number in few(rounds, 10):
        worker = nursery.make("work", tmp_path, seed=number, starts=80, state={"slow": 0.005}, **given)
        worker.until("started")
        if "kills" in fault:
            wait_for(lambda: count(tmp_path / TOLD) >= 50 * (number + 1))  # noqa: B023
            worker.kill()
            lives.crash(tmp_path)
        else:
            worker.until("closed")
            worker.wait()
    report = ended(nursery, tmp_path, lives)
    marks = {one.mark for one in stored(tmp_path / STORE).values()}
    assert len(marks) > 1 or not given["reloads"]
    print(f"{report}, {len(marks)} versions")


def test_many_executions_end(nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """A thousand (ten thousand in long), with a kill while they run."""
    many = 1_000 if rounds == 1 else 10_000
    lives = Lives()
    worker = nursery.make("work", tmp_path, starts=many, clients=64, graphs=["Quick"], sync=False, max_running=64)
    wait_for(lambda: count(tmp_path / TOLD) > many // 2, seconds=900)
    worker.kill()
    lives.crash(tmp_path)
    worker = nursery.make(
        "work", tmp_path, starts=many - len(stored(tmp_path / STORE)), clients=64, graphs=["Quick"], sync=False
    )
    wait_for(lambda: count(tmp_path / TOLD) > many * 0.9, seconds=900)
    worker.until("closed")
    worker.wait()
    report = check(tmp_path, lives)
    report.assert_good(least=many)
    print(f"{report.executions} executions, {report.completed} completed, {report.repeated} effects repeated")
