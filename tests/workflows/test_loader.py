"""From rows to workflows."""

from __future__ import annotations

from pathlib import Path

import pytest
from sheets import REGISTRY, cell, codes, load, node, workflow

from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.agents.registry import ABSENT
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.workflows.loader import read_workflows
from agentmap_asgi.workflows.rows import stem_of


def test_rows_become_workflows_in_their_order() -> None:
    """Rows of one workflow may be scattered; the first is its entry."""
    loaded = load("GraphName,Node,Edge\nG,B,A\nH,X,\nG,A,\n")
    assert [(w.name, w.entry, list(w.nodes)) for w in loaded.workflows] == [("G", "B", ["B", "A"]), ("H", "X", ["X"])]
    assert loaded.findings == ()
    assert [w.graph_id for w in loaded.workflows] == ["flows::G", "flows::H"]
    assert [n.row for n in loaded.workflows[0].nodes.values()] == [2, 4]


def test_a_file_without_graphname_is_one_workflow() -> None:
    """It is named by the file's stem."""
    (found,) = load("Node,Edge\nA,B\nB,\n", "deep/order.v2.csv").workflows
    assert (found.name, found.stem, found.graph_id) == (
        "deep/order.v2",
        "deep/order.v2",
        "deep/order.v2::deep/order.v2",
    )


@pytest.mark.parametrize(
    ("file", "stem"), [("a.csv", "a"), ("x/b.c.CSV", "x/b.c"), ("plain", "plain"), ("x.y/z", "x.y/z"), (".csv", ".csv")]
)
def test_stems(file: str, stem: str) -> None:
    """The name without its last suffix; folders stay."""
    assert stem_of(file) == stem


def test_an_empty_graphname_is_filled_down() -> None:
    """It takes the name of the row above, with one note for the workflow."""
    loaded = load("GraphName,Node,Edge\nG,A,B\n,B,C\n ,C,\n")
    assert list(loaded.workflows[0].nodes) == ["A", "B", "C"]
    assert [(p.code, p.severity, p.row, p.fix) for p in loaded.findings] == [("AM-N004", "info", 3, "G")]


def test_a_first_row_without_graphname_is_reported() -> None:
    """There is nothing to fill it from. Any workflow may lack the row, so none of the file can be started."""
    loaded = load("GraphName,Node\n,A\nG,B\n")
    assert [(p.code, p.row) for p in loaded.findings] == [("AM-N003", 2)]
    assert loaded.workflows[0].broken
    assert loaded.rows == (2, 1, 1, 0)


def test_a_row_without_a_node_is_reported_and_breaks_its_workflow() -> None:
    """Other workflows of the file are not concerned."""
    loaded = load("GraphName,Node,Edge\nG,A,\nG,,A\nH,X,\n")
    first, second = loaded.workflows
    assert [(p.code, p.row, p.column) for p in first.diagnostics] == [("AM-N001", 3, "B")]
    assert (first.broken, second.broken) == (True, False)


def test_a_row_with_neither_name_is_reported() -> None:
    """It belongs to the workflow above if to any."""
    loaded = load("GraphName,Node,Prompt\nG,A,\n,,lost\n")
    assert codes(loaded.workflows[0].diagnostics) == ["AM-N001"]
    assert codes(load("GraphName,Node,Prompt\n,,lost\n").diagnostics) == ["AM-N001"]


def test_two_rows_with_one_name_are_an_error_naming_both() -> None:
    """Names are case-sensitive, so `a` is another node; nothing else is reported for the same cause."""
    loaded = load("GraphName,Node,Edge\nG,A,a\nG,a,\nG,A,Z\n")
    (problem,) = loaded.findings
    assert (problem.code, problem.row) == ("AM-N002", 4)
    assert "Rows 2 and 4" in problem.message


@pytest.mark.parametrize("written", ["echo", "Echo", "EchoAgent", "echo_agent", " ECHO "])
def test_agent_types_match_in_any_form(written: str) -> None:
    """Case, underscores and the word Agent do not matter."""
    assert node("AgentType", written).agent_type == "echo"


def test_an_empty_agent_type_is_default() -> None:
    """The node has the agent `default`."""
    assert node("AgentType", "").agent_type == "default"


def test_an_unknown_agent_type_is_one_error_with_the_nearest_name() -> None:
    """The node keeps what was written, and what only it could lead to is not reported as unreachable."""
    loaded = load("GraphName,Node,AgentType\nG,A,brnching\nG,B,\n")
    (problem,) = loaded.findings
    assert (problem.code, problem.text, problem.fix, problem.column) == ("AM-A001", "brnching", "branching", "C")
    assert loaded.workflows[0].nodes["A"].agent_type == "brnching"


