"""Records as JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicesim.emulator.codec import codec_of
from devicesim.emulator.state.keeping import rebuilt


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Left:
    x: int = 0


@dataclass(frozen=True)
class Right:
    y: str = ""


@dataclass(frozen=True)
class Everything:
    text: str
    number: int
    real: float
    flag: bool
    maybe: str | None
    colour: Colour
    raw: bytes
    pair: tuple[int, str]
    many: tuple[Left, ...]
    either: Left | Right | None
    by_name: Mapping[str, Left]
    by_number: Mapping[int, str]
    options: Mapping[str, object]
    mode: Literal["a", "b"] = "a"
    length: int = field(default=0, metadata=rebuilt("text", len))


everything = st.builds(
    Everything,
    text=st.text(),
    number=st.integers(),
    real=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    maybe=st.none() | st.text(),
    colour=st.sampled_from(Colour),
    raw=st.binary(),
    pair=st.tuples(st.integers(), st.text()),
    many=st.lists(st.builds(Left, st.integers())).map(tuple),
    either=st.none() | st.builds(Left, st.integers()) | st.builds(Right, st.text()),
    by_name=st.dictionaries(st.text(), st.builds(Left, st.integers())),
    by_number=st.dictionaries(st.integers(), st.text()),
    options=st.dictionaries(st.text(), st.none() | st.booleans() | st.lists(st.integers())),
    mode=st.sampled_from(["a", "b"]),
    length=st.just(0),
)


@given(everything)
def test_what_was_encoded_is_decoded_the_same_and_the_rest_rebuilt(value: Everything) -> None:
    codec = codec_of(Everything)

    decoded = codec.decode(json.loads(json.dumps(codec.encode(value))))

    assert decoded == Everything(**{**value.__dict__, "length": len(value.text)})
    assert type(decoded.colour) is Colour


def test_a_field_that_came_later_has_its_default() -> None:
    assert codec_of(Left).decode({}) == Left()


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Left, {"x": 1, "z": 2}, "Left has no field 'z'"),
        (Everything, {"text": "t"}, "Everything lacks the field 'by_name'"),
        (Colour, "blue", "'blue' is not a valid Colour"),
        (Left | Right | None, {"$": "Middle"}, "'Middle' is none of Left, Right"),
        (tuple[int, str], [1], "shorter"),
    ],
)
def test_what_cannot_be_understood_whole_is_refused(kind: Any, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec_of(kind).decode(value)


@pytest.mark.parametrize("kind", [complex, set[str], Left | int, list])
def test_a_type_that_cannot_be_kept_is_named(kind: Any) -> None:
    with pytest.raises(TypeError, match="cannot be kept"):
        codec_of(kind)
