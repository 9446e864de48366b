"""The command line: a table of commands, each a module of `commands/` that is imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any, Final, NoReturn

from . import __version__
from .errors import AgentMapError, WorkflowInvalid

COMMANDS: Final = {
    "serve": "serve workflows over HTTP",
    "worker": "run the executions that other processes leave to workers",
    "run": "run one workflow and print its document",
    "check": "report everything that is wrong with workflow files",
    "format": "write CSV files as one would by hand",
    "diff": "show what changed between workflow files, by node and cell",
    "convert": "turn a CSV file into a workbook, or a spreadsheet into a CSV file",
    "test": "run the cases of case files",
    "record": "print executions as cases of a case file",
    "graph": "draw a workflow",
    "agents": "list the agents that rows may name, with their options, inputs and results",
    "scaffold": "begin the agents that a workflow file names and nobody has, with their tests",
    "keys": "make API keys",
    "store": "check, copy and clean up the file that executions are kept in",
    "version": "print the version",
}
"""What there is, and the line that `--help` has of it. The module of the same name in `commands/` has a function `add`
that describes the arguments to a parser, and sets `command` to what does the work and returns the exit status."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, not after the whole usage."""

    module: str | None = None
    """The module that knows this command's arguments, until it was asked."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:]} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is unknown here, where it is known which command has it."""
        if self.module is not None:
            module, self.module = self.module, None
            importlib.import_module(module, __package__).add(self)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"there is no argument {' '.join(unknown)}")
        return found, unknown


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0, or 1 when it found errors, or 2 when it could not begin."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except WorkflowInvalid as exc:
        print(f"The workflow {exc.name!r} has errors and cannot be started:", file=sys.stderr)
        print(*exc.diagnostics, sep="\n", file=sys.stderr)
        return 2
    except AgentMapError as exc:
        print(exc.message, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has read enough, as `head` does; nothing more may be written at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="agentmap-asgi",
        description="Workflows written as CSV rows. Settings come from a file (--config) and AGENTMAP_* variables.",
    )
    parser.add_argument("--version", action="version", version=f"agentmap-asgi {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary).module = f".commands.{name}"
    return parser


if __name__ == "__main__":
    sys.exit(main())
