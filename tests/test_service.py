"""AgentMapService: what a host calls, what it is given, and the hooks of subclasses."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, service, serving, sheet, write
from pydantic import BaseModel, Field

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.context import AgentMapContext
from agentmap_asgi.errors import (
    AmbiguousWorkflow,
    ConfigError,
    InputInvalid,
    Overloaded,
    RequestRefused,
    ServiceMissing,
    UnknownWorkflow,
    WorkflowInvalid,
)
from agentmap_asgi.services.agentmap import AgentMapService
from agentmap_asgi.services.starting import CallOptions, call_options

pytestmark = pytest.mark.anyio

ROWS = [
    node("A", prompt="{x}", inputs="x", output="a", edge="B", context={"description": "The first"}),
    node("B", "echo", inputs="a", output="b"),
    node("C", "nonsense", edge="Gone", graph="Broken"),
]


# Making one.


def test_a_source_is_needed(tmp_path: Path) -> None:
    """The source is an argument or the setting csv_path; the argument wins."""
    with pytest.raises(ConfigError, match="Say where the workflows are"):
        AgentMapService()
    path = write(tmp_path, ROWS)
    by_setting = AgentMapService(AgentMapConfig(csv_path=str(path)))
    assert by_setting.list_workflows()["total_count"] == 2
    other = tmp_path / "other.csv"
    other.write_text(sheet([node("A", graph="Only")]))
    by_argument = AgentMapService(AgentMapConfig(csv_path=str(path)), source=other)
    assert [w["name"] for w in by_argument.list_workflows()["workflows"]] == ["Only"]


async def test_two_services_in_one_process_share_nothing(tmp_path: Path) -> None:
    """Agents, functions and executions belong to one service."""

    async def one(call: Call) -> Any:
        return 1

    async def two(call: Call) -> Any:
        return 2

    (tmp_path / "l").mkdir()
    (tmp_path / "r").mkdir()
    rows = [node("A", "own", output="o")]
    async with serving(tmp_path / "l", rows, agents={"own": one}) as left:
        async with serving(tmp_path / "r", rows, agents={"own": two}) as right:
            documents = [await made.execute_workflow("Flow", {}) for made in (left, right)]
            assert [document["result"]["o"] for document in documents] == [1, 2]
            assert left.readiness()["ready"]
            with pytest.raises(RequestRefused):
                await left.get_execution_status(documents[1]["execution_id"])
        assert (await left.execute_workflow("Flow", {}))["success"]


# Services from the settings.


@agent(services=["database", "cache", "user_service"])
async def look(call: Call) -> Any:
    database, cache, users = map(call.service, ("database", "cache", "user_service"))
    return [database, cache["seen"], users["pool"]]


async def test_settings_bring_services_that_do_not_exist_yet(tmp_path: Path) -> None:
    """Factories are called on first use, so a pool may be made long after the service; sessions are closed."""
    state: dict[str, Any] = {}
    closed = []

    async def get_db_session(pool: str) -> AsyncIterator[str]:
        yield f"session of {pool}"
        closed.append(pool)

    config = {
        "database_session_factory": lambda: get_db_session(state["pool"]),
        "cache_service": lambda: state["cache"],
        "custom_services": {"user_service": lambda: {"pool": state["pool"]}},
    }
    rows = [node("A", "look", output="found")]
    async with serving(tmp_path, rows, config=config, agents={"look": look}) as made:
        state.update(pool="the pool", cache={"seen": 7})
        document = await made.execute_workflow("Flow", {})
        assert document["result"]["found"] == ["session of the pool", 7, "the pool"]
        assert closed == ["the pool"]


@pytest.mark.parametrize(
    ("config", "context", "message"),
    [
        ({"cache_service": {}}, {"cache_service": {}}, "'cache' is given twice: in the context object and in the conf"),
        ({"custom_services": {"a": 1}}, {"services": {"a": 2}}, "'a' is given twice: in the context object and in the"),
        (
            {"custom_services": {"cache": 1}, "cache_service": 1},
            {},
            "'cache' is given twice: in custom_services and as",
        ),
        ({"custom_services": {"a": len}}, {}, r"custom_services\['a'\] needs arguments"),
    ],
)
def test_a_service_is_given_once(config: Any, context: Any, message: str, tmp_path: Path) -> None:
    """A name in the settings and in the context object is a TypeError that names it."""
    with pytest.raises(TypeError, match=message):
        service(tmp_path, ROWS, config=config, **context)


async def test_services_are_replaced_for_tests(tmp_path: Path) -> None:
    """`service.override` reaches those of the settings and those of the context object; both as they were, later."""
    context = AgentMapContext({"user_service": {"pool": 1}}, agents={"look": look})
    config = AgentMapConfig(cache_service={"seen": 1}, database_session_factory=lambda: 1)
    path = write(tmp_path, [node("A", "look", output="found")])
    made = await asyncio.to_thread(AgentMapService, config, context=context, source=path)

    async def found() -> Any:
        return (await made.execute_workflow("Flow", {}))["result"]["found"]

    assert made.context.service_names == {"database", "cache", "user_service"}
    with made.override(cache={"seen": 2}, user_service={"pool": 2}, database=lambda: 2):
        assert await found() == [2, 2, 2]
        with context.override(user_service={"pool": 3}):
            assert await found() == [2, 2, 3]
    assert await found() == [1, 1, 1]
    with pytest.raises(TypeError, match="did you mean 'cache'"), made.override(cahce=1):
        pass
    with pytest.raises(ServiceMissing, match="did you mean 'user_service'"):
        made.context.provider("user_servise")
    assert context.service_names == {"user_service"}
    await made.aclose()


def test_the_log_level_is_set_only_when_it_is_given(tmp_path: Path) -> None:
    """On the package's own logger, and nothing else of the host's logging changes."""
    own, root = logging.getLogger("agentmap_asgi"), logging.getLogger()
    before = (own.level, root.level, list(root.handlers), list(own.handlers))
    try:
        service(tmp_path, ROWS, config={"max_steps": 5})
        assert (own.level, root.level, root.handlers, own.handlers) == before
        service(tmp_path, ROWS, config={"log_level": "error"})
        assert (own.level, root.level, root.handlers, own.handlers) == (logging.ERROR, *before[1:])
    finally:
        own.setLevel(before[0])


# Executing.


async def test_what_cannot_be_started_is_refused_by_type(tmp_path: Path) -> None:
    """Unknown, broken and ambiguous workflows and wrong inputs raise; nothing is started."""
    (tmp_path / "a.csv").write_text(sheet([node("A", graph="Twice"), *ROWS]))
    (tmp_path / "b.csv").write_text(sheet([node("A", graph="Twice")]))

    def make() -> AgentMapService:
        return AgentMapService(source=tmp_path)

    made = await asyncio.to_thread(make)
    with pytest.raises(UnknownWorkflow, match="did you mean 'Flow'"):
        await made.execute_workflow("Flwo", {})
    with pytest.raises(WorkflowInvalid, match="nonsense"):
        await made.execute_workflow("Broken", {})
    with pytest.raises(AmbiguousWorkflow) as caught:
        await made.execute_workflow("Twice", {})
    assert set(caught.value.candidates) == {"a::Twice", "b::Twice"}
    assert (await made.execute_workflow("b::Twice", {}))["success"]
    for name in ("../a::Flow", "", "a.csv", "/etc/passwd", "Flow\n"):
        with pytest.raises(UnknownWorkflow):
            await made.execute_workflow(name, {})
    assert len(await made.list_executions()) == 1
    await made.aclose()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "initial_state takes a JSON object"),
        ([], "initial_state takes a JSON object"),
        ("x", "initial_state takes a JSON object"),
        ({"x": {1}}, "x"),
        ({"x": [float("nan")]}, "x[0]"),
        ({1: 2}, "key 1"),
        ({"errors": []}, "'errors', a reserved name"),
    ],
)
async def test_an_initial_state_is_a_json_object(state: Any, message: str, tmp_path: Path) -> None:
    """Anything else raises InputInvalid, naming the place."""
    async with serving(tmp_path, ROWS) as made:
        with pytest.raises(InputInvalid) as caught:
            await made.execute_workflow("Flow", state)
        assert message in caught.value.message
        assert all(error["pointer"].startswith("/initial_state") for error in caught.value.errors)
        assert len(await made.list_executions()) == 0


async def test_what_the_caller_gave_stays_the_callers(tmp_path: Path) -> None:
    """The state given and the document returned are not connected with the execution."""
    given: dict[str, Any] = {"x": {"deep": [1]}}
    async with serving(tmp_path, [node("A", "echo", inputs="x", output="y")]) as made:
        document = await made.execute_workflow("Flow", given)
        document["result"]["y"]["deep"].append(2)
        assert given == {"x": {"deep": [1]}}
        assert (await made.get_execution_status(document["execution_id"]))["result"]["y"] == {"deep": [1]}


async def test_a_failed_execution_is_a_document(tmp_path: Path) -> None:
    """A failure does not raise; the document has the error, the state so far, and where it happened."""
    document = await run(tmp_path, [node("A", prompt="a", output="a", edge="B"), node("B", "orchestrator", output="b")])
    assert (document["success"], document["status"], document["result"]) == (False, "failed", {"a": "a"})
    assert document["error"] == {
        "code": "routing_invalid",
        "message": document["error"]["message"],
        "node": "B",
        "agent_type": "orchestrator",
        "attempt": 1,
        "retryable": False,
        "source": {"file": "flows.csv", "row": 3},
    }
    json.dumps(document)


async def test_many_executions_at_once_do_not_mix(tmp_path: Path) -> None:
    """A hundred executions of one workflow keep their own states."""
    go_on = asyncio.Event()
    arrived = 0

    async def meet(call: Call) -> Any:
        nonlocal arrived
        arrived += 1
        if arrived == 100:
            go_on.set()
        await go_on.wait()
        return call.inputs["x"]

    rows = [node("A", "meet", inputs="x", output="a", edge="B"), node("B", prompt="{a}/{x}", output="b")]
    async with serving(tmp_path, rows, agents={"meet": meet}) as made:
        documents = await asyncio.gather(*(made.execute_workflow("Flow", {"x": x}) for x in range(100)))
        assert [document["result"]["b"] for document in documents] == [f"{x}/{x}" for x in range(100)]
        assert len({document["execution_id"] for document in documents}) == 100
        statistics = made.list_workflows()["workflows"][0]["statistics"]
        assert statistics == {"executions": {"completed": 100}}


async def test_the_id_can_be_given_beside_the_call(tmp_path: Path) -> None:
    """The HTTP handlers choose the id before the start."""
    async with serving(tmp_path, ROWS) as made:
        token = call_options.set(CallOptions(execution_id="chosen"))
        try:
            assert (await made.execute_workflow("Flow", {"x": 1}))["execution_id"] == "chosen"
        finally:
            call_options.reset(token)


class Order(BaseModel):
    amount: float = Field(gt=0)
    region: str = "EU"


async def test_a_declared_input_schema_is_checked_and_fills_in(tmp_path: Path) -> None:
    """A pydantic model checks the initial state, adds its defaults, and leaves other fields alone."""
    rows = [node("A", "aggregator", inputs="amount|region|x", output="o")]
    async with serving(tmp_path, rows, input_schemas={"Flow": Order}) as made:
        document = await made.execute_workflow("Flow", {"amount": "5", "x": 1})
        assert document["result"]["o"] == {"amount": 5.0, "region": "EU", "x": 1}
        with pytest.raises(InputInvalid) as caught:
            await made.execute_workflow("Flow", {"amount": -1, "region": 5})
        assert [error["pointer"] for error in caught.value.errors] == ["/initial_state/amount", "/initial_state/region"]
        assert made.get_workflow_schema("Flow")["properties"]["amount"]["exclusiveMinimum"] == 0


async def test_fields_of_a_declared_input_schema_are_not_taken_for_misspelt(tmp_path: Path) -> None:
    """A file that is validated is one of the workflows that the host has declared."""
    rows = "GraphName,Node,Edge,Input_Fields,Output_Field\nFlow,A,B,,regions\nFlow,B,,region,x\n"
    async with serving(tmp_path, ROWS, input_schemas={"Flow": Order}) as made:
        codes = {name: made.validate_workflows(rows.replace("Flow", name).encode()) for name in ("Flow", "Other")}
    assert {name: [one["code"] for one in found["diagnostics"]] for name, found in codes.items()} == {
        "Flow": ["AM-F002"],
        "Other": ["AM-F008"],
    }


@pytest.mark.parametrize("number", [float("nan"), 2**70])
async def test_what_a_schema_fills_in_is_checked_as_well(tmp_path: Path, number: float) -> None:
    """A default that JSON would change is refused, and nothing starts."""

    class Odd(BaseModel):
        ratio: int | float = number

    async with serving(tmp_path, ROWS, input_schemas={"Flow": Odd}) as made:
        with pytest.raises(InputInvalid, match="ratio"):
            await made.execute_workflow("Flow", {"x": 1})
        assert await made.list_executions() == []


async def test_strict_inputs_refuse_what_is_not_given(tmp_path: Path) -> None:
    """With `strict_inputs` every field that is read before it is written must be there."""
    async with serving(tmp_path, ROWS, config={"strict_inputs": True}) as made:
        with pytest.raises(InputInvalid, match="lacks x") as caught:
            await made.execute_workflow("Flow", {})
        assert caught.value.errors[0]["pointer"] == "/initial_state/x"
        assert (await made.execute_workflow("Flow", {"x": 1}))["success"]


# Batches.


async def test_a_batch_gives_documents_in_order(tmp_path: Path) -> None:
    """A refused item says so in its place and does not touch the others."""
    items: list[Mapping[str, Any]] = [
        {"graph_name": "Flow", "initial_state": {"x": 1}},
        {"graph_name": "Gone", "initial_state": {}},
        {"graph_name": "Broken"},
        {"initial_state": {}},
        {"graph_name": 5},
        {"graph_name": "Flow", "initial_state": {"x": {1}}},
        {"graph_name": "Flow", "initial_state": {"x": 2}, "context": {"principal": "ann"}},
        {"graph_name": "Flow"},
    ]
    async with serving(tmp_path, ROWS) as made:
        documents = await made.batch_execute_workflows(items)
        assert [document["status"] for document in documents] == [
            *("completed", "refused", "refused", "refused", "refused", "refused", "completed", "completed")
        ]
        codes = [document["error"]["code"] for document in documents if document["error"]]
        assert codes == ["workflow_unknown", "graph_invalid", "invalid_request", "invalid_request", "invalid_request"]
        assert [document["result"] and document["result"]["b"] for document in documents][-2:] == ["2", "null"]
        assert documents[-2]["owner"] == "ann"
        assert await made.batch_execute_workflows([]) == []
        with pytest.raises(InputInvalid):
            await made.batch_execute_workflows(items, max_concurrency=0)


async def test_an_item_of_a_batch_that_raises_is_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a hook raises, and what is no item at all, leave the others their documents."""

    class Picky(AgentMapService):
        async def pre_workflow_execution(self, graph_name: str, initial_state: dict[str, Any], context: Any) -> None:
            if initial_state["x"] == 2:
                raise KeyError("unlucky")

    items: list[Any] = [*({"graph_name": "Flow", "initial_state": {"x": x}} for x in (1, 2, 3)), 5, None]
    async with serving(tmp_path, ROWS, kind=Picky) as made:
        documents = await made.batch_execute_workflows(items)
    assert [document["status"] for document in documents] == ["completed", "refused", "completed", "refused", "refused"]
    assert documents[1]["error"]["code"] == "internal_error"
    assert "unlucky" not in str(documents)
    assert "unlucky" in caplog.text


