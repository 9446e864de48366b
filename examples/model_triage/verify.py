"""The same app, with models that follow a script: nothing leaves this machine, and no key is needed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from main import make_app

from agentmap_asgi.testing import AgentMapClient
from agentmap_asgi.testing.models import Asks, Fails, FakeModels

MAIL = {"email": "ada@example.com", "mail": "My parcel never came, I want my money back!"}
REFUND = {"kind": "refund", "urgent": True}


async def events(http: httpx.AsyncClient, path: str, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    """The names and data of a stream."""
    answer = await http.request("POST" if body else "GET", path, json=body or None)
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "data" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def main() -> None:
    script = (
        REFUND,  # Sort
        Fails(429, retry_after=0.01),  # Draft: the provider is busy, and is asked again
        Asks(("open_orders", {"email": MAIL["email"]})),
        "We are sorry that order 7 was lost. You get 40 back.",
    )
    async with FakeModels(*script) as fake:
        app = make_app(fake.providers(), storage_url="memory://")
        async with AgentMapClient(app) as http:
            seen = await events(http, "/execute/stream", graph_name="Triage", initial_state=MAIL)
            drafted = "".join(data["text"] for name, data in seen if name == "token")
            assert drafted in ("", "We are sorry that order 7 was lost. You get 40 back.")  # as it came to be watched
            assert seen[-1][0] == "suspended"
            print("A person is asked:", seen[-1][1]["waiting"]["prompt"].replace("\n", " "))

            path = f"/executions/{seen[-1][1]['execution_id']}"
            approved = await http.post(f"{path}/resume", json={"action": "approve"})
            assert approved.status_code == 200, approved.text
            done = (await http.get(f"{path}?wait=5")).json()
            assert (done["status"], done["result"]["sent"]) == ("completed", True), done
            print("Sent. It has used", done["usage"])
        sort, _, draft, again = fake.requests
        assert sort.system == "You sort mails to a shop. The customer is Ada."
        assert (sort.user, draft.tools) == (MAIL["mail"], ["open_orders"])
        assert "lost in the post" in json.dumps(again.body)

    # Both providers are out of order: the mail is left for people.
    async with FakeModels(Fails(401), Fails(401)) as fake:
        table = fake.providers()
        table["openai"]["fallback"] = ["anthropic"]
        async with AgentMapClient(make_app(table, storage_url="memory://")) as http:
            done = (await http.post("/execute", json={"graph_name": "Triage", "initial_state": MAIL})).json()
            assert done["result"]["to_do"] == MAIL["mail"], done
            print("Without a model it is to be done by hand:", done["result"]["to_do"])


if __name__ == "__main__":
    asyncio.run(main())
