"""Agents for files: what they read and write, and that nothing outside their roots is touched."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from flows import node, run, service

from agentmap_asgi.agents.files import Roots
from agentmap_asgi.agents.rows import read_csv, same, selected, write_csv
from agentmap_asgi.config import AgentMapConfig
from agentmap_asgi.errors import ConfigError, DataUnusable, NotAllowed

ORDERS = "id,customer,amount,zip\n1,Ada,30,08001\n2,Bob,7.5,10115\n3,Ada,4,\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    path.joinpath("orders.csv").write_text(ORDERS)
    path.joinpath("people.json").write_text(
        json.dumps({"ada": {"age": 36, "tags": ["x", "y"]}, "bob": {"age": 41, "tags": []}})
    )
    path.joinpath("list.json").write_text(json.dumps([{"id": 1, "n": 5}, {"id": 2, "n": 3}]))
    path.joinpath("note.txt").write_text("one\ntwo\nthree")
    return path


async def result(
    tmp_path: Path, root: Path | str, agent: str, state: dict[str, Any] | None = None, **row: Any
) -> dict[str, Any]:
    """The document of one node."""
    rows = [node("A", agent, output="out", inputs="|".join(state or {}), **row)]
    return await run(tmp_path, rows, state, config={"data_roots": [str(root)]})


READS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], Any]] = {
    "rows": (
        *("csv_reader", "orders.csv", {"query": {"customer": "Ada"}, "columns": "id|zip"}, {}),
        [{"id": 1, "zip": "08001"}, {"id": 3, "zip": ""}],
    ),
    "a suffix that is missing": ("csv_reader", "orders", {"id": 2, "columns": "x"}, {}, None),
    "a condition": ("csv_reader", "orders.csv", {"query": "amount > 5", "columns": ["id"]}, {}, [{"id": 1}, {"id": 2}]),
    "a condition with an input": (
        *("csv_reader", "orders.csv", {"query": "customer == who and amount > 5", "columns": ["id"]}, {"who": "Ada"}),
        [{"id": 1}],
    ),
    "a query object with its own limits, as in AgentMap": (
        *("csv_reader", "orders.csv", {"query": {"sort": "amount", "order": "desc", "limit": 2, "columns": "id"}}, {}),
        [{"id": 1}, {"id": 2}],
    ),
    "sorted, from an offset on": (
        *("csv_reader", "orders.csv", {"sort": "customer,-amount", "offset": 1, "limit": 1, "columns": "id"}, {}),
        [{"id": 3}],
    ),
    "texts": ("csv_reader", "orders.csv", {"numbers": False, "id": 2, "columns": "id"}, {}, None),
    "by id": ("csv_reader", "orders.csv", {"format": "dict", "columns": "id|customer", "limit": 1}, {},
              {"1": {"id": 1, "customer": "Ada"}}),
    "a table": ("csv_reader", "orders.csv", {"format": "table", "limit": 1}, {},
                {"columns": ["id", "customer", "amount", "zip"], "rows": [[1, "Ada", 30, "08001"]]}),
    "an id from an input": ("csv_reader", "orders.csv", {"id_field": "customer"}, {"id": "Bob"},
                            {"id": 2, "customer": "Bob", "amount": 7.5, "zip": "10115"}),
    "an id of Context that is filled": ("csv_reader", "orders.csv", {"document_id": "{who}", "id_field": "customer"},
                                        {"who": "Bob"}, {"id": 2, "customer": "Bob", "amount": 7.5, "zip": "10115"}),
    "a default": ("csv_reader", "none.csv", {"default": []}, {}, []),
    "a default for a row": ("csv_reader", "orders.csv", {"id": 9, "default": {}}, {}, {}),
    "a collection from an input": ("csv_reader", "", {"limit": 0}, {"collection": "orders.csv"}, []),
    "a document": ("json_reader", "people.json", {"id": "ada", "path": "tags.1"}, {}, "y"),
    "objects by name, queried": ("json_reader", "people", {"query": "age > 40"}, {}, [{"age": 41, "tags": []}]),
    "a list": ("json_reader", "list.json", {"sort": "n", "limit": 1}, {}, [{"id": 2, "n": 3}]),
    "an entry of a list": ("json_reader", "list.json", {"document_id": "1"}, {}, {"id": 1, "n": 5}),
    "the values": ("json_reader", "people.json", {"format": "list", "columns": "age"}, {}, [{"age": 36}, {"age": 41}]),
    "a part that is missing": ("json_reader", "people.json", {"path": "eve.age", "default": 0}, {}, 0),
    "a text": ("file_reader", "note.txt", {}, {}, "one\ntwo\nthree"),
    "lines": ("file_reader", "note.txt", {"format": "lines"}, {}, ["one", "two", "three"]),
    "pieces": ("file_reader", "note.txt", {"should_split": True, "chunk_size": 6, "chunk_overlap": 2}, {},
               ["one\ntw", "two\nth", "three"]),
    "a name from the state": ("file_reader", "{what}.txt", {}, {"what": "note"}, "one\ntwo\nthree"),
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize(("agent", "prompt", "context", "state", "expected"), READS.values(), ids=READS)
async def test_readers(
    agent: str, prompt: str, context: dict[str, Any], state: dict[str, Any], expected: Any, tmp_path: Path, root: Path
) -> None:
    """Files, rows, documents and parts of them, by Prompt, Context and inputs."""
    document = await result(tmp_path, root, agent, state, prompt=prompt, context=context)
    assert document["success"], document["error"]
    if expected is not None:
        assert document["result"]["out"] == expected


@pytest.mark.anyio
async def test_a_structured_text_has_facts(tmp_path: Path, root: Path) -> None:
    """Name, size and time."""
    document = await result(tmp_path, root, "file_reader", prompt="note.txt", context={"include_metadata": "true"})
    assert document["result"]["out"]["metadata"] | {"modified": ""} == {"name": "note.txt", "size": 13, "modified": ""}


ROWS = [{"id": 3, "amount": 5}, {"id": 4, "customer": "Eve", "new": "=1+1"}]
WRITES: dict[str, tuple[str, str, dict[str, Any], Any, str | None]] = {
    "write": ("csv_writer", "orders.csv", {}, ROWS, "id,amount,customer,new\n3,5,,\n4,,Eve,'=1+1\n"),
    "formulas": ("csv_writer", "new.csv", {"formulas": True, "delimiter": ";"}, {"a": "=1", "b": -1}, "a;b\n=1;-1\n"),
    "append": ("csv_writer", "orders", {"mode": "append"}, {"id": 9, "zip": "1"}, ORDERS + "9,,,1\n"),
    "update": ("csv_writer", "orders.csv", {"mode": "update"}, ROWS[:1], ORDERS.replace("Ada,4,", "Ada,5,")),
    "update and add": ("csv_writer", "orders.csv", {"mode": "merge", "id_field": "customer"},
                       [{"customer": "Bob", "zip": "x"}, {"customer": "Eve"}],
                       ORDERS.replace("10115", "x") + ",Eve,,\n"),
    "delete by id": ("csv_writer", "orders.csv", {"mode": "delete", "id": 2}, None,
                     ORDERS.replace("2,Bob,7.5,10115\n", "")),
    "delete by query": ("csv_writer", "orders.csv", {"mode": "delete", "query": {"customer": "Ada"}}, None,
                        "id,customer,amount,zip\n2,Bob,7.5,10115\n"),
    "delete a file": ("csv_writer", "orders.csv", {"mode": "delete"}, None, None),
    "columns and rows": ("csv_writer", "new.csv", {}, {"columns": ["a"], "rows": [[1]]}, "a\n1\n"),
    "a new folder": ("csv_writer", "2026/11/new.csv", {}, [{"a": "x,y"}], 'a\n"x,y"\n'),
    "json": ("json_writer", "new.json", {"indent": 0}, {"a": [1]}, '{"a": [1]}\n'),
    "json by id": ("json_writer", "people.json", {"id": "eve", "indent": 0}, {"age": 1},
                   '{"ada": {"age": 36, "tags": ["x", "y"]}, "bob": {"age": 41, "tags": []}, "eve": {"age": 1}}\n'),
    "json by path": ("json_writer", "list.json", {"path": "1.n", "indent": 0}, 7,
                     '[{"id": 1, "n": 5}, {"id": 2, "n": 7}]\n'),
    "json append": ("json_writer", "list.json", {"mode": "append", "indent": 0}, {"id": 3},
                    '[{"id": 1, "n": 5}, {"id": 2, "n": 3}, {"id": 3}]\n'),
    "json update of a list": ("json_writer", "list.json", {"mode": "update", "indent": 0}, [{"id": 2, "n": 0}],
                              '[{"id": 1, "n": 5}, {"id": 2, "n": 0}]\n'),
    "json update": ("json_writer", "people.json", {"mode": "update", "id": "ada", "indent": 0}, {"age": 37},
                    '{"ada": {"age": 37, "tags": ["x", "y"]}, "bob": {"age": 41, "tags": []}}\n'),
    "json merge": ("json_writer", "people.json", {"mode": "merge", "indent": 0}, {"bob": {"x": {"y": 1}}},
                   '{"ada": {"age": 36, "tags": ["x", "y"]}, "bob": {"age": 41, "tags": [], "x": {"y": 1}}}\n'),
    "json delete by id": ("json_writer", "list.json", {"mode": "delete", "id": 1, "indent": 0}, None,
                          '[{"id": 2, "n": 3}]\n'),
    "json delete by path": ("json_writer", "people.json", {"mode": "delete", "path": "ada.tags", "indent": 0}, None,
                            '{"ada": {"age": 36}, "bob": {"age": 41, "tags": []}}\n'),
    "json delete by query": ("json_writer", "list.json", {"mode": "delete", "query": "n > 4", "indent": 0}, None,
                             '[{"id": 2, "n": 3}]\n'),
    "text": ("file_writer", "new.md", {}, "é", "é"),
    "text append": ("file_writer", "note.txt", {"mode": "append", "separator": "\n"}, "four", "one\ntwo\nthree\nfour"),
    "content": ("file_writer", "new.md", {}, {"content": "x"}, "x"),
    "text delete": ("file_writer", "note.txt", {"mode": "delete"}, None, None),
}  # fmt: skip


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.anyio
@pytest.mark.parametrize(("agent", "prompt", "context", "data", "expected"), WRITES.values(), ids=WRITES)
async def test_writers(
    agent: str, prompt: str, context: dict[str, Any], data: Any, expected: str | None, tmp_path: Path, root: Path
) -> None:
    """Each mode of each writer; the file is what it should be, and nothing lies beside it."""
    state = {} if data is None else {"data": data}
    before = await asyncio.to_thread(names, root)
    document = await result(tmp_path, root, agent, state, prompt=prompt, context=context)
    assert document["success"], document["error"]
    assert document["result"]["out"]["file_path"] == prompt
    path = root / (prompt if "." in prompt else f"{prompt}.csv")
    assert (path.read_bytes().decode() if path.exists() else None) == expected
    assert await asyncio.to_thread(names, root) - before <= {"new.csv", "new.json", "new.md", "2026"}


ESCAPES = [
    *("../secret.txt", "/etc/passwd", "a/../../secret.txt", "..", ".", "", " ", "a//b", "./note.txt", "note.txt/"),
    *("..\\secret.txt", "C:\\secret.txt", "c:/secret.txt", "note.txt\0.csv", "note\n.txt", "a/" * 40 + "b", "x" * 300),
    *("~/secret.txt", "file:///etc/passwd", "s3://bucket/x", "other:note.txt", "%2e%2e/secret.txt", "．．/secret.txt"),
    *("link.txt", "folder-link/secret.txt", "pipe", "chain.txt", "/dev/zero", "device", "folder"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("written", ESCAPES)
@pytest.mark.parametrize("agent", ["file_reader", "file_writer"])
async def test_nothing_outside_a_root_is_touched(agent: str, written: str, tmp_path: Path, root: Path) -> None:
    """Neither by paths, nor by links, nor by what is no file; the answer does not tell what is there."""

    def prepare() -> None:
        tmp_path.joinpath("secret.txt").write_text("hidden")
        tmp_path.joinpath("outside").mkdir()
        tmp_path.joinpath("outside", "secret.txt").write_text("hidden")
        root.joinpath("link.txt").symlink_to(tmp_path / "secret.txt")
        root.joinpath("chain.txt").symlink_to("link.txt")
        root.joinpath("folder-link").symlink_to(tmp_path / "outside")
        root.joinpath("device").symlink_to("/dev/zero")
        root.joinpath("folder").mkdir()
        os.mkfifo(root / "pipe")

    await asyncio.to_thread(prepare)
    state = {"collection": written, "data": "overwritten"}
    document = await result(tmp_path, root, agent, state)
    allowed = agent == "file_writer" and written in ("~/secret.txt", "%2e%2e/secret.txt", "．．/secret.txt")
    assert document["success"] is allowed, document["result"]
    if not allowed:
        assert document["error"]["code"] in ("not_allowed", "data_unusable"), document["error"]
        assert str(tmp_path) not in document["error"]["message"]
    for path in (tmp_path / "secret.txt", tmp_path / "outside" / "secret.txt"):
        assert path.read_text() == "hidden"


@pytest.mark.anyio
async def test_a_link_inside_a_root_is_followed(tmp_path: Path, root: Path) -> None:
    """What a write replaces is the file that it leads to."""
    await asyncio.to_thread(root.joinpath("latest.txt").symlink_to, "note.txt")
    document = await result(tmp_path, root, "file_reader", prompt="latest.txt")
    assert document["result"]["out"].startswith("one")
    assert (await result(tmp_path, root, "file_writer", {"data": "x"}, prompt="latest.txt"))["success"]
    assert root.joinpath("note.txt").read_text() == "x"
    assert root.joinpath("latest.txt").is_symlink()


@pytest.mark.anyio
async def test_sizes_are_bounded(tmp_path: Path, root: Path) -> None:
    """What is read, what is written, and what an append would make."""
    await asyncio.to_thread(root.joinpath("big.txt").write_text, "x" * 101)
    config = {"data_roots": [str(root)], "data_max_bytes": 100}
    for agent, name, state in (
        ("file_reader", "big.txt", {}),
        ("file_writer", "new.txt", {"data": "x" * 101}),
        ("csv_writer", "orders.csv", {"data": [{"id": "x" * 60}], "mode": "append"}),
    ):
        rows = [node("A", agent, prompt=name, inputs="|".join(state), output="out")]
        document = await run(tmp_path, rows, state, config=config)
        assert document["error"]["code"] == "data_unusable", name
        assert "data_max_bytes" in document["error"]["message"]
    assert root.joinpath("orders.csv").read_text() == ORDERS


@pytest.mark.anyio
async def test_what_cannot_be_used_is_named(tmp_path: Path, root: Path) -> None:
    """The file and the reason, and never a path of the machine."""
    broken = {
        "broken.json": "{",
        "nan.json": "[NaN]",
        "twice.csv": "a,a\n1,2\n",
        "wide.csv": "a\n1,2\n",
        "latin.txt": "",
    }
    for name, text in broken.items():
        root.joinpath(name).write_text(text)
    root.joinpath("latin.txt").write_bytes(b"\xe9")
    cases: list[tuple[str, str, dict[str, Any], dict[str, Any], str]] = [
        ("csv_reader", "gone.csv", {}, {}, "no file 'gone.csv'"),
        ("csv_reader", "orders.csv", {"id": 9}, {}, "no row with id '9'"),
        ("csv_reader", "twice.csv", {}, {}, "'twice.csv': Two columns are called 'a'"),
        ("csv_reader", "wide.csv", {}, {}, "Row 2 has more cells"),
        ("csv_reader", "orders.csv", {}, {"limit": "many"}, "limit cannot be 'many'"),
        ("csv_reader", "orders.csv", {}, {"query": "amount >"}, "not understood"),
        ("csv_writer", "orders.csv", {}, {"data": "text"}, "no rows"),
        ("csv_writer", "orders.csv", {}, {}, "nothing to write"),
        ("csv_writer", "orders.csv", {"mode": "update"}, {"data": [{"x": 1}]}, "has no id"),
        ("json_reader", "broken.json", {}, {}, "is no JSON"),
        ("json_reader", "nan.json", {}, {}, "NaN"),
        ("json_reader", "people.json", {"id": "eve"}, {}, "under the id 'eve'"),
        ("json_writer", "people.json", {"mode": "append"}, {"data": 1}, "no list"),
        ("json_writer", "list.json", {"path": "x.y"}, {"data": 1}, "has a list where 'x' should be"),
        ("file_reader", "latin.txt", {}, {}, "not utf-8"),
        ("file_writer", "note.txt/x", {}, {"data": "x"}, "cannot be used: Not a directory"),
    ]
    for agent, name, context, state, words in cases:
        document = await result(tmp_path, root, agent, state, prompt=name, context=context)
        assert words in document["error"]["message"], (name, document["error"])
        assert str(tmp_path) not in document["error"]["message"]


def test_a_write_that_fails_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the new file has its name the old one stands; what was written beside it is gone."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(path.name for path in root.iterdir())
    roots = Roots([str(root)], 1000)
    for step in ("fsync", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(DataUnusable, match="No space left"):
                roots.change("note.txt", lambda old: b"new")
        assert root.joinpath("note.txt").read_text() == "one\ntwo\nthree"
        assert sorted(path.name for path in root.iterdir()) == before


def test_permissions_of_a_file_stay(root: Path) -> None:
    """A file that is replaced keeps who may read it."""
    root.joinpath("note.txt").chmod(0o600)
    Roots([str(root)], 1000).change("note.txt", lambda old: b"new")
    assert root.joinpath("note.txt").stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_parallel_writes_to_one_file_lose_nothing(tmp_path: Path, root: Path) -> None:
    """Each append sees what those before it have written."""
    rows = [node("A", "csv_writer", prompt="log.csv", inputs="item:data", output="out", map_over="items",
                 context={"mode": "append", "concurrency": 20})]  # fmt: skip
    items = [{"n": number} for number in range(40)]
    document = await run(tmp_path, rows, {"items": items}, config={"data_roots": [str(root)]})
    assert document["success"], document["error"]
    _, found = read_csv(root.joinpath("log.csv").read_bytes(), encoding="utf-8", delimiter="", numbers=True)
    assert sorted(row["n"] for row in found) == list(range(40))


@pytest.mark.anyio
async def test_several_roots(tmp_path: Path, root: Path) -> None:
    """Named ones, and those that are for reading only."""
    archive = tmp_path / "archive"
    await asyncio.to_thread(archive.mkdir)
    config = {"data_roots": [str(root), f"archive={archive}", f"fixed={root}:ro"]}
    rows = [
        node("A", "file_reader", prompt="fixed:note.txt", output="text", edge="B"),
        node("B", "file_writer", prompt="archive:2026/note.txt", inputs="text:data", output="done"),
    ]
    document = await run(tmp_path, rows, config=config)
    assert document["success"], document["error"]
    assert archive.joinpath("2026", "note.txt").read_text() == "one\ntwo\nthree"
    state = {"collection": "fixed:note.txt", "data": "x"}
    document = await run(tmp_path, [node("A", "file_writer", inputs="collection|data")], state, config=config)
    assert document["error"]["code"] == "not_allowed"
    assert "reading only" in document["error"]["message"]


@pytest.mark.anyio
@pytest.mark.blocks
async def test_a_root_can_be_any_file_system_of_fsspec(tmp_path: Path) -> None:
    """Read, written, appended to and deleted."""
    url = f"memory://{tmp_path.name}"
    for agent, context, state in (
        ("csv_writer", {}, {"data": [{"a": 1}]}),
        ("csv_writer", {"mode": "append"}, {"data": [{"a": 2}]}),
        ("csv_reader", {}, {}),
        ("csv_writer", {"mode": "delete"}, {}),
    ):
        document = await result(tmp_path, url, agent, state, prompt="in/rows.csv", context=context)
        assert document["success"], document["error"]
        if agent == "csv_reader":
            assert document["result"]["out"] == [{"a": 1}, {"a": 2}]
    document = await result(tmp_path, url, "csv_reader", prompt="in/rows.csv")
    assert document["error"]["code"] == "data_unusable"


@pytest.mark.anyio
async def test_a_value_is_never_filled_again(tmp_path: Path, root: Path) -> None:
    """Neither fields nor secrets in what comes from the state are looked up."""
    state = {"id": "{who}", "who": "Bob", "data": "secret:KEY"}
    rows = [
        node("A", "csv_reader", prompt="orders.csv", inputs="id|who", output="x", ko="B",
             context={"id_field": "customer"}),
        node("B", "file_writer", prompt="new.txt", inputs="data", output="y"),
    ]  # fmt: skip
    document = await run(tmp_path, rows, state, config={"data_roots": [str(root)]}, secrets={"KEY": "hidden"})
    assert document["success"]
    assert "no row with customer '{who}'" in document["result"].get("x", "") or "x" not in document["result"]
    assert root.joinpath("new.txt").read_text() == "secret:KEY"


def diagnostics(tmp_path: Path, row: dict[str, str], roots: list[str]) -> list[tuple[str, str]]:
    made = service(tmp_path, [row], config={"data_roots": roots})
    return [(one["code"], one["message"]) for one in made.get_workflow_definition("Flow")["diagnostics"]]


def test_without_roots_data_agents_are_off(tmp_path: Path) -> None:
    """A row that needs one is an error that names the setting."""
    made = service(tmp_path, [node("A", "CSVReaderAgent", prompt="orders.csv")])
    (found,) = made.get_workflow_definition("Flow")["diagnostics"]
    assert (found["code"], found["severity"], found["column_name"]) == ("AM-A009", "error", "AgentType")
    assert "data_roots" in found["hint"]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (node("A", "file_reader", prompt="../x"), "AM-A004"),
        (node("A", "file_reader", context={"collection": "othr:x"}), "AM-A004"),
        (node("A", "file_reader"), "AM-A004"),
        (node("A", "csv_writer", prompt="fixed:x.csv", inputs="data"), "AM-A004"),
        (node("A", "csv_writer", prompt="x.csv", inputs="data", context={"mode": "burn"}), "AM-A004"),
        (node("A", "file_writer", prompt="x.csv", inputs="data", context={"mode": "merge"}), "AM-A004"),
        (node("A", "csv_reader", prompt="x.csv", context={"query": "a >"}), "AM-X001"),
        (node("A", "csv_reader", prompt="x.csv", context={"lmit": 5}), "AM-A008"),
    ],
)
def test_what_can_be_seen_is_said_when_a_file_is_loaded(row: dict[str, str], code: str, tmp_path: Path) -> None:
    """Paths, roots, modes, queries and options; without looking at the disk."""
    assert [found for found, _ in diagnostics(tmp_path, row, ["nowhere", f"fixed={tmp_path}:ro"])] == [code]


def test_right_rows_are_clean(tmp_path: Path) -> None:
    """AgentMap's option names, and files that only an execution knows."""
    for row in (
        node("A", "csv_reader", inputs="collection|id"),
        node(
            "A", "csv_reader", prompt="{name}.csv", context={"format": "records", "id_field": "id", "return_list": True}
        ),
        node("A", "json_writer", prompt="x", inputs="data", context={"mode": "merge", "document_id": "a", "path": "b"}),
        node("A", "file_reader", context={"file_path": "a.txt", "chunk_size": "500", "should_split": "false"}),
    ):
        assert diagnostics(tmp_path, row, ["data"]) == []


