"""The table of operations: the app, the FastAPI routes, the OpenAPI document and the documentation are made from it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel
from starlette.responses import Response

from . import executing, executions, linking, operating, paging, reading, schemas, sse
from .exchange import Exchange
from .keys import Scope
from .tables import CSV_TYPE

Handler = Callable[[Exchange], Awaitable[Response]]
EXECUTE_PROBLEMS: Final = (400, 403, 404, 408, 409, 413, 415, 422, 503)
READ_PROBLEMS: Final = (403, 404, 409)


class Query(NamedTuple):
    """A query parameter, or a header."""

    name: str
    summary: str
    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    """Its JSON Schema, when it is not any text."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operation:
    """One row: what is answered under a method and a path (relative to where the app is mounted)."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    name: str
    handler: Handler
    summary: str
    scope: Scope
    """What a credential must allow for it: `run` starts executions, `read` looks, `probe` asks how the process is,
    `admin` is for those who run it."""
    answer: str | None
    """The model's name in `answers`; None when there are only texts."""
    body: type[BaseModel] | None = None
    files: tuple[str, ...] = ()
    """Content types of a body that is a file."""
    optional_body: bool = False
    query: tuple[Query, ...] = ()
    headers: tuple[Query, ...] = ()
    statuses: tuple[int, ...] = (200,)
    """Of answers that are no refusal."""
    texts: tuple[str, ...] = ()
    """Further content types of the answer."""
    problems: tuple[int, ...] = ()
    needs: Literal["", "docs", "metrics", "audit", "links"] = ""
    """What has to be enabled for it to be served."""
    open: bool = False
    """No credentials are asked for: what is in the path is one."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path."""
        return tuple(re.findall(r"{(\w+)", self.path))

    @property
    def plain_path(self) -> str:
        """The path without `:path`."""
        return self.path.replace(":path}", "}")


FORMAT: Final = (
    Query("format", "How it is drawn: an object (default), a text, or an image", ("json", "mermaid", "dot", "svg")),
)

VERSIONS: Final = (
    Query("from", "The older version: a hash or the beginning of one; `previous` when not given"),
    Query("to", "The newer version; `current` when not given"),
)

