"""MQTT on real loopback sockets, against a server that says byte by byte what a test wants said."""

import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from devicesim.net.engine import Engine, Version
from devicesim.net.failures import ConnectionFailed
from devicesim.net.mqtt import HIGH_WATER, MQTTClient, MQTTSettings, open_mqtt
from devicesim.net.tls import Deadlines, TLSContext, open_tls, under_way
from devicesim.outcome import Failure, FailureKind, Stage, Trace
from tests.net_support import (
    ENDPOINT,
    QUICK,
    TEST_SECONDS,
    Handler,
    ServerEnd,
    device,
    idle,
    new_trace,
    server_context,
    server_identity,
    tls_context,
    tls_server,
)

V3: MQTTSettings = MQTTSettings()
V5: MQTTSettings = MQTTSettings(version="5")
BOTH = pytest.mark.parametrize("settings", [V3, V5], ids=["3.1.1", "5"])

ACCEPT: dict[Version, bytes] = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


def text(words: str) -> bytes:
    encoded = words.encode()
    return struct.pack("!H", len(encoded)) + encoded


def packet(first: int, body: bytes) -> bytes:
    length, out = len(body), bytearray([first])
    while True:
        length, low = divmod(length, 128)
        out.append(low | (0x80 if length else 0))
        if not length:
            return bytes(out) + body


def publish(topic: str, payload: bytes, *, qos: int = 0, packet_id: int = 0, version: Version = "3.1.1") -> bytes:
    identifier = struct.pack("!H", packet_id) if qos else b""
    properties = b"\x00" if version == "5" else b""
    return packet(0x30 | qos << 1, text(topic) + identifier + properties + payload)


async def accept(end: ServerEnd, version: Version) -> bytes:
    """Read CONNECT, say yes; the CONNECT."""
    connect = await end.packet()
    assert connect[0] == 0x10
    await end.send(ACCEPT[version])
    return connect


def mqtt(
    address: tuple[str, int],
    settings: MQTTSettings = V3,
    *,
    context: TLSContext | None = None,
    deadlines: Deadlines = QUICK,
    trace: Trace | None = None,
    client_id: str = "robot-1",
    index: int = 0,
    source: str | None = None,
    attended: bool = False,
) -> AbstractAsyncContextManager[MQTTClient]:
    return open_mqtt(
        context or tls_context(),
        address,
        identity=device(index),
        server_name=ENDPOINT,
        verify_name=ENDPOINT,
        client_id=client_id,
        settings=settings,
        deadlines=deadlines,
        trace=trace or new_trace(),
        source=source,
        attended=attended,
    )


async def failed(handler: Handler, settings: MQTTSettings = V3, **how: object) -> tuple[Failure, Trace]:
    """How connecting to such a server fails."""
    trace = new_trace()
    served = how.pop("served", None)
    async with tls_server(handler, served) as address:  # type: ignore[arg-type]  # passed through
        with trio.fail_after(TEST_SECONDS):
            with pytest.raises(ConnectionFailed) as caught:
                async with mqtt(address, settings, trace=trace, **how):  # type: ignore[arg-type]  # passed through
                    pytest.fail("connected")
    return caught.value.failure, trace


# --- CONNECT and CONNACK


async def test_connect_311_says_what_was_asked_for() -> None:
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        seen.append(await accept(end, "3.1.1"))
        await idle(end)

    async with tls_server(handler) as address, mqtt(address, MQTTSettings(keep_alive=300), client_id="røbot"):
        pass

    assert seen == [packet(0x10, text("MQTT") + b"\x04\x02" + struct.pack("!H", 300) + text("røbot"))]


async def test_connect_5_says_what_was_asked_for() -> None:
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        seen.append(await accept(end, "5"))
        await idle(end)

    settings = MQTTSettings(version="5", keep_alive=30, clean_start=False, session_expiry=3600)
    async with tls_server(handler) as address, mqtt(address, settings):
        pass

    properties = b"\x05\x11" + struct.pack("!I", 3600)
    assert seen == [packet(0x10, text("MQTT") + b"\x05\x00" + struct.pack("!H", 30) + properties + text("robot-1"))]


@BOTH
async def test_every_stage_is_reached_in_order(settings: MQTTSettings) -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, settings.version)
        await idle(end)

    trace = new_trace()
    async with tls_server(handler) as address, mqtt(address, settings, trace=trace) as client:
        assert client.failure is None

    assert list(trace.reached) == [Stage.TCP, Stage.TLS, Stage.CONNECT, Stage.CONNACK]
    assert sorted(trace.reached.values()) == list(trace.reached.values())
    assert trace.connack_code == 0


async def test_a_kept_session_is_told() -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(b"\x20\x02\x01\x00")
        await idle(end)

    async with tls_server(handler) as address, mqtt(address, MQTTSettings(clean_start=False)) as client:
        assert client.session_present


@BOTH
@pytest.mark.parametrize("notify", [True, False], ids=["close_notify", "bare FIN"])
async def test_a_close_after_connect_is_awss_refusal(settings: MQTTSettings, notify: bool) -> None:
    """aws-iot-behaviour.md 4.2: handshake done, CONNECT read, closed without CONNACK."""

    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.close(notify=notify)

    failure, trace = await failed(handler, settings)

    assert failure.kind is FailureKind.CLOSED_BEFORE_CONNACK
    assert failure.stage is Stage.CONNACK
    assert failure.detail == ("close_notify" if notify else "end of stream without close_notify")
    assert list(trace.reached) == [Stage.TCP, Stage.TLS, Stage.CONNECT]
    assert trace.connack_code is None
    assert trace.alert is None


