"""Executions that are brought back from the store, and what is written of those that cannot be."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from typing import Any

from ..errors import AgentMapError, NodeFailure, RequestRefused, StoreDamaged, StoreUnavailable, SubworkflowFailed
from ..stores.store import GOING, Entry, Lines, Row, lines_of
from ..workflows.model import Workflow
from ..workflows.pinned import unpinned
from .document import stored_document
from .executor import Run
from .host import Facts
from .ledger import AGAIN
from .parts import kept
from .plan import Plan
from .records import ENDED, stamp
from .replay import restore
from .slots import Slots
from .waits import waits_of

logger = logging.getLogger("agentmap_asgi.execution")


class Restoring(Slots):
    """Slots that can be filled from the store."""

    async def restored(self, row: Row, *, back: str = "running") -> Run | None:
        """A claimed execution as it stands in the store; `ready` holds what can run. None: it is interrupted now.

        Raises StoreUnavailable when the store cannot be read just now; the execution is `back` then, and nobody's.
        """
        try:
            head = json.loads(row.head)
            plan = await self.plan_of(row.definition, row.graph_id)
            entries = await self.store.entries(row.id, path=None)
            run = Run(
                self,
                plan,
                row.id,
                dict(head["state"]),
                scope=self.services.run_scope(),
                context=dict(head["context"]),
                plan_for=await self.kept_plans(head),
                on_end=self.on_end,
                facts=Facts(row.owner, tuple(row.tags), row.retry_of, row.key, row.key_body, head.get("origin")),
            )
            run.fence, run.attempt = row.fence, row.attempt
            run.created_ns = row.created - run.wall_offset
            run.started_ns = (row.started or row.created) - run.wall_offset
            own = []
            for entry in entries:
                if entry.path:
                    run.own().restored.setdefault(entry.path, []).append(entry)
                else:
                    own.append(entry)
            # Those of sub-workflows are brought back with their nodes; until then they are known, and not answered.
            run.own().open = {wait["path"]: wait for wait in waits_of(row.id, row.waits)}
            if own:
                run.own().ready = restore(run, own)
            if own and run.sequence != row.sequence + 1:
                raise StoreDamaged(row.id, f"it has {run.sequence - 1} events, and should have {row.sequence}")
            return run
        except StoreUnavailable:
            self._hand_back(row, back)
            raise
        except (RequestRefused, NodeFailure, StoreDamaged, KeyError, ValueError, TypeError, RecursionError) as exc:
            message = exc.message if isinstance(exc, AgentMapError) else "What is stored of it is damaged"
            logger.error("%s: the execution cannot go on: %s", row.id, message)
            try:
                await self._end_stored(row, message)
            except StoreUnavailable:
                self._hand_back(row, back)
                raise
            return None

    def let_go(self, row: Row) -> None:
        """Let go of an execution that was claimed here and that nobody runs."""
        self._hand_back(row, row.status)

    def _hand_back(self, row: Row, status: str) -> None:
        """Let go of a claimed execution that did not come to run: else it would seem to run as long as this process."""
        task = self.loop.create_task(
            self._handed_back(Given(row, {"status": status, "runner": None})), context=Context()
        )
        self._handing_back.add(task)
        task.add_done_callback(self._handing_back.discard)

    async def _handed_back(self, back: Given) -> None:
        for delay in chain(AGAIN, repeat(AGAIN[-1])):
            try:
                await self.store.append(back)
            except StoreUnavailable:
                await asyncio.sleep(delay)
            else:
                return

    def give_up(self, run: Run) -> None:
        self.job(self._given_up(run))

    async def _given_up(self, run: Run) -> None:
        for delay in chain(AGAIN, repeat(AGAIN[-1])):
            try:
                row = await self.store.find(run.id)
                if row is not None and row.fence == run.fence and row.status in GOING:
                    await self._end_stored(row, "What has happened in it cannot be written")
            except StoreUnavailable:  # else it would seem to run as long as this process does
                await asyncio.sleep(delay)
            else:
                return

    async def _end_stored(self, row: Row, message: str, *, damaged: bool = False) -> None:
        """Say in the store that an execution goes on no more."""
        changes, last = given_up(row, message, self.context.clock.time_ns(), damaged=damaged)
        try:
            await self.store.append(Given(row, changes, [last]))
        except ValueError:  # there is an entry of this number
            await self.store.append(Given(row, {**changes, "sequence": row.sequence}))

    # The plans that they began with.

    async def plan_of(self, definition: str, graph_id: str) -> Plan:
        """The plan of a content hash: the one that is served, or the one that the store has pinned."""
        plan = self._served(definition, graph_id)
        if plan is None:
            plan = self._unpinned(await self._pinned(definition), definition)
        return plan

    async def plans_of(self, definitions: Iterable[str]) -> dict[str, Plan]:
        """The plans of those content hashes that can be had."""
        plans = {}
        for definition in definitions:
            with suppress(StoreDamaged, NodeFailure, RequestRefused):
                plans[definition] = self._unpinned(await self._pinned(definition), definition)
        return plans

    async def kept_plans(self, head: Mapping[str, Any]) -> Callable[[Workflow, str], Plan]:
        """Finds the sub-workflows of a stored execution, in the versions it began with."""
        versions: dict[str, str] = dict(head.get("parts") or {})
        plans = {}
        for version in set(versions.values()):
            plans[version] = partial(self._unpinned, await self._pinned(version), version)
        return kept(versions, plans, self._plan_for()) if versions else self._plan_for()

    async def _pinned(self, definition: str) -> str:
        text = await self.store.pinned(definition)
        if text is None:
            raise StoreDamaged(None, f"the definition {definition} is not there")
        return text

    def _unpinned(self, text: str, version: str) -> Plan:
        return self._plan(unpinned(text, version))

    def _served(self, definition: str, graph_id: str) -> Plan | None:
        try:
            plan = self._plan_for()(Workflow("", "", "", {}, None), graph_id)
        except RequestRefused:
            return None
        return plan if plan.workflow.version == definition else None

    async def pinned_plan(
        self, caller: Workflow, reference: str, entries: list[Any], plan_for: Callable[[Workflow, str], Plan]
    ) -> Plan:
        definition = json.loads(entries[0].text)[5]
        try:
            plan = plan_for(caller, reference)
            if plan.workflow.version == definition:
                return plan
        except RequestRefused:
            pass
        text = await self.store.pinned(definition)
        if text is None:
            raise SubworkflowFailed(f"The definition that {reference!r} began with is not in the store")
        return self._unpinned(text, definition)


class Given:
    """A write that is not a live run's."""

    __slots__ = ("_changes", "_lines", "fence", "id")

    def __init__(self, row: Row | Run, changes: Mapping[str, Any], entries: Iterable[Entry] = ()) -> None:
        self.id = row.id
        self.fence = row.fence
        self._changes = changes
        self._lines = lines_of(entries)

    @property
    def status(self) -> str | None:
        return self._changes.get("status")

    def changes(self) -> Mapping[str, Any]:
        return self._changes

    def lines(self) -> Iterable[Lines]:
        return self._lines

    def pins(self) -> Mapping[str, str]:
        return {}


def given_up(row: Row, message: str, now: int, *, damaged: bool = False) -> tuple[dict[str, Any], Entry]:
    """The columns of an execution that cannot go on, and its last entry. It is interrupted; or failed, when what it
    began with is damaged, for then a retry could not begin with anything.
    """
    status = "failed" if damaged else "interrupted"
    error = {"code": StoreDamaged.code if damaged else status, "message": message, "node": None, "agent_type": None,
             "attempt": row.attempt, "retryable": not damaged, "source": {"file": None, "row": None}}  # fmt: skip
    ended = replace(row, status="running", ended=now)
    found = stored_document(ended) | {
        "success": False, "status": status, "error": error, "completed_at": stamp(now), "result": {},
    }  # fmt: skip
    for name in ("progress", "waiting"):
        found.pop(name, None)
    number, started = row.sequence + 1, row.started or row.created
    last = Entry("", number, json.dumps([ENDED, None, 0, started, now, status, error], ensure_ascii=False))
    changes = {"status": status, "ended": now, "runner": None, "wake": None, "waits": "[]", "sequence": number,
               "document": json.dumps(found, ensure_ascii=False)}  # fmt: skip
    return changes, last
