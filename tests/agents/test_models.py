"""Agents that ask a model, over the real client libraries, against a server that speaks as the providers do."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flows import Row, node, run, serving

from agentmap_asgi.agents.models_client import Gate
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.providers import Provider, providers_of
from agentmap_asgi.testing.models import Asks, Breaks, Fails, FakeModels, Garbles, Hangs, Says, Turn
from agentmap_asgi.testing.protocols import PROTOCOLS

pytestmark = pytest.mark.anyio

protocols = pytest.mark.parametrize("protocol", PROTOCOLS)
KEY = "sk-abcdefgh12345678"
SCHEMA = {
    "type": "object",
    "properties": {"urgent": {"type": "boolean"}, "team": {"enum": ["billing", "technical"]}},
    "required": ["urgent", "team"],
    "additionalProperties": False,
}


def asking(agent: str = "llm", *, inputs: str = "text", output: str = "answer", **more: Any) -> Row:
    context: Mapping[str, Any] = more.pop("context", {})
    return node("Ask", agent, prompt=more.pop("prompt", "You help {who}."), inputs=inputs, output=output,
                context=context, **more)  # fmt: skip


def settings(fake: FakeModels, **more: Any) -> dict[str, Any]:
    return {"providers": fake.providers(delay=0.01, **more)}


async def ask(folder: Path, fake: FakeModels, row: Row, state: Mapping[str, Any] = {}, **more: Any) -> dict[str, Any]:
    """The document of an execution of one node."""
    config = settings(fake, **more.pop("fields", {}))
    return await run(
        folder, [row, *more.pop("rows", ())], {"text": "Hello", "who": "Ada", **state}, config=config, **more
    )


async def asked_of(fake: FakeModels) -> None:
    """Wait until a request has come in."""
    while not fake.requests:  # noqa: ASYNC110  # the fake is no part of what is tested
        await asyncio.sleep(0.01)


@protocols
async def test_prompt_is_the_system_message_and_inputs_the_user(tmp_path: Path, protocol: str) -> None:
    """With the options of the row, by each protocol; what it used stands in the document."""
    async with FakeModels("Good day to you") as fake:
        row = asking(protocol, context={"temperature": 0.5, "max_tokens": 50})
        done = await ask(tmp_path, fake, row, fields={"key": "KEY"}, secrets={"KEY": KEY})
        (asked,) = fake.requests
    assert done["status"] == "completed", done["error"]
    assert done["result"]["answer"] == "Good day to you"
    assert (asked.protocol, asked.model, asked.system) == (protocol, f"fake-{protocol}", "You help Ada.")
    assert asked.messages == [("user", "Hello")]
    assert KEY in "".join(asked.headers.values())
    sent = asked.body.get("generationConfig", asked.body)
    assert sent["temperature"] == 0.5
    assert 50 in sent.values()
    assert done["usage"] == {"requests": 1, "input_tokens": 4, "output_tokens": 4, "tokens": 8}


async def test_several_inputs_are_told_by_name(tmp_path: Path) -> None:
    """Those that are null are left out; without inputs the Prompt is what the user says."""
    async with FakeModels(repeat=True) as fake:
        await ask(tmp_path, fake, asking(inputs="text|more|gone"), {"more": {"a": [1]}})
        await ask(tmp_path, fake, asking(inputs=""))
        first, second = fake.requests
    assert first.messages == [("user", 'text: Hello\n\nmore: {"a": [1]}')]
    assert (second.system, second.messages) == ("", [("user", "You help Ada.")])


@protocols
async def test_a_stream_is_told_piece_by_piece(tmp_path: Path, protocol: str) -> None:
    """To those who watch, in order, with the place of each piece; the result is the whole."""
    async with FakeModels("one two three") as fake:
        row = asking(protocol, context={"stream": True})
        async with serving(tmp_path, [row], config=settings(fake)) as made:
            started = await made.start_execution("Flow", {"text": "Hello"})
            events = [event async for event in made.stream_execution(started["execution_id"]) if event]
            done = await made.get_execution_status(started["execution_id"])
    tokens = [event for event in events if event["event"] == "token"]
    assert "".join(token["text"] for token in tokens) == "one two three"
    assert tokens[0]["offset"] == 0
    assert fake.requests[0].stream
    assert done["result"]["answer"] == "one two three"
    assert done["usage"]["output_tokens"] == 3


@protocols
async def test_an_answer_fits_its_schema(tmp_path: Path, protocol: str) -> None:
    """It is asked for once more when it does not; the result is an object."""
    good = {"urgent": True, "team": "billing"}
    wrong: Turn = {"urgent": "yes", "team": "billing"}
    script: list[Turn] = [wrong, good]
    if protocol == "anthropic":  # where the schema is that of a tool
        script = [Asks(("answer", {"urgent": "yes"})), Asks(("answer", good))]
    async with FakeModels(*script) as fake:
        done = await ask(tmp_path, fake, asking(protocol, context={"response_schema": SCHEMA}))
        _, second = fake.requests
    assert done["result"]["answer"] == good, done["error"]
    assert "This is not what was asked for: /urgent: the form says type" in json.dumps(second.body)
    assert done["usage"]["requests"] == 2


@pytest.mark.parametrize("structured", ["prompt", "tool", "native"])
async def test_a_schema_is_told_as_the_provider_takes_it(tmp_path: Path, structured: str) -> None:
    """Also one that is not of an object."""
    numbers = {"type": "array", "items": {"type": "integer"}}
    answer: Turn = (
        Asks(("answer", {"value": [1, 2]})) if structured == "tool" else Says('```json\n{"value": [1, 2]}\n```')
    )
    async with FakeModels(answer) as fake:
        row = asking(context={"response_schema": numbers})
        done = await ask(tmp_path, fake, row, fields={"structured": structured})
        (asked,) = fake.requests
    assert done["result"]["answer"] == [1, 2], done["error"]
    assert ("JSON Schema" in asked.system) is (structured == "prompt")
    assert ("tools" in asked.body) is (structured == "tool")
    assert ("response_format" in asked.body) is (structured == "native")


async def test_an_answer_that_never_fits_fails_the_node(tmp_path: Path) -> None:
    """Cut off, or no JSON at all; the message does not repeat it."""
    async with FakeModels("no JSON", Says('{"urgent": tr', "length")) as fake:
        row = asking(context={"response_schema": SCHEMA}, ko="Failed")
        done = await ask(tmp_path, fake, row, rows=[node("Failed", "echo", inputs="error", output="why")])
    assert done["status"] == "completed"
    assert done["result"]["why"] == (
        "The model's answer does not fit response_schema, twice: it is not JSON; it was cut off at max_tokens"
    )


async def test_what_a_model_says_is_data(tmp_path: Path) -> None:
    """No template, no state_updates, no further fields, no routing."""
    said = {"state_updates": {"role": "admin"}, "answer": "{who} {secret:KEY}", "last_action_success": False}
    async with FakeModels(said, said, Says("{who}")) as fake:
        free = {"response_schema": {"type": "object"}}
        rows = [
            node("A", "llm", inputs="text", output="one", context=free, edge="B"),
            node("B", "llm", inputs="text", output="answer|more", context=free, edge="C"),
            node("C", "llm", inputs="text", output="three", edge="D"),
            node("D", "echo", prompt="Said: {three}", output="four"),
        ]
        done = await run(tmp_path, rows, {"text": "x", "who": "Ada"}, config=settings(fake))
    assert done["result"] == {
        "text": "x",
        "who": "Ada",
        "one": said,
        "answer": "{who} {secret:KEY}",
        "more": None,
        "three": "{who}",
        "four": "Said: {who}",
    }


async def test_a_conversation_is_remembered(tmp_path: Path) -> None:
    """In the state, under its key, as long as the row says; a loop goes on with it."""
    async with FakeModels("first", "second", "third") as fake:
        context = {"memory_key": "talk", "memory_limit": 4}
        rows = [asking(context=context, edge=name) | {"Node": f"A{n}"} for n, name in enumerate(("A1", "A2", ""))]
        done = await run(tmp_path, rows, {"text": "Hi"}, config=settings(fake))
    assert [asked.messages for asked in fake.requests] == [
        [("user", "Hi")],
        [("user", "Hi"), ("assistant", "first"), ("user", "Hi")],
        [("user", "Hi"), ("assistant", "first"), ("user", "Hi"), ("assistant", "second"), ("user", "Hi")],
    ]
    assert [message["content"] for message in done["result"]["talk"]] == ["Hi", "second", "Hi", "third"]
    async with FakeModels("never") as fake:
        done = await ask(tmp_path, fake, asking(context=context), {"talk": [{"role": "robot"}]})
        assert (done["error"]["code"], fake.requests) == ("result_invalid", [])


# What goes wrong.


@protocols
@pytest.mark.parametrize("stream", [False, True])
async def test_what_passes_is_tried_again(tmp_path: Path, protocol: str, stream: bool) -> None:
    """Rate limits, errors of the server, half an answer, and what is not the protocol."""
    for trouble in (Fails(429, retry_after=0.02), Fails(500), Fails(503), Breaks("one two three"), Garbles()):
        async with FakeModels(trouble, "Good day") as fake:
            done = await ask(tmp_path, fake, asking(protocol, context={"stream": stream}))
            assert len(fake.requests) == 2, trouble
        assert done["result"].get("answer") == "Good day", (trouble, done["error"])
        assert done["usage"]["requests"] == 2


@protocols
async def test_a_server_that_hangs_is_given_up(tmp_path: Path, protocol: str) -> None:
    """Before its answer, and in the middle of a stream; the connection is closed."""
    for trouble, stream in ((Hangs(), False), (Hangs("one two", 1), True)):
        async with FakeModels(trouble, "Good day") as fake:
            row = asking(protocol, context={"stream": stream})
            done = await ask(tmp_path, fake, row, fields={"timeout": 0.3})
            await asyncio.wait_for(fake.requests[0].gone.wait(), 20)
        assert done["result"].get("answer") == "Good day", done["error"]


async def test_retry_after_is_honoured(tmp_path: Path) -> None:
    """Also by other executions: the provider is left alone meanwhile. What asks for too long is given up at once."""
    loop = asyncio.get_running_loop()
    async with FakeModels(Fails(429, retry_after=0.4), repeat=False) as fake:
        fake.script = (*fake.script, "a", "b")
        async with serving(tmp_path, [asking()], config=settings(fake)) as made:
            began = loop.time()
            await made.start_execution("Flow", {"text": "one"})
            await asked_of(fake)
            await asyncio.sleep(0.05)
            await made.execute_workflow("Flow", {"text": "two"})
            assert loop.time() - began >= 0.4
    async with FakeModels(Fails(429, retry_after=3600)) as fake:
        done = await ask(tmp_path, fake, asking())
        assert len(fake.requests) == 1
    assert done["error"]["code"] == "model_unavailable"
    assert "wants 3600 s" in done["error"]["message"]
    assert done["error"]["retryable"] is True


@protocols
async def test_what_is_refused_fails_the_node(tmp_path: Path, protocol: str) -> None:
    """At once, with what the provider says about the request, and nothing when it is about the key."""
    for status, code in ((400, "model_failed"), (401, "model_failed"), (404, "model_failed")):
        async with FakeModels(Fails(status, message=f"It is about {KEY}")) as fake:
            done = await ask(tmp_path, fake, asking(protocol), fields={"key": "KEY"}, secrets={"KEY": KEY})
            assert len(fake.requests) == 1
        assert (done["status"], done["error"]["code"], done["error"]["retryable"]) == ("failed", code, False)
        assert KEY not in json.dumps(done)
        assert ("It is about ***" in done["error"]["message"]) is (status != 401)


async def test_a_key_is_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in events, logs or documents, whatever the provider says."""
    trouble = Fails(500, message=f"Bad {KEY}")
    async with FakeModels(trouble, trouble, Says(f"Your key is {KEY} {KEY[:6]}")) as fake:
        config = settings(fake, key="KEY")
        with caplog.at_level(logging.DEBUG, logger="agentmap_asgi"):
            row = asking(context={"stream": True})
            async with serving(tmp_path, [row], config=config, secrets={"KEY": KEY}) as made:
                started = await made.start_execution("Flow", {"text": "Hello"})
                events = [event async for event in made.stream_execution(started["execution_id"]) if event]
    assert events[-1]["event"] == "completed", events[-1]
    assert KEY not in json.dumps(events)
    assert KEY not in caplog.text
    assert events[-2]["state_delta"]["answer"] == f"Your key is *** {KEY[:6]}"
    logs = [event["message"] for event in events if event["event"] == "log"]
    assert logs[0].startswith("The provider 'openai' is in trouble (HTTP 500); attempt 2 of 3 in 0.0")


