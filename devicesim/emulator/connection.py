"""One MQTT connection of the emulator, sans-io: bytes in, packets out; packets in, bytes out.

It knows the protocol's phases and the peer's limits, and keeps what waits to be written in the order in which it was
decided. It will *not* decide anything: who is admitted is :mod:`~devicesim.emulator.admission`'s, what a packet does is
:mod:`~devicesim.emulator.broker`'s, when the bytes leave is the gateway's.
"""

from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Protocol

from devicesim.emulator.decode import Decoder
from devicesim.emulator.encode import encode
from devicesim.emulator.packets import (
    NO_PROPERTIES,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PacketError,
    PingReq,
    PingResp,
    Properties,
    ProtocolVersion,
    Publish,
    ReasonCode,
    ReturnCode,
)
from devicesim.emulator.settings import Settings


class Phase(Enum):
    WAITING = "waiting"
    """TLS is up; the first packet must be CONNECT."""
    LIVE = "live"
    """CONNACK 0 has been queued."""
    ENDED = "ended"
    """Nothing more is read or decided; what is queued may still be written."""


class DisconnectReason(StrEnum):
    """Why a connection ended, in the words of AWS's lifecycle events (§5)."""

    AUTH_ERROR = "AUTH_ERROR"
    CLIENT_INITIATED_DISCONNECT = "CLIENT_INITIATED_DISCONNECT"
    CLIENT_ERROR = "CLIENT_ERROR"
    CONNECTION_LOST = "CONNECTION_LOST"
    DUPLICATE_CLIENTID = "DUPLICATE_CLIENTID"
    FORBIDDEN_ACCESS = "FORBIDDEN_ACCESS"
    MQTT_KEEP_ALIVE_TIMEOUT = "MQTT_KEEP_ALIVE_TIMEOUT"
    SERVER_ERROR = "SERVER_ERROR"
    SERVER_INITIATED_DISCONNECT = "SERVER_INITIATED_DISCONNECT"
    API_INITIATED_DISCONNECT = "API_INITIATED_DISCONNECT"
    THROTTLED = "THROTTLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a connection ended."""

    reason: DisconnectReason
    detail: str
    graceful: bool = False
    """The client said DISCONNECT without asking for its will."""
    flush: bool = True
    """Whether what is queued is still worth writing."""


class Watcher(Protocol):
    """Whoever moves the bytes. Told synchronously, so it must only take note."""

    def output_waits(self, connection: "Connection") -> None: ...

    def ended(self, connection: "Connection") -> None: ...

    def refused(self, connection: "Connection", detail: str, *, denied: bool) -> None: ...


class Permissions(Protocol):
    """What the policies of the connected certificate allow, at this moment."""

    def allows(self, action: str, kind: str, name: str) -> bool:
        """``action`` such as ``iot:Publish`` on the resource ``<kind>/<name>`` of the account and Region."""
        ...


class NoPermissions:
    """Before admission, nothing is allowed."""

    def allows(self, action: str, kind: str, name: str) -> bool:  # noqa: ARG002 - the protocol's signature
        return False


