"""Spreadsheets as workflow files: XLSX and ODS."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from books import HEAD, changed, ods, ods_cell, ods_row, saved, sheet_xml, xlsx
from sheets import REGISTRY, codes, load

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.workflows import workbook
from agentmap_asgi.workflows.catalogue import Catalogue
from agentmap_asgi.workflows.excel import shows
from agentmap_asgi.workflows.package import Unreadable

FLOW = (HEAD, ("Flow", "A", "echo", "Hi", "B"), ("Flow", "B", "echo", "Bye", None))
FIRST = "xl/worksheets/sheet1.xml"


def rows(data: bytes, sheet: int = 0) -> list[list[str]]:
    return list(workbook.grids(data, max_bytes=10**7, max_rows=1_000)[sheet].rows())


def refused(data: bytes, max_bytes: int = 10**7) -> str:
    with pytest.raises(Unreadable) as caught:
        workbook.grids(data, max_bytes=max_bytes, max_rows=1_000)
    return f"{caught.value.code} {caught.value.message} {caught.value.hint}"


def test_a_workbook_is_read_like_a_csv_file() -> None:
    """The same workflow, and its rows are the sheet's rows; an only sheet does not name it."""
    found = load(xlsx({"Sheet1": FLOW}), "flows.xlsx")
    csv = load("GraphName,Node,AgentType,Prompt,Edge\nFlow,A,echo,Hi,B\nFlow,B,echo,Bye,\n")
    assert found.findings == ()
    assert [w.version for w in found.workflows] == [w.version for w in csv.workflows]
    assert [node.row for node in found.workflows[0].nodes.values()] == [2, 3]
    assert found.rows == csv.rows
    alone = load(xlsx({"Sheet1": [("Node", "Edge"), ("A", "")]}), "flows.xlsx")
    assert [w.graph_id for w in alone.workflows] == ["flows::flows"]


def test_every_sheet_is_read() -> None:
    """Those without a column GraphName are named by their sheets; sub-workflows may be in another sheet."""
    call = ("Main", "A", "graph", "", "", "{workflow=::Second}")
    data = xlsx({"First": [(*HEAD, "Context"), call], "Second": [("Node",), ("X",)], "Empty": []})
    found = load(data, "book.xlsx")
    assert [w.graph_id for w in found.workflows] == ["book::Main", "book::Second"]
    assert codes(found) == []
    assert found.rows == (2, 2, 0, 0)


def test_one_sheet_may_be_named() -> None:
    """`sheet` in the settings; a name that is not there is an error with the nearest one."""
    data = xlsx({"Old": FLOW, "New": [("Node",), ("X",)]})
    found = load(data, "book.xlsx", config=AgentMapConfig(sheet="New"))
    assert [w.graph_id for w in found.workflows] == ["book::book"]
    (problem,) = load(data, "book.xlsx", config=AgentMapConfig(sheet="Nwe")).findings
    assert (problem.code, problem.hint) == ("AM-E009", "Did you mean 'New'?")
    (problem,) = load(data, "book.xlsx", config=AgentMapConfig(sheet="zzz")).findings
    assert problem.hint == "There are 'Old', 'New'."


def test_a_sheet_that_holds_no_workflow_is_left_out() -> None:
    """With a note that counts its rows, as long as another one holds some; else it is an error."""
    data = xlsx({"Notes": [("For", "whom"), ("us", "all")], "Flows": FLOW})
    found = load(data)
    assert [str(problem) for problem in found.findings] == [
        "flows.csv, sheet Notes: AM-E010 The sheet 'Notes' has no column Node, so its 2 rows are no workflow. "
        "Give it a header with Node if it should be one."
    ]
    assert found.rows == (4, 2, 2, 0)
    assert codes(load(xlsx({"Notes": [("For", "whom")], "More": [("#",)]}))) == [
        "AM-H001",
        "AM-H002",
        "AM-H002",
        "AM-E010",
    ]
    assert codes(load(xlsx({"Empty": []}))) == ["AM-D005"]
    assert codes(load(xlsx({"Bad": [("Nod", "Edge"), ("A", "B")], "Flows": FLOW}))) == ["AM-H001"]


