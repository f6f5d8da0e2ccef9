"""What must not be written is a programming error, and refused. The bytes themselves are checked in test_decode.py."""

import struct

import pytest

from devicesim.emulator.encode import encode
from devicesim.emulator.packets import ConnAck, Properties, ProtocolVersion, PubAck, Publish, ReasonCode, UnsubAck

V311, V5 = ProtocolVersion.V311, ProtocolVersion.V5


@pytest.mark.parametrize(
    "packet", [Publish(topic="t", qos=1), Publish(topic="t", packet_id=1)], ids=["qos 1 without id", "qos 0 with id"]
)
def test_publish_has_an_identifier_exactly_when_it_is_acknowledged(packet: Publish) -> None:
    with pytest.raises(ValueError, match="packet identifier"):
        encode(packet, V311)


def test_string_longer_than_65535_bytes_is_refused() -> None:
    with pytest.raises(struct.error):
        encode(Publish(topic="t" * 65_536), V311)


def test_packet_longer_than_the_protocol_allows_is_refused() -> None:
    with pytest.raises(ValueError, match="variable byte integer 268435456"):
        encode(Publish(topic="t", payload=bytes(268_435_453)), V311)


def test_3_1_1_has_neither_properties_nor_reason_codes_where_it_has_none() -> None:
    properties = Properties(reason_string="why")

    assert encode(ConnAck(reason_code=5, properties=properties), V311).hex() == "20020005"
    assert (
        encode(PubAck(packet_id=1, reason_code=ReasonCode.NOT_AUTHORIZED, properties=properties), V311).hex()
        == "40020001"
    )
    assert encode(UnsubAck(packet_id=1, reason_codes=(0x11,)), V311).hex() == "b0020001"


@pytest.mark.parametrize(
    ("length", "header"), [(127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (2_097_152, "80808001")]
)
def test_remaining_length_takes_as_few_bytes_as_possible(length: int, header: str) -> None:
    """The table of 1.5.5."""
    data = encode(Publish(topic="t", payload=bytes(length - 3)), V311)

    assert data[1 : 1 + len(header) // 2].hex() == header
