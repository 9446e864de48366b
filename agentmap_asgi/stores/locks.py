"""Files that processes of one machine lock, to take turns and to see who lives.

A lock belongs to an open file, not to a process: two that were opened in one process exclude each other too, and the
system frees it when the process ends, however it does. Without `fcntl` (Windows) one process is assumed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import StoreUnavailable

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

_RUNNER_ID: Final = re.compile(r"[0-9]+-[0-9a-f]+", re.ASCII)
_TAKEN: Final = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}

REMOTE: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}
"""File systems over a network on which file locks or shared memory do not hold."""


def file_system(path: Path, mounts: str) -> str:
    """The kind of file system that holds an absolute path, from the text of /proc/self/mounts; "" when unknown."""
    best, kind = "", ""
    for line in mounts.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), parts[1])
        if len(point) >= len(best) and path.is_relative_to(point):
            best, kind = point, parts[2]
    return kind


def _lock(file: int, *, shared: bool = False) -> bool:
    """True when the lock was free. Raises OSError where there are no such locks."""
    if fcntl is None:  # pragma: no cover
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in _TAKEN:
            return False
        raise
    return True


class FileLock:
    """Held by one at a time. For one thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

    def acquire(self, timeout: float) -> bool:
        """False when others have held it for `timeout` seconds. Nobody waits for ever: the holder may be stopped."""
        if _lock(self._file):
            return True
        end = time.monotonic() + timeout
        pause = 0.000_2
        while time.monotonic() < end:
            time.sleep(pause)
            if _lock(self._file):
                return True
            pause = min(pause * 1.5, 0.005)
        return False

    @contextmanager
    def turn(self, timeout: float) -> Iterator[None]:
        """Hold it meanwhile. Raises StoreUnavailable after `timeout` seconds."""
        if not self.acquire(timeout):
            raise StoreUnavailable("The store is held by another process")
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._file)


class RunnerFile(NamedTuple):
    """A locked file that says that a runner lives."""

    id: str
    path: Path
    file: int

    def close(self) -> None:
        with suppress(OSError):
            self.path.unlink()
        os.close(self.file)


class RunnerFiles:
    """The folder with a file for each living runner. Its files are untrusted input."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, about: dict[str, Any]) -> RunnerFile:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        identity = f"{os.getpid()}-{secrets.token_hex(8)}"
        path, draft = self._folder / identity, self._folder / f".{identity}"
        # It gets its name when it is locked, so that nobody sees it and takes it for one whose runner has died.
        while True:
            file = os.open(draft, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            try:
                if _lock(file):
                    os.ftruncate(file, 0)
                    os.write(file, json.dumps(about).encode())
                    draft.replace(path)
                    return RunnerFile(identity, path, file)
            except FileNotFoundError:  # somebody swept it away between two of these lines
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def alive(self, identity: str) -> bool:
        return _RUNNER_ID.fullmatch(identity) is not None and not self._free(self._folder / identity)

    def _free(self, path: Path) -> bool:
        """Whether nobody holds the lock of a file."""
        if fcntl is None:  # pragma: no cover
            return True
        try:
            file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return True
        try:
            return _lock(file, shared=True)  # shared, so that two who look at once do not take each other for it
        finally:
            os.close(file)

    def living(self) -> list[dict[str, Any]]:
        """What the living ones say about themselves; the files of dead ones are removed."""
        found = []
        for path in sorted(self._folder.iterdir()):
            if self._free(path):
                with suppress(OSError):
                    path.unlink()
                continue
            with suppress(OSError, ValueError):
                about = json.loads(path.read_bytes()[:10_000])
                if isinstance(about, dict):
                    found.append(about)
        return found
