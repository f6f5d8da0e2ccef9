"""paho-mqtt as a protocol engine without I/O: bytes in, events out, bytes to send in a buffer.

paho never sees the network. Its socket is :class:`_Wire`, two buffers; ``_create_socket`` is the one private name of
paho that is replaced, here only, pinned by a test. So the exceptions of TLS do not pass through paho, which would
flatten them to "connection lost".

Bytes received are cut into whole packets (:class:`PacketSplitter`) and handed to paho one at a time. That is also where
the rules stand that paho does not keep: CONNACK comes first and once, and a packet has a limit.

It will not: read a clock (keep-alive is the driver's: paho's stands on ``time.monotonic`` in ``loop_misc``, which does
nothing else and is never called), connect again, retry, or speak QoS 2, wills, topic aliases and enhanced
authentication.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, ConnackCode, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devicesim.net.failures import PacketError, PahoError, one_line

Version = Literal["3.1.1", "5"]
QoS = Literal[0, 1]

VERSIONS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}

MAX_PACKET = 1 << 20
"""Largest packet taken from a server, in bytes. AWS's payloads end at 128 KiB (aws-iot-behaviour.md 5); MQTT's own
limit of 256 MiB would let one hostile server take the memory of the whole fleet."""
IN_FLIGHT = 20
"""Unacknowledged QoS 1 messages at once, further ones queue: paho's own default, and mosquitto's. AWS allows 100."""
FAILURE_CODE = 0x80
"""The lowest reason code that says no (MQTT 5, 2.4); SUBACK's only one in 3.1.1."""

