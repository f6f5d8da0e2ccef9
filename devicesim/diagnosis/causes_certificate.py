"""Causes that stand at the device's certificate: its policies, its status, its validity and clocks
(aws-iot-behaviour.md §9: 7, 13). Pure.
"""

from datetime import UTC, datetime

from devicesim.diagnosis import catalogue, commands
from devicesim.diagnosis.case import JITP_SECONDS, PROVISIONING_SECONDS, Case, Sight, Telling
from devicesim.diagnosis.evidence import AccountEvidence, RecordEvidence
from devicesim.diagnosis.findings import Finding
from devicesim.diagnosis.scales import HINT, PROOF, USUAL, Scales
from devicesim.outcome import FailureKind

CLOCK_SECONDS = 60.0
"""A clock that is off by more is worth a word."""
UNATTENDED_SECONDS = 30.0
"""Under JITR a Lambda activates within seconds: nobody is at work after so long."""


def policy(case: Case) -> Finding | None:
    """7: no policy, one that denies iot:Connect, a client id that is not what the policy asks for."""
    scales, record, name = Scales(), case.record, case.place_name
    if record is not None and record.status == "ACTIVE":
        _asked(case, scales, record, name)
    for event in case.logged:
        if event.event_type == "Connect" and event.reason == "AUTHORIZATION_FAILURE":
            scales.speaks_for(PROOF, f"{name} logged Connect AUTHORIZATION_FAILURE: {event.details}".rstrip(": "))
            break
    if case.refused and case.tells is Telling.NOT_AUTHORIZED and case.failure is not None:
        scales.speaks_for(USUAL, f"CONNACK {case.failure.detail}")
    elif case.refused and case.tells is Telling.CLIENT_ID and case.failure is not None:
        scales.speaks_for(USUAL, f"CONNACK {case.failure.detail}: the client id is refused")
    elif case.alert == "access_denied":
        scales.speaks_for(USUAL, "the server sent the TLS alert access_denied")
    elif case.sight is Sight.LOST:
        _in_session(case, scales)
    elif case.refused and not scales.supporting and case.from_outside:
        scales.speaks_for(HINT, "it was turned away as a device is whose policy does not let it connect")
    if not scales.supporting:
        return None
    if case.no_record:
        scales.speaks_against(PROOF, f"{name} has no record of the certificate: no policy was asked")
    elif record is not None and record.status != "ACTIVE":
        scales.speaks_against(PROOF, f"the certificate is {record.status} in {name}: no policy was asked")
    elif record is not None and record.connect_allowed and case.sight is not Sight.LOST:
        scales.speaks_against(PROOF, f"the policies in {name} allow iot:Connect as {case.evidence.wire.client_id!r}")
    if case.ever_accepted and case.sight is not Sight.LOST:
        scales.speaks_against(USUAL, "an earlier try was accepted")
    if not scales.fixes:
        scales.fix("let a policy that is attached to the certificate allow iot:Connect with this client id")
    return scales.finding(catalogue.POLICY)


def _asked(case: Case, scales: Scales, record: RecordEvidence, name: str) -> None:
    """What the account says of the policies of an ACTIVE certificate."""
    wire, place = case.evidence.wire, case.place
    target = _arn(case, place)
    if record.policies == ():
        scales.speaks_for(case.proof, f"no policy is attached to the certificate in {name}")
        if place is not None:
            scales.fix(
                "attach a policy that allows iot:Connect",
                commands.aws("attach-policy", place.region, policy_name="POLICY_NAME", target=target),
            )
    elif record.connect_allowed is False:
        attached = f" ({', '.join(record.policies)})" if record.policies else ""
        scales.speaks_for(case.proof, f"no policy in {name}{attached} allows iot:Connect as {wire.client_id!r}")
        if place is not None:
            scales.fix(
                "change the policy, or the client id that it wants",
                *(commands.aws("get-policy", place.region, policy_name=each) for each in record.policies or ()),
            )
    late = case.activated_after_last_try
    if record.connect_allowed is None and record.policies != () and case.refused and late is not True:
        weight = USUAL if late is False or case.tried_for >= JITP_SECONDS else HINT
        scales.speaks_for(
            weight, f"the certificate is ACTIVE in {name}, and yet it is refused; its policy is not known"
        )
    if record.policies == ():
        return
    if record.connect_allowed is False and record.connect_reason:
        scales.speaks_for(HINT, record.connect_reason)
    if record.things is not None and wire.client_id not in record.things and record.connect_allowed is not True:
        things = ", ".join(repr(thing) for thing in record.things) or "none"
        weight = USUAL if record.connect_allowed is False else HINT
        scales.speaks_for(weight, f"the client id {wire.client_id!r} is not the thing of the certificate ({things})")
        if place is not None and weight == USUAL:
            scales.fix(
                "where the policy asks for it, connect with the thing's name, or attach the thing of that name",
                commands.aws("attach-thing-principal", place.region, thing_name=wire.client_id, principal=target),
            )


def _in_session(case: Case, scales: Scales) -> None:
    """Accepted, then ended: what a policy does to a device that publishes or subscribes where it may not (§5)."""
    failure = case.failure
    if failure is None:
        return
    if failure.kind is FailureKind.REQUEST_REFUSED or case.tells is Telling.NOT_AUTHORIZED:
        scales.speaks_for(USUAL, f"a request on the connection was refused: {failure.detail}".rstrip(": "))
        scales.fix("let the policy allow iot:Publish, iot:Subscribe and iot:Receive on the topics that the device uses")
    elif failure.kind is FailureKind.CLOSED_AFTER_CONNACK:
        scales.speaks_for(HINT, "IoT Core closes a connection that publishes or subscribes where no policy lets it")


