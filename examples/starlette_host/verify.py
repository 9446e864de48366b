"""Calls the Starlette host as its clients would."""

from __future__ import annotations

import asyncio

from main import app

from agentmap_asgi.testing import AgentMapClient


async def main() -> None:
    async with AgentMapClient(app) as http:
        assert (await http.get("/")).text == "The shop knows 2 customers."
        welcome = {"graph_name": "Welcome", "initial_state": {"customer_id": 1}}

        refused = await http.post("/workflows/execute", json=welcome)
        print(f"without a token: {refused.status_code} {refused.json()['detail']}")
        assert refused.status_code == 401

        http.headers["authorization"] = "Bearer ada-token"
        for customer, text in (
            (1, "Welcome, Grace!"),
            (2, "Good to see you again, Linus!"),
            (3, "We do not know customer 3."),
        ):
            welcome["initial_state"] = {"customer_id": customer}
            answer = (await http.post("/workflows/execute", json=welcome)).json()
            print(f"customer {customer}: {answer['result']['text']}")
            assert answer["result"]["text"] == text, answer


if __name__ == "__main__":
    asyncio.run(main())
