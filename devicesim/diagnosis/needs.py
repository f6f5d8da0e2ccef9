"""What was not known and would have told more, with how to get it. Pure."""

from collections.abc import Iterator, Sequence

from devicesim.diagnosis import commands
from devicesim.diagnosis.case import JITP_SECONDS, Case, Sight
from devicesim.diagnosis.evidence import AccountEvidence
from devicesim.diagnosis.findings import Finding
from devicesim.diagnosis.scales import PROOF

READ_ONLY = "AWSIoTConfigReadOnlyAccess and iot:TestAuthorization"
"""A managed policy of AWS, and what else is asked."""


def would_need(case: Case, findings: Sequence[Finding]) -> tuple[str, ...]:
    """One line each, where it matters for this device: nothing is asked for when a cause is as good as proven."""
    if findings and findings[0].score >= PROOF:
        return ()
    return tuple(dict.fromkeys(_needs(case)))


def _needs(case: Case) -> Iterator[str]:
    place = case.place
    match case.sight:
        case Sight.NOTHING:
            yield "a try that came to its end: none is on record"
        case Sight.OURS:
            yield "a machine with room: this one ran out of files, ports or memory (devicesim doctor)"
            return
        case Sight.NO_NAME:
            host = case.evidence.wire.address[0] if case.evidence.wire.address else case.evidence.wire.verify_name
            yield f"whether the name resolves from another network: getent hosts {host}"
            return
        case _ if case.before_account:
            return  # nothing that an account says decides it
    if place is None:
        yield "the account that the device is meant for: name one of the fleet file's"
        return
    yield from _control_plane(place)
    if case.still_trying:
        yield "the next try, which is due: provisioning may be under way"
    elif case.refused and case.tries == 1:
        yield "a second try, 3 to 5 s after the first: IoT Core drops every first connection of a new certificate"
    if case.sight is Sight.SILENT:
        yield "a longer wait for CONNACK; in a fleet file: deadlines.connack"
    if case.sight is Sight.LOST and case.evidence.held_open is None:
        yield "a longer hold: for how long a connection lasts tells who ends it"
    yield from _logs(case, place)


def _control_plane(place: AccountEvidence) -> Iterator[str]:
    where = f"{place.name} ({place.account_id}, {place.region})"
    if place.cas is None and not place.record_asked:
        yield f"the control plane of {where}: credentials that may read it ({READ_ONLY})"
    elif place.cas is None:
        yield f"the CA certificates of {where}: iot:ListCACertificates, iot:DescribeCACertificate"
    elif not place.record_asked:
        yield f"the certificate's record in {where}: iot:DescribeCertificate"
    if place.record is not None and place.record.status == "ACTIVE" and place.record.connect_allowed is None:
        yield f"whether the policies in {where} let it connect: iot:ListAttachedPolicies, iot:TestAuthorization"
    yield from (f"{where}: {each}" for each in place.not_asked)


def _logs(case: Case, place: AccountEvidence) -> Iterator[str]:
    """What AWS itself has written down, where there is something for it to write."""
    if case.pending_for is not None:
        if case.pending_for > JITP_SECONDS:
            yield from _of_provisioning(case, place)
    elif (case.refused or case.sight is Sight.LOST) and not place.logs and case.decider is not None:
        authentication = case.refused and case.sent is not None  # without a server name it is not logged (§8)
        set_level = commands.aws(
            "set-v2-logging-options",
            place.region,
            role_arn="ROLE_ARN",
            default_log_level="ERROR" if case.refused else "INFO",
            event_configurations="eventType=Connection.AuthNError,logLevel=ERROR" if authentication else False,
        )
        what = "refusal" if case.refused else "disconnect"
        yield f"AWS IoT's log in {place.name}: it names the reason of each {what} once it is on: {set_level}"
        if case.refused and case.record is not None and case.record.connect_allowed:
            yield f"CloudWatch metrics of {place.name}, in AWS/IoT: Connect.Throttle and Connect.ClientIDThrottle"


def _of_provisioning(case: Case, place: AccountEvidence) -> Iterator[str]:
    ca = case.provisioned_by
    if ca is not None and ca.template is None:
        yield f"who activates it in {place.name}: the rule on $aws/events/certificates/registered/+ and its Lambda"
    if place.provisioning is None and (ca is None or ca.template is not None):
        yield f"CloudTrail of {place.name}: what RegisterThing said (cloudtrail:LookupEvents)"
    if ca is None or ca.template is None:
        return
    if not ca.template.role_asked:
        yield f"IAM of {place.name}: whether the template's role can be assumed and may do it (iam:GetRole)"
    elif ca.template.role_problem is None:
        role = ca.template.role_arn or "the role"
        yield f"whether {role} may do what the template asks (AWSIoTThingsRegistration): that was not looked at"
