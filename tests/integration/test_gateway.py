"""The gateway on real sockets: TLS 1.2 and 1.3, SNI as it stands on the wire, AWS's refusals, and hostile bytes."""

import errno
import logging
import socket
import threading
import time
from contextlib import suppress

import pytest
import trio
from cryptography import x509
from OpenSSL import SSL

from devicesim.emulator.admission import Door, Reason
from devicesim.emulator.encode import encode
from devicesim.emulator.gateway import Listener, bind
from devicesim.emulator.packets import (
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    ProtocolVersion,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from devicesim.emulator.settings import Settings
from devicesim.pki.profile import KeyType
from tests.emulator_support import V5, V311, A, B, World, device, template
from tests.gateway_support import (
    TLS12,
    TLS13,
    TLSClient,
    client_context,
    open_client,
    open_gateway,
    open_tcp,
    read_to_end,
    until,
)

TLS = pytest.mark.parametrize("tls_version", [TLS12, TLS13], ids=["TLS 1.2", "TLS 1.3"])
VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])


class TestFirstConnections:
    @TLS
    @VERSIONS
    async def test_jitr_then_activation_then_connack(self, tls_version: int, version: ProtocolVersion) -> None:
        """§2: handshake ok, CONNECT, closed without CONNACK; after activation and a policy, CONNACK 0."""
        world = World()
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        async with open_gateway(world) as running:
            for _ in range(2):
                async with open_client(
                    running.port, device(0), account.endpoint, version=version, tls_version=tls_version
                ) as client:
                    assert await client.connect() is None
            assert world.status(account, device(0)) == "PENDING_ACTIVATION"
            world.update(account, device(0), "ACTIVE")
            world.allow(account, device(0))
            async with open_client(
                running.port, device(0), account.endpoint, version=version, tls_version=tls_version
            ) as client:
                assert isinstance(await client.connect(), ConnAck)
        entry = world.history.select(verdict="admitted")[0]
        assert entry.tls_version == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[tls_version]

    async def test_jitp_to_active_with_thing_and_policy(self) -> None:
        world = World(Settings(jitp_delay=(0.05, 0.05)))
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY", template_body=template())
        async with open_gateway(world) as running:
            async with open_client(running.port, device(0), account.endpoint) as client:
                assert await client.connect() is None
            await until(lambda: world.status(account, device(0)) == "ACTIVE")
            async with open_client(running.port, device(0), account.endpoint) as client:
                assert await client.connect() == ConnAck()
        assert list(account.things) == ["robot-000000"]
        assert list(account.policies_of_target[account.certificate_arn(device(0).certificate_id)])

    async def test_a_handshake_alone_creates_nothing(self) -> None:
        world = World()
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        async with open_gateway(world) as running:
            async with open_client(running.port, device(0), account.endpoint):
                await trio.sleep(0.05)
            await until(lambda: world.verdicts() == ["no_connect"])
        assert account.certificates == {}

    async def test_the_event_reaches_a_subscriber_of_the_account(self) -> None:
        world = World()
        account = world.ready_account(9)
        async with open_gateway(world) as running, open_client(running.port, device(9), account.endpoint) as watcher:
            await watcher.connected("watcher")
            filters = (Subscription(topic_filter="$aws/events/certificates/registered/#", qos=1),)
            await watcher.send(Subscribe(packet_id=1, subscriptions=filters))
            assert await watcher.receive() == SubAck(packet_id=1, reason_codes=(1,))
            async with open_client(running.port, device(0), account.endpoint) as client:
                assert await client.connect() is None
            event = await watcher.receive()
        assert isinstance(event, Publish)
        assert device(0).certificate_id.encode() in event.payload
        assert b'"sourceIp":"127.0.0.1"' in event.payload


