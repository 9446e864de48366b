"""What is found in the graph of a workflow whenever a file is loaded."""

from __future__ import annotations

import pytest
from sheets import REGISTRY, cell, codes, load, workflow

from agentmap_asgi.workflows.checks import RESERVED, input_schema
from agentmap_asgi.workflows.diagnostics import Diagnostic

HEADER = "GraphName,Node,AgentType,Edge,Success_Next,Failure_Next,Context,Input_Fields,Output_Field\n"


def findings(*rows: str) -> list[Diagnostic]:
    """Of the workflow G with these rows: name, agent, edge, success, failure, context, inputs, output."""
    return list(load(HEADER + "".join(f"G,{row}\n" for row in rows)).findings)


CLEAN = {
    "a chain": ("A,,B", "B,,C", "C"),
    "a fork and a join": ("A,,B|C", "B,,D", "C,,D", "D"),
    "a loop with a way out": ("A,,B", "B,branching,,C,A,{when=x}", "C"),
    "a loop that ends by an unset side": ("A,,B", "B,branching,,A,,{when=x}"),
    "a loop that an error leaves": ("A,,B,,C", "B,,A", "C"),
    "rows in any order": ("A,,C", "B", "C,,B"),
    "a switch": ("A,switch,,,," + cell('{"field": "k", "cases": {"x": "B"}, "default": "C"}'), "B", "C"),
    "an orchestrator reaches all": ("A,orchestrator,,,,,request", "B", "C"),
    "a function reaches its targets": ("A,,func:pick(B|C)", "B", "C"),
    "nested loops": ("A,,B", "B,branching,,C,B,{when=x}", "C,branching,,D,A,{when=y}", "D"),
    "success and failure to one node": ("A,branching,,B,B,{when=x}", "B"),
}


@pytest.mark.parametrize("rows", CLEAN.values(), ids=CLEAN)
def test_good_graphs_are_clean(rows: tuple[str, ...]) -> None:
    """Nothing is said about ordinary workflows."""
    assert findings(*rows) == []


def test_an_unknown_target_is_one_error_with_the_nearest_name() -> None:
    """What follows the node that was meant is not reported as unreachable."""
    (problem,) = findings("Start,,Reveiw", "Review,,Send", "Send")
    assert (problem.code, problem.text, problem.column_name) == ("AM-R001", "Reveiw", "Edge")
    assert "'Review'" in problem.hint
    assert problem.fix is None, "a guess is not applied by machine"


@pytest.mark.parametrize("written", ["review", "Re view", "RE-VIEW"])
def test_a_target_that_differs_in_case_or_signs_has_a_fix(written: str) -> None:
    """Only spelling that cannot mean another node is mended by machine."""
    assert [p.fix for p in findings(f"Start,,{written}", "Review")] == ["Review"]


def test_an_unknown_target_without_a_near_name_hides_no_second_message() -> None:
    """What cannot be reached may be reached through the cell that is wrong, so only that is reported."""
    assert codes(findings("A,,Zzzzzz", "B,,C", "C")) == ["AM-R001"]


def test_each_unknown_target_is_reported_in_its_column() -> None:
    """Also those that agents name in their Context, and those of functions."""
    rows = ("A,,,Qqqq,Wwww", 'B,switch,,,,"{""field"": ""k"", ""cases"": {""x"": ""Yyyy""}}"', "C,,func:pick(A|Vvvv)")
    assert [(p.text, p.column_name) for p in findings(*rows)] == [
        ("Qqqq", "Success_Next"),
        ("Wwww", "Failure_Next"),
        ("Yyyy", "Context"),
        ("Vvvv", "Edge"),
    ]


def test_an_unreachable_part_is_reported_where_it_begins() -> None:
    """Its followers are counted, not listed; a loop that nothing leads into is reported once."""
    problems = findings("A", "B,,C", "C,,D", "D", "X,,Y", "Y,,X")
    assert [(p.code, p.text) for p in problems] == [("AM-R002", "B"), ("AM-R002", "X")]
    assert "2 after it" in problems[0].message


def test_a_function_that_may_reach_anything_leaves_nothing_unreachable() -> None:
    """The only warning is the one about its targets."""
    assert codes(findings("A,,func:pick", "B,,C", "C", "D")) == ["AM-R007"]


@pytest.mark.parametrize(
    "rows",
    [("A,,B", "B,,A"), ("A,,B", "B,,C", "C,,B"), ("A,echo,,B", "B,echo,,A")],
)
def test_a_loop_without_a_way_out_is_reported_once(rows: tuple[str, ...]) -> None:
    """It would run until max_steps."""
    assert codes(findings(*rows)) == ["AM-R003"]


def test_a_node_that_leads_only_to_itself_is_reported() -> None:
    """It has a code of its own."""
    assert codes(findings("A,,B", "B,,B")) == ["AM-R004"]
    assert codes(findings("A,,B", "B,branching,,B,,{when=x}")) == []


def test_edge_makes_other_cells_idle() -> None:
    """With Edge, Success_Next is never taken; Failure_Next is, when the agent raises."""
    assert codes(findings("A,,B,B", "B")) == ["AM-R008"]
    assert codes(findings("A,echo,B,,C", "B", "C")) == []
    (problem,) = findings("A,branching,B,,C,{when=x}", "B", "C")
    assert (problem.code, problem.column_name) == ("AM-R008", "Failure_Next")


