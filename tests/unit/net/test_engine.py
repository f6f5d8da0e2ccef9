"""The protocol engine without a network: golden bytes out, events in, however the bytes are cut up."""

import gc
import inspect
import struct
import weakref
from collections.abc import Iterator

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from devicesim.net.engine import Answer, Connack, Disconnect, Engine, Event, Message, Pong, QoS, Version
from devicesim.net.failures import PacketError, PahoError
from devicesim.net.mqtt import MQTTSettings
from devicesim.net.splitter import MAX_PACKET, PacketSplitter

ACCEPT: dict[Version, bytes] = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}


def events_of(engine: Engine, *pieces: bytes) -> list[Event]:
    """What the engine says to bytes that arrive in these pieces."""
    events = []
    for piece in pieces:
        engine.feed(piece)
        while (event := engine.next_event()) is not None:
            events.append(event)
    return events


def connected(version: Version = "3.1.1", client_id: str = "robot-1", *, session_expiry: int = 0) -> Engine:
    engine = Engine(client_id, version=version)
    engine.connect(session_expiry=session_expiry)
    events_of(engine, ACCEPT[version])
    engine.outbound.clear()
    return engine


def taken(engine: Engine) -> bytes:
    """What the driver would have written."""
    data = bytes(engine.outbound)
    engine.outbound.clear()
    return data


def text(words: str) -> bytes:
    return struct.pack("!H", len(words)) + words.encode()


# --- what is sent


def test_connect_311() -> None:
    engine = Engine("robot-1", version="3.1.1")
    engine.connect(keep_alive=300)

    assert taken(engine) == b"\x10\x13\x00\x04MQTT\x04\x02\x01\x2c\x00\x07robot-1"


def test_connect_311_keeping_the_session() -> None:
    engine = Engine("robot-1", version="3.1.1", clean_start=False)
    engine.connect(keep_alive=0)

    assert taken(engine) == b"\x10\x13\x00\x04MQTT\x04\x00\x00\x00\x00\x07robot-1"


def test_connect_5_with_a_session_that_expires() -> None:
    engine = Engine("robot-1", version="5", clean_start=False)
    engine.connect(keep_alive=30, session_expiry=3600)

    assert taken(engine) == b"\x10\x19\x00\x04MQTT\x05\x00\x00\x1e\x05\x11\x00\x00\x0e\x10\x00\x07robot-1"


def test_connect_properties_are_shared() -> None:
    """Each would be kept by paho, at 5.6 KB (mqtt-measured.md)."""
    first, second = (connected("5", session_expiry=77)._session() for _ in range(2))

    assert first._connect_properties is not None
    assert first._connect_properties is second._connect_properties