class TestServerName:
    """§10b and §10d on the wire."""

    async def test_a_default_certificate_connects_without_sni(self) -> None:
        world = World()
        account = world.account()
        world.register_ca(account, mode="DEFAULT")
        world.register_leaf(account, device(0))
        async with open_gateway(world) as running, open_client(running.port, device(0), None) as client:
            assert await client.connect() == ConnAck()
        assert world.history.select(verdict="admitted")[0].server_name is None

    @TLS
    async def test_an_sni_only_certificate_without_sni_is_closed_after_a_good_handshake(self, tls_version: int) -> None:
        world = World()
        world.ready_account(0)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), None, tls_version=tls_version) as client,
        ):
            assert await client.connect() is None

    @TLS
    async def test_first_connection_without_sni_takes_the_ca_in_the_chain(self, tls_version: int) -> None:
        world = World()
        account = world.account()
        world.register_ca(account, mode="DEFAULT")
        async with open_gateway(world) as running:
            async with open_client(running.port, device(0), None, tls_version=tls_version) as client:
                assert await client.connect() is None
            assert account.certificates == {}
            async with open_client(running.port, device(0), None, tls_version=tls_version, chain=True) as client:
                assert await client.connect() is None
            assert world.status(account, device(0)) == "PENDING_ACTIVATION"

    @pytest.mark.parametrize(
        "raw", [b"junk.iot.us-east-1.localhost", b"\xff\xfe\xfd", b"x" * 255, b"a b", b"127.0.0.1", b"."]
    )
    @TLS
    async def test_odd_names_finish_the_handshake_and_are_nobody_s(self, raw: bytes, tls_version: int) -> None:
        world = World()
        world.ready_account(0)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), raw, tls_version=tls_version) as client,
        ):
            assert await client.connect() is None
        (entry,) = world.history.select(verdict="refused")
        assert entry.account_id is None
        assert entry.server_name == raw.decode("ascii", "backslashreplace")

    async def test_the_name_decides_between_accounts_that_know_the_leaf(self) -> None:
        world = World()
        accounts = [world.ready_account(0, account_id=each) for each in (A, B)]
        world.update(accounts[1], device(0), "REVOKED")
        async with open_gateway(world) as running:
            async with open_client(running.port, device(0), accounts[0].endpoint.upper()) as client:
                assert await client.connect() == ConnAck()
            async with open_client(running.port, device(0), accounts[1].endpoint) as client:
                assert await client.connect() is None
        assert world.history.select(account_id=B)[-1].reason == Reason.DEVICE_CERTIFICATE_REVOKED

    async def test_each_region_has_its_door_and_the_first_serves_those_that_have_none(self) -> None:
        world = World()
        regions = ("us-east-1", "eu-west-1")
        accounts = {region: world.ready_account(0, region=region) for region in (*regions, "ap-south-1")}
        outcomes = {}
        async with open_gateway(world, regions) as running:
            for door in regions:
                for region, account in accounts.items():
                    async with open_client(running.listeners[door].port, device(0), account.endpoint) as client:
                        outcomes[door, region] = await client.connect() is not None
                        certificate = client.tls.get_peer_certificate(as_cryptography=True)
                        assert certificate is not None
                        shown = region if region == "ap-south-1" and door == "us-east-1" else door
                        assert f"*.iot.{shown}.localhost" in dns_names(certificate)
        assert outcomes == {
            ("us-east-1", "us-east-1"): True,
            ("us-east-1", "eu-west-1"): False,
            ("us-east-1", "ap-south-1"): True,
            ("eu-west-1", "us-east-1"): False,
            ("eu-west-1", "eu-west-1"): True,
            ("eu-west-1", "ap-south-1"): False,
        }


