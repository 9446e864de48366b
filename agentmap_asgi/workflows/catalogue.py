"""All workflows of a file or a folder, by name."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..agents.registry import Registry
from ..config import AgentMapConfig
from ..errors import AmbiguousWorkflow, ConfigError, UnknownWorkflow
from .codes import diagnostic
from .diagnostics import Diagnostic
from .loader import Loaded, read_workflows
from .model import Workflow
from .prompts import Prompts
from .rows import stem_of
from .sheet import SUFFIXES
from .source import rows_of

MOST_CLOSE: Final = 500
"""Names compared for "did you mean"."""
READ: Final = frozenset({".csv", *SUFFIXES})
"""What workflow files are called."""
SETTLE: Final = 0.15
"""Seconds between two looks at a file that has changed. Only what is the same in both is taken."""


class Changes(NamedTuple):
    """What a reload did, by graph id."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    stale: tuple[str, ...] = ()
    """Those that are served as they were before, because what the files say now has errors."""
    pending: tuple[str, ...] = ()
    """Files that were being written; a later reload takes them."""
    diagnostics: tuple[Diagnostic, ...] = ()
    """Every error there is now."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        lists = {name: list(value) for name, value in self._asdict().items() if isinstance(value, tuple)}
        return {**lists, "unchanged": self.unchanged, "diagnostics": [found.to_dict() for found in self.diagnostics]}


class _Read(NamedTuple):
    """What one reading of a file gave. A later look that finds nothing else gives the same object."""

    loaded: Loaded
    digest: bytes | None = None
    """SHA-256 of its bytes; None when it could not be read."""
    ended: bool = True
    """The last line is complete."""


class _Served(NamedTuple):
    """What is served of a file."""

    workflows: tuple[Workflow, ...] = ()
    news: Mapping[Workflow, tuple[Diagnostic, ...]] = {}
    """What the file says now of workflows that are served as they were before."""


class _Shelf(NamedTuple):
    """One state of the catalogue; a reload puts a new one in its place."""

    reads: dict[str, _Read]
    served: dict[str, _Served]
    workflows: tuple[Workflow, ...]
    members: frozenset[Workflow]
    names: dict[str, tuple[Workflow, ...]]
    """What may be asked for -> the workflows it can mean."""

    def find(self, graph_id: str) -> Workflow:
        found = self.names.get(graph_id, ())
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousWorkflow(graph_id, [workflow.graph_id for workflow in found])
        from difflib import get_close_matches  # which few need

        known = list(self.names)[:MOST_CLOSE]
        raise UnknownWorkflow(graph_id[:200], get_close_matches(graph_id[:200], known, n=3))


_EMPTY: Final = _Shelf({}, {}, (), frozenset(), {})
_NOTHING: Final = _Served()


class Catalogue:
    """The workflows of `source`: a CSV file, a spreadsheet, or a folder that is read recursively.

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
        self._reloading = threading.Lock()

    def load(self) -> None:
        """Read everything, now. Blocks; call it at construction or in a thread.

        Raises ConfigError when the source does not exist.
        """
        self._put(self._look(self._shelf.reads))

    def reload(self, settle: float = SETTLE) -> Changes:
        """Read what has changed, and swap workflow by workflow. Blocks, for a few times `settle` if there are changes.

        A workflow whose new version has errors is served as it was before, and so is one whose nodes say the same as
        before: it stays the same object. A file that has errors as a whole takes no workflow away. A file that is being
        written is left for the next time: it must be the same in two looks, and in a third one when its last line is
        not complete. Raises nothing for what the files hold, nor when they are gone.
        """
        with self._reloading:
            before = self._shelf.reads
            reads = self._look_again(before)
            names = [name for name in {**before, **reads} if reads.get(name) is not before.get(name)]
            pending: set[str] = set()
            for pause in (settle, 2 * settle):
                if not names:
                    break
                time.sleep(pause)
                later = self._look_again(reads)
                pending.update(name for name in {**reads, **later} if later.get(name) is not reads.get(name))
                reads = later
                names = [name for name in names if name in reads and not reads[name].ended]
            for name in pending:
                if name in before:
                    reads[name] = before[name]
                else:
                    reads.pop(name, None)
            return self._put(reads)._replace(pending=tuple(sorted(pending)))

    def marks(self) -> dict[str, tuple[int, ...]]:
        """The size and times of every file, of the prompts too: equal while nothing changes. Opens no file. Blocks."""
        found: dict[str, tuple[int, ...]] = {}
        try:
            paths = {name: path for name, path in self._sources() if isinstance(path, Path)}
        except ConfigError:
            return found
        for folder, _, names in os.walk(self.config.prompts_path or os.devnull):
            paths.update((path, Path(path)) for path in (os.path.join(folder, name) for name in names))
        for name, path in paths.items():
            try:
                status = path.stat()
            except OSError:
                continue
            found[name] = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        return found

    @property
    def workflows(self) -> tuple[Workflow, ...]:
        """All workflows, in the order of files and rows; broken ones are among them."""
        return self._shelf.workflows

    @property
    def files(self) -> Mapping[str, tuple[Diagnostic, ...]]:
        """For each file, what is wrong with it and belongs to none of its workflows."""
        return {name: read.loaded.diagnostics for name, read in self._shelf.reads.items()}

    @property
    def findings(self) -> tuple[Diagnostic, ...]:
        """Every diagnostic of the files as they are now, file by file."""
        return tuple(found for read in self._shelf.reads.values() for found in read.loaded.findings)

    def diagnostics(self, workflow: Workflow) -> tuple[Diagnostic, ...]:
        """What the file says now of a workflow, which may be a newer version than the one that is served."""
        served = self._shelf.served.get(workflow.file, _NOTHING)
        return served.news.get(workflow, workflow.diagnostics)

    def stale(self, workflow: Workflow) -> bool:
        """Whether a workflow is served as it was before, because what its file says now has errors."""
        return not workflow.broken and _wrong(self.diagnostics(workflow))

    def rows(self, workflow: Workflow) -> dict[str, Any]:
        """The workflow's rows in its file as it is now, and whether that has `changed` since it was read. Blocks."""
        name = workflow.file
        path = next((found for held, found in self._sources() if held == name and isinstance(found, Path)), None)
        data = None if path is None else self._bytes(path, name)
        content = data if isinstance(data, bytes) else None
        read = self._shelf.reads.get(name)
        known = read is not None and content is not None and read.digest == hashlib.sha256(content).digest()
        found = rows_of(
            content,
            workflow,
            self.diagnostics(workflow),
            max_bytes=self.config.max_csv_bytes,
            max_rows=self.config.max_csv_rows,
            only=self.config.sheet,
        )
        return {**found, "changed": not known}

    def has(self, workflow: Workflow) -> bool:
        """Whether there is still a workflow of this id, in this or another version."""
        return f"{workflow.stem}::{workflow.name}" in self._shelf.names

    def serves(self, workflow: Workflow) -> bool:
        """Whether this version of a workflow is the one that new executions get."""
        return workflow in self._shelf.members

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

    def _look(self, known: Mapping[str, _Read]) -> dict[str, _Read]:
        """Read all files. Those that are as in `known` are the same objects."""
        reads: dict[str, _Read] = {}
        for name, found in self._sources():
            data = found if isinstance(found, Diagnostic) else self._bytes(found, name)
            before = known.get(name)
            if isinstance(data, Diagnostic):
                reads[name] = self._unread(data, before)
                continue
            digest = hashlib.sha256(data).digest()
            if before is not None and before.digest == digest and self._same_prompts(before):
                reads[name] = before
            else:
                ended = data.rstrip(b"\0")[-1:] in (b"\n", b"\r")
                reads[name] = _Read(self.read(data, name), digest, ended)
        return dict(sorted(reads.items()))

    def _look_again(self, known: Mapping[str, _Read]) -> dict[str, _Read]:
        """As `_look`; a source that is gone altogether takes no workflow away."""
        try:
            return self._look(known)
        except ConfigError:
            gone = {name: diagnostic("AM-E005", "The folder or file is gone", file=name) for name in known}
            return {name: self._unread(found, known[name]) for name, found in gone.items()}

    def _unread(self, problem: Diagnostic, before: _Read | None) -> _Read:
        if before is not None and before.digest is None and before.loaded.diagnostics == (problem,):
            return before
        return _Read(Loaded(problem.file, diagnostics=(problem,)))

    def _same_prompts(self, before: _Read) -> bool:
        """Whether the prompts that a file refers to have the texts they had."""
        prompts = Prompts(self.config.prompts_path)
        return all(prompts.read(reference)[0] == text for reference, text in before.loaded.prompts.items())

    def _put(self, reads: dict[str, _Read]) -> Changes:
        """Serve what was read, from now on."""
        before = self._shelf
        served: dict[str, _Served] = {}
        for name, read in reads.items():
            old = before.served.get(name, _NOTHING)
            served[name] = old if read is before.reads.get(name) else _served(old.workflows, read.loaded)
        self._shelf = shelf = _shelf(reads, served)
        old_ones = {(workflow.file, workflow.name): workflow for workflow in before.workflows}
        new_ones = {(workflow.file, workflow.name): workflow for workflow in shelf.workflows}
        added = tuple(new_ones[key].graph_id for key in new_ones if key not in old_ones)
        changed = tuple(new.graph_id for key, new in new_ones.items() if old_ones.get(key, new) is not new)
        return Changes(
            changed,
            added,
            tuple(old_ones[key].graph_id for key in old_ones if key not in new_ones),
            len(new_ones) - len(added) - len(changed),
            tuple(workflow.graph_id for workflow in shelf.workflows if self.stale(workflow)),
            (),
            tuple(found for found in self.findings if found.severity == "error"),
        )

    def read(self, data: bytes, name: str) -> Loaded:
        """What a file with these bytes would hold; nothing is served of it."""
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
            taken: dict[str, str] = {}
            for file in sorted(names, key=_order):
                path = Path(folder, file)
                if file.startswith((".", "~$")) or path.suffix.lower() not in READ or _holds_cases(path.stem.lower()):
                    continue
                name = path.relative_to(root).as_posix()
                other = taken.setdefault(path.stem, file)
                if other != file:
                    message = f"{file!r} and {other!r} have one name, so {file!r} was skipped"
                    yield name, diagnostic("AM-E011", message, file=name)
                elif not path.resolve().is_relative_to(root):
                    message = f"{name!r} is a link that leads out of the folder and was skipped"
                    yield name, diagnostic("AM-E006", message, file=name)
                elif path.is_file():
                    yield name, path
                else:
                    yield name, diagnostic("AM-E005", f"{name!r} leads to no file", file=name)


