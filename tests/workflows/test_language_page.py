"""The page on the language says what the reader does."""

from __future__ import annotations

import re
from pathlib import Path

from sheets import REGISTRY, load

from agentmap_asgi.workflows import cells, options
from agentmap_asgi.workflows.codes import CODES
from agentmap_asgi.workflows.paths import check_paths

PAGE = (Path(__file__).parents[2] / "docs" / "csv-language.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def examples(title: str) -> list[str]:
    """First cells of the tables under a heading."""
    found = re.findall(r"^\| `(.+?)` \|", section(title), re.MULTILINE)
    return [text.replace("\\|", "|") for text in found]


def test_its_example_is_clean() -> None:
    """No diagnostics, neither when it is loaded nor path by path."""
    (text,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    loaded = load(text)
    assert loaded.findings == ()
    assert check_paths(loaded.workflows[0], REGISTRY) == ()


def test_its_cells_are_understood() -> None:
    """Every form in the tables parses; only the function without targets is warned about."""
    assert [p.code for text in examples("Routing cells") for p in cells.route(text)[1]] == ["AM-R007"]
    assert [p for text in examples("Field cells") for p in cells.inputs(text)[1]] == []
    contexts = re.findall(r"^\| [^|]+ \| `(.+?)`", section("Context"), re.MULTILINE)
    assert len(contexts) == 4
    assert [p for text in contexts for p in options.context(text)[1]] == []


def test_its_codes_exist() -> None:
    """Each code it mentions is in the table of diagnostics."""
    assert set(re.findall(r"AM-\w\d+", PAGE)) <= set(CODES)