def dns_names(certificate: x509.Certificate) -> list[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value.get_values_for_type(x509.DNSName)


class TestTLS:
    async def test_the_server_certificate_is_issued_by_the_root_and_names_the_region(self) -> None:
        world = World()
        async with open_gateway(world) as running, open_client(running.port, device(0), None) as client:
            certificate = client.tls.get_peer_certificate(as_cryptography=True)
            assert certificate is not None
            certificate.verify_directly_issued_by(running.root.certificate)
            assert dns_names(certificate) == ["*.iot.us-east-1.localhost", "localhost"]
            assert not client.tls.get_client_ca_list()

    @TLS
    async def test_no_client_certificate_finishes_the_handshake_and_is_refused_at_connect(
        self, tls_version: int
    ) -> None:
        world = World()
        account = world.ready_account()
        async with (
            open_gateway(world) as running,
            open_client(running.port, None, account.endpoint, tls_version=tls_version) as client,
        ):
            assert await client.connect() is None
        (entry,) = world.history.select(verdict="refused")
        assert (entry.reason, entry.certificate_id) == (Reason.NOT_AUTHENTICATED, None)

    async def test_or_is_refused_in_the_handshake_when_so_set(self) -> None:
        world = World(Settings(client_certificate_required=True))
        async with open_gateway(world) as running:
            async with open_client(running.port, None, None, tls_version=TLS12, handshake=False) as client:
                with pytest.raises(SSL.Error):
                    await client.handshake()
            await until(lambda: world.verdicts() == ["handshake_failed"])
        assert "did not return a certificate" in world.last().detail

    @pytest.mark.parametrize("tampered", [False, True])
    async def test_the_handshake_proves_possession_of_the_leaf_s_key(self, tampered: bool) -> None:
        """The one thing that TLS verifies: a CertificateVerify with one bit changed ends the handshake."""
        world = World()
        async with open_gateway(world) as running:
            async with open_tcp(running.port) as sock:
                tls = SSL.Connection(client_context(device(0), tls_version=TLS12), None)
                tls.set_connect_state()
                flight, done = 0, False
                while not done:
                    try:
                        tls.do_handshake()
                        done = True
                    except SSL.WantReadError:
                        pass
                    except SSL.Error:
                        break
                    with suppress(SSL.WantReadError):
                        data = tls.bio_read(65_536)
                        flight += 1
                        sock.send(flip_certificate_verify(data) if tampered and flight == 2 else data)
                    if not done:
                        await trio.lowlevel.wait_readable(sock)
                        tls.bio_write(sock.recv(65_536))
                assert done == (not tampered)
            await until(lambda: running.gateway.open_links == 0)
        assert world.verdicts() == (["handshake_failed"] if tampered else ["no_connect"])
        assert not tampered or "bad signature" in world.last().detail

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [((), b""), ((b"x-amzn-mqtt-ca",), b"x-amzn-mqtt-ca"), ((b"h2", b"x-amzn-mqtt-ca"), b"x-amzn-mqtt-ca")],
    )
    async def test_alpn_is_accepted_when_offered(self, offered: tuple[bytes, ...], chosen: bytes) -> None:
        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint, alpn=offered) as client,
        ):
            assert client.tls.get_alpn_proto_negotiated() == chosen
            assert await client.connect() == ConnAck()

    async def test_another_alpn_goes_on_without_one(self) -> None:
        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint, alpn=(b"h2",)) as client,
        ):
            assert client.tls.get_alpn_proto_negotiated() == b""
            assert await client.connect() == ConnAck()

    @pytest.mark.parametrize("tls_version", [SSL.TLS1_1_VERSION, SSL.TLS1_VERSION], ids=["TLS 1.1", "TLS 1.0"])
    async def test_older_versions_are_refused(self, tls_version: int) -> None:
        world = World()
        async with (
            open_gateway(world) as running,
            open_client(running.port, None, None, handshake=False) as client,
        ):
            client.tls = legacy(client, tls_version)
            with pytest.raises(SSL.Error):
                await client.handshake()

    async def test_rsa_and_ecc_certificates_by_what_the_client_takes(self) -> None:
        """§4.3: AWS shows one of the two."""
        world = World(Settings(server_key_types=(KeyType.EC_P256, KeyType.RSA_2048)))
        seen = set()
        async with open_gateway(world) as running:
            for cipher in (b"ECDHE-RSA-AES128-GCM-SHA256", b"ECDHE-ECDSA-AES128-GCM-SHA256"):
                async with open_tcp(running.port) as sock:
                    context = client_context(None, tls_version=TLS12)
                    context.set_cipher_list(cipher)
                    client = TLSClient(sock, SSL.Connection(context, sock), V311)
                    client.tls.set_connect_state()
                    await client.handshake()
                    certificate = client.tls.get_peer_certificate(as_cryptography=True)
                    assert certificate is not None
                    seen.add(type(certificate.public_key()).__name__)
        assert seen == {"RSAPublicKey", "ECPublicKey"}