async def test_a_batch_runs_so_many_at_once(tmp_path: Path) -> None:
    """`max_concurrency` bounds the executions of one batch."""
    now = most = 0

    async def work(call: Call) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(5):
            await asyncio.sleep(0)
        now -= 1

    async with serving(tmp_path, [node("A", "work")], agents={"work": work}) as made:
        await made.batch_execute_workflows([{"graph_name": "Flow"}] * 9, max_concurrency=3)
    assert most == 3


# Asking.


def test_the_list_names_every_workflow(tmp_path: Path) -> None:
    """Broken workflows are listed as broken, with how much is wrong."""
    made = service(tmp_path, ROWS)
    flow, broken = made.list_workflows()["workflows"]
    assert (flow["name"], flow["status"], flow["node_count"], flow["entry_point"]) == ("Flow", "ok", 2, "A")
    assert (flow["description"], flow["graph_id"], flow["file"]) == ("The first", "flows::Flow", "flows.csv")
    assert (broken["name"], broken["status"]) == ("Broken", "broken")
    assert broken["problems"]["error"] >= 1
    json.dumps(made.list_workflows())


def test_a_definition_tells_nodes_edges_and_schemas(tmp_path: Path) -> None:
    """The definition of a workflow is plain JSON; broken ones can be looked at too."""
    made = service(tmp_path, ROWS)
    definition = made.get_workflow_definition("Flow")
    assert [n["name"] for n in definition["nodes"]] == ["A", "B"]
    assert definition["nodes"][0]["row"] == 2
    assert len(definition["edges"]) == 1
    assert "x" in definition["input_schema"]["properties"]
    assert set(definition["output_schema"]["properties"]) == {"a", "b"}
    assert made.get_workflow_definition("flows::Flow") == definition
    assert made.get_workflow_definition("Broken")["diagnostics"]
    with pytest.raises(UnknownWorkflow):
        made.get_workflow_definition("Gone")
    json.dumps(definition)


