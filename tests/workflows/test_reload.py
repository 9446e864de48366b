"""Reading workflow files again while they are edited."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sheets import REGISTRY, codes

from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.workflows.catalogue import Catalogue, Changes

GOOD = "GraphName,Node,Edge,Prompt\nOne,A,B,first\nOne,B,,\nTwo,A,,\n"
BETTER = GOOD.replace("first", "second")
BROKEN = GOOD.replace("One,A,B", "One,A,Nowhere")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "flows" / "a.csv"
    found.parent.mkdir()
    found.write_text(GOOD, encoding="utf-8")
    return found


@pytest.fixture
def found(path: Path) -> Catalogue:
    made = Catalogue(path.parent, registry=REGISTRY)
    made.load()
    return made


def reloaded(catalogue: Catalogue) -> Changes:
    return catalogue.reload(settle=0)


def between_looks(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> list[float]:
    """Run a step in each pause between two looks, in place of the pause. Gives the pauses. Other threads sleep."""
    left = iter(steps)
    pauses: list[float] = []
    looking, sleep = threading.get_ident(), time.sleep

    def pause(seconds: float) -> None:
        if threading.get_ident() != looking:
            sleep(seconds)
            return
        pauses.append(seconds)
        step = next(left, None)
        if step is not None:
            step()

    monkeypatch.setattr("agentmap_asgi.workflows.catalogue.time.sleep", pause)
    return pauses


def test_what_has_changed_is_swapped(found: Catalogue, path: Path) -> None:
    """Workflow by workflow: the others stay the same objects."""
    one, two = found.workflows
    path.write_text(BETTER, encoding="utf-8")
    assert reloaded(found) == Changes(changed=("a::One",), unchanged=1)
    assert found.find("One") is not one
    assert found.find("One").nodes["A"].prompt == "second"
    assert found.find("Two") is two
    assert not found.serves(one)


def test_nothing_is_changed_by_a_touch(found: Catalogue, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a second look taken."""
    pauses = between_looks(monkeypatch)
    before = found.workflows
    os.utime(path, (1, 1))
    assert found.reload() == Changes(unchanged=2)
    assert [new is old for new, old in zip(found.workflows, before, strict=True)] == [True, True]
    assert pauses == []


def test_cosmetic_changes_change_nothing(found: Catalogue, path: Path) -> None:
    """Blank rows, notes, another delimiter, unknown columns: the nodes say the same, so the objects are the same."""
    before = found.workflows
    text = "# a note\n" + GOOD.replace("\n", ";x\n").replace(",", ";").replace("Prompt;x", "Prompt;Colour", 1)
    path.write_text(text, encoding="utf-16")
    assert reloaded(found).changed == ()
    assert [new is old for new, old in zip(found.workflows, before, strict=True)] == [True, True]
    assert sorted(codes(found.findings)) == ["AM-D006", "AM-E007", "AM-H002"], "what is said of the file is new"


def test_a_broken_edit_leaves_the_last_good_version(found: Catalogue, path: Path) -> None:
    """It is served and called stale, with what is wrong; the next good version takes its place."""
    one = found.find("One")
    path.write_text(BROKEN, encoding="utf-8")
    changes = reloaded(found)
    assert (changes.stale, codes(changes.diagnostics)) == (("a::One",), ["AM-R001"])
    assert found.find("One") is one
    assert found.stale(one)
    assert not one.broken
    assert codes(found.diagnostics(one)) == ["AM-R001"]
    assert reloaded(found).stale == ("a::One",), "until it is mended"
    path.write_text(BETTER, encoding="utf-8")
    assert reloaded(found) == Changes(changed=("a::One",), unchanged=1)
    assert found.find("One").nodes["A"].prompt == "second"


def test_an_edit_that_is_taken_back_leaves_the_object(found: Catalogue, path: Path) -> None:
    """Broken, and then as it was before: nothing is stale any more, and nothing has changed."""
    one = found.find("One")
    for text, stale in ((BROKEN, True), (GOOD, False)):
        path.write_text(text, encoding="utf-8")
        assert reloaded(found).changed == ()
        assert found.stale(one) is stale
    assert found.find("One") is one
    assert found.diagnostics(one) == ()


@pytest.mark.parametrize("text", ["", "\0", "Hello\nx\n", 'GraphName,Node\nOne,A\nTwo,"B\n'])
def test_a_file_that_cannot_be_read_takes_nothing_away(found: Catalogue, path: Path, text: str) -> None:
    """Empty as after a truncation, not text, without its header, inside a quote: its workflows are stale."""
    before = found.workflows
    path.write_text(text, encoding="utf-8")
    changes = reloaded(found)
    assert (changes.removed, changes.unchanged) == ((), 2)
    assert "a::Two" in changes.stale
    assert [found.find(name) for name in ("One", "Two")] == list(before)
    assert found.diagnostics(before[1])


def test_a_workflow_that_was_broken_from_the_beginning_is_replaced(tmp_path: Path) -> None:
    """There is no version to keep."""
    path = tmp_path / "a.csv"
    path.write_text(BROKEN, encoding="utf-8")
    found = Catalogue(path, registry=REGISTRY)
    found.load()
    assert found.find("One").broken
    assert not found.stale(found.find("One"))
    path.write_text(GOOD, encoding="utf-8")
    assert reloaded(found).changed == ("a::One",)
    assert not found.find("One").broken


