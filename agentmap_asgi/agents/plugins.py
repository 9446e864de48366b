"""Agents of installed packages: the entry points `agentmap_asgi.agents`."""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError
from .registry import Agent, Registry, as_agent

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger("agentmap_asgi")

GROUP: Final = "agentmap_asgi.agents"


def installed(known: Registry) -> dict[str, Agent]:
    """The agents that installed packages offer, by name. What is built in stays: nothing that is installed replaces it.

    Raises ConfigError, naming the package, for one that cannot be loaded or is no agent.
    """
    found: dict[str, Agent] = {}
    for point in _points(tuple(sys.path)):
        package = point.dist.name if point.dist is not None else point.value
        if known.find(point.name) is not None:
            logger.warning("The agent %r of %s is left out: there is a built-in one", point.name, package)
            continue
        if point.name in found:
            raise ConfigError(f"The agent {point.name!r} is offered by two installed packages, {package} is one")
        try:
            thing: Any = point.load()
            found[point.name] = as_agent(point.name, thing)
        except ConfigError as exc:
            raise ConfigError(f"The agent {point.name!r} of {package}: {exc.message}") from None
        except Exception as exc:  # whatever its import raises
            raise ConfigError(
                f"The agent {point.name!r} of {package} cannot be loaded: {type(exc).__name__}: {exc}"
            ) from exc
    return found


@lru_cache(maxsize=4)
def _points(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What is installed on a path; looked up once, because that reads a file of every package."""
    from importlib.metadata import entry_points  # costs more than all agents together

    return tuple(entry_points(group=GROUP))
