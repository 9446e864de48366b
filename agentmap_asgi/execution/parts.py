"""The versions of the sub-workflows that an execution began with: they stay, whatever is read anew meanwhile.

Only those are known beforehand that a row names; one that the state names is looked for when its node runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import RequestRefused
from ..workflows.model import Workflow
from .plan import Plan

PlanFor = Callable[[Workflow, str], Plan]


def place(caller: Workflow, reference: str) -> str:
    """How a reference is named among the parts of an execution."""
    return f"{caller.graph_id} {reference}"


def parts_of(plan: Plan, plan_for: PlanFor) -> dict[str, Plan]:
    """The plans of all sub-workflows that a plan leads to, by place."""
    found: dict[str, Plan] = {}
    look = [plan]
    while look:
        one = look.pop()
        for reference in one.references:
            name = place(one.workflow, reference)
            if name not in found:
                try:
                    part = plan_for(one.workflow, reference)
                except RequestRefused:  # its node says so, if it runs
                    continue
                found[name] = part
                look.append(part)
    return found


def kept(versions: Mapping[str, str], plans: Mapping[str, Callable[[], Plan]], now: PlanFor) -> PlanFor:
    """Finds sub-workflows in the versions (content hashes by place) that an execution began with.

    `plans` makes the plan of a version that is served no more, `now` finds what is served.
    """

    def plan_for(caller: Workflow, reference: str) -> Plan:
        version = versions.get(place(caller, reference))
        try:
            plan = now(caller, reference)
        except RequestRefused:
            if version is None:
                raise
        else:
            if version in (None, plan.workflow.version):
                return plan
        return plans[version]()

    return plan_for
