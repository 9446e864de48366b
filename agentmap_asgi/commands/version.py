"""`version`: which version this is."""

from __future__ import annotations

import argparse

from .. import __version__


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments: none."""
    parser.set_defaults(command=_version)


def _version(arguments: argparse.Namespace) -> int:
    print(f"agentmap-asgi {__version__}")
    return 0
