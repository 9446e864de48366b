"""Which values a state may hold."""

from __future__ import annotations

import json
from collections import OrderedDict, UserDict
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmap_asgi.errors import OutputTooLarge, ResultInvalid
from agentmap_asgi.execution.values import HEAVIEST, MAX_DEPTH, copied, text_of, weight

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


class Level(IntEnum):
    LOW = 1


class Pair(NamedTuple):
    a: int


class Text(str):
    __slots__ = ()


class Sub(dict[str, Any]):
    pass


def nested(depth: int, leaf: Any = 0) -> Any:
    """`leaf` inside so many objects and lists."""
    for level in range(depth):
        leaf = {"k": leaf} if level % 2 else [leaf]
    return leaf


def cyclic() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@given(JSON)
def test_what_is_allowed_survives_json_unchanged(value: Any) -> None:
    """A copy equals its original, also in the types, and JSON gives it back as it is."""
    copy = copied(value)
    assert repr(copy) == repr(value)
    assert repr(json.loads(json.dumps(copy))) == repr(value)


@given(JSON)
def test_a_copy_shares_nothing_that_can_change(value: Any) -> None:
    """No list or object of the copy is one of the original."""

    def containers(thing: Any) -> list[Any]:
        inner = thing if isinstance(thing, list) else list(thing.values()) if isinstance(thing, dict) else []
        return [*([thing] if isinstance(thing, list | dict) else []), *(c for part in inner for c in containers(part))]

    ours = {id(container) for container in containers(value)}
    assert not ours & {id(container) for container in containers(copied(value))}


@given(JSON)
def test_the_weight_is_about_the_size_as_json(value: Any) -> None:
    """The weight lies within a small factor of the bytes of the JSON text (escapes and long numbers aside)."""
    size = len(json.dumps(value, ensure_ascii=False).encode())
    assert weight(value) * 7 >= size
    assert weight(value) <= size * 14


@given(JSON | st.lists(st.integers(0, 9), min_size=20))
def test_no_state_weighs_more_than_a_few_times_its_bytes(value: Any) -> None:
    """What is short enough need not be weighed."""
    state = {"x": value}
    assert weight(state) <= HEAVIEST * len(json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode())


REFUSED = [
    (float("nan"), "is nan"),
    (float("inf"), "is inf"),
    (float("-inf"), "is -inf"),
    (2**64, "is an integer past 64 bits"),
    (-(2**63) - 1, "is an integer past 64 bits"),
    (10**5_000, "is an integer past 64 bits"),
    (b"bytes", "is a bytes"),
    (bytearray(b"x"), "is a bytearray"),
    ({1, 2}, "is a set"),
    (frozenset(), "is a frozenset"),
    ((1, 2), "is a tuple"),
    (Pair(1), "Pair"),
    (Level.LOW, "Level"),
    (Text("x"), "Text"),
    (Sub(), "Sub"),
    (OrderedDict(), "is a collections.OrderedDict"),
    (UserDict(), "is a collections.UserDict"),
    (1j, "is a complex"),
    (Decimal(1), "is a decimal.Decimal"),
    (datetime.now(UTC), "is a datetime.datetime"),
    (object(), "is a object"),
    (object, "is a type"),
    ((n for n in range(3)), "is a generator"),
    (range(3), "is a range"),
    (print, "is a builtin_function_or_method"),
    ("\ud800", "holds a lone surrogate"),
    ({"\udfff": 1}, "holds a lone surrogate"),
    ({1: 2}, "has the key 1"),
    ({None: 2}, "has the key None"),
    ({True: 2}, "has the key True"),
    ({Text("k"): 2}, "has the key 'k'"),
    ({("a", "b"): 2}, "has the key ('a', 'b')"),
    (cyclic(), "is nested deeper than 64, or contains itself"),
    (nested(MAX_DEPTH + 1), "is nested deeper than 64, or contains itself"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=[f"{i}-{reason}" for i, (_, reason) in enumerate(REFUSED)])
@pytest.mark.parametrize("place", ["", ".a", "[2]", ".a[0].b"])
def test_a_refusal_names_the_place(value: Any, reason: str, place: str) -> None:
    """What JSON would change is refused, with the path to it."""
    thing = {"": value, ".a": {"z": 1, "a": value}, "[2]": [0, "x", value], ".a[0].b": {"a": [{"b": value}]}}[place]
    with pytest.raises(ResultInvalid) as caught:
        copied(thing, "The result")
    assert caught.value.message.startswith(f"The result{place}")
    assert reason in caught.value.message
    json.dumps(caught.value.message).encode()


def test_depth_is_bounded() -> None:
    """As deep as allowed is copied, one more is not; a value that is a field of a state has one level less."""
    assert copied(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    assert weight(nested(MAX_DEPTH - 1), 1)
    with pytest.raises(ResultInvalid, match="nested deeper"):
        weight(nested(MAX_DEPTH), 1)


@pytest.mark.parametrize(
    ("value", "limit", "fits"),
    [
        ("x" * 98, 100, True),
        ("x" * 99, 100, False),
        ("ü" * 49, 100, True),
        ("ü" * 50, 100, False),
        ([1] * 50, 100, False),
    ],
)
def test_the_size_is_bounded_in_bytes(value: Any, limit: int, fits: bool) -> None:
    """A value past the limit is refused with both numbers."""
    if fits:
        assert copied(value, limit=limit) == value
    else:
        with pytest.raises(OutputTooLarge, match="at most 100 are allowed"):
            copied(value, limit=limit)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\nb", "a\nb"), (1, "1"), (1.0, "1.0"), (True, "true"), (None, "null"), (["ü"], '["ü"]'), ({}, "{}")],
)
def test_texts_stand_as_they_are_and_others_as_json(value: Any, text: str) -> None:
    """How a value reads inside a text."""
    assert text_of(value) == text
