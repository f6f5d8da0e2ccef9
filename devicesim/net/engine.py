"""paho-mqtt as a protocol engine without I/O: bytes in, events out, bytes to send in a buffer.

paho never sees the network. Its socket is :class:`devicesim.net.wire.Wire`, two buffers; ``_create_socket`` is the one
private name of paho that is replaced, here only, pinned by a test, as are those that are looked at. So the exceptions
of TLS do not pass through paho, which would flatten them to "connection lost".

Bytes received are cut into whole packets (:class:`PacketSplitter`) and handed to paho one at a time. That is also where
the rules stand that paho does not keep: CONNACK comes first and once, and a packet has a limit.

**paho is made when a session needs it.** Half of a fleet's connections end with a refusal, and the others publish: a
client of paho's each would be 10 KB and, a message, 0.1 ms for nothing. So CONNECT is what paho wrote once for these
settings, with this client id in it; a CONNACK is what paho made of the same bytes before; PUBLISH and PUBACK are
:mod:`devicesim.net.publishing`'s; and PINGREQ, PINGRESP and DISCONNECT are two bytes. The first packet of another kind,
in either direction (SUBSCRIBE, a message from the server), makes the client, which goes through the same CONNECT and
CONNACK and is as if it had been there all along.

It will not: read a clock (keep-alive is the driver's: paho's stands on ``time.monotonic`` in ``loop_misc``, which does
nothing else and is never called), connect again, retry, or speak QoS 2, wills, topic aliases and enhanced
authentication.
"""

from collections import deque
from dataclasses import dataclass, replace
from functools import lru_cache

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, ConnackCode, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devicesim.net.failures import PacketError, PahoError
from devicesim.net.publishing import MAX_TEXT, publish_packet, read_puback, reason_words
from devicesim.net.publishing import QoS as QoS
from devicesim.net.publishing import Version as Version
from devicesim.net.splitter import PacketSplitter, body_start, preview, remaining_length
from devicesim.net.wire import Wire

VERSIONS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}

IN_FLIGHT = 20
"""Unacknowledged QoS 1 messages at once, further ones queue: paho's own default, and mosquitto's. AWS allows 100."""
FAILURE_CODE = 0x80
"""The lowest reason code that says no (MQTT 5, 2.4); SUBACK's only one in 3.1.1."""

_CONNACK_CODES = frozenset(int(code) for code in ConnackCode)
_CONNECT_BYTE = bytes((PacketTypes.CONNECT << 4,))
_PINGREQ_BYTES = bytes((PacketTypes.PINGREQ << 4, 0))
_PINGRESP_BYTES = bytes((PacketTypes.PINGRESP << 4, 0))
_DISCONNECT_BYTES = bytes((PacketTypes.DISCONNECT << 4, 0))
_MAX_PACKET_ID = 0xFFFF
_MAX_CONNACK_REMEMBERED = 256
"""Bytes. A fleet meets a few kinds of CONNACK; one that is longer than this is no reason to keep it."""
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


class _Paho(paho.Client):
    """paho-mqtt with its socket replaced."""

    def __init__(self, wire: Wire, client_id: str, version: Version, clean_start: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean_start if version == "3.1.1" else None,
            protocol=VERSIONS[version],
            reconnect_on_failure=False,
        )
        self._devicesim_wire = wire
        self._devicesim_clean_start = clean_start
        self.max_inflight_messages = IN_FLIGHT

    def _create_socket(self) -> Wire:
        return self._devicesim_wire

    def send_connect(self, *, keep_alive: int, session_expiry: int) -> None:
        if self.protocol == MQTTProtocolVersion.MQTTv5:
            properties = _connect_properties(session_expiry)
            self.connect(_HOST, keepalive=keep_alive, clean_start=self._devicesim_clean_start, properties=properties)
        else:
            self.connect(_HOST, keepalive=keep_alive)

    def use(self, outbound: bytearray, last_id: int) -> None:
        """Write to this from now on, and number packets from the one after ``last_id`` on."""
        self._devicesim_wire.outbound = outbound
        self._last_mid = last_id

    @property
    def last_id(self) -> int:
        """The packet id that was given out last."""
        return self._last_mid

    def give(self, packet: bytes) -> MQTTErrorCode:
        """One packet from the server; what is to be answered is written."""
        self._devicesim_wire.put(packet)
        rc = self.loop_read()
        if self.want_write():
            self.loop_write()
        return rc


