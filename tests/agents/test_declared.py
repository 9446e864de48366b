"""Declared options: what values they take, where a wrong one stands, and what an agent gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, service

from agentmap_asgi import Option, agent
from agentmap_asgi.__main__ import main
from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.agents.options import KINDS, Unfit, declared, rows_of
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.workflows.options import place_of

VALUES: list[tuple[Option, Any, Any]] = [
    (Option("o", "text"), "a", "a"),
    (Option("o", "text"), 5, "5"),
    (Option("o", "text"), True, "true"),
    (Option("o", "text"), ["a"], Unfit),
    (Option("o", choices=("write", "append")), " Append", "append"),
    (Option("o", choices=("write", "append")), "burn", Unfit),
    (Option("o", "number", least=0, most=2), 0.5, 0.5),
    (Option("o", "number", least=0, most=2), "0.5", 0.5),
    (Option("o", "number", least=0, most=2), 3, Unfit),
    (Option("o", "number"), "nan", Unfit),
    (Option("o", "number"), True, Unfit),
    (Option("o", "number"), "many", Unfit),
    (Option("o", "whole", least=1), 3, 3),
    (Option("o", "whole", least=1), "3", 3),
    (Option("o", "whole", least=1), 0, Unfit),
    (Option("o", "whole"), 1.5, Unfit),
    (Option("o", "whole"), True, Unfit),
    (Option("o", "truth"), "Yes", True),
    (Option("o", "truth"), 0, False),
    (Option("o", "truth"), "perhaps", Unfit),
    (Option("o", "names"), "a|b, c", ["a", "b", "c"]),
    (Option("o", "names"), ["a", 5], ["a", "5"]),
    (Option("o", "names"), {"a": 1}, Unfit),
    (Option("o", "duration"), "2m", 120.0),
    (Option("o", "duration"), 5, 5.0),
    (Option("o", "duration", most=60), "2m", Unfit),
    (Option("o", "duration"), "soon", Unfit),
    (Option("o", "object"), {"a": 1}, {"a": 1}),
    (Option("o", "object"), "a", Unfit),
    (Option("o", "list"), [1], [1]),
    (Option("o", "list"), "a|b", Unfit),
    (Option("o", "any"), {"a": [1]}, {"a": [1]}),
]


@pytest.mark.parametrize(("option", "value", "result"), VALUES)
def test_what_an_option_takes(option: Option, value: Any, result: Any) -> None:
    """Texts count as the number or truth they mean; everything else is refused with what would fit."""
    if result is Unfit:
        with pytest.raises(Unfit) as caught:
            option.read(value)
        assert str(caught.value)
    else:
        assert option.read(value) == result


@pytest.mark.parametrize(
    ("cell", "text", "place"),
    [
        ('{"a": {"b": 1}, "b": 2}', "b", (1, 17)),
        ('{"a": "b",\n "b": 2}', "b", (2, 2)),
        ("{'a': 'b: 1', 'b': 2}", "b", (1, 15)),
        ("{x=1, limit: 5}", "limit", (1, 7)),
        ("{x=limit, y=2}", "limit", (1, 4)),
        ("{“a”: “, b: 2”, “b”: 1}", "b", (1, 17)),
        ('{"\\u0062": 1}', "b", (1, 2)),
        ('{"a": "x > ü"}', "x > ü", (1, 8)),
        ('{"a": "say \\"x\\""}', 'say "x"', (1, 8)),
        ('{"a": 1}', "gone", None),
    ],
)
def test_where_an_option_stands(cell: str, text: str, place: tuple[int, int] | None) -> None:
    """A key of the outermost object in any form of a Context, or else the text itself."""
    assert place_of(cell, text) == place


WRONG = {
    "a value": ('{"default_result": []}', "AM-A004", "error", (1, 2), "true or false"),
    "on a further line": ('{"success_values": ["a"],\n "default_result": {}}', "AM-A004", "error", (2, 2), "true"),
    "a key": ('{"when": "a", "defualt_result": true}', "AM-A008", "info", (1, 15), "default_result"),
    "a condition": ('{"when": "a >"}', "AM-X001", "error", (1, 11), ""),
}


@pytest.mark.parametrize(("context", "code", "severity", "place", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_reported_with_its_place(
    context: str, code: str, severity: str, place: tuple[int, int], word: str, tmp_path: Path
) -> None:
    """Row, column, and line and character inside the cell; with what to write instead."""
    made = service(tmp_path, [node("A", "branching", inputs="a", context=context)])
    (found,) = made.get_workflow_definition("Flow")["diagnostics"]
    assert (found["code"], found["severity"], found["column_name"]) == (code, severity, "Context")
    assert (found["cell_line"], found["cell_character"]) == place
    assert word in found["hint"]


@agent(
    options={
        "unit": ("km", "mi"),
        "limit": Option("limit", "whole", "Stops.", default=10, least=1, aliases=("max",)),
        "exact": bool,
    },
    summary="Finds a way.",
)
def route(call: Any) -> Any:
    return call.options


@pytest.mark.anyio
async def test_an_own_agent_gets_what_it_declares(tmp_path: Path) -> None:
    """Converted, under the option's name, with defaults; other keys as they are; secrets at any depth."""
    context = {"max": "3", "exact": "yes", "more": {"key": ["secret:K"]}}
    document = await run(
        tmp_path,
        [node("A", "route", output="o", context=context)],
        agents={"route": route},
        secrets={"K": "hidden"},
    )
    assert document["result"]["o"] == {"limit": 3, "exact": True, "more": {"key": ["***"]}}
    document = await run(tmp_path, [node("A", "route", output="o")], agents={"route": route})
    assert document["result"]["o"] == {"limit": 10}


