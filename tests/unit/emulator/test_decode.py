"""The codec against bytes written by hand from the specification: whole, byte by byte, truncated, with a tail."""

import pytest

from devicesim.emulator.decode import Decoder
from devicesim.emulator.encode import encode
from devicesim.emulator.packets import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PacketError,
    PingReq,
    PingResp,
    Properties,
    ProtocolVersion,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)

V311, V5 = ProtocolVersion.V311, ProtocolVersion.V5
MAX = 149_504

# (version, bytes, packet); the bytes are the ones that encode() writes, too
GOLDEN: list[tuple[ProtocolVersion, str, Packet]] = [
    (V311, "10 0d 0004 4d515454 04 02 003c 0001 61", Connect(client_id="a", version=V311, keep_alive=60)),
    (
        V311,
        "10 1b 0004 4d515454 04 ec 0000 0001 61 0001 74 0002 6869 0001 75 0002 00ff",
        Connect(
            client_id="a",
            version=V311,
            clean_start=False,
            will=Will(topic="t", payload=b"hi", qos=1, retain=True),
            username="u",
            password=b"\x00\xff",
        ),
    ),
    (
        V5,
        "10 1c 0004 4d515454 05 02 001e 0b 11 0000000a 21 0014 22 0000 0004 64657631",
        Connect(
            client_id="dev1",
            version=V5,
            keep_alive=30,
            properties=Properties(session_expiry_interval=10, receive_maximum=20, topic_alias_maximum=0),
        ),
    ),
    (
        V5,
        "10 19 0004 4d515454 05 06 0000 00 0000 05 18 00000005 0001 77 0001 21",
        Connect(
            client_id="",
            version=V5,
            will=Will(topic="w", payload=b"!", properties=Properties(will_delay_interval=5)),
        ),
    ),
    (V311, "20 02 01 00", ConnAck(session_present=True)),
    (V311, "20 02 00 05", ConnAck(reason_code=5)),
    (V5, "20 03 00 87 00", ConnAck(reason_code=ReasonCode.NOT_AUTHORIZED)),
    (
        V5,
        "20 0f 00 00 0c 21 0064 24 01 27 00024800 29 00",
        ConnAck(
            properties=Properties(
                receive_maximum=100, maximum_qos=1, maximum_packet_size=0x24800, subscription_identifier_available=0
            )
        ),
    ),
    (V311, "30 05 0003 612f62", Publish(topic="a/b")),
    (V311, "33 08 0003 612f62 000a 78", Publish(topic="a/b", payload=b"x", qos=1, retain=True, packet_id=10)),
    (
        V311,
        "3d 08 0003 612f62 ffff 78",
        Publish(topic="a/b", payload=b"x", qos=2, retain=True, dup=True, packet_id=0xFFFF),
    ),
    (V5, "30 04 0001 74 00", Publish(topic="t")),
    (
        V5,
        "32 14 0000 0001 0d 0b 8001 23 0003 26 0001 6b 0001 76 7b7d",
        Publish(
            topic="",
            payload=b"{}",
            qos=1,
            packet_id=1,
            properties=Properties(topic_alias=3, subscription_identifiers=(128,), user_properties=(("k", "v"),)),
        ),
    ),
    (V311, "40 02 1234", PubAck(packet_id=0x1234)),
    (V5, "40 02 1234", PubAck(packet_id=0x1234)),
    (V5, "40 04 1234 87 00", PubAck(packet_id=0x1234, reason_code=0x87)),
    (
        V5,
        "40 08 1234 87 04 1f 0001 78",
        PubAck(packet_id=0x1234, reason_code=0x87, properties=Properties(reason_string="x")),
    ),
    (V311, "50 02 0001", PubRec(packet_id=1)),
    (V311, "62 02 0001", PubRel(packet_id=1)),
    (V5, "62 04 0001 92 00", PubRel(packet_id=1, reason_code=0x92)),
    (V311, "70 02 0001", PubComp(packet_id=1)),
    (
        V311,
        "82 0c 0001 0002 612f 01 0002 2b2f 00",
        Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a/", qos=1), Subscription(topic_filter="+/"))),
    ),
    (
        V5,
        "82 07 0001 00 0001 23 2d",
        Subscribe(
            packet_id=1,
            subscriptions=(
                Subscription(topic_filter="#", qos=1, no_local=True, retain_as_published=True, retain_handling=2),
            ),
        ),
    ),
    (V311, "90 04 0001 00 80", SubAck(packet_id=1, reason_codes=(0, 0x80))),
    (V5, "90 04 0001 00 8f", SubAck(packet_id=1, reason_codes=(0x8F,))),
    (V311, "a2 05 0001 0001 61", Unsubscribe(packet_id=1, topic_filters=("a",))),
    (V5, "a2 06 0001 00 0001 61", Unsubscribe(packet_id=1, topic_filters=("a",))),
    (V311, "b0 02 0001", UnsubAck(packet_id=1)),
    (V5, "b0 05 0001 00 00 11", UnsubAck(packet_id=1, reason_codes=(0, 0x11))),
    (V311, "c0 00", PingReq()),
    (V5, "d0 00", PingResp()),
    (V311, "e0 00", Disconnect()),
    (V5, "e0 00", Disconnect()),
    (V5, "e0 02 8e 00", Disconnect(reason_code=ReasonCode.SESSION_TAKEN_OVER)),
    (V5, "f0 00", Auth()),
    (V5, "f0 06 18 04 15 0001 6d", Auth(reason_code=0x18, properties=Properties(authentication_method="m"))),
]
IDS = [f"{version.name}-{text[:23]}" for version, text, _ in GOLDEN]


