"""Each way through the order flow, once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from agentmap_asgi import AgentMapConfig, AgentMapService

CSV = Path(__file__).parent.parent / "workflows" / "order_flow.csv"
ORDER = {
    "customer": "Ada",
    "item": "lamp",
    "quantity": 2,
    "available": 5,
    "amount": 80,
    "known_customer": True,
    "shipping": "express",
}


async def main() -> None:
    service = AgentMapService(AgentMapConfig(csv_path=str(CSV)))

    async def message(**changes: Any) -> str:
        answer = await service.execute_workflow("OrderProcessing", {**ORDER, **changes})
        assert answer["status"] == "completed", answer
        print(f"{changes or 'the order as it is'}: {answer['result']['message']}")
        return str(answer["result"]["message"])

    assert await message() == "Thank you, Ada! Your 2 x lamp arrive tomorrow before noon."
    assert "five working days" in await message(shipping="pigeon")
    assert "counter" in await message(shipping="pickup")
    assert "only 1 x lamp left" in await message(available=1)
    assert "call Ada about 2 x lamp for 2500 EUR" in await message(amount=2500, known_customer=False)
    assert "five working days" in await message(amount=2500, shipping="")

    answer = await service.execute_workflow("OrderProcessing", {})
    (asked,) = answer["waiting"]
    print(f"no order: {asked['prompt']}")
    assert (answer["status"], asked["form"]["required"]) == ("suspended", ["customer", "item", "quantity"])
    await service.cancel_execution(answer["execution_id"])
    await service.aclose()


if __name__ == "__main__":
    asyncio.run(main())
