"""`agents`: which agents rows may name, and what each takes and gives."""

from __future__ import annotations

import argparse
import json
import sys

from .source import quiet


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these, written in any way that rows may")
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings; AGENTMAP_* variables win over it")
    parser.add_argument("--json", action="store_true", help="one JSON array")
    parser.set_defaults(command=_agents)


def _agents(arguments: argparse.Namespace) -> int:
    from ..agents.gathering import described, gathered, lines_of
    from ..config import AgentMapConfig, secrets_of
    from ..context import AgentMapContext

    with quiet():
        config = AgentMapConfig.from_env(file=arguments.config)
        registry = gathered(config, AgentMapContext(secrets=secrets_of(config)))
    found = []
    for name in arguments.names:
        agent = registry.find(name)
        if agent is None:
            near = registry.nearest(name)
            print(f"There is no agent {name!r}" + (f"; did you mean {near!r}?" if near else ""), file=sys.stderr)
            return 2
        found.append(agent)
    if arguments.json:
        print(json.dumps([described(agent) for agent in found or registry], ensure_ascii=False, indent=2))
    else:
        print("\n".join(lines_of(found or registry)).rstrip())
    return 0
