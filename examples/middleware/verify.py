"""The header of the answer is what the run was told; the log has both kinds of requests."""

from __future__ import annotations

import asyncio
import logging

from main import app

from agentmap_asgi.testing import AgentMapClient

lines: list[str] = []


class Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        lines.append(record.getMessage().rpartition(" - ")[0])


async def main() -> None:
    async with AgentMapClient(app) as http:
        body = {"graph_name": "Tell", "context": {"request_id": "forged", "colour": "red"}}
        answer = await http.post("/workflows/execute", json=body)
        told = answer.json()["result"]["told"]
        print("the run was told", sorted(told))
        assert told["request_id"] == answer.headers["x-workflow-request-id"] != "forged"
        assert told["colour"] == "red"
        assert "x-workflow-request-id" not in (await http.get("/")).headers
    print(*lines, sep="\n")
    assert lines == ["POST /workflows/execute - 200", "GET / - 200"]


if __name__ == "__main__":
    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    logger.addHandler(Lines())
    asyncio.run(main())
