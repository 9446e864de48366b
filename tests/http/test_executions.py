"""Executions as a resource: started, looked at, answered, cancelled, retried, forgotten; and by whom."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from faces import client as client_of
from going import CSV, FACES, PREFIX, STORES, ask, serving, user

from agentmap_asgi import AgentMapConfig, AgentMapContext, AgentMapService, Call, Suspend, agent
from agentmap_asgi.testing import FakeClock

pytestmark = pytest.mark.anyio

faces = pytest.mark.parametrize("face", FACES)
stores = pytest.mark.parametrize("store", STORES)


@faces
@stores
async def test_an_async_start_is_answered_at_once(face: str, store: str, tmp_path: Path) -> None:
    """202 with where to look and when; the links lead to what makes sense now."""
    async with serving(tmp_path, face, store) as served:
        body = {"graph_name": "Slow", "initial_state": {"name": "Ada"}, "mode": "async"}
        answer = await served.http.post("/execute", json=body)
        assert answer.status_code == 202
        found = answer.json()
        own = f"/workflows/executions/{found['execution_id']}"
        assert answer.headers["location"] == own
        assert answer.headers["retry-after"] == "1"
        assert (found["success"], found["result"], found["completed_at"]) == (None, None, None)
        names = ("events", "stream", "graph", "nodes", "cancel")
        assert found["links"] == {"self": own, "workflow": "/workflows/Slow"} | {n: f"{own}/{n}" for n in names}
        await served.gate.reached.wait()
        now = (await served.http.get(own.removeprefix("/workflows"))).json()
        assert (now["status"], now["progress"]) == ("running", {"nodes_done": 1, "current": ["Gate"]})
        served.gate.opened.set()
        ended = await served.settled(found["execution_id"])
        assert (ended["status"], ended["result"]["after"]) == ("completed", "Bye Ada!")
        assert "retry" in ended["links"]
        assert "cancel" not in ended["links"]


@faces
@pytest.mark.parametrize("prefer", ["respond-async", "wait=5, respond-async", 'Respond-Async;x="y"'])
async def test_a_caller_may_prefer_not_to_wait(face: str, prefer: str, tmp_path: Path) -> None:
    """`Prefer: respond-async` is obeyed and said to be; one that would wait a little gets what is there by then."""
    async with serving(tmp_path, face) as served:
        served.gate.opened.set()
        answer = await served.http.post("/execute", json={"graph_name": "Slow"}, headers={"prefer": prefer})
        if "wait" in prefer:
            assert (answer.status_code, answer.json()["status"]) == (200, "completed")
        else:
            assert answer.status_code == 202
            assert answer.headers["preference-applied"] == "respond-async"


@faces
@stores
async def test_what_takes_longer_than_the_wait_goes_on(face: str, store: str, tmp_path: Path) -> None:
    """A sync call that is not over in time is a 202, and nothing is lost."""
    async with serving(tmp_path, face, store) as served:
        answer = await served.http.post("/execute/Slow", json={"inputs": {"name": "Ada"}, "wait_seconds": 0.01})
        assert answer.status_code == 202
        assert answer.headers["location"].endswith(answer.json()["execution_id"])
        assert answer.json()["outputs"] is None
        served.gate.opened.set()
        assert (await served.settled(answer.json()["execution_id"]))["status"] == "completed"


async def test_the_server_says_how_long_a_request_may_wait(tmp_path: Path) -> None:
    """`wait_seconds` of the settings caps that of the body."""
    async with serving(tmp_path, settings={"wait_seconds": 0.01}) as served:
        answer = await served.http.post("/execute", json={"graph_name": "Slow", "wait_seconds": 1000})
        assert answer.status_code == 202


@faces
@stores
async def test_an_execution_that_waits_is_answered(face: str, store: str, tmp_path: Path) -> None:
    """A suspended one is a 200; resuming answers its wait, once; AgentMap's own path does the same."""
    async with serving(tmp_path, face, store) as served:
        for path in ("/executions/{}/resume", "/resume/{}"):
            first = await served.http.post("/execute", json={"graph_name": "Ask"})
            assert (first.status_code, first.json()["status"], first.json()["success"]) == (200, "suspended", None)
            execution_id = first.json()["execution_id"]
            assert first.json()["links"]["resume"].endswith("/resume")
            where = path.format(execution_id)
            wrong = await served.http.post(where, json={"action": "answer", "data": 1})
            assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/action")
            answer = await served.http.post(where, json={"action": "approve", "data": {"comment": "fine"}})
            assert answer.status_code == 200
            ended = await served.settled(execution_id)
            assert ended["result"]["answer"] == {"approved": True, "comment": "fine", "by": None}
            again = await served.http.post(where, json={"action": "approve"})
            assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_several_waits_are_told_apart(tmp_path: Path) -> None:
    """Without a node it is a 409 that lists them; each is answered by itself."""
    async with serving(tmp_path) as served:
        started = await served.http.post("/execute", json={"graph_name": "Both"})
        path = f"/executions/{started.json()['execution_id']}/resume"
        refused = await served.http.post(path, json={"action": "approve"})
        assert refused.status_code == 409
        waits = [error["message"] for error in refused.json()["errors"]]
        assert [wait.partition("#")[0] for wait in waits] == ["Ada", "Bob"]
        assert (await served.http.post(path, json={"action": "approve", "node": "Eve"})).status_code == 409
        assert (await served.http.post(path, json={"action": "reject", "node": "Ada"})).status_code == 200
        assert (await served.http.post(path, json={"action": "approve", "token": waits[1]})).status_code == 200
        ended = await served.settled(started.json()["execution_id"])
        assert (ended["result"]["ada_says"]["approved"], ended["result"]["bob_says"]["approved"]) == (False, True)


