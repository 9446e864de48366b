"""Killed at each system call that writes, and cut off from power between any two of them."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
from checker import Lives, check
from processes import Nursery
from strace import Call, Disk, calls, traced
from world import EFFECTS, FLOWS, MEANT, STORE, TOLD

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

FEW = {"pwrite64": [2, 40], "fdatasync": [9], "fsync": [4], "write": [30]}
MANY = {
    "pwrite64": [*range(1, 60), *range(60, 400, 7)],
    "fdatasync": range(1, 60, 2),
    "fsync": range(1, 40),
    "write": range(1, 120, 3),
    "rename,renameat,renameat2": range(1, 4),
    "unlink,unlinkat": range(1, 8),
    "ftruncate": range(1, 6),
    "openat": range(1, 120, 5),
    "flock": range(1, 90, 4),
}


def test_a_process_that_is_killed_at_a_system_call_loses_nothing(nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """Whichever write, sync, rename or lock it was about to make, from the making of the store on."""
    kills = repeated = executions = 0
    for name, numbers in (FEW if rounds == 1 else MANY).items():
        for number in numbers:
            folder = tmp_path / f"{name.partition(',')[0]}-{number}"
            folder.mkdir()
            worker = nursery.make("work", folder, held=True, clients=2, starts=8, seed=number)
            inject = f"inject={name}:signal=KILL:when={number}"
            with traced(nursery, worker, "-o", "/dev/null", "-e", f"trace={name}", "-e", inject):
                worker.wait()
            lives = Lives()
            if not worker.said[-1].startswith("closed"):
                lives.crash(folder)
                kills += 1
            nursery.drain(folder)
            report = check(folder, lives)
            assert not report.violations, (name, number, report.violations)
            executions += report.completed
            repeated += report.repeated
            nursery.sweep()
    print(f"{kills} kills, {executions} executions completed, {repeated} effects repeated")
    assert kills >= len(FEW)
    assert executions > 0


@pytest.mark.parametrize("careless", [False, True], ids=["synced", "careless"])
def test_a_power_loss_takes_nothing_that_was_acknowledged(
    careless: bool, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """Played from the system calls of a run: all that was synced is there, of the rest any part.

    A store that does not sync is caught in the same way.
    """
    home = tmp_path / "home"
    home.mkdir()
    first = nursery.make("work", home, starts=2, clients=1)  # makes the store
    first.until("closed")
    first.wait()
    before = (home / STORE).read_bytes()
    lists = {name: (home / name).read_bytes() for name in (TOLD, MEANT, EFFECTS)}
    trace = tmp_path / "trace"
    worker = nursery.make("work", home, held=True, starts=12, clients=3, checkpoint=60, careless=careless)
    which = "trace=write,pwrite64,fsync,fdatasync,ftruncate,unlink,unlinkat"
    with traced(nursery, worker, "-o", str(trace), "-y", "-xx", "-s", "10000000", "-e", which):
        worker.until("closed")
        worker.wait()
    made = list(calls(trace))
    log = str(home / STORE) + "-wal"
    assert careless or sum(call.kind == "sync" and call.path == log for call in made) > 30
    assert sum(call.kind == "write" and call.path == str(home / STORE) for call in made) > 5

    dice = random.Random(0)
    cuts = [len(made)] + [dice.randrange(len(made)) for _ in range(10 if careless else 2 if rounds == 1 else 100)]
    executions = repeated = told = caught = 0
    for number, cut in enumerate(cuts):
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        _played(home, folder, before, lists, made[:cut], dice)
        told += (folder / TOLD).read_bytes().count(b"\n")
        lives = Lives()
        if careless:
            try:
                caught += any("is gone" in text for text in check(folder, lives).violations)
            except (sqlite3.DatabaseError, AttributeError, TypeError, ValueError):  # the file is damaged
                caught += 1
            continue
        lives.crash(folder)
        nursery.drain(folder)
        report = check(folder, lives)
        assert not report.violations, (cut, len(made), report.violations)
        executions += report.completed
        repeated += report.repeated
        nursery.sweep()
    print(f"{len(cuts)} cuts, {told} acknowledgements, {executions} executions completed, {repeated} effects repeated")
    assert told > 3 * len(cuts)
    assert bool(caught) is careless


def _played(
    home: Path, folder: Path, before: bytes, lists: dict[str, bytes], made: list[Call], dice: random.Random
) -> None:
    """What is left of the files of `home` when the power goes after these calls. The rest of the world has power."""
    disks = {STORE: Disk(bytearray(before)), f"{STORE}-wal": Disk()}
    for call in made:
        path = Path(call.path)
        if path.parent != home:
            continue
        if path.name in disks:
            disks[path.name].take(call)
        elif path.name in lists and call.kind == "write":
            lists = {**lists, path.name: lists[path.name] + call.data}
    for name, disk in disks.items():
        data = disk.after_power_loss(dice)
        if data:
            (folder / name).write_bytes(data)
    for name, data in lists.items():
        (folder / name).write_bytes(data)
    (folder / FLOWS).write_bytes((home / FLOWS).read_bytes())
