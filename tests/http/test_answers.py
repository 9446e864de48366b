"""What callers get: documents, problems, headers."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from faces import client, service_of
from starlette.exceptions import HTTPException

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapService
from agentmap_asgi.errors import Overloaded, ShuttingDown
from agentmap_asgi.execution.writing import encode, plain_json
from agentmap_asgi.workflows.checks import RESERVED

pytest_plugins = ("sources",)

HELLO = {"graph_name": "Hello", "initial_state": {"name": "Ada"}}


@pytest.mark.anyio
async def test_a_run_answers_its_document(service: AgentMapService) -> None:
    """The keys of the guide, the final state as `result`, and no key of ours in it."""
    async with client(AgentMapApp(service=service)) as http:
        document = (await http.post("/execute", json=HELLO)).json()
    assert document["success"] is True
    assert document["status"] == "completed"
    assert document["graph_name"] == "Hello"
    assert document["result"] == {"name": "Ada", "greeting": "Hello Ada!", "farewell": "Bye Ada!"}
    assert document["error"] is None
    assert document["nodes_executed"] == 2
    assert document["execution_time"] > 0
    own = f"/executions/{document['execution_id']}"
    links = {"self": own} | {name: f"{own}/{name}" for name in ("events", "stream", "graph", "nodes", "retry")}
    assert document["links"] == links | {"workflow": "/Hello"}
    assert "outputs" not in document


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/execute/Hello", "/execute/greetings/Hello", "/execute/greetings.csv/Hello"])
async def test_agentmaps_own_clients_are_answered(path: str, service: AgentMapService) -> None:
    """They send `inputs` and perhaps an `execution_id`, and read `outputs`."""
    async with client(AgentMapApp(service=service)) as http:
        document = (await http.post(path, json={"inputs": {"name": "Ada"}, "execution_id": "mine-1"})).json()
    assert document["outputs"] == document["result"]
    assert document["result"]["greeting"] == "Hello Ada!"
    assert document["execution_id"] == "mine-1"


@pytest.mark.anyio
async def test_a_run_that_fails_is_an_answer(service: AgentMapService) -> None:
    """200 with `success` false: the request was fine."""
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute", json={"graph_name": "Boom"})
    assert answer.status_code == 200
    assert answer.json()["success"] is False
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"]["code"] == "agent_error"


@pytest.mark.anyio
async def test_all_wrong_fields_are_named(service: AgentMapService) -> None:
    """Each with a JSON pointer, a code and what was probably meant; never with its value."""
    body = {
        "graph_nam": "s3cret",
        "initial_state": {"error": "s3cret"},
        "context": "s3cret",
        "execution_id": "s3cret s3cret",
        "mode": "s3cret",
        "a/b~c": "s3cret",
    }
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute", json=body)
    assert answer.status_code == 422
    assert "s3cret" not in answer.text
    found = {error["pointer"]: (error["code"], error["message"]) for error in answer.json()["errors"]}
    assert found["/graph_name"][0] == "missing"
    assert found["/graph_nam"] == ("unknown_field", "This field is unknown; did you mean 'graph_name'?")
    assert found["/a~1b~0c"] == ("unknown_field", "This field is unknown")
    assert found["/initial_state/error"] == ("reserved_field", "The run itself sets error")
    assert found["/context"] == ("dict_type", "This must be an object")
    assert found["/execution_id"][0] == "string_pattern_mismatch"
    assert found["/mode"] == ("literal_error", "This must be 'sync' or 'async'")
    assert answer.json()["detail"].endswith(", and 6 more")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/execute", [], "the body: This must be an object"),
        ("/execute", None, "the body: This must be an object"),
        ("/execute", {}, "/graph_name: This field is required"),
        ("/execute", {"graph_name": 1}, "/graph_name: This must be a text"),
        ("/execute", {"graph_name": ""}, "/graph_name: Its length must be 1 or more"),
        ("/execute", {"graph_name": "A", "mode": "fast"}, "/mode: This must be 'sync' or 'async'"),
        ("/execute/Hello", {"inputs": []}, "/inputs: This must be an object"),
        ("/execute/batch", {"executions": {}}, "/executions: This must be a list"),
        ("/execute/batch", {"executions": [], "max_concurrency": 0}, "/max_concurrency: This must be 1 or more"),
        (
            "/execute/batch",
            {"executions": [], "max_concurrency": True},
            "/max_concurrency: This must be a whole number",
        ),
    ],
)
async def test_wrong_shapes_are_told_in_plain_words(path: str, body: Any, said: str, service: AgentMapService) -> None:
    """Without the names of classes that nobody outside knows."""
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        batch = await http.post("/execute/batch", json={"executions": [body]})
    assert (answer.status_code, answer.json()["detail"]) == (422, said)
    for text in (answer.text, batch.text):
        assert not re.search("Body|Item|dictionary|instance of|Input should", text)


@pytest.mark.anyio
async def test_thousands_of_wrong_fields_are_one_short_answer(service: AgentMapService) -> None:
    """Twenty are named, however long their names are."""
    body = {f"field{number}{'x' * 900}": number for number in range(1_000)}
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute", json=body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20
    assert len(answer.content) < 10_000


@pytest.mark.anyio
async def test_missing_inputs_are_named(folder: Path) -> None:
    """Under `strict_inputs`, before any node runs."""
    service = await service_of(folder, AgentMapConfig(strict_inputs=True))
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute", json={"graph_name": "Hello"})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/initial_state/name"]


@pytest.mark.anyio
async def test_a_problem_says_what_a_client_needs(service: AgentMapService) -> None:
    """All members of RFC 9457, a stable code and the request's id."""
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.get("/Helo", headers={"X-Request-ID": "abc-1"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no workflow of this name; did you mean 'Hello'?",
        "instance": "/Helo",
        "code": "workflow_unknown",
        "request_id": "abc-1",
    }


@pytest.mark.anyio
async def test_an_ambiguous_name_lists_what_it_may_mean(service: AgentMapService) -> None:
    """And each of these names answers."""
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.get("/Twin")
        assert answer.status_code == 409
        names = [error["message"] for error in answer.json()["errors"]]
        assert sorted(names) == ["greetings::Twin", "others::Twin"]
        found = [(await http.post("/execute", json={"graph_name": name})).json()["result"]["one"] for name in names]
        assert sorted(found) == ["first", "second"]


@pytest.mark.anyio
async def test_a_broken_workflow_says_what_is_wrong_with_it(service: AgentMapService) -> None:
    """It cannot be started, and can be looked at."""
    async with client(AgentMapApp(service=service)) as http:
        refused = await http.post("/execute/Bad", json={})
        assert (refused.status_code, refused.json()["code"]) == (409, "graph_invalid")
        assert {error["code"] for error in refused.json()["errors"]} == {"AM-A001", "AM-R001"}
        definition = (await http.get("/Bad")).json()
        assert definition["status"] == "broken"
        assert {found["code"] for found in definition["diagnostics"]} >= {"AM-A001", "AM-R001"}


@pytest.mark.anyio
async def test_request_ids_are_kept_when_they_are_sound(service: AgentMapService) -> None:
    """Up to 128 visible ASCII characters; anything else gets a new one."""
    async with client(AgentMapApp(service=service)) as http:
        for given in (b"a", b"x" * 128, b"01J-id:~!"):
            assert (await http.get("/health", headers={b"x-request-id": given})).headers[
                "x-request-id"
            ] == given.decode()
        for given in (b"", b"x" * 129, b"a b", b"\xc3\xa4", b"a\tb"):
            answer = await http.get("/health", headers={b"x-request-id": given})
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "/%2e%2e",
        "/%2e%2e%2fetc%2fpasswd",
        "/../../etc/passwd",
        "/workflows/..%2f..%2fetc/passwd",
        "/workflows/%00",
        "/%00",
        "/%0d%0aSet-Cookie:%20a=b",
        "/" + "x" * 7_000,
        "/" + "x" * 70_000,
        "/%ff%fe",
        "/a::b::c",
        "/workflows/",
        "/workflows//",
        "//evil.example/list",
        "/{workflow_name}",
        "/%7Bworkflow_name%7D/graph",
        "/Hello/graph/x",
        "/Hello/unknown",
        "/.",
        "",
    ],
)
async def test_hostile_paths_are_not_found(path: str, service: AgentMapService) -> None:
    """A name is a key of the catalogue and nothing else; the answer is a short problem, wherever the path leads."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(path, errors="replace"),
        "query_string": b"",
        "headers": [],
    }
    await AgentMapApp(service=service)(scope, receive, send)
    assert sent[0]["status"] == 404
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert b"\n" not in b"".join(headers.values())
    problem = json.loads(sent[1]["body"])
    assert problem["instance"].startswith("/")
    assert not problem["instance"].startswith("//")
    assert len(problem["detail"]) < 200


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(RESERVED))
async def test_reserved_words_are_never_workflows(name: str, granted: AgentMapService) -> None:
    """What is no operation yet is not found; a workflow cannot take its place."""
    async with client(AgentMapApp(service=granted)) as http:
        for path in (f"/{name}", f"/{name}/graph", f"/{name}/schema"):
            answer = await http.get(path)
            assert answer.status_code in (200, 307, 404, 405), path
            if answer.status_code not in (200, 307):
                assert answer.json()["code"] != "workflow_unknown" or name == "workflows"


@pytest.mark.anyio
async def test_drawings_are_text_that_stays_text(service: AgentMapService) -> None:
    """Mermaid and DOT have types of their own, and browsers are told not to guess; other formats are refused."""
    async with client(AgentMapApp(service=service)) as http:
        mermaid = await http.get("/Hello/graph?format=mermaid")
        assert mermaid.headers["content-type"] == "text/vnd.mermaid; charset=utf-8"
        assert mermaid.headers["x-content-type-options"] == "nosniff"
        assert mermaid.text.startswith("flowchart")
        dot = await http.get("/Hello/graph?format=dot")
        assert dot.headers["content-type"] == "text/vnd.graphviz; charset=utf-8"
        image = await http.get("/Hello/graph?format=svg")
        assert image.headers["content-type"] == "image/svg+xml; charset=utf-8"
        assert image.headers["content-security-policy"].startswith("default-src 'none';")
        assert image.headers["x-content-type-options"] == "nosniff"
        assert image.text.startswith("<svg ")
        drawing = (await http.get("/Hello/graph?format=json")).json()
        assert [(edge["source"], edge["target"]) for edge in drawing["edges"]] == [("Greet", "Part")]
        refused = await http.get("/Hello/graph?format=exe")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.anyio
async def test_the_list_is_sent_once(service: AgentMapService) -> None:
    """A client that knows the list's ETag gets 304; after a run the statistics are others, and so is the tag."""
    async with client(AgentMapApp(service=service)) as http:
        first = await http.get("/list")
        tag = first.headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await http.get("/list", headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert "content-type" not in again.headers
        assert (await http.get("/list", headers={"if-none-match": '"other"'})).status_code == 200
        await http.post("/execute", json=HELLO)
        assert (await http.get("/list", headers={"if-none-match": tag})).status_code == 200
    names = {workflow["name"]: workflow["status"] for workflow in first.json()["workflows"]}
    assert names["Hello"] == "ok"
    assert names["Bad"] == "broken"
    assert first.json()["total_count"] == len(first.json()["workflows"])


@pytest.mark.anyio
async def test_odd_names_are_called_by_their_links(service: AgentMapService) -> None:
    """Spaces and signs are quoted."""
    async with client(AgentMapApp(service=service)) as http:
        run = (await http.post("/execute", json={"graph_name": "two words & a %"})).json()
        assert run["links"]["workflow"] == "/two%20words%20&%20a%20%25"
        assert (await http.get(run["links"]["workflow"])).json()["name"] == "two words & a %"


@pytest.mark.anyio
async def test_a_file_is_validated_and_forgotten(service: AgentMapService) -> None:
    """Every diagnostic of the bytes sent; the catalogue stays as it is."""
    content = b"GraphName,Node,AgentType,Edge\nNew,A,ecko,B\n"
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/validate?file=new.csv", content=content, headers={"content-type": "text/csv"})
        found = answer.json()
        assert found["valid"] is False
        assert {one["code"] for one in found["diagnostics"]} == {"AM-A001", "AM-R001"}
        assert {one["file"] for one in found["diagnostics"]} == {"new.csv"}
        assert (await http.get("/New")).status_code == 404
        refused = await http.post("/validate", content=content, headers={"content-type": "image/png"})
        assert refused.status_code == 415
        garbage = await http.post("/validate", content=bytes(range(256)) * 40, headers={"content-type": "text/csv"})
        assert garbage.json()["valid"] is False


@pytest.mark.anyio
async def test_a_file_is_validated_beside_the_event_loop(folder: Path) -> None:
    """Other requests are answered meanwhile."""
    asked = threading.Event()

    class Waiting(AgentMapService):
        def validate_workflows(self, data: bytes, file: str = "upload.csv", sheet: str | None = None) -> dict[str, Any]:
            assert asked.wait(60)
            return super().validate_workflows(data, file, sheet)

    made = await service_of(folder, kind=Waiting)
    content = b"GraphName,Node\nNew,A\n"
    async with client(AgentMapApp(service=made)) as http, create_task_group() as tasks:
        answers = []

        async def validate() -> None:
            answers.append(await http.post("/validate", content=content, headers={"content-type": "text/csv"}))

        tasks.start_soon(validate)
        await checkpoint()
        assert (await http.get("/health")).status_code == 200
        asked.set()
    assert answers[0].json()["valid"] is True


class Raising(AgentMapService):
    """Refuses every run with `error`."""

    error: Exception

    async def execute_workflow(self, graph_name: str, initial_state: dict[str, Any], context: Any = None) -> Any:
        raise self.error


async def raised(folder: Path, error: Exception) -> Any:
    service = await service_of(folder, kind=Raising)
    assert isinstance(service, Raising)
    service.error = error
    async with client(AgentMapApp(service=service)) as http:
        return await http.post("/execute", json=HELLO)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [Overloaded(), ShuttingDown()], ids=lambda error: error.code)
