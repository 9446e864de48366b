"""The operations that start executions."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..errors import AgentMapError
from ..services.starting import CallOptions, digest_of
from .auth import audited, permit
from .body import media_type, read_bytes, read_json
from .calls import Called
from .exchange import Exchange
from .filtering import run_context
from .links import execution_link, execution_links
from .owners import kept_id, with_told_ids
from .problems import Refusal, invalid, invalid_field, problem
from .replies import Reply, json_reply
from .schemas import BatchBody, BatchItem, ExecuteBody, RunBody, StateBody
from .sse import event_stream, follows, refuse_too_many
from .tables import CSV_TYPE, table_reply, wants_csv

BATCH_CONCURRENCY: Final = 32
REPLAYED: Final = "Idempotent-Replayed"
KEY: Final = re.compile(r"[!-~]{1,255}", re.ASCII)

_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,6})", re.IGNORECASE)

ModelT = TypeVar("ModelT", bound=BaseModel)


async def execute(exchange: Exchange) -> Response:
    """`POST /execute`"""
    body = fitted(ExecuteBody, await read_json(exchange, exchange.calls.config))
    exchange.workflow = body.graph_name
    called, document = await _run(exchange, body.graph_name, body)
    return _reply(exchange, called, document)


async def execute_named(exchange: Exchange) -> Response:
    """`POST /execute/{graph}` and `POST /execute/{workflow}/{graph}`"""
    body = fitted(RunBody, await read_json(exchange, exchange.calls.config))
    called, document = await _run(exchange, "/".join(exchange.params.values()), body)
    if called.going or not exchange.calls.formats:
        document["outputs"] = document.get("result")  # after the host's filter, which knows `result` only
    return _reply(exchange, called, document)


async def execute_stream(exchange: Exchange) -> Response:
    """`POST /execute/stream`"""
    body = fitted(ExecuteBody, await read_json(exchange, exchange.calls.config))
    exchange.workflow = body.graph_name
    follow = follows(exchange)
    refuse_too_many(exchange)
    called = await started(exchange, body.graph_name, body, 0)
    document = called.document
    headers = {"Location": execution_link(exchange, document["execution_id"])}
    if called.replayed:
        headers[REPLAYED] = "true"
    return await event_stream(exchange, document["execution_id"], document["graph_name"], 0, follow, headers)


async def execute_batch(exchange: Exchange) -> Response:
    """`POST /execute/batch`"""
    config = exchange.calls.config
    as_table = wants_csv(exchange)
    if media_type(exchange) == CSV_TYPE:
        items, limit = await _rows(exchange), None
    else:
        body = fitted(BatchBody, await read_json(exchange, config))
        items, limit = body.executions, body.max_concurrency
    if len(items) > config.max_batch:
        raise invalid_field("/executions", "too_long", f"A batch has at most {config.max_batch} executions")
    # In a task of ours: a client that goes away must not lose the items that have not begun.
    if exchange.calls.batches:
        outcomes = await exchange.calls.kept(_outcomes_of_host(exchange, items))
    else:
        outcomes = await exchange.calls.kept(_outcomes(exchange, items, limit or BATCH_CONCURRENCY))
    if as_table:
        return table_reply(outcomes)
    refused = sum(outcome["status"] == "refused" for outcome in outcomes)
    return json_reply({"executions": outcomes, "total_count": len(outcomes), "refused_count": refused})


def fitted(model: type[ModelT], value: Any, base: str = "") -> ModelT:
    """The value as its model. Raises Refusal 422 naming the places that do not fit."""
    try:
        # What pydantic's `model_validate` calls, which takes half as long again around it.
        return cast("ModelT", model.__pydantic_validator__.validate_python(value))
    except ValidationError as exc:
        raise invalid(exc, model.model_fields, base) from None


async def started(exchange: Exchange, graph_name: str, body: RunBody, seconds: float | None) -> Called:
    """Start what a body asks for, when the caller may, and wait so long for its end."""
    if exchange.calls.service.context.authorize is not None:
        await permit(exchange, "execute", graph_name)
    options = _options(exchange, body, exchange.headers.get(b"idempotency-key"), body.execution_id)
    context = run_context(exchange, body.context)
    called = await exchange.calls.execute(graph_name, body.state, context, options, seconds, plain=exchange.plain)
    exchange.execution_id = called.document.get("execution_id")
    return called


async def _run(exchange: Exchange, graph_name: str, body: RunBody) -> tuple[Called, dict[str, Any]]:
    calls = exchange.calls
    seconds = _seconds(exchange, body)
    called = await started(exchange, graph_name, body, seconds)
    if seconds == 0 and "execution_id" in called.document:
        called = called._replace(going=True)  # who does not want to wait is answered in one way
    document = _linked(exchange, graph_name, called.document)
    if calls.formats or calls.filters:
        document = await _shaped(exchange, document, body.context, calls.formats and not called.going)
    return called, document


def _seconds(exchange: Exchange, body: RunBody) -> float:
    """How long the caller waits for the end; 0 when it does not."""
    most = exchange.calls.config.wait_seconds
    if body.mode == "async":
        return 0
    wanted = body.wait_seconds
    if b"prefer" in exchange.headers:
        for part in exchange.header(b"prefer").lower().replace(" ", "").split(","):
            if part.partition(";")[0] == "respond-async" and wanted is None:
                wanted = 0
        if (waits := _WAIT.search(exchange.header(b"prefer"))) is not None and not wanted:
            wanted = float(waits[1])
    return most if wanted is None else min(wanted, most)


def _options(
    exchange: Exchange, body: StateBody, key: bytes | str | None, execution_id: str | None = None
) -> CallOptions | None:
    """What travels beside the call; None when there is nothing to say."""
    kept = None if execution_id is None else kept_id(exchange, execution_id)
    if key is None:
        if execution_id is None and not body.tags and exchange.calls.service.instruments.audit is None:
            return None
        return CallOptions(kept, "http", exchange.client, tuple(body.tags or ()))
    tags = tuple(body.tags or ())
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    if not KEY.fullmatch(text):
        raise invalid_field("", "idempotency_key", "Idempotency-Key is a text of 1 to 255 visible ASCII characters")
    asked = digest_of(body.state, body.context, tags, execution_id)  # not how long it is waited for: `mode`, `Prefer`
    return CallOptions(kept, "http", exchange.client, tags, text, asked)


def _reply(exchange: Exchange, called: Called, document: dict[str, Any]) -> Reply:
    if not called.going and not called.replayed:
        return json_reply(document)
    headers = {}
    if called.going:
        headers["Location"] = execution_link(exchange, called.document["execution_id"])
        headers["Retry-After"] = "1"
        if "respond-async" in exchange.header(b"prefer").lower():
            headers["Preference-Applied"] = "respond-async"
    if called.replayed:
        headers[REPLAYED] = "true"
    return json_reply(document, 202 if called.going else 200, headers)


def _linked(exchange: Exchange, graph_name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A document with its links, and with the ids that the caller knows."""
    if "execution_id" in found and "status" in found:  # unless an override has made something else of it
        links = execution_links(exchange, found, graph_name)
    else:
        links = {"workflow": exchange.workflow_link(graph_name)}
    return with_told_ids(exchange, {**found, "links": links})


