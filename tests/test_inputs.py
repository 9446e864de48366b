"""Values that do not fit a host's model, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from agentmap_asgi.errors import InputInvalid
from agentmap_asgi.services.inputs import validated


class Colour(Enum):
    red = "red"
    green = "green"


@dataclass
class Parcel:
    weight: int


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Bicycle(BaseModel):
    wheels: int


class Horse(BaseModel):
    legs: int


class Lion(Cat):
    lives: int


class Zoo(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pet: Annotated[Lion | Dog, Field(discriminator="kind")] | None = None
    rides: list[Horse | Bicycle] = []


class Handle:
    """Nothing that JSON could be."""


class Order(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    colour: Colour = Colour.red
    parcel: Parcel | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    handle: Handle | None = None
    odd: str = ""
    bare: str = ""
    own: str = ""
    many: list[int] = Field([], max_length=2)

    @field_validator("odd", "bare")
    @classmethod
    def _refuse(cls, value: str) -> str:
        raise ValueError("a reason of the host" if value == "odd" else "")

    @field_validator("own")
    @classmethod
    def _refuse_too(cls, value: str) -> str:
        raise PydanticCustomError("enum", "words of the host")


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({"pet": {"kind": "cat"}}, ["/initial_state/pet/lives"]),
        ({"rides": [{"wheels": 2}, {"legs": "s3cret"}, 5]}, ["1/legs", "1/wheels", "2", "2"]),
        ({"a/b": "x"}, ["/initial_state/a~1b"]),
    ],
)
def test_places_are_the_callers(values: dict[str, Any], places: list[str]) -> None:
    """Only what the caller sent, or left out, is in a pointer: neither a class nor a tag."""
    with pytest.raises(InputInvalid) as caught:
        validated(Zoo, values)
    found = [error["pointer"].removeprefix("/initial_state/rides/") for error in caught.value.errors]
    assert found == places


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"colour": "s3cret"}, "This must be 'red' or 'green'"),
        ({"parcel": "s3cret"}, "This must be an object"),
        ({"pet": {"kind": "s3cret"}}, "'kind' must be one of 'cat', 'dog'"),
        ({"pet": {}}, "'kind' is required here"),
        ({"handle": "s3cret"}, "This is of the wrong kind"),
        ({"odd": "odd"}, "a reason of the host"),
        ({"bare": "s3cret"}, "This is of the wrong kind"),
        ({"own": "s3cret"}, "words of the host"),
        ({"many": [1, 2, 3]}, "Its length must be 2 or less"),
        ({"many": ["s3cret"]}, "This must be a whole number"),
        ({"more": "s3cret"}, "This field is unknown"),
    ],
)
def test_what_does_not_fit_is_told_in_plain_words(values: dict[str, Any], said: str) -> None:
    """Without names of classes and without the value."""
    with pytest.raises(InputInvalid) as caught:
        validated(Order, values)
    assert [error["message"] for error in caught.value.errors] == [said]
    assert caught.value.errors[0]["pointer"].startswith(f"/initial_state/{next(iter(values))}")