async def test_a_reset_after_connect_is_told_as_one() -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        end.reset()

    failure, _trace = await failed(handler)

    assert failure.kind is FailureKind.CONNECTION_RESET
    assert failure.stage is Stage.CONNACK
    assert "bytes lie unread" in failure.detail


async def test_a_close_with_connect_unread_is_not_mistaken_for_success() -> None:
    """The kernel makes a reset of it, or a close, as the timing has it."""

    async def handler(end: ServerEnd) -> None:
        await trio.sleep(0.02)
        await end.close()

    failure, _trace = await failed(handler)

    assert failure.kind in {FailureKind.CLOSED_BEFORE_CONNACK, FailureKind.CONNECTION_RESET}


@BOTH
async def test_a_tls13_alert_for_the_client_certificate_is_an_alert_not_a_close(settings: MQTTSettings) -> None:
    """It arrives with the first read after the handshake: when we wait for CONNACK."""
    trace = new_trace()

    async def handler(end: ServerEnd) -> None:
        with suppress(SSL.Error):
            await end.handshake()

    served = server_context(server_identity(ENDPOINT), version="TLSv1.3", accept_client=False)
    async with tls_server(handler, served, handshake=False) as address:
        with trio.fail_after(TEST_SECONDS), pytest.raises(ConnectionFailed) as caught:
            async with mqtt(address, settings, trace=trace):
                pytest.fail("connected")

    assert caught.value.failure.kind is FailureKind.TLS_ALERT
    assert caught.value.failure.stage in {Stage.CONNECT, Stage.CONNACK}
    assert caught.value.failure.detail == "unknown_ca"
    assert Stage.TLS in trace.reached
    assert trace.alert is not None
    assert (trace.alert.name, trace.alert.direction) == ("unknown_ca", "received")


async def test_an_alert_is_told_also_when_connect_comes_too_late() -> None:
    """The server has refused and reset before our CONNECT is written; its alert is read all the same.

    The server is a thread, for the test holds the event loop up in between. The handshake is completed before CONNECT
    is thought of: together they would be in one segment.
    """
    served = server_context(server_identity(ENDPOINT), version="TLSv1.3", accept_client=False)
    trace = new_trace()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        refused = threading.Event()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                end = SSL.Connection(served, sock)
                end.set_app_data([])
                end.set_accept_state()
                with suppress(SSL.Error):
                    end.do_handshake()
            refused.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            with trio.fail_after(TEST_SECONDS):
                tls = await open_tls(
                    tls_context(),
                    listener.getsockname(),
                    identity=device(),
                    server_name=ENDPOINT,
                    verify_name=ENDPOINT,
                    deadlines=QUICK,
                    trace=trace,
                )
                assert refused.wait(TEST_SECONDS)
                client = MQTTClient(tls, Engine("late"), V3, QUICK, trace)
                with (
                    pytest.raises(ConnectionFailed) as caught,
                    under_way(Stage.TLS, QUICK.tls, trace) as way,
                ):
                    await client._connect(trio.current_time, way)
                tls.close()

    assert caught.value.failure.kind is FailureKind.TLS_ALERT
    assert caught.value.failure.detail == "unknown_ca"
    assert trace.alert is not None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "unacceptable protocol version"),
        (2, "identifier rejected"),
        (3, "broker unavailable"),
        (4, "bad user name or password"),
        (5, "not authorised"),
        (6, "unknown return code"),
        (255, "unknown return code"),
    ],
)
async def test_connack_311_refusals(code: int, words: str) -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(bytes((0x20, 2, 0, code)))
        await end.close()

    failure, trace = await failed(handler)

    assert failure.kind is FailureKind.CONNACK_REFUSED
    assert failure.stage is Stage.CONNACK
    assert failure.detail.startswith(f"{code} ")
    assert words in failure.detail
    assert trace.connack_code == code
    assert Stage.CONNACK in trace.reached


async def test_connack_5_refusal_carries_the_reason_string() -> None:
    """What AWS answers to a policy that denies (aws-iot-behaviour.md 5)."""
    reason = "CONNACK:Client is not authenticated/authorized to send the message:12ab"

    async def handler(end: ServerEnd) -> None:
        await end.packet()
        properties = b"\x1f" + text(reason)
        await end.send(packet(0x20, bytes((0, 0x87, len(properties))) + properties))
        await end.close()

    failure, trace = await failed(handler, V5)

    assert failure.kind is FailureKind.CONNACK_REFUSED
    assert failure.detail == f"0x87 Not authorized: {reason}"
    assert trace.connack_code == 0x87


@pytest.mark.parametrize(
    ("code", "words"), [(0x97, "0x97 Quota exceeded"), (0xFE, "0xfe unknown reason code"), (1, "0x84 Unsupported")]
)
async def test_connack_5_refusals_without_a_reason_string(code: int, words: str) -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(bytes((0x20, 3, 0, code, 0)))
        await end.close()

    failure, trace = await failed(handler, V5)

    assert failure.kind is FailureKind.CONNACK_REFUSED
    assert failure.detail.startswith(words)
    assert trace.connack_code == code


