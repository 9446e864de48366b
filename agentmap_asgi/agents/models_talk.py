"""What a model is asked and what it says, whoever the provider is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class ToolShown(Protocol):
    """A tool as a model sees it."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def schema(self) -> Mapping[str, Any]: ...


class ToolUse(NamedTuple):
    """A model asks for a tool."""

    id: str
    name: str
    arguments: Any
    """An object, or its JSON as the model has written it."""


class Question(NamedTuple):
    """What a model is asked."""

    system: str
    user: str
    history: tuple[tuple[str, str], ...] = ()
    """(role, text) of what was said before; roles are `user` and `assistant`."""
    tools: tuple[ToolShown, ...] = ()
    must_use_tool: bool = False
    schema: Mapping[str, Any] | None = None
    """A JSON Schema of an object that the answer has to be."""
    temperature: float | None = None
    max_tokens: int | None = None
    stream: bool = False


class Reply(NamedTuple):
    """What a model says."""

    text: str
    calls: tuple[ToolUse, ...]
    used: dict[str, int]
    cut: bool
    """It was at `max_tokens`, and is not complete."""
    raw: Any
    """As the library has it, to be told the model again."""
