"""Reloading, the audit log and the metrics over HTTP, and what a request tells them."""

from __future__ import annotations

import json
import stat
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from faces import client, everyone, everything, host_context, service_of
from fastapi import Depends, FastAPI, Request
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response
from starlette.routing import Mount

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapService, include_agentmap_routes
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.http.keys import SCOPES, new_key
from agentmap_asgi.services import audit as module
from agentmap_asgi.services.audit import Audit
from agentmap_asgi.testing import FakeClock

pytest_plugins = ("sources",)

HELLO = {"graph_name": "Hello", "initial_state": {"name": "Ada"}}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def own(tmp_path: Path) -> AgentMapService:
    """A service with files, an audit log and metrics of its own."""
    path = tmp_path / "flows" / "a.csv"
    path.parent.mkdir()
    path.write_text(
        "GraphName,Node,AgentType,Output_Field,Prompt\nHello,A,default,x,hi\nBoom,A,boom,x,\nTell,A,tell,told,\n"
    )
    return AgentMapService(
        everything(path.parent), context=host_context(authenticate=who, authorize=everyone), source=path.parent
    )


def who(request: Request) -> str | None:
    return request.headers.get("x-user", "ada") or None


async def lines(service: AgentMapService) -> list[dict[str, Any]]:
    assert service.instruments.audit is not None
    text = await to_thread.run_sync(service.instruments.audit.path.read_text)
    return [json.loads(line) for line in text.splitlines()]


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Each sample by its name and labels, without the worker."""
    return {
        (one.name, *(value for name, value in sorted(one.labels.items()) if name != "worker")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if not one.name.endswith("_created")
    }


@pytest.mark.anyio
async def test_a_reload_shows_in_the_list(own: AgentMapService) -> None:
    """What is broken is stale, with its diagnostics, and runs as before."""
    path = own.catalogue.source / "a.csv"
    text = await to_thread.run_sync(path.read_text)
    async with client(AgentMapApp(service=own)) as http:
        await to_thread.run_sync(path.write_text, text.replace("default", "defautl"))
        answer = await http.post("/reload")
        assert answer.json()["stale"] == ["a::Hello"]
        shown = {one["name"]: one for one in (await http.get("/list")).json()["workflows"]}
        assert (shown["Hello"]["status"], shown["Boom"]["status"]) == ("stale", "ok")
        assert [one["code"] for one in shown["Hello"]["diagnostics"]] == ["AM-A001"]
        assert (await http.get("/Hello")).json()["diagnostics"] == shown["Hello"]["diagnostics"]
        assert (await http.post("/execute", json=HELLO)).json()["result"]["x"] == "hi"
        await to_thread.run_sync(path.write_text, text.replace("hi", "hello") + "New,A,echo,,\n")
        found = (await http.post("/reload")).json()
        assert (found["changed"], found["added"], found["stale"]) == (["a::Hello"], ["a::New"], [])
        assert (await http.post("/execute", json=HELLO)).json()["result"]["x"] == "hello"
    (line,) = [line for line in await lines(own) if line["event"] == "reloaded"]
    assert line["changed"] == ["a::Hello"]


@pytest.mark.anyio
async def test_the_audit_log_says_who_did_what(own: AgentMapService) -> None:
    """A line when an execution is accepted, one at its end, and one for the answer; joined by their ids."""
    async with client(AgentMapApp(service=own)) as http:
        answer = await http.post("/execute", json=HELLO, headers={"x-request-id": "r-1", "traceparent": TRACE})
    started, ended, request = await lines(own)
    for line in (started, ended, request):
        assert line["principal"] == "ada"
        assert line["request_id"] == "r-1"
        assert line["execution_id"] == answer.json()["execution_id"]
        assert line["trace_id"] == TRACE[3:35]
        assert line["client"] == "127.0.0.1"
        assert line["door"] == "http"
        assert line["at"].endswith("Z")
    assert (started["event"], started["workflow"], len(started["input_sha256"])) == ("started", "a::Hello", 64)
    assert started["definition"] == own.catalogue.find("Hello").version
    assert (ended["event"], ended["execution_status"], len(ended["result_sha256"])) == ("ended", "completed", 64)
    assert (request["event"], request["operation"], request["status"]) == ("request", "execute", 200)


@pytest.mark.anyio
async def test_refusals_are_audited(own: AgentMapService) -> None:
    """With their codes: strangers, unknown workflows, items of batches, paths that do not exist, failed runs."""
    async with client(AgentMapApp(service=own)) as http:
        await http.get("/list", headers={"x-user": ""})
        await http.post("/execute", json={"graph_name": "Nobody"})
        await http.post("/execute/batch", json={"executions": [{"graph_name": "No"}, 7]})
        await http.get("/no/such/path")
        await http.post("/execute/Boom", json={})
        await http.get("/health")
    found = [(line["event"], line.get("operation"), line.get("status"), line.get("code")) for line in await lines(own)]
    assert found == [
        ("request", "list", 401, "unauthenticated"),
        ("request", "execute", 404, "workflow_unknown"),
        ("refused", "execute_workflow", None, "workflow_unknown"),
        ("refused", "execute_workflow", None, "invalid_request"),
        ("request", "execute_batch", 200, None),
        ("request", None, 404, "not_found"),
        ("started", "execute_workflow", None, None),
        ("ended", "execute_workflow", None, "agent_error"),
        ("request", "execute_graph", 200, None),
    ]


@pytest.mark.anyio
async def test_calls_in_process_are_audited(own: AgentMapService) -> None:
    """Through the door `python`, refused ones too; the principal is the context's."""
    await own.execute_workflow("Hello", {}, {"principal": {"id": 7}, "request_id": "job-1"})
    with pytest.raises(Exception, match="Nobody"):
        await own.execute_workflow("Nobody", {}, {"principal": "ada"})
    found = await lines(own)
    assert [(line["event"], line["door"], line["principal"]) for line in found] == [
        ("started", "python", "7"),
        ("ended", "python", "7"),
        ("refused", "python", "ada"),
    ]
    assert "client" not in found[0]
    await own.aclose()