@pytest.mark.parametrize(
    ("settings", "said", "words"),
    [
        (V3, b"\x20\x03\x00\x00\x00", "malformed CONNACK packet"),
        (V3, b"\x20\x00", "malformed CONNACK packet"),
        (V5, b"\x20\x01\x00", "malformed CONNACK packet"),
        (V5, b"\x20\x05\x00\x00\x02\xff\x00", "malformed CONNACK packet"),
        (V3, b"\x30\x03\x00\x01a", "PUBLISH packet b'0\\x03\\x00\\x01a' where CONNACK must stand"),
        (V5, b"\xe0\x01\x87", "DISCONNECT packet b'\\xe0\\x01\\x87' where CONNACK must stand"),
        (V3, b"HTTP/1.1 400 Bad Request\r\n", "b'HTTP/1.1 400 Bad Request' where CONNACK must stand"),
        (V3, b"\x20\xff\xff\xff\xff\x7f", "remaining length of more than 4 bytes"),
        (V3, b"\x20\xff\xff\xff\x7f", "at most 1048576 are taken"),
    ],
)
async def test_what_is_no_connack_is_a_protocol_error(settings: MQTTSettings, said: bytes, words: str) -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(said)
        await idle(end)

    failure, trace = await failed(handler, settings)

    assert failure.kind is FailureKind.MQTT_PROTOCOL_ERROR
    assert failure.stage is Stage.CONNACK
    assert words in failure.detail
    assert trace.connack_code is None


async def test_a_close_right_behind_connack_0_is_of_the_session() -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        end.tls.sendall(ACCEPT["3.1.1"])
        end.tls.shutdown()
        await end.send_pending()

    trace = new_trace()
    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, trace=trace) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.wait_closed()

    assert caught.value.failure.kind is FailureKind.CLOSED_AFTER_CONNACK
    assert trace.connack_code == 0
    assert Stage.CONNACK in trace.reached


async def test_what_comes_with_connack_0_is_of_the_session() -> None:
    """Also when it is a DISCONNECT in the same record."""

    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(ACCEPT["5"] + b"\xe0\x01\x89")

    trace = new_trace()
    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, V5, trace=trace) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.wait_closed()

    assert caught.value.failure.kind is FailureKind.DISCONNECTED_BY_SERVER
    assert caught.value.failure.detail == "0x89 Server busy"
    assert trace.connack_code == 0


async def test_a_connack_in_pieces_is_read() -> None:
    async def handler(end: ServerEnd) -> None:
        await end.packet()
        for byte in ACCEPT["3.1.1"]:
            await end.send(bytes((byte,)))
            await trio.testing.wait_all_tasks_blocked()
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address) as client:
                assert client.failure is None


async def test_a_server_silent_after_connect_times_out_at_connack() -> None:
    failure, trace = await failed(idle, deadlines=Deadlines(connack=0.05))

    assert failure.kind is FailureKind.TIMEOUT
    assert failure.stage is Stage.CONNACK
    assert failure.detail == "no CONNACK within 0.05 s"
    assert Stage.CONNECT in trace.reached


# --- publish and subscribe


@BOTH
async def test_publish_qos_0_is_on_the_wire(settings: MQTTSettings) -> None:
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, settings.version)
        seen.append(await end.packet())
        seen.append(await end.packet())

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, settings) as client:
                await client.publish("a/b", b"hello")

    assert seen == [publish("a/b", b"hello", version=settings.version), b"\xe0\x00"]


async def test_publish_retain_sets_the_flag() -> None:
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        seen.append(await end.packet())
        await idle(end)

    async with tls_server(handler) as address, mqtt(address) as client:
        await client.publish("a", b"", retain=True)

    assert seen == [packet(0x31, text("a"))]


@BOTH
async def test_publish_qos_1_returns_with_its_puback(settings: MQTTSettings) -> None:
    order: list[str] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, settings.version)
        received = await end.packet()
        assert received == publish("a/b", b"hello", qos=1, packet_id=1, version=settings.version)
        await trio.testing.wait_all_tasks_blocked()
        order.append("acknowledged")
        await end.send(b"\x40\x02\x00\x01")
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, settings) as client:
                await client.publish("a/b", b"hello", qos=1)
                order.append("published")

    assert order == ["acknowledged", "published"]


async def test_a_puback_that_says_no_is_a_refusal_and_the_connection_goes_on() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "5")
        await end.packet()
        properties = b"\x1f" + text("not yours")
        await end.send(packet(0x40, b"\x00\x01\x87" + bytes((len(properties),)) + properties))
        await end.packet()
        await end.send(b"\x40\x03\x00\x02\x10")
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, V5) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.publish("a", b"", qos=1)
                # 0x10 "no matching subscribers" is no failure
                await client.publish("a", b"", qos=1)
                assert client.failure is None

    assert caught.value.failure == Failure(
        kind=FailureKind.REQUEST_REFUSED, stage=Stage.SESSION, detail="PUBACK 0x87 Not authorized: not yours"
    )


