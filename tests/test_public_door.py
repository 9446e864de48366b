"""What `import agentmap_asgi` offers, and that the reference describes all of it."""

from __future__ import annotations

import re
import types
from pathlib import Path

import agentmap_asgi

REFERENCE = Path(__file__).parent.parent / "docs" / "reference.md"


def test_the_public_names_are_sorted() -> None:
    """`__all__` is a list one can search with the eye."""
    assert list(agentmap_asgi.__all__) == sorted(set(agentmap_asgi.__all__))


def test_nothing_leaks() -> None:
    """What is not public is not there, modules excepted; what is public is there."""
    visible = {
        name
        for name in dir(agentmap_asgi)
        if not name.startswith("_") and not isinstance(getattr(agentmap_asgi, name), types.ModuleType)
    }
    assert visible - {"annotations"} == {name for name in agentmap_asgi.__all__ if not name.startswith("_")}


def test_every_public_name_is_in_the_reference() -> None:
    """A heading for each name, and no heading for a name that does not exist."""
    headings = re.findall(r"^### `(\w+)", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(name for name in agentmap_asgi.__all__ if not name.startswith("_"))


def test_every_public_thing_says_what_it_is() -> None:
    """A docstring for each class and function."""
    silent = [
        name
        for name in agentmap_asgi.__all__
        if callable(thing := getattr(agentmap_asgi, name)) and not (thing.__doc__ or "").strip()
    ]
    assert silent == []
