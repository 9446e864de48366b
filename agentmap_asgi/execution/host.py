"""What a run needs of the process around it, and what is known of it from there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..stores.store import Store
from ..workflows.model import Workflow
from .limits import Limits
from .plan import Plan
from .threads import Threads

Run = Any
"""An `executor.Run`, which imports this module."""


class Facts(NamedTuple):
    """What is known of an execution beside its run."""

    owner: str | None = None
    tags: tuple[str, ...] = ()
    retry_of: str | None = None
    key: str | None = None
    key_body: str | None = None
    origin: str | None = None
    """The execution that this one is a retry of, or a retry of a retry; agents are given its idempotency keys."""


NO_FACTS: Final = Facts()


class Host(Protocol):
    """What a run needs of the process around it."""

    config: AgentMapConfig
    context: AgentMapContext
    loop: asyncio.AbstractEventLoop
    threads: Threads
    limits: Limits
    store: Store
    runner_id: str | None
    waits_for_commits: bool
    """Each step is kept before the next one begins (`durability="sync"`, in a durable store)."""
    writes_steps: bool
    """Steps are kept as they are made, not only at a suspension and at the end."""

    @property
    def loop_ends(self) -> bool:
        """All tasks of the event loop have been cancelled, and a durable store has what is going on."""

    def watch(self) -> None:
        """An async agent starts: watch that it does not block the loop."""

    def unwatch(self) -> None: ...
    def leaked(self, task: asyncio.Task[Any], run: Run) -> None:
        """A task that did not end when it was cancelled."""

    def ended(self, run: Run) -> None:
        """The run's slot is free: it has ended, or is suspended."""

    def expects(self) -> None:
        """A wait has been opened that expires: look at the clock from time to time."""

    def settled(self, run: Run) -> None:
        """What the run says now is kept, and everything it opened is closed."""

    def give_up(self, run: Run) -> None:
        """What has happened in a run cannot be written: say in the store that it goes on no more."""

    async def pinned_plan(
        self, caller: Workflow, reference: str, entries: list[Any], plan_for: Callable[[Workflow, str], Plan]
    ) -> Plan:
        """The plan of a sub-workflow in the version that its entries began with."""