@BOTH
async def test_subscribe_returns_the_qos_granted(settings: MQTTSettings) -> None:
    properties = b"\x00" if settings.version == "5" else b""
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, settings.version)
        seen.append(await end.packet())
        await end.send(packet(0x90, b"\x00\x01" + properties + b"\x01"))
        seen.append(await end.packet())
        await end.send(packet(0x90, b"\x00\x02" + properties + b"\x00"))
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, settings) as client:
                granted = [await client.subscribe("a/#", 1), await client.subscribe("b/+", 1)]

    assert granted == [1, 0]
    assert seen[0] == packet(0x82, b"\x00\x01" + properties + text("a/#") + b"\x01")


@pytest.mark.parametrize(
    ("settings", "suback", "words"),
    [
        (V3, b"\x90\x03\x00\x01\x80", "SUBACK 0x80 Unspecified error"),
        (V5, b"\x90\x04\x00\x01\x00\x87", "SUBACK 0x87 Not authorized"),
    ],
)
async def test_a_suback_that_says_no_is_a_refusal(settings: MQTTSettings, suback: bytes, words: str) -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, settings.version)
        await end.packet()
        await end.send(suback)
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, settings) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.subscribe("a", 1)
                assert client.failure is None

    assert caught.value.failure == Failure(kind=FailureKind.REQUEST_REFUSED, stage=Stage.SESSION, detail=words)


async def test_a_request_without_an_answer_times_out_and_the_connection_goes_on() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await end.packet()
        await end.packet()
        await end.send(b"\x40\x02\x00\x01" + b"\x40\x02\x00\x02")  # the first much too late
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, deadlines=Deadlines(request=0.05)) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.publish("a", b"", qos=1)
                await client.publish("b", b"", qos=1)

    assert caught.value.failure == Failure(
        kind=FailureKind.TIMEOUT, stage=Stage.SESSION, detail="no PUBACK within 0.05 s"
    )


async def test_what_cannot_be_asked_for_is_a_value_error() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await idle(end)

    async with tls_server(handler) as address, mqtt(address) as client:
        for topic in ("a/#", "+", ""):
            with pytest.raises(ValueError, match=r"[Tt]opic"):
                await client.publish(topic, b"")
        for topic_filter in ("a#", "", "#/a"):
            with pytest.raises(ValueError, match=r"filter|topic"):
                await client.subscribe(topic_filter)
        with pytest.raises(ValueError, match="QoS 2 is not 0 or 1"):
            await client.publish("a", b"", qos=2)  # type: ignore[arg-type]  # on purpose
        with pytest.raises(ValueError, match="QoS 2 is not 0 or 1"):
            await client.subscribe("a", 2)  # type: ignore[arg-type]  # on purpose
        assert client.failure is None


async def test_many_tasks_publish_at_once_and_each_gets_its_own_answer() -> None:
    """Also beyond paho's window of unacknowledged messages; odd ones are refused."""

    async def handler(end: ServerEnd) -> None:
        await accept(end, "5")
        while message := await end.packet():
            if message[0] == 0x32:
                at = 2 + 2 + len("t/000")
                number = int(message[at - 3 : at])
                code = 0x87 if number % 2 else 0x00
                await end.send(b"\x40\x03" + message[at : at + 2] + bytes((code,)))

    refused: dict[int, FailureKind] = {}
    accepted: set[int] = set()

    async def one(client: MQTTClient, number: int) -> None:
        try:
            await client.publish(f"t/{number:03d}", b"x", qos=1)
        except ConnectionFailed as exc:
            refused[number] = exc.failure.kind
        else:
            accepted.add(number)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, V5) as client, trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(one, client, number)

    assert accepted == set(range(0, 100, 2))
    assert refused == dict.fromkeys(range(1, 100, 2), FailureKind.REQUEST_REFUSED)


async def test_the_servers_receive_maximum_is_kept() -> None:
    """MQTT 5, 3.3.4; paho does not."""
    most = waiting = 0

    async def handler(end: ServerEnd) -> None:
        nonlocal most, waiting
        await end.packet()
        await end.send(packet(0x20, b"\x00\x00\x03\x21\x00\x02"))
        unanswered: list[bytes] = []
        for _ in range(10):
            with trio.move_on_after(0.05):
                while True:
                    message = await end.packet()
                    if not message or message[0] == 0xE0:
                        return
                    unanswered.append(message[5:7])
            most = max(most, len(unanswered))
            for identifier in unanswered:
                await end.send(b"\x40\x02" + identifier)
            unanswered.clear()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, V5) as client, trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(lambda: client.publish("a", b"", qos=1))

    assert most == 2


async def test_a_cancelled_publish_does_not_disturb_the_next() -> None:
    got_first = trio.Event()

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        first = await end.packet()
        got_first.set()
        second = await end.packet()
        await end.send(b"\x40\x02" + second[5:7])
        await end.send(b"\x40\x02" + first[5:7])
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address) as client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: client.publish("a", b"", qos=1))
                    await got_first.wait()
                    nursery.cancel_scope.cancel()
                await client.publish("b", b"", qos=1)
                assert repr(client) == "<MQTTClient open, 0 requests waiting>"


async def test_publishing_waits_for_a_server_that_does_not_read_and_loses_nothing() -> None:
    go_on = trio.Event()
    received = 0
    payload = os.urandom(HIGH_WATER)

    async def handler(end: ServerEnd) -> None:
        nonlocal received
        await accept(end, "3.1.1")
        await go_on.wait()
        while message := await end.packet():
            if message[0] == 0x30:
                assert message[-len(payload) :] == payload
                received += 1

    sent = 0

    async def flood(client: MQTTClient) -> None:
        nonlocal sent
        for _ in range(400):
            await client.publish("a", payload)
            sent += 1

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address) as client, trio.open_nursery() as nursery:
                nursery.start_soon(flood, client)
                await trio.testing.wait_all_tasks_blocked(0.05)
                held_back_at = sent
                go_on.set()

    assert held_back_at < 400
    assert (sent, received) == (400, 400)


