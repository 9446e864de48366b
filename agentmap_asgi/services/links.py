"""One-time links: whoever has one may give one answer to one wait, without any other credential.

A link is a text that says which wait it is for, whose answer it carries and how long it is good for, signed with the
setting `link_secret`. Nothing is kept of it: the wait itself is what can be answered once.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from ..errors import (
    AnswerGone,
    ConfigError,
    ExecutionConflict,
    InputInvalid,
    LinkExpired,
    LinkUnknown,
    LinkUsed,
    UnknownExecution,
)
from ..execution.records import stamp
from ..execution.waits import ACTIONS
from .executions import Executions, chosen

VERSION: Final = 1
LONGEST: Final = 4_096
_KINDS: Final = (int, str, str, str | None, int)


class Link(NamedTuple):
    """What a link says. `by` is whose answer it carries; `until` is in seconds since 1970."""

    execution_id: str
    path: str
    by: str | None
    until: int


def signed(link: Link, secret: str, namespace: str) -> str:
    """The text of a link."""
    body = urlsafe_b64encode(json.dumps([VERSION, *link], separators=(",", ":")).encode()).rstrip(b"=")
    return f"{body.decode()}.{_signature(body, secret, namespace)}"


def read(token: str, secret: str, namespace: str) -> Link:
    """What the text of a link says. Raises LinkUnknown for one that was not made with this secret."""
    body, _, signature = token.partition(".")
    known = body.isascii() and signature.isascii() and len(token) <= LONGEST
    if not known or not hmac.compare_digest(signature, _signature(body.encode(), secret, namespace)):
        raise LinkUnknown()
    try:
        said = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (Error, ValueError):
        raise LinkUnknown() from None
    if not isinstance(said, list) or len(said) != len(_KINDS) or said[0] != VERSION:
        raise LinkUnknown()
    if not all(isinstance(value, kind) for value, kind in zip(said, _KINDS, strict=True)):
        raise LinkUnknown()
    return Link(*said[1:])


def _signature(body: bytes, secret: str, namespace: str) -> str:
    about = b"agentmap-asgi link\0" + namespace.encode() + b"\0"
    return urlsafe_b64encode(hmac.digest(secret.encode(), about + body, sha256)).rstrip(b"=").decode()


class Links(Executions):
    """The part of the service that makes links and takes their answers."""

    async def make_links(
        self,
        execution_id: str,
        *,
        node: str | None = None,
        assignee: str | None = None,
        expires_in: float | None = None,
    ) -> list[dict[str, Any]]:
        """A one-time link for each of those whom an open wait is for: `token`, `assignee`, `node`, `wait` (its path)
        and `expires_at`. A wait for nobody in particular has one link.

        `node` is a node or the path of a wait, `assignee` one of the assignees (or whoever answers, where the wait has
        none). A link is good for `expires_in` seconds, and no longer than `link_days` and than the wait. The tokens are
        credentials: send them to those they are for, and keep them out of logs. Raises ConfigError without
        `link_secret`, UnknownExecution, ExecutionConflict when nothing waits (there), and InputInvalid.
        """
        secret = self._link_secret()
        document = await self.get_execution_status(execution_id)
        waits: list[dict[str, Any]] = document.get("waiting") or []
        if node is not None or not waits:
            waits = [chosen(waits, node)]
        now = self.context.clock.time_ns() / 1e9
        seconds = self.config.link_days * 86_400
        if expires_in is not None:
            if not expires_in > 0:
                raise InputInvalid("expires_in is a number of seconds", pointer="/expires_in")
            seconds = min(seconds, expires_in)
        made = []
        for wait in waits:
            until = int(now + seconds)
            if wait["expires_at"] is not None:
                until = min(until, int(datetime.fromisoformat(wait["expires_at"]).timestamp()))
            for who in self._named(wait, assignee):
                token = signed(Link(execution_id, wait["path"], who, until), secret, self.store.namespace)
                about = {"assignee": who, "node": wait["node"], "wait": wait["path"]}
                made.append({"token": token, **about, "expires_at": stamp(until * 1_000_000_000)})
        return made

    def _named(self, wait: Mapping[str, Any], assignee: str | None) -> list[str | None]:
        """Whose answers the links to a wait carry."""
        if assignee is None:
            return wait["assignees"] or [None]
        if wait["assignees"] and assignee not in wait["assignees"]:
            raise InputInvalid(f"The assignees of {wait['path']} are others", pointer="/assignee")
        return [assignee]

    async def look_at_link(self, token: str) -> dict[str, Any]:
        """What the holder of a link is asked; nothing changes. Raises LinkUnknown, LinkExpired and LinkUsed."""
        link, document, wait = await self._linked(token)
        return {
            "execution_id": link.execution_id,
            "graph_name": document["graph_name"],
            "assignee": link.by,
            "expires_at": stamp(link.until * 1_000_000_000),
            "wait": wait,
        }

    async def answer_link(self, token: str, action: str = "answer", data: Any = None) -> dict[str, Any]:
        """Answer with a link; it is used then. Raises as `look_at_link`, and InputInvalid for what does not fit."""
        if action not in ACTIONS:
            raise InputInvalid(f"The action is one of {', '.join(ACTIONS)}", pointer="/action")
        link, document, wait = await self._linked(token)
        try:
            await self.resume_execution(link.execution_id, action, data, node=wait["path"], by=link.by)
        except AnswerGone:
            raise LinkExpired() from None
        except (ExecutionConflict, UnknownExecution):
            raise LinkUsed() from None
        return {"execution_id": link.execution_id, "graph_name": document["graph_name"], "answered": True}

    async def _linked(self, token: str) -> tuple[Link, dict[str, Any], dict[str, Any]]:
        """(what the link says, the execution, the open wait)"""
        link = read(token, self._link_secret(), self.store.namespace)
        if link.until * 1_000_000_000 <= self.context.clock.time_ns():
            raise LinkExpired()
        try:
            document = await self.get_execution_status(link.execution_id)
        except UnknownExecution:
            raise LinkUsed() from None
        for wait in document.get("waiting") or ():
            if wait["path"] == link.path:
                return link, document, wait
        raise LinkUsed()

    def _link_secret(self) -> str:
        if not self.config.link_secret:
            raise ConfigError("There are no one-time links without the setting link_secret")
        return self.config.link_secret
