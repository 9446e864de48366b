"""The workflows as an ASGI application."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import Router
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from .config import AgentMapConfig, secrets_of
from .context import AgentMapContext

if TYPE_CHECKING:
    from .services.agentmap import AgentMapService


class AgentMapApp:
    """Serves the workflows of a file or folder: mount it in any ASGI application, or serve it alone.

    `source` is the CSV file or folder (it beats `config.csv_path`). `service` is a service of your own, instead of all
    the others. The files are read now; nothing else happens before the first request or the lifespan. Mounted, it
    starts by itself with the first execution; `lifespan` (or `mount_agentmap`) also stops it properly.
    Raises ConfigError when the source does not exist, TypeError when `service` comes with other arguments.
    """

    def __init__(
        self,
        source: str | Path | None = None,
        *,
        config: AgentMapConfig | None = None,
        context: AgentMapContext | None = None,
        service: AgentMapService | None = None,
    ) -> None:
        from .http.face import Face  # what it takes to serve is imported by those who do
        from .http.lifespan import Lifespan

        self.service = the_service(service, source=source, config=config, context=context)
        self.lifespan = Lifespan(self.service)
        """For the host: `FastAPI(lifespan=agentmap_app.lifespan)`, or `combine_lifespans` when it has its own."""
        self._face = Face(self.service)
        self._alone = Router(lifespan=self.lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._face.serve(scope, receive, send)
        elif kind == "websocket":
            await WebSocketClose()(scope, receive, send)
        elif kind == "lifespan":
            await self._alone.lifespan(scope, receive, send)
        else:
            raise RuntimeError(f"AgentMapApp knows no ASGI scope of type {kind!r}")


def the_service(service: AgentMapService | None, **others: Any) -> AgentMapService:
    """The service given, or a new one made of `source`, `config` and `context`."""
    if service is None:
        from .services.agentmap import AgentMapService

        return AgentMapService(others["config"], context=others["context"], source=others["source"])
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise TypeError(f"service= stands for itself; {' and '.join(given)} belong to the service")
    return service


def create_app() -> AgentMapApp:
    """An app made from the `AGENTMAP_*` variables: `uvicorn --factory agentmap_asgi:create_app`."""
    config = AgentMapConfig.from_env()
    return AgentMapApp(config=config, context=AgentMapContext(secrets=secrets_of(config)))
