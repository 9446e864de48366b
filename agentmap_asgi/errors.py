"""Every error this package raises on purpose.

AgentMapError
├── ConfigError              a setting or a constructor argument is wrong
│   └── StoreUnusable        the file of the store is not one, or cannot be used
├── RequestRefused           a call was not accepted; nothing was started
│   ├── UnknownWorkflow
│   ├── AmbiguousWorkflow
│   ├── WorkflowInvalid
│   ├── InputInvalid
│   ├── UnknownExecution
│   ├── ExecutionConflict    the execution is not in a state for this
│   ├── AnswerGone           what was waited for has expired
│   ├── LinkUnknown          a one-time link that was not made here
│   ├── LinkExpired
│   ├── LinkUsed
│   ├── KeyReused            an idempotency key came with another request before
│   ├── StoreUnavailable
│   ├── Overloaded
│   └── ShuttingDown
├── StoreDamaged             what the store has of one execution is not what was written
├── ExecutionFailed          an execution ended without success, where a caller wants an exception
└── NodeFailure              a node ended without a result; the execution routes or fails
    ├── AgentFailed          the agent raised
    ├── NodeTimeout
    ├── ResultInvalid        the result does not survive JSON
    ├── OutputTooLarge
    ├── RoutingInvalid       a routing function or a router chose what it must not
    ├── ServiceMissing
    ├── NotAllowed           a path, host or statement that the settings do not allow
    ├── DataUnusable         a file, a row or an answer that is missing or not understood
    ├── RemoteFailed         another host could not be reached, broke off, or answered with an error
    ├── MapOverInvalid
    ├── SubworkflowFailed
    ├── ModelUnavailable     no model answered; it may the next time
    ├── ModelFailed          a provider refused the request
    ├── ModelAnswerInvalid   a model's answer is not what was asked for
    ├── ToolFailed           a tool raised, or could not be called
    ├── WaitExpired
    ├── Interrupted          a process ended under a node that must not run twice, or an agent is gone
    └── LimitReached         a bound of the execution was hit; never routed to Failure_Next
        ├── StepLimit
        ├── BranchLimit
        ├── DepthLimit
        ├── StateTooLarge
        ├── DeadlineExceeded
        └── Cancelled

Each class has a stable `code` and an HTTP `status`; its docstring says how to mend it. Message texts may change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class AgentMapError(Exception):
    """Base of all errors of this package."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])

    @property
    def message(self) -> str:
        return str(self.args[0])


class ConfigError(AgentMapError):
    """A setting is unknown, has the wrong type, or contradicts another; the message names it and the remedy."""

    code = "config_invalid"


class StoreUnusable(ConfigError):
    """The place that `storage_url` names holds no store that can be used here; the message says why."""

    code = "store_unusable"
    status = 503


class StoreDamaged(AgentMapError):
    """What the store has of an execution is not what was written; `agentmap-asgi store check` names all such places."""

    code = "store_damaged"

    def __init__(self, execution_id: str | None, reason: str, *, unread: bool = False) -> None:
        """`unread` says that it may be whole: the codec of this process cannot read it."""
        self.execution_id = execution_id
        self.unread = unread
        what = f"What the store has of execution {execution_id}" if execution_id else "The store"
        super().__init__(f"{what} is damaged: {reason}")


class RequestRefused(AgentMapError):
    """The call was not accepted and nothing was started."""

    code = "refused"
    status = 400


class UnknownWorkflow(RequestRefused):
    """No workflow has this name; `GET /list` shows those that exist."""

    code = "workflow_unknown"
    status = 404

    def __init__(self, name: str, close: Sequence[str] = ()) -> None:
        self.name = name
        self.close = tuple(close)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        super().__init__(f"There is no workflow {name!r}{hint}")


class AmbiguousWorkflow(RequestRefused):
    """Several files have a workflow of this name; call it as `file::Name`."""

    code = "workflow_ambiguous"
    status = 409

    def __init__(self, name: str, candidates: Sequence[str]) -> None:
        self.name = name
        self.candidates = tuple(candidates)
        super().__init__(f"{name!r} is in several files; call one of {', '.join(candidates)}")


class WorkflowInvalid(RequestRefused):
    """The workflow has errors in its CSV file and cannot be started; mend the rows its diagnostics name."""

    code = "graph_invalid"
    status = 409

    def __init__(self, name: str, diagnostics: Sequence[Any] = ()) -> None:
        self.name = name
        self.diagnostics = tuple(diagnostics)
        first = f": {diagnostics[0]}" if diagnostics else ""
        more = f" (and {len(diagnostics) - 1} more)" if len(diagnostics) > 1 else ""
        super().__init__(f"The workflow {name!r} has errors{first}{more}")


class InputInvalid(RequestRefused):
    """The initial state is not a JSON object, or breaks the workflow's declared input schema."""

    code = "invalid_request"
    status = 422

    def __init__(
        self, message: str | None = None, *, pointer: str = "", errors: Sequence[Mapping[str, str]] = ()
    ) -> None:
        """`errors` are objects with pointer, code and message, one for each place; else `pointer` is the place."""
        super().__init__(message)
        self.errors = tuple(errors) or ({"pointer": pointer, "code": self.code, "message": self.message},)


class UnknownExecution(RequestRefused):
    """No execution has this id, or it is not visible to the caller."""

    code = "execution_unknown"
    status = 404


class ExecutionConflict(RequestRefused):
    """The execution is not in a state in which this can be done; its status says which it is in."""

    code = "conflict"
    status = 409


class AnswerGone(RequestRefused):
    """The wait has expired; the execution has gone on without an answer."""

    code = "gone"
    status = 410


