"""The operations on executions: look at them, watch them, answer, cancel, retry and forget them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.responses import Response

from ..errors import UnknownExecution
from ..services.watching import LOOK_SECONDS
from ..stores.store import GOING, UNFINISHED
from .auth import ask
from .body import read_json, read_optional_json
from .exchange import Exchange
from .executing import fitted
from .filtering import filtered, run_context
from .leaving import leaving
from .links import execution_link, execution_links
from .owners import (
    ANY,
    Sight,
    answerable,
    caller,
    limited,
    look,
    nothing_waits,
    owns,
    sight_of,
    told_id,
    wait_to_answer,
)
from .paging import USUAL, Page, next_link, page_of, whole_number
from .problems import forbidden, invalid_field
from .reading import drawing
from .replies import Reply, json_reply, no_content
from .schemas import ResumeBody, RetryBody
from .sse import event_stream, follows, number_of, refuse_too_many, told

FRESH: Final = {"Cache-Control": "no-store"}
MOST_EVENTS: Final = 1_000
MOST_NODES: Final = 1_000
MOST_SKIPPED: Final = 100_000_000
MOST_LOOKED_AT: Final = 2_000
"""Executions that one request for a list looks at, those included that the caller may not see."""


async def list_executions(exchange: Exchange) -> Response:
    """`GET /executions`"""
    answer = await ask(exchange, "executions", None)
    if not answer:
        raise forbidden()
    page = page_of(exchange)
    who = caller(exchange)
    mine = None if answer == ANY or page.waiting_for_me else who
    found: list[dict[str, Any]] = []
    before, more = page.before, True
    looked = 0
    while more and looked < MOST_LOOKED_AT:
        size = page.limit + 1 - len(found)
        rows = await exchange.calls.service.list_executions(
            graph=page.graph,
            status=page.statuses or (UNFINISHED if page.waiting_for_me else ()),
            owner=mine,
            tag=page.tag,
            since=page.since,
            until=page.until,
            before=before,
            limit=size,
        )
        more = len(rows) == size
        looked += len(rows)
        for row in rows:
            if len(found) == page.limit:
                return await _sent_list(exchange, found, before)
            before = row.pop("created_ns"), row["execution_id"]
            if (shown := await _shown_in_list(exchange, page, row)) is not None:
                found.append(shown)
    return await _sent_list(exchange, found, before if more else None)


async def _shown_in_list(exchange: Exchange, page: Page, row: dict[str, Any]) -> dict[str, Any] | None:
    """What the caller sees of an execution in a list; None when nothing."""
    sight = await sight_of(exchange, "execution", row)
    if sight is None:
        return None
    if page.waiting_for_me:
        waits = answerable(exchange, sight._replace(widened=False))
        if not owns(exchange, row):
            waits = [wait for wait in waits if wait["assignees"]]
        if not waits:
            return None
        row = {**sight.document, "waiting": waits}
        sight = sight._replace(document=row)
    elif not sight.whole:
        return None  # lists are of one's own; what others ask is asked for
    return with_links(exchange, sight, row.get("graph_id"))


async def _sent_list(exchange: Exchange, found: list[dict[str, Any]], before: tuple[int, str] | None) -> Reply:
    link, cursor = next_link(exchange, before)
    headers = dict(FRESH) if link is None else {**FRESH, "Link": link}
    return json_reply(await filtered(exchange, {"executions": found, "next_cursor": cursor}), headers=headers)


async def status(exchange: Exchange) -> Response:
    """`GET /executions/{execution_id}`"""
    seconds = _seconds(exchange)
    sight = await look(exchange, "execution")
    if seconds and sight.document["status"] in GOING:
        await _changed(exchange, sight.document["execution_id"], seconds)
        sight = await look(exchange, "execution")
    return await _sent(exchange, sight)


def _seconds(exchange: Exchange) -> float:
    """The seconds of `?wait=`, no more than a request may wait."""
    text = exchange.query("wait")
    if text is None:
        return 0.0
    whole, dot, rest = text.partition(".")
    if not (text.isascii() and whole.isdigit() and len(text) < 10 and (rest.isdigit() if dot else True)):
        raise invalid_field("", "wait", "wait is a number of seconds")
    return min(float(text), exchange.calls.config.wait_seconds)


async def _changed(exchange: Exchange, execution_id: str, seconds: float) -> None:
    """Return when something has changed, time is over, or the server is stopping."""
    service = exchange.calls.service
    task = asyncio.ensure_future(service.wait_for_execution(execution_id, seconds))
    try:
        while not task.done() and not leaving(service):
            await asyncio.wait({task}, timeout=LOOK_SECONDS)
    finally:
        task.cancel()


async def _sent(exchange: Exchange, sight: Sight, code: int = 200, headers: dict[str, str] | None = None) -> Reply:
    document = with_links(exchange, sight, sight.document.get("graph_id"))
    return json_reply(await filtered(exchange, document), code, {**FRESH, **(headers or {})})


def with_links(exchange: Exchange, sight: Sight, graph_id: str | None) -> dict[str, Any]:
    document = sight.document
    if sight.whole:
        return {**document, "links": execution_links(exchange, document, graph_id or document["graph_name"])}
    own = execution_link(exchange, document["execution_id"])
    return {**document, "links": {"self": own, "resume": f"{own}/resume"}}


async def events(exchange: Exchange) -> Response:
    """`GET /executions/{execution_id}/events`"""
    after = number_of(exchange)
    document = (await look(exchange, "execution_events")).document
    execution_id = document["execution_id"]
    found = await exchange.calls.service.get_execution_events(execution_id, after=after)
    known = told_id(exchange, execution_id)
    shown = [told(event, known, document["graph_name"]) for event in found[:MOST_EVENTS]]
    answer = {
        "execution_id": execution_id,
        "events": shown,
        "last_sequence": shown[-1]["sequence"] if shown else after,
        "complete": len(found) <= MOST_EVENTS,
    }
    return json_reply(await filtered(exchange, answer), headers=FRESH)


async def nodes(exchange: Exchange) -> Response:
    """`GET /executions/{execution_id}/nodes`"""
    begin = whole_number("after", exchange.query("after"), 0, MOST_SKIPPED, least=0)
    limit = whole_number("limit", exchange.query("limit"), USUAL, MOST_NODES)
    document = (await look(exchange, "execution_nodes")).document
    execution_id = document["execution_id"]
    found = await exchange.calls.service.get_execution_nodes(execution_id, node=exchange.query("node"))
    answer = {
        "execution_id": execution_id,
        "graph_name": document["graph_name"],
        "nodes": found[begin : begin + limit],
        "total_count": len(found),
    }
    return json_reply(await filtered(exchange, answer), headers=FRESH)


async def stream(exchange: Exchange) -> Response:
    """`GET /executions/{execution_id}/stream`"""
    after, follow = number_of(exchange), follows(exchange)
    refuse_too_many(exchange)
    document = (await look(exchange, "execution_stream")).document
    return await event_stream(exchange, document["execution_id"], document["graph_name"], after, follow)


async def graph(exchange: Exchange) -> Response:
    """`GET /executions/{execution_id}/graph`"""
    document = (await look(exchange, "execution_graph")).document
    drawn = await exchange.calls.service.draw_execution(document["execution_id"])
    return await drawing(exchange, drawn, ("json", "svg"), FRESH)


async def cancel(exchange: Exchange) -> Response:
    """`POST /executions/{execution_id}/cancel`"""
    sight = await look(exchange, "cancel")
    return await _cancelled(exchange, sight)


async def _cancelled(exchange: Exchange, sight: Sight) -> Reply:
    ended = await exchange.calls.service.cancel_execution(sight.document["execution_id"])
    return await _sent(exchange, sight._replace(document=ended))


async def _to_cancel(exchange: Exchange) -> Sight:
    """The execution that is cancelled by way of `resume`. Who is only asked something by it may not do that."""
    try:
        return await look(exchange, "cancel")
    except UnknownExecution:
        await look(exchange, "resume")  # or it is not there for the caller
        raise forbidden() from None


async def resume(exchange: Exchange) -> Response:
    """`POST /executions/{execution_id}/resume` and `POST /resume/{thread_id}`"""
    body = fitted(ResumeBody, await read_json(exchange, exchange.calls.config))
    if body.action == "cancel":
        return await _cancelled(exchange, await _to_cancel(exchange))
    sight = await look(exchange, "resume")
    document = sight.document
    execution_id: str = document["execution_id"]
    path = wait_to_answer(exchange, sight, body.token or body.node)
    if path is None:
        if sight.whole:
            await exchange.calls.service._not_expired(execution_id, body.token or body.node)
        raise nothing_waits(exchange, sight)
    service = exchange.calls.service
    by = caller(exchange)
    after = await service.resume_execution(execution_id, body.action, body.data, node=path, by=by)
    if not sight.whole:
        left = [wait for wait in document["waiting"] if wait["path"] != path]
        after = limited(after, left)
    return await _sent(exchange, sight._replace(document=after))


async def retry(exchange: Exchange) -> Response:
    """`POST /executions/{execution_id}/retry`"""
    body = fitted(RetryBody, await read_optional_json(exchange, exchange.calls.config))
    sight = await look(exchange, "retry")
    context = run_context(exchange, None)
    context.pop("principal")  # it stays the owner's
    made = await exchange.calls.service.retry_execution(
        sight.document["execution_id"],
        start=body.start,
        definition=body.definition,
        state_patch=body.state_patch,
        dry_run=body.dry_run,
        context=context,
    )
    if body.dry_run:
        return json_reply(await filtered(exchange, made), headers=FRESH)
    exchange.execution_id = made["execution_id"]
    location = {"Location": execution_link(exchange, made["execution_id"])}
    return await _sent(exchange, sight._replace(document=made), 201, location)


async def delete(exchange: Exchange) -> Response:
    """`DELETE /executions/{execution_id}`"""
    sight = await look(exchange, "delete")
    await exchange.calls.service.delete_execution(sight.document["execution_id"])
    return no_content()
