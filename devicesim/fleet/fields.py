"""What the sections of a fleet file are made of: the strict model, and the kinds of value that several of them take."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from devicesim.errors import KeyMaterialError
from devicesim.pki.profile import render

MAX_RATE = 1_000_000
"""Starts a second."""
MAX_DEVICES = 10_000_000
"""Of a group; of all groups together with ``--devices``."""

_RATE_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_rate(text: str) -> float:
    """``"50/s"``, ``"3000/min"``, ``"500/h"`` or ``"50"`` as starts a second. Raises ``ValueError``."""
    number, slash, unit = text.partition("/")
    seconds = _RATE_UNITS.get(unit if slash else "s")
    try:
        if seconds:
            return float(number) / seconds
    except ValueError:
        pass
    raise ValueError("a rate is a number of starts a second, or a text such as '50/s', '3000/min' or '500/h'")


def parse_seconds(text: str) -> float:
    """``"30s"``, ``"500ms"``, ``"5m"`` (or ``min``), ``"1h"`` or ``"30"`` as seconds. Raises ``ValueError``."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    seconds = _SECONDS.get(text[len(number) :] or "s")
    try:
        if seconds:
            return float(number) * seconds
    except ValueError:
        pass
    raise ValueError("a duration is a number of seconds, or a text such as '500ms', '30s', '5m' or '1h'")


def _as_rate(value: object) -> object:
    return parse_rate(value) if isinstance(value, str) else value


def as_seconds(value: object) -> object:
    """Text as :func:`parse_seconds` reads it; anything else as it is."""
    return parse_seconds(value) if isinstance(value, str) else value


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[1] < pair[0]:
        raise ValueError("the second number is smaller than the first; a range is [shortest, longest]")
    return pair


def _template(text: str) -> str:
    try:
        render(text, 0, {"fleet": "x", "group": "x"}, "")
    except KeyMaterialError as exc:
        raise ValueError(str(exc).strip()) from exc
    return text


def _sample(value: object) -> object:
    counted = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not counted and value not in ("all", "none"):
        raise ValueError("expected 'all', 'none' or a number from 1 on")
    return value


# numbers with their bounds; what a file may say in their place, a text, is in the published schema too
_Seconds = Annotated[float, Field(ge=0, le=86_400)]
_Deadline = Annotated[float, Field(gt=0, le=3600)]
_Period = Annotated[float, Field(ge=0.01, le=86_400)]
_Rate = Annotated[float, Field(gt=0, le=MAX_RATE)]
_RateFromZero = Annotated[float, Field(ge=0, le=MAX_RATE)]

Seconds = Annotated[_Seconds, BeforeValidator(as_seconds, json_schema_input_type=_Seconds | str)]
"""A number, or a text such as ``"30s"``."""
Deadline = Annotated[_Deadline, BeforeValidator(as_seconds, json_schema_input_type=_Deadline | str)]
Period = Annotated[_Period, BeforeValidator(as_seconds, json_schema_input_type=_Period | str)]
SecondsRange = Annotated[tuple[Seconds, Seconds], AfterValidator(_ordered)]
Rate = Annotated[_Rate, BeforeValidator(_as_rate, json_schema_input_type=_Rate | str)]
"""Starts a second: a number, or a text such as ``"50/s"``."""
RateFromZero = Annotated[_RateFromZero, BeforeValidator(_as_rate, json_schema_input_type=_RateFromZero | str)]
"""Likewise; 0 starts nothing."""
Sample = Annotated[Literal["all", "none"] | Annotated[int, Field(ge=1)], BeforeValidator(_sample)]
"""Of how many; what is wrong is told once, not for each of the kinds."""
Template = Annotated[str, AfterValidator(_template)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Model(BaseModel):
    """A section: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
