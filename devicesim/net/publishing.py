"""PUBLISH and PUBACK on the device's side, QoS 0 and 1, to the byte as paho-mqtt writes and reads them.

A client of paho's is 8 KB and some 0.1 ms a message; a fleet publishes thousands a second, all of one form. So these
two packets are made here (``tests/unit/net/test_publishing.py`` holds them against paho's), and what is rare in them,
reason codes and properties of MQTT 5, is left to paho's own classes.

Pure.
"""

import struct
from typing import Literal

from paho.mqtt import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devicesim.net.failures import PacketError, one_line
from devicesim.net.splitter import body_start, preview, remaining_length

Version = Literal["3.1.1", "5"]
QoS = Literal[0, 1]

MAX_TEXT = 0xFFFF
"""Bytes of a UTF-8 string (MQTT 5, 1.5.4)."""
_MAX_LENGTH = 268_435_455
"""The largest remaining length (MQTT 5, 1.5.5)."""
_PUBLISH = PacketTypes.PUBLISH << 4
_SUCCESS = "0x00 Success"


def publish_packet(topic: str, payload: bytes, *, qos: QoS, retain: bool, packet_id: int, version: Version) -> bytes:
    """PUBLISH; ``packet_id`` is part of it with QoS 1. ``ValueError`` for a topic or a payload that cannot be sent."""
    name = topic.encode()
    if not name:  # MQTT 5 allows it where an alias is given
        raise ValueError("topic '' is empty")
    if b"+" in name or b"#" in name:
        raise ValueError(f"topic {topic[:80]!r} has a wildcard, + or #: a message has one topic")
    if len(name) > MAX_TEXT:
        raise ValueError(f"topic {topic[:80]!r}... has more than {MAX_TEXT} bytes")
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    properties = b"\x00" if version == "5" else b""
    length = 2 + len(name) + len(identifier) + len(properties) + len(payload)
    if length > _MAX_LENGTH:
        raise ValueError(f"payload of {len(payload)} bytes is too long: a packet has at most {_MAX_LENGTH}")
    first = bytes((_PUBLISH | qos << 1 | retain,))
    size = len(name).to_bytes(2, "big")
    return b"".join((first, remaining_length(length), size, name, identifier, properties, payload))


def read_puback(packet: bytes, version: Version) -> tuple[int, int, str]:
    """A PUBACK's packet id, its reason code and that in words. Raises :class:`PacketError` for a malformed one."""
    if packet[1] == 2:
        return packet[2] << 8 | packet[3], 0, _SUCCESS
    body = packet[body_start(packet) :]
    if len(body) < 2 or (version != "5" and len(body) != 2):
        raise PacketError(f"malformed {preview(packet)}")
    reason, properties = ReasonCode(PacketTypes.PUBACK), None
    try:
        if len(body) > 2:
            reason.unpack(body[2:])
        if len(body) > 3:
            properties = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]  # paho left it untyped
            properties.unpack(body[3:])  # type: ignore[no-untyped-call]
    except (struct.error, KeyError, IndexError, ValueError, MQTTException) as exc:
        raise PacketError(f"malformed {preview(packet)}: {one_line(str(exc))}") from exc
    return body[0] << 8 | body[1], reason.value, reason_words(reason, properties)


def reason_words(reason: ReasonCode, properties: Properties | None) -> str:
    """A reason code as it is recorded, with the server's reason string where it sent one."""
    words = f"0x{reason.value:02x} {reason.getName()}"
    said = getattr(properties, "ReasonString", None)
    return one_line(f"{words}: {said}" if said else words)