@protocols
async def test_a_key_does_not_follow_redirects(tmp_path: Path, protocol: str) -> None:
    """It is sent to the address of the settings and to no other."""
    async with FakeModels("Good day", repeat=True) as other:
        elsewhere = Fails(307, location=f"{other.url}/v1/chat/completions")
        async with FakeModels(elsewhere, repeat=True) as fake:
            done = await ask(tmp_path, fake, asking(protocol), fields={"key": "KEY"}, secrets={"KEY": KEY})
    assert (done["status"], other.requests) == ("failed", [])


async def test_fallbacks_are_asked_in_turn(tmp_path: Path) -> None:
    """When a provider gives up or refuses; of the row, or of the table."""
    async with FakeModels(Fails(401), Fails(500), "From Google") as fake:
        table = fake.providers(delay=0.01, attempts=1)
        table["openai"]["fallback"] = ["anthropic", "google:other"]
        done = await run(tmp_path, [asking()], {"text": "Hello"}, config={"providers": table})
        assert done["result"]["answer"] == "From Google"
        assert [(asked.protocol, asked.model) for asked in fake.requests] == [
            ("openai", "fake-openai"),
            ("anthropic", "fake-anthropic"),
            ("google", "other"),
        ]
    async with FakeModels(Fails(401), Fails(402), "never") as fake:
        row = asking(context={"fallback": "anthropic"})
        done = await ask(tmp_path, fake, row)
        assert (len(fake.requests), done["error"]["code"]) == (2, "model_failed")
        assert "quota" in done["error"]["message"]


