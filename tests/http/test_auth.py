"""Who may call, and what they may see."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from faces import GUARDED, ROWS, WAYS, Way, client, host_context, service_of
from starlette.exceptions import HTTPException
from starlette.requests import Request

from agentmap_asgi import AgentMapApp, AgentMapContext
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.http.auth import owner_of

pytest_plugins = ("sources",)

both = pytest.mark.parametrize("way", [WAYS[1], WAYS[-1]], ids=lambda way: way.name)


class User:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("principal", "owner"),
    [
        ("ada", "ada"),
        (User(id=7), "7"),
        (User(sub="s"), "s"),
        ({"sub": "s"}, "s"),
        ({"id": 1, "sub": "s"}, "1"),
        ({"id": 0}, "0"),
        ({"id": "", "sub": "s"}, "s"),
        (None, None),
    ],
)
def test_the_owner_is_a_text(principal: Any, owner: str | None) -> None:
    """The principal itself, its `id`, or its `sub`, of an object or a mapping."""
    assert owner_of(principal, AgentMapContext()) == owner


def test_the_host_may_say_what_the_owner_is() -> None:
    """`principal_key` is asked about every principal."""
    context = AgentMapContext(principal_key=lambda principal: principal["email"])
    assert owner_of({"email": "a@example.org", "id": 5}, context) == "a@example.org"


@pytest.mark.parametrize("given", [None, "", False])
def test_what_the_host_says_must_be_a_name(given: Any) -> None:
    """A `principal_key` that finds none is a mistake, not a caller called `None`."""
    with pytest.raises(TypeError, match="principal_key gives"):
        owner_of({"email": "a@example.org"}, AgentMapContext(principal_key=lambda principal: given))


@pytest.mark.parametrize("principal", [True, 5, {}, User(), ["ada"], 0, b"", {"id": ""}, User(id=None, sub="")])
def test_a_principal_without_a_name_is_a_mistake(principal: Any) -> None:
    """TypeError names the remedy."""
    with pytest.raises(TypeError, match="principal_key"):
        owner_of(principal, AgentMapContext())


@pytest.mark.anyio
@both
async def test_the_principal_reaches_the_run(way: Way, folder: Path) -> None:
    """As text, from a plain or a coroutine function."""

    async def authenticate(request: Request) -> User:
        assert request.headers["authorization"] == "Bearer t"
        return User(id=7)

    service = await service_of(folder, authenticate=authenticate)
    async with way.client(service, headers={"authorization": "Bearer t"}) as http:
        told = (await http.post("/execute", json={"graph_name": "Tell"})).json()["result"]["told"]
    assert told["principal"] == "7"


@pytest.mark.anyio
@both
async def test_a_principal_without_a_name_is_found_at_the_first_request(
    way: Way, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the operation; the log says what to do."""
    service = await service_of(folder, authenticate=lambda request: True)
    async with way.client(service) as http:
        assert (await http.get("/list")).status_code == 500
    assert "principal_key" in caplog.text


@pytest.mark.anyio
@both
async def test_authenticate_may_read_the_body(way: Way, folder: Path) -> None:
    """To check a signature, say; the operation reads it all the same, within its bounds."""

    async def authenticate(request: Request) -> str | None:
        return "signer" if b"signed" in await request.body() else None

    service = await service_of(folder, authenticate=authenticate)
    body = {"graph_name": "Hello", "initial_state": {"name": "signed"}}
    async with way.client(service) as http:
        assert (await http.post("/execute", json=body)).json()["result"]["greeting"] == "Hello signed!"
        assert (await http.post("/execute", json={"graph_name": "Hello"})).status_code == 401
        large = {"graph_name": "Hello", "initial_state": {"name": "signed" * 200_000}}
        assert (await http.post("/execute", json=large)).status_code == 413


@pytest.mark.anyio
@both
@pytest.mark.parametrize("found", [False, "", " "])
async def test_false_and_empty_texts_are_nobody(found: Any, way: Way, folder: Path) -> None:
    """As None; a header that was not sent is no name."""
    async with way.client(await service_of(folder, authenticate=lambda request: found)) as http:
        assert (await http.get("/list")).status_code == 401


@pytest.mark.anyio
@both
@pytest.mark.parametrize("found", [0, {}, [], b"", {"id": ""}])
async def test_other_empty_things_are_mistakes(found: Any, way: Way, folder: Path) -> None:
    """They have no name, so nobody gets in."""
    async with way.client(await service_of(folder, authenticate=lambda request: found)) as http:
        assert (await http.get("/list")).status_code == 500


@pytest.mark.anyio
@both
async def test_authenticate_may_raise_as_hosts_do(way: Way, folder: Path) -> None:
    """An HTTPException becomes a problem; another exception lets nobody in."""

    def refuse(request: Request) -> None:
        raise HTTPException(401, "who?", {"WWW-Authenticate": "Basic"})

    async with way.client(await service_of(folder, authenticate=refuse)) as http:
        answer = await http.get("/list")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Basic")
        assert answer.json()["detail"] == "who?"

    def fail(request: Request) -> None:
        raise OSError("the user database is gone")

    async with way.client(await service_of(folder, authenticate=fail)) as http:
        for name, asked in GUARDED.items():
            assert (await asked.send(http, ROWS[name])).status_code == 500
        assert "database" not in (await http.get("/list")).text


