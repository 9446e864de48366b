"""The agent `sql`: statements of the configuration by their names. `sql_call` is imported when a row names it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ..config import AgentMapConfig
from ..context import DATABASE, SQL, AgentMapContext
from ..errors import ConfigError, NotAllowed, nearest
from ..workflows.diagnostics import Finding
from ..workflows.model import Node
from .basic import prompt_mentions
from .options import Option, declared, is_secret
from .registry import Agent, Call

_HEAD: Final = re.compile(r"^--\s*name\s*:\s*([A-Za-z_][\w.-]*)\s*$", re.M)
_READS: Final = re.compile(r"\s*(?:--[^\n]*\n\s*)*(?:select|values|show|explain)\b", re.I)

STATEMENT: Final = Option("statement", summary="The name of the statement; else the Prompt.")
PARAMS: Final = Option("params", "object", "Values of its parameters; else the inputs, by their names.")
OPTIONS: Final = declared(
    *(STATEMENT, PARAMS),
    Option("result", "text", "rows; row: the first, or null; value: its first column; count: rows that were changed.",
           "rows", choices=("rows", "row", "value", "count")),
)  # fmt: skip


def statements(path: str) -> dict[str, str]:
    """The statements of a file, or of the `*.sql` files of a folder, by name. Raises ConfigError.

    `-- name: find_customer` stands before each; a file without such a line is one statement, named by its stem.
    """
    place = Path(path)
    try:
        files = sorted(place.glob("*.sql")) if place.is_dir() else [place]
        texts = [(file, file.read_text(encoding="utf-8")) for file in files]
    except (OSError, UnicodeError) as exc:
        raise ConfigError(f"sql_path: {path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from None
    found: dict[str, str] = {}
    for file, text in texts:
        heads = list(_HEAD.finditer(text))
        parts = [(head[1], text[head.end() : after]) for head, after in zip(heads, _ends(heads, text), strict=True)]
        for name, statement in parts or [(file.stem, text)]:
            plain = statement.strip().removesuffix(";").strip()
            if not plain:
                raise ConfigError(f"sql_path: the statement {name!r} in {file} is empty")
            if name in found:
                raise ConfigError(f"sql_path: the statement {name!r} is given twice, again in {file}")
            found[name] = plain
    return found


def _ends(heads: list[re.Match[str]], text: str) -> list[int]:
    return [*(head.start() for head in heads[1:]), len(text)][: len(heads)]


def _configured(config: AgentMapConfig, context: AgentMapContext) -> Agent:
    """The agent with the statements and the database of a service; it is off while one of them is missing."""
    if config.sql_path is None:
        return replace(AGENT, check=partial(_off, "no statements are configured", "Name their file in sql_path."))
    service = next((name for name in (SQL, DATABASE) if name in context.service_names), None)
    if service is None:
        hint = "Set sql_url, or give database_session_factory to the context."
        return replace(AGENT, check=partial(_off, "no database is configured", hint))
    known = statements(config.sql_path)
    run = partial(_run, known, service, config.sql_max_rows)
    return replace(
        AGENT, check=partial(_check, known), run=run, services=(service,), repeatable=partial(repeatable, known)
    )


async def _run(known: Mapping[str, str], service: str, most: int, call: Call) -> Any:
    from .sql_call import execute

    return await execute(known, call.service(service), most, call)


async def _unset(call: Call) -> Any:
    raise NotAllowed("No statements are configured (sql_path)")


def _off(what: str, hint: str, node: Node) -> Iterator[Finding]:
    yield Finding("AM-A009", "error", f"{node.name!r} asks a database, and {what}", hint, "AgentType", node.agent_type)


def _written(node: Node) -> str:
    return str(node.options.get("statement") or node.prompt).strip()


def _check(known: Mapping[str, str], node: Node) -> Iterator[Finding]:
    """A statement that does not exist, and parameters that nothing fills."""
    if find_spec("sqlalchemy") is None:
        message = f"{node.name!r} needs SQLAlchemy"
        hint = "pip install 'agentmap-asgi[sql]'"
        yield Finding("AM-A009", "error", message, hint, "AgentType", node.agent_type)
        return
    from .sql_call import parameters

    name = _written(node)
    column = "Context" if node.options.get("statement") else "Prompt"
    if is_secret(name) or "{" in name:
        message = f"The statement of {node.name!r} is not written in the row"
        yield Finding("AM-A004", "error", message, "Write its name as it stands in sql_path.", column, name)
        return
    if name not in known:
        near = nearest(name, list(known)) if name else None
        hint = f"Did you mean {near!r}?" if near else f"There are: {', '.join(sorted(known)[:10])}."
        message = f"There is no statement {name!r}" if name else f"{node.name!r} names no statement"
        yield Finding("AM-A004", "error", message, hint, column, name or None)
        return
    params = node.options.get("params")
    given = set(params) if isinstance(params, dict) else {entry.parameter or entry.source for entry in node.inputs}
    if missing := [one for one in parameters(known[name]) if one not in given]:
        message = f"The statement {name!r} needs {', '.join(missing)}, which {node.name!r} does not give"
        hint = "Name them in Input_Fields, as field:parameter, or in params."
        yield Finding("AM-A004", "error", message, hint, "Context" if params else "Input_Fields")


def repeatable(known: Mapping[str, str], node: Node) -> bool:
    """Whether the statement only reads."""
    return _READS.match(known.get(_written(node), "")) is not None


AGENT: Final = Agent(
    name="sql",
    summary="Runs a statement of the configuration.",
    inputs="are its parameters",
    output="the rows, a row, a value or a count",
    options=OPTIONS,
    mode="async",
    run=_unset,
    configure=_configured,
    mentions=prompt_mentions,
)
