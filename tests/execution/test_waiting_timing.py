"""Waiting changes nothing but time: random workflows in which nodes wait end as the same ones do in which none does."""

from __future__ import annotations

import asyncio
import csv
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from graphs import MAX_RUNS, Graph, Sight, act, random_graph
from test_timing import reachable_part

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService, Call, agent
from agentmap_asgi.agents.registry import Outcome
from agentmap_asgi.errors import AgentFailed, ExecutionConflict

End = tuple[str, list[tuple[str, Any]], Any, frozenset[tuple[Sight, int]]]
"""Status, fields of the final state in their order, the failed node, what the runs saw."""


class Bench:
    """A workflow with a node before each of its nodes, which waits or does not; `below` puts it into a sub-workflow."""

    def __init__(self, graph: Graph, seed: int, folder: Path, pause: str, store: str, *, below: bool) -> None:
        self.graph = graph
        self.seed = seed
        self.runs: list[Sight] = []
        kinds = random.Random(seed)
        rows = [["Top", "Go", "graph", "", "", "", "all", "{workflow=::G}"]] if below else []
        for number, row in enumerate(graph):
            success, failure = ("|".join(f"w{target}" for target in cell) for cell in row)
            waits = pause if kinds.random() < 0.5 else "success"
            rows.append(["G", f"w{number}", waits, "", f"n{number}", "", "", ""])
            kind = kinds.choice(("awaited", "inline"))
            rows.append(["G", f"n{number}", kind, "last_action_success|errors", success, failure, "", ""])
        path = folder / f"{pause}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            header = "GraphName,Node,AgentType,Input_Fields,Success_Next,Failure_Next,Output_Field,Context"
            csv.writer(file).writerows([header.split(","), *rows])
        inline = agent(inline=True)(lambda call: self.run(call))
        context = AgentMapContext(agents={"awaited": self.awaited, "inline": inline})
        config = AgentMapConfig(
            max_steps=2 * MAX_RUNS, max_branches=10_000, blocking_threshold=0, storage_url=store, durability="async",
            retention_days=0,
        )  # fmt: skip
        self.service = AgentMapService(config, context=context, source=path)
        self.name = "Top" if below else "G"

    def run(self, call: Call) -> Outcome:
        given: Mapping[str, Any] = call.inputs
        node = int(call.node.name[1:])
        seen = Sight(node, tuple(call.state.items()), given["last_action_success"], tuple(given["errors"]))
        self.runs.append(seen)
        done = act(self.graph, self.seed, seen)
        if done.error is not None:
            raise AgentFailed(done.error)
        return Outcome({"state_updates": done.delta}, done.flag)

    async def awaited(self, call: Call) -> Outcome:
        await asyncio.sleep(0)
        return self.run(call)

    async def execute(self, rng: random.Random) -> End:
        """Answer whatever waits, in any order, several at once, while it runs or later."""
        document = await self.service.start_execution(self.name, {"steps": 0, "given": self.seed})
        identity = document["execution_id"]
        while True:
            waits = [wait["path"] for wait in document.get("waiting", ())]
            if waits and (document["status"] == "suspended" or rng.random() < 0.5):
                some = rng.sample(waits, rng.randint(1, len(waits)))
                await asyncio.gather(*(self.answer(identity, path) for path in some))
            elif document["status"] not in ("queued", "running"):
                break
            await self.service.wait_for_execution(identity, 5)
            document = await self.service.get_execution_status(identity)
        error = document["error"] or {}
        runs = frozenset(Counter(self.runs).items())
        self.runs = []
        state = (document["result"].get("all") or {}) if self.name == "Top" else document["result"]
        return document["status"], list(state.items()), (error.get("node"), error.get("message")), runs

    async def answer(self, identity: str, path: str) -> None:
        try:
            await self.service.resume_execution(identity, data=None, node=path)
        except ExecutionConflict:
            if (await self.service.get_execution_status(identity))["status"] != "failed":
                raise  # only a run that is over takes no answers


@pytest.mark.long
@pytest.mark.anyio
@pytest.mark.blocks  # it writes the workflow files
@pytest.mark.parametrize("below", [False, True], ids=["alone", "below"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_waiting_changes_nothing(kind: str, below: bool, rounds: int, tmp_path: Path) -> None:
    """Final state, status, error, and what each node saw and how often: whatever is answered first."""
    told = 0
    graphs = (40 if kind == "memory" else 12) * rounds
    for seed in range(graphs):
        graph = reachable_part(random_graph(random.Random(seed)))
        store = "memory://" if kind == "memory" else f"sqlite:///{tmp_path}/{seed}.db"
        plain = Bench(graph, seed, tmp_path, "success", "memory://", below=below)
        expected = await plain.execute(random.Random(seed))
        await plain.service.aclose()
        if len(plain.runs) > MAX_RUNS or "max_steps" in str(expected[2][1]):
            continue
        told += 1
        waiting = Bench(graph, seed, tmp_path, "suspend", store, below=below)
        for order in range(2):
            assert await waiting.execute(random.Random(f"{seed} {order}")) == expected, (seed, graph)
        await waiting.service.aclose()
    assert told > graphs * 0.7
