"""Made-up evidence for diagnoses: a device that dials ``dev``, in a world that is well, to be spoilt one thing at a
time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from devicesim.diagnosis.evidence import (
    AccountEvidence,
    CAEvidence,
    DeviceEvidence,
    FleetEvidence,
    LeafEvidence,
    RecordEvidence,
    TemplateEvidence,
    WireEvidence,
)
from devicesim.diagnosis.findings import Diagnosis, Finding
from devicesim.diagnosis.rank import diagnose
from devicesim.outcome import Alert, Attempt, Failure, FailureKind, Stage

REGION = "eu-central-1"
START = 1_760_000_000.0
YEAR = 365 * 86_400.0
CERTIFICATE = "ab" * 32
CA_ID = "12ab34cd" * 8
OTHER_CA_ID = "99ee99ee" * 8
DEV_NAME = f"z9y8x7w6v5u4t3-ats.iot.{REGION}.amazonaws.com"
PROD_NAME = f"a1b2c3d4e5f6g7-ats.iot.{REGION}.amazonaws.com"
DROP = Failure(kind=FailureKind.CLOSED_BEFORE_CONNACK, stage=Stage.CONNACK, detail="close_notify")

SUBJECT = "CN=Shared CA,O=Example"
LEAF = LeafEvidence(
    certificate_id=CERTIFICATE,
    subject={"CommonName": "robot-000007", "SerialNumber": "SN7"},
    subject_text="CN=robot-000007",
    issuer=SUBJECT,
    not_before=START - YEAR,
    not_after=START + YEAR,
)
TEMPLATE = TemplateEvidence(name="robots", role_arn="arn:aws:iam::444455556666:role/jitp", role_asked=True)
JITP = CAEvidence(
    certificate_id=CA_ID,
    subject=SUBJECT,
    active=True,
    auto_registration=True,
    mode="SNI_ONLY",
    same_subject=True,
    signed_leaf=True,
    template=TEMPLATE,
)
JITR = replace(JITP, template=None)
DEFAULT = replace(JITR, mode="DEFAULT")
STRANGER = replace(JITP, certificate_id=OTHER_CA_ID, signed_leaf=False)
RECORD = RecordEvidence(
    status="ACTIVE",
    mode="SNI_ONLY",
    ca_certificate_id=CA_ID,
    created=START - 86_400,
    modified=START - 86_400,
    policies=("robots",),
    connect_allowed=True,
    things=("robot-000007",),
)
PENDING = replace(RECORD, status="PENDING_ACTIVATION", created=START, modified=START, policies=(), connect_allowed=None)
DEV = AccountEvidence(
    name="dev",
    account_id="444455556666",
    region=REGION,
    endpoint=DEV_NAME,
    cas=(JITP,),
    record_asked=True,
    record=None,
    planned_mode="SNI_ONLY",
    provisioning=(),
    logs=(),
    clock_offset=0.0,
)
PROD = replace(DEV, name="prod", account_id="111122223333", endpoint=PROD_NAME, cas=(DEFAULT,), planned_mode="DEFAULT")
WIRE = WireEvidence(
    dials="dev",
    address=(DEV_NAME, 8883),
    port=8883,
    server_name=DEV_NAME,
    verify_name=DEV_NAME,
    chain_sent=True,
    alpn=(),
    client_id="robot-000007",
    mqtt_version="3.1.1",
    tries_allowed=5,
    foreign_roots=False,
)


def unasked(account: AccountEvidence) -> AccountEvidence:
    """Its control plane could not be asked: no credentials."""
    return replace(
        account,
        cas=None,
        record_asked=False,
        record=None,
        provisioning=None,
        logs=None,
        clock_offset=None,
        not_asked=("nothing could be asked: no credentials",),
    )


def failing(kind: FailureKind, stage: Stage, detail: str = "") -> Failure:
    return Failure(kind=kind, stage=stage, detail=detail)


def attempts(
    failures: Sequence[Failure | None], gap: float = 4.0, *, alert: str = "", sni: str | None = DEV_NAME
) -> tuple[Attempt, ...]:
    """Tries, ``gap`` seconds after each other; ``None``: CONNACK 0."""
    made = []
    for number, failure in enumerate(failures, 1):
        start = START + (number - 1) * gap
        reached = {Stage.TCP: 0.01, Stage.TLS: 0.05, Stage.CONNECT: 0.06, Stage.CONNACK: 0.1}
        if failure is not None:
            under_way = list(Stage).index(failure.stage)
            reached = {stage: at for stage, at in reached.items() if list(Stage).index(stage) < under_way}
        accepted = failure is None or failure.stage is Stage.SESSION
        made.append(
            Attempt(
                device=7,
                number=number,
                account="dev",
                sni=sni,
                intended_start=start,
                start=start,
                end=start + 0.2,
                reached=reached,
                failure=failure,
                tls_version="TLSv1.3" if Stage.TLS in reached else None,
                cipher=None,
                alert=Alert(name=alert, code=0, level="fatal", direction="received") if alert else None,
                connack_code=0 if accepted else None,
            )
        )
    return tuple(made)


def evidence(
    failures: Sequence[Failure | None] = (DROP,) * 5,
    *,
    accounts: Sequence[AccountEvidence] = (DEV,),
    gap: float = 4.0,
    alert: str = "",
    fleet: FleetEvidence | None = None,
    later: float = 30.0,
    **wire: Any,
) -> DeviceEvidence:
    """A device that tried so often and saw that; diagnosed ``later`` seconds after its last try."""
    settings = replace(WIRE, **wire)
    tried = attempts(failures, gap, alert=alert, sni=settings.server_name)
    return DeviceEvidence(
        name="device 7 (robot-000007)",
        group="robots",
        leaf=LEAF,
        certificate_id=CERTIFICATE,
        wire=settings,
        attempts=tried,
        held_open=None,
        accounts=accounts,
        now=(tried[-1].end if tried else START) + later,
        fleet=fleet or FleetEvidence(peers=3),
    )


def ranked(given: DeviceEvidence) -> list[int]:
    """Numbers of the causes found, the likeliest first."""
    return [finding.cause.number for finding in diagnose(given).findings]


def finding(diagnosis: Diagnosis, number: int) -> Finding:
    return next(each for each in diagnosis.findings if each.cause.number == number)
