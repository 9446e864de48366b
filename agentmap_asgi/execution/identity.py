"""Execution ids: version 7 UUIDs (RFC 9562), which sort by the time they were made."""

from __future__ import annotations

import os
from collections import deque
from typing import Final

_SIZE: Final = 16
_LEFT: Final[deque[bytes]] = deque()
"""Random bytes of the system that were fetched and not given to anybody; a call of the system for each id costs more
than all the rest of it. `pop` and `extend` of a deque are safe in threads."""

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
    # The first digit of the third group carries the version (7), of the next one the variant (two bits, binary 10).
    bits = int.from_bytes(random_bytes()[:10]) & 0x0FFF_3FFF_FFFF_FFFF_FFFF | 0x7000_8000_0000_0000_0000
    digits = f"{now_ns // 1_000_000 << 80 | bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
