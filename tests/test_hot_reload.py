"""Files that change under a running service."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, sleep, to_thread

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService, Call
from agentmap_asgi.workflows import watcher
from agentmap_asgi.workflows.watcher import Watcher

HEAD = "GraphName,Node,AgentType,Output_Field,Edge,Prompt\n"


def flow(version: Any) -> str:
    """A workflow whose two fields both name its version."""
    return HEAD + f"Flow,A,default,a,B,{version}\nFlow,B,default,b,,{version}\n"


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "agentmap-watcher"]


@pytest.fixture(params=["notices", "times"])
def noticing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Changes are noticed with watchfiles, and without it."""
    if request.param == "times":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    return str(request.param)


@pytest.fixture(autouse=True)
def no_watcher_is_left() -> Iterator[None]:
    """Whatever a test does, its watchers end with it."""
    yield
    for thread in watchers():
        gc.collect()
        thread.join(2)
    assert watchers() == []


def made(path: Path, *, hot: bool = True, context: AgentMapContext | None = None, **settings: Any) -> AgentMapService:
    return AgentMapService(AgentMapConfig(enable_hot_reload=hot, **settings), source=path, context=context)


async def until(condition: Callable[[], Any]) -> None:
    """Wait; the test's own time limit ends a condition that never comes."""
    while not condition():  # noqa: ASYNC110
        await sleep(0.005)


async def written(path: Path, text: str) -> None:
    await to_thread.run_sync(path.write_text, text)


def prompt(service: AgentMapService) -> str:
    return service.catalogue.find("Flow").nodes["A"].prompt


@pytest.mark.anyio
async def test_saved_files_are_served(tmp_path: Path, noticing: str) -> None:
    """Also new ones; removed ones are gone; nobody has to ask for it."""
    path = tmp_path / "a.csv"
    await written(path, flow(1))
    service = await to_thread.run_sync(lambda: made(tmp_path))
    await service.start()
    try:
        await written(path, flow(2))
        await until(lambda: prompt(service) == "2")
        await written(tmp_path / "b.csv", HEAD + "Other,A,echo,,,x\n")
        await until(lambda: len(service.catalogue.workflows) == 2)
        (tmp_path / "b.csv").unlink()
        await until(lambda: len(service.catalogue.workflows) == 1)
        assert (await service.execute_workflow("Flow", {}))["result"] == {"a": "2", "b": "2"}
    finally:
        await service.aclose()


@pytest.mark.anyio
async def test_a_single_file_may_be_replaced(tmp_path: Path, noticing: str) -> None:
    """Editors write a new file and rename it."""
    path = tmp_path / "a.csv"
    await written(path, flow(1))
    service = await to_thread.run_sync(lambda: made(path))
    await service.start()
    try:
        for version in ("2", "3"):
            await written(tmp_path / "a.csv.tmp", flow(version))
            (tmp_path / "a.csv.tmp").replace(path)
            await until(lambda: prompt(service) == version)  # noqa: B023
    finally:
        await service.aclose()


def whole(path: Path, text: str) -> None:
    path.write_text(text)


def renamed(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def moved_away(path: Path, text: str) -> None:
    path.replace(path.with_suffix(".bak"))
    path.write_text(text)


def in_pieces(path: Path, text: str) -> None:
    """Truncates, and then writes character by character."""
    with path.open("w", buffering=1) as file:
        for character in text:
            file.write(character)
            file.flush()


SAVES = (whole, renamed, moved_away, in_pieces)
BROKEN = (
    lambda version: flow(version).replace("Flow,B,", "Flow,C,"),
    lambda version: flow(version).rpartition(",B,")[0],
    lambda version: "",
    lambda version: flow(version) + 'Flow,C,"open\n',
    lambda version: flow(version).replace("default", "defautl", 1),
)


@pytest.mark.anyio
@pytest.mark.long
async def test_saving_under_load(tmp_path: Path, noticing: str, rounds: int) -> None:
    """Broken, torn and good versions in turn: no request fails, none gets a mixed version or one that was never good,
    none goes back to an older one, and what is wrong is shown.
    """
    path = tmp_path / "a.csv"
    await written(path, flow(0))
    service = await to_thread.run_sync(lambda: made(tmp_path))
    await service.start()
    done = False
    answers = 0

    async def load() -> None:
        nonlocal answers
        newest = 0
        while not done:
            found = await service.execute_workflow("Flow", {})
            assert found["status"] == "completed", found
            assert found["result"]["a"] == found["result"]["b"]
            version = int(found["result"]["a"])
            assert newest <= version < 1_000_000
            newest = version
            answers += 1
            await sleep(0.001)

    async with create_task_group() as group:
        for _ in range(4):
            group.start_soon(load)
        for turn in range(1, 5 * min(rounds, 20) + 1):
            broken = BROKEN[turn % len(BROKEN)](1_000_000 + turn)
            await to_thread.run_sync(SAVES[turn % 3], path, broken)
            await until(lambda: service.list_workflows()["workflows"][0]["status"] == "stale")
            (shown,) = service.list_workflows()["workflows"]
            assert shown["diagnostics"][0]["severity"] == "error"
            assert service.get_workflow_definition("Flow")["diagnostics"]
            await to_thread.run_sync(SAVES[turn % len(SAVES)], path, flow(turn))
            await until(lambda: prompt(service) == str(turn))  # noqa: B023
            assert service.list_workflows()["workflows"][0]["status"] == "ok"
        done = True
    await service.aclose()
    assert answers > 0


class Gate:
    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, call: Call) -> str:
        self.reached.set()
        await self.opened.wait()
        return "through"


