"""The same request in each environment."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from main import create_app

from agentmap_asgi.errors import ConfigError
from agentmap_asgi.testing import AgentMapClient

BODY = {"graph_name": "Greet", "initial_state": {"name": "Ada"}}


def new_key() -> tuple[str, str]:
    """The key for the caller, and the line for the settings."""
    command = [sys.executable, "-m", "agentmap_asgi", "keys", "new", "--name", "host"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return "amk_" + done.stderr.partition("amk_")[2].split()[0], done.stdout.strip()


async def main(folder: Path) -> None:
    for environment in ("development", "staging"):
        async with AgentMapClient(create_app(environment)) as http:
            assert (await http.post("/workflows/execute", json=BODY)).json()["result"]["text"] == "Hello Ada!"
            metrics = (await http.get("/workflows/metrics")).status_code
            docs = (await http.get("/workflows/openapi.json")).status_code
            print(f"{environment}: metrics {metrics}, description {docs}")
            assert (metrics, docs) == (200 if environment == "staging" else 404, 200)

    try:
        create_app("production", audit_path=folder / "audit.jsonl")
    except ConfigError as exc:
        print("production without a key:", exc.message)
    else:
        raise AssertionError("it was served without a key")

    key, os.environ["AGENTMAP_API_KEYS"] = await asyncio.to_thread(new_key)
    async with AgentMapClient(create_app("production", audit_path=folder / "audit.jsonl")) as http:
        assert (await http.post("/workflows/execute", json=BODY)).status_code == 401
        answer = await http.post("/workflows/execute", json=BODY, headers={"X-API-Key": key})
        assert answer.json()["result"]["text"] == "Hello Ada!"
        assert (await http.get("/workflows/openapi.json", headers={"X-API-Key": key})).status_code == 404
        print("production: only with a key, without a description")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
