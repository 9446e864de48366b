"""Agents that decide where to go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flows import Row, node, run, service

pytestmark = pytest.mark.anyio

ENDS = [node(name, prompt=name, output="went") for name in ("Yes", "No", "Other")]


async def went(folder: Path, first: Row, state: dict[str, Any], more: list[Row] | None = None) -> Any:
    document = await run(folder, [first, *(more or ENDS)], state)
    return document["error"]["code"] if document["error"] else document["result"].get("went")


def errors(folder: Path, rows: list[Row]) -> list[tuple[str, str]]:
    found = service(folder, rows).get_workflow_definition("Flow")["diagnostics"]
    return [(d["code"], d["message"]) for d in found if d["severity"] == "error"]


@pytest.mark.parametrize(
    ("context", "state", "expected"),
    [
        ({}, {"v": True}, "Yes"),
        ({}, {"v": False}, "No"),
        ({}, {"v": 1}, "Yes"),
        ({}, {"v": 2}, "Yes"),
        ({}, {"v": []}, "Yes"),
        ({"default_result": False}, {"v": 2}, "No"),
        ({"default_result": "no"}, {"v": None}, "No"),
        ({"default_result": "yes"}, {"v": None}, "Yes"),
        ({"success_field": "w.deep"}, {"v": "yes", "w": {"deep": "no"}}, "No"),
        ({"success_values": "a,b"}, {"v": "B"}, "Yes"),
        ({"success_values": [1, True], "default_result": False}, {"v": "TRUE"}, "Yes"),
        ({"success_values": "x", "failure_values": "x"}, {"v": "x"}, "Yes"),
        ({"failure_values": ["Groß"]}, {"v": "GROSS"}, "No"),
        ({"when": "v > 1"}, {"v": 2}, "Yes"),
        ({"when": "v > 1"}, {"v": "2"}, "No"),
        ({"when": "v > 1", "success_field": "w"}, {"v": 1, "w": "yes"}, "No"),
        ({"when": "x == 'state'"}, {"x": "state"}, "Yes"),
        ({"when": ""}, {"v": "no"}, "No"),
    ],
)
async def test_branching(context: dict[str, Any], state: dict[str, Any], expected: str, tmp_path: Path) -> None:
    """By a condition, or by the words of a field, or by default."""
    first = node("B", "branching", inputs="v", ok="Yes", ko="No", context=context)
    assert await went(tmp_path, first, state) == expected


CASES = {"refund": "Yes", "1": "No", "true": "Other", "null": "No"}


@pytest.mark.parametrize(
    ("context", "state", "expected"),
    [
        ({"field": "k", "cases": CASES}, {"k": "refund"}, "Yes"),
        ({"field": "k", "cases": CASES}, {"k": " refund "}, "Yes"),
        ({"field": "k", "cases": CASES}, {"k": 1}, "No"),
        ({"field": "k", "cases": CASES}, {"k": True}, "Other"),
        ({"field": "k", "cases": CASES}, {"k": None}, "No"),
        ({"field": "k", "cases": CASES}, {"k": "Refund"}, None),
        ({"field": "k", "cases": CASES}, {}, None),
        ({"field": "k", "cases": CASES, "default": "Other"}, {}, "Other"),
        ({"field": "k.deep", "cases": CASES}, {"k": {"deep": "refund"}}, "Yes"),
        ({"cases": CASES}, {"v": "refund"}, "Yes"),
        ({"cases": [{"when": "v > 9", "to": "Yes"}, {"when": "v > 5", "to": "No"}]}, {"v": 7}, "No"),
        ({"cases": [{"when": "v > 9", "to": "Yes"}, {"when": "v > 5", "to": "No"}]}, {"v": 10}, "Yes"),
        ({"cases": [{"when": "v > 9", "to": "Yes"}]}, {"v": 1}, None),
        ({"cases": [{"when": "v > 9", "to": "Yes"}], "default": "No"}, {"v": 1}, "No"),
    ],
)
async def test_switch(context: dict[str, Any], state: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    """By a field's value or a list of conditions; without a match the default, else that branch ends."""
    assert await went(tmp_path, node("S", "switch", inputs="v", output="to", context=context), state) == expected


async def test_a_switch_without_a_match_says_no(tmp_path: Path) -> None:
    """Failure_Next takes what no case and no default takes, and nothing is stored."""
    first = node("S", "switch", inputs="v", output="to", ko="Other", context={"cases": CASES})
    document = await run(tmp_path, [first, *ENDS], {"v": "?"})
    assert document["result"] == {"v": "?", "went": "Other"}


