"""A wire between a client and a PostgreSQL server that can be cut, or swallow what the server says."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import tempfile
import threading
from pathlib import Path

from postgresql import Server

READY = b"Z\0\0\0\5I"
"""The server waits for the next command."""
_FIELDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
FAREWELL = b"E" + struct.pack("!i", len(_FIELDS) + 4) + _FIELDS


class Wire:
    """Listens in a folder of its own, and carries bytes to and from the server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._folder = tempfile.TemporaryDirectory(prefix="agentmap-wire-")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(Path(self._folder.name) / ".s.PGSQL.5432"))
        self._listening.listen(64)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.mute = False
        """The server hears, and is not heard."""
        self.down = False
        """Nobody comes through."""
        self.farewell = False
        """The next who commits is told of it, and then that the server ends; the connection stays open."""
        self.swallowed = 0
        """Bytes that were not heard."""
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._ending = False
        self._thread.start()

    @property
    def url(self) -> str:
        return f"postgresql://owner@/postgres?host={self._folder.name}"

    def _carry(self) -> None:
        while not self._ending:
            ends = {end: (other, n == 1) for pair in list(self._pairs) for n, end in enumerate(pair)
                    for other in (pair[1 - n],)}  # fmt: skip
            with contextlib.suppress(OSError, ValueError):
                ready, _, _ = select.select([self._listening, *ends], [], [], 0.05)
                for end in ready:
                    if end is self._listening:
                        self._accept()
                    else:
                        self._move(end, *ends[end])

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        if self.down:
            client.close()
            return
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._server.folder / ".s.PGSQL.5432"))
        except OSError:
            client.close()
            return
        self._pairs.append((client, server))

    def _move(self, end: socket.socket, other: socket.socket, from_server: bool) -> None:
        try:
            data = end.recv(65_536)
            if data and from_server and self.mute:
                self.swallowed += len(data)
            elif data:
                if from_server and self.farewell and b"COMMIT\0" in data:
                    self.farewell = False
                    data = data.removesuffix(READY) + FAREWELL
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        for pair in [pair for pair in self._pairs if end in pair]:
            self._pairs.remove(pair)
            for one in pair:
                one.close()

    def cut(self) -> None:
        """Break every connection off."""
        for client, _ in list(self._pairs):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._ending = True
        self._thread.join()
        for pair in self._pairs:
            for one in pair:
                one.close()
        self._listening.close()
        self._folder.cleanup()
