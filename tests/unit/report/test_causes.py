"""The likeliest causes of a run's failures, by its record alone: in one line, with their share."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devicesim.outcome import Failure, FailureKind, Stage
from devicesim.record.store import RunReader
from devicesim.report import text
from devicesim.report.causes import MOST_CAUSES
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

    assert [cause.devices for cause in causes] == [6, 5, 4]
    assert len(causes) == MOST_CAUSES


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
    assert seen.devices == 42


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
    (cause,) = failure(record([replace(robots, count=60, tries=[drop] * 4 + [None])])).causes

    assert (cause.number, cause.id, cause.devices) == (8, "throttled", 60)
    assert cause.evidence == "50 first connections came to prod within a second; accepted on a later try"


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

    assert "likeliest cause (15 port): wrong port, or a TLS handshake that fails for neither name nor trust" in lines
    assert "  the TCP connection to its endpoint was refused: nothing listens there" in lines


def test_causes_are_in_the_published_schema() -> None:
    schema = Summary.model_json_schema()

    assert "LikeliestCause" in schema["$defs"]
    assert schema["$defs"]["FailureSummary"]["properties"]["causes"]["items"] == {"$ref": "#/$defs/LikeliestCause"}
    assert Summary.model_json_schema()["$defs"]["LikeliestCause"]["properties"]["number"]["description"]
