"""From the bytes of a file to its workflows, with everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..agents.registry import Registry
from ..config import AgentMapConfig
from . import columns, sheet
from .codes import diagnostic
from .diagnostics import Diagnostic
from .model import Workflow
from .prompts import Prompts
from .rows import Reading, Rows


class Loaded(NamedTuple):
    """What a file holds."""

    file: str
    workflows: tuple[Workflow, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    """Those that belong to the file and to none of its workflows."""
    rows: Rows = Rows()
    prompts: Mapping[str, str | None] = MappingProxyType({})
    """The prompt references that were read, and their texts."""

    @property
    def findings(self) -> tuple[Diagnostic, ...]:
        """All diagnostics of the file and its workflows, each once, by row."""
        every = [*self.diagnostics, *(found for workflow in self.workflows for found in workflow.diagnostics)]
        unique = {id(found): found for found in every}.values()
        sheets = {name: at for at, name in enumerate(dict.fromkeys(found.sheet for found in unique))}
        return tuple(sorted(unique, key=lambda found: (sheets[found.sheet], found.row or 0)))


def read_workflows(
    data: bytes,
    file: str,
    *,
    registry: Registry,
    config: AgentMapConfig | None = None,
    services: Collection[str] | None = None,
    functions: Collection[str] | None = None,
) -> Loaded:
    """Read a CSV file, or a spreadsheet (.xlsx, .ods). Never raises for what the file holds.

    `services` and `functions` are the names that the host has registered; None leaves them unchecked.
    """
    config = config or AgentMapConfig()
    if data.startswith(sheet.SIGNATURE):
        return _spreadsheet(data, file, config, registry=registry, services=services, functions=functions)
    opened = sheet.read(data, file, max_bytes=config.max_csv_bytes)
    if isinstance(opened, list):
        return Loaded(file, diagnostics=tuple(opened))
    if not opened.layout.cells[columns.NODE]:
        return Loaded(file, diagnostics=tuple(opened.diagnostics))
    prompts = Prompts(config.prompts_path)
    reading = Reading(opened, file, registry=registry, prompts=prompts, services=services, functions=functions)
    reading.read(config.max_csv_rows)
    return Loaded(file, *reading.result(), prompts=prompts.found)


def _spreadsheet(
    data: bytes,
    file: str,
    config: AgentMapConfig,
    *,
    registry: Registry,
    services: Collection[str] | None,
    functions: Collection[str] | None,
) -> Loaded:
    """Each sheet is read like a file of its own. A workflow stands in one of them; sub-workflows may be in others."""
    from . import workbook  # which most hosts never need
    from .package import Unreadable

    try:
        grids = workbook.grids(data, max_bytes=config.max_csv_bytes, max_rows=config.max_csv_rows)
    except Unreadable as exc:
        return Loaded(file, diagnostics=(diagnostic(exc.code, exc.message, hint=exc.hint, file=file),))
    opened, problems, rows_left_out = workbook.sheets(grids, file, config.sheet)
    prompts = Prompts(config.prompts_path)
    readings: list[tuple[str, Reading]] = []
    homes: dict[str, tuple[str, Reading]] = {}
    """The first sheet that has rows of a workflow."""
    for grid, one in opened:
        reading = Reading(
            one,
            file,
            registry=registry,
            prompts=prompts,
            services=services,
            functions=functions,
            title=grid.name if len(opened) > 1 else None,
        )
        reading.read(config.max_csv_rows)
        readings.append((grid.name, reading))
        for name, draft in [(name, draft) for name, draft in reading.drafts.items() if draft.nodes]:
            home, first = homes.setdefault(name, (grid.name, reading))
            if first is reading:
                continue
            row = next(iter(draft.nodes.values())).row
            message = f"The workflow {name!r} stands in the sheets {home!r} and {grid.name!r}; this one is left out"
            problem = diagnostic("AM-N008", message, file=file, sheet=grid.name, row=row, graph=name)
            first.drafts[name].diagnostics.append(problem)
            reading.reported += len(draft.nodes)
            del reading.drafts[name]
    workflows: list[Workflow] = []
    total, nodes, reported, skipped = rows_left_out, 0, rows_left_out, 0
    for name, reading in readings:
        found, common, rows = reading.result(homes)
        known: dict[int, Diagnostic] = {}
        for problem in (*common, *(one for workflow in found for one in workflow.diagnostics)):
            if id(problem) not in known:  # what workflows share stays one object
                known[id(problem)] = workbook.placed(problem, name)
        problems += [known[id(problem)] for problem in common]
        for workflow in found:
            workflow.diagnostics = tuple(known[id(problem)] for problem in workflow.diagnostics)
        workflows += found
        total, nodes = total + rows.total, nodes + rows.nodes
        reported, skipped = reported + rows.reported, skipped + rows.skipped
    return Loaded(file, tuple(workflows), tuple(problems), Rows(total, nodes, reported, skipped), prompts.found)
