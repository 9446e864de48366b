"""Finding the operation of a request: what is the app's own path, and which row of the table answers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from starlette.routing import compile_path
from starlette.types import Scope

from ..workflows.checks import RESERVED
from .operations import Operation
from .problems import Refusal, not_found

PATH_LIMIT: Final = 8_192


class Routes:
    """The table, ready to be searched: literal paths by a lookup, the others by their patterns in table order."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._literal: dict[str, dict[str, Operation]] = {}
        self._patterns = []
        for row in operations:
            if row.parameters:
                self._patterns.append((compile_path(row.path)[0], row))
            else:
                self._literal.setdefault(row.path, {})[row.method] = row

    def find(self, method: str, path: str) -> tuple[Operation | Refusal, dict[str, str]]:
        """The operation and its path parameters; a Refusal (404, 405) when there is none. `HEAD` finds `GET`."""
        if method == "HEAD":
            method = "GET"
        rows = self._literal.get(path)
        if rows is None and len(path) > 1 and path[-1] == "/":
            path = path.rstrip("/")
            rows = self._literal.get(path)
        if rows is not None:
            return rows.get(method) or WrongMethod(rows), {}
        if len(path) > PATH_LIMIT:
            return not_found(), {}
        others: dict[str, Operation] = {}
        for pattern, row in self._patterns:
            match = pattern.match(path)
            if match is None:
                continue
            found = match.groupdict()
            if found.get("workflow_name") in RESERVED:
                continue
            if row.method == method:
                return row, found
            others.setdefault(row.method, row)
        return WrongMethod(others) if others else not_found(), {}


class WrongMethod(Refusal):
    """405: the path has other operations, `names`."""

    def __init__(self, rows: Mapping[str, Operation]) -> None:
        allow = ", ".join(sorted({*rows, *(["HEAD"] if "GET" in rows else [])}))
        detail = f"Use {allow.replace(', ', ' or ')} here"
        super().__init__(405, "method_not_allowed", detail, headers={"Allow": allow})
        self.names = frozenset(row.name for row in rows.values())


def own_paths(scope: Scope) -> tuple[str, tuple[str, ...]]:
    """The prefix under which clients see the app, and what may be the path below it, the likelier first.

    A server or a router says in `root_path` where the app is. The path may hold the whole of it (ASGI's own rule, and
    Starlette's mounts), the part that routers added (a proxy stripped the rest), or none (older servers). A proxy that
    does not strip, before a server that adds the prefix, gives it twice.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if not root:
        return "", (path,)
    prefix = "/" + root.lstrip("/")  # never `//host`, which links would take for another server
    if (own := below(root, path)) is None:
        outer: str = scope.get("app_root_path", root).rstrip("/")
        inner = root[len(outer) :] if root.startswith(outer) else root
        own = below(inner, path) if inner else None
        return prefix, (path if own is None else own,)
    if "app_root_path" not in scope and (twice := below(root, own)) is not None:
        return prefix, (twice, own)
    return prefix, (own,)


def below(root: str, path: str) -> str | None:
    """What is left of `path` below `root`; None when it lies elsewhere."""
    if path.startswith(root):
        rest = path[len(root) :]
        if not rest or rest[0] == "/":
            return rest or "/"
    return None
