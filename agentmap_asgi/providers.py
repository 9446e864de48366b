"""Where models are: the table of providers, as the settings have it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Final

from .errors import ConfigError, nearest

KINDS: Final = ("openai", "anthropic", "google")
"""How a provider is spoken to. `openai` are all servers with OpenAI's chat completions."""
STRUCTURED: Final = ("native", "tool", "prompt")
"""How a model is told a response schema: by the provider's own means, as a tool to call, or in the system message."""

_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RATE = re.compile(r"([1-9][0-9]{0,8})\s*/\s*(s|m|h)")
_NAME = re.compile(r"[A-Za-z][\w-]{0,63}")
_LOOKS_SECRET = re.compile(r"sk-|AIza|.{60}", re.S)


def _row(default: Any, text: str, *, least: float = 0) -> Any:
    return field(default=default, metadata={"help": text, "least": least})


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One entry of the table. Raises ConfigError, naming the entry and the field, for what cannot be."""

    name: str
    kind: str = _row("", "`openai` (any server with its chat completions), `anthropic` or `google`; else by the name.")
    base_url: str = _row("", "Where it is, when that is not the provider's own address.")
    key: str = _row("", "The name of the secret that holds the API key.")
    model: str = _row("", "The model of rows that name none.")
    timeout: float = _row(60.0, "Seconds without a sign of the server after which a request is given up.", least=0.001)
    attempts: int = _row(3, "How often a request is made at rate limits, time-outs and errors of the server.", least=1)
    delay: float = _row(0.5, "Seconds before the second attempt, doubled for each one after; Retry-After counts more.")
    concurrency: int = _row(8, "Requests at once from one process.", least=1)
    rate: str = _row("", "Requests in a time: `60/m`, `5/s`, `1000/h`.")
    fallback: tuple[str, ...] = _row(
        (), "Providers, or `provider:model`, that are asked when this one does not answer."
    )
    structured: str = _row("", "How a schema is told: `native`, `tool` or `prompt`; else as fits the kind.")

    def __post_init__(self) -> None:
        kind = self.kind or (self.name if self.name in KINDS else "openai")
        if kind not in KINDS:
            raise self._wrong(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
        object.__setattr__(self, "kind", kind)
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise self._wrong("base_url begins with https:// or http://")
        if not self.base_url and not self.key:
            raise self._wrong("it needs key, the name of the secret with its API key, or base_url")
        if _LOOKS_SECRET.match(self.key):
            raise self._wrong("key is the name of a secret, not the API key itself")
        if self.rate and _RATE.fullmatch(self.rate) is None:
            raise self._wrong("rate is written as 60/m, 5/s or 1000/h")
        structured = self.structured or ("tool" if kind == "anthropic" else "native")
        if structured not in STRUCTURED:
            raise self._wrong(f"structured is one of {', '.join(STRUCTURED)}, not {structured!r}")
        object.__setattr__(self, "structured", structured)

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(f"The provider {self.name!r}: {what}")

    @property
    def window(self) -> tuple[int, float] | None:
        """So many requests in so many seconds."""
        found = _RATE.fullmatch(self.rate)
        return None if found is None else (int(found[1]), _PERIODS[found[2]])

    @classmethod
    def rows(cls) -> list[tuple[str, Any, str]]:
        """The table of fields: (name, default, help)."""
        return [(row.name, row.default, row.metadata["help"]) for row in fields(cls) if row.name != "name"]


def providers_of(table: Mapping[str, Any] | None) -> dict[str, Provider]:
    """The providers of the setting, by name, in its order. Raises ConfigError."""
    if table is None:
        return {}
    if not isinstance(table, Mapping):
        raise ConfigError('The setting providers takes a table: {"openai": {"key": "OPENAI_API_KEY", "model": "…"}}')
    found = {}
    for name, entry in table.items():
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise ConfigError(f"The provider {name!r}: a name begins with a letter and has only letters, digits, _, -")
        if not isinstance(entry, Mapping):
            raise ConfigError(f"The provider {name!r} takes a table of fields, for example {{'key': 'OPENAI_API_KEY'}}")
        found[name] = Provider(name=name, **{key: _value(name, key, value) for key, value in entry.items()})
    for provider in found.values():
        for other in provider.fallback:
            if other.partition(":")[0] not in found:
                raise ConfigError(f"The provider {provider.name!r}: its fallback {other!r} is not in the table")
    return found


_FIELDS: Final = {row.name: row for row in fields(Provider) if row.name != "name"}


def _value(name: str, key: Any, value: Any) -> Any:
    row = _FIELDS.get(key)
    if row is None:
        close = nearest(str(key), list(_FIELDS))
        raise ConfigError(
            f"The provider {name!r} has no field {key!r}" + (f"; did you mean {close!r}?" if close else "")
        )
    wanted: Any = type(row.default)
    if wanted is tuple:
        value = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else value
        if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
            raise ConfigError(f"The provider {name!r}: {key} takes a list of texts")
        return value
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        words = {str: "a text", int: "a whole number", float: "a number"}
        raise ConfigError(f"The provider {name!r}: {key} takes {words[wanted]}")
    if wanted is not str and not row.metadata["least"] <= value < inf:
        raise ConfigError(f"The provider {name!r}: {key} is a number from {row.metadata['least']:g} on")
    return value
