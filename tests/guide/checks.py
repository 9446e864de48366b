"""What each block of the guide must do when it runs: requests are sent to it, and their results looked at."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from anyio import to_thread
from blocks import Program
from starlette.requests import Request
from starlette.responses import Response

from agentmap_asgi import AgentMapConfig
from agentmap_asgi.errors import UnknownWorkflow
from agentmap_asgi.http.keys import new_key
from agentmap_asgi.testing import AgentMapClient

ADA: Final = {"Authorization": "Bearer ada-token"}
ROOT: Final = {"Authorization": "Bearer root-token"}
DORA: Final = {"Authorization": "Bearer doc-token"}
MINE: Final = {"graph_name": "MyWorkflow", "initial_state": {"input": "test"}}


async def run(http: httpx.AsyncClient, path: str, graph: str, state: Any, **more: Any) -> dict[str, Any]:
    answer = await http.post(path, json={"graph_name": graph, "initial_state": state, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def basic(text: str) -> None:
    async with AgentMapClient(Program(text, "basic").app) as http:
        assert (await http.get("/")).json() == {"message": "My existing API"}
        assert (await http.get("/users/123")).json() == {"user_id": 123, "name": "John Doe"}
        assert (await run(http, "/workflows/execute", **_call(MINE)))["result"]["text"] == "Read: test"
        assert (await http.get("/workflows/list")).json()["total_count"] == 1
        assert (await http.get("/workflows/MyWorkflow")).json()["entry_point"] == "Read"


def _call(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"graph": body["graph_name"], "state": body["initial_state"]}


async def authentication(text: str) -> None:
    async with AgentMapClient(Program(text, "authentication").app) as http:
        for credentials, status in ({}, 401), (ADA, 200):
            answer = await http.post("/api/workflows/execute", json=MINE, headers=credentials)
            assert answer.status_code == status
            assert (await http.get("/api/workflows/list", headers=credentials)).status_code == status


def shell(text: str, main: str) -> None:
    """The lines of the shell block, with a real server and a real curl; only the port is another."""
    Path("main.py").write_text(main, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    server, *curls = [words for words in lines if words]
    assert server == ["uvicorn", "main:app", "--reload"]
    # Without --reload, which starts the same program in a process of its own.
    command = [sys.executable, "-m", *server[:-1], "--port", port]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if "running on" in line:
                    break
            else:
                raise AssertionError("".join(said))
            answers = []
            for words in curls:
                words = [word.replace("localhost:8000", f"127.0.0.1:{port}") for word in words]
                assert words[0] == "curl"
                done = subprocess.run([*words, "-s", "-m", "20"], capture_output=True, check=True)
                answers.append(json.loads(done.stdout))
        finally:
            process.terminate()
            process.communicate()
    assert answers[:2] == [{"message": "My existing API"}, {"user_id": 123, "name": "John Doe"}]
    assert answers[2]["result"]["text"] == "Read: test"


async def shared_services(text: str) -> None:
    from your_database import SessionLocal
    from your_models import create_test_user

    program = Program(text, "shared_services")
    async with AgentMapClient(program.app, headers=ADA) as http:
        with SessionLocal() as session:
            user = create_test_user(session)
        answers = []
        for _ in range(2):
            answer = await http.post(
                "/workflows/execute", json={"graph_name": "SharedServices", "initial_state": {"user_id": user.id}}
            )
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
        assert answers[0]["success"], answers[0]
        messages = await program.app.state.redis.lrange(f"messages:{user.id}", 0, -1)
        assert (await http.get("/workflows/list", headers={"Authorization": ""})).status_code == 401
    assert [answer["result"]["users"] for answer in answers] == [1, 1]
    assert [answer["result"]["greeting"] for answer in answers] == [
        {"name": "Grace", "source": "database", "messages": 1},
        {"name": "Grace", "source": "cache", "messages": 2},
    ]
    assert messages == [b"Hello Grace", b"Hello Grace"]


async def middleware(text: str) -> None:
    program = Program(text, "middleware")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    program.logger.handlers = [handler]
    program.logger.setLevel(logging.INFO)

    @program.app.get("/own")  # type: ignore[untyped-decorator]  # a program that mypy does not see
    async def own() -> None:
        """The host's."""

    async with AgentMapClient(program.app) as http:
        answer = await http.post("/workflows/execute", json=MINE)
        assert (await http.get("/own")).headers.get("x-workflow-request-id") is None
    assert answer.json()["success"] is True
    UUID(answer.headers["x-workflow-request-id"])
    assert [re.sub(r" - [\d.]+s - ", " - ", line) for line in lines] == [
        "POST http://test/workflows/execute - 200 - 127.0.0.1",
        "GET http://test/own - 200 - 127.0.0.1",
    ]

    async def noting(request: Request) -> Response:
        at = datetime.fromisoformat(request.state.workflow_context["timestamp"])
        assert at.tzinfo is not None, "the time has no zone"
        return Response()

    request = Request({"type": "http", "method": "GET", "path": "/workflows/list", "headers": [], "state": {}})
    await program.agentmap_specific_middleware(request, noting)


