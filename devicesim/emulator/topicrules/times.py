"""Dates in rule SQL: the patterns of ``parse_time`` (Joda-Time's) and ``time_to_epoch`` (java.time's). Pure.

Names are English. A letter that is not known here raises ``ValueError``: the function's result is Undefined then.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_RUN: Final = re.compile(r"'(?:[^']|'')*'|([A-Za-z])\1*|[^A-Za-z']+|'")
_OFFSET: Final = re.compile(r"(?:UTC|GMT|UT)?([+-])(\d{1,2})(?::?(\d{2}))?(?::?(\d{2}))?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def find_zone(name: str) -> tzinfo:
    """A time zone by its id, its abbreviation in UTC, or its offset; ``ValueError`` when there is none."""
    if name in ("Z", "UTC", "GMT", "UT"):
        return UTC
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        sign, hours, minutes, seconds = offset.groups()
        delta = timedelta(hours=int(hours), minutes=int(minutes or 0), seconds=int(seconds or 0))
        return timezone(-delta if sign == "-" else delta)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}") from None


def format_time(pattern: str, milliseconds: int, zone: tzinfo) -> str:
    """The moment by a pattern of Joda-Time; ``ValueError`` for a pattern or moment that cannot be."""
    try:
        moment = (_EPOCH + timedelta(milliseconds=milliseconds)).astimezone(zone)
    except OverflowError:
        raise ValueError(f"{milliseconds} ms is out of range") from None
    return "".join(
        text if letter is None else _FORMATS[letter](moment, len(text)) for letter, text in _runs(pattern, _FORMATS)
    )


def _runs(pattern: str, known: Mapping[str, object]) -> Iterator[tuple[str | None, str]]:
    """The pattern's runs of one letter, and with ``None`` its literal text."""
    for found in _RUN.finditer(pattern):
        text, letter = found.group(), found.group(1)
        if letter is not None:
            if letter not in known:
                raise ValueError(f"the pattern letter {letter!r} is not known")
            yield letter, text
        elif text == "'":
            raise ValueError("the pattern has a quote that is not closed")
        elif text.startswith("'"):
            yield None, "'" if text == "''" else text[1:-1].replace("''", "'")
        else:
            yield None, text


def _digits(number: int, width: int) -> str:
    return str(number).zfill(width)


def _year(number: int, width: int) -> str:
    return _digits(number % 100, 2) if width == 2 else _digits(number, width)


def _text(names: Sequence[str], index: int, width: int) -> str:
    return names[index] if width >= 4 else names[index][:3]


def _offset(moment: datetime, separator: str) -> str:
    offset = moment.utcoffset() or timedelta()
    sign = "-" if offset < timedelta() else "+"
    minutes = abs(offset) // timedelta(minutes=1)
    return f"{sign}{minutes // 60:02}{separator}{minutes % 60:02}"


def _zone_offset(moment: datetime, width: int) -> str:
    """``Z``: without colon, with one, or the zone's id."""
    if width < 3:
        return _offset(moment, "" if width == 1 else ":")
    return getattr(moment.tzinfo, "key", None) or _zone_name(moment, 1)


def _zone_name(moment: datetime, width: int) -> str:
    name = moment.tzname() or "UTC"
    if name[0] in "+-" or name.startswith("UTC"):
        return "UTC" if not moment.utcoffset() else _offset(moment, ":")
    if width >= 4:
        raise ValueError("long names of time zones are not known")
    return name


