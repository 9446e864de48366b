"""The host's routes are as they were, and the workflows are beside them."""

from __future__ import annotations

import asyncio

from main import app

from agentmap_asgi.testing import AgentMapClient


async def main() -> None:
    async with AgentMapClient(app) as http:
        assert (await http.get("/users/123")).json() == {"user_id": 123, "name": "John Doe"}

        listed = (await http.get("/workflows/list")).json()["workflows"]
        print("workflows:", [workflow["name"] for workflow in listed])

        body = {"graph_name": "MyWorkflow", "initial_state": {"input": "test"}}
        answer = (await http.post("/workflows/execute", json=body)).json()
        print(answer["result"]["text"])
        assert (answer["success"], answer["nodes_executed"]) == (True, 2)

        told = (await http.get("/workflows/MyWorkflow")).json()
        assert [node["name"] for node in told["nodes"]] == ["Read", "Answer"]


if __name__ == "__main__":
    asyncio.run(main())
