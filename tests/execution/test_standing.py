"""What must not happen to an execution in a durable store: to be left without an owner, or to run twice."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from flows import node, serving

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.errors import ExecutionConflict, ShuttingDown, StoreUnavailable
from agentmap_asgi.execution.waits import Suspend
from agentmap_asgi.services.agentmap import AgentMapService
from agentmap_asgi.stores.store import Command
from agentmap_asgi.testing import FakeClock

pytestmark = pytest.mark.anyio


def stored(folder: Path, **more: Any) -> dict[str, Any]:
    return {"storage_url": f"sqlite:///{folder / 'store.db'}", **more}


async def ended(made: AgentMapService, execution_id: str) -> dict[str, Any]:
    found = await made.get_execution_status(execution_id)
    while found["status"] in ("queued", "running"):
        found = await made.wait_for_execution(execution_id, 10.0)
    return found


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "store.db")) as connection:
        connection.execute(statement)
        connection.commit()


class Turned:
    """A codec."""

    def encode(self, data: bytes) -> bytes:
        return bytes(255 - byte for byte in data)

    decode = encode


async def test_a_start_whose_caller_goes_away_is_not_left_standing(tmp_path: Path) -> None:
    """Cancelled at any moment: what the store was told of ends, and nothing stays queued or running."""
    async with serving(tmp_path, [node("A", "echo", inputs="x", output="a")], config=stored(tmp_path)) as made:
        await made.execute_workflow("Flow", {"x": 0})
        for turns in range(20):
            call = asyncio.create_task(made.execute_workflow("Flow", {"x": turns}))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})
        for one in await made.list_executions(limit=100):
            assert (await ended(made, one["execution_id"]))["status"] == "completed"


async def test_a_start_that_is_left_before_it_is_kept_is_refused(tmp_path: Path) -> None:
    """A process that stops in the very moment tells the caller so, calls no agent, and keeps nothing."""
    called: list[str] = []

    async def waits(call: Call) -> Any:
        called.append(call.node.name)

    rows = [node("A", "waits", output="a")]
    async with serving(tmp_path, rows, config=stored(tmp_path), agents={"waits": waits}) as made:
        await made.execute_workflow("Flow", {})
        call = asyncio.create_task(made.execute_workflow("Flow", {}))
        await asyncio.sleep(0)
        (run,) = made._runtime().live.values()
        run.leave()
        with pytest.raises(ShuttingDown):
            await asyncio.wait_for(call, 10.0)
        assert called == ["A"]
        assert len(await made.list_executions()) == 1


async def test_a_cancel_from_another_process_waits_for_a_suspension_that_is_being_kept(tmp_path: Path) -> None:
    """What is written as suspended stays so until whoever cancels ends it, with all its events."""
    rows = [node("A", "human", prompt="ok?", output="a")]
    async with serving(tmp_path, rows, config=stored(tmp_path)) as made:
        go = asyncio.Event()

        def held(write: Any) -> Any:
            async def later(given: Any) -> Any:
                await go.wait()
                return await write(given)

            return later

        made.store.create = held(made.store.create)  # type: ignore[method-assign]
        made.store.append = held(made.store.append)  # type: ignore[method-assign]
        runtime = await made._ready_runtime()
        begun = asyncio.create_task(made.start_execution("Flow", {}))
        while not runtime.live or next(iter(runtime.live.values())).status != "suspended":
            await asyncio.sleep(0)
        (live,) = runtime.live.values()
        asked = asyncio.create_task(runtime._obeyed(Command(1, live.id, "cancel", "{}"), live))
        await asyncio.sleep(0)
        go.set()
        assert await asked == "late"
        row = await made.store.find((await begun)["execution_id"])
        assert row is not None
        assert row.status == "suspended"
        assert (await made.cancel_execution(live.id))["status"] == "cancelled"
        events = await made.get_execution_events(live.id)
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        assert [events[0]["event"], events[-1]["event"]] == ["started", "cancelled"]


@pytest.mark.parametrize("storage", ["memory", "file"])
async def test_what_is_cancelled_in_the_queue_has_a_first_and_a_last_event(storage: str, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def waits(call: Call) -> None:
        await go.wait()

    config = {"max_running": 1, **(stored(tmp_path) if storage == "file" else {})}
    async with serving(tmp_path, [node("A", "waits")], config=config, agents={"waits": waits}) as made:
        await made.start_execution("Flow", {})
        second = await made.start_execution("Flow", {})
        assert second["status"] == "queued"
        assert (await made.cancel_execution(second["execution_id"]))["status"] == "cancelled"
        events = await made.get_execution_events(second["execution_id"])
        go.set()
    assert [(event["sequence"], event["event"]) for event in events] == [(1, "started"), (2, "cancelled")]


async def test_a_retry_that_cannot_be_kept_runs_nothing(tmp_path: Path) -> None:
    """Its entries are in the store with its row, or neither is: a finished node does not run again."""
    ran: Counter[str] = Counter()

    async def pay(call: Call) -> Any:
        ran["pay"] += 1
        return "paid"

    async def breaks(call: Call) -> Any:
        ran["breaks"] += 1
        raise ValueError("broken")

    rows = [node("A", "pay", output="a", edge="B"), node("B", "breaks", output="b")]
    agents: dict[str, Any] = {"pay": pay, "breaks": breaks}
    async with serving(tmp_path, rows, config=stored(tmp_path), agents=agents) as made:
        failed = await made.execute_workflow("Flow", {})
        append = made.store.append

        def refuse(batch: Any) -> Any:
            async def full() -> bool:
                raise StoreUnavailable()

            return full()

        made.store.append = refuse  # type: ignore[method-assign]
        again = await made.retry_execution(failed["execution_id"])
        made.store.append = append  # type: ignore[method-assign]
        assert (await ended(made, again["execution_id"]))["status"] == "failed"
    assert ran["pay"] == 1


async def test_an_answer_in_a_second_attempt_reaches_its_sub_workflow(tmp_path: Path) -> None:
    """A sub-workflow that waits in its second attempt goes on with the answer, beside another branch."""
    tries: Counter[str] = Counter()
    gate = asyncio.Event()

    async def once(call: Call) -> Any:
        tries["once"] += 1
        if tries["once"] == 1:
            raise ValueError("not yet")
        return tries["once"]

    async def ask(call: Call) -> Any:
        return Suspend("Well?")

    async def hold(call: Call) -> Any:
        await gate.wait()

    rows = [
        node("S", edge="G|H"),
        node("G", "graph", output="g=answer", context="{workflow=::Child}", retry="2"),
        node("H", "hold"),
        node("O", "once", output="o", edge="Q", graph="Child"),
        node("Q", "ask", output="answer", graph="Child"),
    ]
    agents: dict[str, Any] = {"once": once, "ask": ask, "hold": hold}
    async with serving(tmp_path, rows, config=stored(tmp_path), agents=agents) as made:
        begun = await made.start_execution("Flow", {})
        found = begun
        while not found["waiting"]:
            found = await made.wait_for_execution(begun["execution_id"], 10.0)
        await made.resume_execution(begun["execution_id"], data="yes")
        gate.set()
        found = await ended(made, begun["execution_id"])
    assert (found["status"], found["result"]["g"], tries["once"]) == ("completed", "yes", 2)


async def test_what_ends_its_process_each_time_is_given_up(tmp_path: Path) -> None:
    """Also when nothing of it was ever written: past `max_recoveries` it is interrupted and not begun."""
    begun: list[str] = []

    @agent(inline=True, idempotent=True)
    def fatal(call: Call) -> Any:
        begun.append(call.execution_id)
        raise SystemExit

    config = stored(tmp_path, max_recoveries=2)
    async with serving(tmp_path, [node("A", "fatal")], config=config, agents={"fatal": fatal}) as made:
        runtime = await made._ready_runtime()
        run = made._new_run(runtime, made.catalogue.find("Flow"), "poison", {}, {}, made_facts())
        await made.store.create(run)
        row = await made.store.find("poison")
        for _ in range(3):  # three runners took it on, and died
            assert row is not None
            assert runtime.runner is not None
            row = await made.store.claim(row, runtime.runner, attempt=row.attempt + 1)
        assert row is not None
        await runtime._take_on(row)
        found = await ended(made, "poison")
    assert (found["status"], found["error"]["code"], begun) == ("interrupted", "interrupted", [])


def made_facts() -> Any:
    from agentmap_asgi.execution.host import NO_FACTS

    return NO_FACTS


async def test_what_has_ended_is_kept_before_the_process_stops(tmp_path: Path) -> None:
    """A slow hook after the last node: closing waits for it, and nothing runs again."""
    ran: Counter[str] = Counter()
    ends = asyncio.Event()

    class Slow(AgentMapService):
        async def post_workflow_execution(self, graph_name: str, result: Any, context: Any) -> None:
            ran["hook"] += 1
            ends.set()
            for _ in range(50):
                await asyncio.sleep(0)

    async def work(call: Call) -> Any:
        ran["work"] += 1
        return 1

    rows = [node("A", "work", output="a")]
    async with serving(tmp_path, rows, kind=Slow, config=stored(tmp_path), agents={"work": work}) as made:
        begun = await made.start_execution("Flow", {})
        await ends.wait()
    async with serving(tmp_path, rows, kind=Slow, config=stored(tmp_path), agents={"work": work}) as made:
        assert (await ended(made, begun["execution_id"]))["status"] == "completed"
    assert ran == {"work": 1, "hook": 1}


async def test_orderly_stops_are_no_crashes(tmp_path: Path) -> None:
    """An execution that outlives many restarts of its process goes on each time, as often as it likes."""
    begun = asyncio.Event()
    held = asyncio.Event()

    @agent(idempotent=True)
    async def hold(call: Call) -> Any:
        begun.set()
        await held.wait()
        return "done"

    config = stored(tmp_path, shutdown_grace=0.0, max_recoveries=1, patrol_seconds=0.01)
    rows = [node("A", "hold", output="a")]
    first: dict[str, Any] = {}
    for _ in range(4):
        begun.clear()
        async with serving(tmp_path, rows, config=config, agents={"hold": hold}) as made:
            if first:
                await made.start()
            else:
                first = await made.start_execution("Flow", {})
            await begun.wait()
    held.set()
    async with serving(tmp_path, rows, config=config, agents={"hold": hold}) as made:
        found = await ended(made, first["execution_id"])
    assert (found["status"], found["attempt"]) == ("completed", 1)


async def test_resumed_executions_wait_for_slots(tmp_path: Path) -> None:
    """So many answers at once do not run more at once than `max_running`."""
    now: Counter[str] = Counter()

    async def ask(call: Call) -> Any:
        return Suspend("Well?")

    async def work(call: Call) -> Any:
        now["at once"] += 1
        now["most"] = max(now["most"], now["at once"])
        for _ in range(5):
            await asyncio.sleep(0)
        now["at once"] -= 1

    rows = [node("A", "ask", output="a", edge="B"), node("B", "work")]
    config = stored(tmp_path, max_running=2)
    async with serving(tmp_path, rows, config=config, agents={"ask": ask, "work": work}) as made:
        waiting = [await made.execute_workflow("Flow", {}) for _ in range(12)]
        ids = [one["execution_id"] for one in waiting]
        await asyncio.gather(*(made.resume_execution(one, data=1) for one in ids))
        assert {(await ended(made, one))["status"] for one in ids} == {"completed"}
    assert 0 < now["most"] <= 2


async def test_a_long_list_has_as_many_tasks_as_it_runs_at_once(tmp_path: Path) -> None:
    """Map_Over makes a task for an item when its turn has come."""
    most = 0

    async def work(call: Call) -> Any:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))
        return call.inputs["item"]

    rows = [node("A", "work", output="a", map_over="items")]
    async with serving(tmp_path, rows, agents={"work": work}) as made:
        found = await made.execute_workflow("Flow", {"items": list(range(3_000))})
    assert found["result"]["a"] == list(range(3_000))
    assert most < 30


async def test_progress_counts_what_has_ended(tmp_path: Path) -> None:
    """A node that waits, or goes on with its answer, is not done; the number never goes back."""

    async def ask(call: Call) -> Any:
        return Suspend("Well?")

    rows = [node("S", output="s", edge="A|B"), node("A", "ask", output="a"), node("B", "ask", output="b")]
    async with serving(tmp_path, rows, config=stored(tmp_path), agents={"ask": ask}) as made:
        found = await made.execute_workflow("Flow", {})
        assert found["progress"] == {"nodes_done": 1, "current": []}
        again = await made.resume_execution(found["execution_id"], data=1, node="A")
        assert again["progress"]["nodes_done"] in (1, 2)
        while again["status"] != "suspended":
            again = await made.wait_for_execution(found["execution_id"], 10.0)
        assert again["progress"]["nodes_done"] == 2


@pytest.mark.parametrize("status", ["running", "suspended"])
async def test_a_damaged_beginning_ends_an_execution(status: str, tmp_path: Path) -> None:
    """When it would be taken on, it has failed, and says why; what it began with stays in the file as it is. Others go
    on.
    """
    clock = FakeClock()
    hold = asyncio.Event()

    async def slow(call: Call) -> Any:
        await hold.wait()

    slow = agent(idempotent=True)(slow)
    rows = [node("A", "slow") if status == "running" else node("A", "human", timeout="1d", ko="B"), node("B", "echo")]
    settings = stored(tmp_path, patrol_seconds=0.01, shutdown_grace=0.01)
    options: dict[str, Any] = {"config": settings, "agents": {"slow": slow}, "clock": clock}
    async with serving(tmp_path, rows, **options) as made:
        ids = [(await made.start_execution("Flow", {}))["execution_id"] for _ in range(2)]
        if status == "suspended":
            for one in ids:
                await made.until_settled(one, 10)
    await to_thread.run_sync(change, tmp_path, f"UPDATE executions SET head = '[]' WHERE id = '{ids[0]}'")
    hold.set()
    clock.advance(86_400)
    async with serving(tmp_path, rows, **options) as made:
        await made.start()
        while (await made.get_execution_status(ids[1]))["status"] != "completed":
            await asyncio.sleep(0.01)
        while ids[0] not in [one["execution_id"] for one in await made.list_executions(status=("failed",))]:
            await asyncio.sleep(0.01)
        found = await made.get_execution_status(ids[0])
        assert (found["status"], found["error"]["code"], found["error"]["retryable"]) == (
            "failed",
            "store_damaged",
            False,
        )
        assert "the checksum of its head is wrong" in found["error"]["message"]
        events = await made.get_execution_events(ids[0])
        assert (events[-1]["event"], events[-1]["error"]["code"]) == ("failed", "store_damaged")
        for start in ("failed", "start"):
            with pytest.raises(ExecutionConflict, match="damaged"):
                await made.retry_execution(ids[0], start=start)
        await made.delete_execution(ids[0])


async def test_what_only_another_codec_can_read_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process that was started without the key ends nothing; with the key, everything goes on."""
    hold = asyncio.Event()

    @agent(idempotent=True)
    async def slow(call: Call) -> Any:
        await hold.wait()

    settings = stored(tmp_path, patrol_seconds=0.01, shutdown_grace=0.01)
    options: dict[str, Any] = {"config": settings, "agents": {"slow": slow}}
    async with serving(tmp_path, [node("A", "slow")], **options, payload_codec=Turned()) as made:
        execution_id = (await made.start_execution("Flow", {}))["execution_id"]
    hold.set()
    async with serving(tmp_path, [node("A", "slow")], **options) as made:
        await made.start()
        while "no codec is given" not in caplog.text:
            await asyncio.sleep(0.01)
    async with serving(tmp_path, [node("A", "slow")], **options, payload_codec=Turned()) as made:
        await made.start()
        assert (await ended(made, execution_id))["status"] == "completed"


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/store.db"])
async def test_what_is_cancelled_and_what_is_run_again_give_back_slot_and_services(url: str, tmp_path: Path) -> None:
    """With one slot, the next one runs; each service that was opened is closed, also that of the retry."""
    counted: Counter[str] = Counter()
    held, reached = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def session() -> AsyncIterator[object]:
        counted["opened"] += 1
        try:
            yield object()
        finally:
            counted["closed"] += 1

    @agent(services=["session"], idempotent=True)
    async def holds(call: Call) -> Any:
        if call.inputs["hold"]:
            reached.set()
            await held.wait()
        return "done"

    options: dict[str, Any] = {
        "config": {"storage_url": url.format(tmp_path), "max_running": 1},
        "agents": {"holds": holds},
        "services": {"session": session},
    }
    async with serving(tmp_path, [node("A", "holds", inputs="hold", output="a")], **options) as made:
        begun = await made.start_execution("Flow", {"hold": True})
        await reached.wait()
        queued = await made.start_execution("Flow", {"hold": False})
        assert (await made.get_execution_status(queued["execution_id"]))["status"] == "queued"
        assert (await made.cancel_execution(begun["execution_id"]))["status"] == "cancelled"
        assert (await ended(made, queued["execution_id"]))["status"] == "completed"
        held.set()
        again = await made.retry_execution(begun["execution_id"])
        assert (await ended(made, again["execution_id"]))["status"] == "completed"
        assert (await made.execute_workflow("Flow", {"hold": False}))["status"] == "completed"
        assert counted["opened"] == counted["closed"] == 4
        assert made.readiness()["running"] == 0
