"""`scaffold`: begins the agents that a workflow file names and nobody has."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .source import quiet


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a workflow file, or a folder of them")
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings; AGENTMAP_* variables win over it")
    parser.add_argument("--into", metavar="FOLDER", help="where agents are written (custom_agents_path, or agents)")
    parser.add_argument("--tests", metavar="FOLDER", default="tests", help="where tests are written (%(default)s)")
    parser.set_defaults(command=_scaffold)


def _scaffold(arguments: argparse.Namespace) -> int:
    from ..agents.scaffold import agent_code, test_code, unknown_types
    from ..config import AgentMapConfig
    from ..services.agentmap import AgentMapService

    config = AgentMapConfig.from_env(file=arguments.config)
    into = Path(arguments.into or config.custom_agents_path or "agents")
    tests = Path(arguments.tests)
    if not Path(arguments.file).exists():
        print(f"There is no file {arguments.file}", file=sys.stderr)
        return 2
    with quiet():
        service = AgentMapService(config, source=arguments.file)
    wanted = unknown_types(service.catalogue.workflows, service.registry)
    if not wanted:
        print("Every agent type of the file is known; there is nothing to write")
        return 0
    left = 0
    for one in wanted:
        print(f"{one.type} ({', '.join(f'{node.graph}/{node.name}' for node in one.nodes[:3])})")
        folder = os.path.relpath(into, tests)
        code = {into / f"{one.stem}.py": agent_code(one), tests / f"test_{one.stem}.py": test_code(one, folder)}
        for path, text in code.items():
            left += not _written(path, text)
    if config.custom_agents_path is None or Path(config.custom_agents_path).resolve() != into.resolve():
        print(f'Then serve with custom_agents_path = "{into}" (AGENTMAP_CUSTOM_AGENTS_PATH)')
    return 1 if left else 0


def _written(path: Path, text: str) -> bool:
    """Write a new file that only its owner may change, as the loader of agents wants it; a file that exists stays."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print(f"  {path} exists already and stays as it is")
        return False
    path.chmod(0o644)
    print(f"  {path}")
    return True