def test_a_title_above_the_header_is_named() -> None:
    """In CSV files too."""
    data = xlsx({"S": [("Our flows",), ("Version 2",), *FLOW]})
    (problem,) = load(data).findings
    assert (problem.code, problem.row) == ("AM-H001", 1)
    assert problem.message == "Row 1 is no header; row 3 looks like one"
    assert problem.hint == "Begin rows 1 to 2 with #, or remove what stands above the header."
    (problem,) = load("Our flows\nNode,Edge\nA,\n").findings
    assert problem.hint == "Begin row 1 with #, or remove what stands above the header."


def test_a_workflow_stands_in_one_sheet() -> None:
    """Rows of it in a second sheet are an error that names both; they count as reported."""
    found = load(xlsx({"S1": FLOW, "S2": (HEAD, ("Flow", "C", "echo", "", ""))}), "b.xlsx")
    (problem,) = found.findings
    assert (problem.code, problem.sheet, problem.row) == ("AM-N008", "S2", 2)
    assert found.workflows[0].broken
    assert found.rows == (3, 2, 1, 0)


def test_places_name_the_sheet() -> None:
    """And have no text line."""
    (problem,) = load(xlsx({"Any": [*FLOW, ("Flow", "C", "ecko", "", "")]}), "b.xlsx").workflows[0].errors
    assert (problem.sheet, problem.row, problem.line, problem.column) == ("Any", 4, None, "C")
    assert str(problem).startswith("b.xlsx, sheet Any, row 4, column AgentType (C): AM-A001")


TYPED = {
    "true": (True, "TRUE"),
    "false": (False, "FALSE"),
    "whole": (7, "7"),
    "float": (7.0, "7"),
    "fraction": (0.1 + 0.2, "0.3"),
    "large": (10**14, "100000000000000"),
    "huge": (1e20, "1E+20"),
    "negative": (-2.5, "-2.5"),
    "day": (date(2026, 1, 31), "2026-01-31"),
    "moment": (datetime(2026, 1, 31, 8, 30), "2026-01-31 08:30:00"),
    "clock": (time(8, 30), "08:30:00"),
    "elapsed": (timedelta(hours=30, minutes=5), "30:05:00"),
    "spaces": ("  two  spaces ", "  two  spaces "),
    "lines": ("one\ntwo", "one\ntwo"),
    "control": ("a_x000D_b", "a\rb"),
    "escaped": ("_x005F_x000D_", "_x000D_"),
}


@pytest.mark.parametrize(("value", "text"), TYPED.values(), ids=TYPED)
def test_typed_cells_are_read_as_texts(value: Any, text: str) -> None:
    """As one types them: truth values in capitals, dates and times as ISO 8601 with a space."""
    assert rows(xlsx({"S": [(value,)]})) == [[text]]


def test_dates_and_truth_values_are_noted() -> None:
    """Once a sheet, at the first."""
    found = load(xlsx({"S": [*FLOW, ("Flow", "C", "echo", True, ""), ("Flow", "D", "echo", date(2026, 1, 2), "")]}))
    noted = [problem for problem in found.findings if problem.code == "AM-V007"]
    assert [(problem.row, problem.column, problem.text) for problem in noted] == [(4, "D", "TRUE")]


FORMATS = {
    "yyyy-mm-dd": "date", "[$-407]dd. mmmm yyyy": "date", "hh:mm": "time", "[h]:mm": "elapsed", "mm:ss.0": "time",
    "d/m/yy h:mm": "moment", "0.00": "", "General": "", '"day" 0': "", "0\\d": "", "mmm": "date", "[Red]0": "",
    '#,##0 "h"': "", "@": "",
}  # fmt: skip


@pytest.mark.parametrize("code", FORMATS)
def test_number_formats_say_what_a_number_is(code: str) -> None:
    """Words in quotes, colours and escaped signs are no dates."""
    assert shows(code) == FORMATS[code]


def test_days_count_from_1904_in_some_workbooks() -> None:
    """As those of old Macs; and Excel has a 29th of February 1900."""
    book = openpyxl.Workbook()
    book.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    assert book.active is not None
    book.active["A1"] = date(2026, 1, 31)
    assert rows(saved(book)) == [["2026-01-31"]]
    style = xlsx({"S": [(date(2026, 1, 31),)]})
    cells = '<row r="1"><c r="A1" s="1"><v>1</v></c><c r="B1" s="1"><v>61</v></c><c r="C1" s="1"><v>-1</v></c></row>'
    assert rows(changed(style, {FIRST: sheet_xml(cells)})) == [["1900-01-01", "1900-03-01", "-1"]]


