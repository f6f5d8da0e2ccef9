"""What the front door asks before it goes on: is a quota used up, does a fault happen? Every "yes" is in the history.
Pure.

The data plane, JITP and the API ask here; what a "yes" looks like to the client is theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from devicesim.emulator import history
from devicesim.emulator.admission import Decision, Presented, Verdict
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.clock import Clock
from devicesim.emulator.connection import DisconnectReason
from devicesim.emulator.faults import Fault, FaultBoard, FaultKind
from devicesim.emulator.history import Kind
from devicesim.emulator.packets import ReasonCode
from devicesim.emulator.quotas import AccountKey, QuotaMeter, Throttled
from devicesim.emulator.recorder import DecidedOn, Recorder
from devicesim.emulator.registry import Partition
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import CertificateChange, CertificateChangeKind, CertificateStatus

_PER_ACCOUNT = "connects_per_second"
_REGISTRATIONS = "certificate_registrations_per_second"
_NEWS = frozenset({CertificateChangeKind.REGISTERED, CertificateChangeKind.STATUS, CertificateChangeKind.DELETED})
_STALE_KEPT = 10_000
"""Changes of status that are remembered while the front door is to be behind."""


def account_key(partition: Partition) -> AccountKey:
    return partition.account_id, partition.region


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How a CONNECT is turned away."""

    code: ReasonCode
    """For MQTT 5."""
    detail: str
    tell: bool
    """Whether MQTT 5 has a CONNACK."""
    reason: DisconnectReason


