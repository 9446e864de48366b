"""What the tests run in processes of their own: python program.py WHAT STORE …"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from writes import batch, start

from agentmap_asgi.errors import StoreUnavailable
from agentmap_asgi.stores.sqlite import SQLiteStore
from agentmap_asgi.stores.store import Filter


def say(text: str) -> None:
    print(text, flush=True)


async def claim(store: SQLiteStore) -> None:
    """Claim whatever is suspended, when told to; say what was won, and stay."""
    runner = store.runner()
    known = await store.select(Filter(limit=1_000))
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    won = await asyncio.gather(*(store.claim(row, runner) for row in known))
    say(" ".join(row.id for row in won if row is not None))
    await asyncio.sleep(600)


async def run(store: SQLiteStore, name: str) -> None:
    """Begin an execution, and stay."""
    await store.create(start(name, runner=store.runner().id))
    say("running")
    await asyncio.sleep(600)


async def fork(store: SQLiteStore, name: str) -> None:
    """Begin an execution, leave a child behind, and stay."""
    await store.create(start(name, runner=store.runner().id))
    say("running")
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    say(str(child))
    await asyncio.sleep(600)


async def grow(store: SQLiteStore) -> None:
    """Write until no file may grow, then when it may again; say what was acknowledged, what failed, what was then."""
    import resource

    ok: list[str] = []
    failed: list[str] = []
    later: list[str] = []

    async def create(name: str, done: list[str]) -> None:
        try:
            await store.create(start(name, head="x" * 3_000))
            done.append(name)
        except StoreUnavailable:
            failed.append(name)

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    number = 0
    while len(failed) < 30:
        await asyncio.gather(*(create(f"e{number + k}", ok) for k in range(10)))
        number += 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await asyncio.gather(*(create(f"later{k}", later) for k in range(10)))
    for names in (ok, failed, later):
        say(" ".join(names))
    await store.aclose()


async def write(store: SQLiteStore, number: str) -> None:
    """Append without end, eight at once, and say how far all is acknowledged."""
    name = f"round-{number}"
    await store.create(start(name, runner=store.runner().id))
    last = 0
    while True:
        given = [store.append(batch(name, ("", last + k, "x" * 300), sequence=last + k)) for k in range(1, 9)]
        for one in given:
            await one
        last += 8
        say(str(last))


async def write_one(store: SQLiteStore, name: str) -> None:
    await store.create(start(name))
    say("written")


async def main() -> None:
    what, path, *rest = sys.argv[1:]
    store = SQLiteStore(Path(path), namespace="tests", source="flows.csv")
    if what == "write_one":  # it opens the store when it is told to
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
    await store.open()
    await PROGRAMS[what](store, *rest)


PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {
    program.__name__: program for program in (claim, run, fork, grow, write, write_one)
}

asyncio.run(main())
