"""What is found in the graph of a workflow whenever a file is loaded."""

from __future__ import annotations

import pytest
from sheets import REGISTRY, cell, codes, load, workflow

from agentmap_asgi.workflows.checks import BEHIND, RESERVED, input_schema
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


@pytest.mark.parametrize("written", ["B,C", "B; C", "B\nC"])
def test_targets_that_are_not_separated_by_bars_are_understood(written: str) -> None:
    """One error that says how; what they lead to is not called unreachable."""
    (problem,) = findings(f"A,,{cell(written)}", "B,,D", "C", "D")
    assert (problem.code, problem.text, problem.fix) == ("AM-R001", written, "B|C")
    assert "B|C" in problem.hint
    (problem,) = findings('A,,"B,Qqqq"', "B,,D", "D")
    assert (problem.code, problem.fix) == ("AM-R001", None)


CUT = {
    "a sentence": ("A,default,Hello, and how are you", "Edge"),
    "a field in braces": ("A,default,Hello,{name}", "Edge"),
    "one word after a space": ("A,default,Hello {name}, now", "Edge"),
    "the target has moved on": ("A,default,Hello {name},now,B", "Edge"),
}
CUT_HEADER = "GraphName,Node,AgentType,Prompt,Edge,Output_Field,Success_Next\n"


@pytest.mark.parametrize(("row", "column"), CUT.values(), ids=CUT)
def test_a_target_that_is_the_rest_of_a_text_has_a_remedy(row: str, column: str) -> None:
    """A comma without quotes has moved the cells behind it."""
    problem = load(CUT_HEADER + f"G,{row}\nG,B\n").findings[0]
    assert (problem.code, problem.column_name) == ("AM-R001", column)
    assert problem.hint.endswith("If the comma before it belongs to a text, put that cell in quotes.")
    semicolons = load((CUT_HEADER + f"G,{row}\nG,B\n").replace(",", ";")).findings
    assert any("If the semicolon before it" in problem.hint for problem in semicolons)


UNCUT = {
    "no text before it": "G,A,default,,the next one\nG,B\n",
    "a near name": "G,A,default,Hello,B next\nG,B nexxt\n",
    "one word": "G,A,default,Hello,Zzzzzz\nG,B\n",
    "its own name behind it": "G,A,default,Hello,Zzzzzz,A\nG,B\n",
    "all cells begin with a space": "G,A,default,Hello, Zzzzzz\nG,C,default,Hello, B\nG,B\n",
}


@pytest.mark.parametrize("rows", UNCUT.values(), ids=UNCUT)
def test_other_unknown_targets_say_nothing_of_commas(rows: str) -> None:
    """Where nothing shows that a text was cut."""
    problem = next(problem for problem in load(CUT_HEADER + rows).findings if problem.code == "AM-R001")
    assert "comma" not in problem.hint


CAUSES = {
    "an error value as target": (("A,,#REF!", "B"), "AM-V002"),
    "an error value among targets": (("A,,B|#N/A", "B"), "AM-V002"),
    "an error value as agent": (("A,#NAME?,B", "B"), "AM-V002"),
    "an error value as input": (("A,branching,,B,,,#REF!", "B"), "AM-V002"),
    "an error value as options": (("A,switch,,,,#VALUE!,x", "B"), "AM-V002"),
    "a date as target": (("A,,1-Mar", "B"), "AM-R001"),
    "options that are not understood": (("A,branching,,B,,{when", "B"), "AM-A003"),
    "a switch without cases": (("A,switch,,,,{field=x}", "B"), "AM-A004"),
}


@pytest.mark.parametrize(("rows", "code"), CAUSES.values(), ids=CAUSES)
def test_one_cause_gives_one_message(rows: tuple[str, ...], code: str) -> None:
    """What follows from it is not reported too."""
    problems = findings(*rows)
    assert [(p.code, p.severity) for p in problems] == [(code, "error")]


def test_options_written_as_a_text_are_one_note() -> None:
    """That the agent has nothing to go by follows from it."""
    (problem,) = findings("A,branching,,B,,when: amount > 100", "B")
    assert (problem.code, problem.severity) == ("AM-A008", "info")
    assert "{key=value}" in problem.hint


