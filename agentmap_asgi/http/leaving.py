"""Whether the server is stopping: long waits and streams end then, so that it need not wait for them."""

from __future__ import annotations

import signal
from typing import Final

from ..services.agentmap import AgentMapService

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def leaving(service: AgentMapService) -> bool:
    """Whether the service takes nothing more on, or the server around it has been told to stop.

    uvicorn waits for open responses before it tells applications to stop; but its signal handler is a method of the
    server, which says so at once. Under other servers a stream ends when the lifespan does, or at its maximum age. The
    time that running executions get to end begins then, so that it is not added to what uvicorn waits for.
    """
    if service.stopping:
        return True
    told = any(_told_to_stop(number) for number in _SIGNALS)
    if told:
        service.told_to_stop()
    return told


def _told_to_stop(number: signal.Signals) -> bool:
    server = getattr(signal.getsignal(number), "__self__", None)
    return getattr(server, "should_exit", False) is True
