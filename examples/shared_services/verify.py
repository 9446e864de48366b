"""Runs the workflow twice: then the name comes from the cache. With Redis, if `redis-server` is installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from main import User, agentmap_service, app

from agentmap_asgi.testing import AgentMapClient


@contextmanager
def redis_server(folder: Path) -> Iterator[str | None]:
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    command = [program, "--port", "0", "--unixsocket", "redis.sock", "--save", ""]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        for line in server.stdout or ():
            if "ready to accept connections" in line.lower():
                break
        yield f"unix://{folder}/redis.sock"
        server.terminate()
        server.communicate()


async def main() -> None:
    async with AgentMapClient(app) as http:
        with app.state.db_pool.begin() as session:
            session.add_all([User(id=1, name="Ada"), User(id=2, name="Bob")])
        body = {"graph_name": "Greet", "initial_state": {"user_id": 1}}
        first, second = [(await http.post("/workflows/execute", json=body)).json()["result"] for _ in range(2)]
        print(first["text"])
        assert first["text"] == "Hello Ada, one of 2"
        assert first["greeting"] == {"name": "Ada", "from_cache": False, "messages": 1}
        assert second["greeting"] == {"name": "Ada", "from_cache": True, "messages": 2}

        class Directory:
            def name_of(self, user_id: int) -> str:
                return "a test"

        with agentmap_service.override(user_service=Directory()):
            other = {"graph_name": "Greet", "initial_state": {"user_id": 7}}
            answer = (await http.post("/workflows/execute", json=other)).json()
        assert answer["result"]["text"] == "Hello a test, one of 2"
        print("a test replaces a service")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as url:
        os.environ["DATABASE_URL"] = f"sqlite:///{name}/shop.db"
        if url is not None:
            os.environ["REDIS_URL"] = url
        print("the cache is", "Redis" if url else "in this process")
        asyncio.run(main())
