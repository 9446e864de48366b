"""Nodes a second on DBOS: executions of ten steps by one worker process and by several, beside bare DBOS doing the same
steps, on one PostgreSQL server.

python -m benchmarks.engines [URL] [WORKERS]

URL is an empty database; without one a server is made for the time of the run (the Debian package postgresql). Its
commits reach the disk, unlike those of the tests' server.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
STEPS = 10
EXECUTIONS = 150
AT_ONCE = 20
ROUNDS = 2


def settings(url: str, schema: str, **more: Any) -> dict[str, Any]:
    return {
        "engine": "dbos", "storage_url": url, "storage_schema": schema, "namespace": schema.replace("_", "-"),
        "max_running": AT_ONCE, **more,
    }  # fmt: skip


class Pace(NamedTuple):
    rate: float
    """Nodes a second."""
    cpu: float
    """Milliseconds of this process's processor time a node. A busy machine does not change it."""
    answer: tuple[float, float] = (0.0, 0.0)
    """Milliseconds until a status request was answered meanwhile, where it was asked: the median, and nine of ten."""


async def ours(url: str, schema: str, folder: Path, durability: str) -> Pace:
    """One process that takes executions on and runs them."""
    from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService, Call, agent

    @agent(idempotent=True)
    async def work(call: Call) -> str:
        return "done"

    config = AgentMapConfig(**settings(url, schema, durability=durability))
    made = AgentMapService(config, context=AgentMapContext(agents={"work": work}), source=folder)
    await made.start()
    try:
        await made.execute_workflow("Flow", {})
        return await paced(lambda: made.execute_workflow("Flow", {}))
    finally:
        await made.aclose()


async def bare(url: str) -> Pace:
    """The same with DBOS alone: a workflow of ten steps."""
    from dbos import DBOS, DBOSPortableJSONSerializer

    quiet = "CRITICAL"
    DBOS(
        config={
            "name": "bare-dbos", "system_database_url": url, "serializer": DBOSPortableJSONSerializer(),
            "log_level": quiet, "console_log_level": quiet,
        }
    )  # fmt: skip

    async def step() -> str:
        return "done"

    @DBOS.workflow(name="bare")
    async def flow() -> str:
        for _ in range(STEPS):
            await DBOS.run_step_async({"name": "step"}, step)
        return "done"

    DBOS.launch()
    try:
        await flow()
        return await paced(flow)
    finally:
        await asyncio.to_thread(DBOS.destroy)


async def paced(one: Any) -> Pace:
    places = asyncio.Semaphore(AT_ONCE)

    async def placed() -> None:
        async with places:
            await one()

    begin, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(placed() for _ in range(EXECUTIONS)))
    nodes = EXECUTIONS * STEPS
    return Pace(nodes / (time.perf_counter() - begin), (time.process_time() - busy) / nodes * 1e3)


def in_process(case: str, url: str, schema: str, folder: Path) -> Pace:
    """DBOS has one instance in a process."""
    command = [sys.executable, "-m", "benchmarks.engines", "--case", case, url, schema, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parent)
    return Pace(*json.loads(done.stdout))


def workers(url: str, schema: str, folder: Path, count: int) -> Pace:
    """Nodes a second of so many worker processes, and one that takes executions on and answers status requests."""
    environment = {**os.environ, "AGENTMAP_CUSTOM_AGENTS_PATH": str(folder / "agents")}
    for name, value in settings(url, schema).items():
        environment[f"AGENTMAP_{name.upper()}"] = str(value)
    command = [sys.executable, "-m", "agentmap_asgi", "worker", str(folder / "flows.csv")]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
        for _ in range(count)
    ]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline()
        case = [sys.executable, "-m", "benchmarks.engines", "--case", "front", url, schema, str(folder)]
        done = subprocess.run(case, check=True, capture_output=True, text=True, cwd=HERE.parent)
        return Pace(*json.loads(done.stdout))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.communicate(timeout=30)


