"""Options with `{fields}` in them: filled from a call's inputs and state, in one pass, and never evaluated."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from ..execution.fields import MISSING, descend
from ..execution.templates import NAME, Template
from ..execution.values import text_of
from .options import SECRET, Option
from .registry import Call

WHOLE: Final = re.compile(r"\{(" + NAME + r")\}")


class Filling:
    """What fills the options of one call.

    A text that is one `{field}` becomes the field's value as it is; elsewhere a field is put in as text. `secret:NAME`
    counts only as the row has it: a value that comes from the state is never looked up, nor filled again.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._inputs = call.inputs
        self._state: dict[str, Any] | None = None

    def option(self, row: Option) -> Any:
        """A row's option, filled; None when it is missing."""
        given = self._call.node.options
        value = next((given[key] for key in (row.name, *row.aliases) if given.get(key) is not None), row.default)
        return self(value)

    def __call__(self, value: Any, encode: Callable[[str], str] = str) -> Any:
        """A value with everything in it filled. `encode` is applied to what is put into texts."""
        if isinstance(value, dict):
            return {key: self(item, encode) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item, encode) for item in value]
        if not isinstance(value, str):
            return value
        if value.startswith(SECRET):
            return self._call.secret(value.removeprefix(SECRET))
        whole = WHOLE.fullmatch(value)
        if whole and encode is str:
            found = self._find(whole[1])
            return value if found is MISSING else found
        return self.text(value, encode)

    def text(self, template: str, encode: Callable[[str], str] = str) -> str:
        """A text with its fields put in; names that nobody has stay as they are."""
        out = ""
        for literal, name in Template(template).parts:
            out += literal
            if name:
                value = self._find(name)
                out += f"{{{name}}}" if value is MISSING else encode(text_of(value))
        return out

    def _find(self, name: str) -> Any:
        found = _field(self._inputs, name)
        if found is not MISSING:
            return found
        if self._state is None:
            self._state = self._call.state
        return _field(self._state, name)


def _field(values: dict[str, Any], name: str) -> Any:
    return values[name] if name in values else descend(values, name.split("."))
