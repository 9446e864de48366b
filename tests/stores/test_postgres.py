"""What is particular to PostgreSQL: who may use it, what is said when it cannot be used, and connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import psycopg
import pytest
from postgresql import Server
from wires import Wire
from writes import FakeBatch, batch, start

from agentmap_asgi.errors import StoreUnavailable, StoreUnusable
from agentmap_asgi.stores import postgres as postgres_store
from agentmap_asgi.stores import postgres_link, postgres_upkeep, postgres_writer
from agentmap_asgi.stores.postgres import PostgresStore
from agentmap_asgi.stores.postgres_link import writer_of
from agentmap_asgi.stores.postgres_sql import MIGRATIONS, WRITES
from agentmap_asgi.stores.store import Entry, Row

pytestmark = pytest.mark.anyio


def store_of(url: str, schema: str, **given: Any) -> PostgresStore:
    return PostgresStore(url, **{"namespace": "tests", "schema": schema, "source": "flows.csv", **given})


@contextlib.asynccontextmanager
async def opened(url: str, schema: str, **given: Any) -> AsyncIterator[PostgresStore]:
    store = store_of(url, schema, **given)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def schema(postgres: Server) -> str:
    return postgres.schema()


@pytest.fixture
def wire(postgres: Server) -> Iterator[Wire]:
    made = Wire(postgres)
    yield made
    made.close()


@pytest.fixture
def role(postgres: Server) -> Iterator[str]:
    """Somebody who owns nothing."""
    name = postgres.schema()
    postgres.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    postgres.execute(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.01)


# What is said.


async def refusal(url: str, schema: str = "agentmap") -> str:
    with pytest.raises(StoreUnusable) as caught:
        await store_of(url, schema).open()
    assert "secret" not in caught.value.message
    return caught.value.message


async def test_a_server_that_is_not_there_is_named(postgres: Server) -> None:
    """With the remedy, and without the password."""
    said = await refusal("postgresql://ann:secret@127.0.0.1:1/x")
    assert said.startswith("The server of postgresql://ann:***@127.0.0.1:1/x cannot be used: connection failed")
    assert "See whether it runs, and whether host, port, database, user and password of storage_url" in said


async def test_a_url_that_cannot_be_read_is_refused() -> None:
    """Nothing of a password that was written wrong is repeated."""
    for url in ("ann:a:secret@host:x/y", "ann:5/secret@host/y", "/x?nothing_like_it=1", "ann:se[cret@[host/y"):
        said = await refusal(f"postgresql://{url}")
        assert "written as %XX" in said


async def test_a_wrong_password_and_a_wrong_database_are_refused(postgres: Server) -> None:
    """The server says why."""
    postgres.execute(
        "DO $$ BEGIN CREATE ROLE guarded LOGIN PASSWORD 'right'; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    said = await refusal(postgres.url("guarded", "secret"))
    assert "The server of postgresql://guarded:***@/postgres" in said
    assert 'password authentication failed for user "guarded"' in said
    said = await refusal(postgres.url(base="nowhere"))
    assert 'database "nowhere" does not exist' in said


async def test_a_role_without_rights_is_told_who_can_help(postgres: Server, role: str, schema: str) -> None:
    """First the tables are missing, then the rights; with them it needs to own nothing."""
    said = await refusal(postgres.url(role), schema)
    assert said.startswith(f"The user {role} may not make the tables in the schema {schema}")
    assert f"agentmap-asgi store migrate --grant {role}" in said
    assert f"GRANT CREATE ON DATABASE postgres TO {role}" in said
    async with opened(postgres.url(), schema):
        pass
    assert f"may not use the schema {schema}" in await refusal(postgres.url(role), schema)
    postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}", f"GRANT SELECT ON {schema}.meta TO {role}")
    assert "lacks rights in the schema" in await refusal(postgres.url(role), schema)
    await asyncio.to_thread(postgres_upkeep.migrate, postgres.url(), schema, role)
    async with opened(postgres.url(role), schema) as store:
        await store.create(start("a", runner=store.runner().id, definition="d", pins={"d": "text"}))
        await store.append(batch("a", ("", 1, "x"), status="completed", ended=1))
        assert await store.ask("a", "cancel", "{}") == 1
        assert await store.generation(bump=True) == 1
        assert await store.prune(2, 2) == 1


async def test_a_role_may_make_the_tables_in_a_schema_that_is_its_own(postgres: Server, role: str, schema: str) -> None:
    """It needs no right on the database then."""
    postgres.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {role}")
    async with opened(postgres.url(role), schema) as store:
        assert await store.create(start("a")) is None


async def test_tables_of_others_and_of_the_future_are_refused(postgres: Server, schema: str) -> None:
    """They stay as they are."""
    postgres.execute(f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.meta (name text, value bigint)")
    assert "that of another program; name another (the setting storage_schema)" in await refusal(postgres.url(), schema)
    other = postgres.schema()
    async with opened(postgres.url(), other):
        postgres.execute(f"UPDATE {other}.meta SET value = 1000 WHERE name = 'version'")
    said = await refusal(postgres.url(), other)
    assert f"its format is 1000, this one knows up to {len(MIGRATIONS)}); update agentmap-asgi" in said


async def test_a_database_in_another_encoding_is_refused(postgres: Server) -> None:
    """The message says how to make one in UTF8."""
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    assert "The database latin is in LATIN1; make one in UTF8" in await refusal(postgres.url(base="latin"))


async def test_a_schema_may_have_any_name(postgres: Server) -> None:
    """Also one that needs quotes; many processes that make it at once make it once."""
    name = f'a "Name"; {postgres.schema()}'
    stores = [store_of(postgres.url(), name) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    await stores[0].create(start("a"))
    assert await stores[3].find("a") is not None
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_tables_of_the_first_version_are_brought_up_to_date(postgres: Server, schema: str) -> None:
    """With what they hold."""
    async with opened(postgres.url(), schema) as store:
        await store.create(start("a", definition="d", pins={"d": "text"}))
    postgres.execute(f"DROP TABLE {schema}.versions", f"UPDATE {schema}.meta SET value = 1 WHERE name = 'version'")
    async with opened(postgres.url(), schema) as store:
        assert [found.definition for found in await store.versions("file::Graph")] == ["d"]


# Looking after it.


async def test_a_check_names_what_is_damaged(postgres: Server, schema: str) -> None:
    """Rows, entries, definitions, what belongs to nothing, and triggers; a sound store has nothing."""
    async with opened(postgres.url(), schema) as store:
        for name in "abc":
            await store.create(start(name, definition="d", pins={"d": "text"}))
            await store.append(batch(name, ("", 1, "x"), ("", 2, "y")))
    report = await asyncio.to_thread(postgres_upkeep.check, postgres.url(), schema)
    assert (report.reasons, report.counts, report.entries) == ([], {"tests": {"running": 3}}, 6)
    postgres.execute(
        f"SET search_path TO {schema}",
        "UPDATE executions SET head = 'other' WHERE id = 'a'",
        "UPDATE executions SET status = 'odd' WHERE id = 'b'",
        "UPDATE executions SET definition = 'lost' WHERE id = 'c'",
        "UPDATE entries SET text = 'z' WHERE execution = 'a' AND sequence = 2",
        "UPDATE entries SET execution = 'gone' WHERE execution = 'b' AND sequence = 2",
        "UPDATE definitions SET text = 'other'",
        "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER acts BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION act()",
    )
    report = await asyncio.to_thread(postgres_upkeep.check, postgres.url(), schema)
    text = "\n".join(report.reasons)
    for part in (
        "execution a is damaged: the checksum of its head is wrong", "execution b is damaged: its status is 'odd'",
        "unfinished execution c has lost its definition lost", "the checksum of entry 2 is wrong",
        "Rows of entries belong to an execution gone that is not there", "checksum of definition d is wrong",
        "has a trigger acts",
    ):  # fmt: skip
        assert part in text


async def test_what_is_old_is_pruned_in_all_namespaces(postgres: Server, schema: str) -> None:
    """There must be tables."""
    for name in ("one", "two"):
        async with opened(postgres.url(), schema, namespace=name) as store:
            await store.create(start(name))
            await store.append(batch(name, ("", 1, "x"), status="completed", ended=1))
    assert await asyncio.to_thread(postgres_upkeep.prune, postgres.url(), schema, 1) == 2
    assert postgres.execute(f"SELECT count(*) FROM {schema}.entries") == [(0,)]
    with pytest.raises(StoreUnusable, match="There are no tables"):
        await asyncio.to_thread(postgres_upkeep.prune, postgres.url(), postgres.schema(), 1)


async def test_a_definition_that_was_pruned_comes_back_with_the_next_execution(postgres: Server, schema: str) -> None:
    """Also when this process believes that it is there."""
    async with opened(postgres.url(), schema) as store, opened(postgres.url(), schema) as other:
        await store.create(start("a", definition="d", pins={"d": "text"}, status="completed", ended=1))
        assert await other.prune(2, 2) == 1
        assert await store.pinned("d") is None
        await asyncio.gather(
            store.create(start("b", definition="d", pins={"d": "text"})), store.create(start("c", definition="e"))
        )
        assert await store.pinned("d") == "text"
        assert await store.find("c") is not None


async def test_texts_that_postgresql_does_not_take_are_refused_alone(postgres: Server, schema: str) -> None:
    """A zero in a name, and in a tag; what came with it is written."""
    async with opened(postgres.url(), schema) as store:
        given = [
            store.create(start("a", owner="a\0b")), store.create(start("b")), store.create(start("c", tags=("x\0",))),
        ]  # fmt: skip
        results: list[Any] = await asyncio.gather(*given, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError, type(None), ValueError]
        assert [found is not None for found in [await store.find(name) for name in "abc"]] == [False, True, False]


# Connections that break.


async def test_a_break_is_hidden_from_who_reads_and_writes(postgres: Server, wire: Wire, schema: str) -> None:
    """Whatever was waiting is done on the next connection, and the executions stay whose they are."""
    async with opened(wire.url, schema) as store, opened(postgres.url(), schema) as other:
        await store.create(start("a", runner=store.runner().id))
        for number in range(1, 11):
            wire.cut()
            assert await store.append(batch("a", ("", number, "x"), sequence=number))
            wire.cut()
            assert len(await store.entries("a")) == number
        with anyio.fail_after(20):  # as soon as it is heard of again
            while await other.stranded():
                await anyio.sleep(0.1)


class Once(FakeBatch):
    """Counts how often it is written."""


async def swallowed(wire: Wire, waiting: asyncio.Future[Any]) -> None:
    """Until the server has answered, and nobody has heard it; then everything is cut off."""
    await until(lambda: wire.swallowed)
    await asyncio.sleep(0.1)  # the rest of the answer
    wire.mute, wire.swallowed = False, 0
    assert not waiting.done()
    wire.cut()


async def test_what_was_committed_as_the_connection_broke_is_not_written_twice(wire: Wire, schema: str) -> None:
    """Its writer is told that it is there: a start, a step, a claim, one that is refused, and a key that was taken."""
    async with opened(wire.url, schema) as store:
        runner = store.runner()
        await store.create(start("s", status="suspended"))
        known = await store.find("s")
        assert known is not None
        await store.append(batch("s"))

        async def through(waiting: Any) -> Any:
            wire.mute = True
            future = asyncio.ensure_future(waiting())
            await asyncio.sleep(0)
            await swallowed(wire, future)
            return await future

        async def created(name: str, **columns: Any) -> Row | None:
            return await store.create(start(name, runner=runner.id, **columns))

        async def appended(name: str, **given: Any) -> bool:
            return await store.append(batch(name, ("", 1, "x"), sequence=1, **given))

        assert await through(lambda: created("a", key="k")) is None
        assert await through(lambda: appended("a")) is True
        assert await through(lambda: appended("a", fence=7)) is False
        there = await through(lambda: created("b", key="k"))
        assert there is not None
        assert there.id == "a"
        claimed = await through(lambda: store.claim(known, runner))
        assert claimed is not None
        assert (claimed.fence, claimed.runner) == (2, runner.id)
        assert await store.entries("a") == [Entry("", 1, "x")]


async def test_a_server_that_ends_says_so_before_its_connections_close(wire: Wire, schema: str) -> None:
    """In between a connection seems to be there still, and what it has committed is looked up all the same."""
    async with opened(wire.url, schema) as store:
        await store.create(start("a", runner=store.runner().id))
        assert await store.find("a") is not None
        for number in range(1, 4):
            wire.farewell = True
            assert await store.append(batch("a", ("", number, "x"), sequence=number))
            assert not wire.farewell
            assert [entry.sequence for entry in await store.entries("a")] == [*range(1, number + 1)]


async def test_a_write_that_cannot_be_made_is_told_so_after_a_break_too(
    wire: Wire, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found out in a transaction that broke off."""
    found_out: list[BaseException] = []

    def told(exc: BaseException) -> BaseException:
        if not found_out:
            wire.cut()
        found_out.append(exc)
        return postgres_link.told(exc)

    monkeypatch.setattr(postgres_writer, "told", told)
    async with opened(wire.url, schema) as store:
        given = [store.create(start("a", owner="a\0b")), store.create(start("b"))]
        with anyio.fail_after(60):
            results: list[Any] = await asyncio.gather(*given, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError, type(None)]
        assert len(found_out) == 2


