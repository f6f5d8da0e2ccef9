"""Readings of evidence that the causes share: what was seen, what its words tell, which account decides."""

from dataclasses import replace

import pytest

from devicesim.diagnosis.case import Sight, Telling, read, sight, telling
from devicesim.diagnosis.evidence import AccountEvidence
from devicesim.outcome import FailureKind, Stage
from tests.diagnosis_support import (
    DEFAULT,
    DEV,
    DEV_NAME,
    DROP,
    PENDING,
    PROD,
    PROD_NAME,
    RECORD,
    START,
    attempts,
    evidence,
    failing,
    unasked,
)


@pytest.mark.parametrize(
    ("kind", "stage", "expected"),
    [
        (FailureKind.CLOSED_BEFORE_CONNACK, Stage.CONNACK, Sight.REFUSED),
        (FailureKind.CONNECTION_RESET, Stage.TCP, Sight.NO_TCP),
        (FailureKind.CONNECTION_RESET, Stage.TLS, Sight.HANDSHAKE),
        (FailureKind.CONNECTION_RESET, Stage.CONNACK, Sight.REFUSED),
        (FailureKind.CONNECTION_RESET, Stage.SESSION, Sight.LOST),
        (FailureKind.TIMEOUT, Stage.TCP, Sight.NO_TCP),
        (FailureKind.TIMEOUT, Stage.TLS, Sight.HANDSHAKE),
        (FailureKind.TIMEOUT, Stage.CONNACK, Sight.SILENT),
        (FailureKind.TIMEOUT, Stage.SESSION, Sight.LOST),
        (FailureKind.MQTT_PROTOCOL_ERROR, Stage.CONNACK, Sight.NOT_MQTT),
        (FailureKind.MQTT_PROTOCOL_ERROR, Stage.SESSION, Sight.LOST),
        (FailureKind.LOCAL_RESOURCES, Stage.TCP, Sight.OURS),
    ],
)
def test_what_was_seen_is_told_by_kind_and_stage(kind: FailureKind, stage: Stage, expected: Sight) -> None:
    (attempt,) = attempts([failing(kind, stage)])

    assert sight(attempt) is expected


@pytest.mark.parametrize(
    ("alert", "expected"),
    [
        ("handshake_failure", Sight.HANDSHAKE),
        ("protocol_version", Sight.HANDSHAKE),
        ("certificate_unknown", Sight.REFUSED),
        ("unknown_ca", Sight.REFUSED),
        ("unrecognized_name", Sight.REFUSED),
    ],
)
def test_alert_is_of_the_handshake_or_of_who_asks(alert: str, expected: Sight) -> None:
    (attempt,) = attempts([failing(FailureKind.TLS_ALERT, Stage.TLS, alert)])

    assert sight(attempt) is expected


@pytest.mark.parametrize("kind", FailureKind)
@pytest.mark.parametrize("stage", Stage)
def test_every_failure_is_seen_as_something(kind: FailureKind, stage: Stage) -> None:
    (attempt,) = attempts([failing(kind, stage)])

    assert sight(attempt) not in (Sight.NOTHING, Sight.CONNECTED)


def test_no_try_and_a_try_that_was_cut_short_are_nothing() -> None:
    (attempt,) = attempts([None])

    assert sight(None) is Sight.NOTHING
    assert sight(attempt) is Sight.CONNECTED
    assert sight(replace(attempt, connack_code=None)) is Sight.NOTHING


