"""The versions of workflows: noted when they are served, listed and compared, in process and over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapContext, AgentMapService
from agentmap_asgi.errors import InputInvalid, StoreUnavailable
from agentmap_asgi.stores.store import Served
from agentmap_asgi.stores.transient import TransientStore
from agentmap_asgi.testing import AgentMapClient, FakeClock

pytestmark = pytest.mark.anyio

HEAD = "GraphName,Node,AgentType,Output_Field,Edge,Prompt\n"


def flow(prompt: str) -> str:
    return HEAD + f"Flow,A,default,a,,{prompt}\nSide,A,default,a,,same\n"


class Files:
    """A service over one file, which tests write anew."""

    def __init__(self, folder: Path, storage: str) -> None:
        self.path = folder / "flows.csv"
        self.path.write_text(flow("one"))
        self.clock = FakeClock()
        self.url = "memory://" if storage == "memory" else f"sqlite:///{folder / 'data' / 'store.db'}"
        self.service = self.made()

    def made(self) -> AgentMapService:
        config = AgentMapConfig(storage_url=self.url)
        return AgentMapService(config, context=AgentMapContext(clock=self.clock), source=self.path)

    async def write(self, text: str) -> None:
        self.clock.advance(60)
        await to_thread.run_sync(self.path.write_text, text)
        await self.service.reload()

    async def hashes(self, name: str = "Flow") -> list[str]:
        return [version["version"] for version in (await self.service.list_versions(name))["versions"]]


@pytest.fixture(params=["memory", "sqlite"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(tmp_path, request.param)


async def test_versions_are_listed_without_any_execution(served: Files) -> None:
    """With their times; only workflows that changed have a new one, and a broken file makes none."""
    first = served.service.catalogue.find("Flow").version
    assert await served.service.list_versions("Flow") == {
        "graph_id": "flows::Flow",
        "versions": [{"version": first, "since": "2023-11-14T22:13:20.000000Z", "current": True}],
        "total_count": 1,
    }
    await served.write(flow("two"))
    await served.write(flow("three").replace("default", "defualt", 1))
    second = served.service.catalogue.find("Flow").version
    listed = (await served.service.list_versions("Flow"))["versions"]
    assert listed == [
        {"version": second, "since": "2023-11-14T22:14:20.000000Z", "current": True},
        {"version": first, "since": "2023-11-14T22:13:20.000000Z", "current": False},
    ]
    assert len(await served.hashes("Side")) == 1
    await served.write(flow("one"))
    assert await served.hashes() == [first, second, first]
    await served.service.aclose()


async def test_what_changed_is_told(served: Files) -> None:
    """From the version before to the current one, or between any two, by the beginning of their hashes."""
    with pytest.raises(InputInvalid, match="no version before"):
        await served.service.diff_versions("Flow")
    await served.write(flow("two"))
    await served.write(flow("three"))
    three, two, one = await served.hashes()
    found = await served.service.diff_versions("Flow")
    assert (found["from"]["version"], found["to"]["version"], found["changed"]) == (two, three, True)
    assert found["text"] == "~ workflow Flow\n  ~ node A (row 2)\n      - Prompt: two\n      + Prompt: three\n"
    assert found["nodes"][0]["cells"] == [{"column": "Prompt", "old": "two", "new": "three"}]
    found = await served.service.diff_versions("Flow", one[:6], two[:10].upper())
    assert found["nodes"][0]["cells"] == [{"column": "Prompt", "old": "one", "new": "two"}]
    found = await served.service.diff_versions("Flow", "current")
    assert (found["changed"], found["nodes"], found["text"]) == (False, [], "")
    for asked in ("abc", "0" * 64, one[:5]):
        with pytest.raises(InputInvalid, match="no version of this workflow"):
            await served.service.diff_versions("Flow", asked)
    await served.service.aclose()


async def test_versions_outlive_the_process(tmp_path: Path) -> None:
    """In a store that does."""
    served = await to_thread.run_sync(Files, tmp_path, "sqlite")
    await served.write(flow("two"))
    known = await served.hashes()
    await served.service.aclose()
    await to_thread.run_sync(served.path.write_text, flow("three"))
    served.service = await to_thread.run_sync(served.made)
    await served.service.execute_workflow("Flow", {})
    assert (await served.hashes())[1:] == known
    found = await served.service.diff_versions("Flow", known[-1])
    assert found["nodes"][0]["cells"] == [{"column": "Prompt", "old": "one", "new": "three"}]
    await served.service.aclose()


class Busy(TransientStore):
    """A store that cannot write at first."""

    fault: BaseException | None = StoreUnavailable("busy")

    def note(self, served: Sequence[Served]) -> Any:
        if self.fault is not None:
            raise self.fault
        return super().note(served)


async def test_a_store_that_is_busy_gets_them_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Executions go on meanwhile."""
    served = await to_thread.run_sync(Files, tmp_path, "memory")
    served.service.store = busy = Busy()
    served.service.versions._store = busy
    with caplog.at_level(logging.WARNING, logger="agentmap_asgi"):
        assert (await served.service.execute_workflow("Flow", {}))["success"]
    assert "The versions of workflows cannot be kept just now: busy" in caplog.text
    busy.fault = RuntimeError("broken")
    with pytest.raises(RuntimeError):
        await served.service.list_versions("Side")
    busy.fault = None
    assert len(await served.hashes("Side")) == 1
    await served.service.aclose()


async def test_versions_over_http(served: Files) -> None:
    """Links lead there; what is unknown is a problem."""
    app = AgentMapApp(service=served.service)
    async with AgentMapClient(app) as http:
        link = (await http.get("/Flow")).json()["links"]["versions"]
        assert len((await http.get(link)).json()["versions"]) == 1
        answer = await http.get("/Flow/diff")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        await served.write(flow("two"))
        found = (await http.get("/workflows/flows/Flow/diff")).json()
        assert found["nodes"][0]["cells"] == [{"column": "Prompt", "old": "one", "new": "two"}]
        assert (await http.get("/Nothing/versions")).status_code == 404
        assert (await http.get("/Flow/diff?to=nonsense")).status_code == 422


async def test_what_a_caller_may_not_see_has_no_versions(tmp_path: Path) -> None:
    """`authorize` is asked about `versions` and `diff`."""
    served = await to_thread.run_sync(Files, tmp_path, "memory")

    def authorize(principal: Any, operation: str, graph: str | None, execution: Any = None) -> bool:
        return operation == "workflow" and graph == "flows::Flow"

    context = AgentMapContext(authorize=authorize)
    config = AgentMapConfig(storage_url="memory://")
    service = await to_thread.run_sync(lambda: AgentMapService(config, context=context, source=served.path))
    async with AgentMapClient(AgentMapApp(service=service)) as http:
        assert (await http.get("/Flow/versions")).status_code == 403
        assert (await http.get("/Side/diff")).status_code == 404
