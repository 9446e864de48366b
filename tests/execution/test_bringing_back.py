"""Executions that are claimed and cannot come to run at once, and the versions of sub-workflows they began with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from flows import Row, node, service, sheet

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.errors import ExecutionConflict, StoreUnavailable
from agentmap_asgi.execution.restoring import Given
from agentmap_asgi.execution.waits import Answer, waits_of
from agentmap_asgi.services import executions
from agentmap_asgi.services.agentmap import AgentMapService
from agentmap_asgi.stores.sqlite import SQLiteStore
from agentmap_asgi.stores.store import Batch, Runner
from agentmap_asgi.stores.store import Row as Kept

pytestmark = pytest.mark.anyio


@agent(idempotent=True)
async def said(call: Call) -> str:
    return str(call.options["word"])


@agent(idempotent=True)
async def held(call: Call) -> None:
    await asyncio.sleep(60)


def rows(word: str = "old") -> list[Row]:
    return [
        node("Ask", "suspend", prompt="Well?", output="answer", edge="Part"),
        node("Part", "graph", output="part", context={"workflow": "::Child"}, edge="Last"),
        node("Last", "said", output="last", context={"word": word}),
        node("First", "said", output="first", context={"word": word}, edge="Then", graph="Later"),
        node("Then", "suspend", prompt="Well?", output="answer", graph="Later"),
        node("Fork", "echo", graph="Two", edge="Well|Held"),
        node("Well", "suspend", prompt="Well?", output="well", graph="Two"),
        node("Held", "held", graph="Two"),
        node("Deep", "graph", output="deep", context={"workflow": "::Below"}, graph="Child"),
        node("Say", "said", output="said", context={"word": word}, graph="Below"),
    ]


class Store(SQLiteStore):
    """A store on a disk that can be full, and that calls somebody when a claim is made."""

    full = False
    broken = False
    """It cannot be written into at all."""
    gate: asyncio.Event | None = None
    """What says that an execution waits is written once this is set."""
    came = 0
    """Writes that have come to the gate."""

    def claimed(self) -> None:
        """Called within a claim."""

    async def append(self, batch: Batch) -> bool:
        if self.full:
            raise StoreUnavailable("The disk is full")
        if self.broken:
            self.broken, self.full = False, True
            raise ValueError("It cannot be written")
        if self.gate is not None and batch.status == "suspended":
            self.came += 1
            await self.gate.wait()
        return await super().append(batch)

    async def claim(
        self, row: Kept, runner: Runner, *, status: str = "running", attempt: int | None = None
    ) -> Kept | None:
        found = await super().claim(row, runner, status=status, attempt=attempt)
        self.claimed()
        return found


async def opened(folder: Path, word: str = "old", said: Any = said, **settings: Any) -> AgentMapService:
    config = {"storage_url": f"sqlite:///{folder}/runs.db", "patrol_seconds": 0.01, **settings}
    agents = {"held": held} if said is None else {"held": held, "said": said}
    made = await to_thread.run_sync(lambda: service(folder, rows(word), config=config, agents=agents))
    made.store = Store(folder / "runs.db", namespace=made.store.namespace, source=str(folder / "flows.csv"))
    await made.start()
    return made


async def ended(made: AgentMapService, execution: str) -> dict[str, Any]:
    while (found := await made.wait_for_execution(execution, 10))["status"] in ("queued", "running"):
        pass
    return found


async def test_an_answer_that_cannot_be_kept_leaves_the_execution_waiting(tmp_path: Path) -> None:
    """Also when not even that can be written at once: it never seems to run while nobody runs it."""
    made = await opened(tmp_path)
    store = made.store
    assert isinstance(store, Store)
    document = await made.execute_workflow("Flow", {})
    name = document["execution_id"]
    store.full = True
    with pytest.raises(StoreUnavailable):
        await made.resume_execution(name, "answer", 1)
    store.full = False
    while (await made.get_execution_status(name))["status"] != "suspended":
        await asyncio.sleep(0.01)
    await made.resume_execution(name, "answer", 2)
    found = await ended(made, name)
    assert (found["status"], found["result"]["answer"]) == ("completed", 2)
    await made.aclose()


async def test_a_stop_does_not_touch_an_execution_that_has_come_to_wait(tmp_path: Path) -> None:
    """Also when the store is told of that after the process has let go of it."""
    made = await opened(tmp_path, shutdown_grace=0.0, cancel_grace=0.01)
    store = made.store
    assert isinstance(store, Store)
    store.gate = asyncio.Event()
    name = (await made.start_execution("Later", {}))["execution_id"]
    while not store.came:
        await asyncio.sleep(0.001)
    await made._runtime().aclose()
    store.gate.set()
    while (row := await store.find(name)) is None or row.status == "running":
        await asyncio.sleep(0.01)
    assert row.status == "suspended"
    await made.aclose()
    made = await opened(tmp_path)
    await made.resume_execution(name, "answer", 1)
    found = await ended(made, name)
    assert (found["status"], found["result"]["answer"]) == ("completed", 1)
    await made.aclose()


async def test_a_node_that_may_not_run_twice_ends_the_execution_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With what can be done about it: somebody may retry the execution, or mark the agent."""
    calls = 0

    async def once(call: Call) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(60)
        return "said"

    made = await opened(tmp_path, said=once, shutdown_grace=0.0, cancel_grace=0.01)
    name = (await made.start_execution("Later", {}))["execution_id"]
    while not calls:
        await asyncio.sleep(0.01)
    await made.aclose()
    made = await opened(tmp_path, said=once)
    found = await ended(made, name)
    assert (found["status"], found["error"]["node"], calls) == ("interrupted", "First", 1)
    assert "retry the execution, or mark the agent idempotent" in found["error"]["message"]
    assert f"{name}: it ends as interrupted. {found['error']['message']}" in caplog.text
    again = await ended(made, (await made.retry_execution(name))["execution_id"])
    assert (again["status"], again["result"]["first"], calls) == ("suspended", "said", 2)
    await made.aclose()


