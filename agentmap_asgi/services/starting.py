"""Executions begin: who asks for them, what they begin with, and how far they are."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from ..agents.registry import Registry
from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import ExecutionConflict, KeyReused, StoreDamaged, StoreUnavailable, UnknownExecution
from ..execution.document import document, settled_document, stored_document
from ..execution.executor import Run
from ..execution.host import NO_FACTS, Facts
from ..execution.identity import execution_id
from ..execution.records import BEGAN, RAN, SUSPENDED, stamp
from ..execution.records import FINISHED as FINISHED_NODE
from ..execution.runtime import Runtime
from ..execution.values import copied, fresh
from ..stores.store import GOING, Filter, Row, Store
from ..workflows.model import Workflow
from .audit import owner
from .estimates import LEAST, SHORTEST, Durations, Place, estimate
from .instruments import Instruments
from .versions import Versions

MOST_READ: Final = 30
"""Executions of the store from which it is learnt how long each node takes."""


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


class Starting:
    """The part of a service that starts executions, and says how they stand."""

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

    # How it stands.

    async def get_execution_status(self, execution_id: str) -> dict[str, Any]:
        """The execution document as it is now. Raises UnknownExecution."""
        run = self._live(execution_id)
        return self._shown(run) if run is not None else await self._stored(execution_id)

    def _shown(self, run: Run) -> dict[str, Any]:
        """The document of a run that lives here; its end is shown once it is kept."""
        if run.settled or not (run.ended_ns or run.status == "suspended"):
            found = document(run)
        else:
            found = document(run, shown="running")
        if found["status"] in GOING:
            self._forecast(run, found)
        return found

    async def _document(self, run: Run, *, shared: bool = False) -> dict[str, Any]:
        """The document of a run that has settled, here or, when it was left to another process, there."""
        return await self._stored(run.id) if run.lost else settled_document(run, shared=shared)

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

    # How long it will take.

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


def digest_of(*things: Any) -> str:
    """A digest of JSON values, for comparing."""
    text = json.dumps(things, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _places(run: Run, now: int) -> list[tuple[Place, float]]:
    """The runs of nodes that are going on, and for how many seconds."""
    begun = {(at, visit): began for _, kind, at, visit, began, _, _ in run.records if kind == BEGAN}
    nodes = run.plan.nodes
    at_work = [(token.at, token.visit) for token in run.busy]
    return [((nodes[at].name, visit), (now - begun.get((at, visit), now)) / 1e9) for at, visit in at_work]
