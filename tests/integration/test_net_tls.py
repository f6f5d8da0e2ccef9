"""TLS on real loopback sockets, against a server that is not ours: the bytes on the wire, and what failures become."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL

from devicesim.errors import InputError, KeyMaterialError
from devicesim.net.failures import ConnectionFailed, EndOfStreamError, failure_from
from devicesim.net.stream import TLSConnection
from devicesim.net.tls import Deadlines, TLSContext, Version, _Peer, open_tls
from devicesim.outcome import FailureKind, Stage, Trace
from devicesim.pki.identity import Identity, load_identity, private_key_pem
from devicesim.pki.profile import KeyType, Profile, Subject
from tests.net_support import (
    ENDPOINT,
    OTHER_ENDPOINT,
    QUICK,
    TEST_SECONDS,
    ClientHello,
    SeenAlert,
    ServerEnd,
    device,
    device_ca,
    idle,
    new_trace,
    now,
    parse_client_hello,
    read_client_hello,
    roots,
    self_signed_server,
    server_context,
    server_identity,
    tcp_server,
    tls_context,
    tls_server,
)

VERSIONS: tuple[Version, ...] = ("TLSv1.2", "TLSv1.3")


async def connect(
    address: tuple[str, int],
    context: TLSContext | None = None,
    *,
    server_name: str | None = ENDPOINT,
    verify_name: str = ENDPOINT,
    identity: Identity | None = None,
    deadlines: Deadlines = QUICK,
    trace: Trace | None = None,
    source: str | None = None,
) -> TLSConnection:
    with trio.fail_after(TEST_SECONDS):
        return await open_tls(
            context or tls_context(),
            address,
            identity=identity,
            server_name=server_name,
            verify_name=verify_name,
            deadlines=deadlines,
            trace=trace or new_trace(),
            source=source,
        )


async def hello_sent(
    context: TLSContext, *, server_name: str | None = ENDPOINT, identity: Identity | None = None
) -> ClientHello:
    """The ClientHello that a server saw, which then hung up."""
    seen: list[ClientHello] = []

    async def handler(stream: trio.SocketStream) -> None:
        seen.append(parse_client_hello(await read_client_hello(stream)))

    async with tcp_server(handler) as address:
        with pytest.raises(ConnectionFailed) as caught:
            await connect(address, context, server_name=server_name, identity=identity)

    assert caught.value.failure.kind is FailureKind.CLOSED_IN_HANDSHAKE
    assert len(seen) == 1
    return seen[0]


async def failure_of(address: tuple[str, int], context: TLSContext | None = None, **how: object) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        await connect(address, context, **how)  # type: ignore[arg-type]  # passed through
    return caught.value


@asynccontextmanager
async def refusing_server(
    ends: list[ServerEnd], identity: Identity | None = None, *, context: SSL.Context | None = None
) -> AsyncIterator[tuple[str, int]]:
    """A server whose handshakes may fail; its ends are put into ``ends``."""

    async def handler(end: ServerEnd) -> None:
        ends.append(end)
        with contextlib.suppress(SSL.Error):
            await end.handshake()
            await idle(end)

    if context is None:
        assert identity is not None
        context = server_context(identity)
    async with tls_server(handler, context, handshake=False) as address:
        yield address


async def receive(connection: TLSConnection) -> bytes:
    """At least one byte. Readable says nothing of application data: in TLS 1.3 session tickets come first."""
    with trio.fail_after(TEST_SECONDS):
        while True:
            await connection.wait_readable()
            with contextlib.suppress(trio.WouldBlock):
                return connection.receive_nowait()


async def alert_seen(ends: list[ServerEnd]) -> None:
    with trio.fail_after(TEST_SECONDS):
        while not (ends and ends[0].alerts):  # noqa: ASYNC110 - OpenSSL's callback cannot set an event of each test
            await trio.sleep(0.01)


# --- the ClientHello


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "name",
    [
        ENDPOINT,
        "A1B2C3-ats.IoT.EU-west-1.LOCALHOST",
        ENDPOINT + ".",
        "localhost",
        "under_score.example",
        "host.example:8883",
        "x" * 255,
    ],
)
async def test_the_name_sent_is_exactly_the_one_asked_for(version: Version, name: str) -> None:
    hello = await hello_sent(tls_context(maximum_version=version), server_name=name)

    assert hello.server_names == [(0, name.encode())]


@pytest.mark.parametrize("version", VERSIONS)
async def test_no_name_means_no_extension(version: Version) -> None:
    hello = await hello_sent(tls_context(maximum_version=version), server_name=None)

    assert hello.server_names is None
    assert 0 not in hello.extensions


async def test_the_same_context_sends_each_connection_its_own_name() -> None:
    context = tls_context()

    names = [(await hello_sent(context, server_name=name)).server_names for name in ("a.example", None, "b.example")]

    assert names == [[(0, b"a.example")], None, [(0, b"b.example")]]


@pytest.mark.parametrize("name", ["", "x" * 256, "bücher.example", "a\0b", "line\nbreak"])
async def test_a_name_that_cannot_be_sent_is_refused_before_connecting(name: str) -> None:
    async def handler(_stream: trio.SocketStream) -> None:
        pytest.fail("connected")

    async with tcp_server(handler) as address:
        with pytest.raises(ValueError, match="server name"):
            await connect(address, server_name=name)


async def test_a_name_that_cannot_be_verified_is_refused_before_connecting() -> None:
    async def handler(_stream: trio.SocketStream) -> None:
        pytest.fail("connected")

    async with tcp_server(handler) as address:
        with pytest.raises(ValueError, match="name to verify 'no such name'"):
            await connect(address, verify_name="no such name")


async def test_alpn_is_offered_in_order_and_only_when_asked_for() -> None:
    with_alpn = await hello_sent(tls_context(alpn=("x-amzn-mqtt-ca", "mqtt")))
    without = await hello_sent(tls_context())

    assert with_alpn.alpn == [b"x-amzn-mqtt-ca", b"mqtt"]
    assert without.alpn is None


@pytest.mark.parametrize(("group", "number"), [("P-256", 0x0017), ("P-384", 0x0018), ("P-521", 0x0019)])
async def test_one_classic_group_is_offered(group: str, number: int) -> None:
    hello = await hello_sent(tls_context(group=group))

    assert hello.groups == (number,)


async def test_any_group_is_openssls_own_list() -> None:
    hello = await hello_sent(tls_context(group="any"))

    assert len(hello.groups) > 3
    assert 0x0017 in hello.groups
    assert 0x001D in hello.groups  # X25519


async def test_versions_are_offered_as_set() -> None:
    both = await hello_sent(tls_context())
    only_13 = await hello_sent(tls_context(minimum_version="TLSv1.3"))
    only_12 = await hello_sent(tls_context(maximum_version="TLSv1.2"))

    assert set(both.versions) == {0x0303, 0x0304}
    assert set(only_13.versions) == {0x0304}
    assert only_12.versions in {(), (0x0303,)}


async def test_ciphers_are_offered_as_set() -> None:
    hello = await hello_sent(tls_context(ciphers="TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256"))

    offered = set(hello.cipher_suites) - {0x00FF}  # the renegotiation SCSV is no cipher
    assert offered == {0x1301, 0xC02B}


async def test_no_session_is_ever_offered_for_resumption() -> None:
    """AWS gives out no tickets, and a resumed handshake would not verify the server."""
    context = tls_context(maximum_version="TLSv1.2")
    async with tls_server(idle, server_context(server_identity(ENDPOINT), version="TLSv1.2")) as address:
        await (await connect(address, context)).aclose()

    hello = await hello_sent(context)

    assert 35 not in hello.extensions  # session_ticket
    assert 41 not in hello.extensions  # pre_shared_key


# --- a handshake that succeeds


@pytest.mark.parametrize("version", VERSIONS)
async def test_bytes_go_both_ways_over_a_verified_connection(version: Version) -> None:
    async def echo(end: ServerEnd) -> None:
        while data := await end.receive():
            await end.send(data)

    trace = new_trace()
    async with tls_server(echo) as address:
        connection = await connect(address, tls_context(maximum_version=version), trace=trace)
        with trio.fail_after(TEST_SECONDS):
            assert connection.send_nowait(b"hello") == 5
            received = await receive(connection)
        await connection.aclose(1)

    assert received == b"hello"
    assert trace.tls_version == version
    assert trace.cipher is not None
    assert list(trace.reached) == [Stage.TCP, Stage.TLS]
    assert 0 <= trace.reached[Stage.TCP] <= trace.reached[Stage.TLS] < TEST_SECONDS
    assert trace.alert is None


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_settled_connection_goes_on_with_less(version: Version) -> None:
    """The handshake's buffers, certificate and key are given back; bytes go both ways as before, however many."""
    payload = bytes(range(256)) * 300

    async def echo(end: ServerEnd) -> None:
        assert end.tls.get_peer_certificate(as_cryptography=True) == device(1).certificate
        while data := await end.receive():
            await end.send(data)

    context = tls_context(maximum_version=version)
    async with tls_server(echo) as address:
        first = await connect(address, context, identity=device(1))
        second = await connect(address, context, identity=device(1))
        for connection in (first, second):
            with trio.fail_after(TEST_SECONDS):
                connection.send_nowait(b"hello")
                assert not connection.settle()  # there may be something to read
                assert await receive(connection) == b"hello"
                with pytest.raises(trio.WouldBlock):
                    connection.receive_nowait()
                assert connection.settle()
                connection.send_nowait(b"again")
                assert await receive(connection) == b"again"
                echoed, at = b"", 0
                while len(echoed) < len(payload):
                    at += connection.send_nowait(payload[at : at + 10_000]) if at < len(payload) else 0
                    echoed += await receive(connection)
                assert echoed == payload
        await first.aclose(1)
        await second.aclose(1)

    assert device(1)._pair is None


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_held_back_for_more_goes_out_with_it(version: Version) -> None:
    """Also by a settling that comes in between: what is held back lies in a buffer that it replaces."""

    async def echo(end: ServerEnd) -> None:
        while data := await end.receive():
            await end.send(data)

    async with tls_server(echo) as address:
        connection = await connect(address, tls_context(maximum_version=version))
        with trio.fail_after(TEST_SECONDS):
            connection.send_nowait(b"hello")
            assert await receive(connection) == b"hello"
            with pytest.raises(trio.WouldBlock):
                connection.receive_nowait()
            connection.send_nowait(b"held, ", more=True)
            connection.send_nowait(b"told")
            received = b""
            while len(received) < 10:
                try:
                    received += connection.receive_nowait()
                except trio.WouldBlock:
                    await connection.wait_readable()
            connection.send_nowait(b"settled", more=True)
            with pytest.raises(trio.WouldBlock):
                connection.receive_nowait()
            assert connection.settle()
            assert await receive(connection) == b"settled"
            connection.send_nowait(b"last", more=True)
            connection.flush_nowait()
            assert await receive(connection) == b"last"
        await connection.aclose(1)

    assert received == b"held, told"