def decoder(version: ProtocolVersion) -> Decoder:
    return Decoder(max_packet_size=MAX, version=version)


def drain(machine: Decoder) -> list[Packet]:
    packets = []
    while (packet := machine.next_packet()) is not None:
        packets.append(packet)
    return packets


def may_be_shortened(version: ProtocolVersion, packet: Packet) -> bool:
    """MQTT 5 lets these leave out an empty tail (3.4.2.1, 3.14.2.1), so that two forms mean the same."""
    return version is V5 and isinstance(packet, PubAck | PubRec | PubRel | PubComp | Disconnect)


@pytest.mark.parametrize(("version", "text", "packet"), GOLDEN, ids=IDS)
class TestGolden:
    def test_is_encoded_to_these_bytes(self, version: ProtocolVersion, text: str, packet: Packet) -> None:
        assert encode(packet, version) == bytes.fromhex(text)

    def test_is_decoded_whole(self, version: ProtocolVersion, text: str, packet: Packet) -> None:
        machine = decoder(version)
        machine.feed(bytes.fromhex(text))

        assert drain(machine) == [packet]
        assert machine.buffered == 0

    def test_is_decoded_byte_by_byte_and_not_a_byte_early(
        self, version: ProtocolVersion, text: str, packet: Packet
    ) -> None:
        machine = decoder(version)
        data = bytes.fromhex(text)
        for byte in data[:-1]:
            machine.feed(bytes((byte,)))
            assert machine.next_packet() is None
        machine.feed(data[-1:])

        assert drain(machine) == [packet]

    def test_leaves_the_bytes_that_follow(self, version: ProtocolVersion, text: str, packet: Packet) -> None:
        machine = decoder(version)
        machine.feed(bytes.fromhex(text) + b"\xc0")

        assert machine.next_packet() == packet
        assert machine.next_packet() is None
        assert machine.buffered == 1

        machine.feed(b"\x00")

        assert machine.next_packet() == PingReq()

    def test_truncated_body_is_never_that_packet(self, version: ProtocolVersion, text: str, packet: Packet) -> None:
        """A remaining length that lies: a prefix is another packet, or malformed, and never an odd exception."""
        data = bytes.fromhex(text)
        for length in range(len(data) - 2):
            machine = decoder(version)
            machine.feed(bytes((data[0], length)) + data[2 : 2 + length])
            try:
                decoded = machine.next_packet()
            except PacketError:
                continue
            assert decoded is not None
            assert decoded != packet or may_be_shortened(version, packet)

    def test_extended_body_is_never_that_packet(self, version: ProtocolVersion, text: str, packet: Packet) -> None:
        data = bytes.fromhex(text)
        machine = decoder(version)
        machine.feed(bytes((data[0], data[1] + 1)) + data[2:] + b"\x00")
        try:
            decoded = machine.next_packet()
        except PacketError:
            return
        assert decoded != packet or may_be_shortened(version, packet)


