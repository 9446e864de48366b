"""The commands `store check`, `store backup` and `store prune`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the commands below this one, and their arguments."""
    below = parser.add_subparsers(required=True, metavar="COMMAND")

    check = below.add_parser("check", help="look at every row and every checksum")
    _file(check)
    check.set_defaults(command=_check)

    backup = below.add_parser("backup", help="copy the store, also while it is in use")
    backup.add_argument("target", metavar="TARGET", help="the file to make; it must not be there")
    _file(backup)
    backup.set_defaults(command=_backup)

    prune = below.add_parser("prune", help="forget executions that ended long ago")
    prune.add_argument("--days", type=int, required=True, help="how many days they have ended ago, at least")
    _file(prune)
    prune.set_defaults(command=_prune)


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="FILE", help="the file, or its sqlite:/// URL (the setting storage_url)")
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings; AGENTMAP_* variables win over it")


def _place(arguments: argparse.Namespace) -> Path:
    from ..config import AgentMapConfig
    from ..stores.upkeep import place

    return place(arguments.store or AgentMapConfig.from_env(file=arguments.config).storage_url)


def _check(arguments: argparse.Namespace) -> int:
    from ..stores.upkeep import check

    report = check(_place(arguments))
    for reason in report.reasons:
        print(reason)
    for namespace, statuses in report.counts.items():
        print(f"{namespace}: {', '.join(f'{count} {status}' for status, count in statuses.items())}")
    total = sum(sum(statuses.values()) for statuses in report.counts.values())
    print(
        f"{total} executions, {report.entries} entries, {report.definitions} definitions: "
        f"{len(report.reasons) or 'nothing'} wrong"
    )
    return 1 if report.reasons else 0


def _backup(arguments: argparse.Namespace) -> int:
    from ..stores.upkeep import backup

    size = backup(_place(arguments), Path(arguments.target))
    print(f"{arguments.target}: {size} bytes")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from ..stores.upkeep import prune

    print(f"{prune(_place(arguments), arguments.days)} executions forgotten")
    return 0
