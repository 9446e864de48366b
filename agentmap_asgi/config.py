"""Settings: plain values, one row each."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from .errors import ConfigError, nearest

LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DURABILITIES: Final = ("sync", "async", "exit")
ENGINES: Final = ("local", "dbos")
SERVERS: Final = ("postgresql://", "postgres://")
"""How the URLs of stores on a server begin."""
SECRET_VARIABLE: Final = "AGENTMAP_SECRET_"  # noqa: S105
"""How variables begin that hold secrets of an app without a host."""
LEAST_SECRET: Final = 32
_TEXTS: Final = Sequence[str]
_TABLE: Final = Mapping[str, Any] | None


def masked(url: str) -> str:
    """A URL without its passwords, to be shown."""
    # Up to the last @: a password may hold signs that should be written as %XX.
    hidden = re.sub(r"^(\w+://[^:@/?]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&](?:ssl)?password=)[^&#]*", r"\1***", hidden)


def _setting(default: Any, text: str, *, least: int = 0, path: bool = False, secret: bool = False) -> Any:
    """`path` is a path, which a settings file gives from its own folder; `secret` is not shown in the config's text."""
    return field(default=default, repr=not secret, metadata={"help": text, "least": least, "path": path})


def _table(text: str) -> Any:
    """A table of plain values."""
    return field(default=None, hash=False, metadata={"help": text, "least": 0, "path": False})


