"""Agents of the host. Every file of the folder is read; `@agent` marks what is one."""

from __future__ import annotations

import asyncio
from typing import Any

from agentmap_asgi import Call, agent


@agent(services=["database"])
def count_users(call: Call) -> int:
    """A plain function runs in a thread, so it may wait for the database."""
    from sqlalchemy import text

    return int(call.service("database").execute(text("SELECT count(*) FROM users")).scalar_one())


@agent(services=["cache", "user_service", "notification_service"])
async def greet_user(call: Call) -> dict[str, Any]:
    user_id = call.inputs["user_id"]
    name = await call.service("cache").get(f"name:{user_id}")
    known = name is not None
    if not known:
        name = await asyncio.to_thread(call.service("user_service").name_of, user_id)
        await call.service("cache").set(f"name:{user_id}", name)
    messages = await call.service("notification_service").send(user_id, f"Hello {name}")
    return {"name": name, "from_cache": known, "messages": messages}
