"""Prompt templates: `{field}`, `{a.b}`, literal `{{` and `}}`; one pass, no format specs, no evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..errors import OutputTooLarge
from .fields import MISSING, Getter, Position, getter
from .values import text_of

NAME: Final = r"[^\W\d][\w-]*(?:\.[\w-]+)*"
_PART = re.compile(r"\{\{|\}\}|\{(" + NAME + r")\}")

Renderer = Callable[[dict[str, Any], Position], str]


class Template:
    """A parsed template. `names` are the fields it mentions, in order, without repeats."""

    __slots__ = ("names", "parts")

    def __init__(self, text: str) -> None:
        self.parts: list[tuple[str, str | None]] = []
        """(literal text, name that follows it or None)"""
        literal, end = "", 0
        for match in _PART.finditer(text):
            literal += text[end : match.start()]
            end = match.end()
            if match[1] is None:
                literal += match[0][0]
            else:
                self.parts.append((literal, match[1]))
                literal = ""
        if literal or end < len(text):
            self.parts.append((literal + text[end:], None))
        self.names = tuple(dict.fromkeys(name for _, name in self.parts if name))

    def compile(self, find: Callable[[str], Getter] = getter, *, limit: int | None = None) -> Renderer:
        """A function that renders the template over a state.

        `find` turns a name into its getter. A name that is MISSING stays as it was written. `limit` bounds the length
        of the text (OutputTooLarge).
        """
        if not any(name for _, name in self.parts):
            text = "".join(literal for literal, _ in self.parts)
            return lambda values, position: text
        compiled: Sequence[tuple[str, Getter | None, str]] = [
            (literal, find(name) if name else None, f"{{{name}}}") for literal, name in self.parts
        ]

        def render(values: dict[str, Any], position: Position) -> str:
            out = ""
            for literal, get, written in compiled:
                out += literal
                if get is not None:
                    value = get(values, position)
                    if value.__class__ is str:
                        out += value
                    else:
                        out += written if value is MISSING else text_of(value)
                    if limit is not None and len(out) > limit:
                        raise OutputTooLarge(f"The rendered Prompt has more than {limit} characters")
            return out

        return render
