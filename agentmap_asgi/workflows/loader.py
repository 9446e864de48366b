"""From the bytes of a file to its workflows, with everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..agents.registry import Registry
from ..config import AgentMapConfig
from . import columns, sheet
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
        return tuple(sorted({id(found): found for found in every}.values(), key=lambda found: found.row or 0))


def read_workflows(
    data: bytes,
    file: str,
    *,
    registry: Registry,
    config: AgentMapConfig | None = None,
    services: Collection[str] | None = None,
    functions: Collection[str] | None = None,
) -> Loaded:
    """Read a file. Never raises for what the file holds.

    `services` and `functions` are the names that the host has registered; None leaves them unchecked.
    """
    config = config or AgentMapConfig()
    opened = sheet.read(data, file, max_bytes=config.max_csv_bytes)
    if isinstance(opened, list):
        return Loaded(file, diagnostics=tuple(opened))
    if not opened.layout.cells[columns.NODE]:
        return Loaded(file, diagnostics=tuple(opened.diagnostics))
    prompts = Prompts(config.prompts_path)
    reading = Reading(opened, file, registry=registry, prompts=prompts, services=services, functions=functions)
    reading.read(config.max_csv_rows)
    return Loaded(file, *reading.result(), prompts=prompts.found)