@pytest.mark.parametrize(
    "header",
    [
        "GraphName,Node,AgentType,Sucess_Next,Failure_Next,Context,Input_Fields,Output_Field",
        "GraphName,Node,AgentType,Success_Next,Failure_Next,Contxt,Inptu_Fields,Output_Field",
    ],
)
def test_a_misspelt_header_is_reported_alone(header: str) -> None:
    """Nodes that its cells lead to are not called unreachable, and agents are not said to lack what it gives."""
    loaded = load(header + "\nG,A,branching,B,C,{when=x},,\nG,B,input,D,,,,x\nG,C,orchestrator,D,,,x,\nG,D,,,,,,\n")
    assert {p.code for p in loaded.findings} == {"AM-H002"}


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


@pytest.mark.parametrize("name", sorted(BEHIND))
def test_words_further_behind_in_paths_are_noted(name: str) -> None:
    """Such a workflow has paths of its own, and another way where they mean something else."""
    (problem,) = load(f"GraphName,Node\n{name},A\n").findings
    assert (problem.code, problem.severity, problem.column_name) == ("AM-N006", "info", "GraphName")
    assert "/execute" in problem.hint or f"file::{name}" in problem.hint


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


WRONG = {
    "on_item_error": ('{"on_item_error": "colect"}', "AM-A004", "error", "collect"),
    "concurrency of none": ('{"concurrency": 0}', "AM-A004", "error", "whole number"),
    "concurrency as text": ('{"concurrency": "many"}', "AM-A004", "error", "whole number"),
    "concurrency as a truth": ('{"concurrency": true}', "AM-A004", "error", "whole number"),
    "output_validation": ('{"output_validation": "strict"}', "AM-A004", "error", "ignore, warn or error"),
    "on_error": ('{"on_error": "proceed"}', "AM-A004", "warning", "fail or continue"),
    "idempotent": ('{"idempotent": "yes"}', "AM-A004", "warning", "without quotes"),
    "a list": ('{"on_item_error": ["skip"]}', "AM-A004", "error", "collect"),
    "an unknown name": ('{"concurency": 3}', "AM-A008", "info", "'concurrency'"),
    "a foreign name": ('{"temperature": 0.2}', "AM-A008", "info", "no effect"),
    "foreign names": ('{"temperature": 0.2, "max_tokens": 400}', "AM-A008", "info", "no effect"),
    "a text": ("be brief", "AM-A008", "info", "{key=value}"),
}