class Connection:
    """One client's connection. Bytes and time come in through the methods; see the module."""

    __slots__ = (
        "_decoder",
        "_watcher",
        "aliases",
        "client_id",
        "end",
        "keep_alive_timeout",
        "last_packet",
        "max_outbound_packet",
        "outbound",
        "outbound_alias_maximum",
        "outbound_aliases",
        "permissions",
        "phase",
        "problem_information",
        "receive_denied",
        "send_window",
        "settings",
    )

    def __init__(self, *, settings: Settings, watcher: Watcher, now: float) -> None:
        self.settings = settings
        self.phase = Phase.WAITING
        self.end: End | None = None
        self.outbound = bytearray()
        """Queued and not yet taken by the gateway, which removes from the front what it has written."""
        self.client_id = ""
        self.permissions: Permissions = NoPermissions()
        self.aliases: dict[int, str] = {}
        """Topic aliases that the client has set (MQTT 5)."""
        self.outbound_alias_maximum = 0
        """The client's Topic Alias Maximum (MQTT 5), or our own limit where that is lower."""
        self.outbound_aliases: dict[str, int] = {}
        """Topic aliases that the client has been told."""
        self.keep_alive_timeout = 0.0
        """Seconds of silence after which it is disconnected; set by CONNECT."""
        self.last_packet = now
        self.max_outbound_packet: int | None = None
        """The client's Maximum Packet Size (MQTT 5)."""
        self.send_window = settings.max_inflight
        """How many QoS 1 messages may wait for their PUBACK."""
        self.problem_information = True
        """Whether the client wants reason strings (3.1.2.11.7)."""
        self.receive_denied = False
        """Whether the history has it that policies kept a message from the client; once is enough."""
        self._decoder = Decoder(max_packet_size=settings.max_packet_bytes)
        self._watcher = watcher

    def enrichment(self) -> tuple[tuple[str, str], ...]:
        """User properties that are added to each message that the client publishes."""
        return ()

    @property
    def principal(self) -> str | None:
        """Id of the certificate that the client has shown; ``None`` where there are none."""
        return None

    @property
    def version(self) -> ProtocolVersion:
        """3.1.1 until CONNECT says otherwise."""
        return self._decoder.version or ProtocolVersion.V311

    @property
    def is_v5(self) -> bool:
        return self._decoder.version is ProtocolVersion.V5

    @property
    def buffered(self) -> int:
        """Bytes received and not yet part of a packet."""
        return self._decoder.buffered

    def feed(self, data: bytes) -> None:
        if self.phase is not Phase.ENDED:
            self._decoder.feed(data)

    def next_packet(self, now: float) -> Packet | None:
        """The next whole packet; ``None`` when there is none, or when the client's bytes ended the connection."""
        if self.phase is Phase.ENDED:
            return None
        try:
            packet = self._decoder.next_packet()
        except PacketError as error:
            if error.reason_code is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION:
                # 3.1.1, MQTT-3.1.2-2; in its form, which every client can read. AWS's own answer: unknown (I)
                self.send(ConnAck(reason_code=ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION))
            self.fail(error.reason_code, f"not acceptable as MQTT: {error}")
            return None
        if packet is not None:
            self.last_packet = now
        if isinstance(packet, Connect) and self.phase is Phase.WAITING:
            self._take_limits(packet.properties)
        return packet

    def _take_limits(self, asked: Properties) -> None:
        """What the client says that it can take (MQTT 5)."""
        if asked.receive_maximum is not None:
            self.send_window = min(self.settings.max_inflight, asked.receive_maximum)
        self.max_outbound_packet = asked.maximum_packet_size
        self.outbound_alias_maximum = min(self.settings.max_topic_alias_outbound, asked.topic_alias_maximum or 0)
        self.problem_information = asked.request_problem_information != 0

    def send(self, packet: Packet) -> bool:
        """Queue ``packet``; ``False`` when the client will never see it."""
        if self.phase is Phase.ENDED:
            return False
        data = encode(packet, self.version)
        if self.max_outbound_packet is not None and len(data) > self.max_outbound_packet:
            if isinstance(packet, Publish):
                return False  # dropped as if it had been sent (MQTT-3.1.2-25)
            accepted = isinstance(packet, ConnAck) and packet.reason_code == ReasonCode.SUCCESS
            if accepted or isinstance(packet, PingReq | PingResp | Connect):
                self._give_up_small(len(data))  # what CONNACK 0 says cannot be left out
                return False
            data = encode(replace(packet, properties=NO_PROPERTIES), self.version)  # no reason string (MQTT-3.1.2-24)
            if len(data) > self.max_outbound_packet:
                self._give_up_small(len(data))
                return False
        if not self.outbound:
            self._watcher.output_waits(self)
        self.outbound += data
        if len(self.outbound) > self.settings.max_outbound_bytes:
            self.finish(
                End(
                    reason=DisconnectReason.THROTTLED,
                    detail=f"client does not read: {len(self.outbound)} bytes wait, the limit is"
                    f" {self.settings.max_outbound_bytes}",
                    flush=False,
                )
            )
            return False
        return True

    def resolve_alias(self, packet: Publish) -> str | None:
        """The topic of the client's PUBLISH, whose alias may stand for it; ``None`` when that has ended the connection
        (3.3.2.3.4)."""
        alias = packet.properties.topic_alias
        if alias is None:
            return packet.topic
        if alias > self.settings.max_topic_alias:
            self.fail(ReasonCode.TOPIC_ALIAS_INVALID, f"topic alias {alias} is above the maximum")
            return None
        if packet.topic:
            self.aliases[alias] = packet.topic
            return packet.topic
        topic = self.aliases.get(alias)
        if topic is None:
            self.fail(ReasonCode.PROTOCOL_ERROR, f"topic alias {alias} has not been set")
        return topic

    def send_publish(self, packet: Publish) -> bool:
        """:meth:`send`, with a topic alias where the client takes them: the first topics each get one (3.3.2.3.4)."""
        if not self.outbound_alias_maximum:
            return self.send(packet)
        topic = packet.topic
        known = self.outbound_aliases.get(topic)
        alias = known or len(self.outbound_aliases) + 1
        if alias > self.outbound_alias_maximum:
            return self.send(packet)
        aliased = replace(
            packet, topic="" if known else topic, properties=replace(packet.properties, topic_alias=alias)
        )
        limit = self.max_outbound_packet
        if limit is not None and len(encode(aliased, self.version)) > limit:
            return self.send(packet)  # three bytes less, or a topic that is shorter than its alias
        if not self.send(aliased):
            return False
        self.outbound_aliases[topic] = alias
        return True

    def fail(
        self,
        code: ReasonCode,
        detail: str,
        *,
        reason: DisconnectReason = DisconnectReason.CLIENT_ERROR,
        reason_string: str | None = None,
    ) -> None:
        """End it from our side: with DISCONNECT where the client has MQTT 5 and a CONNACK, else by closing (4.13)."""
        if self.phase is Phase.LIVE and self.is_v5:
            text = reason_string if self.problem_information else None
            properties = NO_PROPERTIES if text is None else Properties(reason_string=text)
            self.send(Disconnect(reason_code=code, properties=properties))
        self.finish(End(reason=reason, detail=detail))

    def refuse(self, detail: str, *, denied: bool) -> None:
        """Something was refused, and the connection lives on: for the history. ``denied`` says that policies did it."""
        self._watcher.refused(self, detail, denied=denied)

    def finish(self, end: End) -> None:
        """Nothing more is read or queued. The first end counts."""
        if self.phase is Phase.ENDED:
            return
        self.phase = Phase.ENDED
        self.end = end
        self._watcher.ended(self)

    def _give_up_small(self, size: int) -> None:
        detail = f"client takes packets of {self.max_outbound_packet} bytes, the next has {size}"
        self.finish(End(reason=DisconnectReason.CLIENT_ERROR, detail=detail))
