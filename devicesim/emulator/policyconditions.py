"""Condition blocks of policy documents (IAM user guide, "condition operators", which AWS IoT follows, D). Pure."""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from devicesim.emulator.policypattern import ArnPattern, Pattern, Values, key_values


def _equal(expected: str, actual: str) -> bool:
    return expected == actual


def _equal_ignoring_case(expected: str, actual: str) -> bool:
    return expected.lower() == actual.lower()


def _number(compare: Callable[[Decimal, Decimal], bool]) -> Callable[[str, str], bool]:
    def test(expected: str, actual: str) -> bool:
        try:
            return compare(Decimal(actual), Decimal(expected))
        except InvalidOperation:
            return False

    return test


def _date(compare: Callable[[datetime, datetime], bool]) -> Callable[[str, str], bool]:
    def test(expected: str, actual: str) -> bool:
        try:
            return compare(_instant(actual), _instant(expected))
        except (ValueError, OverflowError):
            return False

    return test


def _instant(text: str) -> datetime:
    """ISO 8601, or seconds since the Unix epoch; without an offset, UTC."""
    if text.lstrip("-").replace(".", "", 1).isdigit():
        return datetime.fromtimestamp(float(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _in_network(expected: str, actual: str) -> bool:
    try:
        return ipaddress.ip_address(actual) in ipaddress.ip_network(expected, strict=False)
    except ValueError:
        return False


_VALUE_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "stringequals": _equal,
    "stringequalsignorecase": _equal_ignoring_case,
    "bool": _equal_ignoring_case,
    "binaryequals": _equal,
    "numericequals": _number(lambda actual, expected: actual == expected),
    "numericlessthan": _number(lambda actual, expected: actual < expected),
    "numericlessthanequals": _number(lambda actual, expected: actual <= expected),
    "numericgreaterthan": _number(lambda actual, expected: actual > expected),
    "numericgreaterthanequals": _number(lambda actual, expected: actual >= expected),
    "dateequals": _date(lambda actual, expected: actual == expected),
    "datelessthan": _date(lambda actual, expected: actual < expected),
    "datelessthanequals": _date(lambda actual, expected: actual <= expected),
    "dategreaterthan": _date(lambda actual, expected: actual > expected),
    "dategreaterthanequals": _date(lambda actual, expected: actual >= expected),
    "ipaddress": _in_network,
}
"""Tests of one expected value against the actual one."""
ARN_TESTS = frozenset({"arnlike", "arnequals"})
"""Tests whose expected value is a pattern of ARNs; ArnEquals behaves as ArnLike (D)."""
_PATTERN_TESTS = ARN_TESTS | {"stringlike"}
"""Tests whose expected value is a pattern."""
_NEGATED = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "numericnotequals": "numericequals",
    "datenotequals": "dateequals",
    "notipaddress": "ipaddress",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
}
_NULL = "null"
_IF_EXISTS = "ifexists"


class Quantifier(StrEnum):
    """How many of a key's values a condition is about (IAM user guide, "multivalued context keys", D)."""

    ONE = ""
    """The key has one value. Of several, one is enough; negated, none may fit (AWS says not to ask so; I)."""
    ALL = "forallvalues"
    """Every value of the key must satisfy it; a key without values does."""
    ANY = "foranyvalue"
    """One value must; a key without values does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """``ForAnyValue:StringNotLikeIfExists`` taken apart."""

    test: str
    """Lower case; a key of the tables above, or ``null``."""
    negated: bool = False
    if_exists: bool = False
    """An absent key satisfies the condition."""
    quantifier: Quantifier = Quantifier.ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One operator on one key, with the values of which one must fit (or, negated, none may)."""

    operator: Operator
    key: str
    values: tuple[Pattern | ArnPattern, ...]

    def holds(self, variables: Values) -> bool:
        operator = self.operator
        actual = key_values(self.key, variables)
        if operator.test == _NULL:
            return any((value.text.lower() == "true") == (actual is None) for value in self.values)
        if actual is None:
            if operator.quantifier is Quantifier.ONE:
                return operator.if_exists or operator.negated
            return operator.if_exists or operator.quantifier is Quantifier.ALL
        fitting = (self._fits(each, variables) for each in actual)
        match operator.quantifier:
            case Quantifier.ALL:
                return all(fits != operator.negated for fits in fitting)
            case Quantifier.ANY:
                return any(fits != operator.negated for fits in fitting)
            case Quantifier.ONE:
                return any(fitting) != operator.negated

    def _fits(self, actual: str, variables: Values) -> bool:
        """Whether one of the expected values fits."""
        return any(self._fits_one(value, actual, variables) for value in self.values)

    def _fits_one(self, value: Pattern | ArnPattern, actual: str, variables: Values) -> bool:
        if self.operator.test in _PATTERN_TESTS or isinstance(value, ArnPattern):
            return value.matches(actual, variables)
        expected = value.literal(variables)
        return expected is not None and _VALUE_TESTS[self.operator.test](expected, actual)


def parse_operator(text: str) -> Operator | None:
    """Take an operator apart; ``None`` when there is no such operator."""
    name = text.lower()
    quantifier = Quantifier.ONE
    prefix, colon, rest = name.partition(":")
    if colon:
        if prefix not in (Quantifier.ALL, Quantifier.ANY):
            return None
        quantifier, name = Quantifier(prefix), rest
    if_exists = name.endswith(_IF_EXISTS)
    name = name.removesuffix(_IF_EXISTS)
    if if_exists and name == _NULL:
        return None
    negated = name in _NEGATED
    name = _NEGATED.get(name, name)
    if name != _NULL and name not in _VALUE_TESTS and name not in _PATTERN_TESTS:
        return None
    return Operator(test=name, negated=negated, if_exists=if_exists, quantifier=quantifier)