def test_files_and_workflows_come_and_go(found: Catalogue, path: Path) -> None:
    """A removed file removes its workflows, and so does a file without them."""
    other = path.with_name("b.csv")
    other.write_text("GraphName,Node\nThree,A\n", encoding="utf-8")
    assert reloaded(found) == Changes(added=("b::Three",), unchanged=2)
    other.unlink()
    path.write_text(GOOD.replace("Two,A,,\n", ""), encoding="utf-8")
    assert reloaded(found) == Changes(removed=("a::Two", "b::Three"), unchanged=1)
    assert [workflow.graph_id for workflow in found.workflows] == ["a::One"]


@pytest.mark.parametrize("single", [True, False])
def test_a_source_that_is_gone_takes_nothing_away(path: Path, single: bool) -> None:
    """A folder that is being replaced as a whole; its workflows are stale until it is there again."""
    found = Catalogue(path if single else path.parent, registry=REGISTRY)
    found.load()
    before = found.workflows
    path.parent.rename(path.parent.with_name("elsewhere"))
    for _ in range(2):
        changes = reloaded(found)
        assert (changes.unchanged, changes.stale) == (2, ("a::One", "a::Two"))
        assert codes(changes.diagnostics) == ["AM-E005"]
    path.parent.with_name("elsewhere").rename(path.parent)
    assert reloaded(found) == Changes(unchanged=2)
    assert found.workflows == before


def test_an_editor_that_truncates_and_then_writes(
    found: Catalogue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty file is not taken, and what stands there at the second look is left for the next time."""
    path.write_text("", encoding="utf-8")
    between_looks(monkeypatch, lambda: path.write_text(BETTER, encoding="utf-8"))
    before = found.workflows
    assert found.reload() == Changes(unchanged=2, pending=("a.csv",))
    assert found.workflows == before
    assert found.reload().changed == ("a::One",)


def test_an_editor_that_writes_in_pieces(found: Catalogue, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file that would be right by itself is not taken, not even when the pause falls inside a row."""
    half = "GraphName,Node,Edge,Prompt\nOne,A,,sec"
    path.write_text(half, encoding="utf-8")
    pauses = between_looks(monkeypatch, lambda: None, lambda: path.write_text(BETTER, encoding="utf-8"))
    assert found.reload(0.1) == Changes(unchanged=2, pending=("a.csv",))
    assert pauses == [0.1, 0.2]
    assert found.reload().changed == ("a::One",)


def test_a_last_line_without_an_end_is_taken_after_a_third_look(
    found: Catalogue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some programs end files so."""
    path.write_text(BETTER.rstrip("\n"), encoding="utf-8")
    pauses = between_looks(monkeypatch)
    assert found.reload().changed == ("a::One",)
    assert len(pauses) == 2


def test_an_editor_that_renames(found: Catalogue, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is away for a moment, because a new one is about to take its name, is not removed."""
    path.rename(path.with_suffix(".bak"))
    between_looks(monkeypatch, lambda: path.write_text(BETTER, encoding="utf-8"))
    assert found.reload() == Changes(unchanged=2, pending=("a.csv",))
    assert found.reload().changed == ("a::One",)


def test_files_that_appear_between_two_looks_wait(
    found: Catalogue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have been seen once."""
    path.write_text(BETTER, encoding="utf-8")
    late = path.with_name("late.csv")
    between_looks(monkeypatch, lambda: late.write_text("GraphName,Node\nLate,A\n", encoding="utf-8"))
    assert found.reload() == Changes(changed=("a::One",), unchanged=1, pending=("late.csv",))
    assert found.reload().added == ("late::Late",)


def test_a_prompt_that_is_being_written_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts count as parts of the files that refer to them."""
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    prompt = prompts / "p.txt"
    prompt.write_text("one", encoding="utf-8")
    source = tmp_path / "a.csv"
    source.write_text("GraphName,Node,Prompt\nG,A,prompt:p\n", encoding="utf-8")
    found = Catalogue(source, registry=REGISTRY, config=AgentMapConfig(prompts_path=str(prompts)))
    found.load()
    prompt.write_text("tw", encoding="utf-8")
    between_looks(monkeypatch, lambda: prompt.write_text("two", encoding="utf-8"))
    assert found.reload().pending == ("a.csv",)
    assert found.find("G").nodes["A"].prompt == "one"
    assert found.reload().changed == ("a::G",)
    assert found.find("G").nodes["A"].prompt == "two"


def test_marks_tell_of_every_change(tmp_path: Path) -> None:
    """Of workflow files and prompts; a source that is gone has none."""
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "a.csv").write_text(GOOD, encoding="utf-8")
    found = Catalogue(flows, registry=REGISTRY, config=AgentMapConfig(prompts_path=str(prompts)))
    marks = [found.marks()]
    (flows / "a.csv").write_text(BETTER, encoding="utf-8")
    marks.append(found.marks())
    (prompts / "p.txt").write_text("text", encoding="utf-8")
    marks.append(found.marks())
    assert marks[-1] == found.marks()
    flows.rename(tmp_path / "gone")
    marks.append(found.marks())
    assert len({str(mark) for mark in marks}) == 4


def test_reloads_at_the_same_time_take_turns(found: Catalogue, path: Path) -> None:
    """One of them finds the change, the others find it done."""
    path.write_text(BETTER, encoding="utf-8")
    done: list[Changes] = []
    threads = [threading.Thread(target=lambda: done.append(reloaded(found))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(changes.changed) for changes in done) == [0] * 7 + [1]
