"""A host's cache: Redis where REDIS_URL names one, else a dictionary of this process."""

from __future__ import annotations

import os
from typing import Any

from redis.asyncio import Redis


class LocalRedis:
    """The few commands this host uses, without a server."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._lists: dict[str, list[bytes]] = {}

    async def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    async def set(self, key: str, value: str) -> None:
        self._values[key] = value.encode()

    async def rpush(self, key: str, value: str) -> int:
        self._lists.setdefault(key, []).append(value.encode())
        return len(self._lists[key])

    async def lrange(self, key: str, start: int, end: int) -> list[bytes]:
        return self._lists.get(key, [])[start : end + 1 if end >= 0 else None]

    async def aclose(self) -> None:
        """Nothing to close."""


async def create_redis_client() -> Any:
    """What the host opens when it starts; close it with `aclose()`."""
    url = os.environ.get("REDIS_URL")
    return Redis.from_url(url) if url else LocalRedis()


async def get_redis_client() -> Any:
    return await create_redis_client()


class CacheService:
    """Texts by name."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def get(self, key: str) -> str | None:
        found = await self._redis.get(key)
        return None if found is None else found.decode()

    async def set(self, key: str, value: str) -> None:
        await self._redis.set(key, value)


class NotificationService:
    """Messages to users, in a list that something else sends."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def send(self, user_id: int, text: str) -> int:
        return int(await self._redis.rpush(f"messages:{user_id}", text))
