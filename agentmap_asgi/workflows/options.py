"""The Context cell: a JSON object, a Python literal object, `{key=value, …}`, or a text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ..errors import ResultInvalid
from ..execution.values import copied
from .cells import Parsed
from .text import ERROR_VALUES, Problem, normalised

MAX_BYTES: Final = 16 * 1024
MAX_LITERAL: Final = 4 * 1024
MOST_SHOWN: Final = 100
"""Characters of a pair that a hint shows."""

_CLOSING: Final = {"{": "}", "[": "]", "(": ")"}
_KEY = re.compile(r"\s*([^\W\d][\w.-]*)\s*[=:]\s*")
_SCALAR = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?")
_JSON_KEY = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*:\s*')
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_UNKNOWN_ESCAPE = re.compile(r"(?:[^\\]|^)(?:\\\\)*\\[^\\'\"abfnrtvxuUN0-3\n]")
_SECRET_KEY = re.compile(r"(?:^|_)(?:api_?key|token|secret|password|passwd|private_?key|authorization)$", re.I)
_SECRET_VALUE = re.compile(
    r"(?:sk-[\w-]{16,}|gh[pousr]_\w{20,}|AKIA[0-9A-Z]{12,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\..*|-----BEGIN [A-Z ]*PRIVATE KEY-----.*)",
    re.S,
)


class Options(NamedTuple):
    """A Context: the agent's options, and the cells of other columns that it replaces, as their texts."""

    values: Mapping[str, Any]
    replaced: tuple[tuple[str, str], ...] = ()
    """(key, text) for those of REPLACING that are given."""


NONE: Final = Options(MappingProxyType({}))

REPLACING: Final = ("input_fields", "output_field", "description", "retry", "timeout", "map_over")
"""Keys of Context that say what a column says, and count before it."""


class _Refused(ValueError):
    """A value that JSON has no room for."""


def context(text: str) -> Parsed[Options]:
    """Read a Context cell."""
    value = text.strip()
    if not value:
        return NONE, ()
    size = len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if size > MAX_BYTES:
        message = f"Context has {size} bytes; at most {MAX_BYTES} are allowed"
        return NONE, (Problem("AM-A003", message, None, "Keep long texts in Prompt or in the prompts folder."),)
    problems: list[Problem] = []
    options = _object(value, problems)
    if options is None:
        return NONE, problems
    problems.extend(_secrets(options))
    return Options(options, tuple((key, _text(options[key])) for key in REPLACING if key in options)), problems


def _object(value: str, problems: list[Problem]) -> dict[str, Any] | None:
    """The options, or None when the cell is not understood (and `problems` says why)."""
    plain = normalised(value)
    if plain in ERROR_VALUES:
        problems.append(Problem("AM-V002", f"The cell holds the spreadsheet error {plain}", plain))
        return None
    if not plain.startswith("{"):
        return {"context": value}
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.extend(key for key in found if keys.count(key) > 1)
        return found

    found: Any = None
    why = ""
    hint: str | None = None
    try:
        found = json.loads(value, object_pairs_hook=unique, parse_constant=_refuse)
    except _Refused as exc:
        why = str(exc)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as exc:
        # Typographic quotes are mended only when the text is no JSON: inside a JSON string they are content.
        found = _json(plain) or _literal(plain) or _pairs(plain)
        if isinstance(exc, json.JSONDecodeError):
            why, hint = _unreadable(value, exc)
        else:
            why = "a number has too many digits"
    if not isinstance(found, dict):
        problems.append(Problem("AM-A003", f"Context is not understood: {why}", value[:200], hint))
        return None
    if repeated:
        key = repeated[0]
        problems.append(Problem("AM-A007", f"Context has the key {key!r} twice; the later one counts", key))
    try:
        checked: dict[str, Any] = copied(found, "Context")
    except ResultInvalid as exc:
        problems.append(Problem("AM-A003", exc.message, value[:200]))
        return None
    return checked


def _unreadable(value: str, exc: json.JSONDecodeError) -> tuple[str, str | None]:
    """Why a text is no JSON object, and what to do when that can be told."""
    missing = _unclosed(value)
    if missing:
        return missing, None
    bare = _bare_value(value)
    if bare is not None and value[exc.pos : exc.pos + 1] != '"':  # else a comma is missing before a key
        key, written, at = bare
        pair = f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(written, ensure_ascii=False)}"
        hint = f"Put the value in quotes: {{{pair}}}." if len(pair) <= MOST_SHOWN else "Put the value in quotes."
        return f"the value of {key!r} is no JSON{_at(value, at)}", hint
    return f"{exc.msg}{_at(value, exc.pos)}", None


def _at(value: str, at: int) -> str:
    return f" at line {value.count(chr(10), 0, at) + 1}, character {at - value.rfind(chr(10), 0, at)} of the cell"


def _unclosed(value: str) -> str:
    """The bracket or quote that is missing at the end of a text; empty when that cannot be said."""
    opened, at = "", 0
    while at < len(value):
        sign = value[at]
        if sign in "\"'" and (quoted := _QUOTED.match(value, at)):
            at = quoted.end()
            continue
        if sign == '"':
            return f"a quote is not closed; it opens{_at(value, at)}"
        if sign in _CLOSING:
            opened += _CLOSING[sign]
        elif sign in _CLOSING.values():
            if not opened.endswith(sign):
                return ""
            opened = opened[:-1]
        at += 1
    if not opened:
        return ""
    return "the closing brace } is missing" if opened[-1] == "}" else f"the closing bracket {opened[-1]} is missing"


