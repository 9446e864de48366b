"""A thousand executions over a real connection pool: whatever becomes of them, nothing of the host's is left open."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
from anyio import to_thread
from flows import node, serving
from sqlalchemy import Engine, QueuePool, create_engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from agentmap_asgi.agents.registry import Call, agent

pytestmark = pytest.mark.anyio

POOL, OVERFLOW = 4, 4
ROWS = [
    node("Write", "write", inputs="number", output="written", edge="Read"),
    node("Read", "read", output="seen"),
    node("Write", "write", inputs="number", output="written", edge="Break", graph="Failing"),
    node("Break", "break", output="never", graph="Failing"),
    node("Hold", "hold", output="never", timeout="200ms", graph="Late"),
    node("Hold", "hold", output="never", graph="Endless"),
    node("Fork", edge="Left|Right", graph="Forked"),
    node("Left", "write", inputs="number", output="left", graph="Forked"),
    node("Right", "write", inputs="number", output="right", graph="Forked"),
]


class Counted(Session):
    """A session that is counted when it is made and when it is closed."""

    opened: ClassVar[Counter[str]] = Counter()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.opened["made"] += 1

    def close(self) -> None:
        super().close()
        self.opened["closed"] += 1


class Connections:
    """How many connections were out of the pool at once. Its listeners run in many threads, one at a time each."""

    def __init__(self, engine: Engine) -> None:
        self.pool = engine.pool
        self.most = 0
        event.listen(engine, "checkout", self._out)

    def _out(self, *_: Any) -> None:
        assert isinstance(self.pool, QueuePool)
        self.most = max(self.most, self.pool.checkedout())


@agent(services=["database"])
def write(call: Call) -> int:
    session: Session = call.service("database")
    session.execute(text("INSERT INTO entries (number) VALUES (:number)"), {"number": call.inputs["number"]})
    session.commit()
    return 1


@agent(services=["database"])
def read(call: Call) -> int:
    session: Session = call.service("database")
    return int(session.execute(text("SELECT count(*) FROM entries")).scalar_one())


@agent(services=["database"])
def break_off(call: Call) -> None:
    session: Session = call.service("database")
    session.execute(text("INSERT INTO entries (number) VALUES (-1)"))  # never committed
    raise ValueError("broken")


class Hold:
    """Takes a connection and keeps it until it is cancelled."""

    services = ("database",)

    def __init__(self) -> None:
        self.held: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, call: Call) -> None:
        session: Session = await call.resolve("database")
        session.execute(text("SELECT 1"))
        self.held.put_nowait(call.execution_id)
        await asyncio.Event().wait()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{tmp_path / 'host.db'}", poolclass=QueuePool, pool_size=POOL, max_overflow=OVERFLOW, pool_timeout=60
    )
    with engine.begin() as connection:
        connection.execute(text("PRAGMA journal_mode=WAL"))
        connection.execute(text("CREATE TABLE entries (number INTEGER)"))
    return engine


@pytest.mark.blocks  # sessions are closed in the event loop, and SQLite is a file
async def test_every_session_of_a_thousand_executions_is_closed(engine: Engine, tmp_path: Path) -> None:
    """Completed, failed, timed out and cancelled: each session is closed once, and the pool is never exceeded."""
    Counted.opened.clear()
    connections = Connections(engine)
    hold = Hold()
    agents = {"write": write, "read": read, "break": break_off, "hold": hold}
    factory = sessionmaker(bind=engine, class_=Counted)

    def items(graph: str, count: int) -> list[dict[str, Any]]:
        return [{"graph_name": graph, "initial_state": {"number": number}} for number in range(count)]

    async def cancel(count: int) -> None:
        for _ in range(count):
            await service.cancel_execution(await hold.held.get())

    config = {"cancel_grace": 60.0, "max_kept": 2_000}
    async with serving(tmp_path, ROWS, config=config, agents=agents, database_session_factory=factory) as service:
        # More at once than there are connections: their threads wait for the pool, the event loop does not.
        mixed = [*items("Flow", 400), *items("Failing", 200), *items("Forked", 100)]
        found = Counter(one["status"] for one in await service.batch_execute_workflows(mixed, max_concurrency=200))
        assert found == {"completed": 500, "failed": 200}
        # These keep a connection until somebody ends them, so there are as many at once as connections.
        late = await service.batch_execute_workflows(items("Late", 150), max_concurrency=POOL + OVERFLOW)
        assert {(one["status"], one["error"]["code"]) for one in late} == {("failed", "timeout")}
        hold.held = asyncio.Queue()
        endless, _ = await asyncio.gather(
            service.batch_execute_workflows(items("Endless", 150), max_concurrency=POOL + OVERFLOW), cancel(150)
        )
        assert {one["status"] for one in endless} == {"cancelled"}
        assert service.readiness()["unresponsive_agents"] == 0
    assert Counted.opened == {"made": 2 * 400 + 2 * 200 + 2 * 100 + 300, "closed": 2 * 400 + 2 * 200 + 2 * 100 + 300}
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedout() == 0
    assert 0 < connections.most <= POOL + OVERFLOW
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM entries")).scalar_one() == 400 + 200 + 200
        assert connection.execute(text("SELECT count(*) FROM entries WHERE number < 0")).scalar_one() == 0
    engine.dispose()


@pytest.mark.blocks
async def test_a_session_is_closed_after_a_thread_that_was_given_up(engine: Engine, tmp_path: Path) -> None:
    """A plain function cannot be interrupted: its session stays its own until it returns, and is closed then."""
    Counted.opened.clear()
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()
    seen: list[int] = []
    sessions: list[Session] = []

    @agent(services=["database"])
    def slow(call: Call) -> None:
        session: Session = call.service("database")
        sessions.append(session)
        begun.set()
        go_on.wait()
        seen.append(Counted.opened["closed"])
        session.execute(text("INSERT INTO entries (number) VALUES (1)"))
        over.set()

    factory = sessionmaker(bind=engine, class_=Counted)
    rows = [node("Slow", "slow", timeout="200ms")]
    async with serving(tmp_path, rows, agents={"slow": slow}, database_session_factory=factory) as service:
        document = await service.execute_workflow("Flow", {})
        assert document["error"]["code"] == "timeout"
        assert begun.is_set()
        go_on.set()
        await to_thread.run_sync(over.wait)
        while Counted.opened["closed"] == 0:  # noqa: ASYNC110  # the close is nobody's to wait for
            await asyncio.sleep(0)
    assert isinstance(engine.pool, QueuePool)
    left_open = engine.pool.checkedout()
    closed = Counted.opened["closed"]
    for session in sessions:  # whatever became of them, they do not outlive this test
        session.close()
    engine.dispose()
    assert (seen, closed, left_open) == ([0], 1, 0)