@protocols
async def test_cancellation_closes_the_connection(tmp_path: Path, protocol: str) -> None:
    """The server sees it go, before the answer and in the middle of a stream; so it does at a row's Timeout."""
    for trouble, stream in ((Hangs(), False), (Hangs("one two", 1), True)):
        async with FakeModels(trouble, trouble) as fake:
            rows = [asking(protocol, context={"stream": stream})]
            async with serving(tmp_path, rows, config=settings(fake)) as made:
                started = await made.start_execution("Flow", {"text": "Hello"})
                await asked_of(fake)
                done = await made.cancel_execution(started["execution_id"])
                assert done["status"] == "cancelled"
                await asyncio.wait_for(fake.requests[0].gone.wait(), 20)
                assert done["usage"]["requests"] == 1
    async with FakeModels(Hangs()) as fake:
        done = await ask(tmp_path, fake, asking(protocol, timeout="1s"))
        assert done["error"]["code"] == "timeout"
        await asyncio.wait_for(fake.requests[0].gone.wait(), 20)


async def test_so_many_requests_at_once(tmp_path: Path) -> None:
    """From all executions of the process; further ones wait."""
    going = most = 0

    class Slow(FakeModels):
        async def _answer(self, *what: Any) -> bool:
            nonlocal going, most
            going += 1
            most = max(most, going)
            await asyncio.sleep(0.02)
            going -= 1
            return await super()._answer(*what)

    async with Slow("x", repeat=True) as fake:
        rows = [asking(map_over="list")]
        state = {"list": list(range(6)), "text": "Hello"}
        async with serving(tmp_path, rows, config=settings(fake, concurrency=2)) as made:
            both = await asyncio.gather(*(made.execute_workflow("Flow", state) for _ in range(2)))
    assert [done["result"]["answer"] for done in both] == [["x"] * 6] * 2
    assert most == 2


