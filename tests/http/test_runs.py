"""How requests become runs: context, overrides, disconnects, batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from faces import ASKED, GUARDED, ROWS, WAYS, Gate, Way, client, everyone, service_of
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapService
from agentmap_asgi.testing import FakeClock

pytest_plugins = ("sources",)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def saying(app: ASGIApp, words: Any) -> ASGIApp:
    """A host whose middleware sets `request.state.workflow_context`."""

    async def host(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["workflow_context"] = words
        await app(scope, receive, send)

    return host


async def told(app: ASGIApp, context: Any = None, **headers: str) -> Any:
    async with client(app) as http:
        body = {"graph_name": "Tell"} | ({"context": context} if context is not None else {})
        answer = await http.post(
            "/execute", json=body, headers={key.replace("_", "-"): v for key, v in headers.items()}
        )
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]["told"]


@pytest.mark.anyio
async def test_a_run_knows_its_request(folder: Path) -> None:
    """Request id, trace and time are there; the principal is null when nobody is known."""
    clock = FakeClock(0)
    clock.advance(1.5)
    app = AgentMapApp(service=await service_of(folder, clock=clock))
    assert await told(app, x_request_id="r-1", traceparent=TRACE) == {
        "principal": None,
        "request_id": "r-1",
        "traceparent": TRACE,
        "timestamp": "1970-01-01T00:00:01.500000Z",
    }


@pytest.mark.anyio
async def test_a_short_body_may_hold_a_state_that_weighs_too_much(folder: Path) -> None:
    """Short bodies are not weighed, and this one is not short enough for the limit."""
    app = AgentMapApp(service=await service_of(folder, config=AgentMapConfig(max_state_bytes=600)))
    async with client(app) as http:
        for digits, status in ((20, 200), (50, 200), (70, 422)):
            body = {"graph_name": "Tell", "initial_state": {"digits": [1] * digits}}
            assert len(str(body)) < 600
            answer = await http.post("/execute", json=body)
            assert answer.status_code == status, answer.text


@pytest.mark.anyio
async def test_callers_cannot_pretend(folder: Path) -> None:
    """What the body says of the principal, the request and the trace does not count."""
    app = AgentMapApp(service=await service_of(folder))
    lies = {"principal": "admin", "request_id": "lie", "timestamp": "lie", "traceparent": "lie", "colour": "red"}
    found = await told(app, lies, x_request_id="r-1")
    assert found["principal"] is None
    assert found["request_id"] == "r-1"
    assert found["timestamp"] != "lie"
    assert "traceparent" not in found
    assert found["colour"] == "red"


@pytest.mark.anyio
async def test_the_hosts_words_win(folder: Path) -> None:
    """`request.state.workflow_context` beats the body and what we would say ourselves, except for the principal."""
    app = AgentMapApp(service=await service_of(folder))
    words = {"request_id": "host-1", "user_id": 5, "principal": "from-middleware"}
    found = await told(saying(app, words), {"user_id": 6}, x_request_id="r-1")
    assert (found["request_id"], found["user_id"], found["principal"]) == ("host-1", 5, "from-middleware")
    known = AgentMapApp(service=await service_of(folder, authenticate=lambda request: "ada"))
    assert (await told(saying(known, words)))["principal"] == "ada"


@pytest.mark.anyio
@pytest.mark.parametrize("words", ["text", {"when": object()}], ids=["not a dict", "not JSON"])
async def test_words_that_are_not_json_are_the_hosts_mistake(words: Any, folder: Path) -> None:
    """500, and the log says which."""
    app = saying(AgentMapApp(service=await service_of(folder)), words)
    async with client(app) as http:
        assert (await http.post("/execute", json={"graph_name": "Tell"})).status_code == 500


class Wrapped(AgentMapService):
    """Overrides what the guide overrides, and remembers the calls."""

    calls: list[tuple[Any, ...]]

    async def execute_workflow(self, *args: Any) -> dict[str, Any]:
        self.calls.append(args)
        result = await super().execute_workflow(*args)
        self.calls.append(("done",))
        return {**result, "wrapped": True}

    async def format_execution_response(self, result: Any, request_context: Any) -> dict[str, Any]:
        return {"data": result["result"], "links": result["links"], "request": request_context["request_id"]}


async def wrapped(folder: Path, **context: Any) -> Wrapped:
    service = await service_of(folder, kind=Wrapped, **context)
    assert isinstance(service, Wrapped)
    service.calls = []
    return service


@pytest.mark.anyio
async def test_overrides_are_called_with_three_arguments(folder: Path) -> None:
    """`execute_workflow(graph_name, initial_state, context)`, in that order, whatever the request held besides."""
    service = await wrapped(folder)
    body = {"graph_name": "Hello", "initial_state": {"name": "Ada"}, "execution_id": "e-1"}
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute", json=body, headers={"x-request-id": "r-1"})
        found = answer.json()
        assert found["links"]["workflow"] == "/Hello"
        assert (found["data"]["greeting"], found["request"]) == ("Hello Ada!", "r-1")
        later = await http.post("/execute", json={**body, "execution_id": "e-2", "mode": "async"})
        assert later.json()["execution_id"] == "e-2", "an execution that has not ended is not shaped"
        assert (await http.post("/execute/Hello", json={"inputs": {}})).json().keys() == {"data", "links", "request"}
        batch = (await http.post("/execute/batch", json={"executions": [{"graph_name": "Hello"}]})).json()
        assert batch["executions"][0]["execution"].keys() == {"data", "links", "request"}
    (name, state, context), *_ = service.calls
    assert (name, state, context["request_id"]) == ("Hello", {"name": "Ada"}, "r-1")


class Plain(Wrapped):
    """Wraps the call only."""

    format_execution_response = AgentMapService.format_execution_response


@pytest.mark.anyio
async def test_the_callers_execution_id_reaches_the_run_through_an_override(folder: Path) -> None:
    """It travels beside the three arguments."""
    service = await service_of(folder, kind=Plain)
    assert isinstance(service, Plain)
    service.calls = []
    async with client(AgentMapApp(service=service)) as http:
        answer = (await http.post("/execute", json={"graph_name": "Hello", "execution_id": "e-1"})).json()
    assert (answer["execution_id"], answer["wrapped"]) == ("e-1", True)


class Filtering(AgentMapService):
    """Lets no greeting out, and writes down who asked."""

    asked: list[Any]

    async def filter_response(self, document: Any, request_context: Any) -> dict[str, Any]:
        self.asked.append(request_context["principal"])
        document.pop("links", None)
        for part in ("result", "properties", "state_delta", "events", "nodes"):
            if part in document:
                document[part] = {}
        return {**document, "seen": True}


@pytest.mark.anyio
@pytest.mark.parametrize("way", [WAYS[0], WAYS[-1]], ids=lambda way: way.name)
async def test_the_host_sees_every_document_that_leaves(way: Way, folder: Path) -> None:
    """`filter_response` is called for each operation's JSON, for each item of a batch, and with who asks."""
    service = await service_of(
        folder, kind=Filtering, authenticate=lambda request: "ada", authorize=everyone, public={"health"}
    )
    assert isinstance(service, Filtering)
    service.asked = []
    async with way.client(service) as http:
        for name, asked in GUARDED.items():
            if name == "health":
                before = len(service.asked)
            answer = await asked.send(http, ROWS[name])
            assert "Hello Ada" not in answer.text
            if name == "health":
                assert service.asked[before:] == [None]
            if ROWS[name].answer is None:  # a text, like a drawing
                continue
            sent = answer.json()
            document = sent["executions"][0]["execution"] if name == "execute_batch" else sent
            assert document["seen"] is True
        assert set(service.asked) == {None, "ada"}
        answer = await http.post("/execute/Hello", json={"inputs": {"name": "Ada"}})
        assert answer.json()["outputs"] == {}
        tag = (await http.get("/list")).headers["etag"]
        assert (await http.get("/list", headers={"if-none-match": tag})).status_code == 304
        assert "seen" not in (await http.get("/nothing-here")).json()
        assert (await http.get("/Hello/graph?format=dot")).text.startswith("digraph")
    assert service.get_workflow_schema("Hello")["properties"]
    assert "name" in service.get_workflow_definition("Hello")["input_schema"]["properties"]


