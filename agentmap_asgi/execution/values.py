"""Which values a state may hold: those that JSON gives back unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isfinite
from typing import Any, Final

from ..errors import OutputTooLarge, ResultInvalid

MAX_DEPTH: Final = 64
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1
HEAVIEST: Final = 5
"""What a value weighs (see `weight`) is less than so many times the bytes of its JSON: a digit and a comma are 9."""
MASK: Final = "***"
NESTS: Final = frozenset((dict, list))


class _Refused(Exception):  # a signal inside this module
    """A value that JSON would change; the path to it grows as the exception travels up."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path = ""


def copied(value: Any, where: str = "The value", *, limit: int | None = None) -> Any:
    """A deep copy of `value` made of plain JSON types.

    Raises ResultInvalid naming the place (`where`, then a path like `.items[3].price`) for anything JSON would change
    or refuse: NaN, infinities, bytes, sets, tuples, non-string keys, lone surrogates, integers outside 64 bits,
    subclasses of the plain types, cycles. `limit` bounds the size in bytes as JSON (OutputTooLarge).
    """
    try:
        copy, size = _copy(value, 0) if value.__class__ in NESTS else (value, _scalar_size(value))
    except _Refused as refused:
        raise ResultInvalid(f"{where}{refused.path} {refused.reason}") from None
    if limit is not None and size > limit:
        raise OutputTooLarge(f"{where} has about {size} bytes; at most {limit} are allowed")
    return copy


def fresh(value: Any) -> Any:
    """A deep copy of a value that was checked before, as all that a state holds."""
    kind = value.__class__
    if kind is dict:
        if NESTS.isdisjoint(map(type, value.values())):
            return value.copy()
        return {
            key: fresh(item) if (kind := item.__class__) is dict or kind is list else item
            for key, item in value.items()
        }
    return [fresh(item) for item in value] if kind is list else value


def weight(value: Any, depth: int = 0) -> int:
    """The size in bytes, about, of a JSON value that stands `depth` objects deep. ResultInvalid as in `copied`."""
    try:
        return _copy(value, depth)[1]
    except _Refused as refused:
        raise ResultInvalid(f"The value{refused.path} {refused.reason}") from None


def _copy(value: Any, depth: int) -> tuple[Any, int]:
    """(copy, size about). Texts and small numbers, which most values are, are looked at in place."""
    kind = value.__class__
    if kind is dict:
        if depth >= MAX_DEPTH:
            raise _Refused(f"is nested deeper than {MAX_DEPTH}, or contains itself")
        fields: dict[str, Any] = {}
        size = 2
        for key, item in value.items():
            if key.__class__ is not str:
                raise _Refused(f"has the key {key!r}; keys must be strings")
            if not key.isascii():
                _text_size(key)
            size += len(key) + 4
            if item.__class__ is str and item.isascii():
                fields[key] = item
                size += len(item) + 2
                continue
            if item is None or item is True or item is False:
                fields[key] = item
                size += 4
                continue
            if item.__class__ is int and INT_MIN <= item <= INT_MAX:
                fields[key] = item
                size += 8
                continue
            try:
                fields[key], item_size = _copy(item, depth + 1)
            except _Refused as refused:
                refused.path = f".{key}{refused.path}"
                raise
            size += item_size
        return fields, size
    if kind is list:
        if depth >= MAX_DEPTH:
            raise _Refused(f"is nested deeper than {MAX_DEPTH}, or contains itself")
        items = []
        size = 2
        for index, item in enumerate(value):
            try:
                copy, item_size = _copy(item, depth + 1)
            except _Refused as refused:
                refused.path = f"[{index}]{refused.path}"
                raise
            items.append(copy)
            size += item_size + 1
        return items, size
    return value, _scalar_size(value)


def _scalar_size(value: Any) -> int:
    kind = value.__class__
    if kind is str:
        return len(value) + 2 if value.isascii() else _text_size(value)
    if value is None or kind is bool:
        return 4
    if kind is int:
        if INT_MIN <= value <= INT_MAX:
            return 8
        raise _Refused("is an integer past 64 bits; pass it as a string")
    if kind is float:
        if isfinite(value):
            return 12
        raise _Refused(f"is {value}, which JSON cannot write")
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise _Refused(
        f"is a {name}, which JSON would not give back unchanged; use plain objects, lists, strings, numbers, "
        "booleans or null"
    )


def _text_size(text: str) -> int:
    try:
        return len(text.encode()) + 2
    except UnicodeEncodeError:
        raise _Refused("holds a lone surrogate, which is not text") from None


def masked(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON value with `***` for each secret, in its texts and in its keys. The longest secrets go first."""
    return _masked(value, sorted(secrets, key=len, reverse=True))


def _masked(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, dict):
        return {_masked(key, secrets): _masked(item, secrets) for key, item in value.items()}
    return [_masked(item, secrets) for item in value] if isinstance(value, list) else value


def begun(text: str, secret: str) -> int:
    """The length of the longest end of a text that a secret begins with, short of the whole secret."""
    return next((n for n in range(min(len(text), len(secret) - 1), 0, -1) if secret.startswith(text[-n:])), 0)


def text_of(value: Any) -> str:
    """How a value stands in a text: strings as they are, others as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
