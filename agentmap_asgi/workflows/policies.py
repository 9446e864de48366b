"""What a row's Context says to the execution itself, and options that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ..agents.options import Option, check_declared, declared
from ..agents.registry import Agent
from ..execution.limits import bound_of
from .diagnostics import Finding, Severity
from .model import Node
from .options import REPLACING
from .text import Guess

WORDS: Final = {
    "on_error": ("fail", "continue"),
    "on_item_error": ("fail", "skip", "collect"),
    "output_validation": ("ignore", "warn", "error"),
}
"""Options that take one of a few words."""

WATCHED: Final = frozenset({*WORDS, "concurrency", "idempotent", "rate"})

COMMON_OPTIONS: Final = declared(
    Option(
        "on_error", summary="continue: a raised error goes on along Edge or Success_Next.", choices=WORDS["on_error"]
    ),
    Option("idempotent", "truth", "The node may run again after a crash."),
    Option(
        "output_validation",
        summary="What keys that are missing or too many in a result of several fields mean.",
        default="ignore",
        choices=WORDS["output_validation"],
    ),
    Option(
        "on_item_error",
        summary="What one failed item of Map_Over means.",
        default="fail",
        choices=WORDS["on_item_error"],
    ),
    Option("concurrency", "any", "Runs of the node at once, over all executions; a number with Map_Over: items (10)."),
    Option("rate", "any", "Beginnings in a time, over all executions: 10/s, 100/minute, 5/10s."),
    Option("keywords", summary="Words by which an orchestrator finds the node."),
    Option("input_fields", "names", "As the column."),
    Option("output_field", "names", "As the column."),
    Option("description", summary="As the column."),
    Option("retry", "any", "As the column."),
    Option("timeout", "duration", "As the column."),
    Option("map_over", summary="As the column."),
)
"""Options that any node may have."""

COMMON: Final = WATCHED.union(REPLACING, COMMON_OPTIONS)


def check_options(node: Node, agent: Agent, guess: Guess) -> Iterator[Finding]:
    """Wrong values of the options that concern every node; names that a built-in agent has no use for."""
    given = node.options.keys()
    if not given.isdisjoint(WATCHED):
        yield from _check_values(node, agent)
    if agent.options is None:
        return
    if agent.options:
        yield from check_declared(node.options, agent.options, node.name)
    known = agent.options.keys()
    if given <= COMMON or given <= known or given <= known | COMMON:
        return
    strange: list[str] = []
    for key in sorted(given - known - COMMON):
        if key == "context":
            message = f"Context is a plain text, which the agent {agent.name!r} has no use for"
            yield Finding("AM-A008", "info", message, "Write options as {key=value} or as a JSON object.", "Context")
            continue
        near = guess(key, sorted(known | COMMON))
        if near is None:
            strange.append(key)
            continue
        hint = f"Did you mean {near!r}? As it stands it has no effect."
        yield Finding("AM-A008", "info", f"The agent {agent.name!r} has no option {key!r}", hint, "Context", key)
    if strange:
        shown = " and no ".join(map(repr, strange[:5])) + (" …" if len(strange) > 5 else "")
        message = f"The agent {agent.name!r} has no option {shown}"
        yield Finding("AM-A008", "info", message, "It is kept and has no effect.", "Context", strange[0])


def _check_values(node: Node, agent: Agent) -> Iterator[Finding]:
    for key in sorted(node.options.keys() & WATCHED):
        value = node.options[key]
        used = _used(key, node)
        wanted = _wanted(key, value)
        if wanted is None or (used is False and (agent.options is None or key in agent.options)):
            continue  # an agent of the host's may have an option of that name with another meaning
        severity: Severity = "error" if used else "warning"
        message = f"{key} cannot be {repr(value)[:60]} on {node.name!r}"
        yield Finding("AM-A004", severity, message, f"Write {wanted}.", "Context", str(value)[:200])


def _used(key: str, node: Node) -> bool | None:
    """Whether the execution looks at an option of this row; None where every row may have it."""
    if key in ("on_item_error", "concurrency", "rate"):
        return node.map_over is not None
    if key == "output_validation":
        return len(node.outputs) > 1
    return None


BOUNDS: Final = {
    "concurrency": 'concurrency as a whole number from 1 on, without quotes, or {"limit": 3, "key": "crm"}',
    "rate": 'rate as 10/s, 100/minute or 5/10s, or {"limit": "10/s", "key": "crm"}',
}


def _wanted(key: str, value: Any) -> str | None:
    """What an option takes, when it is not that."""
    if key in WORDS:
        *words, last = WORDS[key]
        return None if value in WORDS[key] else f"{key} as {', '.join(words)} or {last}"
    if key == "idempotent":
        return None if isinstance(value, bool) else "idempotent as true or false, without quotes"
    return None if bound_of(key, value) is not None else BOUNDS[key]