def _holds_cases(stem: str) -> bool:
    """Whether a file holds tests of workflows."""
    return stem == "cases" or stem.endswith(".cases")


def _order(file: str) -> tuple[bool, str]:
    """CSV files before spreadsheets of the same name."""
    return not file.lower().endswith(".csv"), file


def _served(old: tuple[Workflow, ...], new: Loaded) -> _Served:
    """What is served of a file after it was read anew, in place of `old`."""
    held = {workflow.name: workflow for workflow in old}
    workflows: list[Workflow] = []
    news: dict[Workflow, tuple[Diagnostic, ...]] = {}
    for workflow in new.workflows:
        known = held.pop(workflow.name, None)
        if known is not None and not known.broken and (workflow.broken or workflow.version == known.version):
            news[known] = workflow.diagnostics
            workflow = known
        workflows.append(workflow)
    whole = tuple(found for found in new.findings if found.graph is None)
    if _wrong(whole):  # who knows what the rest of the file would have said
        for known in held.values():
            workflows.append(known)
            news[known] = whole
    return _Served(tuple(workflows), news)


def _wrong(diagnostics: tuple[Diagnostic, ...]) -> bool:
    return any(found.severity == "error" for found in diagnostics)


def _shelf(reads: dict[str, _Read], served: dict[str, _Served]) -> _Shelf:
    workflows = tuple(workflow for name in reads for workflow in served[name].workflows)
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
    return _Shelf(reads, served, workflows, frozenset(workflows), names)
