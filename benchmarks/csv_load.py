"""What reading a workflow file costs beside `csv.reader` over the same bytes.

Reading means: decoding, parsing, cell checks, linear graph checks, and the finished workflows. The limits on bytes and
rows are raised for the larger files. Prompts are of two sentences (USUAL) or of
one (SHORT): `csv.reader` pays for the length, everything else is paid by the row. Both are timed in turn, so
that a machine which is slower for a while is so for both.
"""

from __future__ import annotations

import csv
import io
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.workflows.loader import Loaded, read_workflows

SIZES = (1_000, 10_000, 100_000)
SHORT = "Summarise {{topic}} for customer {number}, in two sentences and without names."
USUAL = (
    "Read the message of customer {number} below and say in at most two sentences what it is about. "
    "If it is not about {{topic}}, answer with the single word OTHER."
)
NODES = 20
"""Nodes of one workflow."""
HEADER = (
    "GraphName,Node,AgentType,Prompt,Description,Input_Fields,Output_Field,"
    "Edge,Success_Next,Failure_Next,Context,Timeout"
)
CONFIG = AgentMapConfig(max_csv_bytes=10**9, max_csv_rows=10**7)


def rows(count: int, text: str = USUAL) -> Iterator[str]:
    """A clean file: chains of nodes with prompts, fields and some options."""
    yield HEADER
    for number in range(count):
        flow, step = divmod(number, NODES)
        following = f"Step{step + 1}" if step < NODES - 1 and number < count - 1 else ""
        prompt = f'"{text.format(number=number)}"'
        options = '"{""on_error"": ""continue"", ""keywords"": ""short plain""}"' if step % 4 == 0 else ""
        agent, fields = ("echo" if step % 2 else "default"), f"field{step}|topic,field{step + 1}"
        yield f"Flow{flow},Step{step},{agent},{prompt},Step {step} of the flow,{fields},{following},,,{options},30s"


def compared(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Seconds of the fastest round of each, and the median of how much longer the second takes than the first."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        start = time.perf_counter()
        first()
        between = time.perf_counter()
        second()
        times.append((between - start, time.perf_counter() - between))
    return min(a for a, _ in times), min(b for _, b in times), statistics.median(b / a for a, b in times)


def plain(data: bytes) -> None:
    """The least that any reader does."""
    for _ in csv.reader(io.StringIO(data.decode(), newline="")):
        pass


def load(data: bytes) -> Loaded:
    """What this package does."""
    return read_workflows(data, "bench.csv", registry=BUILTINS, config=CONFIG)


def run(sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """One row for each size and length of prompts: microseconds a row for both, and their ratio."""
    results = []
    for text, count in [(USUAL, count) for count in sizes] + [(SHORT, sizes[0])]:
        data = ("\n".join(rows(count, text)) + "\n").encode()
        loaded = load(data)
        assert (loaded.rows.nodes, loaded.findings) == (count, ())
        del loaded
        base, ours, ratio = compared(partial(plain, data), partial(load, data), max(5, 200_000 // count))
        results.append(
            {
                "case": "csv_load",
                "rows": count,
                "bytes_a_row": round(len(data) / count),
                "csv_reader_us": round(base / count * 1e6, 2),
                "load_us": round(ours / count * 1e6, 2),
                "ratio": round(ratio, 2),
            }
        )
    return results


if __name__ == "__main__":
    print(f"{'rows':>8} {'bytes/row':>10} {'csv.reader µs/row':>18} {'load µs/row':>12} {'ratio':>6}")
    for result in run():
        print(
            f"{result['rows']:>8} {result['bytes_a_row']:>10} {result['csv_reader_us']:>18} {result['load_us']:>12}"
            f" {result['ratio']:>6}"
        )