# --- receive


@BOTH
async def test_messages_are_received_in_order_and_acknowledged(settings: MQTTSettings) -> None:
    acknowledged: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        version = settings.version
        await accept(end, version)
        await end.send(
            publish("a", b"zero", version=version) + publish("b/c", b"one", qos=1, packet_id=7, version=version)
        )
        acknowledged.append(await end.packet())
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, settings) as client:
                first, second = await client.receive(), await client.receive()

    assert (first.topic, first.payload, first.qos, first.retain) == ("a", b"zero", 0, False)
    assert (second.topic, second.payload, second.qos, second.retain) == ("b/c", b"one", 1, False)
    assert acknowledged == [b"\x40\x02\x00\x07"]


async def test_messages_that_came_with_the_connack_are_received_and_acknowledged() -> None:
    """A kept session's messages may follow at once, in the same record."""
    acknowledged: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(b"\x20\x02\x01\x00" + publish("a", b"kept", qos=1, packet_id=3))
        acknowledged.append(await end.packet())
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address) as client:
                message = await client.receive()

    assert message.payload == b"kept"
    assert acknowledged == [b"\x40\x02\x00\x03"]


async def test_a_record_full_of_messages_is_drained() -> None:
    """TLS holds what was decrypted: the socket does not become readable for it."""

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await end.send(publish("a", b"x" * 100) * 140)  # one record
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, MQTTSettings(receive_buffer=500)) as client:
                received = [await client.receive() for _ in range(140)]

    assert {message.payload for message in received} == {b"x" * 100}


async def test_a_large_message_is_put_together() -> None:
    payload = os.urandom(200_000)

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await end.send(publish("a", payload))
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address) as client:
                message = await client.receive()

    assert message.payload == payload


async def test_a_full_inbox_stops_the_reading_and_drops_nothing() -> None:
    sent = 0

    async def handler(end: ServerEnd) -> None:
        nonlocal sent
        await accept(end, "3.1.1")
        for number in range(600):
            await end.send(publish("a", number.to_bytes(2, "big") + b"x" * 30_000))
            sent += 1
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, MQTTSettings(receive_buffer=5)) as client:
                await trio.testing.wait_all_tasks_blocked(0.05)
                held_back_at = sent
                numbers = [int.from_bytes((await client.receive()).payload[:2], "big") for _ in range(600)]

    assert held_back_at < 600
    assert numbers == list(range(600))


# --- the end


@BOTH
@pytest.mark.parametrize("notify", [True, False], ids=["close_notify", "bare FIN"])
async def test_a_close_in_session_ends_everything_that_waits(settings: MQTTSettings, notify: bool) -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, settings.version)
        await end.send(publish("a", b"last words", version=settings.version))
        await end.packet()
        await end.close(notify=notify)

    kinds: list[FailureKind] = []

    async def fails(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ConnectionFailed) as caught:
            await call()
        assert caught.value.failure.stage is Stage.SESSION
        kinds.append(caught.value.failure.kind)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, settings) as client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fails, client.wait_closed)
                    nursery.start_soon(fails, lambda: client.publish("a", b"", qos=1))
                message = await client.receive()  # what had arrived is not lost
                await fails(client.receive)
                await fails(lambda: client.publish("a", b""))
                await fails(lambda: client.subscribe("a"))
                assert client.failure is not None
                assert client.failure.kind is FailureKind.CLOSED_AFTER_CONNACK
                assert "closed_after_connack" in repr(client)

    assert message.payload == b"last words"
    assert kinds == [FailureKind.CLOSED_AFTER_CONNACK] * 5


async def test_a_disconnect_from_the_server_is_told_with_its_reason() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "5")
        properties = b"\x1f" + text("another one came")
        await end.send(packet(0xE0, bytes((0x8E, len(properties))) + properties))
        await end.close()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, V5) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.wait_closed()

    assert caught.value.failure == Failure(
        kind=FailureKind.DISCONNECTED_BY_SERVER,
        stage=Stage.SESSION,
        detail="0x8e Session taken over: another one came",
    )


async def test_an_empty_disconnect_from_the_server_is_told() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "5")
        await end.send(b"\xe0\x00")
        await end.close()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, V5) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.wait_closed()

    assert caught.value.failure.kind is FailureKind.DISCONNECTED_BY_SERVER
    assert caught.value.failure.detail == "0x00 Normal disconnection"


