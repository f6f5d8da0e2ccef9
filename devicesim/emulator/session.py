"""MQTT sessions: what of a client may outlive its connection (4.1), and QoS 1 towards it.

A session holds the client's subscriptions, the QoS 1 messages sent and not acknowledged, and those that wait because
the window is full or the client is away. It does not know other clients; the broker finds out which sessions a message
concerns. Time is an argument.
"""

from collections import deque
from dataclasses import dataclass, replace

from devicesim.emulator.connection import Connection, DisconnectReason, Phase
from devicesim.emulator.packets import NO_PROPERTIES, Properties, Publish, ReasonCode, Subscription, Will
from devicesim.emulator.settings import Settings
from devicesim.emulator.timers import Timer

RECEIVE = "iot:Receive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An application message within one account and Region; one record for all its receivers."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    """As the publisher said."""
    properties: Properties = NO_PROPERTIES
    """Those that travel with the message (3.3.2.3); without topic alias and expiry."""
    expires_at: float | None = None
    """On the broker's clock; from the Message Expiry Interval."""
    publisher: str | None = None
    """Client id; ``None`` for the service itself."""

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message on its way to one session."""

    message: Message
    qos: int
    """The lower of the publisher's and the subscription's."""
    retain: bool
    """The RETAIN flag as this subscriber is to see it."""


class Session:
    """One client id's session in one account and Region."""

    __slots__ = (
        "_inflight",
        "_last_packet_id",
        "_settings",
        "_waiting",
        "client_id",
        "connection",
        "dropped",
        "expiry",
        "expiry_timer",
        "subscriptions",
        "will",
        "will_timer",
    )

    def __init__(self, client_id: str, *, settings: Settings) -> None:
        self.client_id = client_id
        self.connection: Connection | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.expiry = 0.0
        """Seconds that it outlives its connection; 0 ends it with the connection."""
        self.expiry_timer: Timer | None = None
        self.will: Will | None = None
        """Of the connection under way, or of the last one while its delay runs."""
        self.will_timer: Timer | None = None
        self.dropped = 0
        """Messages that found no room while the client was away."""
        self._settings = settings
        self._inflight: dict[int, Delivery] = {}
        self._waiting: deque[Delivery] = deque()
        self._last_packet_id = 0

    @property
    def pending(self) -> int:
        """QoS 1 messages not yet acknowledged or not yet sent."""
        return len(self._inflight) + len(self._waiting)

    def deliver(self, delivery: Delivery, now: float) -> None:
        """Send it, or keep it until it can be sent; QoS 0 is never kept."""
        connection = self.connection
        if delivery.qos == 0:
            if connection is not None:
                self._transmit(connection, delivery, None, now, dup=False)
            return
        if connection is not None and not self._waiting and len(self._inflight) < connection.send_window:
            self._send(connection, delivery, now)
            return
        if len(self._waiting) < self._settings.max_stored_messages:
            self._waiting.append(delivery)
            return
        self.dropped += 1
        if connection is not None:
            detail = f"client does not acknowledge: {self.pending} QoS 1 messages wait"
            connection.fail(ReasonCode.QUOTA_EXCEEDED, detail, reason=DisconnectReason.THROTTLED)

    def acknowledge(self, packet_id: int, now: float) -> None:
        """The client's PUBACK. One for an identifier that is not in flight is ignored: it can be late (4.4)."""
        if self._inflight.pop(packet_id, None) is not None:
            self._pump(now)

    def resume(self, now: float) -> None:
        """The client is back: what was in flight again with DUP and the same identifiers, then what waits (4.4)."""
        connection = self.connection
        if connection is None:
            return
        for packet_id, delivery in tuple(self._inflight.items()):
            if not self._transmit(connection, delivery, packet_id, now, dup=True):
                self._inflight.pop(packet_id, None)
        self._pump(now)

    def _pump(self, now: float) -> None:
        connection = self.connection
        while (
            connection is not None
            and connection.phase is Phase.LIVE
            and self._waiting
            and len(self._inflight) < connection.send_window
        ):
            self._send(connection, self._waiting.popleft(), now)

    def _send(self, connection: Connection, delivery: Delivery, now: float) -> None:
        packet_id = self._next_packet_id()
        self._inflight[packet_id] = delivery
        if not self._transmit(connection, delivery, packet_id, now, dup=False) and connection.phase is Phase.LIVE:
            del self._inflight[packet_id]  # it will never be sent; when the connection broke, it waits for the next

    def _next_packet_id(self) -> int:
        number = self._last_packet_id
        while True:  # the window is far smaller than the 65,535 identifiers
            number = number % 0xFFFF + 1
            if number not in self._inflight:
                self._last_packet_id = number
                return number

    def _transmit(
        self, connection: Connection, delivery: Delivery, packet_id: int | None, now: float, *, dup: bool
    ) -> bool:
        message = delivery.message
        if message.expired(now) or not connection.permissions.allows(RECEIVE, "topic", message.topic):
            return False
        properties = NO_PROPERTIES
        if connection.is_v5:
            properties = message.properties
            if message.expires_at is not None:
                left = max(1, round(message.expires_at - now))  # MQTT-3.3.2-6
                properties = replace(properties, message_expiry_interval=left)
        return connection.send(
            Publish(
                topic=message.topic,
                payload=message.payload,
                qos=delivery.qos,
                retain=delivery.retain,
                dup=dup,
                packet_id=packet_id,
                properties=properties,
            )
        )
