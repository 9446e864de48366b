"""One pass over the rows of a sheet: a node for each, and a diagnostic for what is wrong."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ..agents.registry import ABSENT, Agent, Registry, fold
from . import cells as cell
from . import checks, columns, options, policies
from .cells import Memo, NameMemo, Trouble
from .codes import diagnostic
from .columns import COLUMNS
from .diagnostics import Diagnostic
from .graph import Effort, Targets, named
from .model import FunctionRoute, Node, Route, Workflow
from .notes import notes
from .prompts import PREFIXES, Prompts
from .sheet import END, Sheet, first_late_quote, skippable
from .text import ERROR_VALUES, NOTHING, Guess, Problem, normalised, structural

NO_EXTRA: Final[Mapping[str, str]] = MappingProxyType({})


class Rows(NamedTuple):
    """Where the rows of a file went: `total == nodes + reported + skipped`, the header not counted."""

    total: int = 0
    nodes: int = 0
    reported: int = 0
    """Rows that became no node; a diagnostic names each."""
    skipped: int = 0
    """Blank and comment rows."""


@dataclass(slots=True, eq=False, repr=False)
class Draft:
    """A workflow while its rows are read."""

    name: str
    nodes: dict[str, Node] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    """By node: the agents that route, read or check by themselves."""
    showing: dict[str, Agent] = field(default_factory=dict)
    """By node: the agents that may use state fields of their Prompt."""
    contexts: dict[str, str] = field(default_factory=dict)
    """By node: the Context cells of agents that check them by themselves, to find places in them."""
    targets: Targets = field(default_factory=dict)
    """What the routing cells name, as long as no cell has a function."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
    filled: bool = False
    """Whether the note on filled-down names has been made."""
    torn: bool = False
    """Whether nodes or edges are missing because of problems that are reported already."""


class _Drafts(dict[str, Draft | None]):
    """Drafts by the text of the GraphName cell. None for a text that needs a second look."""

    def __init__(self, make: Callable[[str], Draft]) -> None:
        self.make = make

    def __missing__(self, text: str) -> Draft | None:
        if text.isidentifier() and text not in NOTHING:
            self[text] = draft = self.make(text)
            return draft
        return None


_Kind = tuple[str, Agent | None, bool, bool]
"""What a text in AgentType means: the agent's name, the agent, whether it routes, reads or checks by itself, whether it
runs a sub-workflow (then its fields are written `child=parent`). Plain tuples unpack faster than named ones."""