@pytest.mark.parametrize(
    ("kind", "detail", "expected"),
    [
        (FailureKind.MQTT_PROTOCOL_ERROR, "PUBACK packet b'HTTP/1.1 4' where CONNACK must stand", Telling.HTTP),
        (FailureKind.TLS_PROTOCOL_ERROR, "http request", Telling.HTTP),
        (FailureKind.TLS_PROTOCOL_ERROR, "wrong version number", Telling.PLAIN_TEXT),
        (FailureKind.CONNACK_REFUSED, "0x87 Not authorized", Telling.NOT_AUTHORIZED),
        (FailureKind.CONNACK_REFUSED, "5 Connection Refused: not authorised.", Telling.NOT_AUTHORIZED),
        (FailureKind.CONNACK_REFUSED, "2 Connection Refused: identifier rejected.", Telling.CLIENT_ID),
        (FailureKind.CONNACK_REFUSED, "3 Connection Refused: broker unavailable.", Telling.QUOTA),
        (FailureKind.CONNACK_REFUSED, "0x97 Quota exceeded", Telling.QUOTA),
        (FailureKind.DISCONNECTED_BY_SERVER, "0x8e Session taken over", Telling.TAKEN_OVER),
        (FailureKind.CLOSED_BEFORE_CONNACK, "5 not a code here", Telling.NONE),
        (FailureKind.CLOSED_BEFORE_CONNACK, "close_notify", Telling.NONE),
    ],
)
def test_words_tell_what_the_kind_does_not(kind: FailureKind, detail: str, expected: Telling) -> None:
    assert telling(failing(kind, Stage.CONNACK, detail)) is expected


# --- which account decides ---

IN_DEFAULT = replace(PROD, record=replace(RECORD, mode="DEFAULT"))


@pytest.mark.parametrize(
    ("server_name", "accounts", "decider"),
    [
        (DEV_NAME, [DEV, PROD], "dev"),
        (DEV_NAME.upper(), [DEV, PROD], "dev"),
        (PROD_NAME, [DEV, PROD], "prod"),
        ("nobody.example", [DEV, PROD], None),
        (PROD_NAME, [DEV, replace(PROD, region="us-east-1")], None),
        (None, [DEV, PROD], "prod"),
        (None, [DEV, IN_DEFAULT], "prod"),
        (None, [replace(DEV, record=replace(RECORD, mode="DEFAULT")), IN_DEFAULT], None),
        (None, [DEV], None),
        (f"{DEV_NAME}.", [DEV], None),
        ("whatever.example", [replace(unasked(DEV), endpoint=None)], "dev"),
    ],
)
def test_server_name_decides_else_default_mode(
    server_name: str | None, accounts: list[AccountEvidence], decider: str | None
) -> None:
    case = read(evidence(server_name=server_name, accounts=accounts))

    assert (None if case.decider is None else case.decider.name) == decider


def test_default_mode_does_not_decide_without_the_chain() -> None:
    case = read(evidence(server_name=None, chain_sent=False, accounts=[replace(DEV, cas=(DEFAULT,))]))

    assert case.decider is None
    assert case.place is not None
    assert case.place.name == "dev"


def test_word_of_an_account_weighs_by_whether_it_decided() -> None:
    assert read(evidence()).proof == 9
    assert read(evidence(server_name=PROD_NAME, accounts=[DEV, PROD])).proof == 3
    assert read(evidence([failing(FailureKind.TIMEOUT, Stage.TLS)])).proof == 1


# --- times ---


def test_pending_counts_from_the_record_else_from_the_first_try() -> None:
    known = read(evidence([DROP], later=30, accounts=[replace(DEV, record=replace(PENDING, created=START - 60))]))
    unknown = read(evidence([DROP], later=30, accounts=[replace(DEV, record=replace(PENDING, created=None))]))

    assert known.pending_for == pytest.approx(90.2)
    assert unknown.pending_for == pytest.approx(30)
    assert read(evidence(accounts=[replace(DEV, record=RECORD)])).pending_for is None


@pytest.mark.parametrize(("modified", "after"), [(START + 30, True), (START + 8, True), (START, False), (None, None)])
def test_activation_is_held_against_the_last_try(modified: float | None, after: bool | None) -> None:
    record = replace(RECORD, created=None, modified=modified)

    assert read(evidence([DROP] * 3, accounts=[replace(DEV, record=record)])).activated_after_last_try is after


def test_device_with_tries_left_is_still_trying_for_a_moment() -> None:
    assert read(evidence([DROP], later=2)).still_trying
    assert not read(evidence([DROP], later=60)).still_trying
    assert not read(evidence([DROP], later=2, tries_allowed=1)).still_trying
