"""Processes under strace: killed at a system call, or watched, so that a power loss can be played from their writes."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

import pytest
from processes import Nursery, Worker

SECTOR: Final = 512
"""Bytes that a disk writes as a whole."""


@contextmanager
def traced(nursery: Nursery, worker: Worker, *options: str) -> Iterator[None]:
    """A worker that was made `held`, under strace, and let go."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    process = subprocess.Popen(
        ["strace", "-f", "-p", str(worker.pid), *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace may not look into processes here: {said.strip()}")
        worker.tell("go")
        yield
    finally:
        try:
            process.communicate(timeout=0.5)  # it ends with the worker
        except subprocess.TimeoutExpired:  # it waits for a thread that was killed, now and then
            process.kill()
            process.communicate()


class Call(NamedTuple):
    """One system call on a file, in the order in which they began; a sync, in which they ended."""

    kind: Literal["write", "cut", "sync", "unlink"]
    path: str
    data: bytes = b""
    at: int = 0


_CALL: Final = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<rest>.*)$")
_RESUMED: Final = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_FILE: Final = re.compile(r"^-?\d+<(?P<path>[^>]*)>(?:, )?(?P<rest>.*)$")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def calls(trace: Path) -> Iterator[Call]:
    """What a trace (`-y -xx`) says of files."""
    syncing: dict[str, str] = {}
    with trace.open() as lines:
        for line in lines:
            if found := _RESUMED.match(line):
                if found["name"] in ("fsync", "fdatasync") and found["rest"].rstrip().endswith("= 0"):
                    yield Call("sync", syncing[found["pid"]])
                continue
            found = _CALL.match(line)
            if found is None:
                continue
            name, rest = found["name"], found["rest"]
            if name in ("unlink", "unlinkat"):
                yield Call("unlink", _bytes(rest.split('"')[1]).decode())
                continue
            file = _FILE.match(rest)
            if file is None:
                continue
            path, rest = _bytes(file["path"]).decode(), file["rest"]
            if name in ("fsync", "fdatasync"):
                if "<unfinished" in rest:
                    syncing[found["pid"]] = path
                elif rest.rstrip().endswith("= 0"):
                    yield Call("sync", path)
            elif name == "ftruncate":
                yield Call("cut", path, at=int(re.match(r"\d+", rest)[0]))  # type: ignore[index]
            elif name in ("write", "pwrite64"):
                data, numbers = rest.split('"')[1], rest.split('"')[2]
                at = int(re.match(r", \d+, (\d+)", numbers)[1]) if name == "pwrite64" else -1  # type: ignore[index]
                yield Call("write", path, _bytes(data), at)


@dataclass
class Disk:
    """A file as it is on the disk, and what the system has not written there yet."""

    data: bytearray = field(default_factory=bytearray)
    waiting: list[Call] = field(default_factory=list)

    def take(self, call: Call) -> None:
        if call.kind == "sync":
            for one in self.waiting:
                _apply(self.data, one)
            self.waiting = []
        else:
            self.waiting.append(call)

    def after_power_loss(self, dice: random.Random) -> bytes | None:
        """Any of what was not synced may have been written, in any order, and a write up to any sector of it."""
        data: bytearray | None = bytearray(self.data)
        share = dice.choice((0.0, 0.5, 0.9, 1.0))
        for one in self.waiting:
            if dice.random() >= share:
                continue
            if one.kind == "unlink":
                data = None
                continue
            if one.kind == "write" and dice.random() < 0.2:
                one = one._replace(data=one.data[: dice.randrange(0, len(one.data) + 1, SECTOR)])
            data = bytearray() if data is None else data
            _apply(data, one)
        return None if data is None else bytes(data)


def _apply(data: bytearray, call: Call) -> None:
    if call.kind == "unlink":
        data.clear()
    elif call.kind == "cut":
        del data[call.at :]
        data.extend(bytes(call.at - len(data)))
    elif call.data:
        data.extend(bytes(max(0, call.at - len(data))))
        data[call.at : call.at + len(call.data)] = call.data
