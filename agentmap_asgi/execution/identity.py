"""Execution ids: version 7 UUIDs (RFC 9562), which sort by the time they were made."""

from __future__ import annotations

import os
from collections import deque
from typing import Final

_SIZE: Final = 16
_LEFT: Final[deque[bytes]] = deque()
"""Random bytes of the system that were fetched and not given to anybody; a call of the system for each id costs more
than all the rest of it. `pop` and `extend` of a deque are safe in threads."""

_VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""The digit that carries the variant, for a random one."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LEFT.clear)  # or the child would give what its parent gives


def random_bytes() -> bytes:
    """16 bytes that nobody can foresee, for ids."""
    try:
        return _LEFT.pop()
    except IndexError:
        page = os.urandom(256 * _SIZE)
        _LEFT.extend(page[at : at + _SIZE] for at in range(_SIZE, len(page), _SIZE))
        return page[:_SIZE]


def execution_id(now_ns: int) -> str:
    """A new id: 48 bits of milliseconds since 1970, then 74 random bits."""
    time, rest = "%012x" % (now_ns // 1_000_000), random_bytes().hex()  # an f-string takes longer
    # The third group begins with the version (7), the next one with the variant (two bits, binary 10).
    return f"{time[:8]}-{time[8:]}-7{rest[:3]}-{_VARIANT[rest[3]]}{rest[4:7]}-{rest[7:19]}"
