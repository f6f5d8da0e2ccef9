"""The functions of rule SQL (developer guide, "Functions", D). Pure.

A function that is given what it has no use for answers Undefined, also for a wrong number of arguments (D). What calls
another service of AWS (``aws_lambda``, ``get_dynamodb``, ...) is known and fails when it is evaluated.
"""

import base64
import binascii
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal, DecimalException
from functools import partial
from typing import Final, TypeAlias

from devicesim.emulator.packets import NO_PROPERTIES, Properties
from devicesim.emulator.topicrules import patterns
from devicesim.emulator.topicrules.times import find_zone, format_time, parse_epoch
from devicesim.emulator.topicrules.values import (
    DECIMALS,
    UNDEFINED,
    RuleEvaluationError,
    Value,
    bounded,
    from_plain,
    is_number,
    read_json,
    to_decimal,
    to_double,
    to_integer,
    to_number,
    to_string,
    weigh,
)

GetShadow: TypeAlias = Callable[[str, str | None], Mapping[str, object] | None]


WORK: Final = 500_000
"""Expressions evaluated and values handled (:func:`weigh`) for one rule on one message: some tenths of a second of the
one event loop. AWS's bound is not known."""


@dataclass(slots=True, kw_only=True)
class Context:
    """The message that a rule is evaluated on, and what its functions need from outside."""

    payload: bytes
    topic: str
    account_id: str
    version: str
    """Of the rule's SQL."""
    now: float
    """Seconds since the Unix epoch."""
    uuid: Callable[[], str]
    uniform: Callable[[float, float], float]
    client_id: str | None = None
    """``None`` when the message was not sent over MQTT."""
    principal: str | None = None
    trace_id: str | None = None
    properties: Properties = NO_PROPERTIES
    get_shadow: GetShadow | None = None
    """The document of a thing's shadow, by thing and shadow name; ``None`` where there are no shadows."""
    integer_division: bool = True
    work: int = field(default=WORK, init=False)
    """What may still be done for this message."""
    _parsed: list[Value] = field(default_factory=list, init=False)

    @property
    def document(self) -> Value:
        """The payload's JSON, and the payload itself where it is none."""
        if not self._parsed:
            try:
                self._parsed.append(read_json(self.payload.decode()))
            except ValueError:
                self._parsed.append(self.payload)
        return self._parsed[0]

    def spend(self, value: Value) -> None:
        """Account for a value that is worked on or becomes part of another."""
        self.work -= weigh(value, self.work)
        if self.work < 0:
            raise RuleEvaluationError("the rule has too much to do on this message")


Function: TypeAlias = Callable[[Context, list[Value]], Value]


def call(context: Context, name: str, arguments: list[Value]) -> Value:
    """The function's result; :class:`RuleEvaluationError` where it needs what the emulator does not have."""
    if name in ELSEWHERE:
        raise RuleEvaluationError(f"{name}() is not emulated")
    least, most, function = _FUNCTIONS[name]
    if not least <= len(arguments) <= most:
        return UNDEFINED
    for argument in arguments:
        context.spend(argument)
    try:
        return function(context, arguments)
    except (DecimalException, OverflowError):
        return UNDEFINED


# --- the message ---


def _topic(context: Context, arguments: list[Value]) -> Value:
    if not arguments:
        return context.topic
    number = _floor(arguments[0])
    levels = context.topic.split("/")
    return levels[number - 1] if number is not None and 1 <= number <= len(levels) else UNDEFINED


def _mqtt_property(context: Context, arguments: list[Value]) -> Value:
    if context.client_id is None:
        return UNDEFINED
    properties = context.properties
    match arguments[0]:
        case "format_indicator":
            return "UTF8_DATA" if properties.payload_format_indicator == 1 else "UNSPECIFIED_BYTES"
        case "content_type":
            return _present(properties.content_type)
        case "response_topic":
            return _present(properties.response_topic)
        case "correlation_data":
            data = properties.correlation_data
            return UNDEFINED if data is None else base64.b64encode(data).decode()
    return UNDEFINED


def _user_properties(context: Context, arguments: list[Value]) -> Value:
    pairs = context.properties.user_properties
    if context.client_id is None or not pairs:
        return UNDEFINED
    if not arguments:
        return [{key: value} for key, value in pairs]
    found: list[Value] = [value for key, value in pairs if key == arguments[0]]
    return found or UNDEFINED


