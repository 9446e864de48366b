"""Workers as the tests hold them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATH = os.pathsep.join([str(HERE.parent.parent), str(HERE.parent), str(HERE)])
HANG = 120.0
"""Seconds after which something will never come."""


class Worker:
    """A process that runs one of the programs of `worker.py`."""

    def __init__(self, place: str, given: dict[str, Any]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(HANG)
        self._socket.connect(place)
        self._socket.sendall(json.dumps(given).encode() + b"\n")
        self._rest = b""
        self.said: list[str] = []
        self.pid = int(self.line())

    def line(self) -> str:
        """The next line; empty when the process has ended."""
        while b"\n" not in self._rest:
            try:
                got = self._socket.recv(65_536)
            except ConnectionResetError:
                return ""
            except TimeoutError:
                raise AssertionError(f"It says nothing for {HANG:g} s after {self.said[-5:]}") from None
            if not got:
                return ""
            self._rest += got
        text, _, self._rest = self._rest.partition(b"\n")
        self.said.append(text.decode())
        return text.decode()

    def until(self, *words: str) -> str:
        """The next line that begins with one of these words."""
        while text := self.line():
            if text.split()[0] in words:
                return text
        raise AssertionError(f"It ended without a word of {words}: {self.said[-5:]}")

    def tell(self, text: str) -> None:
        self._socket.sendall(text.encode() + b"\n")

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> None:
        """Until it has ended."""
        while self.line():
            pass

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        self._socket.close()


class Nursery:
    """Makes workers. Those that a test leaves behind are killed when it ends."""

    def __init__(self, *modules: str) -> None:
        """`modules` are those that it imports besides, for workers that need them."""
        self._folder = tempfile.mkdtemp()
        self._place = str(Path(self._folder) / "nursery")
        self._workers: list[Worker] = []
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), self._place, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PATH},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def make(self, what: str, folder: Path, **given: Any) -> Worker:
        worker = Worker(self._place, {"what": what, "folder": str(folder), **given})
        self._workers.append(worker)
        return worker

    def drain(self, folder: Path, **given: Any) -> None:
        """Let everything in a folder come to its end."""
        worker = self.make("drain", folder, **given)
        worker.until("drained")
        worker.wait()

    def sweep(self) -> None:
        for worker in self._workers:
            worker.send(signal.SIGCONT)
            worker.send(signal.SIGKILL)
            worker.close()
        self._workers = []

    def close(self) -> None:
        self.sweep()
        self._process.communicate()
        shutil.rmtree(self._folder)


def log(folder: Path) -> str:
    """What the workers of a folder have logged."""
    path = folder / "log"
    return path.read_text() if path.exists() else ""


def wait_for(what: Any, *, seconds: float = HANG) -> None:
    """Until a condition holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@contextmanager
def stopped(worker: Worker) -> Iterator[None]:
    """Meanwhile the process stands still."""
    worker.send(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.send(signal.SIGCONT)
