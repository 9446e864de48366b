"""`convert`: a CSV file to an Excel workbook, or a spreadsheet to a CSV file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ConfigError
from .source import add_sheet


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help="a CSV file, or a spreadsheet (.xlsx, .ods)")
    parser.add_argument("target", metavar="TARGET", help="the file to write: .xlsx or .csv")
    add_sheet(parser)
    parser.add_argument("--delimiter", default=",", choices=(",", ";", "\t", "|"), help="of a CSV file (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.set_defaults(command=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from ..workflows import converting
    from ..workflows.package import Unreadable
    from ..workflows.sheet import SIGNATURE
    from ..workflows.table import read
    from .writing import write

    source, target = Path(arguments.source), Path(arguments.target)
    if target.suffix.lower() not in (".csv", ".xlsx"):
        raise ConfigError(f"{target} is neither .csv nor .xlsx")
    if target.exists() and not arguments.force:
        raise ConfigError(f"{target} is there already; --force replaces it")
    try:
        data = source.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{source} cannot be read: {exc.strerror}") from exc
    try:
        if data.startswith(SIGNATURE):
            grid = converting.only_sheet(data, arguments.sheet)
            rows, title = list(grid.rows()), grid.name
            formulas = next((note for note in grid.notes if note.code == "AM-V006"), None)
            if formulas is not None:
                print(f"Warning: {formulas.message}", file=sys.stderr)
        else:
            rows, title = [row.cells for row in read(data).rows], source.stem
    except Unreadable as exc:
        raise ConfigError(f"{source}: {exc.message}") from exc
    workbook = target.suffix.lower() == ".xlsx"
    new = converting.to_workbook(rows, title) if workbook else converting.to_csv(rows, arguments.delimiter)
    write(target, new)
    print(f"{target}: {len(rows)} row{'s' * (len(rows) != 1)}")
    return 0