MALFORMED: list[tuple[ProtocolVersion | None, str, str, ReasonCode]] = [
    # (version, bytes, what the message says, code); clause of MQTT 5 unless 3.1.1 is named
    (V311, "00", "packet type 0", ReasonCode.MALFORMED_PACKET),  # 2.1.2
    (V311, "c1", "flags", ReasonCode.MALFORMED_PACKET),  # MQTT-2.1.3-1
    (V311, "60 02 0001", "flags", ReasonCode.MALFORMED_PACKET),  # MQTT-3.6.1-1
    (V311, "80", "flags", ReasonCode.MALFORMED_PACKET),  # MQTT-3.8.1-1
    (V311, "a0", "flags", ReasonCode.MALFORMED_PACKET),  # MQTT-3.10.1-1
    (V311, "30 ff ff ff ff", "more than four bytes", ReasonCode.MALFORMED_PACKET),  # 1.5.5
    (V311, "30 80 80 80 80 01", "more than four bytes", ReasonCode.MALFORMED_PACKET),
    (V5, "c0 80 00", "more bytes than needed", ReasonCode.MALFORMED_PACKET),  # MQTT-1.5.5-1
    (V311, "30 ff ff 7f", "at most 149504", ReasonCode.PACKET_TOO_LARGE),
    (None, "c0 00", "must be CONNECT", ReasonCode.PROTOCOL_ERROR),  # MQTT-3.1.0-1
    (None, "16 03", "flags", ReasonCode.MALFORMED_PACKET),  # a TLS ClientHello
    (None, "47 45", "flags", ReasonCode.MALFORMED_PACKET),  # "GET"
    (None, "10 0e 0006 4d5149736470 03 02 003c 0000", "level 3", ReasonCode.UNSUPPORTED_PROTOCOL_VERSION),
    (None, "10 0c 0004 4d515454 06 02 003c 0000", "level 6", ReasonCode.UNSUPPORTED_PROTOCOL_VERSION),
    (None, "10 0c 0004 6d717474 04 02 003c 0000", "'mqtt'", ReasonCode.UNSUPPORTED_PROTOCOL_VERSION),  # MQTT-3.1.2-1
    (None, "10 0c 0004 4d515454 04 03 003c 0000", "reserved flag", ReasonCode.MALFORMED_PACKET),  # MQTT-3.1.2-3
    (None, "10 0c 0004 4d515454 04 0a 003c 0000", "will flags", ReasonCode.MALFORMED_PACKET),  # MQTT-3.1.2-11
    (None, "10 0c 0004 4d515454 04 22 003c 0000", "will flags", ReasonCode.MALFORMED_PACKET),  # MQTT-3.1.2-13
    (None, "10 0c 0004 4d515454 04 1e 003c 0000", "will flags", ReasonCode.MALFORMED_PACKET),  # MQTT-3.1.2-12
    (None, "10 0e 0004 4d515454 04 42 003c 0000 0000", "password", ReasonCode.MALFORMED_PACKET),  # 3.1.1 MQTT-3.1.2-22
    (None, "10 0d 0004 4d515454 04 02 003c 0000 00", "after its end", ReasonCode.MALFORMED_PACKET),
    (None, "10 0d 0004 4d515454 04 02 003c 0001 ff", "UTF-8", ReasonCode.MALFORMED_PACKET),  # MQTT-1.5.4-1
    (None, "10 0f 0004 4d515454 04 02 003c 0003 eda080", "UTF-8", ReasonCode.MALFORMED_PACKET),  # a surrogate
    (None, "10 0e 0004 4d515454 04 02 003c 0002 c080", "UTF-8", ReasonCode.MALFORMED_PACKET),  # overlong NUL
    (None, "10 0d 0004 4d515454 04 02 003c 0001 00", r"U\+0000", ReasonCode.MALFORMED_PACKET),  # MQTT-1.5.4-2
    (None, "10 10 0004 4d515454 05 02 003c 03 21 0000 0000", "receive_maximum 0", ReasonCode.PROTOCOL_ERROR),
    (None, "10 12 0004 4d515454 05 02 003c 05 27 00000000 0000", "maximum_packet_size 0", ReasonCode.PROTOCOL_ERROR),
    (None, "10 0f 0004 4d515454 05 02 003c 02 17 02 0000", "must be 0 or 1", ReasonCode.PROTOCOL_ERROR),
    (None, "10 13 0004 4d515454 05 02 003c 06 21 0001 21 0001 0000", "twice", ReasonCode.PROTOCOL_ERROR),
    (None, "10 10 0004 4d515454 05 02 003c 03 13 0001 0000", "does not belong", ReasonCode.PROTOCOL_ERROR),
    (None, "10 0f 0004 4d515454 05 02 003c 02 7f 00 0000", "unknown property", ReasonCode.MALFORMED_PACKET),
    (None, "10 11 0004 4d515454 05 02 003c 04 16 0001 61 0000", "without an auth", ReasonCode.PROTOCOL_ERROR),
    (V5, "20 03 02 00 00", "reserved flags", ReasonCode.MALFORMED_PACKET),  # MQTT-3.2.2-1
    (V311, "20 02 00 06", "return code 6", ReasonCode.MALFORMED_PACKET),
    (V5, "20 03 00 01 00", "reason code 0x01", ReasonCode.PROTOCOL_ERROR),
    (V311, "36 05 0001 61 0001", "QoS 3", ReasonCode.MALFORMED_PACKET),  # MQTT-3.3.1-4
    (V311, "38 03 0001 61", "DUP", ReasonCode.MALFORMED_PACKET),  # MQTT-3.3.1-2
    (V311, "32 05 0001 61 0000", "identifier 0", ReasonCode.PROTOCOL_ERROR),  # MQTT-2.2.1-3
    (V311, "30 02 0000", "neither topic", ReasonCode.PROTOCOL_ERROR),
    (V5, "30 03 0000 00", "neither topic", ReasonCode.PROTOCOL_ERROR),
    (V5, "30 06 0000 03 23 0000", "topic_alias 0", ReasonCode.TOPIC_ALIAS_INVALID),  # MQTT-3.3.2-8
    (V5, "30 05 0000 02 0b 00", "subscription_identifiers 0", ReasonCode.PROTOCOL_ERROR),
    (V5, "30 08 0001 74 ff ff ff ff 7f", "more than four bytes", ReasonCode.MALFORMED_PACKET),
    (V5, "30 05 0001 74 80 00", "more bytes than needed", ReasonCode.MALFORMED_PACKET),
    (V5, "30 04 0001 74 05", "early", ReasonCode.MALFORMED_PACKET),
    (V311, "40 00", "early", ReasonCode.MALFORMED_PACKET),  # mqttproto raised RuntimeError here
    (V311, "40 02 0000", "identifier 0", ReasonCode.PROTOCOL_ERROR),
    (V311, "40 03 0001 00", "after its end", ReasonCode.MALFORMED_PACKET),
    (V5, "40 03 0001 01", "reason code 0x01", ReasonCode.PROTOCOL_ERROR),
    (V5, "62 03 0001 87", "reason code 0x87", ReasonCode.PROTOCOL_ERROR),
    (V311, "82 02 0001", "no topic filter", ReasonCode.PROTOCOL_ERROR),  # MQTT-3.8.3-2
    (V311, "82 06 0001 0001 61 03", "options", ReasonCode.MALFORMED_PACKET),  # MQTT-3.8.3-4
    (V311, "82 06 0001 0001 61 04", "options", ReasonCode.MALFORMED_PACKET),  # 3.1.1: only the QoS
    (V5, "82 07 0001 00 0001 61 30", "options", ReasonCode.MALFORMED_PACKET),  # retain handling 3
    (V5, "82 07 0001 00 0001 61 40", "options", ReasonCode.MALFORMED_PACKET),  # MQTT-3.8.3-5
    (V5, "82 0b 0001 04 0b01 0b02 0001 61 00", "twice", ReasonCode.PROTOCOL_ERROR),
    (V311, "90 02 0001", "codes", ReasonCode.PROTOCOL_ERROR),
    (V311, "90 03 0001 03", "codes", ReasonCode.PROTOCOL_ERROR),
    (V311, "a2 02 0001", "no topic filter", ReasonCode.PROTOCOL_ERROR),  # MQTT-3.10.3-2
    (V5, "b0 03 0001 00", "codes", ReasonCode.PROTOCOL_ERROR),
    (V311, "c0 01 00", "after its end", ReasonCode.MALFORMED_PACKET),
    (V311, "e0 01 00", "after its end", ReasonCode.MALFORMED_PACKET),
    (V5, "e0 01 01", "reason code 0x01", ReasonCode.PROTOCOL_ERROR),
    (V311, "f0 00", "does not exist", ReasonCode.MALFORMED_PACKET),
    (V5, "f0 01 18", "early", ReasonCode.MALFORMED_PACKET),
]


