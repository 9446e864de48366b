"""Executions as a host holds them: start, watch, answer, cancel, retry, list, forget. Plain dicts in and out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ..agents.registry import Registry
from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import (
    AnswerGone,
    ExecutionConflict,
    InputInvalid,
    KeyReused,
    NodeFailure,
    StoreDamaged,
    StoreUnavailable,
    UnknownExecution,
)
from ..execution.document import document, listed, settled_document, stored_document
from ..execution.executor import Run
from ..execution.host import NO_FACTS, Facts
from ..execution.identity import execution_id
from ..execution.live import Listener, merged
from ..execution.overlay import overlaid
from ..execution.parts import parts_of
from ..execution.records import BEGAN, RAN, SUSPENDED, Record, events, events_of, stamp, width
from ..execution.records import FINISHED as FINISHED_NODE
from ..execution.rewind import rewound
from ..execution.runtime import Runtime
from ..execution.values import copied, fresh
from ..execution.visits import entries_of, parts_in, visits
from ..execution.waits import ACTIONS, EXPIRED, Answer, checked, waits_of
from ..stores.store import FINISHED, GOING, LOST_HEAD, Entry, Filter, Lines, Row, Store, lines_of
from ..workflows import drawing
from ..workflows.model import Workflow
from .audit import owner
from .estimates import LEAST, SHORTEST, Durations, Place, estimate
from .instruments import Instruments
from .versions import Versions

logger = logging.getLogger("agentmap_asgi.execution")

LOOK_SECONDS: Final = 0.25
"""How often one who reads a stream of an execution that runs here can look whether it still wants to."""
MOST_READ: Final = 30
"""Executions of the store from which it is learnt how long each node takes."""
ASK_SECONDS: Final = 10.0
"""Seconds that another process gets to do what it is asked."""


class CallOptions(NamedTuple):
    """What travels beside a call of `execute_workflow`, from the HTTP handlers to the base method."""

    execution_id: str | None = None
    door: str = "python"
    """Through which way the call came in: `python` or `http`."""
    client: str | None = None
    """The address it came from."""
    tags: tuple[str, ...] = ()
    key: str | None = None
    """An idempotency key."""
    body: str = ""
    """The digest of the request that came with the key."""
    accepted: asyncio.Future[dict[str, Any]] | None = None
    """Done with the document as soon as the execution is kept."""
    replayed: asyncio.Future[bool] | None = None
    """Done when the key led to an execution that was there before."""


call_options: ContextVar[CallOptions | None] = ContextVar("call_options", default=None)


class Executions:
    """The part of the service that has to do with executions. `AgentMapService` has the rest."""

    config: AgentMapConfig
    context: AgentMapContext
    store: Store
    instruments: Instruments
    versions: Versions
    _durations: dict[tuple[str, str], Durations]
    """By graph id and content hash."""
    registry: Registry
    _prepares: bool
    """There is a host's own `pre_workflow_execution`."""

    # What the service gives.

    def _runtime(self) -> Runtime:
        raise NotImplementedError

    async def _ready_runtime(self) -> Runtime:
        runtime = self._runtime()
        if runtime.runner is None:
            await runtime.prepare()
        if self.versions.waiting:
            await self.versions.write()
        return runtime

    def _healthy(self, graph_name: str) -> Workflow:
        raise NotImplementedError

    def _values(self, workflow: Workflow, initial_state: Any, plain: bool) -> dict[str, Any]:
        raise NotImplementedError

    def _new_run(
        self,
        runtime: Runtime,
        workflow: Workflow,
        execution_id: str,
        values: dict[str, Any],
        context: Mapping[str, Any],
        facts: Facts,
    ) -> Run:
        raise NotImplementedError

    async def pre_workflow_execution(
        self, graph_name: str, initial_state: dict[str, Any], context: dict[str, Any]
    ) -> None:
        raise NotImplementedError

    # Starting.

    async def start_execution(
        self,
        graph_name: str,
        initial_state: dict[str, Any],
        context: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        execution_id: str | None = None,
        tags: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Start a workflow and return its document as soon as the execution is kept; it goes on by itself.

        Raises what `execute_workflow` raises, and ExecutionConflict when there is an execution of this id already. The
        same idempotency key gives the same execution; KeyReused when the request is another one.
        """
        body = digest_of(graph_name, initial_state, context) if idempotency_key else ""
        options = CallOptions(execution_id, tags=tuple(tags), key=idempotency_key, body=body)
        run, found = await self._begun(graph_name, initial_state, context, options)
        return found if run is None else self._shown(run)

    async def _begun(
        self,
        graph_name: str,
        initial_state: Any,
        context: Mapping[str, Any] | None,
        options: CallOptions | None,
        *,
        plain: bool = False,
    ) -> tuple[Run | None, dict[str, Any]]:
        """(a new run, started and kept; or None and the document of the one that its idempotency key led to).

        `plain` says that state and context are values of JSON within the limits which nobody else has: they are taken
        as they are.
        """
        runtime = self._runtime()
        if runtime.runner is None or self.versions.waiting:
            await self._ready_runtime()
        runtime.admit()
        workflow = self._healthy(graph_name)
        run_context: dict[str, Any] = {}
        if plain and context.__class__ is dict:
            run_context = context
        elif context:
            run_context = copied(context if context.__class__ is dict else dict(context), "context")
        who = owner(run_context) if run_context else None
        facts, ours = NO_FACTS if who is None else Facts(who), None
        if options is not None:
            ours = options.execution_id
            if options.key is not None:
                key = digest_of(self.store.namespace, who, workflow.graph_id, options.key)
                facts = Facts(who, options.tags, None, key, options.body)
                known = await self.store.find_key(key)
                if known is not None:
                    return None, await self._known(known, facts, options)
            elif options.tags:
                facts = Facts(who, options.tags)
        values = self._values(workflow, initial_state, plain)
        if self._prepares:
            await self.pre_workflow_execution(graph_name, fresh(values), run_context)
            runtime.admit()  # the hook may have taken long
        if ours is not None and ours in runtime.live:
            raise ExecutionConflict("There is an execution of this id already")
        now = self.context.clock.time_ns()
        if self.store.durable and (workflow.graph_id, workflow.version) not in self._durations:
            await self._remember(workflow)
        run = self._new_run(runtime, workflow, ours or execution_id(now), values, run_context, facts)
        if not self.store.durable:
            there = await self.store.create(run)
            if there is None:
                self._submit(runtime, run, options)
        elif ours is None and facts.key is None and self.instruments.audit is None and runtime.begins_ahead(run):
            there = await runtime.begun_ahead(run)
        else:  # what the store has been told is begun, also when the caller goes away meanwhile
            there = await asyncio.shield(runtime.job(self._accepted(runtime, run, options)))
        if there is not None:
            if facts.key is not None and there.key == facts.key:
                return None, await self._known(there, facts, options)
            raise ExecutionConflict("There is an execution of this id already")
        if options is not None and options.accepted is not None and not options.accepted.done():
            options.accepted.set_result(self._shown(run))
        return run, {}

    async def _accepted(self, runtime: Runtime, run: Run, options: CallOptions | None) -> Row | None:
        """Keep a new execution and begin it; or the row that has its id or its key."""
        if runtime.starts(run):
            run.status = "running"  # as the store is told; another one looks when somebody asks it
        try:
            there = await self.store.create(run)
        finally:
            run.status = "queued"
        if there is None:
            self._submit(runtime, run, options)
        return there

    def _submit(self, runtime: Runtime, run: Run, options: CallOptions | None) -> None:
        if self.instruments.audit is not None:
            door, client = ("python", None) if options is None else (options.door, options.client)
            self.instruments.started(run, run.initial, door, client)
        runtime.submit(run)

    async def _known(self, row: Row, facts: Facts, options: CallOptions | None) -> dict[str, Any]:
        """The execution that an idempotency key led to before."""
        if row.key_body != facts.key_body:
            raise KeyReused()
        if options is not None and options.replayed is not None and not options.replayed.done():
            options.replayed.set_result(True)
        found = await self.get_execution_status(row.id)
        if options is not None and options.accepted is not None and not options.accepted.done():
            options.accepted.set_result(found)
        return found

    # Looking.

    def _shown(self, run: Run) -> dict[str, Any]:
        """The document of a run that lives here; its end is shown once it is kept."""
        if run.settled or not (run.ended_ns or run.status == "suspended"):
            found = document(run)
        else:
            found = document(run, shown="running")
        if found["status"] in GOING:
            self._forecast(run, found)
        return found

    def _forecast(self, run: Run, found: dict[str, Any]) -> None:
        """Say when the execution will be done, as far as those before it tell."""
        workflow = run.plan.workflow
        known = self._durations.get((workflow.graph_id, workflow.version))
        now = self.context.clock.monotonic_ns()
        elapsed = 0.0 if found["status"] == "queued" else (now - run.started_ns) / 1e9
        places = () if known is None else _places(run, now)
        found["estimate"] = estimate(known, elapsed, loops=run.plan.loops, places=places)
        left = found["estimate"]["p50_seconds_left"]
        if left is not None:
            found["estimated_completion"] = stamp(now + run.wall_offset + int(left * 1e9))

    def _timed(self, run: Run) -> None:
        """Learn from a completed execution how long its workflow takes; time spent waiting for people says nothing."""
        if run.has_waited:
            return
        workflow = run.plan.workflow
        key = (workflow.graph_id, workflow.version)
        known = self._durations.get(key)
        if known is None:
            known = self._durations[key] = Durations()
        seconds = (run.ended_ns - run.started_ns) / 1e9
        known.add(seconds)
        if seconds >= SHORTEST and not run.facts.retry_of and known.looks(run.ended_ns):
            nodes = run.plan.nodes
            for _, kind, at, visit, began, ended, _ in run.records:
                if kind in (RAN, FINISHED_NODE):
                    known.note((nodes[at].name, visit), (ended - began) / 1e9, (run.ended_ns - began) / 1e9)

    async def _remember(self, workflow: Workflow) -> None:
        """Learn from what the store has of the time before this process, once for each version."""
        found = self._durations[workflow.graph_id, workflow.version] = Durations()
        for definition, started, ended in reversed(await self.store.durations(workflow.graph_id)):
            if definition == workflow.version:
                found.add((ended - started) / 1e9)
        if len(found) >= LEAST and (found.left(0.0) or (0.0,))[0] >= SHORTEST:
            self._runtime().job(self._remember_places(workflow, found))  # nobody waits for it

    async def _remember_places(self, workflow: Workflow, known: Durations) -> None:
        """The same of each node, from a few of them."""
        with suppress(StoreUnavailable, StoreDamaged, ValueError, TypeError, IndexError):
            wanted = Filter(workflow.graph_id, ("completed",), limit=MOST_READ)
            rows = [row for row in await self.store.select(wanted) if row.definition == workflow.version]
            seen: list[tuple[Place, float, float]] = []
            for row in reversed(rows):
                found = [json.loads(entry.text) for entry in await self.store.entries(row.id)]
                if row.retry_of or row.ended is None or any(one[0] == SUSPENDED for one in found):
                    continue
                for kind, name, visit, began, ended, *_ in found:
                    if kind in (RAN, FINISHED_NODE):
                        seen.append(((name, visit), (ended - began) / 1e9, (row.ended - began) / 1e9))
            for place, inside, left in seen:  # all at once: some of them would tell less than the whole executions
                known.note(place, inside, left)

    async def _document(self, run: Run) -> dict[str, Any]:
        """The document of a run that has settled, here or, when it was left to another process, there."""
        return await self._stored(run.id) if run.lost else settled_document(run)

    async def _stored(self, execution_id: str) -> dict[str, Any]:
        return stored_document(await self._row(execution_id))

    async def _row(self, execution_id: str) -> Row:
        await self._ready_runtime()
        row = await self.store.find(execution_id)
        if row is None:
            raise UnknownExecution()
        return row

    def _live(self, execution_id: str) -> Run | None:
        return self._runtime().live.get(execution_id)

    async def get_execution_status(self, execution_id: str) -> dict[str, Any]:
        """The execution document as it is now. Raises UnknownExecution."""
        run = self._live(execution_id)
        return self._shown(run) if run is not None else await self._stored(execution_id)

    async def wait_for_execution(self, execution_id: str, seconds: float) -> dict[str, Any]:
        """The document when something has changed: at the latest after so many seconds. Raises UnknownExecution.

        An execution that has ended, or waits for answers only, is given at once.
        """
        async for _ in self._changes(execution_id, seconds):
            break
        return await self.get_execution_status(execution_id)

    async def _changes(self, execution_id: str, seconds: float) -> AsyncIterator[bool]:
        """An item each time an execution may have changed; ends when it has ended or is suspended, or time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        mark: tuple[Any, ...] = ()
        bell = self.store.bell(execution_id)
        try:
            while (left := until - loop.time()) > 0:
                run = self._live(execution_id)
                if run is not None:
                    if not await _told(run, left):
                        return
                else:
                    row = await self._row(execution_id)
                    if row.status in FINISHED or row.status == "suspended":
                        return
                    now = (row.status, row.sequence, row.waits, row.fence)
                    if mark in ((), now):
                        mark = now
                        await bell.rings(min(self.store.look, left))
                        continue
                    mark = now
                yield True
        finally:
            bell.close()

    async def get_execution_events(self, execution_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """What happened in an execution so far, in order: events with a greater sequence. Raises UnknownExecution."""
        run = self._live(execution_id)
        if run is not None:
            # The record before may stand for two events, of which one is asked for.
            begin = bisect_left(run.records, after - 1, key=_number) if after > 1 else 0
            records = run.records[begin:] if run.ledger is None else run.records[begin : run.kept]
            found = list(events(run.plan, records, run.wall_offset))
        else:
            await self._row(execution_id)
            entries = await self.store.entries(execution_id, after=max(0, after - 1))
            found = [event for entry in entries for event in events_of(entry.sequence, entry.text)]
        return [event for event in found if event["sequence"] > after]

    async def stream_execution(
        self, execution_id: str, *, after: int = 0, follow: bool = False
    ) -> AsyncIterator[dict[str, Any] | None]:
        """The events of an execution as they happen, from the one after `after` on. Raises UnknownExecution.

        Between them stand `progress`, `log` and `token` events, which are kept nowhere: their `sequence` is None, and
        only the process that runs the execution has them.

        Ends with the execution, or when it only waits for answers (with `follow` it goes on then). An item is None when
        nothing has happened, a few times a second, so that whoever reads can look whether it still wants to.
        """
        async with aclosing(self.stream_batches(execution_id, after=after, follow=follow)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event
                if not batch:
                    yield None

    async def stream_batches(
        self, execution_id: str, *, after: int = 0, follow: bool = False
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """As `stream_execution`, with all events that are there at one moment together; empty when nothing happened."""
        reader = _Reader()
        bell = self.store.bell(execution_id)
        try:
            while True:
                run = self._live(execution_id)
                reader.attend(run)
                status = await self._status_of(execution_id, run)
                found = await self.get_execution_events(execution_id, after=after)
                if found:
                    after = found[-1]["sequence"]
                told = reader.live.take()
                batch = merged(found, told) if told else found
                if batch:
                    yield batch
                if status in FINISHED or (status == "suspended" and not follow):
                    return
                if not batch:
                    yield batch
                if run is not None:
                    await reader.rings(LOOK_SECONDS)
                else:
                    await bell.rings(self.store.look)
        finally:
            bell.close()
            reader.attend(None)

    async def _status_of(self, execution_id: str, run: Run | None) -> str:
        """The status whose events are all there already."""
        if run is not None:
            return run.status if run.settled else "running"
        return (await self._row(execution_id)).status

    async def list_executions(
        self,
        *,
        graph: str | None = None,
        status: tuple[str, ...] = (),
        owner: str | None = None,
        tag: str | None = None,
        since: int | None = None,
        until: int | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Executions, the newest first, as short documents. Times are nanoseconds since 1970.

        `before` goes on after the (created_ns, execution_id) of the last one.
        """
        await self._ready_runtime()
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            wanted = Filter(graph, tuple(status), owner, tag, since, until, before, limit)
            rows = await self.store.select(wanted)
            for row in rows:
                run = self._live(row.id)
                try:
                    shown = self._shown(run) if run is not None else listed(row)
                except StoreDamaged as exc:
                    logger.error("It is left out of a list: %s", exc.message)
                    continue
                if (not status or shown["status"] in status) and len(found) < limit:
                    short: dict[str, Any] = {name: shown[name] for name in SHORT if name in shown}
                    found.append({**short, "created_ns": row.created, "waiting": shown.get("waiting", [])})
            if len(rows) < limit:
                break
            before = rows[-1].created, rows[-1].id
        return found

    async def draw_execution(self, execution_id: str) -> dict[str, Any]:
        """The graph, in the version that the execution began with, and what became of each node and edge of it.

        `state` of a node is `pending`, `running`, `waiting`, `completed`, `failed`, `cut` (the execution ended under
        it) or `skipped` (the execution ended without it). Raises UnknownExecution.
        """
        runtime = await self._ready_runtime()
        run = self._live(execution_id)
        if run is None:
            row = await self._row(execution_id)
            status, plan = row.status, await runtime.plan_of(row.definition, row.graph_id)
        else:
            status, plan = run.status if run.settled else "running", run.plan
        found = await self.get_execution_events(execution_id)
        drawn = drawing.to_dict(plan.workflow, self.registry)
        return {"execution_id": execution_id, "status": status, **overlaid(drawn, found, status in FINISHED)}

    async def get_execution_nodes(self, execution_id: str, *, node: str | None = None) -> list[dict[str, Any]]:
        """What each run of a node was given and what it wrote, in the order in which they began; those of a
        sub-workflow follow the node that runs it. `node` is a name, or a path like `Approve#1`, to get those only.

        Inputs are those that the node saw, with the version that the execution began with. Raises UnknownExecution,
        and ExecutionConflict when that version cannot be read any more.
        """
        runtime = await self._ready_runtime()
        run = self._live(execution_id)
        if run is not None and not self.store.durable:
            state, plan, ended = run.initial, run.plan, run.settled and run.finished
            entries = list(entries_of(run))
        else:
            row = await self._row(execution_id)
            if row.head == LOST_HEAD:
                raise ExecutionConflict("What the execution began with is damaged in the store")
            state, ended = json.loads(row.head)["state"], row.status in FINISHED
            try:
                plan = await runtime.plan_of(row.definition, row.graph_id)
            except NodeFailure as exc:
                raise ExecutionConflict(exc.message) from None
            entries = await self.store.entries(execution_id, path=None)
        plans = await runtime.plans_of(parts_in(entries))
        found = visits(plan, state, execution_id, entries, plans.get, ended=ended)
        return found if node is None else [one for one in found if node in (one["node"], one["path"])]

    async def until_settled(self, execution_id: str, seconds: float) -> dict[str, Any]:
        """The document when it has ended, waits for answers only, or so many seconds are over."""
        async for _ in self._changes(execution_id, seconds):
            pass
        return await self.get_execution_status(execution_id)

    @property
    def stopping(self) -> bool:
        """Whether this event loop takes nothing more on."""
        raise NotImplementedError

    def told_to_stop(self) -> None:
        """The server around it is about to stop: what runs has `shutdown_grace` seconds from now on."""
        self._runtime().told_to_stop()

    # Acting.

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


SHORT: Final = (
    *("success", "status", "execution_id", "graph_name", "error", "execution_time", "nodes_executed", "created_at"),
    *("graph_id", "started_at", "completed_at", "definition", "owner", "tags", "attempt", "retry_of"),
)
"""What a listing shows of a document."""


def execution_id_of(context: AgentMapContext) -> str:
    return execution_id(context.clock.time_ns())


def digest_of(*things: Any) -> str:
    """A digest of JSON values, for comparing."""
    text = json.dumps(things, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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


def _number(record: Record) -> int:
    return record[0]


def _places(run: Run, now: int) -> list[tuple[Place, float]]:
    """The runs of nodes that are going on, and for how many seconds."""
    begun = {(at, visit): began for _, kind, at, visit, began, _, _ in run.records if kind == BEGAN}
    nodes = run.plan.nodes
    at_work = [(token.at, token.visit) for token in run.busy]
    return [((nodes[at].name, visit), (now - begun.get((at, visit), now)) / 1e9) for at, visit in at_work]


class _Bell:
    """Rings when a run has something new to tell."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._event = asyncio.Event()
        run.own().watchers.add(self._event.set)
        if run.settled:
            self._event.set()

    async def rings(self, seconds: float) -> bool:
        return await _rings(self._event, seconds)

    def close(self) -> None:
        self._run.extra.watchers.discard(self._event.set)


class _Reader:
    """One who reads a stream: has what the run tells without keeping it, and waits for more."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._event = asyncio.Event()
        self.live = Listener(self._event.set)

    def attend(self, run: Run | None) -> None:
        """Listen to this run, and to no other; what has been told up to now has been heard."""
        self._event.clear()
        if run is not self._run:
            if self._run is not None:
                self._run.extra.watchers.discard(self._event.set)
                self._run.extra.listeners.discard(self.live)
            self._run = run
            if run is not None:
                run.own().watchers.add(self._event.set)
                run.own().listeners.add(self.live)
        if run is not None and run.settled:
            self._event.set()

    async def rings(self, seconds: float) -> None:
        await _rings(self._event, seconds)


async def _rings(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):  # `wait_for` loses a cancellation that comes with the ring (3.11)
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _told(run: Run, seconds: float) -> bool:
    bell = _Bell(run)
    try:
        return await bell.rings(seconds)
    finally:
        bell.close()
