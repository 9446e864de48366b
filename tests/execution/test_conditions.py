"""The closed grammar of `when`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flows import node, run
from hypothesis import example, given
from hypothesis import strategies as st

from agentmap_asgi.execution.conditions import MAX_DEPTH, MAX_LENGTH, Condition, ConditionError

STATE: dict[str, Any] = {
    "n": 5,
    "zero": 0,
    "half": 0.5,
    "s": "abc",
    "empty": "",
    "yes": True,
    "no": False,
    "nothing": None,
    "l": [1, "b", True, None, [2]],
    "none": "not null",
    "o": {"k": 1, "deep": {"x": "y"}, "list": [10, 20]},
    "big": 2**63,
}


class Nowhere:
    def special(self, name: str) -> Any:
        return {"last_action_success": True, "errors": ["no luck"]}.get(name)


def decided(text: str, state: dict[str, Any] | None = None) -> bool:
    return Condition(text).compile()(STATE if state is None else state, Nowhere())


TRUE = [
    *("n == 5", "n == 5.0", "5 == n", "n != 4", "n < 6", "n <= 5", "n > 4", "n >= 5", "n > -1", "half == .5"),
    *("n == 5e0", "half < 1", "big == 9223372036854775808", "n < 1e999", f"n < {'9' * 4_000}"),
    *("s == 'abc'", 's == "abc"', "s < 'abd'", "s != 'ABC'", r"'it\'s' == 'it\'s'", r"'\\' != ''", "'ü' == 'ü'"),
    *("n in [4, 5]", "s in ['abc']", "n not in [1, 2]", "'b' in s", "'b' in l", "2 not in l", "[2] in l"),
    *("1 in l", "true in l", "null in l", "'k' in o", "'z' not in o", "o.k in [1]", "n in [n]", "[] == []"),
    *("yes", "not no", "not not yes", "not empty", "not zero", "not nothing", "l", "o", "not missing"),
    *("yes == true", "no == False", "nothing == null", "nothing == None", "missing == null", "NULL == none"),
    *("o.k == 1", "o.deep.x == 'y'", "o.list.1 == 20", "o.missing == null", "s.k == null", "missing.x == null"),
    *("yes and n == 5", "no or yes", "not (yes and no)", "(n > 1 and (no or yes))", "((((n))))"),
    *("last_action_success", "'no luck' in errors", " \n n\t==\n5 "),
    # `not` binds tighter than `and`, `and` tighter than `or`.
    *("yes or yes and no", "(yes or yes) and yes", "no and no or yes", "not no and yes", "not (no and yes)"),
    *("not n == 4", "not no or no", "no and (no or yes) or yes"),
]
FALSE = [
    *("n == 4", "n != 5", "n < 5", "no", "zero", "half > 1", "empty", "nothing", "missing", "[]", "''", "null"),
    *("yes and no", "(yes or yes) and no", "not yes or no", "not (n)", "n not in [5]", "'z' in s"),
    # Unlike types are not equal, and neither is less.
    *(
        "n == '5'",
        "n < 'a'",
        "n >= 'a'",
        "s > 1",
        "yes == 1",
        "zero == false",
        "yes > 0",
        "nothing < 1",
        "null <= null",
    ),
    *("missing < 1", "missing > 1", "missing >= null", "l < [9]", "o == l", "n in s", "n in n", "n in nothing"),
    *("null in s", "1 in o", "[1] == [true]", "'' == null", "l > l", "true < false"),
]


@pytest.mark.parametrize(("text", "expected"), [*((text, True) for text in TRUE), *((text, False) for text in FALSE)])
def test_a_condition_decides(text: str, expected: bool) -> None:
    """Missing is null, unlike types are false without an error, and the words bind as in Python."""
    assert decided(text) is expected


@pytest.mark.parametrize(
    ("text", "message", "character"),
    [
        ("", "before the end", 1),
        ("   ", "before the end", 1),
        ("n ==", "before the end", 5),
        ("n == ", "before the end", 5),
        ("== 5", "instead of '=='", 1),
        ("n = 5", "Unexpected '='", 3),
        ("n == 5 5", "Unexpected '5'", 8),
        ("n == 5 == 5", "Unexpected '=='", 8),
        ("1 < n < 9", "Unexpected '<'", 7),
        ("(n", "Expected ')' before the end", 3),
        ("n)", "Unexpected ')'", 2),
        ("[1, 2", "before the end", 6),
        ("[1 2]", "Expected ',' instead of '2'", 4),
        ("[1,]", "instead of ']'", 4),
        ("[1 == 2]", "Expected ','", 4),
        ("n and", "before the end", 6),
        ("and", "instead of 'and'", 1),
        ("in", "instead of 'in'", 1),
        ("not", "before the end", 4),
        ("n not 5", "Expected 'in' instead of '5'", 7),
        ("n == not n", "instead of 'not'", 6),
        ("a AND b", "Unexpected 'AND'", 3),
        ("n & 1", "Unexpected '&'", 3),
        ("n + 1", "Unexpected '+'", 3),
        ("f(1)", "Unexpected '('", 2),
        ("l[0]", "Unexpected '['", 2),
        ("n ? 1", "Unexpected '?'", 3),
        ("'open", 'Unexpected "\'"', 1),
        ("5x", "Unexpected '5'", 1),
        ("1.2.3", "Unexpected '1'", 1),
        ("n.", "Unexpected '.'", 2),
        (".n", "Unexpected '.'", 1),
        ("n == {}", "Unexpected '{'", 6),
        ("lambda: 0", "Unexpected ':'", 7),
        ("__import__('os')", "Unexpected '('", 11),
        ("n\x00", "Unexpected '\\x00'", 2),
        ("ü == €", "Unexpected '€'", 6),
    ],
)
def test_an_error_names_the_character(text: str, message: str, character: int) -> None:
    """What does not follow the grammar is refused with the place, counted from 1."""
    with pytest.raises(ConditionError) as caught:
        Condition(text)
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"at character {character}")
    assert caught.value.offset == character - 1


@pytest.mark.parametrize("text", ["(" * 2_000, "[" * 2_000, "(" * 60 + "n" + ")" * 60, "[" * 60 + "]" * 60, "([" * 40])
def test_deep_nesting_is_refused(text: str) -> None:
    """Nesting is bounded before the parser's own recursion is."""
    with pytest.raises(ConditionError, match="Too deeply nested"):
        Condition(text)


