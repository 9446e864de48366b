"""Execution ids: version 7 UUIDs (RFC 9562), which sort by the time they were made."""

from __future__ import annotations

import os


def execution_id(now_ns: int) -> str:
    """A new id: 48 bits of milliseconds since 1970, then 74 random bits."""
    # The first digit of the third group carries the version (7), of the next one the variant (two bits, binary 10).
    bits = int.from_bytes(os.urandom(10)) & 0x0FFF_3FFF_FFFF_FFFF_FFFF | 0x7000_8000_0000_0000_0000
    digits = f"{now_ns // 1_000_000 << 80 | bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
