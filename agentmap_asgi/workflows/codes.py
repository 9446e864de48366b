"""Every diagnostic there is: one row each. Codes never change their meaning; messages may."""

from __future__ import annotations

from typing import Final, NamedTuple

from .diagnostics import Diagnostic, Severity


class Code(NamedTuple):
    """One kind of problem."""

    code: str
    severity: Severity
    title: str
    remedy: str


CODES: Final[dict[str, Code]] = {
    row.code: row
    for row in (
        # E: encoding and files
        Code("AM-E001", "error", "The file is not text", "Save it as CSV (UTF-8) and load it again."),
        Code("AM-E002", "warning", "The file was read as Windows-1252", "Save it as UTF-8; check the named cell."),
        Code("AM-E003", "error", "Some bytes are no characters", "Type the named cell again and save as UTF-8."),
        Code("AM-E004", "error", "The file is too large", "Split it into several files, or raise max_csv_bytes."),
        Code("AM-E005", "error", "The file cannot be read", "Check that it exists and that its permissions allow it."),
        Code("AM-E006", "warning", "A link leads out of the folder", "Copy the file into the folder."),
        Code("AM-E007", "info", "The file is in UTF-16", "Nothing need be done; CSV (UTF-8) is read everywhere."),
        Code("AM-E008", "error", "The spreadsheet cannot be read", "Open it and save it again as .xlsx, .ods or CSV."),
        Code("AM-E009", "error", "A sheet is not there", "Name a sheet of the file, or read all of them."),
        Code("AM-E010", "info", "A sheet holds no workflow", "Give it a header with Node if it should be one."),
        Code("AM-E011", "warning", "Two files have one name", "Remove one of them, or give it another name."),
        # D: dialect
        Code("AM-D001", "error", "A quote is not closed", 'Close the quote; a quote inside a cell is written "".'),
        Code("AM-D002", "error", "A row has more cells than the header", "Quote cells that hold the delimiter."),
        Code("AM-D003", "error", "The file has too many rows", "Split it into several files, or raise max_csv_rows."),
        Code(
            "AM-D004", "error", "A cell is too long", "Look for a quote that is not closed, or move the text to a file."
        ),
        Code("AM-D005", "error", "The file has no header", "Start with a line like GraphName,Node,Edge."),
        Code("AM-D006", "info", "The delimiter is no comma", "Nothing need be done: it is found from the header."),
        # H: headers
        Code("AM-H001", "error", "A required column is missing", "Add the column, or mend the spelling of its header."),
        Code("AM-H002", "info", "A column is unknown", "It is kept and shown, and has no effect."),
        Code(
            "AM-H003",
            "warning",
            "Two columns mean the same",
            "Keep one; in each row the first that is not empty counts.",
        ),
        Code("AM-H004", "info", "A column has another name", "Nothing need be done; the other name says the same."),
        # N: names
        Code("AM-N001", "error", "A row has no node name", "Fill in Node, or begin the row with # to skip it."),
        Code("AM-N002", "error", "Two nodes have one name", "Rename one of them, and the routing cells that mean it."),
        Code("AM-N003", "error", "A row has no workflow name", "Fill in GraphName."),
        Code(
            "AM-N004", "info", "A workflow name was filled down", "Fill in GraphName to make the row stand by itself."
        ),
        Code("AM-N005", "info", "A word reads as an empty cell", "Leave the cell empty, or choose another name."),
        Code("AM-N006", "warning", "A workflow has a reserved name", "Rename it, or reach it under /workflows/{name}."),
        Code("AM-N007", "warning", "A name holds a sign of the language", "Choose a name of letters, digits, _ and -."),
        Code("AM-N008", "error", "A workflow stands in two sheets", "Move its rows to one sheet, or rename one."),
        Code("AM-N009", "info", "Typographic signs were read as plain ones", "Type plain quotes, dashes and spaces."),
        # R: routing
        Code("AM-R001", "error", "A target does not exist", "Name a node of the same workflow."),
        Code("AM-R002", "warning", "A node cannot be reached", "Name it in a routing cell, or remove it."),
        Code("AM-R003", "warning", "There is no way to end", "Let one node of the loop lead out of it, or nowhere."),
        Code("AM-R004", "warning", "A node leads only to itself", "Give it another way out."),
        Code("AM-R005", "error", "A routing cell is not understood", "Write A, A|B, func:name or func:name(A|B)."),
        Code("AM-R006", "error", "A routing function is not registered", "Register it in the context's functions."),
        Code("AM-R007", "warning", "A routing function declares no targets", "Write its targets: func:name(A|B)."),
        Code(
            "AM-R008", "warning", "Edge makes another routing cell idle", "Use Edge, or Success_Next and Failure_Next."
        ),
        Code("AM-R009", "info", "A loop is entered at several nodes", "Let the way in lead to one node of the loop."),
        Code("AM-R010", "info", "A join sends back to its own branch", "Send back to the fork, or expect the wait."),
        Code("AM-R011", "error", "A sub-workflow does not exist", "Name a workflow of this file, or write file::Name."),
        Code("AM-R012", "info", "A workflow is too large to be looked at in full", "Split it into sub-workflows."),
        # F: fields
        Code(
            "AM-F001", "warning", "A field is read before it is written", "Write it earlier, or give it at the start."
        ),
        Code("AM-F002", "info", "A field is never read", "Remove it, or check the spelling where it is read."),
        Code("AM-F003", "warning", "Parallel branches write one field", "Give each branch a field of its own."),
        Code("AM-F004", "error", "A field name is reserved", "Choose another name for Output_Field."),
        Code("AM-F005", "error", "A field entry is not understood", "Write a, a|b, or a:parameter."),
        Code("AM-F006", "warning", "Two inputs have one name", "Give each its own parameter name: a:x|b:y."),
        Code("AM-F007", "warning", "A text goes nowhere", "Name a field in Output_Field, or empty the Prompt."),
        Code("AM-F008", "warning", "A field may be misspelt", "Write both names alike, or give it at the start."),
        # A: agents and their options
        Code(
            "AM-A001", "error", "The agent type is unknown", "Use a built-in agent, or register yours in the context."
        ),
        Code("AM-A002", "error", "A service is missing", "Give it to the context's services."),
        Code("AM-A003", "error", "Context is not understood", 'Write a JSON object: {"key": "value"}.'),
        Code("AM-A004", "error", "An option is wrong", "See the agent's page for its options."),
        Code("AM-A005", "warning", "The agent has nothing to go by", "Give it what it decides by."),
        Code(
            "AM-A006", "error", "A node policy is not understood", "Write Retry as 3 and Timeout as 30s, 500ms or 2m."
        ),
        Code("AM-A007", "warning", "Two places say different things", "Say it once; Context counts."),
        Code("AM-A008", "info", "An option is unknown", "It is kept and has no effect."),
        Code("AM-A009", "error", "An agent is not configured", "Give the setting that it names."),
        # X: conditions
        Code("AM-X001", "error", "A condition is not understood", "Compare names and literals: amount > 100."),
        # V: values
        Code(
            "AM-V001", "warning", "A spreadsheet may have changed a value", "Format the column as text, type it again."
        ),
        Code("AM-V002", "error", "A cell holds a spreadsheet error", "Mend the formula, or type the value."),
        Code("AM-V003", "warning", "A literal looks like a secret", "Write secret:NAME and give it in the context."),
        Code("AM-V004", "error", "A prompt text is not found", "Put the file into the folder of prompts_path."),
        Code("AM-V005", "info", "Merged cells were filled", "Nothing need be done; unmerge them to see what is read."),
        Code("AM-V006", "error", "A formula has no value", "Open the file in a spreadsheet program and save it."),
        Code("AM-V007", "info", "Typed cells were read as texts", "Format the cells as text to say what they hold."),
    )
}


def diagnostic(
    code: str,
    message: str,
    *,
    hint: str | None = None,
    severity: Severity | None = None,
    file: str = "",
    sheet: str | None = None,
    row: int | None = None,
    line: int | None = None,
    column: str | None = None,
    column_name: str | None = None,
    node: str | None = None,
    graph: str | None = None,
    text: str | None = None,
    fix: str | None = None,
    place: tuple[int, int] | None = None,
) -> Diagnostic:
    """A Diagnostic whose severity and hint come from the table unless given. `place` is that inside the cell."""
    kind = CODES[code]
    return Diagnostic(
        code=code,
        severity=severity or kind.severity,
        message=message,
        hint=kind.remedy if hint is None else hint,
        file=file,
        sheet=sheet,
        row=row,
        line=line,
        column=column,
        column_name=column_name,
        node=node,
        graph=graph,
        text=text,
        fix=fix,
        cell_line=None if place is None else place[0],
        cell_character=None if place is None else place[1],
    )
