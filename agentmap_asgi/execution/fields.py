"""Reading fields of a state: dotted paths compiled to getters, and the names that are readable but never stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from ..workflows.model import Field

SPECIAL: Final = frozenset({"last_action_success", "errors", "error", "execution_id", "graph_name", "node_name"})
"""Readable in Input_Fields, prompts and conditions; reserved in the caller's state and in Output_Field."""


class Position(Protocol):
    """Where a run of nodes stands; it answers for the special names."""

    def special(self, name: str) -> Any: ...


Getter = Callable[[dict[str, Any], Position], Any]
"""(values of the state, position) -> the field's value, or MISSING."""


class _Missing:
    """Stands for a field that is not in the state."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final[Any] = _Missing()


def getter(path: str) -> Getter:
    """A function that reads `path` (`a` or `a.b.c`) and gives MISSING when any part is absent.

    A field whose own name contains dots is found before the path is taken apart.
    """
    if path in SPECIAL:
        return lambda values, position: position.special(path)
    head, *rest = path.split(".")
    if not rest:
        return lambda values, position: values.get(path, MISSING)

    def read(values: dict[str, Any], position: Position) -> Any:
        if path in values:
            return values[path]
        value = position.special(head) if head in SPECIAL else values.get(head, MISSING)
        return descend(value, rest)

    return read


def descend(value: Any, parts: list[str]) -> Any:
    """Follow `parts` into nested objects; list items are reached by their number."""
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and part.isdecimal() and len(part) < 10 and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


Binding = tuple[str, Getter]
"""(parameter name the agent sees, getter of the state field it is filled from)"""


def bind(inputs: Sequence[Field], expected: Sequence[str] = ()) -> tuple[Binding, ...]:
    """The inputs of a node. `expected` parameter names are bound by position when no entry has a colon."""
    if expected and all(entry.parameter is None for entry in inputs):
        names = [*expected[: len(inputs)], *(entry.source for entry in inputs[len(expected) :])]
        return tuple((name, getter(entry.source)) for name, entry in zip(names, inputs, strict=True))
    return tuple((entry.parameter or entry.source, getter(entry.source)) for entry in inputs)


def gather(bindings: Sequence[Binding], values: dict[str, Any], position: Position) -> dict[str, Any]:
    """The inputs as an object; absent fields are None."""
    found = {}
    for name, get in bindings:
        value = get(values, position)
        found[name] = None if value is MISSING else value
    return found


def finder(bindings: Sequence[Binding], *, state: bool) -> Callable[[str], Getter]:
    """How a name in a Prompt or a condition is found: in the inputs, then (if `state`) in the state."""
    inputs = dict(bindings)

    def find(path: str) -> Getter:
        head, *rest = path.split(".")
        get = inputs.get(path)
        if get is None and head in inputs:
            get, parts = inputs[head], rest
            return lambda values, position: descend(get(values, position), parts)
        if get is None:
            return getter(path) if state else lambda values, position: MISSING
        return lambda values, position: None if (value := get(values, position)) is MISSING else value

    return find