def test_only_repeatable_writes_run_again_after_a_crash(tmp_path: Path) -> None:
    """An append would add twice; a mode that an input gives is unknown beforehand."""
    modes = {"write": True, "update": True, "delete": True, "append": False}
    made = service(tmp_path, [node("A", "csv_writer", prompt="x")], config={"data_roots": [str(tmp_path)]})
    repeatable = made.registry["csv_writer"].repeatable
    assert repeatable is not None
    for mode, again in modes.items():
        row = service(tmp_path, [node("A", "csv_writer", prompt="x", context={"mode": mode})])
        assert repeatable(row.catalogue.find("Flow").nodes["A"]) is again
    row = service(tmp_path, [node("A", "csv_writer", prompt="x", inputs="mode|data")])
    assert repeatable(row.catalogue.find("Flow").nodes["A"]) is False


@pytest.mark.parametrize("entry", ["", "x=", ["a=x", "a=y"], ["x", "y"]])
def test_wrong_roots_are_refused(entry: Any) -> None:
    """An entry without a path, and two of one name."""
    with pytest.raises(ConfigError, match="data_roots"):
        Roots([entry] if isinstance(entry, str) else entry, 10)


def test_roots_of_a_settings_file_start_at_its_folder(tmp_path: Path) -> None:
    """Names and :ro stay; URLs too."""
    file = tmp_path / "agentmap.toml"
    file.write_text('data_roots = ["data", "old=archive:ro", "lake=s3://bucket"]\n')
    config = AgentMapConfig.from_env({}, file=file)
    assert config.data_roots == (f"{tmp_path}/data", f"old={tmp_path}/archive:ro", "lake=s3://bucket")
    roots = Roots(config.data_roots, 10)
    assert [(root.name, root.writable) for root in roots.roots.values()] == [("", True), ("old", False), ("lake", True)]
    with pytest.raises(NotAllowed, match="did you mean 'lake'"):
        roots.find("lak:x")


