"""An operation of its own for each workflow in the OpenAPI document, with the fields that the workflow reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from ..workflows.checks import BEHIND
from ..workflows.model import Workflow

MOST: Final = 500
"""Workflows that get one; the others are started by `POST /execute/{graph}`, as all are."""
GENERAL: Final = "/execute/{graph}"
REF: Final = "#/components/schemas/"


class Typed(NamedTuple):
    """A workflow, the JSON Schema of its inputs, and whether its name alone says which one it is."""

    workflow: Workflow
    schema: dict[str, Any]
    unique: bool


def chosen(workflows: Iterable[Workflow]) -> list[tuple[Workflow, bool]]:
    """Those that can be started and have a path: whether its name is the whole of it."""
    every = list(workflows)
    counts = Counter(workflow.name for workflow in every)
    named = [(workflow, counts[workflow.name] == 1 and workflow.name not in BEHIND) for workflow in every]
    return [
        (workflow, unique)
        for workflow, unique in named
        if not workflow.broken and "/" not in workflow.name and (unique or "/" not in workflow.stem)
    ][:MOST]


def with_workflows(document: dict[str, Any], workflows: Iterable[Typed]) -> dict[str, Any]:
    """The document with an operation for each; what it had stays as it is."""
    general: dict[str, Any] = document["paths"][GENERAL]["post"]
    body: dict[str, Any] = document["components"]["schemas"]["RunBody"]
    paths, schemas = dict(document["paths"]), dict(document["components"]["schemas"])
    for workflow, schema, unique in workflows:
        word = re.sub(r"\W+", "_", workflow.name if unique else workflow.graph_id, flags=re.ASCII).strip("_")
        word = _free(f"Inputs_{word}", schemas)
        schemas |= _parts(word, schema)
        own = {**body, "title": word.replace("Inputs_", "Run_", 1)}
        own["properties"] = {name: part for name, part in body["properties"].items() if name != "initial_state"}
        own["properties"]["inputs"] = {"$ref": REF + word}
        if schema.get("required"):
            own["required"] = ["inputs"]
        entry = workflow.nodes.get(workflow.entry or "")
        path = "/".join(quote(part, safe="") for part in ([] if unique else [workflow.stem]) + [workflow.name])
        paths[f"/execute/{path}"] = {
            "post": {
                **general,
                "operationId": word.replace("Inputs_", "run_", 1),
                "summary": f"Run {workflow.name}",
                "description": entry.description if entry is not None else "",
                "tags": ["workflows"],
                "parameters": [one for one in general["parameters"] if one["in"] != "path"],
                "requestBody": {"required": True, "content": {"application/json": {"schema": own}}},
            }
        }
    return {**document, "paths": paths, "components": {**document["components"], "schemas": schemas}}


def _free(name: str, taken: dict[str, Any]) -> str:
    number, found = 2, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _parts(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema and its definitions as components of the document, where references find them."""
    inner = {key: f"{name}_{re.sub(r'[^A-Za-z0-9._-]', '_', key)}" for key in schema.get("$defs", {})}

    def moved(part: Any) -> Any:
        if isinstance(part, list):
            return [moved(one) for one in part]
        if not isinstance(part, dict):
            return part
        found = {key: moved(value) for key, value in part.items()}
        reference = part.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            found["$ref"] = REF + inner.get(reference.removeprefix("#/$defs/"), name)
        return found

    whole = {key: moved(value) for key, value in schema.items() if key not in ("$schema", "$defs")}
    return {name: whole, **{inner[key]: moved(part) for key, part in schema.get("$defs", {}).items()}}
