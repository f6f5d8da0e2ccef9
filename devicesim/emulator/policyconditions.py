"""Condition blocks of policy documents (IAM user guide, "condition operators", which AWS IoT follows, D). Pure."""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from devicesim.emulator.policypattern import Pattern, variable_value


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
_PATTERN_TESTS = frozenset({"stringlike", "arnlike", "arnequals"})
"""Tests whose expected value is a pattern; ArnEquals behaves as ArnLike (D)."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One operator on one key, with the values of which one must fit (or, negated, none may)."""

    test: str
    """Lower case; a key of the tables above, or ``null``."""
    negated: bool
    if_exists: bool
    """An absent key satisfies the condition: ``...IfExists`` and ``ForAllValues:``."""
    key: str
    values: tuple[Pattern, ...]

    def holds(self, variables: Mapping[str, str]) -> bool:
        actual = variable_value(self.key, variables)
        if self.test == _NULL:
            return any((value.text.lower() == "true") == (actual is None) for value in self.values)
        if actual is None:
            return self.if_exists or self.negated
        return any(self._fits(value, actual, variables) for value in self.values) != self.negated

    def _fits(self, value: Pattern, actual: str, variables: Mapping[str, str]) -> bool:
        if self.test in _PATTERN_TESTS:
            return value.matches(actual, variables)
        expected = value.literal(variables)
        return expected is not None and _VALUE_TESTS[self.test](expected, actual)


def parse_operator(operator: str) -> tuple[str, bool, bool] | None:
    """Take ``StringNotLikeIfExists`` apart: test, negated, if-exists. ``None`` when there is no such operator."""
    name = operator.lower()
    prefix, colon, rest = name.partition(":")
    if_exists = False
    if colon:
        if prefix not in ("forallvalues", "foranyvalue"):
            return None
        if_exists = prefix == "forallvalues"  # every one of no values fits
        name = rest
    if name.endswith(_IF_EXISTS):
        name = name.removesuffix(_IF_EXISTS)
        if_exists = True
        if name == _NULL:
            return None
    negated = name in _NEGATED
    name = _NEGATED.get(name, name)
    if name != _NULL and name not in _VALUE_TESTS and name not in _PATTERN_TESTS:
        return None
    return name, negated, if_exists
