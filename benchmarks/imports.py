"""What importing the package, and mounting an app with one workflow, adds to a host that has FastAPI already.

python -m benchmarks.imports
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

SCRIPT = """
import sys, time
import fastapi
host = fastapi.FastAPI()
started = time.perf_counter()
import agentmap_asgi
agentmap_asgi.AgentMapApp, agentmap_asgi.AgentMapConfig, agentmap_asgi.include_agentmap_routes
print(time.perf_counter() - started)
host.mount("/workflows", agentmap_asgi.AgentMapApp(sys.argv[1]))
print(time.perf_counter() - started)
assert "networkx" not in sys.modules
"""
SHEET = "GraphName,Node,AgentType,Edge\nHello,Greet,echo,\n"


def as_installed() -> dict[str, str]:
    """The environment of processes that are measured: compiled files are kept, whatever the shell says."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(rounds: int = 15) -> list[dict[str, Any]]:
    """The best of several fresh processes, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder) / "hello.csv"
        sheet.write_text(SHEET)
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(sheet)]
        found = [
            [
                float(line)
                for line in subprocess.check_output(command, env=as_installed(), text=True, stderr=DEVNULL).split()
            ]
            for _ in range(rounds)
        ]
    imported, mounted = (f"{min(times) * 1e3:.0f} ms" for times in zip(*found, strict=True))
    return [
        {"case": "import over a FastAPI host", "ours": imported, "beside": "budget 60 ms"},
        {"case": "import, and mount an app with one workflow", "ours": mounted},
    ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['case']:50} {row['ours']}")
