"""What a node, a branch, a loop round and a waiting run cost, beside hand-written asyncio, LangGraph and Burr.

Every case runs the same work in each system, in alternating rounds of one process, and takes each system's best round.
Limits that are raised for the measurement: max_steps, max_branches, max_running, execution_timeout stay out of the way.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService
from agentmap_asgi.agents.registry import agent

ROUNDS = 7
FIELDS = 10
CONFIG = AgentMapConfig(
    storage_url="memory://", max_steps=1_000_000, max_branches=100_000, max_running=100_000, max_kept=10
)

Case = Callable[[], Awaitable[Any]]
Row = dict[str, Any]


def service(csv: str, **agents: Any) -> AgentMapService:
    path = Path(tempfile.mkdtemp()) / "bench.csv"
    path.write_text(csv)
    return AgentMapService(CONFIG, context=AgentMapContext(agents=agents), source=path)


async def best(cases: dict[str, tuple[Case, int]]) -> dict[str, float]:
    """Seconds of one call for each case: (what to call, calls a round)."""
    found = dict.fromkeys(cases, float("inf"))
    for _ in range(ROUNDS):
        for name, (call, times) in cases.items():
            gc.collect()
            started = time.perf_counter()
            for _ in range(times):
                await call()
            found[name] = min(found[name], (time.perf_counter() - started) / times)
    return found


def chain_csv(length: int) -> str:
    rows = ["GraphName,Node,AgentType,Input_Fields,Output_Field,Edge"]
    for i in range(length):
        edge = f"N{i + 1}" if i < length - 1 else ""
        rows.append(f"Chain,N{i},echo,f{i % FIELDS},f{(i + 1) % FIELDS},{edge}")
    return "\n".join(rows)


def handwritten_chain(length: int) -> Case:
    def step(source: str, target: str) -> Callable[[dict[str, Any]], Awaitable[None]]:
        async def node(state: dict[str, Any]) -> None:
            state[target] = state[source]

        return node

    nodes = [step(f"f{i % FIELDS}", f"f{(i + 1) % FIELDS}") for i in range(length)]

    async def run() -> None:
        state = {"f0": "x"}
        for node in nodes:
            await node(state)

    return run


def langgraph_graph(length: int) -> Any:
    """The chain for LangGraph, not compiled. Raises ImportError without LangGraph."""
    from typing import TypedDict

    from langgraph.graph import END, START, StateGraph

    state_type = TypedDict("state_type", {f"f{i}": str for i in range(FIELDS)}, total=False)  # type: ignore[misc]
    graph = StateGraph(state_type)

    def step(source: str, target: str) -> Any:
        async def node(state: dict[str, Any]) -> dict[str, Any]:
            return {target: state[source]}

        return node

    for i in range(length):
        graph.add_node(f"N{i}", step(f"f{i % FIELDS}", f"f{(i + 1) % FIELDS}"))
        graph.add_edge(START if i == 0 else f"N{i - 1}", f"N{i}")
    graph.add_edge(f"N{length - 1}", END)
    return graph


def langgraph_chain(length: int) -> Case | None:
    try:
        compiled = langgraph_graph(length).compile()
    except ImportError:
        return None

    async def run() -> None:
        result = await compiled.ainvoke({"f0": "x"}, {"recursion_limit": length + 10})
        assert result[f"f{length % FIELDS}"] == "x"

    return run


def burr_chain(length: int) -> Case | None:
    try:
        from burr.core import ApplicationBuilder, State, action
    except ImportError:
        return None

    def step(source: str, target: str) -> Any:
        @action(reads=[source], writes=[target])
        async def node(state: State) -> State:
            return state.update(**{target: state[source]})

        return node

    names = [f"N{i}" for i in range(length)]
    actions = {name: step(f"f{i % FIELDS}", f"f{(i + 1) % FIELDS}") for i, name in enumerate(names)}
    builder = (
        ApplicationBuilder()
        .with_actions(**actions)
        .with_transitions(*pairwise(names))
        .with_entrypoint("N0")
        .with_state(f0="x")
    )
    graph = builder.build().graph

    async def run() -> None:
        app = ApplicationBuilder().with_graph(graph).with_entrypoint("N0").with_state(f0="x").build()
        await app.arun(halt_after=[names[-1]])

    return run


async def chains() -> list[Row]:
    rows: list[Row] = []
    for length in (10, 100, 1_000):
        ours = service(chain_csv(length))

        async def run(ours: AgentMapService = ours, length: int = length) -> None:
            document = await ours.execute_workflow("Chain", {"f0": "x"})
            assert document["nodes_executed"] == length

        cases: dict[str, tuple[Case, int]] = {
            "ours": (run, 20_000 // length),
            "hand-written": (handwritten_chain(length), 50_000 // length),
        }
        for name, make in (("LangGraph", langgraph_chain), ("Burr", burr_chain)):
            peer = make(length)
            if peer is not None:
                cases[name] = (peer, 1)
        found = await best(cases)
        for name, seconds in found.items():
            if name != "ours":
                rows.append(row(f"chain of {length:,}, a node", name, found["ours"] / length, seconds / length))
    # The fixed cost of a run is measured by one node; a node of a chain is what comes on top of it.
    lengths: dict[str, tuple[Case, int]] = {}
    for length in (1, 10, 1_000):
        ours = service(chain_csv(length))

        async def one(ours: AgentMapService = ours) -> None:
            await ours.execute_workflow("Chain", {"f0": "x"})

        lengths[str(length)] = (one, 20_000 // (length + 20))
    found = await best(lengths)
    rows.append({"case": "fixed cost of a run", "ours": f"{found['1'] * 1e6:.1f} µs"})
    ten = (found["10"] - found["1"]) / 9
    thousand = (found["1000"] - found["1"]) / 999
    rows.append(row("node of a chain of 1,000 beside one of 10", "chain of 10", thousand, ten))
    return rows


async def concurrent() -> list[Row]:
    ours = service(chain_csv(10))
    plain = handwritten_chain(10)

    async def run() -> None:
        await asyncio.gather(*(ours.execute_workflow("Chain", {"f0": "x"}) for _ in range(1_000)))

    async def handwritten() -> None:
        await asyncio.gather(*(plain() for _ in range(1_000)))

    cases: dict[str, tuple[Case, int]] = {"ours": (run, 1), "hand-written": (handwritten, 1)}
    peer = langgraph_chain(10)
    if peer is not None:

        async def langgraph() -> None:
            await asyncio.gather(*(peer() for _ in range(1_000)))

        cases["LangGraph"] = (langgraph, 1)
    found = await best(cases)
    return [
        row("1,000 concurrent chains of 10, a run", name, found["ours"] / 1_000, seconds / 1_000)
        for name, seconds in found.items()
        if name != "ours"
    ]


def fan_csv(width: int, kind: str) -> str:
    names = "|".join(f"B{i}" for i in range(width))
    rows = ["GraphName,Node,AgentType,Input_Fields,Output_Field,Edge", f"Fan,Start,echo,x,y,{names}"]
    rows += [f"Fan,B{i},{kind},y,b{i},Join" for i in range(width)]
    rows.append("Fan,Join,echo,b0,out,")
    return "\n".join(rows)


async def fans() -> list[Row]:
    async def turn(call: Any) -> Any:
        await asyncio.sleep(0)
        return call.inputs["y"]

    async def nap(call: Any) -> Any:
        await asyncio.sleep(0.01)
        return call.inputs["y"]

    rows: list[Row] = []
    for width in (10, 100, 1_000):
        ours = service(fan_csv(width, "turn"), turn=turn)

        async def run(ours: AgentMapService = ours) -> None:
            assert (await ours.execute_workflow("Fan", {"x": 1}))["success"]

        async def bare(width: int = width) -> None:
            state: dict[str, Any] = {"y": 1}

            async def branch(number: int) -> None:
                await asyncio.sleep(0)
                state[f"b{number}"] = state["y"]

            async with anyio.create_task_group() as group:
                for number in range(width):
                    group.start_soon(branch, number)

        found = await best({"ours": (run, 1_000 // width), "anyio": (bare, 1_000 // width)})
        rows.append(row(f"fan-out to {width:,}, a branch", "bare anyio", found["ours"] / width, found["anyio"] / width))
    ours = service(fan_csv(100, "nap"), nap=nap)
    found = await best({"ours": (lambda: ours.execute_workflow("Fan", {"x": 1}), 1)})
    rows.append({"case": "100 parallel sleeps of 10 ms", "ours": f"{found['ours'] * 1e3:.1f} ms", "beside": "10 ms"})
    return rows


async def loops() -> list[Row]:
    @agent(inline=True)
    def count(call: Any) -> int:
        return int(call.inputs["n"]) + 1

    csv = (
        "GraphName,Node,AgentType,Input_Fields,Output_Field,Edge,Success_Next,Context\n"
        "Loop,Count,count,n,n,Again,,\n"
        'Loop,Again,branching,,,,Count,"{""when"": ""n < 1000""}"\n'
    )
    ours = service(csv, count=count)

    async def run() -> None:
        assert (await ours.execute_workflow("Loop", {"n": 0}))["result"]["n"] == 1_000

    async def handwritten() -> None:
        state = {"n": 0}

        async def add() -> None:
            state["n"] += 1

        async def again() -> bool:
            return state["n"] < 1_000

        await add()
        while await again():
            await add()

    found = await best({"ours": (run, 5), "hand-written": (handwritten, 20)})
    return [row("loop of 1,000 (an own agent and a condition), a round", "hand-written", found["ours"] / 1e3,
                found["hand-written"] / 1e3)]  # fmt: skip


async def waiting() -> list[Row]:
    count = 10_000
    gate = asyncio.Event()

    async def wait(call: Any) -> None:
        await gate.wait()

    ours = service("GraphName,Node,AgentType,Edge\nWait,A,echo,B\nWait,B,wait,C\nWait,C,echo,\n", wait=wait)

    async def measure(start: Callable[[], Awaitable[Any]]) -> float:
        gate.clear()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.ensure_future(start()) for _ in range(count)]
        for _ in range(20):
            await asyncio.sleep(0)
        size = (tracemalloc.get_traced_memory()[0] - before) / count
        tracemalloc.stop()
        gate.set()
        await asyncio.gather(*tasks)
        return size

    mine = await measure(lambda: ours.execute_workflow("Wait", {"x": 1}))
    bare = await measure(gate.wait)
    return [
        {
            "case": "memory of a waiting run (10,000 of them)",
            "ours": f"{mine / 1024:.1f} KiB",
            "beside": f"{bare / 1024:.1f} KiB a waiting asyncio task",
            "ratio": mine / bare,
        }
    ]


def row(case: str, beside: str, ours: float, other: float) -> Row:
    return {
        "case": case,
        "ours": f"{ours * 1e6:.2f} µs",
        "beside": f"{other * 1e6:.2f} µs {beside}",
        "ratio": ours / other,
    }


async def measure() -> list[Row]:
    rows: list[Row] = []
    for part in (chains, concurrent, fans, loops, waiting):
        rows += await part()
    return rows


def run() -> list[Row]:
    return asyncio.run(measure())


if __name__ == "__main__":
    for line in run():
        ratio = f"{line['ratio']:.4g}x" if "ratio" in line else ""
        print(f"{line['case']:58} {line['ours']:>12}  {line.get('beside', ''):32} {ratio}")