async def test_resuming_may_end_it(tmp_path: Path) -> None:
    """The action `cancel` is a cancel."""
    async with serving(tmp_path) as served:
        started = await served.http.post("/execute", json={"graph_name": "Ask"})
        path = f"/executions/{started.json()['execution_id']}/resume"
        assert (await served.http.post(path, json={"action": "cancel"})).json()["status"] == "cancelled"


@faces
@stores
async def test_cancelling_ends_an_execution(face: str, store: str, tmp_path: Path) -> None:
    """At once, with the state so far; one that has ended stays as it is."""
    async with serving(tmp_path, face, store) as served:
        made = await served.start("Slow", initial_state={"name": "Ada"})
        await served.gate.reached.wait()
        for _ in range(2):
            answer = await served.http.post(f"/executions/{made['execution_id']}/cancel")
            assert answer.status_code == 200
            assert (answer.json()["status"], answer.json()["success"]) == ("cancelled", False)
            assert answer.json()["result"]["before"] == "Hello Ada!"


@faces
@stores
async def test_a_failed_execution_is_retried_as_a_new_one(face: str, store: str, tmp_path: Path) -> None:
    """201 with its place; what had finished is kept. A dry run only tells."""
    async with serving(tmp_path, face, store) as served:
        failed = (await served.http.post("/execute", json={"graph_name": "Fails"})).json()
        assert failed["status"] == "failed"
        path = f"/executions/{failed['execution_id']}/retry"
        dry = await served.http.post(path, json={"dry_run": True})
        assert (dry.status_code, dry.json()["nodes"], dry.json()["keeps"]) == (200, ["Second#1"], 1)
        answer = await served.http.post(path)
        assert answer.status_code == 201
        made = answer.json()
        assert answer.headers["location"] == f"/workflows/executions/{made['execution_id']}"
        assert made["retry_of"] == failed["execution_id"]
        ended = await served.settled(made["execution_id"])
        assert (ended["status"], ended["result"]["second"]) == ("completed", "second")
        patched = await served.http.post(path, json={"from": "start", "state_patch": {"name": "Bob"}})
        assert (await served.settled(patched.json()["execution_id"]))["result"]["name"] == "Bob"
        wrong = await served.http.post(path, json={"from": "failed", "definition": "newest", "form": "x"})
        assert {error["pointer"] for error in wrong.json()["errors"]} == {"/definition", "/form"}


