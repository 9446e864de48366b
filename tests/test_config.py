"""Settings: their types and bounds, and the environment."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

import agentmap_asgi
from agentmap_asgi.config import AgentMapConfig, masked, secrets_of
from agentmap_asgi.errors import ConfigError


def test_every_setting_has_a_default_and_a_help_text() -> None:
    """The table of settings is complete, and its variables are the names in capitals."""
    rows = AgentMapConfig.rows()
    config = AgentMapConfig()
    live = {"database_session_factory", "cache_service", "custom_services"}
    assert {name for name, *_ in rows} == {field.name for field in dataclasses.fields(config)} - live
    for name, default, text, variable in rows:
        if name != "storage_url":  # the tests' own
            assert getattr(config, name) == default
        assert text.endswith(".")
        assert variable == f"AGENTMAP_{name.upper()}"


def test_the_default_limits_are_the_documented_ones() -> None:
    """What an execution may use when nobody says otherwise."""
    config = AgentMapConfig()
    assert (config.max_steps, config.max_branches, config.max_depth) == (1_000, 256, 8)
    assert (config.max_state_bytes, config.max_output_bytes) == (4 * 2**20, 2**20)
    assert (config.max_running, config.max_queued, config.max_threads) == (256, 10_000, 32)
    assert (config.max_body_bytes, config.max_csv_bytes, config.max_csv_rows) == (2**20, 5 * 2**20, 10_000)
    assert (config.execution_timeout, config.max_json_depth) == (3_600.0, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_stepps": 5}, "did you mean 'max_steps'"),
        ({"zzz": 5}, "There is no setting 'zzz'"),
        ({"max_steps": "5"}, "max_steps takes a whole number, not '5'"),
        ({"max_steps": 5.0}, "max_steps takes a whole number"),
        ({"max_steps": True}, "max_steps takes a whole number"),
        ({"max_steps": None}, "max_steps takes a whole number"),
        ({"max_steps": -1}, "max_steps cannot be -1"),
        ({"execution_timeout": "1h"}, "execution_timeout takes a number"),
        ({"execution_timeout": True}, "execution_timeout takes a number"),
        ({"execution_timeout": -0.5}, "execution_timeout cannot be -0.5"),
        ({"execution_timeout": float("nan")}, "execution_timeout cannot be nan"),
        ({"execution_timeout": float("inf")}, "execution_timeout cannot be inf"),
        ({"max_running": 0}, "max_running cannot be 0"),
        ({"max_threads": 0}, "max_threads cannot be 0"),
        ({"strict_inputs": 1}, "strict_inputs takes true or false"),
        ({"strict_inputs": "yes"}, "strict_inputs takes true or false"),
        ({"csv_path": 5}, "csv_path takes a text"),
        ({"storage_url": "mysql://x"}, "storage_url='mysql://x'"),
        ({"custom_agents_path": 1}, "custom_agents_path takes a text"),
        ({"log_level": "LOUD"}, "log_level is one of DEBUG, INFO, WARNING, ERROR, CRITICAL, not 'LOUD'"),
        ({"log_level": 10}, "log_level takes a text"),
        ({"enable_hot_reload": "yes"}, "enable_hot_reload takes true or false"),
        ({"enable_metrics": 1}, "enable_metrics takes true or false"),
        ({"enable_audit_logging": None}, "enable_audit_logging takes true or false"),
        ({"require_api_key": "true"}, "require_api_key takes true or false"),
        ({"api_keys": 5}, "api_keys takes a list of texts"),
        ({"api_keys": [b"x"]}, "api_keys takes a list of texts"),
        ({"custom_services": ["users"]}, "custom_services takes services by name"),
        ({"cache_servise": {}}, "did you mean 'cache_service'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    """Unknown names, wrong types and values out of range raise ConfigError when the config is made."""
    with pytest.raises(ConfigError) as caught:
        AgentMapConfig(**settings)
    assert message in caught.value.message


def test_what_is_not_asked_for_is_off() -> None:
    """Nothing is watched, counted or written down, no level is set, and no key is wanted, unless the host says so."""
    config = AgentMapConfig()
    assert not any((config.enable_hot_reload, config.enable_metrics, config.enable_audit_logging))
    assert (config.require_api_key, config.api_keys, config.log_level) == (False, (), None)
    assert (config.custom_agents_path, config.enable_docs) == (None, True)


def test_the_level_of_the_log_is_a_word_in_any_case() -> None:
    """It is kept in capitals."""
    assert AgentMapConfig(log_level="debug").log_level == "DEBUG"


def test_api_keys_are_a_list_or_a_text() -> None:
    """Lines of a text are separated by blanks, line ends or commas."""
    assert AgentMapConfig(api_keys=["a", "b"]).api_keys == ("a", "b")
    assert AgentMapConfig(api_keys="a\n b,c\n").api_keys == ("a", "b", "c")
    assert AgentMapConfig.from_env({"AGENTMAP_API_KEYS": "a\nb"}).api_keys == ("a", "b")


def test_live_objects_are_no_plain_settings() -> None:
    """They are taken as they are, and have neither a variable nor a place in the config's text."""
    cache = {"password": "t0p"}
    config = AgentMapConfig(
        database_session_factory=dict, cache_service=cache, custom_services={"users": cache}, api_keys=["line"]
    )
    assert config.cache_service is cache
    assert isinstance(hash(config), int)
    assert "t0p" not in repr(config)
    assert "line" not in repr(config)
    with pytest.raises(ConfigError, match="cache_service is a live object, which is given in code"):
        AgentMapConfig.from_env({"AGENTMAP_CACHE_SERVICE": "redis://"})


