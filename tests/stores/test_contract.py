"""What every store does. A new store is one more row of STORES."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from postgresql import Server
from writes import FakeBatch, FakeServed, FakeStart, batch, row, start

from agentmap_asgi.stores.postgres import PostgresStore
from agentmap_asgi.stores.sqlite import SQLiteStore
from agentmap_asgi.stores.store import MOST_VERSIONS, UNFINISHED, Entry, Filter, Runner, Store, Version
from agentmap_asgi.stores.transient import TransientStore

pytestmark = pytest.mark.anyio


class Backwards:
    """A codec that anybody can break, and no text survives unchanged."""

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


def sqlite(folder: Path, codec: Backwards | None = None) -> SQLiteStore:
    return SQLiteStore(folder / "data" / "store.db", namespace="tests", source="flows.csv", codec=codec)


def postgresql(server: Server, codec: Backwards | None = None) -> PostgresStore:
    return PostgresStore(server.url(), namespace="tests", schema=server.schema(), source="flows.csv", codec=codec)


STORES: dict[str, Callable[[Path], Store]] = {
    "transient": lambda folder: TransientStore("tests", keep=100),
    "sqlite": sqlite,
    "encoded": lambda folder: sqlite(folder, Backwards()),
}
SERVED: dict[str, Callable[[Server], Store]] = {
    "postgres": postgresql,
    "postgres encoded": lambda server: postgresql(server, Backwards()),
}
"""Those that need a server."""


async def runner_of(store: Store) -> Runner:
    """`open` is what prepares a runner, so that `runner` has nothing to do with files on the event loop."""
    await store.open()
    return store.runner()


@pytest.fixture(params=[*STORES, *SERVED])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    name = request.param
    made = STORES[name](tmp_path) if name in STORES else SERVED[name](request.getfixturevalue("postgres"))
    await made.open()
    yield made
    await made.aclose()


async def test_what_was_created_is_found(store: Store) -> None:
    """All columns come back, by id and by key; the namespace is the store's."""
    full = row(
        "a", owner="ann", tags=("x", "ÿ"), created=5, started=6, ended=7, runner="r", fence=3, attempt=2, retry_of="o",
        key="k", key_body="b", sequence=8, steps=9, wake=10, waits='["w"]', head='{"h": "é"}', document='{"d": 1}',
    )  # fmt: skip
    assert await store.create(FakeStart(full)) is None
    assert await store.find("a") == full
    assert await store.find_key("k") == full
    assert await store.find("b") is None
    assert await store.find_key("l") is None


async def test_an_id_or_a_key_that_is_taken_gives_what_was_there(store: Store) -> None:
    """The first stays as it is."""
    first = row("a", key="k")
    assert await store.create(FakeStart(first)) is None
    assert await store.create(start("a", graph_name="Other")) == first
    assert await store.create(start("b", key="k")) == first
    assert await store.find("b") is None
    assert await store.create(start("b", key="l")) is None


async def test_a_row_that_was_found_is_the_callers_own(store: Store) -> None:
    """Changing it changes nothing in the store."""
    await store.create(start("a"))
    found = await store.find("a")
    assert found is not None
    found.status = "failed"
    assert await store.find("a") == row("a")


