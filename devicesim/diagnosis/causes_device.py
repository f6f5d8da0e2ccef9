"""Causes that stand in how the device, and its fleet, behave: no retry, too fast, one client id twice
(aws-iot-behaviour.md §9: 1, 8, 11). Pure.
"""

from devicesim.diagnosis import catalogue
from devicesim.diagnosis.case import JITP_SECONDS, PROVISIONING_SECONDS, Case, Sight, Telling
from devicesim.diagnosis.causes_provisioning import is_throttled
from devicesim.diagnosis.findings import Finding
from devicesim.diagnosis.oracle import SLACK_SECONDS
from devicesim.diagnosis.scales import HINT, PROOF, USUAL, Scales
from devicesim.outcome import FailureKind

CONNECTS_PER_SECOND = 500
CONNECTS_PER_CLIENT_ID = 1
REGISTRATIONS_PER_SECOND = 15
REGISTER_THING_PER_SECOND = 10
"""AWS's defaults, each a second and account (§6)."""
MANY_PEERS = 5


def first_drop(case: Case) -> Finding | None:
    """1: IoT Core registers a new certificate on its first connection and drops that connection (§2, §3)."""
    scales, wire = Scales(), case.evidence.wire
    if not case.refused or case.last is None:
        return None
    name = case.place_name
    if case.tries == 1 and wire.tries_allowed == 1:
        scales.speaks_for(USUAL, "it connects once and takes the drop for final")
    elif case.tries == 1 and not case.still_trying:
        scales.speaks_for(HINT, "one try only is on record")
    elif case.tries > 1 and case.tries >= wire.tries_allowed and case.tried_for < JITP_SECONDS:
        told = f"its {case.tries} tries were over after {case.tried_for:.1f} s; provisioning takes 1 to 3 s"
        scales.speaks_for(USUAL, told)
    _active_by_now(case, scales, name)
    if not scales.supporting:
        return None
    if case.pending_for is not None and case.pending_for < PROVISIONING_SECONDS:
        scales.speaks_for(HINT, f"{name} has registered the certificate, and provisioning may be under way")
    _not_the_first_drop(case, scales, name)
    scales.fix(
        "connect again after 3 to 5 s, then back off, 5 tries in all; in a fleet file: [retry] attempts = 5",
    )
    return scales.finding(catalogue.FIRST_DROP)


def _active_by_now(case: Case, scales: Scales, name: str) -> None:
    """Provisioning has come off, so that one more try would have been the one."""
    record, last, late = case.record, case.last, case.activated_after_last_try
    if record is None or last is None or record.status != "ACTIVE" or record.connect_allowed is False:
        return
    then = "the next one gets in" if record.connect_allowed else "the next one may get in"
    if late:
        surely = case.tries == 1 or (record.changed is not None and record.changed >= last.start)
        sure = surely and record.connect_allowed and case.tried_for < PROVISIONING_SECONDS
        scales.speaks_for(PROOF if sure else USUAL, f"the certificate is ACTIVE in {name} since its last try: {then}")
    elif late is None and case.tries == 1:
        weight = PROOF if record.connect_allowed else USUAL
        scales.speaks_for(weight, f"the certificate is ACTIVE in {name} after its one try: {then}")
    elif late is None:
        scales.speaks_for(HINT, f"the certificate is ACTIVE in {name} by now")


