"""`check`: everything that is wrong with workflow files."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .source import add_source, service_of

if TYPE_CHECKING:
    from ..workflows.diagnostics import Diagnostic


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "The exit status is 0 without errors (there may be things to note), 1 with errors, "
        "2 when the files could not be read."
    )
    add_source(parser, optional=True)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(command=_check)


def _check(arguments: argparse.Namespace) -> int:
    from ..workflows.paths import check_paths

    service = service_of(arguments)
    catalogue = service.catalogue
    further = [one for workflow in catalogue.workflows for one in check_paths(workflow, service.registry)]
    found = sorted([*catalogue.findings, *further], key=_place)
    for diagnostic in found:
        print(json.dumps(diagnostic.to_dict(), ensure_ascii=False) if arguments.json else diagnostic)
    errors = sum(diagnostic.severity == "error" for diagnostic in found)
    if not arguments.json:
        files = f"{len(catalogue.files)} file{'s' * (len(catalogue.files) != 1)}"
        workflows = f"{len(catalogue.workflows)} workflow{'s' * (len(catalogue.workflows) != 1)}"
        print(f"{workflows} in {files}: {errors} error{'s' * (errors != 1)}, {len(found) - errors} to note")
    return 1 if errors else 0


def _place(diagnostic: Diagnostic) -> tuple[str, int]:
    return diagnostic.file, diagnostic.row or 0
