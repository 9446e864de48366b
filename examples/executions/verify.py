"""Starts executions without waiting for them, watches one by its events, cancels one, and tries both again."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx
from main import Road, make_app

from agentmap_asgi.testing import AgentMapClient


async def start(http: httpx.AsyncClient, item: str) -> dict[str, Any]:
    """An execution that goes on by itself; the key makes it safe to send the request again."""
    body = {"graph_name": "Shipping", "initial_state": {"item": item}, "mode": "async", "tags": ["demo"]}
    answers = [await http.post("/execute", json=body, headers={"Idempotency-Key": f"ship-{item}"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    first, second = (answer.json() for answer in answers)
    assert first["execution_id"] == second["execution_id"]
    return dict(first)


async def watch(http: httpx.AsyncClient, execution: dict[str, Any]) -> list[str]:
    """The names of its events, until it ends."""
    names = []
    async with http.stream("GET", execution["links"]["stream"]) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
    return names


async def settled(http: httpx.AsyncClient, link: str) -> dict[str, Any]:
    """The document once it has ended."""
    while True:
        found: dict[str, Any] = (await http.get(link, params={"wait": 5})).json()
        if found["status"] not in ("queued", "running"):
            return found


async def verify(storage_url: str) -> None:
    road = Road()
    async with AgentMapClient(make_app(road, storage_url)) as http:
        road.open.clear()
        lamp, chair = await start(http, "lamp"), await start(http, "chair")
        cancelled = (await http.post(chair["links"]["cancel"])).json()
        print(f"The chair is {cancelled['status']}; what was done: {cancelled['result']}")
        assert cancelled["status"] == "cancelled"
        assert cancelled["result"]["picked"] == "Pick chair."

        watching = asyncio.ensure_future(watch(http, lamp))
        road.accident = True
        road.open.set()
        names = await watching
        print(f"What happened to the lamp: {', '.join(names)}")
        assert names[-1] == "failed"

        road.accident = False
        for old in (await settled(http, lamp["links"]["self"]), cancelled):
            again = await http.post(old["links"]["retry"])
            assert again.status_code == 201
            ended = await settled(http, again.headers["location"])
            print(f"Again: {ended['result']['message']}")
            assert ended["result"]["message"] == "The parcel is on its way."
            assert ended["retry_of"] == old["execution_id"]

        listed = (await http.get("/executions", params={"tag": "demo"})).json()["executions"]
        assert sorted(one["status"] for one in listed) == ["cancelled", "completed", "completed", "failed"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for url in ("memory://", f"sqlite:///{Path(folder) / 'executions.db'}"):
            asyncio.run(verify(url))
