"""Event streams: complete, in order, once, from wherever the reader was; and they end when they should."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI
from going import FACES, PREFIX, STORES, Listener, parsed, serving
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import Message, Receive, Scope, Send

from agentmap_asgi import Call
from agentmap_asgi.http import sse
from agentmap_asgi.http.leaving import leaving
from agentmap_asgi.services.fastapi import include_agentmap_routes

pytestmark = pytest.mark.anyio

faces = pytest.mark.parametrize("face", FACES)
stores = pytest.mark.parametrize("store", STORES)

HERE = Path(__file__).parent
HELLO = {"graph_name": "Hello", "initial_state": {"name": "Ada"}}
HELLO_EVENTS = ["started", *["node_started", "node_finished"] * 2, "completed"]


@faces
@stores
async def test_a_start_can_be_streamed(face: str, store: str, tmp_path: Path) -> None:
    """Every event with its number, as one line of JSON, in a response that nobody keeps or buffers."""
    async with serving(tmp_path, face, store) as served:
        answer = await served.http.post("/execute/stream", json=HELLO)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.text.startswith("retry: 3000\n\n")
        found = parsed(answer.text)
        assert [event["event"] for event in found] == HELLO_EVENTS
        assert [event["id"] for event in found] == list(range(1, 7))
        for event in found:
            data = event["data"]
            assert answer.headers["location"] == f"/workflows/executions/{data['execution_id']}"
            assert (data["sequence"], data["graph_name"]) == (event["id"], "Hello")
            assert data["is_terminal"] is (event["event"] == "completed")
            assert data["at"].endswith("Z")
        stored = (await served.http.get(f"/executions/{data['execution_id']}/events")).json()["events"]
        assert stored == [event["data"] for event in found]


@faces
@stores
async def test_events_come_as_they_happen(face: str, store: str, tmp_path: Path) -> None:
    """The reader sees a node begin while it runs."""
    async with serving(tmp_path, face, store) as served:
        body = json.dumps({"graph_name": "Slow"}).encode()
        headers = {"content-type": "application/json"}
        async with Listener(served.app, "/execute/stream", "POST", headers, body) as reader:
            names = []
            while event := await reader.event():
                names.append((event["event"], event["data"].get("node")))
                if names[-1] == ("node_started", "Gate"):
                    served.gate.opened.set()
        assert names[-1] == ("completed", None)
        assert len(names) == 8


@faces
async def test_what_nobody_keeps_has_no_number(face: str, tmp_path: Path) -> None:
    """So that a reader that comes again asks for what follows the last event that has one."""
    heard = asyncio.Event()

    async def speaks(call: Call) -> str:
        await heard.wait()
        call.token("Hello")
        return "Hello"

    async with serving(tmp_path, face, agents={"once": speaks}) as served:
        body = json.dumps({"graph_name": "Fails"}).encode()
        async with Listener(
            served.app, "/execute/stream", "POST", {"content-type": "application/json"}, body
        ) as reader:
            found = []
            while event := await reader.event():
                found.append((event["event"], event["id"]))
                if event["event"] == "node_started" and event["data"]["node"] == "Second":
                    heard.set()
                if event["event"] == "token":
                    assert (event["data"]["text"], event["data"]["is_terminal"]) == ("Hello", False)
        assert [number for _, number in found] == [1, 2, 3, 4, None, 5, 6]
        assert found[4][0] == "token"


@faces
@stores
async def test_a_reader_goes_on_where_it_was(face: str, store: str, tmp_path: Path) -> None:
    """After each event in turn, by the header or by the query, nothing is lost and nothing repeated."""
    async with serving(tmp_path, face, store) as served:
        made = (await served.http.post("/execute", json=HELLO)).json()
        path = f"/executions/{made['execution_id']}/stream"
        whole = parsed((await served.http.get(path)).text)
        assert [event["event"] for event in whole] == HELLO_EVENTS
        for number in range(1, 6):
            rest = await served.http.get(path, headers={"last-event-id": str(number)})
            assert parsed(rest.text) == whole[number:]
            assert parsed((await served.http.get(f"{path}?after={number}")).text) == whole[number:]
        over = await served.http.get(path, headers={"last-event-id": "6"})
        assert (over.status_code, over.content) == (204, b"")
        for wrong in ("x", "-1", "1.5", "9" * 30):
            assert (await served.http.get(path, headers={"last-event-id": wrong})).status_code == 422


@faces
@stores
async def test_a_stream_ends_when_an_answer_is_awaited(face: str, store: str, tmp_path: Path) -> None:
    """Without `follow`; with it the stream goes on to the end."""
    async with serving(tmp_path, face, store) as served:
        answer = await served.http.post("/execute/stream", json={"graph_name": "Ask"})
        found = parsed(answer.text)
        assert [event["event"] for event in found] == ["started", "node_started", "suspended"]
        assert found[-1]["data"]["waiting"]["type"] == "approval"
        path = f"/executions/{found[0]['data']['execution_id']}"
        seen = await served.http.get(f"{path}/stream", headers={"last-event-id": "3"})
        assert seen.status_code == 204
        async with Listener(served.app, f"{path}/stream?follow=true&after=2") as reader:
            first = await reader.event()
            assert first is not None
            assert first["event"] == "suspended"
            assert (await served.http.post(f"{path}/resume", json={"action": "approve"})).status_code == 200
            names = []
            while event := await reader.event():
                names.append(event["event"])
        assert names == ["resumed", "node_finished", "node_started", "node_finished", "completed"]
        assert (await served.http.get(f"{path}/stream?follow=maybe")).status_code == 422


@faces
async def test_a_reader_that_goes_away_is_noticed(face: str, tmp_path: Path) -> None:
    """Its place is free again, and the execution goes on."""
    async with serving(tmp_path, face, settings={"max_streams": 1}) as served:
        made = await served.start("Slow")
        path = f"/executions/{made['execution_id']}/stream"
        async with Listener(served.app, path) as reader:
            await reader.event()
            full = await served.http.get(path)
            assert (full.status_code, full.json()["code"]) == (503, "too_many_streams")
            assert full.headers["retry-after"]
            assert (await served.http.post("/execute/stream", json=HELLO)).status_code == 503
            reader.leave()
        assert (await served.http.get(f"/executions/{made['execution_id']}")).json()["status"] == "running"
        served.gate.opened.set()
        assert len(parsed((await served.http.get(path)).text)) == 8


async def test_silence_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a comment, so that nothing between takes the connection for dead."""
    monkeypatch.setattr(sse, "HEARTBEAT", 0.0)
    async with serving(tmp_path) as served:
        made = await served.start("Slow")
        await served.gate.reached.wait()
        async with Listener(served.app, f"/executions/{made['execution_id']}/stream?after=4") as reader:
            quiet = await reader.event()
            assert quiet is not None
            assert quiet["comments"] == ["still there"]


