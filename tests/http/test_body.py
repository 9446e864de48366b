"""The strict door: what a body may be, and what is said of those that are something else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faces import client, service_of
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapService
from agentmap_asgi.http.body import parse
from agentmap_asgi.http.deadlines import Deadlines
from agentmap_asgi.http.problems import Refusal

pytest_plugins = ("sources",)

JSON = {"content-type": "application/json"}
PLAIN = b'{"graph_name": "Hello"}'
DEEP = b'{"graph_name": "Hello", "initial_state": {"a": ' + b"[" * 62 + b"]" * 62 + b"}}"
HOSTILE: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "nothing": (b"", JSON, 400, "invalid_json"),
    "not JSON": (b"graph_name=Hello", JSON, 400, "invalid_json"),
    "half of it": (PLAIN[:-3], JSON, 400, "invalid_json"),
    "two of it": (PLAIN * 2, JSON, 400, "invalid_json"),
    "a byte order mark": (b"\xef\xbb\xbf" + PLAIN, JSON, 400, "invalid_json"),
    "a key twice": (b'{"graph_name": "Hello", "graph_name": "Boom"}', JSON, 400, "invalid_json"),
    "a key twice, inside": (b'{"graph_name": "Hello", "inputs": {"a": [{"b": 1, "b": 1}]}}', JSON, 400, "invalid_json"),
    "NaN": (b'{"graph_name": "Hello", "inputs": {"a": NaN}}', JSON, 400, "invalid_json"),
    "Infinity": (b'{"graph_name": "Hello", "inputs": {"a": -Infinity}}', JSON, 400, "invalid_json"),
    "1e400": (b'{"graph_name": "Hello", "inputs": {"a": 1e400}}', JSON, 400, "invalid_json"),
    "many digits and a fraction": (b'{"inputs": {"a": ' + b"9" * 400 + b".5}}", JSON, 400, "invalid_json"),
    "an integer past 64 bits": (b'{"inputs": {"a": 18446744073709551616}}', JSON, 400, "invalid_json"),
    "ten thousand digits": (b'{"inputs": {"a": ' + b"1" * 10_000 + b"}}", JSON, 400, "invalid_json"),
    "a lone surrogate": (b'{"graph_name": "\\ud800"}', JSON, 400, "invalid_json"),
    "a lone surrogate as a key": (b'{"graph_name": "Hello", "inputs": {"\\uDC00": 1}}', JSON, 400, "invalid_json"),
    "bytes that are not UTF-8": (b'{"graph_name": "\xff"}', JSON, 400, "invalid_json"),
    "a surrogate in UTF-8": (b'{"graph_name": "\xed\xa0\x80"}', JSON, 400, "invalid_json"),
    "UTF-16": (PLAIN.decode().encode("utf-16"), JSON, 400, "invalid_json"),
    "another charset": (PLAIN, {"content-type": "application/json; charset=latin-1"}, 400, "invalid_json"),
    "a control character": (b'{"graph_name": "a\x01"}', JSON, 400, "invalid_json"),
    "nested too deep": (DEEP.replace(b"[]", b"[[]]"), JSON, 400, "json_too_complex"),
    "a hundred thousand brackets": (b"[" * 100_000, JSON, 400, "json_too_complex"),
    "too many values": (b"[" + b"1," * 100_000 + b"1]", JSON, 400, "json_too_complex"),
    "too many empty lists": (b"[" + b"[]," * 100_000 + b"1]", JSON, 400, "json_too_complex"),
    "only closing brackets": (b"]" * 1_000, JSON, 400, "invalid_json"),
    "quotes without an end": (b'"' + b'\\"' * 500_000, JSON, 400, "invalid_json"),
    "more than a megabyte": (b" " * (1024 * 1024 + 1), JSON, 413, "body_too_large"),
    "no content type": (PLAIN, {}, 415, "unsupported_media_type"),
    "a form": (
        b"graph_name=Hello",
        {"content-type": "application/x-www-form-urlencoded"},
        415,
        "unsupported_media_type",
    ),
    "plain text": (PLAIN, {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    "gzip": (PLAIN, {**JSON, "content-encoding": "gzip"}, 415, "unsupported_media_type"),
    "a text": (b'"Hello"', JSON, 422, "invalid_request"),
    "a list": (b"[]", JSON, 422, "invalid_request"),
    "null": (b"null", JSON, 422, "invalid_request"),
    "no graph_name": (b"{}", JSON, 422, "invalid_request"),
    "an empty graph_name": (b'{"graph_name": ""}', JSON, 422, "invalid_request"),
    "a number for graph_name": (b'{"graph_name": 5}', JSON, 422, "invalid_request"),
    "an endless graph_name": (b'{"graph_name": "' + b"x" * 100_000 + b'"}', JSON, 422, "invalid_request"),
    "a list as state": (b'{"graph_name": "Hello", "initial_state": []}', JSON, 422, "invalid_request"),
    "a state twice": (b'{"graph_name": "Hello", "initial_state": {}, "inputs": {}}', JSON, 422, "invalid_request"),
    "an unknown workflow": (b'{"graph_name": "../../etc/passwd"}', JSON, 404, "workflow_unknown"),
    "an ambiguous workflow": (b'{"graph_name": "Twin"}', JSON, 409, "workflow_ambiguous"),
    "a broken workflow": (b'{"graph_name": "Bad"}', JSON, 409, "graph_invalid"),
}
FINE: dict[str, bytes] = {
    "spaces around": b" \r\n\t" + PLAIN + b"\n",
    "as deep as may be": DEEP,
    "brackets in a text": b'{"graph_name": "Hello", "inputs": {"a": "' + b"[{" * 10_000 + b'"}}',
    "as many values as may be": b'{"graph_name": "Hello", "inputs": {"a": [' + b"1," * 99_995 + b"1]}}",
    "commas in a text": b'{"graph_name": "Hello", "inputs": {"a": "' + b"," * 200_000 + b'"}}',
    "the largest integer": b'{"graph_name": "Hello", "inputs": {"a": 18446744073709551615}}',
    "the smallest integer": b'{"graph_name": "Hello", "inputs": {"a": -9223372036854775808}}',
    "a large number": b'{"graph_name": "Hello", "inputs": {"a": 1.5e308}}',
    "a tiny number": b'{"graph_name": "Hello", "inputs": {"a": 1e-400}}',
    "a pair of surrogates": b'{"graph_name": "Hello", "inputs": {"a": "\\ud83d\\ude00"}}',
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_body_is_refused(name: str, service: AgentMapService) -> None:
    """With its own status and code, and never with its own words."""
    content, headers, status, code = HOSTILE[name]
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 2_000


@pytest.mark.anyio
@pytest.mark.parametrize("name", FINE)
async def test_an_unusual_body_is_taken(name: str, service: AgentMapService) -> None:
    """What looks dangerous from afar and is not."""
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute", content=FINE[name], headers=JSON)
    assert answer.status_code == 200, answer.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"', "application/json;x=y"]
)
async def test_parameters_of_the_content_type_are_tolerated(content_type: str, service: AgentMapService) -> None:
    """So long as they say UTF-8."""
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute", content=PLAIN, headers={"content-type": content_type})
    assert answer.status_code == 200


@pytest.mark.anyio
async def test_a_declared_length_is_refused_before_the_body(service: AgentMapService) -> None:
    """Nothing is read of a body that says that it is too large."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"9" * 30)]
    scope = {"type": "http", "method": "POST", "path": "/execute", "headers": headers, "query_string": b""}
    await AgentMapApp(service=service)(scope, receive, send)
    assert sent[0]["status"] == 413


