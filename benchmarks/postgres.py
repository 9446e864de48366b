"""Executions a second on PostgreSQL, beside SQLite: ten awaited nodes in each mode of durability.

python -m benchmarks.postgres [URL]

Without a URL a server of its own is started, reached through a socket, with `fsync` on and its log on the same disk as
the SQLite file. Both run in alternating rounds of one process, and the best round of each counts.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from .durable import MODES, ROUNDS, rate, service

sys.path.append(str(Path(__file__).parent.parent / "tests"))


async def modes(url: str, schema: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for mode in MODES:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            file = service(Path(one), mode)
            server = service(Path(two), mode, storage_url=url, storage_schema=schema)
            for concurrency, each in ((1, 60), (100, 20)):
                best = {"sqlite": 0.0, "postgresql": 0.0}
                for number in range(ROUNDS + 1):  # the first warms up
                    for name, ours in (("sqlite", file), ("postgresql", server)):

                        async def execute(tag: str, ours: Any = ours) -> None:
                            assert (await ours.execute_workflow("Chain", {"f0": "x"}))["success"], tag

                        found = await rate(execute, concurrency, each, f"{concurrency}-{number}")
                        best[name] = max(best[name], found if number else 0.0)
                rows.append(
                    {
                        "case": f"chain of 10, {mode}, {concurrency} at once, executions a second",
                        "ours": f"{best['postgresql']:,.0f}",
                        "beside": f"{best['sqlite']:,.0f} SQLite",
                        "ratio": best["postgresql"] / best["sqlite"],
                    }
                )
            await file.aclose()
            await server.aclose()
    return rows


def run(url: str | None = None) -> list[dict[str, Any]]:
    from postgresql import Server

    if url is not None:
        return asyncio.run(modes(url, "agentmap_bench"))
    server = Server(fsync=True)
    try:
        return asyncio.run(modes(server.url(), server.schema()))
    finally:
        server.close()


if __name__ == "__main__":
    for row in run(*sys.argv[1:2]):
        print(f"{row['case']:60} {row['ours']:>10}  {row['beside']:20} {row['ratio']:.3g}")
