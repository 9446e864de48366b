"""Imports point down, and heavy packages are imported only where they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "agentmap_asgi"
ROOT = PACKAGE.name

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("config", "context", "databases", "logs", "providers", "scopes", "stores.store"),
    ("workflows", "execution", "agents", "engines.engine"),
    (
        *("stores", "execution.executor", "execution.slots", "execution.restoring", "execution.answering"),
        "execution.runtime",
    ),
    (
        "engines",
        "services.audit",
        "services.estimates",
        "services.inputs",
        "services.instruments",
        "services.metrics",
        "services.versions",
    ),
    (
        *("services.agentmap", "services.executions", "services.starting", "services.watching"),
        *("services.links", "services.migration"),
    ),
    ("http", "ui"),
    ("app", "services.fastapi", "services.mounting", "services.operation_routes"),
    ("", "__main__", "cases", "commands", "pytest_plugin", "testing"),
)
"""Lowest first. A room stands for its modules; a module of its own line (`execution.executor`) goes before its room.

`""` is the public door, `agentmap_asgi/__init__.py`.
"""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "starlette": ("http", "app", "ui", "services.fastapi", "services.mounting", "services.operation_routes"),
    "fastapi": ("services.fastapi", "services.operation_routes"),
    "uvicorn": ("commands",),
    "pydantic": ("http",),
    "sqlite3": ("stores.files", "stores.jobs", "stores.sqlite", "stores.upkeep", "stores.writer"),
    "psycopg": (
        *("stores.postgres", "stores.postgres_jobs", "stores.postgres_keeper", "stores.postgres_link"),
        *("stores.postgres_upkeep", "stores.postgres_writer"),
    ),
    "httpx": ("testing",),
    "httpx2": (),
    "fsspec": (),
    "dbos": ("engines.dbos", "engines.instance"),
    "sqlalchemy": (),
    "networkx": (),
    "prometheus_client": (),
    "watchfiles": (),
    **dict.fromkeys(("anthropic", "google", "httpx2", "openai", "pydantic_ai"), ("agents.models_sdk",)),
}
"""Rooms that may import a package. All others may not, except inside a function those of `LAZY`."""

LAZY = {"fsspec", "httpx2", "networkx", "prometheus_client", "pydantic", "sqlalchemy", "watchfiles"}


class Import(NamedTuple):
    module: str
    """Who imports, without the package's name."""
    target: str
    """What, in full."""
    line: int
    in_function: bool


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Every import, also inside functions and for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    package = module.split(".") if module else []
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [ROOT, *package][: len(package) + 2 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            names = [".".join(base)]
            if base[0] == ROOT:  # `from ..workflows import model` imports a module
                below = [".".join([*base, alias.name]) for alias in node.names]
                names = [name if name[len(ROOT) + 1 :] in MODULES else ".".join(base) for name in below]
        else:
            continue
        for name in dict.fromkeys(names):
            yield Import(module, name, node.lineno, id(node) in inner)


IMPORTS = [found for module, path in MODULES.items() for found in imports_of(module, path)]
INSIDE = [(i, i.target[len(ROOT) + 1 :]) for i in IMPORTS if i.target.split(".")[0] == ROOT]


def within(module: str, room: str) -> bool:
    return module == room or (room != "" and module.startswith(room + "."))


def layer_of(module: str) -> int | None:
    """The layer's number; the longest name that fits decides. None for a bare folder (`services/__init__.py`)."""
    fitting = [(len(room), number) for number, layer in enumerate(LAYERS) for room in layer if within(module, room)]
    return max(fitting)[1] if fitting else None


def test_every_module_has_a_layer() -> None:
    """A new room is written into the table; `__init__.py` files of folders are empty, or have a layer."""
    unknown = [name for name, path in MODULES.items() if layer_of(name) is None and path.read_text(encoding="utf-8")]
    assert unknown == []


def test_imports_point_down() -> None:
    """No module imports from a layer above its own; typing-only imports and imports in functions count."""
    wrong = [
        f"{found.module or '__init__'}:{found.line} imports {target or '__init__'}"
        for found, target in INSIDE
        if (layer_of(target) or 0) > (layer_of(found.module) or 0)
    ]
    assert wrong == []


def test_there_are_no_cycles() -> None:
    """No module comes back to itself through its imports."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found, target in INSIDE:
        graph[found.module].add(target)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("package", ONLY_IN)
def test_packages_are_imported_only_where_they_belong(package: str) -> None:
    """Starlette at the edge, FastAPI in one file, heavy ones inside functions."""
    wrong = [
        f"{found.module or '__init__'}:{found.line}"
        for found in IMPORTS
        if found.target.split(".")[0] == package
        and not any(within(found.module, room) for room in ONLY_IN[package])
        and not (found.in_function and package in LAZY)
    ]
    assert wrong == []


def test_importing_the_package_is_light() -> None:
    """`import agentmap_asgi` brings neither FastAPI nor a server, and nothing that only some need."""
    script = f"import sys, {ROOT}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"dbos", "fastapi", "uvicorn", "httpx", "networkx", "prometheus_client", "watchfiles"}
    assert (heavy | {"pydantic_ai", "openai", "anthropic", "google", "httpx2"}) & set(loaded) == set()


def test_the_walk_sees_what_it_should(tmp_path: Path) -> None:
    """Relative, absolute, typing-only and lazy imports are found, each with its place."""
    source = (
        "from ..workflows import model\nfrom ..errors import ConfigError\nimport agentmap_asgi.app\n"
        "if TYPE_CHECKING:\n    import fastapi\ndef f():\n    from networkx import DiGraph\nfrom . import registry\n"
    )
    path = tmp_path / "new.py"
    path.write_text(source, encoding="utf-8")
    assert [(i.target, i.line, i.in_function) for i in imports_of("agents.new", path)] == [
        ("agentmap_asgi.workflows.model", 1, False),
        ("agentmap_asgi.errors", 2, False),
        ("agentmap_asgi.app", 3, False),
        ("agentmap_asgi.agents.registry", 8, False),
        ("fastapi", 5, False),
        ("networkx", 7, True),
    ]
