"""Where executions run: the protocol that every engine follows. `tests/engines/` holds the conformance tests.

The walk, the store, the streams and the API are the same whichever engine there is. An engine decides three things: in
what a run goes on that has a slot here, whether an execution is left to another process, and how the outcomes of nodes
are kept beside the store. One belongs to one event loop's `Runtime`, which calls it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

Run = Any
"""An `execution.executor.Run`."""
Row = Any
"""A `stores.store.Row`."""


class Journal(Protocol):
    """The outcomes of the nodes of one execution, as texts; the first that is kept of a step counts."""

    def has(self, step: str) -> bool:
        """Whether the step's outcome is there already."""

    async def outcome(self, step: str, work: Callable[[], Awaitable[str]]) -> str:
        """The outcome that is there, or that of `work`, which is kept before this returns.

        What `work` raises is kept nowhere. Raises CancelledError when the outcome counts no more, or cannot be kept:
        the run has ended then.
        """


class Engine(Protocol):
    """How the executions of one runtime are run."""

    async def open(self) -> None:
        """Get ready; called once, when the store is open. Raises StoreUnusable for what the engine cannot use."""

    def elsewhere(self, run: Run, full: bool) -> bool:
        """Whether a run is left to another process; `full`: there is no slot for it here."""

    def hand_over(self, run: Run) -> None:
        """Leave an execution to whoever has a slot, also when this process ends. It is kept, and has not begun here."""

    def left(self, execution_id: str | None = None) -> bool:
        """Whether this process has left an execution (None: any) to others, and may still answer for it."""

    def begin(self, run: Run, go: Callable[[], None]) -> None:
        """A run has a slot here: `go` begins it, or lets it go on."""

    async def begun(self, row: Row) -> bool:
        """Whether the process that had an execution, and has died, may have begun to run it."""

    async def take_over(self, row: Row) -> bool:
        """An execution whose process has died was claimed by this one. False: it is brought back and goes on here."""

    async def look_after(self) -> None:
        """Called about once a second: see that what was left to others is taken."""

    async def tidy(self, before: int) -> None:
        """Forget what is kept of executions that ended before then (nanoseconds since 1970)."""

    async def aclose(self) -> None:
        """Called when nothing runs here any more."""


class Local:
    """Executions run in the process that they came to."""

    async def open(self) -> None:
        pass

    def elsewhere(self, run: Run, full: bool) -> bool:
        return False

    def hand_over(self, run: Run) -> None:
        raise NotImplementedError

    def left(self, execution_id: str | None = None) -> bool:
        return False

    def begin(self, run: Run, go: Callable[[], None]) -> None:
        go()

    async def begun(self, row: Row) -> bool:
        return True

    async def take_over(self, row: Row) -> bool:
        return False

    async def look_after(self) -> None:
        pass

    async def tidy(self, before: int) -> None:
        pass

    async def aclose(self) -> None:
        pass
