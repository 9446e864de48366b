"""What differs between two versions of workflows."""

from __future__ import annotations

import csv
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sheets import load

from agentmap_asgi.workflows.comparing import WorkflowChange, compared
from agentmap_asgi.workflows.pinned import pinned, unpinned

OLD = """\
GraphName,Node,AgentType,Prompt,Input_Fields,Output_Field,Edge,Context,Owner
Flow,A,echo,Hi {name},name,greeting,B|C,,Ada
Flow,B,default,two,,b,D,"{""limit"": 3}",Bob
Flow,C,default,three,,c,D,,
Flow,D,default,"first
second",,d,,,
Other,A,echo,,,x,,,
"""


def changes(old: str, new: str) -> list[WorkflowChange]:
    return compared(load(old).workflows, load(new).workflows)


def text(old: str, new: str) -> str:
    return "\n".join(line for change in changes(old, new) for line in change.lines())


def test_what_is_written_otherwise_is_no_change() -> None:
    """Spaces, order of rows and columns, delimiter, comments, other names of columns, spelling of options."""
    rows = list(csv.reader(io.StringIO(OLD)))
    head, first, *rest = rows
    rest.reverse()
    order = [8, *range(8)]
    out = io.StringIO("# a comment\n\n")
    out.seek(0, io.SEEK_END)
    head = ["Agent" if name == "AgentType" else name for name in head]
    csv.writer(out, delimiter=";").writerows(
        [f" {row[at]} " if "\n" not in row[at] else row[at] for at in order] for row in (head, first, *rest)
    )
    new = out.getvalue().replace("B|C", "B | C|").replace('{""limit"": 3}', "{limit=3}")
    assert changes(OLD, new) == []


@given(st.randoms(use_true_random=False))
def test_a_sorted_sheet_has_no_changes_while_it_begins_as_before(random: random.Random) -> None:
    """In any order of its rows."""
    head, first, *rest = OLD.replace("first\nsecond", "text").splitlines()
    random.shuffle(rest)
    assert changes(OLD.replace("first\nsecond", "text"), "\n".join([head, first, *rest])) == []


def test_another_first_row_is_another_beginning() -> None:
    """No node and no cell differs, and still the workflow does something else."""
    head, first, second, *rest = OLD.splitlines()
    (change,) = changes(OLD, "\n".join([head, second, first, *rest]))
    assert (change.workflow, change.nodes, change.entry) == ("Flow", (), ("A", "B"))
    assert list(change.lines()) == ["~ workflow Flow", "    begins at B, before at A"]


def test_changes_are_told_by_workflow_node_and_cell() -> None:
    """What was added, removed and changed, with both texts; unknown columns count."""
    new = (
        OLD.replace("Hi {name}", "Hello {name}")
        .replace(",Bob", ",Eve")
        .replace("first\nsecond", "first\nthird")
        .replace("Flow,C,default,three,,c,D,,\n", "Flow,E,echo,,,e,,,\n")
        .replace("B|C", "B|E")
        .replace("Other,A", "Third,A")
        .replace(": 3}", ": 4}")
    )
    assert text(OLD, new) == (
        "~ workflow Flow\n"
        "  ~ node A (row 2)\n"
        "      - Prompt: Hi {name}\n"
        "      + Prompt: Hello {name}\n"
        "      - Edge: B|C\n"
        "      + Edge: B|E\n"
        "  ~ node B (row 3)\n"
        '      - Context: {"limit": 3}\n'
        '      + Context: {"limit": 4}\n'
        "      - Owner: Bob\n"
        "      + Owner: Eve\n"
        "  + node E (row 4)\n"
        "      + AgentType: echo\n"
        "      + Output_Field: e\n"
        "  ~ node D (row 5)\n"
        "      - Prompt: first\n"
        "                second\n"
        "      + Prompt: first\n"
        "                third\n"
        "  - node C (row 4)\n"
        "      - AgentType: default\n"
        "      - Prompt: three\n"
        "      - Output_Field: c\n"
        "      - Edge: D\n"
        "+ workflow Third\n"
        "  + node A (row 6)\n"
        "      + AgentType: echo\n"
        "      + Output_Field: x\n"
        "- workflow Other\n"
        "  - node A (row 6)\n"
        "      - AgentType: echo\n"
        "      - Output_Field: x"
    )
    first = changes(OLD, new)[0].to_dict()
    assert first["nodes"][0] == {
        "change": "changed",
        "node": "A",
        "old_row": 2,
        "new_row": 2,
        "cells": [
            {"column": "Prompt", "old": "Hi {name}", "new": "Hello {name}"},
            {"column": "Edge", "old": "B|C", "new": "B|E"},
        ],
    }


RETRY = '{"attempts": 3, "backoff": 1.0, "delay": 0.0, "max_delay": 60.0, "on": ["timeout", "error"]}'


@pytest.mark.parametrize(
    ("column", "old", "new", "told"),
    [
        ("Timeout", "30s", "1m", ("30s", "60s")),
        ("Retry", "3", "", (RETRY, None)),
        ("Map_Over", "", "items", (None, "items")),
        ("Available_Tools", "a|b", "b", ("a|b", "b")),
        ("Edge", "func:pick(A)", "func:pick", ("func:pick(A)", "func:pick")),
        ("Input_Fields", "a:x|b:y", "a:x", ("a:x|b:y", "a:x")),
    ],
)  # fmt: skip
def test_cells_are_told_as_they_are_understood(
    column: str, old: str, new: str, told: tuple[str | None, str | None]
) -> None:
    """So that two spellings of one thing are one text."""
    head = f"Node,{column}\n"
    (change,) = changes(head + f"A,{old}", head + f"A,{new}")
    (cell,) = change.nodes[0].cells
    assert (cell.column, cell.old, cell.new) == (column, *told)


def test_the_fields_of_a_sub_workflow_are_written_as_its_authors_do() -> None:
    """`child=parent`."""
    head = "Node,AgentType,Context,Input_Fields\n"
    (change,) = changes(head + "A,graph,{workflow=Sub},in=x", head + "A,graph,{workflow=Sub},in=y")
    assert change.nodes[0].cells[0].old == "in=x"


def test_a_stored_version_compares_like_the_file() -> None:
    """But for its unknown columns, which are not stored."""
    (flow, _) = load(OLD.replace(",Ada", ",").replace(",Bob", ",")).workflows
    again = unpinned(pinned(flow), flow.version)
    assert compared([flow], [again]) == []
