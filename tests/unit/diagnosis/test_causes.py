"""Causes against each other: the tempting neighbour is not first, and what speaks against a cause lowers it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from devicesim.diagnosis.evidence import (
    CAEvidence,
    DeviceEvidence,
    FleetEvidence,
    LogEvent,
    ProvisioningEvent,
    TemplateEvidence,
)
from devicesim.diagnosis.rank import diagnose
from devicesim.outcome import Failure, FailureKind, Stage
from tests.diagnosis_support import (
    CA_ID,
    CERTIFICATE,
    DEFAULT,
    DEV,
    DEV_NAME,
    DROP,
    JITP,
    JITR,
    LEAF,
    OTHER_CA_ID,
    PENDING,
    PROD,
    PROD_NAME,
    RECORD,
    START,
    STRANGER,
    TEMPLATE,
    WIRE,
    evidence,
    failing,
    finding,
    ranked,
    unasked,
)

FAST = FleetEvidence(first_tries_per_second=60, tries_per_second=80, peers=100, peers_accepted=30)
SLOW = replace(FAST, first_tries_per_second=2, tries_per_second=4)
SUCCEEDED = ProvisioningEvent(time=START + 1, error=None, message="")
DENIED = replace(SUCCEEDED, error="AccessDeniedException", message="not authorized to perform: iot:CreateThing")
UNRESOLVED = replace(SUCCEEDED, error="InvalidRequestException", message="Cannot resolve reference value")
ENDED = failing(FailureKind.CLOSED_AFTER_CONNACK, Stage.SESSION)
UNTRUSTED = failing(FailureKind.SERVER_CERTIFICATE_UNTRUSTED, Stage.TLS)
REFUSED_CA = "register_ca_certificate refused: RegistrationCodeValidationException: the CN is another code"


def jitp(**problems: object) -> CAEvidence:
    return replace(JITP, template=replace(TEMPLATE, **problems))  # type: ignore[arg-type]  # fields by name


def world(**changes: object) -> DeviceEvidence:
    return evidence(accounts=[replace(DEV, **changes)])  # type: ignore[arg-type]  # fields by name


# --- the tempting neighbour ---

NEIGHBOURS: dict[str, tuple[int, int, Callable[[], DeviceEvidence]]] = {
    # name: (what it is, what it is not, evidence)
    "one try, and the CA is INACTIVE": (
        2,
        1,
        lambda: evidence([DROP], tries_allowed=1, accounts=[replace(DEV, cas=(replace(JITP, active=False),))]),
    ),
    "one try, and no policy": (
        7,
        1,
        lambda: evidence(
            [DROP],
            tries_allowed=1,
            accounts=[replace(DEV, record=replace(RECORD, policies=(), connect_allowed=False))],
        ),
    ),
    "one try, and no server name": (3, 1, lambda: evidence([DROP], tries_allowed=1, server_name=None)),
    "one try, and the template fails": (
        5,
        1,
        lambda: evidence([DROP], tries_allowed=1, accounts=[replace(DEV, record=PENDING, provisioning=(UNRESOLVED,))]),
    ),
    "CA INACTIVE now, certificate ACTIVE and denied": (
        7,
        2,
        lambda: world(cas=(replace(JITP, active=False),), record=replace(RECORD, connect_allowed=False)),
    ),
    "CA absent here, the server name another's": (
        3,
        2,
        lambda: evidence(server_name=PROD_NAME, accounts=[DEV, replace(PROD, cas=())]),
    ),
    "another CA of that subject": (4, 2, lambda: world(cas=(STRANGER,))),
    "no server name, but the CA is DEFAULT and the chain sent": (
        5,
        3,
        lambda: evidence(
            server_name=None,
            accounts=[
                replace(
                    DEV,
                    cas=(replace(DEFAULT, template=TEMPLATE),),
                    record=replace(PENDING, mode="DEFAULT"),
                    provisioning=(UNRESOLVED,),
                )
            ],
        ),
    ),
    "SNI_MISUSED logged where the name is right": (
        2,
        3,
        lambda: world(cas=(), logs=(LogEvent(time=START, event_type="Connection.AuthNError", reason="SNI_MISUSED"),)),
    ),
    "neither chain nor name, CA SNI_ONLY": (3, 4, lambda: evidence(server_name=None, chain_sent=False)),
    "AccessDenied is the role's": (6, 5, lambda: world(record=PENDING, provisioning=(DENIED,))),
    "Cannot resolve is the template's": (5, 6, lambda: world(record=PENDING, provisioning=(UNRESOLVED,))),
    "throttled by RegisterThing, not the template": (
        8,
        5,
        lambda: world(
            record=PENDING,
            provisioning=(replace(UNRESOLVED, error="ThrottlingException", message="Rate exceeded"),),
        ),
    ),
    "fast fleet, but the CA is off": (
        2,
        8,
        lambda: evidence(fleet=FAST, accounts=[replace(DEV, cas=(replace(JITP, active=False),))]),
    ),
    "revoked, and no policy either": (
        13,
        7,
        lambda: world(record=replace(RECORD, status="REVOKED", policies=(), connect_allowed=False)),
    ),
    "legacy name, not the wrong root": (
        14,
        9,
        lambda: evidence(
            [UNTRUSTED],
            address=(DEV_NAME.replace("-ats", ""), 8883),
            server_name=DEV_NAME.replace("-ats", ""),
            verify_name=DEV_NAME.replace("-ats", ""),
        ),
    ),
    "registration refused, and so the CA absent": (
        10,
        2,
        lambda: evidence(accounts=[replace(DEV, cas=())], fleet=FleetEvidence(errors=(REFUSED_CA,))),
    ),
    "client id twice, not the policy": (
        11,
        7,
        lambda: evidence([ENDED], fleet=FleetEvidence(same_client_id=1, peers=2)),
    ),
    "HTTP where MQTT should be": (
        12,
        15,
        lambda: evidence([failing(FailureKind.MQTT_PROTOCOL_ERROR, Stage.CONNACK, "HTTP/1.1 400")], port=443),
    ),
    "nobody's name, not another account's": (
        14,
        3,
        lambda: evidence(server_name="a0-ats.iot.eu-central-1.amazonaws.com", accounts=[DEV, PROD]),
    ),
    "expired, and the record ACTIVE": (
        13,
        8,
        lambda: replace(world(record=RECORD), leaf=replace(LEAF, not_after=START - 5)),
    ),
    "untrusted, not the port": (9, 15, lambda: evidence([UNTRUSTED])),
    "nothing listens, and the CA was refused": (
        15,
        10,
        lambda: evidence(
            [failing(FailureKind.TCP_REFUSED, Stage.TCP)],
            accounts=[replace(DEV, cas=())],
            fleet=FleetEvidence(errors=(REFUSED_CA,)),
        ),
    ),
    "untrusted, and RegisterThing failed before": (
        9,
        6,
        lambda: evidence([DROP, UNTRUSTED], accounts=[replace(DEV, record=PENDING, provisioning=(DENIED,))]),
    ),
    "443 without ALPN, and the CA absent": (
        12,
        2,
        lambda: evidence(port=443, accounts=[replace(DEV, cas=())]),
    ),
    "the credentials endpoint, not another account's": (
        14,
        3,
        lambda: evidence(server_name="c0abc.credentials.iot.eu-central-1.amazonaws.com", accounts=[DEV, PROD]),
    ),
    "took long to be provisioned in a fast fleet": (
        8,
        1,
        lambda: evidence(
            fleet=FAST, accounts=[replace(DEV, record=replace(RECORD, created=START, modified=START + 40))]
        ),
    ),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_tempting_neighbour_is_not_first(name: str) -> None:
    is_it, is_not, made_up = NEIGHBOURS[name]

    order = ranked(made_up())

    assert order[0] == is_it
    assert is_not != is_it


# --- what speaks against ---

AGAINST: dict[str, tuple[int, Callable[[], DeviceEvidence], Callable[[], DeviceEvidence]]] = {
    # name: (cause, without, with)
    "1: it kept trying": (
        1,
        lambda: evidence([DROP] * 2, gap=0.5, tries_allowed=2, accounts=[unasked(DEV)]),
        lambda: evidence([DROP] * 2, gap=30, tries_allowed=2, accounts=[unasked(DEV)]),
    ),
    "1: nothing was registered": (
        1,
        lambda: evidence([DROP], tries_allowed=1, accounts=[unasked(DEV)]),
        lambda: evidence([DROP], tries_allowed=1),
    ),
    "1: refused with a CONNACK": (
        1,
        lambda: evidence([DROP], tries_allowed=1, accounts=[unasked(DEV)]),
        lambda: evidence(
            [failing(FailureKind.CONNACK_REFUSED, Stage.CONNACK, "5 x")], tries_allowed=1, accounts=[unasked(DEV)]
        ),
    ),
    "2: the certificate is on record": (
        2,
        lambda: world(cas=()),
        lambda: world(cas=(), record=RECORD),
    ),
    "2: its like get in": (
        2,
        lambda: evidence(accounts=[unasked(DEV)]),
        lambda: evidence(accounts=[unasked(DEV)], fleet=FleetEvidence(peers=9, peers_accepted=8)),
    ),
    "3: DEFAULT mode needs none": (
        3,
        lambda: evidence(server_name=None),
        lambda: evidence(server_name=None, accounts=[replace(DEV, cas=(DEFAULT,))]),
    ),
    "4: the certificate is on record": (
        4,
        lambda: world(cas=(STRANGER,)),
        lambda: world(cas=(STRANGER,), record=RECORD),
    ),
    "5: RegisterThing succeeded": (
        5,
        lambda: world(record=PENDING, cas=(jitp(missing_parameters=("p",)),), provisioning=None),
        lambda: world(record=PENDING, cas=(jitp(missing_parameters=("p",)),), provisioning=(SUCCEEDED,)),
    ),
    "5: nothing in CloudTrail": (
        5,
        lambda: world(record=PENDING, cas=(jitp(missing_parameters=("p",)),), provisioning=None),
        lambda: world(record=PENDING, cas=(jitp(missing_parameters=("p",)),), provisioning=()),
    ),
    "5: ACTIVE": (
        5,
        lambda: world(record=PENDING, cas=(jitp(missing_parameters=("p",)),)),
        lambda: world(record=RECORD, cas=(jitp(missing_parameters=("p",)),)),
    ),
    "6: IAM finds nothing wrong": (
        6,
        lambda: world(record=PENDING, cas=(jitp(role_asked=False),), provisioning=None),
        lambda: world(record=PENDING, cas=(jitp(role_asked=True),), provisioning=None),
    ),
    "7: allowed": (
        7,
        lambda: evidence([failing(FailureKind.CONNACK_REFUSED, Stage.CONNACK, "0x87 x")], accounts=[unasked(DEV)]),
        lambda: evidence(
            [failing(FailureKind.CONNACK_REFUSED, Stage.CONNACK, "0x87 x")], accounts=[replace(DEV, record=RECORD)]
        ),
    ),
    "8: slower than the quotas": (
        8,
        lambda: evidence(fleet=FAST),
        lambda: evidence(fleet=SLOW),
    ),
    "8: none of its like gets in": (
        8,
        lambda: evidence(fleet=FAST),
        lambda: evidence(fleet=replace(FAST, peers_accepted=0)),
    ),
    "9: an earlier handshake was good": (
        9,
        lambda: evidence([UNTRUSTED]),
        lambda: evidence([DROP, UNTRUSTED]),
    ),
    "10: the CA is there as planned": (
        10,
        lambda: evidence(accounts=[replace(DEV, cas=())], fleet=FleetEvidence(errors=(REFUSED_CA,))),
        lambda: evidence(fleet=FleetEvidence(errors=(REFUSED_CA,))),
    ),
    "11: no other has its client id": (
        11,
        lambda: evidence([None, ENDED], fleet=FleetEvidence(peers=0)),
        lambda: evidence([None, ENDED], fleet=FleetEvidence(peers=9)),
    ),
    "12: ALPN is offered": (
        12,
        lambda: evidence(port=443),
        lambda: evidence(port=443, alpn=("x-amzn-mqtt-ca",)),
    ),
    "13: ACTIVE": (
        13,
        lambda: replace(evidence(), leaf=replace(LEAF, not_after=START - 5)),
        lambda: replace(world(record=RECORD), leaf=replace(LEAF, not_after=START - 5)),
    ),
    "14: the name is the endpoint": (
        14,
        lambda: evidence([failing(FailureKind.SERVER_NAME_MISMATCH, Stage.TLS)], verify_name="iot.example.com"),
        lambda: evidence([failing(FailureKind.SERVER_NAME_MISMATCH, Stage.TLS)]),
    ),
    "15: its like get in": (
        15,
        lambda: evidence([failing(FailureKind.TIMEOUT, Stage.TLS)]),
        lambda: evidence([failing(FailureKind.TIMEOUT, Stage.TLS)], fleet=FleetEvidence(peers=5, peers_accepted=2)),
    ),
}


def score(given: DeviceEvidence, number: int) -> int:
    return next((each.score for each in diagnose(given).findings if each.cause.number == number), 0)


@pytest.mark.parametrize("name", AGAINST)
def test_evidence_against_lowers_a_cause(name: str) -> None:
    number, without, with_it = AGAINST[name]

    assert score(without(), number) > score(with_it(), number)


def test_every_cause_has_evidence_against_it() -> None:
    assert {number for number, _, _ in AGAINST.values()} == set(range(1, 16))


# --- particulars ---


def commands(given: DeviceEvidence, number: int) -> list[str]:
    return [command for fix in finding(diagnose(given), number).fixes for command in fix.commands]


def texts(given: DeviceEvidence, number: int) -> list[str]:
    return [argument.text for argument in finding(diagnose(given), number).supporting]


def test_ca_that_is_off_is_named_with_the_command_that_puts_it_on() -> None:
    off = world(cas=(replace(JITP, active=False, auto_registration=False),))

    assert texts(off, 2)[0] == "CA 12ab34cd is INACTIVE and without automatic registration (DISABLE) in dev"
    (command,) = commands(off, 2)
    assert command == (
        f"aws iot update-ca-certificate --certificate-id {CA_ID} --new-status ACTIVE"
        " --new-auto-registration-status ENABLE --region eu-central-1"
    )


def test_absent_ca_is_registered_in_the_mode_that_is_planned() -> None:
    (command,) = commands(world(cas=()), 2)
    assert command == (
        "aws iot register-ca-certificate --ca-certificate file://ca.pem --certificate-mode SNI_ONLY --set-as-active"
        " --allow-auto-registration --region eu-central-1"
    )
    assert "--verification-certificate file://verification.pem" in commands(world(cas=(), planned_mode="DEFAULT"), 2)[0]


def test_ca_held_elsewhere_does_not_count_here() -> None:
    elsewhere = evidence(accounts=[replace(DEV, cas=()), replace(PROD, region="us-east-1")])

    assert "prod in us-east-1 has the CA (DEFAULT), which does not count here" in texts(elsewhere, 2)


@pytest.mark.parametrize(
    ("status", "command"),
    [
        ("INACTIVE", f"aws iot update-certificate --certificate-id {CERTIFICATE} --new-status ACTIVE"),
        ("PENDING_TRANSFER", f"aws iot accept-certificate-transfer --certificate-id {CERTIFICATE} --set-as-active"),
    ],
)
def test_certificate_that_is_not_active_is_made_so_by_a_command(status: str, command: str) -> None:
    found = commands(world(record=replace(RECORD, status=status)), 13)

    assert found[0] == f"{command} --region eu-central-1"


def test_revoked_certificate_is_replaced_not_activated() -> None:
    assert commands(world(record=replace(RECORD, status="REVOKED")), 13) == []


def test_log_names_the_status_where_the_record_cannot_be_asked() -> None:
    event = LogEvent(time=START, event_type="Connection.AuthNError", reason="DEVICE_CERTIFICATE_REVOKED")
    given = evidence(accounts=[replace(unasked(DEV), logs=(event,))])

    assert ranked(given)[0] == 13
    assert texts(given, 13)[0] == "dev logged DEVICE_CERTIFICATE_REVOKED"


def test_log_of_another_time_is_not_about_these_tries() -> None:
    event = LogEvent(time=START - 3600, event_type="Connection.AuthNError", reason="DEVICE_CERTIFICATE_REVOKED")

    assert ranked(evidence(accounts=[replace(unasked(DEV), logs=(event,))]))[0] != 13


def test_missing_policy_is_attached_by_a_command() -> None:
    given = world(record=replace(RECORD, policies=(), connect_allowed=False))

    assert commands(given, 7)[0] == (
        "aws iot attach-policy --policy-name POLICY_NAME --target"
        f" arn:aws:iot:eu-central-1:444455556666:cert/{CERTIFICATE} --region eu-central-1"
    )


def test_policy_that_could_not_be_asked_is_suspected_of_an_active_certificate() -> None:
    unknown = replace(RECORD, policies=None, connect_allowed=None)

    assert ranked(world(record=unknown))[0] == 7
    sometime = [replace(DEV, record=replace(unknown, created=None, modified=None))]
    patient, quick = (evidence([DROP] * 3, gap=gap, accounts=sometime, tries_allowed=3) for gap in (4.0, 0.5))
    assert ranked(patient)[0] == 7
    assert score(patient, 7) > score(quick, 7)
    assert ranked(quick)[0] == 1


def test_what_stands_in_the_way_next_is_a_hint() -> None:
    """A device that got no TCP connection was not refused for its CA, which is absent all the same."""
    given = evidence([failing(FailureKind.TCP_REFUSED, Stage.TCP)], accounts=[replace(DEV, cas=())])

    assert [(each.cause.number, each.score) for each in diagnose(given).findings] == [(15, 9), (2, 1), (10, 1)]


def test_client_id_that_is_no_thing_of_the_certificate_is_told() -> None:
    given = world(
        record=replace(RECORD, connect_allowed=False, things=("robot-7",), connect_reason="policy 'robots' x")
    )

    assert "the client id 'robot-000007' is not the thing of the certificate ('robot-7')" in texts(given, 7)
    assert "policy 'robots' x" in texts(given, 7)


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("thing group 'robots'", "aws iot create-thing-group --thing-group-name robots --region eu-central-1"),
        ("thing type 'my robot'", "aws iot create-thing-type --thing-type-name 'my robot' --region eu-central-1"),
        (
            "policy 'p'",
            "aws iot create-policy --policy-name p --policy-document file://policy.json --region eu-central-1",
        ),
        ("billing group 'b'", "aws iot create-billing-group --billing-group-name b --region eu-central-1"),
    ],
)
def test_what_the_template_misses_is_created_by_a_command(missing: str, command: str) -> None:
    assert commands(world(record=PENDING, cas=(jitp(missing_things=(missing,)),)), 5) == [command]


def test_template_is_corrected_where_it_stands() -> None:
    body = replace(JITP, template=TemplateEvidence(name=None, role_arn=None, problems=("not JSON",)))

    assert (
        "create-provisioning-template-version --template-name robots"
        in (commands(world(record=PENDING, cas=(jitp(problems=("not JSON",)),)), 5)[0])
    )
    assert f"update-ca-certificate --certificate-id {CA_ID}" in commands(world(record=PENDING, cas=(body,)), 5)[0]


def test_template_of_the_records_own_ca_counts_where_there_are_several() -> None:
    broken = replace(jitp(missing_parameters=("p",)), certificate_id=OTHER_CA_ID)
    own = world(record=PENDING, cas=(broken, JITP))
    others = world(record=replace(PENDING, ca_certificate_id=OTHER_CA_ID), cas=(broken, JITP))

    assert not [text for text in texts(own, 5) if "wants p" in text]
    assert [text for text in texts(others, 5) if "wants p" in text]


def test_role_is_named_in_its_commands() -> None:
    (look, attach) = commands(world(record=PENDING, cas=(jitp(role_problem="there is no role 'jitp'"),)), 6)

    assert look == "aws iam get-role --role-name jitp"
    assert attach.startswith("aws iam attach-role-policy --role-name jitp --policy-arn arn:aws:iam::aws:policy/")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("CertificateValidationException: ... does not have the basicConstraints extension as true", "CA:TRUE"),
        ("CertificateValidationException: The key in the certificate is not valid", "2048"),
        ("RegistrationCodeValidationException: no", "registration code"),
        ("ResourceAlreadyExistsException: registered", "SNI_ONLY"),
        ("LimitExceededException: too many", "10 CAs"),
        ("InvalidRequestException: Invalid registration template.", "template"),
        ("the following arguments are required: --verification-certificate", "AWS CLI"),
    ],
)
def test_refused_registration_has_its_own_fix(error: str, fix: str) -> None:
    given = evidence(
        accounts=[replace(DEV, cas=())],
        fleet=FleetEvidence(errors=(f"account 'dev' (444455556666): register_ca_certificate refused: {error}",)),
    )

    assert ranked(given)[0] == 10
    assert any(fix in each.text for each in finding(diagnose(given), 10).fixes)


def test_registration_refused_in_another_account_is_not_this_ones() -> None:
    given = evidence(
        accounts=[replace(DEV, cas=()), PROD],
        fleet=FleetEvidence(errors=("account 'prod' (111122223333): register_ca_certificate refused: x",)),
    )

    assert ranked(given)[0] == 2


def test_ca_in_another_mode_than_planned_is_registered_anew() -> None:
    error = "account 'dev': CA 12ab is registered already, but certificateMode is 'SNI_ONLY', not 'DEFAULT'"
    given = evidence(accounts=[replace(DEV, planned_mode="DEFAULT")], fleet=FleetEvidence(errors=(error,)))

    assert ranked(given)[0] == 10
    assert f"aws iot delete-ca-certificate --certificate-id {CA_ID} --region eu-central-1" in commands(given, 10)


def test_several_cas_of_one_subject_are_told_apart_by_the_chain() -> None:
    several = replace(DEV, cas=(JITP, STRANGER), record=None)
    without = evidence(chain_sent=False, accounts=[several])

    assert finding(diagnose(without), 4).score > finding(diagnose(evidence(accounts=[several])), 4).score
    assert "2 CAs of this subject" in texts(without, 4)[0]


def test_without_a_server_name_another_account_may_answer() -> None:
    given = evidence(server_name=None, accounts=[DEV, replace(PROD, record=None)])

    assert ranked(given)[0] == 3
    assert "without a server name prod answers, by DEFAULT mode, and not dev" in texts(given, 3)


def test_endpoints_that_are_not_known_make_no_name_nobodys() -> None:
    blind = [replace(unasked(DEV), endpoint=None), replace(unasked(PROD), endpoint=None)]

    assert not {3, 14} & set(ranked(evidence(server_name="whatever.example.com", accounts=blind)))


def test_server_name_is_compared_without_regard_to_case() -> None:
    assert not {3, 14} & set(ranked(evidence(server_name=DEV_NAME.upper(), address=(DEV_NAME, 8883))))


def test_unanswered_connect_on_the_right_port_is_only_a_hint() -> None:
    silent = evidence([failing(FailureKind.TIMEOUT, Stage.CONNACK)])

    assert [(each.cause.number, each.score) for each in diagnose(silent).findings] == [(15, 1)]


def test_peers_that_get_in_clear_what_they_share() -> None:
    given = evidence([UNTRUSTED], fleet=FleetEvidence(peers=9, peers_accepted=8))

    assert "others of its group, which trust the same roots, are accepted" in [
        argument.text for argument in finding(diagnose(given), 9).opposing
    ]


def test_activated_under_jitr_too_late_is_the_first_drops() -> None:
    late = replace(RECORD, created=START + 0.1, modified=START + 20, mode="SNI_ONLY")

    assert ranked(evidence([DROP], tries_allowed=1, accounts=[replace(DEV, cas=(JITR,), record=late)]))[0] == 1


def test_clock_that_is_off_is_told_beside_the_validity() -> None:
    given = replace(evidence(accounts=[replace(DEV, clock_offset=7200.0)]), leaf=replace(LEAF, not_before=START - 3600))

    assert "this machine's clock is 7200 s ahead of the control plane's" in texts(given, 13)


def test_record_without_port_or_roots_claims_neither() -> None:
    """What a record assumes is no evidence."""
    given = evidence(
        [failing(FailureKind.MQTT_PROTOCOL_ERROR, Stage.CONNACK, "HTTP/1.1 400")],
        port=WIRE.port,
        assumed=True,
        address=None,
    )

    assert ranked(given)[0] == 12
    assert finding(diagnose(given), 12).opposing == ()
    assert "8883" not in " ".join(texts(given, 15))


# --- two at once ---


def test_what_the_account_named_by_mistake_does_is_only_a_hint_however_much_it_is() -> None:
    holders = [replace(PROD, name=f"prod-{number}", endpoint=f"x{number}-ats.iot.e.example") for number in range(20)]
    event = LogEvent(time=START, event_type="Connection.AuthNError", reason="DEVICE_CERTIFICATE_NOT_REGISTERED")
    named = replace(PROD, cas=(), logs=(event,))

    diagnosis = diagnose(evidence(server_name=PROD_NAME, accounts=[DEV, named, *holders]))

    assert [each.cause.number for each in diagnosis.findings][:2] == [3, 2]
    assert {argument.weight for argument in finding(diagnosis, 2).supporting} == {1}
    assert finding(diagnosis, 2).score < finding(diagnosis, 3).score


def test_a_template_that_cannot_succeed_is_mended_before_the_rate() -> None:
    throttled = replace(UNRESOLVED, error="ThrottlingException", message="Rate exceeded")
    lacking = jitp(missing_parameters=("AWS::IoT::Certificate::Country",))
    given = evidence(fleet=FAST, accounts=[replace(DEV, cas=(lacking,), record=PENDING, provisioning=(throttled,))])

    assert ranked(given)[:2] == [5, 8]


def test_serial_number_of_a_template_is_held_against_the_subject_with_less_certainty() -> None:
    """Some take it for the certificate's own, which is never missing."""

    def weight(parameter: str) -> int:
        lacking = jitp(missing_parameters=(f"AWS::IoT::Certificate::{parameter}",))
        return finding(diagnose(world(record=PENDING, cas=(lacking,))), 5).supporting[0].weight

    assert (weight("Country"), weight("SerialNumber")) == (9, 3)