def flip_certificate_verify(flight: bytes) -> bytes:
    """Change the last bit of the last handshake message before ChangeCipherSpec: the end of the signature."""
    position = 0
    while flight[position] == 22:
        position += 5 + int.from_bytes(flight[position + 3 : position + 5], "big")
    return flight[: position - 1] + bytes((flight[position - 1] ^ 1,)) + flight[position:]


def legacy(client: TLSClient, tls_version: int) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(tls_version)
    context.set_max_proto_version(tls_version)
    tls = SSL.Connection(context, client.sock)
    tls.set_connect_state()
    return tls


class TestEnds:
    @TLS
    async def test_a_policy_denial_of_mqtt_5_is_read_whole_before_the_close(self, tls_version: int) -> None:
        """CONNACK 0x87, then close_notify: no reset may take the CONNACK with it."""
        world = World()
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        world.register_leaf(account, device(0), policy=None)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint, version=V5, tls_version=tls_version) as client,
        ):
            await client.send_bytes(b"")
            answer = await client.connect()
            assert isinstance(answer, ConnAck)
            assert answer.reason_code == 0x87
            assert (answer.properties.reason_string or "").startswith("CONNACK:Client is not authenticated")
            assert await client.receive() is None

    async def test_bytes_that_the_server_never_reads_do_not_turn_the_close_into_a_reset(self) -> None:
        world = World()
        account = world.account()
        async with open_gateway(world) as running, open_client(running.port, device(0), account.endpoint) as client:
            await client.send(Connect(client_id="c", version=V311), *[PingReq()] * 24_000)  # three records and more
            assert await client.receive() is None
            assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0

    async def test_takeover(self) -> None:
        world = World()
        account = world.ready_account(0, 1)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint, version=V5) as old,
            open_client(running.port, device(1), account.endpoint) as new,
        ):
            await old.connected("same")
            await new.connected("same")
            assert await old.receive() == Disconnect(reason_code=0x8E)
            assert await old.receive() is None
            await new.send(PingReq())
            assert await new.receive() == PingResp()

    @VERSIONS
    async def test_a_certificate_that_is_revoked_disconnects_its_device(self, version: ProtocolVersion) -> None:
        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint, version=version) as client,
        ):
            await client.connected()
            world.update(account, device(0), "REVOKED")
            if version is V5:
                assert await client.receive() == Disconnect(reason_code=0x87)
            assert await client.receive() is None

    async def test_the_client_s_own_disconnect(self) -> None:
        world = World()
        account = world.ready_account(0)
        async with open_gateway(world) as running, open_client(running.port, device(0), account.endpoint) as client:
            await client.connected()
            await client.send(Disconnect())
            assert await client.receive() is None
        assert world.last().reason == "CLIENT_INITIATED_DISCONNECT"

    async def test_deadlines_of_handshake_and_connect(self) -> None:
        world = World(Settings(handshake_timeout=0.1, connect_timeout=0.1))
        async with open_gateway(world) as running:
            async with open_tcp(running.port) as silent, open_client(running.port, device(0), None) as idle:
                assert await idle.receive() is None
                assert await read_to_end(silent) == b""
            await until(lambda: running.gateway.open_links == 0)
        assert sorted(world.verdicts()) == ["handshake_failed", "no_connect"]

    async def test_when_the_gateway_stops_clients_are_closed_and_the_port_is_free(self) -> None:
        world = World()
        account = world.ready_account(0)
        async with open_gateway(world) as running, open_client(running.port, device(0), account.endpoint) as client:
            await client.connected()
            port = running.port
            assert running.gateway.open_links == 1
        assert running.gateway.open_links == 0
        with pytest.raises(ConnectionRefusedError):
            async with open_tcp(port):
                pass


