"""Calls of the service on behalf of requests, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.exceptions import HTTPException

from ..errors import AgentMapError
from ..services.agentmap import AgentMapService
from ..services.executions import CallOptions, call_options
from .deadlines import Deadlines
from .keys import Keys
from .problems import Refusal, refusal_of, refusal_of_http

T = TypeVar("T")
Expected = Refusal | AgentMapError | HTTPException

logger: Final = logging.getLogger("agentmap_asgi.http")


class Calls:
    """The way from handlers to one service."""

    def __init__(self, service: AgentMapService) -> None:
        self.service = service
        self.config = service.config
        self.keys = Keys(self.config.api_keys) if self.config.api_keys else None
        kind = type(service)
        self.formats = kind.format_execution_response is not AgentMapService.format_execution_response
        """The host shapes the answers itself."""
        self.batches = kind.batch_execute_workflows is not AgentMapService.batch_execute_workflows
        """The host runs batches itself."""
        self.filters = kind.filter_response is not AgentMapService.filter_response
        """The host sees the answers before they leave."""
        self._wrapped = kind.execute_workflow is not AgentMapService.execute_workflow
        self.deadlines = Deadlines()
        self._kept: set[asyncio.Future[Any]] = set()

    @property
    def description(self) -> dict[str, Any]:
        """The OpenAPI document, but for its servers."""
        raise NotImplementedError

    async def execute(
        self,
        graph_name: str,
        state: dict[str, Any],
        context: dict[str, Any],
        execution_id: str | None,
        client: str | None,
    ) -> dict[str, Any]:
        """Call the service's `execute_workflow`. What travels beside its three arguments goes through a ContextVar.

        An override runs in a task of ours, so that a host which cancels the request does not cancel it halfway; the
        base method takes care of that by itself.
        """
        token = None
        if execution_id is not None or self.service.instruments.audit is not None:
            token = call_options.set(CallOptions(execution_id, "http", client))
        try:
            call = self.service.execute_workflow(graph_name, state, context)
            return await (self.kept(call) if self._wrapped else call)
        finally:
            if token is not None:
                call_options.reset(token)

    async def batch(self, items: list[dict[str, Any]], client: str | None) -> list[Any]:
        """Call the service's `batch_execute_workflows`, when the host has its own."""
        token = call_options.set(CallOptions(None, "http", client))
        try:
            return await self.service.batch_execute_workflows(items)
        finally:
            call_options.reset(token)

    async def kept(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` in a task that goes on when the caller is cancelled."""
        task = asyncio.ensure_future(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_report)
            raise

    def refusal(self, error: Expected, request_id: str) -> Refusal:
        """What the caller is told of an expected error."""
        if isinstance(error, Refusal):
            return error
        if isinstance(error, HTTPException):
            return refusal_of_http(error)
        if error.status >= 500 and error.status != 503:
            return self.unexpected(error, request_id)
        return refusal_of(error, hints=self.service.context.authorize is None)

    def unexpected(self, error: Exception, request_id: str) -> Refusal:
        """Log an error that nobody foresaw; the caller is told nothing of it."""
        logger.error("A request failed (request id %s)", request_id, exc_info=error)
        return Refusal(500, "internal_error", "Something went wrong here; the log has the reason")


def _report(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("A run failed after its caller had gone", exc_info=error)
