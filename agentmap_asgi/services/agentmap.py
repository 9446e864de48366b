"""What a host holds: start executions and ask about workflows, with plain dicts in and out."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, overload
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter, to_thread

from ..agents.gathering import gathered
from ..agents.registry import Agent
from ..config import SERVERS, AgentMapConfig, masked
from ..context import AgentMapContext
from ..engines.engine import Engine
from ..errors import (
    ConfigError,
    InputInvalid,
    NodeFailure,
    RequestRefused,
    UnknownWorkflow,
    WorkflowInvalid,
)
from ..execution.document import document
from ..execution.executor import Run, inline_call
from ..execution.fields import SPECIAL
from ..execution.host import Facts
from ..execution.parts import parts_of
from ..execution.plan import Plan
from ..execution.runtime import Runtime
from ..execution.values import copied
from ..stores.store import GOING, Store
from ..stores.transient import TransientStore
from ..workflows import checks, drawing
from ..workflows.catalogue import Catalogue, Changes
from ..workflows.diagnostics import SEVERITIES, Diagnostic
from ..workflows.loader import Loaded, read_workflows
from ..workflows.model import Workflow
from ..workflows.paths import paths_of
from ..workflows.watcher import Watcher
from .audit import owner
from .inputs import validated
from .instruments import Instruments
from .links import Links
from .starting import call_options
from .versions import Versions

T = TypeVar("T")

logger = logging.getLogger("agentmap_asgi")

MOST_SHOWN: Final = 1_000
"""Diagnostics in one answer about a file."""
MOST_CHECKS: Final = 2
"""Uploaded files that are looked at, and images that are drawn, at once; it is work for the processor."""


class AgentMapService(Links):
    """Runs workflows. Subclasses override the hooks; HTTP goes through the same methods as in-process callers.

    `source` (a CSV file or a folder) beats the setting `csv_path`. Nothing is started here: what runs belongs to the
    event loop that first executes something, and ends with `aclose()` on that loop.
    """

    def __init__(
        self,
        config: AgentMapConfig | None = None,
        *,
        context: AgentMapContext | None = None,
        source: str | Path | None = None,
    ) -> None:
        self.config = config or AgentMapConfig()
        self.context = (context or AgentMapContext()).extended(self.config)
        if self.config.log_level is not None:
            logger.setLevel(self.config.log_level)
        source = source if source is not None else self.config.csv_path
        if source is None:
            raise ConfigError("Say where the workflows are: AgentMapApp('workflows/') or AgentMapConfig(csv_path=…)")
        self.registry = gathered(self.config, self.context)
        self.catalogue = Catalogue(
            source,
            registry=self.registry,
            config=self.config,
            services=self.context.service_names,
            functions=frozenset(self.context.functions),
        )
        self.catalogue.load()
        self._engine = _engine(self.config)
        self.store: Store = _store(self.config, self.context, source)
        self.versions = Versions(self.store, self.context.clock)
        self.versions.serve(self.catalogue.workflows)
        self.instruments = Instruments(self.config, self.context)
        self._watcher: Watcher | None = None
        self._plans: dict[Workflow, Plan] = {}
        self._finder: tuple[Callable[[str], Workflow], Callable[[Workflow, str], Plan]] | None = None
        """What finds sub-workflows, and what it was made for."""
        self._prepares = self._overrides("pre_workflow_execution")
        self._schemas: WeakKeyDictionary[Workflow, dict[str, Any]] = WeakKeyDictionary()
        self._durations = {}
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._checks: WeakKeyDictionary[asyncio.AbstractEventLoop, CapacityLimiter] = WeakKeyDictionary()
        for workflow in self.catalogue.workflows:
            if workflow.broken:
                logger.warning("The workflow %s cannot be started: %s", workflow.graph_id, workflow.errors[0])

    # Executing.

    async def execute_workflow(
        self, graph_name: str, initial_state: dict[str, Any], context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run a workflow and return its execution document when it has ended, or waits for answers only.

        A run that fails is a document with `success` false. Raises UnknownWorkflow, AmbiguousWorkflow,
        WorkflowInvalid, InputInvalid, Overloaded or ShuttingDown when nothing was started. Cancelling the call does not
        end the execution.
        """
        try:
            return await self._execute(graph_name, initial_state, context)
        except RequestRefused as exc:
            options = call_options.get()
            if options is None or options.door == "python":
                told: Mapping[str, Any] = context if isinstance(context, Mapping) else {}
                who, request_id = owner(told), told.get("request_id")
                self.instruments.refused("python", exc.code, workflow=graph_name, principal=who, request_id=request_id)
            raise

    async def _execute(
        self, graph_name: str, initial_state: dict[str, Any], context: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        run, found = await self._begun(graph_name, initial_state, context, call_options.get())
        if run is None:
            while found["status"] in GOING:
                found = await self.until_settled(found["execution_id"], 60.0)
            return found
        if not run.settled:
            await run.wait()
        found = await self._document(run)
        while found["status"] in GOING and not self.stopping:  # another process has it
            found = await self.until_settled(run.id, 60.0)
        return found

    async def batch_execute_workflows(
        self, executions: Iterable[Mapping[str, Any]], *, max_concurrency: int = 10
    ) -> list[dict[str, Any]]:
        """Run several; the documents in the order of the items.

        An item is `{"graph_name", "initial_state", "context"?}`. One that is refused gives
        `{"success": False, "status": "refused", "error": {"code", "message"}}` and does not touch the others.
        """
        items = list(executions)
        if max_concurrency < 1:
            raise InputInvalid("max_concurrency starts at 1", pointer="/max_concurrency")
        places = asyncio.Semaphore(max_concurrency)

        async def one(item: Mapping[str, Any]) -> dict[str, Any]:
            async with places:
                name = item.get("graph_name") if isinstance(item, Mapping) else None
                try:
                    if not isinstance(name, str):
                        raise InputInvalid("graph_name is missing", pointer="/graph_name")
                    return await self.execute_workflow(name, item.get("initial_state") or {}, item.get("context"))
                except RequestRefused as exc:
                    error = {"code": exc.code, "message": exc.message}
                except Exception as exc:  # of a hook or an override: one item's must not lose the others
                    logger.error("An item of a batch failed before its execution began", exc_info=exc)
                    error = {"code": "internal_error", "message": "Something went wrong here; the log has the reason"}
                return {"success": False, "status": "refused", "graph_name": name, "result": None, "error": error}

        return list(await asyncio.gather(*map(one, items)))

    # Asking about workflows.

    def list_workflows(self) -> dict[str, Any]:
        """`{"workflows": […], "total_count", "problems": […]}`, broken workflows included."""
        workflows = [self._summary(workflow) for workflow in self.catalogue.workflows]
        problems = [found.to_dict() for found in self.catalogue.findings if found.graph is None]
        return {"workflows": workflows, "total_count": len(workflows), "problems": problems}

    def get_workflow_definition(self, graph_name: str) -> dict[str, Any]:
        """Nodes, edges, entry point, input and output schema, diagnostics.

        Raises UnknownWorkflow or AmbiguousWorkflow.
        """
        workflow = self.catalogue.find(graph_name)
        drawn = drawing.to_dict(workflow, self.registry)
        written: dict[str, list[str]] = {}
        for node in workflow.nodes.values():
            for field in checks.written_by(node):
                written.setdefault(field, []).append(node.name)
        return {
            **self._summary(workflow),
            "nodes": [
                drawing.node_to_dict(workflow.nodes[node["id"]]) for node in drawn["nodes"] if not node["missing"]
            ],
            "edges": drawn["edges"],
            "input_schema": self._schema(workflow),
            "output_schema": {
                "type": "object",
                "properties": {name: {"description": f"Written by {', '.join(by)}"} for name, by in written.items()},
            },
            "diagnostics": [found.to_dict() for found in self.catalogue.diagnostics(workflow)],
        }

    def get_workflow_schema(self, graph_name: str) -> dict[str, Any]:
        """JSON Schema of what a caller gives: declared by the host, else what the nodes read before it is written."""
        return self._schema(self.catalogue.find(graph_name))

    async def list_versions(self, graph_name: str) -> dict[str, Any]:
        """The versions of a workflow that were served: hash and time, the newest first.

        Raises UnknownWorkflow, AmbiguousWorkflow, StoreUnusable or StoreUnavailable.
        """
        workflow = self.catalogue.find(graph_name)
        await self._ready_runtime()
        return await self.versions.listed(workflow)

    async def diff_versions(self, graph_name: str, old: str = "previous", new: str = "current") -> dict[str, Any]:
        """What changed between two versions of a workflow: its entry, nodes and cells, and the same as text.

        A version is a hash of `list_versions` or the beginning of one, `current` or `previous`. Raises InputInvalid for
        one that is not there, else as `list_versions`.
        """
        workflow = self.catalogue.find(graph_name)
        await self._ready_runtime()
        return await self.versions.difference(workflow, old, new)

    async def get_workflow_source(self, graph_name: str) -> dict[str, Any]:
        """The workflow's rows as its file has them now: `columns`, `rows`, `diagnostics`, and whether it has `changed`
        since it was read.
        """
        return await self._aside(self.catalogue.rows, self.catalogue.find(graph_name))

    @overload
    def draw_workflow(self, graph_name: str, form: Literal["json"]) -> dict[str, Any]: ...
    @overload
    def draw_workflow(self, graph_name: str, form: Literal["mermaid", "dot", "svg"]) -> str: ...
    @overload
    def draw_workflow(self, graph_name: str, form: Literal["networkx"]) -> Any: ...
    def draw_workflow(self, graph_name: str, form: str = "json") -> Any:
        """The graph as an object, as Mermaid or DOT text, as an SVG image (which takes a while when it is large), or as
        a `networkx.MultiDiGraph` for analyses of your own: its nodes and edges have what the object says of them.
        """
        drawn = drawing.to_dict(self.catalogue.find(graph_name), self.registry)
        if form == "networkx":
            return drawing.to_networkx(drawn)
        return drawn if form == "json" else _DRAWN[form](drawn)

    async def redraw(self, drawn: Mapping[str, Any], form: str) -> str:
        """Another form of a drawing that `draw_workflow` or `draw_execution` gave as an object, made in a thread.

        `form` is `mermaid`, `dot` or `svg`.
        """
        return await self._aside(_DRAWN[form], drawn)

    def validate_workflows(self, data: bytes, file: str = "upload.csv", sheet: str | None = None) -> dict[str, Any]:
        """Every diagnostic of a CSV file or a spreadsheet, or of one sheet of it; nothing of it is run or kept.

        Blocks, up to seconds for a large file. At most MOST_SHOWN diagnostics are given, errors before others;
        `omitted` counts the rest.
        """
        loaded: Loaded = read_workflows(
            data,
            file,
            registry=self.registry,
            config=self.config if sheet is None else replace(self.config, sheet=sheet),
            services=self.context.service_names,
            functions=frozenset(self.context.functions),
        )
        found = [*loaded.findings, *paths_of(loaded.workflows, self.registry, self.declared_inputs)]
        found.sort(key=lambda one: SEVERITIES.index(one.severity))
        shown = {id(one): one for one in found[:MOST_SHOWN]}
        return {
            "valid": not found or found[0].severity != "error",
            "workflows": [
                self._summary(workflow, [one for one in workflow.errors if id(one) in shown])
                for workflow in loaded.workflows
            ],
            "diagnostics": [one.to_dict() for one in sorted(shown.values(), key=lambda one: one.row or 0)],
            "omitted": len(found) - len(shown),
            "rows": loaded.rows._asdict(),
        }

    async def check_upload(self, data: bytes, file: str, sheet: str | None = None) -> dict[str, Any]:
        """`validate_workflows` in a thread: the event loop goes on meanwhile."""
        return await self._aside(self.validate_workflows, data, file, *(() if sheet is None else (sheet,)))

    async def _aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do what takes long in a thread, MOST_CHECKS at a time; the rest wait."""
        loop = asyncio.get_running_loop()
        places = self._checks.get(loop)
        if places is None:
            places = self._checks[loop] = CapacityLimiter(MOST_CHECKS)
        return await to_thread.run_sync(work, *arguments, limiter=places)

    def readiness(self) -> dict[str, Any]:
        """Whether new executions are taken on, and how much is going on."""
        runtime = self._runtimes.get(asyncio.get_running_loop())
        return {
            "ready": not self.stopping,
            "workflows": len(self.catalogue.workflows),
            "running": 0 if runtime is None else len(runtime.running),
            "queued": 0 if runtime is None else runtime.queued,
            "threads_in_use": 0 if runtime is None else runtime.threads.in_use,
            "unresponsive_agents": 0 if runtime is None else len(runtime.leaks) + len(runtime.threads.abandoned),
        }

    async def probe_store(self) -> None:
        """Return when the store can be opened and read. Raises StoreUnusable and StoreUnavailable."""
        await self._ready_runtime()
        await self.store.generation()

    @property
    def stopping(self) -> bool:
        """Whether this event loop takes nothing more on."""
        runtime = self._runtimes.get(asyncio.get_running_loop())
        return runtime is not None and runtime.stopping

    # Operating.

    async def reload(self) -> dict[str, Any]:
        """Read the workflow files again and say what changed: lists of graph ids, files that are being written
        (`pending`), every error there is (`diagnostics`). A workflow that has errors now is served as it was before.
        """
        changes = await to_thread.run_sync(self._reload)
        runtime = await self._ready_runtime()
        if self.store.durable:
            runtime.generation = await self.store.generation(bump=True)
        return changes.to_dict()

    async def _follow(self) -> None:
        """Another process has read the workflow files again."""
        await to_thread.run_sync(self._reload)

    def _reload(self) -> Changes:
        """Blocks; runs in a thread."""
        known = set(self.catalogue.workflows)
        before = {workflow for workflow in known if self.catalogue.stale(workflow)}
        changes = self.catalogue.reload()
        for replaced in set(self._plans).difference(self.catalogue.workflows):
            self._plans.pop(replaced, None)
        self.versions.serve(self.catalogue.workflows)
        self.instruments.reloaded(changes)
        for workflow in self.catalogue.workflows:
            found = next((one for one in self.catalogue.diagnostics(workflow) if one.severity == "error"), None)
            if found is not None and workflow not in (known if workflow.broken else before):
                result = "cannot be started" if workflow.broken else "is served as it was before"
                logger.warning("The workflow %s %s: %s", workflow.graph_id, result, found)
        return changes

    def metrics(self) -> tuple[bytes, str]:
        """The numbers of this process as Prometheus reads them, and their content type.

        Raises ConfigError without `enable_metrics`.
        """
        if self.instruments.metrics is None:
            raise ConfigError("The metrics are off; give AgentMapConfig(enable_metrics=True)")
        runtimes = [runtime for loop, runtime in list(self._runtimes.items()) if not loop.is_closed()]
        return self.instruments.metrics.text(runtimes, map(self._status, self.catalogue.workflows))

    # For tests.

    def override(self, **services: Any) -> AbstractContextManager[None]:
        """Replace services for a while: `with service.override(cache=FakeCache()): ...`, as the context object does."""
        return self.context.override(**services)

    # For subclasses.

    async def pre_workflow_execution(
        self, graph_name: str, initial_state: dict[str, Any], context: dict[str, Any]
    ) -> None:
        """Runs once before an accepted execution starts; an exception refuses it. What it puts in `context` is kept."""

    async def post_workflow_execution(self, graph_name: str, result: dict[str, Any], context: dict[str, Any]) -> None:
        """Runs once when an execution has ended, also when the caller is gone."""

    async def format_execution_response(
        self, result: dict[str, Any], request_context: dict[str, Any]
    ) -> dict[str, Any]:
        """Shapes the body of execute answers over HTTP."""
        return result

    async def filter_response(self, document: dict[str, Any], request_context: dict[str, Any]) -> dict[str, Any]:
        """The last to see a JSON document before it leaves over HTTP (refusals excepted); gives what is sent."""
        return document

    def _overrides(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(AgentMapService, method)

    # Living on an event loop.

    async def start(self) -> None:
        """Get ready on this event loop, and go on with what a process that has died left; executing does it too."""
        await self._ready_runtime()

    async def aclose(self) -> None:
        """Take nothing more on, let what runs on this loop end, cancel the rest. May be followed by a new start."""
        runtime = self._runtimes.get(asyncio.get_running_loop())
        if runtime is not None:
            await runtime.aclose()
            self._runtimes.pop(runtime.loop, None)
            if all(loop.is_closed() for loop in self._runtimes):
                await self.store.aclose()
        if self._watcher is not None and all(loop.is_closed() for loop in self._runtimes):
            watcher, self._watcher = self._watcher, None
            await to_thread.run_sync(watcher.close)

    def _runtime(self) -> Runtime:
        loop = asyncio.get_running_loop()
        runtime = self._runtimes.get(loop)
        if runtime is None:
            for closed in [other for other in self._runtimes if other.is_closed()]:
                self._runtimes.pop(closed).abandon()
            runtime = self._runtimes[loop] = Runtime(
                self.config,
                self.context,
                self.store,
                plan=self._plan,
                plan_for=self._sub_plans,
                on_ended=self._count,
                on_reload=self._follow,
                on_end=self._after if self._overrides("post_workflow_execution") else None,
                engine=self._engine,
            )
            if self.config.enable_hot_reload and self._watcher is None:
                self._watcher = Watcher(self.catalogue, self._reload)
        return runtime

    def _count(self, run: Run) -> None:
        self._counts[run.plan.workflow.graph_id][run.status] += 1
        if run.status == "completed":
            self._timed(run)
        self.instruments.ended(run, self.catalogue.has)

    async def _after(self, run: Run) -> None:
        await self.post_workflow_execution(run.plan.workflow.name, document(run), dict(run.context))

    # Inside.

    def _new_run(
        self,
        runtime: Runtime,
        workflow: Workflow,
        execution_id: str,
        values: dict[str, Any],
        context: Mapping[str, Any],
        facts: Facts,
    ) -> Run:
        plan = self._plan(workflow)
        made = Run(
            runtime,
            plan,
            execution_id,
            values,
            scope=runtime.services.run_scope(),
            context=context,
            plan_for=self._sub_plans(),
            on_end=runtime.on_end,
            facts=facts,
        )
        if plan.references:
            made.own().parts = parts_of(plan, made.plan_for)
        return made

    def _healthy(self, graph_name: str) -> Workflow:
        workflow = self.catalogue.find(graph_name)
        if workflow.broken:
            raise WorkflowInvalid(graph_name, workflow.errors)
        return workflow

    def _plan(self, workflow: Workflow) -> Plan:
        plan = self._plans.get(workflow)
        if plan is None:
            plan = Plan(
                workflow,
                self.registry,
                functions=self.context.functions,
                max_output=self.config.max_output_bytes,
                inline_call=inline_call,
                once=self.store.durable,
            )
            if self.catalogue.serves(workflow):
                self._plans[workflow] = plan
        return plan

    def _sub_plans(self) -> Callable[[Workflow, str], Plan]:
        """Finds sub-workflows as they are now: a run keeps the versions it began with."""
        find = self.catalogue.snapshot()
        if self._finder is not None and self._finder[0] == find:
            return self._finder[1]
        replaced: dict[Workflow, Plan] = {}
        """Plans of versions that are served no more; they go with the last run that began then."""

        def plan_for(caller: Workflow, reference: str) -> Plan:
            """`::Name` is in the caller's file; so is a plain name, if the file has it."""
            name = reference.removeprefix("::")
            here = f"{caller.file}::{name}"
            try:
                workflow = find(here if "::" not in name else name)
            except UnknownWorkflow:
                if reference.startswith("::"):
                    raise
                workflow = find(name)
            if workflow.broken:
                raise WorkflowInvalid(reference, workflow.errors)
            plan = self._plans.get(workflow) or replaced.get(workflow)
            if plan is None:
                plan = replaced[workflow] = self._plan(workflow)
            return plan

        self._finder = find, plan_for
        return plan_for

    def _values(self, workflow: Workflow, initial_state: Any, plain: bool) -> dict[str, Any]:
        """The run's own copy of the initial state, checked; one that is `plain` is the run's own already."""
        values = initial_state if plain else self._checked_state(initial_state, "/initial_state")
        declared = self.context.input_schemas.get(workflow.name)
        if declared is not None:
            return self._checked_state(values | validated(declared, values), "/initial_state")
        if self.config.strict_inputs:
            missing = [name for name in self._schema(workflow)["required"] if name not in values]
            if missing:
                raise InputInvalid(
                    f"initial_state lacks {', '.join(missing)}",
                    errors=[
                        {"pointer": f"/initial_state/{name}", "code": "missing", "message": "The workflow reads it"}
                        for name in missing
                    ],
                )
        return values

    def _checked_state(self, state: Any, pointer: str) -> dict[str, Any]:
        name = pointer.removeprefix("/")
        if not isinstance(state, dict):
            raise InputInvalid(f"{name} takes a JSON object", pointer=pointer)
        if not SPECIAL.isdisjoint(state):
            reserved = min(SPECIAL & state.keys())
            raise InputInvalid(f"{name} sets {reserved!r}, a reserved name", pointer=f"{pointer}/{reserved}")
        try:
            values: dict[str, Any] = copied(state, name, limit=self.config.max_state_bytes)
        except NodeFailure as exc:
            raise InputInvalid(exc.message, pointer=pointer) from None
        return values

    def _schema(self, workflow: Workflow) -> dict[str, Any]:
        schema = self._schemas.get(workflow)
        if schema is None:
            declared = self.context.input_schemas.get(workflow.name)
            if declared is not None:
                schema = dict(declared.model_json_schema())
            else:
                schema = checks.input_schema(workflow, self._agents(workflow))
            self._schemas[workflow] = schema
        return schema

    def declared_inputs(self, workflow: Workflow) -> frozenset[str]:
        """The fields of the input schema that the host has declared for a workflow, if any."""
        declared = workflow.name in self.context.input_schemas
        return frozenset(self._schema(workflow).get("properties", ()) if declared else ())

    def _agents(self, workflow: Workflow) -> dict[str, Agent]:
        found = {name: self.registry.find(node.agent_type) for name, node in workflow.nodes.items()}
        return {name: agent for name, agent in found.items() if agent is not None}

    def _summary(self, workflow: Workflow, shown: Iterable[Diagnostic] | None = None) -> dict[str, Any]:
        """A workflow's row in a list. `shown` are the diagnostics that go with it; None gives its errors."""
        found = self.catalogue.diagnostics(workflow)
        severities = [one.severity for one in found]
        entry = workflow.nodes.get(workflow.entry or "")
        return {
            "name": workflow.name,
            "graph_name": workflow.name,
            "graph_id": workflow.graph_id,
            "file": workflow.file,
            "description": entry.description if entry is not None else "",
            "node_count": len(workflow.nodes),
            "entry_point": workflow.entry,
            "version": workflow.version,
            "status": self._status(workflow),
            "problems": {kind: severities.count(kind) for kind in ("error", "warning", "info")},
            "diagnostics": [
                one.to_dict() for one in (shown if shown is not None else found) if one.severity == "error"
            ],
            "statistics": {"executions": dict(self._counts.get(workflow.graph_id, ()))},
        }

    def _status(self, workflow: Workflow) -> str:
        return "broken" if workflow.broken else "stale" if self.catalogue.stale(workflow) else "ok"


def _image(drawn: Mapping[str, Any]) -> str:
    from ..workflows import svg  # where an image is asked for, and not before

    return svg.to_svg(drawn)


_DRAWN: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "mermaid": drawing.to_mermaid,
    "dot": drawing.to_dot,
    "svg": _image,
}
"""What makes each form of a drawing from the object."""