@pytest.mark.parametrize(
    ("settings", "said", "words"),
    [
        (V3, ACCEPT["3.1.1"], "CONNACK packet b' \\x02\\x00\\x00' is a second one"),
        (V3, b"\xe0\x00", "DISCONNECT packet b'\\xe0\\x00'"),  # a server has no DISCONNECT in 3.1.1
        (V3, b"\x00\x00", "RESERVED packet b'\\x00\\x00'"),
        (V3, b"\x30\x00", "PUBLISH packet b'0\\x00'"),
        (V3, packet(0x30, b"\x00\x02\xff\xfe"), "utf-8"),
        (V5, b"\xf0\x00", "AUTH packet"),
        (V5, b"\x90\x03\x00\x01\x00", "without a reason code"),
        (V3, b"\x36\x05\x00\x01a\x00\x01", "PUBLISH packet"),  # QoS 3
    ],
)
async def test_garbage_in_session_is_a_protocol_error(settings: MQTTSettings, said: bytes, words: str) -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, settings.version)
        await end.packet()
        await end.send(said)
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, settings) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.subscribe("a")

    assert caught.value.failure.kind is FailureKind.MQTT_PROTOCOL_ERROR
    assert caught.value.failure.stage is Stage.SESSION
    assert words in caught.value.failure.detail


async def test_broken_tls_in_session_is_a_tls_protocol_error() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await end.send_raw(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        await end.stream.receive_some()

    trace = new_trace()
    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, trace=trace) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.wait_closed()

    assert caught.value.failure.kind is FailureKind.TLS_PROTOCOL_ERROR
    assert caught.value.failure.stage is Stage.SESSION
    assert trace.alert is not None
    assert (trace.alert.direction, trace.alert.name) == ("sent", "bad_record_mac")


async def test_a_reset_in_session() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await end.packet()
        end.reset()

    async def say_and_wait(client: MQTTClient) -> None:
        await client.publish("a", b"")  # the reset may be quicker than its return
        await client.wait_closed()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await say_and_wait(client)

    assert caught.value.failure.kind is FailureKind.CONNECTION_RESET
    assert caught.value.failure.stage is Stage.SESSION


async def test_leaving_sends_disconnect_then_close_notify_and_waits_for_the_server() -> None:
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        seen.append(await end.packet())
        seen.append(await end.receive())
        assert end.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
        seen.append(b"server ends")

    before = open_descriptors()
    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address) as client:
                pass
        with pytest.raises(trio.ClosedResourceError):
            await client.publish("a", b"")
        with pytest.raises(trio.ClosedResourceError):
            await client.receive()
        await client.wait_closed()

    assert seen == [b"\xe0\x00", b"", b"server ends"]
    assert client.failure is None
    assert repr(client) == "<MQTTClient closed, 0 requests waiting>"
    assert open_descriptors() == before


async def test_leaving_is_bounded_when_the_server_neither_reads_nor_closes() -> None:
    release = trio.Event()

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await release.wait()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            started = trio.current_time()
            async with mqtt(address, deadlines=Deadlines(close=0.1)) as client:
                with trio.move_on_after(0.05):
                    while True:  # fill the socket
                        await client.publish("a", b"x" * HIGH_WATER)
            took = trio.current_time() - started
            release.set()

    assert took < 1


async def test_cancelling_still_sends_disconnect_but_waits_for_nothing() -> None:
    seen: list[bytes] = []
    connected = trio.Event()
    handled = trio.Event()

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        seen.append(await end.packet())
        handled.set()
        await trio.sleep_forever()

    before = open_descriptors()

    async def robot(address: tuple[str, int]) -> None:
        async with mqtt(address, deadlines=Deadlines(close=TEST_SECONDS)):
            connected.set()
            await trio.sleep_forever()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS / 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(robot, address)
                await connected.wait()
                nursery.cancel_scope.cancel()
            await handled.wait()

    assert seen == [b"\xe0\x00"]
    assert open_descriptors() == before


@pytest.mark.parametrize("stage", [Stage.TLS, Stage.CONNACK])
async def test_cancelling_while_connecting_leaves_no_socket(stage: Stage) -> None:
    got_there = trio.Event()

    async def handler(end: ServerEnd) -> None:
        if stage is Stage.TLS:
            got_there.set()
            await trio.sleep_forever()
        await end.handshake()
        await end.packet()
        got_there.set()
        await idle(end)

    async def robot(address: tuple[str, int]) -> None:
        async with mqtt(address):
            pytest.fail("connected")

    before = open_descriptors()
    async with tls_server(handler, handshake=False) as address:
        with trio.fail_after(TEST_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(robot, address)
                await got_there.wait()
                nursery.cancel_scope.cancel()

    assert open_descriptors() == before


async def test_the_bodys_own_exception_comes_out_as_it_is() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await idle(end)

    class OwnError(Exception):
        pass

    async with tls_server(handler) as address:
        with pytest.raises(OwnError):
            async with mqtt(address):
                raise OwnError


async def test_what_a_server_said_before_it_hung_up_is_told_when_a_write_finds_out() -> None:
    """The DISCONNECT lies in our buffer while our write meets the reset."""
    said = trio.Event()

    async def handler(end: ServerEnd) -> None:
        await accept(end, "5")
        await end.send(b"\xe0\x01\x97")
        end.reset()
        said.set()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, V5) as client:
                await said.wait()
                with pytest.raises(ConnectionFailed) as caught:
                    await publish_on_and_on(client)

    assert caught.value.failure.kind is FailureKind.DISCONNECTED_BY_SERVER
    assert caught.value.failure.detail == "0x97 Quota exceeded"


async def publish_on_and_on(client: MQTTClient) -> None:
    while True:
        await client.publish("a", b"")


# --- keep-alive, on trio's clock