class LinkUnknown(RequestRefused):
    """The link is not one of this service; look whether the whole of it was copied."""

    code = "link_unknown"
    status = 404


class LinkExpired(RequestRefused):
    """The link was good until a time that is over; ask whoever sent it for a new one."""

    code = "link_expired"
    status = 410


class LinkUsed(RequestRefused):
    """What the link asks has been answered, or is asked no more."""

    code = "link_used"
    status = 410


class KeyReused(RequestRefused):
    """The idempotency key was used before with another request; take a new key for a new request."""

    code = "idempotency_key_reused"
    status = 422


class StoreUnavailable(RequestRefused):
    """The store cannot be written or read just now (full, locked or gone); nothing was changed, try again."""

    code = "store_unavailable"
    status = 503


class Overloaded(RequestRefused):
    """As many executions run and wait as `max_running` and `max_queued` allow; try again later."""

    code = "overloaded"
    status = 503


class ShuttingDown(RequestRefused):
    """The process is stopping and starts nothing new; try again, another worker will answer."""

    code = "shutting_down"
    status = 503


class ExecutionFailed(AgentMapError):
    """An execution failed or was cancelled and nothing took its place; `document` says what happened."""

    code = "execution_failed"

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        error = document.get("error") or {}
        self.reason = str(error.get("code") or document.get("status"))
        super().__init__(
            f"The workflow {document.get('graph_name')!r} ended {document.get('status')}: "
            f"{error.get('message') or 'it has no error'}"
        )


class NodeFailure(AgentMapError):
    """A node ended without a result."""

    code = "node_failed"
    retryable: ClassVar[bool] = False


class AgentFailed(NodeFailure):
    """The agent raised; the message carries the exception's type and text."""

    code = "agent_error"
    retryable = True


class NodeTimeout(NodeFailure):
    """An attempt took longer than the row's Timeout."""

    code = "timeout"
    retryable = True


class ResultInvalid(NodeFailure):
    """The agent's result cannot be written as JSON; the message names the place."""

    code = "result_invalid"


class OutputTooLarge(NodeFailure):
    """One node's output is larger than `max_output_bytes`."""

    code = "output_too_large"


class RoutingInvalid(NodeFailure):
    """A routing function or a router named a node that does not exist or was not declared."""

    code = "routing_invalid"


class ServiceMissing(NodeFailure):
    """An agent asked for a service that the context object does not have."""

    code = "service_missing"


class NotAllowed(NodeFailure):
    """The node wanted a path, host or statement that the settings do not allow; the message names it."""

    code = "not_allowed"


class DataUnusable(NodeFailure):
    """A file, a row or an answer is missing, too large, or not what was expected; the message names it."""

    code = "data_unusable"


class RemoteFailed(NodeFailure):
    """Another host could not be reached, broke off, or answered with an error status; the message names both."""

    code = "remote_failed"
    retryable = True

    def __init__(self, message: str | None = None, *, unsent: bool = False) -> None:
        """`unsent` says that nothing has reached the other side."""
        super().__init__(message)
        self.unsent = unsent


class MapOverInvalid(NodeFailure):
    """The field that a row's Map_Over names is not a list."""

    code = "map_over_invalid"


class SubworkflowFailed(NodeFailure):
    """The workflow that a `graph` node ran has failed; the message carries its error."""

    code = "subworkflow_failed"
    retryable = True


class ModelUnavailable(NodeFailure):
    """No model answered: rate limits, time-outs, connections or errors of the provider, and no fallback left."""

    code = "model_unavailable"
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        """`retry_after` are seconds, when the provider says so."""
        super().__init__(message)
        self.retry_after = retry_after


class ModelFailed(NodeFailure):
    """The provider of a model refused the request: its key, the account, the model's name, or what was asked."""

    code = "model_failed"


class ModelAnswerInvalid(NodeFailure):
    """The model's answer does not fit its response_schema, also when asked again, or it never stops using tools."""

    code = "model_answer_invalid"
    retryable = True


class ToolFailed(NodeFailure):
    """A tool raised, or was called with arguments that it does not take; the message says which."""

    code = "tool_failed"
    retryable = True


class WaitExpired(NodeFailure):
    """Nobody answered in time, and the row has no `on_timeout`."""

    code = "wait_expired"


class Interrupted(NodeFailure):
    """A process ended under a node that may not run twice, or an agent is missing; see to that, then retry."""

    code = "interrupted"
    retryable = True


class LimitReached(NodeFailure):
    """A bound of the execution was hit; it ends the execution and no Failure_Next handles it."""

    code = "limit_reached"


class StepLimit(LimitReached):
    """The execution ran more nodes than `max_steps`; look for a loop that never ends, or raise the limit."""

    code = "step_limit"


class BranchLimit(LimitReached):
    """More branches were open at once than `max_branches` allows."""

    code = "branch_limit"


class DepthLimit(LimitReached):
    """Sub-workflows are nested deeper than `max_depth`; look for one that calls itself."""

    code = "depth_limit"


class StateTooLarge(LimitReached):
    """The state grew past `max_state_bytes`; keep large values outside and pass references."""

    code = "state_too_large"


class DeadlineExceeded(LimitReached):
    """The execution took longer than `execution_timeout` seconds."""

    code = "deadline"
    retryable = True


class Cancelled(LimitReached):
    """The execution was cancelled."""

    code = "cancelled"


def nearest(word: str, known: Sequence[str], *, cutoff: float = 0.6) -> str | None:
    """The known word most like `word` (case ignored), or None when none is close."""
    from difflib import get_close_matches  # which nobody needs who makes no mistake

    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(candidate.casefold(), candidate)
    found = get_close_matches(word.casefold(), list(folded), n=1, cutoff=cutoff)
    return folded[found[0]] if found else None