class Reading:
    """One pass over the rows of a sheet."""

    def __init__(
        self,
        opened: Sheet,
        file: str,
        *,
        registry: Registry,
        prompts: Prompts,
        services: Collection[str] | None,
        functions: Collection[str] | None,
        title: str | None = None,
    ) -> None:
        """`title` is the name of the workflow where no column says it; the file's stem when not given."""
        self.sheet = opened
        self.file = file
        self.stem = stem_of(file)
        self.title = title if title is not None else self.stem
        self.registry = registry
        self.agent_names = [name for agent in registry for name in (agent.name, *agent.aliases)]
        self.prompts = prompts
        self.services = services
        self.functions = functions
        self.drafts: dict[str, Draft] = {}
        self.last: Draft | None = None
        self.common: list[Diagnostic] = list(opened.diagnostics)
        self.fatal: list[Diagnostic] = []
        """Problems after which rows are missing, so that no workflow of the file can be trusted."""
        self.trouble: Trouble = {}
        self.guess = Guess()
        self.effort = Effort()
        self.letters = {column.name: opened.layout.letter(at) for at, column in enumerate(COLUMNS)}
        self.misspelt = bool(opened.layout.misspelt)
        self.total = self.skipped = self.reported = 0
        self.spaced: set[str] = set()
        """Targets of routing cells that begin with a space."""
        self.functions_named = False
        """Whether any routing cell holds a function."""

    def read(self, max_rows: int) -> None:
        """The hot loop: anything unusual about a row is left to a method."""
        opened, trouble, add = self.sheet, self.trouble, self._add
        width, comments, last_line = opened.layout.width, opened.comments, opened.lines
        single = not opened.layout.cells[columns.GRAPH]
        drafts = _Drafts(self._draft)
        if single:
            drafts[""] = self._draft(self.title)
        kinds = Memo(columns.AGENT, self._kind, trouble)
        inputs = Memo(columns.INPUTS, cell.inputs, trouble)
        child_inputs = Memo(columns.INPUTS, cell.child_inputs, trouble)
        outputs = NameMemo(columns.OUTPUT, cell.outputs, trouble, cell.NOT_WRITABLE)
        child_outputs = Memo(columns.OUTPUT, cell.child_outputs, trouble)
        edges = NameMemo(columns.EDGE, self._route, trouble)
        successes = NameMemo(columns.SUCCESS, self._route, trouble)
        failures = NameMemo(columns.FAILURE, self._route, trouble)
        contexts = Memo(columns.CONTEXT, options.context, trouble)
        tool_lists = NameMemo(columns.TOOLS, cell.names, trouble)
        retries = Memo(columns.RETRY, cell.retry, trouble)
        timeouts = Memo(columns.TIMEOUT, cell.timeout, trouble)
        maps = Memo(columns.MAP_OVER, cell.field_name, trouble)
        # A column that the file does not have reads the empty cell that is appended to each row.
        pick = itemgetter(*(positions[0] if positions else width for positions in opened.layout.cells))
        doubled = [
            (positions, column not in columns.FREE)
            for column, positions in enumerate(opened.layout.cells)
            if positions[1:]
        ]
        unknown = opened.layout.unknown
        sound: set[tuple[str, ...]] = set()  # what decides about options, where nothing is wrong with them
        last: Draft | None = None
        records, row, end = opened.records, opened.row, opened.records.line_num
        whole = True
        limit = row + max_rows
        nothing, no_options, no_extra = NOTHING, options.NONE.values, NO_EXTRA
        nowhere: tuple[str, ...] = ()
        references, international = PREFIXES, opened.international
        try:
            for found in records:
                line = end + 1
                end = records.line_num
                if end > last_line:
                    if found[0] != END:
                        row += 1
                        self._unclosed(found, row, line)
                    break
                row += 1
                if row > limit:
                    self._too_many(row, line, max_rows)
                    whole = False
                    break
                if len(found) != width or (comments and found[0].lstrip()[:1] == "#"):
                    if skippable(found):
                        self.skipped += 1
                        continue
                    self.last = last
                    found = self._fitted(found, width, row, line)
                if doubled:
                    for positions, is_structural in doubled:
                        found[positions[0]] = _first(found, positions, is_structural)
                found.append("")
                picked = pick(found)
                (
                    in_graph,
                    in_node,
                    in_agent,
                    in_prompt,
                    in_description,
                    in_inputs,
                    in_output,
                    in_edge,
                    in_success,
                    in_failure,
                    in_context,
                    in_source,
                    in_tools,
                    in_retry,
                    in_timeout,
                    in_map,
                ) = picked
                name = in_node.strip()
                draft = drafts[in_graph]
                if draft is None or name < ":" or name in nothing or (international and not name.isascii()):
                    self.last = last
                    draft, name = self._named(found, in_graph, in_node, draft, drafts, {"row": row, "line": line})
                    if draft is None:
                        continue
                last = draft
                values = no_options
                if in_context:
                    context = contexts[in_context]
                    values = context.values
                    if context.replaced:
                        place = {"node": name, "row": row, "line": line}
                        picked = self._replace(picked, context.replaced, draft, place)
                        in_description, in_inputs, in_output = picked[4], picked[5], picked[6]
                        in_retry, in_timeout, in_map = picked[13], picked[14], picked[15]
                prompt = in_prompt.strip()
                if prompt.startswith(references):
                    prompt = self._prompt(prompt, draft, {"node": name, "row": row, "line": line})
                agent_name, agent, special, child = kinds[in_agent]
                edge = edges[in_edge] if in_edge else nowhere
                success = successes[in_success] if in_success else nowhere
                failure = failures[in_failure] if in_failure else nowhere
                node = Node(
                    name,
                    draft.name,
                    agent_name,
                    prompt,
                    child_inputs[in_inputs] if child else inputs[in_inputs],
                    child_outputs[in_output] if child else outputs[in_output],
                    edge,
                    success,
                    failure,
                    values,
                    row,
                    line,
                    in_description.strip(),
                    retries[in_retry] if in_retry else None,
                    timeouts[in_timeout] if in_timeout else None,
                    maps[in_map] if in_map else None,
                    in_source.strip(),
                    tool_lists[in_tools] if in_tools else (),
                    {title: found[at].strip() for at, title in unknown if found[at]} if unknown else no_extra,
                )
                if draft.nodes.setdefault(name, node) is not node:
                    self._duplicate(draft, node)
                    continue
                # Not used when any cell has a function.
                draft.targets[name] = edge + success + failure if success or failure else edge
                if agent is not None:
                    if special:
                        draft.agents[name] = agent
                        if in_context:
                            draft.contexts[name] = in_context
                    if "{" in prompt and agent.mentions is not None:
                        draft.showing[name] = agent
                if edge and (success or failure):
                    checks.check_idle_cells(node, agent, self._report_of(draft))
                if values and agent is not None:
                    case = (in_context, in_agent, in_output, in_map)
                    if case not in sound and self._options(draft, node, agent, in_context):
                        sound.add(case)
                if trouble:
                    self._explain(picked, draft, node)
        except csv.Error as exc:
            message = f"The row cannot be read: {exc}"
            self.fatal.append(add(None, "AM-D004", message, row=row + 1, line=end + 1))
            row += 1
            self.reported += 1
        if whole and opened.lines > row + 1 - opened.first:  # some cell goes over several lines
            self._late_quote()
        self.total = row - opened.row + opened.skipped
        self.skipped += opened.skipped

    def result(
        self, siblings: Collection[str] | None = None
    ) -> tuple[tuple[Workflow, ...], tuple[Diagnostic, ...], Rows]:
        """The workflows, the diagnostics of the file, and where its rows went.

        `siblings` are the names of the file's workflows, when other sheets have some.
        """
        self.common += notes(self.sheet, self.file)
        workflows = []
        nodes = 0
        cut = bool(self.fatal)
        # An error that belongs to no workflow may concern each of them.
        self.fatal += [found for found in self.common if found.severity == "error"]
        self.common = [found for found in self.common if found.severity != "error"]
        for draft in self.drafts.values():
            if not draft.nodes and not draft.diagnostics:
                continue  # a file without GraphName and without rows
            nodes += len(draft.nodes)
            targets = None if self.functions_named else draft.targets
            report = self._report_of(draft)
            torn = draft.torn or self.misspelt
            checks.check(
                draft.nodes,
                draft.agents,
                report,
                showing=draft.showing,
                targets=targets,
                torn=torn,
                cut=cut,
                siblings=self.drafts if siblings is None else siblings,
            )
            found = draft.diagnostics
            if found:
                found.sort(key=lambda problem: problem.row or 0)
            entry = next(iter(draft.nodes), None)
            workflows.append(Workflow(draft.name, self.file, self.stem, draft.nodes, entry, (*self.fatal, *found)))
        rows = Rows(self.total, nodes, self.reported, self.skipped)
        return tuple(workflows), (*self.common, *(() if workflows else self.fatal)), rows

    # What follows handles the unusual row.

    def _add(
        self,
        draft: Draft | None,
        code: str,
        message: str,
        *,
        row: int | None,
        line: int | None,
        column: int | None = None,
        **more: Any,
    ) -> Diagnostic:
        if column is not None:
            more |= {"column": self.sheet.layout.letter(column), "column_name": COLUMNS[column].name}
        graph = draft.name if draft else None
        return diagnostic(code, message, file=self.file, row=row, line=line, graph=graph, **more)

    def _report(self, draft: Draft | None, code: str, message: str, **more: Any) -> None:
        found = self._add(draft, code, message, **more)
        (draft.diagnostics if draft else self.common).append(found)

    def _problem(self, draft: Draft, problem: Problem, *, column: int, node: str, row: int, line: int) -> None:
        code, message, *rest = problem
        more = dict(zip(("text", "hint", "severity", "fix"), rest, strict=True))
        self._report(draft, code, message, column=column, node=node or None, row=row, line=line, **more)
        if code in _TEARING:
            draft.torn = True

    def _explain(self, picked: tuple[str, ...], draft: Draft, node: Node) -> None:
        for column, text in enumerate(picked):
            for problem in self.trouble.get((column, text), ()):
                self._problem(draft, problem, column=column, node=node.name, row=node.row, line=node.line)

    def _options(self, draft: Draft, node: Node, agent: Agent, written: str) -> bool:
        """Whether nothing is wrong with the options of a node."""
        sound = True
        for code, severity, message, hint, column, text in policies.check_options(node, agent, self.guess):
            report = self._report_of(draft)
            report.contexts = {node.name: written}
            report(code, message, node, column, text=text, hint=hint, severity=severity)
            sound = False
        return sound

    def _report_of(self, draft: Draft) -> checks.Report:
        return checks.Report(
            draft.diagnostics,
            self.file,
            draft.name,
            letters=self.letters,
            guess=self.guess,
            effort=self.effort,
            misspelt=self.misspelt,
            contexts=draft.contexts,
            delimiter=self.sheet.delimiter,
            spaced=self.spaced,
        )

    def _draft(self, name: str) -> Draft:
        draft = self.drafts.get(name)
        if draft is None:
            draft = self.drafts[name] = Draft(name)
        return draft

    def _fitted(self, found: list[str], width: int, row: int, line: int) -> list[str]:
        """A row of the header's width."""
        for position in range(width, len(found)):
            text = found[position].strip()
            if text:
                letter = columns.letter(position)
                self._surplus(found, row, line, letter, text)
                break
        return [*found[:width], *[""] * (width - len(found))]

    def _surplus(self, found: list[str], row: int, line: int, letter: str, text: str) -> None:
        at = self.sheet.layout.cells[columns.GRAPH]
        graph = normalised(found[at[0]]) if at else self.title
        draft = self._draft(graph) if graph and graph not in NOTHING else self.last
        message = f"Cell {letter}{row} holds {text[:60]!r}, and the header has no column there"
        self._report(draft, "AM-D002", message, row=row, line=line, text=text[:200])
        if draft is not None:
            draft.torn = True  # an unquoted delimiter has moved the cells of this row
        diagnostics = draft.diagnostics if draft else self.common
        diagnostics[-1] = _in_column(diagnostics[-1], letter)

    def _named(
        self,
        found: list[str],
        in_graph: str,
        in_node: str,
        draft: Draft | None,
        drafts: _Drafts,
        place: dict[str, int],
    ) -> tuple[Draft | None, str]:
        """The workflow and the node name of a row where one of them needs a second look."""
        name, problems = structural(in_node)
        graph, graph_problems = structural(in_graph)
        if not name and skippable(found):
            self.skipped += 1
            return None, ""
        if draft is None and graph:
            known = graph in self.drafts
            draft = self._draft(graph)
            if not graph_problems:
                drafts[in_graph] = draft
            if not known:
                graph_problems = (*graph_problems, *_name_problems(graph))
        elif draft is None and name and self.last is not None:
            draft = self.last
            if not draft.filled:
                draft.filled = True
                message = f"Rows without a workflow name, here and below, belong to {draft.name!r} like the row above"
                fix = draft.name
                self._report(draft, "AM-N004", message, column=columns.GRAPH, node=name, text="", fix=fix, **place)
        if draft is None:
            self.reported += 1
            if self.last is not None:
                self.last.torn = True
            code, what = ("AM-N003", "workflow name") if name else ("AM-N001", "node name and no workflow name")
            column = columns.GRAPH if name else columns.NODE
            message = f"Row {place['row']} has no {what}"
            self._report(self.last, code, message, column=column, node=name or None, **place)
            return None, ""
        for problem in graph_problems:
            self._problem(draft, problem, column=columns.GRAPH, node=name, **place)
        for problem in problems:
            self._problem(draft, problem, column=columns.NODE, node=name, **place)
        if not name:
            self.reported += 1
            draft.torn = True
            message = f"Row {place['row']} of the workflow {draft.name!r} has no node name"
            self._report(draft, "AM-N001", message, column=columns.NODE, **place)
            return None, ""
        return draft, name

    def _duplicate(self, draft: Draft, node: Node) -> None:
        self.reported += 1
        draft.torn = True
        first = draft.nodes[node.name]
        message = f"Rows {first.row} and {node.row} of {draft.name!r} both define the node {node.name!r}"
        place = {"row": node.row, "line": node.line, "column": columns.NODE, "node": node.name}
        self._report(draft, "AM-N002", message, text=node.name, **place)

    def _replace(
        self,
        picked: tuple[str, ...],
        replaced: Iterable[tuple[str, str]],
        draft: Draft,
        place: dict[str, Any],
    ) -> tuple[str, ...]:
        """The row's cells with those that its Context says otherwise."""
        result = list(picked)
        for key, text in replaced:
            column = _REPLACED[key]
            written = result[column].strip()
            if written and written != text.strip() and key != "description":
                message = f"Context says {key} is {text[:60]!r}, the column {COLUMNS[column].name} {written[:60]!r}"
                self._report(draft, "AM-A007", message, text=key, column=columns.CONTEXT, **place)
            result[column] = text
        return tuple(result)

    def _prompt(self, reference: str, draft: Draft, place: dict[str, Any]) -> str:
        text, problem = self.prompts.read(reference)
        if problem is not None:
            self._problem(draft, problem, column=columns.PROMPT, **place)
        return reference if text is None else text

    def _kind(self, text: str) -> cell.Parsed[_Kind]:
        written, problems = structural(text)
        agent = self.registry.find(written)
        if agent is None and written in ERROR_VALUES:
            return (written, None, False, False), problems
        if agent is None and (absent := ABSENT.get(fold(written))):
            message = f"The agent type {written!r} is known to AgentMap and not available in this version"
            remedy = f"Register an agent {absent!r} of your own in the context's agents."
            return (written, None, False, False), (*problems, Problem("AM-A001", message, written, remedy))
        if agent is None:
            near = self.guess(written, self.agent_names) or self.guess(fold(written), self.agent_names)
            hint = f"Did you mean {near!r}?" if near else None
            message = f"There is no agent type {written!r}"
            problem = Problem("AM-A001", message, written, hint, fix=near)
            return (written, None, False, False), (*problems, problem)
        missing = [name for name in agent.services if self.services is not None and name not in self.services]
        found = list(problems)
        for name in missing:
            message = f"The agent {agent.name!r} needs the service {name!r}, which the context does not have"
            found.append(Problem("AM-A002", message, written, f"Give it as services={{{name!r}: …}} in the context."))
        special = bool(agent.check or agent.reads or agent.targets or agent.sub_workflow)
        return (agent.name, agent, special, agent.sub_workflow), found

    def _route(self, text: str) -> cell.Parsed[Route]:
        route, problems = cell.route(text)
        if text[:1].isspace():
            self.spaced.update(named(route))
        self.functions_named = self.functions_named or isinstance(route, FunctionRoute)
        if isinstance(route, FunctionRoute) and self.functions is not None and route.function not in self.functions:
            name = route.function
            near = self.guess(name, sorted(self.functions))
            hint = f"Did you mean {near!r}?" if near else None
            message = f"The routing function {name!r} is not registered"
            return route, (*problems, Problem("AM-R006", message, name, hint, fix=near))
        return route, problems

    def _unclosed(self, found: list[str], row: int, line: int) -> None:
        text = found[-1][:60].rstrip(END)
        self._quote((row, line, len(found) - 1), "is not closed; the rest of the file is inside it", text=text)
        self.reported += 1

    def _late_quote(self) -> None:
        found = first_late_quote(self.sheet.text, self.sheet.delimiter, self.sheet.first)
        if found is not None:
            self._quote(found, "the next one does not end the cell: text follows it, so rows may be inside the cell")

    def _quote(self, place: tuple[int, int, int], what: str, text: str | None = None) -> None:
        row, line, position = place
        letter = columns.letter(position)
        message = f"A quote opens in row {row}, column {letter}, and {what}"
        self.fatal.append(_in_column(self._add(None, "AM-D001", message, row=row, line=line, text=text), letter))

    def _too_many(self, row: int, line: int, max_rows: int) -> None:
        message = f"The file has more than {max_rows} rows"
        self.fatal.append(self._add(None, "AM-D003", message, row=row, line=line))
        self.reported += 1


