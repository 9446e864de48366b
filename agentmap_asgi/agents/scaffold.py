"""The beginning of an agent of one's own, for a type that a workflow file names and nobody has: code and test."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..workflows.model import Node, Workflow
from ..workflows.policies import COMMON
from .registry import Registry, fold

TYPES: Final = {bool: "bool", int: "int", float: "float", list: "list", dict: "dict"}
"""How the value of an option in a row shows what it takes; a text otherwise."""


@dataclass(slots=True)
class Wanted:
    """What the rows of a file say about one unknown type."""

    type: str
    nodes: list[Node] = field(default_factory=list)

    @property
    def stem(self) -> str:
        """A module's and a function's name."""
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.type)
        plain = re.sub(r"\W+|_+", "_", words).strip("_").lower().removesuffix("_agent") or "agent"
        plain = plain if not plain[0].isdigit() else f"agent_{plain}"
        return f"{plain}_agent" if keyword.iskeyword(plain) or plain in ("agent", "call") else plain

    @property
    def inputs(self) -> list[str]:
        return list(dict.fromkeys(entry.parameter or entry.source for node in self.nodes for entry in node.inputs))

    @property
    def outputs(self) -> list[str]:
        return list(dict.fromkeys(name for node in self.nodes for name in node.outputs))

    @property
    def options(self) -> dict[str, str]:
        """Python's types by key."""
        found: dict[str, str] = {}
        for node in self.nodes:
            for key, value in node.options.items():
                if key not in COMMON and key != "context":
                    found.setdefault(key, TYPES.get(type(value), "str"))
        return found


def unknown_types(workflows: Iterable[Workflow], registry: Registry) -> list[Wanted]:
    """The types that no agent has, in the order of the rows, each once however it is written."""
    found: dict[str, Wanted] = {}
    for workflow in workflows:
        for node in workflow.nodes.values():
            if registry.find(node.agent_type) is None and node.agent_type.isprintable():
                found.setdefault(fold(node.agent_type), Wanted(node.agent_type)).nodes.append(node)
    return list(found.values())


def agent_code(wanted: Wanted) -> str:
    """A module with the agent. What it does is left to its author, and it says so when it is called."""
    first = wanted.nodes[0]
    summary = " ".join(first.description.split()) or f"What {first.name} of {first.graph} needs."
    given = [f"name={wanted.type!r}", f"summary={summary!r}"]
    if wanted.options:
        given.append("options={" + ", ".join(f"{key!r}: {kind}" for key, kind in wanted.options.items()) + "}")
    lines = [
        '"""An agent of ours."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Any",
        "",
        "from agentmap_asgi import Call, agent",
        "",
        "",
        "@agent(",
        *(f"    {part}," for part in given),
        ")",
        f"async def {wanted.stem}(call: Call) -> {'dict[str, Any]' if len(wanted.outputs) > 1 else 'Any'}:",
        *_body(wanted),
    ]
    return "\n".join(lines) + "\n"


def _body(wanted: Wanted) -> Iterator[str]:
    for name, source in _names(wanted.inputs, "inputs").items():
        yield f"    {name} = call.inputs[{source!r}]"
    for name, source in _names(wanted.options, "options", taken=wanted.inputs).items():
        yield f"    {name} = call.options.get({source!r})"
    if any(node.prompt for node in wanted.nodes):
        yield "    prompt = call.prompt  # with its fields filled in"
    results = wanted.outputs
    if len(results) > 1:
        yield "    # Return {" + ", ".join(f"{name!r}: ..." for name in results) + "}."
    elif results:
        yield f"    # What is returned is stored as {results[0]!r}."
    yield f"    raise NotImplementedError({f'The agent {wanted.type} is not written yet'!r})"


def _names(sources: Iterable[str], kind: str, taken: Iterable[str] = ()) -> dict[str, str]:
    """Names of variables for fields and options."""
    found: dict[str, str] = {}
    for source in sources:
        plain = re.sub(r"\W+", "_", source).strip("_").lower() or kind
        plain = f"{kind}_{plain}" if plain[0].isdigit() or keyword.iskeyword(plain) or plain in taken else plain
        if plain not in ("call", "prompt") and plain not in found:
            found[plain] = source
    return found


def test_code(wanted: Wanted, folder: str) -> str:
    """A test that runs the agent in a workflow of one row. `folder` is that of the agents, as seen from the test."""
    inputs = {name: f"some {name}" for name in wanted.inputs}
    row = ["Flow", "A", wanted.type, "|".join(wanted.inputs), "|".join(wanted.outputs) or "result"]
    expected = wanted.outputs or ["result"]
    options = _sample(wanted)
    return f'''"""What the agent {wanted.stem} does."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path

from agentmap_asgi import AgentMapConfig, AgentMapService

AGENTS = (Path(__file__).parent / {folder!r}).resolve()
INPUTS = {inputs!r}
OPTIONS = {options!r}


def test_{wanted.stem}(tmp_path: Path) -> None:
    """Its results are stored where the rows expect them."""
    source = tmp_path / "flow.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["GraphName", "Node", "AgentType", "Input_Fields", "Output_Field", "Context"])
        rows.writerow([*{row!r}, json.dumps(OPTIONS)])
    config = AgentMapConfig(custom_agents_path=AGENTS, storage_url="memory://")
    service = AgentMapService(config, source=source)
    document = asyncio.run(service.execute_workflow("Flow", INPUTS))
    assert document["success"], document["error"]
    for name in {expected!r}:
        assert document["result"][name] is not None
'''


def _sample(wanted: Wanted) -> Mapping[str, Any]:
    """The options of a row; secrets are not there in a test."""
    found: dict[str, Any] = {}
    for node in wanted.nodes:
        for key, value in node.options.items():
            if key in wanted.options and not (isinstance(value, str) and value.startswith("secret:")):
                found.setdefault(key, value)
    return found