_CONNACK_CODES = frozenset(int(code) for code in ConnackCode)
_PINGREQ_BYTES = bytes((PacketTypes.PINGREQ << 4, 0))
_MAX_LENGTH_BYTES = 4
"""Of the remaining length (MQTT 5, 1.5.5)."""
_PREVIEW_BYTES = 24
_HOST = "devicesim"
"""paho wants a host to connect to; it is looked at by nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connack:
    """The server's answer to CONNECT. 0 is yes; everything else is no."""

    code: int
    words: str
    """The code's name, and the server's reason string where it sent one."""
    session_present: bool = False
    keep_alive: int | None = None
    """Server Keep Alive, which replaces ours (MQTT 5, 3.2.2.3.14)."""
    receive_maximum: int | None = None
    """How many QoS 1 messages the server takes at once (MQTT 5, 3.2.2.3.3)."""
    assigned_client_id: str | None = None
    """What the server calls a client that gave no id (MQTT 5, 3.2.2.3.7)."""
    session_expiry: int | None = None
    """Seconds, in place of those asked for (MQTT 5, 3.2.2.3.2)."""
    maximum_qos: int | None = None
    maximum_packet_size: int | None = None
    retain_available: int | None = None
    """0: the server takes no retained messages (MQTT 5, 3.2.2.3.5)."""
    topic_alias_maximum: int | None = None
    server_reference: str | None = None
    """Another server to use (MQTT 5, 3.2.2.3.16)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A PUBLISH received."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A PUBACK or SUBACK."""

    packet_id: int
    reason: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """A PINGRESP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """A DISCONNECT from the server (MQTT 5)."""

    words: str


Event = Connack | Message | Answer | Pong | Disconnect


class PacketSplitter:
    """Cuts a stream of bytes into whole MQTT packets by their fixed headers (MQTT 5, 2.1); knows nothing of their
    bodies.

    However the stream is cut up, the packets are the same.
    """

    __slots__ = ("_buffer", "_limit", "_start")

    def __init__(self, limit: int = MAX_PACKET) -> None:
        self._limit = limit
        self._buffer: bytes | bytearray = b""
        self._start = 0

    def feed(self, data: bytes) -> None:
        if self._start == len(self._buffer):
            self._buffer = data
        else:
            rest = bytearray(self._buffer) if isinstance(self._buffer, bytes) else self._buffer
            del rest[: self._start]
            rest += data
            self._buffer = rest
        self._start = 0

    def next_kind(self) -> int | None:
        """The type of the next packet, as soon as its first byte is there."""
        return self._buffer[self._start] >> 4 if self._start < len(self._buffer) else None

    def next_packet(self) -> bytes | None:
        """The next whole packet, or ``None`` until more is fed. Raises :class:`PacketError` for what is no packet."""
        buffer, start = self._buffer, self._start
        length = 0
        for position in range(start + 1, start + 1 + _MAX_LENGTH_BYTES):
            if position >= len(buffer):
                return None
            byte = buffer[position]
            length |= (byte & 0x7F) << 7 * (position - start - 1)
            if byte < 0x80:
                break
        else:
            raise PacketError(f"{self.preview()} has a remaining length of more than {_MAX_LENGTH_BYTES} bytes")
        end = position + 1 + length
        if end - start > self._limit:
            raise PacketError(f"{self.preview()} is of {end - start} bytes; at most {self._limit} are taken")
        if end > len(buffer):
            return None
        self._start = end
        return bytes(buffer[start:end])

    def preview(self) -> str:
        """The first bytes that are not yet cut off, for a message."""
        return _preview(self._buffer[self._start : self._start + _PREVIEW_BYTES])


class _Wire:
    """What paho takes for its socket: one packet to read, and room for all that it writes. It never fails."""

    __slots__ = ("_inbound", "_position", "outbound")

    def __init__(self) -> None:
        self.outbound = bytearray()
        self._inbound = b""
        self._position = 0

    def put(self, packet: bytes) -> None:
        self._inbound, self._position = packet, 0

    def recv(self, buffer_size: int) -> bytes:
        start = self._position
        if start >= len(self._inbound):
            raise BlockingIOError
        self._position = start + buffer_size
        return self._inbound[start : start + buffer_size]

    def send(self, buffer: bytes | bytearray) -> int:
        self.outbound += buffer
        return len(buffer)

    def close(self) -> None:
        """paho closes its socket when it is done with a connection; the real one is closed elsewhere."""

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""


class _Paho(paho.Client):
    """paho-mqtt with its socket replaced."""

    def __init__(self, wire: _Wire, client_id: str, version: Version, clean_start: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean_start if version == "3.1.1" else None,
            protocol=VERSIONS[version],
            reconnect_on_failure=False,
        )
        self._devicesim_wire = wire
        self.max_inflight_messages = IN_FLIGHT

    def _create_socket(self) -> _Wire:
        return self._devicesim_wire


class Engine:
    """One connection's MQTT, without I/O.

    What is to be sent collects in :attr:`outbound`; the driver writes it and deletes from its front what it wrote.
    After an exception of :meth:`next_event` the connection is over.
    """

    __slots__ = (
        "_accepted",
        "_clean_start",
        "_connack",
        "_events",
        "_paho",
        "_splitter",
        "_unacknowledged",
        "_version",
        "_wire",
        "outbound",
    )

    def __init__(self, client_id: str, *, version: Version = "3.1.1", clean_start: bool = True) -> None:
        self._version = version
        self._clean_start = clean_start
        self._wire = _Wire()
        self.outbound = self._wire.outbound
        self._splitter = PacketSplitter()
        self._events: list[Event] = []
        self._connack: Connack | None = None
        """As paho understood it, in MQTT 5; by it alone nothing is decided."""
        self._accepted = False
        self._unacknowledged: set[int] | None = None
        self._paho = _Paho(self._wire, client_id, version, clean_start)
        # functions and user data rather than bound methods: nothing more is kept a connection
        self._paho.user_data_set(self)
        self._paho.on_message = _on_message
        if version == "5":
            self._paho.on_connect = _on_connect
            self._paho.on_disconnect = _on_disconnect

    def connect(self, *, keep_alive: int = 60, session_expiry: int = 0) -> None:
        """Seconds both; the session's expiry is of MQTT 5."""
        if self._version == "5":
            properties = _connect_properties(session_expiry)
            self._paho.connect(_HOST, keepalive=keep_alive, clean_start=self._clean_start, properties=properties)
        else:
            self._paho.connect(_HOST, keepalive=keep_alive)

    def publish(self, topic: str, payload: bytes, qos: QoS, retain: bool) -> int:
        """The packet id, by which a QoS 1 message is answered. ``ValueError`` for a topic with wildcards."""
        if qos not in (0, 1):
            raise ValueError(f"QoS {qos!r} is not 0 or 1")
        if not topic:  # paho lets it pass in MQTT 5, where it means an alias
            raise ValueError("topic '' is empty")
        if qos == 1 and self._unacknowledged is None:
            self._unacknowledged = set()
            # set this late, for where it is set paho makes a Properties object a QoS 0 message
            self._paho.on_publish = _on_publish
        info = self._paho.publish(topic, payload, qos, retain)
        _require_taken(info.rc)
        if qos == 1:
            assert self._unacknowledged is not None
            self._unacknowledged.add(info.mid)
        return info.mid

    def subscribe(self, topic_filter: str, qos: QoS) -> int:
        """The packet id, by which it is answered. ``ValueError`` for a filter that is none."""
        if qos not in (0, 1):
            raise ValueError(f"QoS {qos!r} is not 0 or 1")
        self._paho.on_subscribe = _on_subscribe
        rc, packet_id = self._paho.subscribe(topic_filter, qos)
        _require_taken(rc)
        assert packet_id is not None
        return packet_id

    def ping(self) -> None:
        """paho has no call for it, but whole packets are all that it writes, so this stands between two of them."""
        self.outbound += _PINGREQ_BYTES

    def disconnect(self) -> None:
        self._paho.disconnect()

    def release(self) -> None:
        """Break the cycle between paho and this object, so that both are freed at once. Nothing works after this."""
        self._paho.user_data_set(None)

    def feed(self, data: bytes) -> None:
        """Take bytes from the server. :meth:`next_event` must have said ``None`` to what came before."""
        self._splitter.feed(data)

    def next_event(self) -> Event | None:
        """What the server said next, or ``None`` until more is fed. Raises :class:`PacketError`, ``UnicodeError``."""
        while not self._events:
            if not self._accepted and self._splitter.next_kind() not in (None, PacketTypes.CONNACK):
                # at once: what looks like a long packet is the start of something else
                raise PacketError(f"{self._splitter.preview()} where CONNACK must stand")
            packet = self._splitter.next_packet()
            if packet is None:
                return None
            self._handle(packet)
        return self._events.pop(0)

    def _handle(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if not self._accepted:
            self._events.append(self._handle_connack(packet))
            return
        if kind == PacketTypes.CONNACK:
            raise PacketError(f"{_preview(packet)} is a second one")
        rc = self._give(packet)
        if kind == PacketTypes.PINGRESP and rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._events.append(Pong())
        if rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):  # NO_CONN after DISCONNECT
            raise PacketError(f"{_preview(packet)}: {paho.error_string(rc)}")

    def _handle_connack(self, packet: bytes) -> Connack:
        """The code is read off the packet: paho hides some behind "protocol error", those that it does not know too."""
        start = next(at for at in range(1, len(packet)) if packet[at] < 0x80) + 1
        if len(packet) < start + 2 or (self._version == "3.1.1" and len(packet) != start + 2):
            raise PacketError(f"malformed {_preview(packet)}")
        code = packet[start + 1]
        rc = self._give(packet)
        if self._version == "3.1.1":
            words = paho.connack_string(ConnackCode(code)) if code in _CONNACK_CODES else "unknown return code"
            flags = packet[start]
            self._accepted = code == 0
            return Connack(code=code, words=f"{code} {words}", session_present=bool(flags & 1))
        if code == 0 and (rc != MQTTErrorCode.MQTT_ERR_SUCCESS or self._connack is None):
            raise PacketError(f"malformed {_preview(packet)}")
        self._accepted = code == 0
        if self._connack is None:
            return Connack(code=code, words=f"0x{code:02x} unknown reason code")
        return self._connack if self._connack.code == code else replace(self._connack, code=code)

    def _give(self, packet: bytes) -> MQTTErrorCode:
        self._wire.put(packet)
        rc = self._paho.loop_read()
        if self._paho.want_write():
            self._paho.loop_write()
        return rc


