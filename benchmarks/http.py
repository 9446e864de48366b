"""Requests a second of `POST /execute` (five echo nodes) beside a bare Starlette + pydantic endpoint.

Both servers are real uvicorn processes (httptools, uvloop when present, no access log). They are measured one after the
other in alternating rounds of one run, by a client process of its own; the ratio is the median of those of the rounds,
so that it means something on any machine, and on one that others use as well.

    python -m benchmarks.http
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
COMMAND: Final = (sys.executable, "-m", "benchmarks.http")
CONCURRENCIES: Final = (1, 32, 256)
CSV: Final = "GraphName,Node,AgentType,Input_Fields,Output_Field,Edge\n" + "".join(
    f"Echoes,E{number},echo,{'text' if number == 1 else f'out{number - 1}'},out{number},"
    f"{f'E{number + 1}' * (number < 5)}\n"
    for number in range(1, 6)
)
BODY: Final = json.dumps({"graph_name": "Echoes", "initial_state": {"text": "hello", "customer": "Ada", "amount": 80}})


def bare() -> Any:
    """The endpoint one would write by hand when there were no workflows."""
    from pydantic import BaseModel
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    class Execute(BaseModel):
        graph_name: str
        initial_state: dict[str, Any] = {}

    async def execute(request: Request) -> JSONResponse:
        body = Execute.model_validate(await request.json())
        state = body.initial_state
        for number in range(1, 6):
            state[f"out{number}"] = state["text"]
        return JSONResponse(
            {
                "success": True,
                "status": "completed",
                "execution_id": "019af0c2-7d3f-7c11-9d3a-3a5f4a1f1d55",
                "graph_name": body.graph_name,
                "result": state,
                "error": None,
                "execution_time": 0.0001,
                "nodes_executed": 5,
                "created_at": "2026-01-01T00:00:00.000Z",
                "started_at": "2026-01-01T00:00:00.000Z",
                "completed_at": "2026-01-01T00:00:00.000Z",
                "links": {"workflow": "/Echoes"},
            }
        )

    return Starlette(routes=[Route("/execute", execute, methods=["POST"])])


def ours(durability: str | None = None) -> Any:
    """The app, serving the five nodes; with a durability from a file."""
    from agentmap_asgi import AgentMapApp, AgentMapConfig

    csv = os.environ["BENCHMARK_CSV"]
    if durability is None:
        return AgentMapApp(csv, config=AgentMapConfig(storage_url="memory://"))
    return AgentMapApp(
        csv, config=AgentMapConfig(storage_url=f"sqlite:///{csv}.{durability}.db", durability=durability)
    )


class _Connection(asyncio.Protocol):
    """Sends the same request again as soon as the answer is complete, until the time is over."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[None]) -> None:
        self._request = request
        self._until = until
        self._done = done
        self._data = b""
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, sign, rest = self._data.partition(b"\r\n\r\n")
        if not sign or len(rest) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._finish(RuntimeError(f"not a 200: {self._data[:500]!r}"))
            return
        self._data = b""
        self.answers += 1
        if time.perf_counter() < self._until:
            self._transport.write(self._request)
        else:
            self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(exc or ConnectionError("the server closed the connection"))

    def _finish(self, error: Exception | None) -> None:
        if self._done.done():
            return
        self._transport.close()
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)


async def load(port: int, concurrency: int, seconds: float) -> float:
    """Requests a second with so many open connections."""
    head = "POST /execute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
    request = f"{head}\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}".encode()
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    connections: list[_Connection] = []
    waiting: list[asyncio.Future[None]] = []
    for _ in range(concurrency):
        done = loop.create_future()
        connection = _Connection(request, begun + seconds, done)
        await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", port)  # type: ignore[misc]
        connections.append(connection)
        waiting.append(done)
    await asyncio.gather(*waiting)
    return sum(connection.answers for connection in connections) / (time.perf_counter() - begun)


def _client(port: int, concurrency: int, seconds: float) -> float:
    """The load from a process of its own."""
    command = [*COMMAND, "load", str(port), str(concurrency), str(seconds)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout)


def _server(name: str, folder: str) -> tuple[subprocess.Popen[str], int]:
    csv = Path(folder) / "echoes.csv"
    csv.write_text(CSV, encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "serve", name],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "BENCHMARK_CSV": str(csv)},
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def run(*, rounds: int = 15, seconds: float = 0.6) -> dict[str, float]:
    """Measure, print a table, and give the ratio for each concurrency."""
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        servers = {name: _server(name, folder) for name in ("ours", "bare")}
        try:
            print(f"{'open connections':>16} {'this project/s':>15} {'bare endpoint/s':>15} {'ratio':>6}")
            for concurrency in CONCURRENCIES:
                ratios[f"http_{concurrency}"] = _beside_bare("ours", servers, concurrency, rounds, seconds)
            for mode in ("exit", "sync"):
                servers[mode] = _server(mode, folder)
                ratios[f"http_32_{mode}"] = _beside_bare(mode, servers, 32, rounds, seconds)
        finally:
            for process, _ in servers.values():
                process.terminate()
                process.wait(10)
    return ratios


def _beside_bare(name: str, servers: dict[str, Any], concurrency: int, rounds: int, seconds: float) -> float:
    """Print a line of the table, and give the ratio."""
    found: dict[str, list[float]] = {name: [], "bare": []}
    for turn in range(rounds + 1):
        for server in found if turn % 2 else reversed(found):
            speed = _client(servers[server][1], concurrency, seconds if turn else 0.3)
            if turn:  # the first round warms up
                found[server].append(speed)
    ratio = statistics.median(ours / bare for ours, bare in zip(found[name], found["bare"], strict=True))
    mine, theirs = statistics.median(found[name]), statistics.median(found["bare"])
    what = str(concurrency) if name == "ours" else f"{concurrency}, {name}"
    print(f"{what:>16} {mine:>15,.0f} {theirs:>15,.0f} {ratio:>6.2f}", flush=True)
    return ratio


def _serve(name: str) -> None:
    import socket

    import uvicorn

    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listening.getsockname()[1], flush=True)
    app = bare() if name == "bare" else ours(None if name == "ours" else name)
    config = uvicorn.Config(app, http="httptools", log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


def _load(port: str, concurrency: str, seconds: str) -> None:
    print(asyncio.run(load(int(port), int(concurrency), float(seconds))))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", name]:
            _serve(name)
        case ["load", *arguments]:
            _load(*arguments)
        case _:
            run()