async def test_what_nobody_was_told_of_is_taken_up_again(
    wire: Wire, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A start and a claim that were committed after their callers had given up have no runner then; a step waits, and
    is told in the end."""
    monkeypatch.setattr(postgres_writer, "PATIENCE", 0.2)
    monkeypatch.setattr(postgres_writer, "RETRY", 0.1)
    caplog.set_level(logging.INFO, logger="agentmap_asgi.stores")
    async with opened(wire.url, schema) as store:
        runner = store.runner()
        await store.create(start("s", status="suspended"))
        await store.create(start("r", runner=runner.id))
        known = await store.find("s")
        assert known is not None
        wire.mute = True
        given = [
            asyncio.ensure_future(one)
            for one in (
                store.create(start("a", runner=runner.id)),
                store.claim(known, runner),
                store.append(batch("r", ("", 1, "x"), sequence=1)),
            )
        ]
        await asyncio.sleep(0)
        wire.down = True
        await swallowed(wire, given[0])
        for one in given[:2]:
            with pytest.raises(StoreUnavailable):
                await one
        with pytest.raises(StoreUnavailable):
            await store.append(batch("r", ("", 2, "y"), sequence=2))  # what came before is not sure
        assert not given[2].done()
        wire.down = False
        assert await given[2] is True
        found = {row.id: (row.status, row.runner) for row in [await store.find(name) for name in "asr"] if row}
        assert found == {"a": ("running", None), "s": ("suspended", None), "r": ("running", runner.id)}
        assert await store.entries("r") == [Entry("", 1, "x")]
        assert "was committed as its connection broke off" in caplog.text
        assert await store.append(batch("r", ("", 2, "y"), sequence=2))


async def test_a_store_whose_server_is_gone_says_so_and_closes(
    wire: Wire, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once in the log; writes and reads fail, and it works again by itself."""
    monkeypatch.setattr(postgres_writer, "PATIENCE", 0.2)
    monkeypatch.setattr("agentmap_asgi.stores.postgres.READ_PATIENCE", 0.2)
    store = store_of(wire.url, schema)
    await store.open()
    wire.down = True
    wire.cut()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="the log has the reason"):
            await store.create(start("a"))
        with pytest.raises(StoreUnavailable, match="the log has the reason"):
            await store.find("a")
    assert caplog.text.count("cannot be written") == 1
    wire.down = False
    assert await store.create(start("a")) is None
    wire.down = True
    wire.cut()
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.find("a")


