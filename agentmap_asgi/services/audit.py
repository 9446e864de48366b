"""Who did what, when, from where, and what became of it: lines of JSON in a file that only grows.

A line is written by one `write` to a file opened for appending, so processes may share it and no line lies inside
another. That takes microseconds, and the line is with the operating system before the caller has an answer; a queue
would lose its lines when the process is killed. Payloads are named by their digests. JSON escapes line ends and control
characters, and all text is ASCII: no value can make a line, or end one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from weakref import finalize

from ..context import Clock
from ..errors import ConfigError
from ..execution.records import stamp

logger = logging.getLogger("agentmap_asgi.audit")

LONGEST: Final = 300
"""Characters kept of a text that comes from outside."""
BLOCK: Final = 256 * 1024
MOST_READ: Final = 32 * 1024 * 1024
"""Bytes looked at for one question."""


class Audit:
    """The audit log of one service. Raises ConfigError when the file cannot be opened.

    The file and its folder are made when they are missing, for this user alone.
    """

    def __init__(self, path: str | Path, clock: Clock) -> None:
        self.path = Path(path)
        self._clock = clock
        self._torn = False
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # O_NONBLOCK: were it a pipe, a reader that stands still must not stop the event loop.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(self.path, flags, 0o600)
        except OSError as exc:
            raise ConfigError(
                f"The audit log {str(path)!r} cannot be opened ({exc.strerror}); name another file in audit_path"
            ) from None
        finalize(self, os.close, self._file)

    def note(self, event: str, **facts: Any) -> None:
        """Write one line; facts that are None are left out. A line that cannot be written is an ERROR in the log."""
        entry = {"at": stamp(self._clock.time_ns()), "event": event, "process": os.getpid()}
        entry |= {name: _cut(value) for name, value in facts.items() if value is not None}
        line = json.dumps(entry, separators=(",", ":"), default=_cut).encode() + b"\n"
        if self._torn:  # what came before it ends here
            line = b"\n" + line
        try:
            written = os.write(self._file, line)
        except OSError as exc:
            logger.error("A line of the audit log was lost: %s", exc.strerror)
            return
        self._torn = written < len(line)
        if self._torn:
            logger.error("A line of the audit log was written in part: %d of %d bytes", written, len(line))

    def newest(
        self, limit: int, *, since: str = "", workflow: str | None = None, principal: str | None = None
    ) -> tuple[list[dict[str, Any]], bool]:
        """The newest lines first, and whether all that fit are among them. Blocks.

        `since` is a time as the lines have it. At most MOST_READ bytes are looked at.
        """
        found: list[dict[str, Any]] = []
        for line in self._backwards():
            try:
                entry = json.loads(line)
            except ValueError:  # part of a line that was lost
                continue
            if not isinstance(entry, dict):
                continue
            if since and str(entry.get("at", "")) < since:
                return found, True
            if workflow is not None and not _means(entry.get("workflow"), workflow):
                continue
            if principal is not None and entry.get("principal") != principal:
                continue
            if len(found) == limit:
                return found, False
            found.append(entry)
        return found, self.path.stat().st_size <= MOST_READ

    def _backwards(self) -> Iterator[bytes]:
        """The lines that are complete, last first."""
        with self.path.open("rb") as file:
            at = file.seek(0, os.SEEK_END)
            end = max(0, at - MOST_READ)
            rest = b""
            while at > end:
                size = min(BLOCK, at - end)
                at -= size
                file.seek(at)
                first, *lines = (file.read(size) + rest).split(b"\n")
                rest = first
                yield from (line for line in reversed(lines) if line)
            if rest and not end:
                yield rest


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, written with sorted keys and without spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def owner(context: Any) -> str | None:
    """The principal of a run's context, as a text."""
    who = context.get("principal")
    if isinstance(who, dict):
        who = who.get("id", who.get("sub"))
    return None if who is None else str(who)


def trace_id(context: Any) -> str | None:
    """The trace that a run belongs to."""
    parent = context.get("traceparent")
    return parent.split("-")[1] if isinstance(parent, str) and parent.count("-") >= 3 else None


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:LONGEST]
    if isinstance(value, list | tuple):
        return [_cut(item) for item in value[:LONGEST]]
    return value if isinstance(value, int | float) else str(value)[:LONGEST]


def _means(name: Any, wanted: str) -> bool:
    """Whether a workflow of a line is the one asked for, by its id or its name alone."""
    return isinstance(name, str) and (name == wanted or name.rpartition("::")[2] == wanted)
