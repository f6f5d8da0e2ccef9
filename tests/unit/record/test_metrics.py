"""Metrics: what is a sample of what, told live and read from the record alike, by tags."""

from dataclasses import replace
from typing import Any

import pytest

from devicesim.outcome import Attempt, DeviceOutcome, Stage, Verdict
from devicesim.record.metrics import (
    AGGREGATIONS,
    METRICS,
    Aggregation,
    Metrics,
    MetricType,
    Tags,
    should_provision,
    tags_of,
)
from devicesim.record.verdict import UserExpectation
from devicesim.rules import Expectation, Row
from tests.record_support import ACCEPTED, DROP, REFUSED, ROBOTS

OTHERS = Tags(group="others", account="dev")
TAKEN = 104.75 - 100.0
VERDICT = Verdict(
    device=0,
    outcome=DeviceOutcome.PROVISIONED,
    account="prod",
    mode="SNI_ONLY",
    thing=None,
    expected_outcome=DeviceOutcome.PROVISIONED,
    expected_account="prod",
    agrees=True,
    reason="",
    attempts=2,
    time_to_provision=TAKEN,
)
EXPECTATION = Expectation(
    outcome=DeviceOutcome.PROVISIONED,
    account="prod",
    mode=None,
    thing=None,
    first_try="closed_before_connack",
    row=Row(id="x", says="", mark="I", source=""),
)


def metrics() -> Metrics:
    return Metrics(late_after=1.0)


def value(of: Metrics, metric: str, method: str = "", *, elapsed: float = 10.0, **tags: str) -> float | None:
    """``method``: left out, the one that says the most of the type."""
    kind = METRICS[metric].type
    usual = {MetricType.TREND: "max", MetricType.RATE: "rate", MetricType.COUNTER: "count"}[kind]
    return of.value(METRICS[metric], Aggregation(method=method or usual), elapsed=elapsed, **tags)


def told(*attempts: Attempt, verdict: Verdict | None = VERDICT, counts: bool = True, over: bool = True) -> Metrics:
    """One device, from the record."""
    of = metrics()
    of.story(ROBOTS, attempts, verdict, counts=counts, over=over)
    return of


# --- what a device adds ---


def test_device_that_was_provisioned_on_its_second_try() -> None:
    of = told(REFUSED, ACCEPTED)

    assert {name: value(of, name) for name in METRICS} == {
        "provision_success": 1.0,
        "time_to_provision": TAKEN,
        "connect_seconds": 0.75,
        "tls_seconds": 0.375,
        "late_seconds": 0.25,
        "late_starts": 0.0,
        "dropped_starts": 0.0,
        "attempts": 2.0,
        "failed_attempts": 1.0,
        "agreement": 1.0,
        "published": None,
        "acknowledged": None,
        "publish_lost": None,
    }


def test_nothing_tried_is_no_samples_also_of_a_sum() -> None:
    """A sum of 0 keeps ``count==0``; one of nothing keeps no promise."""
    assert {value(metrics(), name) for name in METRICS} == {None}


@pytest.mark.parametrize(
    ("changes", "success"),
    [
        ({}, 1.0),
        ({"account": "dev"}, 0.0),
        ({"account": None}, 1.0),  # the accounts could not be asked
        ({"outcome": DeviceOutcome.FAILED, "account": None}, 0.0),
        ({"outcome": DeviceOutcome.PENDING}, 0.0),
        ({"outcome": DeviceOutcome.NOT_STARTED, "account": None}, None),
    ],
)
def test_provisioned_is_where_it_should_be_as_far_as_is_known(changes: dict[str, Any], success: float | None) -> None:
    assert value(told(REFUSED, ACCEPTED, verdict=replace(VERDICT, **changes)), "provision_success") == success


def test_device_that_should_not_be_provisioned_is_no_sample_of_success() -> None:
    assert value(told(REFUSED, counts=False), "provision_success") is None


@pytest.mark.parametrize(
    ("attempts", "over", "success", "agreement"),
    [
        ([REFUSED, ACCEPTED], False, 1.0, None),
        ([REFUSED], False, None, None),  # it may yet be
        ([], False, None, None),
        ([REFUSED, ACCEPTED], True, 1.0, 0.0),  # accepted, and the run ended before anybody could confirm it
        ([REFUSED], True, 0.0, 0.0),
        ([], True, 0.0, 0.0),  # cut short in its first try
    ],
)
def test_device_without_a_verdict_counts_when_the_run_is_over(
    attempts: list[Attempt], over: bool, success: float | None, agreement: float | None
) -> None:
    of = told(*attempts, verdict=None, over=over)

    assert (value(of, "provision_success"), value(of, "agreement")) == (success, agreement)
    assert value(of, "time_to_provision") == (TAKEN if len(attempts) == 2 else None)


def test_start_is_late_only_when_it_is_more_than_forgiven() -> None:
    of = metrics()
    for late in (-0.001, 0.5, 1.0, 1.001):  # the first: two clocks
        of.start(ROBOTS, late)

    assert value(of, "late_starts") == 1.0
    assert (value(of, "late_seconds", "min"), value(of, "late_seconds")) == (0.0, 1.001)


def test_dropped_start_is_neither_made_nor_late() -> None:
    of = metrics()
    of.start(ROBOTS, 0.0)
    of.drop(ROBOTS)
    of.drop(ROBOTS)

    assert (value(of, "dropped_starts"), value(of, "late_starts")) == (2.0, 0.0)
    assert len(of.trend("late_seconds").histogram) == 1