def test_a_workflow_can_be_drawn(tmp_path: Path) -> None:
    """As an object, as Mermaid, as DOT, and as a graph of networkx with what the object says."""
    made = service(tmp_path, ROWS)
    assert {n["id"] for n in made.draw_workflow("Flow", "json")["nodes"]} == {"A", "B"}
    assert made.draw_workflow("Flow", "mermaid").startswith("flowchart")
    assert made.draw_workflow("Flow", "dot").startswith("digraph")
    graph = made.draw_workflow("Flow", "networkx")
    assert (list(graph), list(graph.edges(data="kind")), graph.graph["entry"]) == (
        ["A", "B"],
        [("A", "B", "edge")],
        "A",
    )
    assert graph.nodes["A"]["agent_type"] == made.draw_workflow("Flow", "json")["nodes"][0]["agent_type"]


def test_a_file_is_validated_without_being_kept(tmp_path: Path) -> None:
    """Every diagnostic at once; the catalogue stays as it was."""
    made = service(tmp_path, ROWS)
    good = made.validate_workflows(sheet([node("X", graph="New")]).encode())
    assert (good["valid"], [w["name"] for w in good["workflows"]], good["rows"]["nodes"]) == (True, ["New"], 1)
    bad = made.validate_workflows(sheet([node("X", "nonsense", edge="Gone", graph="New")]).encode(), "mine.csv")
    assert not bad["valid"]
    assert {d["file"] for d in bad["diagnostics"]} == {"mine.csv"}
    assert not made.validate_workflows(b"\x00\xff\xfe")["valid"]
    assert made.list_workflows()["total_count"] == 2


