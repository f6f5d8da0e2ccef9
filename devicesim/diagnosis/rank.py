"""From evidence to a diagnosis: every cause is asked, and they are ranked by what speaks for and against each. Pure."""

from collections.abc import Callable
from dataclasses import replace

from devicesim.diagnosis import (
    catalogue,
    causes_ca,
    causes_certificate,
    causes_device,
    causes_provisioning,
    causes_wire,
)
from devicesim.diagnosis.case import Case, Sight, read
from devicesim.diagnosis.evidence import DeviceEvidence
from devicesim.diagnosis.findings import Argument, Diagnosis, Finding
from devicesim.diagnosis.needs import would_need
from devicesim.diagnosis.scales import HINT, USUAL
from devicesim.record.verdict import describe_failure

CAUSES: tuple[Callable[[Case], Finding | None], ...] = (
    causes_device.first_drop,
    causes_ca.not_registering,
    causes_wire.server_name,
    causes_ca.issuer,
    causes_provisioning.template_fails,
    causes_provisioning.role_fails,
    causes_certificate.policy,
    causes_device.throttled,
    causes_wire.wrong_root,
    causes_ca.registration_refused,
    causes_device.same_client_id,
    causes_wire.no_alpn,
    causes_certificate.certificate,
    causes_wire.wrong_endpoint,
    causes_wire.wrong_port,
)
"""By their numbers in aws-iot-behaviour.md §9."""
_AFTER_CONNACK = (catalogue.POLICY, catalogue.THROTTLED, catalogue.CLIENT_ID, catalogue.CERTIFICATE)
"""What can end a connection that was accepted; the others stand in the way of that."""
_BEFORE_ACCOUNT = (catalogue.ROOT, catalogue.ALPN, catalogue.ENDPOINT, catalogue.PORT)
"""What can end a connection before an account decides anything."""


def diagnose(evidence: DeviceEvidence) -> Diagnosis:
    """Why the device is not connected: the causes that something speaks for, the likeliest first.

    A cause against which as much speaks as for it is left out. The same evidence gives the same diagnosis.
    """
    case = read(evidence)
    found: list[Finding] = []
    if not case.connected:
        for cause in CAUSES:
            finding = cause(case)
            if finding is not None and (finding := _in_its_place(case, finding)) is not None and finding.score > 0:
                found.append(finding)
    findings = tuple(sorted(found, key=lambda each: (-each.score, each.cause.number)))
    return Diagnosis(
        device=evidence.name,
        group=evidence.group,
        connected=case.connected,
        seen=_seen(case),
        tries=case.tries,
        findings=findings,
        would_need=() if case.connected else would_need(case, findings),
        oracle=_oracle(case),
    )


def _in_its_place(case: Case, finding: Finding) -> Finding | None:
    """A cause counts by whether what was seen can come from it: what only stands in the way after that is a hint, and
    what the device has behind it is none."""
    if case.sight is Sight.LOST and finding.cause not in _AFTER_CONNACK:
        return None
    own = finding.cause in _BEFORE_ACCOUNT
    own = own or (case.sight is Sight.SERVER_EXPIRED and finding.cause is catalogue.CERTIFICATE)
    if case.before_account and not own:
        return replace(
            finding,
            supporting=tuple(replace(each, weight=HINT) for each in finding.supporting[:1]),
            opposing=tuple(replace(each, weight=HINT) for each in finding.opposing[:1]),
        )
    if case.elsewhere and not own and finding.cause is not catalogue.SNI:
        return replace(finding, supporting=tuple(replace(each, weight=HINT) for each in finding.supporting))
    return _with_oracle(case, finding)


def _seen(case: Case) -> str:
    last, failure = case.last, case.failure
    if last is None:
        why = case.evidence.never_started
        return f"never started: {why}" if why else "no try on record"
    if failure is not None:
        detail = f": {failure.detail}" if failure.detail else ""
        return f"{describe_failure(failure.kind, failure.stage)}{detail}"
    if case.sight is Sight.CONNECTED:
        held = case.evidence.held_open
        return f"accepted{_by_another(case)}" + ("" if held is None else f", and open for {held:.0f} s")
    return "cut short"


def _by_another(case: Case) -> str:
    if not case.elsewhere or case.decider is None or case.dialled is None:
        return ""
    return f" by {case.decider.name}, though {case.dialled.name} is dialled"


# --- the oracle ---

_ROWS = {
    # a row of the oracle, by its id without the section: the causes whose rule it is
    "C0.any": (catalogue.CA,),
    "pending.ca-off": (catalogue.CA,),
    "active.denied": (catalogue.POLICY,),
    "inactive": (catalogue.CERTIFICATE,),
    "revoked": (catalogue.CERTIFICATE,),
    "pending-transfer": (catalogue.CERTIFICATE,),
    "junk": (catalogue.ENDPOINT,),
    "default.junk": (catalogue.ENDPOINT,),
    "other-region": (catalogue.SNI,),
    "C1.none.leaf": (catalogue.SNI, catalogue.ISSUER),
    "C3.none.leaf": (catalogue.SNI, catalogue.ISSUER),
    "C2.none": (catalogue.SNI,),
    "C4.none": (catalogue.SNI,),
    "ca-off.none": (catalogue.CA,),
    "sni-only.none": (catalogue.SNI,),
    "default.none.several": (catalogue.SNI,),
}
_NO_CA_THERE = frozenset({"C1.sB", "C2.sB", "C3.sX", "C4.sX", "default.sB.no-ca", "sni-only.sB", "ca-off.sA"})
"""The account named does not register: its fault (2) where it is the one dialled, the server name's (3) where not."""


def _with_oracle(case: Case, finding: Finding) -> Finding:
    """The oracle's row beside the evidence: that IoT Core should refuse just so is one more argument."""
    reading = case.expected
    if reading is None or not reading.as_it_should:
        return finding
    row = reading.expectation.row
    name = row.id.partition(".")[2]
    causes = _ROWS.get(name, ())
    if name in _NO_CA_THERE:
        causes = (catalogue.CA,) if case.decider is case.dialled else (catalogue.SNI,)
    if reading.registers and case.tries == 1:
        causes = (catalogue.FIRST_DROP,)
    if finding.cause not in causes:
        return finding
    argument = Argument(
        text=f"it is what IoT Core should do, by row {reading.row}", weight=HINT if row.inferred else USUAL
    )
    return replace(finding, supporting=(*finding.supporting, argument))


def _oracle(case: Case) -> str:
    reading = case.expected
    if reading is None:
        return ""
    row = f"{reading.expectation.row.says} ({reading.row})"
    if reading.as_it_should:
        return f"as IoT Core should: {row}"
    missing = f", but {reading.expectation.registered_in} has no record of it" if reading.registers else ""
    return f"not what IoT Core should do: {row}{missing}"