@pytest.mark.anyio
async def test_the_audit_log_is_read_from_its_end(own: AgentMapService) -> None:
    """The newest first; by workflow, caller, time and number; parts of lines are passed over."""
    async with client(AgentMapApp(service=own)) as http:
        for name in ("Hello", "Boom"):
            for user in ("ada", "bob"):
                await http.post("/execute", json={"graph_name": name}, headers={"x-user": user})
        assert own.instruments.audit is not None
        path = own.instruments.audit.path
        await to_thread.run_sync(lambda: path.write_text(path.read_text() + '{"part of a line\n[1]\n'))

        async def asked(**query: Any) -> Any:
            return (await http.get("/audit", params=query)).json()

        everything = (await asked())["entries"]
        assert [line["at"] for line in everything] == sorted((line["at"] for line in everything), reverse=True)
        assert len(everything) == 12
        assert {line["workflow"] for line in (await asked(workflow="Hello"))["entries"]} == {"a::Hello", "Hello"}
        assert len((await asked(workflow="a::Hello"))["entries"]) == 4
        assert {line["principal"] for line in (await asked(principal="bob"))["entries"]} == {"bob"}
        short = await asked(limit=3)
        assert (len(short["entries"]), short["complete"]) == (3, False)
        since = everything[4]["at"]
        found = await asked(since=since, principal="bob")
        assert all(line["at"] >= since for line in found["entries"])
        assert found["complete"]
        for query in (
            {"limit": "0"},
            {"limit": "1001"},
            {"limit": "x"},
            {"since": "yesterday"},
            {"since": "2026-01-01"},
        ):
            assert (await http.get("/audit", params=query)).status_code == 422, query


def auditor(principal: str, operation: str, graph: str | None, execution: str | None = None) -> bool:
    return operation != "audit" or principal == "vera"