async def test_what_cannot_be_written_ends_the_execution_once_the_store_is_back(tmp_path: Path) -> None:
    """Until then it cannot be said in the store, and nobody else would see that it goes on no more."""
    made = await opened(tmp_path)
    store = made.store
    assert isinstance(store, Store)
    store.broken = True
    name = (await made.start_execution("Later", {}))["execution_id"]
    while not store.full:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # it has been tried, and has failed
    store.full = False
    assert (await ended(made, name))["status"] == "interrupted"
    await made.aclose()


async def test_an_answer_to_an_execution_that_is_lost_meanwhile_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no cancellation, which would end whoever has given it: the process that has the execution is asked."""
    monkeypatch.setattr(executions, "ASK_SECONDS", 0.05)
    made = await opened(tmp_path)
    store = made.store
    name = (await made.start_execution("Two", {}))["execution_id"]
    while not (await made.get_execution_status(name)).get("waiting"):
        await asyncio.sleep(0.01)
    while (row := await store.find(name)) is None or row.waits == "[]":
        await asyncio.sleep(0.01)
    assert await store.claim(row, await to_thread.run_sync(store.runner)) is not None
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await made.resume_execution(name, "answer", 1)
    await made.aclose()


@pytest.mark.parametrize("action", ["answer", "cancel"])
async def test_a_caller_who_goes_away_within_an_answer_stops_nothing_in_the_middle(action: str, tmp_path: Path) -> None:
    """The execution is claimed by then; it goes on, or ends."""
    made = await opened(tmp_path)
    store = made.store
    document = await made.execute_workflow("Flow", {})
    caller = asyncio.ensure_future(made.resume_execution(document["execution_id"], action, 1))
    vars(store)["claimed"] = caller.cancel
    with pytest.raises(asyncio.CancelledError):
        await caller
    found = await ended(made, document["execution_id"])
    while found["status"] == "suspended":  # the claim was not made yet
        found = await made.get_execution_status(document["execution_id"])
    assert found["status"] == ("completed" if action == "answer" else "cancelled")
    await made.aclose()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_sub_workflow_that_begins_later_has_the_version_of_then(restarted: bool, tmp_path: Path) -> None:
    """The file has changed while the execution waited; a new one has the new version, and so has one retried so."""
    made = await opened(tmp_path)
    document = await made.execute_workflow("Flow", {})
    name = document["execution_id"]
    if restarted:
        await made.aclose()
        made = await opened(tmp_path, "new")
    else:
        await to_thread.run_sync((tmp_path / "flows.csv").write_text, sheet(rows("new")))
        await made.reload()
    await made.store.prune(2**62, 2**62)  # what it needs is not forgotten
    await made.resume_execution(name, "answer", 1)
    found = await ended(made, name)
    assert found["result"]["part"]["deep"]["said"] == "old"
    new = await made.execute_workflow("Flow", {})
    await made.resume_execution(new["execution_id"], "answer", 1)
    found = await ended(made, new["execution_id"])
    assert found["result"]["part"]["deep"]["said"] == "new"
    for definition, word in (("pinned", "old"), ("latest", "new")):
        again = await made.retry_execution(name, start="Part", definition=definition)
        assert (await ended(made, again["execution_id"]))["result"]["part"]["deep"]["said"] == word
    await made.aclose()


async def test_an_execution_that_cannot_go_on_has_a_last_event(tmp_path: Path) -> None:
    """Its agent is gone: the events say how it ended, with the next number."""
    made = await opened(tmp_path)
    document = await made.execute_workflow("Flow", {})
    name = document["execution_id"]
    before = await made.get_execution_events(name)
    await made.aclose()
    made = await opened(tmp_path, said=None)
    await made.resume_execution(name, "answer", 1)
    assert (await ended(made, name))["status"] == "interrupted"
    events = await made.get_execution_events(name)
    assert [event["sequence"] for event in events] == list(range(1, len(before) + 3))
    assert [event["event"] for event in events[-2:]] == ["resumed", "interrupted"]
    await made.aclose()


async def test_what_another_process_has_taken_on_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    """Two see that a process has died; the slower one does not take its executions from the faster one."""
    made = await opened(tmp_path)
    store = made.store
    name = (await made.execute_workflow("Flow", {}))["execution_id"]
    row = await store.find(name)
    assert row is not None
    rival = SQLiteStore(tmp_path / "runs.db", namespace=store.namespace, source=str(tmp_path / "flows.csv"))
    await rival.open()
    runner = rival.runner()
    beaten = asyncio.Event()
    looks = 0

    async def find(execution: str) -> Kept | None:
        found = await rival.find(execution)
        if found is not None and found.runner == "gone":
            found = await rival.claim(found, runner)
            beaten.set()
        return found

    async def stranded() -> list[Kept]:
        nonlocal looks
        looks += 1
        return await SQLiteStore.stranded(store)  # type: ignore[arg-type]

    vars(store).update(find=find, stranded=stranded)
    await store.append(Given(row, {"status": "running", "runner": "gone"}))
    await beaten.wait()
    seen = looks
    while looks < seen + 2:
        await asyncio.sleep(0.01)
    found = await rival.find(name)
    assert found is not None
    assert found.runner == runner.id
    await made.aclose()
    await rival.aclose()


async def test_an_answer_counts_only_when_it_is_kept(tmp_path: Path) -> None:
    """Another process takes the execution on, and an answer with it, between the claim and the write of this answer."""
    made = await opened(tmp_path)
    store = made.store
    name = (await made.execute_workflow("Flow", {}))["execution_id"]
    rival = SQLiteStore(tmp_path / "runs.db", namespace=store.namespace, source=str(tmp_path / "flows.csv"))
    await rival.open()
    runner = rival.runner()
    kept: list[bool] = []

    async def append(batch: Batch) -> bool:
        row = await rival.find(name)
        assert row is not None
        taken = await rival.claim(row, runner)
        assert taken is not None
        (wait,) = waits_of(name, taken.waits)
        theirs = await made._runtime()._answered(taken, wait, Answer("answer", 8), 1_800_000_000_000_000_000)
        kept.append(await rival.append(theirs))
        kept.append(await SQLiteStore.append(store, batch))  # type: ignore[arg-type]
        del vars(store)["append"]
        return kept[1]

    vars(store).update(append=append)
    with pytest.raises(ExecutionConflict, match="Somebody else has answered"):
        await made.resume_execution(name, "answer", 7)
    assert kept == [True, False]
    assert name not in made._runtime().live
    await rival.aclose()
    await made.aclose()
