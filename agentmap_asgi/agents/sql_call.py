"""One statement of a node: values are bound, never put into its text."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from ..errors import ConfigError, DataUnusable
from ..execution.values import text_of
from .filling import Filling
from .registry import Call

MOST_THREADS: Final = 16
_places: RunVar[CapacityLimiter] = RunVar("places of blocking database drivers")


async def execute(known: Mapping[str, str], database: Any, most: int, call: Call) -> Any:
    """What the statement of a row gives. `database` is an engine or a session, sync or async.

    Raises DataUnusable, without the statement's values.
    """
    options = call.options
    name = str(options.get("statement") or call.node.prompt).strip()
    statement = known.get(name)
    if statement is None:
        raise DataUnusable(f"There is no statement {name!r}")
    params = call.node.options.get("params")
    given = call.inputs if params is None else Filling(call)(params)
    wanted = parameters(statement)
    if missing := [one for one in wanted if one not in given]:
        raise DataUnusable(f"The statement {name!r} needs {', '.join(missing)}")
    values = {one: _bound(given[one]) for one in wanted}
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        return await _executed(database, statement, values, options["result"], most)
    except SQLAlchemyError as exc:  # its own text holds the values
        why = exc.orig if isinstance(exc, DBAPIError) else exc
        raise DataUnusable(f"The statement {name!r} failed: {type(why).__name__}: {why}") from None


async def _executed(database: Any, statement: str, values: dict[str, Any], form: str, most: int) -> Any:
    if inspect.iscoroutinefunction(type(database).dispose if _is_engine(database) else type(database).execute):
        return await _awaited(database, statement, values, form, most)
    try:
        places = _places.get()
    except LookupError:
        places = CapacityLimiter(MOST_THREADS)
        _places.set(places)
    return await to_thread.run_sync(_blocking, database, statement, values, form, most, limiter=places)


@lru_cache(maxsize=1_000)
def parameters(statement: str) -> tuple[str, ...]:
    """The `:names` of a statement. Raises ConfigError without SQLAlchemy."""
    try:
        from sqlalchemy import text
    except ImportError:
        raise ConfigError("The agent sql needs SQLAlchemy: pip install 'agentmap-asgi[sql]'") from None
    return tuple(text(statement).compile().params)


def _is_engine(database: Any) -> bool:
    return hasattr(database, "dispose") and hasattr(database, "begin")


async def _awaited(database: Any, statement: str, values: dict[str, Any], form: str, most: int) -> Any:
    made = _made(statement, values)
    if _is_engine(database):
        async with database.begin() as connection:
            return _taken(await connection.execute(made, values), form, most)
    found = _taken(await database.execute(made, values), form, most)
    await database.commit()
    return found


def _blocking(database: Any, statement: str, values: dict[str, Any], form: str, most: int) -> Any:
    made = _made(statement, values)
    if _is_engine(database):
        with database.begin() as connection:
            return _taken(connection.execute(made, values), form, most)
    try:
        found = _taken(database.execute(made, values), form, most)
        database.commit()
    except BaseException:
        database.rollback()  # here, because whoever closes the session does so in the event loop
        raise
    return found


def _made(statement: str, values: Mapping[str, Any]) -> Any:
    """The statement, in which a list fills `IN :names`."""
    from sqlalchemy import bindparam, text

    lists: list[Any] = [bindparam(name, expanding=True) for name, value in values.items() if isinstance(value, list)]
    return text(statement).bindparams(*lists)


def _bound(value: Any) -> Any:
    """Lists of plain values stay; what a database has no room for is JSON."""
    if isinstance(value, list) and not any(isinstance(one, dict | list) for one in value):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _taken(result: Any, form: str, most: int) -> Any:
    if form == "count" or not result.returns_rows:
        if form not in ("count", "rows"):
            raise DataUnusable("The statement gives no rows")
        return max(0, result.rowcount) if not result.returns_rows else len(_bounded(result, most))
    if form == "rows":
        return [_row(row) for row in _bounded(result, most)]
    row = result.fetchone()
    if row is None:
        return None
    return _row(row) if form == "row" else _plain(row[0])


def _bounded(result: Any, most: int) -> list[Any]:
    rows = list(result.fetchmany(most + 1))
    if len(rows) > most:
        raise DataUnusable(f"The statement gives more than the {most} rows of sql_max_rows; give it a LIMIT")
    return rows


def _row(row: Any) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in row._mapping.items()}


def _plain(value: Any) -> Any:
    """A value of a database as JSON has it: times in ISO 8601, decimals as numbers where these are exact."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        if value == value.to_integral_value() and abs(value) < 2**53:
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return str(value) if isinstance(value, UUID) else text_of(str(value))