class Guard:
    """See the module. One for the emulator."""

    def __init__(
        self, *, settings: Settings, quotas: QuotaMeter, faults: FaultBoard, recorder: Recorder, clock: Clock
    ) -> None:
        self._settings = settings
        self.quotas = quotas
        self.faults = faults
        self._recorder = recorder
        self._clock = clock
        self._changed: dict[tuple[str, str, str], tuple[float, CertificateStatus]] = {}
        """When a certificate's status changed last, and from what: while a fault of that kind is on the board."""

    # --- faults ---

    def fault(
        self,
        kind: FaultKind,
        now: float,
        presented: Presented,
        *,
        partition: Partition | None = None,
        connection: DecidedOn | None = None,
        client_id: str | None = None,
        longer_than: float | None = None,
        detail: str = "",
    ) -> Fault | None:
        """The fault that happens to a connection now; told in the history."""
        if not self.faults.has(kind):
            return None
        fault = self.faults.fires(
            kind,
            now,
            account_id=None if partition is None else partition.account_id,
            region=presented.door.region if partition is None else partition.region,
            certificate_id=presented.certificate_id,
            client_id=client_id,
            longer_than=longer_than,
        )
        if fault is not None:
            self._recorder.note(
                presented,
                kind=Kind.INJECTED,
                verdict=history.FAULT_INJECTED,
                partition=partition,
                connection=connection,
                detail=detail or _described(fault),
                fault=fault.name,
            )
        return fault

    def connection_fault(
        self, kind: FaultKind, now: float, connection: DecidedOn, partition: Partition | None
    ) -> Fault | None:
        """As :meth:`fault`, for a client that has sent CONNECT."""
        if not self.faults.has(kind):
            return None
        return self.fault(
            kind,
            now,
            connection.presented,
            partition=partition,
            connection=connection,
            client_id=connection.client_id,
        )

    def provisioning_fault(
        self, kind: FaultKind, now: float, partition: Partition, certificate_id: str
    ) -> Fault | None:
        """The fault that happens to a JITP run now; told in the history."""
        if not self.faults.has(kind):
            return None
        fault = self.faults.fires(
            kind, now, account_id=partition.account_id, region=partition.region, certificate_id=certificate_id
        )
        if fault is not None:
            self._recorder.add(
                kind=Kind.INJECTED,
                verdict=history.FAULT_INJECTED,
                account_id=partition.account_id,
                region=partition.region,
                certificate_id=certificate_id,
                detail=_described(fault),
                fault=fault.name,
            )
        return fault

    def now(self) -> float:
        return self._clock.now()

    # --- certificates that the front door sees late ---

    def certificate_changed(self, change: CertificateChange) -> None:
        """The registry tells."""
        if not self.faults.has(FaultKind.STALE_CERTIFICATE_STATE):
            self._changed.clear()
            return
        if change.kind not in _NEWS:
            return
        key = (change.account_id, change.region, change.certificate_id)
        self._changed.pop(key, None)
        if change.previous_status is None or change.kind is not CertificateChangeKind.STATUS:
            return  # another record than the one that had that status
        self._changed[key] = (self._clock.now(), change.previous_status)
        if len(self._changed) > _STALE_KEPT:
            del self._changed[next(iter(self._changed))]

    def reset(self) -> None:
        """Forget what certificates were: their accounts are no more (POST /reset)."""
        self._changed.clear()

    def seen_as(
        self, now: float, presented: Presented, partition: Partition, *, connection: DecidedOn, client_id: str
    ) -> tuple[CertificateStatus, float] | None:
        """The status that a front door sees which is behind, and the seconds until it has caught up."""
        if presented.certificate_id is None or not self.faults.has(FaultKind.STALE_CERTIFICATE_STATE):
            return None
        changed = self._changed.get((*account_key(partition), presented.certificate_id))
        if changed is None:
            return None
        when, status = changed
        fault = self.fault(
            FaultKind.STALE_CERTIFICATE_STATE,
            now,
            presented,
            partition=partition,
            connection=connection,
            client_id=client_id,
            longer_than=now - when,
            detail=f"the certificate is seen as {status}, as it was until {now - when:.3f} s ago",
        )
        return None if fault is None else (status, when + fault.time - now)

    # --- CONNECT ---

    def turns_away(
        self, connection: DecidedOn, decision: Decision, now: float, *, connected: Callable[[], int]
    ) -> Refusal | None:
        """What a fault or a quota makes of a CONNECT whatever the decision on it; told in the history. ``connected``
        answers how many connections the account has beside it."""
        fault = self.connection_fault(FaultKind.REFUSE_CONNECT, now, connection, decision.partition)
        if fault is not None:
            detail = f"fault {fault.name}"
            refused = replace(decision, verdict=Verdict.REFUSED, detail=detail, reason=None, logged=False)
            self._recorder.decision(connection, refused)
            return Refusal(
                code=ReasonCode.UNSPECIFIED_ERROR, detail=detail, tell=True, reason=DisconnectReason.SERVER_ERROR
            )
        partition = decision.partition
        if partition is None:
            return None  # nobody's quota
        fault = self.connection_fault(FaultKind.THROTTLE, now, connection, partition)
        throttled: Throttled | None
        if fault is not None:
            throttled = Throttled(quota=_PER_ACCOUNT, limit=self.quotas.quotas.connects_per_second or 0)
        else:
            throttled = self._connect_quota(connection, partition, decision.verdict, now, connected)
        if throttled is None:
            return None
        self.tell_throttled(connection, partition, throttled, connect=True)
        unknown = throttled.quota == _REGISTRATIONS
        how = self._settings.refusal_v5 if unknown else self._settings.throttled_connect_v5
        return Refusal(
            code=ReasonCode.NOT_AUTHORIZED if unknown else ReasonCode.QUOTA_EXCEEDED,
            detail=throttled.detail,
            tell=how == "connack",
            reason=DisconnectReason.THROTTLED,
        )

    def _connect_quota(
        self,
        connection: DecidedOn,
        partition: Partition,
        verdict: Verdict,
        now: float,
        connected: Callable[[], int],
    ) -> Throttled | None:
        account = account_key(partition)
        throttled = self.quotas.connect(account, now)
        if throttled is not None:
            return throttled
        match verdict:
            case Verdict.REGISTERED:
                return self.quotas.registration(account, now)
            case Verdict.ADMITTED:
                throttled = self.quotas.connect_client_id(account, connection.client_id, now)
                return throttled or self.quotas.connections(connected())
            case Verdict.DENIED:
                return self.quotas.connect_client_id(account, connection.client_id, now)
            case _:
                return None

    def tell_throttled(
        self, connection: DecidedOn, partition: Partition, throttled: Throttled, *, connect: bool
    ) -> None:
        """Tell in the history of what a quota has refused: a CONNECT, or something later."""
        self._recorder.note(
            connection.presented,
            kind=Kind.CONNECTION if connect else Kind.THROTTLE,
            verdict=history.THROTTLED,
            partition=partition,
            connection=connection,
            reason=DisconnectReason.THROTTLED,
            detail=throttled.detail,
            quota=throttled.quota,
        )

    # --- the API ---

    def call(self, partition: Partition, service: str, operation: str) -> None:
        """An operation of the API is to be carried out: raises ``APIError`` when a quota or a fault is against it."""
        now = self._clock.now()
        account_id, region = account = account_key(partition)
        for kind, error in (
            (FaultKind.API_UNAVAILABLE, APIError("ServiceUnavailableException", "The service is unavailable.")),
            (FaultKind.THROTTLE_API, APIError("ThrottlingException", "Rate exceeded")),
        ):
            if not self.faults.has(kind):
                continue
            fault = self.faults.fires(kind, now, account_id=account_id, region=region, operation=operation)
            if fault is not None:
                self._tell_of_call(partition, operation, verdict=history.FAULT_INJECTED, fault=fault.name)
                raise error
        if service in ("iot", "cloudtrail", "logs"):
            throttled = self.quotas.call(account, operation, now)
        elif service == "iot-data":
            throttled = self.quotas.call_data(account, operation, now)
        else:
            return
        if throttled is not None:
            self._tell_of_call(partition, operation, verdict=history.THROTTLED, quota=throttled.quota)
            raise APIError("ThrottlingException", "Rate exceeded")

    def _tell_of_call(self, partition: Partition, operation: str, *, verdict: str, **more: str) -> None:
        self._recorder.add(
            kind=Kind.INJECTED if verdict == history.FAULT_INJECTED else Kind.THROTTLE,
            verdict=verdict,
            account_id=partition.account_id,
            region=partition.region,
            detail=operation,
            **more,
        )


def _described(fault: Fault) -> str:
    return fault.kind.value if not fault.time else f"{fault.kind.value}: {fault.time:g} s"
