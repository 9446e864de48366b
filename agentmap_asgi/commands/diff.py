"""`diff`: what changed between two files or folders, by workflow, node and cell."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..workflows.comparing import WorkflowChange
    from ..workflows.loader import Loaded
    from ..workflows.model import Workflow

    Changes = list[tuple[str | None, WorkflowChange]]

GIT_ARGUMENTS = (1, 7, 9)
"""What git gives an external diff: a path alone when it is not merged, else old and new, and a new name."""


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "The exit status is 0 when no workflow differs, 1 when some do, 2 when something cannot be read. As a driver "
        "of git: git config diff.agentmap.command 'agentmap-asgi diff --git'; *.csv diff=agentmap in .gitattributes."
    )
    parser.add_argument("paths", metavar="OLD NEW", nargs="+", help="CSV files, spreadsheets, or folders of them")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(%(default)s)")
    parser.add_argument("--git", action="store_true", help="take the arguments of an external diff of git")
    parser.set_defaults(command=_diff)


def _diff(arguments: argparse.Namespace) -> int:
    paths = arguments.paths
    if not arguments.git:
        if len(paths) != 2:
            raise ConfigError("diff takes two paths, OLD and NEW (see agentmap-asgi diff --help)")
        changes = _changes(paths[0], paths[1])
        _print(changes, arguments.format)
        return 1 if changes else 0
    if len(paths) not in GIT_ARGUMENTS:
        raise ConfigError("git calls diff --git by itself; see agentmap-asgi diff --help")
    if len(paths) == 1:
        print(f"{paths[0]}: is not merged")
        return 0
    changes = _changes(paths[1], paths[4])
    print(f"agentmap-asgi diff {paths[0]}" + (f" {paths[7]}" if len(paths) == 9 else ""))
    _print(changes, arguments.format)
    if not changes and arguments.format == "text":
        print("  no workflow has changed")
    return 0  # anything else makes git give up


def _print(changes: Changes, form: str) -> None:
    if form == "json":
        told = [{**change.to_dict(), "file": file} for file, change in changes]
        print(json.dumps({"changes": told}, ensure_ascii=False, indent=2))
        return
    for file, change in changes:
        first, *rest = change.lines()
        print("\n".join([first if file is None else f"{first} ({file})", *rest]))


def _changes(old: str, new: str) -> Changes:
    """With the file of each when folders are compared."""
    from ..workflows.comparing import compared

    before, after = _loaded(old), _loaded(new)
    if not Path(old).is_dir() and not Path(new).is_dir():
        return [(None, change) for change in compared(_workflows(before), _workflows(after))]
    found: Changes = []
    for file in sorted({*before, *after}):
        sides = (_workflows({file: side[file]} if file in side else {}) for side in (before, after))
        found += [(file, change) for change in compared(*sides)]
    return found


def _workflows(files: dict[str, Loaded]) -> list[Workflow]:
    return [workflow for loaded in files.values() for workflow in loaded.workflows]


def _loaded(path: str) -> dict[str, Loaded]:
    """What a file or the files of a folder hold, by name. What cannot be read at all is an error."""
    from ..agents.builtin import BUILTINS
    from ..workflows.catalogue import Catalogue
    from ..workflows.loader import read_workflows

    if path == "/dev/null":
        return {}
    if Path(path).is_dir():
        catalogue = Catalogue(path, registry=BUILTINS, functions=None)
        catalogue.load()
        found = {name: catalogue.read((Path(path) / name).read_bytes(), name) for name in catalogue.files}
    else:
        try:
            data = Path(path).read_bytes()
        except OSError as exc:
            raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
        found = {Path(path).name: read_workflows(data, Path(path).name, registry=BUILTINS)}
    for name, loaded in found.items():
        lost = [problem for problem in loaded.findings if problem.severity == "error" and problem.graph is None]
        if lost and not loaded.workflows:
            raise ConfigError(str(lost[0]))
        if loaded.rows.reported:
            count = loaded.rows.reported
            message = f"Warning: {count} row{'s' * (count != 1)} of {name} cannot be compared; see agentmap-asgi check"
            print(message, file=sys.stderr)
    return found
