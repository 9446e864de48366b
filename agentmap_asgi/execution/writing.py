"""JSON as it is written: compact, with as little work as possible."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final


def plain_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises TypeError or ValueError for what JSON cannot write."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain_text(value: Any) -> str:
    return plain_json(value).decode()


def _fastest() -> tuple[Callable[[Any], bytes], Callable[[Any], str]]:
    try:
        import orjson
    except ImportError:
        return plain_json, _plain_text
    # Without these it would write kinds of objects that the standard library refuses.
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    dumps = orjson.dumps

    def encode(value: Any) -> bytes:
        try:
            return dumps(value, None, options)
        except TypeError:
            return plain_json(value)  # what only the standard library can write, or its error

    def text(value: Any) -> str:
        try:
            return dumps(value, None, options).decode()
        except TypeError:
            return _plain_text(value)

    return encode, text


_FASTEST: Final = _fastest()
encode: Final = _FASTEST[0]
"""Compact JSON in UTF-8. Raises TypeError or ValueError for what JSON cannot write."""
dumps: Final = _FASTEST[1]
"""As `encode`, as a text."""