# --- the packets at a connection's beginning, without a client of paho's own


def connect_packet(
    client_id: str, *, version: Version, clean_start: bool, keep_alive: int, session_expiry: int
) -> bytes:
    """CONNECT as paho writes it, to the byte."""
    head = _connect_head(version, clean_start, keep_alive, session_expiry)
    name = client_id.encode()
    lengths = remaining_length(len(head) + 2 + len(name))
    return b"".join((_CONNECT_BYTE, lengths, head, len(name).to_bytes(2, "big"), name))


@lru_cache(maxsize=64)
def _connect_head(version: Version, clean_start: bool, keep_alive: int, session_expiry: int) -> bytes:
    """All of paho's CONNECT between the remaining length and the client id, which is its last field."""
    wire = Wire()
    _Paho(wire, "x", version, clean_start).send_connect(keep_alive=keep_alive, session_expiry=session_expiry)
    packet = bytes(wire.outbound)
    assert packet[0:1] == _CONNECT_BYTE
    assert packet[1] == len(packet) - 2 < 0x80
    assert packet.endswith(b"\x00\x01x")
    return packet[2:-3]


def connack_event(packet: bytes, version: Version) -> Connack:
    """What a CONNACK says, as paho understands it. Raises :class:`PacketError` where it is malformed."""
    if len(packet) > _MAX_CONNACK_REMEMBERED:
        return _read_connack(packet, version)
    return _known_connack(packet, version)


def _read_connack(packet: bytes, version: Version) -> Connack:
    """The code is read off the packet: paho hides some behind "protocol error", those that it does not know too."""
    start = body_start(packet)
    if len(packet) < start + 2 or (version == "3.1.1" and len(packet) != start + 2):
        raise PacketError(f"malformed {preview(packet)}")
    flags, code = packet[start], packet[start + 1]
    if version == "3.1.1":
        words = paho.connack_string(ConnackCode(code)) if code in _CONNACK_CODES else "unknown return code"
        return Connack(code=code, words=f"{code} {words}", session_present=bool(flags & 1))
    client = _Paho(Wire(), "x", version, True)
    seen: list[Connack] = []
    client.user_data_set(seen)
    client.on_connect = _on_connect
    client.send_connect(keep_alive=60, session_expiry=0)
    rc = client.give(packet)
    if code == 0 and (rc != MQTTErrorCode.MQTT_ERR_SUCCESS or not seen):
        raise PacketError(f"malformed {preview(packet)}")
    if not seen:
        return Connack(code=code, words=f"0x{code:02x} unknown reason code")
    return seen[0] if seen[0].code == code else replace(seen[0], code=code)


_known_connack = lru_cache(maxsize=64)(_read_connack)


