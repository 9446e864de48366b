"""Through uvicorn: clients that are cut off at any byte, slow readers, servers that are told to stop."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from checker import Lives, check, stored
from processes import HERE, PATH, Nursery, wait_for
from world import EFFECTS, GRACE, MEANT, STORE, TOLD, append, count, state_of, write

HANG = 10.0
"""Seconds after which a server will not end by itself."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@contextmanager
def server(folder: Path, workers: int = 1) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    if not (folder / "flows.csv").exists():
        write(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "serving.py"), str(folder), str(port), str(workers)],
            env={**os.environ, "PYTHONPATH": PATH},
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: answered(port, "GET", "/ready")[0] == 200)
        yield process, port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answered(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """(status, document); (0, None) when nobody is there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {} if body is None else {"content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


class Wanted:
    """Starts over HTTP, noted as the other clients do it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0

    def body(self, graph: str, **more: Any) -> dict[str, Any]:
        self.number += 1
        append(self.folder / MEANT, {"n": self.number})
        return {"graph_name": graph, "initial_state": state_of(self.number) | more.pop("state", {}), **more}

    def told(self, body: dict[str, Any], execution: str) -> None:
        append(self.folder / TOLD, {"start": execution, "n": body["initial_state"]["n"]})


def over(port: int) -> bool:
    """Nothing is queued or running."""
    status, found = answered(port, "GET", "/executions?status=queued&status=running&limit=1")
    return status == 200 and not (found.get("executions") or found.get("items"))


def test_clients_that_are_cut_off_end_no_execution(nursery: Nursery, tmp_path: Path, rounds: int) -> None:
    """At any byte of the request nothing is begun by half; at any byte of the response what was accepted ends."""
    dice = random.Random(0)
    wanted = Wanted(tmp_path)
    cut = {"request": 0, "response": 0}
    with server(tmp_path) as (_, port):
        for number in range(20 if rounds == 1 else 500):
            graph = dice.choice(("Chain", "Fork", "Once"))
            path = dice.choice(("/execute", "/execute/stream"))
            body = wanted.body(graph)
            data = json.dumps(body).encode()
            head = (
                f"POST {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-type: application/json\r\n"
                f"content-length: {len(data)}"
            )
            request = f"{head}\r\n\r\n".encode() + data
            part = "request" if number % 2 else "response"
            cut[part] += 1
            with socket.create_connection(("127.0.0.1", port)) as connection:
                if part == "request":
                    connection.sendall(request[: dice.randrange(len(request))])
                else:
                    connection.sendall(request)
                    left, got = dice.randrange(1_500), b""
                    while left > 0 and (some := connection.recv(left)):
                        left -= len(some)
                        got += some
                    names = [line for line in got.decode().split("\r\n") if line.lower().startswith("location: ")]
                    if names and got.count(b"\r\n\r\n"):
                        wanted.told(body, names[0].rpartition("/")[2])
                if dice.random() < 0.5:  # reset instead of closing
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        wait_for(lambda: over(port))
    lives = Lives()
    report = check(tmp_path, lives)
    report.assert_good(least=5)
    assert report.completed == report.executions
    assert report.repeated == 0
    print(f"{cut['request']} cuts in requests, {cut['response']} in responses; {report.executions} accepted, all ended")


def test_a_slow_reader_does_not_slow_the_execution(tmp_path: Path) -> None:
    """It reads nothing of its stream; the execution ends as fast as others, and the events are there afterwards."""
    wanted = Wanted(tmp_path)
    with server(tmp_path) as (_, port):
        status, found = answered(port, "POST", "/execute", wanted.body("Fork"))
        assert (status, found["status"]) == (200, "completed")
        alone = found["execution_time"]
        slow = []
        try:
            for _ in range(20):
                connection = socket.socket()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
                connection.connect(("127.0.0.1", port))
                data = json.dumps(wanted.body("Fork")).encode()
                connection.sendall(
                    b"POST /execute/stream HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n" % len(data) + data
                )
                slow.append(connection)
            wait_for(lambda: len(stored(tmp_path / STORE)) == 21 and over(port))
            body = wanted.body("Fork")
            status, found = answered(port, "POST", "/execute", body)
            assert (status, found["status"]) == (200, "completed")
            assert found["execution_time"] < alone * 10 + 1.0
        finally:
            for connection in slow:
                connection.close()
    report = check(tmp_path, Lives())
    report.assert_good(least=22)
    assert report.completed == report.executions == 22


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_is_told_to_stop_is_gone_in_time(
    workers: int, nursery: Nursery, tmp_path: Path, rounds: int
) -> None:
    """With open streams, waiting requests and nodes that run for long: within its grace and a second."""
    slowest = 0.0
    for number in range(1 if rounds == 1 else 6):
        folder = tmp_path / str(number)
        folder.mkdir()
        wanted = Wanted(folder)
        opened = []
        with server(folder, workers) as (process, port):
            for turn in range(8):
                body = wanted.body("Asks" if turn == 0 else "Chain", state={"slow": 0.25 + number / 10}, mode="async")
                status, found = answered(port, "POST", "/execute", body)
                assert status == 202, found
                wanted.told(body, found["execution_id"])
                connection = socket.create_connection(("127.0.0.1", port))
                path = (
                    f"/executions/{found['execution_id']}/stream"
                    if turn % 2
                    else f"/executions/{found['execution_id']}?wait=30"
                )
                connection.sendall(f"GET {path} HTTP/1.1\r\nhost: here\r\n\r\n".encode())
                opened.append(connection)
            wait_for(lambda: count(folder / EFFECTS) > 0)  # noqa: B023
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            took = time.monotonic() - began
            slowest = max(slowest, took)
        for connection in opened:
            connection.close()
        assert took < HANG  # the figure is printed; how long it takes is up to what else the machine does
        lives = Lives()
        lives.crash(folder)
        nursery.drain(folder)
        nursery.sweep()
        report = check(folder, lives)
        report.assert_good(least=8)
        assert report.completed == 8
    print(f"{workers} workers: gone after at most {slowest:.2f} s, with a grace of {GRACE} s")
