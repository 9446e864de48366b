"""Stored payloads may be something else than plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from flows import node, serving

from agentmap_asgi.context import AgentMapContext

pytestmark = pytest.mark.anyio


class Turned:
    """Not a cipher, but nothing of a text can be read in it."""

    def encode(self, data: bytes) -> bytes:
        return bytes(255 - byte for byte in data)

    decode = encode


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("store.db*") if path.is_file())


async def test_what_is_stored_goes_through_the_codec(tmp_path: Path) -> None:
    """States, events and documents cannot be read in the file, and a new process with the codec reads them."""
    config = {"storage_url": f"sqlite:///{tmp_path / 'store.db'}"}
    rows = [node("A", "echo", inputs="x", output="a")]
    async with serving(tmp_path, rows, config=config, payload_codec=Turned()) as made:
        begun = await made.execute_workflow("Flow", {"x": "confidential"})
    written = await to_thread.run_sync(everything_in, tmp_path)
    assert b"confidential" not in written
    assert begun["execution_id"].encode() in written
    async with serving(tmp_path, rows, config=config, payload_codec=Turned()) as made:
        found = await made.get_execution_status(begun["execution_id"])
        assert found["result"] == {"x": "confidential", "a": "confidential"}
        assert len(await made.get_execution_events(begun["execution_id"])) == 4


async def test_a_codec_has_both_ways() -> None:
    """One that lacks a method is refused when the context is made."""

    class Half:
        def encode(self, data: bytes) -> bytes:
            return data

    half: Any = Half()
    with pytest.raises(TypeError, match="no decode"):
        AgentMapContext(payload_codec=half)
