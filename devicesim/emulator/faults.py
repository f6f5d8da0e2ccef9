"""Faults on purpose: named, seeded, off unless asked for. Pure.

    board = FaultBoard(seed=7)
    board.inject(Fault(kind=FaultKind.REFUSE_CONNECT, share=0.2, account_id="111111111111"), now)
    fired = board.fires(FaultKind.REFUSE_CONNECT, now, account_id=..., client_id=...)

Whoever asks does what the fault says, and writes the firing to the history with the fault's name. Of what a fault fits,
it fires on a ``share`` that is drawn from its seed and the number of the draw: the same draws in every run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from hashlib import sha256


class FaultKind(StrEnum):
    """What happens, and where the front door asks for it."""

    # the server certificate that the handshake shows
    SERVER_CERTIFICATE_EXPIRING = "server_certificate_expiring"
    """One that ends in ``seconds`` from when it is first shown."""
    SERVER_CERTIFICATE_EXPIRED = "server_certificate_expired"
    """One that ended ``seconds`` ago."""
    SERVER_CERTIFICATE_WRONG_NAME = "server_certificate_wrong_name"
    """One of nobody's name."""

    # after the handshake
    DROP_AFTER_HANDSHAKE = "drop_after_handshake"
    """Closed before CONNECT is read."""

    # CONNECT
    DELAY_CONNACK = "delay_connack"
    """CONNECT is decided on ``seconds`` later."""
    REFUSE_CONNECT = "refuse_connect"
    """Closed without CONNACK; MQTT 5 sees CONNACK 0x80 (unspecified error)."""
    THROTTLE = "throttle"
    """Treated as if the account's CONNECT/s were used up."""
    STALE_CERTIFICATE_STATE = "stale_certificate_state"
    """The certificate is seen in the status that it had before a change within the last ``seconds``."""
    CLOCK_SKEW = "clock_skew"
    """The front door's clock is off by ``seconds`` (also negative) when it judges the certificate's validity."""

    # just in time
    DELAY_PROVISIONING = "delay_provisioning"
    """JITP takes ``seconds`` longer."""
    FAIL_PROVISIONING = "fail_provisioning"
    """JITP fails as with a role that may not: the certificate stays PENDING_ACTIVATION."""

    # connected
    DROP_CONNECTION = "drop_connection"
    """The network connection is cut when the client publishes, before the message is taken."""

    # the API
    THROTTLE_API = "throttle_api"
    """ThrottlingException."""
    API_UNAVAILABLE = "api_unavailable"
    """ServiceUnavailableException, HTTP 503."""


SERVER_CERTIFICATE_FAULTS = (
    FaultKind.SERVER_CERTIFICATE_EXPIRING,
    FaultKind.SERVER_CERTIFICATE_EXPIRED,
    FaultKind.SERVER_CERTIFICATE_WRONG_NAME,
)
_DEFAULT_SECONDS: Mapping[FaultKind, float] = {
    FaultKind.SERVER_CERTIFICATE_EXPIRING: 24 * 3600.0,
    FaultKind.SERVER_CERTIFICATE_EXPIRED: 24 * 3600.0,
    FaultKind.DELAY_CONNACK: 5.0,
    FaultKind.STALE_CERTIFICATE_STATE: 60.0,
    FaultKind.CLOCK_SKEW: 3600.0,
    FaultKind.DELAY_PROVISIONING: 10.0,
}
"""Of the kinds that have a time."""
_ACCOUNT = frozenset({"account_id", "region"})
_CERTIFICATE = _ACCOUNT | {"certificate_id"}
_CLIENT = _CERTIFICATE | {"client_id"}
_FILTERS: Mapping[FaultKind, frozenset[str]] = {
    **dict.fromkeys(SERVER_CERTIFICATE_FAULTS, _ACCOUNT),
    FaultKind.DROP_AFTER_HANDSHAKE: _CERTIFICATE,
    FaultKind.DELAY_PROVISIONING: _CERTIFICATE,
    FaultKind.FAIL_PROVISIONING: _CERTIFICATE,
    FaultKind.THROTTLE_API: _ACCOUNT | {"operation"},
    FaultKind.API_UNAVAILABLE: _ACCOUNT | {"operation"},
}
"""What is known where a fault of the kind happens, when it is not what is known of a client."""
_MAY_BE_NEGATIVE = frozenset({FaultKind.CLOCK_SKEW})
MAX_SECONDS = 10 * 366 * 86400.0
"""Ten years: a time of day or a certificate's end that is put off by more cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What to inject; everything that is left out fits everything."""

    kind: FaultKind
    name: str = ""
    """In the history and for removal; left out: the kind."""
    share: float = 1.0
    """Of what fits, above 0 and up to 1."""
    count: int | None = None
    """Fires at most so often."""
    account_id: str | None = None
    """Before CONNECT is decided on, the account is known by the server name alone."""
    region: str | None = None
    certificate_id: str | None = None
    client_id: str | None = None
    operation: str | None = None
    """Of the API."""
    after: float = 0.0
    """Seconds from the injection to the beginning of its time."""
    duration: float | None = None
    """Seconds that its time lasts; left out: until it is removed."""
    seconds: float | None = None
    """What the kind's description says; left out: the kind's own."""
    seed: int | None = None
    """Of the draws; left out: the board's."""

    def __post_init__(self) -> None:
        kind = FaultKind(self.kind)
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}, must be above 0 and at most 1")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count is {self.count}, must be at least 1")
        if not 0 <= self.after <= MAX_SECONDS:
            raise ValueError(f"after is {self.after}, must be a number of seconds from 0 to {MAX_SECONDS:g}")
        if self.duration is not None and not 0 < self.duration <= MAX_SECONDS:
            raise ValueError(f"duration is {self.duration}, must be a number of seconds above 0 up to {MAX_SECONDS:g}")
        account = self.account_id
        if account is not None and not (len(account) == 12 and account.isascii() and account.isdigit()):
            raise ValueError(f"account_id is {account!r}, must be twelve digits")
        known = _FILTERS.get(kind, _CLIENT)
        for name in sorted(_CLIENT | {"operation"}):
            if name not in known and getattr(self, name) is not None:
                raise ValueError(f"fault {kind.value} takes no {name}, only {', '.join(sorted(known))}")
        if self.seconds is not None:
            if kind not in _DEFAULT_SECONDS:
                raise ValueError(f"fault {kind.value} takes no seconds")
            least = -MAX_SECONDS if kind in _MAY_BE_NEGATIVE else 0.0
            if not least <= self.seconds <= MAX_SECONDS:
                raise ValueError(f"seconds is {self.seconds}, must be a number from {least:g} to {MAX_SECONDS:g}")

    @property
    def time(self) -> float:
        """``seconds``, or the kind's own."""
        return _DEFAULT_SECONDS.get(self.kind, 0.0) if self.seconds is None else self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultStatus:
    """A fault on the board, and what became of it."""

    fault: Fault
    fired: int
    seen: int
    """How often it fitted while its time lasted: fired or not."""
    over: bool
    """It will not fire again: its count or its time is up."""

    def to_json(self) -> Mapping[str, object]:
        return {**asdict(self.fault), "fired": self.fired, "seen": self.seen, "over": self.over}


