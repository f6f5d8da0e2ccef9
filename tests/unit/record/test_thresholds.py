"""Thresholds: k6's grammar, what does not fit a metric, what keeps a promise, and what ends a run."""

import re
from dataclasses import replace

import pytest

from devicesim.record.metrics import METRICS, Aggregation, Metrics, Tags
from devicesim.record.thresholds import (
    LiveThresholds,
    Threshold,
    evaluate,
    mismatch,
    parse_expression,
    parse_metric,
)
from tests.record_support import ACCEPTED, DROP, REFUSED, ROBOTS

ELSEWHERE = Tags(group="robots", account="dev")


# --- the grammar ---


@pytest.mark.parametrize(
    ("text", "method", "percentile", "operator", "value", "unit"),
    [
        ("rate>0.999", "rate", None, ">", 0.999, ""),
        ("p(95)<5s", "p", 95.0, "<", 5.0, "s"),
        ("p(99.9) <= 250ms", "p", 99.9, "<=", 0.25, "ms"),
        ("p( 50 )<2m", "p", 50.0, "<", 120.0, "m"),
        ("p(0)>=0", "p", 0.0, ">=", 0.0, ""),
        ("p(100)<35ms", "p", 100.0, "<", 0.035, "ms"),
        (" med < 0.2 ", "med", None, "<", 0.2, ""),
        ("count==0", "count", None, "==", 0.0, ""),
        ("count===0", "count", None, "===", 0.0, ""),
        ("count!=3", "count", None, "!=", 3.0, ""),
        ("avg<1.5", "avg", None, "<", 1.5, ""),
        ("min>=1ms", "min", None, ">=", 0.001, "ms"),
        ("max<1.5", "max", None, "<", 1.5, ""),
    ],
)
def test_expression_is_read(
    text: str, method: str, percentile: float | None, operator: str, value: float, unit: str
) -> None:
    read = parse_expression(text)

    assert read.aggregation == Aggregation(method=method, percentile=percentile)
    assert (read.operator, read.value, read.unit, read.text) == (operator, value, unit, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected an aggregation, an operator and a value, such as 'p(95)<5s'"),
        ("rate", "expected an aggregation"),
        ("rate>", "expected an aggregation"),
        ("rate=0.9", "expected an aggregation"),
        ("rate=>0.9", "expected an aggregation"),
        ("rate>-1", "expected an aggregation"),
        ("rate>1e3", "expected an aggregation"),
        ("rate>nan", "expected an aggregation"),
        ("rate>.5", "expected an aggregation"),
        ("p95<5", "expected an aggregation"),
        ("p(-1)<5", "expected an aggregation"),
        ("p()<5", "expected an aggregation"),
        ("p(95)<5 s", "expected an aggregation"),
        ("p(95)<5h", "expected an aggregation"),
        ("p(95)<5s && avg<1", "expected an aggregation"),
        ("rate>0.9\nrate>0.8", "expected an aggregation"),
        ("p<5", "'p' is not an aggregation; known: avg, min, max, med, p(N), rate, count"),
        ("med(50)<5", "'med' is not an aggregation"),
        ("value<5", "'value' is not an aggregation"),
        ("p(100.1)<5", "percentile 100.1 is not between 0 and 100"),
    ],
)
def test_what_is_no_expression_says_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "group", "account"),
    [
        ("attempts", None, None),
        ("attempts{group:robots}", "robots", None),
        ("attempts{account:prod}", None, "prod"),
        ("attempts{group:robots,account:prod}", "robots", "prod"),
        (" attempts { account : prod , group : robots } ", "robots", "prod"),
    ],
)
def test_metric_is_read_with_its_tags(text: str, group: str | None, account: str | None) -> None:
    read = parse_metric(text)

    assert (read.metric, read.group, read.account, read.text) == (METRICS["attempts"], group, account, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a metric is a name, or a name with tags such as 'connect_seconds{group:robots}'"),
        ("attempts{group:robots", "a metric is a name"),
        ("attempts}", "a metric is a name"),
        ("attempts{group:robots}{account:prod}", "a metric is a name"),
        ("http_req_duration", "no metric is called 'http_req_duration'; known: provision_success,"),
        ("attempts{}", "'' is not a tag; expected 'group:NAME' or 'account:NAME'"),
        ("attempts{group}", "'group' is not a tag"),
        ("attempts{group:}", "'group:' is not a tag"),
        ("attempts{region:us-east-1}", "'region:us-east-1' is not a tag"),
        ("attempts{group:a,}", "'' is not a tag"),
        ("attempts{group:a,group:b}", "two tags 'group'"),
    ],
)
def test_what_is_no_metric_says_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_metric(text)


@pytest.mark.parametrize(
    ("metric", "expression", "says"),
    [
        ("tls_seconds", "p(95)<5s", ""),
        ("tls_seconds", "max<5", ""),
        ("attempts", "rate<100", ""),
        ("attempts", "count>5", ""),
        ("agreement", "rate==1", ""),
        ("tls_seconds", "rate<1", "tls_seconds is a trend, which has no rate; it has avg, min, max, med, p(N)"),
        ("tls_seconds", "count<1", "which has no count"),
        ("attempts", "p(95)<1", "attempts is a counter, which has no p(95); it has count, rate"),
        ("agreement", "count>1", "agreement is a rate, which has no count; it has rate"),
        ("agreement", "rate>0.9s", "agreement is a rate, not a duration: its value has no unit"),
        ("attempts", "count>1m", "not a duration"),
        ("agreement", "rate>99", "agreement is a share between 0 and 1: write 99 % as 0.99"),
    ],
)
def test_what_a_metric_does_not_have_is_found(metric: str, expression: str, says: str) -> None:
    found = mismatch(METRICS[metric], parse_expression(expression))

    assert found == says if not says else says in found
    if says:
        with pytest.raises(ValueError, match=re.escape(says)):
            Threshold.parse(metric, expression)