async def test_readiness(tmp_path: Path) -> None:
    """Counts of what is going on, on this event loop."""
    async with serving(tmp_path, ROWS) as made:
        before = made.readiness()
        assert (before["ready"], before["workflows"], before["running"]) == (True, 2, 0)
        await made.start()
        assert made.readiness() == before


# Hooks.


class Hooked(AgentMapService):
    """Notes what its hooks are given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lines: list[Any] = []
        self.entered = asyncio.Event()
        self.waiting: asyncio.Event | None = None

    async def pre_workflow_execution(
        self, graph_name: str, initial_state: dict[str, Any], context: dict[str, Any]
    ) -> None:
        self.entered.set()
        self.lines.append(("pre", graph_name, initial_state.get("x"), dict(context)))
        if initial_state.get("x") == "refuse":
            raise Overloaded("not now")
        initial_state["x"] = "changed"
        context["added"] = object()
        if self.waiting is not None:
            await self.waiting.wait()

    async def post_workflow_execution(self, graph_name: str, result: dict[str, Any], context: dict[str, Any]) -> None:
        self.lines.append(("post", graph_name, result["status"], sorted(context)))
        result["result"] = "changed"


async def test_the_hooks_run_once_each(tmp_path: Path) -> None:
    """`pre` before the start, `post` at the end; what they change of their arguments is not the execution's."""
    rows = [
        node("A", "graph", inputs="x", output="a=c", context="{workflow=::Child}", edge="B"),
        node("B", "orchestrator", output="b", context={"nodes": []}),
        node("C", "look", inputs="x", output="c", graph="Child"),
    ]

    async def look(call: Call) -> Any:
        assert sorted(call.context) == ["added", "who"]
        return call.inputs["x"]

    async with serving(tmp_path, rows, kind=Hooked, agents={"look": look}) as made:
        assert isinstance(made, Hooked)
        context = {"who": "ann"}
        document = await made.execute_workflow("Flow", {"x": 1}, context)
        assert (document["status"], document["result"]) == ("failed", {"x": 1, "a": 1})
        assert made.lines == [("pre", "Flow", 1, context), ("post", "Flow", "failed", ["added", "who"])]
        assert context == {"who": "ann"}