def test_wanted_template_is_part_of_the_command_that_registers_the_ca() -> None:
    given = world(cas=(), planned_template=True)

    assert "--registration-config file://registration-config.json" in commands(given, 2)[0]


def test_trusted_role_may_still_be_allowed_too_little() -> None:
    diagnosis = diagnose(world(record=PENDING, cas=(jitp(role_asked=True),), provisioning=None))

    assert [(each.cause.number, each.score) for each in diagnosis.findings] == [(5, 3), (6, 2)]
    assert (
        "whether arn:aws:iam::444455556666:role/jitp may do what the template asks (AWSIoTThingsRegistration): that was"
        " not looked at" in diagnosis.would_need
    )


def test_ca_in_another_mode_than_planned_matters_where_no_server_name_is_sent() -> None:
    accounts = [replace(DEV, planned_mode="DEFAULT")]

    assert score(evidence(server_name=None, accounts=accounts), 10) > score(evidence(accounts=accounts), 10) > 0


@pytest.mark.parametrize(
    "failure",
    [
        failing(FailureKind.TLS_ALERT, Stage.CONNECT, "unknown_ca"),
        failing(FailureKind.CONNACK_REFUSED, Stage.CONNACK, "0x97 Quota exceeded"),
        failing(FailureKind.CONNACK_REFUSED, Stage.CONNACK, "2 Connection Refused: identifier rejected."),
    ],
)
def test_oracle_speaks_of_no_refusal_but_for_who_the_device_is(failure: Failure) -> None:
    assert diagnose(evidence([failure] * 3, accounts=[replace(DEV, cas=())])).oracle == ""


def test_tries_too_close_to_each_other_do_not_explain_that_the_first_was_refused() -> None:
    """Quick ones after it had become ACTIVE are throttled; it had been all along."""
    since = replace(RECORD, created=START, modified=START + 4)
    became = evidence([DROP] * 30, gap=0.3, accounts=[replace(DEV, record=since)])
    was = evidence([DROP] * 30, gap=0.3, accounts=[replace(DEV, record=RECORD)])

    assert score(became, 8) > score(was, 8) > 0