async def test_a_source_address_is_dialled_from() -> None:
    seen: list[str] = []

    async def handler(end: ServerEnd) -> None:
        seen.append(end.stream.socket.getpeername()[0])
        await idle(end)

    async with tls_server(handler) as address:
        for host in (address[0], "localhost"):
            connection = await connect((host, address[1]), source="127.0.0.42")
            await connection.aclose(1)

    assert seen == ["127.0.0.42"] * 2


async def test_a_source_that_is_not_this_machines_is_this_machines_lack() -> None:
    async with tls_server(idle) as address:
        failure = (await failure_of(address, source="192.0.2.7")).failure

    assert failure.kind is FailureKind.LOCAL_RESOURCES
    assert failure.stage is Stage.TCP
    assert failure.detail == "source 192.0.2.7 is no address of this machine (EADDRNOTAVAIL)"


async def test_a_source_that_is_no_address_is_refused_before_connecting() -> None:
    with pytest.raises(ValueError, match="source 'lo' is not an IP address"):
        await connect(("127.0.0.1", 1), source="lo")


async def test_the_trace_is_timed_by_the_clock_given() -> None:
    ticks = iter([100.5, 102.0])
    trace = Trace(start=100.0)
    async with tls_server(idle) as address:
        connection = await open_tls(
            tls_context(),
            address,
            identity=None,
            server_name=ENDPOINT,
            verify_name=ENDPOINT,
            deadlines=QUICK,
            trace=trace,
            clock=lambda: next(ticks),
        )
        await connection.aclose()

    assert trace.reached == {Stage.TCP: 0.5, Stage.TLS: 2.0}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("send_chain", [True, False])
