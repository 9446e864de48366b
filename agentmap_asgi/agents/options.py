"""What an agent's options are: one row each, from which options are checked, read, listed and described."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..errors import ConfigError, nearest
from ..workflows.cells import duration
from ..workflows.diagnostics import Finding
from ..workflows.options import parts

SECRET: Final = "secret:"  # noqa: S105
"""How a value begins that is looked up in the context's secrets when the node runs."""


class Unfit(ValueError):
    """A value that an option does not take; the text says what it takes."""


def _text(value: Any, option: Option) -> str:
    if isinstance(value, dict | list):
        raise Unfit("a text")
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    if option.choices:
        for choice in option.choices:
            if text.strip().casefold() == choice.casefold():
                return choice
        *words, last = option.choices
        raise Unfit(f"{', '.join(words)} or {last}" if words else last)
    return text


def _number(value: Any, option: Option) -> float:
    wanted = f"a number{_range(option)}"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Unfit(wanted)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise Unfit(wanted) from None
    if not option.least <= number <= option.most:  # also what is no number at all
        raise Unfit(wanted)
    return number


def _whole(value: Any, option: Option) -> int:
    wanted = f"a whole number{_range(option)}"
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not option.least <= value <= option.most:
        raise Unfit(wanted)
    return value


def _truth(value: Any, option: Option) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int) and str(value).strip().casefold() in words:
        return words[str(value).strip().casefold()]
    raise Unfit("true or false")


def _names(value: Any, option: Option) -> list[str]:
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict | list) for one in value)):
        raise Unfit("a list of texts, or a text with |")
    return [text for one in parts(value) if (text := str(one).strip())]


def _duration(value: Any, option: Option) -> float:
    seconds = duration(value)
    if seconds is None or not option.least <= seconds <= option.most:
        raise Unfit("a duration like 30s, 500ms, 2m, 1h or 2d")
    return seconds


def _object(value: Any, option: Option) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit("an object")
    return value


def _list(value: Any, option: Option) -> list[Any]:
    if not isinstance(value, list):
        raise Unfit("a list")
    return value


def _anything(value: Any, option: Option) -> Any:
    return value


def _range(option: Option) -> str:
    low, high = option.least, option.most
    if low == -INFINITE and high == INFINITE:
        return ""
    if high == INFINITE:
        return f" from {low:g} on"
    return f" from {low:g} to {high:g}" if low != -INFINITE else f" up to {high:g}"


INFINITE: Final = float("inf")


class Kind(NamedTuple):
    """What values an option takes."""

    shown: str
    read: Callable[[Any, Option], Any]
    """(value, option) -> the value as the agent gets it. Raises Unfit."""
    schema: Mapping[str, Any]


KINDS: Final[dict[str, Kind]] = {
    "text": Kind("text", _text, {"type": "string"}),
    "number": Kind("number", _number, {"type": "number"}),
    "whole": Kind("whole number", _whole, {"type": "integer"}),
    "truth": Kind("true or false", _truth, {"type": "boolean"}),
    "names": Kind("list of texts", _names, {"type": ["array", "string"], "items": {"type": "string"}}),
    "duration": Kind("duration", _duration, {"type": ["string", "number"]}),
    "object": Kind("object", _object, {"type": "object"}),
    "list": Kind("list", _list, {"type": "array"}),
    "any": Kind("any value", _anything, {}),
}
"""By name. Texts that mean a number or a truth count as such: `{limit=5}` and AgentMap's files write them so."""

