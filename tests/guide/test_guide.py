"""The integration guide runs: each block as it stands, or with corrections that are each shown to be needed."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blocks import Block, Correction, blocks, corrected, renamed
from checks import CHECKS, shell
from corrections import CORRECTIONS

HERE = Path(__file__).parent
HOST = HERE / "host"
PAGE = HERE.parents[1] / "docs" / "fastapi-integration.md"
PROGRAMS = {block.heading: block for block in blocks() if block.language == "python"}


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """A Redis server of these tests' own, where the Debian package redis-server is installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None  # the host then keeps its cache in the process
        return
    folder = tmp_path_factory.mktemp("redis")
    command = [program, "--port", "0", "--unixsocket", "redis.sock", "--save", "", "--loglevel", "notice"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if "ready to accept connections" in line.lower():
                break
        yield f"unix://{folder}/redis.sock"
        server.terminate()
        server.communicate()


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str | None) -> Iterator[None]:
    """The folder of a host: its modules, its workflow files, an empty database and cache."""
    shutil.copytree(HOST, tmp_path / "host", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path / "host")
    monkeypatch.syspath_prepend(str(tmp_path / "host"))
    if redis_url is not None:
        monkeypatch.setenv("REDIS_URL", redis_url)
        asyncio.run(_emptied(redis_url))
    monkeypatch.setenv("AGENTMAP_API_KEYS", "")  # so that what a check sets is taken back
    monkeypatch.delenv("AGENTMAP_API_KEYS")
    before = set(sys.modules)
    level = logging.getLogger("agentmap_asgi").level
    yield
    logging.getLogger("agentmap_asgi").setLevel(level)
    for name in set(sys.modules) - before:
        engine = getattr(sys.modules[name], "engine", None)
        if engine is not None and hasattr(engine, "dispose"):
            engine.dispose()
        if str(getattr(sys.modules[name], "__file__", None) or name).startswith(str(tmp_path)) or name in NAMES:
            del sys.modules[name]
    importlib.invalidate_caches()


NAMES = {check.__name__ for check in CHECKS.values()}


async def _emptied(url: str) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(url) as redis:
        await redis.flushall()


def check(heading: str, text: str) -> None:
    """Run a block, and ask it what it should do. Raises what is wrong."""
    found: Any = CHECKS[heading](text)
    if inspect.iscoroutine(found):
        asyncio.run(found)


def test_every_block_is_listed() -> None:
    """Each block has a check and a row in the table of corrections, in the order of the guide."""
    found = [block.heading for block in blocks()]
    assert found == list(dict.fromkeys(found)), "two blocks under one heading"
    assert list(CORRECTIONS) == found
    assert [heading for heading in found if heading not in CHECKS] == ["Test Integration"]
    assert [block.language for block in blocks() if block.heading not in CHECKS] == ["bash"]


@pytest.mark.parametrize("block", PROGRAMS.values(), ids=lambda block: block.heading)
def test_a_block_runs(block: Block) -> None:
    """As it stands but for `agentmap` in the imports, or with its corrections."""
    check(block.heading, corrected(block.text, CORRECTIONS[block.heading]))


@pytest.mark.skipif(shutil.which("curl") is None, reason="the Debian package curl is not installed")
def test_the_shell_block_runs() -> None:
    """A real server serves the first program, and curl asks it."""
    (block,) = [block for block in blocks() if block.language == "bash"]
    shell(block.text, renamed(PROGRAMS["Basic Integration"].text))


@pytest.mark.parametrize(
    ("heading", "correction"),
    [
        pytest.param(heading, correction, id=f"{heading}-{number}")
        for heading, corrections in CORRECTIONS.items()
        for number, correction in enumerate(corrections, 1)
        if sys.version_info >= correction.since
    ],
)
def test_a_correction_is_needed(heading: str, correction: Correction) -> None:
    """With all corrections but this one, the block fails in the way the table says."""
    text = corrected(PROGRAMS[heading].text, CORRECTIONS[heading], without=correction)
    with pytest.raises(correction.fails, match=correction.match):
        check(heading, text)


def test_the_page_tells_what_was_wrong() -> None:
    """`docs/fastapi-integration.md` has each heading, and each sentence of the table of corrections."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [f"| {heading} | {one.wrong} |" for heading, found in CORRECTIONS.items() for one in found]
    assert [row for row in rows if row not in page] == []
    assert [
        heading
        for heading, found in CORRECTIONS.items()
        if not found and f"| {heading} | runs as it stands |" not in page
    ] == []
