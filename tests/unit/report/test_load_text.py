"""What the report says of the load: thresholds as k6 prints them, the schedule, messages, what making it cost."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from devicesim.record.facts import Note, RunStatus, ThresholdRecord
from devicesim.record.metrics import MetricType
from devicesim.record.store import RunReader
from devicesim.report import text
from devicesim.report.document import Summary, ThresholdSummary
from devicesim.report.load_text import value_text
from devicesim.report.summary import summarise
from tests.report_support import BUSY, GOOD, START, THRESHOLDS, Robots, sample

Write = Callable[..., Path]

LISTED = """
Thresholds
provision_success
  ✓ rate>0.999   rate=100.00 %
provision_success{account:prod}
  ✓ rate > 0.99  rate=100.00 %
time_to_provision
  ✓ p(95)<5s     p(95)=3.51 s
  ✗ p(99)<200ms  p(99)=3.51 s
connect_seconds{group:robots-in-dev}
  ✓ med<0.2      med=10.6 ms
tls_seconds{group:nobody}
  ✗ max<1        no samples
dropped_starts
  ✓ count==0     count=0
attempts
  ✓ rate<1000    rate=17.614/s
"""
COST = """
Making the load
process   starts   CPU              event loop late   memory
────────────────────────────────────────────────────────────
devices      100   65 / 97 / 96 %   2 / 30 / 30 ms    90 MiB
CPU of one core: mean, largest in a second, while devices were started; late:
median / 99 % / largest
"""
MESSAGES = """
Messages
group       published   acknowledged   lost
───────────────────────────────────────────
telemetry          36             33      3
qos-0              21              -      -
all                57             33      3
"""


def summary_of(path: Path) -> Summary:
    with RunReader(path) as reader:
        return summarise(reader)


def report(path: Path, width: int = 80) -> str:
    return text.as_text(summary_of(path), width=width)


# --- thresholds ---


@pytest.mark.parametrize("width", [80, 140])
def test_thresholds_are_listed_by_metric_with_what_was_measured(record: Write, width: int) -> None:
    assert LISTED in report(record(GOOD, thresholds=THRESHOLDS), width)


def test_report_of_a_run_without_thresholds_does_not_speak_of_them(good: Path) -> None:
    assert "hreshold" not in report(good)


@pytest.mark.parametrize(
    ("listed", "line"),
    [
        (THRESHOLDS, "2 of 8 thresholds not met."),
        (THRESHOLDS[:3], "3 thresholds met."),
        (THRESHOLDS[3:4], "1 of 1 threshold not met."),
    ],
)
def test_one_line_at_the_end_says_whether_all_were_met(
    record: Write, listed: tuple[ThresholdRecord, ...], line: str
) -> None:
    lines = report(record(GOOD, thresholds=listed)).splitlines()

    assert lines[-2:] == ["All 100 devices ended as expected.", line]


def test_marks_are_words_where_only_ascii_is_known(record: Write) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=100)

    console.print(text.render(summary_of(record(GOOD, thresholds=THRESHOLDS))))

    lines = raw.getvalue().decode("ascii").splitlines()
    assert "  yes p(95)<5s     p(95)=3.51 s" in [line.rstrip() for line in lines]
    assert "  NO  p(99)<200ms  p(99)=3.51 s" in [line.rstrip() for line in lines]


@pytest.mark.parametrize(
    ("kind", "aggregation", "expression", "value", "words"),
    [
        (MetricType.RATE, "rate", "rate>0.99", 1.0, "100.00 %"),
        (MetricType.RATE, "rate", "rate==1", 0.99996, "99.996 %"),
        (MetricType.RATE, "rate", "rate>0.9", 2 / 3, "66.6667 %"),
        (MetricType.RATE, "rate", "rate>0.9", 0.0, "0.00 %"),
        (MetricType.TREND, "p(95)", "p(95)<5", 5.004, "5.004 s"),
        (MetricType.TREND, "p(95)", "p(95)<=5", 5.0, "5 s"),
        (MetricType.TREND, "p(95)", "p(95)<200ms", 0.2001, "0.2001 s"),
        (MetricType.TREND, "max", "max<1", 0.0123456, "12.3 ms"),
        (MetricType.COUNTER, "count", "count==0", 1_234_567.0, "1234567"),
        (MetricType.COUNTER, "rate", "rate>5", 12.3456789, "12.3457/s"),
    ],
)
def test_what_was_measured_is_told_apart_from_what_was_asked(
    kind: MetricType, aggregation: str, expression: str, value: float, words: str
) -> None:
    threshold = ThresholdSummary(
        metric="m",
        expression=expression,
        type=kind,
        aggregation=aggregation,
        value=value,
        ok=True,
        aborted=False,
    )

    assert value_text(threshold) == words


def test_run_that_a_threshold_ended_says_so_at_its_head_and_beside_the_threshold(record: Write) -> None:
    ended = replace(THRESHOLDS[3], abort_on_fail=True, aborted_at=START + 5)

    lines = report(record(GOOD, thresholds=[ended], status=RunStatus.ABORTED), 140)

    assert "aborted after 12.3 s: time_to_provision did not keep p(99)<200ms; open arrivals at 50 starts/s" in lines
    assert "  ✗ p(99)<200ms  p(99)=3.51 s, ended the run" in lines


def test_control_codes_in_a_metric_are_shown_not_sent(record: Write, robots: Robots) -> None:
    hostile = ThresholdRecord(metric="attempts{group:\x1b[31m}", expression="count>0")

    lines = report(record([robots], thresholds=[hostile]))

    assert "attempts{group:\\x1b[31m}" in lines
    assert "\x1b" not in lines


# --- the schedule ---


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({}, "open arrivals at 50 starts/s"),
        ({"rate": None, "schedule": "3 stages to 400 starts/s"}, "open arrivals, 3 stages to 400 starts/s"),
        (
            {"rate": None, "arrival": "closed", "schedule": "closed, 20 at a time"},
            "closed arrivals, 20 at a time",
        ),
        ({"rate": None, "schedule": ""}, "open arrivals;"),
    ],
)
def test_header_says_how_devices_arrive(record: Write, robots: Robots, load: dict[str, Any], words: str) -> None:
    assert words in report(record([robots], load=load)).splitlines()[1]


def test_header_says_which_starts_did_not_keep_the_schedule(record: Write, robots: Robots) -> None:
    groups = [replace(robots, late=1.5), replace(robots, name="short", count=5, recorded=4, dropped=1)]

    lines = report(record(groups)).splitlines()

    assert lines[2] == "1 of 7 starts more than 1 s late, 1 start dropped"


def test_header_does_not_speak_of_starts_that_kept_it(good: Path) -> None:
    assert report(good).splitlines()[2].startswith("group")


@pytest.mark.parametrize(
    ("late", "dropped", "what", "hint"),
    [
        (2.0, 0, "1 of 3 starts more than 1 s late", "Ask for a lower rate on this machine."),
        (0.0, 2, "2 starts dropped", "Raise arrival.max_under_way, or start fewer devices while the target is slow."),
    ],
)
def test_load_that_was_not_made_says_by_what_and_what_to_do(
    record: Write, robots: Robots, late: float, dropped: int, what: str, hint: str
) -> None:
    lines = report(record([replace(robots, count=3 + dropped, recorded=3, late=late, dropped=dropped)]), 200)

    assert lines.rstrip().endswith(f"The load asked for was not made: {what}; 1 % of a group's are forgiven. {hint}")


def test_starts_that_several_processes_dropped_may_be_those_of_a_lost_worker(record: Write, robots: Robots) -> None:
    samples = [sample(1, process=name) for name in ("coordinator", "worker 1")]
    gone = Note(at=START, kind="error", text="worker tls://127.0.0.1:1 is gone")
    path = record([replace(robots, count=5, recorded=3, dropped=2)], samples=samples, notes=[gone])

    assert "See errors for a worker that was lost; else raise arrival.max_under_way, or" in report(path, 200)


# --- messages, and what making the load cost ---


def test_messages_are_listed_by_group(record: Write, robots: Robots) -> None:
    groups = [
        replace(robots, name="telemetry", messages=(12, 11)),
        replace(robots, name="qos-0", messages=(7, None)),
        replace(robots, name="silent"),
    ]

    assert MESSAGES in report(record(groups))


def test_report_without_messages_or_samples_does_not_speak_of_them(good: Path) -> None:
    lines = report(good)

    assert "Messages" not in lines
    assert "Making the load" not in lines


def test_cost_of_the_load_is_a_line_a_process(record: Write) -> None:
    assert COST in report(record(GOOD, samples=BUSY))


def test_when_the_generator_is_the_bottleneck_times_are_upper_bounds(record: Write) -> None:
    lines = report(record(GOOD, samples=BUSY, thresholds=THRESHOLDS), 200)

    assert "Timings, as upper bounds\n" in lines
    assert "  ✓ p(95)<5s     p(95)=3.51 s, an upper bound\n" in lines
    assert "  ✓ rate>0.999   rate=100.00 %\n" in lines
    assert lines.rstrip().endswith(
        "The load generator was the bottleneck, not the target: devices used 96 % of a core while devices were started "
        "(more than 90 %). Times are upper bounds."
    )


def test_lateness_is_the_generators_own_and_no_upper_bound(record: Write) -> None:
    own = ThresholdRecord(metric="late_seconds{group:robots-in-prod}", expression="max<1")

    assert "  ✓ max<1  max=0.6 ms\n" in report(record(GOOD, samples=BUSY, thresholds=[own]))


def test_when_the_generator_keeps_up_times_are_the_targets(record: Write) -> None:
    lines = report(record(GOOD, samples=[sample(1), sample(2)]))

    assert "Timings\n" in lines
    assert "bottleneck" not in lines
