"""The models of request bodies and answers. Bodies refuse what they do not know; answers may grow."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ..execution.fields import SPECIAL

State = dict[str, Any]
Tag = Annotated[str, Field(min_length=1, max_length=64)]
NAME: Final = "`Name`, or `file::Name` when several files have it."


class Body(BaseModel):
    """What a caller sends."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class StateBody(Body):
    """What every start of an execution has."""

    initial_state: State | None = Field(None, description="The fields the workflow starts with.")
    inputs: State | None = Field(None, description="The same as `initial_state`, under AgentMap's own name.")
    context: State | None = Field(None, description="What the run should know beside its state; the host's words win.")

    tags: list[Tag] | None = Field(None, max_length=20, description="Words to find the execution by.")

    @field_validator("initial_state", "inputs")
    @classmethod
    def _refuse_reserved(cls, value: State | None) -> State | None:
        if value is not None and not SPECIAL.isdisjoint(value):
            name = min(SPECIAL & value.keys())
            raise PydanticCustomError("reserved_field", "The run itself sets {name}", {"name": name})
        return value

    @field_validator("inputs")
    @classmethod
    def _refuse_both(cls, value: State | None, info: ValidationInfo) -> State | None:
        if value is not None and info.data.get("initial_state") is not None:
            raise PydanticCustomError("given_twice", "inputs is another name for initial_state; give one of them")
        return value

    @property
    def state(self) -> State:
        """The initial state, under whichever name it came."""
        return self.initial_state if self.initial_state is not None else self.inputs or {}


class RunBody(StateBody):
    """Starts an execution of the workflow that the path names."""

    execution_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$", description="The execution's id, when the caller has one."
    )
    mode: Literal["sync", "async"] = Field(
        "sync", description="`sync` answers when the execution has ended or waits for an answer; `async` at once."
    )
    wait_seconds: float | None = Field(
        None, ge=0, le=1_000_000, description="How long to wait for the end; no longer than the server's own limit."
    )


class ExecuteBody(RunBody):
    """Starts an execution."""

    graph_name: str = Field(
        min_length=1, max_length=512, description="`Name`, or `file::Name` when several files have it."
    )


class BatchItem(StateBody):
    """One execution of a batch."""

    graph_name: str = Field(
        min_length=1, max_length=512, description="`Name`, or `file::Name` when several files have it."
    )

    idempotency_key: str | None = Field(
        None, pattern=r"^[!-~]{1,255}$", description="The same key gives the same execution."
    )


class ResumeBody(Body):
    """Answers an open wait."""

    action: Literal["answer", "approve", "reject", "cancel"] = Field(
        "answer", description="`cancel` ends the execution."
    )
    data: Any = Field(None, description="The answer, or the comment of an approval.")
    node: str | None = Field(None, description="The node that waits, when there are several.")
    token: str | None = Field(None, description="The `path` of the wait, when a node waits in several places.")


class RetryBody(Body):
    """Runs an execution again as a new one."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    start: str = Field(
        "failed",
        alias="from",
        min_length=1,
        max_length=512,
        description="`failed`, `start`, or a node (`node#visit` in a loop), from which on nodes run again.",
    )
    definition: Literal["pinned", "latest"] = Field("pinned", description="Which version of the workflow runs.")
    state_patch: State | None = Field(None, description="Fields to change for the nodes that run again.")
    dry_run: bool = Field(False, description="Only say what would run.")


class BatchBody(Body):
    """Starts several executions; each item is looked at by itself."""

    executions: list[Any] = Field(
        description="Objects with `graph_name`, `initial_state` and `context`. Each is accepted or refused by itself."
    )
    max_concurrency: int | None = Field(
        None, ge=1, le=1_000, description="How many may run at once; 32 when not given."
    )


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
