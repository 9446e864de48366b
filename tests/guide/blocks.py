"""The guide's code blocks, and what has to be corrected in them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

GUIDE = Path(__file__).parent / "fastapi-integration-guide.md"
_PART = re.compile(r"^### (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A code block under its heading."""

    heading: str
    language: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One thing that is wrong with a block. Without this correction, and with all others, the block fails as said."""

    wrong: str
    """What a reader of the documentation is told."""
    old: str = ""
    """The text of the block; empty for something that is missing at its beginning."""
    new: str
    also: tuple[tuple[str, str], ...] = ()
    """Further places, as (old, new)."""
    fails: type[BaseException] | tuple[type[BaseException], ...]
    match: str
    """What the failure says."""
    since: tuple[int, int] = (3, 0)
    """The Python in which it fails."""

    def apply(self, text: str) -> str:
        for old, new in ((self.old, self.new), *self.also):
            assert not old or text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
            text = text.replace(old, new) if old else new + text
        return text


def blocks() -> Iterator[Block]:
    """All blocks of the guide. The heading is without number and picture."""
    heading = ""
    for found in _PART.finditer(GUIDE.read_text(encoding="utf-8")):
        if found["heading"]:
            heading = re.sub(r"^(\d+\. |[^\x00-\x7f]\S* )", "", found["heading"])
        else:
            yield Block(heading, found["language"], found["body"])


def renamed(text: str) -> str:
    """The block for this package: only the imports change."""
    return re.sub(r"^(from|import) agentmap\b", r"\1 agentmap_asgi", text, flags=re.MULTILINE)


def corrected(text: str, corrections: tuple[Correction, ...], without: Correction | None = None) -> str:
    """The block with its corrections, but for one."""
    for correction in corrections:
        if correction is not without:
            text = correction.apply(text)
    return renamed(text)


class Program:
    """A block that has been run: its names are attributes."""

    def __init__(self, text: str, name: str) -> None:
        self._module = ModuleType(name)
        sys.modules[name] = self._module
        exec(compile(text, f"<{name}>", "exec"), self._module.__dict__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
