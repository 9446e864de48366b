"""What the fault tests run in processes of their own, and the nursery that makes these quickly.

A nursery is one process that has imported everything; each worker is a fork of it. What a worker says comes line by
line through a socket, whose end is also how its death is seen.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import logging
import os
import random
import select
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from world import GRAPHS, MEANT, STORE, TOLD, append, service, state_of, write

from agentmap_asgi.context import SystemClock
from agentmap_asgi.errors import AgentMapError, ExecutionConflict, ShuttingDown, StoreDamaged, StoreUnavailable
from agentmap_asgi.services.agentmap import AgentMapService
from agentmap_asgi.stores import files, writer
from agentmap_asgi.stores.store import UNFINISHED, Filter


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def heard() -> str:
    return str(await asyncio.to_thread(sys.stdin.readline)).strip()


class Jumping(SystemClock):
    """Its wall clock is set an hour forwards or backwards again and again."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._offset = 0

    def time_ns(self) -> int:
        if self._random.random() < 0.05:
            self._offset = self._random.choice((-1, 0, 1)) * 3_600 * 10**9
        return time.time_ns() + self._offset


class Clients:
    """They start executions and answer them, and note what they are about to do and what they were told."""

    def __init__(self, made: AgentMapService, folder: Path, seed: int, sync: bool = True) -> None:
        self.sync = sync
        self.made = made
        self.folder = folder
        self.random = random.Random(seed)
        self.number = 0
        self.refused = 0

    def _note(self, file: str, **line: Any) -> None:
        append(self.folder / file, line, sync=self.sync)

    def _next(self) -> int:
        self.number += 1
        return os.getpid() * 1_000_000 + self.number

    async def start(self, graph: str, **state: Any) -> str | None:
        n = self._next()
        self._note(MEANT, n=n)
        try:
            document = await self.made.start_execution(graph, state_of(n) | state)
        except (StoreUnavailable, ShuttingDown):
            self.refused += 1
            await asyncio.sleep(0.02)
            return None
        self._note(TOLD, start=document["execution_id"], n=n)
        return str(document["execution_id"])

    async def answer(self, execution: str, path: str) -> bool:
        data = {"by": os.getpid(), "number": self._next()}
        self._note(MEANT, answer=execution, path=path, data=data)
        try:
            await self.made.resume_execution(execution, "answer", data, node=path)
        except ExecutionConflict:
            return False
        except (StoreUnavailable, StoreDamaged, ShuttingDown):
            self.refused += 1
            return False
        self._note(TOLD, answer=execution, path=path, data=data)
        return True

    async def starting(self, graphs: tuple[str, ...], left: list[int], **state: Any) -> None:
        while left[0] > 0:
            left[0] -= 1
            started = await self.start(self.random.choice(graphs), **state)
            if started is None:
                left[0] += 1
            elif self.random.random() < 0.5:
                with suppress(StoreUnavailable):
                    await self.made.wait_for_execution(started, 0.5)

    async def answering(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                for short in await self.made.list_executions(status=("suspended",), limit=20):
                    for wait in short["waiting"]:
                        await self.answer(short["execution_id"], wait["path"])
            await asyncio.sleep(0.02)

    async def over(self, statuses: tuple[str, ...]) -> bool:
        """Whether all has ended, as far as can be seen; the store may be away just now."""
        try:
            return not await self.unfinished(statuses)
        except StoreUnavailable:
            return False

    async def unfinished(self, statuses: tuple[str, ...] = UNFINISHED) -> int:
        return len(await self.made.store.select(Filter(statuses=statuses, limit=100_000)))


async def work(
    folder: Path,
    *,
    seed: int = 0,
    clients: int = 4,
    starts: int = 1_000_000,
    graphs: list[str] | None = None,
    answers: bool = True,
    state: dict[str, Any] | None = None,
    clock: bool = False,
    reloads: bool = False,
    checkpoint: int = writer.CHECKPOINT,
    careless: bool = False,
    sync: bool = True,
    **given: Any,
) -> None:
    """Start and answer until killed; after SIGTERM, or when all has ended, stop in order.

    `checkpoint` is after how many pages the log is copied; `careless` breaks the store: it does not sync.
    """
    vars(writer)["CHECKPOINT"] = checkpoint
    if careless:
        vars(files)["PRAGMAS"] = (*files.PRAGMAS, "PRAGMA synchronous = OFF")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    made = await asyncio.to_thread(lambda: service(folder, clock=Jumping(seed) if clock else None, sync=sync, **given))
    say("ready")
    await patiently(made.start)
    crowd = Clients(made, folder, seed, sync)
    left = [starts]
    tasks = [
        asyncio.create_task(crowd.starting(tuple(graphs or GRAPHS), left, **(state or {}))) for _ in range(clients)
    ]
    background = [asyncio.create_task(crowd.answering())] if answers else []
    if reloads:
        background.append(asyncio.create_task(_reloading(made, folder, seed)))
    say("started")

    async def all_over() -> None:
        await asyncio.gather(*tasks)
        say("asked")
        while not await crowd.over(("queued", "running") if not answers else UNFINISHED):
            await asyncio.sleep(0.02)

    over = asyncio.create_task(all_over())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({over, stopped, *background}, return_when=asyncio.FIRST_COMPLETED)
    began = time.monotonic()
    for task in [*tasks, *background, over]:
        task.cancel()
    await asyncio.wait([*tasks, *background, over])
    for task in [*tasks, *background, over]:
        if not task.cancelled() and task.exception() is not None:
            say(f"error {task.exception()!r}")
    await made.aclose()
    stopped.cancel()
    say(f"closed {time.monotonic() - began:.3f} {crowd.refused}")


async def stay(folder: Path, **given: Any) -> None:
    """Run executions until SIGTERM comes."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    made = await asyncio.to_thread(lambda: service(folder, **given))
    await patiently(made.start)
    say("started")
    await stop.wait()
    await made.aclose()
    say("closed")


async def _reloading(made: AgentMapService, folder: Path, seed: int) -> None:
    turn = 0
    while True:
        turn += 1
        await asyncio.to_thread(write, folder, f"m{seed}x{turn}")
        await made.reload()
        await asyncio.sleep(0.03)


async def patiently(action: Callable[[], Awaitable[None]]) -> None:
    """Whoever holds the store lets it go at some time."""
    while True:
        try:
            await action()
        except StoreUnavailable as exc:
            say(f"waits {exc.message}")
            await asyncio.sleep(0.05)
        else:
            return


async def drain(folder: Path, *, answers: bool = True, **given: Any) -> None:
    """Recover what is there, answer what waits, and stop when nothing is left to do."""
    made = await asyncio.to_thread(lambda: service(folder, **given))
    await patiently(made.start)
    crowd = Clients(made, folder, 0)
    task = asyncio.create_task(crowd.answering()) if answers else None
    statuses = UNFINISHED if answers else ("queued", "running")
    while not await crowd.over(statuses):
        await asyncio.sleep(0.02)
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
    await made.aclose()
    say("drained")


async def race(folder: Path, *, seed: int, rounds: int = 2) -> None:
    """Answer every wait that there is, in an order of one's own, and each again; say how many were won."""
    made = await asyncio.to_thread(lambda: service(folder))
    await made.start()
    crowd = Clients(made, folder, seed)
    waits = [
        (short["execution_id"], wait["path"])
        for short in await made.list_executions(status=("suspended",), limit=100_000)
        for wait in short["waiting"]
    ]
    crowd.random.shuffle(waits)
    say("ready")
    await heard()
    won = 0
    for _ in range(rounds):
        for begin in range(0, len(waits), 8):
            won += sum(await asyncio.gather(*(crowd.answer(*wait) for wait in waits[begin : begin + 8])))
    while await crowd.unfinished():
        await asyncio.sleep(0.02)
    say(f"won {won} {crowd.refused}")
    await heard()
    await made.aclose()
    say("closed")


async def opening(folder: Path) -> None:
    """Open the store and look at everything in it; say what is wrong."""
    made = await asyncio.to_thread(lambda: service(folder))
    try:
        await made.start()
        crowd = Clients(made, folder, 0)
        for _ in range(100):  # one that is damaged stays as it is
            if not await crowd.unfinished(("queued", "running")):
                break
            await asyncio.sleep(0.02)
        bad = []
        with (folder / "before").open() as before:
            for name in before.read().split():
                try:
                    await made.get_execution_status(name)
                    await made.get_execution_events(name)
                except AgentMapError as exc:
                    bad.append(f"{name}={exc.code}")
        say(" ".join(["opened", *bad]))
    except AgentMapError as exc:
        say(f"refused {exc.code} {exc.message}")
    await made.aclose()


async def drain_others(folder: Path, *, victim: str) -> None:
    """Bring all to their end but one execution, whose fate is told."""
    made = await asyncio.to_thread(lambda: service(folder))
    await made.start()
    crowd = Clients(made, folder, 0)
    task = asyncio.create_task(crowd.answering())
    while [row for row in await made.store.select(Filter(statuses=UNFINISHED, limit=100_000)) if row.id != victim]:
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait({task})
    try:
        document = await made.get_execution_status(victim)
        for _ in range(100):
            if document["status"] not in ("queued", "running"):  # an answer was tried just now
                break
            await asyncio.sleep(0.02)
            document = await made.get_execution_status(victim)
        if document["status"] == "suspended":
            document = await made.resume_execution(victim, "answer", 1)
            document = await made.wait_for_execution(victim, 5)
        say(f"victim {document['status']} {document}")
    except AgentMapError as exc:
        say(f"victim {exc.code} {exc.message}")
    await made.aclose()
    say("drained")


async def hold(folder: Path, *, seconds: float) -> None:
    """Another program that keeps the file locked for writing."""
    connection = sqlite3.connect(folder / STORE, isolation_level=None, timeout=30)
    connection.execute("BEGIN IMMEDIATE")
    say("held")
    await asyncio.sleep(seconds)
    connection.execute("ROLLBACK")
    connection.close()
    say("let go")


PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {
    program.__name__: program for program in (work, stay, drain, drain_others, race, opening, hold)
}


# The nursery.


def child(connection: socket.socket) -> None:
    given = json.loads(connection.makefile("r").readline())
    say_pid = f"{os.getpid()}\n".encode()
    connection.sendall(say_pid)
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    connection.close()
    folder = Path(given.pop("folder"))
    if network := given.pop("network", ""):
        network_of(network)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    sys.stdin = os.fdopen(0, closefd=False)
    logging.basicConfig(level=logging.WARNING, format="%(process)d %(levelname)s %(name)s %(message)s")
    if given.pop("held", False):
        sys.stdin.readline()
    asyncio.run(PROGRAMS[given.pop("what")](folder, **given))  # type: ignore[arg-type]


def network_of(place: str) -> None:
    """Let this process have the network of a namespace (os.setns comes with Python 3.12)."""
    there = os.open(place, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(there, 0):
        raise OSError(ctypes.get_errno(), f"The namespace {place} cannot be entered")
    os.close(there)


def nursery(place: str, *modules: str) -> None:
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place)
    listening.listen(32)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listening.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listening.close()
        code = 1
        try:
            child(connection)
            code = 0
        except BaseException:
            logging.exception("the worker failed")
        finally:
            os._exit(code)


if __name__ == "__main__":
    nursery(*sys.argv[1:])