class _Entry:
    __slots__ = ("begins", "ends", "fault", "fired", "seed", "seen")

    def __init__(self, fault: Fault, now: float, seed: int) -> None:
        self.fault = fault
        self.seed = seed
        self.begins = now + fault.after
        self.ends = float("inf") if fault.duration is None else self.begins + fault.duration
        self.fired = self.seen = 0

    def over(self, now: float) -> bool:
        return now >= self.ends or (self.fault.count is not None and self.fired >= self.fault.count)

    def fits(self, now: float, facts: Mapping[str, str | None]) -> bool:
        if now < self.begins or self.over(now):
            return False
        return all(getattr(self.fault, name) in (None, value) for name, value in facts.items())

    def draw(self) -> bool:
        self.seen += 1
        if self.fault.share < 1 and _uniform(self.seed, self.fault.name, self.seen) >= self.fault.share:
            return False
        self.fired += 1
        return True


class FaultBoard:
    """The faults of one emulator, in the order of their injection; the first that fires is the one that happens."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._entries: dict[str, _Entry] = {}
        self._kinds: frozenset[FaultKind] = frozenset()

    def inject(self, fault: Fault, now: float) -> Fault:
        """Put it on the board; answers it with its name. ``ValueError`` when the name is taken."""
        named = replace(fault, kind=FaultKind(fault.kind), name=fault.name or FaultKind(fault.kind).value)
        if named.name in self._entries:
            raise ValueError(f"there is a fault {named.name!r} already, must have a name of its own")
        seed = self._seed if named.seed is None else named.seed
        self._entries[named.name] = _Entry(named, now, seed)
        self._count_kinds()
        return named

    def remove(self, name: str) -> bool:
        """Take it off; ``False`` when there is none of this name."""
        found = self._entries.pop(name, None) is not None
        self._count_kinds()
        return found

    def clear(self) -> None:
        self._entries.clear()
        self._count_kinds()

    def list(self, now: float) -> Sequence[FaultStatus]:
        return [
            FaultStatus(fault=each.fault, fired=each.fired, seen=each.seen, over=each.over(now))
            for each in self._entries.values()
        ]

    def has(self, kind: FaultKind) -> bool:
        """Whether there is one of this kind at all: what nobody asked for costs one look."""
        return kind in self._kinds

    def fires(
        self,
        kind: FaultKind,
        now: float,
        *,
        account_id: str | None = None,
        region: str | None = None,
        certificate_id: str | None = None,
        client_id: str | None = None,
        operation: str | None = None,
        longer_than: float | None = None,
    ) -> Fault | None:
        """The fault of this kind that happens now to what is described, counted as fired.

        A filter of a fault fits only what is known: a fault for one account does not fire on a connection of nobody's.
        ``longer_than``: only one whose time is.
        """
        if kind not in self._kinds:
            return None
        facts = {
            "account_id": account_id,
            "region": region,
            "certificate_id": certificate_id,
            "client_id": client_id,
            "operation": operation,
        }
        for entry in self._entries.values():
            fault = entry.fault
            if fault.kind is not kind or (longer_than is not None and fault.time <= longer_than):
                continue
            if entry.fits(now, facts) and entry.draw():
                return fault
        return None

    def would_fire(self, kind: FaultKind, now: float, **facts: str | None) -> Sequence[Fault]:
        """Those that fit and may happen now; nothing is drawn (for explanations)."""
        return [e.fault for e in self._entries.values() if e.fault.kind is kind and e.fits(now, facts)]

    def _count_kinds(self) -> None:
        self._kinds = frozenset(each.fault.kind for each in self._entries.values())


def _uniform(seed: int, name: str, number: int) -> float:
    """A number in [0, 1) that depends on nothing else."""
    digest = sha256(f"{seed}:{name}:{number}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
