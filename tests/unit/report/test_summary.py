"""The summary: a fold over the record, deterministic, and honest about what is not there."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devicesim.cli.output import exit_code
from devicesim.errors import RecordError
from devicesim.outcome import DeviceOutcome, Failure, FailureKind, Stage
from devicesim.record.facts import RunFacts, RunStatus, ThresholdRecord
from devicesim.record.store import RunReader, RunWriter
from devicesim.record.verdict import UserExpectation
from devicesim.report.document import Example, GroupSummary, Summary
from devicesim.report.summary import MOST_FAILURES, summarise
from tests.report_support import GOOD, THRESHOLDS
from tests.schema_support import faults

Write = Callable[..., Path]


def summary_of(path: Path) -> Summary:
    with RunReader(path) as reader:
        return summarise(reader)


def group(summary: Summary, name: str) -> GroupSummary:
    return next(each for each in summary.groups if each.name == name)


# --- a run that agrees ---


def test_run_whose_devices_all_end_as_expected_agrees(good: Path) -> None:
    summary = summary_of(good)

    assert summary.agrees
    assert (summary.status, summary.duration_seconds, summary.arrival) == (RunStatus.FINISHED, 12.34, "open")
    assert summary.totals.model_dump() == {
        "devices": 100,
        "agree": 100,
        "disagree": 0,
        "not_started": 0,
        "undecided": 0,
        "attempts": 220,
        "starts": {"made": 100, "late": 0, "dropped": 0},
        "messages": None,
        "outcomes": {"provisioned": 90, "refused": 10},
    }
    assert [(each.name, each.agrees) for each in summary.groups] == [
        ("robots-in-prod", True),
        ("robots-in-dev", True),
        ("robots-without-sni", True),
        ("robots-with-a-wrong-name", True),
    ]


def test_group_says_what_should_happen_on_whose_word_and_what_did(good: Path) -> None:
    robots = group(summary_of(good), "robots-in-dev")

    (expected,), (observed,) = robots.expected, robots.observed
    assert (expected.devices, expected.text) == (30, "provisioned in dev (SNI_ONLY, thing)")
    assert (expected.row.id, expected.row.mark, expected.row.source) == (
        "10b.C3.sB",
        "D/I",
        "aws-iot-behaviour.md §10b: BLOG-MA",
    )
    assert [row.id for row in expected.rests_on] == ["3.jitp"]
    assert (observed.devices, observed.text, observed.thing) == (30, "provisioned in dev (SNI_ONLY, thing)", True)
    assert robots.first_try == {"closed_before_connack": 30}
    assert (robots.attempts, robots.attempts_max) == (60, 2)


def test_refused_devices_say_what_they_saw(good: Path) -> None:
    lost = group(summary_of(good), "robots-with-a-wrong-name")

    assert [each.text for each in lost.expected] == ["refused: closed before CONNACK"]
    assert [(each.devices, each.text) for each in lost.observed] == [(10, "refused: closed before CONNACK")]
    assert lost.observed[0].failure is not None
    assert lost.observed[0].failure.kind is FailureKind.CLOSED_BEFORE_CONNACK
    assert lost.time_to_provision is None


def test_stages_are_counted_each_by_itself(good: Path) -> None:
    robots = group(summary_of(good), "robots-in-prod")

    assert robots.stages.tcp is not None
    assert robots.stages.tls is not None
    assert robots.stages.connack is not None
    assert (robots.stages.tcp.count, robots.stages.connack.count) == (60, 30)
    assert robots.stages.tls.max == pytest.approx((0.0051 - 0.0004) * 1.99, abs=1e-6)
    assert robots.stages.connack.p50 == pytest.approx(0.0019 * 1.47, rel=0.05)
    assert robots.late_starts is not None
    assert robots.late_starts.count == 30
    assert robots.late_starts.max == pytest.approx(0.0006, abs=1e-6)


@pytest.mark.parametrize(("late", "generated"), [(0.9, True), (1.1, False)])
def test_starts_that_fall_behind_are_a_load_that_was_not_generated(
    record: Write, robots: Any, late: float, generated: bool
) -> None:
    summary = summary_of(record([replace(robots, late=late)]))

    assert summary.load_generated is generated
    assert summary.agrees
    assert exit_code(summary) == (0 if generated else 98)
    assert exit_code(summary.model_copy(update={"agrees": False})) == (99 if generated else 98)


@pytest.mark.parametrize(
    ("late_after", "tolerance", "generated"),
    [(1.0, 0.01, False), (2.0, 0.01, True), (1.0, 0.34, True), (1.0, 0.33, False)],
)
def test_the_file_says_what_is_late_and_what_is_forgiven(
    record: Write, robots: Any, late_after: float, tolerance: float, generated: bool
) -> None:
    load = {"late_after": late_after, "late_tolerance": tolerance}

    summary = summary_of(record([replace(robots, late=1.5)], load=load))

    assert summary.load_generated is generated
    assert summary.totals.starts.model_dump() == {"made": 3, "late": late_after < 1.5, "dropped": 0}


@pytest.mark.parametrize(("made", "dropped", "generated"), [(29, 1, False), (99, 1, True), (100, 0, True)])
def test_dropped_starts_are_a_load_that_was_not_generated(
    record: Write, robots: Any, made: int, dropped: int, generated: bool
) -> None:
    group = replace(robots, count=made + dropped, recorded=made, dropped=dropped)

    summary = summary_of(record([group, replace(robots, name="beside")]))

    assert summary.groups[0].starts.model_dump() == {"made": made, "late": 0, "dropped": dropped}
    assert summary.load_generated is generated
    assert summary.groups[0].not_started == dropped


def test_one_group_that_falls_behind_is_not_hidden_by_the_others(record: Write, robots: Any) -> None:
    many = replace(robots, name="many", count=500)

    summary = summary_of(record([many, replace(robots, name="few", late=1.5)]))

    assert summary.totals.starts.late / summary.totals.starts.made < summary.late_tolerance
    assert not summary.load_generated


# --- thresholds ---


def test_thresholds_are_held_against_what_is_on_record(record: Write) -> None:
    summary = summary_of(record(GOOD, thresholds=THRESHOLDS))

    assert [(each.expression, each.ok, each.aggregation, each.value) for each in summary.thresholds] == [
        ("rate>0.999", True, "rate", 1.0),
        ("rate > 0.99", True, "rate", 1.0),
        ("p(95)<5s", True, "p(95)", pytest.approx(3.5078, abs=0.03)),
        ("p(99)<200ms", False, "p(99)", pytest.approx(3.5078, abs=0.03)),
        ("med<0.2", True, "med", pytest.approx(0.0107, abs=0.0002)),
        ("max<1", False, "max", None),
        ("count==0", True, "count", 0.0),
        ("rate<1000", True, "rate", pytest.approx(220 / (99 * 0.02 + 10.5 + 0.0101), abs=0.1)),
    ]
    assert not summary.thresholds_met
    assert exit_code(summary) == 99


def test_run_that_keeps_its_thresholds_exits_with_0(record: Write) -> None:
    summary = summary_of(record(GOOD, thresholds=THRESHOLDS[:3]))

    assert summary.thresholds_met
    assert exit_code(summary) == 0


def test_load_that_was_not_generated_stands_before_a_threshold(record: Write, robots: Any) -> None:
    """What was measured under another load than the one asked for says nothing of the target."""
    summary = summary_of(record([replace(robots, late=2.0)], thresholds=THRESHOLDS[3:4]))

    assert not summary.thresholds_met
    assert exit_code(summary) == 98


def test_account_of_a_threshold_is_where_devices_are_expected(record: Write) -> None:
    tagged = [
        ThresholdRecord(metric=f"attempts{{{tags}}}", expression="count>0")
        for tags in ("account:prod", "account:dev", "account:dev,group:robots-in-prod")
    ]

    summary = summary_of(record(GOOD, thresholds=tagged))

    assert [each.value for each in summary.thresholds] == [160.0, 60.0, None]


def test_run_that_a_threshold_ended_says_which_and_exits_with_99(record: Write) -> None:
    """Also when what came after, while the run was wound up, would have kept it."""
    ended = replace(THRESHOLDS[2], abort_on_fail=True, aborted_at=1_760_000_003.0)

    summary = summary_of(record(GOOD, thresholds=[ended], status=RunStatus.ABORTED))

    (threshold,) = summary.thresholds
    assert (summary.status, threshold.ok, threshold.aborted) == (RunStatus.ABORTED, False, True)
    assert threshold.value is not None
    assert threshold.value < 5
    assert exit_code(summary) == 99


def test_devices_cut_short_are_not_provisioned_and_those_never_started_do_not_agree(record: Write, robots: Any) -> None:
    asked = [ThresholdRecord(metric=name, expression="rate==1") for name in ("provision_success", "agreement")]
    groups = [replace(robots, count=10, recorded=6), replace(robots, name="short", count=2, tries=(), verdicts=False)]

    summary = summary_of(record(groups, thresholds=asked, status=RunStatus.INTERRUPTED))

    assert [each.value for each in summary.thresholds] == [6 / 8, 6 / 12]


def test_damaged_threshold_is_a_damaged_record(record: Write, robots: Any) -> None:
    path = record([robots], thresholds=[ThresholdRecord(metric="attempts", expression="p(95)<5")])

    with pytest.raises(RecordError, match=r"is damaged: it holds the threshold 'p\(95\)<5'"):
        summary_of(path)


# --- messages ---


def test_messages_are_counted_by_group_and_in_all(record: Write, robots: Any) -> None:
    groups = [
        replace(robots, name="telemetry", messages=(12, 11)),
        replace(robots, name="more", messages=(5, 5)),
        replace(robots, name="qos-0", messages=(7, None)),
        replace(robots, name="silent"),
    ]

    summary = summary_of(record(groups))

    assert [each.messages and tuple(each.messages.model_dump().values()) for each in summary.groups] == [
        (36, 33, 3),
        (15, 15, 0),
        (21, None, None),
        None,
    ]
    assert summary.totals.messages is not None
    assert tuple(summary.totals.messages.model_dump().values()) == (72, 48, 3)


def test_accounts_say_what_they_hold(good: Path) -> None:
    prod, dev = summary_of(good).accounts

    assert (prod.name, prod.ca_mode, prod.provisioning, prod.before) == ("prod", "DEFAULT", "JITR", None)
    assert prod.after is not None
    assert dev.after is not None
    assert [tuple(each.model_dump().values()) for each in prod.after] == [("ACTIVE", "DEFAULT", 60, 60, 0)]
    assert [tuple(each.model_dump().values()) for each in dev.after] == [("ACTIVE", "SNI_ONLY", 30, 30, 30)]


def test_failures_are_grouped_by_what_was_seen_and_first_drops_are_counted_apart(good: Path) -> None:
    (failure,) = summary_of(good).failures

    assert (failure.kind, failure.stage, failure.detail) == ("closed_before_connack", "connack", "closed by the peer")
    assert (failure.text, failure.tries, failure.first_tries, failure.devices) == (
        "closed before CONNACK",
        130,
        100,
        100,
    )


# --- a run that does not ---


def test_disagreements_are_grouped_by_reason_with_their_first_devices(wrong: Path) -> None:
    summary = summary_of(wrong)
    (reason,) = group(summary, "robots-in-dev").disagreements

    assert not summary.agrees
    assert (summary.totals.agree, summary.totals.disagree) == (30, 65)
    assert (reason.reason, reason.devices) == (
        "expected provisioned in dev (SNI_ONLY, thing); provisioned in prod",
        30,
    )
    assert [each.device for each in reason.examples] == [30, 31, 32]
    assert reason.examples[0] == Example(
        device=30, client_id="walk-through-000030", certificate_id=f"{30:064x}", attempts=2
    )


def test_what_the_file_expects_stands_beside_the_oracle(wrong: Path) -> None:
    over_there = group(summary_of(wrong), "over-there")

    assert over_there.file_expects is not None
    assert (over_there.file_expects.text, over_there.file_expects.outcome) == ("refused", DeviceOutcome.REFUSED)
    assert [each.text for each in over_there.expected] == ["provisioned in dev (SNI_ONLY, thing)"]
    assert [each.reason for each in over_there.disagreements] == ["expected refused; provisioned in dev"]


@pytest.mark.parametrize(
    ("user", "text"),
    [
        (UserExpectation(outcome=DeviceOutcome.PROVISIONED, account="dev"), "provisioned in dev"),
        (UserExpectation(account="dev", mode="SNI_ONLY", thing=False), "in dev (SNI_ONLY, no thing)"),
        (UserExpectation(outcome=DeviceOutcome.NOT_STARTED), "not started"),
        (UserExpectation(), "as IoT Core should do"),
    ],
)
def test_what_the_file_expects_in_words(user: UserExpectation, text: str, record: Write, robots: Any) -> None:
    path = record([replace(robots, user=user)])

    file_expects = summary_of(path).groups[0].file_expects

    assert file_expects is not None
    assert file_expects.text == text


def test_notes_are_counted_and_errors_shown(wrong: Path) -> None:
    summary = summary_of(wrong)

    assert summary.notes == {"error": 1, "setup": 1}
    assert summary.errors == ("dev: AttachPolicy: \x1b[31mThrottlingException",)


# --- a run that was cut short ---


def test_devices_without_an_attempt_are_not_started_and_without_a_verdict_undecided(cut_short: Path) -> None:
    summary = summary_of(cut_short)
    in_prod, in_dev, without_sni = summary.groups

    assert (summary.status, summary.agrees, summary.ended_at) == (RunStatus.INTERRUPTED, False, None)
    assert (summary.totals.devices, summary.totals.undecided, summary.totals.not_started) == (560, 42, 518)
    assert [each.text for each in in_prod.observed] == ["cut short: accepted"]
    assert [(each.devices, each.text) for each in in_dev.observed] == [
        (488, "not started"),
        (12, "cut short: closed before CONNACK"),
    ]
    assert (without_sni.not_started, without_sni.first_try, without_sni.late_starts) == (30, {}, None)


def test_devices_that_were_never_recorded_are_counted_from_the_group(cut_short: Path) -> None:
    in_dev = group(summary_of(cut_short), "robots-in-dev")

    assert (in_dev.devices, in_dev.not_started, in_dev.undecided) == (500, 488, 12)
    assert [each.devices for each in in_dev.expected] == [500]


def test_duration_of_a_record_without_an_end_runs_to_its_last_try(cut_short: Path) -> None:
    assert summary_of(cut_short).duration_seconds == pytest.approx(29 * 0.02 + 3.5 + 0.0101, abs=1e-6)


def test_accounts_that_were_not_asked_hold_nothing_that_is_known(cut_short: Path) -> None:
    assert [each.after for each in summary_of(cut_short).accounts] == [None, None]


def test_record_of_nothing_does_not_agree(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    run = RunFacts(fleet="f", fleet_file="", version="0", target="aws", started_at=1.0)
    RunWriter.create(path, run).close()

    summary = summary_of(path)

    assert (summary.agrees, summary.groups, summary.duration_seconds) == (False, (), None)


def test_run_without_a_control_plane_is_not_confirmed(unasked: Path) -> None:
    summary = summary_of(unasked)

    assert summary.agrees
    assert [each.text for each in summary.groups[0].observed] == ["provisioned (account not confirmed)"]


def test_contradicted_connack_is_told_as_such(record: Write, robots: Any) -> None:
    path = record([replace(robots, lands=None)])

    (observed,) = summary_of(path).groups[0].observed

    assert (observed.outcome, observed.text) == ("failed", "failed: accepted, but no account holds it ACTIVE")


# --- the document ---


def test_same_record_gives_the_same_document(wrong: Path) -> None:
    assert summary_of(wrong).to_json() == summary_of(wrong).to_json()


def test_document_is_read_back_equal(wrong: Path) -> None:
    summary = summary_of(wrong)

    assert Summary.model_validate_json(summary.to_json()) == summary


@pytest.mark.parametrize("name", ["good", "wrong", "cut_short", "unasked"])
def test_document_is_as_its_published_schema_says(name: str, request: pytest.FixtureRequest) -> None:
    summary = summary_of(request.getfixturevalue(name))

    assert faults("summary", json.loads(summary.to_json())) == []


def test_document_has_a_schema_with_descriptions() -> None:
    schema = Summary.model_json_schema()

    assert schema["properties"]["agrees"]["description"] == "Every device ended as expected."
    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]) >= {"GroupSummary", "OracleRow", "Quantiles", "Held"}
    json.dumps(schema)


def test_long_tail_of_failures_is_counted_not_listed(record: Write, robots: Any) -> None:
    """Peers' words may differ from try to try; the document stays bounded."""
    many = [replace(robots, name=f"g{n}", count=1, lands=None, tries=[_reset(n)]) for n in range(MOST_FAILURES + 7)]

    summary = summary_of(record(many))

    assert (len(summary.failures), summary.failures_omitted) == (MOST_FAILURES, 7)


def _reset(number: int) -> Failure:
    return Failure(kind=FailureKind.CONNECTION_RESET, stage=Stage.TLS, detail=f"port {number:05}")
