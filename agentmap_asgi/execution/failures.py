"""What an exception of an agent means: the failure of its node, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from ..errors import AgentFailed, NodeFailure


def as_failure(exc: BaseException) -> NodeFailure:
    """The failure that an exception means for its node."""
    if isinstance(exc, NodeFailure) and exc.args and exc.args[0] == _text(exc.args[0]):
        return exc
    if isinstance(exc, asyncio.CancelledError):
        return AgentFailed("The agent raised CancelledError, though nobody cancelled it")
    text = " ".join(_text(exc).split())[:500]
    return AgentFailed(f"{type(exc).__name__}: {text}" if text else type(exc).__name__)


def _text(thing: Any) -> str:
    """`str(thing)` as text that JSON can write; empty when it cannot be made (exceptions may break in `__str__`)."""
    try:
        return str(thing).encode("utf-8", "replace").decode()
    except BaseException:
        return ""


def cancelled_from_outside(exc: BaseException) -> bool:
    """The task itself was cancelled, for example by a loop that closes; an agent that merely raises is not that."""
    if not isinstance(exc, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def as_value(work: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """A result or an exception, as a value: some exceptions would end the event loop if a task raised them."""
    try:
        return await work, None
    except GeneratorExit:
        raise
    except BaseException as exc:
        if cancelled_from_outside(exc):
            raise
        return None, exc
