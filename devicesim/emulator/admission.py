"""Who is let in: the decision on a CONNECT, as a function of what was presented and what the registry holds. Pure.

The order is AWS's own (aws-iot-behaviour.md §4.1 "order of checks", §10 "decision procedure"):

1. the server name decides the account; without one, only records in DEFAULT mode can;
2. the certificate's record in that account: its status, or for an unknown leaf the CA that signed it (JITR, JITP);
3. the policies, for ``iot:Connect`` on the client id.

:func:`decide` changes nothing: it answers what is to be done, and the data plane does it. What the device sees of a
refusal is AWS's: after a good handshake the connection is closed without CONNACK. Why stands in the history, in the
words of AWS's ``Connection.AuthNError`` (§8) where AWS has one.
"""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from cryptography import x509

from devicesim.emulator import policy
from devicesim.emulator.checks import Stop, Trace
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import (
    CACertificate,
    CACertificateStatus,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
    DomainStatus,
    EffectiveTemplate,
)
from devicesim.emulator.state.x509rules import UNREADABLE
from devicesim.emulator.variables import NOTHING_ASKED, Asked, Variables
from devicesim.pki.identity import certificate_id

ALPN_MQTT = "x-amzn-mqtt-ca"
"""MQTT with a client certificate, on port 443 (§4.3)."""
_MAX_CHAIN = 10
"""Certificates of a device's chain that are looked at; more come only from hostile clients."""


class Reason(StrEnum):
    """AWS's own words: ``Connection.AuthNError`` reasons, and the one of the ``Connect`` log (§8)."""

    DEVICE_CERTIFICATE_INACTIVE = "DEVICE_CERTIFICATE_INACTIVE"
    DEVICE_CERTIFICATE_NOT_REGISTERED = "DEVICE_CERTIFICATE_NOT_REGISTERED"
    DEVICE_CERTIFICATE_REVOKED = "DEVICE_CERTIFICATE_REVOKED"
    DOMAIN_CONFIGURATION_DISABLED = "DOMAIN_CONFIGURATION_DISABLED"
    DOMAIN_CONFIGURATION_INVALID = "DOMAIN_CONFIGURATION_INVALID"
    SNI_MISUSED = "SNI_MISUSED"
    NOT_AUTHENTICATED = "NOT_AUTHENTICATED"
    INTERNAL_SERVER_ERROR = "INTERNAL_SERVER_ERROR"
    AUTHORIZATION_FAILURE = "AUTHORIZATION_FAILURE"


class Verdict(StrEnum):
    """What becomes of the CONNECT."""

    ADMITTED = "admitted"
    """CONNACK 0."""
    REGISTERED = "registered"
    """An unknown leaf under a CA that registers: recorded as PENDING_ACTIVATION, and dropped."""
    PENDING = "pending"
    """Recorded before and still PENDING_ACTIVATION: told again, and dropped."""
    REFUSED = "refused"
    """Not authenticated."""
    DENIED = "denied"
    """Authenticated, and no policy allows it."""


class Check(StrEnum):
    """Where the procedure stopped."""

    SERVER_NAME = "server_name"
    CERTIFICATE = "certificate"
    REGISTRATION = "registration"
    STATUS = "status"
    POLICY = "policy"
    PASSED = "passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A listener, which is one Region's front door (§10d: a name of another Region is nobody's here)."""

    region: str
    elsewhere: frozenset[str] | None = None
    """For the one door that also serves Regions which have none: the Regions that have their own."""
    alpn: bool = False
    """Whether it plays port 443, where ALPN says what is spoken (§4.3)."""

    def serves(self, region: str) -> bool:
        return region == self.region or (self.elsewhere is not None and region not in self.elsewhere)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a TLS handshake showed of a device. Possession of the leaf's key is proven; nothing else is verified."""

    door: Door
    server_name: bytes | None
    """As it stood on the wire; ``None`` when the extension was not sent."""
    leaf: x509.Certificate | None
    chain: Sequence[bytes] = ()
    """DER of what was sent after the leaf."""
    certificate_problem: str = ""
    """Why there is no leaf although a certificate was sent."""
    certificate_id: str | None = None
    tls_version: str = ""
    cipher: str = ""
    alpn: str = ""
    source_ip: str = ""
    source_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a CONNECT, and why."""

    verdict: Verdict
    check: Check
    detail: str
    reason: Reason | str | None = None
    """AWS's reason code; ``None`` where AWS has none or logs nothing."""
    logged: bool = True
    """Whether AWS would log the reason: not when the server name was absent or nobody's (§8)."""
    partition: Partition | None = None
    """The account, as far as it was found."""
    certificate: DeviceCertificate | None = None
    """The account's record of the leaf, when it has one."""
    ca: CACertificate | None = None
    """The CA that registers the leaf, or that a pending leaf was registered under."""
    template: EffectiveTemplate | None = None
    """JITP is to run with it; ``None`` with REGISTERED or PENDING is JITR."""