@pytest.mark.anyio
async def test_a_streamed_body_is_bounded(service: AgentMapService) -> None:
    """Without a length it is read up to the limit, and not further."""
    pieces = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal pieces
        while True:
            pieces += 1
            yield b" " * 100_000

    receive, sent, send = streamed(stream())
    scope = {"type": "http", "method": "POST", "path": "/execute", "query_string": b""}
    await AgentMapApp(service=service)(scope | {"headers": [(b"content-type", b"application/json")]}, receive, send)
    assert sent[0]["status"] == 413
    assert pieces == 11


def streamed(stream: AsyncIterator[bytes]) -> Any:
    """ASGI's receive for a body in pieces, the messages sent, and ASGI's send."""
    sent: list[Message] = []

    async def receive() -> Message:
        try:
            return {"type": "http.request", "body": await anext(stream), "more_body": True}
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    return receive, sent, send


@pytest.mark.anyio
async def test_a_body_in_pieces_is_put_together(service: AgentMapService) -> None:
    """Also when it comes byte by byte."""

    async def stream() -> AsyncIterator[bytes]:
        for byte in PLAIN:
            yield bytes([byte])

    receive, sent, send = streamed(stream())
    scope = {"type": "http", "method": "POST", "path": "/execute", "query_string": b""}
    await AgentMapApp(service=service)(scope | {"headers": [(b"content-type", b"application/json")]}, receive, send)
    assert sent[0]["status"] == 200