class FailingFilter(AgentMapService):
    async def filter_response(self, document: Any, request_context: Any) -> dict[str, Any]:
        raise RuntimeError("the key server is gone")


@pytest.mark.anyio
async def test_what_cannot_be_filtered_does_not_leave(folder: Path) -> None:
    """A filter that raises is a 500 without the document, and a refused item in a batch."""
    async with client(AgentMapApp(service=await service_of(folder, kind=FailingFilter, authorize=everyone))) as http:
        for name, asked in GUARDED.items():
            answer = await asked.send(http, ROWS[name])
            whole = name != "execute_batch" and (ROWS[name].answer is not None or name.endswith("stream"))
            assert answer.status_code == (500 if whole else asked.status)
            assert "Hello Ada" not in answer.text
            assert "key server" not in answer.text
        batch = await ASKED["execute_batch"].send(http, ROWS["execute_batch"])
        assert batch.json()["executions"][0]["status"] == "refused"


Host = Callable[[ASGIApp], ASGIApp]


def behind_base_http_middleware(app: ASGIApp) -> ASGIApp:
    """As hosts write `@app.middleware("http")`."""

    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.workflow_context = {"through": "middleware"}
        response = await call_next(request)
        response.headers["x-host"] = "yes"
        return response

    host = Starlette()
    host.mount("/", app)
    host.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    return host