SECRET, KEY = new_key("vera", SCOPES)
READER: dict[str, Any] = {"headers": {"x-api-key": SECRET}}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["mounted", "included"])
@pytest.mark.parametrize(
    ("keys", "context", "status"),
    [
        ([], {}, 403),
        ([], {"authenticate": lambda request: "vera"}, 403),
        ([], {"authenticate": lambda request: "vera", "public": {"audit"}}, 403),
        ([], {"authenticate": lambda request: "vera", "authorize": auditor}, 200),
        ([], {"authenticate": lambda request: "ada", "authorize": auditor}, 403),
        ([KEY.line], {}, 200),
        ([KEY.line], {"public": {"audit"}}, 403),
        ([KEY.line], {"authenticate": lambda request: "ada"}, 200),
        ([KEY.line], {"authorize": auditor}, 200),
        ([KEY.line], {"authenticate": lambda request: "ada", "authorize": auditor}, 403),
    ],
)
async def test_being_known_is_not_enough_to_read_the_audit_log(
    kind: str, keys: list[str], context: dict[str, Any], status: int, folder: Path
) -> None:
    """A key with the scope `admin` opens it, or `authorize` does; where there is neither, it is closed."""
    service = await service_of(folder, replace(everything(folder), api_keys=keys), **context)
    host: Any = AgentMapApp(service=service)
    if kind == "included":
        host = FastAPI()
        include_agentmap_routes(host, service=service, prefix="/w")
    async with client(host, prefix="/w" if kind == "included" else "", **READER) as http:
        answer = await http.get("/audit")
        assert (answer.status_code, "entries" in answer.json()) == (status, status == 200)
        if "authorize" not in context and status == 403:
            assert "authorize" in answer.json()["detail"]


@pytest.mark.anyio
@pytest.mark.parametrize("argument", ["principal", "dependencies"])
async def test_the_hosts_own_guards_do_not_open_the_audit_log(argument: str, folder: Path) -> None:
    """They say who calls, or that somebody may call, and nothing of the log."""
    app = FastAPI()
    guard = Depends(lambda: "vera")
    given: dict[str, Any] = {argument: [guard] if argument == "dependencies" else guard}
    include_agentmap_routes(app, service=await service_of(folder), **given)
    async with client(app, prefix="/workflows") as http:
        assert (await http.get("/audit")).status_code == 403
        assert (await http.get("/list")).status_code == 200


@pytest.mark.anyio
async def test_numbers_of_what_ran(own: AgentMapService) -> None:
    """Executions by workflow and status, nodes by agent type, requests, workflows; all with the worker."""
    async with client(AgentMapApp(service=own)) as http:
        for name in ("Hello", "Hello", "Boom", "Nobody"):
            await http.post("/execute", json={"graph_name": name})
        answer = await http.get("/metrics")
    found = samples(answer.text)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert found["agentmap_executions_total", "completed", "a::Hello"] == 2
    assert found["agentmap_executions_total", "failed", "a::Boom"] == 1
    assert found["agentmap_execution_seconds_count", "a::Hello"] == 2
    assert found["agentmap_node_seconds_count", "default", "completed"] == 2
    assert found["agentmap_node_seconds_count", "boom", "failed"] == 1
    assert found["agentmap_requests_total", "execute", "404"] == 1
    assert found["agentmap_now", "running"] == found["agentmap_now", "queued"] == 0
    assert found["agentmap_workflows", "ok"] == 3
    assert 'worker="' in answer.text


@pytest.mark.anyio
async def test_removed_workflows_leave_no_numbers(own: AgentMapService) -> None:
    """So labels stay few, however many workflows come and go."""
    path = own.catalogue.source / "a.csv"
    text = await to_thread.run_sync(path.read_text)
    await own.execute_workflow("Hello", {})
    assert "a::Hello" in own.metrics()[0].decode()
    await to_thread.run_sync(path.write_text, text.replace("Hello,", "Bye,"))
    await own.reload()
    assert "a::Hello" not in own.metrics()[0].decode()
    await own.aclose()


