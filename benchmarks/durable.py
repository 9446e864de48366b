"""What durable executions cost: ten nodes in each mode, beside LangGraph's SQLite saver and a bare loop.

python -m benchmarks.durable                      everything
python -m benchmarks.durable --modes              the modes, beside LangGraph's saver and a bare loop
python -m benchmarks.durable --stored 100000      starts with so many stored executions; the file under retention
python -m benchmarks.durable --streams            an event of a stream (SSE), beside making its JSON

All write to files on one disk; SQLite has `synchronous = FULL` on both sides. Systems run in alternating rounds of one
process, and the best round of each counts. The bare loop commits as often as an execution waits for, with as many rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext, AgentMapService

from .nodes import FIELDS, langgraph_graph
from .store import HEAD, TEXT, Bare

ROUNDS = 3
LENGTH = 10
MODES = ("sync", "async", "exit")
Run = Callable[[str], Awaitable[None]]


def chain_csv() -> str:
    """A chain of ten awaited agents, and one of ten built-in ones."""
    rows = ["GraphName,Node,AgentType,Input_Fields,Output_Field,Edge"]
    for name, agent in (("Chain", "pass"), ("Built", "echo")):
        for i in range(LENGTH):
            edge = f"N{i + 1}" if i < LENGTH - 1 else ""
            rows.append(f"{name},N{i},{agent},f{i % FIELDS},f{(i + 1) % FIELDS},{edge}")
    return "\n".join(rows)


def service(folder: Path, mode: str, **settings: Any) -> AgentMapService:
    async def passed(call: Any) -> Any:
        return next(iter(call.inputs.values()))

    source = folder / "bench.csv"
    source.write_text(chain_csv())
    given = {"storage_url": f"sqlite:///{folder / 'agentmap.db'}", "max_running": 100_000, **settings}
    config = AgentMapConfig(durability=mode, **given)
    return AgentMapService(config, context=AgentMapContext(agents={"pass": passed}), source=source)


async def langgraph_saver(folder: Path, mode: str) -> tuple[Run, Callable[[], Awaitable[None]]] | None:
    try:
        import aiosqlite
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    except ImportError:
        return None
    connection = await aiosqlite.connect(folder / "langgraph.db")
    saver = AsyncSqliteSaver(connection)
    await saver.setup()
    await connection.execute("PRAGMA synchronous = FULL")
    compiled = langgraph_graph(LENGTH).compile(checkpointer=saver)

    async def run(name: str) -> None:
        result = await compiled.ainvoke({"f0": "x"}, {"configurable": {"thread_id": name}}, durability=mode)
        assert result[f"f{LENGTH % FIELDS}"] == "x"

    return run, connection.close


def bare_run(bare: Bare, mode: str) -> Run:
    """Commits one after the other: the start, one a step in `sync`, the end with all entries that are left; `once`
    is an execution that is over before its start is kept, as one of built-in nodes is: one row, and one of entries.
    """
    began = 1_700_000_000_000_000_000

    async def run(name: str) -> None:
        start = (name, "bench", "flows::Chain", "Chain", "d" * 64, "running", None, "[]", began, began, None, "1-ab",
                 1, 1, None, None, None, 0, 0, None, "[]", 0, HEAD, 0, None, None)  # fmt: skip
        if mode == "once":
            await bare.write(0, start, (name, "", 1, "\n".join([TEXT] * (LENGTH + 2)), 0, 22))
            return
        await bare.write(0, start, None)
        steps = LENGTH if mode == "sync" else 0
        for number in range(1, steps + 1):
            await bare.write(1, (number, number, name, 1), (name, "", number, "\n".join([TEXT] * 2), 0, number))
        left = "\n".join([TEXT] * (2 * LENGTH + 1 - 2 * steps))
        last = (99, 99, "completed", began + 9, None, TEXT, 0, name, 1)
        await bare.write(2, last, (name, "", 999, left, 0, 1_999))

    return run


async def rate(run: Run, concurrency: int, each: int, tag: str) -> float:
    """Executions a second."""

    async def several(who: int) -> None:
        for number in range(each):
            await run(f"{tag}-{who}-{number}")

    started = time.perf_counter()
    await asyncio.gather(*(several(who) for who in range(concurrency)))
    return concurrency * each / (time.perf_counter() - started)


async def modes() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for mode in MODES:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            ours = service(folder, mode)
            bare = Bare(folder / "bare.db")
            peer = await langgraph_saver(folder, mode)

            async def execute(graph: str, name: str, ours: AgentMapService = ours) -> None:
                assert (await ours.execute_workflow(graph, {"f0": "x"}))["success"], name

            sides: dict[str, Run] = {
                "awaited": partial(execute, "Chain"),
                "built in": partial(execute, "Built"),
                "bare group commit": bare_run(bare, mode),
                "bare group commit, once": bare_run(bare, "once"),
            }
            if peer is not None:
                sides["AsyncSqliteSaver"] = peer[0]
            for concurrency, each, peers in ((1, 40, 3), (100, 10, 1)):
                best = dict.fromkeys(sides, 0.0)
                for number in range(ROUNDS):
                    for name, side in sides.items():
                        count = peers if name == "AsyncSqliteSaver" else each
                        tag = f"{concurrency}-{number}-{name[-4:]}"
                        best[name] = max(best[name], await rate(side, concurrency, count, tag))
                for kind, bare_name in (("awaited", "bare group commit"), ("built in", "bare group commit, once")):
                    for name in ("AsyncSqliteSaver", bare_name):
                        if name in best:
                            rows.append(
                                {
                                    "case": f"durable, 10 nodes {kind}, {mode}, {concurrency} at once, an execution",
                                    "ours": f"{1e6 / best[kind]:.0f} µs",
                                    "beside": f"{1e6 / best[name]:.0f} µs {name}",
                                    "ratio": best[name] / best[kind],
                                }
                            )
            bare.queue.put(None)
            await asyncio.to_thread(bare.thread.join)
            if peer is not None:
                await peer[1]()
            await ours.aclose()
    return rows


async def many_stored(count: int = 100_000) -> list[dict[str, Any]]:
    """The latency of a start with so many executions in the file, beside one with none; the file under retention."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ours = service(folder, "exit")

        async def latency() -> float:
            found = []
            for _ in range(200):
                started = time.perf_counter()
                await ours.execute_workflow("Chain", {"f0": "x"})
                found.append(time.perf_counter() - started)
            return sorted(found)[len(found) // 2]

        empty = await latency()
        for _ in range(count // 1_000):
            await asyncio.gather(*(ours.execute_workflow("Chain", {"f0": "x"}) for _ in range(1_000)))
        full = await latency()
        file = folder / "agentmap.db"
        before = file.stat().st_size
        kept = ours.store
        while await kept.prune(time.time_ns(), time.time_ns()):
            pass
        for _ in range(count // 10_000):
            await asyncio.gather(*(ours.execute_workflow("Chain", {"f0": "x"}) for _ in range(1_000)))
            while await kept.prune(time.time_ns(), time.time_ns()):
                pass
        after = file.stat().st_size
        await ours.aclose()
    return [
        {
            "case": f"an execution with {count:,} stored ones",
            "ours": f"{full * 1e6:.0f} µs",
            "beside": f"{empty * 1e6:.0f} µs with none",
            "ratio": full / empty,
        },
        {
            "case": "the file after they were forgotten and others came",
            "ours": f"{after / 2**20:.0f} MiB",
            "beside": f"{before / 2**20:.0f} MiB before",
            "ratio": after / before,
        },
    ]


async def streams() -> list[dict[str, Any]]:
    """Reading the events of an execution that has ended: in process, and as Server-Sent Events; beside json.dumps."""
    with tempfile.TemporaryDirectory() as place:
        ours = service(Path(place), "exit")
        app = AgentMapApp(service=ours)
        found = await ours.execute_workflow("Chain", {"f0": "x"})
        place_of = f"/executions/{found['execution_id']}/stream"
        events = await ours.get_execution_events(found["execution_id"])

        async def read() -> None:
            async for _ in ours.stream_execution(found["execution_id"]):
                pass

        async def sse() -> None:
            scope = {
                "type": "http",
                "method": "GET",
                "path": place_of,
                "query_string": b"",
                "headers": [],
                "root_path": "",
            }
            never = asyncio.get_running_loop().create_future()
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message.get("body", b""))

            await app(scope, lambda: never, send)
            assert b"".join(sent).count(b"event: ") == len(events)

        async def dumps() -> None:
            for event in events:
                json.dumps(event)

        best: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, side in (("read", read), ("sse", sse), ("dumps", dumps)):
                started = time.perf_counter()
                for _ in range(300):
                    await side()
                taken = (time.perf_counter() - started) / 300 / len(events)
                best[name] = min(taken, best.get(name, taken))
        await ours.aclose()
    beside = f"{best['dumps'] * 1e6:.1f} µs json.dumps alone"
    return [
        {
            "case": what,
            "ours": f"{best[name] * 1e6:.1f} µs",
            "beside": beside,
            "ratio": best[name] / best["dumps"],
        }
        for name, what in (("read", "an event read from the store"), ("sse", "an event of a stream (SSE)"))
    ]


def run(wanted: argparse.Namespace | None = None) -> list[dict[str, Any]]:
    async def everything() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        some = wanted is not None and (wanted.modes or wanted.stored or wanted.streams)
        if wanted is None or not some or wanted.modes:
            rows += await modes()
        if wanted is None or not some or wanted.stored:
            rows += await many_stored(wanted.stored if wanted is not None and wanted.stored else 100_000)
        if wanted is None or not some or wanted.streams:
            rows += await streams()
        return rows

    return asyncio.run(everything())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description="What durable executions cost.")
    parser.add_argument("--modes", action="store_true", help="the modes, beside LangGraph's saver and a bare loop")
    parser.add_argument("--stored", type=int, default=0, metavar="N", help="starts with N stored executions")
    parser.add_argument("--streams", action="store_true", help="an event of a stream")
    print(f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}")
    for row in run(parser.parse_args()):
        print(f"{row['case']:60} {row['ours']:>10}  {row.get('beside', ''):32} {row.get('ratio', 0):.3g}")
