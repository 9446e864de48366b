"""What the single paths through a workflow say about its fields."""

from __future__ import annotations

import pytest
from sheets import REGISTRY, workflow

from agentmap_asgi.workflows.diagnostics import Diagnostic
from agentmap_asgi.workflows.graph import MOST_WORK
from agentmap_asgi.workflows.paths import check_paths

HEADER = "GraphName,Node,AgentType,Edge,Success_Next,Failure_Next,Input_Fields,Output_Field,Prompt,Context\n"


def findings(*rows: str) -> list[Diagnostic]:
    """Of the workflow G with these rows: name, agent, edge, success, failure, inputs, output, prompt, context."""
    return list(check_paths(workflow(HEADER + "".join(f"G,{row}\n" for row in rows)), REGISTRY))


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
    assert len(findings(*rows[:50], "N50")) == 50