async def test_a_busy_process_says_when_to_come_back(folder: Path, error: Overloaded | ShuttingDown) -> None:
    """503 with `Retry-After`."""
    answer = await raised(folder, error)
    assert (answer.status_code, answer.json()["code"]) == (503, error.code)
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.anyio
async def test_an_unforeseen_error_is_logged_and_not_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """500 is a problem like any other; the log has the traceback and the request's id."""
    answer = await raised(folder, ValueError("postgres://user:s3cret@db"))
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "s3cret" not in answer.text
    (record,) = [
        record for record in caplog.records if record.name == "agentmap_asgi.http" and record.levelname == "ERROR"
    ]
    assert answer.headers["x-request-id"] in record.getMessage()
    assert record.exc_info is not None
    assert "s3cret" in str(record.exc_info[1])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "code", "header"),
    [
        (401, "unauthenticated", "www-authenticate"),
        (403, "forbidden", "content-type"),
        (418, "invalid_request", "content-type"),
        (429, "too_many_requests", "retry-after"),
        (599, "internal_error", "content-type"),
    ],
)
async def test_exceptions_of_hosts_become_problems(folder: Path, status: int, code: str, header: str) -> None:
    """An HTTPException keeps its status and its detail, and gets the header that its status needs."""
    answer = await raised(folder, HTTPException(status, "not today"))
    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (status, code, "not today")
    assert answer.headers[header]
    assert answer.headers["content-type"] == "application/problem+json"


