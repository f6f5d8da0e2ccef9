"""The values of rule SQL: JSON's and ``Undefined``, and the conversions between them. Pure.

The conversions are those of the developer guide ("Data types", D).

An Int is ``int``, a Decimal ``decimal.Decimal`` with 34 digits, Null ``None``, Undefined :data:`UNDEFINED`, an Array
``list``, an Object ``dict``. A payload that is no JSON is ``bytes``, which only ``*`` can name.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow
from enum import Enum
from typing import Final, Literal, TypeAlias


class Undefined(Enum):
    """Not a value; left out where JSON is written."""

    UNDEFINED = "undefined"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = Undefined.UNDEFINED
Value: TypeAlias = (
    "bool | int | Decimal | str | bytes | list[Value] | dict[str, Value] | Literal[Undefined.UNDEFINED] | None"
)

DIGITS: Final = 34
DECIMALS: Final = Context(prec=DIGITS, Emin=-999, Emax=999, traps=[InvalidOperation, DivisionByZero, Overflow])
"""Precision and range of Decimal (D)."""
_LARGEST_INT: Final = 10**DIGITS
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE]-?[0-9]+)?")
"""Strings that are numbers (D)."""


class RuleEvaluationError(Exception):
    """A rule cannot be evaluated on this message; nobody's bug."""


LARGEST: Final = 1 << 20
"""Characters or members of what one function makes: eight times the largest payload."""


def bounded(size: int) -> None:
    """Refuse to make a value of this size when that is too much for the event loop (and for AWS's actions)."""
    if size > LARGEST:
        raise RuleEvaluationError(f"a value of {size} characters or members is too long, {LARGEST} are made at most")


def weigh(value: Value, most: int) -> int:
    """How much a value is to handle: one for each value in it and for 64 characters; not much above ``most``, since a
    value that holds another one often is larger than what it takes in memory."""
    total = 0
    waiting = [value]
    while waiting and total <= most:
        each = waiting.pop()
        total += 1
        if isinstance(each, str | bytes):
            total += len(each) >> 6
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            waiting += each.values()
    return total


def type_name(value: Value) -> str:
    """The type in the words of the developer guide."""
    match value:
        case bool():
            return "Boolean"
        case int():
            return "Int"
        case Decimal():
            return "Decimal"
        case str():
            return "String"
        case list():
            return "Array"
        case dict():
            return "Object"
        case bytes():
            return "binary"
        case None:
            return "Null"
    return "Undefined"


def is_number(value: Value) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def to_integer(number: int) -> int | Decimal:
    """An Int, as a Decimal when it has more than 34 digits."""
    return number if -_LARGEST_INT < number < _LARGEST_INT else DECIMALS.create_decimal(number)


def to_double(number: float) -> Value:
    """What a function of double precision answers; Undefined where there is no real number."""
    return Decimal(repr(number)) if math.isfinite(number) else UNDEFINED


def to_decimal(value: Value) -> Decimal | None:
    """By the table "To Decimal"; ``None`` for Undefined, and for Null, which no operator or function has a use for."""
    match value:
        case bool():
            return None
        case Decimal():
            return value
        case int():
            return Decimal(value)
        case str() if _NUMBER.fullmatch(value):
            try:
                return DECIMALS.create_decimal(value)
            except DecimalException:
                return None
    return None


def to_number(value: Value) -> int | Decimal | None:
    """As :func:`to_decimal`, an Int staying one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else to_decimal(value)


def to_boolean(value: Value) -> bool | None:
    """By the table "To Boolean"; ``None`` for Undefined."""
    match value:
        case bool():
            return value
        case str() if value.lower() in ("true", "false"):
            return value.lower() == "true"
    return None


def to_string(value: Value) -> str | None:
    """By the table "To String"; ``None`` for Undefined."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | Decimal():
            return str(value)
        case str():
            return value
        case list() | dict():
            return write_json(value)
    return None


def same(left: Value, right: Value) -> bool:
    """Equality of ``=``: numbers by their value, containers by their members, no conversion between types."""
    if is_number(left) and is_number(right):
        return left == right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(one, other) for one, other in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return type(left) is type(right) and left == right


def read_json(text: bytes | str) -> Value:
    """The document; ``ValueError`` when it is not JSON. Numbers keep their digits, up to 34 of them."""
    try:
        document: Value = json.loads(
            text, parse_float=_read_decimal, parse_int=_read_integer, parse_constant=_refuse_constant
        )
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    return document


def _read_decimal(digits: str) -> Decimal:
    try:
        return DECIMALS.create_decimal(digits)
    except DecimalException as exc:
        raise ValueError(f"the number {digits} is out of range") from exc


def _read_integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits.lstrip("-")) <= DIGITS else _read_decimal(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def write_json(value: Value) -> str:
    """JSON without white space; Undefined members are left out, and by itself it is the empty string (D)."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case int() | Decimal():
            return str(value)
        case str():
            return _write_string(value)
        case bytes():
            raise RuleEvaluationError(
                "the payload is not JSON and cannot be part of a JSON document; use encode(*, 'base64')"
            )
        case list():
            return f"[{','.join(write_json(item) for item in value if item is not UNDEFINED)}]"
        case dict():
            members = ((key, item) for key, item in value.items() if item is not UNDEFINED)
            return "{" + ",".join(f"{_write_string(key)}:{write_json(item)}" for key, item in members) + "}"
    return ""


def _write_string(text: str) -> str:
    written = json.dumps(text, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which came in escaped and goes out so
        return json.dumps(text)
    return written


def from_plain(document: object) -> Value:
    """A document of Python's own kinds (as a shadow's) as a value."""
    match document:
        case float():
            return to_double(document)
        case Mapping():
            return {str(key): from_plain(item) for key, item in document.items()}
        case list() | tuple():
            return [from_plain(item) for item in document]
        case None | bool() | int() | Decimal() | str():
            return document
    raise TypeError(f"{type(document).__name__} is no JSON")
