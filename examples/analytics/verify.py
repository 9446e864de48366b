"""Every execution is counted once, failed ones too, with the user that the host knows."""

from __future__ import annotations

import asyncio

from main import analytics_service, app

from agentmap_asgi.testing import AgentMapClient


async def main() -> None:
    async with AgentMapClient(app, headers={"x-user": "admin-ada"}) as http:
        started = await http.post("/reports/generate", json={"type": "Sales", "date_range": "May"})
        assert started.status_code == 202
        body = {
            "graph_name": "ReportGeneration",
            "initial_state": {"report_type": "Costs", "date_range": "June", "regions": "no list"},
            "context": {"principal": "somebody else"},
        }
        assert (await http.post("/workflows/execute", json=body)).json()["success"] is False
        metrics = (await http.get("/dashboard/metrics")).json()
        print(metrics)
        assert metrics == {"workflow_started": 2, "workflow_completed": 2}
        assert (await http.get("/workflows/list", headers={"x-user": "bob"})).status_code == 403
    ended = [event for event in analytics_service.events if event["event"] == "workflow_completed"]
    assert [event["success"] for event in ended] == [True, False]
    assert {event["user"] for event in analytics_service.events} == {"admin-ada"}
    print("all of them were started by admin-ada")


if __name__ == "__main__":
    asyncio.run(main())