async def response_formatting(text: str) -> None:
    async with AgentMapClient(Program(text, "response_formatting").app) as http:
        found = await run(http, "/api/v1/workflows/execute", "OrderProcessing", {"user_id": 7, "order_data": {}})
        assert found["status"] == "success"
        assert found["data"]["workflow_name"] == "OrderProcessing"
        assert found["data"]["result"]["text"] == "Order of user 7 is processed"
        assert found["data"]["nodes_executed"] == 2
        assert all(found["metadata"].values())
        followed = await http.get(found["links"]["workflow"])
        assert followed.status_code == 200, f"{followed.status_code} for {found['links']['workflow']}"
        # The same hook in a batch; and not for those who call in this process.
        batch = await http.post(
            "/api/v1/workflows/execute/batch", json={"executions": [{"graph_name": "PatientSummary"}]}
        )
        assert batch.json()["executions"][0]["execution"]["status"] == "success"


async def ecommerce(text: str) -> None:
    from your_database import rows
    from your_models import Order

    async with AgentMapClient(Program(text, "ecommerce").app, headers=ADA) as http:
        made = (await http.post("/orders", json={"product": "lamps", "quantity": 2})).json()
        assert made["processing_status"]["payment"] == "Paid 2 pieces of lamps"
        assert made["order"]["user_id"] == 1
        status = (await http.get(f"/orders/{made['order']['id']}/status")).json()
        assert (status["status"], status["workflow_status"]["status"]) == ("new", "completed")
        assert status["workflow_status"]["execution_id"] == made["order"]["workflow_execution_id"]
        assert "estimated_completion" in status
        refused = (await http.post("/orders", json={"product": "lamps", "quantity": 6})).json()
        assert refused["processing_status"]["shipping"] == "We have no 6 of them"
        names = {one["name"] for one in (await http.get("/internal/workflows/list")).json()["workflows"]}
        assert names == {"OrderProcessing", "CustomerOnboarding", "RecommendationEngine", "InventoryManagement"}
        shown = (await http.get("/openapi.json")).json()["paths"]
        assert set(shown) == {"/orders", "/orders/{order_id}/status"}
        assert (await http.get("/internal/workflows/list", headers={"Authorization": ""})).status_code == 401
    assert [order.user_id for order in rows(Order)] == [1, 1]


async def analytics(text: str) -> None:
    program = Program(text, "analytics")
    async with AgentMapClient(program.app, headers=ROOT) as http:
        asked = {"type": "sales", "date_range": "May"}
        started = await http.post("/reports/generate", json=asked)
        assert started.json() == {"message": "Report generation started", "status": "processing"}
        state = {"report_type": "sales", "date_range": "June", "output_format": "pdf"}
        await run(
            http, "/workflows/execute", "ReportGeneration", state, context={"user_id": "the caller chose who it is"}
        )
        metrics = (await http.get("/dashboard/metrics")).json()
        assert metrics == {"workflow_started": 2, "workflow_completed": 2}
        assert (await http.get("/workflows/list", headers=ADA)).status_code == 403
    in_process, over_http = program.analytics_service.events[:2], program.analytics_service.events[2:]
    assert [event["user_id"] for _, event in in_process] == [None, None]
    for name, event in over_http:
        assert event["workflow"] == "ReportGeneration"
        assert event["user_id"] is not None, "nobody is known"
        assert event["user_id"] == "2", event["user_id"]
        if name == "workflow_started":
            assert event["timestamp"].tzinfo is not None, "the time has no zone"
        else:
            assert event["success"] is True
            assert event["duration"] >= 0


