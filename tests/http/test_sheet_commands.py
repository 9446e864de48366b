"""`format`, `diff` and `convert`, as their users call them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentmap_asgi.__main__ import main
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.workflows import converting
from agentmap_asgi.workflows.table import read

UGLY = """\
# a comment, "as it was"


graph_name ; next_node;Node ;Owner;Prompt\r
 Flow; B | C|;A ; Ada ;" two
lines "\r
Flow;;“B”;;
  # another one
Flow;func:pick(A|B);C
\r
\r
"""
NICE = '''\
# a comment, "as it was"

GraphName;Edge;Node;Owner;Prompt
Flow;B|C;A;Ada;"two
lines"
Flow;;"""B""";;
  # another one
Flow;func:pick(A|B);C;;
'''
OLD = "GraphName,Node,AgentType,Edge,Prompt\nFlow,A,echo,B,Hi\nFlow,B,echo,C,x\nFlow,C,echo,,y\n"
SORTED = "GraphName,Node,AgentType,Edge,Prompt\nFlow,A,echo,B,Hi\nFlow,C,echo,,y\nFlow,B,echo,C,x\n"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    return (status, *capsys.readouterr())


def test_files_are_formatted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns in their order, unknown ones and comments too; `--check` writes nothing."""
    path = tmp_path / "flows.csv"
    path.write_bytes(UGLY.encode())
    status, out, err = run(capsys, "format", tmp_path, "--check")
    assert (status, out, err) == (1, "", f"{path}: would be formatted\n")
    assert run(capsys, "format", path) == (0, "", f"{path}: formatted\n")
    assert path.read_bytes().decode() == NICE
    assert run(capsys, "format", path, "--check") == (0, "", "")


