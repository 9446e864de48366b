"""`run`: one workflow, in this process."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any

from .source import add_graph, add_source, service_of


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = "The exit status is 0 when the execution completed, 1 when it failed, 2 when it could not begin."
    add_source(parser)
    add_graph(parser)
    parser.add_argument(
        "-i", "--input", action="append", default=[], metavar="NAME=TEXT", help="one field; may be repeated"
    )
    parser.add_argument("--json", metavar="OBJECT", help="the initial state as JSON; - reads it from standard input")
    parser.set_defaults(command=_run)


def _run(arguments: argparse.Namespace) -> int:
    state = _state(arguments)
    if state is None:
        return 2
    service = service_of(arguments, patrol_seconds=0.0)  # it runs this, and nothing that others have left

    async def run() -> dict[str, Any]:
        try:
            return await service.execute_workflow(arguments.graph, state)
        finally:
            await service.aclose()

    document = asyncio.run(run())
    print(json.dumps(document, ensure_ascii=False, indent=2))
    if document["status"] == "suspended":
        nodes = ", ".join(wait["node"] for wait in document["waiting"])
        missing = all(wait["type"] == "input" for wait in document["waiting"])
        how = f"{'give what it asks for with --input, or ' * missing}serve the workflow and answer it there"
        print(f"The run waits for an answer at {nodes}; {how}", file=sys.stderr)
    return 0 if document["success"] else 1


def _state(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The initial state that the arguments describe; None after an error was printed."""
    text = sys.stdin.read() if arguments.json == "-" else arguments.json
    try:
        state = json.loads(text) if text else {}
    except ValueError as exc:
        print(f"--json is not JSON: {exc}", file=sys.stderr)
        return None
    if not isinstance(state, dict):
        print('--json takes an object, like {"name": "Ada"}', file=sys.stderr)
        return None
    for pair in arguments.input:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            print(f"--input takes NAME=TEXT, not {pair!r}", file=sys.stderr)
            return None
        state[name] = value
    return state
