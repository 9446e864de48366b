"""Whatever is in a file, reading it gives workflows and diagnostics, and no row is lost."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from sheets import REGISTRY, load

from agentmap_asgi.workflows.checks import input_schema
from agentmap_asgi.workflows.columns import COLUMNS
from agentmap_asgi.workflows.drawing import to_dict, to_dot, to_mermaid
from agentmap_asgi.workflows.loader import Loaded
from agentmap_asgi.workflows.paths import check_paths

NAMES = ["A", "B", "C", "Ask", "1", "end", "null", "#x", "a|b", "Ä", "“A”", "2024-01-01", "#REF!", ""]
CELLS = st.one_of(
    st.sampled_from([*NAMES, "A|B", "func:pick(A|B)", "func:pick", "func:no", "a:p|b", "branching", "switch", "graph"]),
    st.sampled_from(["orchestrator", "lookup", "{}", '{"when": "a > 1"}', "{workflow=::G}", "{'a': 1", '{"retry": 2}']),
    st.sampled_from(["3", "30s", "prompt:x", '{"cases": {"x": "A"}, "field": "k"}', "last_action_success", "\ufeff"]),
    st.text(max_size=12),
)


def check(loaded: Loaded) -> None:
    """What holds for every file."""
    rows = loaded.rows
    assert rows.total == rows.nodes + rows.reported + rows.skipped
    assert rows.nodes == sum(len(workflow.nodes) for workflow in loaded.workflows)
    named = {problem.row for problem in loaded.findings}
    taken = {node.row for workflow in loaded.workflows for node in workflow.nodes.values()}
    assert len(named - taken) >= rows.reported
    assert len(taken) == rows.nodes
    for workflow in loaded.workflows:
        agents = {n: a for n, node in workflow.nodes.items() if (a := REGISTRY.find(node.agent_type)) is not None}
        assert workflow.nodes or workflow.broken
        assert input_schema(workflow, agents)["type"] == "object"
        check_paths(workflow, REGISTRY)
        drawn = to_dict(workflow, REGISTRY)
        to_dot(drawn)
        to_mermaid(drawn)
    for problem in loaded.findings:
        assert problem.message
        assert problem.file == "flows.csv"
        str(problem)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    """Workflows or diagnostics, and never another exception."""
    check(load(data))


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))
def test_any_bytes_after_a_header_are_read(data: bytes, encoding: str) -> None:
    """The same with a good first line."""
    check(load("GraphName,Node,AgentType,Prompt,Edge,Context\n".encode(encoding) + data))


@st.composite
def sheets(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """A header and rows that look like a workflow file, with anything in their cells."""
    others = draw(st.lists(st.sampled_from([column.name for column in COLUMNS[2:]]), max_size=8, unique=True))
    header = ["GraphName", "Node", *others]
    cells = st.lists(CELLS, min_size=0, max_size=len(header) + 1)
    names = st.tuples(st.sampled_from(["G", "H", "", "health"]), st.sampled_from(NAMES))
    rows = draw(st.lists(st.builds(lambda two, more: [*two, *more], names, cells), max_size=12))
    return header, rows


def written(header: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows([header, *rows])
    return out.getvalue()


@settings(max_examples=300, deadline=None)
@given(sheets(), st.sampled_from([",", ";", "\t", "|"]))
def test_no_row_of_a_sheet_is_lost(sheet: tuple[list[str], list[list[str]]], delimiter: str) -> None:
    """Each row becomes a node, is reported by its number, or was blank or a comment."""
    header, rows = sheet
    text = written(header, rows, delimiter)
    if "\0" in text:
        assert not load(text.encode("utf-8", "replace")).workflows
        return
    loaded = load(text.encode("utf-8", "replace"))
    check(loaded)
    assert loaded.rows.total == len(list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))) - 1


@settings(max_examples=200, deadline=None)
@given(sheets(), st.data())
def test_a_damaged_sheet_is_read(sheet: tuple[list[str], list[list[str]]], data: st.DataObject) -> None:
    """Bytes cut out, doubled or changed anywhere."""
    content = written(*sheet).encode("utf-8", "replace")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        end = min(len(content), at + data.draw(st.integers(0, 5)))
        content = content[:at] + data.draw(st.binary(max_size=3)) + content[end:]
    check(load(content))


@settings(deadline=None)
@given(sheets())
def test_reading_twice_gives_the_same(sheet: tuple[list[str], list[list[str]]]) -> None:
    """The result depends on the bytes alone."""
    content = written(*sheet).encode("utf-8", "replace")
    first, second = load(content), load(content)
    assert first.findings == second.findings
    assert [w.version for w in first.workflows] == [w.version for w in second.workflows]