@pytest.mark.parametrize(
    ("client_id", "version", "clean_start", "message"),
    [
        ("", "3.1.1", False, "client id '' needs a clean session"),
        ("x" * 65_536, "5", True, "has more than 65535 bytes"),
        ("\N{ROBOT FACE}" * 16_384, "3.1.1", True, "has more than 65535 bytes"),
        ("\ud800", "3.1.1", True, "surrogates not allowed"),
    ],
)
def test_a_client_id_that_cannot_be_sent_is_refused_at_once(
    client_id: str, version: Version, clean_start: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(client_id, version=version, clean_start=clean_start)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_client_that_says_and_hears_nothing_is_none_of_pahos(version: Version) -> None:
    """0.2 ms and 10 KB each."""
    engine = connected(version)
    engine.ping()
    assert events_of(engine, b"\xd0\x00") == [Pong()]
    engine.disconnect()

    assert taken(engine) == b"\xc0\x00\xe0\x00"
    assert engine._paho is None


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_paho_made_late_knows_what_has_been(version: Version) -> None:
    """It is connected, by the server's own CONNACK, and nothing of that is sent again."""
    engine = Engine("robot-1", version=version, clean_start=False)
    engine.connect(keep_alive=77)
    properties = b"\x03\x21\x00\x07"  # Receive Maximum
    connack = b"\x20\x06\x01\x00" + properties if version == "5" else b"\x20\x02\x01\x00"
    events_of(engine, connack)
    engine.outbound.clear()

    session = engine._session()

    assert taken(engine) == b""
    assert session.is_connected()
    assert session._keepalive == 77
    assert session._client_id == b"robot-1"


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_what_is_published_after_our_disconnect_is_not_taken(version: Version) -> None:
    engine = connected(version)
    engine.disconnect()
    taken(engine)

    with pytest.raises(PahoError) as caught:
        engine.publish("a", b"", 0, retain=False)

    assert caught.value.rc is MQTTErrorCode.MQTT_ERR_NO_CONN
    assert taken(engine) == b""


@pytest.mark.parametrize(("version", "properties"), [("3.1.1", b""), ("5", b"\x00")])
def test_publish_and_subscribe(version: Version, properties: bytes) -> None:
    engine = connected(version)

    engine.publish("a/b", b"zero", 0, retain=True)
    assert taken(engine) == bytes((0x31, 9 + len(properties))) + text("a/b") + properties + b"zero"

    packet_id = engine.publish("a/b", b"one", 1, retain=False)
    identifier = struct.pack("!H", packet_id)
    assert taken(engine) == bytes((0x32, 10 + len(properties))) + text("a/b") + identifier + properties + b"one"

    packet_id = engine.subscribe("a/#", 1)
    identifier = struct.pack("!H", packet_id)
    assert taken(engine) == bytes((0x82, 8 + len(properties))) + identifier + properties + text("a/#") + b"\x01"


def test_ping_and_disconnect() -> None:
    engine = connected()
    engine.ping()
    engine.disconnect()

    assert taken(engine) == b"\xc0\x00\xe0\x00"


def test_what_paho_does_not_take_says_its_code() -> None:
    engine = connected()
    engine.disconnect()

    with pytest.raises(PahoError) as caught:
        engine.publish("a", b"", 1, retain=False)

    assert caught.value.rc is MQTTErrorCode.MQTT_ERR_NO_CONN


# --- what is said back


def test_connack_311() -> None:
    assert events_of(Engine("x"), b"\x20\x02\x01\x00") == [
        Connack(code=0, words="0 Connection Accepted.", session_present=True)
    ]


def test_connack_5_with_what_the_server_wants() -> None:
    engine = Engine("x", version="5")
    engine.connect()
    properties = b"\x13\x00\x0a" + b"\x21\x00\x07" + b"\x1f" + text("welcome")

    events = events_of(engine, bytes((0x20, 3 + len(properties), 0, 0, len(properties))) + properties)

    assert events == [Connack(code=0, words="0x00 Success: welcome", keep_alive=10, receive_maximum=7)]


SESSION_311 = [
    (b"\x30\x05\x00\x01ahi", Message(topic="a", payload=b"hi", qos=0, retain=False)),
    (b"\x31\x03\x00\x01a", Message(topic="a", payload=b"", qos=0, retain=True)),
    (b"\x32\x07\x00\x01a\x00\x09hi", Message(topic="a", payload=b"hi", qos=1, retain=False)),
    (b"\x90\x03\x00\x02\x01", Answer(packet_id=2, reason=1, words="0x01 Granted QoS 1")),
    (b"\x90\x03\x00\x02\x80", Answer(packet_id=2, reason=0x80, words="0x80 Unspecified error")),
    (b"\xd0\x00", Pong()),
]
SESSION_5 = [
    (b"\x30\x06\x00\x01a\x00hi", Message(topic="a", payload=b"hi", qos=0, retain=False)),
    (b"\x90\x04\x00\x02\x00\x87", Answer(packet_id=2, reason=0x87, words="0x87 Not authorized")),
    (
        b"\x90\x09\x00\x02\x05\x1f\x00\x02no\x87",
        Answer(packet_id=2, reason=0x87, words="0x87 Not authorized: no"),
    ),
    (b"\xd0\x00", Pong()),
    (b"\xe0\x00", Disconnect(words="0x00 Normal disconnection")),
    (b"\xe0\x01\x8e", Disconnect(words="0x8e Session taken over")),
    (b"\xe0\x07\x97\x05\x1f\x00\x02no", Disconnect(words="0x97 Quota exceeded: no")),
]


def cut_up(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and in two at every place."""
    yield [data]
    yield [bytes((byte,)) for byte in data]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


@pytest.mark.parametrize(
    ("version", "data", "event"),
    [
        *(("3.1.1", data, event) for data, event in SESSION_311),
        *(("5", data, event) for data, event in SESSION_5),
    ],
    ids=repr,
)
def test_packets_become_events_however_they_are_cut_up(version: Version, data: bytes, event: Event) -> None:
    for pieces in cut_up(data):
        engine = connected(version)
        engine.subscribe("a", 1)

        assert events_of(engine, *pieces) == [event]


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_several_packets_in_one_piece_are_told_in_order(version: Version) -> None:
    session = SESSION_311 if version == "3.1.1" else SESSION_5[:4]
    engine = connected(version)
    engine.subscribe("a", 1)

    events = events_of(engine, b"".join(data for data, _ in session))

    assert events == [event for _, event in session]


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_truncated_packet_says_nothing_yet(version: Version) -> None:
    for data, _event in SESSION_311 if version == "3.1.1" else SESSION_5:
        for length in range(1, len(data)):
            assert events_of(connected(version), data[:length]) == []


def test_what_came_before_garbage_is_still_told() -> None:
    engine = connected()
    engine.feed(b"\xd0\x00" + b"\x00\x00")

    assert engine.next_event() == Pong()
    with pytest.raises(PacketError, match="RESERVED packet"):
        engine.next_event()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_message_with_qos_1_is_acknowledged(version: Version) -> None:
    engine = connected(version)
    events_of(engine, b"\x32\x05\x00\x01a\x12\x34" if version == "3.1.1" else b"\x32\x06\x00\x01a\x12\x34\x00")

    assert taken(engine) == b"\x40\x02\x12\x34"


def test_a_puback_answers_its_message_once() -> None:
    engine = connected("5")
    first, second = (engine.publish("a", b"", 1, retain=False) for _ in range(2))
    no = b"\x40\x03" + struct.pack("!H", second) + b"\x87"

    assert events_of(engine, no, no) == [Answer(packet_id=second, reason=0x87, words="0x87 Not authorized")]
    assert events_of(engine, b"\x40\x02" + struct.pack("!H", first)) == [
        Answer(packet_id=first, reason=0, words="0x00 Success")
    ]


def test_a_message_with_qos_0_is_never_answered() -> None:
    engine = connected()
    engine.publish("a", b"", 1, retain=False)  # from now on paho calls back for every message
    for _ in range(3):
        engine.publish("a", b"", 0, retain=False)

    assert events_of(engine, b"\xd0\x00") == [Pong()]


def test_messages_beyond_the_window_go_out_as_answers_come_in() -> None:
    engine = connected()
    ids = [engine.publish("a", b"", 1, retain=False) for _ in range(25)]
    assert len(taken(engine)) == 20 * 7

    events_of(engine, *(b"\x40\x02" + struct.pack("!H", each) for each in ids[:5]))

    assert taken(engine) == b"".join(b"\x32\x05\x00\x01a" + struct.pack("!H", each) for each in ids[20:])


# --- messages and paho's client beside each other


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + struct.pack("!H", packet_id)


def message(version: Version, payload: bytes, *, qos: int = 0, packet_id: int = 0) -> bytes:
    identifier = struct.pack("!H", packet_id) if qos else b""
    body = text("a") + identifier + (b"\x00" if version == "5" else b"") + payload
    return bytes((0x30 | qos << 1, len(body))) + body


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_who_only_publishes_needs_no_client_of_pahos(version: Version) -> None:
    """It is 8 KB, and thousands of devices do nothing else."""
    engine = connected(version)
    engine.publish("a", b"", 0, retain=False)
    packet_id = engine.publish("a", b"x", 1, retain=False)

    assert events_of(engine, puback(packet_id)) == [Answer(packet_id=packet_id, reason=0, words="0x00 Success")]
    assert engine._paho is None


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_messages_and_subscriptions_share_one_row_of_packet_ids(version: Version) -> None:
    engine = connected(version)
    first = engine.publish("a", b"", 1, retain=False)
    second = engine.subscribe("a", 1)
    third = engine.publish("a", b"", 1, retain=False)
    fourth = engine.subscribe("b", 1)

    assert (first, second, third, fourth) == (1, 2, 3, 4)
    suback = b"\x90\x04\x00\x02\x00\x01" if version == "5" else b"\x90\x03\x00\x02\x01"
    answers = events_of(engine, puback(third), suback, puback(first))
    assert [each.packet_id for each in answers if isinstance(each, Answer)] == [third, second, first]


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_message_received_and_one_under_way_may_have_the_same_packet_id(version: Version) -> None:
    engine = connected(version)
    packet_id = engine.publish("a", b"1", 1, retain=False)
    taken(engine)
    incoming = message(version, b"in", qos=1, packet_id=packet_id)

    assert events_of(engine, incoming) == [Message(topic="a", payload=b"in", qos=1, retain=False)]
    assert taken(engine) == puback(packet_id)
    assert events_of(engine, puback(packet_id)) == [Answer(packet_id=packet_id, reason=0, words="0x00 Success")]


def test_an_answer_to_nothing_is_none() -> None:
    engine = connected()
    packet_id = engine.publish("a", b"", 1, retain=False)

    assert events_of(engine, puback(0x7FFE), puback(0)) == []
    assert events_of(engine, puback(packet_id)) == [Answer(packet_id=packet_id, reason=0, words="0x00 Success")]
    assert events_of(engine, puback(packet_id)) == []


@pytest.mark.parametrize("wrong", ["a/#", "+", "\ud800", "", "x" * 65_536])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_that_cannot_be_leaves_nothing_behind(wrong: str, qos: QoS) -> None:
    engine = connected()
    with pytest.raises(ValueError):
        engine.publish(wrong, b"", qos, retain=False)

    assert taken(engine) == b""
    assert engine.publish("b", b"", 1, retain=False) == 1


def test_after_our_disconnect_a_message_is_no_longer_answered() -> None:
    engine = connected()
    packet_id = engine.publish("a", b"", 1, retain=False)
    engine.disconnect()

    assert events_of(engine, puback(packet_id)) == []


def test_packet_ids_begin_again_after_the_last() -> None:
    engine = connected()
    engine._last_id = 65_534
    ids = []
    for _ in range(2):
        ids.append(engine.publish("a", b"", 1, retain=False))
        events_of(engine, puback(ids[-1]))
    ids.append(engine.subscribe("a", 0))

    assert ids == [65_535, 1, 2]


def test_what_says_which_packet_id_paho_gives_next_is_still_what_it_was() -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)

    assert client._last_mid == 0
    assert "self._last_mid += 1" in inspect.getsource(paho.Client._mid_generate)


# --- what is no MQTT, or not now


@pytest.mark.parametrize(
    "first", [kind << 4 for kind in range(16) if kind != 2], ids=lambda first: f"type {first >> 4}"
)
def test_nothing_but_connack_may_come_first(first: int) -> None:
    """Told at the first byte: a length that follows may be made up."""
    engine = Engine("x", version="5")
    engine.connect()

    with pytest.raises(PacketError, match="where CONNACK must stand"):
        events_of(engine, bytes((first,)))


def test_http_is_shown_as_it_is() -> None:
    """What port 443 answers without ALPN (aws-iot-behaviour.md 4.3)."""
    with pytest.raises(PacketError, match=r"b'HTTP/1\.1 400 Bad Request' where CONNACK must stand"):
        events_of(Engine("x"), b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_second_connack_is_an_error() -> None:
    with pytest.raises(PacketError, match="is a second one"):
        events_of(connected(), ACCEPT["3.1.1"])


def test_after_a_connack_that_says_no_nothing_else_is_taken() -> None:
    engine = Engine("x")
    engine.connect()
    assert [event.code for event in events_of(engine, b"\x20\x02\x00\x05") if isinstance(event, Connack)] == [5]

    with pytest.raises(PacketError, match="where CONNACK must stand"):
        events_of(engine, b"\xd0\x00")


def test_a_packet_beyond_the_limit_is_refused_by_its_header() -> None:
    splitter = PacketSplitter(limit=100)
    splitter.feed(b"\x30\x63")

    with pytest.raises(PacketError, match="is of 101 bytes; at most 100 are taken"):
        splitter.next_packet()


def test_a_packet_at_the_limit_is_taken() -> None:
    packet = b"\x30\x62" + b"x" * 98
    splitter = PacketSplitter(limit=100)
    splitter.feed(packet)

    assert splitter.next_packet() == packet
    assert splitter.next_packet() is None


def test_awss_largest_message_is_below_the_limit() -> None:
    assert MAX_PACKET > 128 * 1024 + 256 + 64


def test_a_length_of_five_bytes_is_refused() -> None:
    """MQTT 5, 1.5.5: four at most."""
    splitter = PacketSplitter()
    splitter.feed(b"\x30\x80\x80\x80\x80\x01")

    with pytest.raises(PacketError, match="remaining length of more than 4 bytes"):
        splitter.next_packet()


# --- the hold that we have on paho


def test_the_private_name_of_paho_that_we_replace_is_still_what_it_was() -> None:
    """`reconnect` makes its socket with `_create_socket()`, and does nothing else to get one."""
    assert list(inspect.signature(paho.Client._create_socket).parameters) == ["self"]
    assert "self._sock = self._create_socket()" in inspect.getsource(paho.Client.reconnect)


def test_paho_never_touches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        pytest.fail("paho opened a socket")

    monkeypatch.setattr("socket.socket", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("threading.Thread.start", refuse)

    engine = connected()
    engine.publish("a", b"", 1, retain=False)
    engine.disconnect()

    assert taken(engine).endswith(b"\xe0\x00")


def test_a_released_engine_is_freed_at_once() -> None:
    """Without waiting for the collector of cycles: there are thousands of them, with their buffers."""
    gc.collect()
    gc.disable()
    try:
        engine = connected()
        client = weakref.ref(engine._session())
        engine.release()
        del engine

        assert client() is None
    finally:
        gc.enable()


# --- settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"version": "3.1"}, "MQTT version '3.1' is not one of 3.1.1, 5"),
        ({"keep_alive": -1}, "keep_alive -1 is not 0 to 65535 seconds"),
        ({"keep_alive": 65_536}, "keep_alive 65536 is not 0 to 65535 seconds"),
        ({"version": "5", "session_expiry": 2**32}, "session_expiry 4294967296 is not 0 to 4294967295 seconds"),
        ({"session_expiry": 60}, "session_expiry needs MQTT version '5', not '3.1.1'"),
        ({"receive_buffer": 0}, "receive_buffer 0 is below 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        MQTTSettings(**wrong)  # type: ignore[arg-type]  # on purpose

    assert str(caught.value) == message