async def test_pre_may_refuse(tmp_path: Path) -> None:
    """What `pre` raises refuses the start, and `post` does not run."""
    async with serving(tmp_path, ROWS, kind=Hooked) as made:
        assert isinstance(made, Hooked)
        with pytest.raises(Overloaded, match="not now"):
            await made.execute_workflow("Flow", {"x": "refuse"})
        assert [line[0] for line in made.lines] == ["pre"]
        assert len(await made.list_executions()) == 0
        (document,) = await made.batch_execute_workflows([{"graph_name": "Flow", "initial_state": {"x": "refuse"}}])
        assert document["status"] == "refused"


async def test_pre_does_not_run_for_what_is_refused_anyway(tmp_path: Path) -> None:
    """Unknown workflows and wrong inputs do not reach the hooks."""
    async with serving(tmp_path, ROWS, kind=Hooked) as made:
        assert isinstance(made, Hooked)
        for name, state in (("Gone", {}), ("Broken", {}), ("Flow", {"x": {1}})):
            with pytest.raises(RequestRefused):
                await made.execute_workflow(name, state)
        assert made.lines == []


async def test_post_runs_also_when_the_caller_is_gone(tmp_path: Path) -> None:
    """The end of the execution counts, not that of the call; a cancelled one has an end too."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(call: Call) -> Any:
        begun.set()
        await go_on.wait()

    async with serving(tmp_path, [node("A", "wait")], kind=Hooked, agents={"wait": wait}) as made:
        assert isinstance(made, Hooked)
        for end in ("go on", "cancel"):
            begun.clear()
            go_on.clear()
            call = asyncio.create_task(made.execute_workflow("Flow", {}))
            await begun.wait()
            (ours,) = list(made._runtime().running)
            call.cancel()
            if end == "cancel":
                await made.cancel_execution(ours.id)
            go_on.set()
            await ours.wait()
        assert [line[2] for line in made.lines if line[0] == "post"] == ["completed", "cancelled"]


async def test_a_post_that_raises_does_not_change_the_outcome(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged; the caller gets the document."""

    class Bad(AgentMapService):
        async def post_workflow_execution(self, *args: Any) -> None:
            raise ValueError("post is broken")

    async with serving(tmp_path, ROWS, kind=Bad) as made:
        assert (await made.execute_workflow("Flow", {"x": 1}))["status"] == "completed"
        assert made.readiness()["running"] == 0
    assert "closing failed" in caplog.text