def _not_the_first_drop(case: Case, scales: Scales, name: str) -> None:
    record, event = case.record, case.last_provisioning
    if case.no_record:
        scales.speaks_against(PROOF, f"{name} has no record of the certificate: the drop registered nothing")
    if record is not None and record.status not in ("ACTIVE", "PENDING_ACTIVATION"):
        scales.speaks_against(PROOF, f"the certificate is {record.status} in {name}")
    if record is not None and record.status == "ACTIVE":
        if case.activated_after_last_try is False:
            scales.speaks_against(PROOF, f"the certificate was ACTIVE in {name} before its last try")
        if record.connect_allowed is False or record.policies == ():
            scales.speaks_against(PROOF, f"no policy in {name} lets it connect: the next try would be dropped too")
    if case.activated_after_last_try is not True and case.tried_for >= PROVISIONING_SECONDS:
        scales.speaks_against(PROOF, f"it kept trying for {case.tried_for:.0f} s")
    if case.pending_for is not None and case.pending_for >= PROVISIONING_SECONDS:
        scales.speaks_against(USUAL, f"still PENDING_ACTIVATION in {name} after {case.pending_for:.0f} s")
    if event is not None and event.error is not None:
        scales.speaks_against(PROOF, f"RegisterThing failed in {name}: the next try would be dropped too")
    if case.decider is None and case.sent is None:
        scales.speaks_against(USUAL, "no server name is sent: a first connection is registered by DEFAULT mode only")
    elif case.decider is None and case.endpoints_known:
        scales.speaks_against(USUAL, "the server name is nobody's here: nothing is registered")
    if case.alert:
        scales.speaks_against(USUAL, f"it was refused with the TLS alert {case.alert}, not by a drop")
    elif case.failure is not None and case.failure.kind is FailureKind.CONNACK_REFUSED:
        scales.speaks_against(USUAL, "it was refused with a CONNACK, not by a drop")


def throttled(case: Case) -> Finding | None:
    """8: CONNECT 500/s an account and 1/s a client id; 15 registrations and 10 RegisterThing a second (§6)."""
    scales, fleet = Scales(), case.evidence.fleet
    name = case.place_name
    if case.sight not in (Sight.REFUSED, Sight.SILENT, Sight.LOST):
        return None
    if case.tells is Telling.QUOTA and case.failure is not None:
        scales.speaks_for(
            PROOF if case.failure.detail.startswith("0x9") else USUAL, f"the server said {case.failure.detail}"
        )
    for event in case.logged:
        if "THROTTL" in event.reason.upper():
            scales.speaks_for(PROOF, f"{name} logged {event.event_type} {event.reason}")
            break
    if (failed := case.last_provisioning) is not None and is_throttled(failed):
        scales.speaks_for(PROOF, f"CloudTrail of {name}: RegisterThing was throttled: {failed.error}: {failed.message}")
    if any("throttl" in text.lower() for text in fleet.errors):
        scales.speaks_for(HINT, "the run's errors speak of throttling")
    if case.refused:
        _rates(case, scales, name)
    if not scales.supporting:
        return None
    if case.record is not None and case.record.status not in ("ACTIVE", "PENDING_ACTIVATION"):
        scales.speaks_against(PROOF, f"the certificate is {case.record.status} in {name}")
    if case.decider is None and (case.sent is None or case.endpoints_known):
        scales.speaks_against(USUAL, "no account answers to what it sends, so none throttles it")
    template = None if case.provisioned_by is None else case.provisioned_by.template
    if template is not None and (template.missing_parameters or template.missing_things or template.problems):
        scales.speaks_against(PROOF, f"the template of {name} would fail for it at any rate of tries")
    scales.fix(
        f"start fewer than {REGISTER_THING_PER_SECOND} new devices a second and account (run --rate), back off with"
        " jitter, or have the quotas raised",
    )
    return scales.finding(catalogue.THROTTLED)