async def test_a_batch_changes_columns_and_adds_entries(store: Store) -> None:
    """What it does not name stays as it was."""
    await store.create(start("a", head='{"x": 1}'))
    assert await store.append(batch("a", ("", 1, "one"), ("", 3, "three"), sequence=3, steps=1))
    assert await store.append(batch("a", ("n#1", 1, "inner"), ("", 4, "four"), status="suspended", waits="[1]", wake=9))
    assert await store.append(batch("a", ("n#1/m#2", 1, "innermost"), document='{"d": 2}', tags=("t",)))
    assert await store.find("a") == row(
        "a", head='{"x": 1}', sequence=3, steps=1, status="suspended", waits="[1]", wake=9, document='{"d": 2}',
        tags=("t",),
    )  # fmt: skip
    assert await store.entries("a") == [Entry("", 1, "one"), Entry("", 3, "three"), Entry("", 4, "four")]
    assert await store.entries("a", after=1) == [Entry("", 3, "three"), Entry("", 4, "four")]
    assert await store.entries("a", path="n#1") == [Entry("n#1", 1, "inner")]
    assert [(e.path, e.sequence) for e in await store.entries("a", path=None)] == [
        ("", 1), ("", 3), ("", 4), ("n#1", 1), ("n#1/m#2", 1),
    ]  # fmt: skip
    assert await store.append(batch("a", document=None))
    found = await store.find("a")
    assert found is not None
    assert found.document is None
    assert await store.entries("b") == []


async def test_a_batch_may_change_nothing(store: Store) -> None:
    """It still says whether the writer is the one who may write."""
    await store.create(start("a"))
    assert await store.append(batch("a"))
    assert not await store.append(batch("b"))


async def test_writes_of_an_execution_keep_their_order(store: Store) -> None:
    """Also when nobody waits for one before the next is given."""
    waiting = [store.create(start("a"))]
    writes = [store.append(batch("a", ("", n, str(n)), sequence=n)) for n in range(1, 200)]
    assert [await one for one in waiting] == [None]
    assert all([await one for one in writes])
    found = await store.find("a")
    assert found is not None
    assert found.sequence == 199
    assert [e.sequence for e in await store.entries("a")] == list(range(1, 200))


async def test_a_claim_shuts_the_one_before_out(store: Store) -> None:
    """An older fence writes nothing; the row as it was known can be claimed once."""
    await store.create(start("a", runner="gone", head='{"x": 1}'))
    known = await store.find("a")
    assert known is not None
    runner = store.runner()
    claimed = await store.claim(known, runner, attempt=2)
    assert claimed == row("a", runner=runner.id, fence=2, attempt=2, head='{"x": 1}')
    assert await store.find("a") == claimed
    assert await store.claim(known, runner) is None
    assert not await store.append(batch("a", ("", 1, "late"), sequence=1))
    assert await store.entries("a") == []
    assert await store.append(batch("a", ("", 1, "right"), sequence=1, fence=2))
    assert await store.entries("a") == [Entry("", 1, "right")]
    runner.close()


@pytest.mark.parametrize(("column", "value"), [("status", "failed"), ("runner", "other"), ("fence", 7), ("id", "b")])
async def test_a_claim_needs_the_row_as_it_is(store: Store, column: str, value: Any) -> None:
    """Another status, runner or fence, or none such: nothing is claimed."""
    await store.create(start("a", runner="gone"))
    known = replace(row("a", runner="gone"), **{column: value})
    assert await store.claim(known, store.runner()) is None
    assert await store.find("a") == row("a", runner="gone")


async def test_a_start_may_have_entries(store: Store) -> None:
    """They are there with it, in order, and what is written later follows."""
    begun = FakeStart(row("a", sequence=2), listed=[Entry("", 1, "x"), Entry("", 2, "y"), Entry("G#1", 1, "z")])
    assert await store.create(begun) is None
    assert await store.append(batch("a", ("", 3, "w"), sequence=3))
    assert [(entry.path, entry.text) for entry in await store.entries("a", path=None)] == [
        *(("", text) for text in "xyw"),
        ("G#1", "z"),
    ]
    found = await store.find("a")
    assert found is not None
    assert found.sequence == 3


async def test_of_many_claims_one_wins(store: Store) -> None:
    """All were given the same row."""
    await store.create(start("a", status="suspended", fence=4))
    known = await store.find("a")
    assert known is not None
    runners = [await runner_of(store) for _ in range(20)]
    won = await asyncio.gather(*(store.claim(known, runner, status="queued") for runner in runners))
    winners = [found for found in won if found is not None]
    assert [(found.status, found.fence) for found in winners] == [("queued", 5)]


