"""Without any control plane a diagnosis says what the device's side tells, modestly, and what it would need."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from devicesim.diagnosis.evidence import FleetEvidence
from devicesim.diagnosis.rank import diagnose
from devicesim.outcome import Failure, FailureKind, Stage
from tests.diagnosis_support import (
    DEV,
    DEV_NAME,
    DROP,
    JITP,
    PENDING,
    RECORD,
    TEMPLATE,
    evidence,
    failing,
    finding,
    ranked,
    unasked,
)

BLIND = [unasked(DEV)]

SEEN: dict[str, tuple[Sequence[Failure], dict[str, Any], int]] = {
    "one try, dropped": ([DROP], {"tries_allowed": 1}, 1),
    "one try, dropped, no server name": ([DROP], {"tries_allowed": 1, "server_name": None}, 3),
    "many tries, dropped": ([DROP] * 5, {}, 2),
    "many tries, dropped, no server name": ([DROP] * 5, {"server_name": None}, 3),
    "many tries, dropped, a name of nobody": ([DROP] * 5, {"server_name": "x-ats.iot.eu-central-1.example"}, 14),
    "alert unknown_ca": ([failing(FailureKind.TLS_ALERT, Stage.CONNECT, "unknown_ca")] * 2, {}, 2),
    "alert certificate_revoked": ([failing(FailureKind.TLS_ALERT, Stage.TLS, "certificate_revoked")], {}, 13),
    "CONNACK not authorized": ([failing(FailureKind.CONNACK_REFUSED, Stage.CONNACK, "0x87 Not authorized")] * 2, {}, 7),
    "CONNACK quota exceeded": ([failing(FailureKind.CONNACK_REFUSED, Stage.CONNACK, "0x97 Quota exceeded")] * 2, {}, 8),
    "server untrusted": ([failing(FailureKind.SERVER_CERTIFICATE_UNTRUSTED, Stage.TLS)], {}, 9),
    "taken over": ([failing(FailureKind.DISCONNECTED_BY_SERVER, Stage.SESSION, "0x8e Session taken over")], {}, 11),
    "HTTP on 443": ([failing(FailureKind.MQTT_PROTOCOL_ERROR, Stage.CONNACK, "HTTP/1.1 400")], {"port": 443}, 12),
    "dropped on 443": ([DROP], {"port": 443, "tries_allowed": 1}, 12),
    "server's certificate not valid": ([failing(FailureKind.SERVER_CERTIFICATE_EXPIRED, Stage.TLS)], {}, 13),
    "TCP refused": ([failing(FailureKind.TCP_REFUSED, Stage.TCP)], {}, 15),
    "TCP not answered": ([failing(FailureKind.TIMEOUT, Stage.TCP)], {}, 15),
    "closed in the handshake": ([failing(FailureKind.CLOSED_IN_HANDSHAKE, Stage.TLS)], {}, 15),
}


@pytest.mark.parametrize("name", SEEN)
def test_what_the_device_saw_ranks_a_cause_first(name: str) -> None:
    failures, wire, number = SEEN[name]

    assert ranked(evidence(failures, accounts=BLIND, **wire))[0] == number


@pytest.mark.parametrize(
    "name", [name for name in SEEN if "dropped" in name and "nobody" not in name and "443" not in name]
)
def test_a_drop_alone_proves_nothing(name: str) -> None:
    failures, wire, _ = SEEN[name]

    assert max(each.score for each in diagnose(evidence(failures, accounts=BLIND, **wire)).findings) <= 4


def test_it_would_need_the_control_plane_and_says_with_which_permissions() -> None:
    needs = diagnose(evidence(accounts=BLIND)).would_need

    assert needs[0] == (
        "the control plane of dev (444455556666, eu-central-1): credentials that may read it"
        " (AWSIoTConfigReadOnlyAccess and iot:TestAuthorization)"
    )
    assert needs[1] == "dev (444455556666, eu-central-1): nothing could be asked: no credentials"


def test_it_would_need_the_log_and_says_how_it_is_put_on() -> None:
    needs = diagnose(evidence(accounts=BLIND)).would_need

    assert needs[-1].endswith(
        "aws iot set-v2-logging-options --role-arn ROLE_ARN --default-log-level ERROR"
        " --event-configurations eventType=Connection.AuthNError,logLevel=ERROR"
        " --region eu-central-1"
    )


def test_log_is_of_no_use_where_no_server_name_is_sent() -> None:
    """AWS logs no AuthNError without one (aws-iot-behaviour.md §8)."""
    assert not [need for need in diagnose(evidence(accounts=BLIND, server_name=None)).would_need if "log" in need]


def test_after_one_drop_it_would_need_a_second_try() -> None:
    assert any(need.startswith("a second try") for need in diagnose(evidence([DROP], accounts=BLIND)).would_need)
    assert not any(need.startswith("a second try") for need in diagnose(evidence(accounts=BLIND)).would_need)


def test_proven_cause_needs_nothing_more() -> None:
    proven = diagnose(evidence([failing(FailureKind.SERVER_CERTIFICATE_UNTRUSTED, Stage.TLS)], accounts=BLIND))

    assert proven.findings[0].score >= 9
    assert proven.would_need == ()


def test_account_of_which_half_could_be_asked_needs_the_other_half() -> None:
    no_cas = diagnose(evidence(accounts=[replace(DEV, cas=None)])).would_need
    no_record = diagnose(evidence(accounts=[replace(DEV, record_asked=False)])).would_need

    assert any("iot:ListCACertificates" in need for need in no_cas)
    assert any("iot:DescribeCertificate" in need for need in no_record)


def test_active_certificate_needs_its_policies() -> None:
    unknown = replace(RECORD, connect_allowed=None, policies=None)
    needs = diagnose(evidence(accounts=[replace(DEV, record=unknown)])).would_need

    assert any("iot:TestAuthorization" in need for need in needs)


def test_pending_certificate_needs_cloudtrail_and_the_role() -> None:
    unknown = replace(JITP, template=replace(TEMPLATE, role_asked=False))
    account = replace(DEV, record=PENDING, cas=(unknown,), provisioning=None, logs=None)
    needs = diagnose(evidence(accounts=[account])).would_need

    assert [need.partition(":")[0] for need in needs] == ["CloudTrail of dev", "IAM of dev"]


def test_name_that_does_not_resolve_is_looked_up_elsewhere() -> None:
    gone = evidence([failing(FailureKind.NAME_NOT_RESOLVED, Stage.TCP)], accounts=[replace(DEV, endpoint=None)])

    assert diagnose(gone).would_need == (f"whether the name resolves from another network: getent hosts {DEV_NAME}",)


def test_device_of_no_account_needs_one() -> None:
    assert diagnose(evidence(accounts=[], dials="nowhere")).would_need[0].startswith("the account that the device")


def test_peers_clear_what_all_of_them_share() -> None:
    """Others of its group get in: then it is not the CA, the name or the port, but something of its own."""
    found = ranked(evidence(accounts=BLIND, fleet=FleetEvidence(peers=9, peers_accepted=9)))

    assert set(found) == {7, 13}


def test_hints_say_that_they_are_hints() -> None:
    diagnosis = diagnose(evidence(accounts=BLIND))

    assert [(each.cause.number, each.score) for each in diagnosis.findings] == [(2, 3), (7, 1), (13, 1)]
    assert finding(diagnosis, 7).supporting[0].text == (
        "it was turned away as a device is whose policy does not let it connect"
    )