def test_every_use_of_a_bad_cell_is_reported() -> None:
    """Two rows with one unknown agent type are two diagnostics with their rows."""
    loaded = load("GraphName,Node,AgentType,Edge\nG,A,zzz,B\nG,B,zzz,\n")
    assert [(p.code, p.row) for p in loaded.findings] == [("AM-A001", 2), ("AM-A001", 3)]


def test_a_missing_service_is_found() -> None:
    """An agent whose service the context does not have is an error, unless services are not known."""
    data = b"GraphName,Node,AgentType\nG,A,lookup\n"
    assert codes(load(data)) == []
    (problem,) = read_workflows(data, "f.csv", registry=REGISTRY, services=frozenset()).findings
    assert problem.code == "AM-A002"
    assert "'database'" in problem.message
    assert read_workflows(data, "f.csv", registry=REGISTRY).findings == ()


def test_routing_functions_must_be_registered() -> None:
    """An unknown one is an error with the nearest name, unless functions are not known."""
    data = "GraphName,Node,Edge\nG,A,func:pikc(A|B)\nG,B,\n"
    (problem,) = load(data).findings
    assert (problem.code, problem.fix) == ("AM-R006", "pick")
    assert codes(load(data, functions=None)) == []


def test_names_are_normalised_on_both_sides() -> None:
    """A node and its mention match though one was written with typographic signs."""
    found = workflow("GraphName,Node,Edge\nG,A,Step–1\nG\u200b,Step-1\u00a0,\n")
    assert (list(found.nodes), found.diagnostics) == (["A", "Step-1"], ())


def test_names_that_cannot_be_written_elsewhere_warn() -> None:
    """`|` in a node name, `::` in a workflow name."""
    assert codes(load("GraphName,Node\nG,A|B\n")) == ["AM-N007"]
    assert codes(load("GraphName,Node\nG::H,A\nG::H,B\n").workflows[0].diagnostics)[0] == "AM-N007"


def test_unclean_rows_keep_their_workflow() -> None:
    """GraphName cells that a spreadsheet spoiled are reported at each row."""
    loaded = load("GraphName,Node,Edge\n2024-01-02,A,B\n2024-01-02,B,\n")
    assert codes(loaded) == ["AM-V001", "AM-V001"]
    assert len(loaded.workflows) == 1


def test_the_version_is_of_the_content() -> None:
    """Blank rows, comments, the order of columns, delimiters and encodings keep it; any cell of a node changes it."""
    base = workflow("GraphName,Node,Prompt,Edge\nG,A,hi,B\nG,B,,\n").version
    assert len(base) == 64
    same = [
        "Edge;Prompt;Node;GraphName\n\n# c\nB;hi;A;G\n;;B;G\n",
        "\ufeffgraph_name,step,Instructions,next,Owner\nG,A,hi,B,me\nG,B\n",
    ]
    assert {workflow(data).version for data in same} == {base}
    assert workflow("GraphName,Node,Prompt,Edge\nG,A,ho,B\nG,B,,\n").version != base


