"""The options of the agents for files."""

from __future__ import annotations

from typing import Final

from .options import Option, declared

MODES: Final = ("write", "append", "update", "merge", "delete")
COLLECTION: Final = Option(
    *(
        "collection",
        "text",
        "The file, folder/name or root:folder/name; else an input of that name, or Prompt.",
    ),
    aliases=("file", "file_path", "filename"),
)
ID: Final = Option("id", "any", "The one row or document that is meant.", aliases=("document_id",))
ID_FIELD: Final = Option("id_field", summary="The field that tells rows apart.", default="id")
PATH: Final = Option("path", summary="The part of the document that is meant, like orders.0.total.")
ENCODING: Final = Option("encoding", summary="Of the file.", default="utf-8")
QUERY: Final = Option("query", "any", "Values by field, or a condition: amount > 100 and region in ['EU'].")
SELECTING: Final = (
    QUERY,
    Option("sort", "any", "Fields to sort by, with - in front or desc behind for the other way."),
    Option("order", summary="The way for all of them.", choices=("asc", "desc")),
    Option("offset", "whole", "Rows left out at the beginning.", least=0),
    Option("limit", "whole", "Rows at most.", least=0),
    Option("columns", "names", "Fields that are kept."),
)
DEFAULT: Final = Option(
    "default", "any", "The result when there is no such file, row or document, instead of a failure."
)
MODE: Final = Option("mode", "text", "What is done; what each mode means is below.", "write", choices=MODES)
DATA: Final = Option("data_field", summary="The input that is written; else `data`, or the only other one.")
FORMULAS: Final = Option("formulas", "truth", "Write cells that begin like formulas as they are, without '.", False)
DELIMITER: Final = Option("delimiter", summary="Between cells; found from the header when it is missing.")

READ_CSV: Final = declared(
    *(COLLECTION, ID, ID_FIELD, *SELECTING),
    Option("format", "text", "records: a list; dict: by id; table: columns and rows.", "records",
           choices=("records", "dict", "table")),
    Option("numbers", "truth", "Columns that hold numbers only are numbers; else all cells are texts.", True),
    Option("return_list", "truth", "A list also for an id.", False),
    *(DELIMITER, ENCODING, DEFAULT),
)  # fmt: skip
WRITE_CSV: Final = declared(COLLECTION, MODE, DATA, ID, ID_FIELD, QUERY, FORMULAS, DELIMITER, ENCODING)
READ_JSON: Final = declared(
    *(COLLECTION, ID, ID_FIELD, PATH, *SELECTING),
    Option("format", "text", "dict and records are as the file has it; list: the values of an object.", "default",
           choices=("default", "dict", "records", "list")),
    *(ENCODING, DEFAULT),
)  # fmt: skip
WRITE_JSON: Final = declared(
    *(COLLECTION, MODE, DATA, ID, ID_FIELD, PATH, QUERY),
    Option("indent", "whole", "Spaces of one level; 0 writes one line.", 2, least=0, most=8),
)
READ_FILE: Final = declared(
    COLLECTION,
    Option("format", "text", "text; lines: a list; structured: content and metadata.", "text",
           aliases=("return_format",), choices=("text", "default", "raw", "lines", "structured")),
    Option("should_split", "truth", "Give pieces of the text.", False),
    Option("chunk_size", "whole", "Characters of a piece.", 1000, least=1),
    Option("chunk_overlap", "whole", "Characters that a piece shares with the one before.", 200, least=0),
    Option("include_metadata", "truth", "As the format structured.", False),
    *(ENCODING, DEFAULT),
)  # fmt: skip
WRITE_FILE: Final = declared(
    *(COLLECTION, MODE, DATA),
    Option("separator", summary="What append puts between what was there and what is new.", default=""),
    ENCODING,
)
