"""The gateway's second door (port 443's role), the server certificates that it shows, and how fast it reads."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import trio
from cryptography import x509
from OpenSSL import SSL

from devicesim.emulator.faults import Fault, FaultKind
from devicesim.emulator.packets import ConnAck, Connect, PingReq, PingResp, Publish
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.settings import Settings
from tests.emulator_support import A, World, device
from tests.gateway_support import TLS12, TLS13, TLSClient, open_client, open_gateway, until

MQTT_CA = b"x-amzn-mqtt-ca"
TLS_VERSIONS = pytest.mark.parametrize("tls_version", [TLS12, TLS13], ids=["TLS 1.2", "TLS 1.3"])


async def read_rest(client: TLSClient) -> bytes:
    """Whatever the server says before its close_notify."""
    data = b""
    while True:
        try:
            data += await client._drive(lambda: client.tls.recv(65_536))
        except SSL.ZeroReturnError:
            return data


def shown(client: TLSClient) -> x509.Certificate:
    certificate = client.tls.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificate


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


class TestALPN:
    """§4.3: 443 MQTT X.509 with ALPN ``x-amzn-mqtt-ca``."""

    @TLS_VERSIONS
    async def test_mqtt_is_spoken_with_the_right_protocol(self, tls_version: int) -> None:
        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world, alpn=True) as running,
            open_client(
                running.alpn_port, device(0), account.endpoint, alpn=[b"h2", MQTT_CA], tls_version=tls_version
            ) as client,
        ):
            assert client.tls.get_alpn_proto_negotiated() == MQTT_CA
            await client.connected()

    @pytest.mark.parametrize("registers", [True, False])
    async def test_a_first_connection_registers_where_the_setting_says_so(self, registers: bool) -> None:
        world = World(Settings(jit_on_alpn=registers))
        account = world.ready_account()
        async with open_gateway(world, alpn=True) as running:
            async with open_client(running.alpn_port, device(0), account.endpoint, alpn=[MQTT_CA]) as client:
                assert await client.connect() is None
            assert (world.status(account, device(0)) == "PENDING_ACTIVATION") == registers
            async with open_client(running.port, device(0), account.endpoint, alpn=[MQTT_CA]) as client:
                assert await client.connect() is None
        assert world.status(account, device(0)) == "PENDING_ACTIVATION"

    @TLS_VERSIONS
    @pytest.mark.parametrize("offered", [[b"mqtt"], [b"h2", b"http/1.1"], [b"x-amzn-http-ca"], [b"X-AMZN-MQTT-CA"]])
    async def test_other_protocols_are_refused_with_the_alert(self, tls_version: int, offered: list[bytes]) -> None:
        world = World()
        account = world.ready_account(0)
        async with open_gateway(world, alpn=True) as running:
            with pytest.raises(SSL.Error) as caught:
                async with open_client(
                    running.alpn_port, device(0), account.endpoint, alpn=offered, tls_version=tls_version
                ):
                    pass
            await until(lambda: world.verdicts() == ["handshake_failed"])
        assert "no application protocol" in str(caught.value)
        assert repr(offered[0].decode()) in world.last().detail
        assert world.last().server_name == account.endpoint

    async def test_the_other_port_goes_on_without(self) -> None:
        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world, alpn=True) as running,
            open_client(running.port, device(0), account.endpoint, alpn=[b"mqtt"]) as client,
        ):
            assert client.tls.get_alpn_proto_negotiated() == b""
            await client.connected()

    async def test_without_alpn_http_is_spoken_and_connect_is_a_bad_request(self) -> None:
        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world, alpn=True) as running,
            open_client(running.alpn_port, device(0), account.endpoint) as client,
        ):
            await client.send(Connect(client_id="c", version=client.version))
            assert (await read_rest(client)).startswith(b"HTTP/1.1 400 ")
            await until(lambda: world.verdicts() == ["no_connect"])
        assert world.last().account_id == A
        assert MQTT_CA.decode() in world.last().detail

    async def test_without_alpn_a_request_is_forbidden(self) -> None:
        world = World()
        account = world.ready_account(0)
        async with (
            open_gateway(world, alpn=True) as running,
            open_client(running.alpn_port, device(0), account.endpoint) as client,
        ):
            await client.send_bytes(b"POST /topics/t?qos=1 HTTP/1.1\r\nhost: x\r\n")
            await client.send_bytes(b"content-length: 0\r\n\r\n")
            answer = await read_rest(client)
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b'{"message":"Forbidden"}')

    async def test_who_says_nothing_there_is_closed_in_time(self) -> None:
        world = World(Settings(connect_timeout=0.05))
        account = world.ready_account(0)
        async with (
            open_gateway(world, alpn=True) as running,
            open_client(running.alpn_port, device(0), account.endpoint) as client,
        ):
            assert await read_rest(client) == b""

    async def test_each_region_has_its_own(self) -> None:
        world = World()
        far = world.ready_account(0, region="eu-west-1")
        async with open_gateway(world, ("us-east-1", "eu-west-1"), alpn=True) as running:
            port = running.alpn_listeners["eu-west-1"].port
            async with open_client(port, device(0), far.endpoint, alpn=[MQTT_CA]) as client:
                await client.connected()
            async with open_client(running.alpn_port, device(0), far.endpoint, alpn=[MQTT_CA]) as client:
                assert await client.connect() is None

    async def test_the_first_door_serves_regions_without_one(self) -> None:
        world = World()
        late = world.ready_account(0, region="ap-south-1")
        async with (
            open_gateway(world, alpn=True) as running,
            open_client(running.alpn_port, device(0), late.endpoint, alpn=[MQTT_CA]) as client,
        ):
            assert "*.iot.ap-south-1.localhost" in names(shown(client))
            assert client.tls.get_alpn_proto_negotiated() == MQTT_CA
            await client.connected()


class TestServerCertificate:
    async def show(
        self, fault: Fault, server_name: str | None = "", **fields: object
    ) -> tuple[World, x509.Certificate]:
        world = World()
        account = world.ready_account(0)
        world.core.faults.inject(fault, trio.current_time())
        name = account.endpoint if server_name == "" else server_name
        async with (
            open_gateway(world, alpn=True) as running,
            open_client(running.port, device(0), name, **fields) as client,  # type: ignore[arg-type]
        ):
            return world, shown(client)

    @TLS_VERSIONS
    async def test_one_that_is_about_to_expire(self, tls_version: int) -> None:
        fault = Fault(kind=FaultKind.SERVER_CERTIFICATE_EXPIRING, seconds=3600, account_id=A)

        world, certificate = await self.show(fault, tls_version=tls_version)

        left = certificate.not_valid_after_utc.timestamp() - world.epoch()
        assert left == pytest.approx(3600, abs=2)
        assert certificate.not_valid_before_utc.timestamp() < world.epoch()
        (entry,) = world.history.select(verdict="fault_injected")
        assert (entry.fault, entry.account_id, entry.client_id) == ("server_certificate_expiring", A, None)

    async def test_one_that_has_expired(self) -> None:
        world, certificate = await self.show(Fault(kind=FaultKind.SERVER_CERTIFICATE_EXPIRED, seconds=60))

        assert world.epoch() - certificate.not_valid_after_utc.timestamp() == pytest.approx(60, abs=2)

    async def test_one_of_the_wrong_name(self) -> None:
        _, certificate = await self.show(Fault(kind=FaultKind.SERVER_CERTIFICATE_WRONG_NAME))

        assert names(certificate) == ["wrong-name.invalid"]

    async def test_also_to_who_sends_no_server_name(self) -> None:
        world, certificate = await self.show(Fault(kind=FaultKind.SERVER_CERTIFICATE_WRONG_NAME), None)

        assert names(certificate) == ["wrong-name.invalid"]
        assert world.history.select(verdict="fault_injected")[0].server_name is None

    async def test_not_to_other_accounts(self) -> None:
        fault = Fault(kind=FaultKind.SERVER_CERTIFICATE_WRONG_NAME, account_id="999999999999")
        world, certificate = await self.show(fault)

        assert "*.iot.us-east-1.localhost" in names(certificate)
        assert not world.history.select(verdict="fault_injected")

    async def test_the_connection_works_for_who_does_not_look(self) -> None:
        world = World()
        account = world.ready_account(0)
        world.core.faults.inject(Fault(kind=FaultKind.SERVER_CERTIFICATE_EXPIRED, count=1), trio.current_time())
        async with open_gateway(world) as running:
            for expired in (True, False):
                async with open_client(running.port, device(0), account.endpoint) as client:
                    gone = shown(client).not_valid_after_utc < datetime.fromtimestamp(world.epoch(), UTC)
                    assert gone == expired
                    await client.connected(f"c{expired}")

    async def test_one_that_expires_is_not_kept(self) -> None:
        """It would have expired when its time was told."""
        world = World()
        account = world.ready_account(0)
        world.core.faults.inject(Fault(kind=FaultKind.SERVER_CERTIFICATE_EXPIRING, seconds=600), trio.current_time())
        ends = []
        async with open_gateway(world) as running:
            for _ in range(2):
                async with open_client(running.port, device(0), account.endpoint) as client:
                    ends.append(shown(client).not_valid_after_utc)
                world.plane.advance(3600)
        assert ends[1] - ends[0] == timedelta(seconds=3600)

    async def test_a_custom_domain_is_shown_a_certificate_of_its_name(self) -> None:
        world = World()
        account = world.ready_account(0)
        arn = f"arn:aws:acm:us-east-1:{A}:certificate/12345678-1234-1234-1234-123456789012"
        world.registry.domains.create(
            account, "own", domain_name="iot.example.com", server_certificate_arns=[arn], options={}
        )
        async with open_gateway(world) as running:
            async with open_client(running.port, device(0), "iot.example.com") as client:
                assert names(shown(client)) == ["iot.example.com"]
            async with open_client(running.port, device(0), "other.example.com") as client:
                assert "*.iot.us-east-1.localhost" in names(shown(client))


class TestThroughput:
    async def receive(self, running_quota: float | None, payloads: int) -> tuple[float, int]:
        """Seconds until that many payloads of 20 kB have been taken."""
        world = World(quotas=replace(Quotas.lifted(), throughput_per_connection=running_quota))
        account = world.ready_account(0)
        received: list[Publish] = []
        world.plane.published.append(lambda _partition, message, _now: received.append(message))  # type: ignore[arg-type]
        async with (
            open_gateway(world) as running,
            open_client(running.port, device(0), account.endpoint) as client,
        ):
            await client.connected()
            received.clear()  # the lifecycle event
            started = trio.current_time()
            for _ in range(payloads):
                await client.send(Publish(topic="t", payload=bytes(20_000), qos=0))
            await client.send(PingReq())
            assert await client.receive() == PingResp()
            return trio.current_time() - started, len(received)

    async def test_what_is_more_is_read_later_and_not_lost(self) -> None:
        seconds, received = await self.receive(200_000, 15)  # 300 kB: a second's worth at once, then half a second

        assert received == 15
        assert 0.35 < seconds < 3

    async def test_without_quota_it_is_read_at_once(self) -> None:
        seconds, received = await self.receive(None, 15)

        assert received == 15
        assert seconds < 0.35

    @pytest.mark.parametrize("end", ["client", "server"])
    async def test_a_paused_connection_can_end(self, end: str) -> None:
        world = World(quotas=replace(Quotas.lifted(), throughput_per_connection=20_000))
        account = world.ready_account(0)
        async with open_gateway(world) as running:
            async with open_client(running.port, device(0), account.endpoint) as client:
                await client.connected()
                await client.send(Publish(topic="t", payload=bytes(60_000), qos=0))
                paused: Callable[[], bool] = lambda: any(link.paused for link in running.gateway._links.values())  # noqa: E731
                await until(paused)
                if end == "server":
                    world.update(account, device(0), "INACTIVE")
                    assert await client.receive() is None
            await until(lambda: running.gateway.open_links == 0)
        assert world.history.select(verdict="disconnected")


async def test_an_account_s_connects_over_the_quota_are_closed_without_connack() -> None:
    world = World(quotas=replace(Quotas.lifted(), connects_per_second=1))
    account = world.ready_account(0, 1)
    async with (
        open_gateway(world) as running,
        open_client(running.port, device(0), account.endpoint) as first,
        open_client(running.port, device(1), account.endpoint) as second,
    ):
        assert isinstance(await first.connect("a"), ConnAck)
        assert await second.connect("b") is None


async def test_a_connection_dropped_after_the_handshake_sees_a_close_and_no_reset() -> None:
    world = World()
    account = world.ready_account(0)
    world.core.faults.inject(Fault(kind=FaultKind.DROP_AFTER_HANDSHAKE), trio.current_time())
    async with open_gateway(world) as running:
        async with open_client(running.port, device(0), account.endpoint) as client:
            assert await client.connect() is None
        await until(lambda: running.gateway.open_links == 0)
