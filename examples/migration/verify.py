"""Who answers an order: the old code, the workflow, or the old code because the workflow failed."""

from __future__ import annotations

import asyncio

from main import app

from agentmap_asgi.testing import AgentMapClient


async def main() -> None:
    async with AgentMapClient(app) as http:
        found = []
        for user, items in (("bob", ["lamp"]), ("ada", ["lamp"]), ("ada", "not a list")):
            answer = (await http.post("/orders", json={"items": items}, headers={"x-user": user})).json()
            print(f"{answer['source']}: {answer['result']['text']}")
            found.append(answer["source"])
        assert found == ["legacy", "agentmap", "fallback"]


if __name__ == "__main__":
    asyncio.run(main())