async def test_a_stream_does_not_grow_old(tmp_path: Path) -> None:
    """After `max_stream_seconds` it ends, and the client comes again."""
    async with serving(tmp_path, settings={"max_stream_seconds": 0.0}) as served:
        made = await served.start("Slow")
        async with Listener(served.app, f"/executions/{made['execution_id']}/stream") as reader:
            events = [event async for event in _rest(reader)]
        assert events[-1]["comments"] == ["this stream has been open for long; come again"]


async def _rest(reader: Listener) -> AsyncIterator[dict[str, Any]]:
    while event := await reader.event():
        yield event


class Server:
    """What uvicorn's server looks like to us."""

    def __init__(self) -> None:
        self.should_exit = False

    def handle_exit(self, number: int, frame: Any) -> None:
        self.should_exit = True


@contextmanager
def handling(server: Server) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@faces
@stores
async def test_streams_and_long_polls_end_when_the_server_stops(face: str, store: str, tmp_path: Path) -> None:
    """With a farewell, although the execution goes on: a server waits for open responses before it stops."""
    server = Server()
    with handling(server):
        async with serving(tmp_path, face, store) as served:
            made = await served.start("Slow")
            await served.gate.reached.wait()
            path = f"/executions/{made['execution_id']}"
            waiting = asyncio.ensure_future(served.http.get(f"{path}?wait=30"))
            body = {"graph_name": "Slow", "execution_id": "other"}
            running = asyncio.ensure_future(served.http.post("/execute", json=body))
            async with Listener(served.app, f"{path}/stream") as reader:
                await reader.event()
                os.kill(os.getpid(), signal.SIGTERM)
                events = [event async for event in _rest(reader)]
            assert events[-1]["comments"] == ["the server is stopping; come again"]
            assert (await asyncio.wait_for(waiting, 10)).json()["status"] == "running"
            going = await asyncio.wait_for(running, 10)
            assert (going.status_code, going.headers["location"]) == (202, "/workflows/executions/other")