def _require_taken(rc: MQTTErrorCode) -> None:
    if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
        raise PahoError(rc)


# --- what paho calls, with the engine as its user data


def _on_connect(
    _client: paho.Client, engine: Engine, flags: paho.ConnectFlags, reason: ReasonCode, properties: Properties | None
) -> None:
    engine._connack = Connack(
        code=reason.value,
        words=_reason_words(reason, properties),
        session_present=flags.session_present,
        keep_alive=getattr(properties, "ServerKeepAlive", None),
        receive_maximum=getattr(properties, "ReceiveMaximum", None),
        assigned_client_id=getattr(properties, "AssignedClientIdentifier", None),
        session_expiry=getattr(properties, "SessionExpiryInterval", None),
        maximum_qos=getattr(properties, "MaximumQoS", None),
        maximum_packet_size=getattr(properties, "MaximumPacketSize", None),
        retain_available=getattr(properties, "RetainAvailable", None),
        topic_alias_maximum=getattr(properties, "TopicAliasMaximum", None),
        server_reference=getattr(properties, "ServerReference", None),
    )


def _on_disconnect(
    _client: paho.Client, engine: Engine, flags: paho.DisconnectFlags, reason: ReasonCode, properties: Properties | None
) -> None:
    if flags.is_disconnect_packet_from_server:
        engine._events.append(Disconnect(words=_reason_words(reason, properties)))


