"""A user's whole journey through the application of `examples/testing`, with a real server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

HOST = Path(__file__).parent.parent / "testing"


@contextmanager
def server(folder: str) -> Iterator[str]:
    """The address at which uvicorn serves the application; the system chooses the port."""
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{folder}/items.db"}
    command = [sys.executable, "-B", "-m", "uvicorn", "main:app", "--app-dir", str(HOST), "--port", "0"]
    with subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr or ():
            said.append(line)
            if "running on " in line:
                break
        else:
            raise AssertionError("".join(said))
        try:
            yield line.partition("running on ")[2].split()[0]
        finally:
            process.terminate()
            process.communicate()


def journey(http: httpx.Client) -> None:
    refused = http.post("/auth/login", json={"username": "testuser", "password": "wrong"})
    assert refused.status_code == 401
    token = http.post("/auth/login", json={"username": "testuser", "password": "testpass"}).json()["access_token"]
    http.headers["Authorization"] = f"Bearer {token}"
    print("logged in")

    made = http.post("/items", json={"name": "Test Item"})
    assert made.status_code == 201
    item_id = made.json()["id"]
    print("made item", item_id)

    body = {"graph_name": "ItemProcessing", "initial_state": {"item_id": item_id}}
    run = http.post("/workflows/execute", json=body).json()
    print("the workflow says:", run["result"]["text"])
    assert (run["success"], run["owner"]) == (True, "testuser")

    assert http.get(f"/items/{item_id}").json()["status"] == "new"  # nobody outside could appraise it
    assert http.get("/workflows/ready").json()["ready"] is True


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, server(name) as address, httpx.Client(base_url=address) as http:
        journey(http)