def _store(config: AgentMapConfig, context: AgentMapContext, source: str | Path) -> Store:
    """The store that the settings name; it is opened by the first execution."""
    namespace = config.namespace or Path(source).stem or "workflows"
    if config.storage_url == "memory://":
        return TransientStore(namespace, config.max_kept)
    if config.storage_url.startswith(SERVERS):
        try:
            from ..stores.postgres import PostgresStore
        except ImportError as exc:
            raise ConfigError(
                f"storage_url={masked(config.storage_url)!r} needs psycopg ({exc}): "
                "pip install 'agentmap-asgi[postgres]'"
            ) from exc
        return PostgresStore(
            config.storage_url,
            namespace=namespace,
            schema=config.storage_schema,
            source=str(Path(source).absolute()),
            codec=context.payload_codec,
            worker_lease=config.worker_lease,
        )
    from ..stores.sqlite import SQLiteStore

    path = config.storage_url.removeprefix("sqlite:///")
    return SQLiteStore(path, namespace=namespace, source=str(Path(source).absolute()), codec=context.payload_codec)


def _engine(config: AgentMapConfig) -> Callable[[Runtime], Engine] | None:
    """What makes the engine that the settings name; None for the one that needs nothing."""
    if config.engine == "local":
        for name in ("engine_url", "max_running_everywhere", "max_starts_per_second"):
            if getattr(config, name):
                raise ConfigError(f"The setting {name} is for the engine dbos; set engine to dbos, or leave it out")
        if not config.run_executions:
            raise ConfigError("Without run_executions nobody runs them; set engine to dbos, and start a worker")
        return None
    url = config.engine_url or config.storage_url
    if config.storage_url == "memory://" or not url.startswith(SERVERS):
        raise ConfigError("The engine dbos needs PostgreSQL: set storage_url to postgresql://user:password@host/name")
    try:
        from ..engines.dbos import engine_for
    except ImportError as exc:
        raise ConfigError(f"The engine dbos needs a package ({exc}): pip install 'agentmap-asgi[dbos]'") from exc
    return engine_for(url)
