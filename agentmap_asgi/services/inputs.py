"""Initial states against the models that a host declared for them, and what is said of values that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..errors import InputInvalid

_OBJECT: Final = "This must be an object"
_LIST: Final = "This must be a list"
_TEXT: Final = "This must be a text"
_WHOLE: Final = "This must be a whole number"
_NUMBER: Final = "This must be a number"
_YES_NO: Final = "This must be true or false"
_KIND: Final = "This is of the wrong kind"

WORDS: Final[Mapping[str, str]] = {
    "missing": "This field is required",
    "extra_forbidden": "This field is unknown",
    **dict.fromkeys(("model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type"), _OBJECT),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), _LIST),
    **dict.fromkeys(("string_type", "bytes_type"), _TEXT),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing", "decimal_type", "decimal_parsing"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _YES_NO),
    **dict.fromkeys(("is_instance_of", "is_subclass_of", "callable_type", "dataclass_exact_type"), _KIND),
    "none_required": "This must be null",
    "literal_error": "This must be {expected}",
    "enum": "This must be {expected}",
    "greater_than": "This must be more than {gt}",
    "greater_than_equal": "This must be {ge} or more",
    "less_than": "This must be less than {lt}",
    "less_than_equal": "This must be {le} or less",
    "string_too_short": "Its length must be {min_length} or more",
    "string_too_long": "Its length must be {max_length} or less",
    "string_pattern_mismatch": "This must match {pattern}",
    "too_short": "Its length must be {min_length} or more",
    "too_long": "Its length must be {max_length} or less",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}",
    "union_tag_not_found": "{discriminator} is required here",
    "value_error": "{error}",
    "assertion_error": "{error}",
}
"""pydantic's error types in plain words. Its own words name classes of Python and, some of them, the caller's value."""


def plainly(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, of one entry of `ValidationError.errors()`."""
    said = WORDS.get(error["type"])
    try:
        return str(error["msg"]) if said is None else said.format_map(error.get("ctx", {})) or _KIND
    except KeyError:  # a host's own error, under a type of pydantic's
        return str(error["msg"])


def _place(error: Mapping[str, Any], values: Any) -> Iterator[str]:
    """The parts of the error's place that the caller's value has: pydantic puts names of classes and tags between."""
    for part in error["loc"]:
        item = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if item or (isinstance(values, dict) and part in values):
            values = values[part]
        elif not isinstance(values, dict) or error["type"] != "missing" or part is not error["loc"][-1]:
            continue
        yield str(part).replace("~", "~0").replace("/", "~1")


def validated(model: Any, values: dict[str, Any]) -> dict[str, Any]:
    """What a pydantic model makes of the initial state. Raises InputInvalid with a pointer for each place."""
    from pydantic import ValidationError

    try:
        dumped: dict[str, Any] = model.model_validate(values).model_dump(mode="json")
    except ValidationError as exc:
        raise InputInvalid(
            "initial_state does not fit the workflow's input schema",
            errors=[
                {
                    "pointer": "/" + "/".join(["initial_state", *_place(error, values)]),
                    "code": error["type"],
                    "message": plainly(error),
                }
                for error in exc.errors(include_url=False, include_input=False)
            ],
        ) from None
    return dumped
