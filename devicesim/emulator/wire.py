"""The tables of the MQTT specification that both directions of the codec read: properties, reason codes, flags.

Section numbers are those of MQTT 5, unless 3.1.1 is named.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from devicesim.emulator.packets import SUBSCRIBE_FAILURE, PacketType, ReasonCode


class Kind(IntEnum):
    """How a property's value is written (2.2.2.2)."""

    FLAG = 0  # one byte, 0 or 1: every one-byte property of MQTT 5
    U16 = 1
    U32 = 2
    VARINT = 3
    STRING = 4
    BINARY = 5
    PAIR = 6


WILL = 0  # no packet type has this number; stands for "properties of a will"
_ACKS = (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP)
_CONN = (PacketType.CONNECT, PacketType.CONNACK)
_MESSAGE = (PacketType.PUBLISH, WILL)
_ANSWERS = (
    PacketType.CONNACK,
    *_ACKS,
    PacketType.SUBACK,
    PacketType.UNSUBACK,
    PacketType.DISCONNECT,
    PacketType.AUTH,
)

PROPERTIES: Final[tuple[tuple[int, str, Kind, tuple[int, ...]], ...]] = (
    (0x01, "payload_format_indicator", Kind.FLAG, _MESSAGE),
    (0x02, "message_expiry_interval", Kind.U32, _MESSAGE),
    (0x03, "content_type", Kind.STRING, _MESSAGE),
    (0x08, "response_topic", Kind.STRING, _MESSAGE),
    (0x09, "correlation_data", Kind.BINARY, _MESSAGE),
    (0x0B, "subscription_identifiers", Kind.VARINT, (PacketType.PUBLISH, PacketType.SUBSCRIBE)),
    (0x11, "session_expiry_interval", Kind.U32, (*_CONN, PacketType.DISCONNECT)),
    (0x12, "assigned_client_identifier", Kind.STRING, (PacketType.CONNACK,)),
    (0x13, "server_keep_alive", Kind.U16, (PacketType.CONNACK,)),
    (0x15, "authentication_method", Kind.STRING, (*_CONN, PacketType.AUTH)),
    (0x16, "authentication_data", Kind.BINARY, (*_CONN, PacketType.AUTH)),
    (0x17, "request_problem_information", Kind.FLAG, (PacketType.CONNECT,)),
    (0x18, "will_delay_interval", Kind.U32, (WILL,)),
    (0x19, "request_response_information", Kind.FLAG, (PacketType.CONNECT,)),
    (0x1A, "response_information", Kind.STRING, (PacketType.CONNACK,)),
    (0x1C, "server_reference", Kind.STRING, (PacketType.CONNACK, PacketType.DISCONNECT)),
    (0x1F, "reason_string", Kind.STRING, _ANSWERS),
    (0x21, "receive_maximum", Kind.U16, _CONN),
    (0x22, "topic_alias_maximum", Kind.U16, _CONN),
    (0x23, "topic_alias", Kind.U16, (PacketType.PUBLISH,)),
    (0x24, "maximum_qos", Kind.FLAG, (PacketType.CONNACK,)),
    (0x25, "retain_available", Kind.FLAG, (PacketType.CONNACK,)),
    (
        0x26,
        "user_properties",
        Kind.PAIR,
        (*_ANSWERS, PacketType.CONNECT, *_MESSAGE, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE),
    ),
    (0x27, "maximum_packet_size", Kind.U32, _CONN),
    (0x28, "wildcard_subscription_available", Kind.FLAG, (PacketType.CONNACK,)),
    (0x29, "subscription_identifier_available", Kind.FLAG, (PacketType.CONNACK,)),
    (0x2A, "shared_subscription_available", Kind.FLAG, (PacketType.CONNACK,)),
)
PROPERTY_BY_ID: Final = {number: (name, kind, owners) for number, name, kind, owners in PROPERTIES}
NEVER_ZERO: Final = {  # property -> the reason code of its section
    "receive_maximum": ReasonCode.PROTOCOL_ERROR,  # 3.1.2.11.3
    "maximum_packet_size": ReasonCode.PROTOCOL_ERROR,  # 3.1.2.11.4
    "topic_alias": ReasonCode.TOPIC_ALIAS_INVALID,  # 3.3.2.3.4
    "subscription_identifiers": ReasonCode.PROTOCOL_ERROR,  # 3.8.2.1.2
}

_PUB_CODES = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
REASON_CODES: Final[Mapping[PacketType, frozenset[int]]] = {  # 2.4, by packet
    PacketType.CONNACK: frozenset(
        {0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F}
    ),
    PacketType.PUBACK: _PUB_CODES,
    PacketType.PUBREC: _PUB_CODES,
    PacketType.PUBREL: frozenset({0x00, 0x92}),
    PacketType.PUBCOMP: frozenset({0x00, 0x92}),
    PacketType.SUBACK: frozenset({0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}),
    PacketType.UNSUBACK: frozenset({0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91}),
    PacketType.DISCONNECT: frozenset(
        {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, *range(0x93, 0xA3)}
    ),
    PacketType.AUTH: frozenset({0x00, 0x18, 0x19}),
}
SUBACK_V311: Final = frozenset({0, 1, 2, SUBSCRIBE_FAILURE})
FLAGS: Final = {PacketType.PUBREL: 0b0010, PacketType.SUBSCRIBE: 0b0010, PacketType.UNSUBSCRIBE: 0b0010}
"""Low nibble of the first byte, where it is not 0 (2.1.3); PUBLISH carries meaning there."""

MAXIMUM_REMAINING_LENGTH: Final = 268_435_455  # four bytes of seven bits (1.5.5)
PROTOCOL_NAME: Final = "MQTT"
