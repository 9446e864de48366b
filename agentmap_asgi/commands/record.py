"""`record`: executions that are kept in the store as cases of a case file."""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
from typing import TYPE_CHECKING, Any

from .source import add_source, quiet, service_of

if TYPE_CHECKING:
    from ..services.agentmap import AgentMapService


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = "Prints a case file; what nodes that wait or reach the world have answered becomes a mock."
    add_source(parser)
    parser.add_argument("executions", metavar="EXECUTION", nargs="+", help="ids of finished executions")
    parser.set_defaults(command=_record)


def _record(arguments: argparse.Namespace) -> int:
    service = service_of(arguments, patrol_seconds=0.0)

    async def collect() -> list[dict[str, str]]:
        try:
            return [await _case(service, identity) for identity in arguments.executions]
        finally:
            await service.aclose()

    with quiet():
        rows = asyncio.run(collect())
    names = sorted({name for row in rows for name in row} - {"case", "workflow"}, key=_order)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["case", "workflow", *names], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print(out.getvalue(), end="")
    return 0


def _order(name: str) -> tuple[int, str]:
    return ("input", "mock", "expect").index(name.partition(".")[0]), name


async def _case(service: AgentMapService, identity: str) -> dict[str, str]:
    from ..cases import recorded

    document = await service.get_execution_status(identity)
    row = await service.store.find(identity)
    initial: dict[str, Any] = json.loads(row.head)["state"] if row is not None else {}
    workflow = service.catalogue.find(row.graph_id if row is not None else document["graph_name"])
    outside = set()
    for name, node in workflow.nodes.items():
        found = service.registry.find(node.agent_type)
        alone = found is not None and (found.idempotent or found.targets is not None or found.sub_workflow)
        if found is None or found.waits or not alone:
            outside.add(name)
    mocks = recorded(await service.get_execution_events(identity), workflow, outside)
    case = {"case": identity, "workflow": workflow.graph_id}
    case |= {f"input.{name}": _cell(value) for name, value in initial.items()}
    case |= {f"mock.{name}": _cell(value) for name, value in mocks.items()}
    changed = {name: value for name, value in (document["result"] or {}).items() if initial.get(name) != value}
    case |= {f"expect.{name}": _cell(value) for name, value in changed.items()}
    case["expect.status"] = document["status"]
    if document.get("error"):
        case["expect.error"] = document["error"]["code"]
    return case


def _cell(value: Any) -> str:
    """A value so that a case reads the same: a text that would be something else is quoted."""
    from ..cases import value_of

    if isinstance(value, str) and value.strip() == value and value and value_of(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