def stem_of(file: str) -> str:
    """A file's name without its suffix, folders kept."""
    folder, slash, name = file.rpartition("/")
    head, dot, _ = name.rpartition(".")
    return folder + slash + (head if dot and head else name)


def _first(cells: list[str], positions: tuple[int, ...], is_structural: bool) -> str:
    """Of the cells that mean one column the first that is not empty."""
    for at in positions:
        text = normalised(cells[at])
        if text and not (is_structural and text in NOTHING):
            return cells[at]
    return cells[positions[0]]


def _in_column(problem: Diagnostic, letter: str) -> Diagnostic:
    fields = problem.to_dict() | {"column": letter}
    return Diagnostic(**fields)


def _name_problems(graph: str) -> list[Problem]:
    if "::" in graph:
        return [Problem("AM-N007", f"The name {graph!r} holds '::', which separates a file from its workflow", graph)]
    return []


_TEARING: Final = frozenset({"AM-R005", "AM-A001", "AM-A003", "AM-V002"})
"""Problems that may hide edges, so that what looks unreachable may not be."""

_REPLACED: Final = {
    "input_fields": columns.INPUTS,
    "output_field": columns.OUTPUT,
    "description": columns.DESCRIPTION,
    "retry": columns.RETRY,
    "timeout": columns.TIMEOUT,
    "map_over": columns.MAP_OVER,
}
