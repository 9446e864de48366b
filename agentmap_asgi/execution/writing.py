"""JSON as it is written: compact, with as little work as possible."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final


def plain_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises TypeError or ValueError for what JSON cannot write."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _fastest() -> Callable[[Any], bytes]:
    try:
        import orjson
    except ImportError:
        return plain_json
    # Without these it would write kinds of objects that the standard library refuses.
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    dumps = orjson.dumps

    def encode(value: Any) -> bytes:
        try:
            return dumps(value, None, options)
        except TypeError:
            return plain_json(value)  # what only the standard library can write, or its error

    return encode


encode: Final = _fastest()


def dumps(value: Any) -> str:
    """As `encode`, as a text."""
    return encode(value).decode()