class TestMessages:
    async def test_large_messages_cross_between_versions(self) -> None:
        world = World()
        account = world.ready_account(0, 1)
        payload = bytes(range(256)) * 512
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint, version=V5) as subscriber,
            open_client(running.port, device(1), account.endpoint, tls_version=TLS12) as publisher,
        ):
            await subscriber.connected("s")
            await subscriber.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="t", qos=1),)))
            await subscriber.receive()
            await publisher.connected("p")
            for number in range(1, 4):
                await publisher.send(Publish(topic="t", payload=payload, qos=1, packet_id=number))
                assert await publisher.receive() == PubAck(packet_id=number)
                message = await subscriber.receive()
                assert message == Publish(topic="t", payload=payload, qos=1, packet_id=number)
                await subscriber.send(PubAck(packet_id=number))

    async def test_more_than_one_turn_s_worth_is_read_to_its_end(self) -> None:
        world = World(Settings(max_outbound_bytes=1 << 20))
        account = world.ready_account(0)
        count = 100_000  # 200 kB: a dozen records, of which a turn takes four
        async with open_gateway(world) as running, open_client(running.port, device(0), account.endpoint) as client:
            await client.connected()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_bytes, encode(PingReq(), V311) * count)
                for _ in range(count):
                    assert await client.receive() == PingResp()

    async def test_a_client_that_does_not_read_is_disconnected_and_the_publisher_is_not_held_up(self) -> None:
        world = World(Settings(max_outbound_bytes=300_000))
        account = world.ready_account(0, 1)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint) as lazy,
            open_client(running.port, device(1), account.endpoint) as publisher,
        ):
            await lazy.connected("lazy")
            await lazy.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="t"),)))
            await lazy.receive()
            await publisher.connected("p")
            number = 0
            while not world.history.select(verdict="disconnected"):
                number = number % 1000 + 1
                await publisher.send(Publish(topic="t", payload=bytes(100_000), qos=1, packet_id=number))
                assert await publisher.receive() == PubAck(packet_id=number)
        assert world.history.select(verdict="disconnected")[0].reason == "THROTTLED"

    async def test_an_ended_client_that_sends_and_does_not_read_costs_no_work(self) -> None:
        """What it sends stays in the socket unread; the wait for its last bytes must not turn round on that."""
        world = World(Settings(max_outbound_bytes=1 << 26))
        account = world.ready_account(0, 1)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint) as lazy,
            open_client(running.port, device(0), account.endpoint) as newer,
            open_client(running.port, device(1), account.endpoint) as publisher,
        ):
            lazy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await lazy.connected("same")
            await lazy.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="t"),)))
            await lazy.receive()
            await publisher.connected("p")
            for number in range(1, 121):  # 12 MB: more than the kernel takes for it
                await publisher.send(Publish(topic="t", payload=bytes(100_000), qos=1, packet_id=number))
                assert await publisher.receive() == PubAck(packet_id=number)
            await newer.connected("same")
            await lazy.send(PingReq())
            spent = time.process_time()
            await trio.sleep(0.5)

            assert time.process_time() - spent < 0.25
            assert running.gateway.open_links == 3  # it was being waited for

    async def test_packets_are_decided_in_the_order_in_which_they_were_sent(self) -> None:
        """mqtt-measured.md, "Order matters": a task per connection got this right 5 to 7 times of 12."""
        world = World()
        account = world.ready_account(0, 1, 2)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint) as watcher,
            open_client(running.port, device(1), account.endpoint) as one,
            open_client(running.port, device(2), account.endpoint) as two,
        ):
            await watcher.connected("w")
            await watcher.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="t"),)))
            await watcher.receive()
            await one.connected("one")
            await two.connected("two")
            for turn in range(12):
                order = [one, two] if turn % 3 else [two, one]
                for client in order:
                    client.tls.send(said(b"one" if client is one else b"two"))  # no checkpoint between
                got = [await watcher.receive(), await watcher.receive()]
                payloads = [each.payload for each in got if isinstance(each, Publish)]
                assert payloads == [b"one" if client is one else b"two" for client in order]


