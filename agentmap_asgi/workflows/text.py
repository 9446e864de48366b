"""Texts as people and spreadsheets write them: invisible characters, typographic signs, words for nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from ..errors import nearest
from .diagnostics import Severity

NOTHING: Final = frozenset({"None", "null", "nan", "NaN", "NA", "N/A"})
"""Words that read as an empty cell when they stand alone in a structural cell."""

ERROR_VALUES: Final = frozenset(
    {"#REF!", "#N/A", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!"}
)
"""What a spreadsheet writes for a formula that failed."""

_SIGNS: Final = str.maketrans(
    {
        **dict.fromkeys("\u00a0\u2007\u202f", " "),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
        **dict.fromkeys("\u2018\u2019\u201a\u201b", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    }
)

SIGNS: Final = re.compile("[" + "".join(map(chr, _SIGNS)) + "]")
"""Any sign that `normalised` replaces."""

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_DATE = re.compile(
    rf"\d{{1,4}}([-/.])\d{{1,2}}\1\d{{1,4}}(?: \d\d?:\d\d(?::\d\d)?)?|\d{{1,2}}-{_MONTH}(?:-\d\d(?:\d\d)?)?", re.I
)
_POWER = re.compile(r"\d(?:[.,]\d+)?E[+-]\d+", re.I)


class Problem(NamedTuple):
    """What is wrong with the text of a cell, wherever the cell is."""

    code: str
    message: str
    text: str | None = None
    hint: str | None = None
    severity: Severity | None = None
    """Only when it differs from the table's."""
    fix: str | None = None


def normalised(text: str) -> str:
    """A structural text: trimmed, typographic spaces, quotes and dashes made plain, invisible characters removed."""
    return text.strip() if text.isascii() else text.translate(_SIGNS).strip()


def structural(text: str) -> tuple[str, tuple[Problem, ...]]:
    """A name or another structural cell, normalised, with what is suspicious about it."""
    value = normalised(text)
    if value in NOTHING:
        return "", (Problem("AM-N005", f"{value!r} reads as an empty cell", value),)
    suspect = spoiled(value)
    return value, (suspect,) if suspect else ()


def spoiled(value: str) -> Problem | None:
    """A value that a spreadsheet has likely made of something else."""
    if not value or not (value[0].isdigit() or value[0] == "#"):
        return None
    if value in ERROR_VALUES:
        return Problem("AM-V002", f"The cell holds the spreadsheet error {value}", value)
    if _DATE.fullmatch(value):
        return Problem("AM-V001", f"{value!r} looks like a date that a spreadsheet made of a name", value)
    if _POWER.fullmatch(value):
        return Problem("AM-V001", f"{value!r} looks like a number that a spreadsheet has shortened", value)
    return None


class Guess:
    """The known word most like a wrong one. Comparing is slow, so each file has a bound; past it there is no guess."""

    __slots__ = ("left",)

    def __init__(self, work: int = 8_000_000) -> None:
        """`work` is in pairs of characters that are compared."""
        self.left = work

    def __call__(self, word: str, known: Collection[str], *, cutoff: float = 0.6) -> str | None:
        if self.left <= 0 or len(word) > 100:
            return None
        close = [name for name in known if len(word) <= 3 * len(name) <= 9 * len(word)]
        self.left -= len(word) * sum(map(len, close)) + len(known)
        return nearest(word, close, cutoff=cutoff) if self.left >= 0 else None