async def test_the_leaf_goes_with_its_chain_or_alone(version: Version, send_chain: bool) -> None:
    """Alone also where the device's CA is among the trusted roots, from which OpenSSL would complete the chain."""
    seen: list[list[x509.Certificate]] = []

    async def handler(end: ServerEnd) -> None:
        seen.append(end.tls.get_peer_cert_chain(as_cryptography=True) or [])
        # on the server's side the chain lacks the leaf where it stands alone
        leaf = end.tls.get_peer_certificate(as_cryptography=True)
        assert leaf == device().certificate

    context = tls_context(maximum_version=version, send_chain=send_chain, roots=(*roots(), device_ca().certificate))
    async with tls_server(handler) as address:
        connection = await connect(address, context, identity=device())
        with pytest.raises(EndOfStreamError):
            await receive(connection)
        await connection.aclose()

    assert [device_ca().certificate in chain for chain in seen] == [send_chain]


async def test_many_devices_share_a_context_each_with_its_own_certificate() -> None:
    seen: set[str] = set()

    async def handler(end: ServerEnd) -> None:
        leaf = end.tls.get_peer_certificate(as_cryptography=True)
        assert leaf is not None
        seen.add(leaf.subject.rfc4514_string())
        await idle(end)

    context = tls_context()

    async def one(address: tuple[str, int], index: int) -> None:
        connection = await connect(address, context, identity=device(index))
        await connection.aclose(1)

    async with tls_server(handler) as address, trio.open_nursery() as nursery:
        for index in range(20):
            nursery.start_soon(one, address, index)
        nursery.cancel_scope.deadline = trio.current_time() + TEST_SECONDS

    assert seen == {f"CN=device-{index:06d}" for index in range(20)}


@pytest.mark.parametrize(
    ("version", "key_type", "group"),
    [
        ("TLSv1.2", KeyType.EC_P256, "P-256"),
        ("TLSv1.3", KeyType.EC_P256, "P-256"),
        ("TLSv1.2", KeyType.RSA_2048, "P-256"),
        ("TLSv1.3", KeyType.RSA_2048, "P-256"),
        ("TLSv1.2", KeyType.EC_P384, "any"),  # RFC 8422, 5.1.1: the groups are those of certificates too
        ("TLSv1.3", KeyType.EC_P384, "P-256"),
    ],
)
async def test_every_kind_of_device_key_is_proven(version: Version, key_type: KeyType, group: str) -> None:
    identity = device_ca().mint_random(0, profile=Profile(subject=Subject(common_name="any"), key_type=key_type))
    seen: list[x509.Certificate | None] = []

    async def handler(end: ServerEnd) -> None:
        seen.append(end.tls.get_peer_certificate(as_cryptography=True))
        await idle(end)

    async with tls_server(handler) as address:
        connection = await connect(address, tls_context(maximum_version=version, group=group), identity=identity)
        with trio.fail_after(TEST_SECONDS):
            await connection.aclose(1)

    assert seen == [identity.certificate]


async def test_in_tls12_a_device_certificate_of_another_curve_than_the_group_is_refused() -> None:
    """So a fleet with P-384 keys that may meet TLS 1.2 needs ``group="any"``."""
    profile = Profile(subject=Subject(common_name="any"), key_type=KeyType.EC_P384)
    identity = device_ca().mint_random(0, profile=profile)
    ends: list[ServerEnd] = []
    async with refusing_server(ends, server_identity(ENDPOINT)) as address:
        error = await failure_of(address, tls_context(maximum_version="TLSv1.2"), identity=identity)

    assert error.failure.kind is FailureKind.TLS_ALERT
    assert error.failure.detail == "illegal_parameter"


async def test_without_an_identity_no_certificate_is_sent() -> None:
    seen: list[x509.Certificate | None] = []
    handled = trio.Event()

    async def handler(end: ServerEnd) -> None:
        seen.append(end.tls.get_peer_certificate(as_cryptography=True))
        handled.set()

    async with tls_server(handler) as address:
        connection = await connect(address, identity=None)
        with trio.fail_after(TEST_SECONDS):
            await connection.aclose(1)
            await handled.wait()

    assert seen == [None]