@pytest.mark.parametrize(
    ("context", "code", "words"),
    [
        ({}, "AM-A004", "no cases"),
        ({"cases": {}}, "AM-A004", "no cases"),
        ({"cases": "Yes"}, "AM-A004", "no cases"),
        ({"cases": {"a": 5}}, "AM-A004", "no node name"),
        ({"cases": ["Yes"]}, "AM-A004", "not a condition with a target"),
        ({"cases": [{"when": "v"}]}, "AM-A004", "not a condition with a target"),
        ({"cases": [{"to": "Yes"}]}, "AM-A004", "not a condition with a target"),
        ({"cases": [{"when": "v >", "to": "Yes"}]}, "AM-X001", "character 4"),
        ({"cases": {"a": "Gone"}}, "AM-R001", "Gone"),
        ({"cases": {"a": "Yes"}, "default": "Gone"}, "AM-R001", "Gone"),
    ],
)
def test_a_wrong_switch_is_an_error_of_the_file(context: dict[str, Any], code: str, words: str, tmp_path: Path) -> None:
    """Its cases and targets are checked when the file is loaded."""
    found = errors(tmp_path, [node("S", "switch", inputs="v", context=context), *ENDS])
    assert any(kind == code and words in message for kind, message in found), found


def test_a_wrong_condition_is_an_error_of_the_file(tmp_path: Path) -> None:
    """`when` is parsed when the file is loaded, and the error has the character."""
    ((code, message),) = errors(tmp_path, [node("B", "branching", context={"when": "a = 1"}, ok="Yes"), *ENDS[:1]])
    assert code == "AM-X001"
    assert "Unexpected '=' at character 3" in message


async def test_typographic_quotes_in_a_condition_are_mended(tmp_path: Path) -> None:
    """Where it would not be understood as it stands; inside plain quotes they are content."""
    for written, region in (("region == ‘EU’", "EU"), ("region == '‘EU’'", "‘EU’")):
        rows = [node("B", "branching", context={"when": written}, output="answer", ok="Yes"), *ENDS[:1]]
        assert (await run(tmp_path, rows, {"region": region}))["result"]["answer"] is True


def test_a_graph_without_a_workflow_is_an_error_of_the_file(tmp_path: Path) -> None:
    """A sub-workflow node says which workflow it runs."""
    assert errors(tmp_path, [node("A", "graph")])[0][0] == "AM-A004"
    assert errors(tmp_path, [node("A", "graph", context="{workflow=::Gone}")])[0][0] == "AM-R011"


DESKS = [
    node("Billing", prompt="Billing", output="went", context={"description": "invoices and refunds"}),
    node("TechSupport", prompt="TechSupport", output="went", context={"keywords": ["broken", "crash"]}),
    node("Sales", "echo", prompt="{went}Sales", output="went"),
]


@pytest.mark.parametrize(
    ("context", "request_text", "expected"),
    [
        ({}, "BILLING please", "Billing"),
        ({}, "techsupport", "TechSupport"),
        ({}, "my invoices", "Billing"),
        ({}, "the tech desk", "TechSupport"),
        ({}, "it is broken", "TechSupport"),
        ({}, "crash and invoices and refunds", "Billing"),
        ({}, "and the of", "routing_invalid"),
        ({}, "", "routing_invalid"),
        ({"default_target": "Billing"}, "zzz", "Billing"),
        ({"nodes": "Billing|TechSupport"}, "sales", "routing_invalid"),
        ({"nodes": ["TechSupport"]}, "billing broken", "TechSupport"),
        ({"nodes": "all"}, "billing", "Billing"),
        ({"nodeType": "default"}, "sales invoices", "Billing"),
        ({"node_type": "Echo"}, "invoices, sales", "{went}Sales"),
        ({}, {"topic": "refunds"}, "Billing"),
        ({}, "billingx", "routing_invalid"),
    ],
)
async def test_orchestrator(context: dict[str, Any], request_text: Any, expected: str, tmp_path: Path) -> None:
    """By a node's name, else by the words of its name, description and keywords, else the default, else it fails."""
    first = node("O", "orchestrator", inputs="request", context=context)
    assert await went(tmp_path, first, {"request": request_text}, DESKS) == expected


async def test_an_orchestrator_that_finds_nothing_can_be_handled(tmp_path: Path) -> None:
    """No match without a default is a failure, which Failure_Next takes."""
    first = node("O", "orchestrator", inputs="request", ko="Sales", context={"nodes": "Billing"})
    assert await went(tmp_path, first, {"request": "?"}, DESKS) == "{went}Sales"