def _shadow(context: Context, arguments: list[Value]) -> Value:
    if context.get_shadow is None:
        raise RuleEvaluationError("get_thing_shadow() has no shadows to ask")
    thing = arguments[0]
    name = arguments[1] if len(arguments) == 3 else None
    if not isinstance(thing, str) or not (name is None or isinstance(name, str)):
        raise RuleEvaluationError("get_thing_shadow() was not given the name of a thing")
    document = context.get_shadow(thing, name)
    if document is None:
        raise RuleEvaluationError(f"get_thing_shadow(): the thing {thing} has no such shadow")
    return from_plain(document)


def _present(value: str | None) -> Value:
    return UNDEFINED if value is None else value


# --- numbers ---


def _rounded(rounding: str, value: Value) -> int | None:
    number = to_decimal(value)
    if number is None or number.adjusted() > 999:
        return None
    return int(number.to_integral_value(rounding=rounding))


def _floor(value: Value) -> int | None:
    return _rounded(ROUND_FLOOR, value)


def _round_to_int(rounding: str, _context: Context, arguments: list[Value]) -> Value:
    number = _rounded(rounding, arguments[0])
    return UNDEFINED if number is None else to_integer(number)


def _absolute(_context: Context, arguments: list[Value]) -> Value:
    number = to_number(arguments[0])
    if isinstance(number, Decimal):
        return number.copy_abs()
    return UNDEFINED if number is None else abs(number)


def _sign(_context: Context, arguments: list[Value]) -> Value:
    number = to_decimal(arguments[0])
    return UNDEFINED if number is None else (number > 0) - (number < 0)


def _double(function: Callable[..., float], _context: Context, arguments: list[Value]) -> Value:
    """A function of one or two numbers in double precision."""
    numbers = [to_decimal(argument) for argument in arguments]
    if None in numbers:
        return UNDEFINED
    try:
        result = function(*(float(number) for number in numbers if number is not None))
    except (ValueError, OverflowError, ZeroDivisionError):
        return UNDEFINED
    return to_double(result)


def _bits(combine: Callable[..., int], _context: Context, arguments: list[Value]) -> Value:
    numbers = [_floor(argument) for argument in arguments]
    if None in numbers:
        return UNDEFINED
    return to_integer(combine(*numbers))


def _remainder(_context: Context, arguments: list[Value]) -> Value:
    """Of two Ints an Int, of any other numbers a Decimal, with the sign of the first."""
    left, right = (to_number(argument) for argument in arguments)
    if left is None or right is None or right == 0:
        return UNDEFINED
    if isinstance(left, int) and isinstance(right, int):
        return int(math.copysign(1, left)) * (abs(left) % abs(right))
    return DECIMALS.remainder(Decimal(left), Decimal(right))


def _trunc(_context: Context, arguments: list[Value]) -> Value:
    number, places = to_number(arguments[0]), arguments[1]
    digits = _floor(places) if is_number(places) else None
    if number is None or digits is None:
        return UNDEFINED
    if isinstance(number, int):
        return number
    step = Decimal(1).scaleb(-min(max(digits, 0), 34))
    if number.adjusted() - step.adjusted() >= DECIMALS.prec:
        return number  # it has no more digits than these
    cut = number.quantize(step, rounding=ROUND_DOWN, context=DECIMALS).normalize(DECIMALS)
    return to_integer(int(cut)) if cut == cut.to_integral_value() else cut


def _nanvl(_context: Context, arguments: list[Value]) -> Value:
    first, second = arguments
    return second if first is None or first is UNDEFINED else first


# --- text ---


def _on_text(function: Callable[[str], Value], _context: Context, arguments: list[Value]) -> Value:
    text = to_string(arguments[0])
    return UNDEFINED if text is None else function(text)


def _on_texts(function: Callable[..., Value], _context: Context, arguments: list[Value]) -> Value:
    texts = [to_string(argument) for argument in arguments]
    return UNDEFINED if None in texts else function(*texts)


def _pad(left: bool, _context: Context, arguments: list[Value]) -> Value:
    text, count = to_string(arguments[0]), _floor(arguments[1])
    if text is None or count is None:
        return UNDEFINED
    spaces = " " * min(max(count, 0), 1000)
    return spaces + text if left else text + spaces