async def test_a_service_that_closes_during_pre_starts_nothing(tmp_path: Path) -> None:
    """An execution whose `pre` outlives the service is refused."""
    async with serving(tmp_path, ROWS, kind=Hooked) as made:
        assert isinstance(made, Hooked)
        made.waiting = asyncio.Event()
        call = asyncio.create_task(made.execute_workflow("Flow", {"x": 1}))
        await made.entered.wait()
        await made.aclose()
        made.waiting.set()
        with pytest.raises(RequestRefused):
            await call


async def test_an_override_of_execute_wraps_the_call(tmp_path: Path) -> None:
    """Batches go through it too."""

    class Wrapped(AgentMapService):
        async def execute_workflow(
            self, graph_name: str, initial_state: dict[str, Any], context: Mapping[str, Any] | None = None
        ) -> dict[str, Any]:
            return {**await super().execute_workflow(graph_name, {"x": "wrapped"}, context), "wrapped": True}

    async with serving(tmp_path, ROWS, kind=Wrapped) as made:
        (document,) = await made.batch_execute_workflows([{"graph_name": "Flow", "initial_state": {"x": 1}}])
        assert (document["wrapped"], document["result"]["a"]) == (True, "wrapped")


async def test_the_context_of_a_call_is_json(tmp_path: Path) -> None:
    """What a caller says about a run is copied; what is no JSON is refused."""
    async with serving(tmp_path, ROWS) as made:
        assert (await made.execute_workflow("Flow", {}, {"principal": "ann"}))["owner"] == "ann"
        assert (await made.execute_workflow("Flow", {}, None))["owner"] is None
        assert isinstance(made.context, AgentMapContext)