async def test_so_many_requests_in_a_time() -> None:
    """The window slides."""
    gate = Gate(Provider(name="x", base_url="http://x", rate="2/s"))
    loop = asyncio.get_running_loop()
    times = []
    for _ in range(3):
        async with gate:
            times.append(loop.time())
    assert times[1] - times[0] < 0.5
    assert times[2] - times[0] >= 0.99


# Summary and orchestrator.


async def test_a_summary_by_a_model(tmp_path: Path) -> None:
    """Of the text that it makes without one; the Prompt says how."""
    async with FakeModels("Short", "Shorter") as fake:
        rows = [
            node("A", "summary", inputs="text|who", output="one", context={"llm": True}, edge="B"),
            node("B", "summary", prompt="In French", inputs="text|who", output="two", edge="C",
                 context={"llm": "google", "include_keys": "who", "format": "{value}"}),
            node("C", "summary", inputs="one|two", output="three"),
        ]  # fmt: skip
        done = await run(tmp_path, rows, {"text": "Long", "who": "Ada"}, config=settings(fake))
        first, second = fake.requests
    assert done["result"]["three"] == "one: Short\n\ntwo: Shorter"
    assert (first.protocol, first.messages) == ("openai", [("user", "text: Long\n\nwho: Ada")])
    assert (second.protocol, second.system, second.messages) == ("google", "In French", [("user", "Ada")])


