"""Tickets, their triage, and the join that runs once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from agentmap_asgi import AgentMapConfig, AgentMapService

CSV = Path(__file__).parent.parent / "workflows" / "support_triage.csv"


async def main() -> None:
    service = AgentMapService(AgentMapConfig(csv_path=str(CSV)))

    async def triage(**ticket: Any) -> dict[str, Any]:
        answer = await service.execute_workflow("SupportTriage", ticket)
        assert answer["status"] == "completed", answer
        print(f"{ticket['text']!r} -> {answer['result']['reply']}")
        return answer

    outage = await triage(text="The server is down!", plan="team")
    assert outage["result"]["triage"] == {"urgent": True, "paying": True, "team": "technical"}
    assert outage["result"]["reply"] == "We call you within the hour (technical team)."
    nodes = ["ReadTicket", "CheckUrgency", "FindTopic", "Technical", "LookUpPlan", "Collect", "Decide", "CallBack"]
    assert outage["nodes_executed"] == len(nodes), "the join runs once for its three branches"

    refund = await triage(text="I was charged twice, please refund my card", plan="business")
    assert refund["result"]["reply"] == "The billing team answers today."

    question = await triage(text="Do you like penguins?")
    assert question["result"]["triage"] == {"urgent": False, "paying": False, "team": "front desk"}
    assert question["result"]["reply"] == "The front desk team answers within three working days."


if __name__ == "__main__":
    asyncio.run(main())