@pytest.mark.anyio
async def test_strangers_learn_nothing(folder: Path) -> None:
    """Paths that do not exist, methods that are not allowed, bodies that are wrong: all of it is a 401. The files of
    the page hold no data and are shown, when the page is on.
    """
    app = AgentMapApp(service=await service_of(folder, authenticate=lambda request: None))
    async with client(app) as http:
        for method, path in [
            ("GET", "/nope"),
            ("POST", "/nope/nope"),
            ("DELETE", "/list"),
            ("GET", "/audit"),
            ("PUT", "/health"),
        ]:
            assert (await http.request(method, path)).status_code == 401
        assert (await http.post("/execute", content=b"x" * 2_000_000)).status_code == 401
        assert (await http.get("/ui/")).status_code == 200


def may(principal: str, operation: str, graph: str | None, execution: str | None = None) -> bool:
    """The policy of these tests: reader sees all and runs nothing; hello runs one workflow and sees no other."""
    if principal == "nobody":
        return False
    if principal == "reader":
        return operation != "execute"
    return graph is None or graph == "greetings::Hello" or (graph == "others::Twin" and principal == "twin")


async def may_async(principal: str, operation: str, graph: str | None, execution: str | None = None) -> bool:
    return may(principal, operation, graph, execution)


def header_of(request: Request) -> str:
    return request.headers["x-user"]


@pytest.mark.anyio
@both
@pytest.mark.parametrize("authorize", [may, may_async])
async def test_authorize_is_asked_about_what_is_used(way: Way, authorize: Any, folder: Path) -> None:
    """About the graph id, whichever name was used; who may not see a workflow gets the same 404 as for none."""
    service = await service_of(folder, authenticate=header_of, authorize=authorize)
    async with way.client(service) as http:

        async def ask(user: str, path: str, body: Any = None) -> tuple[int, str]:
            answer = await http.request(
                "GET" if body is None else "POST", path, json=body, headers={"x-user": user, "x-request-id": "r"}
            )
            text = answer.text.replace(path, "PATH") if answer.status_code >= 400 else ""
            return answer.status_code, text.replace(way.prefix, "")

        for name in ("Hello", "greetings::Hello", "greetings/Hello"):
            assert (await ask("hello", "/execute", {"graph_name": name}))[0] == 200
            assert (await ask("reader", "/execute", {"graph_name": name}))[0] == 403
            assert (await ask("nobody", "/execute", {"graph_name": name}))[0] == 404
            assert (await ask("reader", f"/workflows/{name}"))[0] == 200
            assert (await ask("nobody", f"/workflows/{name}"))[0] == 404
        hidden, none = await ask("hello", "/Boom"), await ask("hello", "/Bo0m")
        assert hidden == none
        assert hidden[0] == 404
        for path in ("/Boom/graph", "/Boom/schema", "/workflows/greetings::Boom"):
            assert (await ask("hello", path))[0] == 404
        assert (await ask("nobody", "/validate", {}))[0] == 403
        assert (await ask("nobody", "/list"))[0] == 403
        assert (await ask("hello", "/Twin"))[0] == 404
        status, text = await ask("twin", "/Twin")
        assert status == 409
        assert "others::Twin" in text
        assert "greetings::Twin" not in text


@pytest.mark.anyio
@both
async def test_the_list_shows_what_the_caller_may_see(way: Way, folder: Path) -> None:
    """And counts only that; a batch refuses item by item."""
    service = await service_of(folder, authenticate=header_of, authorize=may)
    async with way.client(service, headers={"x-user": "hello"}) as http:
        listed = (await http.get("/list")).json()
        assert [workflow["name"] for workflow in listed["workflows"]] == ["Hello"]
        assert listed["total_count"] == 1
        assert "others" not in str(listed)
        items = [{"graph_name": "Hello"}, {"graph_name": "Boom"}]
        batch = (await http.post("/execute/batch", json={"executions": items})).json()
        assert [outcome["status"] for outcome in batch["executions"]] == ["ok", "refused"]
        assert batch["executions"][1]["error"]["code"] == "workflow_unknown"


def test_an_open_mount_says_so_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING; none when somebody is asked who they are."""
    with caplog.at_level(logging.WARNING, "agentmap_asgi.http"):
        AgentMapApp(folder, context=host_context())
    assert [record.levelname for record in caplog.records if record.name == "agentmap_asgi.http"] == ["WARNING"]
    assert "open to every caller" in caplog.text
    caplog.clear()
    AgentMapApp(folder, context=host_context(authenticate=header_of))
    assert "open" not in caplog.text


def test_public_names_operations(folder: Path) -> None:
    """A word that is none is refused at construction, with the nearest."""
    with pytest.raises(ConfigError, match="did you mean 'health'"):
        AgentMapApp(folder, context=host_context(public={"helth"}))
    with pytest.raises(ConfigError, match="they are execute"):
        AgentMapApp(folder, context=host_context(public="/x/y/z"))