FOLLOW: Final = Query("follow", "Go on while the execution waits for answers", ("true", "false"))
AFTER: Final = Query("after", "Only events with a greater sequence", schema={"type": "integer", "minimum": 0})
KEY: Final = Query(
    "Idempotency-Key",
    "The same key gives the same execution",
    schema={"type": "string", "pattern": "^[!-~]{1,255}$"},
)
PREFER: Final = Query("Prefer", "`respond-async` does not wait for the end, `wait=5` so many seconds")
SEEN: Final = Query("Last-Event-ID", "As `after`, which it beats", schema={"type": "integer", "minimum": 0})
EXECUTION_PROBLEMS: Final = (403, 404, 503)
BODY_PROBLEMS: Final = (400, 408, 413, 415, 422)

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/execute",
        name="execute",
        handler=executing.execute,
        summary="Run a workflow",
        scope="run",
        body=schemas.ExecuteBody,
        headers=(KEY, PREFER),
        answer="Execution",
        statuses=(200, 202),
        problems=EXECUTE_PROBLEMS,
    ),
    Operation(
        method="POST",
        path="/execute/stream",
        name="execute_stream",
        handler=executing.execute_stream,
        summary="Run a workflow and stream its events",
        scope="run",
        body=schemas.ExecuteBody,
        query=(FOLLOW,),
        headers=(KEY,),
        answer=None,
        texts=(sse.SSE,),
        problems=EXECUTE_PROBLEMS,
    ),
    Operation(
        method="POST",
        path="/execute/batch",
        name="execute_batch",
        handler=executing.execute_batch,
        summary="Run many workflows, or one for each row of a CSV",
        scope="run",
        body=schemas.BatchBody,
        files=(CSV_TYPE,),
        query=(
            Query("graph", "The workflow that the rows of a CSV body start"),
            Query("format", "An object (default) or a table; without it the Accept header says", ("json", "csv")),
        ),
        answer="Batch",
        texts=(CSV_TYPE,),
        problems=(400, 408, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path="/execute/{graph}",
        name="execute_graph",
        handler=executing.execute_named,
        summary="Run the workflow in the path",
        scope="run",
        body=schemas.RunBody,
        headers=(KEY, PREFER),
        answer="NamedExecution",
        statuses=(200, 202),
        problems=EXECUTE_PROBLEMS,
    ),
    Operation(
        method="POST",
        path="/execute/{workflow}/{graph}",
        name="execute_file_graph",
        handler=executing.execute_named,
        summary="Run the workflow of a file",
        scope="run",
        body=schemas.RunBody,
        headers=(KEY, PREFER),
        answer="NamedExecution",
        statuses=(200, 202),
        problems=EXECUTE_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/list",
        name="list",
        handler=reading.list_workflows,
        summary="List the workflows",
        scope="read",
        answer="WorkflowList",
        problems=(403,),
    ),
    Operation(
        method="POST",
        path="/validate",
        name="validate",
        handler=reading.validate,
        summary="Check a workflow file without running anything",
        scope="read",
        files=reading.FILE_TYPES,
        query=(
            Query("file", "The name that the diagnostics give the file"),
            Query("sheet", "The sheet of a spreadsheet that is looked at; all when not given"),
        ),
        answer="Findings",
        problems=(403, 408, 413, 415, 422),
    ),
    Operation(
        method="GET",
        path="/health",
        name="health",
        handler=reading.health,
        summary="Does the process answer?",
        scope="probe",
        answer="Health",
    ),
    Operation(
        method="GET",
        path="/ready",
        name="ready",
        handler=reading.ready,
        summary="Can executions be started?",
        scope="probe",
        answer="Readiness",
    ),
    Operation(
        method="GET",
        path="/executions",
        name="executions",
        handler=executions.list_executions,
        summary="List executions, the newest first",
        scope="read",
        query=(
            Query("graph", "Only executions of this workflow: its id, or its name alone"),
            Query("status", "Only executions in this state, or in these, with commas between", schema=paging.STATUS),
            Query("since", "Only executions that were created at this time or later (RFC 3339)", schema=paging.TIME),
            Query("until", "Only executions that were created before this time", schema=paging.TIME),
            Query("tag", "Only executions with this tag"),
            Query("waiting_for", "Only executions that wait for an answer of the caller's", ("me",)),
            Query("limit", "How many; 50 when not given", schema=paging.query_schema(1, paging.MOST)),
            Query("cursor", "Where to go on: the `next_cursor` of the answer before"),
        ),
        answer="ExecutionList",
        problems=(403, 422, 503),
    ),
    Operation(
        method="GET",
        path="/executions/{execution_id}",
        name="execution",
        handler=executions.status,
        summary="Look at an execution",
        scope="read",
        query=(Query("wait", "Wait so many seconds for a change", schema={"type": "number", "minimum": 0}),),
        answer="Visible",
        problems=(*EXECUTION_PROBLEMS, 422),
    ),
    Operation(
        method="GET",
        path="/executions/{execution_id}/events",
        name="execution_events",
        handler=executions.events,
        summary="What happened in an execution",
        scope="read",
        query=(AFTER,),
        answer="Events",
        problems=(*EXECUTION_PROBLEMS, 422),
    ),
    Operation(
        method="GET",
        path="/executions/{execution_id}/nodes",
        name="execution_nodes",
        handler=executions.nodes,
        summary="What went into each node of an execution, and what came out",
        scope="read",
        query=(
            Query("node", "Only this node: its name, or the path of one run, like `Approve#1`"),
            Query("after", "Leave out so many", schema={"type": "integer", "minimum": 0}),
            Query("limit", "How many; 50 when not given", schema=paging.query_schema(1, executions.MOST_NODES)),
        ),
        answer="Nodes",
        problems=(*EXECUTION_PROBLEMS, 409, 422),
    ),
    Operation(
        method="GET",
        path="/executions/{execution_id}/stream",
        name="execution_stream",
        handler=executions.stream,
        summary="Stream the events of an execution",
        scope="read",
        query=(AFTER, FOLLOW),
        headers=(SEEN,),
        answer=None,
        texts=(sse.SSE,),
        statuses=(200, 204),
        problems=(*EXECUTION_PROBLEMS, 422),
    ),
    Operation(
        method="GET",
        path="/executions/{execution_id}/graph",
        name="execution_graph",
        handler=executions.graph,
        summary="Draw the workflow of an execution with the state of each node",
        scope="read",
        query=(Query("format", "How it is drawn: an object (default), or an image", ("json", "svg")),),
        texts=(reading.SVG,),
        answer="Drawing",
        problems=(*EXECUTION_PROBLEMS, 422),
    ),
    Operation(
        method="POST",
        path="/executions/{execution_id}/cancel",
        name="cancel",
        handler=executions.cancel,
        summary="End an execution now",
        scope="run",
        answer="Visible",
        problems=EXECUTION_PROBLEMS,
    ),
    Operation(
        method="POST",
        path="/executions/{execution_id}/resume",
        name="resume",
        handler=executions.resume,
        summary="Answer what an execution waits for",
        scope="run",
        body=schemas.ResumeBody,
        answer="Visible",
        problems=(*EXECUTION_PROBLEMS, *BODY_PROBLEMS, 409, 410),
    ),
    Operation(
        method="POST",
        path="/executions/{execution_id}/retry",
        name="retry",
        handler=executions.retry,
        summary="Run a finished execution again as a new one",
        scope="run",
        body=schemas.RetryBody,
        optional_body=True,
        answer="Retry",
        statuses=(200, 201),
        problems=(*EXECUTION_PROBLEMS, *BODY_PROBLEMS, 409),
    ),
    Operation(
        method="DELETE",
        path="/executions/{execution_id}",
        name="delete",
        handler=executions.delete,
        summary="Forget a finished execution",
        scope="run",
        answer=None,
        statuses=(204,),
        problems=(*EXECUTION_PROBLEMS, 409),
    ),
    Operation(
        method="POST",
        path="/resume/{thread_id}",
        name="resume_thread",
        handler=executions.resume,
        summary="Answer what an execution waits for, under AgentMap's name",
        scope="run",
        body=schemas.ResumeBody,
        answer="Visible",
        problems=(*EXECUTION_PROBLEMS, *BODY_PROBLEMS, 409, 410),
    ),
    Operation(
        method="POST",
        path="/executions/{execution_id}/links",
        name="execution_links",
        handler=linking.make,
        summary="Make one-time links to what an execution waits for",
        scope="run",
        body=schemas.LinksBody,
        optional_body=True,
        answer="MadeLinks",
        statuses=(201,),
        problems=(*EXECUTION_PROBLEMS, *BODY_PROBLEMS, 409),
        needs="links",
    ),
    Operation(
        method="GET",
        path=linking.PLACE + "{token}",
        name="link",
        handler=linking.show,
        summary="What the holder of a one-time link is asked; changes nothing",
        scope="read",
        answer="Linked",
        texts=("text/html",),
        problems=(404, 410, 503),
        needs="links",
        open=True,
    ),
    Operation(
        method="POST",
        path=linking.PLACE + "{token}",
        name="answer_link",
        handler=linking.answer,
        summary="Answer with a one-time link",
        scope="run",
        body=schemas.LinkAnswerBody,
        answer="LinkAnswered",
        problems=(404, 410, 503, *BODY_PROBLEMS),
        needs="links",
        open=True,
    ),
    Operation(
        method="POST",
        path="/reload",
        name="reload",
        handler=operating.reload,
        summary="Read the workflow files again, now",
        scope="admin",
        answer="Reloaded",
        problems=(403,),
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        handler=operating.metrics,
        summary="Numbers for Prometheus",
        scope="probe",
        answer=None,
        texts=(operating.METRICS,),
        problems=(403,),
        needs="metrics",
    ),
    Operation(
        method="GET",
        path="/audit",
        name="audit",
        handler=operating.audit,
        summary="Who did what, the newest first",
        scope="admin",
        query=(
            Query("limit", "How many lines; 100 when not given", schema=operating.LIMIT),
            Query("since", "Only lines from this time on (RFC 3339)", schema=operating.TIME),
            Query("workflow", "Only lines about this workflow: its id, or its name alone"),
            Query("principal", "Only lines about this caller"),
        ),
        answer="AuditLog",
        problems=(403, 422),
        needs="audit",
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        handler=reading.describe,
        summary="This description, for programs",
        scope="read",
        answer="OpenAPI",
        needs="docs",
    ),
    Operation(
        method="GET",
        path="/workflows/{graph_id:path}/graph",
        name="graph_by_id",
        handler=reading.graph,
        summary="Draw a workflow, by graph id",
        scope="read",
        query=FORMAT,
        answer="Drawing",
        texts=(reading.MERMAID, reading.DOT, reading.SVG),
        problems=(*READ_PROBLEMS, 422),
    ),
    Operation(
        method="GET",
        path="/workflows/{graph_id:path}/schema",
        name="schema_by_id",
        handler=reading.schema,
        summary="What a workflow takes, by graph id",
        scope="read",
        answer="InputSchema",
        problems=READ_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/workflows/{graph_id:path}/versions",
        name="versions_by_id",
        handler=reading.versions,
        summary="The versions of a workflow, the newest first, by graph id",
        scope="read",
        answer="VersionList",
        problems=(*READ_PROBLEMS, 503),
    ),
    Operation(
        method="GET",
        path="/workflows/{graph_id:path}/diff",
        name="diff_by_id",
        handler=reading.difference,
        summary="What changed between two versions of a workflow, by graph id",
        scope="read",
        query=VERSIONS,
        answer="VersionDiff",
        problems=(*READ_PROBLEMS, 422, 503),
    ),
    Operation(
        method="GET",
        path="/workflows/{graph_id:path}/source",
        name="source_by_id",
        handler=reading.source,
        summary="Show the rows of a workflow, by graph id",
        scope="read",
        answer="Source",
        problems=READ_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/workflows/{graph_id:path}",
        name="workflow_by_id",
        handler=reading.workflow,
        summary="Describe a workflow, by graph id",
        scope="read",
        answer="Definition",
        problems=READ_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/{workflow_name}/graph",
        name="graph",
        handler=reading.graph,
        summary="Draw a workflow",
        scope="read",
        query=FORMAT,
        answer="Drawing",
        texts=(reading.MERMAID, reading.DOT, reading.SVG),
        problems=(*READ_PROBLEMS, 422),
    ),
    Operation(
        method="GET",
        path="/{workflow_name}/schema",
        name="schema",
        handler=reading.schema,
        summary="What a workflow takes",
        scope="read",
        answer="InputSchema",
        problems=READ_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/{workflow_name}/versions",
        name="versions",
        handler=reading.versions,
        summary="The versions of a workflow, the newest first",
        scope="read",
        answer="VersionList",
        problems=(*READ_PROBLEMS, 503),
    ),
    Operation(
        method="GET",
        path="/{workflow_name}/diff",
        name="diff",
        handler=reading.difference,
        summary="What changed between two versions of a workflow",
        scope="read",
        query=VERSIONS,
        answer="VersionDiff",
        problems=(*READ_PROBLEMS, 422, 503),
    ),
    Operation(
        method="GET",
        path="/{workflow_name}/source",
        name="source",
        handler=reading.source,
        summary="Show the rows of a workflow",
        scope="read",
        answer="Source",
        problems=READ_PROBLEMS,
    ),
    Operation(
        method="GET",
        path="/{workflow_name}",
        name="workflow",
        handler=reading.workflow,
        summary="Describe a workflow",
        scope="read",
        answer="Definition",
        problems=READ_PROBLEMS,
    ),
)
"""Literal paths stand before those with parameters: the first that fits answers."""
