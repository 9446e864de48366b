"""The loggers of this package: one tree, to which the host gives handlers, formats and levels.

There is no handler of ours, not even one that drops everything: a host that has configured nothing still sees warnings,
as Python shows them. The one thing that is ours is that no text from outside can begin a line.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any, Final

LOGGERS: Final = (
    "agentmap_asgi",
    "agentmap_asgi.agents",
    "agentmap_asgi.audit",
    "agentmap_asgi.execution",
    "agentmap_asgi.http",
    "agentmap_asgi.stores",
)
_TRACE: Final = "Traceback (most recent call last):"


class OneLine(logging.Filter):
    """Names and other texts go into a record with their control characters escaped; tracebacks with lines in the
    exception's own text are indented, so that none of them looks like a record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_plain, record.args))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and record.exc_text is None and _has_lines(error):
            record.exc_text = _indented("".join(traceback.format_exception(error)).rstrip("\n"))
        return True


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    if text.startswith(_TRACE):
        return _indented(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _indented(text: str) -> str:
    lines = text.splitlines()  # also at signs that only some readers take for the end of a line
    return "\n".join("    " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)


def _has_lines(error: BaseException | None) -> bool:
    """Whether the text of an exception, or of one it came from, is more than one line."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        try:
            text = str(error)
        except Exception:  # its own __str__ is broken; the traceback says so
            text = ""
        if not text.isprintable():
            return True
        waiting += [error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
    return False


_ONE_LINE: Final = OneLine()
for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_ONE_LINE)
