"""What a host may register as an agent, and what an agent is given."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, service, serving

from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.agents.registry import Agent, Call, Registry, agent, as_agent, fold
from agentmap_asgi.errors import ConfigError

pytestmark = pytest.mark.anyio


async def coroutine(call: Call) -> Any:
    """Says async.

    More.
    """
    return "async"


def plain(call: Call) -> Any:
    return "thread"


class AsyncProcess:
    async def process(self, inputs: dict[str, Any]) -> Any:
        return "async"


class Process:
    """Says thread."""

    def process(self, inputs: dict[str, Any]) -> Any:
        return "thread"


class AsyncCallable:
    async def __call__(self, call: Call) -> Any:
        return "async"


class Callable:
    def __call__(self, call: Call) -> Any:
        return "thread"


KINDS: dict[str, tuple[Any, str]] = {
    "async function": (coroutine, "async"),
    "function": (plain, "thread"),
    "lambda": (lambda call: "thread", "thread"),
    "inline function": (agent(inline=True)(lambda call: "inline"), "inline"),
    "partial": (functools.partial(plain), "thread"),
    "async partial": (functools.partial(coroutine), "async"),
    "async process class": (AsyncProcess, "async"),
    "process class": (Process, "thread"),
    "process object": (Process(), "thread"),
    "async callable": (AsyncCallable(), "async"),
    "callable": (Callable(), "thread"),
    "callable class": (Callable, "thread"),
    "agent": (Agent(name="x", summary="X.", mode="async", run=coroutine), "async"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_can_be_registered(kind: str, tmp_path: Path) -> None:
    """Functions, callables, classes and objects with process(inputs), sync or async, and Agents."""
    thing, mode = KINDS[kind]
    assert as_agent("x", thing).mode == mode
    document = await run(tmp_path, [node("A", "x", output="mode")], agents={"x": thing})
    assert document["result"] == {"mode": mode}


class Needy:
    def __init__(self, needed: int) -> None: ...

    def process(self, inputs: dict[str, Any]) -> Any: ...


async def async_generator(call: Call) -> Any:
    yield 1


def generator(call: Call) -> Any:
    yield 1


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Needy, "cannot be made without arguments"),
        (5, "is a int"),
        ("name", "is a str"),
        (None, "is a NoneType"),
        (object(), "register a function"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
    ],
)
def test_what_cannot(thing: Any, message: str) -> None:
    """Anything else is refused when it is registered, with its name."""
    with pytest.raises(ConfigError, match="The agent 'x'") as caught:
        as_agent("x", thing)
    assert message in caught.value.message


def test_the_first_line_of_a_docstring_is_the_summary() -> None:
    """Unless @agent says another."""
    assert as_agent("x", coroutine).summary == "Says async."
    assert as_agent("x", Process).summary == "Says thread."
    assert as_agent("x", agent(summary="Another.")(lambda call: 1)).summary == "Another."


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("EchoAgent", "echo"),
        ("echo_agent", "echo"),
        ("ECHO", "echo"),
        ("echo", "echo"),
        ("Csv-Reader Agent", "csvreader"),
        ("agent", "agent"),
        ("Agent_Agent", "agent"),
        ("", ""),
    ],
)
def test_names_are_folded(written: str, folded: str) -> None:
    """Case, separators and the word Agent do not count."""
    assert fold(written) == folded


def test_own_agents_win_over_built_ins() -> None:
    """A registry is extended to a new one; the old one stays as it is."""
    own = BUILTINS.extended({"echo": coroutine, "MyThing": plain})
    assert own["echo"].mode == "async"
    assert own.find("EchoAgent") is own["echo"]
    assert own.find("my_thing_agent") is own["MyThing"]
    assert BUILTINS.find("EchoAgent") is BUILTINS["echo"]
    assert BUILTINS.extended({}) is BUILTINS
    assert Registry().find("echo") is None
    assert own.find("") is own["default"]
    assert (own.nearest("ecko"), own.nearest("mything"), own.nearest("zzzzzzz")) == ("echo", "MyThing", None)


async def test_what_a_call_gives(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Inputs, prompt, options, state, context, names, and a line in the log that cannot be forged."""
    seen: dict[str, Any] = {}

    async def look(call: Call) -> Any:
        call.report(0.5, "half")
        call.log("line one\nline two", amount=3)
        seen.update(
            inputs=call.inputs,
            prompt=call.prompt,
            options=dict(call.options),
            state=call.state,
            context=dict(call.context),
            node=call.node.name,
            graph_name=call.graph_name,
            execution_id=call.execution_id,
            attempt=call.attempt,
            key=call.idempotency_key,
        )

    rows = [node("A", "look", inputs="x:p|gone", prompt="Hi {p} {x}", context={"k": [1]})]
    with caplog.at_level(logging.DEBUG, logger="agentmap_asgi"):
        async with serving(tmp_path, rows, agents={"look": look}) as made:
            document = await made.execute_workflow("Flow", {"x": 1, "y": 2}, {"principal": "ann"})
    assert seen == {
        "inputs": {"p": 1, "gone": None},
        "prompt": "Hi 1 {x}",
        "options": {"k": [1]},
        "state": {"x": 1, "y": 2},
        "context": {"principal": "ann"},
        "node": "A",
        "graph_name": "Flow",
        "execution_id": document["execution_id"],
        "attempt": 1,
        "key": f"{document['execution_id']}/A#1",
    }
    (record,) = [record for record in caplog.records if record.name == "agentmap_asgi.agents"]
    assert record.getMessage() == "Flow/A: line one line two"
    assert record.agentmap["amount"] == 3  # type: ignore[attr-defined]


def test_an_agent_that_needs_a_missing_service_breaks_the_workflow(tmp_path: Path) -> None:
    """A declared service that the context does not have is an error of the file."""

    @agent(services=["database"])
    async def needs(call: Call) -> Any: ...

    class Needs:
        def configure_database_service(self, database: Any) -> None: ...
        def process(self, inputs: dict[str, Any]) -> Any: ...

    for thing in (needs, Needs):
        made = service(tmp_path, [node("A", "needs")], agents={"needs": thing})
        (found,) = made.get_workflow_definition("Flow")["diagnostics"]
        assert (found["code"], "'database'" in found["message"]) == ("AM-A002", True)