FAULTS = (ValueError("no"), KeyboardInterrupt(), StopIteration())


@pytest.mark.parametrize(
    ("store", "fault"),
    # In memory a fault is raised to whoever reads: only what is an error is left out.
    [
        (name, fault)
        for name in [*STORES, *SERVED]
        for fault in FAULTS
        if name != "transient" or isinstance(fault, Exception)
    ],
    indirect=["store"],
)
async def test_a_batch_that_cannot_be_read_harms_no_other(store: Store, fault: BaseException) -> None:
    """A durable store says so to who gave it; one in memory reads it later, and leaves it out."""
    await asyncio.gather(*(store.create(start(name)) for name in "abc"))
    bad = FakeBatch("b", {"sequence": 1}, fault=fault)
    given = [store.append(batch("a", ("", 1, "x"))), store.append(bad), store.append(batch("c", ("", 1, "y")))]
    results: list[Any] = await asyncio.gather(*given, return_exceptions=True)
    assert [results[0], results[2]] == [True, True]
    if store.durable:
        assert isinstance(results[1], BaseException)
    for name, entries in (("a", 1), ("b", 0), ("c", 1)):
        assert len(await store.entries(name)) == entries


async def test_a_filter_chooses_rows_the_newest_first(store: Store) -> None:
    """By graph, status, owner, tag and time, in pages; without `head` and `document`."""
    for number in range(8):
        await store.create(
            start(
                f"e{number}", created=number // 2, graph_id=f"f::G{number % 2}", graph_name=f"G{number % 2}",
                status=("running", "completed", "failed", "queued")[number % 4], owner="ann" if number < 4 else None,
                tags=("all", f"t{number}"), head='{"x": 1}', document="{}", waits="[2]",
            )
        )  # fmt: skip

    async def chosen(**wanted: Any) -> str:
        return "".join(found.id[1] for found in await store.select(Filter(**wanted)))

    assert await chosen() == "76543210"
    assert await chosen(graph="f::G1") == await chosen(graph="G1") == "7531"
    assert await chosen(graph="G2") == ""
    assert await chosen(statuses=("failed", "queued")) == "7632"
    assert await chosen(owner="ann") == "3210"
    assert await chosen(tag="t5") == "5"
    assert await chosen(tag="t") == ""
    assert await chosen(since=1, until=3) == "5432"
    assert await chosen(limit=3) == "765"
    assert await chosen(limit=3, before=(2, "e5")) == "432"
    assert await chosen(owner="ann", statuses=UNFINISHED, tag="all", graph="G0") == "0"
    (found,) = await store.select(Filter(tag="t0"))
    assert (found.head, found.document, found.waits, found.tags) == ("{}", None, "[2]", ("all", "t0"))


async def test_executions_of_the_dead_are_stranded(store: Store) -> None:
    """Queued and running ones whose runner was closed, or never was; not suspended or ended ones."""
    living, dying = await runner_of(store), await runner_of(store)
    await store.create(start("a", runner=dying.id))
    await store.create(start("b", runner=dying.id, status="queued"))
    await store.create(start("c", runner=living.id))
    await store.create(start("d", runner=dying.id, status="suspended"))
    await store.create(start("e", runner=dying.id, status="completed"))
    await store.create(start("f", runner="../../etc/passwd", head='{"x": 1}'))
    await store.create(start("g", runner=None))
    assert [found.id for found in await store.stranded()] == ["f", "g"]
    dying.close()
    dying.close()
    found = await store.stranded()
    assert [one.id for one in found] == ["a", "b", "f", "g"]
    assert {one.head for one in found} == {"{}"}
    living.close()
    assert len(await store.stranded()) == 5


