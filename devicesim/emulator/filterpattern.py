"""Filter patterns of CloudWatch Logs, as far as people type them at a log of JSON lines. Pure.

``""``, terms that must all be there (``ERROR "robot-000007"``), and comparisons of strings and numbers by path,
``{ $.clientId = "robot-*" }``, joined by ``&&`` or by ``||`` (CloudWatch Logs user guide, "Filter pattern syntax", D).
"""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Final

from devicesim.emulator.apierrors import APIError

Matches = Callable[[str, Mapping[str, object]], bool]
"""From a line, as text and as JSON, to whether it matches."""

_TERM: Final = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([A-Za-z0-9_]+))(?=\s|\Z)')
_CONDITION: Final = re.compile(
    r'\s*(?P<open>\(?)\s*\$\.(?P<path>[\w.]+)\s*(?P<sign>=|!=)\s*(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s"()&|]+))'
    r"\s*(?P<close>\)?)\s*(?P<join>&&|\|\||\Z)"
)


def compile_pattern(text: str) -> Matches:
    """Raises ``APIError`` for what is no pattern, or none that is read here."""
    text = text.strip()
    if text.startswith("{"):
        if not text.endswith("}"):
            raise _invalid(text)
        return _comparisons(text[1:-1], text)
    return _terms(text)


def _terms(text: str) -> Matches:
    terms, position = [], 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None:
            raise _invalid(text)
        terms.append(found[2] or (found[1] or "").replace('\\"', '"'))
        position = found.end()
    return lambda line, _members: all(term in line for term in terms)


def _comparisons(inner: str, whole: str) -> Matches:
    conditions: list[tuple[list[str], bool, str]] = []
    joins: set[str] = set()
    position = 0
    while True:
        found = _CONDITION.match(inner, position)
        if found is None or bool(found["open"]) != bool(found["close"]):
            raise _invalid(whole)
        wanted = found["bare"] if found["quoted"] is None else found["quoted"]
        conditions.append((found["path"].split("."), found["sign"] == "=", wanted))
        position = found.end()
        if not found["join"]:
            break
        joins.add(found["join"])
    if len(joins) > 1:
        raise _invalid(whole)
    decide = any if joins == {"||"} else all
    return lambda _line, members: decide(_holds(members, *each) for each in conditions)


def _holds(members: Mapping[str, object], path: list[str], equal: bool, wanted: str) -> bool:
    value: object = members
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    # of wildcards there is only the asterisk
    same = fnmatchcase(str(value), wanted.replace("[", "[[]").replace("?", "[?]"))
    return same is equal


def _invalid(text: str) -> APIError:
    read = "devicesim reads terms, and comparisons by = and != joined by either && or ||"
    return APIError("InvalidParameterException", f"Invalid filter pattern {text!r}; {read}")
