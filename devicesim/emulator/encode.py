"""MQTT packets to bytes, for 3.1.1 and 5.

What is written is ours: a value that does not fit is a programming error and raises ``ValueError`` or ``struct.error``.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final

from devicesim.emulator.packets import (
    NO_PROPERTIES,
    Acknowledgement,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    PingReq,
    PingResp,
    Properties,
    ProtocolVersion,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
)
from devicesim.emulator.wire import FLAGS, MAXIMUM_REMAINING_LENGTH, PROPERTIES, PROTOCOL_NAME, Kind

V5: Final = ProtocolVersion.V5


def _varint(value: int) -> bytes:
    if not 0 <= value <= MAXIMUM_REMAINING_LENGTH:
        raise ValueError(f"variable byte integer {value!r} must be 0 to {MAXIMUM_REMAINING_LENGTH}")
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        if not value:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def _binary(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def _string(value: str) -> bytes:
    return _binary(value.encode("utf-8"))


_WRITERS: Final[Mapping[Kind, Callable[[object], bytes]]] = {
    Kind.FLAG: lambda value: struct.pack("!B", value),
    Kind.U16: lambda value: struct.pack("!H", value),
    Kind.U32: lambda value: struct.pack("!I", value),
    Kind.VARINT: lambda value: _varint(value),  # type: ignore[arg-type]  # the table says int
    Kind.STRING: lambda value: _string(value),  # type: ignore[arg-type]  # the table says str
    Kind.BINARY: lambda value: _binary(value),  # type: ignore[arg-type]  # the table says bytes
    Kind.PAIR: lambda value: b"".join(map(_string, value)),  # type: ignore[call-overload]  # the table says a pair
}


def _encode_properties(properties: Properties, version: ProtocolVersion) -> bytes:
    if version is not V5:
        return b""
    if properties is NO_PROPERTIES:
        return b"\0"
    out = bytearray()
    for number, name, kind, _ in PROPERTIES:
        value = getattr(properties, name)
        if value is None:
            continue
        write = _WRITERS[kind]
        for item in value if isinstance(value, tuple) else (value,):
            out.append(number)
            out += write(item)
    return _varint(len(out)) + bytes(out)


def _packet(packet_type: PacketType, flags: int, body: bytes) -> bytes:
    return bytes((packet_type << 4 | flags,)) + _varint(len(body)) + body


def encode(packet: Packet, version: ProtocolVersion) -> bytes:
    """The bytes of ``packet``; for CONNECT, ``version`` is the packet's own."""
    match packet:
        case Publish():
            return _encode_publish(packet, version)
        case PubAck() | PubRec() | PubRel() | PubComp():
            return _encode_acknowledgement(packet, version)
        case ConnAck(session_present=present, reason_code=code, properties=properties):
            body = bytes((present, code)) + _encode_properties(properties, version)
            return _packet(PacketType.CONNACK, 0, body)
        case SubAck(packet_id=number, reason_codes=codes, properties=properties):
            body = struct.pack("!H", number) + _encode_properties(properties, version) + bytes(codes)
            return _packet(PacketType.SUBACK, 0, body)
        case UnsubAck(packet_id=number, reason_codes=codes, properties=properties):
            body = struct.pack("!H", number) + _encode_properties(properties, version)
            return _packet(PacketType.UNSUBACK, 0, body + bytes(codes) if version is V5 else body)
        case PingReq():
            return b"\xc0\x00"
        case PingResp():
            return b"\xd0\x00"
        case Disconnect(reason_code=code, properties=properties):
            if version is not V5 or (not code and properties is NO_PROPERTIES):
                return b"\xe0\x00"
            return _packet(PacketType.DISCONNECT, 0, bytes((code,)) + _encode_properties(properties, version))
        case Auth(reason_code=code, properties=properties):
            if not code and properties is NO_PROPERTIES:
                return b"\xf0\x00"
            return _packet(PacketType.AUTH, 0, bytes((code,)) + _encode_properties(properties, version))
        case Connect():
            return _encode_connect(packet)
        case Subscribe(packet_id=number, subscriptions=subscriptions, properties=properties):
            out = bytearray(struct.pack("!H", number) + _encode_properties(properties, version))
            for item in subscriptions:
                out += _string(item.topic_filter)
                out.append(item.qos | item.no_local << 2 | item.retain_as_published << 3 | item.retain_handling << 4)
            return _packet(PacketType.SUBSCRIBE, 0b0010, bytes(out))
        case Unsubscribe(packet_id=number, topic_filters=filters, properties=properties):
            head = struct.pack("!H", number) + _encode_properties(properties, version)
            return _packet(PacketType.UNSUBSCRIBE, 0b0010, head + b"".join(map(_string, filters)))


def _encode_publish(packet: Publish, version: ProtocolVersion) -> bytes:
    if (packet.packet_id is None) != (packet.qos == 0):
        raise ValueError(f"PUBLISH of QoS {packet.qos} with packet identifier {packet.packet_id!r}")
    flags = packet.dup << 3 | packet.qos << 1 | packet.retain
    number = struct.pack("!H", packet.packet_id) if packet.packet_id is not None else b""
    body = _string(packet.topic) + number + _encode_properties(packet.properties, version) + packet.payload
    return _packet(PacketType.PUBLISH, flags, body)


_ACK_TYPES: Final[Mapping[type[Acknowledgement], PacketType]] = {
    PubAck: PacketType.PUBACK,
    PubRec: PacketType.PUBREC,
    PubRel: PacketType.PUBREL,
    PubComp: PacketType.PUBCOMP,
}


def _encode_acknowledgement(packet: Acknowledgement, version: ProtocolVersion) -> bytes:
    packet_type = _ACK_TYPES[type(packet)]
    body = struct.pack("!H", packet.packet_id)
    if version is V5 and (packet.reason_code or packet.properties is not NO_PROPERTIES):
        body += bytes((packet.reason_code,)) + _encode_properties(packet.properties, version)
    return _packet(packet_type, FLAGS.get(packet_type, 0), body)


def _encode_connect(packet: Connect) -> bytes:
    version, will = packet.version, packet.will
    flags = packet.clean_start << 1 | (packet.username is not None) << 7 | (packet.password is not None) << 6
    tail = _string(packet.client_id)
    if will is not None:
        flags |= 0b100 | will.qos << 3 | will.retain << 5
        tail += _encode_properties(will.properties, version) + _string(will.topic) + _binary(will.payload)
    if packet.username is not None:
        tail += _string(packet.username)
    if packet.password is not None:
        tail += _binary(packet.password)
    head = _string(PROTOCOL_NAME) + struct.pack("!BBH", version, flags, packet.keep_alive)
    return _packet(PacketType.CONNECT, 0, head + _encode_properties(packet.properties, version) + tail)
