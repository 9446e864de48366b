"""A small world for the fault tests: workflows whose nodes leave a line in a file.

Everything is in one folder: `flows.csv`, `store.db`, `effects` (what agents did), `told` (what clients were told) and
`meant` (what they were about to ask). The three lists are written like an agent should write to the world: with
O_APPEND, one line a write, and an fsync. A file `postgresql`, with a URL and a schema, stands in place of `store.db`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from flows import Row, node, sheet

from agentmap_asgi.agents.registry import Call, agent
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.context import AgentMapContext, Clock
from agentmap_asgi.execution.waits import Suspend
from agentmap_asgi.services.agentmap import AgentMapService

STORE: Final = "store.db"
FLOWS: Final = "flows.csv"
EFFECTS: Final = "effects"
TOLD: Final = "told"
MEANT: Final = "meant"
PLACE: Final = "postgresql"
GRACE: Final = 1.0
"""Seconds that running nodes get when a worker stops."""


def append(path: Path, line: Mapping[str, Any], *, sync: bool = True) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
        if sync:
            os.fsync(file)
    finally:
        os.close(file)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a list; a process may have been killed within its last."""
    if path.exists():
        for text in path.read_text().split("\n")[:-1]:
            yield json.loads(text)


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def rows(mark: str = "") -> list[Row]:
    """The workflows. Each node that has an effect writes `name:n:mark`; `mark` makes versions that differ."""

    def effect(graph: str, name: str, kind: str = "effect", **cells: Any) -> Row:
        return node(name, kind, inputs="n", output=name.lower(), context={"mark": mark}, graph=graph, **cells)

    def asks(graph: str, name: str, **cells: Any) -> Row:
        return node(name, "asks", inputs="n", output=name.lower(), graph=graph, **cells)

    def part(graph: str, name: str, flow: str, **cells: Any) -> Row:
        return node(name, "graph", output=name.lower(), context={"workflow": f"::{flow}"}, graph=graph, **cells)

    return [
        effect("Chain", "A", edge="B"),
        node("B", "echo", inputs="a", output="b", edge="C", graph="Chain"),
        effect("Chain", "C", "effect_in_thread", edge="D"),
        effect("Chain", "D", edge="E"),
        effect("Chain", "E"),
        effect("Fork", "S", edge="L|R|M|G"),
        effect("Fork", "L", edge="L2"),
        effect("Fork", "L2", edge="J"),
        effect("Fork", "R", edge="J"),
        effect("Fork", "M", map_over="items", edge="J"),
        part("Fork", "G", "Child", edge="J"),
        effect("Fork", "J"),
        effect("Child", "X", edge="Y"),
        effect("Child", "Y"),
        effect("Asks", "A", edge="W"),
        asks("Asks", "W", edge="B"),
        effect("Asks", "B"),
        effect("Nest", "A", edge="G"),
        part("Nest", "G", "Inner", edge="B"),
        effect("Nest", "B"),
        effect("Inner", "X", edge="W"),
        asks("Inner", "W", edge="Y"),
        effect("Inner", "Y"),
        effect("Pair", "S", edge="V|W"),
        asks("Pair", "V", edge="J"),
        asks("Pair", "W", edge="J"),
        effect("Pair", "J"),
        effect("Once", "A", edge="O"),
        effect("Once", "O", "once", edge="B"),
        effect("Once", "B"),
        effect("Quick", "A", edge="B"),
        node("B", "echo", inputs="a", output="b", edge="C", graph="Quick"),
        effect("Quick", "C"),
        effect("Poison", "A", edge="P"),
        node("P", "poison", inputs="a", output="p", graph="Poison"),
    ]


ITEMS: Final = ["p", "q", "r"]
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "Chain": ("A#1", "C#1", "D#1", "E#1"),
    "Fork": ("S#1", "L#1", "L2#1", "R#1", "M#1/0", "M#1/1", "M#1/2", "G#1/X#1", "G#1/Y#1", "J#1"),
    "Asks": ("A#1", "B#1"),
    "Nest": ("A#1", "G#1/X#1", "G#1/Y#1", "B#1"),
    "Pair": ("S#1", "J#1"),
    "Once": ("A#1", "O#1", "B#1"),
    "Quick": ("A#1", "C#1"),
    "Poison": ("A#1",),
}
"""What has an effect in a workflow that completes: the ends of its idempotency keys."""
VISITS: Final[dict[str, tuple[str, ...]]] = {
    "Chain": ("A#1", "B#1", "C#1", "D#1", "E#1"),
    "Fork": ("S#1", "L#1", "L2#1", "R#1", "M#1", "G#1", "J#1"),
    "Asks": ("A#1", "W#1", "B#1"),
    "Nest": ("A#1", "G#1", "B#1"),
    "Pair": ("S#1", "V#1", "W#1", "J#1"),
    "Once": ("A#1", "O#1", "B#1"),
    "Quick": ("A#1", "B#1", "C#1"),
    "Poison": ("A#1", "P#1"),
}
"""The nodes of the execution itself that finish in one that completes."""
WAITS: Final[dict[str, tuple[str, ...]]] = {"Asks": ("W#1",), "Nest": ("G#1/W#1",), "Pair": ("V#1", "W#1")}
GRAPHS: Final = ("Chain", "Fork", "Asks", "Nest", "Pair", "Once")


