"""When an execution will be done, as far as those before it tell."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flows import node, serving
from hypothesis import given
from hypothesis import strategies as st

from agentmap_asgi.agents.registry import Call
from agentmap_asgi.execution.waits import Suspend
from agentmap_asgi.services.estimates import MOST, MOST_PLACES, Durations, estimate
from agentmap_asgi.testing import FakeClock

pytestmark = pytest.mark.anyio


@given(st.lists(st.floats(0, 1e6), max_size=300), st.floats(0, 1e6))
def test_a_forecast_lies_among_what_was_seen(seconds: list[float], elapsed: float) -> None:
    """p50 is not above p90, neither is in the past, and both are of the newest executions that took longer."""
    known = Durations(seconds)
    longer = [one for one in seconds[-MOST:] if one > elapsed]
    left = known.left(elapsed)
    assert (left is None) == (not longer)
    if left is not None:
        assert 0 < left[0] <= left[1] <= max(longer) - elapsed


def test_the_oldest_sample_goes_first() -> None:
    """What a workflow took long ago says nothing of today."""
    known = Durations([100.0] * MOST)
    for _ in range(MOST):
        known.add(1.0)
    assert (len(known), known.left(0.0)) == (MOST, (1.0, 1.0))


def test_of_many_that_complete_at_once_a_few_are_looked_at() -> None:
    """Each counts as a whole; once enough are known, nodes are looked at a few times a second."""
    known = Durations([1.0] * (MOST - 1))
    assert known.looks(0)
    assert known.looks(1)
    known.add(1.0)
    assert [known.looks(at) for at in (2, 50_000_000, 150_000_000, 150_000_001)] == [False, False, True, False]


@pytest.mark.parametrize(
    ("known", "elapsed", "loops", "reason"),
    [
        (None, 0.0, False, "Fewer than 3"),
        (Durations([1.0, 1.0]), 0.0, False, "Fewer than 3"),
        (Durations([1.0] * 3), 2.0, False, "longer than any before"),
        (Durations([1.0] * 3), 0.0, True, "loop"),
    ],
)
def test_what_is_not_known_has_its_reason(known: Durations | None, elapsed: float, loops: bool, reason: str) -> None:
    """Both forecasts are null, and a sentence says why."""
    found = estimate(known, elapsed, loops=loops)
    assert (found["p50_seconds_left"], found["p90_seconds_left"]) == (None, None)
    assert reason in found["reason"]


@pytest.mark.parametrize("storage", ["memory://", "sqlite:///{}"])
async def test_after_twenty_runs_the_forecast_is_near(storage: str, tmp_path: Path) -> None:
    """With durations that differ by 10 %, p50 at the start is within 20 %; a new process has it from the store."""
    clock = FakeClock()
    chance = random.Random(1)
    held = asyncio.Event()

    async def work(call: Call) -> Any:
        if call.inputs["hold"]:
            await held.wait()
        clock.advance(100 * chance.uniform(0.9, 1.1))

    config = {"storage_url": storage.format(tmp_path / "store.db")}
    agents: dict[str, Any] = {"work": work}
    rows = [node("A", "work", inputs="hold")]
    async with serving(tmp_path, rows, config=config, clock=clock, agents=agents) as made:
        for _ in range(20):
            await made.execute_workflow("Flow", {})
        begun = await made.start_execution("Flow", {"hold": True})
        assert begun["status"] == "running"
        assert begun["estimate"]["samples"] == 20
        assert 80 < begun["estimate"]["p50_seconds_left"] <= begun["estimate"]["p90_seconds_left"] < 120
        ready = datetime.fromisoformat(begun["estimated_completion"])
        assert 80 < (ready - datetime.fromisoformat(begun["started_at"])).total_seconds() < 120
        clock.advance(500)
        late = await made.get_execution_status(begun["execution_id"])
        assert late["estimated_completion"] is None
        assert "longer than any before" in late["estimate"]["reason"]
        await made.cancel_execution(begun["execution_id"])
    if storage != "memory://":
        held.clear()
        async with serving(tmp_path, rows, config=config, clock=clock, agents=agents) as made:
            again = await made.start_execution("Flow", {"hold": True})
            assert again["estimate"]["samples"] == 20
            await made.cancel_execution(again["execution_id"])


async def test_time_spent_waiting_for_people_does_not_count(tmp_path: Path) -> None:
    """An execution that waited says nothing of how long the next one runs; one that waits has no forecast."""

    async def ask(call: Call) -> Any:
        return Suspend("Well?")

    async with serving(tmp_path, [node("A", "ask", output="a")], agents={"ask": ask}) as made:
        for _ in range(4):
            waiting = await made.execute_workflow("Flow", {})
            assert (waiting["status"], waiting["estimated_completion"]) == ("suspended", None)
            await made.resume_execution(waiting["execution_id"], data=1)
        assert not any(len(known) for known in made._durations.values())


@pytest.mark.parametrize("storage", ["memory://", "sqlite:///{}"])
async def test_a_forecast_knows_the_way(storage: str, tmp_path: Path) -> None:
    """Where the work differs by branch, those that went the same way count, from the node on that runs; with half of
    that node's time over, half of it is left. A new process has it from the store.
    """
    clock = FakeClock()
    chance = random.Random(2)
    held, reached = asyncio.Event(), asyncio.Event()

    async def work(call: Call) -> Any:
        if call.state.get("hold") == call.node.name:
            reached.set()
            await held.wait()
        clock.advance(float(call.node.options["seconds"]) * chance.uniform(0.9, 1.1))

    config = {"storage_url": storage.format(tmp_path / "store.db")}
    agents: dict[str, Any] = {"work": work}
    rows = [
        node("First", "work", context={"seconds": 10}, edge="func:way(Short|Long)"),
        node("Short", "work", context={"seconds": 20}),
        node("Long", "work", context={"seconds": 400}, edge="Last"),
        node("Last", "work", context={"seconds": 40}),
    ]
    options: dict[str, Any] = {
        "config": config,
        "clock": clock,
        "agents": agents,
        "functions": {"way": lambda state: state["way"]},
    }

    async def forecast(made: Any, **state: Any) -> dict[str, Any]:
        held.clear()
        reached.clear()
        begun = await made.start_execution("Flow", state)
        await reached.wait()
        clock.advance(state.get("after", 0))
        found: dict[str, Any] = (await made.get_execution_status(begun["execution_id"]))["estimate"]
        await made.cancel_execution(begun["execution_id"])
        return found

    async def look(made: Any) -> None:
        begun = await forecast(made, way="Long", hold="First")
        assert begun["samples"] == 20
        short = await forecast(made, way="Short", hold="Short")
        assert (short["samples"], 16 < short["p50_seconds_left"] < 24) == (10, True), short
        long = await forecast(made, way="Long", hold="Long")
        assert (long["samples"], 352 < long["p50_seconds_left"] < 528) == (10, True), long
        half = await forecast(made, way="Long", hold="Long", after=200)
        assert 192 < half["p50_seconds_left"] < 288, half
        over = await forecast(made, way="Short", hold="Short", after=300)
        assert "longer than any before" in over["reason"]

    async with serving(tmp_path, rows, **options) as made:
        for number in range(20):
            await made.execute_workflow("Flow", {"way": "Long" if number % 2 else "Short"})
        await look(made)
    if storage != "memory://":
        async with serving(tmp_path, rows, **options) as made:
            workflow = made.catalogue.find("Flow")
            await made._ready_runtime()
            await made._remember(workflow)
            await asyncio.gather(*made._runtime()._jobs)
            await look(made)


def test_of_branches_the_longest_counts() -> None:
    """And when one of them is not known, the whole execution does."""
    known = Durations([100.0] * 5)
    for _ in range(5):
        known.note(("A", 1), 10.0, 30.0)
        known.note(("B", 1), 50.0, 60.0)
    found = estimate(known, 40.0, loops=False, places=[(("A", 1), 5.0), (("B", 1), 5.0)])
    assert (found["p50_seconds_left"], found["samples"]) == (55.0, 5)
    found = estimate(known, 40.0, loops=False, places=[(("A", 1), 5.0), (("C", 1), 5.0)])
    assert found["p50_seconds_left"] == 60.0
    for number in range(2 * MOST_PLACES):
        known.note((f"N{number}", 1), 1.0, 1.0)
    assert known.samples((f"N{2 * MOST_PLACES - 1}", 1)) == 0
