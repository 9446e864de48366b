"""Agents for files under the configured roots: readers and writers of CSV, JSON and text.

What they do is in `storing`, which is imported when a row names one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..config import AgentMapConfig
from ..context import AgentMapContext
from ..errors import DataUnusable, NotAllowed
from ..workflows.diagnostics import Finding
from ..workflows.model import Node
from . import data_options as options_of
from .basic import prompt_mentions
from .options import Options, is_secret
from .registry import Agent, Call

if TYPE_CHECKING:
    from .files import Roots

REPEATABLE: Final = frozenset({"write", "update", "merge", "delete"})
"""Modes after which a second time changes nothing."""


def _configured(kind: Agent, config: AgentMapConfig, context: AgentMapContext) -> Agent:
    """The agent over the roots of a service; without roots it is off."""
    if not config.data_roots:
        return replace(kind, check=_off)
    from .files import Roots

    roots = Roots(config.data_roots, config.data_max_bytes)
    return replace(kind, check=partial(_check, roots, kind), run=partial(_run, roots, kind.name))


def _run(roots: Roots, name: str, call: Call) -> Any:
    from .storing import WORK

    return WORK[name](roots, call)


def _unset(call: Call) -> Any:
    raise NotAllowed("No folder is configured for data (data_roots)")


def _off(node: Node) -> Iterator[Finding]:
    message = f"{node.name!r} works on files, and no folder is configured for them"
    hint = "Name the folders it may use in the setting data_roots."
    yield Finding("AM-A009", "error", message, hint, "AgentType", node.agent_type)


def _check(roots: Roots, kind: Agent, node: Node) -> Iterator[Finding]:
    """A file that no row may name, a query that is not understood, and modes that lack what they need."""
    from . import storing  # noqa: F401  # from now on it is there, so that no event loop waits for the disk
    from .rows import matcher

    options = node.options
    given = {entry.parameter or entry.source for entry in node.inputs}
    written = next(
        (options[key] for key in (options_of.COLLECTION.name, *options_of.COLLECTION.aliases) if options.get(key)), None
    )
    if written is None and "collection" not in given:
        written = node.prompt
    if written is not None and not is_secret(written) and "{" not in str(written):
        if not str(written).strip():
            message = f"{node.name!r} does not say which file it works on"
            yield Finding(
                "AM-A004", "error", message, "Write {collection=orders.csv}, or the file's name in Prompt.", "Context"
            )
        else:
            try:
                root, _ = roots.find(str(written))
                if not root.writable and kind.name.endswith("_writer"):
                    raise NotAllowed(f"{str(written)!r} is in a root that is for reading only")
            except NotAllowed as exc:
                column = "Prompt" if written is node.prompt else "Context"
                yield Finding("AM-A004", "error", exc.message, "Name a file of a root.", column, str(written))
    query = options.get("query")
    if isinstance(query, str) and not is_secret(query):
        try:
            matcher(query, {})
        except DataUnusable as exc:
            hint = "Compare names and literals: amount > 100."
            yield Finding("AM-X001", "error", exc.message, hint, "Context", query)
    if kind.name == "file_writer" and options.get("mode") == "merge":
        message = f"{node.name!r} cannot merge texts"
        yield Finding("AM-A004", "error", message, "Write mode as write, append or delete.", "Context", "mode")


def repeatable(node: Node) -> bool:
    """Whether a writer may run again after a crash: an append would add twice."""
    given = {entry.parameter or entry.source for entry in node.inputs}
    mode = str(node.options.get("mode") or "write").strip().casefold()
    return "mode" not in given and mode in REPEATABLE


def _agent(name: str, summary: str, inputs: str, output: str, options: Options) -> Agent:
    reads = name.endswith("_reader")
    kind = Agent(
        name=name,
        summary=summary,
        inputs=inputs,
        output=output,
        options=options,
        mode="thread",
        run=_unset,
        idempotent=reads,
        repeatable=None if reads else repeatable,
        mentions=prompt_mentions,
    )
    return replace(kind, configure=partial(_configured, kind))


_READS: Final = "may be any of the options"
_WRITES: Final = "`data` is written; others may be any of the options"
_WRITTEN: Final = "an object: success, mode, file_path, and what was changed"
AGENTS: Final = (
    _agent("csv_reader", "Reads rows of a CSV file.", _READS, "the rows, or one row for an id", options_of.READ_CSV),
    _agent("csv_writer", "Writes rows to a CSV file.", _WRITES, _WRITTEN, options_of.WRITE_CSV),
    _agent("json_reader", "Reads a JSON file, or a part of it.", _READS, "the value", options_of.READ_JSON),
    _agent("json_writer", "Writes to a JSON file.", _WRITES, _WRITTEN, options_of.WRITE_JSON),
    _agent("file_reader", "Reads a text file.", _READS, "the text", options_of.READ_FILE),
    _agent("file_writer", "Writes a text file.", _WRITES, _WRITTEN, options_of.WRITE_FILE),
)
