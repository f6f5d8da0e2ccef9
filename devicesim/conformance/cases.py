"""A case of the conformance matrix: a world of accounts, what they have on record, one device that connects. Pure.

The accounts of a case are *roles*, so that the same case runs on made-up accounts and on anybody's: ``a`` and ``b`` may
hold the CA, ``x`` never does, all three in one Region; ``o`` is an account in another Region. Every world has a CA of
its own, made for the check, and every case a device certificate of its own: cases run side by side and never meet.

What should happen is the oracle's word (:func:`devicesim.rules.expect`) on the world as it stands when the device
connects.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from devicesim import rules
from devicesim.outcome import DeviceOutcome
from devicesim.rules import AccountView, CARegistration, CertificateView, Expectation

Role = Literal["a", "b", "x", "o"]
ROLES: tuple[Role, ...] = ("a", "b", "x", "o")

NOBODY = "nobody-ats"
"""First label of a server name that is no account's endpoint."""


class Provisioning(StrEnum):
    """What becomes of a certificate that a holder of the CA registers on connection."""

    JITP = "jitp"
    JITR = "jitr"
    """Nobody activates, unless the case does (:attr:`Case.activated`)."""
    LATE_JITP = "late-jitp"
    """JITR while certificates are made pending, then a template."""


class Then(StrEnum):
    """What becomes of a CA's registration once the records under it are made, and before devices connect."""

    STAYS = "stays"
    INACTIVE = "inactive"
    DISABLED = "disabled"
    """Automatic registration DISABLE."""
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """How one account holds the world's CA."""

    mode: rules.Mode
    provisioning: Provisioning = Provisioning.JITP
    then: Then = Then.STAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who holds the CA."""

    name: str
    holders: Mapping[Role, Holder] = field(default_factory=dict)
    """In the order in which they are set up, each to its end before the next begins."""


class RecordStatus(StrEnum):
    """What an account has on record of the case's certificate before the device connects."""

    ACTIVE = "ACTIVE"
    DENIED = "DENIED"
    """ACTIVE, without a policy."""
    BARRED = "BARRED"
    """ACTIVE, with a policy for another client id than the device's."""
    VISITED = "VISITED"
    """ACTIVE through JITP: the device has been there, and was let in in the end."""
    PENDING = "PENDING_ACTIVATION"
    """Only IoT Core makes such records: an earlier connection is what does it."""
    INACTIVE = "INACTIVE"
    REVOKED = "REVOKED"
    TRANSFER = "PENDING_TRANSFER"
    DELETED = "DELETED"
    """Was registered, and deleted again."""

    @property
    def as_held(self) -> str | None:
        """As AWS spells it; ``None``: there is no record."""
        if self is RecordStatus.DELETED:
            return None
        return "ACTIVE" if self in (RecordStatus.DENIED, RecordStatus.BARRED, RecordStatus.VISITED) else self.value

    @property
    def by_connecting(self) -> bool:
        """Whether the device makes the record, by a connection, and not the account's owner."""
        return self in (RecordStatus.PENDING, RecordStatus.VISITED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    status: RecordStatus
    alone: bool = False
    """Registered without the CA, and so in SNI_ONLY mode (RegisterCertificateWithoutCA)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The records of one case's certificate."""

    name: str
    records: Mapping[Role, Record] = field(default_factory=dict)


class SNI(StrEnum):
    """What is sent as server name, seen from the account dialled."""

    OWN = "own"
    OTHER = "other"
    """Another account's endpoint in the same Region."""
    NONE = "none"
    UNKNOWN = "unknown"
    """A name of nobody."""
    MIXED_CASE = "mixed-case"
    OTHER_REGION = "other-region"
    """An account's endpoint in another Region than the one dialled."""
    IP = "ip"
    """An IP address, as mosquitto's clients send it."""
    TRAILING_DOT = "trailing-dot"


SNI_WORDS: Mapping[SNI, str] = {
    SNI.OWN: "own endpoint",
    SNI.OTHER: "endpoint of {other}",
    SNI.NONE: "none",
    SNI.UNKNOWN: "unknown name",
    SNI.MIXED_CASE: "own, mixed case",
    SNI.OTHER_REGION: "endpoint of {other}, another Region",
    SNI.IP: "IP address",
    SNI.TRAILING_DOT: "own, trailing dot",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Whose front door is dialled, and with which name."""

    dials: Role
    sni: SNI
    other: Role | None = None
    """Whose endpoint is sent, for OTHER and OTHER_REGION."""
    chain: bool = True
    """The CA certificate is sent after the leaf."""

    @property
    def name(self) -> str:
        sent = f"{self.sni}-{self.other}" if self.other else self.sni.value
        return f"{self.dials}-{sent}" + ("" if self.chain else "-leaf-only")

    @property
    def roles(self) -> tuple[Role, ...]:
        return (self.dials,) if self.other is None else (self.dials, self.other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How it is spoken."""

    tls: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.3"
    mqtt: Literal["3.1.1", "5"] = "3.1.1"
    port: Literal[8883, 443] = 8883
    """443 is with ALPN ``x-amzn-mqtt-ca`` (aws-iot-behaviour.md §4.3)."""

    @property
    def name(self) -> str:
        return f"tls{self.tls.removeprefix('TLSv')}-mqtt{self.mqtt}-{self.port}"


class Act(StrEnum):
    """What the device does."""

    CONNECT = "connect"
    HANDSHAKE = "handshake"
    """TLS, and no CONNECT."""
    LIVE = "live"
    """Connects, stays, and its certificate is set INACTIVE meanwhile."""
    LIVE_REVOKED = "live-revoked"
    """The same, and it is set REVOKED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    world: World
    state: State
    link: Link
    transport: Transport = field(default_factory=Transport)
    act: Act = Act.CONNECT
    activated: bool = False
    """Once registered, the certificate is activated by the check, as a JITR Lambda does."""

    @property
    def name(self) -> str:
        """``C3-jitp/new/a-own/tls1.3-mqtt3.1.1-8883``."""
        act = "" if self.act is Act.CONNECT else f"-{self.act}"
        activated = "-activated" if self.activated else ""
        return f"{self.world.name}/{self.state.name}{act}{activated}/{self.link.name}/{self.transport.name}"

    @property
    def barred(self) -> bool:
        """Whether the device's client id is another than its policy is for."""
        return any(record.status is RecordStatus.BARRED for record in self.state.records.values())

    @property
    def roles(self) -> frozenset[Role]:
        """The accounts that it cannot do without."""
        target = {"b"} if any(each.status is RecordStatus.TRANSFER for each in self.state.records.values()) else set()
        named: set[str] = {*self.world.holders, *self.state.records, *self.link.roles, *target}
        return frozenset(role for role in ROLES if role in named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The account that plays a role."""

    name: str
    account_id: str
    region: str
    endpoint: str


def server_name(link: Link, places: Mapping[Role, Place]) -> str | None:
    """What goes into the ClientHello; ``None``: no extension."""
    own = places[link.dials].endpoint
    match link.sni:
        case SNI.OWN:
            return own
        case SNI.NONE:
            return None
        case SNI.UNKNOWN:
            _, dot, rest = own.partition(".")
            return NOBODY + dot + rest
        case SNI.MIXED_CASE:
            return mixed_case(own)
        case SNI.IP:
            return "192.0.2.1"  # RFC 5737: nobody's
        case SNI.TRAILING_DOT:
            return own + "."
        case SNI.OTHER | SNI.OTHER_REGION:
            assert link.other is not None
            return places[link.other].endpoint


def mixed_case(name: str) -> str:
    """Every other letter in the other case."""
    return "".join(each.upper() if index % 2 else each for index, each in enumerate(name.lower()))


def expectation(case: Case, places: Mapping[Role, Place]) -> Expectation:
    """What the oracle says of the case. ``places`` are the accounts that there are, among them those of its roles.

    A connection without CONNECT, and one whose certificate is deactivated, are judged by rows of their own.
    """
    expected = rules.expect(
        [_view(case, role, place) for role, place in places.items()],
        region=places[case.link.dials].region,
        sni=server_name(case.link, places),
        chain_sent=case.link.chain,
        mqtt_version=case.transport.mqtt,
    )
    match case.act:
        case Act.HANDSHAKE:
            return Expectation(
                outcome=DeviceOutcome.REFUSED,
                account=None,
                mode=None,
                thing=None,
                first_try="closed_before_connack",
                row=rules.HANDSHAKE_ONLY,
                rests_on=(expected.row,),
            )
        case Act.LIVE | Act.LIVE_REVOKED:
            return replace(
                expected, thing=None, row=rules.DEACTIVATED_LIVE, rests_on=(expected.row, *expected.rests_on)
            )
        case Act.CONNECT:
            return replace(expected, rests_on=(*expected.rests_on, *_unmeasured(case.transport, expected)))


def _unmeasured(transport: Transport, expected: Expectation) -> Iterator[rules.Row]:
    """What nobody is known to have tried over this transport."""
    if transport.mqtt == "5" and expected.first_try == "closed_before_connack":
        yield rules.MQTT5_CLOSE
    if transport.port == 443 and {rules.JITP, rules.JITR, rules.JITR_NOBODY} & set(expected.rests_on):
        yield rules.JIT_ON_443


def _view(case: Case, role: Role, place: Place) -> AccountView:
    holder = case.world.holders.get(role)
    held = holder is not None and holder.then is not Then.DELETED
    provisioning: rules.Provisioning = "none"
    if holder is not None and holder.provisioning is not Provisioning.JITR:
        provisioning = "JITP"
    elif case.activated:
        provisioning = "JITR"
    return AccountView(
        name=place.name,
        account_id=place.account_id,
        region=place.region,
        endpoint=place.endpoint,
        ca=CARegistration(
            mode=holder.mode,
            active=holder.then is not Then.INACTIVE,
            auto_registration=holder.then is not Then.DISABLED,
        )
        if holder is not None and held
        else None,
        provisioning=provisioning,
        thing=provisioning == "JITP",
        certificate=_certificate(case, role),
    )


def _certificate(case: Case, role: Role) -> CertificateView | None:
    record = case.state.records.get(role)
    status = None if record is None else record.status.as_held
    if record is None or status is None:
        return None
    denied = record.status in (RecordStatus.DENIED, RecordStatus.BARRED)
    return CertificateView(status=status, mode=record_mode(case, role), policy_allows=not denied)


def record_mode(case: Case, role: Role) -> rules.Mode:
    """The mode of a record that a case has in an account: its CA's, or SNI_ONLY without one (§1.4 [D])."""
    holder = case.world.holders.get(role)
    return "SNI_ONLY" if holder is None or case.state.records[role].alone else holder.mode