async def _shaped(
    exchange: Exchange, document: dict[str, Any], given: Mapping[str, Any] | None, formats: bool
) -> dict[str, Any]:
    """The document as the host's hooks let it out."""
    calls = exchange.calls
    context = run_context(exchange, given)
    if formats:
        document = await calls.service.format_execution_response(document, context)
    if calls.filters:
        document = await calls.service.filter_response(document, context)
    return document


async def _outcomes(exchange: Exchange, items: list[Any], limit: int) -> list[dict[str, Any]]:
    """Run all items, at most `limit` at once; each gets its outcome, whatever happens to the others."""
    outcomes: list[dict[str, Any]] = [{}] * len(items)
    waiting = iter(range(len(items)))

    async def work() -> None:
        for index in waiting:
            outcomes[index] = await _outcome(exchange, index, items[index])

    await asyncio.gather(*(work() for _ in range(min(limit, len(items)))))
    return outcomes


async def _outcome(exchange: Exchange, index: int, item: Any) -> dict[str, Any]:
    try:
        body = fitted(BatchItem, item, f"/executions/{index}")
        if exchange.calls.service.context.authorize is not None:
            await permit(exchange, "execute", body.graph_name)
        options = _options(exchange, body, body.idempotency_key)
        context = run_context(exchange, body.context)
        called = await exchange.calls.execute(body.graph_name, body.state, context, options)
        exchange.execution_id = called.document.get("execution_id")
        document = _linked(exchange, body.graph_name, called.document)
        document = await _shaped(exchange, document, body.context, exchange.calls.formats)
        return _accepted(index, document, called.replayed)
    except Exception as exc:  # one item's error must not lose the others
        return _refused(exchange, index, item, exc)


