"""API keys: what a key looks like, the line that stands for it in the settings, and which key a caller sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Final, Literal, get_args

from ..errors import ConfigError, nearest

Scope = Literal["run", "read", "probe", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

_NEVER: Final = "never"
_TIME: Final = "%Y%m%dT%H%M%SZ"
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the settings know it: `name:run+read:20300101T000000Z:digest`. The key itself is not kept.

    The digest is a plain SHA-256. Slow hashes with salt protect passwords, which can be guessed; a key is 256 bits from
    the system's random source, so nobody finds it by trying, and looking it up may be fast.
    """

    name: str
    scopes: frozenset[Scope]
    expires: datetime | None
    digest: str

    @property
    def line(self) -> str:
        until = _NEVER if self.expires is None else self.expires.strftime(_TIME)
        return ":".join((self.name, "+".join(s for s in SCOPES if s in self.scopes), until, self.digest))

    def expired(self, time_ns: int) -> bool:
        return self.expires is not None and self.expires.timestamp() * 1e9 <= time_ns


def new_key(name: str, scopes: Iterable[str], expires: datetime | None = None) -> tuple[str, Key]:
    """A fresh secret and its Key. Raises ConfigError for a name or scopes that cannot be."""
    if not _NAME.fullmatch(name):
        raise ConfigError("The name of a key has 1 to 64 letters, digits and . _ @ -")
    secret = f"amk_{token_urlsafe(32)}"
    return secret, Key(name, _scopes(scopes), expires, _digest(secret.encode()))


def key_of(line: str) -> Key:
    """The Key of a line. Raises ConfigError, which does not repeat the line: it may be a key that was pasted here."""
    name, _, rest = line.partition(":")
    scopes, _, rest = rest.partition(":")
    until, _, digest = rest.partition(":")
    if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest):
        raise ConfigError("it is no line that `agentmap-asgi keys new` printed (and a key itself does not belong here)")
    try:
        expires = None if until == _NEVER else datetime.strptime(until, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"the time of the key {name!r} is written like 20300101T000000Z, or {_NEVER}") from None
    return Key(name, _scopes(scopes.split("+")), expires, digest)


def expiry(text: str, now: datetime) -> datetime:
    """When a key made now and valid for `90d` (or `12h`, `30m`) expires. Raises ConfigError."""
    found = re.fullmatch(r"([1-9]\d{0,4})([mhd])", text)
    if found is None:
        raise ConfigError(f"--expires takes a time like 90d, 12h or 30m, not {text!r}")
    return now + timedelta(**{_UNITS[found[2]]: int(found[1])})


def _scopes(words: Iterable[str]) -> frozenset[Scope]:
    found: set[Scope] = set()
    for word in words:
        if word not in SCOPES:
            close = nearest(word, SCOPES)
            hint = f"did you mean {close!r}?" if close else f"they are {', '.join(SCOPES)}"
            raise ConfigError(f"There is no scope {word!r}; {hint}")
        found.add(word)
    if not found:
        raise ConfigError(f"A key needs a scope; they are {', '.join(SCOPES)}")
    return frozenset(found)


def _digest(secret: bytes) -> str:
    return sha256(secret).hexdigest()


class Keys:
    """All keys of an app. Raises ConfigError for lines that are none and for a name given twice."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._keys: list[Key] = []
        for number, line in enumerate(lines, 1):
            try:
                key = key_of(line)
            except ConfigError as exc:
                raise ConfigError(f"Line {number} of api_keys: {exc.message}") from None
            if any(key.name == other.name for other in self._keys):
                raise ConfigError(f"Line {number} of api_keys: the name {key.name!r} is given twice")
            self._keys.append(key)

    def find(self, secret: bytes) -> Key | None:
        """The key that was sent, expired or not. Takes the same time whichever it is, or if it is none."""
        digest = _digest(secret)
        found = None
        for key in self._keys:
            if compare_digest(key.digest, digest):
                found = key
        return found