def state_of(n: int) -> dict[str, Any]:
    return {"n": n, "items": ITEMS}


def result_of(
    graph: str, start: Mapping[str, Any], mark: str, below: str, answers: Mapping[str, Any]
) -> dict[str, Any]:
    """The final state of an execution that completes. `below` is its part's mark, `answers` are by path."""
    n = start["n"]

    def did(*names: str, mark: str = mark) -> dict[str, Any]:
        return {name.lower(): f"{name}:{n}:{mark}" for name in names}

    state = dict(start)
    match graph:
        case "Chain":
            return state | did("A", "C", "D", "E") | {"b": did("A")["a"]}
        case "Fork":
            items = [f"M:{n}:{mark}"] * len(ITEMS)
            child = state | did("S") | did("X", "Y", mark=below)
            return state | did("S", "L", "L2", "R", "J") | {"m": items, "g": child}
        case "Asks":
            return state | did("A", "B") | {"w": answers["W#1"]}
        case "Nest":
            child = state | did("A") | did("X", "Y", mark=below) | {"w": answers["G#1/W#1"]}
            return state | did("A", "B") | {"g": child}
        case "Pair":
            return state | did("S", "J") | {"v": answers["V#1"], "w": answers["W#1"]}
        case "Quick":
            return state | did("A", "C") | {"b": did("A")["a"]}
        case _:
            return state | did("A", "O", "B")


class Agents:
    """The agents of the world. Each lets a moment pass before and after its effect, so that a kill falls in between."""

    def __init__(self, folder: Path, pause: float, sync: bool) -> None:
        self._effects = folder / EFFECTS
        self._sync = sync
        self._pause = pause

    def table(self) -> dict[str, Any]:
        once = agent(self._once)
        return {
            "effect": agent(idempotent=True)(self._effect),
            "effect_in_thread": agent(idempotent=True)(self._in_thread),
            "once": once,
            "asks": agent(idempotent=True)(self._asks),
            "poison": agent(idempotent=True)(self._poison),
        }

    def _did(self, call: Call) -> str:
        line = {"key": call.idempotency_key, "pid": os.getpid(), "attempt": call.attempt, "node": call.node.name}
        append(self._effects, line, sync=self._sync)
        return f"{call.node.name}:{call.inputs['n']}:{call.options['mark']}"

    def _moment(self, call: Call) -> float:
        return float(call.state.get("slow") or self._pause * (hash(call.idempotency_key) % 4))

    @property
    def _effect(self) -> Callable[[Call], Any]:
        async def effect(call: Call) -> str:
            await asyncio.sleep(self._moment(call))
            did = self._did(call)
            await asyncio.sleep(self._moment(call))
            return did

        return effect

    @property
    def _in_thread(self) -> Callable[[Call], Any]:
        def effect(call: Call) -> str:
            time.sleep(self._moment(call))
            return self._did(call)

        return effect

    @property
    def _once(self) -> Callable[[Call], Any]:
        async def once(call: Call) -> str:
            await asyncio.sleep(self._moment(call))
            did = self._did(call)
            await asyncio.sleep(self._moment(call))
            return did

        return once

    @property
    def _asks(self) -> Callable[[Call], Any]:
        async def asks(call: Call) -> Any:
            return Suspend("What now?")

        return asks

    @property
    def _poison(self) -> Callable[[Call], Any]:
        async def poison(call: Call) -> None:
            os._exit(1)

        return poison


def settings(folder: Path, *, storage: str = "", **given: Any) -> AgentMapConfig:
    more: dict[str, Any] = {"patrol_seconds": 0.05, "shutdown_grace": GRACE, "max_recoveries": 1_000_000, **given}
    where: dict[str, Any] = placed(folder) or {"storage_url": f"sqlite:///{storage or folder / STORE}"}
    return AgentMapConfig(**{"namespace": "world", **where, **more})


def placed(folder: Path) -> dict[str, Any]:
    """The settings that name the tables in PostgreSQL, if it is there that executions are kept."""
    file = folder / PLACE
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def service(
    folder: Path, *, pause: float = 0.001, sync: bool = True, clock: Clock | None = None, **given: Any
) -> AgentMapService:
    """The service of the world that is in a folder. Keywords are settings."""
    if not (folder / FLOWS).exists():
        write(folder)
    context = AgentMapContext(agents=Agents(folder, pause, sync).table(), clock=clock)
    return AgentMapService(settings(folder, **given), source=folder / FLOWS, context=context)


def write(folder: Path, mark: str = "") -> None:
    """The workflow file, in one piece: others may be reading it."""
    draft = folder / f".{FLOWS}.{os.getpid()}"
    draft.write_text(sheet(rows(mark)), encoding="utf-8")
    draft.replace(folder / FLOWS)
