"""Batches as CSV, there and back, and batches that a host runs itself."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import pytest
from faces import WAYS, Way, client, service_of
from hypothesis import given
from hypothesis import strategies as st

from agentmap_asgi import AgentMapApp, AgentMapService
from agentmap_asgi.http.tables import FIXED, cell

pytest_plugins = ("sources",)

ITEMS: list[Any] = [
    {"graph_name": "Hello", "initial_state": {"name": "Ada", "status": "vip"}},
    {"graph_name": "Nobody"},
    {"graph_name": "Boom", "initial_state": {"amount": -5, "rate": 1.5, "paid": True, "tags": ["a", "=b"]}},
    {"graph_name": "Hello", "initial_state": {"name": '=HYPERLINK("http://x","y")', "@field": "-2+3"}},
]
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1", "=cmd|' /C calc'!A0"]


def table(text: str) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


@pytest.mark.anyio
@pytest.mark.parametrize("way", [WAYS[0], WAYS[-1]], ids=lambda way: way.name)
async def test_a_batch_may_be_answered_as_a_table(way: Way, service: AgentMapService) -> None:
    """A row for each item in order, refused ones too; a column for each field of any result, in order of appearance."""
    async with way.client(service) as http:
        answer = await http.post("/execute/batch?format=csv", json={"executions": ITEMS})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["x-content-type-options"] == "nosniff"
    rows = table(answer.text)
    assert list(rows[0])[: len(FIXED)] == list(FIXED)
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["status"] for row in rows] == ["ok", "refused", "ok", "ok"]
    assert [row["success"] for row in rows] == ["true", "", "false", "true"]
    assert [row["error_code"] for row in rows] == ["", "workflow_unknown", "agent_error", ""]
    assert (rows[0]["greeting"], rows[0]["result.status"]) == ("Hello Ada!", "vip")
    assert [rows[2][name] for name in ("amount", "rate", "paid", "tags")] == ["-5", "1.5", "true", '["a","=b"]']
    assert rows[3]["name"] == "'" + ITEMS[3]["initial_state"]["name"]
    assert rows[3]["'@field"] == "'-2+3"


@pytest.mark.anyio
async def test_a_csv_goes_in_and_a_csv_comes_out(service: AgentMapService) -> None:
    """Rows keep their order; a row with too many cells is refused alone."""
    headers = {"content-type": "text/csv", "accept": "text/csv"}
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post("/execute/batch?graph=Hello", content="name\nAda\nBob,x\nEve\n", headers=headers)
    assert [(row["status"], row["greeting"]) for row in table(answer.text)] == [
        ("ok", "Hello Ada!"),
        ("refused", ""),
        ("ok", "Hello Eve!"),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("accept", "query", "as_table"),
    [
        ("*/*", "", False),
        ("text/csv", "", True),
        ("text/csv, */*;q=0.1", "", True),
        ("application/json, text/csv;q=0.9", "", False),
        ("text/csv;q=0.5, application/json;q=0.1", "", True),
        ("text/csv, application/json", "", False),
        ("text/csv;q=0", "", False),
        ("text/csv;q=x", "", False),
        ("text/*", "", False),
        ("text/csv", "?format=json", False),
        ("application/json", "?format=csv", True),
    ],
)
async def test_the_caller_chooses(accept: str, query: str, as_table: bool, service: AgentMapService) -> None:
    """`?format=` decides; without it `text/csv` must be named in Accept and be liked better than JSON."""
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.post(f"/execute/batch{query}", json={"executions": ITEMS}, headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv") is as_table


@pytest.mark.anyio
async def test_refusals_stay_problems(service: AgentMapService) -> None:
    """A batch that is refused as a whole is no table; an unknown format is refused before anything runs."""
    async with client(AgentMapApp(service=service), headers={"accept": "text/csv"}) as http:
        for query, body in (("?format=xls", {"executions": ITEMS}), ("", {"executions": 5})):
            answer = await http.post(f"/execute/batch{query}", json=body)
            assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        listed = (await http.get("/list")).json()["workflows"]
    assert all(workflow["statistics"]["executions"] == {} for workflow in listed)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_guarded(text: str) -> None:
    """An apostrophe makes it a text."""
    assert cell(text) == "'" + text


@given(st.text())
def test_no_text_begins_like_a_formula(text: str) -> None:
    """Whatever a caller or a model wrote; other texts stay as they are."""
    found = cell(text)
    assert not found.lstrip().startswith(tuple("=+-@＝＋－＠"))
    assert not found.startswith(("\t", "\r", "\n"))
    assert found.removeprefix("'") == text.removeprefix("'")


class Batching(AgentMapService):
    """Runs batches as the guide does: all at once, exceptions among the results."""

    seen: list[Any]

    async def batch_execute_workflows(self, executions: Any, **options: Any) -> list[Any]:
        self.seen = list(executions)
        calls = [self.execute_workflow(one["graph_name"], one["initial_state"], one["context"]) for one in self.seen]
        return list(await asyncio.gather(*calls, return_exceptions=True))


@pytest.mark.anyio
@pytest.mark.parametrize("way", [WAYS[0], WAYS[-1]], ids=lambda way: way.name)
async def test_a_hosts_own_batch_counts_over_http(way: Way, folder: Path) -> None:
    """It gets the items that fit, with the context of the request; exceptions become the items' own refusals."""
    service = await service_of(
        folder, kind=Batching, authorize=lambda who, verb, graph, run: graph != "greetings::Tell"
    )
    assert isinstance(service, Batching)
    async with way.client(service) as http:
        items = [5, *ITEMS, {"graph_name": "Tell"}]
        batch = (await http.post("/execute/batch", json={"executions": items}, headers={"x-request-id": "r"})).json()
        assert (await http.post("/execute/batch", json={"executions": [5]})).json()["refused_count"] == 1
    found = [
        one["execution"]["success"] if one["status"] == "ok" else one["error"]["code"] for one in batch["executions"]
    ]
    assert found == ["invalid_request", True, "workflow_unknown", False, True, "workflow_unknown"]
    assert [item["graph_name"] for item in service.seen] == ["Hello", "Boom", "Hello"]
    assert {item["context"]["request_id"] for item in service.seen} == {"r"}
    assert batch["executions"][1]["execution"]["links"]["workflow"].endswith("/Hello")