def test_numbers_are_those_that_say_the_same_as_their_text() -> None:
    """A column with one that does not stays a column of texts, as codes and long numbers do."""
    text = b"\xef\xbb\xbfa;b;c;d;e\n1;01;1.50;12345678901234567;\n;2;2;3;x\n\n"
    header, rows = read_csv(text, encoding="utf-8", delimiter="", numbers=True)
    assert header == ["a", "b", "c", "d", "e"]
    assert rows == [
        {"a": 1, "b": "01", "c": 1.5, "d": "12345678901234567", "e": ""},
        {"a": None, "b": "2", "c": 2, "d": "3", "e": "x"},
    ]
    assert write_csv(header, rows, encoding="utf-8", delimiter=";") == (
        b"a;b;c;d;e\n1;01;1.5;12345678901234567;\n;2;2;3;x\n"
    )


def test_sorting_knows_numbers_and_what_is_missing() -> None:
    """Numbers, texts, the rest, nothing; several fields, each with its own way."""
    rows = [{"a": value} for value in ("b", 10, None, 9, "a", [1])]
    assert [row["a"] for row in selected(rows, None, {"sort": "a"}, {})] == [9, 10, "a", "b", [1], None]
    rows = [{"a": a, "b": b} for a in (1, 2) for b in (1, 2)]
    found = selected(rows, None, {"sort": "-a,b"}, {})
    assert [(row["a"], row["b"]) for row in found] == [(2, 1), (2, 2), (1, 1), (1, 2)]
    assert same("5", 5)
    assert not same(True, 1)


def test_what_a_spreadsheet_would_calculate_is_guarded() -> None:
    """Signs before numbers and telephone numbers are none of that."""
    from agentmap_asgi.agents.rows import guarded

    risky = ["=1+1", "+A1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1"]
    plain = ["-5", "+41 44 123", "-1,5", "a=b", "", 5, None, "+49 (30) 12/3"]
    assert guarded([{"a": one} for one in risky]) == [{"a": f"'{one}"} for one in risky]
    assert guarded([{"a": one} for one in plain]) == [{"a": one} for one in plain]


@pytest.mark.anyio
async def test_an_input_called_file_is_no_option(tmp_path: Path, root: Path) -> None:
    """It fills the Prompt, as any field does."""
    document = await result(tmp_path, root, "file_reader", {"file": "note"}, prompt="{file}.txt")
    assert document["success"], document["error"]
