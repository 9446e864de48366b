"""The models of request bodies. They refuse what they do not know."""

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


class LinksBody(Body):
    """Makes one-time links to open waits."""

    node: str | None = Field(None, description="The node that waits, or the path of the wait; all when not given.")
    assignee: str | None = Field(
        None, min_length=1, max_length=256, description="Whose answer it carries; one for each assignee when not given."
    )
    expires_in: float | None = Field(None, gt=0, le=1e9, description="Seconds that it is good for, at the most.")


class LinkAnswerBody(Body):
    """Answers with a one-time link."""

    action: Literal["answer", "approve", "reject"] = Field("answer", description="What the wait takes.")
    data: Any = Field(None, description="The answer, or the comment of an approval.")


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
