"""Regular expressions of AWS's service models, which are Java's, for Python. Pure.

The models use ``\\p{...}`` inside character classes, which ``re`` does not have; all else means the same in both.
"""

import re
import unicodedata
from functools import cache
from typing import Final

_PROPERTY: Final = re.compile(r"\\p\{(\w+)\}")
_POSIX: Final = {  # ASCII only in Java, unless asked otherwise
    "Cntrl": r"\x00-\x1f\x7f",
    "Digit": "0-9",
    "Graph": "!-~",
    "Upper": "A-Z",
}
_ASSIGNED_END: Final = 0x40000
"""Above are a few variation selectors, and else only code points of category C."""
_SELECTORS: Final = range(0xE0100, 0xE01F0)
_LAST: Final = 0x10FFFF


@cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern, to be used with ``fullmatch``: AWS wants the whole value to fit.

    ``\\w``, ``\\d`` and ``\\s`` are ASCII only in Java, as the POSIX classes are.
    """
    return re.compile(_PROPERTY.sub(lambda found: _members(found.group(1)), pattern), re.ASCII)


@cache
def _members(name: str) -> str:
    """The inside of a character class for a property."""
    if name in _POSIX:
        return _POSIX[name]
    if name not in ("C", "L", "N", "Z"):
        raise ValueError(f"property {name!r} is not known, expected one of C, L, N, Z, {', '.join(sorted(_POSIX))}")
    ranges: list[str] = []
    start: int | None = None
    for code in range(_ASSIGNED_END + 1):
        member = code < _ASSIGNED_END and unicodedata.category(chr(code)).startswith(name)
        if member and start is None:
            start = code
        elif not member and start is not None:
            ranges.append(_range(start, code - 1))
            start = None
    if name == "C":
        ranges.append(_range(_ASSIGNED_END, _SELECTORS.start - 1))
        ranges.append(_range(_SELECTORS.stop, _LAST))
    return "".join(ranges)


def _range(first: int, last: int) -> str:
    return f"\\U{first:08x}-\\U{last:08x}"