async def test_what_goes_on_is_not_retried_or_deleted(tmp_path: Path) -> None:
    """409 says that it has to end first."""
    async with serving(tmp_path) as served:
        made = await served.start("Slow")
        for method, verb in (("POST", "/retry"), ("DELETE", "")):
            refused = await served.http.request(method, f"/executions/{made['execution_id']}{verb}")
            assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


@faces
@stores
async def test_a_deleted_execution_is_gone(face: str, store: str, tmp_path: Path) -> None:
    """Its state and its events are erased."""
    async with serving(tmp_path, face, store) as served:
        made = (await served.http.post("/execute", json={"graph_name": "Hello"})).json()
        answer = await served.http.delete(f"/executions/{made['execution_id']}")
        assert (answer.status_code, answer.content) == (204, b"")
        for path in ("", "/events", "/stream", "/graph", "/nodes"):
            gone = await served.http.get(f"/executions/{made['execution_id']}{path}")
            assert (gone.status_code, gone.json()["code"]) == (404, "execution_unknown")


@faces
@stores
async def test_a_used_id_is_a_conflict(face: str, store: str, tmp_path: Path) -> None:
    """Whether the first goes on or has ended. Dots and colons are fine in ids."""
    async with serving(tmp_path, face, store) as served:
        for name in ("Hello", "Slow"):
            body = {"graph_name": name, "execution_id": f"order:{name}.1", "wait_seconds": 0.01}
            assert (await served.http.post("/execute", json=body)).status_code in (200, 202)
            again = await served.http.post("/execute", json=body)
            assert (again.status_code, again.json()["code"]) == (409, "conflict")
            assert (await served.http.get(f"/executions/order:{name}.1")).json()["graph_name"] == name


async def test_an_id_of_another_namespace_is_a_conflict(tmp_path: Path) -> None:
    """The same 409 as for an id of one's own: nothing is told of the other namespace."""
    async with serving(tmp_path, store="sqlite", settings={"namespace": "one"}) as served:
        body = {"graph_name": "Hello", "execution_id": "order-1"}
        assert (await served.http.post("/execute", json=body)).status_code == 200
        own = await served.http.post("/execute", json=body)
    async with serving(tmp_path, store="sqlite", settings={"namespace": "two"}) as served:
        theirs = await served.http.post("/execute", json=body)
        assert (theirs.status_code, theirs.json()["code"]) == (409, "conflict")
        assert theirs.json()["detail"] == own.json()["detail"]
        assert (await served.http.get("/executions/order-1")).status_code == 404


@faces
@stores
async def test_events_tell_what_happened(face: str, store: str, tmp_path: Path) -> None:
    """In order, without gaps, from wherever one wants; the last is the only terminal one."""
    async with serving(tmp_path, face, store) as served:
        body = {"graph_name": "Hello", "initial_state": {"name": "Ada"}}
        made = (await served.http.post("/execute", json=body)).json()
        path = f"/executions/{made['execution_id']}/events"
        found = (await served.http.get(path)).json()
        numbers = [event["sequence"] for event in found["events"]]
        assert numbers == list(range(1, 7))
        assert [event["is_terminal"] for event in found["events"]] == [False] * 5 + [True]
        assert {event["graph_name"] for event in found["events"]} == {"Hello"}
        assert (found["last_sequence"], found["complete"]) == (6, True)
        for after in range(7):
            rest = (await served.http.get(f"{path}?after={after}")).json()["events"]
            assert rest == found["events"][after:]
        assert (await served.http.get(f"{path}?after=x")).status_code == 422


