"""Agents that decide where to go: branching, switch, orchestrator; and the options of graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from ..errors import RoutingInvalid
from ..execution.conditions import Condition, ConditionError
from ..execution.fields import MISSING, Position, bind, finder, gather
from ..execution.values import text_of
from ..workflows.diagnostics import Finding
from ..workflows.model import Node
from ..workflows.options import parts
from ..workflows.text import normalised
from .options import Option, declared
from .registry import Outcome, Site, Step, fold

YES: Final = ("true", "yes", "success", "succeed", "1", "t", "y")
NO: Final = ("false", "no", "failure", "fail", "0", "f", "n")

BRANCHING: Final = declared(
    Option("when", summary="The condition; without one an input is compared with the words below."),
    Option("success_field", summary="The field that is compared, instead of the first input."),
    Option("success_values", "names", "Words that mean yes.", default=list(YES)),
    Option("failure_values", "names", "Words that mean no.", default=list(NO)),
    Option("default_result", "truth", "The decision for anything else.", default=True),
)
SWITCH: Final = declared(
    Option("field", summary="The field whose value chooses, instead of the first input."),
    Option("cases", "any", "Node names by value, or a list of objects with when and to.", lenient=True),
    Option("default", summary="The node that is taken when no case fits.", lenient=True),
)
ORCHESTRATOR: Final = declared(
    Option("nodes", "names", "The candidates; `all` means every other node."),
    Option("nodeType", summary="The agent type of the candidates.", aliases=("node_type",)),
    Option("default_target", summary="The node that is taken when nothing fits."),
)
GRAPH: Final = declared(
    Option("workflow", summary="The workflow to run: ::Name of the same file, or file::Name."),
    Option("workflow_field", summary="The field of the state that names it."),
)


def branching(node: Node, site: Site) -> Step:
    find = finder(bind(node.inputs), state=True)
    when = node.options.get("when")
    if when:
        test = condition(str(when)).compile(find)

        def decide(values: dict[str, Any], position: Position) -> Outcome:
            answer = test(values, position)
            return Outcome(answer, answer)

        return decide

    name = node.options.get("success_field")
    get = find(str(name)) if name else bind(node.inputs)[0][1] if node.inputs else None
    yes = _words(node.options.get("success_values"), YES)
    no = _words(node.options.get("failure_values"), NO)
    otherwise = text_of(node.options.get("default_result", True)).strip().casefold() not in NO

    def compare(values: dict[str, Any], position: Position) -> Outcome:
        value = MISSING if get is None else get(values, position)
        answer = otherwise
        if value is not MISSING and value is not None:
            text = text_of(value).strip().casefold()
            answer = True if text in yes else False if text in no else otherwise
        return Outcome(answer, answer)

    return compare


def branching_reads(node: Node) -> tuple[str, ...]:
    if node.options.get("when"):
        return _condition_reads(node, _conditions(node))
    name = node.options.get("success_field")
    return (str(name),) if name and str(name) not in _parameters(node) else ()


def check_branching(node: Node) -> Iterator[Finding]:
    if node.options.get("when"):
        yield from _check_condition(str(node.options["when"]))
    elif not node.inputs and not node.options.get("success_field"):
        yield Finding(
            "AM-A005",
            "warning",
            f"The branching node {node.name!r} has nothing to decide by and always says its default",
            'Give it an input field, or a condition like {"when": "amount > 100"} in Context.',
            "Context",
        )


def condition(text: str) -> Condition:
    """A condition as people and spreadsheets write it: typographic quotes and dashes are mended where that helps."""
    try:
        return Condition(text)
    except ConditionError:
        plain = normalised(text)
        if plain == text.strip():
            raise
        return Condition(plain)


def _words(option: Any, otherwise: tuple[str, ...]) -> frozenset[str]:
    if option is None:
        return frozenset(otherwise)
    return frozenset(text_of(part).strip().casefold() for part in parts(option))


def switch(node: Node, site: Site) -> Step:
    find = finder(bind(node.inputs), state=True)
    cases = node.options.get("cases")
    otherwise = node.options.get("default")
    no_match = Outcome(None, False) if otherwise is None else Outcome(otherwise, goto=str(otherwise))
    if isinstance(cases, list):
        tests = [(condition(str(case["when"])).compile(find), Outcome(case["to"], goto=case["to"])) for case in cases]

        def first(values: dict[str, Any], position: Position) -> Outcome:
            for test, chosen in tests:
                if test(values, position):
                    return chosen
            return no_match

        return first

    table = {key: Outcome(target, goto=target) for key, target in (cases or {}).items()}
    name = node.options.get("field")
    get = find(str(name)) if name else bind(node.inputs)[0][1] if node.inputs else None

    def look_up(values: dict[str, Any], position: Position) -> Outcome:
        value = MISSING if get is None else get(values, position)
        if value is MISSING:
            return no_match
        return table.get(text_of(value).strip(), no_match)

    return look_up


def switch_targets(node: Node, nodes: Mapping[str, Node]) -> tuple[str, ...]:
    cases = node.options.get("cases")
    named: list[Any] = []
    if isinstance(cases, dict):
        named = list(cases.values())
    elif isinstance(cases, list):
        named = [case.get("to") for case in cases if isinstance(case, dict)]
    named.append(node.options.get("default"))
    return tuple(dict.fromkeys(name for name in named if isinstance(name, str) and name))


def switch_reads(node: Node) -> tuple[str, ...]:
    cases = node.options.get("cases")
    if isinstance(cases, list):
        return _condition_reads(node, _conditions(node))
    name = node.options.get("field")
    return (str(name),) if name and str(name) not in _parameters(node) else ()


def check_switch(node: Node) -> Iterator[Finding]:
    cases = node.options.get("cases")
    remedy = 'Write {"field": "kind", "cases": {"refund": "Refund"}, "default": "Other"} in Context.'
    if not isinstance(cases, dict | list) or not cases:
        yield Finding("AM-A004", "error", f"The switch {node.name!r} has no cases", remedy, "Context")
        return
    otherwise = node.options.get("default")
    if otherwise is not None and (not isinstance(otherwise, str) or not otherwise):
        message = f"The default of the switch {node.name!r} is {otherwise!r}, which is no node name"
        yield Finding("AM-A004", "error", message, remedy, "Context", text_of(otherwise))
    if isinstance(cases, dict):
        if not node.options.get("field") and not node.inputs:
            yield Finding("AM-A004", "error", f"The switch {node.name!r} has no field to look at", remedy, "Context")
        for key, target in cases.items():
            if not isinstance(target, str) or not target:
                message = f"The case {key!r} leads to {target!r}, which is no node name"
                yield Finding("AM-A004", "error", message, remedy, "Context", key)
        return
    for case in cases:
        if not isinstance(case, dict) or not isinstance(case.get("to"), str) or not case["to"] or "when" not in case:
            yield Finding(
                "AM-A004",
                "error",
                f"A case of the switch {node.name!r} is not a condition with a target",
                'Write each case as {"when": "amount > 100", "to": "Review"}.',
                "Context",
                text_of(case),
            )
        else:
            yield from _check_condition(str(case["when"]))


def orchestrator(node: Node, site: Site) -> Step | None:
    if node.options.get("llm"):
        return None  # a model chooses
    bindings = bind(node.inputs)
    candidates = [site.nodes[name] for name in orchestrator_targets(node, site.nodes) if name in site.nodes]
    otherwise = node.options.get("default_target")
    find = by_words([(c.name, f"{c.description} {c.options.get('keywords', '')}") for c in candidates])

    def choose(values: dict[str, Any], position: Position) -> Outcome:
        given = [text_of(value) for value in gather(bindings, values, position).values() if value is not None]
        chosen = find(" ".join(given))
        if chosen is None and otherwise:
            chosen = str(otherwise)
        if chosen is None:
            raise RoutingInvalid("No node matches the request, and there is no default_target in Context")
        return Outcome(chosen, goto=chosen)

    return choose


def by_words(candidates: Iterable[tuple[str, str]]) -> Callable[[str], str | None]:
    """Chooses among (name, words about it): the longest name that a request holds, else who has most words of it."""
    named = list(candidates)
    by_name = sorted(((name.casefold(), name) for name, _ in named), key=lambda pair: -len(pair[0]))
    words = [(name, _keywords(f"{_spaced(name)} {about}")) for name, about in named]

    def find(request: str) -> str | None:
        folded = request.casefold()
        chosen = next((name for key, name in by_name if re.search(rf"\b{re.escape(key)}\b", folded)), None)
        if chosen is None:
            asked = _keywords(request)
            best = max(words, key=lambda pair: len(pair[1] & asked), default=None)
            if best is not None and best[1] & asked:
                chosen = best[0]
        return chosen

    return find


def orchestrator_targets(node: Node, nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """`nodes`, or those of agent type `nodeType`, or all but itself; and the default_target."""
    named = node.options.get("nodes")
    kind = node.options.get("nodeType") or node.options.get("node_type")
    if named and named != "all":
        found = [str(part).strip() for part in parts(named)]
    elif kind:
        wanted = fold(str(kind))
        found = [name for name, other in nodes.items() if fold(other.agent_type) == wanted and other is not node]
    else:
        found = [name for name, other in nodes.items() if other is not node]
    otherwise = node.options.get("default_target")
    return tuple(dict.fromkeys([*found, str(otherwise)] if otherwise else found))


def check_orchestrator(node: Node) -> Iterator[Finding]:
    if not node.inputs:
        yield Finding(
            "AM-A005",
            "warning",
            f"The orchestrator {node.name!r} reads no field and can only take its default_target",
            "Name the field with the request in Input_Fields.",
            "Input_Fields",
        )


def check_graph(node: Node) -> Iterator[Finding]:
    if not node.options.get("workflow") and not node.options.get("workflow_field"):
        yield Finding(
            "AM-A004",
            "error",
            f"The graph node {node.name!r} does not say which workflow it runs",
            "Write {workflow=::Name} for one of the same file, {workflow=file::Name}, or {workflow_field=key}.",
            "Context",
        )


def _parameters(node: Node) -> frozenset[str]:
    """Names that a row's conditions find among its inputs."""
    return frozenset(entry.parameter or entry.source for entry in node.inputs)


