"""Diagnostics shown at their cells, for people and for programs; and what is mended by machine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from books import HEAD, xlsx
from hypothesis import given
from hypothesis import strategies as st
from sheets import codes, load

from agentmap_asgi.workflows.diagnostics import Diagnostic
from agentmap_asgi.workflows.fixing import fixed
from agentmap_asgi.workflows.places import Place, drawn, place
from agentmap_asgi.workflows.reports import FORMATS, Places
from agentmap_asgi.workflows.table import read

BAD = '''GraphName,Node,AgentType,Prompt,Edge
Flow,A,ecko,"Hello
there, ""you""",B
,B,echo,Bye,Cc
'''


def told(kind: str, data: bytes, file: str = "flows.csv") -> list[str]:
    return list(FORMATS[kind](load(data, file).findings, Places({file: data}.get)))


def test_text_shows_the_row_with_carets_under_the_cell() -> None:
    """With the text line, which runs ahead of the row behind a cell of several lines; and the node."""
    assert told("text", BAD.encode()) == [
        "error: flows.csv, row 2, column AgentType (C): AM-A001 There is no agent type 'ecko'. Did you mean 'echo'? "
        "(node 'A' of 'Flow')",
        '     2 | Flow,A,ecko,"Hello',
        "       |        ^^^^",
        "info: flows.csv, row 3 (text line 4), column GraphName (A): AM-N004 Rows without a workflow name, here and "
        "below, belong to 'Flow' like the row above. Fill in GraphName to make the row stand by itself. "
        "(node 'B' of 'Flow')",
        "     4 | ,B,echo,Bye,Cc",
        "       | ^",
        "error: flows.csv, row 3 (text line 4), column Edge (E): AM-R001 The node 'B' leads to 'Cc', and 'Flow' has no "
        "such node. Name a node of the same workflow.",
        "     4 | ,B,echo,Bye,Cc",
        "       |             ^^",
    ]


def test_a_spreadsheet_shows_the_cells_of_the_row() -> None:
    """Side by side."""
    data = xlsx({"S": [HEAD, ("Flow", "A", "echo", "Hello\nthere", "Nowhere")]})
    assert told("text", data, "b.xlsx")[1:] == [
        "     2 | Flow | A | echo | Hello there | Nowhere",
        " " * 7 + "|" + " " * 33 + "^" * 7,
    ]


def test_a_file_that_is_gone_shows_no_row() -> None:
    """The message stands alone."""
    (problem, *_) = load(BAD).findings
    assert len(list(FORMATS["text"]([problem], Places(lambda file: None)))) == 1
    assert len(list(FORMATS["text"]([problem], Places(lambda file: b"PK\x03\x04")))) == 1
    whole = Diagnostic(code="AM-E001", severity="error", message="x", file="a")
    assert Places(lambda file: BAD.encode())(whole) is None


def test_annotations_for_github() -> None:
    """One a line, with the place of the cell; signs that mean something there are escaped."""
    (first, *_) = told("github", BAD.encode(), "a,b:c.csv")
    assert first.startswith(
        "::error file=a%2Cb%3Ac.csv,title=AM-A001 The agent type is unknown,line=2,col=8,endColumn=11::a,b:c.csv, row 2"
    )


def test_sarif() -> None:
    """Rules, places, and what would mend it."""
    (log,) = [json.loads("\n".join(told("sarif", BAD.encode())))]
    (run,) = log["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["AM-A001", "AM-N004", "AM-R001"]
    result: dict[str, Any] = run["results"][0]
    assert (result["ruleId"], result["level"], result["ruleIndex"]) == ("AM-A001", "error", 0)
    region = {"startLine": 2, "startColumn": 8, "endColumn": 12, "snippet": {"text": 'Flow,A,ecko,"Hello'}}
    assert result["locations"][0]["physicalLocation"] == {"artifactLocation": {"uri": "flows.csv"}, "region": region}
    (change,) = result["fixes"][0]["artifactChanges"][0]["replacements"]
    assert change["insertedContent"] == {"text": "echo"}


@pytest.mark.parametrize(
    ("line", "column", "text", "shown"),
    [
        ('A,"x ""y"" z",B', "B", '"y"', '""y""'),
        ('A,"x ""y"" z",B', "B", None, 'x ""y"" z'),
        ("A,  b ,c", "B", None, "b"),
        ("A,,c", "B", None, ","),
        ("A,b", "Z", None, ""),
    ],
)
def test_a_cell_is_found_in_its_row(line: str, column: str, text: str | None, shown: str) -> None:
    """Also behind quotes; an empty cell is where it would be."""
    table = read(f"Node,x,y\n{line}\n".encode())
    found = place(Diagnostic(code="AM-V001", severity="info", message="", row=2, column=column, text=text), table)
    assert found is not None
    assert found.text[found.start : found.end] == shown


def test_a_place_inside_a_cell_is_found() -> None:
    """By its line and character, though quotes are doubled in the file."""
    table = read(b'Node,Context\nA,"{""a"":\n 1 2}"\n')
    found = place(
        Diagnostic(code="AM-A003", severity="error", message="", row=2, column="B", cell_line=2, cell_character=4),
        table,
    )
    assert found == Place(3, ' 1 2}"', 3, 4)


def test_long_lines_are_cut_and_wide_signs_count_twice() -> None:
    """So that the carets are under the cell."""
    lines = drawn(Place(7, "x" * 200 + "bad" + "y" * 200, 200, 203))
    assert len(lines[0]) < 120
    assert lines[0].index("bad") == lines[1].index("^^^")
    assert drawn(Place(1, "\u6587\tbad", 2, 5))[1] == "       |    ^^^"


def check(data: bytes) -> tuple[Diagnostic, ...]:
    return load(data).findings


def test_what_needs_no_decision_is_mended() -> None:
    """Nearest names, workflow names that were left out, typographic signs, misspelt headers; rows that are right stay."""
    text = (
        '# made by  hand\r\nGraphName;Node;Agenttyp;Edge;Prompt\r\nFlow;A;ecko;B\u2013C;"a\r\n\u201cb\u201d"\r\n'
        ";B\u2013C;EchoAgent;;  x\r\n\r\n;D;echo;Nowhere;\r\n"
    )
    data, count = fixed(text.encode("cp1252"), check)
    assert data.decode("utf-8-sig") == (
        '# made by  hand\r\nGraphName;Node;AgentType;Edge;Prompt\r\nFlow;A;echo;B-C;"a\r\n\u201cb\u201d"\r\n'
        "Flow;B-C;EchoAgent;;  x\r\n\r\nFlow;D;echo;Nowhere;\r\n"
    )
    assert count == 7
    assert codes(check(data)) == ["AM-D006", "AM-R001"]
    assert fixed(data, check) == (data, 0)


@given(
    st.lists(
        st.lists(st.sampled_from(["", "A", "Flow", "ecko", "B\u2013C", "None", 'x "y"', "a,b"]), max_size=4), max_size=5
    )
)
def test_mending_loses_nothing(rows: list[list[str]]) -> None:
    """Twice is once, and no row is gained or lost."""
    lines = [
        "GraphName,Node,AgentType,Edge",
        *(",".join(f'"{c.replace(chr(34), chr(34) * 2)}"' for c in row) for row in rows),
    ]
    data = "\n".join(lines).encode()
    new, _ = fixed(data, check)
    assert fixed(new, check) == (new, 0)
    assert load(new).rows.total == load(data).rows.total