@faces
@stores
async def test_the_drawing_shows_what_became_of_each_node(face: str, store: str, tmp_path: Path) -> None:
    """While it runs, while it waits, and at the end."""
    async with serving(tmp_path, face, store) as served:

        async def states(execution_id: str) -> dict[str, str]:
            drawn = (await served.http.get(f"/executions/{execution_id}/graph")).json()
            return {node["id"]: node["state"] for node in drawn["nodes"]}

        made = await served.start("Slow", initial_state={"name": "Ada"})
        await served.gate.reached.wait()
        assert await states(made["execution_id"]) == {"Before": "completed", "Gate": "running", "After": "pending"}
        drawn = (await served.http.get(f"/executions/{made['execution_id']}/graph")).json()
        assert [edge["taken"] for edge in drawn["edges"]] == [1, 0]
        assert drawn["nodes"][0]["state_delta"] == {"before": "Hello Ada!"}
        await served.http.post(f"/executions/{made['execution_id']}/cancel")
        assert await states(made["execution_id"]) == {"Before": "completed", "Gate": "cut", "After": "skipped"}
        asks = (await served.http.post("/execute", json={"graph_name": "Ask"})).json()
        assert await states(asks["execution_id"]) == {"Ask": "waiting", "Told": "pending"}
        fails = (await served.http.post("/execute", json={"graph_name": "Fails"})).json()
        assert await states(fails["execution_id"]) == {"First": "completed", "Second": "failed"}
        image = await served.http.get(f"/executions/{fails['execution_id']}/graph?format=svg")
        assert image.headers["content-type"] == "image/svg+xml; charset=utf-8"
        assert 'class="node entry completed" data-node="First"' in image.text
        assert 'class="node failed" data-node="Second"' in image.text
        assert (await served.http.get(f"/executions/{fails['execution_id']}/graph?format=dot")).status_code == 422


@faces
@stores
async def test_a_list_is_read_page_by_page(face: str, store: str, tmp_path: Path) -> None:
    """The newest first; `Link` leads on until there is no more, and nothing comes twice or is left out."""
    async with serving(tmp_path, face, store) as served:
        made = []
        for number in range(7):
            body = {"graph_name": "Hello", "tags": ["even" if number % 2 == 0 else "odd", "all"]}
            made.append((await served.http.post("/execute", json=body)).json()["execution_id"])
        path, found = "/executions?limit=3&tag=all", []
        while path:
            answer = await served.http.get(path)
            page = answer.json()
            found += [one["execution_id"] for one in page["executions"]]
            link = answer.headers.get("link", "")
            assert bool(link) == (page["next_cursor"] is not None)
            assert not link or link.endswith('>; rel="next"')
            path = link[1 : link.find(">")].removeprefix("/workflows")
        assert found == made[::-1]
        even = (await served.http.get("/executions?tag=even&limit=4")).json()
        assert [one["execution_id"] for one in even["executions"]] == made[::-2]
        assert even["next_cursor"] is None


