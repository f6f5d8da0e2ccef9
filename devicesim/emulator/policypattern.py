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


Values = Mapping[str, str | tuple[str, ...]]
"""Values of policy variables and condition keys by name. A tuple is a key with several values, or none
(``iot:Certificate.Subject.CommonName.List``), which conditions compare and no text takes in."""


def key_values(name: str, variables: Values) -> tuple[str, ...] | None:
    """Every value of a condition key; ``None`` when it has none. The case of names does not matter, as in IAM (D)."""
    value = variables.get(name)
    folded = name.lower()
    if value is None:
        value = next((held for key, held in variables.items() if key.lower() == folded), None)
    if value is None:
        return None
    held = (value,) if isinstance(value, str) else value
    if folded.startswith(_CERTIFICATE_VARIABLE):
        held = tuple(each for each in held if _usable(each))
    return held or None


def variable_value(name: str, variables: Values) -> str | None:
    """The value that replaces ``${name}``, where it is a single one."""
    value = variables.get(name)
    if isinstance(value, tuple):
        return None
    if value is not None and not name.lower().startswith(_CERTIFICATE_VARIABLE):
        return value
    held = key_values(name, variables)
    return held[0] if held is not None and _is_single(name, variables) else None


def _is_single(name: str, variables: Values) -> bool:
    folded = name.lower()
    return all(isinstance(value, str) for key, value in variables.items() if key.lower() == folded)


def _usable(value: str) -> bool:
    return len(value) <= _MAX_CERTIFICATE_VALUE and _FORBIDDEN_IN_CERTIFICATE_VALUES.isdisjoint(value)


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str


class Wildcard(Enum):
    STAR = "*"
    """Any number of characters."""
    ANY = "?"
    """Any one character."""


_Part = str | _Variable | Wildcard
_Run = str | tuple[str | Wildcard, ...]
"""What stands between two stars: plain text, or single characters and ``Wildcard.ANY``."""


class Pattern:
    """One pattern, taken apart once and matched many times."""

    __slots__ = ("_folded", "_parts", "_runs", "text")

    def __init__(self, text: str, *, expand_variables: bool) -> None:
        """``expand_variables`` is off in documents of version 2008-10-17, where ``${`` is plain text."""
        self.text = text
        self._parts = _split(text, expand_variables)
        self._runs = None if any(isinstance(part, _Variable) for part in self._parts) else _runs(self._parts, {})
        self._folded = None if self._runs is None else [_lower(run) for run in self._runs]

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables in it."""
        return tuple(part.name for part in self._parts if isinstance(part, _Variable))

    def matches(self, subject: str, variables: Values, *, ignore_case: bool = False) -> bool:
        """Whether the whole of ``subject`` matches."""
        runs = (self._folded if ignore_case else self._runs) if self._runs is not None else None
        if runs is None:
            runs = _runs(self._parts, variables)
            if runs is None:
                return False
            if ignore_case:
                runs = [_lower(run) for run in runs]
        return _match(runs, subject.lower() if ignore_case else subject)

    def literal(self, variables: Values) -> str | None:
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


class ArnPattern:
    """A pattern that is compared with ARNs field by field: no wildcard reaches over the colon between two of them."""

    __slots__ = ("_fields", "text")

    def __init__(self, text: str, *, expand_variables: bool) -> None:
        self.text = text
        self._fields = tuple(Pattern(each, expand_variables=expand_variables) for each in _arn_fields(text))

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for each in self._fields for name in each.variables)

    def matches(self, subject: str, variables: Values) -> bool:
        if len(self._fields) < _ARN_FIELDS:  # no ARN: * alone, as a rule
            return len(self._fields) == 1 and self._fields[0].matches(subject, variables)
        fields = subject.split(":", _ARN_FIELDS - 1)
        return len(fields) == _ARN_FIELDS and all(
            pattern.matches(field, variables) for pattern, field in zip(self._fields, fields, strict=True)
        )


_ARN_FIELDS: Final = 6
_ARN_TOKEN: Final = re.compile(r"\$\{[^}]*\}|:")


def _arn_fields(text: str) -> list[str]:
    """The fields of an ARN; the colons in the names of variables separate nothing."""
    fields: list[str] = []
    start = 0
    for token in _ARN_TOKEN.finditer(text):
        if token.group() == ":" and len(fields) < _ARN_FIELDS - 1:
            fields.append(text[start : token.start()])
            start = token.end()
    return [*fields, text[start:]]


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


def _runs(parts: list[_Part], variables: Values) -> list[_Run] | None:
    """The runs between stars, with variables replaced; ``None`` when one has no value."""
    runs: list[list[str | Wildcard]] = [[]]
    for part in parts:
        if part is Wildcard.STAR:
            runs.append([])
        elif isinstance(part, _Variable):
            value = variable_value(part.name, variables)
            if value is None:
                return None
            runs[-1].append(value)
        else:
            runs[-1].append(part)
    return [_joined(run) for run in runs]


def _joined(pieces: list[str | Wildcard]) -> _Run:
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if len(texts) == len(pieces):
        return "".join(texts)
    return tuple(item for piece in pieces for item in ((piece,) if isinstance(piece, Wildcard) else piece))


def _lower(run: _Run) -> _Run:
    if isinstance(run, str):
        return run.lower()
    return tuple(item if isinstance(item, Wildcard) else item.lower() for item in run)


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
        position = _find(run, subject, position, end)
        if position < 0:
            return False
        position += len(run)
    return True


def _find(run: _Run, subject: str, start: int, end: int) -> int:
    """The first place from ``start`` where the run fits and ends before ``end``; -1 for none."""
    if isinstance(run, str):
        return subject.find(run, start, end)
    return next((place for place in range(start, end - len(run) + 1) if _fits(run, subject, place)), -1)


def _fits(run: _Run, subject: str, position: int) -> bool:
    if isinstance(run, str):
        return subject.startswith(run, position)
    return all(
        expected is Wildcard.ANY or expected == actual
        for expected, actual in zip(run, subject[position : position + len(run)], strict=True)
    )