class Odd(AgentMapService):
    """Answers with what JSON cannot write."""

    async def format_execution_response(
        self, result: dict[str, Any], request_context: dict[str, Any]
    ) -> dict[str, Any]:
        return {"when": object()}


@pytest.mark.anyio
async def test_an_answer_that_is_not_json_is_a_500(folder: Path) -> None:
    """And no half of a response."""
    async with client(AgentMapApp(service=await service_of(folder, kind=Odd))) as http:
        assert (await http.post("/execute", json=HELLO)).status_code == 500


@pytest.mark.parametrize("value", [{}, [1.5, None, True], {"ä": "\u2028"}, 2**70, {1: "int key"}])
def test_json_is_the_same_with_and_without_orjson(value: Any) -> None:
    """orjson makes it faster, not different."""
    assert json.loads(encode(value)) == json.loads(plain_json(value))


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, b"bytes"])
def test_what_json_cannot_write_is_refused_by_both(value: Any) -> None:
    """TypeError, whichever library is installed."""
    for write in (encode, plain_json):
        with pytest.raises(TypeError):
            write(value)


@pytest.mark.anyio
async def test_websockets_are_refused(service: AgentMapService) -> None:
    """Before they are accepted; other protocols are an error of the server."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    app = AgentMapApp(service=service)
    await app({"type": "websocket", "path": "/list"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    with pytest.raises(RuntimeError, match="smtp"):
        await app({"type": "smtp"}, receive, send)
