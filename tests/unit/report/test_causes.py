"""The likeliest causes of a run's failures, by its record alone: in one line, with their share."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devicesim.diagnosis.catalogue import CATALOGUE
from devicesim.diagnosis.findings import Cause
from devicesim.outcome import Failure, FailureKind, Stage
from devicesim.record.facts import RunStatus
from devicesim.record.store import RunReader
from devicesim.report import text
from devicesim.report.document import FailureSummary, LikeliestCause, Summary
from devicesim.report.summary import summarise

Write = Callable[..., Path]
REFUSED = Failure(kind=FailureKind.TCP_REFUSED, stage=Stage.TCP, detail="refused")
ENDED = Failure(kind=FailureKind.CLOSED_AFTER_CONNACK, stage=Stage.SESSION)


def summary_of(path: Path) -> Summary:
    with RunReader(path) as reader:
        return summarise(reader)


def failure(path: Path) -> FailureSummary:
    """The most frequent one."""
    return summary_of(path).failures[0]


@pytest.fixture
def drop(robots: Any) -> Failure:
    """What the made-up devices' first tries see."""
    first = robots.tries[0]
    assert isinstance(first, Failure)
    return first


def test_first_drop_of_a_device_that_was_then_provisioned_is_part_of_it(record: Write, robots: Any) -> None:
    seen = failure(record([robots]))

    assert seen.causes == (
        LikeliestCause(
            number=None,
            id="jit",
            text="part of JITR: the first connection is dropped, accepted on try 2",
            evidence="",
            groups=("robots-in-prod",),
            devices=3,
        ),
    )


def test_jitp_and_jitr_are_one_line(good: Path) -> None:
    jit, endpoint = failure(good).causes

    assert (jit.text, jit.devices) == (
        "part of JITP and JITR: the first connection is dropped, accepted on try 2",
        90,
    )
    assert (endpoint.id, endpoint.devices) == ("endpoint", 10)


def test_tries_until_accepted_are_told_as_a_range(record: Write, robots: Any, drop: Failure) -> None:
    slow = replace(robots, name="slow", tries=[drop, drop, None])

    (jit,) = failure(record([robots, slow])).causes

    assert jit.text.endswith("accepted on try 2 to 3")


def test_drop_that_is_no_part_of_provisioning_passed_by_itself(record: Write, robots: Any) -> None:
    passing = replace(robots, tries=[REFUSED, None])

    (cause,) = failure(record([passing])).causes

    assert (cause.number, cause.id, cause.text) == (None, "passed", "passed by itself: accepted on try 2")


def test_devices_that_were_never_accepted_get_the_likeliest_cause(record: Write, robots: Any, drop: Failure) -> None:
    path = record([replace(robots, tries=[drop] * 4, lands=None, sni_setting="literal:nobody-ats.iot.x.localhost")])

    (cause,) = failure(path).causes

    assert (cause.number, cause.id, cause.devices) == (14, "endpoint", 3)
    assert cause.evidence == "the server name 'nobody-ats.iot.x.localhost' is the endpoint of no account looked at"


def test_what_an_account_holds_tells_one_drop_from_another(record: Write, robots: Any, drop: Failure) -> None:
    """The same failure of three groups: nobody activates, revoked, and a part of JITR."""
    stuck = replace(robots, name="stuck", count=5, tries=[drop] * 5, status="PENDING_ACTIVATION")
    revoked = replace(robots, name="revoked", count=2, tries=[drop] * 5, status="REVOKED")

    causes = failure(record([robots, stuck, revoked])).causes

    assert [(cause.id, cause.devices) for cause in causes] == [("certificate", 7), ("jit", 3)]
    assert causes[0].evidence.startswith("PENDING_ACTIVATION in prod for ")


def test_most_frequent_comes_first_and_few_are_named(record: Write, robots: Any, drop: Failure) -> None:
    lost = replace(robots, tries=[drop] * 4, lands=None)
    many = [
        replace(lost, name="a", count=4, sni_setting="literal:nobody-ats.iot.x.localhost"),
        replace(lost, name="b", count=6, status="REVOKED", lands="prod"),
        replace(lost, name="c", count=2, sni_setting="other:dev"),
        replace(robots, name="d", count=5),
    ]

    causes = failure(record(many)).causes

    assert [(cause.id, cause.devices) for cause in causes] == [
        ("certificate", 6),
        ("jit", 5),
        ("endpoint", 4),
        ("sni", 2),
    ]


def test_cause_names_its_groups_first_that_of_its_evidence(record: Write, robots: Any, drop: Failure) -> None:
    lost = replace(robots, tries=[drop] * 4, lands=None)
    few = replace(lost, name="few", count=2, sni_setting="literal:a-ats.iot.x.localhost")
    many = replace(few, name="many", count=3, sni_setting="literal:b-ats.iot.x.localhost")

    (cause,) = failure(record([few, many])).causes

    assert (cause.devices, cause.groups) == (5, ("many", "few"))
    assert cause.evidence == "the server name 'b-ats.iot.x.localhost' is the endpoint of no account looked at"