def said(payload: bytes) -> bytes:
    return encode(Publish(topic="t", payload=payload), V311)


class TestHostility:
    @pytest.mark.parametrize(
        "noise",
        [b"", b"\x00" * 100, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"],
        ids=["nothing", "zeros", "http", "mqtt without tls"],
    )
    async def test_bytes_that_are_not_tls_are_counted_and_closed(self, noise: bytes) -> None:
        world = World()
        account = world.ready_account(0)
        async with open_gateway(world) as running, open_client(running.port, device(0), account.endpoint) as other:
            await other.connected()
            async with open_tcp(running.port) as sock:
                if noise:
                    sock.send(noise)
                else:
                    sock.shutdown(socket.SHUT_WR)
                await read_to_end(sock)
            await until(lambda: "handshake_failed" in world.verdicts())
            await other.send(PingReq())
            assert await other.receive() == PingResp()

    async def test_a_reset_in_the_handshake_and_after(self) -> None:
        world = World()
        account = world.ready_account(0)
        async with open_gateway(world) as running:
            async with open_tcp(running.port) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            async with open_client(running.port, device(0), account.endpoint) as client:
                await client.connected()
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            await until(lambda: running.gateway.accepted == 2 and running.gateway.open_links == 0)
        assert world.last().reason == "CONNECTION_LOST"

    @VERSIONS
    async def test_noise_after_connack(self, version: ProtocolVersion) -> None:
        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint, version=version) as client,
        ):
            await client.connected()
            await client.send_bytes(b"\x00\xff" * 2000)
            if version is V5:
                assert await client.receive() == Disconnect(reason_code=0x81)
            assert await client.receive() is None

    async def test_too_few_file_descriptors_are_waited_out(self, caplog: pytest.LogCaptureFixture) -> None:
        class Exhausted(socket.socket):
            failures = 2

            def accept(self) -> tuple[socket.socket, object]:
                if Exhausted.failures:
                    Exhausted.failures -= 1
                    raise OSError(errno.EMFILE, "too many open files")
                return super().accept()

        def listener(door: Door) -> Listener:
            plain = bind(door, "127.0.0.1", 0)
            return Listener(door=door, sock=Exhausted(fileno=plain.sock.detach()))

        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world, listener=listener) as running,
            open_client(running.port, device(0), account.endpoint) as client,
        ):
            assert await client.connect() == ConnAck()
        assert caplog.text.count("cannot accept a connection") == 2

    async def test_a_bug_costs_one_connection_and_is_logged_and_recorded(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = World()
        account = world.ready_account(0, 1)
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint) as one,
            open_client(running.port, device(1), account.endpoint) as two,
        ):
            await one.connected("one")
            await two.connected("two")
            broker = world.plane._brokers[A, "us-east-1"]
            real = broker.handle

            def buggy(connection: object, packet: object, now: float) -> None:
                if isinstance(packet, Publish):
                    raise KeyError("a bug")
                real(connection, packet, now)  # type: ignore[arg-type]  # passed through

            monkeypatch.setattr(broker, "handle", buggy)
            with caplog.at_level(logging.ERROR):
                await one.send(Publish(topic="t"))
                with pytest.raises(SSL.Error):
                    await one.receive()
            await two.send(PingReq())
            assert await two.receive() == PingResp()
        (entry,) = world.history.select(verdict="failed")
        assert (entry.kind, entry.detail) == ("fault", "the emulator failed: KeyError")
        assert "KeyError: 'a bug'" in caplog.text

    async def test_many_at_once(self) -> None:
        """More than one accept batch, from a thread that does not wait for the gateway."""
        world = World()
        count = 150

        def flood(port: int) -> None:
            sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
            for sock in sockets:
                sock.close()

        async with open_gateway(world) as running:
            thread = threading.Thread(target=flood, args=(running.port,))
            thread.start()
            await until(lambda: running.gateway.accepted == count and running.gateway.open_links == 0)
            await trio.to_thread.run_sync(thread.join)
        assert len(world.history.select(verdict="handshake_failed")) == count
