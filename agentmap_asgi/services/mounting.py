"""Mounting with everything wired: the app under a path, and its lifespan in the host's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Router

from ..app import AgentMapApp
from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import ConfigError

if TYPE_CHECKING:
    from .agentmap import AgentMapService

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def combine_lifespans(*lifespans: Lifespan) -> Lifespan:
    """One lifespan that enters all of these in order and leaves them in reverse; their states are merged."""

    @asynccontextmanager
    async def combined(app: Any) -> AsyncIterator[dict[str, Any] | None]:
        async with AsyncExitStack() as stack:
            state: dict[str, Any] = {}
            for lifespan in lifespans:
                state |= await stack.enter_async_context(lifespan(app)) or {}
            yield state or None

    return combined


def mount_agentmap(
    app: Starlette | Router,
    path: str,
    agentmap: AgentMapApp | str | Path | None = None,
    *,
    config: AgentMapConfig | None = None,
    context: AgentMapContext | None = None,
    service: AgentMapService | None = None,
) -> AgentMapApp:
    """Mount workflows under `path` of a Starlette or FastAPI application, and run their lifespan with the host's.

    `agentmap` is an AgentMapApp, or what its first argument takes. Gives the app that was mounted.
    Raises TypeError for an application that mounts nothing, ConfigError for a path without its slash.
    """
    if not isinstance(app, Starlette | Router):
        raise TypeError(f"app is a {type(app).__name__}; mount_agentmap takes a Starlette or FastAPI application")
    if path and not path.startswith("/"):
        raise ConfigError(f"path={path!r} must begin with a slash, as in '/workflows'")
    if isinstance(agentmap, AgentMapApp):
        if config is not None or context is not None or service is not None:
            raise TypeError("The AgentMapApp has its own config, context and service; give them to it")
        mounted = agentmap
    else:
        mounted = AgentMapApp(agentmap, config=config, context=context, service=service)
    app.mount(path, mounted)
    router = app.router if isinstance(app, Starlette) else app
    router.lifespan_context = combine_lifespans(router.lifespan_context, mounted.lifespan)
    return mounted
