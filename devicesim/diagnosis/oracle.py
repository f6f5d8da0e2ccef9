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

SLACK_SECONDS = 2.0
"""Clocks of two machines and AWS's own times of a record are compared no more finely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The oracle's word on the last try."""

    expectation: Expectation
    refuses: bool
    """IoT Core should have refused it: with the accounts as they are, what was seen is right."""

    @property
    def row(self) -> str:
        """``10b.C2.none [D/I]``."""
        return f"{self.expectation.row.id} [{self.expectation.row.mark}]"

    @property
    def registers(self) -> bool:
        """It should have registered the certificate, and dropped the connection for that."""
        return self.expectation.registered_in is not None


def reading(evidence: DeviceEvidence, dialled: AccountEvidence | None) -> Reading | None:
    """``None`` where an account of the Region could not be asked, or says what the oracle has no word for."""
    if dialled is None or not evidence.attempts:
        return None
    last = evidence.attempts[-1]
    views = [_view(account, last) for account in evidence.accounts]
    known = [view for view in views if view is not None]
    if any(view is None and each.region == dialled.region for view, each in zip(views, evidence.accounts, strict=True)):
        return None
    if contradictions(known):
        return None
    expectation = expect(
        known,
        region=dialled.region,
        sni=evidence.wire.server_name,
        chain_sent=evidence.wire.chain_sent,
        mqtt_version="5" if evidence.wire.mqtt_version == "5" else "3.1.1",
    )
    return Reading(expectation=expectation, refuses=expectation.first_try != "accepted")


def _view(account: AccountEvidence, last: Attempt) -> AccountView | None:
    if account.endpoint is None or account.cas is None or not account.record_asked:
        return None
    ca = _holds(account.cas)
    certificate = None
    if account.record is not None and not _came_after(account.record, last):
        if account.record.status not in STATUSES:
            return None
        status = account.record.status
        changed = account.record.modified
        if status == "ACTIVE" and changed is not None and changed >= last.start - SLACK_SECONDS:
            status = "PENDING_ACTIVATION"  # activated since
        certificate = CertificateView(
            status=status,
            mode=_mode(account.record.mode),
            policy_allows=account.record.connect_allowed is not False and account.record.policies != (),
        )
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


def _came_after(record: RecordEvidence, last: Attempt) -> bool:
    """The record was made by the last try itself, or since."""
    return record.created is not None and record.created >= last.start - SLACK_SECONDS


def _holds(cas: Sequence[CAEvidence]) -> CAEvidence | None:
    """The CA that counts where several could: one that registers, before one that does not."""
    signers = [ca for ca in cas if ca.signed_leaf and ca.same_subject]
    return max(signers, key=lambda ca: ca.active and ca.auto_registration, default=None)


def _mode(text: str) -> Mode:
    return "DEFAULT" if text == "DEFAULT" else "SNI_ONLY"
