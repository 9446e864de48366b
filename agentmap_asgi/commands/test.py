"""`test`: the cases of case files, one after the other."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from .source import add_source, quiet


def add(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = "The exit status is 0 when all cases passed, 1 when some did not, 2 when they could not be read."
    add_source(parser)
    parser.add_argument("cases", metavar="CASES", nargs="*", help="case files (all cases files beside the workflows)")
    parser.set_defaults(command=_test)


def _test(arguments: argparse.Namespace) -> int:
    from ..cases import Case, CaseService, is_case_file, read_cases, run_case
    from ..config import AgentMapConfig, secrets_of
    from ..context import AgentMapContext

    source = Path(arguments.source)
    folder = source if source.is_dir() else source.parent
    paths = [Path(text) for text in arguments.cases] or sorted(filter(is_case_file, folder.rglob("*")))
    cases = [case for path in paths for case in read_cases(path)]
    config = AgentMapConfig.from_env(file=arguments.config)
    with quiet():
        service = CaseService(source, config, AgentMapContext(secrets=secrets_of(config)))

    async def run() -> list[tuple[Case, list[str]]]:
        try:
            return [(case, await run_case(service, case)) for case in cases]
        finally:
            await service.aclose()

    with quiet():
        outcomes = asyncio.run(run())
    failed = 0
    for case, wrong in outcomes:
        failed += bool(wrong)
        print(f"{'failed' if wrong else 'passed'}  {case.name}")
        for line in wrong:
            print(f"        {line}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    if not cases:
        print(f"There are no case files (cases.csv, *.cases.csv) in {folder}", file=sys.stderr)
        return 2
    return 1 if failed else 0
