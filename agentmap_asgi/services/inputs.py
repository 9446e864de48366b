"""Initial states against the models that a host declared for them."""

from __future__ import annotations

from typing import Any

from ..errors import InputInvalid


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
                    "pointer": "/" + "/".join(["initial_state", *map(str, error["loc"])]),
                    "code": error["type"],
                    "message": error["msg"],
                }
                for error in exc.errors(include_url=False, include_input=False, include_context=False)
            ],
        ) from None
    return dumped
