"""Agents that wait for an answer from outside: human, suspend, input. None of them needs a thread, or time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from ..errors import nearest
from ..execution.fields import MISSING, Position, bind, finder, getter
from ..execution.templates import Template
from ..execution.waits import MOST_SECONDS, Suspend, form_problem
from ..workflows.cells import duration
from ..workflows.diagnostics import Finding
from ..workflows.model import Node
from ..workflows.options import parts
from .options import Option, declared, rows_of
from .registry import Site, Step

KINDS: Final = ("approval", "choice", "text_input", "edit", "form")
"""What a `human` node may ask for."""
WAITING: Final = declared(
    Option("form", "object", "JSON Schema of the answer.", lenient=True),
    Option("assignees", "names", "Who may see and answer it: names, or role:NAME.", lenient=True),
    Option("timeout_seconds", "number", "How long an answer is waited for, as the column Timeout.", lenient=True),
    Option("on_timeout", summary="The node that is taken when nobody has answered in time.", lenient=True),
)
"""Options of every agent that waits."""
ASKING: Final = declared(
    *rows_of(WAITING),
    Option(
        *("type", "text", "What is asked for."), "approval", aliases=("interaction_type",), choices=KINDS, lenient=True
    ),
    Option("options", "names", "What can be chosen; for the type choice.", lenient=True),
)

Ask = Callable[..., Suspend]
"""(values, position, value=…) -> what is asked"""


def human(node: Node, site: Site) -> Step:
    kind = kind_of(node)
    ask = _asking(node, site, kind)
    edited = bind(node.inputs)[0][1] if kind == "edit" and node.inputs else None

    def suspend(values: dict[str, Any], position: Position) -> Any:
        value = MISSING if edited is None else edited(values, position)
        raise ask(values, position, value=None if value is MISSING else value)

    return suspend


def suspended(node: Node, site: Site) -> Step:
    ask = _asking(node, site, "data")

    def suspend(values: dict[str, Any], position: Position) -> Any:
        raise ask(values, position)

    return suspend


def taken_input(node: Node, site: Site) -> Step:
    """Takes what is in the state; asks when something is missing, for several fields as an object of all of them."""
    gets = [(name, getter(name)) for name in node.outputs]
    several = len(gets) > 1
    ask = _asking(node, site, "input", _object_of(node.outputs) if several else None)

    def take(values: dict[str, Any], position: Position) -> Any:
        found = {name: value for name, get in gets if (value := get(values, position)) is not MISSING}
        if len(found) < len(gets):
            raise ask(values, position, value=found if several else None)
        return found or None if several or not found else next(iter(found.values()))

    return take


def _object_of(names: Iterable[str]) -> dict[str, Any]:
    """A form for exactly these fields: an answer writes no others."""
    names = list(names)
    return {
        "type": "object",
        "properties": {name: {} for name in names},
        "required": names,
        "additionalProperties": False,
    }


def _asking(node: Node, site: Site, kind: str, form: Mapping[str, Any] | None = None) -> Ask:
    render = Template(node.prompt).compile(finder(bind(node.inputs), state=True), limit=site.max_output)
    given: dict[str, Any] = {
        "type": kind,
        "options": _texts(node.options.get("options")) if kind == "choice" else (),
        "form": node.options.get("form") or form,
        "assignees": _texts(node.options.get("assignees")),
        "expires_in": patience(node),
        "on_timeout": node.options.get("on_timeout") or None,
    }

    def ask(values: dict[str, Any], position: Position, *, value: Any = None) -> Suspend:
        return Suspend(render(values, position), value=value, **given)

    return ask


def kind_of(node: Node) -> str:
    """The type of answer that a human node asks for. AgentMap's files call it `interaction_type`."""
    kind = node.options.get("type") or node.options.get("interaction_type") or "approval"
    return str(kind).strip().casefold()


def patience(node: Node) -> float | None:
    """Seconds that the node waits for an answer: its Timeout, or what AgentMap's files call `timeout_seconds`."""
    if node.timeout is not None:
        return node.timeout
    return duration(node.options.get("timeout_seconds"))


def timeout_targets(node: Node, nodes: Mapping[str, Node]) -> tuple[str, ...]:
    name = node.options.get("on_timeout")
    return (name,) if isinstance(name, str) and name else ()


def input_reads(node: Node) -> tuple[str, ...]:
    return node.outputs


