"""Agents that make a value: default, echo, success, failure, summary, aggregator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ..errors import OutputTooLarge
from ..execution.fields import MISSING, SPECIAL, Position, bind, finder, gather
from ..execution.templates import Template
from ..execution.values import text_of
from ..workflows.diagnostics import Finding
from ..workflows.model import Node
from ..workflows.options import parts
from .options import Option, declared
from .registry import Outcome, Site, Step

SUMMARY: Final = declared(
    Option("format", summary="How one input is written, with {key} and {value}.", default="{key}: {value}"),
    Option("separator", summary="What stands between two.", default="\n\n"),
    Option("include_keys", "names", "The inputs that are taken; all when it is missing."),
)


def default(node: Node, site: Site) -> Step:
    return _rendered(node, site) if node.prompt else _passed_on(node)


def echo(node: Node, site: Site) -> Step:
    return _rendered(node, site) if has_template(node) else _passed_on(node)


def has_prompt(node: Node) -> bool:
    return bool(node.prompt)


def has_template(node: Node) -> bool:
    return bool(Template(node.prompt).names)


def success(node: Node, site: Site) -> Step:
    make = default(node, site)
    return lambda values, position: Outcome(make(values, position), True)


def failure(node: Node, site: Site) -> Step:
    make = default(node, site)
    return lambda values, position: Outcome(make(values, position), False)


def aggregator(node: Node, site: Site) -> Step:
    bindings = bind(node.inputs)
    return lambda values, position: gather(bindings, values, position)


def prompt_mentions(node: Node) -> tuple[str, ...]:
    """State fields in a Prompt that is rendered with the whole state."""
    if "{" not in node.prompt:
        return ()
    own = {entry.parameter or entry.source for entry in node.inputs}
    names = Template(node.prompt).names
    return tuple(name for name in names if name not in own and name.partition(".")[0] not in own)


def summary(node: Node, site: Site) -> Step | None:
    if node.options.get("llm"):
        return None  # a model makes it
    bindings = bind(node.inputs)
    join = joiner(node.options)

    def joined(values: dict[str, Any], position: Position) -> str:
        text = join(gather(bindings, values, position))
        if len(text) > site.max_output:
            raise OutputTooLarge(f"The summary has more than {site.max_output} characters")
        return text

    return joined


def joiner(options: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], str]:
    """Makes one text of inputs, as the options of summary say."""
    line = Template(str(options.get("format", "{key}: {value}")))
    separator = str(options.get("separator", "\n\n"))
    wanted = _names(options.get("include_keys"))

    def join(inputs: Mapping[str, Any]) -> str:
        pieces = []
        for key, value in inputs.items():
            if value is not None and (wanted is None or key in wanted):
                fields = {"key": key, "value": text_of(value)}
                pieces.append("".join(literal + fields.get(name or "", "") for literal, name in line.parts))
        return separator.join(pieces)

    return join


def check_summary(node: Node) -> Iterator[Finding]:
    names = Template(str(node.options.get("format", ""))).names
    for name in names:
        if name not in ("key", "value"):
            yield Finding(
                "AM-A004", "error", f"format has {{{name}}}", "Use {key} and {value}.", "Context", f"{{{name}}}"
            )


def _names(option: Any) -> frozenset[str] | None:
    if option is None or option == "":
        return None
    return frozenset(str(part).strip() for part in parts(option))


def _rendered(node: Node, site: Site) -> Step:
    return Template(node.prompt).compile(finder(bind(node.inputs), state=True), limit=site.max_output)


def _passed_on(node: Node) -> Step:
    """One input: its value; several: the object; none: null."""
    bindings = bind(node.inputs)
    if not bindings:
        return lambda values, position: None
    if len(bindings) > 1:
        return lambda values, position: gather(bindings, values, position)
    source = node.inputs[0].source
    if "." not in source and source not in SPECIAL:
        return lambda values, position: values.get(source)
    get = bindings[0][1]

    def pass_on(values: dict[str, Any], position: Position) -> Any:
        value = get(values, position)
        return None if value is MISSING else value

    return pass_on