TYPES: Final = {
    str: "text", float: "number", int: "whole", bool: "truth", dict: "object", list: "list", object: "any", Any: "any",
}  # fmt: skip
"""Python's types for those who declare options of an agent of their own."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an agent: a key of a row's Context.

    `kind` is one of KINDS. `aliases` are other keys that mean the same; `choices` the words that a text may be; `least`
    and `most` bound numbers, and durations in seconds. `default` is what an agent finds when the key is missing.
    """

    name: str
    kind: str = "text"
    summary: str = ""
    default: Any = None
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    least: float = -INFINITE
    most: float = INFINITE
    lenient: bool = False
    """A wrong value is left to the agent's own check, which says more about it."""

    @property
    def shown(self) -> str:
        """What it takes, for people."""
        if self.choices:
            return ", ".join(self.choices)
        return KINDS[self.kind].shown + _range(self)

    @property
    def schema(self) -> dict[str, Any]:
        """What it takes, as JSON Schema."""
        found: dict[str, Any] = {**KINDS[self.kind].schema, "description": self.summary}
        if self.choices:
            found["enum"] = list(self.choices)
        if self.kind in ("number", "whole"):
            found |= {} if self.least == -INFINITE else {"minimum": self.least}
            found |= {} if self.most == INFINITE else {"maximum": self.most}
        return found if self.default is None else {**found, "default": self.default}

    def read(self, value: Any) -> Any:
        """The value as the agent gets it. Raises Unfit."""
        return KINDS[self.kind].read(value, self)


Options = Mapping[str, Option]
"""An agent's options by every key that means one of them."""


def declared(*rows: Option) -> Options:
    """A table of options. Raises ConfigError for a key that means two of them, or an unknown kind."""
    found: dict[str, Option] = {}
    for row in rows:
        if row.kind not in KINDS:
            raise ConfigError(f"The option {row.name!r} has the unknown kind {row.kind!r}; take {', '.join(KINDS)}")
        for key in (row.name, *row.aliases):
            if key in found:
                raise ConfigError(f"The option {key!r} is declared twice")
            found[key] = row
    return found


def options_from(given: Any) -> Options | None:
    """What an own agent declares: Options, or types and words by name: `{"limit": int, "unit": ("km", "mi")}`.

    None stays None: nothing is known. Raises ConfigError.
    """
    if given is None:
        return None
    rows: list[Option] = []
    pairs: Iterable[tuple[Any, Any]] = given.items() if isinstance(given, Mapping) else [(one, one) for one in given]
    for name, what in pairs:
        if isinstance(what, Option):
            rows.append(what)
        elif isinstance(name, str) and isinstance(what, list | tuple) and all(isinstance(word, str) for word in what):
            rows.append(Option(name, choices=tuple(what)))
        elif isinstance(name, str) and isinstance(what, type | type(Any)) and what in TYPES:
            rows.append(Option(name, TYPES[what]))
        else:
            raise ConfigError(
                f"The option {name!r} is declared as {what!r}; give a type (str, int, float, bool, list, dict), a "
                "tuple of words, or an Option"
            )
    return declared(*rows)


def shown_default(value: Any) -> str:
    """A default as an author would write it."""
    return " ".join(map(str, value)) if isinstance(value, list) else json.dumps(value)


def rows_of(options: Options | None) -> list[Option]:
    """Each option once."""
    return list({id(row): row for row in (options or {}).values()}.values())


def check_declared(given: Mapping[str, Any], options: Options, owner: str) -> Iterator[Finding]:
    """Values that do not fit, and one option under two keys."""
    seen: dict[str, str] = {}
    for key, value in given.items():
        row = options.get(key)
        if row is None:
            continue
        if (other := seen.setdefault(row.name, key)) != key:
            message = f"{other} and {key} mean the same; {other} counts"
            yield Finding("AM-A007", "warning", message, f"Write {row.name} alone.", "Context", key)
        elif value is not None and not row.lenient and not is_secret(value):
            try:
                row.read(value)
            except Unfit as exc:
                near = nearest(str(value), list(row.choices)) if row.choices else None
                hint = f"Did you mean {near!r}?" if near else f"Write {exc}."
                shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
                yield Finding("AM-A004", "error", f"{key} cannot be {shown} on {owner!r}", hint, "Context", key)


def is_secret(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(SECRET)


def read_declared(given: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The options as the agent gets them: under their names, with defaults, and what else the row has.

    A value that does not fit stays as it is: the loader has reported it.
    """
    found: dict[str, Any] = {row.name: row.default for row in rows_of(options) if row.default is not None}
    seen: set[str] = set()
    for key, value in given.items():
        row = options.get(key)
        if row is None:
            found[key] = value
        elif row.name not in seen and value is not None:
            seen.add(row.name)
            try:
                found[row.name] = row.read(value)
            except Unfit:
                found[row.name] = value
    return found
