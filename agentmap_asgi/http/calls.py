"""Calls of the service on behalf of requests, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..errors import AgentMapError, StoreUnavailable, StoreUnusable
from ..services.agentmap import AgentMapService
from ..services.starting import CallOptions, call_options
from ..services.watching import LOOK_SECONDS
from ..stores.store import GOING
from .deadlines import Deadlines
from .keys import Keys
from .leaving import leaving
from .problems import RETRY_AFTER, Refusal, refusal_of, refusal_of_http

T = TypeVar("T")
Expected = Refusal | AgentMapError | HTTPException

FROM_HTTP: Final = CallOptions(door="http")
FOR_EVER: Final = 1e9
WITHOUT_STORE: Final = {
    StoreUnusable.code: "The store of this service cannot be used; the log has the reason",
    StoreUnavailable.code: "The store of this service cannot be written or read just now; try again",
}
"""What callers are told, by code."""

logger: Final = logging.getLogger("agentmap_asgi.http")


class Called(NamedTuple):
    """What came of a start."""

    document: dict[str, Any]
    going: bool
    """It goes on."""
    replayed: bool
    """An idempotency key led to an execution that was there before."""


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
        self.asks = self.keys is not None or service.context.authenticate is not None
        """Somebody finds out who calls."""
        self.deadlines = Deadlines()
        self.streams = 0
        """Event streams that are open."""
        self._kept: set[asyncio.Future[Any]] = set()
        self._unusable = ""
        """Why the store cannot be used, as the log has it already."""

    async def page(self, exchange: Any, name: str, headers: Mapping[str, str]) -> Response | None:
        """A file of the page; None where the page is off."""
        raise NotImplementedError

    @property
    def description(self) -> dict[str, Any]:
        """The OpenAPI document, but for its servers."""
        raise NotImplementedError

    async def execute(
        self,
        graph_name: str,
        state: dict[str, Any],
        context: dict[str, Any],
        options: CallOptions | None,
        seconds: float | None = None,
        *,
        plain: bool = False,
    ) -> Called:
        """Run a workflow through the service, and wait so long for its end (None: as long as it takes).

        What travels beside the three arguments of an overridden `execute_workflow` goes through a ContextVar. An
        override runs in a task of ours, so that a host which cancels the request does not cancel it halfway.
        """
        service = self.service
        if self._wrapped:
            return await self._through_override(graph_name, state, context, options, seconds)
        run, found = await service._begun(graph_name, state, context, options, plain=plain)
        if run is None:
            if found["status"] in GOING and seconds != 0:
                found = await service.until_settled(found["execution_id"], FOR_EVER if seconds is None else seconds)
            return Called(found, found["status"] in GOING, True)
        if not run.settled:
            if seconds is None:
                await run.wait()
            elif seconds:
                left = seconds
                while left > 0:
                    await run.wait_for(min(left, LOOK_SECONDS))
                    left -= LOOK_SECONDS
                    if run.settled or leaving(service):
                        break
            if not run.settled:
                return Called(service._shown(run), True, False)
        return Called(await service._document(run, shared=not (self.formats or self.filters)), False, False)

    async def _through_override(
        self,
        graph_name: str,
        state: dict[str, Any],
        context: dict[str, Any],
        options: CallOptions | None,
        seconds: float | None,
    ) -> Called:
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[dict[str, Any]] = loop.create_future()
        replayed: asyncio.Future[bool] = loop.create_future()
        token = call_options.set((options or FROM_HTTP)._replace(accepted=accepted, replayed=replayed))
        try:
            task = asyncio.ensure_future(self.service.execute_workflow(graph_name, state, context))
        finally:
            call_options.reset(token)
        self._keep(task)
        try:
            if seconds != 0:
                await asyncio.wait({task}, timeout=seconds)
            if not task.done():  # without an execution there is nothing to tell yet
                await asyncio.wait({task, accepted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.add_done_callback(_report)
        if task.done():
            found = task.result()
            return Called(found, found.get("status") in GOING, replayed.done())
        found = await self.service.get_execution_status(accepted.result()["execution_id"])
        return Called(found, True, replayed.done())

    async def batch(self, items: list[dict[str, Any]], client: str | None) -> list[Any]:
        """Call the service's `batch_execute_workflows`, when the host has its own."""
        token = call_options.set(CallOptions(None, "http", client))
        try:
            return await self.service.batch_execute_workflows(items)
        finally:
            call_options.reset(token)

    def _keep(self, task: asyncio.Future[Any]) -> None:
        """Hold a task until it has ended; the event loop does not."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def kept(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` in a task that goes on when the caller is cancelled."""
        task = asyncio.ensure_future(work)
        self._keep(task)
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
        if isinstance(error, StoreUnusable | StoreUnavailable):
            return self._without_store(error)
        if error.status >= 500 and error.status != 503:
            return self.unexpected(error, request_id)
        return refusal_of(error, hints=self.service.context.authorize is None)

    def _without_store(self, error: StoreUnusable | StoreUnavailable) -> Refusal:
        """The reason names places of this machine, so it is for the log: once, not for each request."""
        if error.message != self._unusable:
            self._unusable = error.message
            logger.error("The store cannot be used: %s", error.message)
        return Refusal(error.status, error.code, WITHOUT_STORE[error.code], headers={"Retry-After": RETRY_AFTER})

    def unexpected(self, error: Exception, request_id: str) -> Refusal:
        """Log an error that nobody foresaw; the caller is told nothing of it."""
        logger.error("A request failed (request id %s)", request_id, exc_info=error)
        return Refusal(500, "internal_error", "Something went wrong here; the log has the reason")


def _report(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("A run failed after its caller had gone", exc_info=error)
