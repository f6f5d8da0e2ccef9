"""The device's MQTT against mosquitto, a broker that nobody here wrote, with client certificates required."""

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from devicesim.net.engine import Message, QoS
from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import MQTTClient, MQTTSettings, open_mqtt
from devicesim.net.tls import Deadlines, TLSContext
from devicesim.outcome import FailureKind, Stage, Trace
from devicesim.pki.identity import Identity, certificate_pem, private_key_pem
from tests.net_support import ENDPOINT, device, device_ca, new_trace, roots, server_identity, tls_context

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (Debian: apt install mosquitto)")

TEST_SECONDS = 30
PATIENT = Deadlines(tcp=20, tls=20, connect=20, connack=20, request=20, close=5)
V3 = MQTTSettings()
V5 = MQTTSettings(version="5")
BOTH = pytest.mark.parametrize("settings", [V3, V5], ids=["3.1.1", "5"])


@dataclass(frozen=True, slots=True)
class Broker:
    address: tuple[str, int]
    process: trio.Process


@asynccontextmanager
async def mosquitto(directory: Path, *options: str, tls_version: str | None = None) -> AsyncIterator[Broker]:
    """A broker on a loopback port that requires certificates of the device CA."""
    server = server_identity(ENDPOINT)
    chain = "".join(certificate_pem(each) for each in (server.certificate, *server.chain))
    (directory / "server.pem").write_text(chain)
    (directory / "server.key").write_text(private_key_pem(server.key))
    (directory / "clients.pem").write_text(certificate_pem(device_ca().certificate))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [
        f"listener {port} 127.0.0.1",
        f"cafile {directory}/clients.pem",
        f"certfile {directory}/server.pem",
        f"keyfile {directory}/server.key",
        "require_certificate true",
        "use_identity_as_username true",
        *([f"tls_version {tls_version}"] if tls_version else []),
        "allow_anonymous false",
        "user root",
        *options,
    ]
    (directory / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    assert MOSQUITTO is not None
    command = [MOSQUITTO, "-c", str(directory / "mosquitto.conf")]
    with (directory / "mosquitto.log").open("wb") as log:
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, command, stdout=log, stderr=subprocess.STDOUT, check=False)
            process: trio.Process = await nursery.start(run)
            await listening(port)
            yield Broker(("127.0.0.1", port), process)
            process.terminate()


async def listening(port: int) -> None:
    with trio.fail_after(TEST_SECONDS):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)
            else:
                await stream.aclose()
                return


def mqtt(
    broker: Broker,
    settings: MQTTSettings,
    index: int = 0,
    *,
    identity: Identity | None = None,
    context: TLSContext | None = None,
    client_id: str = "",
    trace: Trace | None = None,
    deadlines: Deadlines = PATIENT,
) -> AbstractAsyncContextManager[MQTTClient]:
    return open_mqtt(
        context or tls_context(),
        broker.address,
        identity=identity or device(index),
        server_name=ENDPOINT,
        verify_name=ENDPOINT,
        client_id=client_id or f"device-{index}",
        settings=settings,
        deadlines=deadlines,
        trace=trace or new_trace(),
    )


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
async def test_what_is_published_is_received(settings: MQTTSettings, qos: QoS, tmp_path: Path) -> None:
    payloads = [b"", b"hello", bytes(range(256)) * 500]
    with trio.fail_after(TEST_SECONDS):
        async with (
            mosquitto(tmp_path) as broker,
            mqtt(broker, settings, 0) as subscriber,
            mqtt(broker, settings, 1) as publisher,
        ):
            granted = await subscriber.subscribe("robots/+/state", qos)
            for payload in payloads:
                await publisher.publish("robots/1/state", payload, qos=qos)
            received = [await subscriber.receive() for _ in payloads]

    assert granted == qos
    assert received == [Message(topic="robots/1/state", payload=payload, qos=qos, retain=False) for payload in payloads]


@BOTH
async def test_a_retained_message_is_received_as_one(settings: MQTTSettings, tmp_path: Path) -> None:
    with trio.fail_after(TEST_SECONDS):
        async with mosquitto(tmp_path) as broker, mqtt(broker, settings) as client:
            await client.publish("a", b"kept", qos=1, retain=True)
            await client.subscribe("a", 1)
            received = await client.receive()

    assert received == Message(topic="a", payload=b"kept", qos=1, retain=True)


@BOTH
async def test_a_session_is_kept_when_asked_for(settings: MQTTSettings, tmp_path: Path) -> None:
    keeping = MQTTSettings(
        version=settings.version, clean_start=False, session_expiry=60 if settings.version == "5" else 0
    )
    with trio.fail_after(TEST_SECONDS):
        async with mosquitto(tmp_path) as broker:
            async with mqtt(broker, keeping, 0) as client:
                first = client.session_present
                await client.subscribe("a", 1)
            async with mqtt(broker, settings, 1) as other:
                await other.publish("a", b"while you were away", qos=1)
            async with mqtt(broker, keeping, 0) as client:
                second = client.session_present
                message = await client.receive()

    assert (first, second) == (False, True)
    assert message.payload == b"while you were away"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_a_certificate_of_another_ca_is_refused_with_an_alert(version: str, tmp_path: Path) -> None:
    """In TLS 1.3 the alert arrives only after our handshake is done, with CONNECT on its way."""
    stranger = server_identity("stranger.example")
    trace = new_trace()
    with trio.fail_after(TEST_SECONDS):
        async with mosquitto(tmp_path) as broker:
            context = tls_context(maximum_version=version, chain=stranger.chain)
            with pytest.raises(ConnectionFailed) as caught:
                async with mqtt(broker, V3, identity=stranger, context=context, trace=trace):
                    pytest.fail("connected")

    assert caught.value.failure.kind is FailureKind.TLS_ALERT
    assert caught.value.failure.detail in {"unknown_ca", "bad_certificate", "unsupported_certificate"}
    assert trace.alert is not None
    assert trace.alert.direction == "received"
    assert (Stage.TLS in trace.reached) is (version == "TLSv1.3")


