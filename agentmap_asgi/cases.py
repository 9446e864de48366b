"""Tests that are written in a sheet: a row a case, with what a workflow is given, what nodes answer, what is expected.

| column | |
|---|---|
| `case` | its name |
| `workflow` | the workflow's name, or `file::Name` |
| `input.x` | the field `x` of the initial state |
| `mock.Node` | what the node answers instead of its agent; `error: text` makes it fail |
| `expect.y` | the field `y` of the result; `expect.a.b` reaches into objects |
| `expect.status`, `expect.error` | the status (`completed` when not said), the code of the error |

Empty cells say nothing. A cell is JSON, else TRUE or FALSE, else a text.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from .agents.registry import Call, agent
from .config import AgentMapConfig
from .context import AgentMapContext
from .errors import AgentMapError, ConfigError, WorkflowInvalid, nearest
from .services.agentmap import AgentMapService
from .workflows.columns import letter
from .workflows.converting import only_sheet
from .workflows.model import Node, Workflow
from .workflows.package import Unreadable
from .workflows.sheet import SIGNATURE, skippable
from .workflows.table import read

MOCK: Final = "agentmap_case_mock"
REQUIRED: Final = ("case", "workflow")
PREFIXES: Final = ("input", "mock", "expect")
_EXCUSED: Final = frozenset({"AM-A001", "AM-A002", "AM-A009"})
"""What may be wrong with a node that is mocked: its agent does not run."""


class Cell(NamedTuple):
    """What a cell says, and where."""

    name: str
    """The column without its prefix."""
    text: str
    column: str


@dataclass(slots=True)
class Case:
    """One row."""

    name: str
    workflow: str
    file: str
    row: int
    inputs: dict[str, Any] = field(default_factory=dict)
    mocks: dict[str, Any] = field(default_factory=dict)
    expects: list[Cell] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.file}, row {self.row}"


def is_case_file(path: Path) -> bool:
    """Whether a file holds cases: `cases.csv`, `anything.cases.csv`, and the same as .xlsx or .ods."""
    stem, suffix = path.stem.lower(), path.suffix.lower()
    return suffix in (".csv", ".xlsx", ".ods") and (stem == "cases" or stem.endswith(".cases"))


def read_cases(path: Path) -> list[Case]:
    """The cases of a file. Raises ConfigError, with the place, for what is not understood."""
    try:
        data = path.read_bytes()
        rows = (
            list(only_sheet(data, None).rows())
            if data.startswith(SIGNATURE)
            else [row.cells for row in read(data).rows]
        )
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except Unreadable as exc:
        raise ConfigError(f"{path}: {exc.message}") from exc
    header: list[str] | None = None
    cases: list[Case] = []
    for number, cells in enumerate(rows, 1):
        if skippable(cells):
            continue
        if header is None:
            header = _header(cells, f"{path}, row {number}")
        else:
            cases.append(_case(header, cells, str(path), number))
    return cases


def _header(cells: list[str], place: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    header = [name.lower() if name.lower() in REQUIRED else name for name in header]
    for name in REQUIRED:
        if name not in header:
            raise ConfigError(f"{place}: there is no column {name!r}; a case file begins with case,workflow,…")
    for at, name in enumerate(header):
        prefix, dot, rest = name.partition(".")
        if name and name not in REQUIRED and not (dot and rest and prefix in PREFIXES):
            near = nearest(prefix, PREFIXES)
            hint = f"; did you mean {near}.{rest}?" if near and rest else "; use input.…, mock.… and expect.…"
            raise ConfigError(f"{place}, column {letter(at)}: {name!r} is no column of a case file{hint}")
    return header


def _case(header: list[str], cells: list[str], file: str, row: int) -> Case:
    named = dict(zip(header, [cell.strip() for cell in cells], strict=False))
    case = Case(named.get("case") or f"row {row}", named.get("workflow", ""), file, row)
    if not case.workflow:
        raise ConfigError(f"{case.place}: the case {case.name!r} names no workflow")
    if any(text.strip() for text in cells[len(header) :]):
        raise ConfigError(f"{case.place}: there are more cells than the header has")
    for at, (name, cell) in enumerate(zip(header, cells, strict=False)):
        prefix, _, rest = name.partition(".")
        text = cell.strip()
        if not text or prefix not in PREFIXES:
            continue
        if prefix == "input":
            case.inputs[rest] = value_of(text)
        elif prefix == "mock":
            case.mocks[rest] = text if text.lower().startswith("error:") else value_of(text)
        else:
            case.expects.append(Cell(rest, text, f"column {name} ({letter(at)})"))
    return case


def value_of(text: str) -> Any:
    """What a cell stands for: JSON, else TRUE or FALSE as spreadsheets write them, else the text itself."""
    if text in ("TRUE", "FALSE"):
        return text == "TRUE"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_mocks: ContextVar[Mapping[str, Any]] = ContextVar("mocks")


@agent(inline=True)
def _mock(call: Call) -> Any:
    """Answers for a node what its case says."""
    value = copy.deepcopy(_answers[call.execution_id][call.node.name])
    if isinstance(value, str) and value.lower().startswith("error:"):
        raise RuntimeError(value[6:].strip() or "failed")
    flag = value.get("approved") if isinstance(value, dict) else value
    node = call.node
    if isinstance(flag, bool) and (node.on_success or node.on_failure):
        stored = {node.outputs[0]: value} if node.outputs else {}
        return {"state_updates": {**stored, "last_action_success": flag}}
    return value


_answers: dict[str, Mapping[str, Any]] = {}
"""By execution, while it runs."""


class CaseService(AgentMapService):
    """Runs workflows with some of their nodes answered by a case. Executions live in memory."""

    def __init__(
        self, source: str | Path | None, config: AgentMapConfig | None = None, context: AgentMapContext | None = None
    ) -> None:
        context = context or AgentMapContext()
        context.agents = {**context.agents, MOCK: _mock}
        config = replace(config or AgentMapConfig(), storage_url="memory://", patrol_seconds=0.0)
        super().__init__(config, context=context, source=source)

    def _healthy(self, graph_name: str) -> Workflow:
        mocks = _mocks.get({})
        workflow = self.catalogue.find(graph_name)
        unknown = [name for name in mocks if name not in workflow.nodes]
        if unknown:
            near = nearest(unknown[0], list(workflow.nodes))
            hint = f"; did you mean mock.{near}?" if near else ""
            raise ConfigError(f"{workflow.name!r} has no node {unknown[0]!r} to be mocked{hint}")
        for name in mocks:
            found = self.registry.find(workflow.nodes[name].agent_type)
            if found is not None and not found.waits and (found.targets is not None or found.sub_workflow):
                raise ConfigError(f"{name!r} chooses where the workflow goes; mock the nodes whose results it reads")
        wrong = tuple(e for e in workflow.errors if not (e.code in _EXCUSED and e.node in mocks))
        if wrong:
            raise WorkflowInvalid(graph_name, wrong)
        if not mocks:
            return workflow
        nodes = {name: _mocked(node) if name in mocks else node for name, node in workflow.nodes.items()}
        return Workflow(workflow.name, workflow.file, workflow.stem, nodes, workflow.entry)


def _mocked(node: Node) -> Node:
    return replace(node, agent_type=MOCK, retry=None)


async def run_case(service: CaseService, case: Case) -> list[str]:
    """What is not as the case says, a sentence each; none when it passed."""
    execution_id = f"case-{next(_numbers)}"
    token = _mocks.set(case.mocks)
    _answers[execution_id] = case.mocks
    try:
        started = await service.start_execution(case.workflow, case.inputs, execution_id=execution_id)
        document = await service.until_settled(started["execution_id"], service.config.execution_timeout)
    except AgentMapError as exc:
        return [f"{case.place}: {exc.message}", *map(str, getattr(exc, "diagnostics", ()))]
    finally:
        _mocks.reset(token)
        _answers.pop(execution_id, None)
    return list(_compared(case, document))


def _counted() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


_numbers = _counted()


def _compared(case: Case, document: Mapping[str, Any]) -> Iterator[str]:
    error = document.get("error") or {}
    said = {cell.name for cell in case.expects}
    if "status" not in said and document["status"] != ("failed" if "error" in said else "completed"):
        why = f": {error.get('message')}" if error else ""
        yield f"{case.place}: the execution is {document['status']}{why}"
    for cell in case.expects:
        place = f"{case.place}, {cell.column}"
        if cell.name in ("status", "error"):
            found = document["status"] if cell.name == "status" else error.get("code")
            if found != cell.text:
                why = f" ({error.get('message')})" if error else ""
                yield f"{place}: expected {cell.text!r}, got {found!r}{why}"
            continue
        there, found = _looked_up(document.get("result"), cell.name)
        if not there:
            yield f"{place}: expected {cell.text}, but the result has no {cell.name!r}"
        elif found != value_of(cell.text) and found != cell.text:
            yield f"{place}: expected {cell.text}, got {json.dumps(found, ensure_ascii=False)}"


def _looked_up(value: Any, name: str) -> tuple[bool, Any]:
    """A field, by its name or along its dots."""
    if isinstance(value, dict) and name in value:
        return True, value[name]
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


def recorded(events: list[dict[str, Any]], workflow: Workflow, keep: set[str]) -> dict[str, Any]:
    """The answers of the nodes in `keep`, as an execution's events have them: the mocks of its case."""
    mocks: dict[str, Any] = {}
    for event in events:
        node = workflow.nodes.get(str(event.get("node"))) if event.get("event") == "node_finished" else None
        if node is None or node.name not in keep:
            continue
        delta = event.get("state_delta") or {}
        if event.get("status") == "failed":
            mocks[node.name] = f"error: {(event.get('error') or {}).get('message', 'failed')}"
        elif len(node.outputs) == 1:
            mocks[node.name] = delta.get(node.outputs[0])
        else:
            mocks[node.name] = {name: value for name, value in delta.items() if name not in ("errors", "error")}
    return mocks
