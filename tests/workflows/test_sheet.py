"""From bytes to rows: encodings, delimiters, headers, row numbers."""

from __future__ import annotations

import csv
import io
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sheets import codes, load, workflow

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.workflows.columns import COLUMNS, known, letter, suggestion
from agentmap_asgi.workflows.package import Unreadable
from agentmap_asgi.workflows.sheet import late_quote
from agentmap_asgi.workflows.table import read

PLAIN = "GraphName,Node,Prompt,Edge\nG,A,hello,B\nG,B,bye,\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_files_read_alike(encoding: str) -> None:
    """UTF-8 with and without its mark and UTF-16 with its mark give the same workflow."""
    found = workflow(PLAIN.replace("hello", "Grüße 你好").encode(encoding))
    assert found.nodes["A"].prompt == "Grüße 你好"
    assert found.diagnostics == ()


def test_other_bytes_are_windows_1252_and_the_first_cell_is_named() -> None:
    """What is not UTF-8 is read as Windows-1252, never guessed, with a warning at the first cell it matters for."""
    loaded = load(PLAIN.replace("bye", "Grüße – €").encode("cp1252"))
    (notice,) = loaded.findings
    assert (notice.code, notice.severity, notice.row, notice.column, notice.column_name) == (
        "AM-E002",
        "warning",
        3,
        "C",
        "Prompt",
    )
    assert loaded.workflows[0].nodes["B"].prompt == "Grüße – €"


def test_bytes_that_are_no_characters_are_an_error() -> None:
    """A byte that neither UTF-8 nor Windows-1252 knows is an error at its cell, in UTF-16 too."""
    (problem,) = load(PLAIN.encode().replace(b"hello", b"h\x81llo")).findings
    assert (problem.code, problem.row, problem.column) == ("AM-E003", 2, "C")
    assert codes(load(PLAIN.encode("utf-16").replace(b"b\0y\0", b"\x00\xd8y\0"))) == ["AM-E003"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"GraphName,Node\nG,A\0\n", "NUL"),
        (PLAIN.encode("utf-16-le"), "NUL"),
        (b"PK\x05\x06\x00\x00", "NUL"),
    ],
)
def test_what_is_not_text_is_refused_whole(data: bytes, word: str) -> None:
    """NUL bytes, UTF-16 without its mark and empty archives give one diagnostic and no rows."""
    loaded = load(data)
    assert (codes(loaded), loaded.workflows, loaded.rows.total) == (["AM-E001"], (), 0)
    assert word in loaded.diagnostics[0].message


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_from_the_header(delimiter: str) -> None:
    """Comma, semicolon, tab and bar are recognised by the known columns of the header line."""
    found = workflow(PLAIN.replace(",", delimiter))
    assert found.nodes["A"].edge == ("B",)


def test_text_in_the_rows_does_not_change_the_delimiter() -> None:
    """Commas in prompts do not outvote the header's semicolons."""
    found = workflow("GraphName;Node;Prompt\nG;A;a, b, c, d, e, f\n")
    assert found.nodes["A"].prompt == "a, b, c, d, e, f"


def test_what_was_done_to_read_a_file_is_noted() -> None:
    """One note for each rule, at the first place: encoding, delimiter, other names of columns, typographic signs."""
    text = "Graph\tNode\tnext\tPrompt\nG\tA\tB\u2013C\t\u201chi\u201d\nG\tB\u2013C\t\t\nG\tD\u00a0E\t\t\n"
    found = [one for one in load(text.encode("utf-16")).findings if one.severity == "info"]
    assert [(one.code, one.row, one.column) for one in found] == [
        ("AM-E007", None, None),
        ("AM-D006", 1, None),
        ("AM-H004", 1, "A"),
        ("AM-N009", 2, "C"),
    ]
    assert found[1].message == "The cells are separated by tabs"
    assert found[2].message == "Columns are read under other names: Graph as GraphName, next as Edge"
    assert (found[3].text, found[3].fix) == ("B\u2013C", "B-C")
    assert codes(load("graph_name,NODE,edge,Prompt\nG,A,,\u201chi\u201d\n")) == []