def test_standard_input_is_formatted(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To standard output, as editors want it."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(UGLY.encode())))
    assert main(["format", "-"]) == 0
    assert capsysbinary.readouterr().out.decode() == NICE


def test_what_cannot_be_formatted_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason."""
    path = tmp_path / "flows.csv"
    path.write_text('Node\n"A')
    assert run(capsys, "format", path) == (2, "", f"{path}: The quote that opens in text line 2 is not closed\n")
    path.write_text("# nothing\n")
    assert run(capsys, "format", path)[0] == 2
    said = f"{tmp_path}/none.csv cannot be read: No such file or directory\n"
    assert run(capsys, "format", tmp_path / "none.csv") == (2, "", said)


def test_what_is_no_workflow_is_not_formatted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cases keep their column `workflow`. Tables in a folder keep theirs, though `name` is a word for Node."""
    cases, table = tmp_path / "flow.cases.csv", tmp_path / "people.csv"
    cases.write_text("case, workflow\na,Flow\n")
    table.write_text("name,type\nAda , x\n")
    status, out, err = run(capsys, "format", tmp_path)
    assert (status, out) == (0, "")
    assert err.splitlines() == [
        f"{cases}: left as it is, because it holds cases",
        f"{table}: left as it is, because no column is only a workflow's; name it to format it",
    ]
    assert cases.read_text() == "case, workflow\na,Flow\n"
    assert table.read_text() == "name,type\nAda , x\n"
    run(capsys, "format", table)
    assert table.read_text() == "Node,AgentType\nAda,x\n"


def test_a_file_that_cannot_be_written_stays_whole(tmp_path: Path) -> None:
    """What stood there is there until all of the new text is; nothing else is left behind."""
    path = tmp_path / "flows.csv"
    text = "Node,Edge,Prompt\n" + "A, ,x\n" * 10_000
    path.write_text(text)
    code = (
        "import resource, sys; from agentmap_asgi.__main__ import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, "format", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"{path} cannot be written: File too large\n")
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_and_links_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that a link leads to is written, with the permissions that it has."""
    path, link = tmp_path / "flows.csv", tmp_path / "link.csv"
    path.write_text("Node, Edge\nA,\n")
    path.chmod(0o640)
    link.symlink_to(path)
    assert run(capsys, "format", link)[0] == 0
    assert link.is_symlink()
    assert path.read_text() == "Node,Edge\nA,\n"
    assert path.stat().st_mode & 0o777 == 0o640


TEXTS = st.sampled_from(
    ["", "A", " B ", "A | B", "“q”", "None", "#x", "a,b", 'say "x"', "two\nlines", "a\r\nb", "=1", "\xa0", "ü", "sep=;"]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.lists(TEXTS, max_size=5), max_size=6),
    st.sampled_from(["GraphName,Node,Edge,Prompt", "Node,Owner", "Graph,name,next,next_node"]),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_formatting_twice_is_formatting_once(rows: list[list[str]], head: str, delimiter: str, encoding: str) -> None:
    """And keeps the number of rows that are not blank."""
    text = converting.to_csv([head.split(","), *rows], delimiter).decode("utf-8-sig")
    once = read(text.encode(encoding)).formatted().written()
    assert read(once).formatted().written() == once
    assert sum(any(map(str.strip, row.cells)) for row in read(once).rows) == 1 + sum(
        any(part.strip() for part in row) for row in rows
    )


def test_a_sorted_sheet_shows_no_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever kind of file it is."""
    old, new, book = tmp_path / "old.csv", tmp_path / "new.csv", tmp_path / "new.xlsx"
    old.write_text(OLD)
    new.write_text(SORTED)
    assert run(capsys, "diff", old, new) == (0, "", "")
    assert run(capsys, "convert", new, book)[0] == 0
    assert run(capsys, "diff", old, book) == (0, "", "")
    assert json.loads(run(capsys, "diff", old, book, "--format", "json")[1]) == {"changes": []}


def test_changes_are_shown_by_node_and_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 1; files of folders are compared by their names."""
    for name, text in (("old", OLD), ("new", OLD.replace("Hi", "Hello"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flows.csv").write_text(text)
    (tmp_path / "new" / "more.csv").write_text("Node\nA\n")
    told = "~ workflow Flow\n  ~ node A (row 2)\n      - Prompt: Hi\n      + Prompt: Hello\n"
    assert run(capsys, "diff", tmp_path / "old" / "flows.csv", tmp_path / "new" / "flows.csv") == (1, told, "")
    status, out, _ = run(capsys, "diff", tmp_path / "old", tmp_path / "new")
    told = told.replace("Flow\n", "Flow (flows.csv)\n")
    assert (status, out) == (1, told + "+ workflow more (more.csv)\n  + node A (row 2)\n      + AgentType: default\n")
    found = json.loads(run(capsys, "diff", tmp_path / "old", tmp_path / "new", "--format", "json")[1])
    said = [(change["change"], change["file"]) for change in found["changes"]]
    assert said == [("changed", "flows.csv"), ("added", "more.csv")]


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows that are no nodes are counted; a file without any is an error."""
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text(OLD)
    new.write_text(OLD + "Flow,A,echo,,\n")
    status, out, err = run(capsys, "diff", old, new)
    assert (status, out) == (0, "")
    assert err == "Warning: 1 row of new.csv cannot be compared; see agentmap-asgi check\n"
    new.write_text("nothing\n")
    assert "AM-H001" in run(capsys, "diff", old, new)[2]
    assert run(capsys, "diff", old)[0] == 2
    assert run(capsys, "diff", old, tmp_path / "none.csv")[0] == 2
    assert run(capsys, "diff", "--git", old, new)[0] == 2


def test_git_shows_changes_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a driver: `*.csv diff=agentmap`."""

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", *who, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("config", "diff.agentmap.command", f"{sys.executable} -m agentmap_asgi diff --git")
    (tmp_path / ".gitattributes").write_text("*.csv diff=agentmap\n")
    (tmp_path / "flows.csv").write_text(OLD)
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "flows.csv").write_text(SORTED)
    assert git("diff") == "agentmap-asgi diff flows.csv\n  no workflow has changed\n"
    (tmp_path / "flows.csv").write_text(OLD.replace("Hi", "Hello"))
    assert "      + Prompt: Hello\n" in git("diff")
    (tmp_path / "flows.csv").unlink()
    assert "- workflow Flow" in git("diff")
    assert run(capsys, "diff", "--git", "flows.csv") == (0, "flows.csv: is not merged\n", "")


def test_files_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there is not replaced, and a sheet is named where there are several."""
    source, book, back = tmp_path / "flows.csv", tmp_path / "flows.xlsx", tmp_path / "back.csv"
    source.write_bytes(UGLY.encode())
    assert run(capsys, "convert", source, book) == (0, f"{book}: 10 rows\n", "")
    assert "--force" in run(capsys, "convert", source, book)[2]
    assert run(capsys, "convert", book, back, "--delimiter", ";")[0] == 0
    assert [row.cells for row in read(back.read_bytes()).rows][3] == read(source.read_bytes()).rows[3].cells
    assert "neither .csv nor .xlsx" in run(capsys, "convert", source, tmp_path / "x.ods")[2]
    assert "cannot be read" in run(capsys, "convert", tmp_path / "none.csv", back, "--force")[2]
    said = run(capsys, "convert", book, back, "--force", "--sheet", "flow")[2]
    assert "no sheet 'flow'; did you mean 'flows'?" in said
    assert run(capsys, "convert", book, back, "--force", "--sheet", "flows")[0] == 0
    broken = tmp_path / "broken.xlsx"
    broken.write_bytes(book.read_bytes()[:500])
    assert "damaged" in run(capsys, "convert", broken, back, "--force")[2]


CELLS: Any = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\r\n\t_x0041=,;\"'\ufffe\x01\x0b "),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(st.lists(st.lists(CELLS, max_size=4), min_size=1, max_size=5))
def test_no_cell_is_lost_on_the_way_to_a_workbook_and_back(rows: list[list[str]]) -> None:
    """Formulas stay texts, line ends and control characters too. Blank ends of rows and sheets do not count."""
    grid = converting.only_sheet(converting.to_workbook([["head"], *rows], "S"), None)
    again = read(converting.to_csv(grid.rows()))
    assert trimmed([row.cells for row in again.rows]) == trimmed([["head"], *rows])


def trimmed(rows: list[list[str]]) -> list[list[str]]:
    """Without empty cells at the end of rows, and blank rows at the end."""
    found = []
    for row in rows:
        cells = list(row)
        while cells and not cells[-1]:
            cells.pop()
        found.append(cells)
    while found and not any(cell.strip() for cell in found[-1]):
        found.pop()
    return found


def test_what_a_workbook_cannot_hold_is_refused() -> None:
    """With the cell."""
    with pytest.raises(ConfigError, match="The text in B1 has 40000 signs"):
        converting.to_workbook([["Node", "x" * 40_000]], "S")
    with pytest.raises(ConfigError, match="at most 16384 columns"):
        converting.to_workbook([["x"] * 16_385], "S")
    several = converting.to_workbook([], "[]:")
    with pytest.raises(ConfigError, match="none with cells"):
        converting.only_sheet(several, None)