@pytest.mark.anyio
async def test_an_execution_keeps_the_versions_it_began_with(tmp_path: Path) -> None:
    """Its own, and those of its sub-workflows, also when they begin later and when they are gone by then."""

    def rows(version: int) -> str:
        head = "GraphName,Node,AgentType,Output_Field,Edge,Prompt,Context\n"
        flow = f"Flow,A,gate,,S,,\nFlow,S,graph,sub,T,,{{workflow=::Sub}}\nFlow,T,default,b,,{version},\n"
        return head + flow + (f"Sub,A,default,told,,{version},\n" if version < 3 else "")

    path = tmp_path / "a.csv"
    await written(path, rows(1))
    gate = Gate()
    context = AgentMapContext(agents={"gate": gate})
    service = await to_thread.run_sync(lambda: made(path, hot=False, context=context))
    running = asyncio.create_task(service.execute_workflow("Flow", {}))
    await gate.reached.wait()
    for version in (2, 3):
        await written(path, rows(version))
        await service.reload()
    gate.opened.set()
    found = await running
    assert (found["result"]["b"], found["result"]["sub"]["told"]) == ("1", "1")
    await service.aclose()


@pytest.mark.anyio
async def test_replaced_versions_are_forgotten(tmp_path: Path) -> None:
    """With their plans, when no execution uses them."""
    path = tmp_path / "a.csv"
    await written(path, flow(1))
    service = await to_thread.run_sync(lambda: made(path, hot=False, max_kept=0))
    await service.execute_workflow("Flow", {})
    old = weakref.ref(service.catalogue.find("Flow"))
    await written(path, flow(2))
    assert (await service.reload())["changed"] == ["a::Flow"]
    await service.execute_workflow("Flow", {})
    assert len((await service.list_versions("Flow"))["versions"]) == 2  # whose texts stay
    gc.collect()
    assert old() is None
    await service.aclose()


@pytest.mark.anyio
async def test_a_reload_says_what_has_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As plain JSON values; what cannot be used is warned of, once."""
    path = tmp_path / "a.csv"
    await written(path, flow(1) + "Gone,A,echo,,,x\n")
    service = await to_thread.run_sync(lambda: made(path, hot=False))
    await written(path, flow(1).replace("default", "defautl", 1) + "New,A,echo,,,x\n")
    with caplog.at_level(logging.INFO):
        found = await service.reload()
        again = await service.reload()
    problems = found.pop("diagnostics")
    assert found == {
        "changed": [],
        "added": ["a::New"],
        "removed": ["a::Gone"],
        "unchanged": 1,
        "stale": ["a::Flow"],
        "pending": [],
    }
    assert [problem["code"] for problem in problems] == ["AM-A001"]
    assert (again["unchanged"], again["stale"]) == (2, ["a::Flow"])
    said = [record.getMessage() for record in caplog.records if record.name == "agentmap_asgi"]
    assert said[0] == "Workflow files were read again: 0 workflows changed, 1 added, 1 removed"
    assert len(said) == 2
    assert said[1].startswith("The workflow a::Flow is served as it was before: a.csv, row 2")
    await service.aclose()


def test_a_service_may_live_on_several_loops(tmp_path: Path, noticing: str) -> None:
    """One after the other, as under a test client, never closed in between; one watcher serves them all."""
    path = tmp_path / "a.csv"
    path.write_text(flow(1))
    service = made(path)
    assert watchers() == [], "nothing runs before the first execution"
    for version in ("1", "2", "3"):
        path.write_text(flow(version))

        async def execute(version: str = version) -> Any:
            await until(lambda: prompt(service) == version)
            return await service.execute_workflow("Flow", {})

        asyncio.run(service.start())
        assert asyncio.run(execute())["result"] == {"a": version, "b": version}
        assert len(watchers()) == 1
    asyncio.run(service.aclose())
    assert watchers() == []


@pytest.mark.anyio
async def test_a_service_starts_again(tmp_path: Path) -> None:
    """The watcher ends with the last event loop, and comes back with the next start."""
    path = tmp_path / "a.csv"
    await written(path, flow(1))
    service = await to_thread.run_sync(lambda: made(path))
    for _ in range(2):
        await service.start()
        await service.start()
        assert len(watchers()) == 1
        await service.aclose()
        assert watchers() == []


def test_a_service_that_is_forgotten_takes_its_watcher_along(tmp_path: Path, noticing: str) -> None:
    """A host that never closes it leaks no thread."""
    path = tmp_path / "a.csv"
    path.write_text(flow(1))
    service = made(path)
    asyncio.run(service.start())
    (thread,) = watchers()
    del service
    while thread.is_alive():
        gc.collect()
        thread.join(0.05)


def test_reading_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the watcher goes on."""
    monkeypatch.setattr(watcher, "POLL", 0.01)
    path = tmp_path / "a.csv"
    path.write_text(flow(1))
    service = made(path, hot=False)
    tries: list[None] = []
    enough = threading.Event()

    class Owner:
        def reload(self) -> Any:
            tries.append(None)
            if len(tries) < 3:
                raise RuntimeError("no")
            enough.set()
            return service.catalogue.reload()

    owner = Owner()
    watching = Watcher(service.catalogue, owner.reload)
    assert enough.wait(10)
    watching.close()
    assert caplog.text.count("Reading the workflow files again failed") == 2


def test_without_notices_of_the_system_times_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example where the system allows no more watches."""

    class Full:
        @staticmethod
        def watch(*folders: Any, **options: Any) -> Any:
            raise OSError("too many watches")

    monkeypatch.setitem(sys.modules, "watchfiles", Full)
    path = tmp_path / "a.csv"
    path.write_text(flow(1))
    service = made(path)

    async def edit() -> None:
        await service.start()
        await written(path, flow(2))
        await until(lambda: prompt(service) == "2")
        await service.aclose()

    asyncio.run(edit())