def _live(text: str) -> Any:
    """A live object of the host's, handed on to the context object: no plain setting, and no variable."""
    return field(default=None, repr=False, hash=False, metadata={"help": text, "live": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentMapConfig:
    """Plain settings. Unknown names and wrong types raise ConfigError.

    The environment is read only by `from_env()`; the variable of a setting is `AGENTMAP_` and its name in capitals.
    The last three are live objects, which mean the same as in `AgentMapContext`; a service hands them on to it.
    """

    csv_path: str | None = _setting(
        None, "The workflow file, or the folder of workflow files (read recursively).", path=True
    )
    sheet: str | None = _setting(
        None, "The sheet that is read of spreadsheets (.xlsx, .ods); all of them when not given."
    )
    custom_agents_path: str | None = _setting(None, "The folder of Python files that hold your own agents.", path=True)
    tools_path: str | None = _setting(None, "The folder of Python files that hold tools for agents.", path=True)
    prompts_path: str | None = _setting(
        None, "The folder that `prompt:name` and `file:name` in a Prompt read from.", path=True
    )
    data_roots: Sequence[str] = _setting(
        (),
        "The folders that data agents may use: a folder, name=folder, or a URL that fsspec knows; :ro behind it allows "
        "reading only. The first is meant when a path names none.",
        path=True,
    )
    data_max_bytes: int = _setting(10 * 1024 * 1024, "Size of a file that data agents read or write.")
    http_allow: Sequence[str] = _setting(
        (), "The hosts that the agent http may call: api.example.com, *.example.com, http://localhost:8080; * is all."
    )
    http_private: Sequence[str] = _setting(
        (), "Addresses and networks that http may connect to though they are private, like 10.1.0.0/16."
    )
    http_timeout: float = _setting(30.0, "Seconds of one request of http, redirects included.")
    http_max_bytes: int = _setting(1024 * 1024, "Size of an answer that http reads.")
    http_ca_path: str | None = _setting(
        None, "The file of certificates that http trusts instead of the system's.", path=True
    )
    providers: Mapping[str, Any] | None = _table(
        "Where models are, by name, as `[providers.openai]` in a file and as JSON in the variable."
    )
    sql_path: str | None = _setting(
        None, "The file or folder of statements that the agent sql runs, each after a line -- name: NAME.", path=True
    )
    sql_url: str | None = _setting(
        None, "The database of the agent sql, as SQLAlchemy writes it; else the context's database.", secret=True
    )
    sql_max_rows: int = _setting(1_000, "Rows that one statement of sql may give.")
    storage_url: str = _setting(
        "sqlite:///agentmap_data/agentmap.db",
        "Where executions are kept: sqlite:/// and a path (made by the first execution), postgresql:// and a server "
        "that several machines share, or memory:// for tests.",
        secret=True,
    )
    storage_schema: str = _setting("agentmap", "The schema of a PostgreSQL database that holds the tables.")
    worker_lease: float = _setting(
        15.0,
        "Seconds without a heartbeat after which others take over what a process runs, on PostgreSQL. A process that "
        "has ended is noticed at once.",
        least=1,
    )
    durability: str = _setting(
        "sync",
        "When a durable store writes: sync (a step is kept before the next one begins), async (soon after it), or exit "
        "(at the start, at a suspension and at the end).",
    )
    engine: str = _setting(
        "local", "Where executions run: local (the process they came to), or dbos (any process, on DBOS Transact)."
    )
    engine_url: str = _setting(
        "", "The PostgreSQL database that DBOS keeps its tables in; that of storage_url when empty.", secret=True
    )
    run_executions: bool = _setting(
        True, "Run executions in this process; false leaves them to the workers of the engine dbos."
    )
    max_running_everywhere: int = _setting(
        0, "Executions that run at once in all processes together, with the engine dbos; 0: no bound of that kind."
    )
    max_starts_per_second: int = _setting(
        0, "Executions that begin in a second in all processes together, with the engine dbos; 0: no bound."
    )
    namespace: str = _setting("", "Whose executions these are in a shared store; the source's name when empty.")
    wait_seconds: float = _setting(
        30.0, "Seconds a request waits for its execution; then the answer is 202 and the execution goes on."
    )
    patrol_seconds: float = _setting(
        0.2, "Seconds between two looks at what other processes ask for or have left, and at waits; 0: never."
    )
    retention_days: float = _setting(7.0, "Days that a durable store keeps finished executions; 0 keeps them for ever.")
    idempotency_hours: float = _setting(24.0, "Hours that an idempotency key is remembered, at the least.")
    max_recoveries: int = _setting(3, "How often an execution is taken on again after its process has died.")
    max_streams: int = _setting(100, "Event streams open at once.")
    max_stream_seconds: float = _setting(3_600.0, "Seconds after which an event stream ends; the client comes again.")
    strict_inputs: bool = _setting(
        False, "Refuse an execution whose initial state lacks a field that the workflow reads before it writes it."
    )
    max_steps: int = _setting(1_000, "Node runs in one execution.")
    max_branches: int = _setting(256, "Branches open at once in one execution.")
    max_depth: int = _setting(8, "Nesting of sub-workflows.")
    execution_timeout: float = _setting(3_600.0, "Seconds an execution may take.")
    max_wait_days: float = _setting(
        30.0, "Days an answer is waited for at the longest; then the wait expires as by its own Timeout. 0: no bound."
    )
    link_secret: str = _setting(
        "", "What one-time links to waits are signed with, at least 32 characters; no links without it.", secret=True
    )
    link_days: float = _setting(7.0, "Days that a one-time link is good for, at the most.")
    max_state_bytes: int = _setting(4 * 1024 * 1024, "Size of an execution's state as JSON.")
    max_output_bytes: int = _setting(1024 * 1024, "Size of one node's output as JSON.")
    max_running: int = _setting(256, "Executions that run at once in this process.", least=1)
    max_queued: int = _setting(10_000, "Executions that wait for a place; past it new ones are refused with 503.")
    max_kept: int = _setting(1_000, "Finished executions that memory:// keeps for questions about them.")
    max_threads: int = _setting(32, "Worker threads for agents that are plain functions.", least=1)
    cancel_grace: float = _setting(1.0, "Seconds an agent gets to end after it was cancelled or timed out.")
    shutdown_grace: float = _setting(10.0, "Seconds running executions get when the app stops.")
    blocking_threshold: float = _setting(
        0.25, "Seconds the event loop may stand still under an agent before a warning names the line; 0 turns it off."
    )
    max_body_bytes: int = _setting(1024 * 1024, "Size of a request body.")
    max_json_depth: int = _setting(64, "Nesting of a JSON body.")
    max_json_values: int = _setting(100_000, "Values in a JSON body.")
    body_timeout: float = _setting(30.0, "Seconds a client gets to send its body.")
    max_batch: int = _setting(1_000, "Executions in one batch request.")
    max_csv_bytes: int = _setting(5 * 1024 * 1024, "Size of one workflow file.")
    max_csv_rows: int = _setting(10_000, "Rows of one workflow file.")
    api_keys: Sequence[str] = _setting(
        (), "The lines that `agentmap-asgi keys new` prints, one for each API key.", secret=True
    )
    require_api_key: bool = _setting(False, "Refuse to be served without API keys or another authentication.")
    host_parameters: Sequence[str] = _setting(
        (), "Query parameters that the host reads itself, like access_token; operations refuse those that nobody knows."
    )
    enable_docs: bool = _setting(True, "Serve `/openapi.json`, and for people the page `/ui/` and `/docs`.")
    enable_hot_reload: bool = _setting(False, "Read workflow files again when they change.")
    enable_metrics: bool = _setting(False, "Serve `/metrics`.")
    enable_audit_logging: bool = _setting(False, "Write down who did what, and serve `/audit`.")
    audit_path: str = _setting("agentmap_data/audit.jsonl", "The file that the audit log is appended to.")
    log_level: str | None = _setting(
        None, "The level of the logger `agentmap_asgi`: DEBUG, INFO, WARNING, ERROR or CRITICAL."
    )
    debug_errors: bool = _setting(False, "Log the traceback of failed nodes at ERROR instead of DEBUG.")
    database_session_factory: Any = _live("Makes the service `database`, one for each attempt of a node.")  # noqa: RUF009
    cache_service: Any = _live("The service `cache`: an object, or a callable that makes one.")  # noqa: RUF009
    custom_services: Mapping[str, Any] | None = _live("Further services by name: factories or objects.")

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **settings: Any) -> AgentMapConfig:
            if args:
                raise ConfigError("AgentMapConfig takes keywords only, for example csv_path='workflows/'")
            for name in settings:
                if name not in cls.__dataclass_fields__:
                    raise ConfigError(_unknown(name))
            return object.__new__(cls)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for row in _plain(type(self)):
            value = getattr(self, row.name)
            if isinstance(value, Path):
                object.__setattr__(self, row.name, value := str(value))
            wanted = hints[row.name]
            if wanted is float and type(value) is int:
                object.__setattr__(self, row.name, value := float(value))
            if wanted == _TABLE:
                continue
            if wanted == _TEXTS:
                value = _parsed(wanted, value) if isinstance(value, str) else value
                if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
                    raise ConfigError(f"The setting {row.name} takes {_type_name(wanted)}")
                object.__setattr__(self, row.name, tuple(value))
            elif (type(value) is bool and wanted is not bool) or not isinstance(value, wanted):
                raise ConfigError(f"The setting {row.name} takes {_type_name(wanted)}, not {value!r}")
            if type(value) in (int, float):
                least = row.metadata["least"]
                if not least <= value < inf:
                    raise ConfigError(f"The setting {row.name} cannot be {value!r}; it is a number from {least} on")
        if self.storage_url != "memory://" and not self.storage_url.startswith(("sqlite:///", *SERVERS)):
            raise ConfigError(
                f"storage_url={masked(self.storage_url)!r} is not known here; use sqlite:///path/to/file.db, "
                "postgresql://user:password@host/name or memory://"
            )
        if not self.storage_schema.strip():
            raise ConfigError("The setting storage_schema cannot be empty; it is a name like agentmap")
        if self.providers is not None:
            from .providers import providers_of

            providers_of(self.providers)
        if self.link_secret and len(self.link_secret) < LEAST_SECRET:
            raise ConfigError(f"The setting link_secret is too short: take {LEAST_SECRET} random characters or more")
        if self.durability not in DURABILITIES:
            raise ConfigError(f"The setting durability is one of {', '.join(DURABILITIES)}, not {self.durability!r}")
        if self.engine not in ENGINES:
            raise ConfigError(f"The setting engine is one of {', '.join(ENGINES)}, not {self.engine!r}")
        if self.log_level is not None:
            if self.log_level.upper() not in LOG_LEVELS:
                raise ConfigError(f"The setting log_level is one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}")
            object.__setattr__(self, "log_level", self.log_level.upper())
        if not isinstance(self.custom_services, Mapping | None):
            raise ConfigError(
                "The setting custom_services takes services by name, for example {'users': UserDirectory}"
            )

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, file: str | Path | None = None, **settings: Any
    ) -> AgentMapConfig:
        """Settings from a TOML file (if one is given) and from `AGENTMAP_*` variables, which win over it.

        Keyword arguments win over both. Paths in the file start at its own folder. Raises ConfigError naming a bad
        variable, or the file.
        """
        found = {} if file is None else _of_file(Path(file))
        found |= _of_variables(os.environ if environ is None else environ)
        return cls(**{**found, **settings})

    @classmethod
    def rows(cls) -> list[tuple[str, Any, str, str]]:
        """The table of settings: (name, default, help, environment variable)."""
        return [(f.name, f.default, f.metadata["help"], f"AGENTMAP_{f.name.upper()}") for f in _plain(cls)]


