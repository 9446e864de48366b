"""Executions as a host holds them: answered, cancelled, retried, forgotten. Plain dicts in and out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ..context import AgentMapContext
from ..errors import AnswerGone, ExecutionConflict, InputInvalid, NodeFailure, StoreUnavailable
from ..execution.executor import Run
from ..execution.host import Facts
from ..execution.identity import execution_id
from ..execution.parts import parts_of
from ..execution.records import width
from ..execution.rewind import rewound
from ..execution.runtime import Runtime
from ..execution.values import copied
from ..execution.waits import ACTIONS, EXPIRED, Answer, checked, waits_of
from ..stores.store import FINISHED, GOING, LOST_HEAD, Entry, Lines, Row, lines_of
from .watching import Watching

ASK_SECONDS: Final = 10.0
"""Seconds that another process gets to do what it is asked."""


class Executions(Watching):
    """The part of the service that has to do with executions. `AgentMapService` has the rest."""

    async def resume_execution(
        self,
        execution_id: str,
        action: str = "answer",
        data: Any = None,
        *,
        node: str | None = None,
        by: str | None = None,
    ) -> dict[str, Any]:
        """Answer an open wait, and return the document once the answer is kept.

        `action` is `answer`, `approve`, `reject`, or `cancel`, which ends the execution. `node` names the wait when
        there are several: its node, or its path. Raises UnknownExecution, ExecutionConflict (nothing waits, several do
        and none is named, or somebody else has answered), AnswerGone, and InputInvalid for an answer that does not fit.
        """
        if action == "cancel":
            return await self.cancel_execution(execution_id)
        if action not in ACTIONS:
            raise InputInvalid(f"The action is one of {', '.join(ACTIONS)} or cancel", pointer="/action")
        try:
            data = copied(data, "data", limit=self.config.max_output_bytes)
        except NodeFailure as exc:
            raise InputInvalid(exc.message, pointer="/data") from None
        runtime = await self._ready_runtime()
        answer = Answer(action, data, by)
        run = self._live(execution_id)
        if run is not None and run.status == "suspended":
            await run.wait()  # until it is kept
            run = None
        if run is not None:
            wait = await self._awaited(execution_id, list(run.open.values()), node)
            self._not_late(wait)
            checked(wait, answer)
            try:
                run = await runtime.take_answer(run, wait["path"], answer)
            except KeyError:
                return await self._once_more(execution_id, action, data, wait["path"], by)
            return self._shown(run)
        row = await self._row(execution_id)
        if row.status in FINISHED:
            await self._not_expired(execution_id, node)
            raise ExecutionConflict(f"The execution is {row.status}; nothing waits for an answer")
        wait = await self._awaited(execution_id, waits_of(row.id, row.waits), node)
        self._not_late(wait)
        checked(wait, answer)
        if row.status != "suspended":
            said = await self._asked(row, "answer", {"path": wait["path"], "answer": answer._asdict()})
            if said != "done":
                return await self._once_more(execution_id, action, data, wait["path"], by)
            return await self._stored(execution_id)
        again = await runtime.resume(row, wait["path"], answer)
        if again is None:
            found = await self.get_execution_status(execution_id)
            if found["status"] in ("running", "suspended"):
                # Another wait was answered at the same moment; this one may still be open.
                return await self._once_more(execution_id, action, data, wait["path"], by)
            if found["status"] == "interrupted":
                return found
            raise ExecutionConflict("Somebody else has answered this wait")
        return self._shown(again)

    async def _once_more(self, execution_id: str, action: str, data: Any, path: str, by: str | None) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        run = self._live(execution_id)
        row = None if run is not None else await self._row(execution_id)
        waits = list(run.open.values()) if run is not None else waits_of(row.id, row.waits) if row is not None else []
        if not any(wait["path"] == path for wait in waits):
            await self._not_expired(execution_id, path)
            raise ExecutionConflict("Somebody else has answered this wait")
        return await self.resume_execution(execution_id, action, data, node=path, by=by)

    async def _awaited(self, execution_id: str, waits: list[dict[str, Any]], node: str | None) -> dict[str, Any]:
        """The wait that an answer is for. Raises AnswerGone when it has expired, else as `chosen`."""
        if not any(node is None or node in (wait["node"], wait["path"]) for wait in waits):
            await self._not_expired(execution_id, node)
        return chosen(waits, node)

    async def _not_expired(self, execution_id: str, node: str | None) -> None:
        """Raises AnswerGone when what an answer is for (a node, a path, or anything) has waited and has expired."""
        for event in await self.get_execution_events(execution_id):
            if event["event"] == "resumed" and event["action"] == EXPIRED:
                step = event["path"].rpartition("/")[2]
                if node is None or node in (event["path"], step.rpartition("#")[0]):
                    raise AnswerGone()

    def _not_late(self, wait: Mapping[str, Any]) -> None:
        if wait["expires"] is not None and wait["expires"] <= self.context.clock.time_ns():
            raise AnswerGone()

    async def _asked(self, row: Row, kind: str, payload: Mapping[str, Any]) -> str:
        """Ask the process that runs an execution. Raises StoreUnavailable when it does not answer in time."""
        number = await self.store.ask(row.id, kind, json.dumps(payload, ensure_ascii=False))
        loop = asyncio.get_running_loop()
        until = loop.time() + ASK_SECONDS
        bell = self.store.bell(str(number))
        try:
            while loop.time() < until:
                said = await self.store.outcome(number)
                if said is not None:
                    return said
                now = await self.store.find(row.id)
                if now is None or now.status not in GOING:
                    break
                await bell.rings(0.05)
        finally:
            bell.close()
        if await self.store.withdraw(number):
            now = await self.store.find(row.id)
            if now is not None and now.status in GOING:
                raise StoreUnavailable("The process that runs the execution does not answer; try again")
            return "ended"
        return await self.store.outcome(number) or "done"

    async def cancel_execution(self, execution_id: str) -> dict[str, Any]:
        """End an execution now and return its document; one that has ended stays as it is. Raises UnknownExecution."""
        runtime = await self._ready_runtime()
        for _ in range(100):
            run = self._live(execution_id)
            if run is not None:
                if run.status == "suspended":
                    await run.wait()
                    continue
                run.cancel()
                await run.wait()
                return await self._document(run)
            row = await self._row(execution_id)
            if row.status in FINISHED:
                break
            if row.status == "suspended":
                again = await runtime.end_suspended(row)
                if again is not None:
                    await again.wait()
                    return await self._document(again)
            else:
                await self._asked(row, "cancel", {})
        return await self._stored(execution_id)

    async def retry_execution(
        self,
        execution_id: str,
        *,
        start: str = "failed",
        definition: str = "pinned",
        state_patch: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run a finished execution again as a new one that keeps the results of the nodes it does not run again.

        `start` is `failed` (what failed or did not end), `start` (everything), or a node (`node#visit` in a loop; else
        its last visit). `definition` is `pinned` (the version it began with) or `latest`. `state_patch` changes what
        the nodes that run again see. A dry run only says what would run: `{"nodes": […], "keeps": number}`. Raises
        UnknownExecution, ExecutionConflict and InputInvalid.
        """
        runtime = await self._ready_runtime()
        if not dry_run:
            runtime.admit()
        run = self._live(execution_id)
        if run is not None and run.finished:
            await run.wait()
        row = await self._row(execution_id)
        if row.status not in FINISHED or (run is not None and not run.finished):
            raise ExecutionConflict(f"The execution is {row.status}; cancel it, or wait for its end, before a retry")
        if start == "failed" and row.status == "completed":
            raise ExecutionConflict("The execution is completed; retry it from start, or from a node, to run it again")
        if definition not in ("pinned", "latest"):
            raise InputInvalid("definition is pinned or latest", pointer="/definition")
        head = json.loads(row.head)
        if row.head == LOST_HEAD:
            raise ExecutionConflict("What the execution began with is damaged in the store; start it anew")
        if definition == "latest":
            plan = await runtime.plan_of(self._healthy(row.graph_id).version, row.graph_id)
        else:
            plan = await runtime.plan_of(row.definition, row.graph_id)
        patch = self._patch(state_patch)
        entries = [] if start == "start" else await self.store.entries(row.id, path=None)
        again = rewound(plan, entries, start, patch, self.context.clock.time_ns())
        if dry_run:
            return {"dry_run": True, "nodes": again.nodes, "keeps": again.keeps, "definition": plan.workflow.version}
        state = head["state"] if again.entries else head["state"] | patch
        run_context = {**head["context"], **(context or {})}
        made = self._new_run(
            runtime,
            plan.workflow,
            execution_id_of(self.context),
            state,
            run_context,
            Facts(row.owner, tuple(row.tags), row.id, origin=head.get("origin") or row.id),
        )
        if definition == "pinned" and plan.references:
            made.plan_for = await runtime.kept_plans(head)
            made.own().parts = parts_of(plan, made.plan_for)
        return await asyncio.shield(runtime.job(self._retried(runtime, made, again.entries)))

    async def _retried(self, runtime: Runtime, made: Run, entries: list[Entry]) -> dict[str, Any]:
        """Keep a new execution with the entries of an old one, and let it go on."""
        if entries:
            made.status = "running"
            await self.store.create(Again(made, entries))
            row = await self._row(made.id)
            restored = await runtime.restored(row)
            if restored is None:
                return await self._stored(made.id)
            runtime.go_on(restored)
        else:
            restored = made
            await self.store.create(made)
            runtime.submit(made)
        if self.instruments.audit is not None:
            self.instruments.started(restored, restored.initial, "python", None)
        return self._shown(restored)

    def _patch(self, state_patch: Mapping[str, Any] | None) -> dict[str, Any]:
        if state_patch is None:
            return {}
        if not isinstance(state_patch, Mapping):
            raise InputInvalid("state_patch takes an object", pointer="/state_patch")
        return self._checked_state(dict(state_patch), "/state_patch")

    def _checked_state(self, state: dict[str, Any], pointer: str) -> dict[str, Any]:
        raise NotImplementedError

    async def delete_execution(self, execution_id: str) -> None:
        """Forget a finished execution, payloads and events. Raises UnknownExecution or ExecutionConflict."""
        row = await self._row(execution_id)
        if self._live(execution_id) is not None or not await self.store.delete(execution_id):
            raise ExecutionConflict(f"The execution is {row.status}; cancel it before it is deleted")


