"""What the data agents do: read a file, choose; or change what a file holds and write it as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ..errors import DataUnusable, ResultInvalid
from ..execution.values import copied, text_of
from . import data_options as data
from .files import Found, Roots
from .filling import Filling
from .options import Option, Options, Unfit, rows_of
from .registry import Call
from .rows import (
    Record,
    decoded,
    encoded,
    field_of,
    guarded,
    header_of,
    matcher,
    read_csv,
    records_of,
    same,
    selected,
    write_csv,
)

MISSING: Final[Any] = object()
FILLED: Final = (data.COLLECTION, data.QUERY, data.ID, data.PATH, data.DEFAULT)
"""Options in which fields of the state may stand."""


class Job:
    """One call of a data agent: its options, and what it was given."""

    def __init__(self, roots: Roots, call: Call, options: Options) -> None:
        self.roots = roots
        self.inputs = call.inputs
        rows = rows_of(options)
        names = {row.name: row for row in rows}  # a field called file is no option, and often part of a Prompt
        if data.ID in rows:
            names["document_id"] = data.ID
        own: dict[str, Any] = dict(call.options)
        filling = Filling(call)
        for row in FILLED:
            if row in rows:
                own[row.name] = filling.option(row)
        for key, value in self.inputs.items():
            if key in names and value is not None and key != "data":
                own[names[key].name] = _fitting(names[key], value)
        self.own = own
        collection = own.get("collection")
        self.file = (call.prompt if collection is None else text_of(collection)).strip()
        if not self.file:
            raise DataUnusable("No file is named: neither collection nor a Prompt")

    def __getitem__(self, name: str) -> Any:
        return self.own.get(name)

    def named(self, suffix: str) -> str:
        """The file, with the suffix that it lacks."""
        return self.file if "." in self.file.rpartition("/")[2] else self.file + suffix

    def read(self, suffix: str = "") -> Found | None:
        """The file; None when there is none, and a default is given. Raises DataUnusable."""
        name = self.named(suffix) if suffix else self.file
        found = self.roots.read(name)
        if found is None and self["default"] is None:
            raise DataUnusable(f"There is no file {name!r}")
        return found

    def given(self) -> Any:
        """What is to be written. Raises DataUnusable."""
        name = self["data_field"]
        if name is not None or "data" in self.inputs:
            found = self.inputs.get(name or "data")
            if found is None:
                raise DataUnusable(f"There is nothing to write: the input {name or 'data'!r} is empty")
            return found
        others = {key: value for key, value in self.inputs.items() if key not in self.own and value is not None}
        if not others:
            raise DataUnusable("There is nothing to write: name the field in Input_Fields, as orders:data")
        return next(iter(others.values())) if len(others) == 1 else others

    def result(self, **changed: Any) -> dict[str, Any]:
        return {"success": True, "mode": self["mode"], "file_path": self.file, **changed}


def _fitting(row: Option, value: Any) -> Any:
    try:
        return row.read(value)
    except Unfit as exc:
        raise DataUnusable(f"The input {row.name} cannot be {text_of(value)[:60]!r}; give {exc}") from None


# CSV


def csv_reader(roots: Roots, call: Call) -> Any:
    job = Job(roots, call, data.READ_CSV)
    found = job.read(".csv")
    if found is None:
        return job["default"]
    header, rows = _table(job, found.data)
    if job["id"] is not None:
        rows = [row for row in rows if same(row.get(job["id_field"]), job["id"])]
        if not job["return_list"]:
            if not rows and job["default"] is None:
                raise DataUnusable(f"{job.file!r} has no row with {job['id_field']} {text_of(job['id'])!r}")
            return rows[0] if rows else job["default"]
    rows = selected(rows, job["query"], job.own, job.inputs)
    if job["format"] == "dict":
        return {text_of(row.get(job["id_field"])): row for row in rows}
    if job["format"] == "table":
        names = job["columns"] or header
        return {"columns": names, "rows": [[row.get(name) for name in names] for row in rows]}
    return rows


def _table(job: Job, content: bytes | None, *, numbers: bool | None = None) -> tuple[list[str], list[Record]]:
    if content is None:
        return [], []
    try:
        return read_csv(
            content,
            encoding=job["encoding"],
            delimiter=_delimiter(job["delimiter"]),
            numbers=job["numbers"] if numbers is None else numbers,
        )
    except DataUnusable as exc:
        raise DataUnusable(f"{job.file!r}: {exc.message}") from None


def _delimiter(given: str | None) -> str:
    sign = {"tab": "\t", "\\t": "\t"}.get(given or "", given or "")
    if len(sign) > 1 or sign in ('"', "\r", "\n"):
        raise DataUnusable(f"The delimiter is one sign, not {sign!r}")
    return sign


def csv_writer(roots: Roots, call: Call) -> Any:
    job = Job(roots, call, data.WRITE_CSV)
    mode, key = job["mode"], job["id_field"]
    given = [] if mode == "delete" else records_of(job.given())
    if not job["formulas"]:
        given = guarded(given)
    changed: dict[str, Any] = {}

    def edit(before: bytes | None) -> bytes | None:
        header, rows = _table(job, None if mode == "write" else before, numbers=False)
        if mode == "delete":
            if job["id"] is None and job["query"] is None:
                changed["deleted"] = before is not None
                return None
            kept = _kept(rows, job)
            changed["rows_deleted"] = len(rows) - len(kept)
            rows = kept
        elif mode in ("write", "append"):
            rows = [*rows, *given]
            changed.update(rows_written=len(given), created_new=before is None)
        else:
            added, updated = _upsert(rows, given, key, job.file)
            changed.update(rows_updated=updated, rows_added=added, rows_written=added + updated)
            changed["created_new"] = before is None
        if not rows and not header and mode != "write":
            return before
        return write_csv(
            header_of(given, header),
            rows,
            encoding=job["encoding"],
            delimiter=_delimiter(job["delimiter"]) or _sign_of(before, job),
        )

    roots.change(job.named(".csv"), edit)
    return job.result(**changed)


def _sign_of(before: bytes | None, job: Job) -> str:
    """The delimiter that the file has already."""
    if before is None:
        return ","
    head = decoded(before, job["encoding"]).partition("\n")[0]
    return max(",;\t|", key=head.count)


def _kept(rows: Sequence[Record], job: Job) -> list[Record]:
    """The rows that a delete leaves: those that do not fit its id or query."""
    if job["id"] is not None:
        return [row for row in rows if not same(row.get(job["id_field"]), job["id"])]
    fits = matcher(job["query"], job.inputs)
    return [row for row in rows if fits is not None and not fits(row)]


def _upsert(rows: list[Record], given: Sequence[Record], key: str, file: str) -> tuple[int, int]:
    """Put rows in by their key, in place: (added, updated)."""
    at = {text_of(row[key]): number for number, row in enumerate(rows) if row.get(key) not in (None, "")}
    added = 0
    for row in given:
        if row.get(key) in (None, ""):
            raise DataUnusable(f"A row for {file!r} has no {key}, by which it is found; id_field names the field")
        number = at.setdefault(text_of(row[key]), len(rows))
        if number == len(rows):
            rows.append(dict(row))
            added += 1
        else:
            rows[number] = {**rows[number], **row}
    return added, len(given) - added


# JSON


def json_reader(roots: Roots, call: Call) -> Any:
    job = Job(roots, call, data.READ_JSON)
    found = job.read(".json")
    if found is None:
        return job["default"]
    value = _document(job, found.data)
    if job["id"] is not None:
        value = _entry(value, job)
    if value is not MISSING and job["path"]:
        value = field_of(value, job["path"], MISSING)
    if value is MISSING:
        if job["default"] is None:
            where = f"the id {text_of(job['id'])!r}" if job["id"] is not None else f"{job['path']!r}"
            raise DataUnusable(f"{job.file!r} has nothing under {where}")
        return job["default"]
    controls = any(job[name] is not None for name in ("query", "sort", "offset", "limit", "columns"))
    if isinstance(value, dict) and (job["format"] == "list" or (controls and _all_objects(value))):
        value = list(value.values())
    if controls and isinstance(value, list):
        return selected(value, job["query"], job.own, job.inputs)
    if controls and value is not None and job["query"] is not None:
        raise DataUnusable(f"A query needs a list of objects, and {job.file!r} has {type(value).__name__}")
    return value


def _all_objects(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(isinstance(one, dict) for one in value.values())


def _document(job: Job, content: bytes) -> Any:
    try:
        return copied(json.loads(decoded(content, job["encoding"] or "utf-8"), parse_constant=_refuse))
    except (ValueError, RecursionError) as exc:
        raise DataUnusable(f"{job.file!r} is no JSON: {exc}") from None
    except ResultInvalid as exc:
        raise DataUnusable(f"{job.file!r}: {exc.message}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _entry(value: Any, job: Job) -> Any:
    wanted = job["id"]
    if isinstance(value, dict):
        return value.get(text_of(wanted), MISSING)
    if isinstance(value, list):
        return next((one for one in value if isinstance(one, dict) and same(one.get(job["id_field"]), wanted)), MISSING)
    return MISSING


def json_writer(roots: Roots, call: Call) -> Any:
    job = Job(roots, call, data.WRITE_JSON)
    mode = job["mode"]
    given = None if mode == "delete" else job.given()
    changed: dict[str, Any] = {}

    def edit(before: bytes | None) -> bytes | None:
        narrow = job["id"] is not None or job["path"]
        if mode == "delete" and not narrow and job["query"] is None:
            changed["deleted"] = before is not None
            return None
        fresh = mode == "write" and not narrow
        old = MISSING if before is None or fresh else _document(job, before)
        changed["created_new"] = before is None
        new = _changed_document(old, given, job)
        if new is MISSING:
            return before
        text = json.dumps(new, ensure_ascii=False, indent=job["indent"] or None)
        return encoded(text + "\n", "utf-8")

    roots.change(job.named(".json"), edit)
    return job.result(**changed)


def _changed_document(old: Any, given: Any, job: Job) -> Any:
    """The document after a change; MISSING when there is nothing to change."""
    mode, wanted = job["mode"], job["id"]
    if mode == "delete" and job["query"] is not None:
        if not isinstance(old, list):
            return MISSING
        fits = matcher(job["query"], job.inputs)
        return [row for row in old if fits is not None and not fits(row)]
    steps: list[Any] = [] if wanted is None else [("id", wanted)]
    steps += [("key", part) for part in str(job["path"]).split(".")] if job["path"] else []
    return _put(old, steps, given, job)


def _put(old: Any, steps: list[Any], given: Any, job: Job) -> Any:
    """A copy of `old` in which what `steps` lead to is changed."""
    mode = job["mode"]
    if not steps:
        return MISSING if mode == "delete" else _combined(old, given, job)
    (kind, name), *rest = steps
    if isinstance(old, list):
        at = _index(old, kind, name, job)
        inner = _put(MISSING if at is None else old[at], rest, given, job)
        if inner is MISSING:
            return [one for number, one in enumerate(old) if number != at]
        if kind == "id" and isinstance(inner, dict):
            inner = {job["id_field"]: name, **inner}
        return [*old, inner] if at is None else [*old[:at], inner, *old[at + 1 :]]
    if old is not MISSING and not isinstance(old, dict):
        raise DataUnusable(f"{job.file!r} has no object in which {text_of(name)!r} could be")
    before = {} if old is MISSING else old
    key = text_of(name)
    inner = _put(before.get(key, MISSING), rest, given, job)
    if inner is MISSING:
        return {one: value for one, value in before.items() if one != key}
    return {**before, key: inner}


def _index(old: list[Any], kind: str, name: Any, job: Job) -> int | None:
    if kind == "id":
        field = job["id_field"]
        return next((n for n, one in enumerate(old) if isinstance(one, dict) and same(one.get(field), name)), None)
    if not name.isdecimal() or int(name) > len(old):
        raise DataUnusable(f"{job.file!r} has a list where {name!r} should be, and {len(old)} items in it")
    return int(name) if int(name) < len(old) else None


def _combined(old: Any, given: Any, job: Job) -> Any:
    """What write, append, update and merge make of a value and a new one."""
    mode = job["mode"]
    if mode == "write" or old is MISSING:
        return [given] if mode == "append" and not isinstance(given, list) else given
    if mode == "append":
        if not isinstance(old, list):
            raise DataUnusable(f"{job.file!r} has no list to which something could be appended")
        return [*old, *(given if isinstance(given, list) else [given])]
    if isinstance(old, list):
        rows = list(old)
        _upsert(rows, records_of(given), job["id_field"], job.file)
        return rows
    if isinstance(old, dict) and isinstance(given, dict):
        return _merged(old, given) if mode == "merge" else {**old, **given}
    return given


def _merged(old: Any, given: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(given, dict)):
        return given
    return {**old, **{key: _merged(old[key], value) if key in old else value for key, value in given.items()}}


# Texts


def file_reader(roots: Roots, call: Call) -> Any:
    job = Job(roots, call, data.READ_FILE)
    found = job.read()
    if found is None:
        return job["default"]
    text = decoded(found.data, job["encoding"])
    if job["should_split"]:
        size = job["chunk_size"]
        step = max(1, size - job["chunk_overlap"])
        return [text[at : at + size] for at in range(0, max(1, len(text) - job["chunk_overlap"]), step)]
    if job["format"] == "lines":
        return text.splitlines()
    if job["format"] == "structured" or job["include_metadata"]:
        modified = None if found.modified is None else datetime.fromtimestamp(found.modified, UTC).isoformat()
        facts = {"name": job.file, "size": len(found.data), "modified": modified}
        return {"content": text, "metadata": facts}
    return text


def file_writer(roots: Roots, call: Call) -> Any:
    job = Job(roots, call, data.WRITE_FILE)
    mode = job["mode"]
    content = b"" if mode == "delete" else encoded(_text_of(job.given()), job["encoding"])
    changed: dict[str, Any] = {}

    def edit(before: bytes | None) -> bytes | None:
        if mode == "delete":
            changed["deleted"] = before is not None
            return None
        changed.update(bytes_written=len(content), created_new=before is None)
        if mode == "append" and before:
            return before + encoded(job["separator"], job["encoding"]) + content
        return content

    roots.change(job.file, edit)
    return job.result(**changed)


def _text_of(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        return str(value["content"])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


WORK: Final[dict[str, Callable[[Roots, Call], Any]]] = {
    "csv_reader": csv_reader,
    "csv_writer": csv_writer,
    "json_reader": json_reader,
    "json_writer": json_writer,
    "file_reader": file_reader,
    "file_writer": file_writer,
}
