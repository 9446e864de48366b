"""The OpenAPI document, from the table of operations."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from . import schemas
from .operations import Operation
from .problems import phrase

REF: Final = "#/components/schemas/{model}"
TEXT: Final = {"schema": {"type": "string"}}
ALWAYS: Final = (401, 403, 500)
"""Any operation may be refused for want of credentials or of their scope, and may go wrong."""

KEY_SCHEMES: Final = {
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
"""The two headers that carry an API key."""


def document(operations: Iterable[Operation], *, keys: bool = False, public: Collection[str] = ()) -> dict[str, Any]:
    """The operations as OpenAPI 3.1, without `servers`. With `keys`, all but the `public` ones want an API key."""
    rows = tuple(operations)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        found = described(row) | {"operationId": row.name}
        if keys and row.name in public:
            found["security"] = []
        paths.setdefault(row.plain_path, {})[row.method.lower()] = found
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Workflows", "version": _version()},
        "paths": paths,
        "components": {"schemas": _components(rows)},
    }
    if keys:
        whole["security"] = [{name: []} for name in KEY_SCHEMES]
        whole["components"]["securitySchemes"] = KEY_SCHEMES
    return whole


def described(row: Operation) -> dict[str, Any]:
    """One operation. Its models are references into the document's components."""
    parameters = [path_parameter(name) for name in row.parameters]
    for place, given in (("query", row.query), ("header", row.headers)):
        for name, summary, choices, told in given:
            schema: dict[str, Any] = dict(told or {"type": "string"}) | ({"enum": list(choices)} if choices else {})
            parameters.append({"name": name, "in": place, "description": summary, "schema": schema})
    content: dict[str, Any] = dict.fromkeys(row.texts, TEXT)
    if row.answer is not None:
        content = {"application/json": {"schema": _ref(row.answer)}} | content
    if row.name.startswith("schema"):
        content = {"application/schema+json": content["application/json"]}
    found: dict[str, Any] = {
        "summary": row.summary,
        "parameters": parameters,
        "responses": {
            **{str(status): _answered(status, content) for status in row.statuses},
            **{str(status): refused(status) for status in sorted({*row.problems, *ALWAYS})},
        },
    }
    if row.name == "ready":
        found["responses"]["503"] = {"description": phrase(503), "content": content}
    if row.name == "list":
        found["responses"]["304"] = {"description": phrase(304)}
    bodies: dict[str, Any] = dict.fromkeys(row.files, TEXT)
    if row.body is not None:
        bodies["application/json"] = {"schema": _ref(row.body.__name__)}
    if bodies:
        found["requestBody"] = {"required": not row.optional_body, "content": bodies}
    return found


def _answered(status: int, content: dict[str, Any]) -> dict[str, Any]:
    empty = {"description": phrase(status)}
    return empty if status == 204 else {**empty, "content": content}


def path_parameter(name: str) -> dict[str, Any]:
    """A parameter of the path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def refused(status: int) -> dict[str, Any]:
    """The response of a refusal."""
    return {
        "description": phrase(status),
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }


def _ref(model: str) -> dict[str, str]:
    return {"$ref": REF.format(model=model)}


def _components(rows: Iterable[Operation]) -> dict[str, Any]:
    """The schemas of all models that the rows name."""
    from . import answers

    models: dict[type[BaseModel], JsonSchemaMode] = {answers.Problem: "serialization"}
    for row in rows:
        if row.answer is not None:
            models[getattr(answers, row.answer)] = "serialization"
        if row.body is not None:
            models[row.body] = "validation"
    _, found = models_json_schema(sorted(models.items(), key=lambda item: item[0].__name__), ref_template=REF)
    definitions: dict[str, Any] = found["$defs"]
    return definitions


def with_schemas(part: Any) -> Any:
    """The same, with models in the place of references to them: for documents whose components are not ours."""
    if isinstance(part, list):
        return [with_schemas(item) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" not in part:
        return {key: with_schemas(value) for key, value in part.items()}
    return json.loads(_schema_of(part["$ref"].rpartition("/")[2]))


@cache
def _schema_of(name: str) -> str:
    """The schema of a model, with those of its parts in it, as a text: whoever includes the routes needs each many
    times, and a copy of its own.
    """
    from . import answers

    model: type[BaseModel] = getattr(answers, name, None) or getattr(schemas, name)
    mode: JsonSchemaMode = "serialization" if issubclass(model, answers.Answer) else "validation"
    schema = model.model_json_schema(ref_template=REF, mode=mode)
    schema.pop("$defs", None)
    return json.dumps(with_schemas(schema))


def _version() -> str:
    # The public door stands above this room, so it is not imported; but whoever runs this has imported it.
    return str(sys.modules[__name__.partition(".")[0]].__version__)
