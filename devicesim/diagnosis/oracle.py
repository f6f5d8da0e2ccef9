"""What the oracle says of a device's last try, from evidence: whether the drop is what IoT Core should do. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from devicesim.diagnosis.evidence import AccountEvidence, CAEvidence, DeviceEvidence, RecordEvidence
from devicesim.outcome import Attempt
from devicesim.rules import (
    STATUSES,
    AccountView,
    CARegistration,
    CertificateView,
    Expectation,
    Mode,
    contradictions,
    expect,
)

SLACK_SECONDS = 1.0
"""Clocks of two machines are compared no more finely: how they stand to each other is told in whole seconds only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The oracle's word on the last try."""

    expectation: Expectation
    as_it_should: bool
    """What was seen is what IoT Core should have done: it refused, and registered the certificate if that was due."""

    @property
    def row(self) -> str:
        """``10b.C2.none [D/I]``."""
        return f"{self.expectation.row.id} [{self.expectation.row.mark}]"

    @property
    def registers(self) -> bool:
        """It should have registered the certificate, and dropped the connection for that."""
        return self.expectation.registered_in is not None


def reading(evidence: DeviceEvidence, dialled: AccountEvidence | None) -> Reading | None:
    """``None`` where an account of the Region could not be asked, or not about a policy on which it hangs, or says what
    the oracle has no word for; nor has it one for a certificate that is not valid."""
    if dialled is None or not evidence.attempts or not _valid(evidence, dialled):
        return None
    expectation = _expectation(evidence, dialled, policies_allow=True)
    otherwise = _expectation(evidence, dialled, policies_allow=False)
    if expectation is None or otherwise is None or expectation.row != otherwise.row:
        return None
    registered_in = expectation.registered_in
    done = registered_in is None or any(
        account.record is not None for account in evidence.accounts if account.name == registered_in
    )
    return Reading(expectation=expectation, as_it_should=expectation.first_try != "accepted" and done)


def _valid(evidence: DeviceEvidence, account: AccountEvidence) -> bool:
    leaf, then = evidence.leaf, evidence.attempts[-1].end - (account.clock_offset or 0.0)
    return leaf is None or leaf.not_before <= then <= leaf.not_after


def _expectation(evidence: DeviceEvidence, dialled: AccountEvidence, *, policies_allow: bool) -> Expectation | None:
    """``policies_allow``: what is supposed of policies that are not known."""
    views = []
    for account in evidence.accounts:
        view = _view(account, evidence.attempts, policies_allow)
        if view is not None:
            views.append(view)
        elif account.region == dialled.region:
            return None
    if contradictions(views):
        return None
    return expect(
        views,
        region=dialled.region,
        sni=evidence.wire.server_name,
        chain_sent=evidence.wire.chain_sent,
        mqtt_version="5" if evidence.wire.mqtt_version == "5" else "3.1.1",
    )


def _view(account: AccountEvidence, attempts: Sequence[Attempt], policies_allow: bool) -> AccountView | None:
    if account.endpoint is None or account.cas is None or not account.record_asked:
        return None
    ca = _holds(account.cas)
    certificate = None
    if account.record is not None:
        there = _was_there(account.record, attempts)
        if there is None:
            return None
        if there:
            certificate = _then(account.record, attempts[-1], policies_allow)
            if certificate is None:
                return None
    return AccountView(
        name=account.name,
        account_id=account.account_id,
        region=account.region,
        endpoint=account.endpoint,
        ca=None
        if ca is None
        else CARegistration(mode=_mode(ca.mode), active=ca.active, auto_registration=ca.auto_registration),
        provisioning="none" if ca is None else "JITR" if ca.template is None else "JITP",
        thing=None,
        certificate=certificate,
    )


def _was_there(record: RecordEvidence, attempts: Sequence[Attempt]) -> bool | None:
    """Whether the record stood before the last try; ``None`` where that cannot be told.

    Of two tries that clocks cannot tell apart it is the earlier one that registers. What a try makes is pending, and
    then ACTIVE: a record that was ACTIVE from the beginning, or is in another status, was made by a call of the API.
    """
    last, created = attempts[-1], record.created
    if created is not None and created < last.start - SLACK_SECONDS:
        return True
    if len(attempts) > 1:
        return created is None or created <= attempts[-2].end + SLACK_SECONDS
    if record.status in ("PENDING_ACTIVATION", "ACTIVE") and not record.never_pending:
        return None if created is None else False
    return created is None or created <= last.end + SLACK_SECONDS


def _then(record: RecordEvidence, last: Attempt, policies_allow: bool) -> CertificateView | None:
    """The record as the last try met it; ``None`` where that cannot be told."""
    status, changed = record.status, record.modified
    if status not in STATUSES:
        return None
    denied = record.policies == () or record.connect_allowed is False
    allowed = not denied and (bool(record.connect_allowed) or policies_allow)
    if status == "ACTIVE":
        if changed is None:
            return None
        late = last.end + SLACK_SECONDS if denied else last.start - SLACK_SECONDS
        if changed >= late and not record.never_pending:
            status = "PENDING_ACTIVATION"  # activated since
    elif changed is not None and changed > last.end + SLACK_SECONDS:
        return None
    return CertificateView(status=status, mode=_mode(record.mode), policy_allows=allowed)


def _holds(cas: Sequence[CAEvidence]) -> CAEvidence | None:
    """The CA that counts where several could: one that registers, before one that does not."""
    signers = [ca for ca in cas if ca.signed_leaf and ca.same_subject]
    return max(signers, key=lambda ca: ca.active and ca.auto_registration, default=None)


def _mode(text: str) -> Mode:
    return "DEFAULT" if text == "DEFAULT" else "SNI_ONLY"