def test_nesting_up_to_the_bound_works() -> None:
    """As deep as allowed is still decided."""
    depth = MAX_DEPTH - 1
    assert decided("(" * depth + "n" + ")" * depth)
    assert decided("not " * 1_000 + "n")


def test_length_is_bounded() -> None:
    """A condition past the longest is refused before it is read."""
    assert decided(" or ".join(["no"] * 600) + " or yes")
    with pytest.raises(ConditionError, match="longer than"):
        Condition("n" * (MAX_LENGTH + 1))


@pytest.mark.parametrize("name", ["android", "inner", "nothing", "notes", "orbit", "Not", "IN", "true_", "is", "if"])
def test_names_may_begin_with_words_of_the_grammar(name: str) -> None:
    """Only the whole words and, or, not, in are the grammar's own, in lower case."""
    assert Condition(name).names == (name,)
    assert decided(f"{name} == 1", {name: 1})


def test_a_condition_knows_its_names() -> None:
    """`names` are the fields read, once each, in order; words and texts are none."""
    assert Condition("b > 1 and a.c in [d, 'e', true] or b").names == ("b", "a.c", "d")


@given(st.text())
@example("'\\")
@example("²")
@example("٣ == 3")
@example("1" * 4_096)
@example("1e" + "9" * 4_000)
@example("a.\u2028b")
def test_any_text_is_a_condition_or_a_condition_error(text: str) -> None:
    """No text makes the parser fail in another way, and an error's place lies in the text."""
    try:
        condition = Condition(text)
    except ConditionError as error:
        offset = error.offset
    else:
        offset = 0
        assert decided(text, {}) in (True, False)
        assert all(isinstance(name, str) for name in condition.names)
    assert 0 <= offset <= len(text)