@pytest.mark.anyio
async def test_they_are_served_only_when_enabled(folder: Path) -> None:
    """Else there are no such paths, no file and no numbers."""
    service = await service_of(folder, AgentMapConfig())
    async with client(AgentMapApp(service=service)) as http:
        assert [(await http.get(path)).status_code for path in ("/metrics", "/audit")] == [404, 404]
    with pytest.raises(ConfigError, match="enable_metrics=True"):
        service.metrics()


def test_metrics_need_their_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"agentmap-asgi\[metrics\]"):
        AgentMapService(AgentMapConfig(enable_metrics=True), source=folder, context=host_context())


@pytest.mark.anyio
@pytest.mark.parametrize("wanted", [True, False])
async def test_a_host_asks_for_the_audit_log_where_it_includes(wanted: bool, folder: Path, tmp_path: Path) -> None:
    """`enable_audit_logging=True` beats a setting that is off; False leaves out the path, not the log."""
    path = tmp_path / "logs" / "audit.jsonl"
    service = await service_of(folder, AgentMapConfig(audit_path=str(path), enable_audit_logging=not wanted))
    app = FastAPI()
    await to_thread.run_sync(lambda: include_agentmap_routes(app, service=service, enable_audit_logging=wanted))
    async with client(app, prefix="/workflows") as http:
        await http.post("/execute", json=HELLO)
        assert (await http.get("/audit")).status_code == (403 if wanted else 404)
    assert {line["event"] for line in await lines(service)} == {"started", "ended", "request"}


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Its folder is made; one that cannot be made is a ConfigError that names the setting."""
    made = Audit(tmp_path / "new" / "audit.jsonl", FakeClock())
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="audit_path"):
        Audit(made.path / "below a file" / "audit.jsonl", FakeClock())


def test_lines_cannot_be_forged(tmp_path: Path) -> None:
    """Whatever a value holds, it stays inside its line; long ones are cut."""
    log = Audit(tmp_path / "audit.jsonl", FakeClock())
    nasty = 'x"}\n{"event":"forged"}\r\n\u2028\u0085\x00'
    log.note("request", workflow=nasty, principal="p" * 10_000, odd={"a": nasty}, names=[nasty, "b"])
    (line,) = log.path.read_bytes().splitlines()
    found = json.loads(line)
    assert (found["workflow"], found["names"]) == (nasty, [nasty, "b"])
    assert len(found["principal"]) == 300
    assert line.isascii()


def test_writers_may_share_a_file(tmp_path: Path) -> None:
    """Each line is written at once, at the end."""
    logs = [Audit(tmp_path / "audit.jsonl", FakeClock()) for _ in range(4)]

    def write(log: Audit, number: int) -> None:
        for turn in range(200):
            log.note("request", number=number, turn=turn, text="x" * 250)

    threads = [threading.Thread(target=write, args=(log, number)) for number, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, complete = logs[0].newest(1_000)
    assert complete
    assert sorted((line["number"], line["turn"]) for line in found) == [(n, t) for n in range(4) for t in range(200)]


def test_a_line_that_was_cut_short_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk: the loss is an ERROR in the log, and what comes later can be read."""
    log = Audit(tmp_path / "audit.jsonl", FakeClock())
    write = module.os.write  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr("agentmap_asgi.services.audit.os.write", lambda file, line: write(file, line[:20]))
        log.note("request", number=1)
        patch.setattr("agentmap_asgi.services.audit.os.write", _full)
        log.note("request", number=2)
    log.note("request", number=3)
    assert [line["number"] for line in log.newest(10)[0]] == [3]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def _full(file: int, line: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_reading_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the end of a long file is looked at, block by block."""
    monkeypatch.setattr(module, "BLOCK", 100)
    log = Audit(tmp_path / "audit.jsonl", FakeClock())
    for number in range(100):
        log.note("request", number=number)
    found, complete = log.newest(1_000)
    assert ([line["number"] for line in found], complete) == (list(range(99, -1, -1)), True)
    monkeypatch.setattr(module, "MOST_READ", 1_000)
    found, complete = log.newest(1_000)
    assert 0 < len(found) < 20
    assert not complete


@pytest.mark.parametrize(
    "bad",
    [
        *("", "x", TRACE.upper(), TRACE + "-more", TRACE[:-1], " " + TRACE),
        *("ff" + TRACE[2:], "00-" + "0" * 32 + TRACE[35:], TRACE[:36] + "0" * 16 + "-01", TRACE.replace("-", "_")),
    ],
)
@pytest.mark.anyio
async def test_malformed_traces_are_ignored(bad: str, own: AgentMapService) -> None:
    """As W3C Trace Context wants it; later versions may say more."""
    async with client(AgentMapApp(service=own)) as http:
        for given, kept in ((bad, None), (TRACE, TRACE), ("01" + TRACE[2:] + "-more", "01" + TRACE[2:] + "-more")):
            answer = await http.post("/execute", json={"graph_name": "Tell"}, headers={"traceparent": given})
            assert answer.json()["result"]["told"].get("traceparent") == kept


class Correlating(BaseHTTPMiddleware):
    """The guide's middleware."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        request.state.workflow_context = {"request_id": "host-1", "user_id": 5, "principal": "eve"}
        response: Response = await call_next(request)
        response.headers["X-Workflow-Request-ID"] = request.state.workflow_context["request_id"]
        return response


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["mounted in Starlette", "mounted in FastAPI", "included"])
async def test_the_hosts_middleware_names_the_request(kind: str, folder: Path, tmp_path: Path) -> None:
    """Its id is that of the answer, the run, the audit log and refusals; also through BaseHTTPMiddleware."""
    seen: list[dict[str, Any]] = []

    class Noting(AgentMapService):
        async def pre_workflow_execution(self, name: str, state: dict[str, Any], context: dict[str, Any]) -> None:
            seen.append(context)

        async def post_workflow_execution(self, name: str, result: dict[str, Any], context: dict[str, Any]) -> None:
            seen.append(context)

    config = AgentMapConfig(enable_audit_logging=True, audit_path=str(tmp_path / "audit.jsonl"))
    service = await service_of(folder, config, Noting)
    host: Any
    if kind == "mounted in Starlette":
        host = Starlette(
            routes=[Mount("/{tenant}/wf", AgentMapApp(service=service))], middleware=[Middleware(Correlating)]
        )
    else:
        host = FastAPI()
        host.add_middleware(Correlating)
        if kind == "included":
            include_agentmap_routes(host, prefix="/{tenant}/wf", service=service)
        else:
            host.mount("/{tenant}/wf", AgentMapApp(service=service))
    headers = {"traceparent": TRACE, "x-request-id": "client-1"}
    async with client(host, prefix="/acme/wf") as http:
        answer = await http.post("/execute", json={"graph_name": "Tell"}, headers=headers)
        refused = await http.post("/execute", json={"graph_name": "Nobody"}, headers=headers)
    told = answer.json()["result"]["told"]
    for context in (told, *seen):
        assert {name: context[name] for name in ("request_id", "user_id", "tenant", "traceparent", "principal")} == {
            "request_id": "host-1",
            "user_id": 5,
            "tenant": "acme",
            "traceparent": TRACE,
            "principal": "eve",
        }
    assert len(seen) == 2
    for one in (answer, refused):
        assert one.headers.get_list("x-request-id") == ["host-1"]
        assert one.headers["x-workflow-request-id"] == "host-1"
    assert refused.json()["request_id"] == "host-1"
    assert {(line["request_id"], line["principal"]) for line in await lines(service)} == {("host-1", "eve")}


@pytest.mark.anyio
async def test_probes_are_not_audited(own: AgentMapService) -> None:
    """Monitors ask all the time."""
    async with client(AgentMapApp(service=own)) as http:
        for path in ("/health", "/ready", "/metrics"):
            assert (await http.get(path)).status_code == 200
    assert await lines(own) == []
