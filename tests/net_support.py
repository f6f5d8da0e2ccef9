"""What the tests of ``net`` share: certificates, a TLS server that does as it is told, and a reader of ClientHellos.

The server is pyOpenSSL over memory buffers and a trio stream, in the test's own event loop: what it saw and sent is
there to be looked at, and it knows nothing of ``devicesim.net``.
"""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial

import trio
import trustme
from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from devicesim.net.tls import Deadlines, TLSContext, TLSSettings
from devicesim.outcome import Trace
from devicesim.pki.authority import Authority
from devicesim.pki.identity import Identity, load_certificates, load_identity
from devicesim.pki.profile import KeyType, Profile, Subject

ENDPOINT = "a1b2c3-ats.iot.eu-west-1.localhost"
OTHER_ENDPOINT = "d4e5f6-ats.iot.eu-west-1.localhost"
QUICK = Deadlines(tcp=5, tls=5, connect=5, connack=5, request=5, close=1)
TEST_SECONDS = 20
"""A test that waits longer for its sockets has failed."""


@cache
def server_ca() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@cache
def server_identity(*names: str) -> Identity:
    """A certificate that we did not write: trustme's."""
    leaf = server_ca().issue_cert(*names, key_type=trustme.KeyType.ECDSA)
    return load_identity(leaf.private_key_and_cert_chain_pem.bytes(), "trustme")


def roots(ca: trustme.CA | None = None) -> tuple[x509.Certificate, ...]:
    return load_certificates((ca or server_ca()).cert_pem.bytes(), "trustme")


def now() -> datetime:
    return datetime.now(UTC)


@cache
def device_ca() -> Authority:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Device CA")])
    return Authority.create(
        subject=subject,
        key_type=KeyType.EC_P256,
        not_before=now() - timedelta(hours=1),
        not_after=now() + timedelta(days=30),
    )


@cache
def device(index: int = 0) -> Identity:
    profile = Profile(subject=Subject(common_name="device-{index:06d}"))
    return device_ca().mint(index, secret=b"s" * 32, profile=profile)


def tls_context(**settings: object) -> TLSContext:
    values: dict[str, object] = {"roots": roots(), "chain": device_ca().chain, **settings}
    return TLSContext(TLSSettings(**values))  # type: ignore[arg-type]  # checked by the record itself


def new_trace() -> Trace:
    return Trace(start=trio.current_time())


@dataclass(frozen=True, slots=True)
class SeenAlert:
    direction: str
    code: int


@dataclass(slots=True)
class ServerEnd:
    """The server's end of one connection."""

    stream: trio.SocketStream
    tls: SSL.Connection
    alerts: list[SeenAlert] = field(default_factory=list)

    async def handshake(self) -> None:
        self.tls.set_accept_state()
        while True:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                await self._flush()
                if not await self._fill():
                    raise
            except SSL.Error:
                await self._flush()
                raise
            else:
                await self._flush()
                return

    async def receive(self) -> bytes:
        """At least one byte, or nothing at the client's end."""
        while True:
            try:
                data: bytes = self.tls.recv(65_536)
            except SSL.WantReadError:
                if not await self._fill():
                    return b""
            except SSL.ZeroReturnError:
                return b""
            else:
                return data

    async def send(self, data: bytes) -> None:
        self.tls.sendall(data)
        await self._flush()

    async def send_raw(self, data: bytes) -> None:
        """Past TLS."""
        await self.stream.send_all(data)

    async def packet(self) -> bytes:
        """One MQTT packet of less than 16 KiB, byte by byte so that nothing is swallowed; empty at the client's end."""
        head = await self._exactly(2)
        if len(head) < 2:
            return b""
        length, shift = head[1] & 0x7F, 7
        while head[-1] & 0x80:
            head += await self._exactly(1)
            length |= (head[-1] & 0x7F) << shift
            shift += 7
        return head + await self._exactly(length)

    async def close(self, *, notify: bool = True) -> None:
        if notify:
            self.tls.shutdown()
            await self._flush()
        await self.stream.aclose()

    def reset(self) -> None:
        """End with a TCP reset."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                data += self.tls.recv(count - len(data))
            except SSL.WantReadError:
                if not await self._fill():
                    break
            except SSL.ZeroReturnError:
                break
        return data

    async def _fill(self) -> bool:
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            return False
        if data:
            self.tls.bio_write(data)
        return bool(data)

    async def send_pending(self) -> None:
        """What TLS has ready."""
        await self._flush()

    async def _flush(self) -> None:
        while True:
            try:
                data = self.tls.bio_read(65_536)
            except SSL.WantReadError:
                return
            try:
                await self.stream.send_all(data)
            except trio.BrokenResourceError:
                return


Handler = Callable[[ServerEnd], Awaitable[None]]


def server_context(
    identity: Identity,
    *,
    version: str | None = None,
    accept_client: bool | None = True,
    alpn: Callable[[SSL.Connection, list[bytes]], bytes] | None = None,
) -> SSL.Context:
    """``accept_client``: ``None`` asks for no certificate, ``False`` refuses whatever comes with an alert."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    if version is not None:
        number = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}[version]
        context.set_min_proto_version(number)
        context.set_max_proto_version(number)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.key)
    for issuer in identity.chain:
        context.add_extra_chain_cert(issuer)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if accept_client is not None:
        mode = SSL.VERIFY_PEER if accept_client else SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        # without a callback OpenSSL verifies against no roots at all: unknown_ca
        context.set_verify(mode, (lambda *_: True) if accept_client else None)
    if alpn is not None:
        context.set_alpn_select_callback(alpn)

    def on_info(connection: SSL.Connection, where: int, value: int) -> None:
        if where & SSL.SSL_CB_ALERT:
            direction = "received" if where & SSL.SSL_CB_READ else "sent"
            connection.get_app_data().append(SeenAlert(direction, value & 0xFF))

    context.set_info_callback(on_info)
    return context


