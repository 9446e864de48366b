"""What work has used: counts by name, like `requests`, `input_tokens` and `output_tokens`."""

from __future__ import annotations

from collections.abc import Mapping

Usage = dict[str, int]


def add(usage: Usage, more: Mapping[str, int]) -> None:
    if not isinstance(more, Mapping):
        raise TypeError(f"a usage is an object, not {more!r}")
    for name, count in more.items():
        usage[name] = usage.get(name, 0) + count


def less(usage: Mapping[str, int], known: Mapping[str, int]) -> Usage:
    """What of a usage is not in another."""
    return {name: left for name, count in usage.items() if (left := count - known.get(name, 0))}


def shown(usage: Mapping[str, int]) -> Usage:
    """With `tokens`, the sum of all kinds of them."""
    kinds = [count for name, count in usage.items() if name.endswith("_tokens")]
    return {**usage, "tokens": sum(kinds)} if kinds else dict(usage)
