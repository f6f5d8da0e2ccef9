"""PUBLISH and PUBACK, written and read without paho; tests/property/test_net_engine.py holds them against it."""

import pytest

from devicesim.net.failures import PacketError
from devicesim.net.publishing import Version, publish_packet, read_puback
from devicesim.net.splitter import body_start, remaining_length


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xff\xff\x7f"),
        (2_097_152, b"\x80\x80\x80\x01"),
        (268_435_455, b"\xff\xff\xff\x7f"),
    ],
)
def test_a_length_takes_as_many_bytes_as_it_needs(length: int, said: bytes) -> None:
    """MQTT 5, 1.5.5, table 1-1."""
    assert remaining_length(length) == said
    assert body_start(b"\x30" + said + b"x") == 1 + len(said)


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("", "topic '' is empty"),
        ("a/+", "has a wildcard"),
        ("#", "has a wildcard"),
        ("x" * 65_536, "has more than 65535 bytes"),
        ("\u00e9" * 32_768, "has more than 65535 bytes"),
    ],
)
def test_a_topic_that_cannot_be_is_told(topic: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        publish_packet(topic, b"", qos=0, retain=False, packet_id=1, version="3.1.1")


@pytest.mark.parametrize(
    ("packet", "version", "answer"),
    [
        (b"\x40\x02\x12\x34", "3.1.1", (0x1234, 0, "0x00 Success")),
        (b"\x40\x02\x12\x34", "5", (0x1234, 0, "0x00 Success")),
        (b"\x40\x82\x00\x12\x34", "3.1.1", (0x1234, 0, "0x00 Success")),
        (b"\x40\x03\x00\x01\x10", "5", (1, 0x10, "0x10 No matching subscribers")),
        (b"\x40\x04\x00\x01\x87\x00", "5", (1, 0x87, "0x87 Not authorized")),
        (b"\x40\x09\x00\x01\x97\x05\x1f\x00\x02no", "5", (1, 0x97, "0x97 Quota exceeded: no")),
    ],
)
def test_what_a_puback_says(packet: bytes, version: Version, answer: tuple[int, int, str]) -> None:
    assert read_puback(packet, version) == answer


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize(
    "packet",
    [
        b"\x40\x00",
        b"\x40\x01\x00",
        b"\x40\x81\x00\x00",
        b"\x40\x03\x00\x01\x03",
        b"\x40\x04\x00\x01\x87\x05",
        b"\x40\x06\x00\x01\x87\x02\x7f\x00",
    ],
)
def test_a_malformed_puback_is_told(packet: bytes, version: Version) -> None:
    with pytest.raises(PacketError, match="malformed PUBACK packet"):
        read_puback(packet, version)


def test_a_reason_code_is_of_mqtt_5() -> None:
    with pytest.raises(PacketError, match="malformed PUBACK packet"):
        read_puback(b"\x40\x03\x00\x01\x00", "3.1.1")
