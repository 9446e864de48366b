"""Who is shown the page, and what protects it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from anyio import to_thread
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader
from playwright.async_api import Browser, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from visits import World, listening, service_of, visiting

from agentmap_asgi import AgentMapApp, AgentMapService, include_agentmap_routes
from agentmap_asgi.http.keys import new_key

pytest_plugins = ("browsers",)
pytestmark = pytest.mark.anyio


def calling(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_an_api_key_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    """The page asks, says when a key is not accepted, keeps it for the tab, and forgets it."""
    key, made = new_key("ada", ["run", "read"])
    service = await service_of(tmp_path, World(), {"api_keys": [made.line]})
    async with listening(AgentMapApp(service=service)) as base, visiting(browser, service, f"{base}/") as visit:
        visit.expected.add(401)
        page = visit.page
        await page.goto(f"{base}/ui/#/workflow/flows%3A%3AHello/run")
        for secret in ("amk_wrong", key):
            await page.get_by_label("Key or token").fill(secret)
            await page.get_by_role("button", name="Sign in").click()
            if secret != key:
                await expect(page.get_by_role("alert")).to_have_text("This key or token was not accepted.")
        await page.get_by_label("name").fill("Ada")
        await page.get_by_role("button", name="Run", exact=True).click()
        await expect(page.locator("[data-node=Part]")).to_have_attribute("data-state", "completed")
        await page.reload()
        await expect(page.locator("[data-node=Part]")).to_have_attribute("data-state", "completed")
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()


async def test_cookies_sign_in(browser: Browser, tmp_path: Path) -> None:
    """A host with a sign-in of its own: a stranger is sent there, and its cookie is enough for page and operations."""

    def authenticate(request: Request) -> str | Response | None:
        if request.cookies.get("session") == "ada":
            return "ada"
        return RedirectResponse("/login", 303)

    async def login(scope: Any, receive: Any, send: Any) -> None:
        answer = RedirectResponse("/workflows/ui/", 303)
        answer.set_cookie("session", "ada", httponly=True, samesite="lax")
        await answer(scope, receive, send)

    service = await service_of(tmp_path, World(), authenticate=authenticate)
    app = Starlette(routes=[Mount("/workflows", AgentMapApp(service=service)), Mount("/login", login)])
    async with listening(app) as base, visiting(browser, service, f"{base}/") as visit:
        page = visit.page
        await page.goto(f"{base}/workflows/ui/")
        await page.get_by_role("link", name="Hello", exact=True).click()
        await page.get_by_role("link", name="Run…").click()
        await page.get_by_label("name").fill("Ada")
        await page.get_by_role("button", name="Run", exact=True).click()
        await expect(page.locator("[data-node=Part]")).to_have_attribute("data-state", "completed")
        await expect(page.get_by_text("for ada")).to_be_visible()
        visit.expected.add(401)
        await page.context.clear_cookies()
        await page.get_by_role("link", name="Executions").first.click()
        await expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()


async def test_dependencies_guard_the_operations(browser: Browser, tmp_path: Path) -> None:
    """A FastAPI host that wants a bearer token: the page's files hold nothing and are shown; the rest wants it."""

    def user(authorization: str = Depends(APIKeyHeader(name="Authorization", auto_error=False))) -> str:
        if authorization != "Bearer ada-token":
            raise HTTPException(401)
        return "ada"

    service = await service_of(tmp_path, World())
    app = FastAPI()
    include_agentmap_routes(app, prefix="/wf", service=service, principal=user)
    async with listening(app) as base, visiting(browser, service, f"{base}/wf/") as visit:
        visit.expected.add(401)
        page = visit.page
        await page.goto(f"{base}/wf/ui/")
        await page.get_by_label("Kind").select_option("bearer")
        await page.get_by_label("Key or token").fill("ada-token")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("link", name="Hello", exact=True)).to_be_visible()


