"""What a host must do with health data: write down who looked, and let nothing out in the clear."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from itertools import count
from typing import Any

from starlette.requests import Request

KEY = b"a key from the host's key store"
PHI = frozenset({"patient_name", "diagnosis", "ssn"})


class AuditLog:
    """Lines that say who did what; they hold no health data."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log_request(self, request: Request) -> None:
        self.lines.append(f"request {request.method} {request.url.path}")

    def log_workflow_execution(self, graph_name: str, state: dict[str, Any], context: dict[str, Any] | None) -> None:
        self.lines.append(f"started {graph_name} with {', '.join(sorted(state))}")

    def log_workflow_completion(self, graph_name: str, result: dict[str, Any], context: dict[str, Any] | None) -> None:
        self.lines.append(f"ended {graph_name} {result['status']}")


audit_log = AuditLog()


def _mask(data: bytes, nonce: bytes) -> bytes:
    stream = b"".join(
        hmac.digest(KEY, nonce + block.to_bytes(4, "big"), "sha256")
        for block, _ in zip(count(), data[::32], strict=False)
    )
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def encrypt_phi(data: bytes) -> bytes:
    """A keyed stream, enough to show that nothing is readable; a host takes a library for this."""
    nonce = hashlib.sha256(data).digest()[:16]
    return b64encode(nonce + _mask(data, nonce))


def decrypt_phi(data: bytes) -> bytes:
    raw = b64decode(data)
    return _mask(raw[16:], raw[:16])


def encrypt_fields(document: Any) -> Any:
    """The document with its health fields encrypted, however deep they are."""
    if isinstance(document, dict):
        return {
            name: encrypt_phi(json.dumps(value).encode()).decode() if name in PHI else encrypt_fields(value)
            for name, value in document.items()
        }
    return [encrypt_fields(value) for value in document] if isinstance(document, list) else document


def without_phi(state: dict[str, Any]) -> dict[str, Any]:
    """What a workflow may see."""
    return {name: value for name, value in state.items() if name != "ssn"}