@pytest.mark.parametrize(("version", "text", "message", "code"), MALFORMED, ids=[row[1][:40] for row in MALFORMED])
def test_refuses_what_the_specification_forbids(
    version: ProtocolVersion | None, text: str, message: str, code: ReasonCode
) -> None:
    machine = Decoder(max_packet_size=MAX, version=version)
    machine.feed(bytes.fromhex(text))

    with pytest.raises(PacketError, match=message) as caught:
        machine.next_packet()

    assert caught.value.reason_code == code


def test_stays_broken_after_an_error_and_keeps_nothing() -> None:
    machine = decoder(V311)
    machine.feed(b"\x00" * 1000)
    with pytest.raises(PacketError):
        machine.next_packet()
    machine.feed(b"\xc0\x00")

    with pytest.raises(PacketError, match="packet type 0"):
        machine.next_packet()

    assert machine.buffered == 0


def test_packets_before_the_malformed_one_are_decoded() -> None:
    machine = decoder(V311)
    machine.feed(bytes.fromhex("c000 c000 0000"))

    assert machine.next_packet() == PingReq()
    assert machine.next_packet() == PingReq()
    with pytest.raises(PacketError):
        machine.next_packet()


def test_server_learns_the_version_from_connect() -> None:
    machine = Decoder(max_packet_size=MAX)
    machine.feed(encode(Connect(client_id="a", version=V5), V5) + bytes.fromhex("e0 02 04 00"))

    assert machine.next_packet() == Connect(client_id="a", version=V5)
    assert machine.version is V5
    assert machine.next_packet() == Disconnect(reason_code=ReasonCode.DISCONNECT_WITH_WILL)


def test_padded_remaining_length_passes_in_3_1_1() -> None:
    """MQTT 3.1.1 does not forbid it, and devices that reserve four bytes for it exist."""
    machine = decoder(V311)
    machine.feed(bytes.fromhex("c0 80 80 80 00"))

    assert machine.next_packet() == PingReq()


def test_packet_of_exactly_the_maximum_size_passes_and_one_more_byte_does_not() -> None:
    data = encode(Publish(topic="t", payload=bytes(200)), V311)
    machine = Decoder(max_packet_size=len(data), version=V311)
    machine.feed(data)
    assert isinstance(machine.next_packet(), Publish)

    machine = Decoder(max_packet_size=len(data) - 1, version=V311)
    machine.feed(data[:3])

    with pytest.raises(PacketError) as caught:
        machine.next_packet()

    assert caught.value.reason_code == ReasonCode.PACKET_TOO_LARGE
