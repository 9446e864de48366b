"""A PostgreSQL server of the tests' own, where the Debian package postgresql is installed."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
"""Where Debian puts them; the newest is the last."""
CONFIGURATION = """
listen_addresses = ''
unix_socket_directories = '{folder}'
max_connections = 200
shared_buffers = 64MB
fsync = {fsync}
log_min_messages = fatal
"""


class Server:
    """Runs in a folder, is reached through a socket in it, and is run by somebody who is not root."""

    def __init__(self, *, fsync: bool = False) -> None:
        """`fsync` is for those who measure; a killed process loses nothing without it."""
        found = shutil.which("postgres") or (PROGRAMS and str(PROGRAMS[-1] / "postgres"))
        if not found:
            raise FileNotFoundError("postgres")
        self._programs = Path(found).resolve().parent
        self.folder = Path(tempfile.mkdtemp(prefix="agentmap-pg-"))
        self._data = self.folder / "data"
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = next(name for name in ("postgres", "nobody") if _there(name))
            shutil.chown(self.folder, user)
            self._as = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        self.folder.chmod(0o755)
        self._run(
            "initdb", "-D", str(self._data), "-U", "owner", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION.format(folder=self.folder, fsync="on" if fsync else "off"))
        access = self._data / "pg_hba.conf"
        access.write_text("local all guarded scram-sha-256\n" + access.read_text())
        self._process: subprocess.Popen[bytes]
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **self._as)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data)],
                cwd=self.folder, stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT breaks connections off, SIGQUIT is a crash."""
        self._process.send_signal(how)
        self._process.wait()

    def url(self, user: str = "owner", password: str = "", base: str = "postgres") -> str:
        return f"postgresql://{user}{':' if password else ''}{password}@/{base}?host={self.folder}"

    def execute(self, *statements: str, user: str = "owner", base: str = "postgres") -> list[tuple[Any, ...]]:
        """What the last statement gives."""
        with psycopg.connect(self.url(user, base=base), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self, template: str = "template1") -> str:
        """The name of a new database."""
        name = f"t_{secrets.token_hex(8)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    @staticmethod
    def schema() -> str:
        """The name of a schema that nobody else has."""
        return f"t_{secrets.token_hex(8)}"

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)


def _there(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
