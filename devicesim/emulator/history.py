"""What the emulator saw and decided, for people and tests to ask afterwards (design.md §6). Pure.

The wire says no more than AWS's: a refused device sees its connection closed. Why stands here.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum


class Kind(StrEnum):
    HANDSHAKE = "handshake"
    """A connection that ended before its TLS handshake did."""
    CONNECTION = "connection"
    """The decision on a CONNECT, or that none came."""
    DISCONNECT = "disconnect"
    """The end of an admitted connection."""
    PROVISIONING = "provisioning"
    """The outcome of a JITP run."""
    EVENT = "event"
    """A message of the service itself."""
    FAULT = "fault"
    """The emulator's own failure on one connection."""


HANDSHAKE_FAILED = "handshake_failed"
NO_CONNECT = "no_connect"
"""The connection ended without a CONNECT that could be decided on; nothing was registered."""
DISCONNECTED = "disconnected"
PROVISIONED = "provisioned"
PROVISIONING_FAILED = "provisioning_failed"
PUBLISHED = "published"
FAILED = "failed"


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

    def to_json(self) -> Mapping[str, object]:
        return asdict(self)


class History:
    """The latest entries, and how many there ever were of each verdict."""

    def __init__(self, size: int) -> None:
        self._entries: deque[Entry] = deque(maxlen=size)
        self._number = 0
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, make: Callable[[int], Entry]) -> Entry:
        """Append the entry that ``make`` makes of its number."""
        self._number += 1
        entry = make(self._number)
        self._entries.append(entry)
        self.counts[entry.verdict] += 1
        return entry

    def select(
        self,
        *,
        account_id: str | None = None,
        certificate_id: str | None = None,
        verdict: str | None = None,
        kind: str | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> list[Entry]:
        """The latest ``limit`` entries that fit and have a number above ``after``, oldest first."""
        found: list[Entry] = []
        for entry in reversed(self._entries):
            if entry.number <= after or (limit is not None and len(found) >= limit):
                break
            if (
                account_id in (None, entry.account_id)
                and certificate_id in (None, entry.certificate_id)
                and verdict in (None, entry.verdict)
                and kind in (None, entry.kind)
            ):
                found.append(entry)
        found.reverse()
        return found