_FORMATS: Final[Mapping[str, Callable[[datetime, int], str]]] = {
    "G": lambda _moment, _width: "AD",
    "C": lambda moment, width: _digits(moment.year // 100, width),
    "Y": lambda moment, width: _year(moment.year, width),
    "y": lambda moment, width: _year(moment.year, width),
    "x": lambda moment, width: _year(moment.isocalendar().year, width),
    "w": lambda moment, width: _digits(moment.isocalendar().week, width),
    "e": lambda moment, width: _digits(moment.isoweekday(), width),
    "E": lambda moment, width: _text(_DAYS, moment.weekday(), width),
    "D": lambda moment, width: _digits(moment.timetuple().tm_yday, width),
    "M": lambda moment, width: _text(_MONTHS, moment.month - 1, width) if width >= 3 else _digits(moment.month, width),
    "d": lambda moment, width: _digits(moment.day, width),
    "a": lambda moment, _width: "AM" if moment.hour < 12 else "PM",
    "K": lambda moment, width: _digits(moment.hour % 12, width),
    "h": lambda moment, width: _digits(moment.hour % 12 or 12, width),
    "H": lambda moment, width: _digits(moment.hour, width),
    "k": lambda moment, width: _digits(moment.hour or 24, width),
    "m": lambda moment, width: _digits(moment.minute, width),
    "s": lambda moment, width: _digits(moment.second, width),
    "S": lambda moment, width: f"{moment.microsecond:06}"[:width].ljust(width, "0"),
    "z": _zone_name,
    "Z": _zone_offset,
}

# --- time_to_epoch ---

_ZONE: Final = r"(?:[A-Za-z]+(?:/[A-Za-z0-9_+-]+)*[+-]?[0-9:]*|[+-]\d{1,2}(?::?\d{2})*)"


def _field(letter: str, width: int, following: bool) -> str:
    """The regular expression of one run; ``following`` says that digits follow at once, so the width is exact."""
    match letter:
        case "M" | "L" | "E" if width >= 3:
            names = _DAYS if letter == "E" else _MONTHS
            return "|".join(name if width >= 4 else name[:3] for name in names)
        case "G":
            return "AD"
        case "a":
            return "AM|PM"
        case "S":
            return rf"\d{{{width}}}"
        case "V" | "z":
            return _ZONE
        case "X" | "x" | "Z":
            return r"[+-]\d{2}(?::?\d{2})?|Z"
    if width == 1 and not following:
        return r"\d{1,19}"
    return r"-?\d{4,9}" if letter in "yu" and width == 4 and not following else rf"\d{{{width}}}"


_PARSED: Final = dict.fromkeys("GyuMLdEaHhKkmsSVzXxZ")


@lru_cache(maxsize=256)
def _compile(pattern: str) -> re.Pattern[str]:
    runs = list(_runs(pattern, _PARSED))
    expression = ""
    for index, (letter, text) in enumerate(runs):
        if letter is None:
            expression += re.escape(text)
            continue
        after = runs[index + 1][0] if index + 1 < len(runs) else None
        following = after is not None and after not in "GEaVzXxZ"
        expression += f"(?P<{letter}>{_field(letter, len(text), following)})"
    return re.compile(expression, re.ASCII)  # a letter twice: re.error, which is a ValueError's fate for the caller


def parse_epoch(text: str, pattern: str) -> int:
    """Milliseconds since the Unix epoch of a text by a pattern of java.time; UTC unless the text has a zone (D).

    ``ValueError`` when the text does not fit, or the pattern is not known here.
    """
    try:
        found = _compile(pattern).fullmatch(text)
    except re.error as exc:
        raise ValueError(f"the pattern {pattern!r} has a letter twice") from exc
    if found is None:
        raise ValueError(f"{text!r} does not fit the pattern {pattern!r}")
    fields = found.groupdict()

    def number(letters: str, default: int) -> int:
        return next((int(value) for letter in letters if (value := fields.get(letter)) is not None), default)

    year_text = fields.get("y") or fields.get("u")
    if year_text is None:
        raise ValueError(f"the pattern {pattern!r} has no year")
    year = int(year_text) + (2000 if len(year_text) == 2 else 0)
    hour = number("Hk", -1)
    if hour < 0:
        hour = number("hK", 0) % 12 + (12 if fields.get("a") == "PM" else 0)
    zone = next((find_zone(value) for letter in "VzXxZ" if (value := fields.get(letter))), UTC)
    fraction = int((fields.get("S") or "")[:6].ljust(6, "0"))
    try:
        moment = datetime(
            year, _month(fields), number("d", 1), hour % 24, number("m", 0), number("s", 0), fraction, tzinfo=zone
        )
        since = moment - _EPOCH
    except OverflowError as exc:
        raise ValueError(f"{text!r} is out of range") from exc
    return since // timedelta(milliseconds=1)


def _month(fields: Mapping[str, str | None]) -> int:
    text = fields.get("M") or fields.get("L")
    if text is None:
        return 1
    if text.isdigit():
        return int(text)
    return next(index for index, name in enumerate(_MONTHS, 1) if name[:3] == text[:3])
