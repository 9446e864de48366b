"""The page on diagnostics has a section for each code, and its examples have what they are said to have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sheets import REGISTRY, codes

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.workflows.codes import CODES
from agentmap_asgi.workflows.loader import read_workflows
from agentmap_asgi.workflows.paths import check_paths

PACKAGE = Path(__file__).parents[2]
PAGE = (PACKAGE / "docs" / "diagnostics.md").read_text(encoding="utf-8")
SECTIONS = {text[:7]: text for text in re.split(r"^###? ", PAGE, flags=re.MULTILINE)[1:] if text.startswith("AM-")}
EXAMPLES = {code: found[1] for code, text in SECTIONS.items() if (found := re.search(r"```csv\n(.*?)```", text, re.S))}


def test_every_code_has_a_section() -> None:
    """In the order of the table."""
    assert list(SECTIONS) == list(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_section_says_what_and_what_to_do(code: str) -> None:
    """In the words of the table, and why."""
    row = CODES[code]
    head, *_, remedy = [part.strip() for part in SECTIONS[code].split("\n\n") if part.strip() and "## " not in part]
    assert head.startswith(f"{code}\n**{row.title}** ({row.severity}). ")
    assert head.endswith(".")
    assert remedy == f"Remedy: {row.remedy}"


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_has_its_code(code: str) -> None:
    """When it is loaded, or path by path."""
    found = read_workflows(
        EXAMPLES[code].encode(),
        "flows.csv",
        registry=REGISTRY,
        services=frozenset(),
        functions=frozenset({"pick"}),
        config=AgentMapConfig(prompts_path=str(PACKAGE)),
    )
    told = [*codes(found), *(one.code for workflow in found.workflows for one in check_paths(workflow, REGISTRY))]
    assert code in told


def test_most_codes_have_an_example() -> None:
    """But for those of bytes, of spreadsheets and of sizes, which a page cannot show."""
    without = CODES.keys() - EXAMPLES.keys()
    assert {code for code in without if not code.startswith("AM-E")} == {
        *("AM-D003", "AM-D004", "AM-N008", "AM-R012", "AM-A009", "AM-V005", "AM-V006", "AM-V007"),
    }
