"""Every operation, in every way a host can serve it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from faces import ASKED, GUARDED, ROWS, WAYS, Way, client, service_of
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from agentmap_asgi import AgentMapApp, AgentMapService
from agentmap_asgi.http.operations import OPERATIONS
from agentmap_asgi.workflows.checks import BEHIND, RESERVED

pytest_plugins = ("sources",)

every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
every_operation = pytest.mark.parametrize("name", ASKED)


def refuse(request: Request) -> None:
    return None


def test_each_operation_has_a_request() -> None:
    """The tests call all of the table."""
    assert list(ASKED) == [row.name for row in OPERATIONS]


def test_the_words_of_literal_paths_are_reserved() -> None:
    """No workflow can hide an operation, and none is hidden without being told so."""
    firsts = {row.path.split("/")[1] for row in OPERATIONS}
    assert {word for word in firsts if not word.startswith("{")} <= RESERVED
    # What stands behind an execution's id is no workflow's path: `executions` and `resume` are reserved.
    own = ("executions", "resume")
    others = {word for row in OPERATIONS if row.path.split("/")[1] not in own for word in row.path.split("/")[2:]}
    assert {word for word in others if not word.startswith("{")} <= RESERVED.union(BEHIND)


@pytest.mark.anyio
async def test_workflows_with_reserved_names_are_reached(tmp_path: Path) -> None:
    """Described under /workflows/{name}, started by the name in the body."""
    names = sorted(RESERVED.union(BEHIND))
    (tmp_path / "odd.csv").write_text("GraphName,Node\n" + "".join(f"{name},A\n" for name in names))
    made = await service_of(tmp_path)
    async with client(AgentMapApp(service=made)) as http:
        for name in names:
            found = await http.get(f"/workflows/{name}")
            assert (found.status_code, found.json().get("name")) == (200, name)
            assert (await http.get(found.json()["links"]["self"])).json()["name"] == name
            assert (await http.get(f"/workflows/odd::{name}/schema")).json()["title"] == name
            assert (await http.post("/execute", json={"graph_name": name})).json()["graph_name"] == name


@pytest.mark.anyio
@every_way
@every_operation
async def test_an_operation_answers(way: Way, name: str, granted: AgentMapService) -> None:
    """With 200, JSON (or its text) and a request id, wherever it is mounted."""
    async with way.client(granted) as http:
        answer = await ASKED[name].send(http, ROWS[name])
    assert answer.status_code == ASKED[name].status, answer.text
    assert answer.headers["x-request-id"]
    if answer.status_code == 204:
        assert not answer.content
        assert "content-type" not in answer.headers
    elif ROWS[name].answer is None:
        assert answer.headers["content-type"].startswith(ROWS[name].texts)
        assert answer.text
    else:
        assert answer.headers["content-type"] in ("application/json", "application/schema+json")
        assert answer.json()


@pytest.mark.anyio
@every_way
async def test_a_slash_at_the_end_is_tolerated(way: Way, granted: AgentMapService) -> None:
    """And never redirected: a redirect loses bodies and leads proxies astray."""
    async with way.client(granted) as http:
        for name, asked in ASKED.items():
            path, sign, query = asked.path.partition("?")
            answer = await replace(asked, path=f"{path}/{sign}{query}").send(http, ROWS[name])
            assert answer.status_code == asked.status, (name, answer.text)


@pytest.mark.anyio
@every_way
async def test_get_answers_head(way: Way, granted: AgentMapService) -> None:
    """HEAD has the headers of GET and no body; where there is no GET it is refused."""
    async with way.client(granted) as http:
        for name, asked in ASKED.items():
            answer = await http.head(await asked.ready(http))
            assert answer.content == b""
            if name != "execution_stream":
                assert int(answer.headers["content-length"]) > 0
            gets = ROWS[name].method == "GET" or name in ("delete", "answer_link")  # whose paths have a GET
            assert answer.status_code == (200 if gets else 405), name


@pytest.mark.anyio
@every_way
async def test_another_method_is_refused_with_the_right_one(way: Way, service: AgentMapService) -> None:
    """405 is a problem document and names the methods in `Allow`."""
    async with way.client(service) as http:
        for name, asked in ASKED.items():
            answer = await http.put(asked.path)
            methods = {row.method for row in OPERATIONS if row.path == ROWS[name].path}
            assert answer.status_code == 405, name
            assert answer.headers["allow"] == ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.anyio
@every_way
async def test_problems_name_the_path_that_the_client_used(way: Way, service: AgentMapService) -> None:
    """`instance` begins with the prefix of all mounts and proxies."""
    async with way.client(service) as http:
        for method, path in (("GET", "/Helo"), ("DELETE", "/list"), ("POST", "/execute/Helo%20%C3%A4")):
            answer = await http.request(method, path, json=None if method != "POST" else {})
            assert answer.status_code in (404, 405)
            assert answer.json()["instance"] == way.public + path
        batch = (await http.post("/execute/batch", json={"executions": [{}]})).json()
        assert batch["executions"][0]["error"]["instance"] == f"{way.public}/execute/batch"


@pytest.mark.anyio
@every_way
async def test_nothing_answers_without_credentials(way: Way, folder: Path) -> None:
    """`authenticate` guards every operation; None is a 401 that says how to authenticate, whatever the method. Only
    one-time links are credentials themselves.
    """
    service = await service_of(folder, authenticate=refuse)
    async with way.client(service) as http:
        for name, asked in GUARDED.items():
            answers = [await asked.send(http, ROWS[name]), await http.delete(asked.path)]
            for answer in answers:
                assert answer.status_code == 401, name
                assert answer.headers["www-authenticate"]
                assert answer.json()["code"] == "unauthenticated"
            assert (await http.head(asked.path)).status_code == 401


@pytest.mark.anyio
@every_way
async def test_public_opens_what_it_names(way: Way, folder: Path) -> None:
    """`public={"health", "ready"}` is for probes; the rest stays closed."""
    service = await service_of(folder, authenticate=refuse, public={"health", "ready"})
    async with way.client(service) as http:
        found = {name: (await asked.send(http, ROWS[name])).status_code for name, asked in ASKED.items()}
        wrong = {name: (await http.delete(asked.path)).status_code for name, asked in ASKED.items()}
    links = {name for name, row in ROWS.items() if row.open}  # which need no credentials, and are none that we made
    assert found == {name: 200 if name in ("health", "ready") else 404 if name in links else 401 for name in ASKED}
    assert wrong == {name: 405 if name in {"health", "ready", *links} else 401 for name in ASKED}


@pytest.mark.anyio
@every_way
async def test_the_host_may_answer_itself(way: Way, folder: Path) -> None:
    """A Response from `authenticate` is the answer."""

    async def authenticate(request: Request) -> Response:
        return PlainTextResponse("log in first", 303, {"location": "/login"})

    service = await service_of(folder, authenticate=authenticate)
    async with way.client(service) as http:
        answer = await http.get("/list")
    assert (answer.status_code, answer.text, answer.headers["location"]) == (303, "log in first", "/login")


@pytest.mark.anyio
@every_way
async def test_links_lead_back(way: Way, service: AgentMapService) -> None:
    """Links begin with the path that the client used, whatever proxies and mounts did to it, and can be followed."""
    async with way.client(service) as http:
        listed = (await http.get("/list")).json()["workflows"]
        run = (await http.post("/execute", json={"graph_name": "Hello"})).json()
        links = [link for name, link in run["links"].items() if name not in ("retry", "cancel", "resume")]
        links += [link for workflow in listed for name, link in workflow["links"].items() if name != "execute"]
        assert len(links) > len(listed)
        for link in links:
            assert link.startswith(f"{way.public}/")
            followed = await http.get(link.removeprefix(way.public))
            assert followed.status_code == 200, link


@pytest.mark.anyio
@every_way
async def test_the_description_names_its_server(way: Way, service: AgentMapService) -> None:
    """`servers` of the OpenAPI document is the prefix as clients see it."""
    async with way.client(service) as http:
        document = (await http.get("/openapi.json")).json()
    assert document["servers"] == [{"url": way.public or "/"}]


@pytest.mark.anyio
@every_way
async def test_path_parameters_of_the_mount_reach_the_run(way: Way, service: AgentMapService) -> None:
    """They beat what the body says of the same name."""
    body = {"graph_name": "Tell", "context": {"tenant": "mine", "colour": "red"}}
    async with way.client(service) as http:
        told = (await http.post("/execute", json=body)).json()["result"]["told"]
    assert told["colour"] == "red"
    assert {name: told.get(name) for name in way.params} == way.params
    assert told["tenant"] == way.params.get("tenant", "mine")
    assert "workflow_name" not in told


@pytest.mark.anyio
@every_way
async def test_reserved_names_are_reached_by_id(way: Way, service: AgentMapService) -> None:
    """The workflow called `list` does not hide the list."""
    async with way.client(service) as http:
        assert "workflows" in (await http.get("/list")).json()
        if way.name != "alone, at a root_path like a route":  # there `/workflows/list` is the list itself
            assert (await http.get("/workflows/list")).json()["name"] == "list"
        assert (await http.get("/workflows/greetings::list")).json()["name"] == "list"
        assert "executions" in (await http.get("/executions")).json()
