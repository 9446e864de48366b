"""JSON as it is written: compact, with as little work as possible."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import repeat
from typing import Any


def plain_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises TypeError or ValueError for what JSON cannot write."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _fastest() -> tuple[Callable[[Any], bytes], Callable[[list[Any]], list[str]]]:
    """What encodes one value, and what makes texts of many."""
    try:
        import orjson
    except ImportError:
        return plain_json, lambda values: [plain_json(value).decode() for value in values]
    # Without these it would write kinds of objects that the standard library refuses.
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    dumps = orjson.dumps

    def encode(value: Any) -> bytes:
        try:
            return dumps(value, None, options)
        except TypeError:
            return plain_json(value)  # what only the standard library can write, or its error

    def texts(values: list[Any]) -> list[str]:
        try:
            return [text.decode() for text in map(dumps, values, repeat(None), repeat(options))]
        except TypeError:
            return [encode(value).decode() for value in values]

    return encode, texts


encode, dumps_each = _fastest()


def dumps(value: Any) -> str:
    """As `encode`, as a text."""
    return encode(value).decode()
