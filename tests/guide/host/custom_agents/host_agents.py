"""Agents of the host, found in its folder."""

from __future__ import annotations

import asyncio
from typing import Any

from agentmap_asgi import Call, agent


@agent(services=["database"])
def count_users(call: Call) -> int:
    """How many users there are, by a session of the host's."""
    from your_models import User

    return int(call.service("database").query(User).count())


@agent(services=["cache", "user_service", "notification_service", "analytics_service"])
async def greet_user(call: Call) -> dict[str, Any]:
    """Greets a user; the name comes from the cache, when it is there."""
    user_id = call.inputs["user_id"]
    name = await call.service("cache").get(f"name:{user_id}")
    source = "cache"
    if name is None:
        source = "database"
        name = await asyncio.to_thread(call.service("user_service").name_of, user_id)
        await call.service("cache").set(f"name:{user_id}", name)
    sent = await call.service("notification_service").send(user_id, f"Hello {name}")
    call.service("analytics_service").track_event("greeted", {"user_id": user_id})
    return {"name": name, "source": source, "messages": sent}


@agent()
async def take_turns(call: Call) -> int:
    """Lets others run in between."""
    for _ in range(5):
        await asyncio.sleep(0)
    return 5