@pytest.mark.anyio
async def test_hosts_with_middleware_are_fine(folder: Path) -> None:
    """BaseHTTPMiddleware sees the response, and its words reach the run."""
    app = behind_base_http_middleware(AgentMapApp(service=await service_of(folder)))
    assert (await told(app))["through"] == "middleware"
    async with client(app) as http:
        assert (await http.get("/list")).headers["x-host"] == "yes"
        assert (await http.head("/list")).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("host", [lambda app: app, behind_base_http_middleware], ids=["bare", "BaseHTTPMiddleware"])
@pytest.mark.parametrize("kind", [AgentMapService, Plain], ids=["base", "override"])
async def test_a_request_that_is_cancelled_does_not_cancel_its_run(
    host: Host, kind: type[AgentMapService], folder: Path
) -> None:
    """The request's fate is not the execution's fate: the run ends, and so does an override around it."""
    gate = Gate()
    service = await service_of(folder, kind=kind, agents={"gate": gate})
    if isinstance(service, Plain):
        service.calls = []
    app = host(AgentMapApp(service=service))
    async with client(app) as http:
        request = asyncio.create_task(http.post("/execute", json={"graph_name": "Wait", "execution_id": "e-1"}))
        await gate.reached.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert (await service.get_execution_status("e-1"))["status"] == "running"
    gate.opened.set()
    await gate.through.wait()
    while (await service.get_execution_status("e-1"))["status"] == "running":  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0)
    assert (await service.get_execution_status("e-1"))["result"] == {"waited": "through"}
    if isinstance(service, Plain):
        while len(service.calls) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await service.aclose()


@pytest.mark.anyio
async def test_a_client_that_disconnects_does_not_cancel_its_run(folder: Path) -> None:
    """The server says `http.disconnect`; nobody is there for the answer, and the run ends."""
    gate = Gate()
    service = await service_of(folder, agents={"gate": gate})
    messages: list[Message] = [{"type": "http.request", "body": b'{"graph_name": "Wait"}'}]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Servers drop what they cannot send."""

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/execute", "headers": headers, "query_string": b""}
    request = asyncio.create_task(AgentMapApp(service=service)(scope, receive, send))
    await gate.reached.wait()
    gate.opened.set()
    await request
    assert gate.through.is_set()


class Failing(AgentMapService):
    """Its override fails after the run."""

    async def execute_workflow(self, graph_name: str, initial_state: Any, context: Any = None) -> dict[str, Any]:
        await super().execute_workflow(graph_name, initial_state, context)
        raise LookupError("after the run")


@pytest.mark.anyio
async def test_an_override_that_fails_alone_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for it any more, so the log is the only place for its error."""
    gate = Gate()
    service = await service_of(folder, kind=Failing, agents={"gate": gate})
    async with client(AgentMapApp(service=service)) as http:
        request = asyncio.create_task(http.post("/execute", json={"graph_name": "Wait"}))
        await gate.reached.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    caplog.clear()
    gate.opened.set()
    while not any(record.levelname == "ERROR" for record in caplog.records):  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0)
    assert "after its caller had gone" in caplog.text
    assert "LookupError" in caplog.text


ITEMS: list[Any] = [
    {"graph_name": "Hello", "initial_state": {"name": "Ada"}},
    {"graph_name": "Nobody"},
    5,
    {"graph_name": "Boom"},
    {"graph_name": "Hello", "initial_state": {"error": 1}},
    {"graph_name": "Hello", "inputs": {"name": "Bob"}, "unknown": 1},
    {"graph_name": "Bad"},
    {"graph_name": "Tell", "context": {"colour": "red"}},
]


@pytest.mark.anyio
@pytest.mark.parametrize("way", [WAYS[0], WAYS[-1]], ids=lambda way: way.name)
@pytest.mark.parametrize("limit", [{}, {"max_concurrency": 1}], ids=["together", "one by one"])
async def test_each_item_of_a_batch_has_its_own_outcome(way: Way, limit: Mapping[str, int], folder: Path) -> None:
    """In the order of the items; one that is refused, or fails, does not touch the others."""
    service = await service_of(folder)
    async with way.client(service) as http:
        answer = await http.post("/execute/batch", json={"executions": ITEMS, **limit})
    assert answer.status_code == 200
    batch = answer.json()
    assert (batch["total_count"], batch["refused_count"]) == (8, 5)
    assert [outcome["index"] for outcome in batch["executions"]] == list(range(8))
    found = [outcome["execution"]["success"] if outcome["status"] == "ok" else outcome["error"]["code"]
             for outcome in batch["executions"]]  # fmt: skip
    assert found == [
        True, "workflow_unknown", "invalid_request", False, "invalid_request", "invalid_request", "graph_invalid", True
    ]  # fmt: skip
    assert batch["executions"][0]["execution"]["result"]["greeting"] == "Hello Ada!"
    assert batch["executions"][4]["error"]["errors"][0]["pointer"] == "/executions/4/initial_state/error"
    assert batch["executions"][7]["execution"]["result"]["told"]["colour"] == "red"