def _substring(_context: Context, arguments: list[Value]) -> Value:
    text = to_string(arguments[0])
    bounds = [_floor(argument) for argument in arguments[1:]]
    if text is None or None in bounds:
        return UNDEFINED
    start, end = [min(max(bound, 0), len(text)) for bound in [*bounds, len(text)][:2] if bound is not None]
    return text[start:end]


def _chr(_context: Context, arguments: list[Value]) -> Value:
    number = _floor(arguments[0])
    return chr(number) if number is not None and 0 <= number < 128 else UNDEFINED


def _concat(_context: Context, arguments: list[Value]) -> Value:
    if len(arguments) == 1:
        return arguments[0]  # "returned unmodified", though an example shows concat(1) = "1"
    if any(isinstance(argument, list) for argument in arguments):
        joined: list[Value] = []
        for argument in arguments:
            joined += argument if isinstance(argument, list) else [argument]
        return joined
    texts = [to_string(argument) for argument in arguments]
    if None in texts or not any(isinstance(argument, str) for argument in arguments):
        return UNDEFINED
    return "".join(text for text in texts if text is not None)


def _hash(name: str, text: str) -> Value:
    return hashlib.new(name, text.encode(errors="replace"), usedforsecurity=False).hexdigest()


def _encode(_context: Context, arguments: list[Value]) -> Value:
    value, scheme = arguments
    data = value if isinstance(value, bytes) else _encoded(value)
    return UNDEFINED if data is None or scheme != "base64" else base64.b64encode(data).decode()


def _encoded(value: Value) -> bytes | None:
    text = to_string(value)
    return None if text is None else text.encode(errors="replace")


def _decode(_context: Context, arguments: list[Value]) -> Value:
    text, scheme = arguments
    if scheme != "base64":
        return UNDEFINED
    if not isinstance(text, str):
        return None
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    try:
        return read_json(decoded)
    except ValueError:
        return decoded


