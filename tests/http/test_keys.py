"""API keys: their lines, what they allow, and that nobody passes without one."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from faces import ASKED, GUARDED, ROWS, WAYS, Way, client, everything, host_context, service_of
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate
from starlette.requests import Request

from agentmap_asgi import AgentMapApp, AgentMapConfig, AgentMapService
from agentmap_asgi.__main__ import main
from agentmap_asgi.errors import ConfigError
from agentmap_asgi.http.keys import SCOPES, Keys, expiry, key_of, new_key
from agentmap_asgi.services.fastapi import include_agentmap_routes
from agentmap_asgi.testing import FakeClock

pytest_plugins = ("sources",)

both = pytest.mark.parametrize("way", [WAYS[1], WAYS[-1]], ids=lambda way: way.name)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def made(*scopes: str, name: str = "ci", expires: datetime | None = None) -> tuple[str, str]:
    """A secret and its line."""
    secret, key = new_key(name, scopes or SCOPES, expires)
    return secret, key.line


# Lines.


@given(
    st.sets(st.sampled_from(SCOPES), min_size=1),
    st.none() | st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1)),
    st.from_regex(r"[A-Za-z0-9._@-]{1,64}", fullmatch=True),
)
def test_a_line_says_all_of_a_key(scopes: set[str], expires: datetime | None, name: str) -> None:
    """Reading the line gives the key that was made, to the second, and the secret is not in it."""
    until = expires and expires.replace(microsecond=0, tzinfo=UTC)
    secret, key = new_key(name, scopes, until)
    assert key_of(key.line) == key
    assert key.line.isascii()
    assert not set(key.line) & set(" ,\n")
    assert secret not in key.line
    assert secret not in repr(key)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("amk_0123456789012345678901234567890123456789", "Line 1 of api_keys: it is no line"),
        ("", "Line 1 of api_keys: it is no line"),
        ("ci:run:never:abc", "it is no line"),
        (f"c i:run:never:{'0' * 64}", "it is no line"),
        (f"ci:rnu:never:{'0' * 64}", "There is no scope 'rnu'; did you mean 'run'?"),
        (f"ci::never:{'0' * 64}", "There is no scope ''; they are run, read, probe, admin"),
        (f"ci:run:tomorrow:{'0' * 64}", "the time of the key 'ci' is written like 20300101T000000Z, or never"),
    ],
)
def test_a_line_that_is_none_is_not_repeated(line: str, message: str) -> None:
    """It may be a key that somebody pasted in the wrong place."""
    with pytest.raises(ConfigError) as caught:
        Keys([line])
    assert message in caught.value.message
    assert len(line) < 20 or line not in str(caught.value)


def test_a_name_is_given_once() -> None:
    """Two keys of one name would be one principal."""
    with pytest.raises(ConfigError, match="Line 2 of api_keys: the name 'ci' is given twice"):
        Keys([made()[1], made()[1]])
    with pytest.raises(ConfigError, match="The name of a key has 1 to 64"):
        new_key("a b", ["run"])


def test_a_key_lives_as_long_as_it_was_made_for() -> None:
    """Days, hours or minutes from now; no time means for ever."""
    assert expiry("90d", NOW) == NOW + timedelta(days=90)
    assert expiry("12h", NOW) == NOW + timedelta(hours=12)
    assert expiry("30m", NOW) == NOW + timedelta(minutes=30)
    for text in ("", "0d", "-1d", "90", "d", "1.5d", "90 d", "1w", "999999d"):
        with pytest.raises(ConfigError, match="--expires takes a time like 90d"):
            expiry(text, NOW)


# Requests.


async def keyed(folder: Path, *lines: str, **context: Any) -> AgentMapService:
    return await service_of(folder, replace(everything(folder), api_keys=lines, require_api_key=True), **context)


@pytest.mark.anyio
@both
async def test_every_operation_wants_a_key(way: Way, folder: Path) -> None:
    """In both headers that carry one; without, or with a wrong one, 401. Public operations want none."""
    secret, line = made()
    async with way.client(await keyed(folder, line, public={"health"})) as http:
        for name, asked in GUARDED.items():
            row = ROWS[name]
            wrong: list[dict[str, str]] = [{}, {"x-api-key": secret[:-1]}, {"x-api-key": ""}, {"x-api-key": line}]
            wrong += [{"authorization": f"Basic {secret}"}, {"authorization": "Bearer"}, {"authorization": secret}]
            wrong += [{"x-api-key": "nobody", "authorization": f"Bearer {secret}"}]
            for headers in wrong:
                answer = await asked.send(http, row, headers=headers)
                assert answer.status_code == (200 if name == "health" else 401), (name, headers)
                assert (answer.headers.get("www-authenticate") == "Bearer") is (name != "health")
            for headers in ({"x-api-key": secret}, {"authorization": f"bearer  {secret}"}):
                assert (await asked.send(http, row, headers=headers)).status_code == asked.status, (name, headers)
        assert (await http.get("/list", params={"api_key": secret})).status_code == 401
        assert (await http.delete("/list")).status_code == 401
        assert (await http.delete("/list", headers={"x-api-key": secret})).status_code == 405


@pytest.mark.anyio
@both
async def test_a_key_does_what_its_scopes_say(way: Way, folder: Path) -> None:
    """The scope of each operation is that of the table; another one is 403."""
    keys = {scope: made(scope, name=scope) for scope in SCOPES}
    lines = [line for _, line in keys.values()]
    starts = {"x-api-key": keys["run"][0]}
    async with way.client(await keyed(folder, *lines, authorize=lambda *asked: "any")) as http:
        for scope, (secret, _) in keys.items():
            for name, asked in GUARDED.items():
                there = replace(asked, path=await asked.ready(http, headers=starts))
                answer = await there.send(http, ROWS[name], headers={"x-api-key": secret})
                assert answer.status_code == (asked.status if ROWS[name].scope == scope else 403), (scope, name)


@pytest.mark.anyio
@both
async def test_the_principal_is_the_name_of_the_key(way: Way, folder: Path) -> None:
    """For the run, and for `authorize`."""
    secret, line = made(name="ci@example.org")
    asked = []

    def authorize(principal: str, operation: str, graph: str | None, execution: str | None) -> bool:
        asked.append((principal, execution))
        return True

    async with way.client(await keyed(folder, line, authorize=authorize), headers={"x-api-key": secret}) as http:
        told = (await http.post("/execute", json={"graph_name": "Tell"})).json()["result"]["told"]
    assert told["principal"] == "ci@example.org"
    assert asked == [("ci@example.org", None)]


@pytest.mark.anyio
async def test_a_key_expires(folder: Path) -> None:
    """By the context object's clock, at the second its line says."""
    clock = FakeClock(NOW.timestamp())
    secret, line = made(expires=NOW + timedelta(seconds=10))
    async with client(
        AgentMapApp(service=await keyed(folder, line, clock=clock)), headers={"x-api-key": secret}
    ) as http:
        clock.advance(9.5)
        assert (await http.get("/list")).status_code == 200
        clock.advance(0.5)
        assert (await http.get("/list")).status_code == 401


