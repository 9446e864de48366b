"""Tools: Python functions that nodes and models call."""

from __future__ import annotations

import asyncio
import json
import threading
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from flows import Row, node, run, serving
from pydantic import BaseModel, Field

from agentmap_asgi.agents.registry import Call
from agentmap_asgi.agents.tools import Refused, matched, tool_of
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.testing.models import Asks, Fails, FakeModels

pytestmark = pytest.mark.anyio


class Unit(Enum):
    KM = "km"
    MI = "mi"


class Place(BaseModel):
    lat: float
    lon: float


def weather(city: str, days: Annotated[int, Field(ge=1, description="How many")] = 1) -> dict[str, Any]:
    """The weather in a city.

    From a book.
    """
    return {"city": city, "days": days, "sky": "clear"}


async def distance(start: Place, unit: Unit = Unit.KM) -> str:
    """How far it is from here."""
    await asyncio.sleep(0)
    return f"{start.lat:g} {unit.value}"


def crash(text: str) -> None:
    """Never works."""
    raise RuntimeError(f"cannot do {text}")


def calling(tool: str = "", *, inputs: str = "city", **more: Any) -> Row:
    return node("Use", "tool_agent", tools=tool, inputs=inputs, output="out", **more)


def test_a_signature_becomes_a_schema() -> None:
    """With descriptions, defaults and bounds; the call is not a part of it."""

    def both(call: Call, city: str) -> str:
        return call.node.name + city

    made = tool_of("weather", weather)
    assert made.description == "The weather in a city.\n\nFrom a book."
    assert made.schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "default": 1, "description": "How many"},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    other = tool_of("both", both)
    assert (other.parameters, other.takes_call) == (("city",), True)
    assert tool_of("nothing", lambda: 1).schema["properties"] == {}
    assert tool_of("partly", partial(weather, "Bern")).parameters == ("days",)


def test_arguments_are_checked() -> None:
    """And made what the types say; the message never has their values."""
    made = tool_of("distance", distance)
    found = made.checked('{"start": {"lat": "1.5", "lon": 2}, "unit": "mi"}')
    assert found == {"start": Place(lat=1.5, lon=2), "unit": Unit.MI}
    for wrong, said in (
        ("{", "not JSON"),
        ([], "no object"),
        ({}, "start: Field required"),
        ({"start": {"lat": "sesame", "lon": 1}}, "start.lat: Input should be a valid number"),
        ({"start": {"lat": 1, "lon": 1}, "more": 1}, "more: Extra inputs"),
    ):
        with pytest.raises(Refused, match=said) as refused:
            made.checked(wrong)
        assert "sesame" not in str(refused.value)
    assert tool_of("open", lambda a, **rest: 1).checked({"a": 1, "b": 2}) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (3, "give a function"),
        (Place, "give a function"),
        (lambda a, /: 1, "cannot be given by name"),
        (lambda *a: 1, "cannot be given by name"),
    ],
)
def test_what_is_no_tool_is_refused(function: Any, said: str) -> None:
    """When the app is made."""
    with pytest.raises(ConfigError, match=said):
        tool_of("tool", function)


def test_types_that_json_has_not_are_refused() -> None:
    """With the name of the tool."""

    def strange(lock: threading.Lock) -> None:
        pass

    with pytest.raises(ConfigError, match="The tool 'strange'"):
        tool_of("strange", strange)


def test_inputs_become_arguments() -> None:
    """By name when all are parameters, else by position."""
    made = tool_of("weather", weather)
    assert matched(made, ["days", "city"], positional=True) == {"days": "days", "city": "city"}
    assert matched(made, ["town"], positional=True) == {"town": "city"}
    for names, positional in ((["town"], False), (["a", "b", "c"], True), ([], True)):
        with pytest.raises(Refused):
            matched(made, names, positional=positional)


async def test_one_tool_is_called_directly(tmp_path: Path) -> None:
    """By name or by position, in a thread or awaited; absent inputs leave the default."""
    threads: list[bool] = []

    def noted(city: str) -> str:
        threads.append(threading.current_thread() is threading.main_thread())
        return city

    rows = [
        calling("weather", inputs="town|gone:days", edge="B") | {"Input_Fields": "town:city|gone:days"},
        node("B", "tool_agent", tools="distance", inputs="place", output="far", edge="C"),
        node("C", "tool_agent", tools="noted", inputs="town", output="c"),
    ]
    state = {"town": "Bern", "place": {"lat": 7, "lon": 1}}
    done = await run(tmp_path, rows, state, tools=[weather, distance, noted])
    assert done["status"] == "completed", done["error"]
    assert done["result"]["out"] == {"city": "Bern", "days": 1, "sky": "clear"}
    assert (done["result"]["far"], done["result"]["c"], threads) == ("7 km", "Bern", [False])


