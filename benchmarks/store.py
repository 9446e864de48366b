"""What the store adds to a bare loop that writes the same rows to the same kind of file, with the same group commit.

python -m benchmarks.store

A start, nine appends of one entry, and the end, as an execution of ten nodes writes them in `sync`: every write is
awaited before the next is given. Both sides run in alternating rounds of one process; the best round counts.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from agentmap_asgi.stores.schema import MIGRATIONS
from agentmap_asgi.stores.sqlite import SQLiteStore
from agentmap_asgi.stores.store import Lines, Row
from agentmap_asgi.stores.transient import TransientStore

ROUNDS = 5
WRITES = 10
TEXT = (
    '{"sequence": 12, "type": "node_completed", "node": "Enrich", "attempt": 1, "set": {"answer": "' + "x" * 120 + '"}}'
)
HEAD = '{"state": {"question": "' + "y" * 200 + '"}, "options": {}}'
DOCUMENT = '{"state": {"question": "' + "y" * 200 + '", "answer": "' + "x" * 120 + '"}}'


class Began:
    """A Start."""

    key = None

    def __init__(self, name: str) -> None:
        self.id = name

    def row(self) -> Row:
        return Row(
            id=self.id, namespace="bench", graph_id="flows::Chain", graph_name="Chain", definition="d" * 64,
            status="running", created=1_700_000_000_000_000_000, started=1_700_000_000_000_000_000, runner="1-ab",
            fence=1, head=HEAD,
        )  # fmt: skip

    def lines(self) -> Sequence[Lines]:
        return ()

    def pins(self) -> Mapping[str, str]:
        return {"d" * 64: "{}"}


class Wrote:
    """A Batch of one entry."""

    fence = 1

    def __init__(self, name: str, number: int, last: bool) -> None:
        self.id = name
        self.number = number
        self.status = "completed" if last else None

    def changes(self) -> Mapping[str, Any]:
        changes: dict[str, Any] = {"sequence": self.number, "steps": self.number}
        if self.status is not None:
            changes |= {"status": self.status, "ended": 1_700_000_000_000_000_009, "runner": None, "document": DOCUMENT}
        return changes

    def lines(self) -> Sequence[Lines]:
        return (Lines("", (self.number,), (TEXT,)),)

    def pins(self) -> Mapping[str, str]:
        return {}


class Bare:
    """The least one can do: a queue, a thread, a transaction for all that waits, statements written by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queue: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[None], int, Any, Any] | None] = (
            SimpleQueue()
        )
        self.thread = threading.Thread(target=self.write_on)
        self.thread.start()

    def write(self, kind: int, values: Sequence[Any], entry: Sequence[Any] | None) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.queue.put((loop, future, kind, values, entry))
        return future

    def write_on(self) -> None:
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        for statement in [statement for version in MIGRATIONS for statement in version]:
            connection.execute(statement)
        statements = (
            f"INSERT INTO executions VALUES ({', '.join('?' * 26)})",
            "UPDATE executions SET sequence = ?, steps = ? WHERE id = ? AND fence = ?",
            "UPDATE executions SET sequence = ?, steps = ?, status = ?, ended = ?, runner = ?, document = ?, "
            "document_sum = ? WHERE id = ? AND fence = ?",
        )
        while True:
            group = [self.queue.get()]
            try:
                while True:
                    group.append(self.queue.get_nowait())
            except Empty:
                pass
            some = [one for one in group if one is not None]
            if some:
                connection.execute("BEGIN IMMEDIATE")
                for number, statement in enumerate(statements):
                    values = [one[3] for one in some if one[2] == number]
                    if values:
                        connection.executemany(statement, values)
                entries = [one[4] for one in some if one[4] is not None]
                if entries:
                    connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", entries)
                connection.execute("COMMIT")
                some[0][0].call_soon_threadsafe(self.settle, [one[1] for one in some])
            if len(some) < len(group):
                connection.close()
                return

    @staticmethod
    def settle(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            future.set_result(None)


async def bare_execution(bare: Bare, name: str) -> None:
    started = 1_700_000_000_000_000_000
    await bare.write(
        0,
        (name, "bench", "flows::Chain", "Chain", "d" * 64, "running", None, "[]", started, started, None, "1-ab", 1, 1,
         None, None, None, 0, 0, None, "[]", 0, HEAD, 0, None, None),
        None,
    )  # fmt: skip
    for number in range(1, WRITES):
        await bare.write(1, (number, number, name, 1), (name, "", number, TEXT, 0, number))
    await bare.write(
        2, (WRITES, WRITES, "completed", started + 9, None, DOCUMENT, 0, name, 1), (name, "", WRITES, TEXT, 0, WRITES)
    )


async def execution(store: SQLiteStore | TransientStore, name: str) -> None:
    await store.create(Began(name))
    for number in range(1, WRITES):
        await store.append(Wrote(name, number, last=False))
    await store.append(Wrote(name, WRITES, last=True))


async def rate(run: Callable[[str], Awaitable[None]], concurrency: int, each: int, tag: str) -> float:
    """Writes a second."""

    async def several(who: int) -> None:
        for number in range(each):
            await run(f"{tag}-{who}-{number}")

    started = time.perf_counter()
    await asyncio.gather(*(several(who) for who in range(concurrency)))
    return concurrency * each * (WRITES + 1) / (time.perf_counter() - started)


async def compare(folder: Path) -> dict[int, tuple[float, float]]:
    """Writes a second of ours and of the bare loop, by concurrency."""
    store = SQLiteStore(folder / "ours.db", namespace="bench", source="bench")
    await store.open()
    bare = Bare(folder / "bare.db")
    found: dict[int, tuple[float, float]] = {}
    for concurrency, each in ((1, 60), (100, 20)):
        ours = theirs = 0.0
        for number in range(ROUNDS):
            tag = f"{concurrency}-{number}"
            ours = max(ours, await rate(lambda name: execution(store, name), concurrency, each, tag))
            theirs = max(theirs, await rate(lambda name: bare_execution(bare, name), concurrency, each, tag))
        found[concurrency] = (ours, theirs)
    bare.queue.put(None)
    await asyncio.to_thread(bare.thread.join)
    await store.aclose()
    return found


async def memory(number: int = 200_000) -> float:
    """Seconds of a write to memory, without the making of what is written."""
    store = TransientStore("bench", keep=1_000)
    await store.create(Began("a"))
    batches = [Wrote("a", n, last=False) for n in range(number)]
    started = time.perf_counter()
    for batch in batches:
        await store.append(batch)
    return (time.perf_counter() - started) / number


def run() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for concurrency, (ours, theirs) in asyncio.run(compare(Path(folder))).items():
            rows.append(
                {
                    "case": f"store, {concurrency} at once, a write",
                    "ours": f"{1e6 / ours:.0f} µs",
                    "beside": f"{1e6 / theirs:.0f} µs bare group commit",
                    "ratio": theirs / ours,
                }
            )
    rows.append({"case": "store in memory, a write", "ours": f"{asyncio.run(memory()) * 1e6:.2f} µs"})
    return rows


if __name__ == "__main__":
    for row in run():
        print(f"{row['case']:34} {row['ours']:>10}  {row.get('beside', ''):30} {row.get('ratio', 0):.3g}")