TOKENS = [
    "and",
    "or",
    "not",
    "in",
    "(",
    ")",
    "[",
    "]",
    ",",
    "==",
    "!=",
    "<",
    ">=",
    "n",
    "s",
    "o.k",
    "l",
    "1",
    "'b'",
    "null",
]


@given(st.lists(st.sampled_from(TOKENS), max_size=14))
def test_any_sequence_of_tokens_is_decided_or_refused(tokens: list[str]) -> None:
    """Whatever the grammar accepts can be decided over any state."""
    text = " ".join(tokens)
    try:
        Condition(text)
    except ConditionError:
        return
    assert decided(text) in (True, False)
    assert decided(text, {}) in (True, False)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_comparisons_never_raise_and_agree_with_each_other(a: Any, b: Any) -> None:
    """`!=` is not `==`, `not in` is not `in`, at most one of `<`, `==`, `>` holds, and equality is symmetric."""
    state = {"a": a, "b": b}
    assert decided("a == a", state)
    assert decided("a != b", state) is not decided("a == b", state)
    assert decided("a not in b", state) is not decided("a in b", state)
    assert decided("a == b", state) is decided("b == a", state)
    assert [decided(f"a {sign} b", state) for sign in ("<", "==", ">")].count(True) <= 1
    assert decided("a in [b]", state) is decided("a == b", state)


@pytest.mark.anyio
async def test_a_condition_routes_a_workflow(tmp_path: Path) -> None:
    """`when` reads the state, and the inputs under their parameter names."""
    when = {"when": "total > 100 and region in ['EU', 'CH']"}
    rows = [
        node("B", "branching", inputs="order.amount:total", ok="Big", ko="Small", context=when),
        node("Big", prompt="big", output="size"),
        node("Small", prompt="small", output="size"),
    ]
    for amount, region, expected in (
        (101, "CH", "big"),
        (100, "CH", "small"),
        (101, "US", "small"),
        ("x", "EU", "small"),
    ):
        document = await run(tmp_path, rows, {"order": {"amount": amount}, "region": region})
        assert document["result"]["size"] == expected
    assert (await run(tmp_path, rows))["result"] == {"size": "small"}


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("n = 5", "=="),
        ("n === 5", "=="),
        ("n => 5", ">="),
        ("n <> 5", "!="),
        ("1 < n < 9", "by and"),
        ("n == 5 == 5", "by and"),
        ("a AND b", "Write and"),
        ("a && b", "Write and"),
        ("a || b", "Write or"),
        ("a OR b", "Write or"),
        ("!a", "Write not"),
        ("a is None", "== null"),
        ("a - b > 1", "no arithmetic"),
        ("n + 1", "no arithmetic"),
        ("-total > 1", "not begin with it"),
        ("2nd == 1", "2nd:second"),
        ("Order ID > 3", "no spaces"),
        ("len(x) > 3", "no functions"),
        ("n in (1, 2)", "in brackets"),
        ("{n} > 1", "without braces"),
        ("$n > 1", "without braces"),
        ("l[0] > 1", "l.0"),
        ("n == 'it's'", "quotes of one kind"),
    ],
)
def test_an_error_says_what_to_write_instead(text: str, remedy: str) -> None:
    """For what people know from other languages."""
    with pytest.raises(ConditionError) as caught:
        Condition(text)
    assert remedy in caught.value.hint


def test_names_may_hold_dashes() -> None:
    """Only inside."""
    assert Condition("order-id == 3 and not-yet").names == ("order-id", "not-yet")