async def test_a_tool_may_use_the_call(tmp_path: Path) -> None:
    """For services, progress and the like."""

    async def counted(call: Call, city: str) -> str:
        return city + str(await call.resolve("number"))

    done = await run(tmp_path, [calling()], {"city": "Bern"}, tools=[counted], services={"number": 7})
    assert done["result"]["out"] == "Bern7"


async def test_errors_fail_the_node(tmp_path: Path) -> None:
    """What the tool raises, arguments that it does not take, and results that are no JSON."""
    rows = [calling("crash", ko="Told", inputs="city"), node("Told", "echo", inputs="error", output="why")]
    done = await run(tmp_path, rows, {"city": "Bern"}, tools=[crash])
    assert done["result"]["why"] == "The tool 'crash' failed: RuntimeError: cannot do Bern"
    done = await run(tmp_path, [calling("weather")], {"city": 3}, tools=[weather])
    assert (done["error"]["code"], "city: Input should be a valid string" in done["error"]["message"]) == (
        "tool_failed",
        True,
    )
    done = await run(tmp_path, [calling()], {"city": "x"}, tools={"bad": lambda city: {1, 2}})
    assert done["error"]["code"] == "result_invalid"


async def test_a_tool_that_hangs_is_not_called_again_meanwhile(tmp_path: Path) -> None:
    """Its thread runs on after the row's Timeout, so that a Retry waits for a tool that may run twice."""
    calls = []
    free = threading.Event()

    def stuck(city: str) -> str:
        calls.append(city)
        free.wait(10)
        return city

    try:
        row = calling(timeout="500ms", retry="3")
        async with serving(tmp_path, [row], tools=[stuck]) as made:
            done = await made.execute_workflow("Flow", {"city": "Bern"})
            assert (done["error"]["code"], calls, made.readiness()["threads_in_use"]) == ("timeout", ["Bern"], 1)
            free.set()
        async with serving(tmp_path, [row | {"Context": '{"idempotent": true}'}], tools=[stuck]) as made:
            free.clear()
            done = await made.execute_workflow("Flow", {"city": "Bern"})
            assert (done["error"]["code"], len(calls)) == ("timeout", 4)
            free.set()
    finally:
        free.set()


async def test_what_a_tool_returns_is_data(tmp_path: Path) -> None:
    """It sets the field of Output_Field, whatever it looks like."""
    updates = {"state_updates": {"role": "admin"}}
    done = await run(tmp_path, [calling()], {"city": "x"}, tools={"fetch": lambda city: updates})
    assert done["result"] == {"city": "x", "out": updates}


async def test_one_of_several_by_words(tmp_path: Path) -> None:
    """Its name in the request, or words of its description; the other inputs are its arguments."""
    tools = {"weather": weather, "crash": crash, "far_away": lambda text: "far"}
    row = calling("weather|crash|far_away", inputs="request|city", ko="Told")
    rows = [row, node("Told", "echo", inputs="error", output="why")]
    for request in ("What is the weather?", "Look it up in a book"):
        done = await run(tmp_path, rows, {"request": request, "city": "Bern"}, tools=tools)
        assert done["result"]["out"]["city"] == "Bern", done
    done = await run(tmp_path, rows, {"request": "Sing!", "city": "?"}, tools=tools)
    assert done["result"]["why"] == "None of the tools weather, crash, far_away fits the request"


async def test_one_of_several_by_a_model(tmp_path: Path) -> None:
    """With the arguments that it makes; once more when they do not fit, or when it only talks."""
    row = calling("weather|crash", inputs="request", prompt="You forecast.", context={"strategy": "model"})
    script = (Asks(("weather", {"town": "Bern"})), Asks(("weather", {"city": "Bern", "days": 2})))
    async with FakeModels(*script) as fake:
        config = {"providers": fake.providers()}
        done = await run(tmp_path, [row], {"request": "Bern?"}, tools=[weather, crash, distance], config=config)
        first, second = fake.requests
    assert done["result"]["out"] == {"city": "Bern", "days": 2, "sky": "clear"}, done["error"]
    assert (first.tools, first.body["tool_choice"]) == (["weather", "crash"], "required")
    assert second.messages[-1][1].startswith("the tool 'weather' cannot be called so: city: Field required")
    async with FakeModels("I would rather talk", Asks(("other", {}))) as fake:
        config = {"providers": fake.providers()}
        done = await run(tmp_path, [row], {"request": "Bern?"}, tools=[weather, crash], config=config)
    assert done["error"]["code"] == "model_answer_invalid"