async def test_somebody_who_is_asked_sees_the_question_only(browser: Browser, tmp_path: Path) -> None:
    """Of another's execution an assignee sees what it asks him, in the list and by its address, and may answer it."""

    def authenticate(request: Request) -> str | None:
        return {"Bearer a": "ada", "Bearer b": "bob"}.get(request.headers.get("authorization", ""))

    service = await service_of(tmp_path, World(), authenticate=authenticate)
    async with listening(AgentMapApp(service=service)) as base, visiting(browser, service, f"{base}/") as visit:
        visit.expected.add(401)
        page = visit.page
        body = {"graph_name": "Review", "initial_state": {"name": "a secret of Ada"}, "execution_id": "hers"}
        made = await page.request.post(f"{base}/execute", data=body, headers={"authorization": "Bearer a"})
        assert (await made.json())["status"] == "suspended"
        await page.goto(f"{base}/ui/#/waiting")
        await page.get_by_label("Kind").select_option("bearer")
        await page.get_by_label("Key or token").fill("b")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_text("All right?")).to_be_visible()
        await expect(page.locator("#waiting-count")).to_have_text("1")
        await page.get_by_role("link", name="Review").click()
        await expect(page.get_by_role("heading", name="Review")).to_be_visible()
        await expect(page.get_by_text("All right?")).to_be_visible()
        assert "secret" not in await page.content()
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_text("It asks you nothing more")).to_be_visible()


async def test_the_hosts_filter_sees_what_is_drawn(tmp_path: Path) -> None:
    """Every form is made of the drawing as `filter_response` lets it out, also when that leaves nodes out."""

    class Discreet(AgentMapService):
        async def filter_response(self, document: dict[str, Any], request_context: dict[str, Any]) -> dict[str, Any]:
            if "nodes" in document:
                document["nodes"] = [{**node, "agent_type": "hidden"} for node in document["nodes"][:1]]
            return document

    service = await service_of(tmp_path, World(), kind=Discreet)
    async with calling(AgentMapApp(service=service)) as http:
        made = (await http.post("/execute", json={"graph_name": "Hello"})).json()
        run = f"/executions/{made['execution_id']}/graph"
        forms = [("/Hello/graph", form) for form in ("json", "mermaid", "dot", "svg")]
        for path, form in (*forms, (run, "json"), (run, "svg")):
            answer = await http.get(path, params={"format": form})
            assert answer.status_code == 200
            assert "hidden" in answer.text, form
            assert "echo" not in answer.text, form
            assert form == "json" or "Part" not in answer.text, form
        assert (await http.get(run, params={"format": "dot"})).status_code == 422
    await service.aclose()


async def test_two_instances_do_not_mix(browser: Browser, tmp_path: Path) -> None:
    """Each page shows its own workflows and executions, and keeps its own key."""
    key, made = new_key("ada", ["run", "read"])
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    one = await service_of(folders[0], World())
    two = await service_of(folders[1], World(), {"api_keys": [made.line]})
    app = Starlette(routes=[Mount("/one", AgentMapApp(service=one)), Mount("/two", AgentMapApp(service=two))])
    async with listening(app) as base, visiting(browser, two, f"{base}/") as visit:
        visit.expected.add(401)
        page = visit.page
        await page.goto(f"{base}/two/ui/")
        await page.get_by_label("Key or token").fill(key)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("link", name="Hello", exact=True)).to_be_visible()
        await page.request.post(f"{base}/one/execute", data={"graph_name": "Hello"})
        await page.goto(f"{base}/one/ui/#/executions")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
        await page.goto(f"{base}/two/ui/#/executions")
        await expect(page.get_by_text("Nothing has been run yet")).to_be_visible()


async def test_the_files_forbid_everything_foreign(tmp_path: Path) -> None:
    """A strict policy on each, tags for the browser's cache, and no file beside the page's own."""
    service = await service_of(tmp_path, World())
    async with calling(AgentMapApp(service=service)) as http:
        for path in ("/ui/", "/docs", "/ui/app.js", "/ui/style.css", "/ui/icon.svg"):
            answer = await http.get(path)
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            again = await http.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        for path in ("/ui/index.html", "/ui/files.py", "/ui/%2e%2e%2ffiles.py", "/ui/none.js"):
            assert (await http.get(path)).status_code == 404, path
        for path, place in (("/", "ui/"), ("/ui/..", "ui/"), ("/ui", "ui/"), ("/docs/", "../docs")):
            moved = await http.get(path)
            assert (moved.status_code, moved.headers["location"]) == (307, place)
        assert (await http.post("/ui")).status_code == 405


