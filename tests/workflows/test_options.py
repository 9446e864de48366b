"""The Context cell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sheets import cell, codes, load, node

from agentmap_asgi.workflows import options
from agentmap_asgi.workflows.model import Field, Retry


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("{}", {}),
        ('{"a": 1, "b": [true, null]}', {"a": 1, "b": [True, None]}),
        ("{'a': True, 'b': ('x', 'y'), 'c': None}", {"a": True, "b": ["x", "y"], "c": None}),
        ("{workflow=::Name}", {"workflow": "::Name"}),
        ("{workflow=file::Name, workflow_field=key}", {"workflow": "file::Name", "workflow_field": "key"}),
        ("{limit: 5, strict=true, id=007, none=null}", {"limit": 5, "strict": True, "id": "007", "none": None}),
        ("{when='a > 1, or so', sep=\", \"}", {"when": "a > 1, or so", "sep": ", "}),
        ("{when=name}", {"when": "name"}),
        ("{when=region == 'EU'}", {"when": "region == 'EU'"}),
        (
            "{when=region in ['EU', 'CH'] and (a or b), limit=5}",
            {"when": "region in ['EU', 'CH'] and (a or b)", "limit": 5},
        ),
        ("{limit=5, when='x, y' == text}", {"limit": 5, "when": "'x, y' == text"}),
        ("{when=region == ‘EU’}", {"when": "region == 'EU'"}),
        ("{“a”: “b”}", {"a": "b"}),
        ('{"a": "say “hi”"}', {"a": "say “hi”"}),
        ("just words", {"context": "just words"}),
        ("[1, 2]", {"context": "[1, 2]"}),
        ('{"key": "secret:API_KEY"}', {"key": "secret:API_KEY"}),
    ],
)
def test_the_forms_of_a_context(text: str, values: dict[str, Any]) -> None:
    """A JSON object, a Python literal, `{key=value}`, or a text under `context`."""
    found, problems = options.context(text)
    assert (dict(found.values), list(problems)) == (values, [])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"a": 1', "the closing brace } is missing"),
        ('{"a": {"b": 1}', "the closing brace } is missing"),
        ('{"a": [1, 2', "the closing bracket ] is missing"),
        ('{"a": [1, 2}', "line 1, character 12"),
        ('{"a":\n "x}', "a quote is not closed; it opens at line 2, character 2"),
        ('{"a": 1 "b": 2}', "line 1, character 9"),
        ('{"a": TRUE}', "line 1, character 7"),
        ('{"a": 1} b', "line 1, character 10"),
        ('{"a":\n 1 2}', "line 2"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "inf"),
        ('{"a": 99999999999999999999999}', "64 bits"),
        ('{"a": "\\ud800"}', "surrogate"),
        ("{'a': {1, 2}}", ""),
        ("{1: 'a'}", "keys"),
        ("{a b}", ""),
        ("{a={1}}", ""),
        ("{when=a == 'x}", ""),
        ("{when=a in [1, 2}", ""),
        ("{when={a} > 1}", ""),
        ("{'a': '\\d'}", ""),
        ('{"a":' * 3000, ""),
        (json.dumps({"a": "x" * 17_000}), "16384"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_a_broken_context_is_one_error(text: str, word: str) -> None:
    """It names what is wrong, with line and character inside the cell where there is one."""
    found, problems = options.context(text)
    assert (dict(found.values), [problem.code for problem in problems]) == ({}, ["AM-A003"])
    assert word in problems[0].message


@pytest.mark.parametrize(
    ("text", "key", "place", "remedy"),
    [
        ('{"when": amount > 1000}', "when", "line 1, character 10", '{"when": "amount > 1000"}'),
        ('{"when": 1000 < amount}', "when", "line 1, character 10", '{"when": "1000 < amount"}'),
        ('{"a": "x",\n "b": Zoë, "c": 1}', "b", "line 2, character 7", '{"b": "Zoë"}'),
        ('{"a": [1], "when": x in [1, 2], "c": 1}', "when", "character 20", '{"when": "x in [1, 2]"}'),
        ('{"when": kind == "a,b"}', "when", "character 10", r'{"when": "kind == \"a,b\""}'),
        ('{"a": ' + "word " * 30 + "}", "a", "character 7", "Put the value in quotes."),
    ],
)
def test_a_value_without_quotes_is_named_by_its_key(text: str, key: str, place: str, remedy: str) -> None:
    """The hint shows the pair as it should be, unless it is long."""
    (problem,) = options.context(text)[1]
    assert problem.code == "AM-A003"
    assert f"{key!r} is no JSON at " in problem.message
    assert place in problem.message
    assert problem.hint is not None
    assert remedy in problem.hint


def test_a_python_literal_is_small() -> None:
    """Past 4 KiB only JSON is read."""
    assert not options.context(f"{{'a': '{'x' * 4000}'}}")[1]
    assert options.context(f"{{'a': '{'x' * 4100}'}}")[1]


def test_a_key_written_twice_warns() -> None:
    """The later one counts."""
    found, (problem,) = options.context('{"a": 1, "a": 2}')
    assert (found.values["a"], problem.code, problem.text) == (2, "AM-A007", "a")


@pytest.mark.parametrize(
    "text",
    ['{"api_key": "abc123"}', '{"http": {"password": "hunter2"}}', '{"x": "sk-abcdefghijklmnop1234"}'],
)
def test_secrets_in_the_open_are_noticed_and_not_repeated(text: str) -> None:
    """The warning names the key and not the value."""
    (problem,) = options.context(text)[1]
    assert problem.code == "AM-V003"
    assert not any(value in f"{problem}" for value in ("abc123", "hunter2", "sk-a"))


@pytest.mark.parametrize("text", ['{"max_tokens": "5"}', '{"password": "{password}"}', '{"token": "secret:T"}'])
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    """References, placeholders and other keys."""
    assert not options.context(text)[1]


def test_context_counts_before_the_columns() -> None:
    """Its keys for fields, description and policies replace the cells; a contradiction warns."""
    text = {"input_fields": "a|b", "output_field": ["c", "d"], "description": "D", "retry": {"attempts": 2}}
    text |= {"timeout": "5s", "map_over": "items"}
    found = node("Context", cell(json.dumps(text)))
    assert (found.inputs, found.outputs, found.description) == ((Field("a"), Field("b")), ("c", "d"), "D")
    assert (found.retry, found.timeout, found.map_over) == (Retry(2), 5.0, "items")
    loaded = load("GraphName,Node,Timeout,Context\nG,A,3s,{timeout=5s}\n")
    assert codes(loaded) == ["AM-A007"]
    assert loaded.workflows[0].nodes["A"].timeout == 5.0


def test_a_policy_in_context_is_checked_like_its_column() -> None:
    """A bad timeout in Context is the same error."""
    loaded = load("GraphName,Node,Context\nG,A,{timeout=soon}\n")
    assert [(p.code, p.column_name) for p in loaded.findings] == [("AM-A006", "Timeout")]
