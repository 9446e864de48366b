"""Where workflows come from: the arguments that several commands share, and the service they describe."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..services.agentmap import AgentMapService


def add_source(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    what = "a CSV file, or a folder of them" + (" (the setting csv_path)" if optional else "")
    parser.add_argument("source", metavar="SOURCE", nargs="?" if optional else None, help=what)
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings; AGENTMAP_* variables win over it")


def add_sheet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sheet", metavar="NAME", help="read only this sheet of spreadsheets (the setting sheet)")


def add_graph(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", metavar="GRAPH", help="the workflow's name, or file::Name")


def service_of(arguments: argparse.Namespace, **settings: Any) -> AgentMapService:
    """Arguments win over variables, and these over the file; `settings` win over all."""
    from ..config import AgentMapConfig, secrets_of
    from ..context import AgentMapContext
    from ..services.agentmap import AgentMapService

    config = AgentMapConfig.from_env(file=arguments.config)
    if arguments.source is None and config.csv_path is None:
        raise ConfigError("Say where the workflows are: name a file or folder, or set csv_path (AGENTMAP_CSV_PATH)")
    if getattr(arguments, "sheet", None) is not None:
        settings["sheet"] = arguments.sheet
    with quiet():
        context = AgentMapContext(secrets=secrets_of(config))
        return AgentMapService(replace(config, **settings), source=arguments.source, context=context)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the log lines for a host's developers: the commands say the same in their own words."""
    nowhere, logger = logging.NullHandler(), logging.getLogger("agentmap_asgi")
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)
