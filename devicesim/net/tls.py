"""TLS on the device's side: pyOpenSSL over a non-blocking socket, driven by trio.

How it hangs together:

* One :class:`TLSContext` (an ``SSL.Context``) serves any number of devices with the same settings and the same chain.
  A device's key and certificate are set on its connection, so no key touches the disk and nothing is built a device.
* **The name that is sent and the name that is verified are two things.** ``server_name`` goes into the ClientHello
  verbatim, or ``None`` keeps the extension out of it. ``verify_name`` is what the server's certificate must be for,
  always. Most APIs know only one name, and switch verification off silently where there is none.
* The server is verified inside the handshake, by OpenSSL's callback: its chain against the roots given (never the
  system's), then at depth 0 its name by service-identity. So nothing of MQTT, and in TLS 1.3 not even the client's
  certificate, reaches a server that is not the right one, and the alert goes out. It is ``internal_error`` (80) for a
  wrong name, because pyOpenSSL's callback can refuse but cannot say why; other TLS stacks send ``bad_certificate``
  (42) there.
* Alerts are read off OpenSSL's info callback, both directions; close_notify is an end, not an alert.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from service_identity.exceptions import CertificateError, VerificationError

from devicesim.errors import InputError, KeyMaterialError
from devicesim.net import openssl, tcp
from devicesim.net.failures import FOREIGN, ChainError, ConnectionFailed, alert_name, failure_from
from devicesim.net.names import check_server_name, check_verify_name, is_ip_literal
from devicesim.net.stream import TLSConnection
from devicesim.net.watch import Watcher
from devicesim.outcome import Alert, Stage, Trace
from devicesim.pki.identity import Identity

Version = Literal["TLSv1.2", "TLSv1.3"]
Group = Literal["P-256", "P-384", "P-521", "any"]


_VERSIONS: dict[str, int] = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
_CURVES: dict[str, ec.EllipticCurve | None] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "any": None,
}
_MODE_NO_AUTO_CHAIN = 0x8
"""SSL_MODE_NO_AUTO_CHAIN of openssl/ssl.h, which pyOpenSSL does not name. Without it OpenSSL completes the client's
chain out of the trusted roots, and "leaf only" would not be leaf only wherever the fleet's CA is among them."""
_LEVELS = {1: "warning", 2: "fatal"}
_USER_CANCELED = 90
"""TLS 1.3 ignores the level byte: all but close_notify and this one are fatal (RFC 8446, 6)."""
_AWAITED = {
    Stage.TCP: "TCP connection",
    Stage.TLS: "complete TLS handshake",
    Stage.CONNECT: "room for CONNECT in the socket",
    Stage.CONNACK: "CONNACK",
    Stage.SESSION: "answer",
}
_NAMES_REMEMBERED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """What one shared context is made of."""

    roots: tuple[x509.Certificate, ...]
    """Trust anchors for the server's chain, self-signed or not. Nothing else is trusted; with none, nothing is."""
    minimum_version: Version = "TLSv1.2"
    maximum_version: Version = "TLSv1.3"
    group: Group = "P-256"
    """Key-exchange group. One classic curve is what embedded devices send; ``any`` is OpenSSL's own list, which
    begins with a post-quantum hybrid and costs a third more. In TLS 1.2 the groups are also those of the certificates
    (RFC 8422, 5.1.1): a server's on another curve cannot be chosen, and a device's is refused with illegal_parameter,
    so P-384 device keys need ``any`` there."""
    ciphers: str | None = None
    """OpenSSL cipher string. Names that begin with ``TLS_`` are TLS 1.3 suites, the others a TLS 1.2 list; a version
    without a name keeps OpenSSL's defaults."""
    alpn: tuple[str, ...] = ()
    """Protocols offered, best first: AWS asks for ``x-amzn-mqtt-ca`` on port 443 (aws-iot-behaviour.md 4.3). A server
    that picks none is not refused."""
    send_chain: bool = True
    """Whether :attr:`chain` follows the leaf. AWS needed it for JITP before 2021-11 (aws-iot-behaviour.md 3)."""
    chain: tuple[x509.Certificate, ...] = ()
    """The issuers sent after the leaf, the leaf's own first. The chain belongs to the context: ``Identity.chain`` is
    not looked at."""

    def __post_init__(self) -> None:
        for name in ("minimum_version", "maximum_version"):
            if getattr(self, name) not in _VERSIONS:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(_VERSIONS)}")
        if _VERSIONS[self.minimum_version] > _VERSIONS[self.maximum_version]:
            raise ValueError(f"minimum_version {self.minimum_version!r} is above {self.maximum_version!r}")
        if self.group not in _CURVES:
            raise ValueError(f"group {self.group!r} is not one of {', '.join(_CURVES)}")
        for protocol in self.alpn:
            if not protocol.isascii() or not 1 <= len(protocol) <= 255:
                raise ValueError(f"ALPN protocol {protocol!r} is not 1 to 255 ASCII characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that each stage may take."""

    tcp: float = 10.0
    """Name resolution and TCP connection."""
    tls: float = 10.0
    connect: float = 5.0
    """Writing the CONNECT packet."""
    connack: float = 10.0
    request: float = 10.0
    """From a PUBLISH (QoS 1), SUBSCRIBE or PINGREQ to its answer."""
    close: float = 2.0
    """From our DISCONNECT and close_notify to the server's end of the connection."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"deadline {name} is {getattr(self, name)!r}; more than 0 seconds is needed")


class under_way:  # noqa: N801 - used as a statement, like trio.fail_after
    """``with under_way(stage, seconds, trace):`` the stage's deadline, and its failures as :class:`ConnectionFailed`.

    A class, for a generator-based context manager costs three times as much, and this stands on every connection's
    path.
    """

    __slots__ = ("_awaited", "_scope", "_seconds", "_stage", "_trace")

    def __init__(self, stage: Stage, seconds: float, trace: Trace, awaited: str = "") -> None:
        """``awaited`` says for what, where the stage does not say enough."""
        self._stage = stage
        self._seconds = seconds
        self._trace = trace
        self._awaited = awaited
        self._scope = trio.CancelScope()

    def __enter__(self) -> "under_way":
        self._scope.deadline = trio.current_time() + self._seconds
        self._scope.__enter__()
        return self

    def then(self, stage: Stage, seconds: float) -> None:
        """The next stage is under way, with its own deadline: one cancel scope serves them all."""
        self._stage = stage
        self._seconds = seconds
        if self._scope.cancel_called:
            # the last stage came through when its time was up; that is not this one's fault
            self._scope.__exit__(None, None, None)
            self._scope = trio.CancelScope()
            self._scope.__enter__()
        self._scope.deadline = trio.current_time() + seconds

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scope.__exit__(kind, exc, traceback)
        if self._scope.cancelled_caught:
            raise too_late(self._stage, self._seconds, self._trace, self._awaited)
        if exc is not None and isinstance(exc, FOREIGN):
            raise ConnectionFailed(failure_from(exc, self._stage, alert=self._trace.alert)) from exc


def too_late(stage: Stage, seconds: float, trace: Trace, awaited: str = "") -> ConnectionFailed:
    """What to raise where a stage's deadline has passed; ``awaited`` as in :class:`under_way`."""
    late = trio.TooSlowError(f"no {awaited or _AWAITED[stage]} within {seconds:g} s")
    failed = ConnectionFailed(failure_from(late, stage, alert=trace.alert))
    failed.__cause__ = late
    return failed


class _Peer:
    """What OpenSSL's callbacks need to know about one connection; they are given nothing but the ``SSL.Connection``.

    It must not lead back to the connection: a reference cycle would keep its buffers until the collector comes round.
    """

    __slots__ = ("refusal", "trace", "verified", "verify_name")

    def __init__(self, verify_name: str, trace: Trace) -> None:
        self.verify_name = verify_name
        self.trace = trace
        self.refusal: Exception | None = None
        self.verified = False


class TLSContext:
    """One shared ``SSL.Context``. Safe to use for any number of connections at once; never changes after it is made."""

    def __init__(self, settings: TLSSettings, watcher: Watcher | None = None) -> None:
        """``watcher`` is told what the connection does; with one the context is for one connection at a time.

        Raises ``ValueError`` for a cipher string that OpenSSL does not know, ``InputError`` for an SSLKEYLOGFILE
        that cannot be written."""
        self.settings = settings
        self.watcher = watcher
        self._names_verified: set[tuple[bytes, str]] = set()
        """By the certificate's bytes: only the name is remembered, the chain is verified each time."""
        self._stand_ins: dict[type, crypto.X509] = {}
        """By kind of key, one certificate for all connections that are done with their own."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(_VERSIONS[settings.minimum_version])
        context.set_max_proto_version(_VERSIONS[settings.maximum_version])
        context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)
        # AWS gives out no session tickets (aws-iot-behaviour.md 4.3): every handshake is a full one, and verified
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        curve = _CURVES[settings.group]
        if curve is not None:
            context.set_tmp_ecdh(curve)
        if settings.ciphers is not None:
            _set_ciphers(context, settings.ciphers)
        if settings.alpn:
            context.set_alpn_protos([each.encode("ascii") for each in settings.alpn])
        store = context.get_cert_store()
        assert store is not None
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for root in settings.roots:
            store.add_cert(crypto.X509.from_cryptography(root))
        if settings.send_chain:
            for issuer in settings.chain:
                context.add_extra_chain_cert(issuer)
        context.set_verify(SSL.VERIFY_PEER, self._verify)
        context.set_info_callback(_on_info if watcher is None else _told_to(watcher))
        key_log = os.environ.get("SSLKEYLOGFILE")
        if key_log:
            context.set_keylog_callback(_key_logger(key_log))
        self._context = context

    def _connection(self, identity: Identity | None, server_name: bytes | None, peer: _Peer) -> SSL.Connection:
        """A client connection on buffers in memory, its handshake still to be done."""
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(peer)
        connection.set_connect_state()
        if server_name is not None:
            connection.set_tlsext_host_name(server_name)
        if identity is not None:
            try:
                openssl.use_identity(connection, identity)
            except (SSL.Error, crypto.Error) as exc:
                subject = identity.certificate.subject.rfc4514_string()
                raise KeyMaterialError(f"OpenSSL refuses the certificate and key of {subject!r}: {exc}") from exc
        return connection

    def _let_go(self, identity: Identity, connection: SSL.Connection) -> None:
        """The handshake is over: the device's certificate and key are not asked for again."""
        stand_in = self._stand_ins.get(type(identity.key))
        if stand_in is None:
            stand_in = self._stand_ins[type(identity.key)] = identity.prepare().certificate
        openssl.forget_identity(connection, stand_in)
        identity.unprepare()

    def _verify(self, connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
        """Asked for each certificate from the root down; the first ``False`` ends the handshake with an alert."""
        peer: _Peer = connection.get_app_data()
        if not ok:
            peer.refusal = refusal = ChainError(code, depth, _subject(certificate))
            if self.watcher is not None:
                presented = tuple(connection.get_peer_cert_chain() or (certificate,))
                self.watcher.server(presented, refusal, self._name_refusal(presented[0], peer.verify_name))
            return False
        if depth > 0:
            return True
        peer.refusal = self._name_refusal(certificate, peer.verify_name)
        peer.verified = peer.refusal is None
        if self.watcher is not None:
            self.watcher.server(tuple(connection.get_peer_cert_chain() or (certificate,)), None, peer.refusal)
        return peer.verified

    def _name_refusal(self, certificate: crypto.X509, name: str) -> Exception | None:
        """Why the certificate is not for ``name``, if it is not."""
        # a fleet meets the same few server certificates over and over: 3 µs in place of 25
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        if (der, name) in self._names_verified:
            return None
        try:
            _verify_name(certificate.to_cryptography(), name)
        except (VerificationError, CertificateError) as exc:
            return exc
        except ValueError as exc:
            # cryptography reads certificates more strictly than OpenSSL
            return CertificateError(f"the server's certificate cannot be read: {exc}")
        if len(self._names_verified) >= _NAMES_REMEMBERED:
            self._names_verified.clear()
        self._names_verified.add((der, name))
        return None


def _verify_name(certificate: x509.Certificate, name: str) -> None:
    if is_ip_literal(name):
        verify_certificate_ip_address(certificate, name)
    else:
        verify_certificate_hostname(certificate, name)


async def open_tls(
    context: TLSContext,
    address: tuple[str, int],
    *,
    identity: Identity | None,
    server_name: str | None,
    verify_name: str,
    deadlines: Deadlines,
    trace: Trace,
    clock: Callable[[], float] = trio.current_time,
    source: str | None = None,
) -> TLSConnection:
    """Connect to ``address`` and complete the handshake. The caller closes the connection.

    ``identity=None`` sends no client certificate. ``source`` is the local IP address to connect from. Fills ``trace``
    as it goes, also when it then fails. Raises :class:`ConnectionFailed`; ``ValueError``, before anything is sent, for
    a ``server_name``, ``verify_name`` or ``source`` that cannot be one.
    """
    names = Names.checked(server_name=server_name, verify_name=verify_name, source=source)
    with under_way(Stage.TCP, deadlines.tcp, trace) as way:
        return await establish(context, address, identity, names, deadlines, trace, clock, way, more=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Who is who on a TLS connection, found to be possible."""

    sni: bytes | None
    verify: str
    source: str | None

    @classmethod
    def checked(cls, *, server_name: str | None, verify_name: str, source: str | None) -> "Names":
        """Raises ``ValueError`` for one that cannot be."""
        check_verify_name(verify_name)
        if source is not None and tcp.literal_family(source) is None:
            raise ValueError(f"source {source!r} is not an IP address")
        return cls(
            sni=None if server_name is None else check_server_name(server_name), verify=verify_name, source=source
        )


async def establish(
    context: TLSContext,
    address: tuple[str, int],
    identity: Identity | None,
    names: Names,
    deadlines: Deadlines,
    trace: Trace,
    clock: Callable[[], float],
    way: under_way,
    *,
    more: bool,
) -> TLSConnection:
    """:func:`open_tls` under ``way``, at whose first stage, TCP, it begins; it leaves it at TLS.

    ``more``: the caller writes at once, so that what ends the handshake may wait for that.
    """
    dial = tcp.dial if context.watcher is None else context.watcher.dial
    sock = await dial(*address, names.source)
    done = False
    try:
        trace.reach(Stage.TCP, clock())
        way.then(Stage.TLS, deadlines.tls)
        peer = _Peer(names.verify, trace)
        let_go = None if identity is None else partial(context._let_go, identity)
        connection = TLSConnection(context._connection(identity, names.sni, peer), sock, let_go)
        try:
            await connection.handshake(more=more)
        except SSL.Error as exc:
            if peer.refusal is not None:
                raise peer.refusal from exc
            raise
        if not peer.verified:
            # OpenSSL verifies in every full handshake, and sessions are never resumed
            raise RuntimeError("the handshake was completed without verifying the server")
        trace.reach(Stage.TLS, clock())
        # thousands of traces say the same
        trace.tls_version = sys.intern(connection.version)
        cipher = connection.cipher
        trace.cipher = None if cipher is None else sys.intern(cipher)
        if context.watcher is not None:
            context.watcher.secured(connection)
        done = True
    finally:
        if not done:
            tcp.close_after_alert(sock)
    return connection


def _on_info(connection: SSL.Connection, where: int, value: int) -> None:
    """OpenSSL's info callback: called some 17 times a handshake (10 µs in all, measured), of which alerts are kept."""
    if where & SSL.SSL_CB_ALERT:
        _note_alert(connection, where, value)


def _told_to(watcher: Watcher) -> Callable[[SSL.Connection, int, int], None]:
    """The info callback of a context that is watched."""

    def on_info(connection: SSL.Connection, where: int, value: int) -> None:
        if where & SSL.SSL_CB_ALERT:
            alert = _note_alert(connection, where, value)
            if alert is not None:
                watcher.alert(alert)
        elif where & SSL.SSL_CB_LOOP:
            watcher.handshake(connection.get_state_string().decode("ascii"))

    return on_info


def _note_alert(connection: SSL.Connection, where: int, value: int) -> Alert | None:
    """The alert, kept in the trace if it is the first fatal one; ``None`` for close_notify."""
    level, code = value >> 8, value & 0xFF
    if code == 0:
        return None
    peer: _Peer = connection.get_app_data()
    if code != _USER_CANCELED and connection.get_protocol_version() == SSL.TLS1_3_VERSION:
        level = 2
    direction = "received" if where & SSL.SSL_CB_READ else "sent"
    alert = Alert(name=alert_name(code), code=code, level=_LEVELS.get(level, "unknown"), direction=direction)
    if alert.level == "fatal" and peer.trace.alert is None:
        peer.trace.alert = alert
    return alert


def _set_ciphers(context: SSL.Context, ciphers: str) -> None:
    names = [name for name in re.split(r"[:, ]+", ciphers) if name]
    modern = [name for name in names if name.startswith("TLS_")]
    classic = [name for name in names if not name.startswith("TLS_")]
    try:
        if classic:
            context.set_cipher_list(":".join(classic).encode("ascii"))
        if modern:
            context.set_tls13_ciphersuites(":".join(modern).encode("ascii"))
    except (SSL.Error, UnicodeEncodeError) as exc:
        raise ValueError(f"ciphers {ciphers!r} name no cipher that OpenSSL knows; see openssl ciphers -v") from exc


def _key_logger(path: str) -> Callable[[SSL.Connection, bytes], None]:
    """Appends TLS secrets for Wireshark, as curl and browsers do; a new file is readable by the user only."""

    def append(line: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    try:
        append(b"")
    except OSError as exc:
        raise InputError(f"SSLKEYLOGFILE {path!r} cannot be written: {exc.strerror}") from exc
    return lambda _connection, line: append(line + b"\n")


def _subject(certificate: crypto.X509) -> str:
    try:
        return certificate.to_cryptography().subject.rfc4514_string()
    except ValueError:
        return "unreadable"