@pytest.mark.parametrize(("context", "code", "severity", "word"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_reported_at_their_cell(context: str, code: str, severity: str, word: str) -> None:
    """With what to write instead. A name that nobody knows is a note, never an error."""
    header = "GraphName,Node,Output_Field,Map_Over,Context\n"
    (problem,) = load(f"{header}G,A,a|b,items,{cell(context)}\n").findings
    assert (problem.code, problem.severity, problem.column, problem.row) == (code, severity, "E", 2)
    assert word in problem.hint


def test_options_of_own_agents_are_their_own() -> None:
    """Only what the execution itself looks at is checked: without Map_Over `concurrency` may mean anything."""
    header = "GraphName,Node,AgentType,Output_Field,Map_Over,Context\n"
    own = cell('{"concurrency": "high", "output_validation": "strict", "colour": "red"}')
    assert codes(load(f"{header}G,A,lookup,a,,{own}\n")) == []
    assert codes(load(f"{header}G,A,lookup,a|b,items,{own}\n")) == ["AM-A004", "AM-A004"]


def test_right_options_are_clean() -> None:
    """Those of the agent, and those that any node may have."""
    header = "GraphName,Node,AgentType,Output_Field,Map_Over,Context\n"
    options = '{"on_error": "continue", "on_item_error": "skip", "concurrency": 3, "output_validation": "warn", "keywords": "a b", "idempotent": true, "separator": ","}'  # fmt: skip # noqa: E501
    assert codes(load(f"{header}G,A,summary,a|b,x,{cell(options)}\n")) == []


@pytest.mark.parametrize("default", ["5", '[""]', '""'])
def test_the_default_of_a_switch_is_a_node(default: str) -> None:
    """Another value is an error; a name that does not exist is an unknown target."""
    options = cell(f'{{"field": "k", "cases": {{"x": "B"}}, "default": {default}}}')
    (problem,) = findings(f"A,switch,,,,{options}", "B")
    assert (problem.code, problem.severity, problem.column_name) == ("AM-A004", "error", "Context")
    gone = cell('{"field": "k", "cases": {"x": "B"}, "default": "Bb"}')
    (problem,) = findings(f"A,switch,,,,{gone}", "B")
    assert (problem.code, problem.text, problem.column_name) == ("AM-R001", "Bb", "Context")


def test_the_node_type_of_an_orchestrator_is_one_that_nodes_have() -> None:
    """Without a default_target nothing could be chosen, so it is an error."""
    for written in ("echo", "Echo", "EchoAgent"):
        assert findings(f"A,orchestrator,,,,{{nodeType={written}}},request", "B,echo", "C,echo") == []
    (problem,) = findings("A,orchestrator,,,,{nodeType=ecko},request", "B,echo", "C,echo")
    assert (problem.code, problem.severity, problem.text) == ("AM-A004", "error", "ecko")
    assert "'echo'" in problem.hint
    problems = findings('A,orchestrator,,,,"{nodeType=summary, default_target=B}",request', "B,echo")
    assert [(p.code, p.severity) for p in problems] == [("AM-A004", "warning")]


def test_an_input_node_names_what_it_asks_for() -> None:
    """Without Output_Field it does nothing."""
    (problem,) = findings("A,input,B", "B")
    assert (problem.code, problem.severity, problem.column_name) == ("AM-A005", "warning", "Output_Field")


def test_the_input_schema_asks_for_what_nobody_writes() -> None:
    """Fields that are read first and written by no node are required; those a node writes too, or asks for, are not."""
    found = workflow(
        HEADER
        + "G,Ask,input,B,,,,,question\nG,B,branching,,C,,{when=ok},topic|count,count\n"
        + "G,C,default,B,,,,question|order.id,x\n"
    )
    agents = {name: REGISTRY[node.agent_type] for name, node in found.nodes.items()}
    schema = input_schema(found, agents)
    assert schema["required"] == ["topic", "ok", "order"]
    assert list(schema["properties"]) == ["question", "topic", "count", "ok", "order"]
    assert schema["additionalProperties"] is True


def test_a_field_that_only_a_prompt_shows_is_an_optional_input() -> None:
    """The text does without it. Input_Fields, conditions and the node's own parameters are another matter."""
    header = "GraphName,Node,AgentType,Edge,Input_Fields,Output_Field,Prompt\n"
    found = workflow(
        header
        + "G,A,default,B,who:name,text,Hello {name} of {firm} on {day.short}: {error} {text}\n"
        + "G,B,echo,C,day,more,{text} {later}\n"
        + "G,C,lookup,D,,later,{own}\nG,D,aggregator,,text,end,{unused}\n"
    )
    agents = {name: REGISTRY[node.agent_type] for name, node in found.nodes.items()}
    schema = input_schema(found, agents)
    assert list(schema["properties"]) == ["who", "firm", "day", "text", "later"]
    assert schema["required"] == ["who", "day"]
    assert schema["properties"]["firm"] == {"description": "Shown by A"}


def test_a_prompt_that_shows_a_field_too_early_warns() -> None:
    """At its Prompt cell, when only a later node writes the field; in a loop it is a note."""
    header = "GraphName,Node,AgentType,Edge,Failure_Next,Output_Field,Prompt\n"
    (problem,) = load(header + "G,A,,B,,,Total: {total} for {customer}\nG,B,,,,total,1\n").findings
    assert (problem.code, problem.severity, problem.column_name, problem.text) == (
        *("AM-F001", "warning", "Prompt", "total"),
    )
    assert "{total} stays" in problem.hint
    rows = "G,Draft,,Review,,text,Mind: {feedback}\nG,Review,branching,,Draft,feedback,\n"
    assert [(p.code, p.severity) for p in load(header + rows).findings if p.text == "feedback"] == [("AM-F001", "info")]


def test_a_prompt_may_show_what_the_node_writes() -> None:
    """A text that grows."""
    header = "GraphName,Node,Edge,Output_Field,Prompt\n"
    assert codes(load(header + "G,A,B,log,{log} a\nG,B,,log,{log} b\n")) == []


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


def test_an_output_written_like_a_mapping_by_an_unknown_agent_is_read_late() -> None:
    """Only agents that are known split `parent=child`: elsewhere it is one name, for its readers too."""
    loaded = load("GraphName,Node,AgentType,Output_Field,Map_Over,Edge\nG,A,Unheard,{w=::G},{w=::G},A\n")
    assert codes(loaded.findings) == ["AM-A001"]
    assert loaded.rows.total == 1