def test_refused_connack_is_no_connect_time() -> None:
    refused = replace(ACCEPTED, connack_code=5, failure=DROP)

    assert value(told(refused), "connect_seconds") is None


def test_failed_handshake_is_no_handshake_time() -> None:
    assert value(told(replace(REFUSED, reached={Stage.TCP: 0.1})), "tls_seconds") is None


# --- messages ---


def test_messages_are_counted_and_what_was_not_acknowledged_is_lost() -> None:
    of = told(REFUSED, replace(ACCEPTED, published=10, acknowledged=7))

    assert [value(of, name) for name in ("published", "acknowledged", "publish_lost")] == [10.0, 7.0, 3.0]


def test_with_qos_0_nothing_is_known_to_be_lost() -> None:
    of = told(REFUSED, replace(ACCEPTED, published=10))

    assert [value(of, name) for name in ("published", "acknowledged", "publish_lost")] == [10.0, None, None]


def test_connection_told_at_connack_now_and_then_and_at_its_end_is_one_try() -> None:
    """Told live as it goes, from the record once: the same sums."""
    live = [
        replace(ACCEPTED, published=0, acknowledged=0),
        replace(ACCEPTED, published=5, acknowledged=4),
        replace(ACCEPTED, published=9, acknowledged=9, failure=DROP),
    ]
    of = metrics()
    for former, attempt in zip([None, *live], live, strict=False):
        of.attempt(ROBOTS, attempt, former)

    once = metrics()
    once.attempt(ROBOTS, live[-1])
    assert of == once
    assert [value(of, name) for name in ("attempts", "failed_attempts", "publish_lost")] == [1.0, 1.0, 0.0]


def test_live_and_from_the_record_come_to_the_same() -> None:
    of = metrics()
    of.start(ROBOTS, REFUSED.start - REFUSED.intended_start)
    for attempt in (REFUSED, ACCEPTED):
        of.attempt(ROBOTS, attempt)
    of.device(ROBOTS, counts=True, provisioned=True, time_to_provision=TAKEN)
    of.agree(ROBOTS, True)

    assert of == told(REFUSED, ACCEPTED)


# --- summing up ---


def test_samples_are_told_apart_by_tags_which_must_all_match() -> None:
    of = metrics()
    of.start(ROBOTS, 0.1)
    of.start(OTHERS, 0.2)
    of.start(Tags(group="robots", account="dev"), 0.3)

    assert value(of, "late_seconds") == 0.3
    assert value(of, "late_seconds", group="robots", account="prod") == 0.1
    assert value(of, "late_seconds", account="prod") == 0.1
    assert value(of, "late_seconds", "min", account="dev") == 0.2
    assert value(of, "late_seconds", group="others", account="prod") is None


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (Aggregation(method="min"), 0.01),
        (Aggregation(method="avg"), 0.505),
        (Aggregation(method="med"), 0.5),
        (Aggregation(method="max"), 1.0),
        (Aggregation(method="p", percentile=90.0), 0.9),
        (Aggregation(method="p", percentile=99.9), 1.0),
        (Aggregation(method="p", percentile=0.0), 0.01),
    ],
)
def test_trend_is_summed_up(aggregation: Aggregation, expected: float) -> None:
    of = metrics()
    for n in range(100):
        of.start(ROBOTS, (n + 1) / 100)

    measured = of.value(METRICS["late_seconds"], aggregation, elapsed=1.0)

    assert measured == pytest.approx(expected, rel=1 / 128)


@pytest.mark.parametrize(("elapsed", "expected"), [(4.0, 0.5), (0.0, None)])
def test_rate_of_a_counter_is_a_second(elapsed: float, expected: float | None) -> None:
    assert value(told(REFUSED, ACCEPTED), "attempts", "rate", elapsed=elapsed) == expected


def test_every_metric_can_be_summed_up_in_every_way_of_its_type() -> None:
    of = told(REFUSED, replace(ACCEPTED, published=1, acknowledged=1))
    for metric in METRICS.values():
        for method in AGGREGATIONS[metric.type]:
            aggregation = Aggregation(method=method, percentile=50.0 if method == "p" else None)
            assert of.value(metric, aggregation, elapsed=1.0) is not None, f"{aggregation} of {metric.name}"


def test_metrics_that_call_other_starts_late_do_not_merge() -> None:
    with pytest.raises(ValueError, match=r"late after 2.0 s do not merge with those after 1.0 s"):
        metrics().merge(Metrics(late_after=2.0))


# --- tags ---


@pytest.mark.parametrize(
    ("outcome", "account", "user", "tag", "counts"),
    [
        (DeviceOutcome.PROVISIONED, "prod", None, "prod", True),
        (DeviceOutcome.REFUSED, None, None, "dialled", False),
        (
            DeviceOutcome.REFUSED,
            None,
            UserExpectation(outcome=DeviceOutcome.PROVISIONED, account="dev"),
            "dev",
            True,
        ),
        (DeviceOutcome.PROVISIONED, "prod", UserExpectation(outcome=DeviceOutcome.REFUSED), "dialled", False),
        (DeviceOutcome.PROVISIONED, "prod", UserExpectation(account="dev"), "dev", True),
    ],
)
def test_account_is_where_a_device_is_expected_else_the_one_dialled(
    outcome: DeviceOutcome, account: str | None, user: UserExpectation | None, tag: str, counts: bool
) -> None:
    oracle = replace(EXPECTATION, outcome=outcome, account=account)

    assert tags_of("robots", "dialled", oracle, user) == Tags(group="robots", account=tag)
    assert should_provision(oracle, user) is counts