async def test_the_protocol_that_the_server_picks_is_told() -> None:
    context = server_context(server_identity(ENDPOINT), alpn=lambda _connection, offered: offered[-1])
    async with tls_server(idle, context) as address:
        connection = await connect(address, tls_context(alpn=("first", "second")))
        picked = connection.alpn_protocol
        await connection.aclose()

    assert picked == "second"


async def test_a_server_that_picks_no_protocol_is_not_refused() -> None:
    async with tls_server(idle) as address:
        connection = await connect(address, tls_context(alpn=("x-amzn-mqtt-ca",)))
        picked = connection.alpn_protocol
        group = connection.group
        await connection.aclose()

    assert picked is None
    assert group is not None
    assert "256" in group


async def test_a_host_name_is_resolved() -> None:
    async with tls_server(idle) as (_host, port):
        connection = await connect(("localhost", port))
        await connection.aclose()


@pytest.mark.parametrize(
    "verify_name", ["127.0.0.1", "localhost", "a.iot.eu-west-1.localhost", "A.IoT.EU-west-1.localhost"]
)
async def test_names_that_a_certificate_is_for_are_accepted(verify_name: str) -> None:
    identity = server_identity("127.0.0.1", "localhost", "*.iot.eu-west-1.localhost")
    async with tls_server(idle, server_context(identity)) as address:
        connection = await connect(address, verify_name=verify_name)
        await connection.aclose()


async def test_a_given_intermediate_is_a_trust_anchor() -> None:
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    intermediate = ca.create_child_ca()
    leaf = intermediate.issue_cert(ENDPOINT)
    identity = load_identity(leaf.private_key_and_cert_chain_pem.bytes(), "trustme")
    async with tls_server(idle, server_context(identity)) as address:
        connection = await connect(address, tls_context(roots=roots(intermediate)))
        await connection.aclose()


async def test_secrets_are_logged_where_sslkeylogfile_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    context = tls_context()
    async with tls_server(idle) as address:
        await (await connect(address, context)).aclose()

    labels = [line.split()[0] for line in log.read_text().splitlines()]
    assert "CLIENT_TRAFFIC_SECRET_0" in labels
    assert log.stat().st_mode & 0o777 == 0o600


def test_an_unwritable_sslkeylogfile_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "missing" / "keys.log"))

    with pytest.raises(InputError, match=r"SSLKEYLOGFILE .* cannot be written: No such file"):
        tls_context()


# --- servers that the device refuses


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server_name", [ENDPOINT, None])
async def test_a_certificate_for_another_name_is_refused_with_or_without_sni(
    version: Version, server_name: str | None
) -> None:
    ends: list[ServerEnd] = []
    trace = new_trace()
    async with refusing_server(ends, server_identity(OTHER_ENDPOINT)) as address:
        error = await failure_of(address, tls_context(maximum_version=version), server_name=server_name, trace=trace)
        await alert_seen(ends)

    assert error.failure.kind is FailureKind.SERVER_NAME_MISMATCH
    assert error.failure.stage is Stage.TLS
    assert error.failure.detail == f"the server's certificate is not for '{ENDPOINT}'"
    assert Stage.TLS not in trace.reached
    assert trace.alert is not None
    assert (trace.alert.direction, trace.alert.name) == ("sent", "internal_error")
    assert ends[0].alerts == [SeenAlert("received", 80)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("server_name", [ENDPOINT, None])
async def test_an_untrusted_chain_is_refused_with_or_without_sni(version: Version, server_name: str | None) -> None:
    ends: list[ServerEnd] = []
    trace = new_trace()
    foreign = roots(trustme.CA(key_type=trustme.KeyType.ECDSA))
    async with refusing_server(ends, server_identity(ENDPOINT)) as address:
        error = await failure_of(
            address, tls_context(maximum_version=version, roots=foreign), server_name=server_name, trace=trace
        )
        await alert_seen(ends)

    assert error.failure.kind is FailureKind.SERVER_CERTIFICATE_UNTRUSTED
    assert error.failure.stage is Stage.TLS
    assert "unable to get issuer cert locally" in error.failure.detail
    assert trace.alert is not None
    assert (trace.alert.direction, trace.alert.name, trace.alert.level) == ("sent", "unknown_ca", "fatal")
    assert ends[0].alerts == [SeenAlert("received", 48)]


async def test_without_roots_no_server_is_trusted() -> None:
    """Not even one that the machine's own store knows: that store is never asked."""
    ends: list[ServerEnd] = []
    async with refusing_server(ends, server_identity(ENDPOINT)) as address:
        error = await failure_of(address, tls_context(roots=()))

    assert error.failure.kind is FailureKind.SERVER_CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize(("from_days", "to_days", "words"), [(-20, -10, "expired"), (10, 20, "not yet valid")])
async def test_a_certificate_out_of_its_time_is_refused(from_days: int, to_days: int, words: str) -> None:
    identity, root = self_signed_server(
        ENDPOINT, not_before=now() + timedelta(days=from_days), not_after=now() + timedelta(days=to_days)
    )
    ends: list[ServerEnd] = []
    async with refusing_server(ends, identity) as address:
        error = await failure_of(address, tls_context(roots=(root,)))

    assert error.failure.kind is FailureKind.SERVER_CERTIFICATE_EXPIRED
    assert words in error.failure.detail


async def test_a_certificate_without_alternative_names_is_refused() -> None:
    """A common name alone is no name (RFC 9525)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ENDPOINT)])
    certificate = (
        x509.CertificateBuilder(issuer_name=subject, subject_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    ends: list[ServerEnd] = []
    async with refusing_server(ends, Identity(key=key, certificate=certificate)) as address:
        error = await failure_of(address, tls_context(roots=(certificate,)))

    assert error.failure.kind is FailureKind.SERVER_NAME_MISMATCH
    assert "subjectAltName" in error.failure.detail


async def test_a_certificate_that_cannot_be_read_is_refused() -> None:
    """cryptography reads more strictly than OpenSSL; what only one of them can read is not trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ENDPOINT)])
    certificate = (
        x509.CertificateBuilder(issuer_name=subject, subject_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(hours=1))
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"no DER"), critical=False)
        .sign(key, hashes.SHA256())
    )
    ends: list[ServerEnd] = []
    async with refusing_server(ends, Identity(key=key, certificate=certificate)) as address:
        error = await failure_of(address, tls_context(roots=(certificate,)))

    assert error.failure.kind in {FailureKind.SERVER_NAME_MISMATCH, FailureKind.SERVER_CERTIFICATE_UNTRUSTED}