def _bare_value(value: str) -> tuple[str, str, int] | None:
    """(key, value, where it begins) of the first value that is a text without quotes, in an object with quoted keys."""
    end = 0
    while value[end : end + 1] in ("{", ",") and (key := _JSON_KEY.match(value, end + 1)):
        at = key.end()
        end = _value_end(value, at)
        written = value[at:end].strip()
        constant = written.casefold() in ("true", "false", "null", "none")
        if written and written[0] not in "\"'{[(" and not constant and _json(written) is None:
            return _unescaped(key[1]), written, at
    return None


def _value_end(value: str, at: int) -> int:
    """Where a value of an object ends: at a comma or a brace outside quotes and brackets."""
    depth = 0
    while at < len(value) and (depth or value[at] not in ",}"):
        sign = value[at]
        quoted = _QUOTED.match(value, at) if sign in "\"'" else None
        depth += (sign in "([{") - (sign in ")]}")
        at = quoted.end() if quoted else at + 1
    return at


def parts(option: Any) -> list[Any]:
    """A list as authors write it in an option: a JSON list, or a text with | or commas."""
    return option if isinstance(option, list) else str(option).replace(",", "|").split("|")


def place_of(cell: str, text: str) -> tuple[int, int] | None:
    """Line and character, from 1, where a key (or else any part) stands in a Context cell; None when it does not."""
    at = _key_at(cell, text)
    if at is None:
        written = (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], text)
        at = next((found for one in written if one and (found := cell.find(one)) >= 0), None)
    return None if at is None else (cell.count("\n", 0, at) + 1, at - cell.rfind("\n", 0, at))


def _key_at(cell: str, key: str) -> int | None:
    """Where a key of the outermost object begins, in any of the forms of a Context."""
    depth, at, expected = 0, 0, False
    cell = cell.translate(_PLAIN_QUOTES)
    while at < len(cell):
        sign = cell[at]
        if depth == 1 and expected and (found := _KEY_PLACE.match(cell, at)):
            name = next(part for part in found.groups() if part is not None)
            if name == key or (found[1] is not None and _unescaped(name) == key):
                return found.start()
            expected, at = False, found.end()
            continue
        if sign in "\"'" and (quoted := _QUOTED.match(cell, at)):
            at = quoted.end()
            continue
        depth += (sign in "{[(") - (sign in "}])")
        expected = (sign in "{,") or (expected and sign.isspace())
        at += 1
    return None


_KEY_PLACE = re.compile(
    r"""(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')\s*:|([^\W\d][\w.-]*)\s*[=:]""",
    re.S,
)
_PLAIN_QUOTES: Final = str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''")


def _unescaped(written: str) -> str:
    try:
        return str(json.loads(f'"{written}"'))
    except ValueError:
        return written


def _refuse(constant: str) -> Any:
    raise _Refused(f"{constant} is no JSON")


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _literal(text: str) -> Any:
    """A Python literal of plain data; tuples become lists."""
    if len(text) > MAX_LITERAL or _UNKNOWN_ESCAPE.search(text):
        return None
    try:
        return _listed(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _listed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return value


def _pairs(text: str) -> dict[str, Any] | None:
    """`{key=value, …}`. Values are JSON scalars, quoted texts, or texts up to the next comma."""
    if not text.endswith("}"):
        return None
    body, at = text[1:-1], 0
    found: dict[str, Any] = {}
    while body[at:].strip():
        key = _KEY.match(body, at)
        if key is None:
            return None
        at = key.end()
        quoted = _QUOTED.match(body, at)
        if key[1] == "when" and not (quoted and re.match(r"\s*(?:,|$)", body[quoted.end() :])):
            end = _condition_end(body, at)
            if end is None:
                return None
            found["when"] = _scalar(body[at:end].strip())
        elif quoted:
            at = quoted.end()
            end = body.find(",", at)
            end = len(body) if end < 0 else end
            if body[at:end].strip():
                return None
            found[key[1]] = re.sub(r"\\(.)", r"\1", quoted[1] if quoted[1] is not None else quoted[2], flags=re.S)
        else:
            end = body.find(",", at)
            end = len(body) if end < 0 else end
            written = body[at:end].strip()
            if any(sign in written for sign in "{}[]\"'"):
                return None
            found[key[1]] = _scalar(written)
        at = end + 1
    return found


def _condition_end(body: str, at: int) -> int | None:
    """Where a condition ends: at a comma outside quotes and brackets. None when one of these is not closed."""
    depth = 0
    while at < len(body):
        sign = body[at]
        if sign in "'\"":
            quoted = _QUOTED.match(body, at)
            if quoted is None:
                return None
            at = quoted.end()
            continue
        if sign == "," and not depth:
            break
        depth += (sign in "([") - (sign in ")]")
        if sign in "{}" or depth < 0:
            return None
        at += 1
    return at if not depth else None


def _scalar(written: str) -> Any:
    return json.loads(written) if _SCALAR.fullmatch(written) else written


def _text(value: Any) -> str:
    """An option as the text of the column's cell that it replaces."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "|".join(value)
    return json.dumps(value, ensure_ascii=False)


def _secrets(options: Mapping[str, Any], path: str = "") -> list[Problem]:
    """Literals that should be `secret:NAME`. The message never repeats the value."""
    found = []
    for key, value in options.items():
        where = f"{path}{key}"
        if isinstance(value, dict):
            found.extend(_secrets(value, f"{where}."))
        elif isinstance(value, str) and _secret(key, value):
            found.append(Problem("AM-V003", f"The value of {where!r} in Context looks like a secret", key))
    return found


def _secret(key: str, value: str) -> bool:
    if not value or value.startswith(("secret:", "{")):
        return False
    return bool(_SECRET_KEY.search(key) or _SECRET_VALUE.fullmatch(value))