async def healthcare(text: str) -> None:
    from your_compliance import audit_log, decrypt_phi

    program = Program(text, "healthcare")
    async with AgentMapClient(program.app, headers=DORA) as http:
        appointment = {"patient_id": 4, "doctor_id": 5, "type": "yearly"}
        made = (await http.post("/appointments", json=appointment)).json()
        assert made["care_plan"]["plan"] == f"A yearly plan for appointment {made['appointment']['id']}"
        answer = await http.post(
            "/care/workflows/execute",
            json={"graph_name": "PatientSummary", "initial_state": {"patient_name": "Zoe Doe", "ssn": "078-05-1120"}},
        )
        assert answer.status_code == 200, answer.text
        assert "Zoe" not in answer.text, "the name leaves in the clear"
        result = answer.json()["result"]
        assert json.loads(decrypt_phi(result["diagnosis"].encode())) == "Zoe Doe is well"
        assert "ssn" not in result
        assert (await http.get("/care/workflows/list", headers=ADA)).status_code == 403
        assert (await http.get("/care/workflows/list", headers={"Authorization": ""})).status_code == 401
        assert (await http.get("/care/workflows/audit")).status_code == 403
    kept = await to_thread.run_sync(program.agentmap_service.instruments.audit.path.read_text)
    assert "Zoe" not in kept
    assert "PatientSummary" in kept, kept
    assert audit_log.lines == [
        "request POST /appointments",
        "started PatientCareCoordination with appointment_id, appointment_type, doctor_id, patient_id",
        "ended PatientCareCoordination completed",
        "request POST /care/workflows/execute",
        "started PatientSummary with patient_name, ssn",
        "ended PatientSummary completed",
        "request GET /care/workflows/list",
        "request GET /care/workflows/list",
        "request GET /care/workflows/audit",
    ]


async def environments(text: str) -> None:
    secret, key = new_key("host", ["run", "read"])
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("AGENTMAP_API_KEYS", key.line)
        found = {}
        for name in ("development", "staging", "production", "elsewhere"):
            variables.setenv("ENVIRONMENT", name)
            program = Program(text, "environments")
            config: AgentMapConfig = program.config
            found[name] = (
                config.log_level,
                config.enable_hot_reload,
                config.enable_metrics,
                config.enable_audit_logging,
            )
            async with AgentMapClient(program.app) as http:
                state = {"user_id": 7, "order_data": {}}
                body = {"graph_name": "OrderProcessing", "initial_state": state}
                answer = await http.post("/workflows/execute", json=body)
                if name == "production":
                    assert answer.status_code == 401
                    headers = {"X-API-Key": secret}
                    answer = await http.post("/workflows/execute", json=body, headers=headers)
                assert answer.json()["success"] is True, answer.text
                shown = (await http.get("/openapi.json")).json()["paths"]
                assert ("/workflows/execute" in shown) is (name != "production")
        assert found == {
            "development": ("DEBUG", True, False, False),
            "staging": ("INFO", False, True, False),
            "production": ("WARNING", False, True, True),
            "elsewhere": (None, False, False, False),
        }


async def database(text: str) -> None:
    program = Program(text, "database")
    state = {"user_id": 7, "order_data": {"items": ["a"]}}
    async with AgentMapClient(program.app) as http:
        in_process = await program.agentmap_service.execute_workflow("OrderProcessing", state, {"user_id": 7})
        over_http = await run(http, "/workflows/execute", "OrderProcessing", state)
        failed = await run(http, "/workflows/execute", "OrderProcessing", {"order_data": {"items": "no list"}})
        with suppress(UnknownWorkflow):
            await program.agentmap_service.execute_workflow("Gone", {})
    with program.SessionLocal() as session:
        kept = session.query(program.WorkflowExecution).order_by(program.WorkflowExecution.id).all()
    assert [one.status for one in kept] == ["completed", "completed", "failed", "error"]
    assert [one.user_id for one in kept] == [7, None, None, None]
    ids = [one.result.get("execution_id") for one in kept]
    assert ids == [in_process["execution_id"], over_http["execution_id"], failed["execution_id"], None]
    assert all(one.completed_at >= one.started_at for one in kept)
    assert program.engine.pool.checkedout() == 0


