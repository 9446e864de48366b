"""Workers that are killed while they run: what they ran goes on in others, and nothing that is done is done again."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbos_processes import Process, diary
from flows import node, write
from postgresql import Server

ROWS = [
    node("A", "work", output="a", edge="B|C"),
    node("B", "work", output="b", edge="J"),
    node("C", "flaky", output="c", retry="2", edge="J"),
    node("J", "aggregator", inputs="b|c", output="j", edge="M"),
    node("M", "work", output="m", map_over="xs", edge="G"),
    node("G", "graph", output="g", context={"workflow": "::Child"}, edge="Ask"),
    node("Ask", "suspend", output="said", edge="Z"),
    node("Z", "work", output="z"),
    node("D", "work", output="d", edge="E", graph="Child"),
    node("E", "work", output="e", graph="Child"),
    *(node(f"O{i}", "once", output=f"o{i}", edge=f"O{i + 1}" if i < 5 else "", graph="Once") for i in range(1, 6)),
]
KILLS = 2


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_what_is_done_is_not_done_again(dbos_url: str, rounds: int, tmp_path: Path) -> None:
    """Two workers, one of which is killed at random moments again and again.

    Every execution ends. A node whose end DBOS has is not begun again; an idempotent one is begun at most once more for
    each death, one that is not idempotent at most once.
    """
    write(tmp_path, ROWS)
    kills = 50 if rounds > 1 else KILLS
    settings = {
        "engine": "dbos", "storage_url": dbos_url, "storage_schema": Server.schema(), "namespace": "kills",
        "max_recoveries": kills,
    }  # fmt: skip
    workers = [Process(tmp_path, settings) for _ in range(2)]
    front = Process(tmp_path, {**settings, "run_executions": False})
    dice = random.Random(kills)
    deaths = []
    started: list[str] = []
    try:
        for process in (*workers, front):
            process.ready()
        for _ in range(kills):
            numbers = [front.tell("start", graph=graph, state={"xs": [1, 2, 3]}) for graph in ("Flow", "Flow", "Once")]
            started += [front.answer(number)["execution_id"] for number in numbers]
            waiting = [one for one in started if front.ask("settled", id=one, seconds=0)["status"] == "suspended"]
            for one in waiting:
                front.ask("answer", id=one, data="yes")
            time.sleep(dice.uniform(0.1, 1.0))
            dead = workers.pop(0)
            dead.kill()
            deaths.append(time.time())
            workers.append(Process(tmp_path, settings))
            workers[-1].ready()
        documents = [_to_its_end(front, one) for one in started]
        events = [front.ask("events", id=one)["events"] for one in started]
        assert front.close() == 0
        assert [worker.close() for worker in workers] == [0, 0]
    finally:
        for process in (*workers, front):
            process.kill()
    _check(documents, events, diary(tmp_path), dbos_url, deaths)


def _to_its_end(front: Process, execution: str) -> dict[str, Any]:
    found = front.ask("settled", id=execution, seconds=30)
    if found["status"] == "suspended":
        front.ask("answer", id=execution, data="yes")
        found = front.ask("settled", id=execution, seconds=30)
    return found


def _check(
    documents: list[dict[str, Any]], events: list[Any], lines: list[dict[str, Any]], url: str, deaths: list[float]
) -> None:
    for document in documents:
        allowed = ("completed", "interrupted") if document["graph_name"] == "Once" else ("completed",)
        assert document["status"] in allowed, document
        if document["status"] == "completed" and document["graph_name"] == "Flow":
            assert document["result"] == {
                "xs": [1, 2, 3], "a": "A", "b": "B", "c": "C", "j": {"b": "B", "c": "C"}, "m": ["M", "M", "M"],
                "g": {**{name: document["result"]["g"][name] for name in ("xs", "a", "b", "c", "j", "m")},
                      "d": "D", "e": "E"},
                "said": "yes", "z": "Z",
            }  # fmt: skip
    once = {document["execution_id"] for document in documents if document["graph_name"] == "Once"}
    began = Counter(line["key"] for line in lines if line["what"] == "began")
    for key, times in began.items():
        tries = 2 if "/C#" in key else 1
        assert times <= (1 if key.partition("/")[0] in once else tries + len(deaths)), (key, times)
    with psycopg.connect(url) as connection:
        steps = connection.execute(
            "SELECT split_part(workflow_uuid, ':', 3) || '/' || function_name, max(completed_at_epoch_ms) "
            "FROM dbos.operation_outputs GROUP BY 1"
        ).fetchall()
        twice = connection.execute(
            "SELECT split_part(workflow_uuid, ':', 3), function_name FROM dbos.operation_outputs "
            "GROUP BY 1, 2 HAVING count(*) > 1"
        ).fetchall()
    assert twice == []
    done: dict[str, int] = dict(steps)
    late = [line for line in lines if line["what"] == "began" and line["at"] / 1e6 > done.get(line["key"], 1e15) + 5]
    assert late == []
    for one in events:
        finished = Counter((event["node"], event["visit"]) for event in one if event["event"] == "node_finished")
        assert set(finished.values()) <= {1}
        assert [event["sequence"] for event in one] == list(range(1, len(one) + 1))
    taken = [
        datetime.fromisoformat(event["at"]).timestamp() for one in events for event in one
        if event["event"] == "recovered"
    ]  # fmt: skip
    after = [min(at - death for death in deaths if at > death) for at in taken if at > min(deaths)]
    if after:
        print(f"{len(deaths)} deaths, {len(after)} taken over after {statistics.median(after):.2f} s at the median")
