"""Prompt templates: names are replaced in one pass, and nothing else is."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from flows import node, run
from hypothesis import given
from hypothesis import strategies as st

from agentmap_asgi.errors import OutputTooLarge
from agentmap_asgi.execution.templates import Template

STATE: dict[str, Any] = {
    "x": 5,
    "text": "as it is",
    "null": None,
    "yes": True,
    "real": 1.5,
    "object": {"a": {"b": "deep"}, "n": [1, "é"]},
    "list": ["zero", {"k": "v"}],
    "sly": "{x} {object.a.b} {{",
    "dotted.name": "whole",
    "größe": "unicode",
    "a-b": "dash",
}


class Nowhere:
    def special(self, name: str) -> Any:
        return {"node_name": "Here", "errors": ["first"]}.get(name)


def rendered(text: str, state: dict[str, Any] | None = None, *, limit: int | None = None) -> str:
    return Template(text).compile(limit=limit)(STATE if state is None else state, Nowhere())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no names", "no names"),
        ("{x}", "5"),
        ("{x}{x}", "55"),
        ("<{text}>", "<as it is>"),
        ("{null} {yes} {real}", "null true 1.5"),
        ("{object.n}", '[1, "é"]'),
        ("{object.a}", '{"b": "deep"}'),
        ("{object.a.b}", "deep"),
        ("{list.0} {list.1.k}", "zero v"),
        ("{dotted.name}", "whole"),
        ("{größe} {a-b}", "unicode dash"),
        ("{node_name} {errors}", 'Here ["first"]'),
    ],
)
def test_names_are_replaced_by_their_values(text: str, expected: str) -> None:
    """Strings stand as they are, other values as JSON; dots reach into objects and lists."""
    assert rendered(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{unknown}",
        "{object.unknown}",
        "{object.a.b.c}",
        "{list.2}",
        "{list.-1}",
        "{list." + "9" * 5_000 + "}",
        "{x.real}",
        "{text.upper}",
        "{x.__class__}",
        "{__class__}",
        "{x!r}",
        "{x:>9}",
        "{x[0]}",
        "{ x }",
        "{}",
        "{0}",
        "{1x}",
        "{x y}",
        "{x",
        "x}",
        "{x.}",
        "{.x}",
        "{% if x %}",
        "$x",
    ],
)
def test_everything_else_stays(text: str) -> None:
    """Unknown names, format specs, indexes, attributes and lone braces stay literal text."""
    assert rendered(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{{x}}", "{x}"), ("{{{x}}}", "{5}"), ("{{", "{"), ("}}", "}"), ("{{}}", "{}"), ('{{"a": {x}}}', '{"a": 5}')],
)
def test_doubled_braces_are_literal_ones(text: str, expected: str) -> None:
    """`{{` and `}}` are one brace each."""
    assert rendered(text) == expected


def test_a_value_is_never_expanded_again() -> None:
    """Braces inside a value are content."""
    assert rendered("{sly}|{x}") == "{x} {object.a.b} {{|5"


@given(st.text(), st.dictionaries(st.sampled_from(["x", "text", "y"]), st.text()))
def test_any_text_renders(text: str, state: dict[str, Any]) -> None:
    """No text makes the template raise, and a text without braces is itself."""
    made = rendered(text, state)
    if "{" not in text and "}" not in text:
        assert made == text


@given(st.lists(st.sampled_from(["{a}", "{b}", "-", "{{", "}}", "{c}"])))
def test_rendering_is_one_replacement_a_part(parts: list[str]) -> None:
    """The whole is what the parts render to, one after the other."""
    values = {"{a}": "{b}", "{b}": "{{a}}", "-": "-", "{{": "{", "}}": "}", "{c}": "{c}"}
    if not any(left == "{{" or right == "}}" for left, right in itertools.pairwise(parts)):
        assert rendered("".join(parts), {"a": "{b}", "b": "{{a}}"}) == "".join(values[part] for part in parts)


def test_a_template_knows_its_names() -> None:
    """`names` lists the fields that are mentioned, once each, in order."""
    assert Template("{b} {a.c} {b} {{d}} {e!r}").names == ("b", "a.c")


def test_the_length_is_bounded_while_rendering() -> None:
    """A template stops at the limit, however often it repeats a value."""
    with pytest.raises(OutputTooLarge, match="more than 100 characters"):
        rendered("{x}" * 1_000, {"x": "y" * 50}, limit=100)
    assert rendered("{x}{x}", {"x": "y" * 50}, limit=100) == "y" * 100


@pytest.mark.anyio
async def test_a_prompt_reads_the_inputs_first_and_then_the_state(tmp_path: Path) -> None:
    """`a:p` makes the field `a` known as `p`; an input hides a state field of its name."""
    rows = [node("A", prompt="{p} {b} {a} {gone}", inputs="a:p|a:b|gone", output="out")]
    document = await run(tmp_path, rows, {"a": "A", "b": "B"})
    assert document["result"]["out"] == "A A A null"


@pytest.mark.anyio
async def test_the_prompt_of_an_own_agent_sees_only_its_inputs(tmp_path: Path) -> None:
    """A state field that the row does not name stays as it was written."""

    async def show(call: Any) -> Any:
        return call.prompt

    rows = [node("A", "show", prompt="{a} {b}", inputs="a", output="out")]
    document = await run(tmp_path, rows, {"a": 1, "b": 2}, agents={"show": show})
    assert document["result"]["out"] == "1 {b}"