@pytest.mark.anyio
@both
async def test_authenticate_is_asked_beside_the_key(way: Way, folder: Path) -> None:
    """The key comes first; who calls is then what the host says."""
    secret, line = made()

    def authenticate(request: Request) -> str | None:
        return request.headers.get("x-user")

    async with way.client(await keyed(folder, line, authenticate=authenticate)) as http:
        tell = {"graph_name": "Tell"}
        assert (await http.post("/execute", json=tell, headers={"x-user": "ada"})).status_code == 401
        assert (await http.post("/execute", json=tell, headers={"x-api-key": secret})).status_code == 401
        answer = await http.post("/execute", json=tell, headers={"x-api-key": secret, "x-user": "ada"})
        assert answer.json()["result"]["told"]["principal"] == "ada"


def include(folder: Path, config: AgentMapConfig, **options: Any) -> FastAPI:
    app = FastAPI()
    service = AgentMapService(config, context=host_context(), source=folder)
    include_agentmap_routes(app, service=service, **options)
    return app


@pytest.mark.anyio
async def test_the_hosts_principal_goes_before_the_name_of_the_key(folder: Path) -> None:
    """With `principal=`, too."""
    secret, line = made()
    config = AgentMapConfig(api_keys=[line])
    app = await to_thread.run_sync(lambda: include(folder, config, principal=lambda: "ada"))
    async with client(app, prefix="/workflows") as http:
        tell = {"graph_name": "Tell"}
        assert (await http.post("/execute", json=tell)).status_code == 401
        answer = await http.post("/execute", json=tell, headers={"x-api-key": secret})
        assert answer.json()["result"]["told"]["principal"] == "ada"