def test_options_of_own_agents_are_checked_when_they_declare_them(tmp_path: Path) -> None:
    """Wrong values, unknown keys, and two keys for one option."""
    rows = [
        node("A", "route", context={"unit": "mile"}, edge="B"),
        node("B", "route", context={"untt": "km"}, edge="C"),
        node("C", "route", context={"limit": 1, "max": 2}, edge="D"),
        node("D", "route", context={"limit": "secret:LIMIT", "exact": None}),
    ]
    made = service(tmp_path, rows, agents={"route": route})
    found = made.get_workflow_definition("Flow")["diagnostics"]
    assert [(one["node"], one["code"]) for one in found] == [("A", "AM-A004"), ("B", "AM-A008"), ("C", "AM-A007")]
    assert "'unit'" in found[1]["hint"]


@pytest.mark.parametrize(
    "options", [{"a": "text"}, {"a": complex}, [("a", int)], [Option("a", "colour")], [Option("a"), Option("a")]]
)
def test_a_declaration_that_means_nothing_is_refused(options: Any, tmp_path: Path) -> None:
    """With the agent's name."""

    @agent(options=options)
    def bad(call: Any) -> Any: ...

    with pytest.raises(ConfigError, match="'bad'"):
        service(tmp_path, [node("A", "bad")], agents={"bad": bad})


def test_each_built_in_agent_declares_itself() -> None:
    """Options, inputs and result; every option with a text, and a default that it would take."""
    for one in BUILTINS:
        assert one.options is not None, one.name
        assert one.summary, one.name
        assert one.inputs, one.name
        assert one.output, one.name
        for row in rows_of(one.options):
            assert row.summary.endswith("."), (one.name, row.name)
            if row.default is not None:
                assert row.read(row.default) == row.default, (one.name, row.name)


def test_every_kind_has_a_schema() -> None:
    """Bounds and choices are in it."""
    assert Option("o", "whole", "Text.", default=2, least=1, most=3).schema == {
        "type": "integer",
        "description": "Text.",
        "minimum": 1,
        "maximum": 3,
        "default": 2,
    }
    assert Option("o", choices=("a", "b")).schema["enum"] == ["a", "b"]
    assert all(declared(Option("o", kind))["o"].shown for kind in KINDS)


def test_the_command_line_lists_agents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All, or those that are named; those of the folder too; with options, inputs and results, as text or as JSON."""
    monkeypatch.delenv("AGENTMAP_STORAGE_URL")
    folder = tmp_path / "own"
    folder.mkdir()
    folder.joinpath("mine.py").write_text(
        "from agentmap_asgi import agent\n@agent(options={'unit': ('km', 'mi')}, expected_params=['to'])\n"
        "def way(call) -> dict[str, int]:\n    'Finds a way.'\n"
    )
    config = tmp_path / "agentmap.toml"
    config.write_text('custom_agents_path = "own"\n')
    assert main(["agents", "--config", str(config)]) == 0
    text = capsys.readouterr().out
    assert "branching (also branch): Decides" in text
    assert "way: Finds a way.\n  inputs: to\n" in text
    assert "  unit = km, mi" in text
    assert main(["agents", "WayAgent", "Switch", "--json", "--config", str(config)]) == 0
    way, switch = json.loads(capsys.readouterr().out)
    assert (way["name"], way["options"]["unit"]["enum"], way["idempotent"]) == ("way", ["km", "mi"], False)
    assert (switch["name"], switch["idempotent"]) == ("switch", True)
    assert main(["agents", "swich"]) == 2
    assert "did you mean 'switch'?" in capsys.readouterr().err
