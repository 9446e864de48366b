"""`keys new`: an API key."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    new = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("new", help="make one and print it, once")
    new.add_argument("--name", required=True, help="who has it; known to the runs as the principal")
    new.add_argument("--scopes", default="run,read", help="some of run, read, probe, admin (%(default)s)")
    new.add_argument("--expires", metavar="TIME", help="how long it is valid, like 90d, 12h or 30m (for ever)")
    new.set_defaults(command=_new_key)


def _new_key(arguments: argparse.Namespace) -> int:
    """The line for the settings goes to standard output, so that it can be appended to a file, and the key does not."""
    from ..http.keys import expiry, new_key

    expires = expiry(arguments.expires, datetime.now(UTC)) if arguments.expires else None
    secret, key = new_key(arguments.name, arguments.scopes.replace(",", " ").split(), expires)
    print(f"The key, which is shown this once: {secret}", file=sys.stderr)
    print("The line that stands for it in api_keys or AGENTMAP_API_KEYS:", file=sys.stderr, flush=True)
    print(key.line)
    return 0