def tests_of_the_host(text: str) -> None:
    """A block that is a test file: pytest runs it, with warnings as errors."""
    Path("test_block.py").write_text(text, encoding="utf-8")
    Path("conftest.py").write_text(
        'import pytest\n\n\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n', encoding="utf-8"
    )
    path = os.pathsep.join([os.getcwd(), str(Path(__file__).parents[2])])
    # Of the plugins that are installed here, a host has one.
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "anyio", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "test_block.py"], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d passed", done.stdout, re.MULTILINE), done.stdout


async def phases(text: str) -> None:
    from your_database import rows
    from your_legacy import FLAGS
    from your_models import Order

    program = Program(text, "phases")
    order = {"items": ["a", "b"]}
    async with AgentMapClient(program.app, headers=ADA) as http:
        first = (await http.post("/orders", json=order)).json()
    assert first["workflow_result"]["result"]["text"] == "Order of user 1 is processed"
    assert first["data"] == order
    async with AgentMapClient(getattr(program, "app_v2", program.app), headers=ADA) as http:
        assert (await http.post("/orders", json=order)).json()["data"] == order
        FLAGS["use_agentmap_for_orders", 1] = True
        second = (await http.post("/orders", json=order)).json()
    assert "workflow_result" not in second, "the first phase answered"
    assert second["picked"] == ["a", "b"]
    async with AgentMapClient(program.app_v3, headers=ADA) as http:
        third = (await http.post("/orders", json=order)).json()
    assert third == second
    assert len(rows(Order)) == 2


async def migration_tools(text: str) -> None:
    program = Program(text, "migration_tools")
    async with AgentMapClient(program.app, headers=ADA) as http:
        new = (await http.post("/orders", json={"items": ["a"]})).json()
        assert new["text"] == "Order of user 1 is processed"
        old = (await http.post("/orders", json={"items": "no list"})).json()
    assert old["data"]["order_data"] == {"items": "no list"}
    answer = await program.migration_helper.execute_with_fallback("UserOnboarding", {"user_id": 9})
    assert answer == {"source": "fallback", "result": "welcomed 9 by hand"}


def performance(text: str) -> None:
    program = Program(text, "performance")
    config = AgentMapConfig(csv_path="./workflows/", custom_agents_path="./custom_agents/")
    service = program.OptimizedAgentMapService(config)
    items = [{"graph_name": "Slow", "initial_state": {"number": number}} for number in range(30)]
    items.append({"graph_name": "Gone", "initial_state": {}})

    async def many() -> None:
        found = await service.batch_execute_workflows(items)
        for one in found[:-1]:
            if isinstance(one, Exception):
                raise one
        assert [one["result"]["number"] for one in found[:-1]] == list(range(30))
        assert type(found[-1]).__name__ == "UnknownWorkflow"
        await service.aclose()

    for _ in range(2):  # as TestClient does: a new event loop each time
        asyncio.run(many())

    def change() -> None:
        file = Path("workflows/orders.csv")
        file.write_text(file.read_text().replace("is well", "is very well"))
        os.utime(file, (1, 1))  # an old file is not one that is just being written

    async def over_http() -> None:
        from agentmap_asgi import AgentMapApp

        async with AgentMapClient(AgentMapApp(service=service)) as http:
            batch = (await http.post("/execute/batch", json={"executions": items})).json()
            assert (batch["total_count"], batch["refused_count"]) == (31, 1)
            assert (await http.get("/OrderProcessing")).json()["entry_point"] == "Pick"
        before = service.get_workflow_definition("PatientSummary")["version"]
        await asyncio.to_thread(change)
        await service.reload()
        assert service.get_workflow_definition("PatientSummary")["version"] != before, "an old definition"

    asyncio.run(over_http())
    assert program.engine.pool.size() == 20


Check = Callable[[str], Any]

CHECKS: Final[Mapping[str, Check]] = {
    "Basic Integration": basic,
    "With Authentication": authentication,
    "Shared Services Integration": shared_services,
    "Custom Middleware Integration": middleware,
    "Custom Response Formatting": response_formatting,
    "E-commerce Application": ecommerce,
    "Analytics Dashboard": analytics,
    "Healthcare Platform": healthcare,
    "Environment-Specific Integration": environments,
    "Database Integration": database,
    "Testing with Existing Test Suite": tests_of_the_host,
    "End-to-End Testing": tests_of_the_host,
    "Gradual Migration": phases,
    "Migration Tools": migration_tools,
    "Optimization for Integration": performance,
}
