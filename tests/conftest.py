"""What all tests share: one event loop, and an error for blocking calls in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest
from blockbuster import BlockBuster

from agentmap_asgi.config import AgentMapConfig

if TYPE_CHECKING:
    from postgresql import Server
    from processes import Nursery

# No deadline: how long one example takes depends on what else the machine does.
hypothesis.settings.register_profile("short", deadline=None, max_examples=100)
hypothesis.settings.register_profile("long", deadline=None, max_examples=10_000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="tests marked `long` run all their rounds")
    parser.addoption("--rounds", type=int, default=100, help="how often those that are random repeat themselves then")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait, for processes that they start and for time to pass."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "blocks: the test blocks the event loop on purpose, to see what happens")
    # Tests keep executions in memory unless they say otherwise, those in processes of their own too.
    assert AgentMapConfig.__init__.__kwdefaults__ is not None
    AgentMapConfig.__init__.__kwdefaults__["storage_url"] = "memory://"
    os.environ["AGENTMAP_STORAGE_URL"] = "memory://"
    os.umask(0o022)  # what others may write is not run, so tests must not depend on who runs them
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "short")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often a test marked `long` repeats itself: once, or as often as `make fuzz` wants."""
    wanted: int = request.config.getoption("--rounds")
    return wanted if request.config.getoption("--long") else 1


@pytest.fixture(scope="session")
def forks() -> Iterator[Nursery]:
    """What makes the processes of `tests/faults/`."""
    if sys.platform == "win32":
        pytest.skip("no fork here")
    from processes import Nursery

    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def nursery(forks: Nursery) -> Iterator[Nursery]:
    """The same for one test, whose processes end with it."""
    yield forks
    forks.sweep()


@pytest.fixture(scope="session")
def dbos_forks() -> Iterator[Nursery]:
    """As `forks`, for processes whose engine is DBOS, which takes long to import."""
    from processes import Nursery

    made = Nursery("agentmap_asgi.engines.dbos", "sqlalchemy.dialects.postgresql.psycopg")
    yield made
    made.close()


@pytest.fixture
def dbos_nursery(dbos_forks: Nursery) -> Iterator[Nursery]:
    """The same for one test, whose processes end with it."""
    yield dbos_forks
    dbos_forks.sweep()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; each test has a schema of its own in it."""
    if sys.platform == "win32":
        pytest.skip("PostgreSQL is tested on POSIX systems")
    from postgresql import Server

    try:
        server = Server()
    except FileNotFoundError:
        assert not os.environ.get("CI"), "the package postgresql is missing"
        pytest.skip("PostgreSQL is not installed (the Debian package postgresql)")
    yield server
    server.close()


@pytest.fixture(scope="session")
def dbos_tables(postgres: Server) -> str:
    """The name of a database with the tables of DBOS, to be copied: they take seconds to make."""
    from dbos import DBOS

    name = postgres.database()
    DBOS.migrate(postgres.url(base=name))
    return name


@pytest.fixture
def dbos_url(postgres: Server, dbos_tables: str) -> str:
    """The URL of a database of the test's own, with the tables of DBOS."""
    return postgres.url(base=postgres.database(dbos_tables))


@pytest.fixture(scope="session")
def hosts_dbos(postgres: Server, dbos_tables: str) -> Iterator[str]:
    """The URL of the database of an instance of DBOS that runs in this process, made by a host."""
    from dbos import DBOS

    url, quiet = postgres.url(base=postgres.database(dbos_tables)), "CRITICAL"
    DBOS(config={"name": "a-host", "system_database_url": url, "log_level": quiet, "console_log_level": quiet})
    DBOS.launch()
    yield url
    DBOS.destroy()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call (sleep, file, socket, lock) made under this package in the event loop raises BlockingError."""
    if "anyio_backend" not in request.fixturenames or request.node.get_closest_marker("blocks"):
        yield
        return
    guard = BlockBuster("agentmap_asgi")
    for function in guard.functions.values():  # the first import of a module reads files, once in a process
        function.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()