@BOTH
async def test_a_silent_device_pings_in_time(settings: MQTTSettings, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.02
    times: list[float] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, settings.version)
        while (received := await end.packet()) == PINGREQ:
            times.append(trio.current_time())
            await end.send(PINGRESP)
        assert received == b"\xe0\x00"

    keeping = MQTTSettings(version=settings.version, keep_alive=30)
    async with tls_server(handler) as address, mqtt(address, keeping) as client:
        started = trio.current_time()
        await trio.sleep(100)
        assert client.failure is None

    assert [round(at - started) for at in times] == [30, 60, 90]


async def test_traffic_puts_the_ping_off(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.02
    times: list[float] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        while received := await end.packet():
            if received == PINGREQ:
                times.append(trio.current_time())
                await end.send(PINGRESP)

    async with tls_server(handler) as address, mqtt(address, MQTTSettings(keep_alive=30)) as client:
        started = trio.current_time()
        for _ in range(5):
            await client.publish("a", b"")
            await trio.sleep(20)
        await trio.sleep(20)

    assert [round(at - started) for at in times] == [110]


async def test_a_missing_pingresp_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    """Also when the server says other things meanwhile."""
    autojump_clock.autojump_threshold = 0.02

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await end.packet()
        await trio.sleep(2)
        await end.send(publish("a", b"not an answer"))
        await idle(end)

    settings, deadlines = MQTTSettings(keep_alive=30), Deadlines(request=5)
    async with tls_server(handler) as address, mqtt(address, settings, deadlines=deadlines) as client:
        started = trio.current_time()
        with pytest.raises(ConnectionFailed) as caught:
            await client.wait_closed()
        took = trio.current_time() - started

    assert caught.value.failure == Failure(
        kind=FailureKind.TIMEOUT, stage=Stage.SESSION, detail="no PINGRESP within 5 s"
    )
    assert took == pytest.approx(35, abs=0.5)


async def test_without_keep_alive_nothing_is_pinged(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.02
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        seen.append(await end.packet())

    async with tls_server(handler) as address, mqtt(address, MQTTSettings(keep_alive=0)):
        await trio.sleep(80_000)

    assert seen == [b"\xe0\x00"]


async def test_the_servers_keep_alive_replaces_ours(autojump_clock: trio.testing.MockClock) -> None:
    """MQTT 5, 3.2.2.3.14."""
    autojump_clock.autojump_threshold = 0.02
    times: list[float] = []

    async def handler(end: ServerEnd) -> None:
        await end.packet()
        await end.send(packet(0x20, b"\x00\x00\x03\x13\x00\x05"))
        while await end.packet() == PINGREQ:
            times.append(trio.current_time())
            await end.send(PINGRESP)

    async with tls_server(handler) as address, mqtt(address, MQTTSettings(version="5", keep_alive=60)):
        started = trio.current_time()
        await trio.sleep(12)

    assert [round(at - started) for at in times] == [5, 10]


async def test_a_full_inbox_does_not_stop_our_pings_nor_blame_the_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.02
    pings = 0

    async def handler(end: ServerEnd) -> None:
        nonlocal pings
        await accept(end, "3.1.1")
        await end.send(publish("a", b"1") + publish("a", b"2") + publish("a", b"3"))
        while await end.packet() == PINGREQ:
            pings += 1
            await end.send(PINGRESP)

    settings = MQTTSettings(keep_alive=30, receive_buffer=1)
    async with tls_server(handler) as address, mqtt(address, settings, deadlines=Deadlines(request=5)) as client:
        await trio.sleep(100)
        assert client.failure is None
        received = [(await client.receive()).payload for _ in range(3)]
        await trio.sleep(100)
        assert client.failure is None

    assert received == [b"1", b"2", b"3"]
    assert pings >= 6


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- attended


async def test_an_attended_connection_is_read_and_kept_alive_by_who_waits_for_its_end() -> None:
    """Also a second time: waiting may be given up in between."""
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        for _ in range(2):
            seen.append(await end.packet())
            await end.send(b"\xd0\x00")
        seen.append(await end.packet())
        await end.close()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, MQTTSettings(keep_alive=1), attended=True) as client:
                with trio.move_on_after(0.01) as first:
                    await client.wait_closed()
                with pytest.raises(ConnectionFailed) as caught:
                    await client.wait_closed()

    assert first.cancelled_caught
    assert seen == [b"\xc0\x00"] * 3
    assert caught.value.failure.kind is FailureKind.CLOSED_AFTER_CONNACK


@BOTH
async def test_an_attended_connection_is_read_by_whatever_call_waits(settings: MQTTSettings) -> None:
    """One task does everything, as a device that publishes now and then does."""
    version, empty = settings.version, b"" if settings.version == "3.1.1" else b"\x00"

    async def handler(end: ServerEnd) -> None:
        await accept(end, version)
        subscribe = await end.packet()
        await end.send(bytes((0x90, 3 + len(empty))) + subscribe[2:4] + empty + b"\x01")
        for _ in range(2):
            publish = await end.packet()
            await end.send(b"\x30" + bytes((3 + 2 + len(empty),)) + b"\x00\x01a" + empty + b"hi")
            await end.send(b"\x40\x02" + publish[5:7])
        await end.packet()
        await end.close()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, settings, attended=True) as client:
                assert await client.subscribe("a", 1) == 1
                for number in range(2):
                    await client.publish("a", b"%d" % number, qos=1)
                received = [(await client.receive()).payload for _ in range(2)]
                await client.publish("a", b"last")
                with pytest.raises(ConnectionFailed) as caught:
                    await client.receive()

    assert received == [b"hi"] * 2
    assert caught.value.failure.kind is FailureKind.CLOSED_AFTER_CONNACK


