"""`check`: everything that is wrong with workflow files, shown at its cells; `--fix` mends what needs no decision."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .source import add_sheet, add_source, service_of

if TYPE_CHECKING:
    from ..services.agentmap import AgentMapService
    from ..workflows.diagnostics import Diagnostic

FORMATS = ("text", "json", "sarif", "github")


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "The exit status is 0 without errors (there may be things to note), 1 with errors, "
        "2 when the files could not be read."
    )
    add_source(parser, optional=True)
    add_sheet(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text with the rows, one JSON object a line, a SARIF log, or annotations for GitHub (%(default)s)",
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.add_argument("--fix", action="store_true", help="mend in CSV files what needs no decision, then check")
    parser.set_defaults(command=_check)


def _check(arguments: argparse.Namespace) -> int:
    from ..workflows.graph import Effort
    from ..workflows.paths import check_paths
    from ..workflows.reports import FORMATS, Places
    from ..workflows.text import Guess

    service = service_of(arguments)
    if arguments.fix and _fix(service):
        service = service_of(arguments)
    catalogue = service.catalogue
    given, guess = service.declared_inputs, Guess()
    further = [
        one
        for workflow in catalogue.workflows
        for one in check_paths(workflow, service.registry, effort=Effort(guess), given=given(workflow))
    ]
    found = sorted([*catalogue.findings, *further], key=_place)
    places = Places(lambda file: _bytes(service, file), lambda file: _from_here(_path(service, file)))
    for line in FORMATS[arguments.format](found, places):
        print(line)
    errors = sum(diagnostic.severity == "error" for diagnostic in found)
    if arguments.format == "text":
        files = f"{len(catalogue.files)} file{'s' * (len(catalogue.files) != 1)}"
        workflows = f"{len(catalogue.workflows)} workflow{'s' * (len(catalogue.workflows) != 1)}"
        print(f"{workflows} in {files}: {errors} error{'s' * (errors != 1)}, {len(found) - errors} to note")
    return 1 if errors else 0


def _fix(service: AgentMapService) -> bool:
    """Whether any file was changed."""
    from ..workflows.fixing import fixed
    from ..workflows.package import Unreadable
    from .writing import write

    changed = False
    for file in service.catalogue.files:
        path, data = _path(service, file), _bytes(service, file)
        if data is None or path.suffix.lower() != ".csv":
            continue
        try:
            new, count = fixed(data, lambda text, file=file: service.catalogue.read(text, file).findings)  # type: ignore[misc]
        except Unreadable:
            continue  # the check says why
        if new != data:
            write(path, new)
            changed = True
            print(f"{file}: {count} cell{'s' * (count != 1)} mended", file=sys.stderr)
    return changed


def _path(service: AgentMapService, file: str) -> Path:
    source = service.catalogue.source
    return source if source.is_file() else source / file


def _from_here(path: Path) -> str:
    """The path below the current folder when it is there: programs look files up from the root of a repository."""
    whole = Path(os.path.abspath(path))
    return whole.relative_to(Path.cwd()).as_posix() if whole.is_relative_to(Path.cwd()) else path.as_posix()


def _bytes(service: AgentMapService, file: str) -> bytes | None:
    try:
        return _path(service, file).read_bytes()
    except OSError:
        return None


def _place(diagnostic: Diagnostic) -> tuple[str, str, int]:
    return diagnostic.file, diagnostic.sheet or "", diagnostic.row or 0
