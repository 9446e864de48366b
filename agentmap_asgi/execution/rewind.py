"""What of an execution a retry keeps: the entries up to where it runs again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import ExecutionConflict
from ..stores.store import Entry
from .plan import Plan
from .records import BEGAN, ENDED, FINISHED, PATCHED, RAN, RECOVERED, STARTED, unspent, width
from .writing import dumps


class Rewound(NamedTuple):
    """What a retry begins with."""

    entries: list[Entry]
    nodes: list[str]
    """Runs of nodes that are made again first, as `node#visit`."""
    keeps: int
    """Runs of nodes whose results are kept."""


def rewound(plan: Plan, entries: list[Entry], start: str, patch: dict[str, Any], now: int) -> Rewound:
    """`start` is `failed`, `start`, or a node, maybe with its visit. Raises ExecutionConflict when it did not run.

    With another definition than the entries were made by, those of nodes it does not have, or leads elsewhere from,
    raise ExecutionConflict too.
    """
    own = [(entry.sequence, json.loads(entry.text)) for entry in entries if not entry.path]
    if not own:
        return Rewound([], [next(iter(plan.index), "")], 0)
    _same_ways(plan, own)
    if start == "failed":
        drop = _unfinished(own)
        below: frozenset[str] = frozenset()
    else:
        chosen = _visit(own, start)
        drop = {chosen} | (_unfinished(own) - _parked(own))
        below = frozenset(plan.nodes[at].name for at in _after(plan, plan.index[chosen[0]]))
    kept: list[list[Any]] = []
    passed = False
    runs = 0
    for _, found in own:
        kind, node, visit = found[:3]
        if kind in (ENDED, RECOVERED):
            continue
        if kind != STARTED and (node, visit) in drop:
            passed = passed or start != "failed"
            continue
        if passed and below and node in below:
            continue
        kept.append(found)
        runs += kind in (RAN, FINISHED)
    dropped = {f"{node}#{visit}" for node, visit in drop}
    if patch:
        kept += [[PATCHED, node, visit, now, now, patch] for node, visit in sorted(drop)]
    result = _renumbered(kept)
    return Rewound([*result, *_children(entries, dropped, below, start == "failed")], sorted(dropped), runs)


def _renumbered(kept: Iterable[list[Any]]) -> list[Entry]:
    """Numbers without gaps: a stream of the new execution shows every event."""
    number = 1
    entries = []
    for found in kept:
        entries.append(Entry("", number, dumps(unspent(found))))
        number += width(found[0])
    return entries


def _children(entries: list[Entry], dropped: set[str], below: frozenset[str], failed: bool) -> list[Entry]:
    """Entries of sub-workflows: a failed one is taken up where it failed, one that is run again as a whole is left."""
    paths: dict[str, list[tuple[int, list[Any]]]] = {}
    for entry in entries:
        again = any(entry.path == one or entry.path.startswith((f"{one}/", f"{one}@")) for one in dropped)
        again = again or any(entry.path.startswith(f"{name}#") for name in below)
        if entry.path and (failed or not again):
            paths.setdefault(entry.path, []).append((entry.sequence, json.loads(entry.text)))
    kept = []
    for path, own in paths.items():
        ended = any(found[0] == ENDED and found[5] == "completed" for _, found in own)
        drop = set() if ended else _unfinished(own)
        for sequence, found in own:
            if ended or (found[0] not in (ENDED, RECOVERED) and (found[1], found[2]) not in drop):
                kept.append(Entry(path, sequence, dumps(unspent(found))))
    return kept


def _parked(own: list[tuple[int, list[Any]]]) -> set[tuple[str, int]]:
    """Runs of nodes that failed, and nothing handled it."""
    return {(node, visit) for _, (kind, node, visit, *rest) in own if kind in (RAN, FINISHED) and rest[7]}


def _unfinished(own: list[tuple[int, list[Any]]]) -> set[tuple[str, int]]:
    """The same, and those that began and did not end."""
    began = {(node, visit) for _, (kind, node, visit, *_) in own if kind == BEGAN}
    ended = {(node, visit) for _, (kind, node, visit, *_) in own if kind in (RAN, FINISHED)}
    return _parked(own) | (began - ended)


def _visit(own: list[tuple[int, list[Any]]], start: str) -> tuple[str, int]:
    ran = [(node, visit) for _, (kind, node, visit, *_) in own if kind in (RAN, BEGAN)]
    name, sign, number = start.rpartition("#")
    if sign and number.isdecimal() and (name, int(number)) in ran:
        return name, int(number)
    visits = [visit for node, visit in ran if node == start]
    if not visits:
        raise ExecutionConflict(f"The execution has not run {start!r}; a retry starts at a node that it ran")
    return start, max(visits)


def _after(plan: Plan, at: int) -> set[int]:
    """Everything that can be reached from a node."""
    found: set[int] = set()
    look = list(plan.edges[at])
    while look:
        one = look.pop()
        if one not in found:
            found.add(one)
            look.extend(plan.edges[one])
    return found


def _same_ways(plan: Plan, own: list[tuple[int, list[Any]]]) -> None:
    for _, (kind, node, _, *rest) in own:
        if node is None:
            continue
        if node not in plan.index:
            raise ExecutionConflict(f"The latest definition has no node {node!r}, which the execution has run")
        if kind in (RAN, FINISHED):
            for target in rest[4]:
                number = plan.index.get(target)
                if number is None or number not in plan.edges[plan.index[node]]:
                    raise ExecutionConflict(f"In the latest definition {node!r} does not lead to {target!r} any more")
