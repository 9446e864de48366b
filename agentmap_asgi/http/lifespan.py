"""Starting and stopping a service with the application that holds it."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from ..services.agentmap import AgentMapService


class Lifespan:
    """`lifespan(app)` is an async context manager that starts the service and closes it.

    It may be entered again, also while it is open: the last one to leave closes. Each event loop counts for itself.
    """

    def __init__(self, service: AgentMapService) -> None:
        self._service = service
        self._open: WeakKeyDictionary[AbstractEventLoop, int] = WeakKeyDictionary()

    @asynccontextmanager
    async def __call__(self, app: Any = None) -> AsyncIterator[None]:
        loop = get_running_loop()
        self._open[loop] = self._open.get(loop, 0) + 1
        try:
            await self._service.start()
            yield
        finally:
            self._open[loop] -= 1
            if not self._open[loop]:
                await self._service.aclose()