async def test_the_second_connection_of_a_client_id_ends_the_first(tmp_path: Path) -> None:
    with trio.fail_after(TEST_SECONDS):
        async with (
            mosquitto(tmp_path) as broker,
            mqtt(broker, V5, client_id="same") as first,
            mqtt(broker, V5, client_id="same") as second,
        ):
            with pytest.raises(ConnectionFailed) as caught:
                await first.wait_closed()
            await second.publish("a", b"", qos=1)

    # mosquitto 2.0.11 hangs up without a word; later ones say DISCONNECT 0x8e first
    assert caught.value.failure.kind in {FailureKind.CLOSED_AFTER_CONNACK, FailureKind.DISCONNECTED_BY_SERVER}
    assert second.failure is None


@pytest.mark.parametrize(("settings", "words"), [(V3, "5 Connection Refused"), (V5, "0x87 Not authorized")])
async def test_a_connack_that_says_no_is_told(settings: MQTTSettings, words: str, tmp_path: Path) -> None:
    """A client id prefix that the broker does not let in."""
    trace = new_trace()
    with trio.fail_after(TEST_SECONDS):
        async with mosquitto(tmp_path, "clientid_prefixes robot-") as broker:
            with pytest.raises(ConnectionFailed) as caught:
                async with mqtt(broker, settings, client_id="vehicle-1", trace=trace):
                    pytest.fail("connected")
            async with mqtt(broker, settings, client_id="robot-1"):
                pass

    assert caught.value.failure.kind is FailureKind.CONNACK_REFUSED
    assert caught.value.failure.detail.startswith(words)
    assert trace.connack_code == (5 if settings.version == "3.1.1" else 0x87)


async def test_a_publish_that_the_broker_denies_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic read #\n")
    with trio.fail_after(TEST_SECONDS):
        async with mosquitto(tmp_path, f"acl_file {tmp_path}/acl") as broker, mqtt(broker, V5) as client:
            with pytest.raises(ConnectionFailed) as caught:
                await client.publish("a", b"", qos=1)
            assert client.failure is None

    assert caught.value.failure.kind is FailureKind.REQUEST_REFUSED
    assert caught.value.failure.detail == "PUBACK 0x87 Not authorized"


async def test_pings_keep_idle_connections_open(tmp_path: Path) -> None:
    """mosquitto ends a connection that is silent for one and a half times its keep-alive, here of one second."""
    with trio.fail_after(TEST_SECONDS):
        async with (
            mosquitto(tmp_path) as broker,
            mqtt(broker, MQTTSettings(keep_alive=1), 0) as third,
            mqtt(broker, MQTTSettings(version="5", keep_alive=1), 1) as fifth,
        ):
            await trio.sleep(4)
            for client in (third, fifth):
                assert client.failure is None
                await client.publish("a", b"", qos=1)


async def test_the_end_of_the_broker_is_told(tmp_path: Path) -> None:
    with trio.fail_after(TEST_SECONDS):
        async with mosquitto(tmp_path) as broker, mqtt(broker, V3) as client:
            broker.process.terminate()
            with pytest.raises(ConnectionFailed) as caught:
                await client.wait_closed()

    assert caught.value.failure.stage is Stage.SESSION
    assert caught.value.failure.kind in {FailureKind.CLOSED_AFTER_CONNACK, FailureKind.CONNECTION_RESET}


@BOTH
async def test_200_devices_at_once_each_with_its_own_certificate(settings: MQTTSettings, tmp_path: Path) -> None:
    """Every tenth has a certificate of another CA: its failure must not touch the others' connections."""
    stranger = server_identity("stranger.example")
    context = tls_context()
    done: set[int] = set()
    refused: set[int] = set()
    all_connected = trio.Event()

    async def robot(index: int) -> None:
        try:
            async with mqtt(
                broker, settings, index, context=context, identity=stranger if index % 10 == 0 else device(index)
            ) as client:
                await client.subscribe(f"to/{index}", 1)
                done.add(index)
                if len(done) == 180:
                    all_connected.set()
                await all_connected.wait()
                await client.publish(f"to/{(index + 1) % 200}", str(index).encode(), qos=1)
                if (index - 1) % 10:  # its neighbour was not refused
                    message = await client.receive()
                    assert message.payload == str((index - 1) % 200).encode()
        except ConnectionFailed as exc:
            assert index % 10 == 0, exc  # noqa: PT017 - which of them failed is the point
            refused.add(index)

    with trio.fail_after(TEST_SECONDS):
        async with mosquitto(tmp_path) as broker, trio.open_nursery() as nursery:
            for index in range(200):
                nursery.start_soon(robot, index)

    assert refused == set(range(0, 200, 10))
    assert done == set(range(200)) - refused


def test_the_roots_used_here_are_not_the_devices_ca() -> None:
    assert device_ca().certificate not in roots()
