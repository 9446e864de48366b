"""Runs, failed runs and batches have the host's form; refusals are problem documents, as everywhere."""

from __future__ import annotations

import asyncio

from main import app, custom_service

from agentmap_asgi.testing import AgentMapClient


async def main() -> None:
    async with AgentMapClient(app) as http:
        body = {"graph_name": "Greet", "initial_state": {"name": "Ada"}}
        answer = (await http.post("/api/v1/workflows/execute", json=body, headers={"x-request-id": "r-1"})).json()
        print(answer["status"], answer["data"]["result"])
        assert (answer["status"], answer["metadata"]["request_id"]) == ("success", "r-1")
        assert (await http.get(answer["links"]["workflow"])).status_code == 200

        failing = {"graph_name": "GreetAll", "initial_state": {"names": "no list"}}
        batch = (await http.post("/api/v1/workflows/execute/batch", json={"executions": [body, failing]})).json()
        assert [item["execution"]["status"] for item in batch["executions"]] == ["success", "error"]
        print("error:", batch["executions"][1]["execution"]["error"]["code"])

        refused = await http.post("/api/v1/workflows/execute", json={"graph_name": "Gone"})
        assert refused.json()["code"] == "workflow_unknown"
        assert (await custom_service.execute_workflow("Greet", {"name": "Bob"}))["status"] == "completed"
        print("who calls in this process gets the plain document")


if __name__ == "__main__":
    asyncio.run(main())
