"""What a model's answer has to fit: a JSON Schema, told to the model as an object's; and the reading of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..errors import ResultInvalid
from ..execution.values import copied
from ..execution.waits import misfits

VALUE: Final = "value"
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", re.S)
_SHARED: Final = ("$defs", "definitions", "$schema", "$id")


class Fitting(NamedTuple):
    """A schema as a model is told it, and whether the answer stands under `value` there."""

    schema: Mapping[str, Any]
    wrapped: bool

    def read(self, text: str) -> tuple[Any, str | None]:
        """(the answer, None), or (None, what is wrong with it: never what it says)."""
        fenced = _FENCED.fullmatch(text)
        try:
            value = copied(json.loads(fenced[1] if fenced else text, parse_constant=_refuse), "The answer")
        except (ValueError, RecursionError):
            return None, "it is not JSON"
        except ResultInvalid as exc:
            return None, exc.message
        try:
            wrong = misfits(self.schema, value, "")
        except ValueError as exc:
            return None, f"the schema cannot be used: {exc}"
        if wrong:
            places = (f"{error['pointer'] or 'the whole'}: {error['message']}" for error in wrong[:5])
            return None, "; ".join(places)
        return (value[VALUE] if self.wrapped else value), None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def fitting(schema: Mapping[str, Any]) -> Fitting:
    """Providers take schemas of objects alone, so that anything else is put into one."""
    if schema.get("type") == "object" or (schema.get("type") is None and "properties" in schema):
        return Fitting(schema, False)
    inner = {name: value for name, value in schema.items() if name not in _SHARED}
    outer = {name: schema[name] for name in _SHARED if name in schema}
    return Fitting(
        {
            **outer,
            "type": "object",
            "properties": {VALUE: inner},
            "required": [VALUE],
            "additionalProperties": False,
        },
        True,
    )
