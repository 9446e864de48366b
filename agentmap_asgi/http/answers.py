"""The models of answers. Answers may grow. Only documentation is made of them, so only that imports them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .schemas import State


class Answer(BaseModel):
    """What a caller gets. New fields may be added."""

    model_config = ConfigDict(extra="allow", defer_build=True)


class Failure(Answer):
    """Why an execution failed."""

    code: str
    message: str


class Execution(Answer):
    """An execution. A run that fails is an answer like any other, with `success` false."""

    success: bool | None = Field(description="True when completed, false when failed, null while it is not finished.")
    status: str
    execution_id: str
    graph_name: str
    result: State | None = Field(
        description="The state at the end: the initial state and all outputs of nodes. Null while it goes on."
    )
    error: Failure | None = None
    execution_time: float | None = Field(None, description="Seconds.")
    nodes_executed: int
    links: dict[str, str]


class Visible(Answer):
    """An execution; of one that somebody else owns and the caller is asked something by, its open waits only."""

    status: str
    execution_id: str
    graph_name: str
    links: dict[str, str]


class ExecutionList(Answer):
    """Executions, the newest first."""

    executions: list[Visible]
    next_cursor: str | None = Field(description="For `cursor`, to go on after the last one; null at the end.")


class Events(Answer):
    """What happened in an execution, in order."""

    execution_id: str
    events: list[State]
    last_sequence: int = Field(description="For `after`, to go on from here.")
    complete: bool = Field(description="Whether all that there is so far is here.")


class Nodes(Answer):
    """What each run of a node was given and what it wrote, in the order in which they began."""

    execution_id: str
    graph_name: str
    nodes: list[State]
    total_count: int = Field(description="How many there are without `after` and `limit`.")


class MadeLinks(Answer):
    """One-time links, each with its `token` and where it leads (`href`)."""

    links: list[State]


class Linked(Answer):
    """What the holder of a one-time link is asked."""

    execution_id: str
    graph_name: str
    assignee: str | None
    expires_at: str
    wait: State


class LinkAnswered(Answer):
    """The answer is kept."""

    answered: Literal[True]


class Retry(Answer):
    """The new execution; or of a dry run: the `nodes` that would run, and how many results it `keeps`."""


class NamedExecution(Execution):
    """An execution started by a path; `outputs` is the same as `result`, under AgentMap's own name."""

    outputs: State | None


class BatchOutcome(Answer):
    """What became of one item: an `execution`, or the `error` for which it was refused."""

    index: int
    status: Literal["ok", "refused"]
    execution: State | None = None
    error: State | None = None


class Batch(Answer):
    """The outcomes in the order of the items."""

    executions: list[BatchOutcome]
    total_count: int
    refused_count: int


class WorkflowList(Answer):
    """All workflows the caller may see."""

    workflows: list[State]
    total_count: int


class Definition(Answer):
    """A workflow: nodes, edges, schemas, diagnostics."""

    name: str
    links: dict[str, str]


class VersionOf(Answer):
    """A version of a workflow."""

    version: str = Field(description="The hash of what its nodes say.")
    since: str = Field(description="When it was first served.")


class ListedVersion(VersionOf):
    """A version of a workflow in a list."""

    current: bool = Field(description="Whether new executions get it.")


class VersionList(Answer):
    """The versions of a workflow, the newest first."""

    graph_id: str
    versions: list[ListedVersion]
    total_count: int


class VersionDiff(Answer):
    """What changed from one version of a workflow to another."""

    graph_id: str
    from_: VersionOf = Field(alias="from")
    to: VersionOf
    changed: bool
    entry: dict[str, str | None] | None = Field(description="`old` and `new`, when it begins at another node.")
    nodes: list[State] = Field(description="Nodes that were added, removed or changed, with their cells.")
    text: str = Field(description="The same for people.")


class Source(Answer):
    """The rows of a workflow, as its file has them."""

    graph_id: str
    file: str
    columns: list[State] = Field(description="`letter` and `name` of each column of the file.")
    rows: list[State] = Field(description="`row` is the number that a spreadsheet shows; `cells` are as written.")
    diagnostics: list[State]
    changed: bool = Field(description="The file is not as it was when it was read.")


class Drawing(Answer):
    """A workflow's graph."""


class InputSchema(Answer):
    """A JSON Schema of the initial state."""


class Findings(Answer):
    """What is wrong with a workflow file."""


class Health(Answer):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Answer):
    """Whether executions can be started here."""

    ready: bool
    reason: str = Field("", description="Why not.")


class Reloaded(Answer):
    """What reading the files again has changed, by graph id."""

    changed: list[str]
    added: list[str]
    removed: list[str]
    unchanged: int
    stale: list[str] = Field(description="Served as they were before, because their files have errors now.")
    pending: list[str] = Field(description="Files that were being written, and are taken the next time.")
    diagnostics: list[State] = Field(description="Every error there is now.")


class AuditLog(Answer):
    """Lines of the audit log, the newest first."""

    entries: list[State]
    complete: bool = Field(description="Whether all that fit are here: neither `limit` nor the reading ended first.")


class OpenAPI(Answer):
    """An OpenAPI document."""

    openapi: str


class ProblemError(Answer):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="A JSON pointer into the body; empty for the request as a whole.")
    code: str
    message: str


class Problem(Answer):
    """A request that was refused, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Stable; branch on this.")
    request_id: str
    errors: list[ProblemError] | None = None