def test_error_values_stay() -> None:
    """And are reported at their cell."""
    cell = '<row r="1"><c r="A1" t="inlineStr"><is><t>Node</t></is></c></row><row r="2"><c r="A2" t="e"><f>1/0</f><v>#DIV/0!</v></c></row>'
    found = load(changed(xlsx({"S": []}), {FIRST: sheet_xml(cell)}))
    assert [(one.code, one.column, one.row) for one in found.findings] == [("AM-V002", "A", 2)]


def test_formulas_count_with_their_values() -> None:
    """A formula without one is an error that names its cell, and how many more there are."""
    data = xlsx({"S": [*FLOW, ("Flow", '=A1&"x"', "=1", "", "")]})
    found = load(data)
    problem = next(one for one in found.findings if one.code == "AM-V006")
    assert (problem.row, problem.column, problem.column_name) == (4, "B", "Node")
    assert "B4 and 1 more" in problem.message
    cells = (
        '<row r="1"><c r="A1"><f>1+1</f><v>2</v></c><c r="B1" t="str"><f>""</f><v></v></c>'
        '<c r="C1" t="str"><f>"x"</f><v>x</v></c></row>'
    )
    assert rows(changed(data, {FIRST: sheet_xml(cells)})) == [["2", "", "x"]]
    assert "AM-V006" not in codes(load(changed(data, {FIRST: sheet_xml(cells)})))


def test_merged_cells_are_filled() -> None:
    """In both directions, with a note; a range to the end of the sheet fills what is used."""
    data = xlsx(
        {"S": [HEAD, ("Flow", "A", "echo", "", "B"), (None, "B", "echo", "", "C"), (None, "C", "echo", "", None)]},
        lambda sheet: sheet.merged_cells.add("A2:A1048576"),  # merge_cells makes an object for each cell
    )
    found = load(data)
    assert codes(found) == ["AM-V005"]
    assert list(found.workflows[0].nodes) == ["A", "B", "C"]
    across = xlsx({"S": [("a", None, "b")]}, lambda sheet: sheet.merge_cells("A1:B1"))
    assert rows(across) == [["a", "a", "b"]]
    many = "".join(f'<mergeCell ref="A1:XFD{row}"/>' for row in range(2, 30))
    wide = '<row r="1"><c r="A1"><v>1</v></c><c r="XFD1"><v>1</v></c></row><row r="40"><c r="A40"><v>1</v></c></row>'
    assert "too many" in refused(changed(data, {FIRST: sheet_xml(wide, f"<mergeCells>{many}</mergeCells>")}))


def test_hidden_rows_and_sheets_are_kept() -> None:
    """Hiding is for the eye."""

    def hide(sheet: Any) -> None:
        sheet.row_dimensions[3].hidden = True
        sheet.sheet_state = "hidden"

    found = load(xlsx({"S": FLOW, "Other": []}, hide))
    assert list(found.workflows[0].nodes) == ["A", "B"]


def test_shared_texts_may_have_runs_and_phonetic_signs() -> None:
    """The runs are one text, the phonetic signs are no part of it; a number that is not there is empty."""
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    texts = f"<sst {space}><si><r><t>No</t></r><r><t>de</t></r><rPh><t>x</t></rPh></si><si><t>_x0041_</t></si></sst>"
    cells = '<row><c t="s"><v>0</v></c><c t="s"><v>1</v></c><c t="s"><v>9</v></c><c t="s"><v>x</v></c><c/><c><v>5</v></c></row>'
    book = xlsx({"S": [("x",)]})
    relations = (
        '<Relationships><Relationship Id="rId1" Type="x/worksheet" Target="worksheets/sheet1.xml"/>'
        '<Relationship Id="rId9" Type="x/sharedStrings" Target="/xl/texts.xml"/></Relationships>'
    )
    parts: Mapping[str, str] = {FIRST: sheet_xml(cells), "xl/texts.xml": texts, "xl/_rels/workbook.xml.rels": relations}
    assert rows(changed(book, parts)) == [["Node", "A", "", "", "", "5"]]


