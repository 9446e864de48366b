"""Processes that take executions on and run none, and workers that run them: what reaches what, and how workers end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
from dbos_processes import HERE, Process, diary, seen
from flows import node, write
from postgresql import Server

ROWS = [
    node("A", "work", output="a", edge="Ask|B"),
    node("Ask", "suspend", output="said", edge="Z"),
    node("B", "work", output="b", edge="Z"),
    node("Z", "work", output="z"),
    node("S", "slow", output="s", graph="Slow"),
    node("P", "poison", output="p", graph="Poison"),
]


def cancel_in_dbos(url: str, execution: str) -> None:
    """As its console does."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE dbos.workflow_status SET status = 'CANCELLED', owner_xid = NULL WHERE workflow_uuid LIKE %s",
            (f"%:{execution}:%",),
        )


def test_what_is_asked_of_one_process_reaches_the_one_that_runs_it(dbos_url: str, tmp_path: Path) -> None:
    """Results, answers, cancellations, those of DBOS too, whether anybody has taken the execution or not; and what a
    worker runs goes on when it ends.
    """
    write(tmp_path, ROWS)
    settings = {
        "engine": "dbos", "storage_url": dbos_url, "storage_schema": Server.schema(), "namespace": "a work_er",
        "shutdown_grace": 0.2, "max_recoveries": 0,
    }  # fmt: skip
    taking = {**settings, "run_executions": False}
    front = Process(tmp_path, taking)
    processes = [front]
    try:
        front.ready()
        # Nobody is there to run it.
        waiting, cancelled, ended = (front.ask("start", graph="Flow")["execution_id"] for _ in range(3))
        assert front.ask("settled", id=waiting, seconds=0.2)["status"] == "queued"
        assert front.ask("cancel", id=cancelled)["status"] == "cancelled"
        cancel_in_dbos(dbos_url, ended)
        assert front.ask("settled", id=ended, seconds=30)["status"] == "cancelled"
        # It waits for its turn also when who took it on dies.
        front.kill()
        worker, front = Process(tmp_path, {**settings, "max_running": 2}), Process(tmp_path, taking)
        processes += [worker, front]
        worker.ready()
        front.ready()
        found = front.ask("settled", id=waiting, seconds=30)
        assert (found["status"], found["waiting"][0]["path"], found["result"]["b"]) == ("suspended", "Ask#1", "B")
        front.ask("answer", id=waiting, data="yes")
        found = front.ask("settled", id=waiting, seconds=30)
        assert (found["status"], found["result"]) == (
            "completed",
            {"a": "A", "b": "B", "said": "yes", "z": "Z"},
        )
        assert found["attempt"] == 1
        assert {line["pid"] for line in diary(tmp_path)} == {worker.pid}
        assert not any(line["key"].startswith(cancelled) for line in diary(tmp_path))

        # Cancelling reaches the running node.
        slow = front.ask("start", graph="Slow")["execution_id"]
        seen(tmp_path, "began", f"{slow}/S#1")
        assert front.ask("cancel", id=slow)["status"] == "cancelled"
        seen(tmp_path, "cancelled", f"{slow}/S#1")

        # So does what is cancelled with the tools of DBOS.
        slow = front.ask("start", graph="Slow")["execution_id"]
        seen(tmp_path, "began", f"{slow}/S#1")
        cancel_in_dbos(dbos_url, slow)
        seen(tmp_path, "cancelled", f"{slow}/S#1")
        assert front.ask("settled", id=slow, seconds=30)["status"] == "cancelled"

        # A worker that is told to stop leaves what takes long to another one.
        slow = front.ask("start", graph="Slow")["execution_id"]
        seen(tmp_path, "began", f"{slow}/S#1")
        assert worker.close() == 0
        other = Process(tmp_path, settings)
        processes.append(other)
        other.ready()
        seen(tmp_path, "began", f"{slow}/S#1", 2)
        events = front.ask("events", id=slow)["events"]
        assert [event["event"] for event in events] == ["started", "node_started", "recovered"]
        assert front.ask("cancel", id=slow)["status"] == "cancelled"

        # What ends each process that runs it is not given to ever more of them.
        poison = front.ask("start", graph="Poison")["execution_id"]
        assert other.wait() == 1
        last = Process(tmp_path, settings)
        processes.append(last)
        last.ready()
        found = front.ask("settled", id=poison, seconds=30)
        assert (found["status"], found["error"]["code"], found["attempt"]) == ("interrupted", "interrupted", 2)
        assert sum(line["key"] == f"{poison}/P#1" for line in diary(tmp_path)) == 1
        assert last.close() == 0
        assert front.close() == 0
    finally:
        for process in processes:
            process.kill()


def test_the_command(dbos_url: str, tmp_path: Path) -> None:
    """`worker` says what it runs, ends with SIGTERM, and says what it needs."""
    write(tmp_path, [node("A", "echo", prompt="Hello", output="a")])
    environment = {"PYTHONPATH": str(HERE.parents[1]), "PATH": "/usr/bin:/bin", "AGENTMAP_STORAGE_URL": dbos_url}
    command = [sys.executable, "-m", "agentmap_asgi", "worker", str(tmp_path / "flows.csv"), "--concurrency", "3"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Running up to 3 executions at once of 1 workflow from postgresql://")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
    environment["AGENTMAP_STORAGE_URL"] = "memory://"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "set storage_url to postgresql://" in done.stderr
