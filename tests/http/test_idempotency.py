"""The same key starts the same execution, once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from going import FACES, STORES, serving, user

from agentmap_asgi import AgentMapService

pytestmark = pytest.mark.anyio

faces = pytest.mark.parametrize("face", FACES)
stores = pytest.mark.parametrize("store", STORES)

HELLO = {"graph_name": "Hello", "initial_state": {"name": "Ada"}}
REPLAYED = "idempotent-replayed"


@faces
@stores
async def test_the_same_request_is_the_same_execution(face: str, store: str, tmp_path: Path) -> None:
    """The second answer is the first one's document, and says that it is a replay."""
    async with serving(tmp_path, face, store) as served:
        first, second = [
            await served.http.post("/execute", json=HELLO, headers={"idempotency-key": "k-1"}) for _ in range(2)
        ]
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json() == second.json()
        assert REPLAYED not in first.headers
        assert second.headers[REPLAYED] == "true"
        named = await served.http.post(
            "/execute/Hello", json={"inputs": {"name": "Ada"}}, headers={"idempotency-key": "k-1"}
        )
        assert named.json()["execution_id"] == first.json()["execution_id"], "whichever path it is asked through"


@faces
@stores
async def test_another_request_under_the_key_is_refused(face: str, store: str, tmp_path: Path) -> None:
    """422; another workflow has keys of its own."""
    async with serving(tmp_path, face, store) as served:
        headers = {"idempotency-key": "k"}
        assert (await served.http.post("/execute", json=HELLO, headers=headers)).status_code == 200
        for more in ({"initial_state": {"name": "Bob"}}, {"context": {"a": 1}}, {"tags": ["a"]}):
            answer = await served.http.post("/execute", json={**HELLO, **more}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        other = await served.http.post("/execute", json={"graph_name": "Ask"}, headers=headers)
        assert other.status_code == 200


@faces
@stores
async def test_fifty_racing_requests_start_one_execution(face: str, store: str, tmp_path: Path) -> None:
    """All get its document, and all but one are replays."""
    async with serving(tmp_path, face, store) as served:
        body = {"graph_name": "Slow", "initial_state": {"name": "Ada"}}
        racing = [
            asyncio.ensure_future(served.http.post("/execute", json=body, headers={"idempotency-key": "race"}))
            for _ in range(50)
        ]
        await served.gate.reached.wait()
        served.gate.opened.set()
        answers = await asyncio.gather(*racing)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["execution_id"] for answer in answers}) == 1
        assert {answer.json()["status"] for answer in answers} == {"completed"}
        assert sum(REPLAYED in answer.headers for answer in answers) == 49
        assert len((await served.http.get("/executions")).json()["executions"]) == 1


async def test_keys_belong_to_their_callers(tmp_path: Path) -> None:
    """Somebody else's key of the same name is another one."""
    async with serving(tmp_path, authenticate=user) as served:
        ids = set()
        for who in ("ada", "bob"):
            answer = await served.http.post("/execute", json=HELLO, headers={"idempotency-key": "k", "x-user": who})
            ids.add(answer.json()["execution_id"])
        assert len(ids) == 2


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "ä".encode()])
async def test_a_key_is_visible_ascii(key: Any, tmp_path: Path) -> None:
    """Of at most 255 characters."""
    async with serving(tmp_path) as served:
        answer = await served.http.post("/execute", json=HELLO, headers=[(b"idempotency-key", key)])
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "idempotency_key")


async def test_what_was_refused_keeps_no_key(tmp_path: Path) -> None:
    """The request may be mended and sent again under the same key."""
    async with serving(tmp_path) as served:
        headers = {"idempotency-key": "k"}
        refused = await served.http.post("/execute", json={**HELLO, "initial_state": {"error": 1}}, headers=headers)
        assert refused.status_code == 422
        assert (await served.http.post("/execute", json=HELLO, headers=headers)).status_code == 200


@faces
@stores
async def test_items_of_a_batch_have_keys(face: str, store: str, tmp_path: Path) -> None:
    """Items with the same key are one execution, also in the next batch."""
    async with serving(tmp_path, face, store) as served:
        items = [{**HELLO, "idempotency_key": key} for key in ("a", "b", "a")]
        for _ in range(2):
            answer = (await served.http.post("/execute/batch", json={"executions": items})).json()
            ids = [item["execution"]["execution_id"] for item in answer["executions"]]
            assert ids[0] == ids[2] != ids[1]
        assert [item.get("replayed") for item in answer["executions"]] == [True, True, True]
        wrong = await served.http.post("/execute/batch", json={"executions": [{**HELLO, "idempotency_key": "a b"}]})
        assert wrong.json()["executions"][0]["error"]["errors"][0]["pointer"] == "/executions/0/idempotency_key"


class Wrapped(AgentMapService):
    """Overrides the call, as hosts do."""

    async def execute_workflow(self, *args: Any, **more: Any) -> dict[str, Any]:
        return {**await super().execute_workflow(*args, **more), "wrapped": True}


@faces
async def test_keys_and_waits_reach_through_an_override(face: str, tmp_path: Path) -> None:
    """A replay is a replay; what takes long is a 202, and goes on."""
    async with serving(tmp_path, face, kind=Wrapped) as served:
        headers = {"idempotency-key": "k"}
        body = {"graph_name": "Slow", "wait_seconds": 0.01}
        first = await served.http.post("/execute", json=body, headers=headers)
        second = await served.http.post("/execute", json={**body, "mode": "async"}, headers=headers)
        third = await served.http.post("/execute", json=body, headers=headers)
        assert [first.status_code, second.status_code, third.status_code] == [202] * 3
        assert [REPLAYED in answer.headers for answer in (first, second, third)] == [False, True, True]
        assert first.json()["execution_id"] == second.json()["execution_id"]
        served.gate.opened.set()
        ended = await served.http.post("/execute", json={"graph_name": "Slow"}, headers=headers)
        assert (ended.status_code, ended.json()["status"], ended.json()["wrapped"]) == (200, "completed", True)
        refused = await served.http.post("/execute", json={"graph_name": "Nobody", "mode": "async"})
        assert refused.status_code == 404
