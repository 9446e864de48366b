"""The rows of a workflow, as its file has them."""

from __future__ import annotations

from pathlib import Path

from books import xlsx
from sheets import REGISTRY

from agentmap_asgi.workflows.catalogue import Catalogue

FLOWS = (
    "# a note\n\nGraphName,Node,AgentType,Prompt,Notes\n"
    'One,A,echo,"two\nlines",mine\nTwo,B,ecko,secret of Two,\nOne,C,ecko,,\n'
)


def catalogue(path: Path) -> Catalogue:
    made = Catalogue(path, registry=REGISTRY)
    made.load()
    return made


def test_rows_and_findings_share_their_numbers(tmp_path: Path) -> None:
    """Cells are as written, unknown columns too; rows of other workflows are left out."""
    path = tmp_path / "flows.csv"
    path.write_text(FLOWS)
    made = catalogue(path)
    found = made.rows(made.find("One"))
    assert [(one["letter"], one["name"]) for one in found["columns"]][3:] == [("D", "Prompt"), ("E", "Notes")]
    assert [(row["row"], row["node"], row["cells"][3]) for row in found["rows"]] == [
        (4, "A", "two\nlines"),
        (6, "C", ""),
    ]
    assert "secret of Two" not in str(found)
    (wrong,) = [one for one in found["diagnostics"] if one["severity"] == "error"]
    assert (wrong["row"], wrong["column"], wrong["text"]) == (6, "C", "ecko")
    assert found["changed"] is False


def test_a_file_that_has_changed_says_so(tmp_path: Path) -> None:
    """Its rows are those of now; one that is gone has none."""
    path = tmp_path / "flows.csv"
    path.write_text(FLOWS)
    made = catalogue(path)
    path.write_text("GraphName,Node\nOne,A\n" + '"')
    assert made.rows(made.find("One"))["changed"] is True
    path.write_bytes(b"\0")
    assert made.rows(made.find("One"))["rows"] == []
    assert catalogue(tmp_path).rows(made.find("One"))["columns"] == []


def test_a_workflow_is_found_in_its_sheet(tmp_path: Path) -> None:
    """Of a spreadsheet with several sheets it is the one whose rows hold the nodes."""
    head = ["GraphName", "Node", "Edge"]
    path = tmp_path / "flows.xlsx"
    path.write_bytes(xlsx({"First": [head, ["One", "A", "B"], ["One", "B", ""]], "Second": [head, ["Two", "X", ""]]}))
    made = catalogue(path)
    assert [row["cells"][1] for row in made.rows(made.find("One"))["rows"]] == ["A", "B"]
    assert [row["cells"][1] for row in made.rows(made.find("Two"))["rows"]] == ["X"]
