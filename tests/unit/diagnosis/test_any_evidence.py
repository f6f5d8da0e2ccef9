"""Whatever the evidence, a diagnosis comes of it, always the same, ranked, and nothing in it without a reason."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from devicesim.diagnosis.case import read
from devicesim.diagnosis.evidence import (
    AccountEvidence,
    CAEvidence,
    DeviceEvidence,
    FleetEvidence,
    LeafEvidence,
    LogEvent,
    ProvisioningEvent,
    RecordEvidence,
    TemplateEvidence,
    WireEvidence,
)
from devicesim.diagnosis.rank import diagnose
from devicesim.outcome import Alert, Attempt, Failure, FailureKind, Stage
from devicesim.rules import STATUSES
from tests.diagnosis_support import DEV_NAME, PROD_NAME, REGION, START

words = st.sampled_from(
    [
        *("", "x", "0x87 Not authorized", "0x97 Quota exceeded", "0x8e Session taken over", "5 not authorised"),
        *("HTTP/1.1 400 Bad Request", "wrong version number", "unrecognized_name", "certificate_expired"),
        *(
            "ThrottlingException: Rate exceeded",
            "AccessDeniedException",
            "the role cannot be assumed",
            "handshake_failure",
        ),
        *("register_ca_certificate refused: ResourceAlreadyExistsException", "dev", "\x1b[31m{}%s'\""),
    ]
)
names = st.sampled_from(
    [
        *(DEV_NAME, PROD_NAME, DEV_NAME.upper(), f"{DEV_NAME}.", "203.0.113.7", "[::1]:8883", "", "junk.example"),
        *(DEV_NAME.replace("-ats", ""), "nobody-ats.iot.us-east-1.amazonaws.com", "ünïcode.example"),
    ]
)
moments = st.floats(START - 1e5, START + 1e5)
wild_moments = moments | st.sampled_from([0.0, -1e18, 1e18, 253_402_300_800.0])
modes = st.sampled_from(["DEFAULT", "SNI_ONLY"])
statuses = st.sampled_from([*STATUSES, "SOMETHING_NEW"])


def some(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(strategy, max_size=2).map(tuple)


templates = st.builds(
    TemplateEvidence,
    name=st.none() | words,
    role_arn=st.none() | words,
    missing_parameters=some(words),
    missing_things=some(st.sampled_from(["thing group 'robots'", "policy 'p'", "something"])),
    problems=some(words),
    role_problem=st.none() | words,
    role_asked=st.booleans(),
)
cas = st.builds(
    CAEvidence,
    certificate_id=st.sampled_from(["", "12ab34cd" * 8, "99ee99ee" * 8]),
    subject=words,
    active=st.booleans(),
    auto_registration=st.booleans(),
    mode=modes,
    same_subject=st.booleans(),
    signed_leaf=st.booleans(),
    template=st.none() | templates,
)
records = st.builds(
    RecordEvidence,
    status=statuses,
    mode=modes,
    ca_certificate_id=st.none() | st.sampled_from(["12ab34cd" * 8, "gone"]),
    created=st.none() | wild_moments,
    modified=st.none() | wild_moments,
    policies=st.none() | some(words),
    connect_allowed=st.none() | st.booleans(),
    connect_reason=words,
    things=st.none() | some(words),
)
accounts = st.builds(
    AccountEvidence,
    name=st.just("dev"),
    account_id=st.just("444455556666"),
    region=st.sampled_from([REGION, "us-east-1"]),
    endpoint=st.none() | names,
    cas=st.none() | st.lists(cas, max_size=3).map(tuple),
    record_asked=st.booleans(),
    record=st.none() | records,
    planned_mode=st.none() | modes,
    provisioning=st.none()
    | st.lists(st.builds(ProvisioningEvent, time=moments, error=st.none() | words, message=words), max_size=2).map(
        tuple
    ),
    logs=st.none()
    | st.lists(
        st.builds(
            LogEvent,
            time=moments,
            event_type=st.sampled_from(["Connect", "Connection.AuthNError", "Disconnect"]),
            reason=st.sampled_from(
                [
                    *("AUTHORIZATION_FAILURE", "DEVICE_CERTIFICATE_INACTIVE", "SNI_MISUSED", "NOT_AUTHENTICATED"),
                    *("DUPLICATE_CLIENT_ID", "THROTTLED", "DOMAIN_CONFIGURATION_DISABLED", "?"),
                    "DEVICE_CERTIFICATE_NOT_REGISTERED",
                ]
            ),
            details=words,
        ),
        max_size=3,
    ).map(tuple),
    clock_offset=st.none() | st.floats(-1e6, 1e6),
    not_asked=some(words),
)
failures = st.none() | st.builds(Failure, kind=st.sampled_from(FailureKind), stage=st.sampled_from(Stage), detail=words)


@st.composite
def tries(draw: st.DrawFn) -> Sequence[Attempt]:
    start = START
    made = []
    for number in range(1, draw(st.integers(0, 4)) + 1):
        start += draw(st.floats(-1, 60))
        made.append(
            Attempt(
                device=7,
                number=number,
                account=None,
                sni=None,
                intended_start=start,
                start=start,
                end=start + draw(st.floats(0, 20)),
                reached=dict.fromkeys(draw(st.sets(st.sampled_from(Stage))), 0.1),
                failure=draw(failures),
                tls_version=None,
                cipher=None,
                alert=draw(st.none() | st.builds(Alert, name=words, code=st.just(1), level=words, direction=words)),
                connack_code=draw(st.none() | st.sampled_from([0, 5, 135])),
            )
        )
    return made


evidences = st.builds(
    DeviceEvidence,
    name=st.just("device 7 (robot)"),
    leaf=st.none()
    | st.builds(
        LeafEvidence,
        certificate_id=words,
        subject=st.dictionaries(words, words, max_size=1),
        subject_text=words,
        issuer=words,
        not_before=wild_moments,
        not_after=wild_moments,
    ),
    certificate_id=st.none() | st.just("ab" * 32),
    wire=st.builds(
        WireEvidence,
        dials=st.sampled_from(["dev", "prod", "nobody"]),
        address=st.none() | st.tuples(names, st.sampled_from([8883, 443, 1883])),
        port=st.sampled_from([8883, 443, 8443, 1883]),
        server_name=st.none() | names,
        verify_name=names,
        chain_sent=st.booleans(),
        alpn=some(st.sampled_from(["mqtt", "x-amzn-mqtt-ca"])),
        client_id=words,
        mqtt_version=st.sampled_from(["3.1.1", "5"]),
        tries_allowed=st.integers(1, 5),
        foreign_roots=st.booleans(),
        assumed=st.booleans(),
    ),
    attempts=tries(),
    held_open=st.none() | st.floats(0, 100),
    accounts=st.lists(accounts, max_size=2).map(
        lambda drawn: [replace(each, name=name) for each, name in zip(drawn, ("dev", "prod"), strict=False)]
    ),
    now=moments,
    fleet=st.builds(
        FleetEvidence,
        same_client_id=st.integers(0, 2),
        first_tries_per_second=st.none() | st.floats(0, 1000),
        tries_per_second=st.none() | st.floats(0, 1000),
        peers=st.integers(0, 100),
        peers_accepted=st.integers(0, 100),
        errors=some(words),
    ),
)


@given(evidence=evidences)
def test_every_evidence_has_its_diagnosis_and_always_the_same(evidence: DeviceEvidence) -> None:
    diagnosis = diagnose(evidence)

    assert diagnose(evidence) == diagnosis
    assert diagnosis.device == "device 7 (robot)"
    assert diagnosis.seen


@given(evidence=evidences)
def test_findings_are_ranked_by_score_and_each_has_its_reasons_and_a_fix(evidence: DeviceEvidence) -> None:
    findings = diagnose(evidence).findings

    assert [-finding.score for finding in findings] == sorted(-finding.score for finding in findings)
    assert len({finding.cause.id for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.score > 0
        assert finding.supporting
        assert all(argument.text and argument.weight in (1, 3, 9) for argument in finding.supporting + finding.opposing)
        assert finding.fixes
        assert all(fix.text for fix in finding.fixes)


@given(evidence=evidences)
def test_connected_device_gets_no_cause_and_needs_nothing(evidence: DeviceEvidence) -> None:
    diagnosis = diagnose(evidence)

    assert diagnosis.connected == read(evidence).connected
    if diagnosis.connected:
        assert (diagnosis.findings, diagnosis.would_need) == ((), ())


@given(evidence=evidences)
def test_what_was_not_asked_is_never_argued_from(evidence: DeviceEvidence) -> None:
    """Without any control plane, no argument names what an account holds, and the most that is claimed is what the
    device itself sends and saw."""
    blind = [
        replace(each, cas=None, record_asked=False, record=None, provisioning=None, logs=None, clock_offset=None)
        for each in evidence.accounts
    ]

    arguments = [
        argument.text
        for finding in diagnose(replace(evidence, accounts=blind)).findings
        for argument in finding.supporting + finding.opposing
    ]

    for text in arguments:
        assert not any(
            word in text
            for word in ("holds the CA", "is ACTIVE in", "PENDING_ACTIVATION", "no record", "CloudTrail of", " logged ")
        )
