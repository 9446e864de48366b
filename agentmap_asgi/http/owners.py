"""Whose an execution is: who sees it, who may do what with it, and who may answer which of its waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple

from ..errors import UnknownExecution
from ..services.audit import owner
from .auth import ask, owner_of
from .exchange import Exchange
from .problems import Refusal, forbidden

ANY: Final = "any"
"""What `authorize` gives to let a caller at executions of others."""

MARK: Final = "~"
"""Stands between the id that a caller has chosen and what tells callers apart; no chosen id has it."""

_IDS: Final = ("execution_id", "thread_id", "retry_of")

Document = dict[str, Any]


class Sight(NamedTuple):
    """What a caller may see of an execution."""

    document: Document
    whole: bool
    """False for an assignee: the document holds his waits only."""
    widened: bool = False
    """The host has let the caller at what is not his."""


def caller(exchange: Exchange) -> str | None:
    """Who calls, as the text that owns executions; None when nobody is known."""
    known = owner_of(exchange.principal, exchange.calls.service.context)
    if known is None:
        said = exchange.scope.get("state", {}).get("workflow_context")
        if isinstance(said, Mapping):
            return owner(said)
    return known


def kept_id(exchange: Exchange, given: str) -> str:
    """The id under which an execution is kept that the caller has chosen one for. Callers that are known have ids of
    their own, so that nobody learns from a conflict what others have.
    """
    mark = _mark(exchange)
    return given if mark is None else f"{given}{MARK}{mark}"


def told_id(exchange: Exchange, kept: str) -> str:
    """The id as the caller knows it."""
    if MARK not in kept:
        return kept
    given, _, mark = kept.rpartition(MARK)
    return given if mark == _mark(exchange) else kept


def with_told_ids(exchange: Exchange, document: Document) -> Document:
    """A document, or a list of some, with the ids as the caller knows them."""
    changed: Document = {}
    for name in _IDS:
        if isinstance(value := document.get(name), str) and MARK in value:
            changed[name] = told_id(exchange, value)
    several = document.get("executions")
    if isinstance(several, list) and several:
        changed["executions"] = [with_told_ids(exchange, one) if isinstance(one, dict) else one for one in several]
    return {**document, **changed} if changed else document


def _mark(exchange: Exchange) -> str | None:
    who = caller(exchange)
    return None if who is None else sha256(who.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def names_of(exchange: Exchange) -> frozenset[str]:
    """What assignees may call the caller: his id, and `role:…` for each of his roles (`roles` or `role`)."""
    who, principal = caller(exchange), exchange.principal
    found = set() if who is None else {who}
    for name in ("roles", "role"):
        value = principal.get(name) if isinstance(principal, Mapping) else getattr(principal, name, None)
        roles = (value,) if isinstance(value, str) else value if isinstance(value, Iterable) else ()
        found |= {f"role:{role}" for role in roles if isinstance(role, str)}
    return frozenset(found)


def owns(exchange: Exchange, document: Mapping[str, Any]) -> bool:
    """Whether it is the caller's own. Callers that nobody asks who they are share all; one who was let in unasked
    (to a `public` operation) has what belongs to nobody.
    """
    who, belongs = caller(exchange), document.get("owner")
    return belongs == who if who is not None or exchange.calls.asks else True


def assigned(exchange: Exchange, document: Mapping[str, Any]) -> list[Document]:
    """The open waits that name the caller."""
    waiting = document.get("waiting") or ()
    if not any(wait["assignees"] for wait in waiting):
        return []
    names = names_of(exchange)
    return [wait for wait in waiting if not names.isdisjoint(wait["assignees"])]


def answerable(exchange: Exchange, sight: Sight) -> list[Document]:
    """The open waits that the caller may answer: those that name him, or nobody. Where nobody is known, all."""
    waiting: list[Document] = sight.document.get("waiting") or []
    if sight.widened or (caller(exchange) is None and not exchange.calls.asks):
        return waiting
    mine = assigned(exchange, sight.document)
    return [wait for wait in waiting if not wait["assignees"] or wait in mine]


async def sight_of(exchange: Exchange, verb: str, document: Document) -> Sight | None:
    """What the caller may see for the sake of an operation; None when nothing. Raises Refusal 403 when it may look at
    the execution, and not do this.
    """
    graph = document.get("graph_id")
    answer = await ask(exchange, verb, graph, document)
    if answer == ANY:
        return Sight(document, True, True)
    if owns(exchange, document):
        if answer:
            return Sight(document, True)
        if verb != "execution" and await ask(exchange, "execution", graph, document):
            raise forbidden()
        return None
    if answer and verb in ("execution", "resume") and (mine := assigned(exchange, document)):
        return Sight(limited(document, mine), False)
    return None


def limited(document: Mapping[str, Any], waits: list[Document]) -> Document:
    """What somebody who is only asked something sees."""
    return {name: document.get(name) for name in ("execution_id", "graph_name", "status")} | {"waiting": waits}


async def look(exchange: Exchange, verb: str) -> Sight:
    """The execution that the path names. Raises UnknownExecution for one that is not there or not to be seen."""
    (execution_id,) = exchange.params.values()
    exchange.execution_id = execution_id
    service = exchange.calls.service
    for name in dict.fromkeys((execution_id, kept_id(exchange, execution_id))):
        try:
            document = await service.get_execution_status(name)
        except UnknownExecution:
            continue
        sight = await sight_of(exchange, verb, document)
        if sight is not None:
            exchange.execution_id, exchange.workflow = name, document.get("graph_id")
            return sight
    raise UnknownExecution()


def wait_to_answer(exchange: Exchange, sight: Sight, node: str | None) -> str | None:
    """The path of the wait that an answer is for; None when no open wait fits. Raises Refusal: 403 when all are for
    others, 409, listing those that the caller may answer, when several fit.
    """
    mine = answerable(exchange, sight)
    found = [wait["path"] for wait in mine if node is None or node in (wait["node"], wait["path"])]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise _candidates("Several nodes wait; name one of them in node", mine)
    if not mine and sight.document.get("waiting"):
        raise forbidden()
    return None


def nothing_waits(exchange: Exchange, sight: Sight) -> Refusal:
    """The refusal of an answer that no open wait is for."""
    mine = answerable(exchange, sight)
    return _candidates("Nothing waits there" if mine else "Nothing waits for an answer", mine)


def _candidates(detail: str, waits: list[Document]) -> Refusal:
    errors = [{"pointer": "/node", "code": "candidate", "message": str(wait["path"])} for wait in waits[:20]]
    return Refusal(409, "conflict", detail, errors=errors)