@pytest.mark.parametrize("line", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n"])
def test_the_sep_line_of_spreadsheets_is_honoured(line: str) -> None:
    """`sep=` names the delimiter; spreadsheets hide the line, so it is a text line and not a row."""
    loaded = load(line + "GraphName;Node;Edge\nG;A;Nowhere\n")
    (note, problem) = loaded.findings
    assert (note.code, note.message) == ("AM-D006", "The cells are separated by ';', as the line sep= says")
    assert (problem.code, problem.row, problem.line) == ("AM-R001", 2, 3)
    assert "row 2 (text line 3)" in str(problem)
    assert loaded.rows.total == 1


def test_a_sep_line_can_name_any_sign() -> None:
    """The sign after `sep=` need not be one of the usual delimiters."""
    assert list(workflow("sep=^\nGraphName^Node\nG^A\n").nodes) == ["A"]


def test_blank_and_comment_rows_count_but_do_nothing() -> None:
    """They are skipped, also before the header, and rows keep the numbers that a spreadsheet shows."""
    loaded = load("# notes\n,,\n\nGraphName,Node,Edge\n\n  # more,x,y\n , ,\nG,A,Nowhere\n#,,\n")
    (problem,) = loaded.findings
    assert (problem.code, problem.row) == ("AM-R001", 8)
    assert loaded.rows == (8, 1, 0, 7)


def test_multi_line_cells_move_lines_and_not_rows() -> None:
    """A quoted cell may hold line breaks; later rows keep their row number and get another line number."""
    loaded = load('GraphName,Node,Prompt,Edge\nG,A,"one\ntwo\r\nthree",B\nG,B,,Nowhere\n')
    assert loaded.workflows[0].nodes["A"].prompt == "one\ntwo\r\nthree"
    (problem,) = loaded.findings
    assert (problem.row, problem.line) == (3, 5)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_work(end: str) -> None:
    """Unix, Windows and old Macintosh line ends are the same."""
    assert list(workflow(PLAIN.replace("\n", end)).nodes) == ["A", "B"]


@pytest.mark.parametrize("tail", ["", "\n", "\nG,C,,\nG,D,,\n"])
def test_an_unclosed_quote_is_named_where_it_opens(tail: str) -> None:
    """The error stands at the row and column of the quote, and no workflow of the file can be started."""
    loaded = load('GraphName,Node,Prompt,Edge\nG,A,x,B\nG,B,"never closed,' + tail)
    (problem,) = loaded.findings
    assert (problem.code, problem.row, problem.column) == ("AM-D001", 3, "C")
    assert loaded.workflows[0].broken
    assert loaded.rows == (2, 1, 1, 0)


@pytest.mark.parametrize(
    ("rows", "row", "column"),
    [
        ('G,A,"one,B\nG,B,"two,\n', 2, "C"),
        ('G,A,"one,B\nG,B,two,C\nG,C,"see, {x}",\n', 2, "C"),
        ('G,A,x,"B\nG,B,x,C\nG,C,"""quoted"" text",\n', 2, "D"),
        ('G,A,"dear\ncustomer, ""you"", please "act" now",\n', 2, "C"),
        ('G,A,"one\ntwo"three\n', 2, "C"),
        ('G,A,"fine\ntoo",B\nG,B,"one,C\nG,C,"two",\n', 3, "C"),
        ('G,A,"one,B\nG,B,"\ntwo",C\nG,C,x,\n', 2, "C"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_quote_that_is_closed_too_late_is_named_where_it_opens(
    rows: str, row: int, column: str, delimiter: str
) -> None:
    """When a quote is missing, the one that opens another cell closes the cell: the rows between must not get lost."""
    text = f"GraphName,Node,Prompt,Edge\n{rows}".replace(",", delimiter)
    loaded = load(text)
    (problem,) = [found for found in loaded.findings if found.severity == "error" and found.code == "AM-D001"]
    assert (problem.row, problem.column) == (row, column)
    assert all(one.broken for one in loaded.workflows)
    with pytest.raises(Unreadable, match="closed too late"):
        read(text.encode())


def test_a_quote_that_is_closed_too_late_may_be_the_headers() -> None:
    """The rows up to the next quote would be a part of the header."""
    loaded = load('GraphName,Node,Description,"Prompt,Edge\nG,A,x,"hello,B\nG,B,x,,\n')
    (problem,) = [found for found in loaded.findings if found.severity == "error"]
    assert (problem.code, problem.row, problem.column) == ("AM-D001", 1, "D")


@pytest.mark.parametrize(
    "cell",
    [
        *('"one\ntwo"', '"one\n""two"", three"', '"one\ntwo" ', '"one, two\n"', '"""one\ntwo"""', '5" pipes'),
        *('"say\n""hi"""', '"{""x"": 1,\n""y"": 2}"', '", ""a"" b\nc"', '"one\n"', '"\none"', '"one\n,"'),
    ],
)
@pytest.mark.parametrize("edge", ["B", '"B"', '"B" '])
def test_quotes_that_end_their_cell_are_fine(cell: str, edge: str) -> None:
    """Line breaks and doubled quotes inside a cell, blanks behind it, and a quote in the middle of a plain cell."""
    text = f'GraphName,Node,Description,Edge\nG,A,{cell},{edge}\n# "G",B\nG,B,,\n'
    assert not [found for found in load(text).findings if found.severity == "error"]
    assert len(read(text.encode()).rows) == 4


@given(
    st.lists(st.lists(st.text('a",;\t|\r\n ', max_size=8), min_size=1, max_size=5), min_size=1, max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    st.sampled_from(("\n", "\r\n")),
)
def test_no_file_that_a_program_writes_has_a_late_quote(
    rows: list[list[str]], delimiter: str, quoting: Literal[0, 1], end: str
) -> None:
    """Whatever the cells hold."""
    for row in rows:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end).writerow(row)
        assert late_quote(out.getvalue(), delimiter) is None


def test_short_rows_are_padded() -> None:
    """Cells missing at the end of a row are empty."""
    assert workflow("GraphName,Node,Prompt,Edge\nG,A\n").nodes["A"].edge == ()


def test_surplus_cells_matter_only_with_text() -> None:
    """Empty cells past the header are ignored; one with text is an error with its position."""
    loaded = load("GraphName,Node,,\nG,A,,,,\nG,B,,,oops, too\n")
    (problem,) = loaded.findings
    assert (problem.code, problem.row, problem.column, problem.text) == ("AM-D002", 3, "E", "oops")
    assert list(loaded.workflows[0].nodes) == ["A", "B"]


def test_sizes_are_bounded() -> None:
    """`max_csv_bytes` and `max_csv_rows` refuse larger files with a diagnostic; a cell has a bound too."""
    assert codes(load(PLAIN, config=AgentMapConfig(max_csv_bytes=10))) == ["AM-E004"]
    loaded = load(PLAIN, config=AgentMapConfig(max_csv_rows=1))
    assert codes(loaded) == ["AM-D003"]
    assert loaded.workflows[0].broken
    loaded = load(f"GraphName,Node,Prompt\nG,A,{'x' * 200_000}\n")
    assert (codes(loaded), loaded.rows) == (["AM-D004"], (1, 0, 1, 0))
    assert codes(load("x" * 200_000)) == ["AM-D004"]


@pytest.mark.parametrize("data", ["", "\n\n", "# only notes\n", '"', "\ufeff"])
def test_a_file_without_a_header_says_so(data: str) -> None:
    """Empty files and files of notes have no workflows and one diagnostic."""
    assert codes(load(data)) == ["AM-D005"]


def test_headers_match_in_any_case_and_by_alias() -> None:
    """Every name and alias of every column is found, whatever its case and the spaces around it."""
    for index, column in enumerate(COLUMNS):
        for written in (column.name, *column.aliases):
            assert known(written) == known(f" {written.upper()}\u00a0") == index
    assert known("Colour") is None


def test_an_unknown_column_is_kept_and_reported() -> None:
    """Its cells are kept by header; a close known name is suggested, with a warning, for what it says is lost."""
    loaded = load("GraphName,Node,Promt,Owner\nG,A,hi,me\n")
    assert [(p.code, p.severity, p.text) for p in loaded.findings] == [
        ("AM-H002", "warning", "Promt"),
        ("AM-H002", "info", "Owner"),
    ]
    assert "Did you mean Prompt?" in loaded.findings[0].hint
    assert loaded.workflows[0].nodes["A"].extra == {"Promt": "hi", "Owner": "me"}


def test_a_row_that_has_lost_its_workflow_is_one_error() -> None:
    """A spreadsheet error as the workflow's name; that the nodes which it leads to are elsewhere follows from it."""
    assert codes(load("GraphName,Node,Edge\nR,B,\n#REF!,A,B\n")) == ["AM-V002"]


def test_a_delimiter_that_is_not_quoted_is_one_error() -> None:
    """The cells after it are not where they were meant to be, so no target is missed there."""
    assert codes(load("GraphName,Node,Prompt,Edge\nG,A,Hello, dear {name},B\nG,B,,\n")) == ["AM-D002"]


def test_a_column_that_is_there_is_not_named_twice() -> None:
    """Nothing is renamed by machine to a column that the file has, or that another is renamed to."""
    loaded = load("GraphName,Node,Prompt,Prompts,Contxt,Contexts,Names\nG,A,hi,me,,,\n")
    assert {p.text: p.fix for p in loaded.findings} == {
        "Prompts": None,
        "Contxt": "Context",
        "Contexts": None,
        "Names": None,
    }


def test_a_missing_node_column_is_one_error() -> None:
    """The header that was likely meant is named, and is not reported as unknown as well."""
    (problem,) = load("GraphName,Node Nam\nG,A\n").findings
    assert problem.code == "AM-H001"
    assert "'Node Nam'" in problem.hint
    assert suggestion("Node Nam") == "Node"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Failure", "Failure_Next"),
        ("Success", "Success_Next"),
        ("OnSuccess", "Success_Next"),
        ("Outputs", "Output_Field"),
        ("nxt_node", "next_node"),
        ("Title", None),
    ],
)
def test_a_columns_own_name_is_suggested_before_its_other_names(header: str, name: str | None) -> None:
    """Unless only another name is like the header."""
    assert suggestion(header) == name


def test_two_columns_of_one_meaning_are_merged() -> None:
    """The first non-empty cell of a row wins, with one warning."""
    loaded = load("GraphName,Node,Edge,next_node\nG,A,B,C\nG,B,,C\nG,C,,\n")
    assert codes(loaded) == ["AM-H003"]
    assert [n.edge for n in loaded.workflows[0].nodes.values()] == [("B",), ("C",), ()]


def test_a_word_for_nothing_gives_way_to_the_other_column() -> None:
    """In names, routing and fields; in texts it is a word like others."""
    nodes = workflow(
        "GraphName,Node,Edge,next_node,Output,Output_Field,Prompt,Instructions\n"
        "G,A,None,B,N/A,text,None,x\nG,B,\u00a0,C,,more,,y\nG,C,nan,null,,,,\n"
    ).nodes
    assert [n.edge for n in nodes.values()] == [("B",), ("C",), ()]
    assert [n.outputs for n in nodes.values()] == [("text",), ("more",), ()]
    assert [n.prompt for n in nodes.values()] == ["None", "y", ""]


def test_letters_are_those_of_spreadsheets() -> None:
    """A to Z, then AA."""
    assert [letter(n) for n in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]