async def test_an_attended_connection_can_be_used_by_other_tasks_while_one_waits_for_its_end() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        for _ in range(2):
            publish = await end.packet()
            await end.send(b"\x40\x02" + publish[5:7])
        await end.send(b"\x30\x05\x00\x01ahi")
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, attended=True) as client, trio.open_nursery() as nursery:
                nursery.start_soon(client.wait_closed)
                await trio.testing.wait_all_tasks_blocked()
                await client.publish("a", b"1", qos=1)
                await client.publish("a", b"2", qos=1)
                received = await client.receive()
                nursery.start_soon(client.wait_closed)  # a second one only waits
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

    assert received.payload == b"hi"
    assert client.failure is None


async def test_an_attended_request_that_is_not_answered_leaves_the_connection_usable() -> None:
    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await end.packet()
        publish = await end.packet()
        await end.send(b"\x40\x02" + publish[5:7])
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, deadlines=Deadlines(request=0.2), attended=True) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.publish("a", b"", qos=1)
                await client.publish("a", b"", qos=1)

    assert caught.value.failure.kind is FailureKind.TIMEOUT


async def test_leaving_an_attended_connection_is_as_orderly() -> None:
    seen: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        seen.append(await end.packet())
        seen.append(await end.receive())
        assert end.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
        seen.append(b"server ends")

    before = open_descriptors()
    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, attended=True) as client:
                pass
        with pytest.raises(trio.ClosedResourceError):
            await client.publish("a", b"")
        await client.wait_closed()

    assert seen == [b"\xe0\x00", b"", b"server ends"]
    assert open_descriptors() == before


async def test_an_attended_connection_that_the_server_does_not_read_is_left_in_time() -> None:
    release = trio.Event()

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await release.wait()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            started = trio.current_time()
            async with mqtt(address, deadlines=Deadlines(close=0.1), attended=True) as client:
                with trio.move_on_after(0.05):
                    while True:  # fill the socket, and wait for room that nobody makes
                        await client.publish("a", b"x" * HIGH_WATER)
                with trio.move_on_after(0.05):
                    await client.wait_closed()
            took = trio.current_time() - started
            release.set()

    assert took < 1


async def test_what_the_socket_did_not_take_is_written_by_who_attends() -> None:
    count, got = 40, bytearray()

    async def handler(end: ServerEnd) -> None:
        await accept(end, "3.1.1")
        await trio.sleep(0.05)
        for _ in range(count):
            got.extend(await end.packet())
        await end.close()

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, attended=True) as client, trio.open_nursery() as nursery:

                async def attend() -> None:
                    with pytest.raises(ConnectionFailed):
                        await client.wait_closed()

                nursery.start_soon(attend)
                for _ in range(count):
                    await client.publish("a", b"x" * HIGH_WATER)

    assert got.count(b"x") == count * HIGH_WATER


@BOTH
async def test_two_connections_that_speak_by_turns_keep_apart(settings: MQTTSettings) -> None:
    """Both settle, and paho's client goes from one to the other while messages with QoS 1 go both ways."""
    version, rounds = settings.version, 6
    acknowledged: list[bytes] = []

    async def handler(end: ServerEnd) -> None:
        name = (await accept(end, version))[-1:]
        for number in range(1, rounds + 1):
            message = await end.packet()
            assert message == publish("a", name, qos=1, packet_id=number, version=version)
            await end.send(publish("a", name + b"%d" % number, qos=1, packet_id=100 + number, version=version))
            acknowledged.append(await end.packet())
            await end.send(b"\x40\x02" + message[5:7])
        await idle(end)

    received: dict[str, list[bytes]] = {"1": [], "2": []}
    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with (
                mqtt(address, settings, client_id="robot-1", index=51, attended=True) as one,
                mqtt(address, settings, client_id="robot-2", index=52, attended=True) as two,
            ):
                for number in range(rounds):
                    async with trio.open_nursery() as nursery:
                        for name, client in (("1", one), ("2", two)):
                            nursery.start_soon(partial(client.publish, "a", name.encode(), qos=1))
                            if number % 2:  # by turns; else at once
                                await trio.testing.wait_all_tasks_blocked()
                    for name, client in (("1", one), ("2", two)):
                        received[name].append((await client.receive()).payload)
                        await client.wait_closed(until=trio.current_time() + 0.001)

    for name, payloads in received.items():
        assert payloads == [name.encode() + b"%d" % number for number in range(1, rounds + 1)]
    pubacks = [b"\x40\x02\x00" + bytes((100 + number,)) for number in range(1, rounds + 1)]
    assert sorted(acknowledged) == sorted(pubacks * 2)


async def test_the_source_address_is_passed_on() -> None:
    seen: list[str] = []

    async def handler(end: ServerEnd) -> None:
        seen.append(end.stream.socket.getpeername()[0])
        await accept(end, "3.1.1")
        await idle(end)

    async with tls_server(handler) as address:
        with trio.fail_after(TEST_SECONDS):
            async with mqtt(address, source="127.0.0.77"):
                pass

    assert seen == ["127.0.0.77"]