@faces
@stores
async def test_a_list_is_narrowed(face: str, store: str, tmp_path: Path) -> None:
    """By workflow (name or id), state, time and tag."""
    async with serving(tmp_path, face, store) as served:
        hello = (await served.http.post("/execute", json={"graph_name": "Hello"})).json()
        asks = (await served.http.post("/execute", json={"graph_name": "Ask"})).json()
        slow = await served.start("Slow")
        ids = {hello["execution_id"]: "hello", asks["execution_id"]: "asks", slow["execution_id"]: "slow"}

        async def named(query: str) -> list[str]:
            answer = await served.http.get("/executions", params=query)
            assert answer.status_code == 200, answer.text
            return [ids[one["execution_id"]] for one in answer.json()["executions"]]

        assert await named("") == ["slow", "asks", "hello"]
        assert await named("graph=Hello") == await named("graph=flows::Hello") == await named("graph=flows/Hello")
        assert await named("graph=Hello") == ["hello"]
        assert await named("status=suspended") == ["asks"]
        assert await named("status=running,completed") == ["slow", "hello"]
        assert await named(f"since={asks['created_at']}") == ["slow", "asks"]
        assert await named(f"until={asks['created_at']}") == ["hello"]
        assert await named("waiting_for=me") == ["asks"]


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=201", "limit=x", "status=done", "since=yesterday", "until=2026-01-01T00:00:00"),
        *("cursor=x", "cursor=%C3%A4", "cursor=MTIz", "waiting_for=you"),
    ],
)
async def test_a_wrong_filter_is_named(query: str, tmp_path: Path) -> None:
    """422 with the parameter's name as the code."""
    async with serving(tmp_path) as served:
        answer = await served.http.get(f"/executions?{query}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, query.partition("=")[0])


@pytest.mark.parametrize("tags", [["x"] * 21, ["x" * 65], [""], "x", [1]])
async def test_tags_are_few_and_short(tags: Any, tmp_path: Path) -> None:
    """At most 20 of at most 64 characters."""
    async with serving(tmp_path) as served:
        answer = await served.http.post("/execute", json={"graph_name": "Hello", "tags": tags})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].startswith("/tags")


VERBS: tuple[tuple[str, str, Any], ...] = (
    *(("GET", path, None) for path in ("", "/events", "/stream", "/graph", "/nodes")),
    *(("POST", path, {}) for path in ("/cancel", "/resume", "/retry")),
    ("DELETE", "", None),
)


@faces
@stores
async def test_others_do_not_see_an_execution(face: str, store: str, tmp_path: Path) -> None:
    """Every verb is the 404 of an execution that is not there, and it is in no list of theirs."""
    async with serving(tmp_path, face, store, authenticate=user) as served:
        made = await served.start("Slow", "ada")
        for method, path, body in VERBS:
            for execution_id in (made["execution_id"], "nothing"):
                answer = await served.http.request(
                    method, f"/executions/{execution_id}{path}", json=body, headers={"x-user": "bob"}
                )
                assert (answer.status_code, answer.json()["code"]) == (404, "execution_unknown"), path
        assert (await served.http.get("/executions", headers={"x-user": "bob"})).json()["executions"] == []
        assert len((await served.http.get("/executions", headers={"x-user": "ada"})).json()["executions"]) == 1
        assert made["owner"] == "ada"


async def test_callers_whom_nobody_knows_share(tmp_path: Path) -> None:
    """Where nobody is asked who he is, all see all; an operation that is open to strangers shows them nobody's."""
    async with serving(tmp_path) as served:
        await served.service.execute_workflow("Hello", {}, {"principal": "ada"})
        assert len((await served.http.get("/executions")).json()["executions"]) == 1
    async with serving(tmp_path, authenticate=user, public={"executions", "execution"}) as served:
        found = await served.service.execute_workflow("Hello", {}, {"principal": "ada"})
        free = await served.service.execute_workflow("Hello", {})
        listed = (await served.http.get("/executions")).json()["executions"]
        assert [one["execution_id"] for one in listed] == [free["execution_id"]]
        assert (await served.http.get(f"/executions/{found['execution_id']}")).status_code == 404


