"""What went into each run of a node and what came out, from the entries of an execution. Pure; nothing is run.

The walk is walked again with the results that the nodes had, so inputs are those that a node saw: whatever other nodes
have written since, on its branch or beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from ..errors import StoreDamaged
from ..stores.store import Entry
from .fields import MISSING, gather, getter
from .plan import Plan, PlanNode
from .records import BEGAN, ENDED, FINISHED, ITEM, PATCHED, RAN, RESUMED, RETRIED, STARTED, SUSPENDED, stamp, texts
from .values import copied
from .walker import Token

Run = Any
"""An `executor.Run`."""
Visit = dict[str, Any]
"""path (`node#visit`, in a sub-workflow after that of the node that runs it), node, visit, agent_type, status
(`running`, `waiting`, `completed`, `failed`, or `cut`: the execution ended under it), attempt, started_at, ended_at,
duration_seconds, inputs, output (what it has written), success, edge_taken, error, usage; of a Map_Over `items`."""
_STEP: Final = re.compile(r"(?:/(\d{1,9}))?(?:@\d+)?", re.ASCII)
"""What follows a run of a node in the path of its sub-workflow: the item of a Map_Over, and the attempt."""
PlanOf = Callable[[str], Plan | None]
"""The plan of a content hash, when it is there."""


def visits(
    plan: Plan, state: Mapping[str, Any], execution_id: str, entries: Iterable[Entry], plan_of: PlanOf, *, ended: bool
) -> list[Visit]:
    """Runs of nodes in the order in which they began, each followed by those of its sub-workflow.

    `entries` are those of all paths. Raises StoreDamaged for entries that do not fit.
    """
    paths: dict[str, list[Entry]] = {}
    for entry in entries:
        paths.setdefault(entry.path, []).append(entry)
    try:
        return _Walk(paths, plan_of, execution_id, ended).through("", plan, dict(state))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as exc:
        raise StoreDamaged(execution_id, "its entries do not fit each other") from exc


def parts_in(entries: Iterable[Entry]) -> set[str]:
    """The content hashes of the sub-workflows that have begun."""
    found = [json.loads(entry.text) for entry in entries if entry.path]
    return {one[5] for one in found if one[0] == STARTED and len(one) > 5 and isinstance(one[5], str)}


def entries_of(run: Run) -> Iterator[Entry]:
    """The entries of a run that lives here and has not written them, and of its sub-workflows."""
    for record, text in zip(run.records, texts(run.plan, run.records, run.wall_offset), strict=True):
        yield Entry(run.path, record[0], text)
    for child in run.extra.children.values():
        yield from entries_of(child)


class _Walk:
    def __init__(self, paths: Mapping[str, list[Entry]], plan_of: PlanOf, execution_id: str, ended: bool) -> None:
        self._paths = paths
        self._plan_of = plan_of
        self._id = execution_id
        self._ended = ended

    def through(self, path: str, plan: Plan, state: dict[str, Any]) -> list[Visit]:
        """The runs of nodes of one path."""
        facts = {"execution_id": self._id, "graph_name": plan.workflow.name, "nodes": plan.nodes}
        walker = plan.walker()
        first = walker.start(Token(0, copied(state), facts))
        tokens = {(first.at, first.visit): first}
        found: dict[tuple[int, int], tuple[Visit, list[Visit]]] = {}
        ended = self._ended
        for entry in self._paths.get(path, ()):
            kind, name, visit, began, at, *data = json.loads(entry.text)
            if kind == ENDED:
                ended = True
            if name is None:
                continue
            node = plan.nodes[plan.index[name]]
            key = node.index, visit
            if key not in found:
                if kind == PATCHED:
                    tokens[key].write(copied(data[0]))
                    continue
                if not self._own(kind, path, name, visit, data):
                    continue
                begun = self._begun(path, node, tokens[key], began)
                found[key] = begun, self._below(begun["path"], node, tokens[key])
            shown = found[key][0]
            if kind in (RAN, FINISHED):
                self._finished(shown, began, at, data)
                delta, flag, targets, _, error, parked = data[:6]
                token = tokens.pop(key)
                token.flag = flag
                if error is None:
                    token.write(copied(delta))
                else:
                    token.note_error(name, error["message"])
                if parked:
                    walker.park(token)
                else:
                    for free in walker.complete(token, [plan.index[target] for target in targets]):
                        tokens[free.at, free.visit] = free
            elif kind == BEGAN:
                shown["attempt"] = data[0]
            elif kind == RETRIED:
                shown["attempt"] = data[0] + 1
            elif kind == ITEM:
                shown["items"].append(self._item(shown, node, tokens[key], data))
            elif kind in (SUSPENDED, RESUMED) and self._own(kind, path, name, visit, data):
                shown["status"] = "waiting" if kind == SUSPENDED else "running"
        if ended:
            for shown, _ in found.values():
                if shown["status"] in ("running", "waiting"):
                    shown["status"] = "cut"
        return [one for shown, below in found.values() for one in (shown, *below)]

    @staticmethod
    def _own(kind: int, path: str, name: str, visit: int, data: list[Any]) -> bool:
        """Whether what an entry says of a wait is of this node, and not of its sub-workflow's."""
        step = f"{name}#{visit}"
        return kind not in (SUSPENDED, RESUMED) or data[0]["path"] == (f"{path}/{step}" if path else step)

    def _begun(self, path: str, node: PlanNode, token: Token, began: int) -> Visit:
        step = f"{node.name}#{token.visit}"
        inputs = _inputs(node, token.values, token)
        if node.node.map_over is not None:  # those of the items are told with the items
            inputs = {name: value for name, value in inputs.items() if name not in ("item", "index")}
        shown = {
            "path": f"{path}/{step}" if path else step,
            "node": node.name,
            "visit": token.visit,
            "agent_type": node.node.agent_type,
            "status": "running",
            "attempt": 1,
            "started_at": stamp(began),
            "ended_at": None,
            "duration_seconds": None,
            "inputs": inputs,
            "output": None,
            "success": None,
            "edge_taken": None,
            "error": None,
            "usage": {},
        }
        return shown if node.node.map_over is None else {**shown, "items": []}

    @staticmethod
    def _finished(shown: Visit, began: int, at: int, data: list[Any]) -> None:
        delta, flag, targets, attempt, error, _, *usage = data
        shown |= {
            "status": "failed" if error else "completed",
            "attempt": attempt,
            "ended_at": stamp(at),
            "duration_seconds": (at - began) / 1e9,
            "output": delta,
            "success": flag,
            "edge_taken": targets,
            "error": error,
            "usage": usage[0] if usage else {},
        }

    def _item(self, shown: Visit, node: PlanNode, token: Token, data: list[Any]) -> dict[str, Any]:
        index, value, error, *usage = data
        inputs = _inputs(node, _with_item(node, token, index), token)
        return {"index": index, "inputs": inputs, "output": value, "error": error, "usage": dict(*usage)}

    def _below(self, path: str, node: PlanNode, token: Token) -> list[Visit]:
        """The runs of nodes of the sub-workflows that a run of a node has begun."""
        if not node.agent.sub_workflow:
            return []
        found = []
        for child, entries in self._paths.items():
            step = _STEP.fullmatch(child, len(path)) if child.startswith(path) else None
            kind, *_, definition = json.loads(entries[0].text)[:6]
            plan = self._plan_of(definition) if step and kind == STARTED and isinstance(definition, str) else None
            if step and plan:
                values = _with_item(node, token, int(step[1])) if step[1] else token.values
                found += self.through(child, plan, _inputs(node, values, token))
        return found


def _inputs(node: PlanNode, values: dict[str, Any], token: Token) -> dict[str, Any]:
    """What the node is given; a sub-workflow without Input_Fields has all of the state."""
    if node.agent.sub_workflow and not node.node.inputs:
        return dict(copied(values))
    return dict(copied(gather(node.bindings, values, token)))


def _with_item(node: PlanNode, token: Token, index: int) -> dict[str, Any]:
    """The state as the run of one item of a Map_Over sees it."""
    field = node.node.map_over
    items = MISSING if field is None else getter(field)(token.values, token)
    item = items[index] if isinstance(items, list) and index < len(items) else None
    return {**token.values, "item": item, "index": index}
