"""Files under configured roots: nothing outside is read or written, and a file is replaced as a whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from ..errors import ConfigError, DataUnusable, NotAllowed, nearest

try:
    import fcntl
except ImportError:  # Windows: one process, and threads are told apart by the lock of the root
    fcntl = None  # type: ignore[assignment]

READ_ONLY: Final = ":ro"
MOST_PARTS: Final = 32
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z0-9+.-]+)*://")


class Found(NamedTuple):
    """A file that was read."""

    data: bytes
    modified: float | None = None
    """Seconds since 1970, where it is known."""


class Space(Protocol):
    """Where the files of one root are. Names are the parts of a checked path."""

    def read(self, parts: Sequence[str], most: int) -> Found | None:
        """None when there is no such file. Raises NotAllowed or DataUnusable."""

    def change(self, parts: Sequence[str], most: int, edit: Callable[[bytes | None], bytes | None]) -> None:
        """Give `edit` what the file holds now and write what it returns; None deletes the file."""


class Root(NamedTuple):
    """One entry of `data_roots`."""

    name: str
    space: Space
    writable: bool = True


class Roots:
    """The roots of one service, by name; the first is meant when a path names none."""

    def __init__(self, entries: Sequence[str], most: int) -> None:
        """Entries are `path`, `name=path` or a URL, with `:ro` at the end for reading only. Raises ConfigError."""
        self.most = most
        self.roots: dict[str, Root] = {}
        for entry in entries:
            root = _root(entry)
            if root.name in self.roots:
                called = repr(root.name) if root.name else "without a name"
                raise ConfigError(f"data_roots has two roots {called}; write name=path")
            self.roots[root.name] = root

    def __bool__(self) -> bool:
        return bool(self.roots)

    def find(self, written: str) -> tuple[Root, tuple[str, ...]]:
        """The root and the parts of a path as a row or a caller wrote it. Raises NotAllowed."""
        name, colon, rest = written.strip().partition(":")
        if colon and _NAME.fullmatch(name):
            root = self.roots.get(name)
            if root is None:
                near = nearest(name, [one for one in self.roots if one])
                hint = f"; did you mean {near!r}?" if near else "; data_roots names the roots there are"
                raise NotAllowed(f"{_shown(written)} is in a root {name!r}, which there is not{hint}")
        else:
            root, rest = next(iter(self.roots.values())), written.strip()
        return root, _parts(rest, written)

    def read(self, written: str) -> Found | None:
        """A file, or None when there is none. Raises NotAllowed or DataUnusable."""
        root, parts = self.find(written)
        with _named(written):
            return root.space.read(parts, self.most)

    def change(self, written: str, edit: Callable[[bytes | None], bytes | None]) -> None:
        """Change a file by a function from what it holds (None: there is none) to what it shall hold."""
        root, parts = self.find(written)
        if not root.writable:
            raise NotAllowed(f"{_shown(written)} is in a root that is for reading only")

        def bounded(before: bytes | None) -> bytes | None:
            after = edit(before)
            if after is not None and len(after) > self.most:
                raise DataUnusable(
                    f"{_shown(written)} would have {len(after)} bytes; data_max_bytes allows {self.most}"
                )
            return after

        with _named(written):
            root.space.change(parts, self.most, bounded)


def _root(entry: str) -> Root:
    text, writable = entry.strip(), True
    if text.endswith(READ_ONLY):
        text, writable = text.removesuffix(READ_ONLY), False
    name, equals, path = text.partition("=")
    if not (equals and _NAME.fullmatch(name)):
        name, path = "", text
    if not path:
        raise ConfigError(f"data_roots has the entry {entry!r}; write a folder, name=folder, or name=URL")
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    return Root(name, Remote(path) if _URL.match(path) else Local(path), writable)


def _parts(path: str, written: str) -> tuple[str, ...]:
    parts = path.split("/")
    wrong = (
        not path
        or any(
            part in ("", ".", "..") or part != part.strip() or len(part.encode("utf-8", "replace")) > 255
            for part in parts
        )
        or any(sign in path for sign in "\\\0:")
        or not path.isprintable()
        or len(parts) > MOST_PARTS
    )
    if wrong:
        raise NotAllowed(
            f"{_shown(written)} is no path in a root: write folder/name, without .. and without a leading /"
        )
    return tuple(parts)


def _shown(written: str) -> str:
    return repr(written if len(written) <= 100 else written[:97] + "...")


@contextmanager
def _named(written: str) -> Iterator[None]:
    """Errors of the operating system without the paths of the machine."""
    try:
        yield
    except OSError as exc:
        raise DataUnusable(f"{_shown(written)} cannot be used: {exc.strerror or type(exc).__name__}") from None


class Local:
    """A folder of this machine.

    A path is resolved first and must stay inside; then it is walked from the folder on without following links, so
    that a link that appears in between is refused too.
    """

    def __init__(self, path: str) -> None:
        if os.open not in os.supports_dir_fd:
            raise ConfigError("Folders in data_roots need Linux or macOS; here a root can be a URL that fsspec knows")
        self._root = Path(path).absolute()

    def read(self, parts: Sequence[str], most: int) -> Found | None:
        with self._folder(parts, make=False) as (folder, name):
            return None if folder is None else _read(folder, name, most)

    def change(self, parts: Sequence[str], most: int, edit: Callable[[bytes | None], bytes | None]) -> None:
        with self._folder(parts, make=True) as (folder, name):
            assert folder is not None  # noqa: S101  # it was made
            if fcntl is not None:
                fcntl.flock(folder, fcntl.LOCK_EX)  # until it is closed; other processes and threads wait
            found = _read(folder, name, most)
            after = edit(None if found is None else found.data)
            if after is None:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            else:
                _replace(folder, name, after)
            os.fsync(folder)

    @contextmanager
    def _folder(self, parts: Sequence[str], *, make: bool) -> Iterator[tuple[int | None, str]]:
        """The open folder that a file is in, and the file's name there."""
        if make:
            self._root.mkdir(parents=True, exist_ok=True)
        root = self._root.resolve()
        target = root.joinpath(*parts).resolve()
        if target == root or not target.is_relative_to(root):
            raise NotAllowed(f"{_shown('/'.join(parts))} is a link that leads out of its root")
        *between, name = target.relative_to(root).parts
        try:
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield None, name
            return
        try:
            for part in between:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=folder)
                try:
                    inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                except FileNotFoundError:
                    os.close(folder)
                    folder = -1
                    yield None, name
                    return
                os.close(folder)
                folder = inner
            yield folder, name
        finally:
            if folder >= 0:
                os.close(folder)


