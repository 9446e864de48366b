"""Files that mean harm: whatever they hold, looking at them ends soon and the answer stays small.

Without the bounds each of these takes minutes; the limit that every test has then ends it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sheets import REGISTRY, codes, load

from agentmap_asgi import AgentMapConfig, AgentMapService
from agentmap_asgi.services.agentmap import MOST_SHOWN
from agentmap_asgi.workflows.checks import Report
from agentmap_asgi.workflows.graph import Effort, flow, loops
from agentmap_asgi.workflows.paths import check_paths, paths_of
from agentmap_asgi.workflows.text import Guess

HEADER = "GraphName,Node,AgentType,Edge,Input_Fields,Output_Field,Context\n"


def complete(size: int, graph: str = "G") -> str:
    """Rows of a workflow in which every node leads to every other one."""
    names = [f"N{number}" for number in range(size)]
    return "".join(
        f"{graph},{name},,{'|'.join(other for other in names if other != name)},f{at % 7},f{at % 11},\n"
        for at, name in enumerate(names)
    )


@pytest.fixture
def service(tmp_path: Path) -> AgentMapService:
    (tmp_path / "flows.csv").write_text("GraphName,Node\nG,A\n")
    return AgentMapService(AgentMapConfig(csv_path=str(tmp_path)))


@pytest.mark.parametrize("length", [12, 90])
def test_ten_thousand_unknown_targets(service: AgentMapService, length: int) -> None:
    """The answer has the first thousand and counts the rest; nearest names are looked for until the effort is spent."""
    name = "n" * (length - 5)
    rows = "".join(f"G,{name}{number:05},,{name}x{number:05},,,\n" for number in range(10_000))
    found = service.validate_workflows((HEADER + rows).encode())
    assert (found["valid"], len(found["diagnostics"]), found["omitted"]) == (False, MOST_SHOWN, 10_000 - MOST_SHOWN)
    assert found["workflows"][0]["problems"]["error"] == 10_000
    assert len(found["workflows"][0]["diagnostics"]) == MOST_SHOWN
    assert [one["row"] for one in found["diagnostics"]] == list(range(2, MOST_SHOWN + 2))


def test_ten_thousand_dates_as_targets() -> None:
    """Each is one error."""
    rows = "".join(f"G,N{number},,{number % 28 + 1}-Mar-{number % 100:02},,,\n" for number in range(10_000))
    assert Counter(codes(load(HEADER + rows))) == {"AM-R001": 10_000}


def test_errors_are_shown_before_notes(service: AgentMapService) -> None:
    """However far down the file they stand."""
    rows = "".join(f"G{number},N,,,,None,\n" for number in range(1_200))
    found = service.validate_workflows((HEADER + rows + "H,A,nonsense,,,,\n").encode())
    assert (len(found["diagnostics"]), found["omitted"]) == (MOST_SHOWN, 1_201 - MOST_SHOWN)
    assert "AM-A001" in {one["code"] for one in found["diagnostics"]}


@pytest.mark.parametrize("size", [100, 200, 300, 1_000])
def test_every_node_leads_to_every_other(service: AgentMapService, size: int) -> None:
    """What is too much work is left out, and a note says so."""
    found = service.validate_workflows((HEADER + complete(size)).encode())
    seen = Counter(one["code"] for one in found["diagnostics"])
    assert found["valid"] is True
    assert (seen["AM-R012"] > 0) is (size > 100)


def test_the_bounds_hold_for_all_workflows_of_a_file_together(service: AgentMapService) -> None:
    """A hundred workflows that are each small enough are not."""
    rows = "".join(complete(100, f"G{number}") for number in range(100))
    found = service.validate_workflows((HEADER + rows).encode())
    assert Counter(one["code"] for one in found["diagnostics"])["AM-R012"] > 90


def test_orchestrators_that_may_reach_all_nodes() -> None:
    """Past the bound they count as leading anywhere; a switch names its nodes and is always looked at."""
    rows = "".join(f"G,N{number},orchestrator,,request,,\n" for number in range(2_000))
    assert set(codes(load(HEADER + rows))) <= {"AM-R012"}
    switches = "".join(f'G,N{n},switch,,x,,"{{""cases"": {{""a"": ""Gone{n}""}}}}"\n' for n in range(3_000))
    assert Counter(codes(load(HEADER + switches)))["AM-R001"] == 3_000


def test_a_chain_of_unreachable_loops_is_one_finding() -> None:
    """It is reported where it begins, whatever the order of the rows."""
    rows = "".join(f"G,L{n},,M{n},,,\nG,M{n},,L{n}{f'|L{n - 1}' if n else ''},,,\n" for n in range(4_000))
    found = load(HEADER + "G,Start,,,,,\n" + rows).findings
    assert [(one.code, one.text) for one in found if one.code == "AM-R002"] == [("AM-R002", "L3999")]


def test_many_fields_are_too_many_paths() -> None:
    """Nodes times fields count, too."""
    fields = "|".join(f"w{number}" for number in range(300))
    rows = f"G,A,,{'|'.join(f'B{n}' for n in range(120))},,,\n" + "".join(f"G,B{n},,,,{fields},\n" for n in range(120))
    (workflow,) = load(HEADER + rows).workflows
    assert codes(check_paths(workflow, REGISTRY)) == ["AM-R012"]


def test_paths_share_one_effort() -> None:
    """Of many workflows the later ones are left out, each with its note."""
    loaded = load(HEADER + "".join(complete(100, f"G{number}") for number in range(30)))
    found = paths_of(loaded.workflows, REGISTRY)
    assert {one.graph for one in found if one.code == "AM-R012"} >= {"G28", "G29"}
    assert "G0" not in {one.graph for one in found if one.code == "AM-R012"}


def test_loops_say_whether_they_are_all() -> None:
    """Without a bound they are."""
    (workflow,) = load(HEADER + complete(20)).workflows
    targets = flow(workflow.nodes, {}).targets
    assert (len(loops(targets, "N0")), loops(targets, "N0").complete) == (19, True)
    effort = Effort()
    effort.loops = 1_000
    few = loops(targets, "N0", effort=effort)
    assert (0 < len(few) < 19, few.complete) == (True, False)


def test_guessing_ends_when_the_effort_is_spent() -> None:
    """Long words cost more than short ones."""
    guess = Guess(work=100)
    assert guess("abcd", ["abce", "zzzz"]) == "abce"
    assert guess("abcd" * 10, ["abce" * 10]) is None
    assert guess("abcd", ["abce"]) is None
    assert Report([], "f.csv", "G").guess("abcd", ["abce"]) == "abce"
