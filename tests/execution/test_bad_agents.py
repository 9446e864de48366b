"""A bad agent fails its own node; its neighbours in the same loop and the service go on."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, serving

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.errors import NodeFailure
from agentmap_asgi.services.agentmap import AgentMapService

pytestmark = pytest.mark.anyio

HANG = 30
"""Seconds after which a test is given up; none comes near."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


class Wordless(NodeFailure):
    def __init__(self) -> None:
        pass


class Base(BaseException):
    pass


class Sub(dict[str, Any]):
    pass


def cyclic() -> Any:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    return loop


def nested(depth: int) -> Any:
    leaf: Any = "leaf"
    for _ in range(depth):
        leaf = {"k": leaf}
    return leaf


def raising(error: type[BaseException] | BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


RAISES: dict[str, tuple[Callable[[], Any], str]] = {
    "BaseException": (raising(Base("base")), "Base: base"),
    "SystemExit": (raising(SystemExit(3)), "SystemExit: 3"),
    "KeyboardInterrupt": (raising(KeyboardInterrupt), "KeyboardInterrupt"),
    "StopIteration": (raising(StopIteration(1)), "StopIteration"),
    "StopAsyncIteration": (raising(StopAsyncIteration), "StopAsyncIteration"),
    "CancelledError": (raising(asyncio.CancelledError), "The agent raised CancelledError, though nobody cancelled it"),
    "TimeoutError": (raising(TimeoutError), "TimeoutError"),
    "group": (raising(BaseExceptionGroup("both", [SystemExit(1), ValueError("x")])), "BaseExceptionGroup: both"),
    "unprintable": (raising(Unprintable), "Unprintable"),
    "wordless": (raising(Wordless), "Wordless"),
    "surrogate": (raising(ValueError("a\ud800b")), "ValueError: a?b"),
    "failure with a surrogate": (raising(NodeFailure("a\ud800b")), "NodeFailure: a?b"),
    "lines": (raising(ValueError("one\ntwo\x00")), "ValueError: one two"),
    "endless": (raising(ValueError("x" * 100_000)), "ValueError: xxx"),
    "MemoryError": (raising(MemoryError), "MemoryError"),
    "RecursionError": (raising(RecursionError("deep")), "RecursionError: deep"),
    "AssertionError": (raising(AssertionError), "AssertionError"),
}

RETURNS: dict[str, tuple[Callable[[], Any], str]] = {
    "nan": (lambda: {"a": [float("nan")]}, "The result.a[0] is nan"),
    "infinity": (lambda: float("inf"), "The result is inf"),
    "bytes": (lambda: b"x", "The result is a bytes"),
    "set": (lambda: {"deep": {1, 2}}, "The result.deep is a set"),
    "tuple": (lambda: (1, 2), "The result is a tuple"),
    "cyclic": (cyclic, "contains itself"),
    "huge integer": (lambda: 10**5_000, "is an integer past 64 bits"),
    "number as a key": (lambda: {1: 2}, "has the key 1"),
    "key that cannot be printed": (lambda: {Unprintable(): 2}, ""),
    "lone surrogate": (lambda: ["\ud800"], "The result[0] holds a lone surrogate"),
    "subclass of dict": (lambda: Sub(), "Sub"),
    "generator": (lambda: (n for n in range(3)), "The result is a generator"),
    "deep": (lambda: nested(64), "nested deeper"),
    "function": (lambda: print, "builtin_function_or_method"),
    "state_updates of a reserved name": (lambda: {"state_updates": {"errors": []}}, "'errors'"),
    "state_updates that are no JSON": (lambda: {"state_updates": {"a": {1}}}, "The result.state_updates.a is a set"),
}


def in_loop(act: Callable[[], Any]) -> Any:
    async def bad(call: Call) -> Any:
        return act()

    return bad


def after_a_wait(act: Callable[[], Any]) -> Any:
    async def bad(call: Call) -> Any:
        await asyncio.sleep(0)
        return act()

    return bad


def in_thread(act: Callable[[], Any]) -> Any:
    def bad(call: Call) -> Any:
        return act()

    return bad


def inline(act: Callable[[], Any]) -> Any:
    return agent(inline=True)(in_thread(act))


def as_class(act: Callable[[], Any]) -> Any:
    class Bad:
        async def process(self, inputs: dict[str, Any]) -> Any:
            return act()

    return Bad


KINDS = {"async": in_loop, "waiting": after_a_wait, "thread": in_thread, "inline": inline, "class": as_class}


class Neighbour:
    """An execution that runs while another goes wrong: it begins before, and ends after."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, call: Call) -> Any:
        self.begun.set()
        await self.go_on.wait()
        return call.inputs["x"] + 1


ROWS = [
    node("A", "bad", inputs="x", output="a", edge="B"),
    node("B", prompt="went on", output="b"),
    node("A", "bad", inputs="x", output="a", edge="B", ko="H", graph="Handled"),
    node("B", prompt="went on", output="b", graph="Handled"),
    node("H", prompt="{error}", output="h", graph="Handled"),
    node("N", "neighbour", inputs="x", output="n", edge="M", graph="Good"),
    node("M", "echo", inputs="n", output="m", graph="Good"),
]


async def beside(service: AgentMapService, neighbour: Neighbour, graph: str) -> dict[str, Any]:
    """Run `graph` while a neighbour runs, and see that the neighbour and the service are well."""
    good = asyncio.create_task(service.execute_workflow("Good", {"x": 1}))
    await neighbour.begun.wait()
    document = await asyncio.wait_for(service.execute_workflow(graph, {"x": 1}), HANG)
    neighbour.go_on.set()
    assert (await asyncio.wait_for(good, HANG))["result"] == {"x": 1, "n": 2, "m": 2}
    assert (await asyncio.wait_for(service.execute_workflow("Good", {"x": 5}), HANG))["result"]["m"] == 6
    assert service.readiness()["running"] == 0
    return document


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*RAISES, *RETURNS])
async def test_what_an_agent_raises_or_returns_fails_its_node_only(name: str, kind: str, tmp_path: Path) -> None:
    """Any exception and any result that is no JSON fails the node; Failure_Next handles it, or nothing does."""
    act, message = (RAISES | RETURNS)[name]
    neighbour = Neighbour()
    async with serving(tmp_path, ROWS, agents={"bad": KINDS[kind](act), "neighbour": neighbour}) as service:
        failed = await beside(service, neighbour, "Flow")
        assert failed["status"] == "failed"
        assert failed["result"] == {"x": 1}
        error = failed["error"]
        assert (error["node"], error["agent_type"], error["attempt"]) == ("A", "bad", 1)
        assert message in error["message"]
        assert len(error["message"]) < 700
        error["message"].encode()
        handled = await beside(service, neighbour, "Handled")
        assert handled["status"] == "completed"
        assert handled["result"]["h"] == error["message"]
        assert "b" not in handled["result"]


@pytest.mark.parametrize("kind", ["thread", "inline"])
async def test_generator_exit_of_a_plain_function_fails_its_node(kind: str, tmp_path: Path) -> None:
    """GeneratorExit from a thread or an inline agent is a failure like any."""
    neighbour = Neighbour()
    bad = KINDS[kind](raising(GeneratorExit))
    async with serving(tmp_path, ROWS, agents={"bad": bad, "neighbour": neighbour}) as service:
        document = await beside(service, neighbour, "Flow")
        assert (document["status"], document["error"]["code"]) == ("failed", "agent_error")


async def test_generator_exit_of_a_coroutine_fails_its_execution(tmp_path: Path) -> None:
    """GeneratorExit out of a coroutine cannot be told from its end: it ends the execution as failed."""
    neighbour = Neighbour()
    bad = in_loop(raising(GeneratorExit))
    async with serving(tmp_path, ROWS, agents={"bad": bad, "neighbour": neighbour}) as service:
        document = await beside(service, neighbour, "Flow")
        assert (document["status"], document["error"]["code"]) == ("failed", "agent_error")


@pytest.mark.parametrize("waits", [True, False])
async def test_an_agent_that_cancels_its_own_task_ends_its_execution_only(waits: bool, tmp_path: Path) -> None:
    """`asyncio.current_task().cancel()` counts as a cancellation of that execution, if it is noticed at all."""

    async def bad(call: Call) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(0)
        return "unnoticed"

    neighbour = Neighbour()
    async with serving(tmp_path, ROWS, agents={"bad": bad, "neighbour": neighbour}) as service:
        document = await beside(service, neighbour, "Flow")
        assert document["status"] == ("cancelled" if waits else "completed")


async def test_an_agent_that_cancels_its_attempt_fails_its_node(tmp_path: Path) -> None:
    """Under a Timeout an attempt is a task of its own, and cancelling it is the agent's own failure."""

    async def bad(call: Call) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    rows = [node("A", "bad", timeout="1h", ko="H"), node("H", prompt="{error}", output="h")]
    document = await run(tmp_path, rows, agents={"bad": bad})
    assert document["result"]["h"] == "The agent raised CancelledError, though nobody cancelled it"


async def test_a_cancellation_swallowed_under_a_timeout(tmp_path: Path) -> None:
    """An agent that ignores its cancellation has timed out all the same; it is counted until it ends."""
    let_go = asyncio.Event()
    ended = asyncio.Event()

    async def bad(call: Call) -> Any:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "too late"

    rows = [node("A", "bad", timeout="200ms", output="a", ko="H"), node("H", prompt="{error}", output="h"), *ROWS[5:]]
    neighbour = Neighbour()
    config = {"cancel_grace": 0.01}
    async with serving(tmp_path, rows, config=config, agents={"bad": bad, "neighbour": neighbour}) as service:
        document = await beside(service, neighbour, "Flow")
        assert document["status"] == "completed"
        assert "took longer than 0.2 s" in document["result"]["h"]
        assert service.readiness()["unresponsive_agents"] == 1
        let_go.set()
        await ended.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        assert service.readiness()["unresponsive_agents"] == 0
        status = await service.get_execution_status(document["execution_id"])
        assert status["result"] == document["result"]


async def test_a_cancellation_swallowed_when_the_execution_is_cancelled(tmp_path: Path) -> None:
    """An execution is cancelled although its agent ignores it; what the agent returns later is dropped."""
    let_go, begun = asyncio.Event(), asyncio.Event()

    async def bad(call: Call) -> Any:
        begun.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    neighbour = Neighbour()
    config = {"cancel_grace": 0.01}
    async with serving(tmp_path, ROWS, config=config, agents={"bad": bad, "neighbour": neighbour}) as service:
        task = asyncio.create_task(service.execute_workflow("Flow", {"x": 1}))
        await begun.wait()
        (ours,) = list(service._runtime().running)
        cancelled = await asyncio.wait_for(service.cancel_execution(ours.id), HANG)
        assert cancelled["status"] == "cancelled"
        assert (await asyncio.wait_for(task, HANG))["status"] == "cancelled"
        assert service.readiness()["unresponsive_agents"] == 1
        let_go.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (await service.get_execution_status(ours.id))["result"] == {"x": 1}
        assert service.readiness()["unresponsive_agents"] == 0


async def test_a_thread_that_outlives_its_timeout_keeps_its_place(tmp_path: Path) -> None:
    """A thread cannot be stopped: its result is dropped, and its place is taken until it returns."""
    let_go = threading.Event()

    def bad(call: Call) -> Any:
        let_go.wait(HANG)
        return "too late"

    rows = [
        node("A", "bad", timeout="200ms", output="a", ko="H"),
        node("H", prompt="{error}", output="h"),
        node("T", "quick", output="t", graph="Quick"),
    ]
    agents = {"bad": bad, "quick": lambda call: "quick"}
    async with serving(tmp_path, rows, config={"max_threads": 1}, agents=agents) as service:
        document = await asyncio.wait_for(service.execute_workflow("Flow", {}), HANG)
        assert (document["status"], "a" in document["result"]) == ("completed", False)
        assert (service.readiness()["threads_in_use"], service.readiness()["unresponsive_agents"]) == (1, 1)
        waiting = asyncio.create_task(service.execute_workflow("Quick", {}))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        let_go.set()
        assert (await asyncio.wait_for(waiting, HANG))["result"] == {"t": "quick"}
        assert service.readiness()["unresponsive_agents"] == 0


@pytest.mark.blocks
async def test_a_blocked_loop_is_reported_with_the_line(tmp_path: Path) -> None:
    """An async agent that blocks the loop is named in a warning, with the line it blocks in."""
    warned = threading.Event()
    records: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "has blocked the event loop" in record.getMessage():
                records.append(record)
                warned.set()

    async def bad(call: Call) -> Any:
        return warned.wait(HANG)

    listener = Listener()
    logger = logging.getLogger("agentmap_asgi.execution")
    logger.addHandler(listener)
    try:
        rows = [node("A", "bad", output="a")]
        document = await run(tmp_path, rows, config={"blocking_threshold": 0.02}, agents={"bad": bad})
    finally:
        logger.removeHandler(listener)
    assert document["result"] == {"a": True}
    (record,) = records
    assert record.levelname == "WARNING"
    assert "Flow/A (bad)" in record.getMessage()
    assert __file__ in record.getMessage()


async def test_a_leaked_task_does_not_hold_its_execution(tmp_path: Path) -> None:
    """A task that an agent starts and forgets goes on by itself; it sees no other execution."""
    let_go = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def bad(call: Call) -> Any:
        async def later() -> None:
            await let_go.wait()
            call.inputs["x"].append("late")

        tasks.append(asyncio.create_task(later()))
        return call.inputs["x"]

    neighbour = Neighbour()
    rows = [node("A", "bad", inputs="x", output="a"), *ROWS[5:]]
    async with serving(tmp_path, rows, agents={"bad": bad, "neighbour": neighbour}) as service:
        document = await service.execute_workflow("Flow", {"x": [1]})
        let_go.set()
        await asyncio.gather(*tasks)
        status = await service.get_execution_status(document["execution_id"])
        assert status["result"] == {"x": [1], "a": [1]}


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
async def test_mutations_reach_nobody(kind: str, tmp_path: Path) -> None:
    """Inputs, state, options and context are the agent's own copies; a result is copied when it is taken."""
    kept: list[Any] = []

    def act(call: Call) -> Any:
        call.inputs["x"].append("input")
        call.state["x"].append("state")
        options: Any = call.options
        options["list"].append("option")
        context: Any = call.context
        context["who"].append("context")
        context["new"] = 1
        result: dict[str, list[str]] = {"fresh": []}
        kept.append(result)
        return result

    async def act_async(call: Call) -> Any:
        return act(call)

    async def look(call: Call) -> Any:
        kept[0]["fresh"].append("after")
        return [call.state["x"], dict(call.context), call.state["r"]]

    chosen: Any = {"async": act_async, "thread": act, "inline": agent(inline=True)(act)}[kind]
    rows = [
        node("A", "bad", inputs="x", output="r", context={"list": []}, edge="B"),
        node("B", "show", output="seen", edge="C"),
        node("C", "options", output="options", context={"list": []}),
    ]

    async def options(call: Call) -> Any:
        return dict(call.options)

    given: dict[str, Any] = {"x": [1]}
    who = {"who": ["me"]}
    async with serving(tmp_path, rows, agents={"bad": chosen, "show": look, "options": options}) as service:
        for _ in range(2):
            kept.clear()
            document = await service.execute_workflow("Flow", given, who)
            assert document["result"]["seen"] == [[1], {"who": ["me"]}, {"fresh": []}]
            assert document["result"]["options"] == {"list": []}
            assert (given, who) == ({"x": [1]}, {"who": ["me"]})
            # What a caller is given is its own as well.
            document["result"]["x"].append("caller")
            for event in await service.get_execution_events(document["execution_id"]):
                event.get("state_delta", {}).clear()
            status = await service.get_execution_status(document["execution_id"])
            assert status["result"]["x"] == [1]
            events = await service.get_execution_events(document["execution_id"])
            assert next(e["state_delta"] for e in events if e["event"] == "node_finished") == {"r": {"fresh": []}}


@pytest.mark.parametrize("wrap", ["thread", "inline"])
async def test_a_coroutine_that_is_never_awaited_is_no_result(wrap: str, tmp_path: Path) -> None:
    """A plain function that returns a coroutine fails its node; `functools.partial` of an async function is awaited."""

    async def work(call: Call, extra: int = 0) -> Any:
        return extra

    made: list[Any] = []

    def forget(call: Call) -> Any:
        made.append(work(call))
        return made[0]

    bad: Any = forget if wrap == "thread" else agent(inline=True)(forget)
    rows = [node("A", "bad", output="a")]
    document = await run(tmp_path, rows, agents={"bad": bad})
    assert (document["status"], document["error"]["code"]) == ("failed", "result_invalid")
    assert "coroutine" in document["error"]["message"]
    made[0].close()  # or Python warns of it whenever it is collected, in another test perhaps
    assert (await run(tmp_path, rows, agents={"bad": functools.partial(work, extra=7)}))["result"] == {"a": 7}