class Again:
    """A retry on its way into a store: a Start with entries."""

    key = None

    def __init__(self, run: Run, entries: list[Entry]) -> None:
        self.id = run.id
        self._run = run
        self._lines = lines_of(entries)
        last = max((entry for entry in entries if not entry.path), key=lambda entry: entry.sequence)
        self._sequence = last.sequence + width(json.loads(last.text)[0]) - 1

    def row(self) -> Row:
        return replace(self._run.row(), sequence=self._sequence)

    def pins(self) -> Mapping[str, str]:
        return self._run.pins()

    def lines(self) -> list[Lines]:
        return self._lines


def execution_id_of(context: AgentMapContext) -> str:
    return execution_id(context.clock.time_ns())


def chosen(waits: list[dict[str, Any]], node: str | None) -> dict[str, Any]:
    """The wait that an answer is for. Raises ExecutionConflict, listing the open ones, when that is not clear."""
    found = [wait for wait in waits if node is None or node in (wait["node"], wait["path"])]
    if len(found) == 1:
        return found[0]
    paths = ", ".join(wait["path"] for wait in waits) or "none"
    if not waits:
        raise ExecutionConflict("Nothing waits for an answer")
    if not found:
        raise ExecutionConflict(f"Nothing waits at {node!r}; open waits: {paths}")
    raise ExecutionConflict(f"Several nodes wait; name one of them in node: {paths}")