@pytest.mark.anyio
@pytest.mark.parametrize("first", [b"", PLAIN[:5]], ids=["at once", "after a piece"])
async def test_a_client_that_leaves_is_not_an_error(first: bytes, service: AgentMapService) -> None:
    """The connection ended before the body: nothing is started, nothing is logged as an error of ours."""
    messages: list[Message] = [{"type": "http.disconnect"}]
    if first:
        messages.insert(0, {"type": "http.request", "body": first, "more_body": True})
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/execute", "query_string": b""}
    await AgentMapApp(service=service)(scope | {"headers": [(b"content-type", b"application/json")]}, receive, send)
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["code"] == "body_incomplete"


@pytest.mark.anyio
async def test_a_body_that_does_not_come_is_given_up(folder: Path) -> None:
    """408 after `body_timeout`, and the task is as good as new."""
    app = AgentMapApp(service=await service_of(folder, AgentMapConfig(body_timeout=0.04)))
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        await asyncio.sleep(0)  # raises if the task were still being cancelled
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/execute", "query_string": b""}
    await app(scope | {"headers": [(b"content-type", b"application/json")]}, receive, send)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["code"] == "body_timeout"


@pytest.mark.anyio
async def test_a_cancelled_wait_is_cancelled() -> None:
    """Somebody else's cancellation is not taken for a deadline, and deadlines begin again after a pause."""
    deadlines = Deadlines()
    task = asyncio.create_task(deadlines.within(60, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(2):
        assert await deadlines.within(0.001, asyncio.sleep(0, "done")) == "done"
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await deadlines.within(0.001, asyncio.Event().wait())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)  # fmt: skip


@given(value=json_values, escaped=st.booleans(), wide=st.booleans())
def test_plain_json_is_read_as_it_is(value: Any, escaped: bool, wide: bool) -> None:
    """Whatever JSON can hold comes back unchanged, however it was written."""
    text = json.dumps(value, ensure_ascii=escaped, indent=1 if wide else None)
    assert parse(text.encode()) == value


@given(st.binary() | st.text('[]{}",:\\u01d8eE.-+ntf ').map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No bytes raise anything but a refusal; what is read can be written again."""
    with suppress(Refusal):
        value = parse(data, max_depth=4, max_values=6)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        assert json.loads(data) == value
        assert depth_of(value) <= 4
        assert count_of(value) <= 6


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def count_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count_of, inner))


@given(json_values)
def test_the_bounds_are_exact(value: Any) -> None:
    """A body exactly at its depth and its number of values is taken, one past either is not."""
    data = json.dumps(value).encode()
    depth, count = depth_of(value), count_of(value)
    assert parse(data, max_depth=depth, max_values=count) == value
    with pytest.raises(Refusal, match="more than"):
        parse(data, max_depth=depth, max_values=count - 1)
    if depth:
        with pytest.raises(Refusal, match="deeper"):
            parse(data, max_depth=depth - 1, max_values=count)
