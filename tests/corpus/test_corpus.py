"""Sheets as real programs save them, and what is said of each; and mutants of them.

`make.py` makes the files, and says which programs have written them.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from agentmap_asgi.agents.builtin import BUILTINS
from agentmap_asgi.workflows.loader import Loaded, read_workflows
from agentmap_asgi.workflows.reports import FORMATS, Places

HERE = Path(__file__).parent


def FILES() -> list[Path]:
    return sorted(path for path in HERE.iterdir() if path.suffix in (".csv", ".xlsx", ".ods"))


def load(data: bytes, name: str) -> Loaded:
    return read_workflows(data, name, registry=BUILTINS)


def said(path: Path) -> dict[str, Any]:
    """The workflows with their nodes, and each diagnostic with its place."""
    found = load(path.read_bytes(), path.name)
    return {
        "workflows": {workflow.name: list(workflow.nodes) for workflow in found.workflows},
        "said": [f"{one.code} {one.column or ''}{one.row or ''}".strip() for one in found.findings],
    }


EXPECTED: dict[str, Any] = (
    json.loads((HERE / "expected.json").read_text(encoding="utf-8")) if (HERE / "expected.json").exists() else {}
)


def test_there_are_many() -> None:
    """Eight kinds, by a dozen writers; each has its entry."""
    assert len(FILES()) >= 60
    assert [path.name for path in FILES()] == list(EXPECTED)


@pytest.mark.parametrize("path", FILES(), ids=lambda path: path.name)
def test_a_file_is_read_as_expected(path: Path) -> None:
    """Its nodes, and what is said at which cell; every row is a node, or is reported, or was blank or a comment."""
    assert said(path) == EXPECTED[path.name]
    rows = load(path.read_bytes(), path.name).rows
    assert rows.total == rows.nodes + rows.reported + rows.skipped


@pytest.mark.parametrize("kind", ["clean", "letters", "texts"])
def test_what_is_right_is_right_whoever_wrote_it(kind: str) -> None:
    """The same nodes, and no error; only letters of an old Mac are lost, with a warning."""
    names = {}
    for path in FILES():
        if path.name.startswith(f"{kind}."):
            found = load(path.read_bytes(), path.name)
            doubtful = any(one.code in ("AM-E002", "AM-E003") for one in found.findings)
            assert doubtful or not any(one.severity == "error" for one in found.findings), path.name
            if not doubtful:
                names[path.name] = json.dumps(said(path)["workflows"])
    assert len(set(names.values())) == 1


PIECES = (
    *(b'"', b'""', b",", b";", b"\t", b"|", b"\n", b"\r\n", b"\r", b"\0", b"#", b"=", b"sep=;\n", b"{", b"}", b"func:"),
    *(
        "ü–“\u200b\ufeff".encode(),
        b"\xff\xfe",
        b"\x81",
        b"None",
        b"#REF!",
        b"1E+05",
        b"prompt:x",
        b"A|B",
        b"<",
        b"&",
        b"/>",
    ),
)


def mutant(data: bytes, chance: random.Random) -> bytes:
    """The bytes with a few changes: pieces put in, cut out, doubled, exchanged."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((0, 1, 2, 8, 40)))
        match chance.randrange(5):
            case 0:
                data = data[:at] + chance.choice(PIECES) + data[at:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + data[at:end] * 2 + data[end:]
            case 3:
                data = data[:at] + chance.choice(PIECES) + data[end:]
            case _:
                lines = data.splitlines(keepends=True)
                chance.shuffle(lines)
                data = (
                    b"".join(lines)
                    if chance.random() < 0.3
                    else data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
                )
    return data


def mutated(path: Path, chance: random.Random) -> bytes:
    """A mutant of a file; of a spreadsheet one of its parts, mostly, in a package that is sound."""
    data = path.read_bytes()
    if path.suffix == ".csv" or chance.random() < 0.1:
        return mutant(data, chance)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = [name for name in old.namelist() if name.endswith((".xml", ".rels"))]
        chosen = chance.choice([name for name in names if "sheet" in name or "content" in name] * 3 + names)
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutant(content, chance) if name == chosen else content)
    return out.getvalue()


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_mutants_lose_no_row_in_silence(rounds: int) -> None:
    """Nothing is raised; rows in are nodes, reported or skipped, and what is reported has a diagnostic."""
    files = FILES()
    for number in range(10_000 if rounds > 1 else 300):
        chance = random.Random(number)
        path = files[number % len(files)]
        data = mutated(path, chance)
        found = load(data, path.name)
        rows = found.rows
        assert rows.total == rows.nodes + rows.reported + rows.skipped, (number, path.name)
        assert rows.nodes == sum(len(workflow.nodes) for workflow in found.workflows), (number, path.name)
        errors = [one for one in found.findings if one.severity == "error" or one.code == "AM-E010"]
        assert bool(errors) or not rows.reported, (number, path.name)
        if number % 10 == 0:
            places = Places(lambda _, data=data: data)  # type: ignore[misc]
            for form in FORMATS.values():
                assert list(form(found.findings, places)) or not found.findings
