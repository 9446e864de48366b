"""pytest collects case files where `agentmap_workflows` is set in its configuration; otherwise it does nothing.

Imported by every pytest of an environment that has this package, so it imports nothing but pytest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .cases import Case, CaseService

WORKFLOWS = "agentmap_workflows"
CONTEXT = "agentmap_context"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(WORKFLOWS, "file or folder of the workflows that case files (*.cases.csv) test", default="")
    parser.addini(CONTEXT, "module:name of an AgentMapContext, or of a function that gives one", default="")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    name = file_path.name.lower()
    if not name.endswith(("cases.csv", "cases.xlsx", "cases.ods")) or not parent.config.getini(WORKFLOWS):
        return None
    from .cases import is_case_file

    return CaseFile.from_parent(parent, path=file_path) if is_case_file(file_path) else None


class CaseFile(pytest.File):
    """A case file. Its workflows are loaded once."""

    _service: CaseService | None = None

    def collect(self) -> Iterator[pytest.Item]:
        from .cases import read_cases
        from .errors import ConfigError

        try:
            cases = read_cases(self.path)
        except ConfigError as exc:
            raise self.CollectError(exc.message) from None
        for case in cases:
            yield CaseItem.from_parent(self, name=case.name, case=case)

    @property
    def service(self) -> CaseService:
        if self._service is None:
            from .cases import CaseService

            root = self.config.inipath.parent if self.config.inipath else self.config.rootpath
            self._service = CaseService(root / str(self.config.getini(WORKFLOWS)), context=_context(self.config))
        return self._service


def _context(config: pytest.Config) -> Any:
    named = str(config.getini(CONTEXT))
    if not named:
        return None
    module, _, name = named.partition(":")
    found = getattr(import_module(module), name)
    return found() if callable(found) else found


class CaseFailed(Exception):  # it is no error of ours
    """A case is not as it says."""


class CaseItem(pytest.Item):
    """One case."""

    def __init__(self, *, case: Case, **more: Any) -> None:
        super().__init__(**more)
        self.case = case

    def runtest(self) -> None:
        from .cases import run_case

        file = self.parent
        assert isinstance(file, CaseFile)  # noqa: S101
        service = file.service

        async def run() -> list[str]:
            try:
                return await run_case(service, self.case)
            finally:
                await service.aclose()

        wrong = asyncio.run(run())
        if wrong:
            raise CaseFailed("\n".join(wrong))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, CaseFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self.case.row - 1, f"{self.case.workflow}: {self.name}"
