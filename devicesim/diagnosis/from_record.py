"""Evidence from a run's record alone: what its attempts saw, what its accounts held, how it had set them up. Pure.

A record has no certificate, no policy, no log and no template, and of how devices connect only what its groups say
(:attr:`WireEvidence.assumed`). Its accounts are as setup left them, for setup ends a run whose accounts are otherwise
than planned.
"""

from collections.abc import Collection, Iterable, Sequence

from devicesim.diagnosis.evidence import (
    AccountEvidence,
    CAEvidence,
    DeviceEvidence,
    FleetEvidence,
    RecordEvidence,
    TemplateEvidence,
    WireEvidence,
)
from devicesim.outcome import Attempt, Holding
from devicesim.record.facts import AccountRecord, DeviceRecord, GroupRecord

DEFAULT_PORT = 8883


class Rates:
    """How fast connections came to an account: tries are added as they are read, in any order."""

    def __init__(self) -> None:
        self._first = _Busiest()
        self._all = _Busiest()

    def add(self, account: str, attempts: Iterable[Attempt]) -> None:
        """The tries of one device that dials ``account``."""
        for attempt in attempts:
            self._all.add(account, attempt.start)
            if attempt.number == 1:
                self._first.add(account, attempt.start)

    def first(self, account: str) -> float | None:
        """The most first tries in one second; ``None``: there were none."""
        return self._first.most.get(account)

    def all(self, account: str) -> float | None:
        """The most tries of any kind in one second."""
        return self._all.most.get(account)


class _Busiest:
    """Events of accounts by the second, and the most in one."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self.most: dict[str, float] = {}

    def add(self, account: str, moment: float) -> None:
        second = account, int(moment)
        count = self._counts[second] = self._counts.get(second, 0) + 1
        if count > self.most.get(account, 0.0):
            self.most[account] = float(count)


def device_evidence(
    device: DeviceRecord,
    group: GroupRecord,
    accounts: Sequence[AccountRecord],
    attempts: Sequence[Attempt],
    holdings: Iterable[Holding],
    asked: Collection[str],
    *,
    now: float,
    gave_up: bool,
    fleet: FleetEvidence | None = None,
) -> DeviceEvidence:
    """What a record tells of one device.

    ``holdings`` are what the accounts held of its certificate after the run, ``asked`` the accounts that could be
    asked. ``gave_up``: it had used up its tries, so that their number is the most it was allowed.
    """
    held = {holding.account: holding for holding in holdings if holding.certificate_id == device.certificate_id}
    # no account knew it before the run, so that its first try is the one that was registered
    created = attempts[0].start if attempts and device.expectation is None else None
    return DeviceEvidence(
        name=device_name(device),
        group=group.name,
        leaf=None,
        certificate_id=device.certificate_id,
        wire=wire_evidence(device, group, accounts, tries_allowed=len(attempts) + (0 if gave_up else 1)),
        attempts=attempts,
        held_open=None,
        accounts=[
            account_evidence(account, held.get(account.name), account.name in asked, created=created)
            for account in accounts
        ],
        now=now,
        fleet=fleet or FleetEvidence(),
    )


def device_name(device: DeviceRecord) -> str:
    """A device for people."""
    return f"device {device.number} ({device.client_id})"


def wire_evidence(
    device: DeviceRecord, group: GroupRecord, accounts: Sequence[AccountRecord], *, tries_allowed: int
) -> WireEvidence:
    """How a group's devices connect, as far as its record says."""
    endpoint = next((account.endpoint for account in accounts if account.name == group.account), None)
    return WireEvidence(
        dials=group.account,
        address=None,
        port=DEFAULT_PORT,
        server_name=group.sni,
        verify_name=endpoint or "",
        chain_sent=group.chain_sent,
        alpn=(),
        client_id=device.client_id,
        mqtt_version="3.1.1",
        tries_allowed=tries_allowed,
        foreign_roots=False,
        assumed=True,
    )


def account_evidence(
    account: AccountRecord, holding: Holding | None, asked: bool, *, created: float | None
) -> AccountEvidence:
    """An account as setup left it, with its record of the certificate as it was after the run, made at ``created`` if
    that is known."""
    return AccountEvidence(
        name=account.name,
        account_id=account.account_id,
        region=account.region,
        endpoint=account.endpoint,
        cas=() if account.ca_mode is None else (_shared_ca(account, account.ca_mode),),
        record_asked=asked,
        record=None if holding is None else _record(account, holding, created),
        planned_mode=account.ca_mode,
        planned_template=account.provisioning == "JITP",
    )


def _shared_ca(account: AccountRecord, mode: str) -> CAEvidence:
    template = TemplateEvidence(name=None, role_arn=None) if account.provisioning == "JITP" else None
    return CAEvidence(
        certificate_id="",
        subject="",
        active=True,
        auto_registration=account.provisioning != "none",
        mode=mode,
        same_subject=True,
        signed_leaf=True,
        template=template,
    )


def _record(account: AccountRecord, holding: Holding, created: float | None) -> RecordEvidence:
    pending = holding.status == "PENDING_ACTIVATION"
    return RecordEvidence(
        status=holding.status,
        mode=holding.mode or account.ca_mode or "SNI_ONLY",
        ca_certificate_id=None,
        created=created if pending else None,  # of another status it is not known since when it has it
        things=holding.things,
    )
