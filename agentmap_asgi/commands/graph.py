"""`graph`: a workflow as a drawing."""

from __future__ import annotations

import argparse
import json

from .source import add_graph, add_source, service_of


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    add_source(parser)
    add_graph(parser)
    parser.add_argument("--format", choices=("mermaid", "dot", "json", "svg"), default="mermaid", help="(%(default)s)")
    parser.set_defaults(command=_draw)


def _draw(arguments: argparse.Namespace) -> int:
    drawing = service_of(arguments).draw_workflow(arguments.graph, arguments.format)
    text = drawing if isinstance(drawing, str) else json.dumps(drawing, ensure_ascii=False, indent=2)
    print(text.rstrip("\n"))
    return 0
