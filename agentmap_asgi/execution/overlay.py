"""A drawn workflow with what an execution of it did: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

STATES: Final = ("pending", "running", "waiting", "completed", "failed", "cut", "skipped")
"""What may become of a node. `cut`: the execution ended under it. `skipped`: it ended without it."""


def overlaid(drawn: Mapping[str, Any], events: Iterable[Mapping[str, Any]], ended: bool) -> dict[str, Any]:
    """The drawing; each node with the state of its last run, its visits, and what that run wrote. `taken` of an edge
    says how often it was followed.
    """
    nodes: dict[str, dict[str, Any]] = {
        node["id"]: {**node, "state": "pending", "visits": 0, "started_at": None, "duration_seconds": None,
                     "attempt": 0, "state_delta": None, "error": None}
        for node in drawn["nodes"]
    }  # fmt: skip
    taken: dict[tuple[str, str], int] = {}
    for event in events:
        node = nodes.get(event.get("node", ""))
        if node is None:
            continue
        match event["event"]:
            case "node_started":
                node |= {"state": "running", "visits": max(node["visits"], event["visit"]), "error": None}
                node |= {"started_at": event["at"], "attempt": event["attempt"], "duration_seconds": None}
            case "node_retry":
                node |= {"attempt": event["attempt"], "error": event["error"]}
            case "suspended":
                node["state"] = "waiting"
            case "resumed":
                node["state"] = "running"
            case "node_finished":
                node |= {"state": event["status"], "error": event["error"], "attempt": event["attempt"]}
                node |= {"duration_seconds": event["duration_seconds"], "state_delta": event["state_delta"]}
                for target in event["edge_taken"]:
                    taken[node["id"], target] = taken.get((node["id"], target), 0) + 1
    if ended:
        last = {"pending": "skipped", "running": "cut", "waiting": "cut"}
        for node in nodes.values():
            node["state"] = last.get(node["state"], node["state"])
    edges = [{**edge, "taken": taken.get((edge["source"], edge["target"]), 0)} for edge in drawn["edges"]]
    return {**drawn, "nodes": list(nodes.values()), "edges": edges}
