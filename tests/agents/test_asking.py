"""What is wrong with rows that ask: found when the file is loaded, at the cell, with what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flows import Row, node, service

from agentmap_asgi.execution.waits import form_problem

GOOD: list[dict[str, Any]] = [
    {},
    {"type": "Approval", "assignees": ["ada", "role:boss"]},
    {"type": "choice", "options": ["a", "b"], "timeout": "2d", "on_timeout": "End"},
    {"type": "choice", "options": "a|b", "assignees": "ada, eve"},
    {"type": "edit", "form": {"type": "string"}},
    {"type": "form", "form": {"properties": {"n": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}},
    {"interaction_type": "text_input", "timeout_seconds": 30},
]


def found(tmp_path: Path, *rows: Row) -> list[tuple[str, str, str | None, str]]:
    """(code, severity, column, message with its hint) of each diagnostic."""
    made = service(tmp_path, list(rows))
    (workflow,) = made.catalogue.workflows
    return [
        (one.code, one.severity, one.column_name, f"{one.message} {one.hint}")
        for one in made.catalogue.diagnostics(workflow)
    ]


@pytest.mark.parametrize("context", GOOD)
def test_a_row_that_asks_is_clean(context: dict[str, Any], tmp_path: Path) -> None:
    """Each type, with whom and how long."""
    rows = node("A", "human", inputs="x", context=context, ok="End"), node("End")
    assert found(tmp_path, *rows) == []


WRONG: list[tuple[str, dict[str, Any], str, str, str, str]] = [
    ("human", {"type": "aproval"}, "AM-A004", "error", "Context", "Did you mean 'approval'?"),
    ("human", {"type": "zzz"}, "AM-A004", "error", "Context", "approval, choice, text_input, edit, form"),
    ("human", {"type": "choice"}, "AM-A004", "error", "Context", "has no options"),
    ("human", {"type": "choice", "options": []}, "AM-A004", "error", "Context", "has no options"),
    ("human", {"type": "choice", "options": [1, 2]}, "AM-A004", "error", "Context", "options that are not texts"),
    ("human", {"options": ["a"]}, "AM-A004", "warning", "Context", "its type is approval"),
    ("human", {"type": "form"}, "AM-A004", "error", "Context", "has no form"),
    ("human", {"type": "form", "form": {"type": "objekt"}}, "AM-A004", "error", "Context", "'objekt'"),
    ("human", {"type": "form", "form": "name"}, "AM-A004", "error", "Context", "it is no object"),
    ("human", {"type": "form", "form": {"$ref": "#/gone"}}, "AM-A004", "error", "Context", "not in the form"),
    ("human", {"type": "form", "form": {"pattern": "(a+)+$"}}, "AM-A004", "error", "Context", "regular expression"),
    ("human", {"assignees": [1]}, "AM-A004", "error", "Context", "role:manager"),
    ("human", {"timeout": "2d", "on_timeout": "Emd"}, "AM-R001", "error", "Context", "Did you mean 'End'?"),
    ("human", {"timeout": "2d", "on_timeout": 5}, "AM-A004", "error", "Context", "which is no node name"),
    ("human", {"on_timeout": "End"}, "AM-A004", "warning", "Context", "no timeout after which"),
    ("human", {"timeout": "soon", "on_timeout": "End"}, "AM-A006", "error", "Timeout", "2d"),
    ("human", {"timeout": "99999d"}, "AM-A006", "error", "Timeout", "thirty years"),
    ("human", {"timeout_seconds": "soon"}, "AM-A004", "error", "Context", "number of seconds"),
    ("human", {"asignees": ["ada"]}, "AM-A008", "info", "Context", "'assignees'"),
    ("human", {"map_over": "list"}, "AM-A004", "error", "Map_Over", "cannot"),
    ("suspend", {"map_over": "list"}, "AM-A004", "error", "Map_Over", "cannot"),
    ("suspend", {"form": {"$ref": "https://example.org/"}}, "AM-A004", "error", "Context", "not in the form"),
    ("suspend", {"timeout": "1h", "on_timeout": "Emd"}, "AM-R001", "error", "Context", "Did you mean 'End'?"),
    ("input", {"form": []}, "AM-A004", "error", "Context", "it is no object"),
]


@pytest.mark.parametrize(("kind", "context", "code", "severity", "column", "said"), WRONG)
def test_a_wrong_option_is_one_message(
    kind: str, context: dict[str, Any], code: str, severity: str, column: str, said: str, tmp_path: Path
) -> None:
    """With its cell, and what was probably meant."""
    rows = node("A", kind, inputs="x", output="a", context=context, edge="End"), node("End", inputs="a")
    (problem,) = found(tmp_path, *rows)
    assert problem[:3] == (code, severity, column)
    assert said in problem[3]


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    """An approval whose Edge hides its Failure_Next, an edit of nothing, an input without a field."""
    rows = node("A", "human", edge="B", ko="C"), node("B", "human", context={"type": "edit"}, edge="C"), node("C")
    assert [problem[:3] for problem in found(tmp_path, *rows)] == [
        ("AM-R008", "warning", "Failure_Next"),
        ("AM-A005", "warning", "Input_Fields"),
    ]
    assert [problem[:3] for problem in found(tmp_path, node("A", "input"))] == [("AM-A005", "warning", "Output_Field")]


def test_a_node_that_only_a_timeout_leads_to_is_reached(tmp_path: Path) -> None:
    """It counts as an edge, for joins and drawings too."""
    rows = [
        node("A", "human", output="a", edge="J", context={"timeout": "1h", "on_timeout": "Late"}),
        node("Late", edge="J"),
        node("J"),
    ]
    made = service(tmp_path, rows)
    assert found(tmp_path, *rows) == []
    assert "Late" in [edge["target"] for edge in made.draw_workflow("Flow", "json")["edges"]]
    plan = made._plan(made.catalogue.find("Flow"))
    assert (plan.edges[0], plan.joins[2]) == ((2, 1), True)


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({}, None),
        ({"$ref": "#"}, None),
        ({"$defs": {"a/b": {"allOf": [{}]}}, "$ref": "#/$defs/a~1b/allOf/0"}, None),
        ({"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}}, None),
        ({"$ref": "#here"}, "leads to"),
        ({"$ref": "#/$defs/x/y"}, "leads to"),
        ({"minimum": "x"}, "minimum"),
        ({"patternProperties": {"^a": {}}}, "regular expression"),
        (True, "no object"),
    ],
)
def test_which_forms_there_are(form: Any, problem: str | None) -> None:
    """JSON Schemas that need nothing from elsewhere."""
    said = form_problem(form, patterns=False)
    assert said is None if problem is None else problem in (said or "")