class ServerNameKind(StrEnum):
    ABSENT = "absent"
    UNRESOLVABLE = "unresolvable"
    NAME = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerName:
    kind: ServerNameKind
    text: str = ""


def read_server_name(raw: bytes | None, settings: Settings) -> ServerName:
    """The server name as it is looked up (§4.1)."""
    if raw is None:
        return ServerName(kind=ServerNameKind.ABSENT)
    unresolvable = ServerName(kind=ServerNameKind.UNRESOLVABLE, text=printable(raw))
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:  # RFC 6066: ASCII, A-labels for the rest
        return unresolvable
    if is_ip_literal(text) or ":" in text:
        return ServerName(kind=ServerNameKind(settings.sni_ip_literal), text=text)
    if text.endswith("."):
        if settings.sni_trailing_dot != "stripped":
            return ServerName(kind=ServerNameKind(settings.sni_trailing_dot), text=text)
        text = text[:-1]
    if not text:
        return unresolvable
    return ServerName(kind=ServerNameKind.NAME, text=text.lower() if settings.sni_ignores_case else text)


def is_ip_literal(text: str) -> bool:
    bare = text.strip("[]")
    if ":" not in bare and not bare[-1:].isdigit():
        return False  # what every endpoint is, found out in no time
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


def printable(raw: bytes | None) -> str:
    """A server name for people: what is not ASCII is escaped."""
    return "" if raw is None else raw.decode("ascii", "backslashreplace")


def resolve(registry: Registry, server_name: str, door: Door) -> Partition | None:
    """The account of a server name, as far as this door serves its Region."""
    partition = registry.resolve_server_name(server_name, door.serves)
    return partition if partition is not None and door.serves(partition.region) else None


