"""Expenses: approved, refused, booked, and asked about again when nobody answers."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService
from agentmap_asgi.errors import InputInvalid
from agentmap_asgi.testing import FakeClock

CSV = Path(__file__).parent / "workflows.csv"
TRIP = {"who": "Ada", "amount": 480, "what": "a train to Paris"}
TWO_DAYS = 2 * 24 * 60 * 60

clock = FakeClock()


def office(store: str) -> AgentMapService:
    """A process with its service; the clock stands still until somebody moves it."""
    config = AgentMapConfig(csv_path=str(CSV), storage_url=f"sqlite:///{store}", patrol_seconds=0.02)
    return AgentMapService(config, context=AgentMapContext(clock=clock))


async def answered(service: AgentMapService, document: dict[str, Any], *answer: Any, by: str) -> dict[str, Any]:
    """Answer, and wait until the execution stands or ends."""
    found = await service.resume_execution(document["execution_id"], *answer, by=by)
    while found["status"] == "running":
        found = await service.wait_for_execution(document["execution_id"], 10)
    return found


async def main(store: str) -> None:
    service = office(store)
    trip = await service.execute_workflow("Expenses", TRIP)
    pens = await service.execute_workflow("Expenses", {"who": "Bob", "amount": 12, "what": "pens"})
    wish = await service.execute_workflow("Expenses", {"who": "Eve", "amount": 9_000, "what": "a better chair"})
    for document in (trip, pens, wish):
        assert document["status"] == "suspended"
        print(f"{document['waiting'][0]['node']}: {document['waiting'][0]['prompt']}")

    refused = await answered(service, wish, "reject", {"comment": "sit on the old one"}, by="boss")
    print(f"rejected: {refused['result']['message']}")
    assert refused["result"]["message"] == "Eve gets nothing: sit on the old one"
    assert refused["success"] is True, "a no is an answer, and no error"

    try:
        await service.resume_execution(pens["execution_id"], "answer", "pens")
    except InputInvalid as exc:
        print(f"not an account: {exc.message}")
    booked = await answered(service, pens, "answer", "office", by="boss")
    assert booked["result"]["message"] == "Bob gets 12 EUR, booked under office."
    await service.aclose()

    print("the process ends, two days pass, another one starts")
    clock.advance(TWO_DAYS)
    service = office(store)
    await service.start()
    found = await service.get_execution_status(trip["execution_id"])
    while [wait["node"] for wait in found["waiting"]] != ["AskBoard"]:
        await asyncio.sleep(0.02)
        found = await service.get_execution_status(trip["execution_id"])
    print(f"AskBoard: {found['waiting'][0]['prompt']}")
    found = await answered(service, found, "approve", by="board")
    assert found["result"]["approval"] == {"approved": True, "comment": None, "by": "board"}
    done = await answered(service, found, "answer", "travel", by="boss")
    print(f"approved: {done['result']['message']}")
    assert done["result"]["message"] == "Ada gets 480 EUR, booked under travel."
    await service.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"{folder}/runs.db"))