async def test_files_are_not_audited(tmp_path: Path) -> None:
    """What the page does is, operation by operation; that its files were sent says nothing."""
    service = await service_of(
        tmp_path, World(), {"enable_audit_logging": True, "audit_path": str(tmp_path / "audit.jsonl")}
    )
    async with calling(AgentMapApp(service=service)) as http:
        for path in ("/", "/ui", "/ui/", "/ui/app.js", "/docs", "/list"):
            await http.get(path)
    await service.aclose()
    log = await to_thread.run_sync((tmp_path / "audit.jsonl").read_text)
    assert [json.loads(line)["operation"] for line in log.splitlines()] == ["list"]


async def test_the_page_goes_with_the_docs(tmp_path: Path) -> None:
    """`enable_docs=False` takes the page away, and nothing of it is imported."""
    service = await service_of(tmp_path, World(), {"enable_docs": False})
    async with calling(AgentMapApp(service=service)) as http:
        for path in ("/", "/ui", "/ui/", "/ui/app.js", "/docs"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    script = (
        "import sys; from agentmap_asgi import AgentMapApp, AgentMapConfig\n"
        f"AgentMapApp({str(tmp_path)!r}, config=AgentMapConfig(enable_docs=False, storage_url='memory://'))\n"
        "print([name for name in sys.modules if name.startswith('agentmap_asgi.ui') or name.endswith('http.pages')])"
    )
    run = await to_thread.run_sync(
        lambda: subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    )
    assert run.stdout.strip() == "[]"


async def test_the_page_costs_the_operations_nothing(tmp_path: Path) -> None:
    """A request takes the same calls of functions, whether the page is on or off."""

    async def calls(on: bool) -> int:
        service = await service_of(tmp_path, World(), {"enable_docs": on})
        counts: list[int] = []
        async with calling(AgentMapApp(service=service)) as http:
            for _ in range(5):
                counts.append(0)

                def note(frame: FrameType, event: str, argument: object, at: int = len(counts) - 1) -> None:
                    counts[at] += event == "call" and "agentmap_asgi" in frame.f_code.co_filename

                sys.setprofile(note)
                try:
                    answer = await http.post("/execute", json={"graph_name": "Hello", "initial_state": {"name": "Ada"}})
                finally:
                    sys.setprofile(None)
                assert answer.json()["success"]
        await service.aclose()
        return min(counts)

    assert await calls(True) == await calls(False) > 20


FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site", **FORM}, True),
        ({"sec-fetch-site": "cross-site", "content-type": "application/json"}, False),
        ({"sec-fetch-site": "cross-site", "authorization": "Bearer x"}, False),
        ({"sec-fetch-site": "cross-site", "authorization": "Basic YTpi"}, True),
        ({"sec-fetch-site": "cross-site", "authorization": "Negotiate x", **FORM}, True),
        ({"sec-fetch-site": "cross-site", "x-api-key": "x"}, False),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://test"}, False),
    ],
)
async def test_other_sites_change_nothing(headers: dict[str, str], refused: bool, tmp_path: Path) -> None:
    """A page of another origin cannot make a visitor's browser send what changes something without asking us first."""
    service = await service_of(tmp_path, World())
    async with calling(AgentMapApp(service=service)) as http:
        made = (await http.post("/execute", json={"graph_name": "Slow", "mode": "async"})).json()
        answer = await http.post(f"/executions/{made['execution_id']}/cancel", headers=headers)
        assert answer.status_code == (403 if refused else 200)
        if refused:
            assert answer.json()["code"] == "cross_origin"
        assert (await http.get("/list", headers=headers)).status_code == 200
    await service.aclose()
