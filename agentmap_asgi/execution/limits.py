"""How often and how many at once: bounds of nodes, shared by the executions of one event loop under their keys."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from anyio import CapacityLimiter

from .fields import Getter, Position
from .templates import Renderer, Template

T = TypeVar("T")

MOST_KEYS: Final = 1_000
"""Keys of rates after which those that are over are forgotten."""
_RATE: Final = re.compile(r"\s*([1-9]\d{0,8})\s*/\s*([1-9]\d{0,5})?\s*(ms|s|m|h|d)[a-z]*\s*", re.I)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
WORDS: Final = frozenset(
    {"ms", "s", "sec", "second", "seconds", "m", "min", "minute", "minutes", "h", "hour", "hours", "d", "day", "days"}
)


class Rate(NamedTuple):
    """So many beginnings in so many seconds."""

    times: int
    seconds: float


def rate_of(value: Any) -> Rate | None:
    """`10/s`, `100/minute`, `5/10s`; None for what is no rate."""
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None or value.rpartition("/")[2].strip().lstrip("0123456789").strip().lower() not in WORDS:
        return None
    return Rate(int(found[1]), int(found[2] or 1) * _SECONDS[found[3].lower()])


class Bound(NamedTuple):
    """An option `concurrency` or `rate`: the number, and the key that shares it (None: the node's own)."""

    limit: Any
    key: str | None = None


def bound_of(name: str, value: Any) -> Bound | None:
    """An option as `5`, `10/s` or `{"limit": …, "key": …}`; None for what is neither."""
    given = value if isinstance(value, dict) else {"limit": value}
    key, limit = given.get("key"), given.get("limit")
    if given.keys() - {"limit", "key"} or not (key is None or (isinstance(key, str) and key.strip())):
        return None
    if name == "rate":
        limit = rate_of(limit)
    elif isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        limit = None
    return None if limit is None else Bound(limit, key)


class Bounds(NamedTuple):
    """The bounds of one node, ready to be used."""

    concurrency: tuple[int, Renderer] | None
    rate: tuple[Rate, Renderer] | None


def bounds_of(
    options: Mapping[str, Any], own: str, find: Callable[[str], Getter], *, items: bool, foreign: Mapping[str, Any]
) -> Bounds | None:
    """The bounds that a row's options mean; None when there are none, as nearly always.

    `own` is the key of the node itself. With `items` (Map_Over) a plain number of `concurrency` is of one execution.
    `foreign` are options of the agent, which may mean something else by these names.
    """
    if "concurrency" not in options and "rate" not in options:
        return None
    found: dict[str, Any] = {}
    for name in ("concurrency", "rate"):
        value = options.get(name)
        bound = None if name in foreign or (items and isinstance(value, int)) else bound_of(name, value)
        if bound is not None:
            key = Template(own.replace("{", "{{").replace("}", "}}") if bound.key is None else bound.key)
            found[name] = (bound.limit, key.compile(find, limit=1_000))
    return Bounds(found.get("concurrency"), found.get("rate")) if found else None


class Limits:
    """What is going on under each key."""

    __slots__ = ("_places", "_rates")

    def __init__(self) -> None:
        self._places: dict[tuple[str, int], list[Any]] = {}
        """(key, limit) -> [limiter, how many hold a place or wait for one]"""
        self._rates: dict[tuple[str, Rate], float] = {}
        """(key, rate) -> when the next one would be due if they came evenly"""

    async def under(
        self, bounds: Bounds, values: dict[str, Any], position: Position, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Do `work` when its turn has come. Who waits longest goes first."""
        if bounds.concurrency is None:
            await self._turn(bounds, values, position)
            return await work()
        most, render = bounds.concurrency
        key = (render(values, position), most)
        entry = self._places.setdefault(key, [CapacityLimiter(most), 0])
        entry[1] += 1
        try:
            borrower = object()  # one task may stand for several
            await entry[0].acquire_on_behalf_of(borrower)
            try:
                await self._turn(bounds, values, position)
                return await work()
            finally:
                entry[0].release_on_behalf_of(borrower)
        finally:
            entry[1] -= 1
            if not entry[1]:
                del self._places[key]

    async def _turn(self, bounds: Bounds, values: dict[str, Any], position: Position) -> None:
        if bounds.rate is None:
            return
        rate, render = bounds.rate
        key = (render(values, position), rate)
        now = asyncio.get_running_loop().time()
        due = max(self._rates.get(key, now), now)
        step = rate.seconds / rate.times
        if len(self._rates) >= MOST_KEYS:
            self._rates = {one: then for one, then in self._rates.items() if then > now}
        self._rates[key] = due + step
        pause = due - (rate.seconds - step) - now  # so many may come at once
        if pause > 0:
            await asyncio.sleep(pause)