class Engine:
    """One connection's MQTT, without I/O.

    What is to be sent collects in :attr:`outbound`; the driver writes it and deletes from its front what it wrote.
    After an exception of :meth:`next_event` the connection is over.
    """

    __slots__ = (
        "_accepted",
        "_clean_start",
        "_client_id",
        "_connack",
        "_connect",
        "_disconnected",
        "_events",
        "_last_id",
        "_paho",
        "_queued",
        "_splitter",
        "_unacknowledged",
        "_version",
        "outbound",
    )

    def __init__(self, client_id: str, *, version: Version = "3.1.1", clean_start: bool = True) -> None:
        """``ValueError`` for a client id that cannot be sent, and for none where the session is to be kept (3.1.1)."""
        self._client_id = client_id
        self._version = version
        self._clean_start = clean_start
        self.outbound = bytearray()
        self._splitter = PacketSplitter()
        self._events: list[Event] | None = None
        self._connect = (60, 0)
        """What :meth:`connect` was asked for."""
        self._connack = b""
        """The packet that accepted us."""
        self._accepted = False
        self._disconnected = False
        self._unacknowledged: set[int] | None = None
        """Messages that wait for their PUBACK; none, no set: 0.2 KB."""
        self._queued: deque[tuple[int, bytes]] | None = None
        """Messages that wait until fewer than :data:`IN_FLIGHT` do."""
        self._last_id = 0
        """The packet id that was given out last."""
        self._paho: _Paho | None = None
        if not client_id and not clean_start and version == "3.1.1":
            raise ValueError("a client id '' needs a clean session (MQTT 3.1.1, 3.1.3.1)")
        if len(client_id.encode()) > MAX_TEXT:
            raise ValueError(f"client id {client_id[:40]!r}... has more than {MAX_TEXT} bytes")

    def connect(self, *, keep_alive: int = 60, session_expiry: int = 0) -> None:
        """Seconds both; the session's expiry is of MQTT 5."""
        self._connect = (keep_alive, session_expiry)
        self.outbound += connect_packet(
            self._client_id,
            version=self._version,
            clean_start=self._clean_start,
            keep_alive=keep_alive,
            session_expiry=session_expiry,
        )

    def publish(self, topic: str, payload: bytes, qos: QoS, retain: bool) -> int:
        """The packet id, by which a QoS 1 message is answered. ``ValueError`` for a topic with wildcards."""
        if qos not in (0, 1):
            raise ValueError(f"QoS {qos!r} is not 0 or 1")
        packet_id = self._last_id % _MAX_PACKET_ID + 1
        version = self._version
        packet = publish_packet(topic, payload, qos=qos, retain=retain, packet_id=packet_id, version=version)
        if self._disconnected:
            raise PahoError(MQTTErrorCode.MQTT_ERR_NO_CONN)
        self._last_id = packet_id
        if qos == 1:
            self._send_or_queue(packet_id, packet)
        else:
            self.outbound += packet
        return packet_id

    def _send_or_queue(self, packet_id: int, packet: bytes) -> None:
        if self._unacknowledged is None:
            self._unacknowledged = set()
        if len(self._unacknowledged) < IN_FLIGHT:
            self._unacknowledged.add(packet_id)
            self.outbound += packet
        else:
            if self._queued is None:
                self._queued = deque()
            self._queued.append((packet_id, packet))

    def subscribe(self, topic_filter: str, qos: QoS) -> int:
        """The packet id, by which it is answered. ``ValueError`` for a filter that is none."""
        if qos not in (0, 1):
            raise ValueError(f"QoS {qos!r} is not 0 or 1")
        session = self._session()
        session.use(self.outbound, self._last_id)
        rc, packet_id = session.subscribe(topic_filter, qos)
        self._last_id = session.last_id
        if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise PahoError(rc)
        assert packet_id is not None
        return packet_id

    def ping(self) -> None:
        """paho has no call for it, but whole packets are all that it writes, so this stands between two of them."""
        self.outbound += _PINGREQ_BYTES

    def disconnect(self) -> None:
        self._disconnected = True
        if self._paho is None:
            self.outbound += _DISCONNECT_BYTES
        else:
            self._paho.disconnect()

    def release(self) -> None:
        """Break the cycle between paho and this object, so that both are freed at once. Nothing works after this."""
        if self._paho is not None:
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
            if not self._accepted:
                connack = connack_event(packet, self._version)
                self._accepted = connack.code == 0
                self._connack = packet
                return connack
            if packet == _PINGRESP_BYTES and self._paho is None and not self._disconnected:
                return Pong()
            self._handle(packet)
        event = self._events.pop(0)
        if not self._events:
            self._events = None  # thousands of connections have none for most of the time
        return event

    def _handle(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if kind == PacketTypes.PUBACK:
            self._acknowledged(packet)
            return
        if kind == PacketTypes.CONNACK:
            raise PacketError(f"{preview(packet)} is a second one")
        rc = self._session().give(packet)
        if kind == PacketTypes.PINGRESP and rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._told(Pong())
        if rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):  # NO_CONN after DISCONNECT
            raise PacketError(f"{preview(packet)}: {paho.error_string(rc)}")

    def _acknowledged(self, packet: bytes) -> None:
        packet_id, reason, words = read_puback(packet, self._version)
        waiting = self._unacknowledged
        if waiting is None or packet_id not in waiting or self._disconnected:
            return  # a server may answer what was not asked, or answer twice
        waiting.remove(packet_id)
        self._told(Answer(packet_id=packet_id, reason=reason, words=words))
        if self._queued:
            self._send_or_queue(*self._queued.popleft())
        elif not waiting:
            self._unacknowledged = None

    def _told(self, event: Event) -> None:
        if self._events is None:
            self._events = []
        self._events.append(event)

    def _session(self) -> _Paho:
        """paho's client, brought to where this connection is if it was not needed until now."""
        if self._paho is not None:
            return self._paho
        session = self._brought_up()
        session.use(self.outbound, self._last_id)
        # functions and user data rather than bound methods: nothing more is kept a connection
        session.user_data_set(self)
        session.on_message = _on_message
        session.on_subscribe = _on_subscribe
        if self._version == "5":
            session.on_disconnect = _on_disconnect
        self._paho = session
        return session

    def _brought_up(self) -> _Paho:
        """A new client. What it writes meanwhile has been on the wire already."""
        session = _Paho(Wire(), self._client_id, self._version, self._clean_start)
        keep_alive, session_expiry = self._connect
        session.send_connect(keep_alive=keep_alive, session_expiry=session_expiry)
        if self._connack:
            session.give(self._connack)
        if self._disconnected:
            session.disconnect()
        return session