def test_a_loop_with_two_entrances_is_noted() -> None:
    """The node in the earliest row counts as its start."""
    (problem,) = findings("A,branching,,B,C,{when=x}", "B,,C", "C,branching,,D,B2,{when=y}", "B2,,B", "D")
    assert (problem.code, problem.severity, problem.node) == ("AM-R009", "info", "B")


def test_a_join_that_sends_back_into_its_own_branch_is_noted() -> None:
    """One note, not two."""
    (problem,) = findings("A,,B|C", "B,,J", "C,,J", "J,branching,,End,B,{when=x}", "End")
    assert (problem.code, problem.severity, problem.node, problem.text) == ("AM-R010", "info", "J", "B")


def test_findings_of_agents_have_their_place() -> None:
    """A condition that is not understood is an error of its node, at its Context cell."""
    (problem,) = findings('A,branching,,,,"{""when"": ""a >""}"')
    assert (problem.code, problem.row, problem.column, problem.column_name) == ("AM-X001", 2, "G", "Context")


def test_a_sub_workflow_of_the_same_file_must_exist() -> None:
    """`::Name` names a workflow of this file."""
    rows = "G,A,graph,,,,{workflow=::Chidl}\nChild,X\n"
    (problem,) = load(HEADER + rows).findings
    assert (problem.code, problem.column_name) == ("AM-R011", "Context")
    assert "::Child" in problem.hint
    assert codes(load(HEADER + rows.replace("Chidl", "Child"))) == []


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_workflow_names_warn(name: str) -> None:
    """They stand for operations in HTTP paths, and can be reached in another way."""
    (problem,) = load(f"GraphName,Node\n{name},A\n").findings
    assert (problem.code, problem.severity) == ("AM-N006", "warning")
    assert f"/workflows/{name}" in problem.hint


def test_a_field_read_before_it_is_written_warns() -> None:
    """When only a later node writes it."""
    (problem,) = findings("A,,B,,,,total", "B,,,,,,,total")
    assert (problem.code, problem.severity, problem.text, problem.node) == ("AM-F001", "warning", "total", "A")


def test_feedback_of_a_loop_is_only_noted() -> None:
    """In its first round a field that the loop writes is null."""
    problems = findings("Draft,,Review,,,,feedback,text", "Review,branching,,End,Draft,{when=ok},text,feedback", "End")
    assert [(p.code, p.severity, p.text) for p in problems] == [("AM-F001", "info", "feedback")]


@pytest.mark.parametrize(
    "rows",
    [
        ("A,,B,,,,given,x", "B,,,,,,x|given"),
        ("A,,B,,,,count,count", "B,,,,,,count"),
        ("A,,,,,,last_action_success|errors.0",),
        ("A,,B,,,,,x", "B,,,,,,x.y"),
    ],
)
def test_fields_in_order_are_clean(rows: tuple[str, ...]) -> None:
    """What the caller gives, counters, special names, and parts of a written object."""
    assert findings(*rows) == []


def test_the_input_schema_asks_for_what_nobody_writes() -> None:
    """Fields that are read first and written by no node are required; those a node writes too are optional."""
    found = workflow(
        HEADER
        + "G,Ask,input,B,,,,,question\nG,B,branching,,C,,{when=ok},topic|count,count\n"
        + "G,C,default,B,,,,question|order.id,x\n"
    )
    agents = {name: REGISTRY[node.agent_type] for name, node in found.nodes.items()}
    schema = input_schema(found, agents)
    assert schema["required"] == ["question", "topic", "ok", "order"]
    assert list(schema["properties"]) == ["question", "topic", "count", "ok", "order"]
    assert schema["additionalProperties"] is True


def test_the_items_of_map_over_are_not_inputs() -> None:
    """`item` and `index` come with each item; the list itself is read."""
    found = workflow("GraphName,Node,Input_Fields,Map_Over\nG,A,item|index|rate,orders\n")
    assert input_schema(found, {})["required"] == ["rate", "orders"]


def test_a_workflow_without_nodes_has_an_empty_schema() -> None:
    """All its rows were reported."""
    found = workflow("GraphName,Node\nG,\n")
    assert (found.entry, found.broken, input_schema(found, {})["required"]) == (None, True, [])


def test_the_input_schema_shows_values_that_lead_somewhere() -> None:
    """A field that a condition or a switch compares has an example; the list of a Map_Over is an array."""
    found = workflow(
        "GraphName,Node,AgentType,Edge,Context,Map_Over\n"
        'G,A,branching,B,"{""when"": ""amount > 100 and region in [\'EU\']""}",\n'
        'G,B,switch,C,"{""field"": ""kind"", ""cases"": {""refund"": ""C""}}",\n'
        "G,C,default,,,orders\n"
    )
    agents = {name: REGISTRY[node.agent_type] for name, node in found.nodes.items()}
    properties = input_schema(found, agents)["properties"]
    assert {name: part.get("examples") for name, part in properties.items()} == {
        "amount": [101],
        "region": ["EU"],
        "kind": ["refund"],
        "orders": None,
    }
    assert properties["orders"]["type"] == "array"