async def test_a_client_certificate_is_no_server_certificate() -> None:
    ends: list[ServerEnd] = []
    async with refusing_server(ends, device()) as address:
        error = await failure_of(address, tls_context(roots=(device_ca().certificate,)))

    assert error.failure.kind is FailureKind.SERVER_CERTIFICATE_UNTRUSTED
    assert "invalid purpose" in error.failure.detail


async def test_a_refused_server_gets_no_client_certificate() -> None:
    """In TLS 1.3 the certificate would go out with the client's last message; a wrong server never sees that one."""
    ends: list[ServerEnd] = []
    async with refusing_server(ends, server_identity(OTHER_ENDPOINT)) as address:
        await failure_of(address, tls_context(), identity=device())
        await alert_seen(ends)

    assert ends[0].tls.get_peer_certificate() is None


# --- servers that refuse the device, or fail


async def test_tls12_refusal_of_the_client_certificate_is_an_alert_in_the_handshake() -> None:
    trace = new_trace()
    context = server_context(server_identity(ENDPOINT), version="TLSv1.2", accept_client=False)
    ends: list[ServerEnd] = []
    async with refusing_server(ends, context=context) as address:
        error = await failure_of(address, identity=device(), trace=trace)

    assert error.failure.kind is FailureKind.TLS_ALERT
    assert error.failure.stage is Stage.TLS
    assert error.failure.detail == "unknown_ca"
    assert trace.alert is not None
    assert (trace.alert.direction, trace.alert.code) == ("received", 48)


async def test_tls13_refusal_of_the_client_certificate_arrives_after_the_handshake() -> None:
    trace = new_trace()
    context = server_context(server_identity(ENDPOINT), version="TLSv1.3", accept_client=False)
    ends: list[ServerEnd] = []
    async with refusing_server(ends, context=context) as address:
        connection = await connect(address, identity=device(), trace=trace)
        with pytest.raises(SSL.Error):
            await receive(connection)
        await connection.aclose()

    assert Stage.TLS in trace.reached
    assert trace.alert is not None
    assert (trace.alert.direction, trace.alert.name, trace.alert.level) == ("received", "unknown_ca", "fatal")


async def test_an_alert_that_a_failed_write_runs_into_is_still_read() -> None:
    """A server that refuses while our bytes are on their way resets the connection; its alert lies in our socket."""
    trace = new_trace()
    refused = trio.Event()

    async def handler(end: ServerEnd) -> None:
        with contextlib.suppress(SSL.Error):
            await end.handshake()
        end.reset()
        refused.set()

    context = server_context(server_identity(ENDPOINT), version="TLSv1.3", accept_client=False)
    async with tls_server(handler, context, handshake=False) as address:
        connection = await connect(address, identity=device(), trace=trace)
        await refused.wait()
        with pytest.raises(OSError) as write_failed:
            connection.send_nowait(b"CONNECT")
        with pytest.raises(SSL.Error) as read_failed:
            connection.receive_nowait()
        connection.close()

    assert failure_from(write_failed.value, Stage.CONNECT).kind is FailureKind.CONNECTION_RESET
    assert failure_from(read_failed.value, Stage.CONNECT).kind is FailureKind.TLS_ALERT
    assert trace.alert is not None
    assert trace.alert.name == "unknown_ca"


async def test_garbage_for_a_handshake_message_is_told_with_the_alert_that_we_sent() -> None:
    alerts: list[bytes] = []

    async def handler(stream: trio.SocketStream) -> None:
        await read_client_hello(stream)
        await stream.send_all(b"\x16\x03\x03\x00\x04\x63\x00\x00\x00")
        alerts.append(await stream.receive_some())

    trace = new_trace()
    async with tcp_server(handler) as address:
        error = await failure_of(address, trace=trace)
        await trio.testing.wait_all_tasks_blocked(0.01)

    assert error.failure.kind is FailureKind.TLS_PROTOCOL_ERROR
    assert trace.alert is not None
    assert (trace.alert.direction, trace.alert.name) == ("sent", "unexpected_message")
    assert alerts == [b"\x15\x03\x01\x00\x02\x02\x0a"]  # the record version of a first flight


class MeddlingSocket(socket.socket):
    """A client's socket whose server lives in ``send``: what it answers is there before the next thing happens."""

    def meddle(self, other_end: socket.socket, context: SSL.Context, last_words: bytes | None) -> None:
        self.other_end = other_end
        self.last_words = last_words
        self.writes = 0
        self.server = SSL.Connection(context, None)
        self.server.set_app_data([])
        self.server.set_accept_state()

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]  # bytes are all that it is given
        self.writes += 1
        if self.last_words is None and self.writes % 2:
            raise BlockingIOError
        if self.last_words is not None and self.writes == 2:
            self.other_end.sendall(self.last_words)
            self.other_end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.other_end.close()
            return super().send(data, flags)
        self.server.bio_write(data)
        with contextlib.suppress(SSL.WantReadError):
            self.server.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            self.other_end.sendall(self.server.bio_read(65_536))
        return len(data)