class Refusing(AgentMapService):
    """A batch of a host that changes what it is given, and answers through the base method."""

    async def batch_execute_workflows(self, executions: Any, **options: Any) -> list[Any]:
        found = await super().batch_execute_workflows([{**one, "graph_name": "Gone"} for one in executions])
        return [*found[1:], KeyError("unexpected")]

    async def format_execution_response(self, result: Any, request_context: Any) -> Any:
        return {"shaped": result}  # pragma: no cover


@pytest.mark.anyio
async def test_a_hosts_batch_may_refuse_items(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the base method says it; other exceptions are logged, and the caller is told nothing of them."""
    app = AgentMapApp(service=await service_of(folder, kind=Refusing))
    async with client(app) as http:
        answer = await http.post("/execute/batch", json={"executions": [{"graph_name": "Hello"}] * 2})
    codes = [one["error"]["code"] for one in answer.json()["executions"]]
    assert codes == ["workflow_unknown", "internal_error"]
    assert "unexpected" in caplog.text
    assert "unexpected" not in answer.text


class Shaping(AgentMapService):
    """Answers in the host's own form."""

    async def format_execution_response(self, result: Any, request_context: Any) -> Any:
        return {"outcome": result["status"], "data": {"greeting": result["result"].get("greeting")}}


@pytest.mark.anyio
async def test_a_table_shows_what_the_host_made_of_the_answers(folder: Path) -> None:
    """Without a `result`, the fields are those of the document."""
    app = AgentMapApp(service=await service_of(folder, kind=Shaping))
    async with client(app) as http:
        answer = await http.post("/execute/batch?format=csv", json={"executions": ITEMS[:1]})
    (row,) = table(answer.text)
    assert (row["status"], row["outcome"], row["data"]) == ("ok", "completed", '{"greeting":"Hello Ada!"}')
