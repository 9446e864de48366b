"""Moving from code of one's own to workflows, one workflow at a time."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from anyio import to_thread

from ..errors import AgentMapError, ExecutionFailed
from .agentmap import AgentMapService

logger = logging.getLogger("agentmap_asgi")

Fallback = Callable[[dict[str, Any], Mapping[str, Any] | None], Any]


class MigrationHelper:
    """Runs workflows, and the code that they replace when one fails.

    A fallback is called with (data, context). It may be a coroutine function; a plain function runs in a worker thread,
    as FastAPI's own plain handlers do.
    """

    def __init__(self, agentmap_service: AgentMapService) -> None:
        self.agentmap_service = agentmap_service
        self.fallback_handlers: dict[str, Fallback] = {}

    def register_fallback(self, workflow_name: str, handler: Fallback) -> None:
        """Say what answers when the workflow fails; the last one registered counts."""
        if not callable(handler):
            raise TypeError(f"The fallback of {workflow_name!r} is a {type(handler).__name__}; give a function")
        self.fallback_handlers[workflow_name] = handler

    async def execute_with_fallback(
        self, workflow_name: str, data: dict[str, Any], context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """`{"source": "agentmap" | "fallback", "result": …}`.

        The fallback answers when the execution failed or was cancelled, and when `execute_workflow` raised. Without one
        ExecutionFailed is raised, or what `execute_workflow` raised. A caller that is cancelled runs no fallback.
        """
        try:
            document = await self.agentmap_service.execute_workflow(workflow_name, data, context)
            if document.get("status") in ("failed", "cancelled"):
                raise ExecutionFailed(document)
        except Exception as exc:  # whatever hooks and overrides of the host raise
            handler = self.fallback_handlers.get(workflow_name)
            if handler is None:
                raise
            reason = exc.code if isinstance(exc, AgentMapError) else type(exc).__name__
            if isinstance(exc, ExecutionFailed):
                reason = exc.reason
            logger.warning("The workflow %s did not succeed (%s); its fallback answers", workflow_name, reason)
        else:
            return {"source": "agentmap", "result": document["result"]}
        return {"source": "fallback", "result": await _called(handler, data, context)}


async def _called(handler: Fallback, data: dict[str, Any], context: Mapping[str, Any] | None) -> Any:
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004
        return await handler(data, context)
    found = await to_thread.run_sync(handler, data, context)
    return await found if inspect.isawaitable(found) else found