def decide(
    registry: Registry,
    presented: Presented,
    *,
    client_id: str,
    settings: Settings,
    now: float,
    asked: Asked = NOTHING_ASKED,
    seen_as: CertificateStatus | None = None,
    trace: Trace | None = None,
) -> Decision:
    """Decide on a CONNECT with ``client_id``; ``now`` is in seconds since the Unix epoch, ``asked`` what else of the
    CONNECT policies may depend on.

    ``seen_as`` is the status that a front door with stale state takes the certificate's record to have. ``trace`` is
    told of every check that is passed.
    """
    subject = _Subject(
        registry=registry,
        presented=presented,
        client_id=client_id,
        settings=settings,
        now=now,
        asked=asked,
        seen_as=seen_as,
        trace=trace or _untraced,
    )
    return _decide(subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What a decision is on, for the functions that share it."""

    registry: Registry
    presented: Presented
    client_id: str
    settings: Settings
    now: float
    asked: Asked
    seen_as: CertificateStatus | None
    trace: Callable[[Stop, str, Stop], None]


def _untraced(_check: Stop, _detail: str, _then: Stop) -> None:
    pass


def _decide(subject: _Subject) -> Decision:
    registry, presented, settings = subject.registry, subject.presented, subject.settings
    name = read_server_name(presented.server_name, settings)
    if name.kind is ServerNameKind.UNRESOLVABLE:
        return _nobody(f"server name {name.text!r} is no account's endpoint")
    if name.kind is ServerNameKind.NAME:
        subject.trace(Stop.SERVER_NAME, name.text, Stop.ACCOUNT)
        partition = resolve(registry, name.text, presented.door)
        if partition is None:
            return _nobody(f"server name {name.text!r} is no account's endpoint in {presented.door.region}")
        refusal = _domain_refused(registry, partition, name.text, enforced=settings.domain_protocol_enforced)
        if refusal is not None:
            return refusal
        subject.trace(Stop.ACCOUNT, f"{partition.account_id} in {partition.region}", Stop.CERTIFICATE)
        return _in_account(subject, partition, named=True)

    subject.trace(Stop.SERVER_NAME, "none was sent: an account must answer in DEFAULT mode", Stop.ACCOUNT)
    if presented.leaf is None or presented.certificate_id is None:
        return _no_leaf(presented, None, logged=False)
    holder = registry.default_certificate_holder(presented.door.region, presented.certificate_id)
    if holder is not None:
        detail = f"{holder.account_id} in {holder.region}, which has the certificate in DEFAULT mode"
        subject.trace(Stop.ACCOUNT, detail, Stop.CERTIFICATE)
        return _in_account(subject, holder, named=False)
    recorded = registry.certificates.has_default_holder(presented.door.region, presented.certificate_id)
    if settings.jit_without_sni and not recorded:
        holder = _default_ca_holder(registry, presented, presented.leaf, settings)
        # What that account has on record can only be SNI_ONLY: registered alone, or before the CA changed its mode
        # (§10d: such a certificate must send SNI, D).
        if holder is not None and presented.certificate_id not in holder.certificates:
            detail = f"{holder.account_id} in {holder.region}, which has the certificate's CA in DEFAULT mode"
            subject.trace(Stop.ACCOUNT, detail, Stop.CERTIFICATE)
            return _in_account(subject, holder, named=False)
    return _nobody("no server name was sent, and no account answers with the certificate or its CA in DEFAULT mode")


def _nobody(detail: str) -> Decision:
    return Decision(verdict=Verdict.REFUSED, check=Check.SERVER_NAME, detail=detail, logged=False)


def _domain_refused(registry: Registry, partition: Partition, server_name: str, *, enforced: bool) -> Decision | None:
    """A domain configuration that lets nobody in that speaks MQTT with a certificate (§8)."""
    domain = registry.domains.at(server_name, partition.region)
    if domain is None:
        return None
    if domain.status is DomainStatus.DISABLED:
        reason, detail = Reason.DOMAIN_CONFIGURATION_DISABLED, f"the domain configuration {domain.name} is DISABLED"
    elif enforced and not domain.takes_mqtt_with_certificate:
        reason = Reason.DOMAIN_CONFIGURATION_INVALID
        detail = (
            f"the domain configuration {domain.name} is for {domain.application_protocol} with"
            f" {domain.authentication_type}"
        )
    else:
        return None
    return Decision(verdict=Verdict.REFUSED, check=Check.SERVER_NAME, reason=reason, detail=detail, partition=partition)


def _no_leaf(presented: Presented, partition: Partition | None, *, logged: bool) -> Decision:
    return Decision(
        verdict=Verdict.REFUSED,
        check=Check.CERTIFICATE,
        reason=Reason.NOT_AUTHENTICATED,
        detail=presented.certificate_problem or "no client certificate was sent",
        logged=logged,
        partition=partition,
    )


def _default_ca_holder(
    registry: Registry, presented: Presented, leaf: x509.Certificate, settings: Settings
) -> Partition | None:
    """The account that holds, in DEFAULT mode, the CA that signed ``leaf`` (§10b, "none, leaf+CA chain")."""
    region = presented.door.region
    if settings.jit_without_sni_needs_chain:
        for certificate in _parsed(presented.chain):
            sent = certificate_id(certificate)
            partition = registry.default_ca_holders(region, sent)
            ca = None if partition is None else registry.issuer_of(partition, leaf, (certificate,))
            if ca is not None and ca.certificate_id == sent:  # the account may hold both, and one was sent
                return partition
        return None
    for partition in registry.partitions():  # the other setting: by subject, so a look into each account
        if partition.region != region:
            continue
        ca = registry.issuer_of(partition, leaf)
        if ca is not None and registry.default_ca_holders(region, ca.certificate_id) is partition:
            return partition
    return None


def _parsed(chain: Sequence[bytes]) -> list[x509.Certificate]:
    certificates = []
    for der in chain[:_MAX_CHAIN]:
        try:
            certificates.append(x509.load_der_x509_certificate(der))
        except UNREADABLE:  # OpenSSL took it, cryptography is stricter; it cannot be a registered CA then
            continue
    return certificates


def _in_account(subject: _Subject, partition: Partition, *, named: bool) -> Decision:
    registry, presented, settings = subject.registry, subject.presented, subject.settings
    leaf, leaf_id = presented.leaf, presented.certificate_id
    if leaf is None or leaf_id is None:
        return _no_leaf(presented, partition, logged=named)
    subject.trace(Stop.CERTIFICATE, f"certificate {leaf_id}", Stop.VALIDITY)
    problem = validity_problem(leaf, subject.now) if settings.leaf_validity_enforced else None
    if problem is not None:
        return Decision(
            verdict=Verdict.REFUSED,
            check=Check.CERTIFICATE,
            reason=Reason.NOT_AUTHENTICATED,
            detail=problem,
            logged=named,
            partition=partition,
            certificate=partition.certificates.get(leaf_id),
        )
    subject.trace(Stop.VALIDITY, f"not after {leaf.not_valid_after_utc.isoformat()}", Stop.RECORD)
    record = partition.certificates.get(leaf_id)
    if record is None:
        subject.trace(Stop.RECORD, "the account has none of this certificate", Stop.CA)
        return _unknown(subject, partition, leaf, leaf_id, named=named)
    status = subject.seen_as or record.status
    subject.trace(Stop.RECORD, f"the account has one, in mode {record.mode}", Stop.STATUS)
    match status:
        case CertificateStatus.ACTIVE:
            subject.trace(Stop.STATUS, "ACTIVE", Stop.POLICY)
            return _authorize(subject, partition, record, named=named)
        case CertificateStatus.PENDING_ACTIVATION:
            ca = partition.cas.get(record.ca_certificate_id or "")
            runs = ca is not None and ca.registers_devices and settings.jitp_reruns_while_pending
            return Decision(
                verdict=Verdict.PENDING,
                check=Check.STATUS,
                reason=settings.pending_reason,
                detail="the certificate is PENDING_ACTIVATION",
                logged=named,
                partition=partition,
                certificate=record,
                ca=ca,
                template=registry.cas.template_of(partition, ca) if ca is not None and runs else None,
            )
        case CertificateStatus.REVOKED:
            reason = Reason.DEVICE_CERTIFICATE_REVOKED
        case _:  # INACTIVE, and PENDING_TRANSFER and REGISTER_INACTIVE as inactive (§10c, I)
            reason = Reason.DEVICE_CERTIFICATE_INACTIVE
    return Decision(
        verdict=Verdict.REFUSED,
        check=Check.STATUS,
        reason=reason,
        detail=f"the certificate is {status}",
        logged=named,
        partition=partition,
        certificate=record,
    )


def _unknown(subject: _Subject, partition: Partition, leaf: x509.Certificate, leaf_id: str, *, named: bool) -> Decision:
    """A leaf that the account has no record of: registered under a CA that does so, else refused (§2, §10b)."""
    registry, settings = subject.registry, subject.settings
    ca = registry.issuer_of(partition, leaf, _parsed(subject.presented.chain))
    if ca is not None and ca.status is CACertificateStatus.ACTIVE:
        subject.trace(
            Stop.CA, f"CA {ca.certificate_id} signed it and is ACTIVE, in mode {ca.mode}", Stop.AUTO_REGISTRATION
        )
    # Without SNI only what is held in DEFAULT mode counts, also between a CA's old and renewed certificate.
    here = settings.jit_on_alpn or not subject.presented.door.alpn
    if ca is not None and ca.registers_devices and here and (named or ca.mode is CertificateMode.DEFAULT):
        template = registry.cas.template_of(partition, ca)
        return Decision(
            verdict=Verdict.REGISTERED,
            check=Check.REGISTRATION,
            detail=f"first connection under CA {ca.certificate_id}: {'JITR' if template is None else 'JITP'}",
            logged=named,
            partition=partition,
            ca=ca,
            template=template,
        )
    reason = Reason.DEVICE_CERTIFICATE_NOT_REGISTERED
    if ca is None:
        detail = "the certificate is not registered, nor is a CA that signed it"
    elif not here:
        detail = f"the certificate is not registered, and not by a connection with ALPN {ALPN_MQTT!r} (jit_on_alpn)"
    else:
        detail = (
            f"the certificate is not registered, and its CA {ca.certificate_id} is {ca.status} with auto registration"
            f" {ca.auto_registration}"
        )
    foreign = registry.certificates.has_default_holder(partition.region, leaf_id)  # this account has no record at all
    if named and foreign and settings.sni_misused_for_foreign_default_leaf:
        reason = Reason.SNI_MISUSED
        detail += "; another account holds it in DEFAULT mode"
    return Decision(
        verdict=Verdict.REFUSED,
        check=Check.REGISTRATION,
        reason=reason,
        detail=detail,
        logged=named,
        partition=partition,
        ca=ca,
    )


def _authorize(subject: _Subject, partition: Partition, record: DeviceCertificate, *, named: bool) -> Decision:
    client_id = subject.client_id
    permissions = CertificatePermissions(
        registry=subject.registry,
        partition=partition,
        certificate_id=record.certificate_id,
        client_id=client_id,
        source_ip=subject.presented.source_ip,
        asked=subject.asked,
    )
    allowed = permissions.allows("iot:Connect", "client", client_id)
    return Decision(
        verdict=Verdict.ADMITTED if allowed else Verdict.DENIED,
        check=Check.PASSED if allowed else Check.POLICY,
        reason=None if allowed else Reason.AUTHORIZATION_FAILURE,
        detail="" if allowed else permissions.why_not("iot:Connect", "client", client_id),
        logged=named,
        partition=partition,
        certificate=record,
    )


def read_leaf(der: bytes) -> tuple[x509.Certificate | None, str]:
    """The certificate, or why it cannot be read. OpenSSL takes more than ``cryptography`` parses, and some of that
    shows only when a field is looked at; what passes here can be looked at everywhere."""
    try:
        leaf = x509.load_der_x509_certificate(der)
        for part in (leaf.issuer, leaf.subject):
            part.public_bytes()
        _ = leaf.not_valid_before_utc, leaf.not_valid_after_utc, leaf.serial_number
    except UNREADABLE as exc:
        return None, f"the client certificate cannot be read: {' '.join(str(exc).split())}"
    return leaf, ""


def validity_problem(leaf: x509.Certificate, now: float) -> str | None:
    """Why the certificate is not valid at ``now``; ``None`` when it is."""
    moment = datetime.fromtimestamp(now, UTC)
    if moment < leaf.not_valid_before_utc:
        return f"the certificate is not valid before {leaf.not_valid_before_utc.isoformat()}"
    if moment > leaf.not_valid_after_utc:
        return f"the certificate is not valid after {leaf.not_valid_after_utc.isoformat()}"
    return None


@dataclass(slots=True, kw_only=True)
class CertificatePermissions:
    """What the certificate's policies allow its connection, as the registry stands when asked: a policy that is
    changed counts from the next packet on."""

    registry: Registry
    partition: Partition
    certificate_id: str
    client_id: str
    source_ip: str
    asked: Asked = NOTHING_ASKED
    """What its CONNECT asked for."""
    _variables: Variables = field(init=False)

    def __post_init__(self) -> None:
        self._variables = Variables(self.partition, self.certificate_id, self.client_id, self.source_ip, self.asked)

    def allows(self, action: str, kind: str, name: str) -> bool:
        documents = self.registry.policies.documents(self.partition, self.certificate_id, client_id=self.client_id)
        resource = self.partition.arn(kind, name)
        return policy.evaluate(documents, action=action, resource=resource, variables=self._variables)

    def why_not(self, action: str, kind: str, name: str) -> str:
        """For the history: that there is no policy at all is the commoner mistake."""
        documents = self.registry.policies.documents(self.partition, self.certificate_id, client_id=self.client_id)
        if next(iter(documents), None) is None:
            return "no policy is attached to the certificate"
        return f"no policy allows {action} on {self.partition.arn(kind, name)}, or one denies it"
