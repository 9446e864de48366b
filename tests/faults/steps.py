"""What several of these tests do: begin a world, see who runs what, race for answers, and end with the checker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from checker import Lives, Report, check, stored
from postgresql import Server
from processes import Nursery, Worker
from world import PLACE, STORE

from agentmap_asgi.stores.postgres_upkeep import migrate


def few(rounds: int, many: int) -> range:
    """One round, or all of them in the long run."""
    return range(1 if rounds == 1 else many)


def placed(url: str, folder: Path, **settings: str) -> Path:
    """A folder whose executions are kept in a schema of their own, in PostgreSQL."""
    folder.mkdir()
    where = {"storage_url": url, "storage_schema": Server.schema()}
    migrate(where["storage_url"], where["storage_schema"])
    (folder / PLACE).write_text(json.dumps(where | settings))
    return folder


def owners(folder: Path) -> dict[str, str | None]:
    """Who runs what is unfinished."""
    return {one.id: one.runner for one in stored(folder / STORE).values() if one.status in ("queued", "running")}


def of(worker: Worker, folder: Path) -> set[str]:
    """The executions that a process runs, as the store has it."""
    return {name for name, runner in owners(folder).items() if runner and runner.startswith(f"{worker.pid}-")}


def closed(*workers: Worker) -> None:
    """They say that they are done, and end."""
    for worker in workers:
        worker.until("closed")
        worker.wait()


def raced(crowd: Sequence[Worker]) -> list[int]:
    """Let processes answer the same waits at once; how many each of them won."""
    for one in crowd:
        one.until("ready")
    for one in crowd:
        one.tell("go")
    won = [int(one.until("won").split()[1]) for one in crowd]
    for one in crowd:
        one.tell("end")
    closed(*crowd)
    return won


def ended(nursery: Nursery, folder: Path, lives: Lives) -> Report:
    """Everything has come to its end, and nothing was lost or repeated."""
    nursery.drain(folder)
    nursery.sweep()
    report = check(folder, lives)
    report.assert_good()
    return report
