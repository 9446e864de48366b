"""Who may call what, and what the OpenAPI document says about it."""

from __future__ import annotations

import asyncio

from main import app

from agentmap_asgi.testing import AgentMapClient


async def main() -> None:
    async with AgentMapClient(app, base_url="http://test/api/workflows") as http:
        for path in ("/list", "/WhoAmI", "/ready"):
            assert (await http.get(path)).status_code == 401
        assert (await http.get("/health")).status_code == 200
        print("without a token: 401, but for the probe")

        http.headers["authorization"] = "Bearer ada-token"
        answer = (await http.post("/execute", json={"graph_name": "WhoAmI"})).json()
        print(answer["result"]["text"])
        assert (answer["result"]["text"], answer["owner"]) == ("You are user 1", "1")

        body = {"graph_name": "WhoAmI", "context": {"principal": "2"}}
        assert (await http.post("/execute", json=body)).json()["owner"] == "1"
        print("who calls is not what the caller says")

        assert (await http.post("/execute", json={"graph_name": "CloseBooks"})).status_code == 404
        http.headers["authorization"] = "Bearer root-token"
        assert (await http.post("/execute", json={"graph_name": "CloseBooks"})).json()["success"] is True
        print("what somebody may not see does not exist for them")

        paths = (await http.get("http://test/openapi.json")).json()["paths"]
        assert paths["/api/workflows/execute"]["post"]["security"] == [{"HTTPBearer": []}]


if __name__ == "__main__":
    asyncio.run(main())