def test_documents_are_read() -> None:
    """Texts of several paragraphs, spaces, typed values; comments are no part of a cell."""
    cells = ods_row(
        "Node",
        '<table:table-cell office:value-type="float" office:value="7.0"><text:p>7,00</text:p></table:table-cell>',
        '<table:table-cell office:value-type="boolean" office:boolean-value="true"><text:p>WAHR</text:p></table:table-cell>',
        '<table:table-cell office:value-type="date" office:date-value="2026-01-31T08:30:00"/>',
        '<table:table-cell office:value-type="time" office:time-value="PT08H30M00S"/>',
        '<table:table-cell office:value-type="time" office:time-value="odd"><text:p>8h</text:p></table:table-cell>',
        '<table:table-cell office:value-type="string"><text:p><text:s text:c="2"/>a <text:span>b</text:span></text:p>'
        "<text:p>c<text:tab/>d<text:line-break/>e</text:p><office:annotation><text:p>no</text:p></office:annotation>"
        "</table:table-cell>",
        '<table:table-cell office:value-type="string" calcext:value-type="error"><text:p>#REF!</text:p></table:table-cell>',
        '<table:table-cell office:value-type="string" office:string-value="only"/>',
        '<table:table-cell office:value-type="percentage" office:value="0.5"/>',
        "<table:table-cell><text:p>bare</text:p></table:table-cell>",
    )
    (row,) = rows(ods({"S": cells}))
    assert row == [
        "Node",
        "7",
        "TRUE",
        "2026-01-31 08:30:00",
        "08:30:00",
        "8h",
        "  a b\nc\td\ne",
        "#REF!",
        "only",
        "0.5",
        "bare",
    ]


def test_rows_and_cells_of_documents_repeat() -> None:
    """Empty ones to the end of the sheet cost nothing; a table in a cell is no sheet."""
    inner = "<table:table-cell><table:table><table:table-row/></table:table></table:table-cell>"
    table = (
        ods_row(
            "Node", '<table:table-cell table:number-columns-repeated="3"><text:p>x</text:p></table:table-cell>', inner
        )
        + ods_row("", repeated=2)
        + ods_row("A", repeated=2)
        + ods_row('<table:table-cell table:number-columns-repeated="16384"/>', repeated=1_048_570)
    )
    assert rows(ods({"S": table})) == [["Node", "x", "x", "x"], [], [], ["A"], ["A"]]


def test_merged_cells_of_documents_are_filled() -> None:
    """Over what is covered."""
    wide = '<table:table-cell table:number-columns-spanned="2" table:number-rows-spanned="2"><text:p>G</text:p></table:table-cell>'
    covered = "<table:covered-table-cell/>"
    assert rows(ods({"S": ods_row(wide, covered, "x") + ods_row(covered, covered, "y")})) == [
        ["G", "G", "x"],
        ["G", "G", "y"],
    ]


def test_formulas_of_documents_have_values_too() -> None:
    """Or are named."""
    bare = '<table:table-cell table:formula="of:=1"/>'
    found = load(ods({"S": ods_row("Node", "Prompt") + ods_row("A", bare) + ods_row("B", bare)}))
    assert [(one.code, one.row, one.column) for one in found.findings][:1] == [("AM-V006", 2, "B")]


@pytest.mark.parametrize("size", [10, 100, 1_000, -1])
def test_a_broken_workbook_is_one_error(size: int) -> None:
    """Wherever it is cut."""
    data = xlsx({"S": FLOW})[:size]
    found = load(data)
    assert codes(found) in (["AM-E008"], ["AM-E001"])


def test_what_is_no_spreadsheet_is_said() -> None:
    """Archives, files of Numbers, old Excel files, documents with a password, document types."""
    plain = xlsx({"S": FLOW})
    assert "AM-E001" in refused(changed(plain, {"[Content_Types].xml": None}))
    assert "Numbers" in refused(changed(plain, {"[Content_Types].xml": None, "Index/Document.iwa": b"x"}))
    (old,) = load(b"\xd0\xcf\x11\xe0" + b"\0" * 600).findings
    assert (old.code, "password" in old.message) == ("AM-E001", True)
    assert "password" in refused(ods({"S": ""}, manifest="<encryption-data/>"))
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>'
    assert "damaged" in refused(changed(plain, {FIRST: bomb}))
    assert "damaged" in refused(changed(plain, {FIRST: b"no xml"}))
    assert "damaged" in refused(changed(plain, {FIRST: None}))
    for row in ('<row r="2000000"/>', '<row r="1"><c r="ZZZ1"><v>1</v></c></row>', '<row><c r="?"><v>1</v></c></row>'):
        assert "AM-E008" in refused(changed(plain, {FIRST: sheet_xml(row)}))


