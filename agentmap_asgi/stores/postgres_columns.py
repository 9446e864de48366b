"""Rows and entries as columns in PostgreSQL: texts are bytes there, and those that a codec has made begin with a zero.

So no text depends on the encoding of a database, and `convert_from(head, 'UTF8')` shows what no codec has encoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from zlib import crc32

from ..errors import StoreDamaged
from .columns import Columns
from .store import Lines

ENCODED: Final = b"\0"
"""No JSON text begins with it."""


class PostgresColumns(Columns):
    """As `Columns`, with bytes for texts."""

    def seal(self, text: str) -> tuple[bytes, int]:
        data = self._bytes(text)
        return data, crc32(data)

    def _bytes(self, text: str) -> bytes:
        data = text.encode()
        return data if self._codec is None else ENCODED + self._codec.encode(data)

    def unseal(self, execution: str, what: str, value: Any, total: Any, start: int = 0) -> str:
        if not isinstance(value, bytes):
            raise StoreDamaged(execution, f"{what} is no text")
        if crc32(value, start) != total:
            raise StoreDamaged(execution, f"the checksum of {what} is wrong")
        if value[:1] == ENCODED:
            data = value[1:]
            return super().unseal(execution, what, data, crc32(data))
        try:
            return value.decode()
        except UnicodeDecodeError as exc:
            raise StoreDamaged(execution, f"{what} is no text") from exc

    @staticmethod
    def sum_of(text: str) -> int:
        return crc32(text.encode())

    def told(self, value: Any) -> str:
        return self.unseal("", "a request", bytes(value), crc32(value))

    def entries(self, execution: str, given: Iterable[Lines]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for path, numbers, texts in given:
            for number, text in zip(numbers, texts, strict=True):
                data = self._bytes(text)
                rows.append((execution, path, number, data, crc32(data, number)))
        return rows
