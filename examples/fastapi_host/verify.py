"""Calls the FastAPI host as its clients would."""

from __future__ import annotations

import asyncio

from main import app, current_user

from agentmap_asgi.testing import AgentMapClient


async def main() -> None:
    async with AgentMapClient(app) as http:
        greeting = (await http.get("/customers/2")).json()
        print(f"the host's own route: {greeting}")
        assert greeting == {"greeting": "Good to see you again, Linus!", "name": "Linus", "orders": 12}

        welcome = {"graph_name": "Welcome", "initial_state": {"customer_id": 1}}
        refused = await http.post("/workflows/execute", json=welcome)
        print(f"without a token: {refused.status_code}")
        assert refused.status_code == 401

        http.headers["authorization"] = "Bearer ada-token"
        answer = (await http.post("/workflows/execute", json=welcome)).json()
        print(f"with a token: {answer['result']['text']}")
        assert answer["result"]["text"] == "Welcome, Grace!"

        del http.headers["authorization"]
        app.dependency_overrides[current_user] = lambda: "tester"
        assert (await http.post("/workflows/execute", json=welcome)).status_code == 200
        app.dependency_overrides.clear()
        print("dependency_overrides work, as for any route of the host")

        paths = (await http.get("/openapi.json")).json()["paths"]
        assert {"/customers/{number}", "/workflows/execute", "/workflows/list"} <= set(paths)
        print("the host's OpenAPI document shows the workflow routes")


if __name__ == "__main__":
    asyncio.run(main())