def test_prompts_come_from_the_prompts_folder(tmp_path: Path) -> None:
    """`prompt:name` and `file:name` are replaced by the file's text, and the version is of that text."""
    (tmp_path / "greet.txt").write_text("Hello {name}\n", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.md").write_text("Sub", encoding="utf-8")
    config = AgentMapConfig(prompts_path=str(tmp_path))
    data = "GraphName,Node,Prompt,Edge\nG,A,prompt:greet,B\nG,B,file:sub/x.md,C\nG,C,prompts: none,\n"
    loaded = load(data, config=config)
    assert [n.prompt for n in loaded.workflows[0].nodes.values()] == ["Hello {name}", "Sub", "prompts: none"]
    assert loaded.findings == ()
    assert loaded.prompts == {"prompt:greet": "Hello {name}", "file:sub/x.md": "Sub"}
    (tmp_path / "greet.txt").write_text("Bye", encoding="utf-8")
    assert load(data, config=config).workflows[0].version != loaded.workflows[0].version


@pytest.mark.parametrize(
    "name",
    ["missing", "../secret.txt", "/etc/passwd", "a/../../secret.txt", "link.txt", "big", "bad", "", "C:\\x", "."],
)
def test_prompts_come_from_nowhere_else(tmp_path: Path, name: str) -> None:
    """No traversal, no link out, no huge or undecodable file; the message holds no path of the server."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "big").write_bytes(b"x" * (1024 * 1024 + 1))
    (folder / "bad").write_bytes(b"\xff\xfe\xff")
    data = f"GraphName,Node,Prompt\nG,A,{cell('prompt:' + name)}\n"
    loaded = load(data, config=AgentMapConfig(prompts_path=str(folder)))
    assert codes(loaded) == ["AM-V004"]
    assert str(tmp_path) not in str(loaded.findings[0])


def test_prompts_need_a_folder() -> None:
    """Without `prompts_path` a reference is an error."""
    assert codes(load("GraphName,Node,Prompt\nG,A,file:x\n")) == ["AM-V004"]


def test_diagnostics_are_plain_json() -> None:
    """Each field is there by name."""
    (problem,) = load("GraphName,Node,Edge\nG,A,b\nG,B,\n").findings
    assert problem.to_dict() == {
        "code": "AM-R001",
        "severity": "error",
        "message": "The node 'A' leads to 'b', and 'G' has no such node",
        "hint": "Did you mean 'B'?",
        "file": "flows.csv",
        "sheet": None,
        "row": 2,
        "line": 2,
        "column": "C",
        "column_name": "Edge",
        "node": "A",
        "graph": "G",
        "text": "b",
        "fix": "B",
        "cell_line": None,
        "cell_character": None,
    }
    assert str(problem).startswith("flows.csv, row 2, column Edge (C): AM-R001 ")


FILES_WITH_ERRORS = {
    "bytes that are no characters": b"GraphName,Node,Prompt\nG,A,h\x81llo\nH,A,x\n",
    "bytes that are no characters in UTF-16": "GraphName,Node\nG,Aby\n".encode("utf-16").replace(
        b"b\0y\0", b"\x00\xd8y\0"
    ),
    "a first row without a workflow": b"GraphName,Node\n,A\nG,B\n",
    "a first row without any name": b"GraphName,Node,Prompt\n,,x\nG,B,\n",
    "a surplus cell in a first row": b"GraphName,Node\n,,x\nG,B\n",
    "an open quote": b'GraphName,Node,Prompt\nG,A,x\nH,B,"open\n',
    "a later row without a node": b"GraphName,Node\nG,A\nG,\nH,A\n",
    "a surplus cell": b"GraphName,Node\nG,A\nH,B,x\n",
    "an unknown target": b"GraphName,Node,Edge\nG,A,Gone\nH,A,\n",
    "a prompt that is not there": b"GraphName,Node,Prompt\nG,A,prompt:gone\nH,A,\n",
    "a spreadsheet's error": b"GraphName,Node,Edge\nG,A,#REF!\nH,A,\n",
}


def test_an_error_of_the_file_hides_no_other() -> None:
    """The graph is looked at nevertheless when no rows are missing."""
    loaded = load(b"GraphName,Node,Edge,Prompt\nG,A,Gone,h\x81llo\nH,A,,\n")
    assert codes(loaded) == ["AM-E003", "AM-R001"]
    assert [w.broken for w in loaded.workflows] == [True, True]


@pytest.mark.parametrize("data", FILES_WITH_ERRORS.values(), ids=FILES_WITH_ERRORS)
def test_every_error_breaks_a_workflow(data: bytes) -> None:
    """The one it belongs to, or all of the file when that cannot be told; only the others can be started."""
    loaded = load(data)
    errors = [problem for problem in loaded.findings if problem.severity == "error"]
    assert errors
    for problem in errors:
        concerned = [w for w in loaded.workflows if problem.graph in (None, w.name)]
        assert concerned == [w for w in loaded.workflows if w.broken]


@pytest.mark.parametrize(("code", "word"), [("VectorReader", "'vector_reader'"), ("blob_writer", "'blob_writer'")])
def test_agents_that_agentmap_has_are_told_from_unknown_ones(code: str, word: str) -> None:
    """Nothing else is suggested in their place; an own agent of the name may be given."""
    (problem,) = load(f"GraphName,Node,AgentType\nG,A,{code}\n").findings
    assert (problem.code, problem.severity, problem.fix) == ("AM-A001", "error", None)
    assert "known to AgentMap and not available" in problem.message
    assert word in problem.hint
    assert BUILTINS.extended(dict.fromkeys(ABSENT.values(), print)).find(code) is not None
