"""Orders move from the old code to a workflow: for some users first, and with the old code behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel

from agentmap_asgi import AgentMapConfig, AgentMapService, MigrationHelper

FLAGS = {"use_agentmap_for_orders": {"ada"}}


class Order(BaseModel):
    items: Any


def process_order_legacy(data: dict[str, Any], context: Mapping[str, Any] | None) -> dict[str, Any]:
    """As it always was. A plain function, so it runs in a thread."""
    return {"text": f"Order of {data['user']} is processed by hand"}


def get_current_user(x_user: Annotated[str, Header()]) -> str:
    return x_user


app = FastAPI()
agentmap_service = AgentMapService(AgentMapConfig(csv_path=Path(__file__).parent / "workflows.csv"))
migration_helper = MigrationHelper(agentmap_service)
migration_helper.register_fallback("OrderProcessing", process_order_legacy)


@app.post("/orders")
async def create_order(order: Order, user: Annotated[str, Depends(get_current_user)]) -> dict[str, Any]:
    data = {"items": order.items, "user": user}
    if user not in FLAGS["use_agentmap_for_orders"]:
        return {"source": "legacy", "result": process_order_legacy(data, None)}
    return await migration_helper.execute_with_fallback("OrderProcessing", data, {"principal": user})
