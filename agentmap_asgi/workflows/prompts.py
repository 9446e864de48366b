"""Prompt texts kept in files: `prompt:name` and `file:name`, from the prompts folder and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .text import Problem

PREFIXES: Final = ("prompt:", "file:")
MAX_BYTES: Final = 1024 * 1024
_SUFFIXES: Final = {"prompt:": ("", ".txt", ".md"), "file:": ("",)}


class Prompts:
    """The prompts folder, read once for each name during a load. `found` is what has been read: reference -> text."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder
        self.found: dict[str, str | None] = {}
        self._problems: dict[str, Problem] = {}

    def read(self, reference: str) -> tuple[str | None, Problem | None]:
        """The text that a reference means, or why there is none."""
        if reference not in self.found:
            try:
                self.found[reference] = self._read(reference)
            except (_NotFound, OSError, ValueError) as exc:
                # What the operating system says may hold paths of the server; the name as written is enough.
                why = str(exc) if isinstance(exc, _NotFound) else "the file cannot be read"
                self._problems[reference] = Problem(
                    "AM-V004", f"The prompt {reference!r} is not found: {why}", reference
                )
                self.found[reference] = None
        return self.found[reference], self._problems.get(reference)

    def _read(self, reference: str) -> str:
        if self.folder is None:
            raise _NotFound("no folder is configured (prompts_path)")
        prefix = next(prefix for prefix in PREFIXES if reference.startswith(prefix))
        name = reference.removeprefix(prefix).strip()
        parts = name.split("/")
        if not name or "\\" in name or ":" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise _NotFound("write the name of a file in the prompts folder, without .. and without a leading /")
        root = Path(self.folder).resolve()
        for suffix in _SUFFIXES[prefix]:
            path = root.joinpath(*parts[:-1], parts[-1] + suffix).resolve()
            if not path.is_relative_to(root):
                raise _NotFound("the file is a link that leads out of the prompts folder")
            if path.is_file():
                with path.open("rb") as file:
                    data = file.read(MAX_BYTES + 1)
                if len(data) > MAX_BYTES:
                    raise _NotFound(f"the file has more than {MAX_BYTES} bytes")
                try:
                    return data.decode("utf-8-sig").strip()
                except UnicodeDecodeError:
                    raise _NotFound("the file is not UTF-8") from None
        raise _NotFound("there is no such file in the prompts folder")


class _NotFound(Exception):
    """Why a reference has no text."""