def _on_message(_client: paho.Client, engine: Engine, message: paho.MQTTMessage) -> None:
    engine._events.append(
        Message(
            topic=message.topic,  # raises UnicodeDecodeError for what is no UTF-8: a protocol error
            payload=bytes(message.payload),
            qos=message.qos,
            retain=message.retain,
        )
    )


def _on_publish(
    _client: paho.Client, engine: Engine, packet_id: int, reason: ReasonCode, properties: Properties | None
) -> None:
    # paho calls this for a QoS 0 message too, when it is written
    if engine._unacknowledged and packet_id in engine._unacknowledged:
        engine._unacknowledged.remove(packet_id)
        engine._events.append(Answer(packet_id=packet_id, reason=reason.value, words=_reason_words(reason, properties)))


def _on_subscribe(
    _client: paho.Client, engine: Engine, packet_id: int, reasons: list[ReasonCode], properties: Properties | None
) -> None:
    if not reasons:
        raise PacketError(f"SUBACK for packet {packet_id} without a reason code")
    engine._events.append(
        Answer(packet_id=packet_id, reason=reasons[0].value, words=_reason_words(reasons[0], properties))
    )


def _reason_words(reason: ReasonCode, properties: Properties | None) -> str:
    words = f"0x{reason.value:02x} {reason.getName()}"
    said = getattr(properties, "ReasonString", None)
    return one_line(f"{words}: {said}" if said else words)


@lru_cache(maxsize=16)
def _connect_properties(session_expiry: int) -> Properties | None:
    """Shared by all connections: paho keeps the object, and each would be 5.6 KB (mqtt-measured.md)."""
    if not session_expiry:
        return None
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho left it untyped
    properties.SessionExpiryInterval = session_expiry
    return properties


def _preview(packet: bytes | bytearray) -> str:
    """The first bytes of a packet, for a message."""
    return f"{PacketTypes.Names[packet[0] >> 4].upper()} packet {bytes(packet[:_PREVIEW_BYTES])!r}"