@pytest.mark.anyio
async def test_a_key_is_written_nowhere(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in logs nor in answers nor in the text of the settings."""
    secret, line = made("read")
    service = await keyed(folder, line)
    with caplog.at_level(logging.DEBUG):
        async with client(AgentMapApp(service=service), headers={"x-api-key": secret}) as http:
            answers = [await asked.send(http, ROWS[name]) for name, asked in ASKED.items()]
    digest = line.rpartition(":")[2]
    for text in (caplog.text, repr(service.config), *(answer.text for answer in answers)):
        assert secret not in text
        assert digest not in text


@pytest.mark.anyio
async def test_the_description_names_the_headers(folder: Path) -> None:
    """For all operations but the public ones; without keys it names none."""
    secret, line = made()
    app = AgentMapApp(service=await keyed(folder, line, public={"health"}))
    async with client(app, headers={"x-api-key": secret}) as http:
        document = (await http.get("/openapi.json")).json()
    validate(document)
    assert document["components"]["securitySchemes"]["api_key"]["name"] == "X-API-Key"
    assert document["security"] == [{"api_key": []}, {"bearer": []}]
    said = {path: methods["get"].get("security") for path, methods in document["paths"].items() if "get" in methods}
    assert [path for path, security in said.items() if security is not None] == ["/health", "/resume/link/{token}"]
    async with client(AgentMapApp(service=await service_of(folder))) as http:
        assert "security" not in (await http.get("/openapi.json")).text.lower()


# Who is asked at all.


def test_a_key_that_is_required_must_exist(folder: Path) -> None:
    """`require_api_key=True` fails at construction, with the remedies, unless somebody is asked who they are."""
    config = AgentMapConfig(require_api_key=True)
    with pytest.raises(ConfigError, match=r"agentmap-asgi keys new.*AGENTMAP_API_KEYS.*authenticate.*dependencies"):
        AgentMapApp(folder, config=config, context=host_context())
    with pytest.raises(ConfigError, match="require_api_key"):
        include(folder, config)
    AgentMapApp(folder, config=config, context=host_context(authenticate=lambda request: None))
    AgentMapApp(folder, config=AgentMapConfig(require_api_key=True, api_keys=[made()[1]]), context=host_context())
    include(folder, config, dependencies=[Depends(lambda: None)])
    include(folder, config, principal=lambda: "ada")


def test_callers_without_names_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One WARNING when dependencies guard and nobody says who calls; none when keys or a principal do."""
    with caplog.at_level(logging.WARNING, "agentmap_asgi.http"):
        include(folder, AgentMapConfig(), dependencies=[Depends(lambda: None)])
        warnings = [record.message for record in caplog.records if record.name == "agentmap_asgi.http"]
        assert len(warnings) == 1
        assert "share their executions" in warnings[0]
        caplog.clear()
        include(folder, AgentMapConfig(), dependencies=[Depends(lambda: None)], principal=lambda: "ada")
        include(folder, AgentMapConfig(api_keys=[made()[1]]), dependencies=[Depends(lambda: None)])
        AgentMapApp(folder, config=AgentMapConfig(api_keys=[made()[1]]), context=host_context())
        assert [record for record in caplog.records if record.name == "agentmap_asgi.http"] == []


# The command.


def test_the_command_prints_a_line_and_once_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    """The line on standard output, for a file; the key beside it, for a person."""
    assert main(["keys", "new", "--name", "ci", "--scopes", "run, probe", "--expires", "90d"]) == 0
    out, err = capsys.readouterr()
    key = key_of(out.strip())
    assert (key.name, set(key.scopes)) == ("ci", {"run", "probe"})
    assert key.expires is not None
    assert 0 < (key.expires - datetime.now(UTC)).total_seconds() <= 90 * 86_400
    (secret,) = [word for word in err.split() if word.startswith("amk_")]
    assert Keys([out.strip()]).find(secret.encode()) == key
    assert secret not in out
    assert main(["keys", "new", "--name", "ci"]) == 0
    key = key_of(capsys.readouterr().out.strip())
    assert set(key.scopes) == {"run", "read"}
    assert key.expires is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "a b"], "The name of a key"),
        (["--name", "a", "--scopes", "runn"], "did you mean 'run'"),
        (["--name", "a", "--scopes", ","], "A key needs a scope"),
        (["--name", "a", "--expires", "soon"], "--expires takes a time"),
    ],
)
def test_a_key_that_cannot_be_made(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence, and the status 2."""
    assert main(["keys", "new", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_making_keys_needs_no_server() -> None:
    """The command starts without Starlette."""
    code = (
        "from agentmap_asgi.__main__ import main; main(['keys', 'new', '--name', 'x']); import sys; print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"starlette", "pydantic"}.isdisjoint(found)
