"""One-time links: one answer to one wait, for whoever holds them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from going import FACES, PREFIX, STORES, Serving, serving, user

from agentmap_asgi import AgentMapConfig
from agentmap_asgi.errors import ConfigError, ExecutionConflict, LinkUnknown
from agentmap_asgi.services.links import Link, read, signed
from agentmap_asgi.testing import FakeClock

pytestmark = pytest.mark.anyio

faces = pytest.mark.parametrize("face", FACES)
stores = pytest.mark.parametrize("store", STORES)
SECRET = "of-at-least-thirty-two-characters"
ADA = {"x-user": "ada"}


async def asked(served: Serving, graph: str = "Ask", **state: Any) -> str:
    made = await served.start(graph, "ada", initial_state=state)
    return str((await served.settled(made["execution_id"], "ada"))["execution_id"])


async def links(served: Serving, execution_id: str, **body: Any) -> list[dict[str, Any]]:
    answer = await served.http.post(f"/executions/{execution_id}/links", json=body, headers=ADA)
    assert answer.status_code == 201, answer.text
    found: list[dict[str, Any]] = answer.json()["links"]
    return found


def below(link: dict[str, Any]) -> str:
    """Where it leads, without the mount."""
    return str(link["href"]).removeprefix(PREFIX)


@faces
@stores
async def test_a_link_shows_what_is_asked_and_answers_it_once(face: str, store: str, tmp_path: Path) -> None:
    """Without any other credential. Looking changes nothing, however often; the answer is the assignee's."""
    async with serving(tmp_path, face, store, settings={"link_secret": SECRET}, authenticate=user) as served:
        execution_id = await asked(served, who="bob")
        (link,) = await links(served, execution_id)
        assert (link["assignee"], link["node"], link["wait"]) == ("bob", "Ask", "Ask#1")
        for _ in range(3):
            shown = await served.http.get(below(link))
            assert shown.status_code == 200
            assert shown.json()["wait"]["prompt"] == "May it go on?"
            assert (shown.json()["graph_name"], shown.json()["assignee"]) == ("Ask", "bob")
            assert (shown.headers["cache-control"], shown.headers["referrer-policy"]) == ("no-store", "no-referrer")
        assert (await served.http.head(below(link))).status_code == 200
        assert (await served.http.get(f"/executions/{execution_id}", headers=ADA)).json()["status"] == "suspended"
        wrong = await served.http.post(below(link), json={"action": "answer", "data": 1})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/action")
        for action in ("cancel", "delete"):
            assert (await served.http.post(below(link), json={"action": action})).status_code == 422
        done = await served.http.post(below(link), json={"action": "approve", "data": "Fine."})
        assert (done.status_code, done.json()["answered"]) == (200, True)
        ended = await served.settled(execution_id, "ada")
        assert ended["result"]["answer"] == {"approved": True, "comment": "Fine.", "by": "bob"}
        for again in (served.http.get(below(link)), served.http.post(below(link), json={"action": "reject"})):
            answer = await again
            assert (answer.status_code, answer.json()["code"]) == (410, "link_used")


@faces
async def test_each_assignee_has_a_link_and_one_answer_counts(face: str, tmp_path: Path) -> None:
    """Of racing answers one wins, and the links of the others are used too."""
    async with serving(tmp_path, face, "sqlite", settings={"link_secret": SECRET}, authenticate=user) as served:
        execution_id = await asked(served, who=["bob", "role:boss", "eve"])
        made = await links(served, execution_id)
        assert [link["assignee"] for link in made] == ["bob", "role:boss", "eve"]
        (only,) = await links(served, execution_id, assignee="role:boss", node="Ask")
        assert only["assignee"] == "role:boss"
        refused = await served.http.post(f"/executions/{execution_id}/links", json={"assignee": "mallory"}, headers=ADA)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/assignee")
        racing = [served.http.post(below(link), json={"action": "approve"}) for link in [*made, only] * 3]
        codes = [answer.status_code for answer in await asyncio.gather(*racing)]
        assert sorted(codes) == [200, *[410] * 11]


