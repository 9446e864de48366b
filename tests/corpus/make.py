"""Makes the files of this folder anew: kinds of sheets, as each program saves them.

openpyxl, pandas and LibreOffice (`soffice`, headless) write for themselves; Excel, Google Sheets and Numbers do not run
here, so their CSV dialects are written as they write them. `python tests/corpus/make.py` also writes `expected.json`:
look at what has changed in it. Pandas and LibreOffice are needed for this only.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Final

import openpyxl

HERE: Final = Path(__file__).parent
HEAD: Final = ["GraphName", "Node", "AgentType", "Input_Fields", "Output_Field", "Prompt", "Edge"]
Rows = list[list[Any]]

KINDS: Final[dict[str, Rows]] = {
    "clean": [
        HEAD,
        ["Order", "Start", "echo", "amount", "seen", "Amount {amount}", "Check"],
        ["Order", "Check", "echo", "seen", "done", "", ""],
    ],
    "letters": [
        ["# Größe und Preis — für alle"],
        HEAD,
        ["Größe", "Prüfen", "echo", "größe", "geprüft", "Ist {größe} zu groß?", "Fertig"],
        ["Größe", "Fertig", "echo", "geprüft", "ende", "Très bien, señor", ""],
    ],
    "texts": [
        [*HEAD, "Context"],
        ["Talk", "Ask", "echo", "", "asked", 'He said "yes", then\nwent; home', "Tell", '{"idempotent": true}'],
        ["Talk", "Tell", "echo", "asked", "told", "tab\there | bar", "", ""],
    ],
    "typed": [
        [*HEAD, "Timeout"],
        ["Typed", 1, "echo", "", "a", True, 2, 30],
        ["Typed", 2, "echo", "a", "b", date(2026, 1, 31), 3.0, ""],
        ["Typed", 3, "echo", "b", "c", 0.5, "", ""],
    ],
    "filled": [
        HEAD,
        ["Down", "A", "echo", "", "a", "", "B"],
        [None, "B", "echo", "a", "b", "", "C"],
        [],
        [None, "C", "echo", "b", "c", "None", "None"],
    ],
    "wrong": [
        HEAD,
        ["Wrong", "A", "ecko", "", "a", "", "Bb"],
        ["Wrong", "B", "echo", "", "errors", "", ""],
        ["Wrong", "B", "echo", "", "b", "", ""],
        ["Wrong", None, "echo", "", "c", "", ""],
    ],
    "titled": [
        ["Our workflows"],
        ["Version 3", None, None, "by Ada"],
        HEAD,
        ["Titled", "A", "echo", "", "a", "", ""],
    ],
    "named": [
        ["workflow", "Step", "Type", "Inputs", "Output", "Instructions", "next", "Owner", "Promt"],
        ["Named", "A\u00a0One", "EchoAgent", "x", "y", "Hi", "B\u2013Two", "Ada", ""],
        ["Named", "B\u2013Two", "default_agent", "y", "z", "", "", "Bob", "lost"],
    ],
}


def texts(rows: Rows, *, true: str = "TRUE", day: str = "%Y-%m-%d", point: str = ".") -> list[list[str]]:
    """Cells as a program shows them in CSV."""

    def text(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return true if value else "FALSE"
        if isinstance(value, date):
            return value.strftime(day)
        if isinstance(value, float):
            return str(int(value)) if value == int(value) else str(value).replace(".", point)
        return str(value)

    width = max(map(len, rows))
    return [[text(value) for value in [*row, *[None] * (width - len(row))]] for row in rows]


def dialect(encoding: str, delimiter: str, newline: str, head: str = "", **shown: str) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=delimiter, lineterminator=newline).writerows(texts(rows, **shown))
        return (head + out.getvalue()).encode(encoding, "replace")

    return write


def openpyxl_xlsx(rows: Rows) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in rows:
        sheet.append([value if value != "" else None for value in row])
    if rows is KINDS["filled"]:
        sheet.merge_cells("A2:A5")
        sheet.row_dimensions[3].hidden = True
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def frame(rows: Rows) -> Any:
    import pandas

    width = len(rows[0])
    return pandas.DataFrame([[*row, *[None] * (width - len(row))] for row in rows[1:]], columns=rows[0])


def pandas_csv(rows: Rows) -> bytes:
    text: str = frame(rows).to_csv(index=False)
    return text.encode()


def pandas_xlsx(rows: Rows) -> bytes:
    out = io.BytesIO()
    frame(rows).to_excel(out, index=False)
    return out.getvalue()


WRITERS: Final[dict[str, tuple[str, Callable[[Rows], bytes]]]] = {
    "excel-utf8": (".csv", dialect("utf-8-sig", ",", "\r\n")),
    "excel-german": (".csv", dialect("cp1252", ";", "\r\n", true="WAHR", day="%d.%m.%Y", point=",")),
    "excel-unicode": (".csv", dialect("utf-16", "\t", "\r\n")),
    "excel-mac": (".csv", dialect("mac_roman", ";", "\r")),
    "excel-sep": (".csv", dialect("utf-8-sig", ";", "\r\n", head="sep=;\r\n")),
    "google": (".csv", dialect("utf-8", ",", "\r\n")),
    "numbers": (".csv", dialect("utf-8", ";", "\r\n")),
    "pandas": (".csv", pandas_csv),
    "pandas-book": (".xlsx", pandas_xlsx),
    "openpyxl": (".xlsx", openpyxl_xlsx),
}
OFFICE: Final = {
    "office": (".xlsx", "xlsx"),
    "office-ods": (".ods", "ods"),
    "office-csv": (".csv", "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false"),
}


def main() -> None:
    for kind, rows in KINDS.items():
        for writer, (suffix, write) in WRITERS.items():
            if writer.startswith("pandas") and len(rows[0]) < len(max(rows, key=len)):
                continue  # its first row is its header
            (HERE / f"{kind}.{writer}{suffix}").write_bytes(write(rows))
    if shutil.which("soffice"):
        for writer, (suffix, form) in OFFICE.items():
            with tempfile.TemporaryDirectory() as folder:
                books = [shutil.copy(HERE / f"{kind}.openpyxl.xlsx", Path(folder) / f"{kind}.xlsx") for kind in KINDS]
                out = Path(folder) / "out"
                command = ["soffice", "--headless", "--convert-to", form, "--outdir", str(out), *map(str, books)]
                subprocess.run(command, check=True, capture_output=True)
                for kind in KINDS:
                    shutil.copy(out / f"{kind}{suffix}", HERE / f"{kind}.{writer}{suffix}")
    sys.path.insert(0, str(HERE))
    from test_corpus import FILES, said

    lines = [f"{json.dumps(path.name)}: {json.dumps(said(path), ensure_ascii=False)}" for path in FILES()]
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
