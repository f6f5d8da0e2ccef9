"""MQTT bytes to packets, for 3.1.1 and 5; sans-io.

The invariant, tested by feeding it garbage: **bytes are decoded, wait for more, or raise** :class:`PacketError`; never
anything else, and never a packet that :mod:`~devicesim.emulator.encode` would not write. What it will *not* do: know
whose turn it is, judge topics, sizes of payloads or quotas (:mod:`~devicesim.emulator.session`), touch a socket or a
clock.

How strict: everything that the specification marks as a malformed packet or, in the text of one packet, as a protocol
error is refused. One kindness, because MQTT 3.1.1 does not forbid it and small devices do it: a remaining length in
more bytes than needed passes in 3.1.1 and is refused in MQTT 5 (1.5.5).
"""

from collections.abc import Callable, Mapping
from typing import Final

from devicesim.emulator.packets import (
    NO_PROPERTIES,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PacketError,
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
    ReasonCode,
    ReturnCode,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from devicesim.emulator.wire import (
    FLAGS,
    NEVER_ZERO,
    PROPERTY_BY_ID,
    PROTOCOL_NAME,
    REASON_CODES,
    SUBACK_V311,
    WILL,
    Kind,
)

V5: Final = ProtocolVersion.V5


def _malformed(message: str) -> PacketError:
    return PacketError(ReasonCode.MALFORMED_PACKET, message)


def _protocol_error(message: str) -> PacketError:
    return PacketError(ReasonCode.PROTOCOL_ERROR, message)


class _Reader:
    """A cursor over one packet's body. Every read that would pass its end is a malformed packet."""

    __slots__ = ("_data", "_end", "_position", "_what")

    def __init__(self, data: bytes, what: str, position: int = 0, end: int | None = None) -> None:
        self._data = data
        self._position = position
        self._end = len(data) if end is None else end
        self._what = what

    @property
    def left(self) -> int:
        return self._end - self._position

    def take(self, count: int) -> bytes:
        start = self._position
        stop = start + count
        if stop > self._end:
            raise _malformed(f"{self._what} ends {stop - self._end} bytes early, at byte {self._end} of its body")
        self._position = stop
        return self._data[start:stop]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise _malformed(f"{self._what} has a variable byte integer in more bytes than needed")
                return value
        raise _malformed(f"{self._what} has a variable byte integer of more than four bytes")

    def binary(self) -> bytes:
        return self.take(self.u16())

    def string(self) -> str:
        raw = self.binary()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as exc:  # includes surrogates and overlong forms (1.5.4)
            raise _malformed(f"{self._what} has a string that is not UTF-8: {exc.reason}") from None
        if "\0" in text:
            raise _malformed(f"{self._what} has a string with U+0000")
        return text

    def rest(self) -> bytes:
        return self.take(self.left)

    def section(self, length: int) -> "_Reader":
        start = self._position
        self.take(length)
        return _Reader(self._data, self._what, start, start + length)

    def packet_id(self) -> int:
        number = self.u16()
        if number == 0:
            raise _protocol_error(f"{self._what} has packet identifier 0")
        return number

    def finish(self) -> None:
        if self.left:
            raise _malformed(f"{self._what} has {self.left} bytes after its end")


def _read_properties(reader: _Reader, owner: int, what: str) -> Properties:
    length = reader.varint()
    if length == 0:
        return NO_PROPERTIES
    section = reader.section(length)
    values: dict[str, object] = {}
    user: list[tuple[str, str]] = []
    identifiers: list[int] = []
    while section.left:
        number = section.varint()
        known = PROPERTY_BY_ID.get(number)
        if known is None:
            raise _malformed(f"{what} has unknown property {number:#04x}")
        name, kind, owners = known
        if owner not in owners:
            raise _protocol_error(f"{what} has property {name}, which does not belong there")
        value: object
        if kind is Kind.PAIR:
            user.append((section.string(), section.string()))
            continue
        if kind is Kind.FLAG:
            value = section.u8()
            if value not in (0, 1):
                raise _protocol_error(f"{what} has property {name} {value!r}, must be 0 or 1")
        elif kind is Kind.U16:
            value = section.u16()
        elif kind is Kind.U32:
            value = section.u32()
        elif kind is Kind.VARINT:
            value = section.varint()
        elif kind is Kind.STRING:
            value = section.string()
        else:
            value = section.binary()
        if value == 0 and name in NEVER_ZERO:
            raise PacketError(NEVER_ZERO[name], f"{what} has property {name} 0")
        if isinstance(value, int) and kind is Kind.VARINT:
            if identifiers and owner != PacketType.PUBLISH:
                raise _protocol_error(f"{what} has property {name} twice")
            identifiers.append(value)
            continue
        if name in values:
            raise _protocol_error(f"{what} has property {name} twice")
        values[name] = value
    if "authentication_data" in values and "authentication_method" not in values:
        raise _protocol_error(f"{what} has authentication data without an authentication method")  # 3.1.2.11.10
    if user:
        values["user_properties"] = tuple(user)
    if identifiers:
        values["subscription_identifiers"] = tuple(identifiers)
    return Properties(**values)  # type: ignore[arg-type]  # names and types are those of PROPERTIES


def _read_connect(reader: _Reader, _flags: int, _version: ProtocolVersion) -> Connect:
    name = reader.string()
    level = reader.u8()
    if name != PROTOCOL_NAME or level not in (ProtocolVersion.V311, ProtocolVersion.V5):
        raise PacketError(
            ReasonCode.UNSUPPORTED_PROTOCOL_VERSION,
            f"CONNECT asks for protocol {name!r} level {level}, must be 'MQTT' level 4 (3.1.1) or 5",
        )
    version = ProtocolVersion(level)
    flags = reader.u8()
    if flags & 0b1:
        raise _malformed("CONNECT has its reserved flag set")
    has_will = bool(flags & 0b100)
    will_qos = flags >> 3 & 0b11
    will_retain = bool(flags & 0b10_0000)
    if will_qos == 3 or (not has_will and (will_qos or will_retain)):
        raise _malformed(f"CONNECT has will flags {flags:#010b} that contradict each other")
    has_password = bool(flags & 0b100_0000)
    has_username = bool(flags & 0b1000_0000)
    if has_password and not has_username and version is not V5:
        raise _malformed("CONNECT has a password without a user name")  # 3.1.1, 3.1.2.9
    keep_alive = reader.u16()
    properties = _read_properties(reader, PacketType.CONNECT, "CONNECT") if version is V5 else NO_PROPERTIES
    client_id = reader.string()
    will = None
    if has_will:
        will_properties = _read_properties(reader, WILL, "CONNECT's will") if version is V5 else NO_PROPERTIES
        topic = reader.string()
        will = Will(topic=topic, payload=reader.binary(), qos=will_qos, retain=will_retain, properties=will_properties)
    return Connect(
        client_id=client_id,
        version=version,
        clean_start=bool(flags & 0b10),
        keep_alive=keep_alive,
        username=reader.string() if has_username else None,
        password=reader.binary() if has_password else None,
        will=will,
        properties=properties,
    )


def _read_connack(reader: _Reader, _flags: int, version: ProtocolVersion) -> ConnAck:
    flags = reader.u8()
    if flags > 1:
        raise _malformed(f"CONNACK has reserved flags set: {flags:#010b}")
    code = reader.u8()
    if version is not V5:
        if code > ReturnCode.NOT_AUTHORIZED:
            raise _malformed(f"CONNACK has return code {code}, must be 0 to 5")
        return ConnAck(session_present=bool(flags), reason_code=code)
    _check_reason(code, PacketType.CONNACK)
    properties = _read_properties(reader, PacketType.CONNACK, "CONNACK")
    return ConnAck(session_present=bool(flags), reason_code=code, properties=properties)


def _read_publish(reader: _Reader, flags: int, version: ProtocolVersion) -> Publish:
    qos = flags >> 1 & 0b11
    dup = bool(flags & 0b1000)
    if qos == 3:
        raise _malformed("PUBLISH has QoS 3")
    if dup and qos == 0:
        raise _malformed("PUBLISH has the DUP flag with QoS 0")  # 3.3.1.1
    topic = reader.string()
    packet_id = reader.packet_id() if qos else None
    properties = _read_properties(reader, PacketType.PUBLISH, "PUBLISH") if version is V5 else NO_PROPERTIES
    if not topic and properties.topic_alias is None:
        raise _protocol_error("PUBLISH has neither topic nor topic alias")
    return Publish(
        topic=topic,
        payload=reader.rest(),
        qos=qos,
        retain=bool(flags & 0b1),
        dup=dup,
        packet_id=packet_id,
        properties=properties,
    )


def _check_reason(code: int, packet_type: PacketType) -> None:
    if code not in REASON_CODES[packet_type]:
        raise _protocol_error(f"{packet_type.name} has reason code {code:#04x}, which it cannot have")


def _read_reason(reader: _Reader, packet_type: PacketType, version: ProtocolVersion) -> tuple[int, Properties]:
    """The tail that PUBACK and its kin share with DISCONNECT: both parts may be left out (3.4.2.1, 3.14.2.1)."""
    if version is not V5 or not reader.left:
        return ReasonCode.SUCCESS, NO_PROPERTIES
    code = reader.u8()
    _check_reason(code, packet_type)
    properties = _read_properties(reader, packet_type, packet_type.name) if reader.left else NO_PROPERTIES
    return code, properties


def _read_puback(reader: _Reader, _flags: int, version: ProtocolVersion) -> PubAck:
    packet_id = reader.packet_id()
    code, properties = _read_reason(reader, PacketType.PUBACK, version)
    return PubAck(packet_id=packet_id, reason_code=code, properties=properties)


def _read_pubrec(reader: _Reader, _flags: int, version: ProtocolVersion) -> PubRec:
    packet_id = reader.packet_id()
    code, properties = _read_reason(reader, PacketType.PUBREC, version)
    return PubRec(packet_id=packet_id, reason_code=code, properties=properties)


def _read_pubrel(reader: _Reader, _flags: int, version: ProtocolVersion) -> PubRel:
    packet_id = reader.packet_id()
    code, properties = _read_reason(reader, PacketType.PUBREL, version)
    return PubRel(packet_id=packet_id, reason_code=code, properties=properties)


def _read_pubcomp(reader: _Reader, _flags: int, version: ProtocolVersion) -> PubComp:
    packet_id = reader.packet_id()
    code, properties = _read_reason(reader, PacketType.PUBCOMP, version)
    return PubComp(packet_id=packet_id, reason_code=code, properties=properties)


def _read_subscribe(reader: _Reader, _flags: int, version: ProtocolVersion) -> Subscribe:
    packet_id = reader.packet_id()
    properties = _read_properties(reader, PacketType.SUBSCRIBE, "SUBSCRIBE") if version is V5 else NO_PROPERTIES
    subscriptions = []
    while reader.left:
        topic_filter = reader.string()
        options = reader.u8()
        qos = options & 0b11
        retain_handling = options >> 4 & 0b11
        reserved = options & (0b1100_0000 if version is V5 else 0b1111_1100)
        if reserved or qos == 3 or retain_handling == 3:
            raise _malformed(f"SUBSCRIBE has options {options:#010b} for {topic_filter!r}, which cannot be")
        subscriptions.append(
            Subscription(
                topic_filter=topic_filter,
                qos=qos,
                no_local=bool(options & 0b100),
                retain_as_published=bool(options & 0b1000),
                retain_handling=retain_handling,
            )
        )
    if not subscriptions:
        raise _protocol_error("SUBSCRIBE has no topic filter")
    return Subscribe(packet_id=packet_id, subscriptions=tuple(subscriptions), properties=properties)


def _read_suback(reader: _Reader, _flags: int, version: ProtocolVersion) -> SubAck:
    packet_id = reader.packet_id()
    properties = _read_properties(reader, PacketType.SUBACK, "SUBACK") if version is V5 else NO_PROPERTIES
    codes = tuple(reader.rest())
    allowed = REASON_CODES[PacketType.SUBACK] if version is V5 else SUBACK_V311
    if not codes or not allowed.issuperset(codes):
        raise _protocol_error(f"SUBACK has codes {codes!r}, must be one or more of {sorted(allowed)!r}")
    return SubAck(packet_id=packet_id, reason_codes=codes, properties=properties)


def _read_unsubscribe(reader: _Reader, _flags: int, version: ProtocolVersion) -> Unsubscribe:
    packet_id = reader.packet_id()
    properties = _read_properties(reader, PacketType.UNSUBSCRIBE, "UNSUBSCRIBE") if version is V5 else NO_PROPERTIES
    filters = []
    while reader.left:
        filters.append(reader.string())
    if not filters:
        raise _protocol_error("UNSUBSCRIBE has no topic filter")
    return Unsubscribe(packet_id=packet_id, topic_filters=tuple(filters), properties=properties)


def _read_unsuback(reader: _Reader, _flags: int, version: ProtocolVersion) -> UnsubAck:
    packet_id = reader.packet_id()
    if version is not V5:
        return UnsubAck(packet_id=packet_id)
    properties = _read_properties(reader, PacketType.UNSUBACK, "UNSUBACK")
    codes = tuple(reader.rest())
    if not codes or not REASON_CODES[PacketType.UNSUBACK].issuperset(codes):
        raise _protocol_error(f"UNSUBACK has reason codes {codes!r}, which cannot be")
    return UnsubAck(packet_id=packet_id, reason_codes=codes, properties=properties)


def _read_pingreq(_reader: _Reader, _flags: int, _version: ProtocolVersion) -> PingReq:
    return PingReq()


def _read_pingresp(_reader: _Reader, _flags: int, _version: ProtocolVersion) -> PingResp:
    return PingResp()


def _read_disconnect(reader: _Reader, _flags: int, version: ProtocolVersion) -> Disconnect:
    code, properties = _read_reason(reader, PacketType.DISCONNECT, version)
    return Disconnect(reason_code=code, properties=properties)


def _read_auth(reader: _Reader, _flags: int, version: ProtocolVersion) -> Auth:
    if version is not V5:
        raise _malformed("AUTH does not exist in MQTT 3.1.1")
    if not reader.left:
        return Auth()
    code = reader.u8()
    _check_reason(code, PacketType.AUTH)
    return Auth(reason_code=code, properties=_read_properties(reader, PacketType.AUTH, "AUTH"))


_READERS: Final[Mapping[PacketType, Callable[[_Reader, int, ProtocolVersion], Packet]]] = {
    PacketType.CONNECT: _read_connect,
    PacketType.CONNACK: _read_connack,
    PacketType.PUBLISH: _read_publish,
    PacketType.PUBACK: _read_puback,
    PacketType.PUBREC: _read_pubrec,
    PacketType.PUBREL: _read_pubrel,
    PacketType.PUBCOMP: _read_pubcomp,
    PacketType.SUBSCRIBE: _read_subscribe,
    PacketType.SUBACK: _read_suback,
    PacketType.UNSUBSCRIBE: _read_unsubscribe,
    PacketType.UNSUBACK: _read_unsuback,
    PacketType.PINGREQ: _read_pingreq,
    PacketType.PINGRESP: _read_pingresp,
    PacketType.DISCONNECT: _read_disconnect,
    PacketType.AUTH: _read_auth,
}


class Decoder:
    """The bytes of one direction of one connection, to packets.

    A server's decoder starts without a version: its first packet must be CONNECT, which says it. After an error it
    stays broken: MQTT has no way to find the next packet.
    """

    __slots__ = ("_broken", "_buffer", "_max_packet_size", "version")

    def __init__(self, *, max_packet_size: int, version: ProtocolVersion | None = None) -> None:
        self._buffer = bytearray()
        self._max_packet_size = max_packet_size
        self._broken: PacketError | None = None
        self.version = version

    @property
    def buffered(self) -> int:
        """Bytes fed and not yet part of a packet; never more than one packet's maximum plus one feed."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        if self._broken is None:
            self._buffer += data

    def next_packet(self) -> Packet | None:
        """The next whole packet, or ``None`` until more bytes are fed; :class:`PacketError` on anything else."""
        if self._broken is not None:
            raise self._broken
        try:
            return self._next_packet()
        except PacketError as error:
            self._broken = error
            self._buffer.clear()
            raise

    def _next_packet(self) -> Packet | None:
        buffer = self._buffer
        if not buffer:
            return None
        # The first byte is judged before the rest arrives: an HTTP client, or noise, need not be waited for.
        first = buffer[0]
        try:
            packet_type = PacketType(first >> 4)
        except ValueError:
            raise _malformed("first byte has packet type 0, which is reserved") from None
        flags = first & 0b1111
        if packet_type is not PacketType.PUBLISH and flags != FLAGS.get(packet_type, 0):
            raise _malformed(f"{packet_type.name} has flags {flags:#06b}, must be {FLAGS.get(packet_type, 0):#06b}")
        if self.version is None and packet_type is not PacketType.CONNECT:
            raise _protocol_error(f"first packet is {packet_type.name}, must be CONNECT")

        header = _remaining_length(buffer)
        if header is None:
            return None
        length, start, minimal = header
        stop = start + length
        if stop > self._max_packet_size:
            raise PacketError(
                ReasonCode.PACKET_TOO_LARGE,
                f"{packet_type.name} has {stop} bytes, must be at most {self._max_packet_size}",
            )
        if len(buffer) < stop:
            return None
        body = bytes(memoryview(buffer)[start:stop])
        if len(buffer) == stop:
            self._buffer = bytearray()  # lets go of the allocation that a large packet left behind
        else:
            del buffer[:stop]

        reader = _Reader(body, packet_type.name)
        packet = _READERS[packet_type](reader, flags, self.version or ProtocolVersion.V311)
        reader.finish()
        if isinstance(packet, Connect) and self.version is None:
            self.version = packet.version
        if not minimal and self.version is V5:
            raise _malformed(f"{packet_type.name} has a remaining length in more bytes than needed")
        return packet


def _remaining_length(buffer: bytearray) -> tuple[int, int, bool] | None:
    """(remaining length, where the body starts, in as few bytes as possible?), or ``None``: not all of it is here."""
    value = 0
    for index in range(1, 5):
        if index >= len(buffer):
            return None
        byte = buffer[index]
        value |= (byte & 0x7F) << 7 * (index - 1)
        if byte < 0x80:
            return value, index + 1, index == 1 or byte != 0
    raise _malformed("remaining length has more than four bytes")
