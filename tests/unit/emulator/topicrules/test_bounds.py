"""What a rule's author and a device together can ask of the event loop is bounded."""

import json
import time

import pytest

from devicesim.emulator.topicrules.evaluation import run, substitute
from devicesim.emulator.topicrules.functions import Context
from devicesim.emulator.topicrules.sql import VERSION_2016, parse, parse_template
from devicesim.emulator.topicrules.values import RuleEvaluationError

LARGEST = 128 * 1024 - 100
"""Bytes that fit into a payload beside a little JSON."""


def context(payload: object) -> Context:
    return Context(
        payload=json.dumps(payload).encode(),
        topic="a",
        account_id="111111111111",
        version=VERSION_2016,
        now=0.0,
        uuid=lambda: "u",
        uniform=lambda low, high: low,
    )


def doubling(text: str) -> str:
    """A statement whose last variable is the first one 2**40 times over."""
    variables = "".join(f", @v{n} = {text.format(f'@v{n - 1}')}" for n in range(1, 41))
    return f"SET @v0 = a{variables} SELECT @v40 AS b FROM 't'"


@pytest.mark.parametrize(
    ("sql", "payload"),
    [
        ("SELECT regexp_matches(a, '^(a|a)*$') AS b FROM 't'", {"a": "a" * 64 + "!"}),
        ("SELECT regexp_substr(a, '(a*)(a*)(a*)(a*)[^a]') AS b FROM 't'", {"a": "a" * LARGEST}),
        ("SELECT regexp_replace(a, '(a+)+!', 'b') AS b FROM 't'", {"a": "a" * 5000}),
        ("SELECT regexp_replace(a, 'x', a) AS b FROM 't'", {"a": "x" * LARGEST}),
        ("SELECT regexp_matches('a', a) AS b FROM 't'", {"a": "(a|b)*" * (LARGEST // 6)}),
        ("SELECT replace(a, 'x', a) AS b FROM 't'", {"a": "x" * LARGEST}),
        (f"SELECT [{', '.join(['*'] * 20_000)}] AS b FROM 't'", {"a": "x" * LARGEST}),
        (f"SELECT {', '.join(f'upper(a) AS b{n}' for n in range(10_000))} FROM 't'", {"a": "x" * LARGEST}),
        (
            f"SELECT (SELECT {', '.join(f'1+{n} AS b{n}' for n in range(1000))} FROM a) AS b FROM 't'",
            {"a": [1] * 30_000},
        ),
        (
            "SELECT transform('enrichArray', o, a) AS b FROM 't'",
            {"a": [{}] * 15_000, "o": dict.fromkeys(map(str, range(5000)), 1)},
        ),
        (doubling("concat({0}, {0})"), {"a": "x" * 100}),
        (doubling("[{0}, {0}]"), {"a": "x" * 100}),
    ],
)
def test_a_rule_that_would_hold_up_the_loop_fails_soon(sql: str, payload: object) -> None:
    statement, message = parse(sql, VERSION_2016), context(payload)
    began = time.process_time()
    with pytest.raises(RuleEvaluationError, match=r"too (?:much|long)"):
        run(statement, message)
    assert time.process_time() - began < 2.5  # most of it on the largest payload; without a bound it is hours


def test_a_substitution_template_of_a_large_payload_fails_soon() -> None:
    statement = parse("SELECT * FROM 't'", VERSION_2016)
    template = parse_template("${replace(a, 'x', a)}/${regexp_matches(a, '(x+x+)+y')}", VERSION_2016)
    began = time.process_time()
    with pytest.raises(RuleEvaluationError, match=r"too (?:much|long)"):
        substitute(template, statement, context({"a": "x" * LARGEST}))
    assert time.process_time() - began < 2.5


def test_the_largest_payload_can_be_worked_on() -> None:
    rows = [{"name": f"sensor-{n}", "value": n} for n in range(3500)]
    changed = "regexp_replace(upper(t), 'X+$', '') AS t, (SELECT name, value * 2 AS v FROM r WHERE value > 9) AS r"
    sql = f"SELECT *, {changed} FROM 't'"
    message = context({"r": rows, "t": "y" + "x" * 1000})
    output = run(parse(sql, VERSION_2016), message)
    assert output is not None
    made = json.loads(output)
    assert made["t"] == "Y"
    assert len(made["r"]) == 3490