@pytest.mark.parametrize("protocol", ["openai", "anthropic", "google"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_uses_tools(tmp_path: Path, protocol: str, stream: bool) -> None:
    """Until it has its answer; it is told the results, and what is wrong with its calls."""
    row = node("Ask", protocol, inputs="text", output="answer", tools="weather|distance", context={"stream": stream})
    script = (
        Asks(("weather", {"city": "Bern"}), ("distance", {})),
        Asks(("nothing", {})),
        "It is clear",
    )
    async with FakeModels(*script) as fake:
        config = {"providers": fake.providers()}
        done = await run(tmp_path, [row], {"text": "Bern?"}, tools=[weather, distance], config=config)
        first, second, third = fake.requests
    assert done["result"]["answer"] == "It is clear", done["error"]
    assert first.tools == ["weather", "distance"]
    told = json.dumps(second.body)
    assert "sky" in told
    assert "The tool cannot be called so: start: Field required" in told
    assert "There is no tool" in json.dumps(third.body)
    assert done["usage"]["requests"] == 3


async def test_a_model_that_never_stops_using_tools_fails(tmp_path: Path) -> None:
    """After max_rounds; a tool that raises fails the node at once."""
    row = node("Ask", "llm", inputs="text", context={"tools": "weather", "max_rounds": 2})
    async with FakeModels(Asks(("weather", {"city": "Bern"})), repeat=True) as fake:
        config = {"providers": fake.providers()}
        done = await run(tmp_path, [row], {"text": "Bern?"}, tools=[weather], config=config)
        assert (done["error"]["code"], len(fake.requests)) == ("model_answer_invalid", 3)
    row = node("Ask", "llm", inputs="text", context={"tools": ["crash"]})
    async with FakeModels(Asks(("crash", {"text": "it"})), Fails(400)) as fake:
        config = {"providers": fake.providers()}
        done = await run(tmp_path, [row], {"text": "Bern?"}, tools=[crash], config=config)
        assert (done["error"]["code"], len(fake.requests)) == ("tool_failed", 1)


async def test_a_folder_of_tools(tmp_path: Path) -> None:
    """Its public functions, by file; names of two files and files that others may write are refused."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "sky.py").write_text(
        "from ._shared import SKY\ndef weather(city: str) -> str:\n    '''The weather.'''\n    return city + SKY\n"
        "def _hidden(): ...\nclass Thing: ...\n"
    )
    (folder / "_shared.py").write_text("SKY = ' clear'\n")
    (folder / "money.py").write_text("def rate(city: str) -> int:\n    return 3\n")
    config = {"tools_path": str(folder)}
    rows = [
        calling(edge="B", source="sky.py"),
        node("B", "tool_agent", inputs="city", output="b", source="tools/money"),
    ]
    done = await run(tmp_path, rows, {"city": "Bern"}, config=config)
    assert (done["result"]["out"], done["result"]["b"]) == ("Bern clear", 3), done["error"]
    (folder / "money.py").write_text("def weather(city: str) -> int:\n    return 3\n")
    with pytest.raises(ConfigError, match=r"The tool 'weather' is given twice: in money.py, and at .*sky.py, line 2"):
        await run(tmp_path, rows, config=config)
    (folder / "money.py").write_text("def rate(*city): ...\n")
    with pytest.raises(ConfigError, match=r"money.py, line 1: The tool 'rate'"):
        await run(tmp_path, rows, config=config)
    (folder / "money.py").chmod(0o666)
    with pytest.raises(ConfigError, match="chmod go-w"):
        await run(tmp_path, rows, config=config)
    with pytest.raises(ConfigError, match=r"tools_path: .* is not a folder"):
        await run(tmp_path, rows, config={"tools_path": str(tmp_path / "nothing")})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (calling("wether"), "There is no tool 'wether', which 'Use' names. Did you mean 'weather'?"),
        (calling("weather", source="sky"), "There are no tools from 'sky'"),
        (
            calling("weather", inputs="a|b|c"),
            "cannot be called with the inputs of 'Use': it takes city, days, and not 'a'",
        ),
        (calling("weather", inputs=""), "it needs city"),
        (calling("weather|crash", context={"strategy": "model"}), "no provider is configured"),
        (calling("weather|crash", context={"strategy": "magic"}), "strategy cannot be 'magic'"),
    ],
)
async def test_rows_are_checked(tmp_path: Path, row: Row, said: str) -> None:
    """When the file is loaded."""
    async with serving(tmp_path, [row], tools=[weather, crash]) as made:
        shown = made.get_workflow_definition("Flow")["diagnostics"]
    problems = [f"{one['message']}. {one['hint']}" for one in shown]
    assert any(said in problem for problem in problems), problems


async def test_there_are_no_tools_until_the_host_gives_some(tmp_path: Path) -> None:
    """The diagnostic says how."""
    async with serving(tmp_path, [calling()]) as made:
        ((code, hint),) = [(one["code"], one["hint"]) for one in made.get_workflow_definition("Flow")["diagnostics"]
                           if one["severity"] == "error"]  # fmt: skip
    assert (code, "AgentMapContext(tools=[…])" in hint) == ("AM-A009", True)