# --- what paho calls, with the engine (or, at first, where to put what it saw) as its user data


def _on_connect(
    _client: paho.Client,
    seen: list[Connack],
    flags: paho.ConnectFlags,
    reason: ReasonCode,
    properties: Properties | None,
) -> None:
    seen.append(
        Connack(
            code=reason.value,
            words=reason_words(reason, properties),
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
    )


def _on_disconnect(
    _client: paho.Client, engine: Engine, flags: paho.DisconnectFlags, reason: ReasonCode, properties: Properties | None
) -> None:
    if flags.is_disconnect_packet_from_server:
        engine._told(Disconnect(words=reason_words(reason, properties)))


def _on_message(_client: paho.Client, engine: Engine, message: paho.MQTTMessage) -> None:
    engine._told(
        Message(
            topic=message.topic,  # raises UnicodeDecodeError for what is no UTF-8: a protocol error
            payload=bytes(message.payload),
            qos=message.qos,
            retain=message.retain,
        )
    )


def _on_subscribe(
    _client: paho.Client, engine: Engine, packet_id: int, reasons: list[ReasonCode], properties: Properties | None
) -> None:
    if not reasons:
        raise PacketError(f"SUBACK for packet {packet_id} without a reason code")
    engine._told(Answer(packet_id=packet_id, reason=reasons[0].value, words=reason_words(reasons[0], properties)))


@lru_cache(maxsize=16)
def _connect_properties(session_expiry: int) -> Properties | None:
    """Shared by all connections: paho keeps the object, and each would be 5.6 KB (mqtt-measured.md)."""
    if not session_expiry:
        return None
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho left it untyped
    properties.SessionExpiryInterval = session_expiry
    return properties
