"""What stands in a cell: names, routing, fields, policies, and what spreadsheets do to them."""

from __future__ import annotations

from typing import Any

import pytest
from sheets import cell, codes, load, node

from agentmap_asgi.workflows import cells
from agentmap_asgi.workflows.model import Field, FunctionRoute, Retry


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("", ()),
        ("B", ("B",)),
        (" B | C |", ("B", "C")),
        ("B||B|C|B", ("B", "C")),
        ("Ask the boss", ("Ask the boss",)),
        ("1", ("1",)),
        ("“B”", ('"B"',)),
        ("B\u00a0C\u200b", ("B C",)),
        ("Step–1", ("Step-1",)),
        ("func:pick(A|B)", FunctionRoute("pick", ("A", "B"))),
        ("func: pick ( A | |A )", FunctionRoute("pick", ("A",))),
        ("FUNC:pick(A)", FunctionRoute("pick", ("A",))),
    ],
)
def test_routing_cells(text: str, route: Any) -> None:
    """Several targets are separated by |; empty parts and repeats collapse; signs of word processors are plain."""
    assert cells.route(text) == (route, []) or cells.route(text) == (route, ())


@pytest.mark.parametrize("text", ["func:", "func:pick(A", "func:pick)", "func:pick()", "A|func:pick(B)", "func:a b(C)"])
def test_broken_function_cells_are_errors(text: str) -> None:
    """A routing cell with a function that cannot be read leads nowhere and says so."""
    value, problems = cells.route(text)
    assert [problem.code for problem in problems] == ["AM-R005"]
    assert not (value and not isinstance(value, FunctionRoute))


def test_a_function_without_targets_warns() -> None:
    """`func:name` may reach any node; the hint says how to declare targets."""
    route, (problem,) = cells.route("func:pick")
    assert route == FunctionRoute("pick")
    assert problem.code == "AM-R007"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a", (Field("a"),)),
        ("a|b|a", (Field("a"), Field("b"))),
        ("a:p | b.c : q", (Field("a", "p"), Field("b.c", "q"))),
        ("Größe|名", (Field("Größe"), Field("名"))),
        ("order id", (Field("order id"),)),
    ],
)
def test_input_fields(text: str, fields: tuple[Field, ...]) -> None:
    """`a:p` gives the state field `a` to the agent as `p`."""
    value, problems = cells.inputs(text)
    assert (value, list(problems)) == (fields, [])


@pytest.mark.parametrize("text", ["child=parent", "child:parent"])
def test_fields_of_a_sub_workflow_name_the_child_first(text: str) -> None:
    """For the `graph` agent both signs put the child's field on the left."""
    found = node("AgentType,Input_Fields,Output_Field,Context", f"graph,{text},a=b|c,{{workflow=f::X}}")
    assert found.inputs == (Field("parent", "child"),)
    assert found.outputs == ("a=b", "c")


@pytest.mark.parametrize("text", ["a:", ":p", "a:b:c", "a=b"])
def test_broken_field_entries_are_errors(text: str) -> None:
    """An entry that is no field is left out and reported."""
    assert [problem.code for problem in cells.inputs(text)[1]] == ["AM-F005"]


def test_doubtful_field_entries_are_warnings() -> None:
    """Commas inside a name, and two inputs under one name."""
    assert [(p.code, p.severity) for p in cells.inputs("a, b")[1]] == [("AM-F005", "warning")]
    assert [p.code for p in cells.inputs("a:x|b:x")[1]] == ["AM-F006"]
    assert [p.code for p in cells.child_outputs("a=")[1]] == ["AM-F005"]


@pytest.mark.parametrize("name", ["last_action_success", "errors", "error", "execution_id", "graph_name", "node_name"])
def test_reserved_fields_take_no_result(name: str) -> None:
    """The names that the execution fills in cannot stand in Output_Field."""
    loaded = load(f"GraphName,Node,Output_Field\nG,A,x|{name}\n")
    assert [(p.code, p.text, p.column_name) for p in loaded.findings] == [("AM-F004", name, "Output_Field")]


