"""What `agentmap-asgi check` takes for 10,000 rows: a whole process, on one processor, from its start to its exit.

python -m benchmarks.check

Chains are the rows of `csv_load`. In the branched file each workflow of 20 nodes has a fork, a join, a decision and a
loop, so every analysis has something to look at.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import csv_load
from .imports import as_installed

ROWS = 10_000
NODES = csv_load.NODES


def branched(count: int) -> Iterator[str]:
    """Workflows of a fork to three, a join, and a decision that leads back."""
    yield "GraphName,Node,AgentType,Prompt,Input_Fields,Output_Field,Edge,Success_Next,Failure_Next,Context"
    for number in range(count):
        flow, step = divmod(number, NODES)
        last = number == count - 1
        after = f"Step{step + 1}" if step < NODES - 1 and not last else ""
        agent, edge, success, failure, options = "echo", after, "", "", ""
        reads = f"field{step}"
        if step == 3:
            edge = "Step4|Step5|Step6"
        elif step in (4, 5, 6):
            edge, reads = "Step7", "field4"
        elif step == 7:
            reads = "field5|field6|field7"
        elif step == 12:
            agent, edge, success, failure = "branching", "", after, "Step8"
            options = '"{""when"": ""field12 == \'done\'""}"'
        first = reads.partition("|")[0]
        yield (
            f"Flow{flow},Step{step},{agent},Look at {{{first}}} of {{topic}},{reads}|topic,field{step + 1},"
            f"{edge},{success},{failure},{options}"
        )


def process(command: list[str], rounds: int) -> float:
    """Seconds of the fastest of several processes."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        done = subprocess.run(command, check=False, env=as_installed(), capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stdout + done.stderr
    return min(times)


def run(rounds: int = 7) -> list[dict[str, Any]]:
    """One row for each file, and one for a process that checks next to nothing."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one processor, for the processes too
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (
            ("check 10,000 rows of chains", csv_load.rows(ROWS)),
            ("check 10,000 rows of forks, joins and loops", branched(ROWS)),
            ("check 20 rows", csv_load.rows(NODES)),
        ):
            path = Path(folder) / "sheet.csv"
            path.write_text("\n".join(rows) + "\n")
            taken = process([sys.executable, "-m", "agentmap_asgi", "check", str(path)], rounds)
            found.append({"case": name, "ours": f"{taken:.2f} s", "beside": "budget 1 s"})
    return found


if __name__ == "__main__":
    for row in run():
        print(f"{row['case']:50} {row['ours']}")