async def _outcomes_of_host(exchange: Exchange, items: list[Any]) -> list[dict[str, Any]]:
    """The same through the host's own `batch_execute_workflows`, which gives a document or an exception for each."""
    outcomes: list[dict[str, Any]] = [{}] * len(items)
    given: dict[int, dict[str, Any]] = {}
    asked: dict[int, BatchItem] = {}
    for index, item in enumerate(items):
        try:
            body = fitted(BatchItem, item, f"/executions/{index}")
            if exchange.calls.service.context.authorize is not None:
                await permit(exchange, "execute", body.graph_name)
            context = run_context(exchange, body.context)
            asked[index] = body
            given[index] = {"graph_name": body.graph_name, "initial_state": body.state, "context": context}
        except Exception as exc:  # as above
            outcomes[index] = _refused(exchange, index, item, exc)
    found = await exchange.calls.batch(list(given.values()), exchange.client) if given else []
    for (index, item), document in zip(given.items(), found, strict=True):
        try:
            if isinstance(document, Exception):
                raise document
            if document.get("status") == "refused":
                raise Refusal(422, document["error"]["code"], document["error"]["message"])
            shown = _linked(exchange, item["graph_name"], document)
            shown = await _shaped(exchange, shown, asked[index].context, exchange.calls.formats)
            outcomes[index] = _accepted(index, shown)
        except Exception as exc:  # as above
            outcomes[index] = _refused(exchange, index, item, exc)
    return outcomes


def _accepted(index: int, document: dict[str, Any], replayed: bool = False) -> dict[str, Any]:
    return {"index": index, "status": "ok", "execution": document} | ({"replayed": True} if replayed else {})


def _refused(exchange: Exchange, index: int, item: Any, exc: Exception) -> dict[str, Any]:
    if isinstance(exc, Refusal | AgentMapError | HTTPException):
        refusal = exchange.calls.refusal(exc, exchange.request_id)
    else:
        refusal = exchange.calls.unexpected(exc, exchange.request_id)
    facts = audited(exchange) | {"workflow": item.get("graph_name") if isinstance(item, dict) else None}
    exchange.calls.service.instruments.refused("http", code=refusal.code, **facts)
    error = problem(refusal, exchange.instance, exchange.request_id)
    return {"index": index, "status": "refused", "error": error}


async def _rows(exchange: Exchange) -> list[Any]:
    """The rows of a CSV body as items of a batch: headers are fields, cells are texts."""
    graph = exchange.query("graph")
    if not graph:
        raise invalid_field("", "missing", "Name the workflow of the rows: /execute/batch?graph=Name")
    config = exchange.calls.config
    data = await read_bytes(exchange, (CSV_TYPE,), config.max_body_bytes, config.body_timeout)
    try:
        table = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True) if any(row)]
    except UnicodeError:
        raise Refusal(400, "invalid_csv", "The body must be CSV in UTF-8") from None
    except csv.Error:
        raise Refusal(400, "invalid_csv", "The body is not CSV; look for a quote that is not closed") from None
    if not table:
        raise Refusal(400, "invalid_csv", "The body has no header row")
    names = [name.strip() for name in table[0]]
    if len(set(names)) != len(names) or "" in names:
        raise Refusal(400, "invalid_csv", "The header row must name each column, and each once")
    items: list[Any] = []
    for row in table[1:]:
        if any(row[len(names) :]):
            items.append(None)  # refused by itself: cells without a column
            continue
        items.append({"graph_name": graph, "initial_state": dict(zip(names, row, strict=False))})
    return items
