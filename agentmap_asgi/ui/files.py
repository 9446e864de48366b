"""The files of the page, as they lie beside this one: HTML, CSS and ES modules, served as they are."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from typing import Final, NamedTuple

KINDS: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}


class File(NamedTuple):
    body: bytes
    kind: bytes
    """Its content type."""
    tag: str
    """Its ETag."""


@lru_cache(maxsize=1)
def files() -> dict[str, File]:
    """All of them, by name. Blocks the first time."""
    found = {}
    for path in resources.files(__package__).joinpath("static").iterdir():
        kind = KINDS.get("." + path.name.rpartition(".")[2])
        if kind is not None:
            body = path.read_bytes()
            found[path.name] = File(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found