@faces
@stores
async def test_who_is_asked_sees_the_question_and_no_more(face: str, store: str, tmp_path: Path) -> None:
    """An assignee, by id or by role, sees and answers his wait; all else is not there for him."""
    async with serving(tmp_path, face, store, authenticate=user) as served:
        state = {"ada": "ada", "bob": "role:boss", "secret": "hush"}
        made = (
            await served.http.post(
                "/execute", json={"graph_name": "Both", "initial_state": state}, headers={"x-user": "eve"}
            )
        ).json()
        path = f"/executions/{made['execution_id']}"
        for who, node in (("ada", "Ada"), ("bill:boss", "Bob")):
            headers = {"x-user": who}
            listed = (await served.http.get("/executions?waiting_for=me", headers=headers)).json()["executions"]
            assert [one["execution_id"] for one in listed] == [made["execution_id"]]
            assert (await served.http.get("/executions", headers=headers)).json()["executions"] == []
            seen = (await served.http.get(path, headers=headers)).json()
            assert seen.keys() == {"execution_id", "graph_name", "status", "waiting", "links"}
            assert listed[0] == seen
            assert [wait["node"] for wait in seen["waiting"]] == [node]
            assert seen["links"].keys() == {"self", "resume"}
            for method, verb, body in VERBS:
                if verb not in ("", "/resume") or method == "DELETE":
                    answer = await served.http.request(method, path + verb, json=body, headers=headers)
                    assert answer.status_code == 404, verb
            other = {"action": "approve", "node": "Bob" if node == "Ada" else "Ada"}
            assert (await served.http.post(f"{path}/resume", json=other, headers=headers)).status_code == 409
            ending = await served.http.post(f"{path}/resume", json={"action": "cancel"}, headers=headers)
            assert ending.status_code == 403
            answer = await served.http.post(f"{path}/resume", json={"action": "approve"}, headers=headers)
            assert (answer.status_code, answer.json()["waiting"]) == (200, [])
            assert "hush" not in answer.text
            assert (await served.http.get(path, headers=headers)).status_code == 404, "it asks him nothing more"
            ended = await served.settled(made["execution_id"], "eve")
        assert (ended["result"]["ada_says"]["by"], ended["result"]["bob_says"]["by"]) == ("ada", "bill")


async def test_the_owner_does_not_answer_for_those_who_are_asked(tmp_path: Path) -> None:
    """403: whoever asks for an approval does not give it."""
    async with serving(tmp_path, authenticate=user) as served:
        body = {"graph_name": "Ask", "initial_state": {"who": "bob"}}
        made = (await served.http.post("/execute", json=body, headers={"x-user": "ada"})).json()
        path = f"/executions/{made['execution_id']}/resume"
        assert (await served.http.post(path, json={"action": "approve"}, headers={"x-user": "ada"})).status_code == 403
        assert (await served.http.post(path, json={"action": "approve"}, headers={"x-user": "bob"})).status_code == 200
        mine = (await served.http.get("/executions?waiting_for=me", headers={"x-user": "ada"})).json()
        assert mine["executions"] == []


@faces
async def test_authorize_widens_and_refuses(face: str, tmp_path: Path) -> None:
    """It is asked about the execution, as its document; "any" lets at what is not the caller's own."""
    asked: list[tuple[Any, ...]] = []

    async def authorize(principal: Any, operation: str, graph: Any, execution: Any) -> Any:
        if execution is not None:
            asked.append((principal.id, operation, graph, execution["owner"]))
        if "operator" in principal.roles:
            return "any"
        return operation not in ("cancel", "delete")

    async with serving(tmp_path, face, authenticate=user, authorize=authorize) as served:
        made = await served.start("Slow", "ada")
        path = f"/executions/{made['execution_id']}"
        assert (await served.http.post(f"{path}/cancel", headers={"x-user": "ada"})).status_code == 403
        assert ("ada", "cancel", "flows::Slow", "ada") in asked
        assert (await served.http.post(f"{path}/cancel", headers={"x-user": "bob"})).status_code == 404
        operator = {"x-user": "olga:operator"}
        assert len((await served.http.get("/executions", headers=operator)).json()["executions"]) == 1
        assert (await served.http.post(f"{path}/cancel", headers=operator)).json()["status"] == "cancelled"
        again = await served.http.post(f"{path}/retry", json={"from": "start"}, headers=operator)
        assert again.json()["owner"] == "ada", "what an operator runs again stays its owner's"
        await served.http.post(f"/executions/{again.json()['execution_id']}/cancel", headers=operator)
        assert (await served.http.delete(path, headers=operator)).status_code == 204


