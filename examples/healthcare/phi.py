"""What is health data here, and how it is sealed. The cipher is only enough for an example; take a library."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from typing import Any

KEY = b"from the key store"
IDENTIFIERS = frozenset({"ssn"})
PHI = frozenset({"patient_name", "diagnosis", "summary"})


def _stream(nonce: bytes, length: int) -> bytes:
    blocks = range(length // 32 + 1)
    return b"".join(hmac.digest(KEY, nonce + block.to_bytes(4, "big"), "sha256") for block in blocks)[:length]


def seal(value: Any) -> str:
    plain = json.dumps(value).encode()
    nonce = hashlib.sha256(KEY + plain).digest()[:16]
    return b64encode(nonce + bytes(a ^ b for a, b in zip(plain, _stream(nonce, len(plain)), strict=True))).decode()


def unseal(text: str) -> Any:
    raw = b64decode(text)
    return json.loads(bytes(a ^ b for a, b in zip(raw[16:], _stream(raw[:16], len(raw) - 16), strict=True)))


def sealed(document: Any) -> Any:
    """The document with all health fields sealed, however deep they are."""
    if isinstance(document, dict):
        return {name: seal(value) if name in PHI else sealed(value) for name, value in document.items()}
    return [sealed(value) for value in document] if isinstance(document, list) else document


def without_identifiers(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in IDENTIFIERS}
