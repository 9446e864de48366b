"""Under which names a server answers that asks nobody who they are."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from ..execution.identity import random_bytes
from .problems import Refusal, problem_reply

OWN: Final = "localhost"


class KnownHosts:
    """An ASGI application behind a look at the Host header: it answers under the names of this machine's own address
    (`localhost`, `127.0.0.1`, `[::1]`), and under those given; `*.example.com` stands for all names below it.

    A page of any site can give its own name the address of this machine, and is then of one origin with what listens
    here (DNS rebinding). Its requests carry that name. A request without a Host comes from no browser.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        self.app = app
        self.names = frozenset(name.lower().rstrip(".") for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not all(self.knows(host) for host in _hosts(scope)):
            detail = (
                "This server answers under the name localhost only, for it asks nobody who they are. To serve it under "
                "another name, start it with --allow-host NAME, or with API keys"
            )
            refusal = Refusal(421, "unknown_host", detail)
            await problem_reply(refusal, quote(scope["path"][:1_000]), random_bytes().hex())(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def knows(self, host: str) -> bool:
        """Whether a Host header, with or without a port, is one to answer."""
        name = _name(host)
        if name == OWN or name.endswith(f".{OWN}") or name in self.names or _loopback(name):
            return True
        parts = name.split(".")
        return any(".".join(["*", *parts[at:]]) in self.names for at in range(1, len(parts)))


def _hosts(scope: Scope) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"host" and value]


def _name(host: str) -> str:
    """Without the port, and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().rstrip(".")


def _loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
