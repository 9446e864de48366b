"""Agents from a folder: its Python files become modules of a package of their own; `sys.path` stays as it is."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import os
import stat
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ..errors import ConfigError
from .registry import Agent, as_agent, fold

logger = logging.getLogger("agentmap_asgi")

OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def load_agents(folder: str | Path, taken: Iterable[str] = ()) -> dict[str, Agent]:
    """Import the `*.py` files of a folder, and give the agents that are defined there by name.

    These are functions and classes marked with `@agent`, and classes with `process` whose name ends in Agent. Files
    that start with `_` are for the others to import: `from ._shared import ...`. Each call imports anew.
    Raises ConfigError, with file and line, for what cannot be imported, is no agent, or has a name that is `taken` or
    given twice; and for a folder or file that others may write.
    """
    owners: dict[str, Any] = {fold(name): None for name in taken}
    agents: dict[str, Agent] = {}
    for source, module in imported(folder, "custom_agents_path", "agents"):
        for name, thing in _marked(module):
            if (other := owners.setdefault(fold(name), thing)) is not thing:
                first = "in the context object" if other is None else f"at {place_of(other)}"
                raise ConfigError(f"The agent {name!r} is given twice: {first}, and at {place_of(thing)}")
            agents[name] = _agent(name, thing, source)
    return agents


def imported(folder: str | Path, setting: str, kind: str) -> Iterator[tuple[Path, ModuleType]]:
    """Each file of a folder that a setting names, and its module; files that start with `_` are for the others.

    Raises ConfigError as `load_agents` does.
    """
    path = Path(folder).resolve()
    if not path.is_dir():
        raise ConfigError(f"{setting}: {folder} is not a folder")
    sources = sorted(path.glob("*.py"))
    for one in (path, *sources, path / "__pycache__"):
        _refuse_if_others_write(one)
    with _package(path, kind) as package:
        for source in sources:
            if not source.name.startswith("_"):
                yield source, _imported(package, source)


def _refuse_if_others_write(place: Path) -> None:
    """Whoever can write here decides what this process runs."""
    if os.name == "posix" and place.exists() and place.stat().st_mode & OTHERS_WRITE:
        raise ConfigError(f"{place} can be written by others than its owner, so it is not run: chmod go-w {place}")


@contextmanager
def _package(path: Path, kind: str) -> Iterator[str]:
    """The name of an empty package for a folder. What an earlier load left stays when this one fails."""
    name = f"agentmap_{kind}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    earlier = _taken_out(name)
    package = ModuleType(name, f"Agents of {path}")
    package.__path__ = [str(path)]
    sys.modules[name] = package
    importlib.invalidate_caches()
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder is the host's
    try:
        yield name
    except BaseException:
        _taken_out(name)
        sys.modules.update(earlier)
        raise
    finally:
        sys.dont_write_bytecode = before


def _taken_out(package: str) -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}


def _imported(package: str, source: Path) -> ModuleType:
    if not source.stem.isidentifier():
        raise ConfigError(f"{source}: the name of a file with agents has only letters, digits and _")
    try:
        return importlib.import_module(f"{package}.{source.stem}")
    except (Exception, SystemExit) as exc:  # the host's code, whatever it raises
        raise ConfigError(f"{_raised_at(exc, source)}: {_said(exc, source)}") from exc


def _raised_at(error: BaseException, source: Path) -> str:
    """File and line in the folder where something went wrong."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        frames.append((error.filename, error.lineno))
    own = [(file, line) for file, line in frames if Path(file).parent == source.parent]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else str(source)


def _said(error: BaseException, source: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name and (source.parent / f"{error.name}.py").exists():
        hint = f"; a file of this folder is imported as `from .{error.name} import ...`"
    return f"{type(error).__name__}: {error}{hint}"


def _marked(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Names and things that a module defines as agents."""
    seen: list[Any] = []
    for thing in vars(module).values():
        if getattr(thing, "__module__", None) != module.__name__ or any(thing is other for other in seen):
            continue
        mark = getattr(thing, "__dict__", {}).get("__agentmap__")
        if mark is not None:
            seen.append(thing)
            yield mark["name"] or thing.__name__, thing
        elif _is_agent_class(thing):
            seen.append(thing)
            yield thing.__name__.removesuffix("Agent") or thing.__name__, thing
    if not seen:
        logger.warning(
            "%s has no agents: mark them with @agent, or let its name begin with _ when others import it",
            module.__file__,
        )


def _is_agent_class(thing: Any) -> bool:
    return (
        isinstance(thing, type)
        and thing.__name__.endswith("Agent")
        and not thing.__name__.startswith("_")
        and callable(getattr(thing, "process", None))
        and not inspect.isabstract(thing)
    )


def _agent(name: str, thing: Any, source: Path) -> Agent:
    try:
        return as_agent(name, thing)
    except ConfigError as exc:
        raise ConfigError(f"{place_of(thing)}: {exc.message}") from exc
    except Exception as exc:  # a class of the host's, made once
        raise ConfigError(f"{_raised_at(exc, source)}: {_said(exc, source)}") from exc


def place_of(thing: Any) -> str:
    """File and line where a function or class stands."""
    file = sys.modules[thing.__module__].__file__
    try:
        return f"{file}, line {inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):  # made by code, not written down
        return str(file)
