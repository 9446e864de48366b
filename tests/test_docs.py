"""The documentation is true: its programs run, its tables are the package's tables, its links lead somewhere.

How pages are written: the ```python blocks of a page are one program, run from top to bottom in an empty folder. A
block after a line `<!-- file: NAME -->` is written to that file first. `<!-- no-run: REASON -->` skips a block.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
import types
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.agents.registry import ABSENT
from agentmap_asgi.workflows.loader import read_workflows

ROOT = Path(__file__).parent.parent
tables = types.SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "tables.py")))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
READMES = sorted((ROOT / "examples").glob("*/README.md"))
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>file|no-run): (?P<text>[^\n]+?) -->\n+)?^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    language: str
    body: str
    line: int
    file: str | None
    skipped: bool


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(
            found["language"],
            found["body"],
            text.count("\n", 0, found.start("body")),
            found["text"] if found["mark"] == "file" else None,
            found["mark"] == "no-run",
        )


def label(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_no_document_holds_what_a_merge_left() -> None:
    """Every conflict of a merge has been settled before a document is published."""
    left = [
        f"{label(page)}:{number}"
        for page in [*PAGES, *READMES, *sorted(ROOT.glob("*.md"))]
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith(("<<<<<<<", ">>>>>>>"))
    ]
    assert left == []


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_the_programs_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ```python block, in order, in one namespace; errors name the page's own lines."""
    blocks = list(blocks_of(page))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for block in blocks:
        if block.file is not None:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks:
        if block.language == "python" and not block.skipped:
            exec(compile("\n" * block.line + block.body, label(page), "exec"), module.__dict__)


def commands(body: str) -> Iterator[str]:
    """The commands of a shell block; one may go on over several lines, by a backslash or inside quotes."""
    waiting = ""
    for line in body.replace("\\\n", " ").splitlines():
        waiting = f"{waiting}\n{line}" if waiting else line
        if waiting.count("'") % 2 == 0:
            if waiting.strip() and not waiting.lstrip().startswith("#"):
                yield waiting
            waiting = ""
    assert waiting == "", "a quote is not closed"


SHELL = [
    pytest.param(command, id=f"{label(page)}-{block.line}-{number}")
    for page in [*PAGES, *READMES]
    for block in blocks_of(page)
    if block.language in {"sh", "bash", "console"}
    for number, command in enumerate(commands(block.body))
]


@pytest.mark.parametrize("line", SHELL)
def test_shell_lines_can_be_typed(line: str) -> None:
    """They parse; a curl sends JSON that is JSON; a `make` names a target that exists."""
    words = shlex.split(line, comments=True)
    if words[0] == "curl":
        for flag, value in pairwise(words):
            if flag in {"-d", "--data", "--json"} and not value.startswith("@"):
                json.loads(value)
        assert any(re.match(r"https?://(127\.0\.0\.1|localhost):\d+/", word) for word in words), (
            "curl without an address"
        )
    if "make" in words:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in words[words.index("make") + 1 :]:
            assert "=" in target or re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *READMES, ROOT / "AGENTS.md", ROOT / "CHANGELOG.md"], ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files of the repository, and headings that exist in them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{label(page)} links to {target}"
        assert file.is_relative_to(ROOT), f"{label(page)} links out of the repository: {target}"
        if anchor:
            assert anchor in anchors(file), f"{label(page)} links to {target}, which has no such heading"


def test_every_page_is_in_the_index() -> None:
    """`docs/index.md` links all of `docs/`."""
    linked = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    assert sorted({*linked, "index.md"}) == sorted(page.name for page in PAGES[1:])


def test_the_tables_are_those_of_the_package() -> None:
    """Settings, columns, agents, operations, diagnostics, errors: `make docs` writes them, and somebody has done so."""
    pages = {page.name: page.read_text(encoding="utf-8") for page in PAGES[1:]}
    behind = [name for name, text in pages.items() if tables.written(text) != text]
    assert behind == [], "run `make docs`"
    assert sorted(found[2] for text in pages.values() for found in tables.MARKED.finditer(text)) == sorted(
        tables.tables()
    )


def test_every_built_in_agent_has_a_heading() -> None:
    """A page says more about each than its row in `docs/agents.md`."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES[1:])
    headings = " ".join(re.findall(r"^### (.+)$", pages, re.MULTILINE))
    assert [a.name for a in BUILTINS if f"`{a.name}`" not in headings] == []


def test_absent_agents_are_named() -> None:
    """`docs/agents.md` says which of AgentMap's agents are not built in."""
    page = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    assert [name for name in ABSENT.values() if f"`{name}`" not in page] == []


def csv_blocks() -> Iterator[tuple[str, Block]]:
    """But for those of the page on what is wrong; `tests/workflows/test_diagnostics_page.py` has these."""
    for page in PAGES:
        if page.name == "diagnostics.md":
            continue
        for block in blocks_of(page):
            if block.language == "csv":
                yield label(page), block


@pytest.mark.parametrize(("page", "block"), list(csv_blocks()), ids=lambda thing: getattr(thing, "file", thing))
def test_the_workflows_of_a_page_are_right(page: str, block: Block) -> None:
    """Nothing is wrong with them but agents that the page itself registers or configures."""
    found = read_workflows(block.body.encode(), block.file or "page.csv", registry=BUILTINS).findings
    assert [str(one) for one in found if one.code not in ("AM-A001", "AM-A009")] == []
