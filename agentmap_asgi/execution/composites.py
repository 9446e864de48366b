"""Nodes that are made of several runs: sub-workflows, and the items of a Map_Over."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

from ..agents.registry import Outcome
from ..errors import (
    AgentFailed,
    DepthLimit,
    Interrupted,
    LimitReached,
    MapOverInvalid,
    NodeFailure,
    RequestRefused,
    StepLimit,
    SubworkflowFailed,
)
from .fields import MISSING, gather, getter
from .plan import PlanNode
from .records import ITEM
from .replay import replayed
from .usage import Usage
from .waits import Suspend
from .walker import Token

Run = Any
"""An `executor.Run`, which imports this module."""


class Held(Suspend):
    """The node's sub-workflow waits for an answer, and the node with it."""


async def sub_workflow(
    run: Run, token: Token, node: PlanNode, values: dict[str, Any], attempt: int, item: int | None
) -> Outcome:
    """Run the workflow that a node names, in the slot and with the services of its run."""
    reference = node.node.options.get("workflow")
    if not reference:
        reference = getter(str(node.node.options.get("workflow_field")))(values, token)
    if not isinstance(reference, str) or not reference:
        raise SubworkflowFailed("The state does not say which workflow to run")
    if run.depth + 1 > run.host.config.max_depth:
        raise DepthLimit(f"Sub-workflows are nested deeper than {run.host.config.max_depth}")
    name = f"{node.name}#{token.visit}" + ("" if item is None else f"/{item}")
    step = name if attempt == 1 else f"{name}@{attempt}"
    child = run.extra.children.get(step)
    if child is None:
        child = await _child(run, token, node, values, reference, name, step)
    try:
        while not child.settled:  # an answer may have come before this task has seen that the child waits
            await child.wait()
    except asyncio.CancelledError:
        child.cancel()
        await child.wait()  # its agents use services of this run
        raise
    if child.status == "suspended":
        if item is not None:
            child.cancel()
            raise SubworkflowFailed("A sub-workflow under Map_Over cannot wait for an answer")
        raise Held()
    run.extra.children.pop(step, None)
    run.spend(token, item, child.usage, counted=True)
    if child.status != "completed":
        error = child.error or {}
        if error.get("code") == DepthLimit.code:
            raise DepthLimit(error["message"])
        if child.status == "interrupted":
            raise Interrupted(error["message"])
        if error.get("code") == StepLimit.code:
            raise StepLimit(error["message"])
        raise SubworkflowFailed(f"{child.plan.workflow.name} ended {child.status}: {error.get('message')}")
    state, flag = child.result.values, child.result.flag
    if not node.child_fields:
        return Outcome(state, flag)
    named = dict(node.child_fields)
    picked = {ours: state.get(named.get(ours, ours)) for ours in node.outputs}
    return Outcome(picked if len(picked) > 1 else picked[node.outputs[0]], flag)


async def _child(
    run: Run, token: Token, node: PlanNode, values: dict[str, Any], reference: str, name: str, step: str
) -> Run:
    """The sub-workflow of a node, begun, or going on from where a restored execution left it."""
    inputs = gather(node.bindings, values, token) if node.node.inputs else dict(values)
    path = f"{run.path}/{step}" if run.path else step
    entries = run.root.extra.restored.pop(path, None)
    if entries is not None:
        plan = await run.host.pinned_plan(run.plan.workflow, reference, entries, run.plan_for)
    else:
        try:
            plan = run.plan_for(run.plan.workflow, reference)
        except RequestRefused as exc:
            raise SubworkflowFailed(exc.message) from None
    child: Run = run.__class__(
        run.host,
        plan,
        f"{run.id}/{name}",
        inputs,
        scope=run.scope,
        context=run.context,
        plan_for=run.plan_for,
        parent=run,
        parent_token=token,
        step=step,
    )
    run.own().children[step] = child
    if run.ledger is not None:
        run.ledger.tree.append(child)
    if entries is None:
        child.start()
    else:
        replayed(child, entries)
    return child


async def mapped(run: Run, token: Token, node: PlanNode, field: str) -> list[Any]:
    """Run the node once for each item of a list, so many at a time; results in the order of the items."""
    items = getter(field)(token.values, token)
    if items is MISSING or items is None:
        items = []
    if not isinstance(items, list):
        raise MapOverInvalid(f"Map_Over names {field!r}, which is no list")
    options = node.node.options
    on_error = options.get("on_item_error", "fail")
    given = options.get("concurrency")
    most = max(1, given) if isinstance(given, int) else 10
    results: list[Any] = [MISSING] * len(items)
    before = run.extra.items.pop((token.at, token.visit), {})
    for index, (value, error) in before.items():
        if index < len(items) and error is None:
            results[index] = value

    async def one(index: int, item: Any) -> NodeFailure | None:
        clock = run.host.context.clock.monotonic_ns
        began = clock()
        try:
            values = {**token.values, "item": item, "index": index}
            value, _ = await run.tried(token, node, values, index, node.item_value)
        except Suspend:
            return AgentFailed("A node with Map_Over cannot wait for an answer")
        except NodeFailure as failure:
            error = run.error_of(failure, node, getattr(failure, "attempt", 1))
            run.record(ITEM, token, began, clock(), (index, None, error, *_spent(run, token, index)))
            if on_error == "collect":
                results[index] = {"error": {"code": error["code"], "message": error["message"]}}
            return failure if on_error == "fail" or isinstance(failure, LimitReached) else None
        results[index] = value = run.masked(value)
        run.record(ITEM, token, began, clock(), (index, value, None, *_spent(run, token, index)))
        if run.host.writes_steps:
            await run.keep()
        return None

    left = iter([index for index, result in enumerate(results) if result is MISSING])
    running: dict[asyncio.Task[NodeFailure | None], int] = {}
    failed: tuple[int, NodeFailure] | None = None  # the first in the order of the items, not of the clock
    try:
        while True:
            while failed is None and len(running) < most and (upcoming := next(left, None)) is not None:
                task = run.host.loop.create_task(one(upcoming, items[upcoming]), context=Context())
                run.add_task(task)
                running[task] = upcoming
            if not running or (failed is not None and min(running.values()) > failed[0]):
                break
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = running.pop(task)
                run.tasks.discard(task)
                failure = task.result()
                if failure is not None and (failed is None or index < failed[0]):
                    failed = index, failure
        if failed is not None:
            raise failed[1]
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=run.host.config.cancel_grace)
        if run.tasks:
            run.tasks.difference_update(running)
    return [result for result in results if result is not MISSING]


def _spent(run: Run, token: Token, index: int) -> tuple[Usage, ...]:
    spent = run.spent(token, index)
    return () if spent is None else (spent,)