def test_positional_arguments_are_refused() -> None:
    """Settings are keywords."""
    with pytest.raises(ConfigError, match="keywords only"):
        AgentMapConfig("workflows/")  # type: ignore[call-arg]


def test_paths_and_whole_numbers_are_taken() -> None:
    """A Path becomes a text, and a whole number serves where a number is wanted."""
    config = AgentMapConfig(csv_path=Path("a") / "b.csv", execution_timeout=5)  # type: ignore[arg-type]
    assert config.csv_path == str(Path("a") / "b.csv")
    assert config.execution_timeout == 5.0
    assert isinstance(config.execution_timeout, float)


def test_a_config_does_not_change() -> None:
    """Settings are read-only; a changed copy is a new config, checked like any."""
    config = AgentMapConfig(max_steps=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.max_steps = 6  # type: ignore[misc]
    assert dataclasses.replace(config, max_depth=3) == AgentMapConfig(max_steps=5, max_depth=3)
    assert copy.deepcopy(config) == config
    with pytest.raises(ConfigError):
        dataclasses.replace(config, max_depth=-3)


def test_the_environment_is_read_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`AgentMapConfig()` ignores the environment; `from_env()` reads it, and keywords win over it."""
    monkeypatch.setenv("AGENTMAP_MAX_STEPS", "7")
    assert AgentMapConfig().max_steps == 1_000
    assert AgentMapConfig.from_env().max_steps == 7
    assert AgentMapConfig.from_env(max_steps=8).max_steps == 8


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("MAX_STEPS", "12", 12),
        ("EXECUTION_TIMEOUT", "1.5", 1.5),
        ("EXECUTION_TIMEOUT", "2", 2.0),
        ("CSV_PATH", "flows/", "flows/"),
        ("STRICT_INPUTS", "true", True),
        ("STRICT_INPUTS", " On ", True),
        ("STRICT_INPUTS", "1", True),
        ("STRICT_INPUTS", "YES", True),
        ("ENABLE_DOCS", "no", False),
        ("ENABLE_DOCS", "0", False),
        ("ENABLE_DOCS", "off", False),
        ("ENABLE_DOCS", "False", False),
    ],
)
def test_variables_are_read_by_type(variable: str, text: str, expected: Any) -> None:
    """A variable's text becomes the setting's type."""
    config = AgentMapConfig.from_env({f"AGENTMAP_{variable}": text, "PATH": "/bin"})
    assert getattr(config, variable.lower()) == expected


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("AGENTMAP_MAX_STEPS", "many", "The variable AGENTMAP_MAX_STEPS takes a whole number, not 'many'"),
        ("AGENTMAP_MAX_STEPS", "", "AGENTMAP_MAX_STEPS takes a whole number"),
        ("AGENTMAP_STRICT_INPUTS", "maybe", "AGENTMAP_STRICT_INPUTS takes true or false, not 'maybe'"),
        ("AGENTMAP_EXECUTION_TIMEOUT", "1h", "AGENTMAP_EXECUTION_TIMEOUT takes a number"),
        ("AGENTMAP_EXECUTION_TIMEOUT", "nan", "execution_timeout cannot be nan"),
        ("AGENTMAP_MAX_STEP", "1", "did you mean 'max_steps'"),
        ("AGENTMAP_NOTHING_LIKE_IT", "1", "The variable AGENTMAP_NOTHING_LIKE_IT is unknown"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(variable: str, text: str, message: str) -> None:
    """A bad or unknown AGENTMAP_ variable raises ConfigError that names it."""
    with pytest.raises(ConfigError) as caught:
        AgentMapConfig.from_env({variable: text})
    assert message in caught.value.message


SAMPLES: dict[str, Any] = {
    "durability": "exit",
    "engine": "dbos",
    "engine_url": "postgresql://db/flows",
    "namespace": "ours",
    "storage_schema": "ours",
    "storage_url": "memory://",
    "sheet": "Flows",
    "log_level": "INFO",
    "api_keys": ["a", "b"],
    "data_roots": ["/a", "b=/c:ro"],
    "sql_url": "sqlite://",
    "http_allow": ["api.example.com"],
    "host_parameters": ["access_token"],
    "link_secret": "x" * 40,
    "http_private": ["10.0.0.0/8"],
    "providers": {"house": {"base_url": "http://10.0.0.7", "attempts": 2}},
}


def test_every_setting_stands_in_all_three_places(tmp_path: Path) -> None:
    """As a keyword, in a file and as a variable; keywords win over variables, and these over the file."""
    for name, default, _, variable in AgentMapConfig.rows():
        value = SAMPLES.get(name, not default if isinstance(default, bool) else 3)
        if name.endswith("_path"):
            value = str(tmp_path / "x")
        file = tmp_path / "agentmap.toml"
        file.write_text(f"{name} = {json.dumps(value).replace(': ', ' = ')}\n")
        expected = getattr(AgentMapConfig(**{name: value}), name)
        words = (
            json.dumps(value) if isinstance(value, dict) else " ".join(value) if isinstance(value, list) else str(value)
        )
        assert getattr(AgentMapConfig.from_env({}, file=file), name) == expected
        assert getattr(AgentMapConfig.from_env({variable: words}), name) == expected


def test_a_table_in_a_variable_is_json() -> None:
    """And an object."""
    for text in ("[]", "{", "3"):
        with pytest.raises(ConfigError, match="AGENTMAP_PROVIDERS takes a JSON object"):
            AgentMapConfig.from_env({"AGENTMAP_PROVIDERS": text})


def test_secrets_without_a_host_come_from_variables() -> None:
    """Those with the prefix, and keys of providers by their own names; others stay where they are."""
    environ = {
        "AGENTMAP_SECRET_MAIL": "m",
        "OPENAI_API_KEY": "k",
        "HOME": "/root",
        "AGENTMAP_SECRET_OPENAI_API_KEY": "s",
    }
    providers = {"openai": {"key": "OPENAI_API_KEY"}, "other": {"key": "NOT_THERE"}}
    config = AgentMapConfig.from_env(environ, providers=providers)
    assert secrets_of(config, environ) == {"MAIL": "m", "OPENAI_API_KEY": "s"}
    del environ["AGENTMAP_SECRET_OPENAI_API_KEY"]
    assert secrets_of(config, environ) == {"MAIL": "m", "OPENAI_API_KEY": "k"}


def test_what_wins(tmp_path: Path) -> None:
    """Keyword, variable, file, default: in this order."""
    file = tmp_path / "agentmap.toml"
    file.write_text("max_steps = 1\nmax_depth = 1\nmax_branches = 1\n")
    config = AgentMapConfig.from_env(
        {"AGENTMAP_MAX_STEPS": "2", "AGENTMAP_MAX_DEPTH": "2"}, file=str(file), max_steps=3
    )
    assert (config.max_steps, config.max_depth, config.max_branches, config.max_queued) == (3, 2, 1, 10_000)


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    """Wherever the program runs; absolute ones stay."""
    file = tmp_path / "agentmap.toml"
    file.write_text('csv_path = "flows"\ncustom_agents_path = "../agents"\nprompts_path = "/prompts"\n')
    config = AgentMapConfig.from_env({}, file=file)
    assert config.csv_path == str(tmp_path / "flows")
    assert config.custom_agents_path == str(tmp_path / ".." / "agents")
    assert config.prompts_path == "/prompts"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_stepps = 5", "There is no setting 'max_stepps'; did you mean 'max_steps'?"),
        ("[agentmap]\nmax_steps = 5", "There is no setting 'agentmap'"),
        ("cache_service = 1", "cache_service is a live object, which is given in code"),
        ('max_steps = "many"', "The setting max_steps takes a whole number, not 'many'"),
        ("max_steps = -1", "The setting max_steps cannot be -1"),
        ("csv_path = 5", "The setting csv_path takes a text"),
        ("max_steps = 5\nmax_steps = 6\n", "is not TOML: Cannot overwrite a value (at line 2"),
        ("max_steps", "is not TOML"),
        ("\udcff", "is not TOML"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    """ConfigError with the file and the setting or the line."""
    file = tmp_path / "agentmap.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        AgentMapConfig.from_env({}, file=file)
    assert caught.value.message.startswith(f"The settings file {file}")
    assert message in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """ConfigError with the reason."""
    with pytest.raises(ConfigError, match="No such file or directory"):
        AgentMapConfig.from_env({}, file=tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        AgentMapConfig.from_env({}, file=tmp_path)


def test_the_environment_is_read_in_one_place() -> None:
    """By `config.py` and by the command line, and nowhere else in the package."""
    package = Path(agentmap_asgi.__file__).parent
    readers = [
        path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        if re.search(r"\benviron\b|getenv", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["commands/serve.py", "config.py"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:secret@db:5432/x?sslmode=require", "postgresql://ann:***@db:5432/x?sslmode=require"),
        ("postgresql://ann:se@cr:et@db/x", "postgresql://ann:***@db/x"),
        ("postgresql://ann:se/c?ret@db/x", "postgresql://ann:***@db/x"),
        ("postgres:///x?password=secret&host=/run", "postgres:///x?password=***&host=/run"),
        ("postgresql:///x?host=/run&sslpassword=secret", "postgresql:///x?host=/run&sslpassword=***"),
        ("postgresql://ann@db/x", "postgresql://ann@db/x"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
    ],
)
def test_passwords_of_a_url_are_masked(url: str, shown: str) -> None:
    """Also those that are not written as they should be."""
    assert masked(url) == shown


def test_a_password_is_not_in_the_text_of_settings() -> None:
    """Nor in what is said of a URL that is not known."""
    assert "secret" not in repr(AgentMapConfig(storage_url="postgresql://ann:secret@db/x"))
    with pytest.raises(ConfigError) as caught:
        AgentMapConfig(storage_url="mysql://ann:secret@db/x")
    assert "secret" not in caught.value.message
