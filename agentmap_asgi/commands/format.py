"""`format`: CSV files as one would write them by hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ConfigError


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "The exit status is 1 when --check finds a file that is not formatted, 2 for one that cannot be read."
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="CSV files, or folders of them; - is standard input")
    parser.add_argument("--check", action="store_true", help="write nothing; name the files that would change")
    parser.set_defaults(command=_format)


def _format(arguments: argparse.Namespace) -> int:
    changed = failed = 0
    for path in _files(arguments.paths):
        data = sys.stdin.buffer.read() if path is None else _read(path)
        new = _formatted(data, "standard input" if path is None else str(path))
        if new is None:
            failed += 1
        elif path is None and not arguments.check:
            sys.stdout.buffer.write(new)
        elif new != data:
            changed += 1
            if path is not None and not arguments.check:
                path.write_bytes(new)
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


def _formatted(data: bytes, name: str) -> bytes | None:
    """The new bytes; None after a line that says why there are none."""
    from ..agents.builtin import BUILTINS
    from ..workflows.loader import read_workflows
    from ..workflows.package import Unreadable
    from ..workflows.table import read

    try:
        new = read(data).formatted().written()
    except Unreadable as exc:
        print(f"{name}: {exc.message}", file=sys.stderr)
        return None
    before, after = (read_workflows(text, "x.csv", registry=BUILTINS) for text in (data, new))
    if [(w.name, w.version) for w in before.workflows] != [(w.name, w.version) for w in after.workflows]:
        print(f"{name}: left as it is, because its workflows would not be the same", file=sys.stderr)
        return None
    return new