async def test_who_counts_as_dead_takes_nothing_on(
    postgres: Server, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others would take it from him at once, and do again what he has begun."""
    monkeypatch.setattr(postgres_store, "UNKNOWN_SECONDS", 0.1)
    async with opened(postgres.url(), schema, worker_lease=1.0) as store:
        await store.create(start("a", status="suspended"))
        row = await store.find("a")
        assert row is not None
        runner = await anyio.to_thread.run_sync(store.runner)
        await anyio.to_thread.run_sync(store._keeper.stop)  # no heartbeat any more
        await until(lambda: not store._keeper.known)
        with pytest.raises(StoreUnavailable, match="takes nothing on"):
            await store.claim(row, runner)
        with pytest.raises(StoreUnavailable, match="takes nothing on"):
            await store.create(start("b"))
        assert await store.find("b") is None


async def test_a_process_that_stands_still_in_a_transaction_holds_no_rows(postgres: Server, schema: str) -> None:
    """Its executions go to the others although it has not ended what it was writing: its session is ended for it."""
    async with opened(postgres.url(), schema, worker_lease=1.0) as store:
        await store.create(start("a", runner="still.1"))
        with contextlib.closing(psycopg.connect(postgres.url(), autocommit=True)) as still:
            still.execute(f"SET search_path TO {schema}".encode())
            still.execute(WRITES, [writer_of("still")])
            still.execute("INSERT INTO runners (id, process) VALUES ('still.1', 'still')")
            still.execute("BEGIN")
            still.execute("SELECT FROM executions WHERE id = 'a' FOR UPDATE")
            postgres.execute(
                f"INSERT INTO {schema}.processes (id, namespace, source, place, lock) "
                "VALUES ('still', 'tests', 'flows.csv', 'here', 1)"
            )
            found: list[Row] = []
            while not found:
                found = await store.stranded()
            runner = await anyio.to_thread.run_sync(store.runner)
            assert await store.claim(found[0], runner) is not None
            with pytest.raises(psycopg.OperationalError):
                still.execute("SELECT 1")