def _read(folder: int, name: str, most: int) -> Found | None:
    try:
        # Without O_NONBLOCK a pipe would be waited for.
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with open(opened, "rb") as file:
        facts = os.fstat(opened)
        if not stat.S_ISREG(facts.st_mode):
            raise NotAllowed(f"{_shown(name)} is no file")
        data = file.read(most + 1) if facts.st_size <= most else None
        if data is None or len(data) > most:
            raise DataUnusable(f"{_shown(name)} has more than the {most} bytes that data_max_bytes allows")
        return Found(data, facts.st_mtime)


def _replace(folder: int, name: str, data: bytes) -> None:
    """Write beside and rename: whoever reads sees the old file or the new one, also after a power failure."""
    mode = None
    with suppress(FileNotFoundError):
        facts = os.lstat(name, dir_fd=folder)
        if not stat.S_ISREG(facts.st_mode):
            raise NotAllowed(f"{_shown(name)} is no file")
        mode = stat.S_IMODE(facts.st_mode)
    beside = f".{name[:60]}.{secrets.token_hex(6)}.tmp"
    opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder)
    try:
        with open(opened, "wb") as file:
            if mode is not None:
                os.fchmod(opened, mode)
            file.write(data)
            file.flush()
            os.fsync(opened)
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise


class Remote:
    """A prefix of a file system that fsspec knows. A file is written by one call; two writers are not kept apart."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._opened: tuple[Any, str] | None = None

    def _at(self, parts: Sequence[str]) -> tuple[Any, str]:
        if self._opened is None:
            try:
                import fsspec
            except ImportError:
                raise ConfigError(
                    "A root of data_roots is a URL, which needs fsspec: pip install 'agentmap-asgi[files]'"
                ) from None
            try:
                self._opened = fsspec.core.url_to_fs(self._url)
            except (ImportError, ValueError) as exc:  # a protocol without its package, or unknown
                raise ConfigError(f"A root of data_roots cannot be opened: {exc}") from None
        system, prefix = self._opened
        return system, "/".join((prefix.rstrip("/"), *parts))

    def read(self, parts: Sequence[str], most: int) -> Found | None:
        system, path = self._at(parts)
        try:
            facts = system.info(path)
            if facts.get("type") != "file":
                raise NotAllowed(f"{_shown('/'.join(parts))} is no file")
            with system.open(path, "rb") as file:
                data = file.read(most + 1)
        except FileNotFoundError:
            return None
        if len(data) > most:
            raise DataUnusable(f"{_shown('/'.join(parts))} has more than the {most} bytes that data_max_bytes allows")
        return Found(data)

    def change(self, parts: Sequence[str], most: int, edit: Callable[[bytes | None], bytes | None]) -> None:
        system, path = self._at(parts)
        found = self.read(parts, most)
        after = edit(None if found is None else found.data)
        if after is not None:
            with suppress(NotImplementedError, FileExistsError):
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
            system.pipe_file(path, after)
        elif found is not None:
            system.rm_file(path)
