"""Patterns of policy documents: ``*``, ``?`` and policy variables. Pure.

A value that replaces a variable is taken literally: a client id of ``*`` is an asterisk and no wildcard. Where a
variable has no value, AWS leaves its text in the document, which then matches nothing a device can name (the guide
of 2022, cert-policy-variables, "limitations", D); here such a pattern matches nothing at all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

_TOKEN = re.compile(r"\$\{([^}]*)\}|[*?]")
_ESCAPES: Final = {"*": "*", "?": "?", "$": "$"}
"""``${*}``, ``${?}`` and ``${$}`` stand for the characters themselves."""
_CERTIFICATE_VARIABLE: Final = "iot:certificate."
_FORBIDDEN_IN_CERTIFICATE_VALUES: Final = frozenset("*$+?#")
"""A certificate's value that holds one of these is not put in (same page, "limitations", D)."""
_MAX_CERTIFICATE_VALUE: Final = 1024
"""Nor is one with more characters (same)."""


def variable_value(name: str, variables: Mapping[str, str]) -> str | None:
    """The value that replaces ``${name}``; the case of names does not matter, as with IAM's condition keys (D)."""
    value = variables.get(name)
    folded = name.lower()
    if value is None:
        value = next((held for key, held in variables.items() if key.lower() == folded), None)
    if value is None or not folded.startswith(_CERTIFICATE_VARIABLE):
        return value
    usable = len(value) <= _MAX_CERTIFICATE_VALUE and _FORBIDDEN_IN_CERTIFICATE_VALUES.isdisjoint(value)
    return value if usable else None


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str


class Wildcard(Enum):
    STAR = "*"
    """Any number of characters."""
    ANY = "?"
    """Any one character."""


_Part = str | _Variable | Wildcard
_Run = list[str | Wildcard]
"""What stands between two stars: single characters, or ``Wildcard.ANY``."""


class Pattern:
    """One pattern, taken apart once and matched many times."""

    __slots__ = ("_parts", "_runs", "text")

    def __init__(self, text: str, *, expand_variables: bool) -> None:
        """``expand_variables`` is off in documents of version 2008-10-17, where ``${`` is plain text."""
        self.text = text
        self._parts = _split(text, expand_variables)
        self._runs = None if any(isinstance(part, _Variable) for part in self._parts) else _runs(self._parts, {})

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def matches(self, subject: str, variables: Mapping[str, str], *, ignore_case: bool = False) -> bool:
        """Whether the whole of ``subject`` matches."""
        runs = _runs(self._parts, variables) if self._runs is None else self._runs
        if runs is None:
            return False
        if ignore_case:
            subject = subject.lower()
            runs = [[item if isinstance(item, Wildcard) else item.lower() for item in run] for run in runs]
        return _match(runs, subject)

    def literal(self, variables: Mapping[str, str]) -> str | None:
        """The text with variables replaced and wildcards as plain characters; ``None`` when one has no value."""
        text = ""
        for part in self._parts:
            if isinstance(part, _Variable):
                value = variable_value(part.name, variables)
                if value is None:
                    return None
                text += value
            elif isinstance(part, Wildcard):
                text += part.value
            else:
                text += part
        return text


def _split(text: str, expand_variables: bool) -> list[_Part]:
    parts: list[_Part] = []
    position = 0
    for token in _TOKEN.finditer(text):
        variable = token.group(1)
        if variable is not None and not expand_variables:
            continue
        if token.start() > position:
            parts.append(text[position : token.start()])
        if variable is not None:
            name = variable.strip()
            parts.append(_ESCAPES[name] if name in _ESCAPES else _Variable(name))
        else:
            parts.append(Wildcard(token.group()))
        position = token.end()
    if position < len(text):
        parts.append(text[position:])
    return parts


def _runs(parts: list[_Part], variables: Mapping[str, str]) -> list[_Run] | None:
    """The runs between stars, with variables replaced; ``None`` when one has no value."""
    runs: list[_Run] = [[]]
    for part in parts:
        if part is Wildcard.STAR:
            runs.append([])
        elif part is Wildcard.ANY:
            runs[-1].append(part)
        elif isinstance(part, _Variable):
            value = variable_value(part.name, variables)
            if value is None:
                return None
            runs[-1].extend(value)
        elif isinstance(part, str):
            runs[-1].extend(part)
    return runs


def _match(runs: list[_Run], subject: str) -> bool:
    """First run at the start, last at the end, the others one after another as early as they fit.

    Taking the earliest place is enough, since what follows it has the more room; no backtracking, so no document can
    make a match slow.
    """
    first, last = runs[0], runs[-1]
    if len(runs) == 1:
        return len(first) == len(subject) and _fits(first, subject, 0)
    end = len(subject) - len(last)
    if end < len(first) or not _fits(first, subject, 0) or not _fits(last, subject, end):
        return False
    position = len(first)
    for run in runs[1:-1]:
        latest = end - len(run)
        while position <= latest and not _fits(run, subject, position):
            position += 1
        if position > latest:
            return False
        position += len(run)
    return True


def _fits(run: _Run, subject: str, position: int) -> bool:
    return all(
        expected is Wildcard.ANY or expected == actual
        for expected, actual in zip(run, subject[position : position + len(run)], strict=True)
    )
