"""What stands in one cell: routing, fields, lists, durations, retries. Pure functions of the cell's text.

Each parser gives (value, problems). Files repeat their cells, so `Memo` parses each text once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from ..execution.fields import SPECIAL
from .model import Field, FunctionRoute, Retry, Route
from .text import ERROR_VALUES, NOTHING, Problem, normalised, spoiled, structural

T = TypeVar("T")
Parsed = tuple[T, Sequence[Problem]]
Trouble = dict[tuple[int, str], Sequence[Problem]]
"""(column, text of the cell) -> what is wrong with it."""

MAX_ATTEMPTS: Final = 100

NOT_WRITABLE: Final = NOTHING | SPECIAL

_FUNCTION = re.compile(r"func:\s*([^\W\d][\w.]*)\s*(?:\(([^()]*)\))?", re.I)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)?", re.I | re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Memo(dict[str, T], Generic[T]):
    """Parsed cells of one column by their text; a cell with problems is noted in `trouble` as well."""

    __slots__ = ("column", "parse", "trouble")

    def __init__(self, column: int, parse: Callable[[str], Parsed[T]], trouble: Trouble) -> None:
        self.column = column
        self.parse = parse
        self.trouble = trouble

    def __missing__(self, text: str) -> T:
        value, problems = self.parse(text)
        if problems:
            self.trouble[self.column, text] = problems
        self[text] = value
        return value


class NameMemo(Memo[tuple[str, ...]]):
    """A Memo for lists of names. Most cells hold one plain name, and files can have as many names as rows."""

    __slots__ = ("but",)

    def __init__(
        self,
        column: int,
        parse: Callable[[str], Parsed[Any]],
        trouble: Trouble,
        but: frozenset[str] = NOTHING,
    ) -> None:
        super().__init__(column, parse, trouble)
        self.but = but

    def __missing__(self, text: str) -> tuple[str, ...]:
        if text.isidentifier() and text not in self.but:
            self[text] = value = (text,)
            return value
        return super().__missing__(text)


def route(text: str) -> Parsed[Route]:
    """`A`, `A|B|C`, `func:name` or `func:name(A|B)`."""
    value = text.strip()
    if value.isascii() and value > ":" and "|" not in value and ":" not in value and value not in NOTHING:
        return (value,), ()
    value = normalised(value)
    if value[:5].lower() == "func:":
        return _function(value)
    names, problems = _parts(value)
    kept = []
    for name in names:
        if name[:5].lower() == "func:":
            message = f"The routing cell {value!r} mixes a function with other targets"
            return (), (Problem("AM-R005", message, value, "A function stands alone: func:name(A|B)."),)
        suspect = spoiled(name)
        if suspect:
            problems.append(suspect)
        if name not in ERROR_VALUES:  # whatever it was, it is no name
            kept.append(name)
    return tuple(kept), problems


def _function(value: str) -> Parsed[Route]:
    match = _FUNCTION.fullmatch(value)
    if match is None:
        return (), (Problem("AM-R005", f"The routing cell {value!r} is not understood", value),)
    if match[2] is None:
        message = f"The routing function {match[1]!r} declares no targets, so it may lead to any node"
        hint = f"Write func:{match[1]}(A|B): a join need then not wait for branches that cannot reach it."
        return FunctionRoute(match[1]), (Problem("AM-R007", message, value, hint),)
    names, problems = _parts(match[2])
    if not names:
        problems.append(Problem("AM-R005", f"The routing function {match[1]!r} has empty parentheses", value))
    return FunctionRoute(match[1], names), problems


def names(text: str) -> Parsed[tuple[str, ...]]:
    """`a|b|c`: empty parts and repeats collapse."""
    found, problems = _parts(normalised(text))
    return found, problems


def _parts(value: str) -> tuple[tuple[str, ...], list[Problem]]:
    found: dict[str, None] = {}
    problems = []
    for part in value.split("|"):
        name = part.strip()
        if name in NOTHING:
            problems.append(Problem("AM-N005", f"{name!r} reads as an empty cell", name))
        elif name:
            found[name] = None
    return tuple(found), problems


def inputs(text: str) -> Parsed[tuple[Field, ...]]:
    """`a|b|c`; `a:p` gives the state field `a` to the agent as `p`."""
    parts = text.split("|")
    if all(map(str.isidentifier, parts)) and NOTHING.isdisjoint(parts) and len(set(parts)) == len(parts):
        return tuple(map(Field, parts)), ()  # most cells
    return _fields(text, swapped=False)


def child_inputs(text: str) -> Parsed[tuple[Field, ...]]:
    """Input_Fields of a sub-workflow: `child=parent` and `child:parent` give the state field `parent` as `child`."""
    return _fields(text, swapped=True)


def _fields(text: str, *, swapped: bool) -> Parsed[tuple[Field, ...]]:
    entries, problems = _parts(normalised(text))
    fields: list[Field] = []
    for entry in entries:
        suspect = spoiled(entry)
        if suspect and entry in ERROR_VALUES:
            problems.append(suspect)
            continue
        sign = "=" if swapped and "=" in entry else ":"
        left, separator, right = (part.strip() for part in entry.partition(sign))
        if not left or (separator and not right) or ":" in right or "=" in left + right:
            hint = "Separate fields by |; give a field another name with a:parameter."
            problems.append(Problem("AM-F005", f"The field entry {entry!r} is not understood", entry, hint))
        elif "," in entry or ";" in entry:
            hint = "Separate fields by |."
            problems.append(Problem("AM-F005", f"{entry!r} is one field name here", entry, hint, severity="warning"))
            fields.append(Field(left))
        elif not separator:
            fields.append(Field(left))
        else:
            fields.append(Field(right, left) if swapped else Field(left, right))
    seen: set[str] = set()
    for field in fields:
        name = field.parameter or field.source
        if name in seen:
            problems.append(Problem("AM-F006", f"Two inputs are called {name!r}; the agent gets the later one", name))
        seen.add(name)
    return tuple(fields), problems


def outputs(text: str) -> Parsed[tuple[str, ...]]:
    """`a` or `a|b`."""
    found, problems = _parts(normalised(text))
    return found, problems + [p for name in found for p in _output_problems(name, name)]


def child_outputs(text: str) -> Parsed[tuple[str, ...]]:
    """Output_Field of a sub-workflow: `a`, or `parent=child` entries, kept as `parent=child`."""
    found, problems = _parts(normalised(text))
    pairs = []
    for entry in found:
        parent, separator, child = (part.strip() for part in entry.partition("="))
        if separator and not (parent and child):
            problems.append(Problem("AM-F005", f"The field entry {entry!r} is not understood", entry))
        else:
            problems.extend(_output_problems(parent, entry))
            pairs.append(parent + separator + child)
    return tuple(pairs), problems


def _output_problems(name: str, entry: str) -> list[Problem]:
    if name in SPECIAL:
        message = f"{name!r} is filled in by the execution itself and cannot take a result"
        return [Problem("AM-F004", message, entry)]
    suspect = spoiled(name)
    return [suspect] if suspect else []


def field_name(text: str) -> Parsed[str | None]:
    """One field, for Map_Over."""
    value, problems = structural(text)
    if "|" in value:
        return None, (Problem("AM-A006", f"Map_Over takes one field, not {value!r}", value, "Name one list field."),)
    return value or None, problems


def timeout(text: str) -> Parsed[float | None]:
    """`30s`, `500ms`, `2m`, `1h`, `2d`; seconds without a unit."""
    value, problems = structural(text)
    if not value:
        return None, problems
    seconds = duration(value)
    if seconds is None or seconds <= 0:
        hint = "Write a duration like 30s, 500ms, 2m, 1h or 2d."
        return None, (Problem("AM-A006", f"The timeout {value!r} is not understood", value, hint),)
    return seconds, ()


def duration(value: Any) -> float | None:
    """Seconds, or None when `value` is no duration."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    match = _DURATION.fullmatch(str(value).strip())
    return float(match[1]) * _UNITS[(match[2] or "s").lower()] if match else None


