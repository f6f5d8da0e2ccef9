"""Rule SQL against whatever may come: any text, any expression, any payload."""

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from devicesim.emulator.topicrules.evaluation import run, substitute
from devicesim.emulator.topicrules.functions import KNOWN_FUNCTIONS, Context
from devicesim.emulator.topicrules.sql import VERSION_2015, VERSION_2016, RuleSQLError, parse, parse_template
from devicesim.emulator.topicrules.tree import Statement, Template
from devicesim.emulator.topicrules.values import RuleEvaluationError, read_json, same, write_json

WORDS = st.sampled_from(
    [
        *("SELECT", "FROM", "WHERE", "VALUE", "AS", "NOT", "CASE", "WHEN", "END", "SET", "@v", "a", "b.c", "*"),
        *("(", ")", "'x'", "'", '"', "{", "}", "[", "]", ",", ":", ".", "=", "<>", "<", "+", "-", "/", "%"),
        *("1", "1E9", "topic", "cast", "\n", "é"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**34) + 1, max_value=10**34 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc") | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
ATOMS = st.sampled_from(
    [
        *("a", "b.c", "*", "null", "TRUE", "'x'", "'1.5'", "'[a-'", "'true'", "0", "-1", "7", "2.5", "1E40", "''"),
        *("[a, 1]", "{'k': b}", "(SELECT * FROM a)", "(SELECT VALUE b FROM a WHERE c = 1)", "topic(2)"),
        *("'yyyy-MM-dd'", "timestamp()"),
    ]
)
OPERATORS = ("=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "AND", "OR", "IN")


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(inner, st.sampled_from(OPERATORS), inner)
    calls = st.tuples(st.sampled_from(sorted(KNOWN_FUNCTIONS)), st.lists(inner, max_size=3))
    casts = st.tuples(inner, st.sampled_from(["String", "Int", "Decimal", "Boolean", "Double"]))
    return st.one_of(
        binary.map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        calls.map(lambda parts: f"{parts[0]}({', '.join(parts[1])})"),
        casts.map(lambda parts: f"cast({parts[0]} AS {parts[1]})"),
        inner.map(lambda part: f"(NOT {part})"),
        inner.map(lambda part: f"(- {part})"),
        inner.map(lambda part: f"({part}).b"),
        st.tuples(inner, inner, inner).map(lambda each: f"CASE {each[0]} WHEN {each[1]} THEN {each[2]} END"),
        inner.map(lambda part: f"(EXISTS ({part}))"),
    )


EXPRESSIONS = st.recursive(ATOMS, _compound, max_leaves=6)


def context(payload: bytes, version: str = VERSION_2016) -> Context:
    return Context(
        payload=payload,
        topic="a/b",
        account_id="123456789012",
        version=version,
        now=1.5,
        uuid=lambda: "u",
        uniform=lambda low, high: low,
    )


@given(st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=60))
@settings(max_examples=400)
def test_any_text_is_a_statement_or_an_error_of_its_own(text: str) -> None:
    for version in (VERSION_2015, VERSION_2016):
        with suppress(RuleSQLError):
            assert isinstance(parse(text, version), Statement)
        with suppress(RuleSQLError):
            assert isinstance(parse_template("${" + text, version), Template)


@given(EXPRESSIONS, EXPRESSIONS, JSON.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=20))
@settings(max_examples=500, deadline=None)
def test_any_expression_on_any_payload_is_json_nothing_or_a_told_failure(one: str, other: str, payload: bytes) -> None:
    statement = parse(f"SELECT *, {one} AS x FROM 'a' WHERE isUndefined({other}) OR TRUE", VERSION_2016)
    try:
        output = run(statement, context(payload))
    except RuleEvaluationError:
        return
    assert output is not None
    written = read_json(output.decode())
    assert isinstance(written, dict)
    text = substitute(parse_template(f"<${{{one}}}>", VERSION_2016), statement, context(payload))
    value = written.get("x")
    if isinstance(value, str):
        assert text == f"<{value}>"


@given(JSON)
def test_what_is_read_is_written_again(document: Any) -> None:
    text = json.dumps(document)
    value = read_json(text)

    assert same(read_json(write_json(value)), value)
    again = json.loads(write_json(value), parse_float=Decimal)
    assert same(again, json.loads(text, parse_float=Decimal))