@stores
async def test_a_link_is_for_one_wait(store: str, tmp_path: Path) -> None:
    """Several waits have several; where nobody is named whoever answers is nobody, or who the link says."""
    async with serving(tmp_path, store=store, settings={"link_secret": SECRET}, authenticate=user) as served:
        execution_id = await asked(served, "Both")
        first, second = await links(served, execution_id)
        assert [first["wait"], second["wait"]] == ["Ada#1", "Bob#1"]
        (third,) = await links(served, execution_id, node="Bob", assignee="carol")
        assert (await served.http.post(below(first), json={"action": "reject"})).status_code == 200
        assert (await served.http.get(below(second))).json()["wait"]["path"] == "Bob#1"
        assert (await served.http.post(below(third), json={"action": "approve"})).status_code == 200
        ended = await served.settled(execution_id, "ada")
        assert (ended["result"]["ada_says"]["by"], ended["result"]["bob_says"]["by"]) == (None, "carol")
        none = await served.http.post(f"/executions/{execution_id}/links", headers=ADA)
        assert (none.status_code, none.json()["code"]) == (409, "conflict")
        await served.http.delete(f"/executions/{execution_id}", headers=ADA)
        assert (await served.http.get(below(second))).json()["code"] == "link_used"


async def test_a_link_expires(tmp_path: Path) -> None:
    """After its own time, after that of the setting, and with the wait."""
    clock = FakeClock()
    settings = {"link_secret": SECRET, "link_days": 2, "max_wait_days": 1}
    async with serving(tmp_path, settings=settings, authenticate=user, clock=clock) as served:
        execution_id = await asked(served, who="bob")
        (short,) = await links(served, execution_id, expires_in=60)
        (long,) = await links(served, execution_id, expires_in=1e8)
        assert (short["expires_at"], long["expires_at"]) == (
            "2023-11-14T22:14:20.000000Z",
            "2023-11-15T22:13:20.000000Z",
        )
        clock.advance(60)
        for answer in (await served.http.get(below(short)), await served.http.post(below(short), json={})):
            assert (answer.status_code, answer.json()["code"]) == (410, "link_expired")
        assert (await served.http.get(below(long))).status_code == 200
        clock.advance(86_400)
        assert (await served.http.post(below(long), json={"action": "approve"})).json()["code"] == "link_expired"


@faces
async def test_a_forged_link_is_not_known(face: str, tmp_path: Path) -> None:
    """Whatever is changed in it; nor is one of another secret, or of another namespace."""
    async with serving(tmp_path, face, settings={"link_secret": SECRET}, authenticate=user) as served:
        execution_id = await asked(served, who="bob")
        ((link),) = await links(served, execution_id)
        token = link["token"]
        body, _, signature = token.partition(".")
        said = Link(execution_id, "Ask#1", "mallory", 2**40)
        forged = [
            token[:-2] + ("AA" if not token.endswith("AA") else "BB"),
            f"{signed(said, SECRET, 'x').partition('.')[0]}.{signature}",
            signed(said, "y" * 40, served.service.store.namespace),
            signed(said, SECRET, "another"),
            body,
            f"{body}.",
            "x",
            "%00",
            "a" * 6_000,
        ]
        for text in forged:
            for answer in (
                await served.http.get(f"/resume/link/{text}"),
                await served.http.post(f"/resume/link/{text}", json={"action": "approve"}),
            ):
                assert (answer.status_code, answer.json()["code"]) == (404, "link_unknown"), text
        assert (await served.http.get(below(link))).status_code == 200


def test_what_is_signed_is_read_again() -> None:
    """And what is signed but says something else is no link."""
    link = Link("e", "Ask#1", None, 5)
    token = signed(link, SECRET, "n")
    assert read(token, SECRET, "n") == link
    for wrong in (Link("e", "Ask#1", 5, 5), Link("e", "Ask#1", None, "5"), ("e",)):  # type: ignore[arg-type]
        with pytest.raises(LinkUnknown):
            read(signed(wrong, SECRET, "n"), SECRET, "n")  # type: ignore[arg-type]