def retry(text: str) -> Parsed[Retry | None]:
    """`3` attempts in all, or a JSON object with attempts, delay, backoff, max_delay, on."""
    value, problems = structural(text)
    if not value:
        return None, problems
    if value.isdecimal() and value.isascii() and len(value) < 9:
        options: Any = {"attempts": int(value)}
    else:
        try:
            options = json.loads(value)
        except (ValueError, RecursionError):
            options = None
    found, message = _retry(options)
    if message:
        hint = 'Write 3, or {"attempts": 3, "delay": "1s", "backoff": 2, "max_delay": "30s", "on": ["timeout"]}.'
        return None, (Problem("AM-A006", f"Retry {message}", value, hint),)
    return found, ()


def _retry(options: Any) -> tuple[Retry | None, str]:
    if not isinstance(options, dict):
        return None, "is neither a number nor a JSON object"
    unknown = options.keys() - set(Retry._fields)
    if unknown:
        return None, f"does not know {min(unknown)!r}"
    given = dict(options)
    attempts = given.get("attempts", 1)
    if type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS:
        return None, f"takes 1 to {MAX_ATTEMPTS} attempts, not {attempts!r}"
    for key in ("delay", "max_delay"):
        if key in given:
            given[key] = duration(given[key])
            if given[key] is None:
                return None, f"has the {key} {options[key]!r}, which is no duration"
    backoff = given.get("backoff", 1.0)
    if type(backoff) not in (int, float) or not 1 <= backoff <= 100:
        return None, f"takes a backoff of 1 to 100, not {backoff!r}"
    given["backoff"] = float(backoff)
    if "on" in given:
        kinds = [given["on"]] if isinstance(given["on"], str) else given["on"]
        if not isinstance(kinds, list) or not kinds or any(kind not in ("timeout", "error") for kind in kinds):
            return None, f'is tried again on "timeout" or "error", not on {options["on"]!r}'
        given["on"] = tuple(dict.fromkeys(kinds))
    return Retry(**given), ""
