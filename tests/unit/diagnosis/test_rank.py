"""Each of the fifteen causes ranks first on its clearest evidence; a healthy device gets none."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from devicesim.diagnosis.catalogue import CATALOGUE
from devicesim.diagnosis.evidence import DeviceEvidence, FleetEvidence, LogEvent, ProvisioningEvent
from devicesim.diagnosis.rank import _NO_CA_THERE, _ROWS, CAUSES, diagnose
from devicesim.outcome import FailureKind, Stage
from devicesim.rules import RULES, Then
from tests.diagnosis_support import (
    DEFAULT,
    DEV,
    DEV_NAME,
    DROP,
    JITP,
    JITR,
    LEAF,
    PENDING,
    PROD,
    PROD_NAME,
    RECORD,
    START,
    STRANGER,
    TEMPLATE,
    evidence,
    failing,
    finding,
    ranked,
    unasked,
)

LEGACY = DEV_NAME.replace("-ats", "")
FAST = FleetEvidence(first_tries_per_second=60, tries_per_second=80, peers=100, peers_accepted=30)
REFUSED_CA = (
    "account 'dev' (444455556666, eu-central-1): register_ca_certificate refused: CertificateValidationException: CA"
    " certificate is not valid. The CA certificate does not have the basicConstraints extension as true"
)
ACTIVATED = replace(RECORD, created=START + 0.1, modified=START + 2.5)


def template(**problems: object) -> DeviceEvidence:
    ca = replace(JITP, template=replace(TEMPLATE, **problems))  # type: ignore[arg-type]  # fields by name
    return evidence(accounts=[replace(DEV, cas=(ca,), record=PENDING)])


def trail(error: str, message: str) -> DeviceEvidence:
    event = ProvisioningEvent(time=START + 1, error=error, message=message)
    return evidence(accounts=[replace(DEV, record=PENDING, provisioning=(event,))])


def log(event_type: str, reason: str, *, details: str = "") -> DeviceEvidence:
    event = LogEvent(time=START + 0.2, event_type=event_type, reason=reason, details=details)
    return evidence(accounts=[replace(DEV, logs=(event,), cas=None, record_asked=False)])


CLEAREST: dict[str, tuple[int, Callable[[], DeviceEvidence]]] = {
    "one try, ACTIVE since": (
        1,
        lambda: evidence([DROP], tries_allowed=1, accounts=[replace(DEV, record=ACTIVATED)]),
    ),
    "one try, and one in a moment": (
        1,
        lambda: evidence([DROP], tries_allowed=1, later=1, accounts=[replace(DEV, record=PENDING)]),
    ),
    "three tries within a second": (
        1,
        lambda: evidence([DROP] * 3, gap=0.4, tries_allowed=3, accounts=[replace(DEV, record=ACTIVATED)]),
    ),
    "CA not registered": (2, lambda: evidence(accounts=[replace(DEV, cas=(), planned_mode=None)])),
    "CA not registered, though planned": (2, lambda: evidence(accounts=[replace(DEV, cas=())])),
    "CA not registered, one try": (2, lambda: evidence([DROP], tries_allowed=1, accounts=[replace(DEV, cas=())])),
    "CA INACTIVE": (2, lambda: evidence(accounts=[replace(DEV, cas=(replace(JITP, active=False),))])),
    "CA DISABLE": (2, lambda: evidence(accounts=[replace(DEV, cas=(replace(JITP, auto_registration=False),))])),
    "pending, CA INACTIVE": (
        2,
        lambda: evidence(accounts=[replace(DEV, record=PENDING, cas=(replace(JITP, active=False),))]),
    ),
    "CA in another account only": (
        2,
        lambda: evidence(
            accounts=[replace(DEV, cas=(), planned_mode=None), replace(PROD, record=replace(RECORD, mode="DEFAULT"))]
        ),
    ),
    "CA in another Region only": (
        2,
        lambda: evidence(accounts=[replace(DEV, cas=(), planned_mode=None), replace(PROD, region="us-east-1")]),
    ),
    "no server name": (3, lambda: evidence(server_name=None)),
    "no server name, certificate ACTIVE": (
        3,
        lambda: evidence(server_name=None, accounts=[replace(DEV, record=RECORD)]),
    ),
    "IP address as server name": (3, lambda: evidence(server_name="203.0.113.7")),
    "server name with a dot at its end": (3, lambda: evidence(server_name=f"{DEV_NAME}.")),
    "another account's server name": (
        3,
        lambda: evidence(server_name=PROD_NAME, accounts=[DEV, replace(PROD, cas=(), planned_mode=None)]),
    ),
    "another Region's server name": (
        3,
        lambda: evidence(server_name=PROD_NAME, accounts=[DEV, replace(PROD, region="us-east-1")]),
    ),
    "CA of the same subject with another key": (4, lambda: evidence(accounts=[replace(DEV, cas=(STRANGER,))])),
    "CA of the same key with another subject": (
        4,
        lambda: evidence(accounts=[replace(DEV, cas=(replace(JITP, same_subject=False, subject="CN=Other"),))]),
    ),
    "neither chain nor server name, CA DEFAULT": (
        4,
        lambda: evidence(server_name=None, chain_sent=False, accounts=[replace(DEV, cas=(DEFAULT,))]),
    ),
    "parameter missing": (5, lambda: template(missing_parameters=("AWS::IoT::Certificate::Country",))),
    "thing group missing": (5, lambda: template(missing_things=("thing group 'robots'",))),
    "thing name collides": (5, lambda: template(problems=("thing 'robot-000007' has another type",))),
    "CloudTrail blames the template": (
        5,
        lambda: trail(
            "InvalidRequestException", "Cannot resolve reference value: {Ref=AWS::IoT::Certificate::Country}"
        ),
    ),
    "role not there": (6, lambda: template(role_problem="there is no role 'jitp'")),
    "CloudTrail blames the role": (
        6,
        lambda: trail("AccessDeniedException", "not authorized to perform: iot:AddThingToThingGroup"),
    ),
    "CloudTrail: role not assumed": (6, lambda: trail("InvalidRequestException", "The role cannot be assumed")),
    "policy denies": (
        7,
        lambda: evidence(accounts=[replace(DEV, record=replace(RECORD, connect_allowed=False))]),
    ),
    "no policy": (
        7,
        lambda: evidence(accounts=[replace(DEV, record=replace(RECORD, policies=(), connect_allowed=False))]),
    ),
    "log says AUTHORIZATION_FAILURE": (7, lambda: log("Connect", "AUTHORIZATION_FAILURE")),
    "registrations over their quota": (8, lambda: evidence(fleet=FAST)),
    "RegisterThing over its quota": (8, lambda: evidence(fleet=FAST, accounts=[replace(DEV, record=PENDING)])),
    "CloudTrail says throttled": (8, lambda: trail("ThrottlingException", "Rate exceeded")),
    "CONNACK says quota exceeded": (
        8,
        lambda: evidence([failing(FailureKind.CONNACK_REFUSED, Stage.CONNACK, "0x97 Quota exceeded")] * 3),
    ),
    "one client id too fast": (
        8,
        lambda: evidence([DROP] * 3, gap=0.3, accounts=[replace(DEV, record=RECORD)], tries_allowed=9),
    ),
    "server untrusted": (
        9,
        lambda: evidence([failing(FailureKind.SERVER_CERTIFICATE_UNTRUSTED, Stage.TLS)], foreign_roots=True),
    ),
    "registration refused": (
        10,
        lambda: evidence(accounts=[replace(DEV, cas=())], fleet=FleetEvidence(errors=(REFUSED_CA,))),
    ),
    "DEFAULT elsewhere already": (10, lambda: evidence(accounts=[replace(DEV, cas=(), planned_mode="DEFAULT"), PROD])),
    "log says DUPLICATE_CLIENT_ID": (11, lambda: log("Disconnect", "DUPLICATE_CLIENT_ID")),
    "session taken over": (
        11,
        lambda: evidence([failing(FailureKind.DISCONNECTED_BY_SERVER, Stage.SESSION, "0x8e Session taken over")]),
    ),
    "closed while another has its client id": (
        11,
        lambda: evidence(
            [None, failing(FailureKind.CLOSED_AFTER_CONNACK, Stage.SESSION)],
            fleet=FleetEvidence(same_client_id=1, peers=3),
            accounts=[replace(DEV, record=RECORD)],
        ),
    ),
    "443 without ALPN, closed": (12, lambda: evidence(port=443)),
    "443 without ALPN, HTTP": (
        12,
        lambda: evidence(
            [failing(FailureKind.MQTT_PROTOCOL_ERROR, Stage.CONNACK, "PUBACK packet b'HTTP/1.1 4' where CONNACK")],
            port=443,
        ),
    ),
    "443 with another ALPN": (12, lambda: evidence(port=443, alpn=("mqtt",))),
    "443 without ALPN, silence": (12, lambda: evidence([failing(FailureKind.TIMEOUT, Stage.CONNACK)], port=443)),
    "INACTIVE": (13, lambda: evidence(accounts=[replace(DEV, record=replace(RECORD, status="INACTIVE"))])),
    "REVOKED": (13, lambda: evidence(accounts=[replace(DEV, record=replace(RECORD, status="REVOKED"))])),
    "PENDING_TRANSFER": (
        13,
        lambda: evidence(accounts=[replace(DEV, record=replace(RECORD, status="PENDING_TRANSFER"))]),
    ),
    "JITR and nobody activates": (13, lambda: evidence(accounts=[replace(DEV, record=PENDING, cas=(JITR,))])),
    "expired": (13, lambda: replace(evidence(), leaf=replace(LEAF, not_after=START - 5))),
    "not yet valid": (13, lambda: replace(evidence(), leaf=replace(LEAF, not_before=START + 3600))),
    "not yet valid by the server's clock": (
        13,
        lambda: replace(
            evidence(accounts=[replace(DEV, clock_offset=7200.0)]), leaf=replace(LEAF, not_before=START - 3600)
        ),
    ),
    "server's certificate not valid, clock off": (
        13,
        lambda: evidence(
            [failing(FailureKind.SERVER_CERTIFICATE_EXPIRED, Stage.TLS)],
            accounts=[replace(DEV, clock_offset=-86_400.0)],
        ),
    ),
    "alert certificate_expired": (
        13,
        lambda: evidence([failing(FailureKind.TLS_ALERT, Stage.CONNACK, "certificate_expired")]),
    ),
    "server name of nobody": (
        14,
        lambda: evidence(server_name="nobody-ats.iot.eu-central-1.amazonaws.com", accounts=[DEV, PROD]),
    ),
    "server name typed by hand": (14, lambda: evidence(server_name="iot.example.com", accounts=[DEV, PROD])),
    "legacy endpoint, server untrusted": (
        14,
        lambda: evidence(
            [failing(FailureKind.SERVER_CERTIFICATE_UNTRUSTED, Stage.TLS)],
            server_name=LEGACY,
            verify_name=LEGACY,
            address=(LEGACY, 8883),
        ),
    ),
    "server name mismatch": (
        14,
        lambda: evidence(
            [failing(FailureKind.SERVER_NAME_MISMATCH, Stage.TLS)],
            server_name="iot.example.com",
            verify_name="iot.example.com",
        ),
    ),
    "name not resolved": (
        14,
        lambda: evidence([failing(FailureKind.NAME_NOT_RESOLVED, Stage.TCP)], address=("nobody.example", 8883)),
    ),
    "TCP refused": (15, lambda: evidence([failing(FailureKind.TCP_REFUSED, Stage.TCP)], port=1883)),
    "no TLS there": (
        15,
        lambda: evidence([failing(FailureKind.TLS_PROTOCOL_ERROR, Stage.TLS, "wrong version number")]),
    ),
    "no answer in the handshake": (15, lambda: evidence([failing(FailureKind.TIMEOUT, Stage.TLS)])),
    "alert handshake_failure": (
        15,
        lambda: evidence([failing(FailureKind.TLS_ALERT, Stage.TLS, "handshake_failure")]),
    ),
    "port of HTTPS": (15, lambda: evidence(port=8443)),
}


@pytest.mark.parametrize("name", CLEAREST)
def test_clearest_evidence_ranks_its_cause_first(name: str) -> None:
    number, made_up = CLEAREST[name]

    first, *others = diagnose(made_up()).findings

    assert first.cause.number == number
    assert all(first.score > other.score for other in others)
    assert first.fixes


def test_every_cause_has_its_clearest_evidence() -> None:
    assert {number for number, _ in CLEAREST.values()} == set(range(1, 16))


def test_causes_are_the_fifteen_in_the_order_of_their_numbers() -> None:
    assert [cause.number for cause in CATALOGUE] == list(range(1, 16))
    assert len({cause.id for cause in CATALOGUE}) == len(CAUSES) == 15


@pytest.mark.parametrize("tries", [[None], [DROP, None], [DROP, DROP, failing(FailureKind.TIMEOUT, Stage.TCP), None]])
@pytest.mark.parametrize("record", [RECORD, PENDING, replace(RECORD, status="REVOKED"), None])
def test_healthy_device_gets_none_whatever_else_is_said(tries: list[None], record: object) -> None:
    """What counts is that its last try was accepted, and lasted."""
    account = replace(DEV, record=record, cas=())  # type: ignore[arg-type]  # a record or none
    diagnosis = diagnose(replace(evidence(tries, accounts=[account]), held_open=5.0))

    assert diagnosis.connected
    assert (diagnosis.findings, diagnosis.would_need) == ((), ())
    assert diagnosis.seen.startswith("accepted")
    assert "open for 5 s" in diagnosis.seen


def test_accepted_connection_that_was_ended_is_not_connected() -> None:
    ended = failing(FailureKind.CLOSED_AFTER_CONNACK, Stage.SESSION, "close_notify")

    diagnosis = diagnose(evidence([DROP, ended], accounts=[replace(DEV, record=RECORD)]))

    assert not diagnosis.connected
    assert (diagnosis.seen, diagnosis.tries) == ("closed after CONNACK: close_notify", 2)


def test_provisioning_under_way_is_no_cause() -> None:
    """A record pending for a second, of a device that will try again: as it should be."""
    diagnosis = diagnose(evidence([DROP], later=1, accounts=[replace(DEV, record=PENDING)]))

    assert not diagnosis.connected
    assert diagnosis.findings == ()
    assert diagnosis.would_need == ("the next try, which is due: provisioning may be under way",)
    assert diagnosis.oracle.startswith("as IoT Core should: ")


def test_device_that_was_never_started_says_so() -> None:
    diagnosis = diagnose(evidence([]))

    assert (diagnosis.connected, diagnosis.seen, diagnosis.findings) == (False, "no try on record", ())
    assert diagnosis.would_need[0].startswith("a try that came to its end")
    assert diagnose(replace(evidence([]), never_started="no CA")).seen == "never started: no CA"


def test_try_that_was_cut_short_says_so() -> None:
    given = evidence([DROP])
    cut = replace(given, attempts=[replace(given.attempts[0], failure=None, connack_code=None)])

    assert diagnose(cut).seen == "cut short"


def test_machine_that_ran_out_is_blamed_on_no_device() -> None:
    diagnosis = diagnose(evidence([failing(FailureKind.LOCAL_RESOURCES, Stage.TCP, "EMFILE")]))

    assert diagnosis.findings == ()
    assert "devicesim doctor" in diagnosis.would_need[0]


def test_what_stands_in_the_way_before_connack_is_no_cause_after_it() -> None:
    ended = failing(FailureKind.CLOSED_AFTER_CONNACK, Stage.SESSION)

    assert not {2, 3, 4, 5, 6, 10, 12, 14, 15} & set(ranked(evidence([ended], server_name=None, port=443)))


# --- the oracle ---


def test_refusal_that_is_as_it_should_be_names_the_row_and_its_mark() -> None:
    diagnosis = diagnose(evidence(server_name=None))

    assert diagnosis.oracle == (
        "as IoT Core should: no SNI, and the one account with the CA holds it SNI_ONLY: fails, nothing is created"
        " (10b.C2.none [D/I])"
    )
    assert "it is what IoT Core should do, by row 10b.C2.none [D/I]" in [
        argument.text for argument in finding(diagnosis, 3).supporting
    ]


def test_refusal_that_should_not_be_is_told_as_such() -> None:
    diagnosis = diagnose(evidence(accounts=[replace(DEV, record=RECORD)]))

    assert diagnosis.oracle.startswith("not what IoT Core should do: ACTIVE, and its policy lets it connect")


def test_oracle_is_not_asked_of_accounts_that_could_not_be_asked() -> None:
    assert diagnose(evidence(accounts=[unasked(DEV)])).oracle == ""
    assert diagnose(evidence(accounts=[DEV, unasked(PROD)])).oracle == ""
    assert diagnose(evidence(accounts=[DEV, unasked(replace(PROD, region="us-east-1"))])).oracle != ""


def test_oracle_is_not_asked_of_accounts_that_contradict_each_other() -> None:
    both = [replace(DEV, cas=(DEFAULT,)), PROD]

    assert diagnose(evidence(accounts=both)).oracle == ""


def test_oracle_is_not_asked_of_a_handshake_that_failed() -> None:
    assert diagnose(evidence([failing(FailureKind.TIMEOUT, Stage.TLS)])).oracle == ""


def test_every_row_by_which_iot_core_refuses_belongs_to_a_cause() -> None:
    refusing = {
        rule.row.id.partition(".")[2] for rule in RULES if rule.then in (Then.REFUSE, Then.DENY, Then.STAY_PENDING)
    }

    assert set(_ROWS) | _NO_CA_THERE == refusing