@contextlib.contextmanager
def meddled_connection(trace: Trace, last_words: bytes | None) -> Iterator[TLSConnection]:
    """``last_words``: what the server says before it resets, in place of taking our answer; ``None`` for a good one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sock = MeddlingSocket()
        sock.connect(listener.getsockname())
        sock.setblocking(False)
        other_end, _ = listener.accept()
    with other_end:
        sock.meddle(other_end, server_context(server_identity(ENDPOINT), version="TLSv1.2"), last_words)
        connection = TLSConnection(tls_context()._connection(None, None, _Peer(ENDPOINT, trace)), sock)
        yield connection
        connection.close()


async def test_an_alert_that_a_failed_write_of_the_handshake_runs_into_is_still_read() -> None:
    """It arrives, with a reset, after we read the server's flight and before we write our answer."""
    trace = new_trace()
    told = pytest.raises(SSL.Error)
    alert = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake_failure
    with meddled_connection(trace, alert) as connection, trio.fail_after(TEST_SECONDS), told as caught:
        await connection.handshake()

    assert failure_from(caught.value, Stage.TLS).detail == "handshake_failure"
    assert trace.alert is not None
    assert trace.alert.direction == "received"


async def test_a_failed_write_of_the_handshake_without_last_words_is_a_reset() -> None:
    told = pytest.raises(OSError)
    with meddled_connection(new_trace(), b"") as connection, trio.fail_after(TEST_SECONDS), told as caught:
        await connection.handshake()

    assert failure_from(caught.value, Stage.TLS).kind is FailureKind.CONNECTION_RESET


async def test_after_a_fatal_error_nothing_is_sent() -> None:
    async def handler(end: ServerEnd) -> None:
        await end.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
        await end.stream.receive_some()

    async with tls_server(handler) as address:
        connection = await connect(address)
        with pytest.raises(SSL.Error):
            await receive(connection)
        with pytest.raises(SSL.Error):
            connection.send_nowait(b"x")
        assert repr(connection) == "<TLSConnection broken>"
        await connection.aclose(TEST_SECONDS)


async def test_a_handshake_waits_for_room_in_the_socket() -> None:
    trace = new_trace()
    with meddled_connection(trace, None) as connection:
        with trio.fail_after(TEST_SECONDS):
            await connection.handshake()
        assert connection.version == "TLSv1.2"


async def test_a_flight_with_an_alert_behind_it_is_told_by_the_alert() -> None:

    async def handler(end: ServerEnd) -> None:
        end.tls.set_accept_state()
        end.tls.bio_write(await end.stream.receive_some())
        with pytest.raises(SSL.WantReadError):
            end.tls.do_handshake()
        await end.send_raw(end.tls.bio_read(65_536) + b"\x15\x03\x03\x00\x02\x02\x28")  # fatal, handshake_failure
        end.reset()

    trace = new_trace()
    context = server_context(server_identity(ENDPOINT), version="TLSv1.2")
    async with tls_server(handler, context, handshake=False) as address:
        error = await failure_of(address, trace=trace)

    assert error.failure.kind is FailureKind.TLS_ALERT
    assert error.failure.detail == "handshake_failure"
    assert trace.alert is not None
    assert trace.alert.direction == "received"


async def test_no_common_version_is_an_alert() -> None:
    ends: list[ServerEnd] = []
    context = server_context(server_identity(ENDPOINT), version="TLSv1.3")
    async with refusing_server(ends, context=context) as address:
        error = await failure_of(address, tls_context(maximum_version="TLSv1.2"))

    assert error.failure.kind is FailureKind.TLS_ALERT
    assert error.failure.detail == "protocol_version"


async def test_what_is_not_tls_is_a_protocol_error() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await read_client_hello(stream)
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with trio.move_on_after(1):
            await stream.receive_some()

    trace = new_trace()
    async with tcp_server(handler) as address:
        error = await failure_of(address, trace=trace)

    assert error.failure.kind is FailureKind.TLS_PROTOCOL_ERROR
    assert error.failure.stage is Stage.TLS
    assert error.failure.detail == "wrong version number"
    assert trace.alert is None


@pytest.mark.parametrize("after_hello", [True, False])
async def test_a_close_in_the_handshake(after_hello: bool) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        if after_hello:
            await read_client_hello(stream)
        else:
            await stream.send_eof()
            await stream.receive_some()

    async with tcp_server(handler) as address:
        error = await failure_of(address)

    assert error.failure.kind is FailureKind.CLOSED_IN_HANDSHAKE
    assert error.failure.stage is Stage.TLS


async def test_a_reset_in_the_handshake() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with tcp_server(handler) as address:
        error = await failure_of(address)

    assert error.failure.kind is FailureKind.CONNECTION_RESET
    assert error.failure.stage is Stage.TLS
    assert "ECONNRESET" in error.failure.detail


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()

        error = await failure_of(address)
        by_name = await failure_of(("localhost", address[1]))

    assert error.failure.kind is FailureKind.TCP_REFUSED
    assert error.failure.stage is Stage.TCP
    assert "ECONNREFUSED" in error.failure.detail
    assert by_name.failure.kind is FailureKind.TCP_REFUSED


async def test_a_name_that_does_not_resolve() -> None:
    # RFC 6761: .invalid never does
    error = await failure_of(("devicesim-test.invalid", 8883))
    unencodable = await failure_of((f"{'a' * 64}.invalid", 8883))

    assert error.failure.kind is FailureKind.NAME_NOT_RESOLVED
    assert error.failure.stage is Stage.TCP
    assert unencodable.failure.kind is FailureKind.NAME_NOT_RESOLVED