@asynccontextmanager
async def tcp_server(handler: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[tuple[str, int]]:
    """A TCP server on a loopback port; its address."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
        listeners: Sequence[trio.SocketListener] = await nursery.start(serve)
        yield listeners[0].socket.getsockname()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tls_server(
    handler: Handler, context: SSL.Context | None = None, *, handshake: bool = True
) -> AsyncIterator[tuple[str, int]]:
    """A TLS server on a loopback port; ``handler`` gets each connection after its handshake."""
    served = context or server_context(server_identity(f"*.{ENDPOINT.split('.', 1)[1]}"))

    async def accept(stream: trio.SocketStream) -> None:
        connection = SSL.Connection(served, None)
        end = ServerEnd(stream, connection)
        connection.set_app_data(end.alerts)
        async with stream:
            if handshake:
                await end.handshake()
            await handler(end)

    async with tcp_server(accept) as address:
        yield address


async def idle(end: ServerEnd) -> None:
    """Read until the client's end."""
    while await end.receive():
        pass


# --- ClientHello (RFC 8446, 4.1.2), read off the raw bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    cipher_suites: tuple[int, ...]
    extensions: dict[int, bytes]

    @property
    def server_names(self) -> list[tuple[int, bytes]] | None:
        """(type, name) pairs of the server_name extension (RFC 6066, 3); ``None`` when it is not there."""
        body = self.extensions.get(0)
        if body is None:
            return None
        (length,) = struct.unpack_from("!H", body)
        assert length == len(body) - 2
        names, at = [], 2
        while at < len(body):
            kind, size = struct.unpack_from("!BH", body, at)
            names.append((kind, body[at + 3 : at + 3 + size]))
            at += 3 + size
        return names

    @property
    def alpn(self) -> list[bytes] | None:
        body = self.extensions.get(16)
        if body is None:
            return None
        names, at = [], 2
        while at < len(body):
            names.append(body[at + 1 : at + 1 + body[at]])
            at += 1 + body[at]
        return names

    @property
    def groups(self) -> tuple[int, ...]:
        body = self.extensions[10]
        return struct.unpack(f"!{len(body) // 2 - 1}H", body[2:])

    @property
    def versions(self) -> tuple[int, ...]:
        """supported_versions; empty for a TLS 1.2 ClientHello."""
        body = self.extensions.get(43)
        return struct.unpack(f"!{body[0] // 2}H", body[1:]) if body else ()


async def read_client_hello(stream: trio.SocketStream) -> bytes:
    """The ClientHello's handshake message, out of however many records."""
    buffer, message = b"", b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        while len(buffer) < 5 or len(buffer) < 5 + int.from_bytes(buffer[3:5], "big"):
            data = await stream.receive_some()
            assert data, "the client hung up within its ClientHello"
            buffer += data
        end = 5 + int.from_bytes(buffer[3:5], "big")
        assert buffer[0] == 22, "not a handshake record"
        message += buffer[5:end]
        buffer = buffer[end:]
    assert buffer == b"", "bytes after the ClientHello"
    return message


def parse_client_hello(message: bytes) -> ClientHello:
    assert message[0] == 1
    assert int.from_bytes(message[1:4], "big") == len(message) - 4
    at = 4 + 2 + 32  # header, version, random
    at += 1 + message[at]  # session id
    (size,) = struct.unpack_from("!H", message, at)
    suites = struct.unpack_from(f"!{size // 2}H", message, at + 2)
    at += 2 + size
    at += 1 + message[at]  # compression methods
    (size,) = struct.unpack_from("!H", message, at)
    assert at + 2 + size == len(message)
    at += 2
    extensions: dict[int, bytes] = {}
    while at < len(message):
        kind, size = struct.unpack_from("!HH", message, at)
        assert kind not in extensions
        extensions[kind] = message[at + 4 : at + 4 + size]
        at += 4 + size
    return ClientHello(cipher_suites=suites, extensions=extensions)


def self_signed_server(name: str, *, not_before: datetime, not_after: datetime) -> tuple[Identity, x509.Certificate]:
    """A server certificate with the validity given, and its root."""
    authority = Authority.create(
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Validity Test Root")]),
        key_type=KeyType.EC_P256,
        not_before=now() - timedelta(days=3650),
        not_after=now() + timedelta(days=3650),
    )
    identity = authority.issue_server([name], key_type=KeyType.EC_P256, not_before=not_before, not_after=not_after)
    return identity, authority.certificate