async def post_csv(http: httpx.AsyncClient, content: str | bytes, query: str = "?graph=Hello") -> httpx.Response:
    return await http.post(
        f"/execute/batch{query}", content=content, headers={"content-type": "text/csv; charset=utf-8"}
    )


@pytest.mark.anyio
async def test_each_row_of_a_csv_is_a_run(service: AgentMapService) -> None:
    """Headers are fields, cells are texts; short rows lack fields, blank rows are none, long rows are refused."""
    async with client(AgentMapApp(service=service)) as http:
        answer = await post_csv(
            http, '\ufeffname,amount\r\nAda,1\r\n"Bob\nthe second",2,,\r\n\r\n,,\r\nEve\r\nx,1,extra\r\n'
        )
    outcomes = answer.json()["executions"]
    assert [outcome["status"] for outcome in outcomes] == ["ok", "ok", "ok", "refused"]
    results = [outcome["execution"]["result"] for outcome in outcomes[:3]]
    assert results[0]["amount"] == "1"
    assert [result["greeting"] for result in results] == ["Hello Ada!", "Hello Bob\nthe second!", "Hello Eve!"]
    assert "amount" not in results[2]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "query", "status", "code"),
    [
        ("name\nAda\n", "", 422, "invalid_request"),
        ("", "?graph=Hello", 400, "invalid_csv"),
        ("a,a\n1,2\n", "?graph=Hello", 400, "invalid_csv"),
        ("a,\n1,2\n", "?graph=Hello", 400, "invalid_csv"),
        ('a\n"1\n', "?graph=Hello", 400, "invalid_csv"),
        (b"a\n\xff\n", "?graph=Hello", 400, "invalid_csv"),
        ("a\n" + "1\n" * 4, "?graph=Hello", 422, "invalid_request"),
        ("a\n" + "x" * 1_100_000, "?graph=Hello", 413, "body_too_large"),
    ],
)
async def test_a_csv_that_is_none_is_refused(
    content: str | bytes, query: str, status: int, code: str, folder: Path
) -> None:
    """As a whole, before any row is run."""
    service = await service_of(folder, AgentMapConfig(max_batch=3))
    async with client(AgentMapApp(service=service)) as http:
        answer = await post_csv(http, content, query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


class Counting(AgentMapService):
    """Fails unexpectedly for one workflow, and counts how many run at once."""

    now = most = 0

    async def execute_workflow(self, graph_name: str, initial_state: Any, context: Any = None) -> dict[str, Any]:
        if graph_name == "Boom":
            raise KeyError("unexpected")
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return await super().execute_workflow(graph_name, initial_state, context)


@pytest.mark.anyio
async def test_a_batch_runs_a_few_at_once(folder: Path) -> None:
    """32, or `max_concurrency`; an unexpected error is the item's own."""
    service = await service_of(folder, kind=Counting)
    assert isinstance(service, Counting)
    async with client(AgentMapApp(service=service)) as http:
        items = [{"graph_name": "Hello"}] * 50 + [{"graph_name": "Boom"}]
        batch = (await http.post("/execute/batch", json={"executions": items})).json()
        assert (batch["refused_count"], batch["executions"][50]["error"]["code"]) == (1, "internal_error")
        assert service.most == 32
        service.most = 0
        await http.post("/execute/batch", json={"executions": items, "max_concurrency": 3})
        assert service.most == 3
        assert (await http.post("/execute/batch", json={"executions": []})).json()["executions"] == []


@pytest.mark.anyio
async def test_a_batch_outlives_its_request(folder: Path) -> None:
    """Items that had not begun are run all the same."""
    gate = Gate()
    service = await service_of(folder, agents={"gate": gate})
    items = [{"graph_name": "Wait"}, {"graph_name": "Hello"}]
    async with client(AgentMapApp(service=service)) as http:
        body = {"executions": items, "max_concurrency": 1}
        request = asyncio.create_task(http.post("/execute/batch", json=body))
        await gate.reached.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        gate.opened.set()
        listed: dict[str, Any] = {}
        while listed.get("Hello") != {"completed": 1}:
            await asyncio.sleep(0)
            workflows = (await http.get("/list")).json()["workflows"]
            listed = {workflow["name"]: workflow["statistics"]["executions"] for workflow in workflows}
    assert listed["Wait"] == {"completed": 1}