# Checks.


def check_human(node: Node) -> Iterator[Finding]:
    kind = kind_of(node)
    options = node.options.get("options")
    if kind not in KINDS:
        near = nearest(kind, KINDS)
        hint = f"Did you mean {near!r}?" if near else f"Write one of {', '.join(KINDS)}."
        yield _wrong(f"The human node {node.name!r} asks for the unknown type {kind!r}", hint, kind)
    elif kind == "choice":
        if not _are_texts(options) or not _texts(options):
            what = "has no options" if options in (None, "", []) else "has options that are not texts"
            yield _wrong(f"The choice {node.name!r} {what}", 'Write {"type": "choice", "options": ["red", "green"]}.')
    elif options not in (None, "", []):
        message = f"The human node {node.name!r} has options, and its type is {kind}"
        yield Finding("AM-A004", "warning", message, "Only the type choice has options.", "Context", "options")
    if kind == "form" and node.options.get("form") is None:
        remedy = 'Write {"type": "form", "form": {"type": "object", "properties": {"name": {"type": "string"}}}}.'
        yield _wrong(f"The human node {node.name!r} has no form", remedy)
    if kind == "edit" and not node.inputs:
        message = f"The human node {node.name!r} has nothing to edit"
        yield Finding("AM-A005", "warning", message, "Name what is edited in Input_Fields.", "Input_Fields")
    if kind == "approval" and node.edge and node.on_failure:
        message = f"{node.name!r} has an Edge, so a rejection does not lead to its Failure_Next"
        hint = "Write Success_Next instead of Edge."
        yield Finding("AM-R008", "warning", message, hint, "Failure_Next")
    yield from check_suspend(node)


def check_suspend(node: Node) -> Iterator[Finding]:
    if node.map_over is not None:
        message = f"{node.name!r} waits for an answer, which a node with Map_Over cannot"
        yield Finding("AM-A004", "error", message, "Ask in a node before or after the list is worked on.", "Map_Over")
    yield from _check_wait(node)


def check_input(node: Node) -> Iterator[Finding]:
    if not node.outputs:
        message = f"The input node {node.name!r} asks for nothing"
        yield Finding("AM-A005", "warning", message, "Name the field it asks for in Output_Field.", "Output_Field")
    yield from _check_wait(node)


def _check_wait(node: Node) -> Iterator[Finding]:
    form = node.options.get("form")
    problem = None if form is None else form_problem(form, patterns=False)
    if problem is not None:
        hint = 'Write a JSON Schema: {"type": "object", "properties": {"name": {"type": "string"}}}.'
        yield _wrong(f"The form of {node.name!r} cannot be used: {problem}", hint, "form")
    if not _are_texts(node.options.get("assignees")):
        yield _wrong(
            f"The assignees of {node.name!r} are no list of texts", 'Write ["ada", "role:manager"].', "assignees"
        )
    given = node.options.get("timeout_seconds")
    seconds = patience(node)
    if given is not None and not duration(given):
        yield _wrong(f"The timeout_seconds of {node.name!r} are {given!r}", "Write a number of seconds.", str(given))
    elif seconds is not None and seconds >= MOST_SECONDS:
        message = f"{node.name!r} would wait for more than thirty years"
        yield Finding("AM-A006", "error", message, "Write a duration like 30s, 2h or 2d.", "Timeout")
    name = node.options.get("on_timeout")
    if name is not None and not isinstance(name, str):
        yield _wrong(f"The on_timeout of {node.name!r} is {name!r}, which is no node name", "Name a node.", str(name))
    elif name and not seconds and not given:
        message = f"{node.name!r} has on_timeout, and no timeout after which it is taken (but max_wait_days)"
        yield Finding("AM-A004", "warning", message, 'Write how long it waits: {"timeout": "2d"}.', "Context", name)


def _wrong(message: str, hint: str, text: str | None = None) -> Finding:
    return Finding("AM-A004", "error", message, hint, "Context", text)


def _are_texts(option: Any) -> bool:
    return (
        option is None
        or isinstance(option, str)
        or (isinstance(option, list) and all(isinstance(one, str) and one for one in option))
    )


def _texts(option: Any) -> tuple[str, ...]:
    if option is None:
        return ()
    return tuple(dict.fromkeys(part for one in parts(option) if (part := str(one).strip())))
