"""The table of diagnostics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import agentmap_asgi
from agentmap_asgi.workflows.codes import CODES, Code, diagnostic

PACKAGE = Path(agentmap_asgi.__file__).parent


def test_codes_are_of_the_known_families() -> None:
    """Encoding, dialect, headers, names, routing, fields, agents, conditions, values; numbered without gaps."""
    assert all(re.fullmatch(r"AM-[EDHNRFAXV]\d{3}", code) for code in CODES)
    for family in "EDHNRFAXV":
        numbers = [int(code[4:]) for code in CODES if code[3] == family]
        assert numbers == list(range(1, len(numbers) + 1))


def test_every_code_in_the_package_is_in_the_table() -> None:
    """And every row of the table is used somewhere."""
    used = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name != "codes.py":
            used |= set(re.findall(r"AM-[A-Z]\d{3}", path.read_text(encoding="utf-8")))
    assert used == set(CODES)


@pytest.mark.parametrize("row", CODES.values(), ids=lambda row: row.code)
def test_every_row_says_what_and_what_to_do(row: Code) -> None:
    """A title that names the problem and a remedy that is a sentence."""
    assert row.title[0].isupper()
    assert not row.title.endswith(".")
    assert row.remedy.endswith(".")


def test_severity_and_hint_come_from_the_table() -> None:
    """Unless they are given."""
    plain = diagnostic("AM-E001", "No text")
    assert (plain.severity, plain.hint) == (CODES["AM-E001"].severity, CODES["AM-E001"].remedy)
    given = diagnostic("AM-E001", "No text", severity="info", hint="")
    assert (given.severity, given.hint, str(given)) == ("info", "", ": AM-E001 No text")
