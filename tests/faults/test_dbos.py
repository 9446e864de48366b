"""Workers on DBOS: killed, stopped past their lease, cut off from the database, upgraded, poisoned."""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checker import Lives, check, stored
from network import Network
from postgresql import Server
from processes import Nursery, stopped, wait_for
from steps import closed, ended, few, of, placed, raced
from world import EFFECTS, STORE, TOLD, count, lines, write

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

RECOVERED = 9
"""A kind of entries."""


def twice(folder: Path) -> int:
    """How many runs of nodes had an effect in two processes, each under one key."""
    processes: dict[str, set[int]] = defaultdict(set)
    for line in lines(folder / EFFECTS):
        processes[line["key"]].add(line["pid"])
    return sum(len(some) > 1 for some in processes.values())


def taken_after(folder: Path, moment: int) -> list[float]:
    """After how many seconds executions went on elsewhere."""
    found = [
        (entry[3] - moment) / 1e9
        for one in stored(folder / STORE).values()
        for _, entry in one.entries.get("", [])
        if entry[0] == RECOVERED
    ]
    return [seconds for seconds in found if seconds > 0]


def test_what_a_dead_worker_ran_goes_on_in_others(
    postgres: Server, dbos_url: str, dbos_nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """One of four, or of two, is killed at a random moment; nothing that is done is done again."""
    times: list[float] = []
    if rounds > 1:  # a server that has just started gives everybody the lease to come back
        wait_for(lambda: postgres.execute("SELECT now() - pg_postmaster_start_time() > interval '6 s'") == [(True,)])
    for number in few(rounds, 30):
        folder = placed(dbos_url, tmp_path / str(number), engine="dbos")
        one, *others = [
            dbos_nursery.make("work", folder, seed=number * 10 + n, state={"slow": 0.05}, worker_lease=5.0,
                              starts=1_000_000 if n == 0 else 4)
            for n in range(4 if number % 2 else 2)
        ]  # fmt: skip
        for worker in (one, *others):
            worker.until("started")
        wait_for(lambda: len(of(one, folder)) >= 2)  # noqa: B023
        time.sleep(random.Random(number).random() * 0.3)
        one.kill()
        moment = time.time_ns()
        closed(*others)
        times += taken_after(folder, moment)
        ended(dbos_nursery, folder, Lives(crashes=1))
    if times:
        print(
            f"{len(times)} taken over, after {statistics.median(times):.2f} s at the median, {max(times):.2f} s at most"
        )


def test_a_worker_that_stands_still_loses_what_it_runs(
    dbos_url: str, dbos_nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """After its lease others go on. What it keeps and writes later is refused; a node that both run has one key."""
    taken = both = 0
    for number in few(rounds, 15):
        folder = placed(dbos_url, tmp_path / str(number), engine="dbos")
        one = dbos_nursery.make("work", folder, seed=number, starts=6, state={"slow": 0.2}, worker_lease=1.5)
        two = dbos_nursery.make("work", folder, seed=number + 1_000, starts=4, worker_lease=1.5)
        one.until("started")
        two.until("started")
        wait_for(lambda: len(of(one, folder)) >= 2)  # noqa: B023
        time.sleep(random.Random(number).random() * 0.3)
        with stopped(one):
            left = of(one, folder)
            wait_for(lambda: not of(one, folder) & left)  # noqa: B023
            taken += len(left)
            time.sleep(0.5)  # the others have begun with it
        closed(one, two)
        ended(dbos_nursery, folder, Lives(crashes=1))
        both += twice(folder)
    print(f"{taken} executions taken from workers that stood still, {both} nodes run by both")
    assert taken > 0


@pytest.fixture
def network(postgres: Server) -> Iterator[Network]:
    made = Network(postgres)
    yield made
    made.close()


def test_a_worker_without_a_way_to_the_database_loses_what_it_runs(
    dbos_url: str, dbos_nursery: Nursery, network: Network, tmp_path: Path, rounds: int
) -> None:
    """Nobody tells it, or the server, that what they send is lost. It goes on once the network is back."""
    taken = 0
    base = dbos_url.partition("@/")[2].partition("?")[0]
    for number in few(rounds, 10):
        folder = placed(dbos_url, tmp_path / str(number), engine="dbos")
        one = dbos_nursery.make(
            "work", folder, seed=number, starts=6, state={"slow": 0.1}, worker_lease=1.5, network=network.place,
            storage_url=network.url(base),
        )  # fmt: skip
        two = dbos_nursery.make("work", folder, seed=number + 1_000, starts=4, worker_lease=1.5)
        one.until("started")
        two.until("started")
        wait_for(lambda: len(of(one, folder)) >= 2)  # noqa: B023
        time.sleep(random.Random(number).random() * 0.3)
        with network.cut():
            left = of(one, folder)
            wait_for(lambda: not of(one, folder) & left)  # noqa: B023
            taken += len(left)
            time.sleep(0.0 if rounds == 1 else random.Random(number).choice((0.5, 5.0, 20.0)))
        closed(one, two)
        ended(dbos_nursery, folder, Lives(crashes=1))
    print(f"{taken} executions taken from workers that were cut off")
    assert taken > 0


def test_workers_are_replaced_one_after_the_other(
    dbos_url: str, dbos_nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """With another workflow file. What runs keeps the definition that it began with, whoever goes on with it."""
    for number in few(rounds, 10):
        folder = placed(dbos_url, tmp_path / str(number), engine="dbos")
        write(folder, "old")
        taking: dict[str, Any] = {"run_executions": False, "state": {"slow": 0.05}}
        grace = {"shutdown_grace": 30.0}  # else a node that takes longer goes on elsewhere, from its beginning
        old = [dbos_nursery.make("stay", folder, **grace) for _ in range(2)]
        first = dbos_nursery.make("work", folder, seed=number, starts=6, **taking)
        for worker in (*old, first):
            worker.until("started")
        wait_for(lambda: count(folder / TOLD) >= 4)  # noqa: B023
        write(folder, "new")
        second = dbos_nursery.make("work", folder, seed=number + 1_000, starts=4, **taking)
        new = []
        for worker in old:
            new.append(dbos_nursery.make("stay", folder, **grace))
            new[-1].until("started")
            worker.send(signal.SIGTERM)
            closed(worker)
        closed(first, second)
        for worker in new:
            worker.send(signal.SIGTERM)
        closed(*new)
        marks = {one.mark for one in stored(folder / STORE).values()}
        report = ended(dbos_nursery, folder, Lives())
        assert marks == {"old", "new"}
        assert (report.repeated, report.interrupted) == (0, 0)


def test_each_wait_has_one_winner(dbos_url: str, dbos_nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """Workers that answer the same waits at once, in whatever order; the winner's answer is the one that counts."""
    many = 6 if rounds == 1 else 100
    folder = placed(dbos_url, tmp_path / "world", engine="dbos")
    first = dbos_nursery.make("work", folder, starts=many, answers=False, graphs=["Asks", "Nest", "Pair"], clients=8)
    closed(first)
    crowd = [dbos_nursery.make("race", folder, seed=number) for number in range(2 if rounds == 1 else 4)]
    won = raced(crowd)
    report = check(folder, Lives())
    report.assert_good(least=many)
    assert (report.completed, report.repeated, sum(won)) == (many, 0, report.answers)
    print(f"{report.answers} waits of {many} executions, won by {won}")


def test_a_poisoned_execution_ends_as_many_workers_as_it_may(
    dbos_url: str, dbos_nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """Then it is interrupted, and those that are left go on with what comes."""
    for number in few(rounds, 10):
        folder = placed(dbos_url, tmp_path / str(number), engine="dbos")
        workers = [dbos_nursery.make("stay", folder, max_recoveries=1) for _ in range(3)]
        for worker in workers:
            worker.until("started")
        taking: dict[str, Any] = {"run_executions": False, "max_recoveries": 1, "seed": number}
        closed(dbos_nursery.make("work", folder, graphs=["Poison"], clients=1, starts=1, **taking))
        alive = [worker for worker in workers if Path(f"/proc/{worker.pid}").exists()]
        assert len(alive) == 1
        closed(dbos_nursery.make("work", folder, starts=3, **taking))
        alive[0].send(signal.SIGTERM)
        closed(*alive)
        report = ended(dbos_nursery, folder, Lives(crashes=2))
        assert (report.completed, report.interrupted) == (3, 1)