@faces
async def test_a_stream_passes_through_a_middleware(face: str, tmp_path: Path) -> None:
    """Starlette's BaseHTTPMiddleware hands its chunks on, and our reader's leave, too."""

    async def through(request: Any, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["x-host"] = "yes"
        return answer

    async with serving(tmp_path, face, settings={"max_streams": 1}) as served:
        served.app.add_middleware(BaseHTTPMiddleware, dispatch=through)  # type: ignore[attr-defined]
        made = await served.start("Slow")
        await served.gate.reached.wait()
        path = f"/executions/{made['execution_id']}/stream"
        async with Listener(served.app, path) as reader:
            await reader.event()
            reader.leave()
        served.gate.opened.set()
        answer = await served.http.get(path)
        assert answer.headers["x-host"] == "yes"
        assert len(parsed(answer.text)) == 8


async def test_the_hosts_dependencies_stay_open_until_the_end(tmp_path: Path) -> None:
    """A dependency that yields is closed after the last event."""
    said: list[str] = []

    async def session() -> AsyncIterator[None]:
        said.append("open")
        yield
        said.append("closed")

    async with serving(tmp_path) as served:
        app = FastAPI()
        include_agentmap_routes(app, prefix=PREFIX, service=served.service, dependencies=[Depends(session)])
        sent: list[list[str]] = []

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def noted(message: Message) -> None:
                sent.append(list(said))
                await send(message)

            await app(scope, receive, noted)

        made = await served.start("Slow")
        await served.gate.reached.wait()
        async with Listener(watched, f"/executions/{made['execution_id']}/stream") as reader:
            await reader.event()
            served.gate.opened.set()
            assert [event["event"] async for event in _rest(reader)][-1] == "completed"
        assert sent == [["open"]] * len(sent)
        assert said == ["open", "closed"]


async def test_a_deleted_execution_ends_its_streams(tmp_path: Path) -> None:
    """The reader is told to come again, and finds that there is nothing."""
    async with serving(tmp_path) as served:
        made = (await served.http.post("/execute", json={"graph_name": "Ask"})).json()
        path = f"/executions/{made['execution_id']}"
        async with Listener(served.app, f"{path}/stream?follow=true") as reader:
            await reader.event()
            await served.service.cancel_execution(made["execution_id"])
            await served.http.delete(path)
            events = [event async for event in _rest(reader)]
        assert events[-1]["event"] == "cancelled" or events[-1]["comments"]


def test_large_batches_are_sent_in_pieces() -> None:
    """About 64 KiB each, in order, with nothing between lost."""
    parts = [b"x" * 30_000] * 5
    found = sse.chunks(parts)
    assert [len(piece) for piece in found] == [90_000, 60_000]
    assert sse.chunks([]) == []


@asynccontextmanager
async def _server(folder: Path, port: int) -> AsyncIterator[subprocess.Popen[bytes]]:
    process = await anyio.to_thread.run_sync(
        lambda: subprocess.Popen(
            [sys.executable, str(HERE / "served.py"), str(folder), str(port)], env={**os.environ, "GATES": str(folder)}
        )
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            while True:
                try:
                    assert (await http.get("/ready")).status_code == 200
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        yield process
    finally:
        process.kill()
        await anyio.to_thread.run_sync(process.wait)


async def _read(port: int, path: str, after: int, until: int) -> list[dict[str, Any]]:
    """Events up to the one with the number `until`, through a connection of its own that is dropped then."""
    found: list[dict[str, Any]] = []
    headers = {"last-event-id": str(after)}
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
        http.stream("GET", path, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        text = ""
        async for part in answer.aiter_text():
            text += part
            found = parsed(text[: text.rfind("\n\n") + 2])
            if found and found[-1]["id"] >= until:
                break
    return found


async def test_a_reader_loses_nothing_when_the_server_dies(tmp_path: Path) -> None:
    """Across `kill -9` and a new process, after every event in turn: all events come, in order, once."""
    flows, count = tmp_path / "flows", 4
    await anyio.Path(flows).mkdir()
    rows = "".join(f"Steps,S{n},step,,s{n},{f'S{n + 1}' if n < count else ''}\n" for n in range(1, count + 1))
    await anyio.Path(flows / "flows.csv").write_text("GraphName,Node,AgentType,Input_Fields,Output_Field,Edge\n" + rows)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen: list[dict[str, Any]] = []
    path = ""
    for number in range(1, count + 1):
        async with _server(tmp_path, port):
            if not path:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                    made = (await http.post("/execute", json={"graph_name": "Steps", "mode": "async"})).json()
                path = f"{made['links']['stream']}"
            while not any(e["event"] == "node_started" and e["data"]["node"] == f"S{number}" for e in seen):
                last = seen[-1]["id"] if seen else 0
                seen += await _read(port, path, last, last + 1)
            await anyio.Path(tmp_path / f"S{number}").touch()
            if number == count:
                seen += await _read(port, path, seen[-1]["id"], 10**9)
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                    over = await http.get(path, headers={"last-event-id": str(seen[-1]["id"])})
                assert over.status_code == 204
    assert [event["id"] for event in seen] == list(range(1, len(seen) + 1))
    names = [event["event"] for event in seen]
    assert names.count("completed") == 1
    assert names[-1] == "completed"
    assert names.count("node_finished") == count


async def test_a_server_with_open_streams_stops(tmp_path: Path) -> None:
    """uvicorn, told to stop, does not wait for an execution that goes on; the next process has it."""
    flows = tmp_path / "flows"
    await anyio.Path(flows).mkdir()
    await anyio.Path(flows / "flows.csv").write_text("GraphName,Node,AgentType,Output_Field\nSteps,S1,step,s1\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    async with _server(tmp_path, port) as process, httpx.AsyncClient(base_url=base, timeout=30) as http:
        async with http.stream("POST", "/execute/stream", json={"graph_name": "Steps"}) as answer:
            path, text = answer.headers["location"], ""
            async for part in answer.aiter_text():
                text += part
                if "node_started" in text and process.poll() is None and "stopping" not in text:
                    process.send_signal(signal.SIGTERM)
        assert text.endswith(": the server is stopping; come again\n\n")
        await anyio.to_thread.run_sync(lambda: process.wait(30))
    await anyio.Path(tmp_path / "S1").touch()
    async with _server(tmp_path, port), httpx.AsyncClient(base_url=base, timeout=30) as http:
        rest = await http.get(f"{path}/stream", headers={"last-event-id": str(parsed(text)[-1]["id"])})
    assert parsed(rest.text)[-1]["event"] == "completed"


async def test_the_grace_of_what_runs_begins_when_the_server_is_told(tmp_path: Path) -> None:
    """What uvicorn waits for open responses is no more of it: then the process is gone in time."""
    clock = asyncio.get_running_loop()
    server = Server()
    with handling(server):
        async with serving(tmp_path, store="sqlite", settings={"shutdown_grace": 1_000.0}) as served:
            await served.start("Slow")
            await served.gate.reached.wait()
            server.handle_exit(0, None)
            assert leaving(served.service)
            runtime = served.service._runtime()
            assert 0 < runtime._grace <= 1_000.0
            runtime._told = clock.time() - 2_000.0  # it has waited for long
            await served.service.aclose()
            assert not served.gate.opened.is_set()
