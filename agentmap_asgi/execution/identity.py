"""Execution ids: version 7 UUIDs (RFC 9562), which sort by the time they were made."""

from __future__ import annotations

import os


def execution_id(now_ns: int) -> str:
    """A new id: 48 bits of milliseconds since 1970, then 74 random bits."""
    random = os.urandom(10).hex()
    time = f"{now_ns // 1_000_000:012x}"
    # The first digit of a group carries the version (7), of the next one the variant (two bits, binary 10).
    return f"{time[:8]}-{time[8:]}-7{random[:3]}-{'89ab'[ord(random[3]) & 3]}{random[4:7]}-{random[7:19]}"
