"""A network namespace with a way to a PostgreSQL server that can be cut: what is sent then is lost without a word."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from postgresql import Server


class Network:
    """A pair of virtual interfaces, one of them in a namespace, and a relay to the server's socket at the other."""

    def __init__(self, server: Server) -> None:
        """Skips the test where that cannot be made."""
        if shutil.which("ip") is None:
            assert not os.environ.get("CI"), "the package iproute2 is missing"
            pytest.skip("ip is not installed (the Debian package iproute2)")
        self._server = server
        word = secrets.token_hex(4)
        self._name, self._here, self._there = f"agentmap-{word}", f"ama{word}", f"amb{word}"
        net = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
        try:
            self._ip("netns", "add", self._name)
            self._ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self._name)
            self._ip("addr", "add", f"{net}.1/30", "dev", self._here)
            self._ip("link", "set", self._here, "up")
            self._ip("-n", self._name, "addr", "add", f"{net}.2/30", "dev", self._there)
            self._ip("-n", self._name, "link", "set", self._there, "up")
        except subprocess.CalledProcessError as exc:
            self.close()
            pytest.skip(f"network namespaces cannot be made here: {exc.stderr.strip()}")
        self.place = f"/var/run/netns/{self._name}"
        """The file of the namespace."""
        self._listening = socket.create_server((f"{net}.1", 0))
        self._ends: list[socket.socket] = [self._listening]
        self._port = self._listening.getsockname()[1]
        self._host = f"{net}.1"
        threading.Thread(target=self._accept, daemon=True).start()

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    def url(self, base: str) -> str:
        """A database of the server, as it is reached from within."""
        return f"postgresql://owner@{self._host}:{self._port}/{base}"

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                self._ends += (client, server)
                try:
                    server.connect(str(self._server.folder / ".s.PGSQL.5432"))
                except OSError:
                    client.close()
                    continue
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_carry, args=(one, other), daemon=True).start()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Meanwhile nothing comes through, and nobody is told."""
        self._ip("link", "set", self._here, "down")
        try:
            yield
        finally:
            self._ip("link", "set", self._here, "up")

    def close(self) -> None:
        for end in getattr(self, "_ends", []):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for words in (("link", "del", self._here), ("netns", "del", self._name)):
            with suppress(subprocess.CalledProcessError):
                self._ip(*words)


def _carry(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