@faces
async def test_only_who_may_answer_for_all_makes_links(face: str, tmp_path: Path) -> None:
    """For others the execution is not there; who is only asked something may not."""
    async with serving(tmp_path, face, settings={"link_secret": SECRET}, authenticate=user) as served:
        execution_id = await asked(served, who="bob")
        for who in ("eve", "bob"):
            answer = await served.http.post(f"/executions/{execution_id}/links", headers={"x-user": who})
            assert answer.status_code in (403, 404)
        answer = await served.http.post(f"/executions/{execution_id}/links")
        assert answer.status_code == 401


async def test_a_link_is_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not by us, nor by a server that writes down the path; problems do not repeat it."""
    caplog.set_level(logging.DEBUG)
    settings = {
        "link_secret": SECRET, "enable_audit_logging": True, "audit_path": str(tmp_path / "audit.jsonl")
    }  # fmt: skip
    seen: list[str] = []

    async with serving(tmp_path, settings=settings, authenticate=user) as served:
        execution_id = await asked(served, who="bob")
        (link,) = await links(served, execution_id)
        inner = served.app

        async def logging_server(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                if message["type"] == "http.response.start":
                    seen.append(f"{scope['path']} {scope['raw_path']!r}")
                await send(message)

            await inner(scope, receive, sending)

        served.http._transport.app = logging_server  # type: ignore[attr-defined]
        caplog.clear()
        for method, path, json in (
            ("GET", below(link), None),
            ("DELETE", below(link), None),
            ("POST", below(link), {"action": "nonsense"}),
            ("POST", below(link), {"action": "approve"}),
            ("GET", below(link), None),
        ):
            answer = await served.http.request(method, path, json=json)
            if answer.status_code >= 400:
                assert link["token"] not in answer.text
        await served.settled(execution_id, "ada")
    assert len(seen) >= 5
    ours = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    written = (tmp_path / "audit.jsonl").read_text(encoding="utf-8")
    for text in (*seen[:5], ours, written):
        assert link["token"] not in text
        assert link["token"].partition(".")[2] not in text


@faces
async def test_there_are_no_links_without_a_secret(face: str, tmp_path: Path) -> None:
    """No operation, no description of one, and in process an error that names the setting."""
    async with serving(tmp_path, face, authenticate=user) as served:
        execution_id = await asked(served, who="bob")
        for method, path in (("POST", f"/executions/{execution_id}/links"), ("GET", "/resume/link/x")):
            assert (await served.http.request(method, path, headers=ADA)).status_code == 404
        described = (await served.http.get("/openapi.json", headers=ADA)).json()["paths"]
        assert not [path for path in described if "link" in path]
        with pytest.raises(ConfigError, match="link_secret"):
            await served.service.make_links(execution_id)
    with pytest.raises(ConfigError, match="too short"):
        AgentMapConfig(link_secret="short")


async def test_browsers_get_a_page(tmp_path: Path) -> None:
    """Where the page is on; it holds nothing of what is asked, and asks for that itself."""
    html = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    async with serving(tmp_path, settings={"link_secret": SECRET}, authenticate=user) as served:
        (link,) = await links(served, await asked(served, who="bob"))
        shown = await served.http.get(below(link), headers=html)
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        assert shown.headers["referrer-policy"] == "no-referrer"
        assert "May it go on?" not in shown.text
    settings = {"link_secret": SECRET, "enable_docs": False}
    async with serving(tmp_path, settings=settings, authenticate=user) as served:
        execution_id = await asked(served, who="bob")
        (link,) = await links(served, execution_id)
        assert (await served.http.get(below(link), headers=html)).json()["wait"]["node"] == "Ask"
        with pytest.raises(ExecutionConflict):
            await served.service.make_links(execution_id, node="Nobody")