async def test_a_model_chooses_the_next_node(tmp_path: Path) -> None:
    """Among the candidates, and no other; when it does not, the default is taken, or the node fails."""
    rows = [
        node("Route", "orchestrator", inputs="text", output="to", context={"llm": True, "nodes": "Refund|Repair"}),
        node("Refund", "echo", prompt="refunded {text}", output="did"),
        node("Repair", "echo", prompt="repaired {text}", output="did")
        | {"Context": json.dumps({"description": "mends"})},
        node("Other", "echo", prompt="other {text}", output="did", context={}),
    ]
    async with FakeModels({"step": "Other"}, {"step": "Repair"}) as fake:
        done = await run(tmp_path, rows, {"text": "It broke"}, config=settings(fake))
        assert (done["result"]["did"], done["result"]["to"]) == ("repaired It broke", "Repair"), done["error"]
        assert '{"step": "Repair", "does": "mends"}' in fake.requests[0].system
        assert "Other" not in fake.requests[0].system
    async with FakeModels({"step": "Other"}, "what?") as fake:
        done = await run(tmp_path, rows, {"text": "It broke"}, config=settings(fake))
        assert done["error"]["code"] == "model_answer_invalid"
    rows[0]["Context"] = json.dumps({"llm": True, "nodes": "Refund|Repair", "default_target": "Other"})
    async with FakeModels("what?", "what?") as fake:
        done = await run(tmp_path, rows, {"text": "It broke"}, config=settings(fake))
        assert done["result"]["did"] == "other It broke"


# When a file is loaded.


async def found(folder: Path, row: Row, table: Any = None, **context: Any) -> list[tuple[str, str]]:
    config = None if table is None else {"providers": table}
    async with serving(folder, [row], config=config, **context) as made:
        shown = made.get_workflow_definition("Flow")["diagnostics"]
    return [(one["code"], f"{one['message']}. {one['hint']}") for one in shown if one["severity"] != "info"]