async def front(url: str, schema: str, folder: Path) -> Pace:
    import httpx

    from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapService

    config = AgentMapConfig(**settings(url, schema, run_executions=False), custom_agents_path=str(folder / "agents"))
    made = AgentMapService(config, source=folder / "flows.csv")
    await made.start()
    taken: list[float] = []

    async def asks(client: httpx.AsyncClient, place: str) -> None:
        while True:
            begin = time.perf_counter()
            assert (await client.get(place)).json()["status"] == "completed"
            taken.append((time.perf_counter() - begin) * 1e3)
            await asyncio.sleep(0.05)

    try:
        place = f"/executions/{(await made.execute_workflow('Flow', {}))['execution_id']}"
        transport = httpx.ASGITransport(AgentMapApp(service=made))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asking = asyncio.create_task(asks(client, place))
            pace = await paced(lambda: made.execute_workflow("Flow", {}))
            asking.cancel()
            await asyncio.wait({asking})
        taken.sort()
        return pace._replace(answer=(taken[len(taken) // 2], taken[len(taken) * 9 // 10]))
    finally:
        await made.aclose()


def run(url: str, most: int) -> Any:
    from dbos import DBOS

    DBOS.migrate(url)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = [f"Flow,N{i},work,out{i},{f'N{i + 1}' if i < STEPS else ''}" for i in range(1, STEPS + 1)]
        (folder / "flows.csv").write_text("GraphName,Node,AgentType,Output_Field,Edge\n" + "\n".join(rows) + "\n")
        (folder / "agents").mkdir()
        (folder / "agents" / "work.py").write_text(
            "from agentmap_asgi import agent\n\n\n@agent(idempotent=True)\nasync def work(call):\n    return 'done'\n"
        )
        cases = ("bare", "sync", "async", "exit")
        found: dict[str, list[Pace]] = {case: [] for case in cases}
        for number in range(ROUNDS):
            for case in cases:
                found[case].append(in_process(case, url, f"{case}_{number}", folder))
        rates = {case: max(pace.rate for pace in paces) for case, paces in found.items()}
        costs = {case: min(pace.cpu for pace in paces) for case, paces in found.items()}
        alone = rates["bare"]
        for case in cases[1:]:
            yield {
                "case": f"{STEPS} steps, {AT_ONCE} at once, one process, {case}: nodes a second",
                "ours": f"{rates[case]:,.0f}", "beside": f"{alone:,.0f} bare DBOS", "ratio": rates[case] / alone,
            }  # fmt: skip
            yield {
                "case": f"the same, {case}: processor time a node",
                "ours": f"{costs[case]:.2f} ms", "beside": f"{costs['bare']:.2f} ms bare DBOS",
                "ratio": costs[case] / costs["bare"],
            }  # fmt: skip
        for count in (1, 2, 4):
            if count <= most:
                pace = workers(url, f"many_{count}", folder, count)
                yield {
                    "case": f"the same taken on by one process and run by {count} workers, sync: nodes a second",
                    "ours": f"{pace.rate:,.0f}", "beside": f"{alone:,.0f} bare DBOS, one process",
                    "ratio": pace.rate / alone,
                }  # fmt: skip
                yield {
                    "case": f"a status request meanwhile, {count} workers: median, and nine of ten",
                    "ours": "{:.1f} and {:.1f} ms".format(*pace.answer),
                }  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--case"]:
        case, url, schema, place = sys.argv[2:]
        folder = Path(place)
        work = bare(url) if case == "bare" else front(url, schema, folder) if case == "front" else None
        print(json.dumps(asyncio.run(work or ours(url, schema, folder / "flows.csv", case))))
        return
    most = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    if len(sys.argv) > 1:
        for row in run(sys.argv[1], most):
            print(json.dumps(row), flush=True)
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    from postgresql import Server

    server = Server(fsync=True)
    try:
        for row in run(server.url(base=server.database()), most):
            beside = f"{row['beside']:36} {row['ratio']:.2f}" if "ratio" in row else ""
            print(f"{row['case']:80} {row['ours']:>8}  {beside}", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