@pytest.fixture
def suspected(record: Write, robots: Any, drop: Failure) -> Path:
    """Beside a healthy group one whose account could not be asked: from outside its policies are suspected no more and
    no less than its certificates' status."""
    path = record([robots, replace(robots, name="refused", tries=[drop] * 3, lands=None)])
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("DELETE FROM inventories")
    return path


def test_of_hints_alike_none_is_the_likeliest_cause(suspected: Path) -> None:
    assert [(cause.id, cause.devices) for cause in failure(suspected).causes] == [("jit", 3)]


def test_connection_that_was_lost_after_acceptance_is_looked_into(record: Write, robots: Any) -> None:
    path = record([replace(robots, tries=[ENDED])])

    (cause,) = failure(path).causes

    assert (cause.id, cause.devices) == ("policy", 3)


def test_devices_with_one_client_id_are_found_where_connections_are_lost(record: Write, robots: Any) -> None:
    path = record([replace(robots, tries=[ENDED])])
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("UPDATE devices SET client_id = 'robot'")

    (cause,) = failure(path).causes

    assert (cause.number, cause.id) == (11, "client-id")
    assert cause.evidence == "2 other devices of the run use the client id 'robot' too"


def test_run_that_was_cut_short_blames_no_device_that_would_have_tried_again(cut_short: Path) -> None:
    seen = failure(cut_short)

    assert [(cause.id, cause.devices) for cause in seen.causes] == [("jit", 30)]
    assert (seen.devices, seen.cut_short) == (42, 12)


@pytest.mark.parametrize("status", [RunStatus.ABORTED, RunStatus.INTERRUPTED, RunStatus.FINISHED])
@pytest.mark.parametrize("holds", ["ACTIVE", "PENDING_ACTIVATION", "REVOKED"])
def test_device_without_a_verdict_is_not_weighed_when_the_run_is_over(
    record: Write, robots: Any, drop: Failure, status: RunStatus, holds: str
) -> None:
    """Its first drop is on record, and its account, asked afterwards, has the certificate. Of a run that came to its
    end it is one that a lost worker had."""
    waiting = replace(robots, name="waiting", count=5, tries=[drop], status=holds, verdicts=False)

    seen = failure(record([robots, waiting], status=status))

    assert [(cause.id, cause.devices) for cause in seen.causes] == [("jit", 3)]
    assert (seen.tries, seen.first_tries, seen.devices, seen.cut_short) == (8, 8, 8, 5)


def test_device_that_came_to_its_end_before_the_run_was_ended_gets_its_cause(
    record: Write, robots: Any, drop: Failure
) -> None:
    gave_up = replace(robots, tries=[drop])

    (cause,) = failure(record([gave_up], status=RunStatus.ABORTED)).causes

    assert (cause.id, cause.devices) == ("first-drop", 3)


def test_device_that_was_on_its_way_back_when_the_run_was_ended_has_taken_no_drop_for_final(
    record: Write, robots: Any, drop: Failure
) -> None:
    """It was accepted, so that it has a verdict; but it lost its connection, and had tries left."""
    back = [replace(robots, tries=[None, ENDED, drop])]

    def named(status: RunStatus) -> set[str]:
        causes = next(each for each in summary_of(record(back, status=status)).failures if each.detail == drop.detail)
        return {cause.id for cause in causes.causes}

    assert "first-drop" not in named(RunStatus.ABORTED)


def test_live_record_names_what_devices_see_and_no_drop_taken_for_final(
    record: Write, robots: Any, drop: Failure
) -> None:
    trying = replace(robots, name="trying", tries=[drop], status="ACTIVE", verdicts=False)
    lost = replace(robots, name="lost", tries=[REFUSED] * 3, lands=None, verdicts=False)
    path = record([trying, lost])
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("UPDATE run SET status = 'running', ended_at = NULL")

    named = {each.kind: [cause.id for cause in each.causes] for each in summary_of(path).failures}

    assert named[FailureKind.TCP_REFUSED] == ["port"]
    assert "first-drop" not in named[FailureKind.CLOSED_BEFORE_CONNACK]
    assert {each.cut_short for each in summary_of(path).failures} == {0}


def test_run_whose_accounts_were_not_asked_says_what_the_devices_tell(unasked: Path) -> None:
    jit, endpoint = failure(unasked).causes

    assert (jit.id, endpoint.id) == ("jit", "endpoint")


def test_devices_that_share_a_certificate_are_each_counted(record: Write, robots: Any, drop: Failure) -> None:
    path = record([replace(robots, tries=[drop] * 4, status="REVOKED")])
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("UPDATE devices SET certificate_id = ?", (f"{0:064x}",))

    (cause,) = failure(path).causes

    assert (cause.id, cause.devices) == ("certificate", 3)


def test_provisioning_that_took_long_in_a_fast_fleet_was_throttled(record: Write, robots: Any, drop: Failure) -> None:
    """Which is no fault: they got in."""
    (cause,) = failure(record([replace(robots, count=60, tries=[drop] * 4 + [None])])).causes

    assert (cause.number, cause.id, cause.devices) == (None, "slowed", 60)
    assert cause.text == "slowed by quotas, 50 first connections came to prod within a second: accepted on try 5"


