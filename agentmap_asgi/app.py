"""The workflows as an ASGI application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.routing import Router
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from .config import AgentMapConfig, secrets_of
from .context import AgentMapContext
from .http.exchange import Exchange
from .http.face import Face
from .http.lifespan import Lifespan
from .http.problems import Refusal
from .http.routes import own_paths
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
        self.service = the_service(service, source=source, config=config, context=context)
        self.lifespan = Lifespan(self.service)
        """For the host: `FastAPI(lifespan=agentmap_app.lifespan)`, or `combine_lifespans` when it has its own."""
        self._face = Face(self.service)
        self._alone = Router(lifespan=self.lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._answer(scope, receive, send)
        elif kind == "websocket":
            await WebSocketClose()(scope, receive, send)
        elif kind == "lifespan":
            await self._alone.lifespan(scope, receive, send)
        else:
            raise RuntimeError(f"AgentMapApp knows no ASGI scope of type {kind!r}")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        face = self._face
        prefix, paths = own_paths(scope)
        exchange = Exchange(face, scope, receive, prefix, paths[0])
        exchange.host_params = scope.get("path_params", exchange.host_params)
        operation, exchange.params = face.routes.find(scope["method"], paths[0])
        for path in paths[1:]:
            if isinstance(operation, Refusal):
                other, exchange.params = face.routes.find(scope["method"], path)
                if not isinstance(other, Refusal) or other.status != 404:
                    operation, exchange.path = other, path
        response = await face.answer(exchange, operation)
        await response(scope, receive, send)


def the_service(service: AgentMapService | None, **others: Any) -> AgentMapService:
    """The service given, or a new one made of `source`, `config` and `context`."""
    if service is None:
        return AgentMapService(others["config"], context=others["context"], source=others["source"])
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise TypeError(f"service= stands for itself; {' and '.join(given)} belong to the service")
    return service


def create_app() -> AgentMapApp:
    """An app made from the `AGENTMAP_*` variables: `uvicorn --factory agentmap_asgi:create_app`."""
    config = AgentMapConfig.from_env()
    return AgentMapApp(config=config, context=AgentMapContext(secrets=secrets_of(config)))
