"""The steps of one connection, as a probe tells them. Pure data.

Each says what was seen or done, with the values off the wire; none says what it means.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from devicesim.net.clienthello import ClientHello
from devicesim.net.engine import Connack, Message, Version
from devicesim.net.failures import one_line
from devicesim.outcome import Alert, Failure
from devicesim.pki.identity import certificate_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """A certificate, of the server or of the device."""

    certificate_id: str
    """Lower-case hex SHA-256 of the DER: for a device's, its id in AWS IoT (aws-iot-behaviour.md §1.4)."""
    subject: str
    """RFC 4514."""
    issuer: str
    """RFC 4514."""
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...] = ()
    """DNS names and IP addresses of its subjectAltName."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A certificate that OpenSSL took and cryptography, which is stricter, does not read."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NameResolved:
    """The host that is dialled has these addresses. Not a step where an address is dialled."""

    host: str
    addresses: tuple[str, ...]
    """In the order in which they are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressFailed:
    """No TCP connection to this address; the next one is tried, if there is one."""

    address: str
    """``192.0.2.1:8883``."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TCPConnected:
    address: str
    local_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHelloSent:
    """The first flight went out. Read off the bytes that the socket took, not off the settings."""

    hello: ClientHello


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificates:
    """What the server presented, and what it was held against. Refused where one of the two says why."""

    presented: tuple[CertificateFacts | Unreadable, ...]
    """As they came, the leaf (depth 0) first."""
    verify_name: str
    chain_refused: str
    """Why the chain is not trusted; empty when it is."""
    name_refused: str
    """Why the leaf is not for :attr:`verify_name`; empty when it is. Looked at also where the chain is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Whether the server asked for a certificate, and whether it was given one. Seen in OpenSSL's handshake states."""

    requested: bool
    given: bool
    """There is one that could be sent."""
    sent: CertificateFacts | Unreadable | None
    """``None``: none was, also where there is one that the server's request leaves no room for (its kinds of key, its
    signature algorithms)."""
    issuers: int
    """How many certificates followed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSDone:
    """The handshake is complete on our side. In TLS 1.3 the server has not yet looked at our certificate."""

    version: str
    cipher: str | None
    group: str | None
    """OpenSSL's name of the key-exchange group."""
    alpn: str | None
    """The protocol that the server picked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSeen:
    alert: Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectSent:
    """CONNECT was written."""

    client_id: str
    version: Version
    keep_alive: int
    clean_start: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnackReceived:
    connack: Connack


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived:
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class PingSent:
    """PINGREQ: nothing else was sent for as long as the keep alive says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PongReceived:
    """PINGRESP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectReceived:
    """The server's DISCONNECT, of MQTT 5."""

    words: str
    """The reason code in hex and in words, and the server's reason string where it sent one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The connection was kept open so long, and still was."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectSent:
    """Our DISCONNECT: we end the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It did not come about, or did not last."""

    failure: Failure


Step = (
    NameResolved
    | AddressFailed
    | TCPConnected
    | ClientHelloSent
    | ServerCertificates
    | ClientCertificate
    | TLSDone
    | AlertSeen
    | ConnectSent
    | ConnackReceived
    | MessageReceived
    | PingSent
    | PongReceived
    | DisconnectReceived
    | Held
    | DisconnectSent
    | Failed
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A step, and when it was seen."""

    at: float
    """Seconds since the start."""
    step: Step


def certificate_facts(certificate: x509.Certificate) -> CertificateFacts | Unreadable:
    try:
        return CertificateFacts(
            certificate_id=certificate_id(certificate),
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            names=_names(certificate),
        )
    except ValueError as exc:
        return Unreadable(why=one_line(str(exc)))


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *names.get_values_for_type(x509.DNSName),
        *(str(each) for each in names.get_values_for_type(x509.IPAddress)),
    )