async def test_suspended_executions_are_due_in_their_time(store: Store) -> None:
    """The one that has waited longest is the first."""
    await store.create(start("a", status="suspended", wake=20))
    await store.create(start("b", status="suspended", wake=10))
    await store.create(start("c", status="suspended"))
    await store.create(start("d", status="running", wake=5))
    assert [found.id for found in await store.due(9)] == []
    assert [found.id for found in await store.due(10)] == ["b"]
    assert [found.id for found in await store.due(20)] == ["b", "a"]


async def test_definitions_are_kept_while_something_refers_to_them(store: Store) -> None:
    """Those of an execution and of its sub-workflows; two executions may share one."""
    await store.create(start("a", definition="d1", pins={"d1": "one"}))
    await store.create(start("b", definition="d1", pins={"d1": "one"}))
    await store.append(FakeBatch("a", {"status": "completed", "ended": 1}, given={"d2": "two"}))
    await store.append(batch("b", status="completed", ended=5))
    assert [await store.pinned(name) for name in ("d1", "d2", "d3")] == ["one", "two", None]
    assert await store.prune(5, 5) == 1
    assert [await store.pinned(name) for name in ("d1", "d2")] == ["one", None]
    assert await store.prune(6, 6) == 1
    assert await store.pinned("d1") is None


async def test_versions_are_noted_when_they_differ_from_the_newest(store: Store) -> None:
    """In their order; one that comes back is there twice, and no execution is needed for it."""
    await store.note([FakeServed("v1", 1), FakeServed("v1", 2), FakeServed("other", 2, "file::Other")])
    await store.note([FakeServed("v2", 3)])
    await store.note([FakeServed("v2", 4), FakeServed("v1", 5)])
    assert await store.versions("file::Graph") == [Version("v1", 5), Version("v2", 3), Version("v1", 1)]
    assert await store.versions("file::Other") == [Version("other", 2)]
    assert await store.versions("file::Nothing") == []
    assert [await store.pinned(name) for name in ("v1", "v2")] == ["text of v1", "text of v2"]
    await store.prune(10, 10)
    assert await store.pinned("v2") == "text of v2"


async def test_the_newest_versions_are_kept(store: Store) -> None:
    """And the definitions of those only."""
    await store.note([FakeServed(f"v{number}", number) for number in range(MOST_VERSIONS + 3)])
    found = await store.versions("file::Graph")
    assert [found[0], found[-1], len(found)] == [
        Version(f"v{MOST_VERSIONS + 2}", MOST_VERSIONS + 2),
        Version("v3", 3),
        50,
    ]
    await store.prune(10, 10)
    assert await store.pinned("v2") is None
    assert await store.pinned("v3") == "text of v3"


async def test_only_finished_executions_are_deleted(store: Store) -> None:
    """With all they had; their key is free again."""
    await store.create(start("a", key="k"))
    await store.append(batch("a", ("", 1, "x")))
    assert not await store.delete("a")
    await store.append(batch("a", status="interrupted", ended=3))
    assert await store.delete("a")
    assert not await store.delete("a")
    assert await store.find("a") is None
    assert await store.find_key("k") is None
    assert await store.entries("a", path=None) == []
    assert not await store.append(batch("a", ("", 2, "late")))
    assert await store.create(start("a", key="k")) is None
    assert await store.entries("a", path=None) == []


async def test_pruning_takes_the_oldest_in_small_rounds(store: Store) -> None:
    """Those that ended before a time, at most so many at once; never unfinished ones."""
    for number in range(5):
        await store.create(start(f"e{number}"))
        await store.append(batch(f"e{number}", ("", 1, "x"), status="completed", ended=10 - number))
    await store.create(start("open", status="suspended"))
    assert await store.prune(10, 100, limit=3) == 3
    assert [found.id for found in await store.select(Filter())] == ["open", "e1", "e0"]
    assert await store.prune(10, 100, limit=3) == 1
    assert await store.prune(10, 100, limit=3) == 0
    assert [found.id for found in await store.select(Filter())] == ["open", "e0"]