def _conditions(node: Node) -> list[Condition]:
    """The conditions of a row that are understood; `check` reports the others."""
    cases = node.options.get("cases")
    written = [node.options.get("when")]
    if isinstance(cases, list):
        written = [case.get("when") for case in cases if isinstance(case, dict)]
    found = []
    for text in written:
        with suppress(ConditionError):
            found.append(condition(str(text)))
    return found if written != [None] else []


def _condition_reads(node: Node, conditions: Iterable[Condition]) -> tuple[str, ...]:
    """State fields that conditions read."""
    own = _parameters(node)
    names = dict.fromkeys(name for condition in conditions for name in condition.names)
    return tuple(name for name in names if name not in own and name.partition(".")[0] not in own)


def condition_samples(node: Node) -> dict[str, Any]:
    """Values with which the row's conditions hold, by state field."""
    sources = {entry.parameter or entry.source: entry.source for entry in node.inputs}
    return {
        sources.get(name, name): value for condition in _conditions(node) for name, value in condition.samples.items()
    }


def switch_samples(node: Node) -> dict[str, Any]:
    cases = node.options.get("cases")
    if not isinstance(cases, dict) or not cases:
        return condition_samples(node)
    name = node.options.get("field")
    sources = {entry.parameter or entry.source: entry.source for entry in node.inputs}
    field = sources.get(str(name), str(name)) if name else next(iter(sources.values()), None)
    return {} if field is None else {field: next(iter(cases))}


def _check_condition(text: str) -> Iterator[Finding]:
    try:
        condition(text)
    except ConditionError as exc:
        hint = exc.hint or "Use names, literals, == != < <= > >= in not in and or not, and parentheses."
        yield Finding("AM-X001", "error", f"The condition {text!r} is not understood: {exc}", hint, "Context", text)


_COMMON: Final = frozenset(
    ["a", "an", "and", "are", "for", "from", "in", "is", "it", "of", "on", "or", "the", "this", "to", "with"]
)


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name)


def _keywords(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold())) - _COMMON
