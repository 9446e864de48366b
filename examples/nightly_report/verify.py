"""A report over regions: a sub-workflow for each, results in the order of the list."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agentmap_asgi import AgentMapConfig, AgentMapService

CSV = Path(__file__).parent.parent / "workflows" / "nightly_report.csv"
REGIONS = [
    {"name": "North", "sales": 12, "target": 10},
    {"name": "South", "sales": 7, "target": 9},
    {"name": "West", "sales": 4, "target": 4},
]


async def main() -> None:
    service = AgentMapService(AgentMapConfig(csv_path=str(CSV)))
    answer = await service.execute_workflow("NightlyReport", {"day": "Monday", "regions": REGIONS})
    assert answer["status"] == "completed", answer
    result = answer["result"]
    print(result["report"])
    assert result["lines"] == ["North: 12, target reached", "South: 7 of 9", "West: 4, target reached"]
    assert result["names"] == ["North", "South", "West"]

    alone = await service.execute_workflow("RegionReport", REGIONS[1])
    print(f"RegionReport alone: {alone['result']['line']}")
    assert alone["result"]["line"] == "South: 7 of 9"

    none = await service.execute_workflow("NightlyReport", {"day": "Sunday", "regions": []})
    assert none["result"]["lines"] == []


if __name__ == "__main__":
    asyncio.run(main())