def _plain(config: type[AgentMapConfig]) -> list[Field[Any]]:
    return [row for row in fields(config) if "live" not in row.metadata]


def _of_file(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(f"The settings file {file} cannot be read: {exc.strerror}") from None
    except ValueError as exc:
        raise ConfigError(f"The settings file {file} is not TOML: {exc}") from None
    rows = {row.name: row for row in _plain(AgentMapConfig)}
    for name, value in found.items():
        if name not in rows:
            raise ConfigError(f"The settings file {file}: {_unknown(name)}")
        if rows[name].metadata["path"]:
            found[name] = _from_folder(file.parent, value)
    try:
        AgentMapConfig(**found)
    except ConfigError as exc:
        raise ConfigError(f"The settings file {file}: {exc.message}") from None
    return found


def _from_folder(folder: Path, value: Any) -> Any:
    """A path of a settings file, from its own folder; in lists the path behind `name=`; URLs stay."""
    if isinstance(value, list):
        return [_from_folder(folder, one) for one in value]
    if not isinstance(value, str) or "://" in value:
        return value
    name, equals, path = value.partition("=")
    return f"{name}={folder / path}" if equals else str(folder / value)


def _of_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    hints = get_type_hints(AgentMapConfig)
    known = {row.name for row in _plain(AgentMapConfig)}
    found: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith("AGENTMAP_") or variable.startswith(SECRET_VARIABLE):
            continue
        name = variable.removeprefix("AGENTMAP_").lower()
        if name not in known:
            raise ConfigError(f"The variable {variable} is unknown: {_unknown(name)}")
        try:
            found[name] = _parsed(hints[name], text)
        except ValueError:
            raise ConfigError(f"The variable {variable} takes {_type_name(hints[name])}, not {text!r}") from None
    return found


def secrets_of(config: AgentMapConfig, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Secrets for an app without a host's context object: `AGENTMAP_SECRET_X` is the secret X.

    The key of a provider may also stand under its own name, as the provider's tools have it (`OPENAI_API_KEY`).
    """
    from .providers import providers_of

    given = os.environ if environ is None else environ
    keys = {provider.key for provider in providers_of(config.providers).values()}
    found = {name: given[name] for name in sorted(keys) if given.get(name)}
    prefix = len(SECRET_VARIABLE)
    return found | {name[prefix:]: given[name] for name in given if name.startswith(SECRET_VARIABLE)}


def _unknown(name: str) -> str:
    known = AgentMapConfig.__dataclass_fields__
    if name in known:
        return f"{name} is a live object, which is given in code"
    close = nearest(name, list(known))
    return f"There is no setting {name!r}" + (f"; did you mean {close!r}?" if close else "")


def _type_name(wanted: Any) -> str:
    names: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}
    names |= {_TEXTS: "a list of texts", _TABLE: "a JSON object"}
    return names.get(wanted, "a text")


def _parsed(wanted: Any, text: str) -> Any:
    if wanted is bool:
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if text.strip().lower() not in words:
            raise ValueError(text)
        return words[text.strip().lower()]
    if wanted == _TEXTS:
        return tuple(text.replace(",", " ").split())
    if wanted == _TABLE:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError(text)
        return found
    return wanted(text) if wanted in (int, float) else text
