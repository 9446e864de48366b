"""What was observed on AgentMap 0.9.213, by its number, and what the same file does here.

Where the two differ on purpose the row says `instead of`: there is the observation, the test is what happens here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flows import Row, node, serving, visited

from agentmap_asgi.agents.registry import Call, Outcome

NUMBERED = (
    *("A01", "A02", "A03", "A04", "A05", "A07", "A10", "A11", "A13", "A14", "A15", "A16", "A19", "A20"),
    *("A21", "A22", "A23", "A24", "A25", "A26", "A27", "A28", "A29", "A30", "A31", "A32", "A33"),
    *("A34", "A35", "A36", "A37", "A38", "A39", "A40", "A41", "A42", "A43", "A44", "A46", "A47", "A48"),
    *("A51", "A52", "A53", "A54", "A55", "A56", "A57", "A58", "A59", "A60"),
)
"""The observations that the language is described by."""


class Fact(NamedTuple):
    number: str
    says: str
    rows: list[Row] | str
    state: dict[str, Any]
    result: dict[str, Any]
    """Fields of the final state; those that are ABSENT must not be there."""
    nodes: str = ""
    """The nodes that run, in order; empty: not looked at."""
    status: str = "completed"


ABSENT: Any = object()


async def show(call: Call) -> Any:
    """Its inputs, as it got them."""
    return call.inputs


async def options(call: Call) -> Any:
    return dict(call.options)


async def pair(call: Call) -> Any:
    return {"x": 1, "y": 2, "extra": 3}


async def scalar(call: Call) -> Any:
    return "scalar"


async def nothing(call: Call) -> Any:
    return None


async def updates(call: Call) -> Any:
    return {"state_updates": {"u": 1, "v": [2], "last_action_success": False}}


async def broken(call: Call) -> Any:
    raise ValueError(f"broken {call.node.name}")


class Positional:
    """As AgentMap's custom agents are: declared parameters, and a process method."""

    expected_params = ("left", "right")

    async def process(self, inputs: dict[str, Any]) -> Any:
        return inputs


async def said_no(call: Call) -> Any:
    return Outcome("no", success=False)


AGENTS = {
    "show": show,
    "options": options,
    "pair": pair,
    "scalar": scalar,
    "nothing": nothing,
    "updates": updates,
    "broken": broken,
    "positional": Positional,
    "no": said_no,
}

YES_NO = [node("Yes", prompt="yes", output="went"), node("No", prompt="no", output="went")]
FORK = [node("S", edge="A|B"), node("A", edge="J"), node("B", edge="J"), node("J")]
CHILD = [
    node("C1", prompt="{x}!", output="y", graph="Child"),
    node("C2", "failure", graph="Broken"),
]


def branching(context: Any = "", inputs: str = "v") -> list[Row]:
    return [node("B", "branching", inputs=inputs, output="said", ok="Yes", ko="No", context=context), *YES_NO]


def orchestrated(context: Any, second: str = "default") -> list[Row]:
    return [
        node("O", "orchestrator", inputs="request", output="chosen", context=context),
        node("Billing", prompt="b", output="went", context={"description": "invoices and refunds"}),
        node("Support", second, prompt="s", output="went", context={"keywords": "broken crash"}),
        node("Other", prompt="o", output="went"),
    ]