def test_each_failure_has_its_own_cause(record: Write, robots: Any) -> None:
    two = record([replace(robots, name="one", tries=[REFUSED] * 3, lands=None), replace(robots, name="two")])

    by_kind = {each.kind: each for each in summary_of(two).failures}

    assert [cause.id for cause in by_kind[FailureKind.TCP_REFUSED].causes] == ["port"]
    assert [cause.id for cause in by_kind[FailureKind.CLOSED_BEFORE_CONNACK].causes] == ["jit"]


# --- in the terminal ---


@pytest.mark.parametrize("width", [80, 140])
def test_causes_stand_under_what_was_seen_with_their_share(good: Path, width: int) -> None:
    words = " ".join(text.as_text(summary_of(good), width=width).split())

    assert (
        "closed by the peer part of JITP and JITR: the first connection is dropped, accepted on try 2, 90 of 100"
        in words
    )
    assert "likeliest cause (14 endpoint): the endpoint's name is a legacy or hand-made one, 10 of 100 devices" in words


def test_cause_of_all_devices_has_no_share(record: Write, robots: Any) -> None:
    lines = text.as_text(summary_of(record([replace(robots, tries=[REFUSED] * 2, lands=None)])), width=140).splitlines()

    assert "  likeliest cause (15 port): wrong port, or a TLS handshake that fails for neither name nor trust" in lines
    assert "    robots-in-prod: the TCP connection to its endpoint was refused: nothing listens there" in lines


@pytest.mark.parametrize("cause", CATALOGUE, ids=lambda cause: cause.id)
def test_every_cause_is_one_line_and_two_at_the_most_on_a_narrow_terminal(
    record: Write, robots: Any, cause: Cause
) -> None:
    summary = summary_of(record([replace(robots, tries=[REFUSED] * 2, lands=None)]))
    told = LikeliestCause(
        number=cause.number, id=cause.id, text=cause.title, evidence="x", groups=("g",), devices=10_000
    )
    only = summary.failures[0].model_copy(update={"causes": (told,), "devices": 20_000})
    summary = summary.model_copy(update={"failures": (only,)})

    for width, most in ((140, 1), (80, 2)):
        lines = text.as_text(summary, width=width).splitlines()
        begin = next(n for n, line in enumerate(lines) if line.startswith("  likeliest cause"))
        end = next(n for n, line in enumerate(lines) if line == "    g: x")
        assert end - begin <= most
        assert " ".join(line.strip() for line in lines[begin:end]).endswith("10000 of 20000 devices")


def test_rows_of_failures_stand_under_one_head_with_their_causes_between(record: Write, robots: Any) -> None:
    two = [replace(robots, name="one", count=12, tries=[REFUSED] * 3, lands=None), replace(robots, name="two")]

    lines = text.as_text(summary_of(record(two)), width=100).splitlines()

    begin = lines.index("Failed tries, by what was seen")
    assert lines[begin + 1 : begin + 10] == [
        "what was seen            tries   first tries   devices",
        "──────────────────────────────────────────────────────",
        "TCP connection refused      36            12        12",
        "refused",
        "  likeliest cause (15 port): wrong port, or a TLS handshake that fails for neither name nor trust",
        "    one: the TCP connection to its endpoint was refused: nothing listens there",
        "closed before CONNACK        3             3         3",
        "closed by the peer",
        "  part of JITR: the first connection is dropped, accepted on try 2",
    ]


def test_devices_without_a_cause_are_counted(suspected: Path) -> None:
    lines = text.as_text(summary_of(suspected), width=100).splitlines()

    assert "  no cause stands out, 3 of 6 devices" in lines


def test_devices_that_were_cut_short_are_counted_apart_from_those_without_a_cause(cut_short: Path) -> None:
    lines = text.as_text(summary_of(cut_short), width=100).splitlines()

    assert "  cut short by the end of the run, 12 of 42 devices" in lines
    assert not [line for line in lines if "no cause stands out" in line]


def test_devices_of_a_lost_worker_were_not_cut_short_by_the_end_of_a_run_that_came_to_it(
    record: Write, robots: Any, drop: Failure
) -> None:
    waiting = replace(robots, name="waiting", count=5, tries=[drop], verdicts=False)

    lines = text.as_text(summary_of(record([robots, waiting], status=RunStatus.FINISHED)), width=100).splitlines()

    assert "  cut short by the end of their process, 5 of 8 devices" in lines


def test_causes_are_in_the_published_schema() -> None:
    schema = Summary.model_json_schema()

    assert "LikeliestCause" in schema["$defs"]
    assert schema["$defs"]["FailureSummary"]["properties"]["causes"]["items"] == {"$ref": "#/$defs/LikeliestCause"}
    assert Summary.model_json_schema()["$defs"]["LikeliestCause"]["properties"]["number"]["description"]