@faces
async def test_resuming_to_cancel_is_a_cancel_to_authorize(face: str, tmp_path: Path) -> None:
    """Who may answer and not cancel does not get to cancel by way of `resume`; who may cancel does."""

    async def authorize(principal: Any, operation: str, graph: Any, execution: Any) -> bool:
        return operation != ("cancel" if "clerk" in principal.roles else "resume")

    async with serving(tmp_path, face, authenticate=user, authorize=authorize) as served:
        clerk, boss = {"x-user": "ada:clerk"}, {"x-user": "ada:boss"}
        made = (await served.http.post("/execute", json={"graph_name": "Ask"}, headers=clerk)).json()
        path = f"/executions/{made['execution_id']}/resume"
        refused = await served.http.post(path, json={"action": "cancel"}, headers=clerk)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert (await served.service.get_execution_status(made["execution_id"]))["status"] == "suspended"
        ended = await served.http.post(path, json={"action": "cancel"}, headers=boss)
        assert (ended.status_code, ended.json()["status"]) == (200, "cancelled")


@faces
async def test_an_answer_goes_to_the_wait_that_was_checked(face: str, tmp_path: Path) -> None:
    """The service is told the path of a wait that the caller may answer; without one it is not asked at all."""
    asked: list[str | None] = []

    class Watched(AgentMapService):
        async def resume_execution(
            self,
            execution_id: str,
            action: str = "answer",
            data: Any = None,
            *,
            node: str | None = None,
            by: str | None = None,
        ) -> dict[str, Any]:
            asked.append(node)
            return await super().resume_execution(execution_id, action, data, node=node, by=by)

    async with serving(tmp_path, face, kind=Watched) as served:
        going = await served.start("Slow")
        early = await served.http.post(f"/executions/{going['execution_id']}/resume", json={"action": "approve"})
        assert (early.status_code, early.json()["detail"]) == (409, "Nothing waits for an answer")
        assert asked == []
        made = (await served.http.post("/execute", json={"graph_name": "Ask"})).json()
        path = f"/executions/{made['execution_id']}/resume"
        assert (await served.http.post(path, json={"action": "approve"})).status_code == 200
        assert asked == ["Ask#1"]


async def test_an_answer_that_comes_too_late_is_gone(tmp_path: Path) -> None:
    """410, also when the execution has ended meanwhile."""
    clock = FakeClock()

    @agent
    async def hurried(call: Call) -> Suspend:
        return Suspend("Now?", type="approval", expires_in=1)

    settings = {"patrol_seconds": 0.01}
    async with serving(tmp_path, settings=settings, agents={"ask": hurried}, clock=clock) as served:
        made = (await served.http.post("/execute", json={"graph_name": "Ask"})).json()
        path = f"/executions/{made['execution_id']}"
        clock.advance(1)
        while (seen := await served.http.get(path)).json()["status"] not in ("failed", "completed"):
            assert seen.status_code == 200
            await asyncio.sleep(0.01)
        for named in ({}, {"node": "Ask"}, {"token": "Ask#1"}):
            late = await served.http.post(f"{path}/resume", json={"action": "approve", **named})
            assert (late.status_code, late.json()["code"]) == (410, "gone")


async def test_a_status_is_waited_for(tmp_path: Path) -> None:
    """`?wait=` answers when something has changed."""
    async with serving(tmp_path) as served:
        made = await served.start("Slow")
        await served.gate.reached.wait()
        served.gate.opened.set()
        answer = await served.http.get(f"/executions/{made['execution_id']}?wait=20")
        assert answer.json()["status"] == "completed"
        for wrong in ("x", "-1", "1e3", ".5", "1."):
            assert (await served.http.get(f"/executions/{made['execution_id']}?wait={wrong}")).status_code == 422


