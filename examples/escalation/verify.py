"""Purchases: small ones are ordered at once, others are asked about, and asked about higher up when nobody answers."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService
from agentmap_asgi.testing import FakeClock

CSV = Path(__file__).parent / "workflows.csv"
HOUR = 3600


class Shop(BaseHTTPRequestHandler):
    """A shop that is busy when it is first asked, and knows an order that comes twice by its key."""

    orders: ClassVar[dict[str, Any]] = {}
    busy: ClassVar[list[int]] = [1]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Authorization"] == "Bearer shop-token-4711"
        status, answer = 503, {}
        if not self.busy or self.busy.pop() != 1:
            key = self.headers["Idempotency-Key"]
            self.orders.setdefault(key, json.loads(body))
            status, answer = 201, {"number": f"N{list(self.orders).index(key) + 1}"}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """No lines between ours."""


async def stands_at(service: AgentMapService, document: dict[str, Any], node: str) -> dict[str, Any]:
    """Wait until the execution asks at a node."""
    found = document
    while [wait["node"] for wait in found["waiting"]] != [node]:
        await asyncio.sleep(0.02)
        found = await service.get_execution_status(document["execution_id"])
    print(f"{node}: {found['waiting'][0]['prompt']}")
    return found


async def ended(service: AgentMapService, document: dict[str, Any]) -> dict[str, Any]:
    found = document
    while found["status"] in ("running", "suspended"):
        found = await service.wait_for_execution(document["execution_id"], 1)
        await asyncio.sleep(0.02)
    return found


async def main(folder: str, port: int) -> None:
    clock = FakeClock()
    config = AgentMapConfig(
        csv_path=str(CSV),
        storage_url=f"sqlite:///{folder}/runs.db",
        patrol_seconds=0.02,
        http_allow=[f"http://localhost:{port}"],
        http_private=["127.0.0.0/8", "::1"],
    )
    context = AgentMapContext(clock=clock, secrets={"SHOP": "shop-token-4711"})
    service = await asyncio.to_thread(lambda: AgentMapService(config, context=context))

    async def wants(what: str, amount: int) -> dict[str, Any]:
        state = {"who": "Ada", "what": what, "amount": amount, "shop_port": port}
        return await service.execute_workflow("Purchase", state)

    small = await wants("pencils", 12)
    print(f"at once: {small['result']['message']}")
    assert small["result"]["message"] == "Ordered as N1."

    desk = await stands_at(service, await wants("a desk", 480), "AskLead")
    clock.advance(5 * HOUR)
    desk = await stands_at(service, desk, "AskManager")
    await service.resume_execution(desk["execution_id"], "approve", by="manager")
    desk = await ended(service, desk)
    print(f"approved: {desk['result']['message']}")
    assert desk["result"]["approval"]["by"] == "manager"
    assert [order["item"] for order in Shop.orders.values()] == ["pencils", "a desk"]

    yacht = await stands_at(service, await wants("a yacht", 9_000_000), "AskLead")
    for hours, node in ((5, "AskManager"), (25, "AskDirector")):
        clock.advance(hours * HOUR)
        yacht = await stands_at(service, yacht, node)
    await service.resume_execution(yacht["execution_id"], "reject", {"comment": "we have one"}, by="director")
    yacht = await ended(service, yacht)
    print(f"rejected: {yacht['result']['message']}")
    assert yacht["result"]["message"] == "director said no: we have one"

    forgotten = await stands_at(service, await wants("a plant", 120), "AskLead")
    for hours, node in ((5, "AskManager"), (25, "AskDirector")):
        clock.advance(hours * HOUR)
        forgotten = await stands_at(service, forgotten, node)
    clock.advance(49 * HOUR)
    forgotten = await ended(service, forgotten)
    print(f"forgotten: {forgotten['result']['message']}")
    assert forgotten["result"]["message"].startswith("Nobody has answered")
    assert len(Shop.orders) == 2
    assert "shop-token" not in json.dumps([small, desk, yacht, forgotten])
    await service.aclose()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(name, server.server_port))
    server.shutdown()
    server.server_close()
