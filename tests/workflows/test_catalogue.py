"""Finding workflows by name, and reading them again."""

from __future__ import annotations

from pathlib import Path

import pytest
from sheets import REGISTRY, codes

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.errors import AmbiguousWorkflow, ConfigError, UnknownWorkflow
from agentmap_asgi.workflows.catalogue import Catalogue

ROWS = "GraphName,Node,Edge\n{},A,B\n{},B,\n"


def catalogue(source: Path, prompts: Path | None = None) -> Catalogue:
    config = AgentMapConfig(prompts_path=None if prompts is None else str(prompts))
    found = Catalogue(source, registry=REGISTRY, config=config)
    found.load()
    return found


def write(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(ROWS.format(name, name) for name in names[:1]), encoding="utf-8")
    for name in names[1:]:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{name},A,B\n{name},B,\n")
    return path


def test_a_folder_is_read_recursively_in_a_stable_order(tmp_path: Path) -> None:
    """Only visible *.csv files count; names are relative to the folder."""
    write(tmp_path / "b.csv", "Two")
    write(tmp_path / "a.CSV", "One")
    write(tmp_path / "sub" / "c.csv", "Three", "Four")
    write(tmp_path / ".hidden.csv", "No")
    write(tmp_path / ".git" / "x.csv", "No")
    write(tmp_path / "notes.txt", "No")
    found = catalogue(tmp_path)
    assert [w.graph_id for w in found.workflows] == ["a::One", "b::Two", "sub/c::Three", "sub/c::Four"]
    assert list(found.files) == ["a.CSV", "b.csv", "sub/c.csv"]
    assert found.findings == ()


def test_one_file_is_a_source(tmp_path: Path) -> None:
    """Its workflows carry the file's own name."""
    found = catalogue(write(tmp_path / "flows.csv", "One"))
    assert [w.file for w in found.workflows] == ["flows.csv"]


@pytest.mark.parametrize(
    "name",
    [
        "Three",
        "sub/c::Three",
        "sub/c/Three",
        "sub/c.csv::Three",
        "sub/c.csv/Three",
        "c::Three",
        "c/Three",
        "c.csv::Three",
    ],
)
def test_a_workflow_has_several_names(tmp_path: Path, name: str) -> None:
    """`Graph`, `file::Graph`, `file/Graph`; the file may be a bare stem and have its suffix."""
    write(tmp_path / "b.csv", "Two")
    write(tmp_path / "sub" / "c.csv", "Three")
    assert catalogue(tmp_path).find(name).graph_id == "sub/c::Three"


def test_a_name_in_several_files_is_ambiguous(tmp_path: Path) -> None:
    """The error lists the full names, and each of these works."""
    write(tmp_path / "a.csv", "Same")
    write(tmp_path / "sub" / "a.csv", "Same")
    found = catalogue(tmp_path)
    with pytest.raises(AmbiguousWorkflow) as caught:
        found.find("Same")
    assert caught.value.candidates == ("a::Same", "sub/a::Same")
    assert found.find("a::Same").file == "a.csv", "a full path counts before a bare stem"
    assert found.find("sub/a::Same").file == "sub/a.csv"


@pytest.mark.parametrize("name", ["Greetign", "", "../a", "x" * 100_000])
def test_an_unknown_name_is_an_error_with_close_ones(tmp_path: Path, name: str) -> None:
    """Names are keys, never paths."""
    found = catalogue(write(tmp_path / "a.csv", "Greeting"))
    with pytest.raises(UnknownWorkflow) as caught:
        found.find(name)
    assert ("Greeting" in caught.value.close) == (name == "Greetign")


def test_a_missing_source_says_what_to_do(tmp_path: Path) -> None:
    """When it is loaded, not when it is made."""
    found = Catalogue(tmp_path / "nowhere", registry=REGISTRY)
    assert found.workflows == ()
    with pytest.raises(ConfigError, match="create it"):
        found.load()


def test_links_out_of_the_folder_are_skipped_with_a_diagnostic(tmp_path: Path) -> None:
    """Links inside it are fine."""
    write(tmp_path / "outside" / "x.csv", "Out")
    write(tmp_path / "in" / "a.csv", "In")
    (tmp_path / "in" / "b.csv").symlink_to(tmp_path / "outside" / "x.csv")
    (tmp_path / "in" / "d").symlink_to(tmp_path / "outside")
    (tmp_path / "in" / "e.csv").symlink_to(tmp_path / "in" / "a.csv")
    found = catalogue(tmp_path / "in")
    assert [w.graph_id for w in found.workflows] == ["a::In", "e::In"]
    assert {name: codes(problems) for name, problems in found.files.items()} == {
        "a.csv": [],
        "b.csv": ["AM-E006"],
        "d": ["AM-E006"],
        "e.csv": [],
    }


def test_a_reload_keeps_what_has_not_changed(tmp_path: Path) -> None:
    """Workflows whose nodes say the same stay the same objects, whatever else their file says now."""
    write(tmp_path / "a.csv", "One")
    changing = write(tmp_path / "b.csv", "Two")
    found = catalogue(tmp_path)
    one, two = found.workflows
    write(changing, "Two", "Three")
    found.load()
    assert found.workflows[0] is one
    assert found.find("Two") is two
    assert found.find("Three").nodes.keys() == {"A", "B"}
    changing.unlink()
    found.load()
    assert found.workflows == (one,)


def test_a_changed_prompt_is_a_change(tmp_path: Path) -> None:
    """A file is read again when a prompt it refers to has another text."""
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "p.txt").write_text("one", encoding="utf-8")
    source = tmp_path / "a.csv"
    source.write_text("GraphName,Node,Prompt\nG,A,prompt:p\n", encoding="utf-8")
    found = catalogue(source, prompts)
    before = found.find("G")
    found.load()
    assert found.find("G") is before
    (prompts / "p.txt").write_text("two", encoding="utf-8")
    found.load()
    assert found.find("G").nodes["A"].prompt == "two"


def test_broken_workflows_are_listed(tmp_path: Path) -> None:
    """They are found like the others; files without any workflow keep their diagnostics."""
    (tmp_path / "a.csv").write_text("GraphName,Node,Edge\nBad,A,Z\nGood,A,\n", encoding="utf-8")
    (tmp_path / "b.csv").write_bytes(b"\0")
    found = catalogue(tmp_path)
    assert [(w.name, w.broken) for w in found.workflows] == [("Bad", True), ("Good", False)]
    assert codes(found.files["b.csv"]) == ["AM-E001"]
    assert codes(found.findings) == ["AM-R001", "AM-E001"]


def test_a_file_over_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    """It has a diagnostic."""
    write(tmp_path / "a.csv", "One")
    found = Catalogue(tmp_path, registry=REGISTRY, config=AgentMapConfig(max_csv_bytes=5))
    found.load()
    assert codes(found.findings) == ["AM-E004"]


def test_a_link_to_nothing_has_a_diagnostic(tmp_path: Path) -> None:
    """It does not keep the other files from being read."""
    write(tmp_path / "a.csv", "One")
    (tmp_path / "b.csv").symlink_to(tmp_path / "gone.csv")
    found = catalogue(tmp_path)
    assert [w.name for w in found.workflows] == ["One"]
    assert codes(found.files["b.csv"]) == ["AM-E005"]
