"""The regular expressions of rule SQL (developer guide, "Functions", D), each within a time. Pure.

Java's and Python's mean the same in what rules use, and both can take hours on a short text. AWS does not say what it
does about that; here the rule fails, since the emulator has one event loop.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import regex

from devicesim.emulator.topicrules.values import UNDEFINED, RuleEvaluationError, Value, bounded

SECONDS: Final = 0.1
"""For one call of a function."""
MAX_PATTERN: Final = 2048
"""Characters; compiling has no time limit, and a pattern may come from a device."""


@lru_cache(maxsize=256)
def _pattern(text: str) -> regex.Pattern[str] | None:
    """``None`` for what is no regular expression."""
    if len(text) > MAX_PATTERN:
        raise RuleEvaluationError(
            f"a regular expression of {len(text)} characters is too long, {MAX_PATTERN} are taken"
        )
    try:
        return regex.compile(text, regex.ASCII | regex.VERSION0, cache_pattern=False)
    except (regex.error, ValueError, RecursionError, OverflowError):  # ValueError: flags of regex's own
        return None


def _timed(call: Callable[[], Value]) -> Value:
    try:
        return call()
    except TimeoutError:
        raise RuleEvaluationError(f"a regular expression takes too much time, more than {SECONDS:g} s") from None


def matches(text: str, pattern: str) -> Value:
    compiled = _pattern(pattern)
    if compiled is None:
        return UNDEFINED
    return _timed(lambda: compiled.search(text, timeout=SECONDS) is not None)


def substring(text: str, pattern: str) -> Value:
    compiled = _pattern(pattern)
    if compiled is None:
        return UNDEFINED

    def find() -> Value:
        found = compiled.search(text, timeout=SECONDS)
        return UNDEFINED if found is None else found.group()

    return _timed(find)


def replaced(text: str, pattern: str, replacement: str) -> Value:
    compiled = _pattern(pattern)
    parts = None if compiled is None else _replacement(replacement, compiled.groups)
    if compiled is None or parts is None:
        return UNDEFINED
    length = 0

    def put(found: regex.Match[str]) -> str:
        nonlocal length
        made = "".join(part if isinstance(part, str) else found.group(part) or "" for part in parts)
        length += len(made)
        bounded(length)
        return made

    return _timed(lambda: compiled.sub(put, text, timeout=SECONDS))


def _replacement(text: str, groups: int) -> list[str | int] | None:
    """A replacement of Java's: ``$1`` is a group, a backslash takes the next character as it is; ``None`` if it is not
    one."""
    parts: list[str | int] = []
    index = 0
    while index < len(text):
        character = text[index]
        following = text[index + 1 : index + 2]
        if character == "\\":
            if not following:
                return None
            parts.append(following)
            index += 2
        elif character == "$":
            if not (following.isascii() and following.isdigit()) or int(following) > groups:
                return None
            parts.append(int(following))
            index += 2
        else:
            parts.append(character)
            index += 1
    return parts