def _replace(text: str, old: str, new: str) -> Value:
    bounded(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


# --- time ---


def _parse_time(_context: Context, arguments: list[Value]) -> Value:
    pattern, milliseconds = arguments[0], _floor(arguments[1])
    zone = arguments[2] if len(arguments) == 3 else "UTC"
    if not isinstance(pattern, str) or milliseconds is None or not isinstance(zone, str):
        return UNDEFINED
    try:
        return format_time(pattern, milliseconds, find_zone(zone))
    except ValueError:
        return UNDEFINED


def _time_to_epoch(_context: Context, arguments: list[Value]) -> Value:
    text, pattern = arguments
    if not isinstance(text, str) or not isinstance(pattern, str):
        return UNDEFINED
    try:
        return parse_epoch(text, pattern)
    except ValueError:
        return UNDEFINED


# --- collections ---


def _get(_context: Context, arguments: list[Value]) -> Value:
    collection, key = arguments
    if isinstance(collection, dict):
        return collection.get(key, UNDEFINED) if isinstance(key, str) else UNDEFINED
    if not isinstance(collection, list | str):
        return UNDEFINED
    index = _rounded(ROUND_DOWN if isinstance(key, str) else ROUND_HALF_UP, key)  # the table "To Int"
    return collection[index] if index is not None and 0 <= index < len(collection) else UNDEFINED


def _transform(_context: Context, arguments: list[Value]) -> Value:
    mode, attributes, array = arguments
    if mode != "enrichArray" or not isinstance(attributes, dict) or not isinstance(array, list):
        return UNDEFINED
    bounded(len(array) * len(attributes))
    enriched: list[Value] = []
    for item in array:
        if not isinstance(item, dict):
            return UNDEFINED
        enriched.append({**item, **attributes})
    return enriched


_MANY: Final = 1 << 30
_HASHES: Final = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_ONE_DOUBLE: Final[Mapping[str, Callable[[float], float]]] = {
    "acos": math.acos,
    "asin": math.asin,
    "atan": math.atan,
    "cos": math.cos,
    "cosh": math.cosh,
    "exp": math.exp,
    "ln": math.log,
    "log": math.log10,
    "sin": math.sin,
    "sinh": math.sinh,
    "sqrt": math.sqrt,
    "tan": math.tan,
    "tanh": math.tanh,
}
_ONE_TEXT: Final[Mapping[str, Callable[[str], Value]]] = {
    "length": len,
    "lower": str.lower,
    "ltrim": lambda text: text.lstrip(" \t"),
    "numbytes": lambda text: len(text.encode(errors="replace")),
    "rtrim": lambda text: text.rstrip(" \t"),
    "trim": str.strip,
    "upper": str.upper,
}
_TEXTS: Final[Mapping[str, tuple[int, Callable[..., Value]]]] = {
    "endswith": (2, str.endswith),
    "indexof": (2, str.find),
    "regexp_matches": (2, patterns.matches),
    "regexp_replace": (3, patterns.replaced),
    "regexp_substr": (2, patterns.substring),
    "replace": (3, _replace),
    "startswith": (2, str.startswith),
}
_FUNCTIONS: Final[Mapping[str, tuple[int, int, Function]]] = {
    # name: least and most arguments
    "abs": (1, 1, _absolute),
    "accountid": (0, 0, lambda context, _: context.account_id),
    "atan2": (2, 2, partial(_double, math.atan2)),
    "bitand": (2, 2, partial(_bits, lambda left, right: left & right)),
    "bitnot": (1, 1, partial(_bits, lambda number: ~number)),
    "bitor": (2, 2, partial(_bits, lambda left, right: left | right)),
    "bitxor": (2, 2, partial(_bits, lambda left, right: left ^ right)),
    "ceil": (1, 1, partial(_round_to_int, ROUND_CEILING)),
    "chr": (1, 1, _chr),
    "clientid": (0, 0, lambda context, _: "n/a" if context.client_id is None else context.client_id),
    "concat": (1, _MANY, _concat),
    "decode": (2, 2, _decode),
    "encode": (2, 2, _encode),
    "floor": (1, 1, partial(_round_to_int, ROUND_FLOOR)),
    "get": (2, 2, _get),
    "get_mqtt_property": (1, 1, _mqtt_property),
    "get_thing_shadow": (2, 3, _shadow),
    "get_user_properties": (0, 1, _user_properties),
    "isnull": (1, 1, lambda _, arguments: arguments[0] is None),
    "isundefined": (1, 1, lambda _, arguments: arguments[0] is UNDEFINED),
    "lpad": (2, 2, partial(_pad, True)),
    "mod": (2, 2, _remainder),
    "nanvl": (2, 2, _nanvl),
    "newuuid": (0, 0, lambda context, _: context.uuid()),
    "parse_time": (2, 3, _parse_time),
    "power": (2, 2, partial(_double, math.pow)),
    "principal": (0, 0, lambda context, _: _present(context.principal)),
    "rand": (0, 0, lambda context, _: to_double(context.uniform(0.0, 1.0))),
    "remainder": (2, 2, _remainder),
    "round": (1, 1, partial(_round_to_int, ROUND_HALF_UP)),
    "rpad": (2, 2, partial(_pad, False)),
    "sign": (1, 1, _sign),
    "sql_version": (0, 0, lambda context, _: context.version),
    "substring": (2, 3, _substring),
    "time_to_epoch": (2, 2, _time_to_epoch),
    "timestamp": (0, 0, lambda context, _: round(context.now * 1000)),
    "topic": (0, 1, _topic),
    "traceid": (0, 0, lambda context, _: _present(context.trace_id)),
    "transform": (3, 3, _transform),
    "trunc": (2, 2, _trunc),
    **{name: (1, 1, partial(_double, function)) for name, function in _ONE_DOUBLE.items()},
    **{name: (1, 1, partial(_on_text, function)) for name, function in _ONE_TEXT.items()},
    **{name: (count, count, partial(_on_texts, function)) for name, (count, function) in _TEXTS.items()},
    **{name: (1, 1, partial(_on_text, partial(_hash, name))) for name in _HASHES},
}
ELSEWHERE: Final = frozenset(
    ["aws_lambda", "get_dynamodb", "get_registry_data", "get_secret", "machinelearning_predict", "md2", "sourceip"]
)
"""Known to AWS, and not to the emulator: a rule may have them, and fails."""
KNOWN_FUNCTIONS: Final = frozenset(_FUNCTIONS) | ELSEWHERE
SINCE_2016: Final = frozenset(
    {"decode", "encode", "get_dynamodb", "get_mqtt_property", "get_registry_data", "get_secret", "get_thing_shadow"}
    | {"get_user_properties", "indexof", "isundefined", "length", "numbytes", "parse_time", "time_to_epoch"}
    | {"transform"}
)
"""Not in SQL version 2015-10-08 (D)."""
