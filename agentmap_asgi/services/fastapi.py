"""The operations as routes of a FastAPI application: the door. What it takes is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    from fastapi import APIRouter, FastAPI
    from fastapi.params import Depends as Dependency
except ImportError as exc:
    raise ImportError("include_agentmap_routes needs FastAPI: pip install 'agentmap-asgi[fastapi]'") from exc

from ..app import the_service
from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import ConfigError

if TYPE_CHECKING:
    from .agentmap import AgentMapService

__all__ = ["AgentMapService", "include_agentmap_routes"]


def include_agentmap_routes(
    app: FastAPI | APIRouter,
    *,
    prefix: str = "/workflows",
    csv_file: str | Path | None = None,
    config: AgentMapConfig | None = None,
    service: AgentMapService | None = None,
    context: AgentMapContext | None = None,
    dependencies: Sequence[Dependency] | None = None,
    principal: Callable[..., Any] | Dependency | None = None,
    enable_docs: bool | None = None,
    enable_audit_logging: bool | None = None,
) -> AgentMapService:
    """Add one route for each operation under `prefix`, and run the service's lifespan with the host's.

    `dependencies` guard every route. `principal` is a dependency whose value is who calls; None is refused with 401.
    `enable_docs=False` keeps the routes out of the host's OpenAPI document. Operations that the context object calls
    `public` get neither. `enable_audit_logging=True` keeps the audit log also when the setting does not say so;
    False leaves out `GET /audit`. Gives the service.

    Raises TypeError when `service` comes with csv_file, config or context, when the principal has two sources, or for
    an application that is not FastAPI's; ConfigError for a prefix that cannot be, and a source that does not exist.
    """
    _check(app, prefix, dependencies)
    service = the_service(service, source=csv_file, config=config, context=context)
    if principal is not None and service.context.authenticate is not None:
        raise TypeError("Give either principal= or AgentMapContext(authenticate=...): both say who calls")
    from .operation_routes import add_routes

    add_routes(
        app,
        service,
        prefix=prefix,
        dependencies=dependencies,
        principal=principal,
        docs=service.config.enable_docs if enable_docs is None else enable_docs,
        audit=enable_audit_logging,
    )
    return service


def _check(app: Any, prefix: Any, dependencies: Any) -> None:
    """Refuse what FastAPI would refuse later, or not at all, without naming the argument."""
    if not isinstance(app, FastAPI | APIRouter):
        raise TypeError(
            f"app is a {type(app).__name__}; include_agentmap_routes takes a FastAPI application or an APIRouter. "
            "Elsewhere mount the workflows: mount_agentmap(app, '/workflows', 'workflows/')"
        )
    if not isinstance(prefix, str) or (prefix and not prefix.startswith("/")):
        raise ConfigError(f"prefix={prefix!r} must begin with a slash, as in prefix='/workflows'")
    if not prefix.strip("/") and isinstance(app, FastAPI):
        raise ConfigError(
            f"prefix={prefix!r} would put workflows in the place of the application's own paths (/{{workflow_name}}); "
            "give a prefix like '/workflows', or include the routes in an APIRouter that has one"
        )
    wanted = "a list of Depends(...), as in dependencies=[Depends(current_user)]"
    if isinstance(dependencies, Dependency) or callable(dependencies):
        raise TypeError(f"dependencies takes {wanted}")
    for one in dependencies or ():
        if not isinstance(one, Dependency):
            raise TypeError(f"dependencies takes {wanted}, and one of these is a {type(one).__name__}")


def __getattr__(name: str) -> Any:
    if name == "AgentMapService":
        from .agentmap import AgentMapService

        return AgentMapService
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
