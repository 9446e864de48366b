"""Two customers buy lamps until there are none."""

from __future__ import annotations

import asyncio
import os
import tempfile

from main import Stock, app

from agentmap_asgi.testing import AgentMapClient


async def main() -> None:
    async with AgentMapClient(app, headers={"x-user": "ada"}) as http:
        with app.state.sessions.begin() as session:
            session.add(Stock(product="lamps", pieces=3))
        order = {"product": "lamps", "quantity": 2}
        first = (await http.post("/orders", json=order)).json()
        second = (await http.post("/orders", json=order)).json()
        print(first["message"])
        print(second["message"])
        assert [first["status"], second["status"]] == ["shipped", "refused"]
        with app.state.sessions() as session:
            assert session.get_one(Stock, "lamps").pieces == 1

        status = (await http.get(f"/orders/{first['id']}/status")).json()
        assert status == {"id": 1, "status": "shipped", "workflow_status": "completed"}
        assert (await http.get("/orders/1/status", headers={"x-user": "bob"})).status_code == 404

        assert set((await http.get("/openapi.json")).json()["paths"]) == {"/orders", "/orders/{order_id}/status"}
        names = [one["name"] for one in (await http.get("/internal/workflows/list")).json()["workflows"]]
        print("internal workflows:", names)
        del http.headers["x-user"]
        assert (await http.get("/internal/workflows/list")).status_code == 401


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        os.environ["DATABASE_URL"] = f"sqlite:///{name}/shop.db"
        asyncio.run(main())
