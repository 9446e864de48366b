"""The commands `store check`, `store backup`, `store prune` and `store migrate`."""

from __future__ import annotations

import argparse
import importlib
import shlex
from pathlib import Path
from typing import NamedTuple


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

    migrate = below.add_parser("migrate", help="make the tables in PostgreSQL, or bring them up to date")
    migrate.add_argument("--grant", metavar="ROLE", help="let this role use the tables; it need not own anything")
    _file(migrate)
    migrate.set_defaults(command=_migrate)


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store",
        metavar="PLACE",
        help="the file, its sqlite:/// URL, or a postgresql:// URL (the setting storage_url)",
    )
    parser.add_argument("--schema", metavar="NAME", help="the schema in PostgreSQL (the setting storage_schema)")
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings; AGENTMAP_* variables win over it")


class _Tables(NamedTuple):
    """A store in PostgreSQL."""

    url: str
    schema: str


def _place(arguments: argparse.Namespace) -> Path | _Tables:
    from ..config import SERVERS, AgentMapConfig, masked
    from ..errors import ConfigError
    from ..stores.upkeep import place

    config = AgentMapConfig.from_env(file=arguments.config)
    url = arguments.store or config.storage_url
    if not url.startswith(SERVERS):
        return place(url)
    try:
        importlib.import_module("..stores.postgres_upkeep", __package__)
    except ImportError as exc:
        raise ConfigError(f"{masked(url)} needs psycopg ({exc}): pip install 'agentmap-asgi[postgres]'") from exc
    return _Tables(url, arguments.schema or config.storage_schema)


def _check(arguments: argparse.Namespace) -> int:
    found = _place(arguments)
    if isinstance(found, _Tables):
        from ..stores.postgres_upkeep import check as check_tables

        report = check_tables(*found)
    else:
        from ..stores.upkeep import check

        report = check(found)
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
    from ..config import masked
    from ..errors import ConfigError
    from ..stores.upkeep import backup

    found = _place(arguments)
    if isinstance(found, _Tables):
        command = shlex.join(["pg_dump", "--format=custom", f"--schema={found.schema}", f"--file={arguments.target}"])
        raise ConfigError(f"A PostgreSQL store is copied by PostgreSQL's own means: {command} '{masked(found.url)}'")
    size = backup(found, Path(arguments.target))
    print(f"{arguments.target}: {size} bytes")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    found = _place(arguments)
    if isinstance(found, _Tables):
        from ..stores.postgres_upkeep import prune as prune_tables

        count = prune_tables(*found, arguments.days)
    else:
        from ..stores.upkeep import prune

        count = prune(found, arguments.days)
    print(f"{count} executions forgotten")
    return 0


def _migrate(arguments: argparse.Namespace) -> int:
    from ..errors import ConfigError

    found = _place(arguments)
    if not isinstance(found, _Tables):
        raise ConfigError("A store file is brought up to date when it is opened; migrate is for PostgreSQL")
    from ..stores.postgres_upkeep import migrate

    version = migrate(*found, arguments.grant)
    print(f"The tables in the schema {found.schema} have version {version}")
    return 0
