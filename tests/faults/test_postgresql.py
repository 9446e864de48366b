"""Processes that share a PostgreSQL database: killed, stopped past their lease, cut off, and the server restarted."""

from __future__ import annotations

import random
import signal
import statistics
import time
from pathlib import Path

import pytest
from checker import Lives
from postgresql import Server
from processes import Nursery, stopped, wait_for
from steps import ended, few, of, placed
from world import EFFECTS, TOLD, count

from agentmap_asgi.config import AgentMapConfig

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


LEASE = 5.0


def test_a_dead_process_is_followed_by_another(postgres: Server, nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """What it ran goes on elsewhere within about a second, and no finished node runs again."""
    times = []
    # A server that has just started gives everybody time to come.
    wait_for(lambda: postgres.execute("SELECT now() - pg_postmaster_start_time() > interval '6 s'") == [(True,)])
    for number in few(rounds, 50):
        folder = placed(postgres.url(), tmp_path / str(number))
        one, *others = [
            nursery.make(
                "work",
                folder,
                seed=number * 10 + n,
                state={"slow": 0.05},
                starts=1_000_000 if n == 0 else 15,
                worker_lease=LEASE,
            )
            for n in range(2 if number % 2 == 0 else 4)
        ]
        for worker in (one, *others):
            worker.until("started")
        wait_for(lambda: len(of(one, folder)) >= 2)  # noqa: B023
        time.sleep(random.Random(number).random() * 0.3)
        one.kill()
        began = time.monotonic()
        left = of(one, folder)
        wait_for(lambda: not of(one, folder))  # noqa: B023
        if left:
            times.append(time.monotonic() - began)
        for worker in others:
            worker.until("closed")
            worker.wait()
        ended(nursery, folder, Lives(crashes=1))
    print(f"{len(times)} take-overs, {statistics.median(times):.2f} s at the median, {max(times):.2f} s at most")


def test_killed_again_and_again_nothing_is_lost_and_nothing_is_repeated(
    postgres: Server, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """One after the other on the same tables, at random moments, within writes too."""
    dice = random.Random(7)
    folder = placed(postgres.url(), tmp_path / "world")
    lives = Lives()
    for number in range(3 if rounds == 1 else 50):
        worker = nursery.make("work", folder, seed=number)
        worker.until("ready")
        if not number:
            wait_for(lambda: count(folder / TOLD) >= 4)
        time.sleep(dice.random() ** 2)
        worker.kill()
        lives.crash(folder)
    report = ended(nursery, folder, lives)
    print(f"{lives.crashes} kills, {report}")


def test_a_process_that_stands_still_loses_what_it_runs(
    postgres: Server, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """After its lease others go on with it; what it writes when it goes on itself is refused."""
    taken = 0
    for number in few(rounds, 15):
        folder = placed(postgres.url(), tmp_path / str(number))
        one = nursery.make("work", folder, seed=number, starts=30, state={"slow": 0.1}, worker_lease=2)
        two = nursery.make("work", folder, seed=number + 1_000, starts=15, worker_lease=2)
        one.until("started")
        two.until("started")
        wait_for(lambda: len(of(one, folder)) >= 2)  # noqa: B023
        time.sleep(random.Random(number).random() * 0.3)
        with stopped(one):
            left = of(one, folder)
            time.sleep(1.0)
            assert of(one, folder) == left  # its lease is not over
            wait_for(lambda: not of(one, folder) & left)  # noqa: B023
            taken += len(left)
        one.until("closed")
        two.until("closed")
        one.wait()
        two.wait()
        ended(nursery, folder, Lives(crashes=1))
    print(f"{taken} executions taken from processes that stood still")
    assert taken > 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_of_the_server_is_survived(
    how: signal.Signals, postgres: Server, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """Stopped or crashed, for a moment or for longer than writers are patient: everything goes on where it was."""
    for number in few(rounds, 8):
        folder = placed(postgres.url(), tmp_path / str(number))
        workers = [nursery.make("work", folder, seed=number * 10 + n, starts=40) for n in range(2)]
        for worker in workers:
            worker.until("started")
        wait_for(lambda: count(folder / TOLD) >= 8)  # noqa: B023
        postgres.stop(how)
        time.sleep(0.5 if rounds == 1 else random.Random(number).choice((0.0, 0.5, 8.0, 20.0)))
        postgres.start()
        for worker in workers:
            worker.until("closed")
            worker.wait()
        report = ended(nursery, folder, Lives())
        assert (report.repeated, report.interrupted) == (0, 0)


def test_connections_that_are_broken_off_again_and_again_harm_nobody(
    postgres: Server, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """All of them at once, in the middle of whatever they do; no process takes anything from another."""
    for number in few(rounds, 8):
        folder = placed(postgres.url(), tmp_path / str(number))
        workers = [nursery.make("work", folder, seed=number * 10 + n, starts=30) for n in range(2)]
        for worker in workers:
            worker.until("started")
        dice = random.Random(number)
        cuts = 0
        while count(folder / TOLD) < 60:
            time.sleep(dice.random() * 0.5)
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentmap-asgi'"
            )
            cuts += 1
        for worker in workers:
            worker.until("closed")
            worker.wait()
        report = ended(nursery, folder, Lives())
        assert (report.repeated, report.interrupted) == (0, 0)
        print(f"{cuts} cuts, {report}, {count(folder / EFFECTS)} effects")


def test_the_lease_is_as_documented() -> None:
    """A process that stands still has this long."""
    assert AgentMapConfig().worker_lease == 15.0
