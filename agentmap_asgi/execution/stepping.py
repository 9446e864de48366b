"""The outcome of a node as an engine's journal keeps it: a JSON text. What the journal has is not done again.

A text is an object: `value` (what was read of the agent's result), `error` or `wait`; the `attempt` it came of;
`retried`, the attempts before it; and `usage`, what all of them have used. Journals lie in databases that others may
write to, so texts are read strictly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..errors import Interrupted, NodeFailure, ResultInvalid
from .plan import PlanNode
from .records import RETRIED
from .waits import Suspend
from .walker import Token

if TYPE_CHECKING:
    from ..engines.engine import Journal

Run = Any
"""An `executor.Run`, whose performing half imports this module."""
T = TypeVar("T")

WAIT: Final = ("prompt", "type", "options", "form", "assignees", "value", "expires_in", "on_timeout")
"""What a wait is made of."""


def step_of(run: Run, token: Token, item: int | None = None) -> str:
    """The name of a node's run among all of an execution."""
    step = f"{run.plan.nodes[token.at].name}#{token.visit}" + ("" if item is None else f"/{item}")
    return f"{run.path}/{step}" if run.path else step


async def stepped(
    run: Run,
    journal: Journal,
    token: Token,
    node: PlanNode,
    values: dict[str, Any],
    item: int | None,
    read: Callable[[Any, int], T],
) -> tuple[T, int]:
    """As `run.tries`, but with what the journal has; else the outcome is kept there before it counts."""
    live: BaseException | None = None
    mine = False

    async def work() -> str:
        nonlocal live, mine
        mine = True
        noted: list[tuple[int, dict[str, Any], float]] = []
        try:
            value, attempt = await run.tries(token, node, values, item, read, noted)
        except Suspend as suspend:
            live = suspend
            found: dict[str, Any] = {"wait": _waiting(suspend), "attempt": 1}
        except NodeFailure as failure:
            live = failure
            error = {"code": failure.code, "message": run.masked(failure.message)}
            found = {"error": error, "attempt": getattr(failure, "attempt", 1)}
        else:
            found = {"value": run.masked(value), "attempt": attempt}
        found |= {"retried": noted, "usage": run.extra.spent.get((token.at, token.visit, item), {})}
        return json.dumps(found, separators=(",", ":"))

    known = 1 if item is not None else run.extra.attempts.get((token.at, token.visit), 1)
    text = await journal.outcome(step_of(run, token, item), work)
    if mine and live is not None:
        raise live
    try:
        found = _read(text)
        if not mine:
            run.extra.attempts.pop((token.at, token.visit), None)
            run.spend(token, item, found["usage"])
            for attempt, error, delay in found["retried"]:
                if attempt >= known:  # the store has not been told
                    now = run.host.context.clock.monotonic_ns()
                    run.record(RETRIED, token, now, now, (attempt, error, delay))
        if "value" not in found:
            raise _again(found)
        value: Any = found["value"]
        made: Any = tuple(value) if item is None else value
        return made, found["attempt"]
    except (KeyError, TypeError, ValueError, RecursionError) as exc:
        raise Interrupted(f"What the engine has of {step_of(run, token, item)} is damaged") from exc


def _waiting(suspend: Suspend) -> dict[str, Any] | None:
    """None when it is no JSON, which its node is told when it waits."""
    found = {name: getattr(suspend, name) for name in WAIT}
    try:
        json.dumps(found)
    except (TypeError, ValueError, RecursionError):
        return None
    return found


def _read(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict) or len(found.keys() & {"value", "error", "wait"}) != 1:
        raise ValueError
    return found


def _again(found: dict[str, Any]) -> BaseException:
    """What a node raised, made again from the record of it."""
    if "wait" in found:
        if found["wait"] is None:
            return ResultInvalid("What the agent waits for is no JSON")
        return Suspend(**{name: found["wait"][name] for name in WAIT})
    code, message = found["error"]["code"], found["error"]["message"]
    kind = next((one for one in _kinds(NodeFailure) if one.code == code), NodeFailure)
    failure = kind(message)
    failure.attempt = found["attempt"]  # type: ignore[attr-defined]
    return failure


def _kinds(kind: type[NodeFailure]) -> Iterator[type[NodeFailure]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
