"""The OpenAPI document is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from faces import WAYS, Way, client, everything, host_context, service_of
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from pydantic import BaseModel
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapService, include_agentmap_routes
from agentmap_asgi.http.operations import OPERATIONS, Operation

pytest_plugins = ("sources",)

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = (
    "GraphName,Node,AgentType,Input_Fields,Output_Field,Prompt,Edge\n"
    "Hello,Greet,echo,name,greeting,Hello {name}!,Part\nHello,Part,echo,name,farewell,Bye {name}!,\n"
)


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
async def test_the_document_is_valid_and_complete(way: Way, service: AgentMapService) -> None:
    """OpenAPI 3.1, with exactly the operations of the table."""
    async with way.client(service) as http:
        document = (await http.get("/openapi.json")).json()
    validate(document)
    found = {
        (method.upper(), path): operation["operationId"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    table = {(row.method, row.plain_path): row.name for row in OPERATIONS}
    assert {place: name for place, name in found.items() if place in table} == table
    typed = {name: path for (_, path), name in found.items() if name not in table.values()}
    assert typed["run_Hello"] == "/execute/Hello"
    assert typed["run_others_Twin"] == "/execute/others/Twin"
    assert typed["run_two_words_a"] == "/execute/two%20words%20%26%20a%20%25"
    assert not any("Bad" in name for name in typed), "what cannot be started has no operation"
    assert len(set(found.values())) == len(found)


@pytest.mark.anyio
async def test_a_workflow_has_an_operation_of_its_own(folder: Path) -> None:
    """With the fields that it reads, or those that the host declared, wherever their definitions lie."""

    class Address(BaseModel):
        town: str

    class Order(BaseModel):
        name: str
        to: list[Address]

    service = await service_of(folder, input_schemas={"Hello": Order})
    async with client(AgentMapApp(service=service)) as http:
        document = (await http.get("/openapi.json")).json()
        validate(document)
        models = document["components"]["schemas"]
        assert models["Inputs_Hello"]["properties"]["to"]["items"] == {
            "$ref": "#/components/schemas/Inputs_Hello_Address"
        }
        assert models["Inputs_Hello_Address"]["properties"]["town"] == {"title": "Town", "type": "string"}
        body = document["paths"]["/execute/Hello"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body["properties"]["inputs"] == {"$ref": "#/components/schemas/Inputs_Hello"}
        assert body["required"] == ["inputs"]
        done = await http.post("/execute/Hello", json={"inputs": {"name": "Ada", "to": [{"town": "Ulm"}]}})
        assert done.json()["success"] is True


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["execute", "workflow"])
async def test_only_what_a_caller_may_run_is_described(verb: str, folder: Path) -> None:
    """A workflow that `authorize` does not let the caller run, or see, has no operation in what he is shown."""

    def authorize(principal: Any, operation: str, graph: str | None, execution: Any = None) -> bool:
        return operation != verb or graph == "greetings::Hello"

    service = await service_of(folder, authorize=authorize)
    async with client(AgentMapApp(service=service)) as http:
        document = (await http.get("/openapi.json")).json()
    ids = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert [name for name in ids if name.startswith("run_")] == ["run_Hello"]


def test_the_hosts_document_is_valid(service: AgentMapService) -> None:
    """Also with our routes in it, under a prefix with parameters."""
    app = FastAPI()
    include_agentmap_routes(app, prefix="/{tenant}/wf", service=service)
    document: Any = app.openapi()
    validate(document)


@pytest.mark.anyio
async def test_the_document_is_served_only_with_docs(folder: Path) -> None:
    """`enable_docs=False` takes it away, and says so in nothing."""
    service = await service_of(folder, AgentMapConfig(enable_docs=False))
    async with client(AgentMapApp(service=service)) as http:
        answer = await http.get("/openapi.json")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The document as schemathesis reads it, calling the app in process."""
    source = tmp_path_factory.mktemp("described") / "hello.csv"
    source.write_text(SOURCE)
    app = AgentMapApp(source, config=everything(source), context=host_context())
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_answers_are_as_described(row: Operation, mode: GenerationMode, described: Any) -> None:
    """Whatever fits the document, or just does not, gets an answer that the document describes."""
    operation = described[row.plain_path][row.method]

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def answer(case: Any) -> None:
        # What a schema cannot say may be refused (64 bits, two names for one thing), and any file gets its diagnostics.
        case.call_and_validate(excluded_checks=[positive_data_acceptance, *[negative_data_rejection] * bool(row.files)])

    try:
        answer()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "an operation without parameters cannot be asked wrongly"


def test_every_operation_has_a_heading() -> None:
    """`docs/http-api.md` describes each row of the table, and nothing else."""
    page = (DOCS / "http-api.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### `(GET|POST|DELETE) (/\S*)`", page, re.MULTILINE)
    assert headings == [(row.method, row.plain_path) for row in OPERATIONS]


def test_every_status_is_explained() -> None:
    """The page names each status that an operation may be refused with."""
    page = (DOCS / "http-api.md").read_text(encoding="utf-8")
    explained = set(map(int, re.findall(r"^\| (\d{3}) \|", page, re.MULTILINE)))
    assert explained >= {status for row in OPERATIONS for status in row.problems} | {401, 404, 405, 500}
