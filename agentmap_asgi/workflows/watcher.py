"""Noticing that workflow files have changed."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from weakref import WeakMethod

from .catalogue import Catalogue, Changes

logger = logging.getLogger("agentmap_asgi")

POLL: Final = 0.4
"""Seconds between two looks at the files' times; the longest that a change goes unnoticed."""
GROUPED: Final = 100
"""Milliseconds that the operating system's notices of changes are collected for."""


class Watcher:
    """A thread that calls `reload` when files have changed, and again while some are still being written.

    A thread and not a task, because it belongs to no event loop: a service may live on several, one after the other.
    It ends with `close()`, with the process, and when the owner of `reload` is gone.
    """

    def __init__(self, catalogue: Catalogue, reload: Callable[[], Changes]) -> None:
        self._marks = WeakMethod(catalogue.marks)
        self._reload = WeakMethod(reload)
        self._source = catalogue.source
        self._prompts = [] if catalogue.config.prompts_path is None else [Path(catalogue.config.prompts_path)]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentmap-watcher", daemon=True)
        atexit.register(self.close)  # a daemon thread inside foreign code must not meet the end of the interpreter
        self._thread.start()

    def close(self) -> None:
        """End, and wait for it. Blocks, for a second at most when nobody is writing."""
        atexit.unregister(self.close)
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        seen: dict[str, tuple[int, ...]] | None = None
        for _ in self._signs():
            marks, reload = self._marks(), self._reload()
            if marks is None or reload is None or self._closed.is_set():
                break
            now = marks()
            if now != seen:
                try:
                    changes = reload()
                except Exception:  # a subclass, or a failing disk: the next sign tries again
                    logger.exception("Reading the workflow files again failed")
                    changes = None
                seen = None if changes is None or changes.pending else now
            del marks, reload
        atexit.unregister(self.close)

    def _signs(self) -> Iterator[None]:
        """Something may have changed: now, whenever the operating system says so, and every POLL seconds."""
        yield
        try:
            from watchfiles import watch
        except ImportError:
            pass
        else:
            single = self._source.is_file()  # then its folder is watched: editors put a new file in its place
            folders = [self._source.parent if single else self._source, *self._prompts]
            try:
                for _ in watch(
                    *filter(Path.is_dir, folders),
                    watch_filter=None,
                    debounce=GROUPED,
                    rust_timeout=round(POLL * 1000),
                    yield_on_timeout=True,
                    raise_interrupt=False,
                    stop_event=self._closed,
                    recursive=not single,
                ):
                    yield
            except (OSError, RuntimeError):  # no notices to be had, for example as many watches as the system allows
                logger.debug("Workflow files are looked at every %g s", POLL, exc_info=True)
        while not self._closed.wait(POLL):
            yield
