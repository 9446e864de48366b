"""What the single paths through a workflow say about its fields."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from sheets import REGISTRY, cell, workflow

from agentmap_asgi.workflows.diagnostics import Diagnostic
from agentmap_asgi.workflows.graph import MOST_WORK
from agentmap_asgi.workflows.paths import check_paths

HEADER = "GraphName,Node,AgentType,Edge,Success_Next,Failure_Next,Input_Fields,Output_Field,Prompt,Context\n"


def findings(*rows: str, given: Collection[str] = ()) -> list[Diagnostic]:
    """Of the workflow G with these rows: name, agent, edge, success, failure, inputs, output, prompt, context."""
    return list(check_paths(workflow(HEADER + "".join(f"G,{row}\n" for row in rows)), REGISTRY, given=given))


def test_a_field_written_on_one_path_only_warns_where_it_is_read() -> None:
    """The branch that answers no does not write it."""
    problems = findings("A,branching,,B,C,x", "B,,D,,,,text", "C,,D", "D,,,,,text")
    assert [(p.code, p.node, p.text) for p in problems] == [("AM-F001", "D", "text")]


def test_a_field_that_every_path_writes_is_fine() -> None:
    """Both answers write it."""
    assert findings("A,branching,,B,C,x", "B,,D,,,,text", "C,,D,,,,text", "D,,,,,text") == []


def test_parallel_branches_write_together() -> None:
    """At a join all of them have run, so one writer is enough."""
    assert findings("A,,B|C", "B,,D,,,,b", "C,,D,,,,c", "D,,,,,b|c") == []


def test_a_branch_that_may_not_write_still_warns_at_the_join() -> None:
    """Inside one parallel branch a decision leaves the field out."""
    rows = ("A,,B|C", "B,branching,,B1,B2,x", "B1,,D,,,,b", "B2,,D", "C,,D", "D,,,,,b")
    assert [(p.code, p.text) for p in findings(*rows)] == [("AM-F001", "b")]


def test_parallel_branches_that_write_one_field_warn() -> None:
    """The warning names both writers; what runs after the join is no concern."""
    problems = findings("A,,B|C", "B,,D,,,,x", "C,,D,,,,x", "D,,,,,x,x")
    assert [(p.code, p.text) for p in problems] == [("AM-F003", "x")]
    assert "'B' and 'C'" in problems[0].message


def test_branches_that_exclude_each_other_may_write_one_field() -> None:
    """Success and failure never run side by side."""
    assert findings("A,branching,,B,C,x", "B,,D,,,,y", "C,,D,,,,y", "D,,,,,y") == []


def test_a_field_that_nobody_reads_is_noted() -> None:
    """Unless the last nodes write it; prompts, conditions and options count as reading."""
    problems = findings("A,,B,,,,lost", "B,,C,,,,used", "C,,D,,,,shown", "D,,E,,,,asked,{shown.x} and {used}", 'E,branching,,,,,end,,"{""when"": ""asked > 1""}"')  # fmt: skip # noqa: E501
    assert [(p.code, p.severity, p.text) for p in problems] == [("AM-F002", "info", "lost")]


def test_a_prompt_that_shows_what_one_path_leaves_out_warns() -> None:
    """On that path the text would keep the braces."""
    problems = findings("A,branching,,B,C,x", "B,,D,,,,text", "C,,D", "D,,,,,,,Dear {text} {caller}")
    assert [(p.code, p.node, p.text, p.column_name) for p in problems] == [("AM-F001", "D", "text", "Prompt")]
    assert "{text}" in problems[0].hint


def test_decisions_need_not_be_read() -> None:
    """Their use is where they lead."""
    assert findings("A,branching,,B,C,x,decided", "B,,,,,,text", "C,,,,,,text") == []


RESULTS = {
    "the node after it writes nothing": ("A,,B,,,,message", "B"),
    "success ends": ("A,,,,B,,message", "B,,,,,,problem"),
    "one answer ends": ("A,,B,,,,message", "B,branching,,,C,x,ok", "C,,,,,,message2"),
    "a person says yes": ("A,,B,,,,message", "B,human,,,C,,approval,Send {x}?", "C,,,,,,message2"),
    "a branch ends": ("A,,B|C", "B,,D,,,,message", "D", "C,,,,,,other"),
    "a later node writes it again": ("A,,B,,,,message", "B,,C,,,,x", "C,,,,,x,message"),
    "a loop's way back": ("A,,B", "B,branching,,D,C,x", "C,,B,,,,message", "D,,,,,,other"),
    "a sub-workflow gets all": ("A,,B,,,,message", "B,graph,C,,,,x,,{workflow=other::W}", "C,,,,,x,y"),
}


@pytest.mark.parametrize("rows", RESULTS.values(), ids=RESULTS)
def test_what_the_last_nodes_write_is_a_result(rows: tuple[str, ...]) -> None:
    """Callers read it, so nothing is said."""
    assert findings(*rows) == []


MIDDLE = {
    "a node after it writes": ("A,,B,,,,lost", "B,,,,,,message"),
    "each answer leads on": ("A,,B,,,,lost", "B,branching,,C,C,x", "C,,,,,,message"),
    "a switch leads on": ("A,,B,,,,lost", "B,switch,,,,x,,,{default=C}", "C,,,,,,message"),
    "a decision leads back": ("A,,B,,,,lost", "B,,C,,,,y", "C,branching,,D,B,y", "D,,,,,,message"),
}
CASES = cell('{"cases": {"a": "C"}, "default": "C"}')


@pytest.mark.parametrize("rows", MIDDLE.values(), ids=MIDDLE)
def test_what_is_written_on_the_way_is_no_result(rows: tuple[str, ...]) -> None:
    """Where every way to the end leads over another node that writes."""
    problems = findings(*(row.replace("{default=C}", CASES) for row in rows))
    assert [(p.code, p.node, p.text) for p in problems] == [("AM-F002", "A", "lost")]


MISSPELT = {
    "an input": ("B,,,,,prise,message", "Input_Fields"),
    "a part of an input": ("B,,,,,prise.net,message", "Input_Fields"),
    "a text": ("B,,,,,,message,It costs {prise}", "Prompt"),
    "a condition": ("B,branching,,C,,,,,{when=prise > 100}", "Context"),
    "another case": ("B,,,,,Price,message", "Input_Fields"),
}


@pytest.mark.parametrize(("row", "column"), MISSPELT.values(), ids=MISSPELT)
def test_a_field_that_is_nearly_one_that_nobody_reads_is_taken_for_misspelt(row: str, column: str) -> None:
    """One warning where it is read; that nobody reads the other is not said as well."""
    (problem,) = findings("A,,B,,,,price", row, "C" if "branching" in row else "#")
    assert (problem.code, problem.severity, problem.node, problem.column_name) == ("AM-F008", "warning", "B", column)
    assert "'price'" in problem.hint


def test_the_list_of_map_over_may_be_misspelt() -> None:
    """The warning stands at its column."""
    rows = "GraphName,Node,Edge,Output_Field,Map_Over\nG,A,B,orders,\nG,B,,done,ordes\n"
    (problem,) = check_paths(workflow(rows), REGISTRY)
    assert (problem.code, problem.text, problem.column_name) == ("AM-F008", "ordes", "Map_Over")


SPELT = {
    "another word": ("A,,B,,,,price", "B,,,,,amount"),
    "somebody reads it": ("A,,B,,,,price", "B,,,,,price|prise"),
    "somebody writes it": ("A,,B,,,,price", "B,,C,,,,prise", "C,,,,,prise"),
    "it is written later": ("A,,B,,,prise,x", "B,,,,,x,price"),
    "the node itself": ("A,,B,,,prise,price", "B"),
    "another branch": ("A,,B|C", "B,,D,,,,price", "C,,D,,,prise", "D"),
}


@pytest.mark.parametrize("rows", SPELT.values(), ids=SPELT)
def test_a_field_is_not_taken_for_misspelt(rows: tuple[str, ...]) -> None:
    """Unless it resembles one that was written before and has no reader."""
    assert "AM-F008" not in {problem.code for problem in findings(*rows)}


def test_a_field_of_the_input_schema_is_not_taken_for_misspelt() -> None:
    """The host has said that callers give it."""
    rows = ("A,,B,,,,price", "B,,,,,prise")
    assert [p.code for p in findings(*rows)] == ["AM-F008"]
    assert findings(*rows, given={"prise"}) == []


def test_a_field_is_taken_for_misspelt_once() -> None:
    """At the first node that reads it."""
    rows = ("A,,B,,,,price", "B,,C,,,prise", "C,,,,,prise")
    assert [(p.code, p.node) for p in findings(*rows)] == [("AM-F008", "B")]


LOST = {
    "default": "A,,B,,,,,Dear {name}",
    "default that succeeds": "A,,,B,,,,Hello",
    "echo with fields": "A,echo,B,,,,,Dear {name}",
    "summary": "A,summary,B,,,x",
    "a function leads on": "A,,func:pick,,,,,Hello",
}


@pytest.mark.parametrize("row", LOST.values(), ids=LOST)
def test_a_text_without_a_field_is_lost(row: str) -> None:
    """The nodes after it do not get it."""
    (problem,) = findings(row, "B")
    assert (problem.code, problem.severity, problem.node) == ("AM-F007", "warning", "A")
    assert problem.column_name == "Output_Field"


KEPT = {
    "the last node": ("A,,,,,,,Hello",),
    "the last node but for errors": ("A,,,,B,,,Hello", "B"),
    "without a text": ("A,,B", "B"),
    "echo passes on": ("A,echo,B,,,x,,Hello", "B"),
    "a field takes it": ("A,,B,,,,text,Hello", "B,,,,,text"),
    "Context says the field": ("A,,B,,,,,Hello,{output_field=text}", "B,,,,,text"),
    "an agent of the host's": ("A,lookup,B,,,,,Hello", "B"),
    "a person is asked": ("A,human,B,,,,,Hello", "B"),
    "a mark is set": ("A,success,B,,,,,Hello", "B"),
}


@pytest.mark.parametrize("rows", KEPT.values(), ids=KEPT)
def test_a_text_is_not_lost(rows: tuple[str, ...]) -> None:
    """When nobody follows, there is none, or the agent does something else."""
    assert findings(*rows) == []


@pytest.mark.parametrize("options", ["{memory_key=talk}", "{stream=true}", "{tools=clock}", ""])
def test_an_answer_of_a_model_is_lost_unless_it_is_used_otherwise(options: str) -> None:
    """It may be remembered, told while it is made, or have called tools."""
    rows = f"G,A,llm,B,,,,,Hello,{options}\nG,B,,,,,,,,\n"
    found = workflow(HEADER + rows)
    found.diagnostics = ()  # no provider is configured here
    assert [p.code for p in check_paths(found, REGISTRY)] == ([] if options else ["AM-F007"])


def test_a_misspelt_header_explains_a_lost_text() -> None:
    """Its cell says where the text was to go."""
    rows = "GraphName,Node,Edge,Prompt,Outptu_Field\nG,A,B,Hello,text\nG,B,,,\n"
    assert check_paths(workflow(rows), REGISTRY) == ()
    assert check_paths(workflow(rows.replace("Outptu_Field", "Owner")), REGISTRY) != ()


def test_loops_are_walked_once() -> None:
    """A loop's way back makes no path of its own."""
    assert findings("A,,B,,,,n", "B,branching,,C,A,n", "C,,,,,n") == []


@pytest.mark.parametrize(
    "rows",
    [("A,,Nowhere", "B"), ("A,,func:pick,,,,x", "B,,,,,x")],
)
def test_nothing_is_said_of_what_cannot_be_walked(rows: tuple[str, ...]) -> None:
    """Broken workflows, and those where any node may follow."""
    assert findings(*rows) == []


def test_very_large_workflows_are_left_alone() -> None:
    """The analysis is more than linear."""
    last = int(MOST_WORK**0.5) + 1
    rows = [f"N{n},,N{n + 1},,,,f{n}" for n in range(last)]
    assert [problem.code for problem in findings(*rows, f"N{last}")] == ["AM-R012"]
    assert len(findings(*rows[:50], "N50")) == 49, "the last field is the result"
