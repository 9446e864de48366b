"""MigrationHelper: the workflow first, the code that it replaces when it fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flows import node, serving

from agentmap_asgi import AgentMapService, MigrationHelper
from agentmap_asgi.errors import ExecutionFailed, UnknownWorkflow
from agentmap_asgi.testing import ScriptedAgent

pytestmark = pytest.mark.anyio

ROWS = [
    node("Say", prompt="Hello {name}", output="text"),
    node("Break", "bank", output="receipt", graph="Broken"),
    node("Wait", "wait", output="never", graph="Slow"),
]
LEGACY = {"source": "fallback", "result": "from the old code"}


async def legacy(data: dict[str, Any], context: Mapping[str, Any] | None) -> str:
    return "from the old code"


async def test_a_workflow_that_succeeds_answers_itself(tmp_path: Path) -> None:
    """The fallback is not called."""
    async with serving(tmp_path, ROWS, agents={"bank": ScriptedAgent(), "wait": ScriptedAgent()}) as service:
        helper = MigrationHelper(service)
        helper.register_fallback("Flow", lambda data, context: pytest.fail("not asked"))
        answer = await helper.execute_with_fallback("Flow", {"name": "Ada"})
    assert answer == {"source": "agentmap", "result": {"name": "Ada", "text": "Hello Ada"}}


@pytest.mark.parametrize("kind", ["async function", "function", "callable object", "lambda of a coroutine"])
async def test_a_fallback_answers_for_a_failed_execution(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It gets data and context as they were given; the log names the error's code and not its text."""
    seen: list[Any] = []

    def plain(data: dict[str, Any], context: Mapping[str, Any] | None) -> str:
        seen.append((data, context, threading.current_thread() is threading.main_thread()))
        return "from the old code"

    async def waiting(data: dict[str, Any], context: Mapping[str, Any] | None) -> str:
        return plain(data, context)

    class Old:
        async def __call__(self, data: dict[str, Any], context: Mapping[str, Any] | None) -> str:
            return plain(data, context)

    handlers: dict[str, Any] = {
        "async function": waiting,
        "function": plain,
        "callable object": Old(),
        "lambda of a coroutine": lambda data, context: waiting(data, context),
    }
    bank = ScriptedAgent(ValueError("account 4711"))
    async with serving(tmp_path, ROWS, agents={"bank": bank, "wait": bank}) as service:
        helper = MigrationHelper(service)
        helper.register_fallback("Broken", handlers[kind])
        assert await helper.execute_with_fallback("Broken", {"x": 1}, {"principal": "ada"}) == LEGACY
    assert seen == [({"x": 1}, {"principal": "ada"}, kind != "function")]
    assert "Broken did not succeed (agent_error)" in caplog.text
    assert "4711" not in "".join(r.getMessage() for r in caplog.records if "fallback" in r.getMessage())


async def test_a_fallback_answers_for_what_cannot_be_started(tmp_path: Path) -> None:
    """Unknown workflows, and whatever a hook raises."""

    class Refusing(AgentMapService):
        async def pre_workflow_execution(self, *args: Any) -> None:
            raise OSError("the audit log is full")

    agents = {"bank": ScriptedAgent(), "wait": ScriptedAgent()}
    async with serving(tmp_path, ROWS, kind=Refusing, agents=agents) as service:
        helper = MigrationHelper(service)
        helper.register_fallback("Gone", legacy)
        helper.register_fallback("Flow", legacy)
        assert await helper.execute_with_fallback("Gone", {}) == LEGACY
        assert await helper.execute_with_fallback("Flow", {}) == LEGACY


async def test_a_fallback_answers_for_a_cancelled_execution_but_not_for_a_cancelled_caller(tmp_path: Path) -> None:
    """Who has gone away gets no second answer."""
    begun, calls = asyncio.Queue[str](), []

    async def wait(call: Any) -> None:
        begun.put_nowait(call.execution_id)
        await asyncio.Event().wait()

    async def noting(data: dict[str, Any], context: Mapping[str, Any] | None) -> str:
        calls.append(data["turn"])
        return "from the old code"

    async with serving(tmp_path, ROWS, agents={"bank": ScriptedAgent(), "wait": wait}) as service:
        helper = MigrationHelper(service)
        helper.register_fallback("Slow", noting)
        asked = asyncio.create_task(helper.execute_with_fallback("Slow", {"turn": 1}))
        await service.cancel_execution(await begun.get())
        assert await asked == LEGACY
        gone = asyncio.create_task(helper.execute_with_fallback("Slow", {"turn": 2}))
        number = await begun.get()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await service.cancel_execution(number)
    assert calls == [1]


async def test_without_a_fallback_the_failure_is_raised(tmp_path: Path) -> None:
    """A failed execution as ExecutionFailed with its document, a refusal as it is."""
    bank = ScriptedAgent(ValueError("no"))
    async with serving(tmp_path, ROWS, agents={"bank": bank, "wait": bank}) as service:
        helper = MigrationHelper(service)
        with pytest.raises(ExecutionFailed, match="'Broken' ended failed") as failed:
            await helper.execute_with_fallback("Broken", {})
        assert (failed.value.reason, failed.value.document["success"]) == ("agent_error", False)
        with pytest.raises(UnknownWorkflow):
            await helper.execute_with_fallback("Gone", {})


async def test_what_a_fallback_raises_is_the_callers(tmp_path: Path) -> None:
    """A second failure is not hidden."""

    def old(data: dict[str, Any], context: Mapping[str, Any] | None) -> None:
        raise LookupError("the old code fails too")

    bank = ScriptedAgent(ValueError("no"))
    async with serving(tmp_path, ROWS, agents={"bank": bank, "wait": bank}) as service:
        helper = MigrationHelper(service)
        helper.register_fallback("Broken", old)
        with pytest.raises(LookupError, match="too"):
            await helper.execute_with_fallback("Broken", {})
        with pytest.raises(TypeError, match="is a str; give a function"):
            helper.register_fallback("Broken", "old")  # type: ignore[arg-type]