FACTS = [
    Fact("A01", "echo gives its one input", [node("A", "echo", inputs="a", output="o")], {"a": [1]}, {"o": [1]}),
    Fact(
        "A02",
        "echo gives several inputs as an object",
        [node("A", "echo", inputs="a|b", output="o")],
        {"a": 1, "b": "x"},
        {"o": {"a": 1, "b": "x"}},
    ),
    Fact("A03", "echo without inputs gives null", [node("A", "echo", output="o")], {"a": 1}, {"o": ABSENT}),
    Fact("A03", "without Input_Fields an agent gets {}", [node("A", "show", output="o")], {"a": 1}, {"o": {}}),
    Fact(
        "A04",
        "echo renders a Prompt that has fields",
        [node("A", "echo", prompt="Dear {a}", inputs="a", output="o")],
        {"a": "Ann"},
        {"o": "Dear Ann"},
    ),
    Fact(
        "A04",
        "echo does not use a Prompt without fields",
        [node("A", "echo", prompt="Dear", inputs="a", output="o")],
        {"a": "Ann"},
        {"o": "Ann"},
    ),
    Fact("A05", "unknown names stay", [node("A", prompt="{a} {z}", output="o")], {"a": 1}, {"o": "1 {z}"}),
    Fact("A07", "doubled braces are literal", [node("A", prompt="{{a}} {a}", output="o")], {"a": 1}, {"o": "{a} 1"}),
    Fact(
        "A10",
        "an empty AgentType is `default`: the rendered Prompt, instead of debugging text",
        [node("A", prompt="hello", output="o"), node("B", output="p")],
        {},
        {"o": "hello"},
    ),
    Fact(
        "A11",
        "words for nothing read as empty cells",
        "GraphName,Node,AgentType,Prompt,Input_Fields,Output_Field,Edge,Failure_Next\n"
        "Flow,A,None,hi,nan,o,B,NULL\nFlow,B,N/A,b,null,p,None,NA\n".replace("NULL", "null"),
        {},
        {"o": "hi", "p": "b"},
        "A B",
    ),
    Fact(
        "A13",
        "the entry is the first row",
        "GraphName,Node,Edge\nFlow,Z,M\nFlow,A,\nFlow,M,A\n",
        {},
        {},
        "Z M A",
    ),
    Fact(
        "A15",
        "Edge replaces Success_Next",
        [node("S", "success", edge="A", ok="B"), node("A"), node("B")],
        {},
        {},
        "S A",
    ),
    Fact(
        "A16",
        "rows of a workflow may be scattered",
        "GraphName,Node,Edge\nFlow,A,B\nElse,X,\nFlow,B,C\nElse2,Y,\nFlow,C,\n",
        {},
        {},
        "A B C",
    ),
    Fact(
        "A19",
        "rows that begin with # are skipped, also before the header",
        "# a comment, with commas\nGraphName,Node,Edge\n#Flow,X,A\nFlow,A,B\n\n  # more\nFlow,B,\n",
        {},
        {},
        "A B",
    ),
    Fact("A20", "short rows are padded", "GraphName,Node,Edge,Prompt\nFlow,A,B\nFlow,B\n", {}, {}, "A B"),
    Fact("A21", "success sets the flag", [node("S", "success", ok="Yes", ko="No"), *YES_NO], {}, {"went": "yes"}),
    Fact("A22", "failure clears the flag", [node("S", "failure", ok="Yes", ko="No"), *YES_NO], {}, {"went": "no"}),
    Fact(
        "A21",
        "success gives its Prompt rendered, or its inputs, instead of debugging text",
        [node("S", "success", prompt="done {a}", output="o", edge="T"), node("T", "success", inputs="a", output="p")],
        {"a": 1},
        {"o": "done 1", "p": 1},
    ),
    Fact(
        "A22",
        "failure gives its Prompt rendered, or its inputs, instead of debugging text",
        [node("S", "failure", prompt="no {a}", output="o", edge="T"), node("T", "failure", inputs="a", output="p")],
        {"a": 1},
        {"o": "no 1", "p": 1},
    ),
    Fact(
        "A23",
        "Edge replaces Failure_Next when an agent merely says no",
        [node("S", "failure", edge="Yes", ko="No"), *YES_NO],
        {},
        {"went": "yes"},
    ),
    *(
        Fact("A24", f"branching takes {value!r} as yes", branching(), {"v": value}, {"went": "yes", "said": True})
        for value in (True, 1, "true", "yes", "success", "succeed", "1", "t", "y")
    ),
    *(
        Fact("A25", f"branching takes {value!r} as no", branching(), {"v": value}, {"went": "no", "said": False})
        for value in (False, 0, "false", "no", "failure", "fail", "0", "f", "n")
    ),
    *(
        Fact("A26", f"branching looks at {value!r} in any case", branching(), {"v": value}, {"went": went})
        for value, went in (("TRUE", "yes"), (" Yes ", "yes"), ("NO", "no"), ("Fail", "no"))
    ),
    Fact(
        "A27",
        "success_field names the field, and success_values and failure_values the words",
        branching(
            {"success_field": "w", "success_values": ["go", "run"], "failure_values": "stop|wait", "default_result": 0}
        ),
        {"v": True, "w": "Wait"},
        {"went": "no"},
    ),
    Fact(
        "A27",
        "success_values replace the usual words",
        branching({"success_values": "go,run", "default_result": False}),
        {"v": "yes"},
        {"went": "no"},
    ),
    Fact("A28", "what is neither decides default_result, which is yes", branching(), {"v": "?"}, {"went": "yes"}),
    Fact("A28", "default_result can be no", branching({"default_result": False}), {"v": "?"}, {"went": "no"}),
    Fact("A28", "default_result can be the word no", branching({"default_result": "FALSE"}), {}, {"went": "no"}),
    Fact("A29", "branching over nothing says its default", branching(inputs=""), {"v": False}, {"went": "yes"}),
    Fact("A29", "branching over an absent field says its default", branching(), {}, {"went": "yes", "said": True}),
    Fact("A30", "several targets run in parallel", FORK, {}, {}, "S A B J"),
    Fact("A31", "a join runs once, when all have arrived, instead of once for each superstep", [
        node("S", edge="A|B"), node("A", edge="J"), node("B", edge="C"), node("C", edge="J"), node("J"),
    ], {}, {}, "S A B C J"),
    Fact("A32", "Success_Next and Failure_Next may name several targets too", [
        node("S", "failure", ko="A|B", ok="C"), node("A"), node("B"), node("C"),
    ], {}, {}, "S A B"),
    Fact("A33", "empty parts and repeats of a routing cell collapse", [
        node("S", edge="|A||B|A| "), node("A"), node("B"),
    ], {}, {}, "S A B"),
    Fact("A34", "summary joins key: value by blank lines, skipping null", [
        node("S", "summary", inputs="a|b|c", output="o"),
    ], {"a": 1, "b": None, "c": ["x"]}, {"o": 'a: 1\n\nc: ["x"]'}),
    Fact("A35", "summary has format and separator", [
        node("S", "summary", inputs="a|b", output="o", context={"format": "<{key}={value}>", "separator": ";"}),
    ], {"a": "{key}", "b": 2}, {"o": "<a={key}>;<b=2>"}),
    Fact("A36", "summary has include_keys", [
        node("S", "summary", inputs="a|b|c", output="o", context={"include_keys": "a|c"}),
    ], {"a": 1, "b": 2, "c": 3}, {"o": "a: 1\n\nc: 3"}),
    Fact("A37", "the orchestrator finds a node by name", orchestrated({"nodes": "all"}), {"request": "call SUPPORT"},
         {"chosen": "Support", "went": "s"}),
    Fact("A38", "the orchestrator finds a node by its keywords", orchestrated({"nodes": "Billing|Support"}),
         {"request": "my screen is broken"}, {"chosen": "Support", "went": "s"}),
    Fact("A38", "the orchestrator finds a node by its description", orchestrated({}),
         {"request": "two refunds please"}, {"chosen": "Billing"}),
    Fact("A38", "the orchestrator looks at nodes of one type", orchestrated({"nodeType": "echo"}, "echo"),
         {"request": "billing broken"}, {"chosen": "Support"}),
    Fact("A39", "the orchestrator falls back to default_target",
         orchestrated({"nodes": "Billing|Support", "default_target": "Other"}), {"request": "zzz"}, {"went": "o"}),
    Fact("A40", "a sub-workflow of the same file runs on the whole state", [
        node("P", "graph", output="o", context="{workflow=::Child}"), *CHILD,
    ], {"x": 1}, {"o": {"x": 1, "y": "1!"}, "y": ABSENT}),
    Fact("A41", "child=parent gives a child only those fields", [
        node("P", "graph", inputs="x=a", output="o", context="{workflow=::Child}"), *CHILD,
    ], {"a": 1, "b": 2}, {"o": {"x": 1, "y": "1!"}}),
    Fact("A41", "child:parent says the same", [
        node("P", "subgraph", inputs="x:a", output="o", context="{workflow=flows::Child}"), *CHILD,
    ], {"a": 1, "b": 2}, {"o": {"x": 1, "y": "1!"}}),
    Fact("A42", "parent=child takes one field of the child", [
        node("P", "graph", output="o=y", context="{workflow=::Child}"), *CHILD,
    ], {"x": 1}, {"o": "1!", "y": ABSENT}),
    Fact("A42", "several parent=child take several fields", [
        node("P", "graph", output="o=y|p=x|q=zz", context="{workflow=::Child}"), *CHILD,
    ], {"x": 1}, {"o": "1!", "p": 1, "q": None}),
    Fact("A43", "a child whose last flag is false passes it on", [
        node("P", "graph", output="o", ok="Yes", ko="No", context="{workflow=::Broken}"), *YES_NO, *CHILD,
    ], {}, {"went": "no"}),
    Fact("A44", "workflow_field takes the child's name from the state", [
        node("P", "graph", output="o=y", context="{workflow_field=which}"), *CHILD,
    ], {"x": 1, "which": "Child"}, {"o": "1!"}),
    Fact("A46", "a raised error goes to Failure_Next, with Edge too, and is handled", [
        node("S", "broken", edge="Yes", ko="No"), *YES_NO,
    ], {}, {"went": "no"}),
    Fact("A46", "without Failure_Next the execution fails there, instead of going on along Edge", [
        node("S", "broken", edge="Yes"), *YES_NO,
    ], {}, {"went": ABSENT}, "S", "failed"),
    Fact("A47", "errors are appended, instead of replaced", [
        node("S", "broken", ko="T"), node("T", "broken", ko="U"),
        node("U", "aggregator", inputs="errors|error", output="seen"),
    ], {}, {"seen": {"errors": ["ValueError: broken S", "ValueError: broken T"], "error": "ValueError: broken T"}}),
    Fact("A48", "the next success resets the flag, instead of a sticky failure", [
        node("S", "broken", ko="T"), node("T", edge="U"),
        node("U", "aggregator", inputs="last_action_success", output="seen"),
    ], {}, {"seen": {"last_action_success": True}}),
    Fact("A51", "a:p passes the state field a as the parameter p", [
        node("A", "show", inputs="a:p|o.deep:q", output="o2"),
    ], {"a": 1, "o": {"deep": 2}}, {"o2": {"p": 1, "q": 2}}),
    Fact("A52", "declared parameters bind by position", [
        node("A", "positional", inputs="a|b", output="o"),
    ], {"a": 1, "b": 2}, {"o": {"left": 1, "right": 2}}),
    Fact("A53", "fewer or more fields than declared parameters bind as far as they go", [
        node("A", "positional", inputs="a", output="o", edge="B"),
        node("B", "positional", inputs="a|b|c", output="p", edge="C"),
        node("C", "positional", inputs="a:x|b", output="q"),
    ], {"a": 1, "b": 2, "c": 3}, {"o": {"left": 1}, "p": {"left": 1, "right": 2, "c": 3}, "q": {"x": 1, "b": 2}}),
    Fact("A54", "several Output_Fields take their keys of an object, missing ones are null", [
        node("A", "pair", output="y|z"),
    ], {}, {"y": 2, "z": None}),
    Fact("A55", "a scalar goes to the first of several Output_Fields", [
        node("A", "scalar", output="a|b"),
    ], {}, {"a": "scalar", "b": None}),
    Fact("A56", "other keys of an object result are kept", [node("A", "pair", output="x|y")], {}, {"extra": 3}),
    Fact("A56", "output_validation error refuses other keys", [
        node("A", "pair", output="x|y", context={"output_validation": "error"}),
    ], {}, {"x": ABSENT}, "A", "failed"),
    Fact("A57", "without Output_Field a result is dropped", [node("A", "pair")], {"k": 1}, {"x": ABSENT}),
    Fact("A57", "null stores nothing", [node("A", "nothing", output="o")], {"o": 1}, {"o": 1}),
    Fact("A58", "state_updates are merged as given", [
        node("A", "updates", output="o", ok="Yes", ko="No"), *YES_NO,
    ], {}, {"u": 1, "v": [2], "o": ABSENT, "went": "no", "last_action_success": ABSENT}),
    *(
        Fact("A59", f"Context {cell}", [node("A", "options", output="o", context=cell)], {}, {"o": expected})
        for cell, expected in (
            ('{"a": [1, null]}', {"a": [1, None]}),
            ("{'a': (1, None), 'b': True}", {"a": [1, None], "b": True}),
            ("{a=1, b: two words}", {"a": 1, "b": "two words"}),
            ("free text", {"context": "free text"}),
            ("", {}),
        )
    ),
    Fact("A60", "undeclared state keys stay, instead of vanishing", [node("A", prompt="x", output="o")],
         {"undeclared": {"deep": 1}}, {"undeclared": {"deep": 1}, "o": "x"}),
    Fact("A60", "an empty state is fine", [node("A", "echo", inputs="a", output="o")], {}, {"o": ABSENT}),
]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("fact", FACTS, ids=[f"{fact.number}-{fact.says}" for fact in FACTS])
async def test_fact(fact: Fact, tmp_path: Path) -> None:
    """The file does what was observed, or what an author would expect instead."""
    async with serving(tmp_path, fact.rows, agents=AGENTS) as service:
        document = await service.execute_workflow("Flow", fact.state)
        assert document["status"] == fact.status, document["error"]
        result = document["result"]
        for field, expected in fact.result.items():
            if expected is ABSENT:
                assert field not in result
            else:
                assert result[field] == expected
                assert type(result[field]) is type(expected)
        if fact.nodes:
            assert await visited(service, document) == fact.nodes.split()