@pytest.mark.parametrize("word", ["None", "null", "nan", "NaN", "NA", "N/A"])
def test_words_for_nothing_read_as_empty(word: str) -> None:
    """In structural cells they are empty, with a note; in prompts they are text."""
    loaded = load(f"GraphName,Node,AgentType,Prompt,Edge\nG,A,{word},{word},{word}\n")
    found = loaded.workflows[0].nodes["A"]
    assert (found.agent_type, found.prompt, found.edge) == ("default", word, ())
    assert [(p.code, p.severity, p.column_name) for p in loaded.findings] == [
        ("AM-N005", "info", "AgentType"),
        ("AM-N005", "info", "Edge"),
    ]


def test_prompts_keep_their_typography() -> None:
    """Quotes, dashes and inner spaces of a prompt are content; only its ends are trimmed."""
    assert node("Prompt", " “Hi” – you\u00a0there ").prompt == "“Hi” – you\u00a0there"


@pytest.mark.parametrize("text", ["2024-03-01", "1/2/2024", "3-Mar", "03.04.05", "1E+05", "1.5E-10"])
def test_what_excel_made_of_a_name_is_noticed(text: str) -> None:
    """Dates and shortened numbers in names warn."""
    assert codes(load(f"GraphName,Node\nG,{text}\n")) == ["AM-V001"]


def test_plain_numbers_are_names() -> None:
    """`1` is the node `1`, and 007 keeps its zeros."""
    loaded = load("GraphName,Node,Edge\nG,1,007\nG,007,\n")
    assert (list(loaded.workflows[0].nodes), codes(loaded)) == (["1", "007"], [])


def test_spreadsheet_errors_are_errors() -> None:
    """`#REF!` in a first cell is no comment."""
    loaded = load("Node,GraphName\n#REF!,G\n")
    assert (codes(loaded), loaded.rows.nodes) == (["AM-V002"], 1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("1.5 s", 1.5), ("7", 7.0)]
)
def test_timeouts(text: str, seconds: float) -> None:
    """A number with a unit; without one it is seconds."""
    assert node("Timeout", text).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["soon", "-1s", "0", "1w", "s", "1e5s", "٣s"])
def test_broken_timeouts_are_errors(text: str) -> None:
    """They name the cell and the forms that work."""
    assert codes(load(f"GraphName,Node,Timeout\nG,A,{text}\n")) == ["AM-A006"]


@pytest.mark.parametrize(
    ("text", "retry"),
    [
        ("3", Retry(3)),
        ('{"attempts": 2, "delay": "1s", "backoff": 2}', Retry(2, 1.0, 2.0)),
        ('{"attempts": 2, "max_delay": 5, "on": "timeout"}', Retry(2, max_delay=5.0, on=("timeout",))),
    ],
)
def test_retries(text: str, retry: Retry) -> None:
    """A number of attempts, or an object."""
    assert node("Retry", cell(text)).retry == retry


BROKEN_RETRIES = [
    *("0", "-1", "x", "[1]", "999", '{"tries": 2}', '{"attempts": true}', '{"delay": "x"}'),
    *('{"backoff": 0}', '{"on": ["fire"]}', '{"on": []}', '{"max_delay": []}'),
]


@pytest.mark.parametrize("text", BROKEN_RETRIES)
def test_broken_retries_are_errors(text: str) -> None:
    """Every key is checked."""
    assert codes(load(f"GraphName,Node,Retry\nG,A,{cell(text)}\n")) == ["AM-A006"]


def test_map_over_takes_one_field() -> None:
    """Its name is kept; two are an error."""
    assert node("Map_Over", "orders").map_over == "orders"
    assert codes(load("GraphName,Node,Map_Over\nG,A,a|b\n")) == ["AM-A006"]


def test_tools_are_a_list() -> None:
    """Tool_Source and Available_Tools are kept for the agent."""
    found = node("Tool_Source,Available_Tools", "tools.py,add|sub")
    assert (found.tool_source, found.tools) == ("tools.py", ("add", "sub"))