def test_what_unpacks_to_much_is_refused() -> None:
    """Before it is unpacked, whatever is declared; far cells cost nothing."""
    plain = xlsx({"S": FLOW})
    big = changed(plain, {FIRST: sheet_xml(f"<row><c><v>{'1' * 10**6}</v></c></row>")})
    assert "AM-E004" in refused(big, max_bytes=100_000)
    assert "AM-E004" in refused(plain, max_bytes=100)
    far = changed(plain, {FIRST: sheet_xml('<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>')})
    grid = workbook.grids(far, max_bytes=10**7, max_rows=10)[0]
    assert (len(grid.cells), codes(load(far, config=AgentMapConfig(max_csv_rows=10)))) == (1, ["AM-D005"])
    columns = '<table:table-cell table:number-columns-repeated="16384"><text:p>x</text:p></table:table-cell>'
    assert "too many cells" in refused(ods({"S": ods_row(columns, repeated=1_000_000)}))


def test_few_bytes_that_stand_for_much_end_soon() -> None:
    """Merged ranges of many rows, one text in many cells, and spaces that are counted instead of written."""
    line = '<row><c t="inlineStr"><is><t>A</t></is></c></row>'
    merged = sheet_xml(
        line * 20_000 + '<row><c r="B20001"><v>1</v></c></row>',
        '<mergeCells><mergeCell ref="A1:B1"/></mergeCells>' * 20_000,
    )
    assert rows(changed(xlsx({"Sheet": FLOW}), {FIRST: merged}))[0] == ["A", "A"]
    assert refused(ods({"Sheet": ods_row(ods_cell("long " * 20_000), repeated=900)}), 10**6).startswith("AM-E004")
    wide = f'<table:table-cell table:number-columns-spanned="16384"><text:p>{"x" * 9_999}</text:p></table:table-cell>'
    last = '<table:table-cell table:number-columns-repeated="16383"/>' + ods_cell("end")
    assert refused(ods({"Sheet": ods_row(wide) + ods_row(last)}), 10**6).startswith("AM-E004")
    spaces = '<text:s text:c="10000"/>' * 50_000
    cell = f"<table:table-cell><text:p>{spaces}</text:p></table:table-cell>"
    assert refused(ods({"Sheet": ods_row(cell)})).startswith("AM-E008 The sheet 'Sheet' has too many spaces")


def test_parts_that_are_compressed_otherwise_are_refused(tmp_path: Path) -> None:
    """No spreadsheet has them."""
    path = tmp_path / "x.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as package:
        package.writestr("[Content_Types].xml", "<x/>")
        package.writestr("xl/workbook.xml", "<x/>")
    assert "damaged" in refused(path.read_bytes())


def test_workbooks_of_a_folder_are_served(tmp_path: Path) -> None:
    """Beside CSV files, but for Excel's lock files and those that have the name of a CSV file."""
    (tmp_path / "a.csv").write_text("Node\nA\n")
    (tmp_path / "a.xlsx").write_bytes(xlsx({"S": FLOW}))
    (tmp_path / "b.XLSX").write_bytes(xlsx({"S": FLOW}))
    (tmp_path / "c.ods").write_bytes(ods({"S": ods_row("Node") + ods_row("X")}))
    (tmp_path / "~$b.xlsx").write_bytes(b"lock")
    catalogue = Catalogue(tmp_path, registry=REGISTRY)
    catalogue.load()
    assert [w.graph_id for w in catalogue.workflows] == ["a::a", "b::Flow", "c::c"]
    assert [str(found) for found in catalogue.findings] == [
        "a.xlsx: AM-E011 'a.xlsx' and 'a.csv' have one name, so 'a.xlsx' was skipped. "
        "Remove one of them, or give it another name."
    ]
