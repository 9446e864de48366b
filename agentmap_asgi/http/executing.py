"""The operations that start executions."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..errors import AgentMapError
from ..execution.records import stamp
from .auth import audited, owner_of, permit
from .body import media_type, read_bytes, read_json
from .exchange import Exchange
from .problems import Refusal, invalid, invalid_field, problem
from .replies import json_reply
from .schemas import BatchBody, BatchItem, ExecuteBody, RunBody, StateBody
from .tables import CSV_TYPE, table_reply, wants_csv

BATCH_CONCURRENCY: Final = 32

_NOTHING: Final[Mapping[str, Any]] = {}

ModelT = TypeVar("ModelT", bound=BaseModel)


async def execute(exchange: Exchange) -> Response:
    """`POST /execute`"""
    body = fitted(ExecuteBody, await read_json(exchange, exchange.calls.config))
    exchange.workflow = body.graph_name
    return json_reply(await _run(exchange, body.graph_name, body, body.execution_id))


async def execute_named(exchange: Exchange) -> Response:
    """`POST /execute/{graph}` and `POST /execute/{workflow}/{graph}`"""
    body = fitted(RunBody, await read_json(exchange, exchange.calls.config))
    document = await _run(exchange, "/".join(exchange.params.values()), body, body.execution_id)
    if not exchange.calls.formats:
        document["outputs"] = document.get("result")  # after the host's filter, which knows `result` only
    return json_reply(document)


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
        return model.model_validate(value)
    except ValidationError as exc:
        raise invalid(exc, model.model_fields, base) from None


async def _run(exchange: Exchange, graph_name: str, body: StateBody, execution_id: str | None = None) -> dict[str, Any]:
    if exchange.calls.service.context.authorize is not None:
        await permit(exchange, "execute", graph_name)
    context = run_context(exchange, body.context)
    found = await exchange.calls.execute(graph_name, body.state, context, execution_id, exchange.client)
    exchange.execution_id = found.get("execution_id")
    return await _answer(exchange, graph_name, found, context)


async def _answer(
    exchange: Exchange, graph_name: str, found: Mapping[str, Any], context: dict[str, Any]
) -> dict[str, Any]:
    document = {**found, "links": {"workflow": exchange.workflow_link(graph_name)}}
    service = exchange.calls.service
    if exchange.calls.formats:
        document = await service.format_execution_response(document, context)
    if exchange.calls.filters:
        document = await service.filter_response(document, context)
    return document


async def filtered(exchange: Exchange, document: dict[str, Any]) -> dict[str, Any]:
    """The document as the host's `filter_response` lets it out."""
    calls = exchange.calls
    if not calls.filters:
        return document
    return await calls.service.filter_response(deepcopy(document), run_context(exchange, None))


def run_context(exchange: Exchange, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run is told about its request. What the caller says comes first, so that the host's words replace it."""
    host = exchange.calls.service.context
    ours = {
        "principal": owner_of(exchange.principal, host),
        "request_id": exchange.request_id,
        "timestamp": stamp(host.clock.time_ns()),
    }
    if b"traceparent" in exchange.headers and (traceparent := exchange.traceparent) is not None:
        ours["traceparent"] = traceparent
    said = exchange.scope.get("state", _NOTHING).get("workflow_context")
    if given is None and said is None and not exchange.host_params:
        return ours
    params = {name: v if isinstance(v, str | int | float) else str(v) for name, v in exchange.host_params.items()}
    context = {**(given or _NOTHING), **params, **ours}
    if "traceparent" not in ours:
        context.pop("traceparent", None)
    if said is not None:
        if not isinstance(said, Mapping):
            raise TypeError(f"request.state.workflow_context is a {type(said).__name__}; it must be a dict")
        context.update(said)
        if ours["principal"] is not None:
            context["principal"] = ours["principal"]
    return context


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
        return _accepted(index, await _run(exchange, body.graph_name, body))
    except Exception as exc:  # one item's error must not lose the others
        return _refused(exchange, index, item, exc)


async def _outcomes_of_host(exchange: Exchange, items: list[Any]) -> list[dict[str, Any]]:
    """The same through the host's own `batch_execute_workflows`, which gives a document or an exception for each."""
    outcomes: list[dict[str, Any]] = [{}] * len(items)
    given: dict[int, dict[str, Any]] = {}
    for index, item in enumerate(items):
        try:
            body = fitted(BatchItem, item, f"/executions/{index}")
            if exchange.calls.service.context.authorize is not None:
                await permit(exchange, "execute", body.graph_name)
            context = run_context(exchange, body.context)
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
            outcomes[index] = _accepted(index, await _answer(exchange, item["graph_name"], document, item["context"]))
        except Exception as exc:  # as above
            outcomes[index] = _refused(exchange, index, item, exc)
    return outcomes


def _accepted(index: int, document: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "status": "ok", "execution": document}


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
