"""Processes of `dbos_program.py`, as a test has them."""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE = 60.0


class Process:
    """One that has been started; `ready` waits until it serves."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "dbos_program.py"), str(folder), json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": str(HERE.parents[1]), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        self._numbers = itertools.count()
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._early: dict[int, dict[str, Any]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        assert self._said.get(timeout=PATIENCE)["ready"] == self.pid

    def tell(self, do: str, **more: Any) -> int:
        """The number of what was asked for."""
        assert self._process.stdin is not None
        number = next(self._numbers)
        self._process.stdin.write(json.dumps({"do": do, "number": number, **more}) + "\n")
        self._process.stdin.flush()
        return number

    def answer(self, number: int) -> dict[str, Any]:
        while number not in self._early:
            said = self._said.get(timeout=PATIENCE)
            self._early[said["number"]] = said["document"]
        return self._early.pop(number)

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        return self.answer(self.tell(do, **more))

    def kill(self) -> None:
        self._process.kill()
        self._end()

    def _end(self) -> int:
        status = self._process.wait(PATIENCE)
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return status

    def wait(self) -> int:
        """Until it ends by itself; its exit status."""
        return self._end()

    def close(self) -> int:
        """End it in an orderly way; its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._end()


def diary(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "diary").read_text().splitlines()]


def seen(folder: Path, what: str, key: str, times: int = 1) -> None:
    """Wait until agents have noted something so many times."""
    end = time.monotonic() + PATIENCE
    while sum((line["what"], line["key"]) == (what, key) for line in diary(folder)) < times:
        assert time.monotonic() < end, diary(folder)
        time.sleep(0.02)
