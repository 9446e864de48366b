"""`format`: CSV files as one would write them by hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from ..errors import ConfigError
from ..workflows import columns

_OURS: Final = (columns.GRAPH, columns.EDGE, columns.SUCCESS, columns.FAILURE)
"""Columns that workflows have, and hardly another table."""


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "The exit status is 1 when --check finds a file that is not formatted, 2 for one that cannot be read."
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="CSV files, or folders of them; - is standard input")
    parser.add_argument("--check", action="store_true", help="write nothing; name the files that would change")
    parser.set_defaults(command=_format)


def _format(arguments: argparse.Namespace) -> int:
    from ..cases import is_case_file
    from .writing import write

    changed = failed = 0
    for path in _files(arguments.paths):
        if path is not None and is_case_file(path):
            print(f"{path}: left as it is, because it holds cases", file=sys.stderr)
            continue
        data = sys.stdin.buffer.read() if path is None else _read(path)
        new = _formatted(data, str(path or "standard input"), named=path is None or str(path) in arguments.paths)
        if new is None:
            failed += 1
        elif path is None and not arguments.check:
            sys.stdout.buffer.write(new)
        elif new != data:
            changed += 1
            if path is not None and not arguments.check:
                write(path, new)
            print(f"{path or 'standard input'}: {'would be ' * arguments.check}formatted", file=sys.stderr)
    return 2 if failed else 1 if changed and arguments.check else 0


def _files(paths: list[str]) -> list[Path | None]:
    found: list[Path | None] = []
    for text in paths:
        path = Path(text)
        if text == "-":
            found.append(None)
        elif path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() == ".csv" and file.is_file())
        else:
            found.append(path)
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc


def _formatted(data: bytes, name: str, *, named: bool) -> bytes | None:
    """The new bytes; None after a line that says why there are none.

    Of the files of a folder, which are not `named`, those stay that may be tables of something else: their headers are
    not ours to rename.
    """
    from ..agents.builtin import BUILTINS
    from ..workflows.loader import read_workflows
    from ..workflows.package import Unreadable
    from ..workflows.table import read

    try:
        table = read(data)
        if not named and not any(table.layout.cells[column] for column in _OURS):
            why = "because no column is only a workflow's; name it to format it"
            print(f"{name}: left as it is, {why}", file=sys.stderr)
            return data
        new = table.formatted().written()
    except Unreadable as exc:
        print(f"{name}: {exc.message}", file=sys.stderr)
        return None
    before, after = (read_workflows(text, "x.csv", registry=BUILTINS) for text in (data, new))
    if [(w.name, w.version) for w in before.workflows] != [(w.name, w.version) for w in after.workflows]:
        print(f"{name}: left as it is, because its workflows would not be the same", file=sys.stderr)
        return None
    return new
