"""What keeps executions: the protocol that every store follows. `tests/stores/` holds the contract.

A store keeps one `Row` for each execution, its entries (what happened, in order), the definitions that executions began
with, and the requests of one process to another. It knows nothing of running. All texts are JSON.

Methods are called on an event loop; a store may belong to several loops, one after the other. What is given to be
written (`Start`, `Batch`) is evaluated when the store writes it, maybe in a thread of its own and maybe much later, so
it must not change any more; what it raises then is raised to the caller, and harms no other write. Writes of one
execution are committed in the order in which they were given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple, Protocol

GOING = ("queued", "running")
UNFINISHED = (*GOING, "suspended")
FINISHED = ("completed", "failed", "cancelled", "interrupted")
LOST_HEAD = '{"lost": true}'
"""Stands for what a finished execution began with when that is damaged."""
MOST_VERSIONS = 50
"""So many versions of each workflow are kept, the newest."""


@dataclass(slots=True, kw_only=True)
class Row:
    """One execution. Times are nanoseconds since 1970."""

    id: str
    namespace: str
    graph_id: str
    graph_name: str
    definition: str
    """The content hash of the workflow it began with."""
    status: str
    owner: str | None = None
    tags: tuple[str, ...] = ()
    created: int = 0
    started: int | None = None
    ended: int | None = None
    runner: str | None = None
    """Who runs it: the id of a Runner. None while nobody does (suspended or ended)."""
    fence: int = 0
    """Grows with each claim; a write with an older one is refused."""
    attempt: int = 1
    """How many runners have taken it on after a crash, and one."""
    retry_of: str | None = None
    key: str | None = None
    """Digest of who gave which idempotency key; unique in a namespace."""
    key_body: str | None = None
    """Digest of the request that came with the key."""
    sequence: int = 0
    """The number of the last event that is committed."""
    steps: int = 0
    wake: int | None = None
    """When the next of its waits expires."""
    waits: str = "[]"
    """The open waits."""
    head: str = "{}"
    """What it began with: initial state, context, options."""
    document: str | None = None
    """The execution document as it was at the last suspension, or at the end."""


class Entry(NamedTuple):
    """One record of an execution, or of a sub-workflow of it."""

    path: str
    """Which sub-workflow: empty for the execution itself, else `node#visit` steps joined by slashes."""
    sequence: int
    """Its number in its path; rises, but not always by one."""
    text: str


class Lines(NamedTuple):
    """Entries of one path, in their order."""

    path: str
    numbers: Sequence[int]
    texts: Sequence[str]

    def entries(self) -> Iterator[Entry]:
        return map(Entry, repeat(self.path), self.numbers, self.texts)


def lines_of(entries: Iterable[Entry]) -> list[Lines]:
    """The same entries by path."""
    paths: dict[str, tuple[list[int], list[str]]] = {}
    for path, number, text in entries:
        numbers, texts = paths.setdefault(path, ([], []))
        numbers.append(number)
        texts.append(text)
    return [Lines(path, *given) for path, given in paths.items()]


class Start(Protocol):
    """A new execution on its way into a store."""

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    def row(self) -> Row: ...
    def lines(self) -> Iterable[Lines]:
        """The entries it begins with, each path once: a retry has what it keeps of the execution before."""

    def pins(self) -> Mapping[str, str]:
        """Definitions by content hash, for those that the store does not have."""


class Batch(Protocol):
    """What one execution writes at one moment, in one transaction."""

    @property
    def id(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def status(self) -> str | None:
        """The new status, when it changes; it is among the `changes` too."""

    def changes(self) -> Mapping[str, Any]:
        """New values of columns of the Row, among them `document` when there is a new one."""

    def lines(self) -> Iterable[Lines]:
        """New entries, each path once."""

    def pins(self) -> Mapping[str, str]:
        """Definitions of sub-workflows that began, by content hash."""


class Served(Protocol):
    """A version of a workflow that is served from a moment on."""

    @property
    def graph_id(self) -> str: ...
    @property
    def since(self) -> int:
        """Nanoseconds since 1970."""

    @property
    def definition(self) -> str:
        """Its content hash."""

    def text(self) -> str:
        """The definition, for a store that does not have it."""


class Version(NamedTuple):
    """A version of a workflow that was served from a moment on (nanoseconds since 1970)."""

    definition: str
    since: int


class Filter(NamedTuple):
    """Which executions are asked for; the newest first. None means any."""

    graph: str | None = None
    """A graph id or a plain name."""
    statuses: tuple[str, ...] = ()
    owner: str | None = None
    tag: str | None = None
    since: int | None = None
    """Created at or after."""
    until: int | None = None
    """Created before."""
    before: tuple[int, str] | None = None
    """Goes on after this (created, id)."""
    limit: int = 50


def chosen(row: Row, wanted: Filter) -> bool:
    """Whether a filter asks for this row; its `limit` aside."""
    return (
        (wanted.graph is None or wanted.graph in (row.graph_id, row.graph_name))
        and (not wanted.statuses or row.status in wanted.statuses)
        and (wanted.owner is None or row.owner == wanted.owner)
        and (wanted.tag is None or wanted.tag in row.tags)
        and (wanted.since is None or row.created >= wanted.since)
        and (wanted.until is None or row.created < wanted.until)
        and (wanted.before is None or (row.created, row.id) < wanted.before)
    )


class Command(NamedTuple):
    """A request to the process that runs an execution."""

    number: int
    execution: str
    kind: str
    payload: str


class Runner(Protocol):
    """One who runs executions: a process, or one of its event loops. Alive until it is closed or its process ends."""

    @property
    def id(self) -> str: ...
    def close(self) -> None:
        """May be called on any thread, more than once."""


class Bell(Protocol):
    """Wakes whoever waits for what another process does. Made before one looks, so that nothing falls in between."""

    async def rings(self, seconds: float) -> bool:
        """Wait until it rings, at most so long. False when nothing is known to have happened."""

    def close(self) -> None: ...


class Hourglass:
    """The bell of a store that cannot tell: it waits, and never rings."""

    async def rings(self, seconds: float) -> bool:
        await asyncio.sleep(seconds)
        return False

    def close(self) -> None:
        pass


class Store(Protocol):
    """Keeps the executions of one namespace. Raises StoreUnavailable when it cannot write or read just now."""

    durable: bool
    """What is committed is still there after the process has ended."""
    shared: bool
    """Processes on several machines may use it."""
    look: float
    """Seconds after which one had better look by oneself when a bell has not rung."""
    deaths: int
    """How many processes were seen to have died since this one is there. When it grows, the bells of all runners ring;
    always 0 in a store that does not watch them.
    """
    namespace: str

    async def open(self) -> None:
        """Get ready; repeatable. Raises StoreUnusable, with the reason, for a place that cannot hold a store."""

    async def aclose(self) -> None:
        """Write what was given, then let go of everything. May be opened again."""

    def create(self, start: Start) -> Awaitable[Row | None]:
        """Keep a new execution. None when that is done; the row that was there before when its key or id is taken."""

    def append(self, batch: Batch) -> Awaitable[bool]:
        """Write on. False when another runner has claimed the execution since, or it is gone: nothing was written."""

    async def find(self, execution_id: str) -> Row | None: ...
    async def find_key(self, key: str) -> Row | None: ...
    async def entries(self, execution_id: str, *, after: int = 0, path: str | None = "") -> list[Entry]:
        """By path, then by sequence; those with a greater sequence. None: of every path."""

    async def select(self, wanted: Filter) -> list[Row]:
        """Rows without `head` and `document`, by (created, id), the newest first."""

    async def claim(
        self, row: Row, runner: Runner, *, status: str = "running", attempt: int | None = None
    ) -> Row | None:
        """Take an execution on, with a new fence. None unless its status, runner and fence are still those of `row`."""

    async def stranded(self) -> list[Row]:
        """Queued and running executions whose runner lives no more (without `head` and `document`)."""

    async def due(self, now: int) -> list[Row]:
        """Suspended executions whose `wake` has come (without `head` and `document`)."""

    async def pinned(self, definition: str) -> str | None:
        """The definition of a content hash."""

    def note(self, served: Sequence[Served]) -> Awaitable[None]:
        """Keep which versions are served, in this order; one that is the newest of its workflow already is not noted.

        Of each workflow the newest MOST_VERSIONS stay, with their definitions.
        """

    async def versions(self, graph_id: str) -> list[Version]:
        """What was noted of a workflow, the newest first. A version that came back is there twice."""

    async def delete(self, execution_id: str) -> bool:
        """Forget a finished execution. False when there is none, or it is not finished."""

    async def prune(self, before: int, now: int, limit: int = 500) -> int:
        """Forget executions that ended before `before`, and definitions that nothing refers to; how many there were.

        At most `limit` at once, so that other writes are not held up. An execution with a `key` that was created less
        than the idempotency time ago stays: the caller passes a `before` that is early enough.
        """

    async def durations(self, graph_id: str, limit: int = 200) -> Sequence[tuple[str, int, int]]:
        """(definition, started, ended) of the newest completed executions of a workflow."""

    def runner(self) -> Runner:
        """A new runner of this process. Call after `open`."""

    async def ask(self, execution_id: str, kind: str, payload: str) -> int:
        """Leave a request for whoever runs an execution; its number."""

    async def asked(self, runner: Runner) -> list[Command]:
        """Requests, not yet answered, for executions that this runner runs."""

    async def answer(self, number: int, outcome: str) -> None:
        """Answer a request. The first answer counts."""

    async def outcome(self, number: int) -> str | None:
        """The answer to a request, once there is one; it is forgotten then. See `withdraw`."""

    async def withdraw(self, number: int) -> bool:
        """Take a request back. False when it has been answered meanwhile."""

    def bell(self, topic: str) -> Bell:
        """Rings when another process has written something of an execution (the topic is its id), has a request for
        one of a runner's or has died (the runner's id), or has answered a request (its number).
        """

    async def generation(self, *, bump: bool = False) -> int:
        """A number that all processes of a store share, to tell each other that workflow files were read again."""