# --- holding a run against them ---


def late(*seconds: float) -> Metrics:
    metrics = Metrics(late_after=1.0)
    for each in seconds:
        metrics.start(ROBOTS, each)
    return metrics


@pytest.mark.parametrize(
    ("expression", "ok"),
    [
        ("max<2", False),
        ("max<=2", True),
        ("max>2", False),
        ("max>=2", True),
        ("max==2", True),
        ("max===2", True),
        ("max!=2", False),
        ("max<2001ms", True),
        ("min<1m", True),
    ],
)
def test_every_operator_means_what_it_says(expression: str, ok: bool) -> None:
    result = evaluate(Threshold.parse("late_seconds", expression), late(0.5, 2.0), 1.0)

    assert result.ok is ok


@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "==", "!="])
def test_without_samples_no_threshold_is_met(operator: str) -> None:
    result = evaluate(Threshold.parse("late_starts", f"count{operator}0"), late(), 1.0)

    assert (result.value, result.ok) == (None, False)


def test_tags_narrow_what_is_measured() -> None:
    metrics = late(0.5)
    metrics.start(ELSEWHERE, 3.0)

    def measured(metric: str) -> float | None:
        return evaluate(Threshold.parse(metric, "max<1"), metrics, 1.0).value

    assert measured("late_seconds") == 3.0
    assert measured("late_seconds{account:prod}") == 0.5
    assert measured("late_seconds{account:prod,group:robots}") == 0.5
    assert measured("late_seconds{account:prod,group:others}") is None


# --- while the run goes on ---


def live(metric: str, expression: str, *, delay: float = 0.0, abort: bool = True) -> tuple[LiveThresholds, Threshold]:
    threshold = Threshold.parse(metric, expression, abort_on_fail=abort, delay=delay)
    return LiveThresholds([threshold], late_after=1.0), threshold


def test_threshold_ends_the_run_as_soon_as_it_does_not_hold() -> None:
    thresholds, threshold = live("late_seconds", "max<2")
    thresholds.started(ROBOTS, 1.9)
    before = thresholds.crossed(0.5)
    thresholds.started(ROBOTS, 2.1)

    assert (before, thresholds.crossed(1.0)) == (None, threshold)


def test_threshold_that_only_judges_ends_nothing() -> None:
    thresholds, _ = live("late_seconds", "max<2", abort=False)
    thresholds.started(ROBOTS, 9.0)

    assert thresholds.crossed(100.0) is None


def test_threshold_without_samples_does_not_end_the_run() -> None:
    thresholds, _ = live("provision_success", "rate>0.9")

    assert thresholds.crossed(100.0) is None


@pytest.mark.parametrize(("elapsed", "ends"), [(9.9, False), (10.0, True), (10.5, True)])
def test_threshold_waits_for_its_delay(elapsed: float, ends: bool) -> None:
    thresholds, threshold = live("late_seconds", "max<2", delay=10.0)
    thresholds.started(ROBOTS, 9.0)

    assert thresholds.crossed(elapsed) == (threshold if ends else None)


def test_first_of_the_file_is_named_when_several_do_not_hold() -> None:
    first, second = (
        Threshold.parse("late_seconds", expression, abort_on_fail=True) for expression in ("max<3", "max<2")
    )
    thresholds = LiveThresholds([first, second], late_after=1.0)
    thresholds.started(ROBOTS, 2.5)
    only_second = thresholds.crossed(1.0)
    thresholds.started(ROBOTS, 3.5)

    assert (only_second, thresholds.crossed(1.0)) == (second, first)


def test_device_counts_once_it_was_accepted_or_given_up() -> None:
    thresholds, threshold = live("provision_success", "rate>=0.5")
    thresholds.started(ROBOTS, 0.0)
    thresholds.attempt(ROBOTS, REFUSED)
    under_way = thresholds.crossed(1.0)
    thresholds.finished(ROBOTS, should_provision=True, time_to_provision=4.75)
    thresholds.finished(ROBOTS, should_provision=True, time_to_provision=None)
    half = thresholds.crossed(2.0)
    thresholds.finished(ROBOTS, should_provision=False, time_to_provision=None)
    still_half = thresholds.crossed(2.0)
    thresholds.finished(ROBOTS, should_provision=True, time_to_provision=None)

    assert (under_way, half, still_half, thresholds.crossed(3.0)) == (None, None, None, threshold)


def test_dropped_starts_end_a_run() -> None:
    thresholds, threshold = live("dropped_starts", "count==0")
    thresholds.started(ROBOTS, 0.0)
    before = thresholds.crossed(1.0)
    thresholds.dropped(ROBOTS)

    assert (before, thresholds.crossed(1.0)) == (None, threshold)


def test_connection_that_goes_on_is_one_try_however_often_it_is_told() -> None:
    thresholds, threshold = live("attempts", "count<=2")
    thresholds.attempt(ROBOTS, REFUSED)
    thresholds.attempt(ROBOTS, ACCEPTED)
    thresholds.attempt(ROBOTS, replace(ACCEPTED, failure=DROP), ACCEPTED)
    two = thresholds.crossed(1.0)
    thresholds.attempt(ROBOTS, replace(REFUSED, number=3))

    assert (two, thresholds.crossed(1.0)) == (None, threshold)