@pytest.mark.anyio
async def test_a14(tmp_path: Path) -> None:
    """A14: two rows with one name are an error naming both, instead of the first one winning."""
    async with serving(tmp_path, [node("A", prompt="1", output="o"), node("A", prompt="2", output="o")]) as service:
        (summary,) = service.list_workflows()["workflows"]
        assert summary["status"] == "broken"
        (found,) = service.get_workflow_definition("Flow")["diagnostics"]
        assert found["code"] == "AM-N002"
        assert "Rows 2 and 3" in found["message"]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["EchoAgent", "echo_agent", "ECHO", "Echo", " echo "])
async def test_agent_types_in_any_case(kind: str, tmp_path: Path) -> None:
    """Instead of case-sensitive names that fail at run time, any spelling of an agent's name means it."""
    async with serving(tmp_path, [node("A", kind, inputs="a", output="o")]) as service:
        assert (await service.execute_workflow("Flow", {"a": 1}))["result"]["o"] == 1


@pytest.mark.anyio
async def test_one_sided_routes(tmp_path: Path) -> None:
    """Instead of raising, a side that is not set ends that branch normally."""
    rows = [node("A", "branching", inputs="a", ok="B"), node("B", prompt="b", output="o")]
    async with serving(tmp_path, rows) as service:
        document = await service.execute_workflow("Flow", {"a": False})
        assert (document["status"], document["result"]) == ("completed", {"a": False})


def test_all_numbers_are_tested() -> None:
    """Every numbered observation has a test here."""
    assert {fact.number for fact in FACTS} | {"A14"} == set(NUMBERED)