def _rates(case: Case, scales: Scales, name: str) -> None:
    fleet, record = case.evidence.fleet, case.record
    late = case.activated_after_last_try is not False
    new = record is None or record.status == "PENDING_ACTIVATION" or (record.status == "ACTIVE" and late)
    first = fleet.first_tries_per_second
    jitp = case.provisioned_by is not None and case.provisioned_by.template is not None
    limit = REGISTER_THING_PER_SECOND if jitp and record is not None else REGISTRATIONS_PER_SECOND
    if new and first is not None and first > limit:
        what = "RegisterThing" if limit == REGISTER_THING_PER_SECOND else "registrations"
        scales.speaks_for(
            USUAL, f"{first:.0f} first connections came to {name} within a second; it takes {limit} {what} a second"
        )
        if case.no_record and case.registering is not None:
            scales.speaks_for(USUAL, f"{name} would register the certificate and has not, and nothing else is wrong")
        elif case.pending_for is not None and (case.pending_for >= PROVISIONING_SECONDS or case.tries > 1):
            scales.speaks_for(USUAL, f"registered in {name}, and not provisioned after {case.tries} tries")
        elif record is not None and record.status == "ACTIVE" and case.tried_for >= PROVISIONING_SECONDS:
            scales.speaks_for(USUAL, f"ACTIVE in {name} by now, and not yet after {case.tried_for:.0f} s of tries")
        if case.tries > 1 and fleet.peers >= MANY_PEERS and not fleet.peers_accepted:
            scales.speaks_against(USUAL, f"of {fleet.peers} others that do the same none got in: quotas let some in")
        if 0 < fleet.peers_accepted < fleet.peers:
            scales.speaks_for(HINT, f"{fleet.peers_accepted} of {fleet.peers} others that do the same got in")
    elif new and first is not None and (case.no_record or case.pending_for is not None):
        scales.speaks_against(USUAL, f"at most {first:.0f} first connections a second came to {name}")
    if fleet.tries_per_second is not None and fleet.tries_per_second > CONNECTS_PER_SECOND:
        scales.speaks_for(
            USUAL, f"{fleet.tries_per_second:.0f} connections came within a second; {CONNECTS_PER_SECOND} are taken"
        )
    _one_client_id(case, scales)
    ready = record is not None and record.status == "ACTIVE" and record.connect_allowed
    if ready and case.activated_after_last_try is False and case.right_name:
        scales.speaks_for(HINT, f"the certificate is ACTIVE in {name} and may connect, and yet it was dropped")


def _one_client_id(case: Case, scales: Scales) -> None:
    """Its tries are counted once the certificate is authenticated, so never of one that is not ACTIVE."""
    record, attempts = case.record, case.evidence.attempts
    if case.tries < 2 or case.no_record or (record is not None and record.status != "ACTIVE"):
        return
    gap = attempts[-1].start - attempts[-2].start
    if gap >= 1 / CONNECTS_PER_CLIENT_ID:
        return
    # one that was ACTIVE before its first try had that refused as well, which came after no other
    since = None if record is None or case.activated_after_last_try is not False else record.changed
    weight = USUAL if since is not None and since > attempts[0].start + SLACK_SECONDS else HINT
    scales.speaks_for(weight, f"its last tries came {gap:.1f} s apart; one a second and client id is taken")


def same_client_id(case: Case) -> Finding | None:
    """11: of two connections with one client id in an account the newer wins, and both come again (§5)."""
    scales, fleet, wire = Scales(), case.evidence.fleet, case.evidence.wire
    name = case.place_name
    if case.tells is Telling.TAKEN_OVER and case.failure is not None:
        scales.speaks_for(PROOF, f"the server disconnected it: {case.failure.detail}")
    for event in case.logged:
        if event.reason in ("DUPLICATE_CLIENT_ID", "DUPLICATE_CLIENTID"):
            scales.speaks_for(PROOF, f"{name} logged {event.event_type} {event.reason}")
            break
    if case.sight is Sight.LOST:
        dropped = case.failure is not None and case.failure.kind in (
            FailureKind.CLOSED_AFTER_CONNACK,
            FailureKind.CONNECTION_RESET,
        )
        if dropped:
            scales.speaks_for(HINT, "it was accepted, and the connection was ended without a word")
        if dropped and sum(each.connack_code == 0 for each in case.evidence.attempts) > 1:
            scales.speaks_for(HINT, "that happened more than once")
    elif not case.ever_accepted and not scales.supporting:
        return None
    if fleet.same_client_id:
        others = f"{fleet.same_client_id} other device{'s' if fleet.same_client_id != 1 else ''}"
        scales.speaks_for(USUAL, f"{others} of the run use the client id {wire.client_id!r} too")
    elif scales.supporting and fleet.peers:
        scales.speaks_against(HINT, "no other device of the run has its client id")
    if not scales.supporting:
        return None
    scales.fix('give every device a client id of its own; in a fleet file: client_id = "{common_name}"')
    return scales.finding(catalogue.CLIENT_ID)