def certificate(case: Case) -> Finding | None:
    """13: INACTIVE, REVOKED, in transfer, never activated; expired or not yet valid; a clock that is wrong."""
    scales, place, record = Scales(), case.place, case.record
    name = case.place_name
    if record is not None and place is not None:
        _status(case, scales, place, record)
    _validity(case, scales)
    for event in case.logged:
        if event.reason in ("DEVICE_CERTIFICATE_INACTIVE", "DEVICE_CERTIFICATE_REVOKED"):
            scales.speaks_for(PROOF, f"{name} logged {event.reason}")
            break
        if event.reason == "NOT_AUTHENTICATED":
            valid = "valid" in event.details or "expired" in event.details
            scales.speaks_for(
                PROOF if valid else HINT, f"{name} logged NOT_AUTHENTICATED: {event.details}".rstrip(": ")
            )
            break
    if case.alert in ("certificate_expired", "certificate_revoked"):
        scales.speaks_for(PROOF, f"the server sent the TLS alert {case.alert}")
    if case.refused and not scales.supporting and case.from_outside:
        scales.speaks_for(HINT, "it was turned away as a device is whose certificate is not ACTIVE")
    if not scales.supporting:
        return None
    if record is not None and record.status == "ACTIVE":
        scales.speaks_against(USUAL, f"the certificate is ACTIVE in {name}")
    if case.sight is Sight.SERVER_EXPIRED and case.peers_get_in:
        scales.speaks_against(USUAL, "others of its group find the server's certificate valid")
    if not scales.fixes and place is not None:
        look = commands.aws(
            "describe-certificate", place.region, certificate_id=case.evidence.certificate_id or "CERTIFICATE_ID"
        )
        scales.fix(f"look at the certificate's status and validity in {name}", look)
    elif not scales.fixes:
        scales.fix("look at the certificate's status and validity")
    return scales.finding(catalogue.CERTIFICATE)


def _status(case: Case, scales: Scales, place: AccountEvidence, record: RecordEvidence) -> None:
    certificate_id = case.evidence.certificate_id or "CERTIFICATE_ID"
    activate = commands.aws("update-certificate", place.region, certificate_id=certificate_id, new_status="ACTIVE")
    match record.status:
        case "ACTIVE":
            return
        case "PENDING_ACTIVATION":
            _unattended(case, scales, place, activate)
            return
        case "REVOKED":
            scales.fix("give the device a new certificate: a revoked one is not made ACTIVE again")
        case "PENDING_TRANSFER":
            scales.fix(
                "let the receiving account accept the transfer, or cancel it here",
                commands.aws(
                    "accept-certificate-transfer", place.region, certificate_id=certificate_id, set_as_active=True
                ),
                commands.aws("cancel-certificate-transfer", place.region, certificate_id=certificate_id),
            )
        case _:
            scales.fix(f"make the certificate ACTIVE in {place.name}", activate)
    scales.speaks_for(case.proof, f"the certificate is {record.status} in {place.name}")


def _unattended(case: Case, scales: Scales, place: AccountEvidence, activate: str) -> None:
    """PENDING_ACTIVATION under JITR: somebody has to activate it, and nobody does."""
    ca, pending = case.provisioned_by, case.pending_for
    if ca is None or ca.template is not None or not ca.auto_registration or pending is None:
        return
    if pending < PROVISIONING_SECONDS:
        return
    alone = pending >= UNATTENDED_SECONDS and case.tries > 1
    scales.speaks_for(
        case.proof if alone else USUAL,
        f"PENDING_ACTIVATION in {place.name} for {pending:.0f} s: under JITR somebody must activate it, and nobody has",
    )
    scales.fix("look after the rule on $aws/events/certificates/registered/+ and its Lambda, or activate it", activate)


def _validity(case: Case, scales: Scales) -> None:
    leaf, last = case.evidence.leaf, case.last
    offset = None if case.place is None else case.place.clock_offset
    true_time = (case.evidence.now if last is None else last.end) - (offset or 0.0)
    reached = case.refused or case.sight in (Sight.LOST, Sight.SILENT)
    proof = PROOF if reached else HINT
    if leaf is not None and true_time > leaf.not_after:
        scales.speaks_for(proof, f"the certificate has expired: valid until {_date(leaf.not_after)}")
        scales.fix("give the device a new certificate")
    elif leaf is not None and true_time < leaf.not_before:
        scales.speaks_for(proof, f"the certificate is not yet valid: valid from {_date(leaf.not_before)}")
        scales.fix("issue certificates valid from some minutes ago, by a clock that is right")
    if case.sight is Sight.SERVER_EXPIRED and case.failure is not None:
        scales.speaks_for(PROOF, f"the server's certificate is expired or not yet valid to it: {case.failure.detail}")
        scales.fix("set the device's clock (NTP); where it is right, the server's certificate has to be renewed")
    if offset is not None and abs(offset) > CLOCK_SECONDS:
        ahead = "ahead of" if offset > 0 else "behind"
        weight = USUAL if scales.supporting or abs(offset) > 3600 else HINT
        scales.speaks_for(weight, f"this machine's clock is {abs(offset):.0f} s {ahead} the control plane's")
        scales.fix("set this machine's clock (NTP)")


def _date(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # beyond what a calendar holds
        return f"{moment:.0f} s since 1970"


def _arn(case: Case, place: AccountEvidence | None) -> str:
    if place is None:
        return "CERTIFICATE_ARN"
    return commands.cert_arn(place.region, place.account_id, case.evidence.certificate_id or "CERTIFICATE_ID")
