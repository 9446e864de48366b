"""Agents that make a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flows import node, run, service

from agentmap_asgi.agents.builtin import BUILTINS

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("kind", "prompt", "inputs", "expected"),
    [
        ("default", "", "", None),
        ("default", "", "a", [1]),
        ("default", "", "a|b", {"a": [1], "b": None}),
        ("default", "", "o.k", "deep"),
        ("default", "", "o.gone", None),
        ("default", "", "gone", None),
        ("default", "", "a:p", [1]),
        ("default", "", "a:p|o.k:q", {"p": [1], "q": "deep"}),
        ("default", "", "graph_name", "Flow"),
        ("default", "text", "a", "text"),
        ("default", "{a} {o.k}", "", "[1] deep"),
        ("echo", "", "a", [1]),
        ("echo", "text", "a", [1]),
        ("echo", "{{a}}", "a", [1]),
        ("echo", "{a}!", "", "[1]!"),
        ("echo", "{gone}", "a", "{gone}"),
        ("success", "", "a", [1]),
        ("success", "ok {o.k}", "a", "ok deep"),
        ("failure", "", "a|b", {"a": [1], "b": None}),
        ("failure", "bad", "", "bad"),
        ("aggregator", "", "", {}),
        ("aggregator", "ignored", "a", {"a": [1]}),
        ("aggregator", "", "a|gone|o.k:q", {"a": [1], "gone": None, "q": "deep"}),
    ],
)
async def test_what_it_makes(kind: str, prompt: str, inputs: str, expected: Any, tmp_path: Path) -> None:
    """A Prompt is rendered; without one, one input is passed on as it is, several as an object, none as null."""
    rows = [node("A", kind, prompt=prompt, inputs=inputs, output="out")]
    document = await run(tmp_path, rows, {"a": [1], "o": {"k": "deep"}})
    assert document["result"].get("out") == expected


async def test_what_is_passed_on_is_no_alias(tmp_path: Path) -> None:
    """A value passed on and changed later by an agent's result is not changed elsewhere."""

    async def append(call: Any) -> Any:
        call.inputs["b"].append(2)
        return call.inputs["b"]

    rows = [node("A", "echo", inputs="a", output="b", edge="B"), node("B", "append", inputs="b", output="b")]
    document = await run(tmp_path, rows, {"a": [1]}, agents={"append": append})
    assert document["result"] == {"a": [1], "b": [1, 2]}


@pytest.mark.parametrize(
    ("output", "state", "expected"),
    [
        ("q", {"q": 1}, {"q": 1}),
        ("q", {"q": None}, {"q": None}),
        ("q|r", {"q": 1, "r": 2}, {"q": 1, "r": 2}),
        ("q", {}, None),
        ("q|r", {"q": 1}, None),
    ],
)
async def test_input_takes_what_the_caller_gave(
    output: str, state: dict[str, Any], expected: dict[str, Any] | None, tmp_path: Path
) -> None:
    """`input` finds its answer under its Output_Field, or asks for it."""
    document = await run(tmp_path, [node("A", "input", prompt="Say", output=output)], state)
    if expected is None:
        assert (document["status"], document["waiting"][0]["prompt"]) == ("suspended", "Say")
    else:
        assert document["result"] == expected


@pytest.mark.parametrize(
    ("inputs", "context", "expected"),
    [
        ("", {}, ""),
        ("a|b", {}, "a: x\n\nb: 2"),
        ("a:first|gone|b", {}, "first: x\n\nb: 2"),
        ("a|b", {"separator": ""}, "a: xb: 2"),
        ("a|b", {"format": "{value}"}, "x\n\n2"),
        ("a|b", {"format": "{key}{key}{value}{value}", "separator": "/"}, "aaxx/bb22"),
        ("a|b", {"format": "{{key}} {key}"}, "{key} a\n\n{key} b"),
        ("a|b", {"format": ""}, "\n\n"),
        ("a|b|c", {"include_keys": ["a"]}, "a: x"),
        ("a|b|c", {"include_keys": "b, c"}, 'b: 2\n\nc: {"k": "ü"}'),
        ("a|b|c", {"include_keys": "zzz"}, ""),
        ("a", {"include_keys": ""}, "a: x"),
        ("sly", {"format": "{key}={value}"}, "sly={key} {value}"),
        ("empty", {}, "empty: "),
    ],
)
async def test_summary(inputs: str, context: dict[str, Any], expected: str, tmp_path: Path) -> None:
    """`key: value` by blank lines without nulls, as `format`, `separator` and `include_keys` say."""
    state = {"a": "x", "b": 2, "c": {"k": "ü"}, "sly": "{key} {value}", "empty": ""}
    document = await run(tmp_path, [node("A", "summary", inputs=inputs, output="s", context=context)], state)
    assert document["result"]["s"] == expected


def test_a_format_with_other_names_is_an_error_of_the_file(tmp_path: Path) -> None:
    """`format` knows {key} and {value}."""
    made = service(tmp_path, [node("A", "summary", inputs="a", context={"format": "{name}"})])
    (found,) = [d for d in made.get_workflow_definition("Flow")["diagnostics"] if d["severity"] == "error"]
    assert (found["code"], found["message"]) == ("AM-A004", "format has {name}")


def test_every_built_in_says_what_it_does() -> None:
    """Each row of the table has a sentence, and a way to run."""
    for agent in BUILTINS:
        assert agent.summary.endswith(".")
        assert agent.compile is not None or agent.run is not None or agent.sub_workflow
        assert agent.idempotent or agent.mode != "inline"  # those that change something may not be
        for name in (agent.name, *agent.aliases):
            assert BUILTINS.find(name) is agent
