"""The columns of a workflow file, and how a header line is matched with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..errors import nearest
from .text import normalised


class Column(NamedTuple):
    """One column of the language."""

    name: str
    aliases: tuple[str, ...]
    required: bool
    meaning: str


COLUMNS: Final = (
    Column(
        "GraphName",
        ("graph_name", "Graph", "WorkflowName", "workflow_name", "workflow"),
        True,
        "The workflow the row belongs to. Without this column the file is one workflow, named by the file.",
    ),
    Column(
        "Node", ("node_name", "NodeName", "Step", "StepName", "name"), True, "The node's name, unique in its workflow."
    ),
    Column("AgentType", ("agent_type", "Agent", "Type"), False, "What the node does. Empty means `default`."),
    Column("Prompt", ("Instructions", "Template", "prompt_template"), False, "A text for the agent, a template."),
    Column("Description", ("desc", "Details"), False, "A note for people."),
    Column("Input_Fields", ("Inputs", "InputFields"), False, "The state fields that the agent is given."),
    Column("Output_Field", ("Output", "OutputField"), False, "The state field or fields that take the result."),
    Column("Edge", ("next_node", "NextNode", "Target", "next"), False, "The next node, unless the agent raises."),
    Column("Success_Next", ("next_on_success", "SuccessTarget", "on_success"), False, "The next node on success."),
    Column(
        "Failure_Next",
        ("next_on_failure", "FailureTarget", "on_failure", "error_node"),
        False,
        "The next node on failure, also when the agent raises.",
    ),
    Column("Context", ("Config", "Configuration"), False, "The agent's options."),
    Column("Tool_Source", ("ToolSource", "ToolFile", "ToolModule"), False, "Where a tool agent finds its tools."),
    Column("Available_Tools", ("AvailableTools", "Tools", "ToolList"), False, "The tools a tool agent may use."),
    Column("Retry", (), False, "How many attempts are made, and how they are spaced."),
    Column("Timeout", (), False, "How long one attempt may take."),
    Column("Map_Over", (), False, "The list field whose items the node runs for, one by one."),
)

(
    GRAPH,
    NODE,
    AGENT,
    PROMPT,
    DESCRIPTION,
    INPUTS,
    OUTPUT,
    EDGE,
    SUCCESS,
    FAILURE,
    CONTEXT,
    TOOL_SOURCE,
    TOOLS,
    RETRY,
    TIMEOUT,
    MAP_OVER,
) = range(len(COLUMNS))

FREE: Final = frozenset({PROMPT, DESCRIPTION, CONTEXT, TOOL_SOURCE})
"""Columns of texts, in which signs stay as they are and no word stands for nothing."""

MOST_GUESSES: Final = 50
"""Unknown headers for which a known one is suggested."""

_BY_NAME: Final = {
    written.casefold(): index for index, column in enumerate(COLUMNS) for written in (column.name, *column.aliases)
}
_WRITTEN: Final = [written for column in COLUMNS for written in (column.name, *column.aliases)]


class Layout(NamedTuple):
    """Which cell of a row belongs to which column."""

    cells: tuple[tuple[int, ...], ...]
    """For each of COLUMNS the positions of its cells, in file order; usually one or none."""
    unknown: tuple[tuple[int, str], ...]
    """(position, header) of columns that the language does not know."""
    width: int
    """Cells a row has, up to the last header that is not empty."""

    @property
    def misspelt(self) -> frozenset[int]:
        """Columns that the file lacks and that an unknown header resembles."""
        near = (suggestion(text) for _, text in self.unknown[:MOST_GUESSES])
        meant = {_BY_NAME[name.casefold()] for name in near if name is not None}
        return frozenset(column for column in meant if not self.cells[column])

    def letter(self, column: int) -> str | None:
        """The spreadsheet's letter of a column, None when the file does not have it."""
        return letter(self.cells[column][0]) if self.cells[column] else None


def known(header: str) -> int | None:
    """The column that a header names, in any case."""
    return _BY_NAME.get(normalised(header).casefold())


def suggestion(header: str) -> str | None:
    """The known column header most like an unknown one; spaces count as underscores. A column's own name comes before
    its other names when it is like the header, too.
    """
    text = normalised(header)[:100].replace(" ", "_")
    near = nearest(text, _WRITTEN, cutoff=0.75)
    return near and (nearest(text, [COLUMNS[_BY_NAME[near.casefold()]].name]) or near)


def layout(header: Sequence[str]) -> Layout:
    """Match a header line with the columns."""
    cells: list[list[int]] = [[] for _ in COLUMNS]
    unknown = []
    width = 0
    for position, written in enumerate(header):
        text = normalised(written)
        if not text:
            continue
        width = position + 1
        column = known(text)
        if column is None:
            unknown.append((position, text))
        else:
            cells[column].append(position)
    return Layout(tuple(map(tuple, cells)), tuple(unknown), width)


def letter(position: int) -> str:
    """A column's letter as spreadsheets show it: 0 is A, 26 is AA."""
    text = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, 26)
        text = chr(65 + rest) + text
    return text
