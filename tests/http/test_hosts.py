"""Under which names a server answers that asks nobody who they are."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from agentmap_asgi.http.hosts import KnownHosts

APP = KnownHosts(PlainTextResponse("here"), ["Flows.example.com", "*.inner.example"])


OWN = ("localhost", "LOCALHOST:8000", "localhost.", "flows.localhost:80", "127.0.0.1", "127.0.0.1:8000", "127.8.9.1")
ALLOWED = ("flows.example.com", "FLOWS.example.com:443", "a.inner.example", "a.b.inner.example")
OTHERS = ("evil.example", "evil.example:8000", "inner.example", "localhost.evil.example", "127.0.0.1.evil.example")
ADDRESSES = ("0.0.0.0:8000", "192.168.1.5", "[::2]", "[fe80::1]:80", "é")


@pytest.mark.parametrize(
    ("hosts", "status"), [((*OWN, "[::1]", "[::1]:8000", ""), 200), (ALLOWED, 200), ((*OTHERS, *ADDRESSES), 421)]
)
@pytest.mark.anyio
async def test_names_of_others_are_refused(hosts: tuple[str, ...], status: int) -> None:
    """This machine's own are not, with any port, nor those that were allowed; the refusal says what to do."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://test") as http:
        for host in hosts:
            answer = await http.get("/list", headers=[(b"host", host.encode("latin-1"))])
            assert answer.status_code == status, host
            if status == 421:
                problem = answer.json()
                assert answer.headers["content-type"] == "application/problem+json"
                assert (problem["code"], problem["instance"]) == ("unknown_host", "/list")
                assert "--allow-host" in problem["detail"]


@pytest.mark.anyio
async def test_one_name_is_enough() -> None:
    """Of several Host headers each must be known; a request without any comes from no browser."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message.get("status"))

    for headers in ([(b"host", b"localhost"), (b"host", b"evil.example")], []):
        await APP({"type": "http", "method": "GET", "path": "/", "headers": headers}, receive, send)
    assert [status for status in sent if status] == [421, 200]