async def test_a_silent_server_times_out_the_handshake() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    trace = new_trace()
    async with tcp_server(handler) as address:
        error = await failure_of(address, deadlines=Deadlines(tls=0.05), trace=trace)

    assert error.failure.kind is FailureKind.TIMEOUT
    assert error.failure.stage is Stage.TLS
    assert error.failure.detail == "no complete TLS handshake within 0.05 s"
    assert list(trace.reached) == [Stage.TCP]


async def test_a_full_backlog_times_out_the_tcp_connection() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(4):  # Linux takes one or two beyond the backlog, then drops the SYN
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        error = await failure_of(listener.getsockname(), deadlines=Deadlines(tcp=0.1))
        for filler in fillers:
            filler.close()

    assert error.failure.kind is FailureKind.TIMEOUT
    assert error.failure.stage is Stage.TCP
    assert error.failure.detail == "no TCP connection within 0.1 s"


# --- resources


async def test_a_cancelled_handshake_leaves_no_socket() -> None:
    reached = trio.Event()

    async def handler(stream: trio.SocketStream) -> None:
        reached.set()
        while await stream.receive_some():
            pass

    before = open_descriptors()
    async with tcp_server(handler) as address:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, address)
            await reached.wait()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    assert open_descriptors() == before


async def test_failures_leave_no_socket() -> None:
    ends: list[ServerEnd] = []
    before = open_descriptors()
    async with refusing_server(ends, server_identity(OTHER_ENDPOINT)) as address:
        for _ in range(5):
            await failure_of(address)
        await trio.testing.wait_all_tasks_blocked(0.01)

    assert open_descriptors() == before


async def test_a_key_that_is_not_the_certificates_is_told_as_such() -> None:
    wrong = Identity(key=device(1).key, certificate=device(0).certificate)
    ends: list[ServerEnd] = []
    before = open_descriptors()
    async with refusing_server(ends, server_identity(ENDPOINT)) as address:
        with pytest.raises(KeyMaterialError, match="refuses the certificate and key of 'CN=device-000000'"):
            await connect(address, identity=wrong)
        await trio.testing.wait_all_tasks_blocked(0.01)

    assert open_descriptors() == before


