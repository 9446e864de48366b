"""The world behind uvicorn, as a process: python serving.py FOLDER PORT [WORKERS]."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvicorn
from world import GRACE, service

from agentmap_asgi import AgentMapApp

FOLDER = "FAULTS_FOLDER"


def make() -> AgentMapApp:
    """The app of one worker process."""
    return AgentMapApp(service=service(Path(os.environ[FOLDER])))


def main(folder: str, port: str, workers: str = "1") -> None:
    os.environ[FOLDER] = folder
    settings = {"port": int(port), "log_level": "error", "timeout_graceful_shutdown": int(GRACE)}
    uvicorn.run("serving:make", factory=True, workers=int(workers), **settings)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
