"""Query parameters that nobody knows, and what callers are told when the store is away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from anyio import to_thread
from faces import client as client_of
from fastapi import Depends, FastAPI, Query, Request, Security
from fastapi.security import APIKeyQuery
from going import FACES, serving

from agentmap_asgi import AgentMapService
from agentmap_asgi.errors import StoreUnavailable
from agentmap_asgi.services.fastapi import include_agentmap_routes

pytestmark = pytest.mark.anyio


async def signed(request: Request, token: str = "") -> str:
    return token


async def tenant(who: Annotated[str, Depends(signed)], org: Annotated[str, Query(alias="o")] = "") -> None:
    """A dependency of the host's."""


faces = pytest.mark.parametrize("face", FACES)


@faces
async def test_a_parameter_that_nobody_knows_is_refused(face: str, tmp_path: Path) -> None:
    """A filter with a mistake in it would list everything; what the host reads itself passes."""
    async with serving(tmp_path, face, settings={"host_parameters": ["access_token"]}) as served:
        answer = await served.http.get("/executions?statsu=failed&limit=1")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["detail"] == "A query parameter is unknown; did you mean 'status'?"
        assert [error["code"] for error in answer.json()["errors"]] == ["unknown_parameter"]
        answer = await served.http.get("/executions?zzz=1")
        assert "there are graph, status, since, until, tag" in answer.json()["detail"]
        assert (await served.http.get("/executions?access_token=x&limit=1")).status_code == 200
        for path in ("/executions/x?wiat=1", "/executions/x/events?aftr=1", "/executions/x/stream?folow=true"):
            assert (await served.http.get(path)).status_code == 422, path
        for path in ("/health?probe=1", "/list?_=17"):
            assert (await served.http.get(path)).status_code == 200, path


async def test_parameters_of_the_hosts_dependencies_are_known(tmp_path: Path) -> None:
    """Those of FastAPI's functions and of its API keys in the query."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "flows.csv").write_text("GraphName,Node\nA,B\n", encoding="utf-8")

    app = FastAPI()
    key = APIKeyQuery(name="key", auto_error=False)
    service = await to_thread.run_sync(
        lambda: include_agentmap_routes(app, csv_file=tmp_path / "flows", dependencies=[Depends(tenant), Security(key)])
    )
    async with client_of(app, prefix="/workflows") as http:
        assert (await http.get("/executions?token=a&o=b&key=c")).status_code == 200
        assert (await http.get("/executions?org=b")).status_code == 422
    await service.aclose()


async def test_callers_are_told_nothing_of_the_stores_own_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They get one sentence; the log has the rest."""
    why = "The store cannot be read just now: unable to open /srv/secret/agentmap.db"

    class Away(AgentMapService):
        """A service whose store cannot be reached."""

        async def get_execution_status(self, execution_id: str) -> dict[str, Any]:
            raise StoreUnavailable(why)

    async with serving(tmp_path, kind=Away) as served:
        for _ in range(2):
            answer = await served.http.get("/executions/x")
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "secret" not in answer.text
    assert caplog.text.count(why) == 1
