"""Rows and entries as columns of the store file: encoded, with checksums, and looked at closely when they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from operator import lt
from typing import Any, Final, Protocol
from zlib import crc32

from ..errors import StoreDamaged
from . import schema
from .store import FINISHED, LOST_HEAD, UNFINISHED, Batch, Entry, Lines, Row

PIECE: Final = 500
"""Entries of one row, at most."""


_LINE: Final = "%d %s".__mod__


class Codec(Protocol):
    """Encrypts what is stored. What `decode` cannot read, it raises ValueError for."""

    def encode(self, data: bytes, /) -> bytes: ...
    def decode(self, data: bytes, /) -> bytes: ...


class Columns:
    """How the rows and texts of one namespace become columns, and columns rows. For one thread."""

    def __init__(self, namespace: str, codec: Codec | None) -> None:
        self.namespace = namespace
        self._codec = codec
        self._updates: dict[tuple[str, ...], str] = {}

    def seal(self, text: str) -> tuple[str | bytes, int]:
        data = text.encode()
        if self._codec is None:
            return text, crc32(data)
        data = self._codec.encode(data)
        return data, crc32(data)

    def unseal(self, execution: str, what: str, value: Any, total: Any, start: int = 0) -> str:
        if isinstance(value, str):
            data, text = value.encode(errors="surrogatepass"), value
            if crc32(data, start) != total:
                raise StoreDamaged(execution, f"the checksum of {what} is wrong")
            return text
        if not isinstance(value, bytes):
            raise StoreDamaged(execution, f"{what} is no text")
        if crc32(value, start) != total:
            raise StoreDamaged(execution, f"the checksum of {what} is wrong")
        if self._codec is None:
            raise StoreDamaged(execution, f"{what} is encoded, and no codec is given", unread=True)
        try:
            return self._codec.decode(value).decode()
        except Exception as exc:  # the host's code, and it may raise what its library raises
            reason = f"the codec cannot read {what} ({type(exc).__name__})"
            raise StoreDamaged(execution, reason, unread=True) from exc

    def tell(self, text: str) -> str | bytes:
        return self.seal(text)[0]

    def told(self, value: Any) -> str:
        data = value.encode() if isinstance(value, str) else bytes(value)
        return self.unseal("", "a request", value, crc32(data))

    def values(self, row: Row) -> list[Any]:
        """All columns, in the order of FULL_NAMES."""
        waits, head = self.seal(row.waits), self.seal(row.head)
        document = (None, None) if row.document is None else self.seal(row.document)
        return [
            row.id, self.namespace, row.graph_id, row.graph_name, row.definition, row.status, row.owner,
            json.dumps(row.tags) if row.tags else "[]", row.created, row.started, row.ended, row.runner, row.fence,
            row.attempt, row.retry_of, row.key, row.key_body, row.sequence, row.steps, row.wake,
            *waits, *head, *document,
        ]  # fmt: skip

    def changes(self, batch: Batch) -> tuple[str, list[Any]]:
        """The UPDATE of a batch and what it is given."""
        names, values = self.changed(batch)
        update = self._updates.get(names)
        if update is None:
            update = self._updates[names] = self._update(names)
        values += (batch.id, self.namespace, batch.fence)
        return update, values

    def changed(self, batch: Batch) -> tuple[tuple[str, ...], list[Any]]:
        """The columns of the Row that a batch changes, and the values that they become; two for a sealed one."""
        changes = batch.changes()
        values: list[Any] = []
        for name, value in changes.items():
            if name in schema.SEALED:
                values += (None, None) if value is None else self.seal(value)
            elif name == "tags":
                values.append(json.dumps(value))
            else:
                values.append(value)
        return tuple(changes), values

    @staticmethod
    def check(names: tuple[str, ...]) -> None:
        wrong = [name for name in names if name not in schema.CHANGEABLE]
        if wrong:
            raise ValueError(f"An execution's {', '.join(wrong)} cannot be changed by a batch")

    def _update(self, names: tuple[str, ...]) -> str:
        self.check(names)
        columns = [f"{name} = ?" if name not in schema.SEALED else f"{name} = ?, {name}_sum = ?" for name in names]
        changed = ", ".join(columns) or "fence = fence"
        return f"UPDATE executions SET {changed} WHERE id = ? AND namespace = ? AND fence = ?"

    def pieces(self, execution: str, given: Iterable[Lines]) -> list[tuple[Any, ...]]:
        """The rows of the entries of one write, of each path at least one."""
        rows = []
        for path, numbers, texts in given:
            if not all(map(lt, numbers, numbers[1:])):
                raise ValueError(f"Entries of an execution are not in order: {numbers}"[:200])
            for begin in range(0, len(numbers), PIECE):
                rows.append(self._piece(execution, path, numbers[begin : begin + PIECE], texts[begin : begin + PIECE]))
        return rows

    def _piece(self, execution: str, path: str, numbers: Sequence[int], texts: Sequence[str]) -> tuple[Any, ...]:
        text = "\n".join(map(_LINE, zip(numbers, texts, strict=True)))
        if text.count("\n") >= len(numbers):  # in JSON a line break is a blank
            text = "\n".join(map(_LINE, zip(numbers, [text.replace("\n", " ") for text in texts], strict=True)))
        first = numbers[0]
        data = text.encode()
        # The number goes into the checksum, so that a text in the wrong place is found as well.
        if self._codec is None:
            return execution, path, first, text, crc32(data, first), numbers[-1]
        data = self._codec.encode(data)
        return execution, path, first, data, crc32(data, first), numbers[-1]

    def entry(self, execution: str, path: Any, sequence: Any, text: Any, total: Any) -> Entry:
        """An entry that is a row of its own."""
        if not isinstance(sequence, int) or not isinstance(path, str):
            raise StoreDamaged(execution, f"an entry has the number {sequence!r}"[:200])
        return Entry(path, sequence, self.unseal(execution, f"entry {sequence}", text, total, sequence))

    def taken_apart(self, execution: str, path: Any, sequence: Any, text: Any, total: Any, last: Any) -> list[Entry]:
        """What a piece holds."""
        whole = self.entry(execution, path, sequence, text, total)
        if last is None:
            return [whole]
        found = []
        for line in whole.text.split("\n"):
            number, _, rest = line.partition(" ")
            if not (number.isascii() and number.isdecimal()):
                raise StoreDamaged(execution, f"entry {sequence} is not what it should be")
            found.append(Entry(path, int(number), rest))
        if found[-1].sequence != last or found[0].sequence != sequence:
            raise StoreDamaged(execution, f"entry {sequence} is not where it should be")
        return found

    def row(self, columns: Sequence[Any], *, strict: bool = False) -> Row:
        """The row of FULL_NAMES or BRIEF_NAMES. Raises StoreDamaged for one that cannot have been written by us; for a
        finished execution that has lost no more than its beginning only when `strict`.
        """
        names = schema.COLUMNS if len(columns) == len(schema.COLUMNS) + len(schema.SEALED) else schema.BRIEF
        identity = columns[0] if isinstance(columns[0], str) else repr(columns[0])
        given = iter(columns)
        values: dict[str, Any] = {}
        for name in names:
            value = next(given)
            if name in schema.SEALED:
                total = next(given)
                if value is not None or name != "document":
                    try:
                        value = self.unseal(identity, f"its {name}", value, total)
                    except StoreDamaged:
                        if strict or name != "head" or values["status"] not in FINISHED:
                            raise
                        value = LOST_HEAD  # how it ended can be told all the same
            elif name == "tags":
                value = _tags(identity, value)
            elif not _fits(name, value):
                raise StoreDamaged(identity, f"its {name} is {value!r}"[:200])
            values[name] = value
        return Row(**values)


_INTEGERS: Final = {"created", "fence", "attempt", "sequence", "steps"}
_MAYBE_INTEGERS: Final = {"started", "ended", "wake"}
_MAYBE_TEXTS: Final = {"owner", "runner", "retry_of", "key", "key_body"}


def _fits(name: str, value: Any) -> bool:
    if name == "status":
        return value in UNFINISHED or value in FINISHED
    if name in _INTEGERS or name in _MAYBE_INTEGERS:
        return isinstance(value, int) or (value is None and name in _MAYBE_INTEGERS)
    return isinstance(value, str) or (value is None and name in _MAYBE_TEXTS)


def _tags(identity: str, value: Any) -> tuple[str, ...]:
    try:
        tags = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise StoreDamaged(identity, "its tags are no list of texts")
    return tuple(tags)
