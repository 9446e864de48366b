"""Writes the tables of these pages from the tables of the package: `make docs`. A test says when they are behind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agentmap_asgi import errors
from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.agents.options import Options, rows_of, shown_default
from agentmap_asgi.agents.registry import Agent
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.http.operations import OPERATIONS
from agentmap_asgi.providers import Provider
from agentmap_asgi.workflows.codes import CODES
from agentmap_asgi.workflows.columns import COLUMNS
from agentmap_asgi.workflows.policies import COMMON_OPTIONS

FOLDER: Final = Path(__file__).parent
MARKED: Final = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- table end -->)", re.DOTALL)


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    columns = head.split("|")
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|").strip() for cell in line) + " |\n" for line in lines)


def code(text: str) -> str:
    return f"`{text}`"


def codes(texts: Iterable[str]) -> str:
    return ", ".join(map(code, texts))


def all_errors(kind: type[errors.AgentMapError] = errors.AgentMapError) -> Iterator[type[errors.AgentMapError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from all_errors(below)


def agent_facts(agent: Agent) -> str:
    """What its declaration says: inputs, result and options."""
    lines = f"Inputs: {agent.inputs}. Result: {agent.output}.\n"
    return f"{lines}\n{option_table(agent.options)}" if agent.options else lines


def option_table(options: Options) -> str:
    return table(
        "option|takes|default|meaning",
        (
            [codes((row.name, *row.aliases)), row.shown, default_of(row.default), row.summary]
            for row in rows_of(options)
        ),
    )


def default_of(value: object) -> str:
    return "" if value is None else code(shown_default(value))


def tables() -> dict[str, str]:
    """Each table's Markdown, by the name in its mark."""
    return {
        "settings": table(
            "setting|default|meaning|variable",
            ([code(n), code(json.dumps(d)), text, code(v)] for n, d, text, v in AgentMapConfig.rows()),
        ),
        "providers": table(
            "field|default|meaning", ([code(n), code(json.dumps(d)), text] for n, d, text in Provider.rows())
        ),
        "columns": table("column|also|meaning", ([code(c.name), codes(c.aliases), c.meaning] for c in COLUMNS)),
        "agents": table(
            "agent|other names|what it does", ([code(a.name), codes(a.aliases), a.summary] for a in BUILTINS)
        ),
        **{f"agent_{a.name}": agent_facts(a) for a in BUILTINS},
        "common_options": option_table(COMMON_OPTIONS),
        "operations": table(
            "method|path|does|scope",
            ([code(o.method), code(o.plain_path), o.summary, code(o.scope)] for o in OPERATIONS),
        ),
        "diagnostics": table(
            "code|severity|problem|remedy", ([code(c.code), c.severity, c.title, c.remedy] for c in CODES.values())
        ),
        "errors": table(
            "code|meaning", ([code(kind.code), (kind.__doc__ or "").split("\n")[0]] for kind in all_errors())
        ),
    }


def written(page: str) -> str:
    """The page with its tables as they should be. Raises KeyError for an unknown table."""
    known = tables()
    return MARKED.sub(lambda found: found[1] + known[found[2]] + found[3], page)


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            path.write_text(new, encoding="utf-8")
