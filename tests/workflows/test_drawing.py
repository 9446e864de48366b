"""Pictures of a workflow as text."""

from __future__ import annotations

import json
import re

import pytest
from sheets import REGISTRY, cell, workflow

from agentmap_asgi.workflows.drawing import to_dict, to_dot, to_mermaid

FLOW = workflow(
    "GraphName,Node,AgentType,Edge,Success_Next,Failure_Next,Context\n"
    "G,Start,,Check|end,,,\n"
    "G,Check,branching,,Pick,Start,{when=x}\n"
    'G,Pick,switch,,,,"{""field"": ""k"", ""cases"": {""a"": ""end"", ""b"": ""end""}, ""default"": ""Start""}"\n'
    "G,end,echo,func:pick(Start),,,\n"
)


def test_edges_are_labelled_by_kind() -> None:
    """Edge, success, failure, function, and the cases that an agent chooses by itself."""
    found = to_dict(FLOW, REGISTRY)
    assert [(e["source"], e["target"], e["kind"], e["label"]) for e in found["edges"]] == [
        ("Start", "Check", "edge", ""),
        ("Start", "end", "edge", ""),
        ("Check", "Pick", "success", "success"),
        ("Check", "Start", "failure", "failure"),
        ("Pick", "end", "case", "a, b"),
        ("Pick", "Start", "case", "default"),
        ("end", "Start", "function", "func:pick"),
    ]
    assert [n["id"] for n in found["nodes"]] == ["Start", "Check", "Pick", "end"]
    assert [n["entry"] for n in found["nodes"]] == [True, False, False, False]
    assert json.loads(json.dumps(found)) == found


def test_mermaid_names_nodes_by_number() -> None:
    """A node called `end` stands only in a label, where it is no command."""
    text = to_mermaid(to_dict(FLOW, REGISTRY))
    assert text.startswith('flowchart TD\n    n0(["Start"])\n    n1["Check<br/>branching"]\n')
    assert 'n1 -->|"success"| n2' in text
    assert 'n1 -.->|"failure"| n0' in text
    assert 'n2 -->|"a#44; b"| n3' in text


def test_dot_is_quoted() -> None:
    """Nodes by number, labels in quotes."""
    text = to_dot(to_dict(FLOW, REGISTRY))
    assert text.startswith('digraph "G" {\n')
    assert 'n0 [label="Start", style=rounded];' in text
    assert 'n1 [label="Check\\nbranching"];' in text
    assert 'n1 -> n0 [label="failure", style=dashed];' in text


@pytest.mark.parametrize(
    "name",
    [
        'say "hi"',
        "a]b[c",
        "x(y)",
        "<b>bold</b>",
        "`code`",
        "1. list",
        "a;b",
        "#quot;",
        "back\\",
        "%%c",
        "two\nlines",
        "名",
    ],
)
def test_no_name_breaks_out_of_its_label(name: str) -> None:
    """Quotes, brackets, markup, entities and line breaks are shown and have no effect."""
    found = workflow(f"GraphName,Node\nG,{cell(name)}\n")
    (line,) = [line for line in to_mermaid(to_dict(found)).splitlines() if line.startswith("    n0")]
    label = re.fullmatch(r'    n0\(\["([^"<>`\[\]()]*)"\]\)', line)
    assert label is not None
    shown = re.sub(r"#(\d+);", lambda entity: chr(int(entity[1])), label[1])
    assert shown == name.replace("\n", " ")
    (line,) = [line for line in to_dot(to_dict(found)).splitlines() if line.startswith("    n0")]
    assert re.fullmatch(r'    n0 \[label="(?:[^"\\]|\\.)*", style=rounded\];', line)


def test_missing_targets_and_open_functions_are_shown() -> None:
    """A broken workflow can be drawn; a function that declares nothing is named in its node."""
    found = workflow("GraphName,Node,Edge,Success_Next\nG,A,Nowhere,func:pick\n")
    nodes = to_dict(found)["nodes"]
    assert nodes[0]["routes_anywhere"] == ["func:pick"]
    assert nodes[1] == {"id": "Nowhere", "missing": True}
    assert 'n1["Nowhere?"]:::missing' in to_mermaid(to_dict(found))
    assert 'n1 [label="Nowhere?", style=dashed]' in to_dot(to_dict(found))
    assert "func#58;pick #8594; any" in to_mermaid(to_dict(found))


def test_conditions_of_a_switch_are_labels() -> None:
    """The list form shows its `when`."""
    found = workflow(
        'GraphName,Node,AgentType,Context\nG,A,switch,"{""cases"": [{""when"": ""x > 1"", ""to"": ""B""}]}"\nG,B\n'
    )
    assert [e["label"] for e in to_dict(found, REGISTRY)["edges"]] == ["x > 1"]


def test_the_way_of_a_wait_without_an_answer_is_labelled() -> None:
    """It is taken when nobody answers in time, and not otherwise."""
    found = workflow('GraphName,Node,AgentType,Success_Next,Context\nG,A,human,B,"{""on_timeout"": ""C""}"\nG,B\nG,C\n')
    edges = [(e["target"], e["kind"], e["label"]) for e in to_dict(found, REGISTRY)["edges"]]
    assert edges == [("B", "success", "success"), ("C", "case", "timeout")]


def test_drawings_are_bounded() -> None:
    """Agents that may choose any of very many nodes are not drawn with an edge to each."""
    rows = "".join(f"G,N{n},orchestrator,request\n" for n in range(200))
    found = to_dict(workflow("GraphName,Node,AgentType,Input_Fields\n" + rows), REGISTRY)
    assert len(found["edges"]) == 25 * 199
    assert found["nodes"][-1]["routes_anywhere"] == ["orchestrator"]