async def test_a_closed_connection_says_so() -> None:
    async with tls_server(idle) as address:
        connection = await connect(address)
        await connection.aclose()
        await connection.aclose()

        with pytest.raises(trio.ClosedResourceError):
            connection.receive_nowait()
        with pytest.raises(trio.ClosedResourceError):
            connection.send_nowait(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await connection.wait_readable()
        with pytest.raises(trio.ClosedResourceError):
            await connection.wait_writable()
        with pytest.raises(trio.ClosedResourceError):
            connection.flush_nowait()
        connection.end_sending()
        connection.close()
        assert repr(connection) == "<TLSConnection closed>"


async def test_closing_wakes_a_task_that_waits() -> None:
    async with tls_server(idle) as address:
        connection = await connect(address)

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await receive(connection)

        with trio.fail_after(TEST_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                connection.close()


async def test_an_orderly_close_sends_close_notify_and_waits_for_the_servers_end() -> None:
    ended: list[str] = []

    async def handler(end: ServerEnd) -> None:
        await idle(end)
        ended.append("client")
        await trio.lowlevel.checkpoint()
        ended.append("server")
        await end.close()

    async with tls_server(handler) as address:
        connection = await connect(address)
        with trio.fail_after(TEST_SECONDS):
            await connection.aclose(linger=TEST_SECONDS)

    assert ended == ["client", "server"]


async def test_a_server_that_does_not_close_is_not_waited_for_long(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    release = trio.Event()

    async def handler(_end: ServerEnd) -> None:
        await release.wait()

    async with tls_server(handler) as address:
        connection = await connect(address)
        started = trio.current_time()
        await connection.aclose(linger=7)
        waited = trio.current_time() - started
        release.set()

    assert waited == pytest.approx(7, abs=0.5)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- what a server may do to a connection that has settled


async def settled(address: tuple[str, int], version: Version, index: int) -> TLSConnection:
    """A connection with a client certificate, settled as soon as the handshake is done."""
    connection = await connect(address, tls_context(maximum_version=version), identity=device(index))
    with pytest.raises(trio.WouldBlock):
        connection.receive_nowait()
    assert connection.settle()
    return connection


async def exactly(connection: TLSConnection, count: int) -> bytes:
    data = b""
    with trio.fail_after(TEST_SECONDS):
        while len(data) < count:
            try:
                data += connection.receive_nowait()
            except trio.WouldBlock:
                await connection.wait_readable()
    return data


async def test_session_tickets_that_come_after_settling_do_no_harm() -> None:
    """The server completes the handshake, which is where it sends them, when the client has settled already."""
    go_on = trio.Event()
    tickets: list[int] = []

    async def handler(end: ServerEnd) -> None:
        end.tls.set_accept_state()
        end.tls.bio_write(await end.stream.receive_some())
        with pytest.raises(SSL.WantReadError):
            end.tls.do_handshake()
        await end.send_pending()
        await go_on.wait()
        end.tls.bio_write(await end.stream.receive_some())
        end.tls.do_handshake()
        sent = end.tls.bio_read(65_536)
        tickets.append(len(sent))
        await end.send_raw(sent)
        await end.send(b"hello")
        while data := await end.receive():
            await end.send(data)

    context = server_context(server_identity(ENDPOINT), version="TLSv1.3")
    async with tls_server(handler, context, handshake=False) as address:
        connection = await settled(address, "TLSv1.3", 41)
        go_on.set()
        assert await exactly(connection, 5) == b"hello"
        for size in (1, 70_000):
            payload, at, echoed = bytes(size), 0, b""
            while len(echoed) < size:
                at += connection.send_nowait(payload[at : at + 9000]) if at < size else 0
                echoed += await receive(connection)
            assert echoed == payload
        await connection.aclose(1)

    assert tickets[0] > 100


async def test_a_renegotiation_asked_for_after_settling_is_declined() -> None:
    """TLS 1.2: the certificate that it would need has been let go of. We say so with what we send next.

    Whether a server goes on then is its own choice (RFC 5246, 7.2.2); OpenSSL's does not.
    """
    ask = trio.Event()
    told: list[str] = []
    alerts: list[SeenAlert] = []

    async def handler(end: ServerEnd) -> None:
        await ask.wait()
        assert end.tls.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            end.tls.do_handshake()
        await end.send_pending()
        await end.send(b"hello")
        with pytest.raises(SSL.Error) as caught:
            await end.receive()
        told.append(str(caught.value))
        alerts.extend(end.alerts)
        await end.send_pending()

    context = server_context(server_identity(ENDPOINT), version="TLSv1.2")
    async with tls_server(handler, context) as address:
        connection = await settled(address, "TLSv1.2", 42)
        ask.set()
        assert await exactly(connection, 5) == b"hello"
        connection.send_nowait(b"again")
        with pytest.raises(SSL.Error) as caught:
            await receive(connection)
        await connection.aclose(1)

    assert "no renegotiation" in told[0]
    assert alerts == [SeenAlert("received", 100), SeenAlert("sent", 40)]
    assert failure_from(caught.value, Stage.SESSION).detail == "handshake_failure"


@asynccontextmanager
async def s_server(directory: Path, *options: str) -> AsyncIterator[tuple[trio.Process, int]]:
    """``openssl s_server``: what is written to its input goes to the client, or is a command to it; and its port."""
    identity = server_identity(ENDPOINT)
    (directory / "key.pem").write_text(private_key_pem(identity.key))
    (directory / "cert.pem").write_bytes(identity.certificate.public_bytes(serialization.Encoding.PEM))
    command = [
        *("openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-verify", "3"),
        *("-cert", str(directory / "cert.pem"), "-key", str(directory / "key.pem"), *options),
    ]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        said = b""
        with trio.fail_after(TEST_SECONDS):
            while (found := re.search(rb"ACCEPT 127\.0\.0\.1:(\d+)", said)) is None:
                said += await process.stdout.receive_some()
        yield process, int(found[1])
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed (Debian: apt install openssl)")
@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_2048])
async def test_key_updates_after_settling_are_answered_and_traffic_goes_on(tmp_path: Path, key_type: KeyType) -> None:
    """k: the server's keys are new. K: it asks for new ones of ours too, which come before the next that we send."""
    profile = Profile(subject=Subject(common_name="updated-{index}"), key_type=key_type)
    identity = device_ca().mint_random(43, profile=profile)
    async with s_server(tmp_path, "-tls1_3", "-msg") as (process, port):
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        heard = bytearray()

        async def hear(words: bytes) -> None:
            while words not in heard:
                data = await stdout.receive_some()
                assert data, "openssl s_server has ended"
                heard.extend(data)

        connection = await connect(("127.0.0.1", port), tls_context(), identity=identity)
        with trio.fail_after(TEST_SECONDS):
            await stdin.send_all(b"hello\n")
            assert await exactly(connection, 6) == b"hello\n"
            with pytest.raises(trio.WouldBlock):
                connection.receive_nowait()
            assert connection.settle()
            for number, command in enumerate((b"k\n", b"K\n", b"K\n", b"k\n")):
                del heard[:]
                await stdin.send_all(command)
                await hear(b"KeyUpdate")  # sent
                await stdin.send_all(b"%d told\n" % number)
                assert await exactly(connection, 7) == b"%d told\n" % number
                del heard[:]
                connection.send_nowait(b"%d said\n" % number)
                await hear(b"%d said\n" % number)
                # ours, before what we said
                assert (b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate" in heard) == (command == b"K\n")
                with pytest.raises(trio.WouldBlock):
                    connection.receive_nowait()
                assert connection.settle()
        await connection.aclose()

    assert identity._pair is None


@pytest.mark.parametrize("cut", [1, 5, 30])
@pytest.mark.parametrize("version", VERSIONS)
async def test_settling_in_the_middle_of_a_record_loses_nothing_of_it(version: Version, cut: int) -> None:
    """What has come of it lies in OpenSSL, not in the buffer that is replaced."""
    go_on = trio.Event()

    async def handler(end: ServerEnd) -> None:
        await end.send(b"first")
        end.tls.sendall(b"x" * 100)
        record = end.tls.bio_read(65_536)
        await end.send_raw(record[:cut])
        await go_on.wait()
        await end.send_raw(record[cut:])
        while data := await end.receive():
            await end.send(data)

    async with tls_server(handler) as address:
        connection = await connect(address, tls_context(maximum_version=version), identity=device(44))
        assert await exactly(connection, 5) == b"first"
        with trio.fail_after(TEST_SECONDS):
            for _ in range(2):  # the part of the record is there by the second time at the latest
                with pytest.raises(trio.WouldBlock):
                    connection.receive_nowait()
                assert connection.settle()
                await trio.sleep(0.01)
        go_on.set()
        assert await exactly(connection, 100) == b"x" * 100
        connection.send_nowait(b"again")
        assert await exactly(connection, 5) == b"again"
        await connection.aclose(1)
