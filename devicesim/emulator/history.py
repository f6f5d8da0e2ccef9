"""What the emulator saw and decided, for people and tests to ask afterwards (design.md §6). Pure.

The wire says no more than AWS's: a refused device sees its connection closed. Why stands here.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from devicesim.emulator.trail import RegisterThing


class Kind(StrEnum):
    HANDSHAKE = "handshake"
    """A connection that ended before its TLS handshake did."""
    CONNECTION = "connection"
    """The decision on a CONNECT, or that none came."""
    DISCONNECT = "disconnect"
    """The end of an admitted connection."""
    REQUEST = "request"
    """A PUBLISH or SUBSCRIBE of an admitted client, or a delivery to it, that was refused while its connection lives
    on; a refusal that ends the connection stands in its DISCONNECT."""
    PROVISIONING = "provisioning"
    """The outcome of a JITP run, or of a request of fleet provisioning."""
    EVENT = "event"
    """A message of the service itself."""
    RULE = "rule"
    """A topic rule that fired, or could not; a destination that was asked for its confirmation."""
    FAULT = "fault"
    """The emulator's own failure on one connection."""
    INJECTED = "injected"
    """A fault that was asked for has fired; what came of it stands in the entries that follow."""
    THROTTLE = "throttle"
    """A quota has refused something other than a CONNECT."""


HANDSHAKE_FAILED = "handshake_failed"
NO_CONNECT = "no_connect"
"""The connection ended without a CONNECT that could be decided on; nothing was registered."""
DISCONNECTED = "disconnected"
REQUEST_REFUSED = "request_refused"
CERTIFICATE_CREATED = "certificate_created"
"""The service made a certificate for a device that has a claim."""
PROVISIONED = "provisioned"
PROVISIONING_FAILED = "provisioning_failed"
PUBLISHED = "published"
RULE_EXECUTED = "rule_executed"
RULE_FAILED = "rule_failed"
"""The statement could not be evaluated, or an action was not done."""
RULE_NOT_EXECUTED = "rule_not_executed"
"""An action was kept and answered, but the emulator does not execute it."""
RULE_STOPPED = "rule_stopped"
"""Rules trigger each other without end."""
CONFIRMATION_SENT = "confirmation_sent"
CONFIRMATION_FAILED = "confirmation_failed"
FAILED = "failed"
FAULT_INJECTED = "fault_injected"
THROTTLED = "throttled"
"""A quota is used up; ``quota`` says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened."""

    number: int
    """From 1, without gaps; also of entries that have been dropped since."""
    time: float
    """Seconds since the Unix epoch."""
    kind: Kind
    verdict: str
    """A :class:`~devicesim.emulator.admission.Verdict`, or a constant of this module."""
    account_id: str | None = None
    """The account that was found by the server name or the record; ``None`` when nobody's."""
    region: str | None = None
    server_name: str | None = None
    """As sent; ``None`` when the extension was not sent."""
    client_id: str | None = None
    certificate_id: str | None = None
    tls_version: str | None = None
    mqtt_version: str | None = None
    source_ip: str | None = None
    source_port: int | None = None
    reason: str | None = None
    """AWS's code: an AuthNError reason, or a disconnectReason; ``None`` where AWS has none."""
    logged_by_aws: bool = False
    """Whether AWS would log the reason in the account (§8: not without a server name that resolves)."""
    detail: str = ""
    thing: str | None = None
    fault: str | None = None
    """Name of the injected fault that fired."""
    quota: str | None = None
    """The quota that is used up: a field of :class:`~devicesim.emulator.quotas.Quotas`, or ``api.<operation>``."""
    event: RegisterThing | None = None
    """The record of this that CloudTrail would have; ``None`` where it would have none."""

    def to_json(self) -> Mapping[str, object]:
        document: dict[str, object] = {name: getattr(self, name) for name in _NAMES}
        document["event"] = None if self.event is None else self.event.to_json()
        return document


_NAMES = tuple(each.name for each in fields(Entry))


Tally = tuple[Kind, str, str | None, str | None, str | None]
"""Kind, verdict, account, Region, reason."""


class History:
    """The latest entries, and how many there ever were of each verdict."""

    def __init__(self, size: int) -> None:
        self._entries: deque[Entry] = deque(maxlen=size)
        self._number = 0
        self.counts: Counter[str] = Counter()
        self.tally: Counter[Tally] = Counter()
        """The same by account and reason, for metrics."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, make: Callable[[int], Entry]) -> Entry:
        """Append the entry that ``make`` makes of its number."""
        self._number += 1
        entry = make(self._number)
        self._entries.append(entry)
        self.counts[entry.verdict] += 1
        self.tally[entry.kind, entry.verdict, entry.account_id, entry.region, entry.reason] += 1
        return entry

    def clear(self) -> None:
        """Forget the entries and the counts; numbers go on."""
        self._entries.clear()
        self.counts.clear()
        self.tally.clear()

    def select(
        self,
        *,
        account_id: str | None = None,
        certificate_id: str | None = None,
        client_id: str | None = None,
        verdict: str | None = None,
        kind: str | None = None,
        reason: str | None = None,
        after: int = 0,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        """The latest ``limit`` entries that fit and have numbers above ``after`` and below ``before``, oldest first."""
        found: list[Entry] = []
        for entry in reversed(self._entries):
            if entry.number <= after or (limit is not None and len(found) >= limit):
                break
            if before is not None and entry.number >= before:
                continue
            if (
                account_id in (None, entry.account_id)
                and certificate_id in (None, entry.certificate_id)
                and client_id in (None, entry.client_id)
                and verdict in (None, entry.verdict)
                and reason in (None, entry.reason)
                and kind in (None, entry.kind)
            ):
                found.append(entry)
        found.reverse()
        return found