@faces
async def test_a_store_that_cannot_be_used_is_unavailable(
    face: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """503 for whatever needs it, and not ready; the reason, which names a path, is in the log, once."""
    (tmp_path / "executions.db").write_text("These are notes.")
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "flows.csv").write_text(CSV, encoding="utf-8")
    config = AgentMapConfig(storage_url=f"sqlite:///{tmp_path / 'executions.db'}")
    context = AgentMapContext(agents={"gate": ask, "ask": ask, "once": ask})
    service = await to_thread.run_sync(partial(AgentMapService, config, context=context, source=tmp_path / "flows"))
    app = await to_thread.run_sync(FACES[face], service)
    async with client_of(app, prefix=PREFIX) as http:
        said = "The store of this service cannot be used; the log has the reason"
        ready = await http.get("/ready")
        assert (ready.status_code, ready.json()["ready"], ready.json()["reason"]) == (503, False, said)
        for answer in (
            await http.post("/execute", json={"graph_name": "Hello"}),
            await http.post("/execute/Hello", json={"inputs": {}}),
            await http.get("/executions"),
            await http.get("/executions/some"),
        ):
            found = answer.json()
            assert (answer.status_code, found["code"], found["detail"]) == (503, "store_unusable", said)
            assert answer.headers["retry-after"] == "1"
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/list")).status_code == 200
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert str(tmp_path / "executions.db") in told[0].getMessage()
    await service.aclose()


@faces
@stores
async def test_nobody_learns_which_ids_others_have_chosen(face: str, store: str, tmp_path: Path) -> None:
    """Each caller has ids of his own: the same one is no conflict, and each finds his own execution under it, by every
    operation. A caller's own id that is taken is a conflict.
    """
    async with serving(tmp_path, face, store, authenticate=user) as served:
        for who in ("ada", "bob"):
            body = {"graph_name": "Ask", "initial_state": {"who": f"of {who}"}, "execution_id": "mine"}
            headers = {"x-user": who}
            made = await served.http.post("/execute", json=body, headers=headers)
            assert made.status_code == 200, made.text
            found = made.json()
            assert (found["execution_id"], found["thread_id"]) == ("mine", "mine")
            assert found["links"]["self"] == "/workflows/executions/mine"
            again = await served.http.post("/execute", json=body, headers=headers)
            assert (again.status_code, again.json()["code"]) == (409, "conflict")
            assert "~" not in again.text
        for who in ("ada", "bob"):
            headers = {"x-user": who}
            for path in ("", "/events", "/nodes", "/graph"):
                answer = await served.http.get(f"/executions/mine{path}", headers=headers)
                assert (answer.status_code, answer.json()["execution_id"]) == (200, "mine"), path
                assert "~" not in answer.text
            assert (await served.http.get("/executions/mine", headers=headers)).json()["owner"] == who
            listed = (await served.http.get("/executions", headers=headers)).json()["executions"]
            assert [one["execution_id"] for one in listed] == ["mine"]
            assert listed[0]["links"]["self"] == "/workflows/executions/mine"
        cancelled = await served.http.post("/executions/mine/cancel", headers={"x-user": "bob"})
        assert (cancelled.json()["status"], cancelled.json()["execution_id"]) == ("cancelled", "mine")
        stream = await served.http.get("/executions/mine/stream", headers={"x-user": "bob"})
        assert '"execution_id":"mine"' in stream.text
        retried = await served.http.post("/executions/mine/retry", json={"from": "start"}, headers={"x-user": "bob"})
        assert (retried.status_code, retried.json()["retry_of"]) == (201, "mine")
        assert (await served.http.get("/executions/mine", headers={"x-user": "ada"})).json()["status"] == "suspended"
        assert (await served.http.get("/executions/mine", headers={"x-user": "eve"})).status_code == 404
        assert (await served.http.delete("/executions/mine", headers={"x-user": "bob"})).status_code == 204
        assert (await served.http.get("/executions/mine", headers={"x-user": "bob"})).status_code == 404