async def test_durations_are_those_of_the_newest_completed(store: Store) -> None:
    """Of one workflow; its definition tells the versions apart."""
    for number in range(4):
        await store.create(
            start(f"e{number}", created=number, status="completed", started=number, ended=number * 3, definition="d")
        )
    await store.create(start("f", created=9, status="failed", started=1, ended=2))
    await store.create(start("g", created=9, status="completed", started=1, ended=2, graph_id="other"))
    assert list(await store.durations("file::Graph", 3)) == [("d", 3, 9), ("d", 2, 6), ("d", 1, 3)]


async def test_requests_reach_whoever_runs_the_execution(store: Store) -> None:
    """They are there until they are answered or withdrawn; an answer is read once."""
    mine, other = await runner_of(store), await runner_of(store)
    await store.create(start("a", runner=mine.id))
    first, second, third = [await store.ask("a", "cancel", f'{{"n": {n}}}') for n in range(3)]
    await store.ask("b", "cancel", "{}")
    assert await store.asked(other) == []
    asked = await store.asked(mine)
    assert [(c.number, c.execution, c.kind, c.payload) for c in asked] == [
        (first, "a", "cancel", '{"n": 0}'), (second, "a", "cancel", '{"n": 1}'), (third, "a", "cancel", '{"n": 2}'),
    ]  # fmt: skip
    assert await store.outcome(first) is None
    await store.answer(first, '"done"')
    await store.answer(first, '"late"')  # of who has not seen that it is done: the first counts
    assert await store.withdraw(second)
    assert not await store.withdraw(first)
    assert [c.number for c in await store.asked(mine)] == [third]
    assert await store.outcome(first) == '"done"'
    assert await store.outcome(first) is None
    await store.answer(second, "too late")
    assert await store.outcome(second) is None


async def test_the_generation_grows_when_it_is_told_to(store: Store) -> None:
    """It begins with 0."""
    assert await store.generation() == 0
    assert await store.generation(bump=True) == 1
    assert await store.generation(bump=True) == 2
    assert await store.generation() == 2


async def test_a_store_is_opened_and_closed_again_and_again(store: Store) -> None:
    """A durable one has kept everything."""
    await store.open()
    await store.create(start("a"))
    given = store.append(batch("a", ("", 1, "x")))
    await store.aclose()
    assert await given
    await store.aclose()
    await store.open()
    assert await store.find("a") == row("a")
    assert len(await store.entries("a")) == 1


async def test_runners_are_told_apart(store: Store) -> None:
    """No two have one id."""
    assert len({(await runner_of(store)).id for _ in range(10)}) == 10


async def test_memory_keeps_the_newest_finished_ones() -> None:
    """And all that are unfinished, how many they may be."""
    store = TransientStore("tests", keep=2)
    for number in range(6):
        await store.create(start(f"e{number}", key=f"k{number}"))
    for number in (3, 1, 5, 0):
        await store.append(batch(f"e{number}", status="completed"))
    assert sorted(found.id for found in await store.select(Filter())) == ["e0", "e2", "e4", "e5"]
    assert await store.find_key("k3") is None
    assert len(store) == 4


async def test_memory_reads_nothing_before_somebody_asks() -> None:
    """A write costs next to nothing, and what would be written is evaluated once."""
    store = TransientStore("tests", keep=2)
    asked: list[str] = []

    class Watched(FakeBatch):
        def changes(self) -> Any:
            asked.append("changes")
            return super().changes()

        def lines(self) -> Any:
            asked.append("entries")
            return super().lines()

    await store.create(FakeStart(row("a"), fault=None))
    assert await store.append(Watched("a", {"steps": 1}, [Entry("", 1, "x")]))
    assert asked == []
    await store.find("a")
    await store.find("a")
    assert asked == ["changes"]
    await store.entries("a")
    await store.entries("a")
    assert asked == ["changes", "entries"]