async def test_a_model_is_off_until_it_is_configured(tmp_path: Path) -> None:
    """The diagnostic says what to give; it is an error, so that the workflow cannot be started."""
    for agent in ("llm", "openai", "gpt", "Claude", "GeminiAgent", "chatgpt"):
        ((code, text),) = await found(tmp_path, asking(agent))
        assert code == "AM-A009"
        assert "no provider" in text
        assert "AgentMapConfig(providers=" in text
    for agent in ("summary", "orchestrator"):
        codes = [
            code for code, _ in await found(tmp_path, asking(agent, context={"llm": True, "default_target": "Ask"}))
        ]
        assert "AM-A009" in codes
    ((code, text),) = await found(tmp_path, asking("claude"), {"openai": {"base_url": "http://x", "model": "m"}})
    assert "no provider of anthropic is configured" in text


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"provider": "opnai"}, "There is no provider 'opnai' for 'Ask'. Did you mean 'openai'?"),
        ({"provider": "bare"}, "does not say which model of 'bare'"),
        ({"provider": "closed"}, "whose key 'NOWHERE' is no secret of the context"),
        ({"fallback": ["google"]}, "There is no provider 'google', which is a fallback"),
        ({"response_schema": {"type": "objekt"}}, "cannot be used"),
        ({"response_schema": {"type": "string", "pattern": "(a+)+"}}, "regular expression"),
        ({"memory_key": "errors"}, "cannot be stored"),
        ({"tools": "look"}, "There is no tool 'look'"),
        ({"temperature": 9}, "temperature cannot be 9"),
    ],
)
async def test_options_are_checked(tmp_path: Path, context: dict[str, Any], said: str) -> None:
    """Each with its remedy."""
    table = {
        "openai": {"base_url": "http://x", "model": "m"},
        "bare": {"base_url": "http://x"},
        "closed": {"key": "NOWHERE", "model": "m"},
    }
    problems = await found(tmp_path, asking(context=context), table)
    assert any(said in text for _, text in problems), problems


async def test_nothing_to_say_is_noticed(tmp_path: Path) -> None:
    """A row without Prompt and inputs."""
    table = {"openai": {"base_url": "http://x", "model": "m"}}
    ((code, text),) = await found(tmp_path, asking(prompt="", inputs=""), table)
    assert (code, "nothing to say" in text) == ("AM-A005", True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([], "takes a table"),
        ({"a b": {}}, "a name begins with a letter"),
        ({"x": "y"}, "takes a table of fields"),
        ({"x": {}}, "it needs key"),
        ({"x": {"key": KEY}}, "not the API key itself"),
        ({"x": {"kee": "K"}}, "did you mean 'key'?"),
        ({"x": {"key": "K", "kind": "other"}}, "kind is one of"),
        ({"x": {"key": "K", "base_url": "ftp://x"}}, "base_url begins"),
        ({"x": {"key": "K", "rate": "60"}}, "rate is written"),
        ({"x": {"key": "K", "structured": "magic"}}, "structured is one of"),
        ({"x": {"key": "K", "attempts": 0}}, "a number from 1 on"),
        ({"x": {"key": "K", "attempts": "2"}}, "takes a whole number"),
        ({"x": {"key": "K", "fallback": [1]}}, "takes a list of texts"),
        ({"x": {"key": "K", "fallback": "y"}}, "is not in the table"),
    ],
)
async def test_the_table_is_checked(table: Any, said: str) -> None:
    """ConfigError names the entry and the remedy."""
    with pytest.raises(ConfigError, match="provider") as refused:
        providers_of(table)
    assert said in refused.value.message


async def test_the_fake_refuses_what_is_not_in_its_script(tmp_path: Path) -> None:
    """So that a test sees it; without a script it says what it is told; a function answers each request."""
    async with FakeModels("one") as fake:
        rows = [asking(edge="B"), asking() | {"Node": "B"}]
        done = await run(tmp_path, rows, {"text": "x"}, config=settings(fake))
    assert "The script of FakeModels has 1 entries; this is request 2" in done["error"]["message"]
    async with FakeModels() as fake:
        assert (await ask(tmp_path, fake, asking()))["result"]["answer"] == "Hello"
    async with FakeModels(lambda asked: asked.user.upper(), repeat=True) as fake:
        assert (await ask(tmp_path, fake, asking()))["result"]["answer"] == "HELLO"
