"""Answers to executions that wait, here or in the store, and the end of those that nobody runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from ..errors import ShuttingDown, StoreDamaged, StoreUnavailable
from ..stores.store import GOING, Entry, Row
from .executor import Run
from .records import RESUMED, SUSPENDED, width
from .restoring import Given, Restoring
from .waits import Answer, waits_of, wake_of

PATIENCE: Final = 500
"""Looks, ten milliseconds apart, whether a sub-workflow is back."""


class Answering(Restoring):
    """What takes answers."""

    async def take_answer(self, run: Run, path: str, answer: Answer) -> Run:
        """Take an answer for an execution that runs here; who goes on with it. KeyError: the wait is open no more."""
        for _ in range(PATIENCE):
            if path in run.extra.owners or path not in run.open:
                break
            await asyncio.sleep(0.01)  # the sub-workflow that waits is being brought back
        if run.status == "suspended":  # by now
            await run.wait()
            row = await self.store.find(run.id)
            again = None if row is None else await self.resume(row, path, answer)
            if again is None:
                raise KeyError(path)
            return again
        run.answer(path, answer)
        if run.ledger is not None:
            kept = run.ledger.ask()
            await asyncio.wait({kept})
            if kept.cancelled():  # the execution was lost meanwhile, and whoever has it knows whether it was kept
                raise KeyError(path)
        return run

    async def resume(self, row: Row, path: str, answer: Answer) -> Run | None:
        """Take an answer for a suspended execution, and let it go on here. None when somebody else was first.

        When it returns, the answer is kept. A caller who does not wait for that stops nothing in the middle.
        """
        if self.stopping:
            raise ShuttingDown()
        return await asyncio.shield(self.job(self._resumed(row, path, answer)))

    async def _resumed(self, row: Row, path: str, answer: Answer) -> Run | None:
        assert self.runner is not None  # noqa: S101
        wait = next((wait for wait in waits_of(row.id, row.waits) if wait["path"] == path), None)
        if wait is None or row.status != "suspended":  # who runs it takes its answers
            return None
        claimed = await self.store.claim(row, self.runner)
        if claimed is None:
            return None
        now = self.context.clock.time_ns()
        try:
            given = await self._answered(claimed, wait, answer, now)
            if not await self.store.append(given):
                return None  # another process has taken it on since, with the wait still open
            claimed.waits, claimed.sequence = given.changes()["waits"], given.changes()["sequence"]
        except (StoreUnavailable, StoreDamaged):
            self._hand_back(claimed, "suspended")
            raise
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as exc:
            self._hand_back(claimed, "suspended")
            raise StoreDamaged(row.id, "its entries are not what they should be") from exc
        run = await self.restored(claimed)
        if run is not None:
            self.go_on(run)
        return run

    async def _answered(self, row: Row, wait: Mapping[str, Any], answer: Answer, now: int) -> Given:
        """The entry of an answer, in the records of the (sub-)workflow that waits and in those of the execution."""
        path: str = wait["path"]
        entries: list[Entry] = []
        everything = await self.store.entries(row.id, path=None)
        paths = {entry.path for entry in everything}
        below = path.removesuffix(wait["node"] + path[path.rfind("#") :]).rstrip("/")
        top = row.sequence
        for place in dict.fromkeys((below, "")):
            if place not in paths:
                raise StoreDamaged(row.id, "its entries are not all there")
            own = [entry for entry in everything if entry.path == place]
            last = own[-1]
            number = last.sequence + width(json.loads(last.text)[0])
            asked = next((
                found for entry in reversed(own)
                if (found := json.loads(entry.text))[0] == SUSPENDED and found[5]["path"] == path
            ), None)  # fmt: skip
            if asked is None or (not place and number != row.sequence + 1):
                raise StoreDamaged(row.id, "its entries are not all there")
            text = json.dumps([RESUMED, asked[1], asked[2], now, now, answer.to_dict(path)], ensure_ascii=False)
            entries.append(Entry(place, number, text))
            if not place:
                top = number
        waits = [one for one in waits_of(row.id, row.waits) if one["path"] != path]
        return Given(row, {"sequence": top, "waits": json.dumps(waits), "wake": wake_of(waits)}, entries)

    # Suspended executions that are cancelled.

    async def end_suspended(self, row: Row) -> Run | None:
        """Cancel a suspended execution. None when somebody else was first."""
        return await asyncio.shield(self.job(self._ended_suspended(row)))

    async def _ended_suspended(self, row: Row) -> Run | None:
        assert self.runner is not None  # noqa: S101
        claimed = await self.store.claim(row, self.runner)
        run = None if claimed is None else await self.restored(claimed, back="suspended")
        if run is not None:
            self.end(run, run.cancel)
        return run

    # Executions that were handed over here, and that nobody has taken yet.

    async def reclaim(self, execution_id: str) -> Row | None:
        """Claim an execution that was handed over here, and that nobody has taken yet."""
        assert self.runner is not None  # noqa: S101
        row = await self.store.find(execution_id)
        if row is None or row.status not in GOING or row.runner != self.runner_id or row.id in self.live:
            return None
        return await self.store.claim(row, self.runner, status=row.status)

    async def cancel_unclaimed(self, execution_id: str) -> str | None:
        """End an execution that was handed over here, if nobody has taken it yet."""
        claimed = await self.reclaim(execution_id)
        run = None if claimed is None else await self.restored(claimed)
        if run is None:
            return None
        self.end(run, run.cancel)
        await run.wait()
        return "done"

    async def _answered_unclaimed(self, execution_id: str, path: str, answer: Answer) -> str | None:
        claimed = await self.reclaim(execution_id)
        if claimed is None:
            return None
        wait = next((wait for wait in waits_of(claimed.id, claimed.waits) if wait["path"] == path), None)
        if wait is None:
            return "late"
        given = await self._answered(claimed, wait, answer, self.context.clock.time_ns())
        return "done" if await self.store.append(given) else None
