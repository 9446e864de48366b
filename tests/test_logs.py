"""What is logged, and what never is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from flows import node, serving

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext, Call, agent
from agentmap_asgi.logs import LOGGERS
from agentmap_asgi.testing import AgentMapClient

FORGED = "x\n2026-01-01 00:00:00 ERROR root: forged\r\x1b[31m\u2028red"


class Raw(logging.Handler):
    """Keeps every record as a plain formatter writes it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(LOGGERS[0]):
            self.lines += self.format(record).splitlines()


@pytest.fixture
def raw(caplog: pytest.LogCaptureFixture) -> Any:
    handler = Raw()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    with caplog.at_level(logging.DEBUG):
        yield handler
    root.removeHandler(handler)


def test_nothing_is_configured_behind_the_hosts_back() -> None:
    """No handler, and everything goes on to the host's; without any, Python itself shows warnings."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        assert (logger.handlers, logger.propagate, logger.disabled) == ([], True, False)


def test_every_logger_is_in_the_tree() -> None:
    """Whoever adds one adds it to the list, whose loggers write one line a record."""
    package = Path(__file__).parents[1] / "agentmap_asgi"
    sources = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    named = {part.split('"')[1] for text in sources for part in text.split("getLogger(")[1:] if part.startswith('"')}
    assert named <= set(LOGGERS)


@pytest.mark.parametrize("name", LOGGERS)
def test_names_cannot_forge_lines(name: str, raw: Raw) -> None:
    """Control characters of every argument are escaped, also those of objects."""
    logging.getLogger(name).warning("%s is %r, %d, %s", FORGED, FORGED, 7, ValueError(FORGED))
    assert len(raw.lines) == 1
    assert "forged" in raw.lines[0]
    assert "\x1b" not in raw.lines[0]


@pytest.mark.parametrize("how", ["itself", "cause", "context", "group"])
def test_exceptions_cannot_forge_lines(how: str, raw: Raw) -> None:
    """Lines of an exception's text are indented like the rest of its traceback."""
    try:
        try:
            raise ValueError(FORGED)
        except ValueError as exc:
            if how == "itself":
                raise
            if how == "cause":
                raise RuntimeError("plain") from exc
            if how == "group":
                raise ExceptionGroup("some", [exc]) from None
            raise RuntimeError("plain")  # noqa: B904
    except Exception:
        logging.getLogger(LOGGERS[0]).exception("It failed")
    assert any("forged" in line for line in raw.lines)
    assert sum(not line.startswith("    ") for line in raw.lines) == 1


def test_a_plain_traceback_is_left_to_the_hosts_formatter(raw: Raw) -> None:
    """It may have its own way to write exceptions."""
    try:
        raise ValueError("plain")
    except ValueError:
        logging.getLogger(LOGGERS[0]).exception("It failed")
    assert raw.lines[1] == "Traceback (most recent call last):"


@pytest.mark.anyio
async def test_an_execution_is_one_line_at_debug(tmp_path: Path, raw: Raw) -> None:
    """Its id, its workflow, how it ended and whose request it was; nothing at INFO or above."""
    async with serving(tmp_path, [node("A", output="a", prompt="text")]) as service:
        found = await service.execute_workflow("Flow", {}, {"request_id": "r-1\nforged"})
    (line,) = raw.lines
    assert " DEBUG agentmap_asgi: " in line
    for part in (found["execution_id"], "Flow is completed", r"r-1\nforged"):
        assert part in line


@agent(inline=True)
def leak(call: Call) -> str:
    raise RuntimeError(f"refused {call.options['token']}")


@agent()
async def leak_later(call: Call) -> str:
    raise RuntimeError(f"refused {call.options['token']}\nover two lines")


@pytest.mark.anyio
@pytest.mark.parametrize("debug_errors", [False, True])
async def test_canaries_are_found_nowhere(tmp_path: Path, raw: Raw, debug_errors: bool) -> None:
    """States, secrets, credentials and texts of exceptions that hold a secret: in no log, metric or audit line."""
    places = ("state", "secret", "header", "bearer", "cookie", "body", "query")
    canaries = {place: f"canary-{place}-7f3a" for place in places}
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "a.csv").write_text(
        "GraphName,Node,AgentType,Input_Fields,Output_Field,Edge,Context\n"
        "Fine,A,echo,note,copy,,\n"
        "Leak,A,leak,,x,,{token=secret:TOKEN}\n"
        "LeakLater,A,leak_later,,x,,{token=secret:TOKEN}\n",
        encoding="utf-8",
    )
    config = AgentMapConfig(
        enable_metrics=True,
        enable_audit_logging=True,
        audit_path=str(tmp_path / "audit.jsonl"),
        debug_errors=debug_errors,
    )
    context = AgentMapContext(
        agents={"leak": leak, "leak_later": leak_later},
        secrets={"TOKEN": canaries["secret"]},
        authenticate=lambda request: "ada",
        authorize=lambda principal, operation, graph, execution: True,
    )
    app = await to_thread.run_sync(lambda: AgentMapApp(flows, config=config, context=context))
    headers = {
        "x-api-key": canaries["header"],
        "authorization": f"Bearer {canaries['bearer']}",
        "cookie": f"session={canaries['cookie']}",
    }
    async with AgentMapClient(app, headers=headers) as http:
        for name in ("Fine", "Leak", "LeakLater", "Nobody"):
            body = {"graph_name": name, "initial_state": {"note": canaries["state"]}}
            await http.post("/execute", json=body, params={"key": canaries["query"]})
        await http.post("/execute", json={"graph_name": "Fine", "inital_state": canaries["body"]})
        await http.post("/execute", content=canaries["body"].encode(), headers={"content-type": "application/json"})
        batch = [{"graph_name": "Nobody", "initial_state": {"note": canaries["state"]}}, canaries["body"]]
        await http.post("/execute/batch", json={"executions": batch})
        metrics = (await http.get("/metrics")).text
        audit = (await http.get("/audit")).text
    written = await to_thread.run_sync((tmp_path / "audit.jsonl").read_text)
    assert "agentmap_executions_total" in metrics
    assert "LeakLater" in audit
    assert "LeakLater" in written
    for text in (metrics, audit, written, "\n".join(raw.lines)):
        assert [name for name, canary in canaries.items() if canary in text] == []
