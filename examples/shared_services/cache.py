"""The host's cache: Redis when there is a URL, else this process."""

from __future__ import annotations

from typing import Protocol


class Cache(Protocol):
    async def get(self, key: str) -> str | None: ...
    async def set(self, key: str, value: str) -> None: ...
    async def push(self, key: str, value: str) -> int: ...
    async def aclose(self) -> None: ...


class LocalCache:
    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {}

    async def get(self, key: str) -> str | None:
        return self._values.get(key)

    async def set(self, key: str, value: str) -> None:
        self._values[key] = value

    async def push(self, key: str, value: str) -> int:
        self._lists.setdefault(key, []).append(value)
        return len(self._lists[key])

    async def aclose(self) -> None:
        self._values.clear()


class RedisCache:
    def __init__(self, url: str) -> None:
        from redis.asyncio import Redis

        self._redis = Redis.from_url(url, decode_responses=True)

    async def get(self, key: str) -> str | None:
        return await self._redis.get(key)

    async def set(self, key: str, value: str) -> None:
        await self._redis.set(key, value)

    async def push(self, key: str, value: str) -> int:
        return await self._redis.rpush(key, value)

    async def aclose(self) -> None:
        await self._redis.aclose()


def connect(url: str | None) -> Cache:
    return RedisCache(url) if url else LocalCache()
