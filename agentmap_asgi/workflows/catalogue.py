"""All workflows of a file or a folder, by name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from ..agents.registry import Registry
from ..config import AgentMapConfig
from ..errors import AmbiguousWorkflow, ConfigError, UnknownWorkflow
from .codes import diagnostic
from .diagnostics import Diagnostic
from .loader import Loaded, read_workflows
from .model import Workflow
from .prompts import Prompts
from .rows import stem_of

MOST_CLOSE: Final = 500
"""Names compared for "did you mean"."""


class _Shelf(NamedTuple):
    """One state of the catalogue; a reload puts a new one in its place."""

    files: dict[str, Loaded]
    digests: dict[str, bytes]
    """SHA-256 of each file's bytes."""
    workflows: tuple[Workflow, ...]
    names: dict[str, tuple[Workflow, ...]]
    """What may be asked for -> the workflows it can mean."""

    def find(self, graph_id: str) -> Workflow:
        found = self.names.get(graph_id, ())
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousWorkflow(graph_id, [workflow.graph_id for workflow in found])
        known = list(self.names)[:MOST_CLOSE]
        raise UnknownWorkflow(graph_id[:200], get_close_matches(graph_id[:200], known, n=3))


_EMPTY: Final = _Shelf({}, {}, (), {})


class Catalogue:
    """The workflows of `source`: a CSV file, or a folder that is read recursively.

    Nothing is read before `load()`. `services` and `functions` are the names the host has registered; `services=None`
    leaves services unchecked.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        registry: Registry,
        config: AgentMapConfig | None = None,
        services: frozenset[str] | None = None,
        functions: frozenset[str] | None = frozenset(),
    ) -> None:
        self.source = Path(source)
        self.registry = registry
        self.config = config or AgentMapConfig()
        self.services = services
        self.functions = functions
        self._shelf = _EMPTY

    def load(self) -> None:
        """Read everything, now. Blocks; call it at construction or in a thread.

        Workflows of files that are unchanged stay the same objects. Raises ConfigError when the source does not exist.
        """
        files: dict[str, Loaded] = {}
        digests: dict[str, bytes] = {}
        for name, found in self._sources():
            data = found if isinstance(found, Diagnostic) else self._bytes(found, name)
            if isinstance(data, Diagnostic):
                files[name] = Loaded(name, diagnostics=(data,))
            else:
                digests[name] = hashlib.sha256(data).digest()
                files[name] = self._unchanged(name, digests[name]) or self._read(data, name)
        self._shelf = _shelf(files, digests)

    @property
    def workflows(self) -> tuple[Workflow, ...]:
        """All workflows, in the order of files and rows; broken ones are among them."""
        return self._shelf.workflows

    @property
    def files(self) -> Mapping[str, tuple[Diagnostic, ...]]:
        """For each file, what is wrong with it and belongs to none of its workflows."""
        return {name: loaded.diagnostics for name, loaded in self._shelf.files.items()}

    @property
    def findings(self) -> tuple[Diagnostic, ...]:
        """Every diagnostic, file by file."""
        return tuple(found for loaded in self._shelf.files.values() for found in loaded.findings)

    def find(self, graph_id: str) -> Workflow:
        """The workflow called `Graph`, `file::Graph` or `file/Graph`, broken or not.

        `file` is a path relative to the source, or a bare stem when only one file has it, with or without its suffix.
        Raises UnknownWorkflow, or AmbiguousWorkflow when several files have the name.
        """
        return self.snapshot()(graph_id)

    def snapshot(self) -> Callable[[str], Workflow]:
        """`find` over the workflows as they are now, whatever is loaded later."""
        return self._shelf.find

    def _bytes(self, path: Path, name: str) -> bytes | Diagnostic:
        """A file's content, or the first part of one that is too large: reading it will say so."""
        try:
            with path.open("rb") as file:
                return file.read(self.config.max_csv_bytes + 1)
        except OSError as exc:
            message = f"The file cannot be read: {exc.strerror or type(exc).__name__}"
            return diagnostic("AM-E005", message, file=name)

    def _unchanged(self, name: str, digest: bytes) -> Loaded | None:
        """What was read before, if neither the file nor the prompts it refers to have changed since."""
        before = self._shelf.files.get(name)
        if before is None or self._shelf.digests.get(name) != digest:
            return None
        prompts = Prompts(self.config.prompts_path)
        same = all(prompts.read(reference)[0] == text for reference, text in before.prompts.items())
        return before if same else None

    def _read(self, data: bytes, name: str) -> Loaded:
        return read_workflows(
            data,
            name,
            registry=self.registry,
            config=self.config,
            services=self.services,
            functions=self.functions,
        )

    def _sources(self) -> Iterator[tuple[str, Path | Diagnostic]]:
        """(name, path) of each file in a stable order, and a diagnostic for each that is skipped."""
        if self.source.is_file():
            yield self.source.name, self.source
            return
        if not self.source.is_dir():
            raise ConfigError(
                f"There is no workflow file or folder {str(self.source)!r}; create it, or name another one "
                "(csv_path, csv_file or the first argument)"
            )
        root = self.source.resolve()
        # os.walk follows no links to folders, so a loop of links cannot trap it.
        for folder, folders, names in os.walk(root):
            visible = sorted(name for name in folders if not name.startswith("."))
            folders[:] = [name for name in visible if not Path(folder, name).is_symlink()]
            for linked in visible:
                if Path(folder, linked).is_symlink():
                    name = Path(folder, linked).relative_to(root).as_posix()
                    yield name, diagnostic("AM-E006", f"{name!r} is a link to a folder and was skipped", file=name)
            for file in sorted(names):
                path = Path(folder, file)
                if file.startswith(".") or path.suffix.lower() != ".csv":
                    continue
                name = path.relative_to(root).as_posix()
                if not path.resolve().is_relative_to(root):
                    message = f"{name!r} is a link that leads out of the folder and was skipped"
                    yield name, diagnostic("AM-E006", message, file=name)
                elif path.is_file():
                    yield name, path
                else:
                    yield name, diagnostic("AM-E005", f"{name!r} leads to no file", file=name)


def _shelf(files: dict[str, Loaded], digests: dict[str, bytes]) -> _Shelf:
    files = dict(sorted(files.items()))
    workflows = tuple(workflow for loaded in files.values() for workflow in loaded.workflows)
    by_graph: dict[str, dict[Workflow, None]] = {}
    qualified: dict[str, dict[Workflow, None]] = {}
    short: dict[str, dict[Workflow, None]] = {}
    for workflow in workflows:
        by_graph.setdefault(workflow.name, {})[workflow] = None
        for sign in ("::", "/"):
            for file in (workflow.file, workflow.stem):
                qualified.setdefault(f"{file}{sign}{workflow.name}", {})[workflow] = None
            for path in (workflow.file, stem_of(workflow.file)):
                short.setdefault(f"{path.rpartition('/')[2]}{sign}{workflow.name}", {})[workflow] = None
    # A name that is exact counts before one that only means the same: graph, then full path, then bare file name.
    names = {name: tuple(found) for name, found in (short | qualified | by_graph).items()}
    return _Shelf(files, digests, workflows, names)
