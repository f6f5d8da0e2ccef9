"""MQTT sessions: what of a client may outlive its connection (4.1), and QoS 1 towards it.

A session holds the client's subscriptions, the QoS 1 messages sent and not acknowledged, those that wait because the
window is full, and those stored while the client was away. It does not know other clients; the routes find out which
sessions a message concerns. Time is an argument.

Stored messages are sent at AWS's pace (developer guide, "Message traffic after reconnection to a persistent session",
D): so many at once when the client is back, and so many each second after that, beside the current traffic. "The
message broker doesn't guarantee the order in which messages and ACK are received" (D).
"""

from dataclasses import dataclass, replace

from devicesim.emulator.connection import Connection, DisconnectReason, Phase
from devicesim.emulator.packets import NO_PROPERTIES, Properties, Publish, ReasonCode, Subscription, Will
from devicesim.emulator.settings import Settings
from devicesim.emulator.timers import Timer, Timers

RECEIVE = "iot:Receive"
_LEAST_WAIT = 0.001
"""Seconds: a timer that sets itself again must not be due at once."""


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
    principal: str | None = None
    """Certificate id of the publisher; ``None`` for the service itself and for the API."""

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


def client_message(
    said: Publish | Will, publisher: str, principal: str | None, now: float, settings: Settings
) -> Message:
    """What a client published, its alias resolved, or left as its will."""
    carried = said.properties
    expiry = carried.message_expiry_interval
    if expiry is not None:
        expiry = min(max(expiry, 1), settings.max_message_expiry_seconds)
    if carried is not NO_PROPERTIES:
        carried = replace(carried, message_expiry_interval=None, topic_alias=None, will_delay_interval=None)
        if carried == NO_PROPERTIES:
            carried = NO_PROPERTIES
    return Message(
        topic=said.topic,
        payload=said.payload,
        qos=said.qos,
        retain=said.retain,
        properties=carried,
        expires_at=None if expiry is None else now + expiry,
        publisher=publisher,
        principal=principal,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message on its way to one session."""

    message: Message
    qos: int
    """The lower of the publisher's and the subscription's."""
    retain: bool
    """The RETAIN flag as this subscriber is to see it."""
    shared: tuple[str, str] | None = None
    """Share name and topic filter of the group in whose name the session has it."""


class _Sent:
    """A QoS 1 message that waits for its PUBACK."""

    __slots__ = ("delivery", "first", "last")

    def __init__(self, delivery: Delivery, now: float) -> None:
        self.delivery = delivery
        self.first = self.last = now


class Session:
    """One client id's session in one account and Region."""

    __slots__ = (
        "_allowance",
        "_inflight",
        "_last_packet_id",
        "_pace_timer",
        "_resend",
        "_retry_timer",
        "_settings",
        "_stored",
        "_timers",
        "_waiting",
        "client_id",
        "connection",
        "dropped",
        "expiry",
        "expiry_timer",
        "identifier",
        "principal",
        "subscriptions",
        "version",
        "will",
        "will_timer",
    )

    def __init__(self, client_id: str, *, settings: Settings, timers: Timers, identifier: str = "") -> None:
        self.client_id = client_id
        self.identifier = identifier
        """The ``sessionIdentifier`` of lifecycle events."""
        self.version = 0
        """The ``versionNumber`` of lifecycle events, of the connection under way or the last one."""
        self.connection: Connection | None = None
        self.subscriptions: dict[str, Subscription] = {}
        """By topic filter as the client wrote it, with ``$share/<name>/`` where it is shared."""
        self.expiry = 0.0
        """Seconds that it outlives its connection; 0 ends it with the connection."""
        self.expiry_timer: Timer | None = None
        self.will: Will | None = None
        """Of the connection under way, or of the last one while its delay runs."""
        self.will_timer: Timer | None = None
        self.principal: str | None = None
        """Certificate id of the connection that left the will."""
        self.dropped = 0
        """Messages that found no room, or that the client did not acknowledge for too long."""
        self._settings = settings
        self._timers = timers
        self._inflight: dict[int, _Sent] = {}
        # Lists, not deques: tens of thousands of idle sessions have four of them, and an empty deque takes 600 bytes.
        self._resend: list[int] = []
        """Identifiers in flight when the last connection ended, not sent again yet."""
        self._stored: list[Delivery] = []
        """Arrived while the client was away."""
        self._waiting: list[Delivery] = []
        """Arrived while the window was full."""
        self._allowance = 0
        """Messages out of the store that may still be sent in this second."""
        self._last_packet_id = 0
        self._pace_timer: Timer | None = None
        self._retry_timer: Timer | None = None

    @property
    def pending(self) -> int:
        """QoS 1 messages not yet acknowledged or not yet sent."""
        return len(self._inflight) + self._unsent

    @property
    def _unsent(self) -> int:
        return len(self._waiting) + len(self._stored)

    @property
    def online(self) -> bool:
        return self.connection is not None and self.connection.phase is Phase.LIVE

    @property
    def ready(self) -> bool:
        """Whether a QoS 1 message would be sent at once."""
        connection = self.connection
        return (
            connection is not None
            and connection.phase is Phase.LIVE
            and not self._waiting
            and len(self._inflight) < connection.send_window
        )

    @property
    def has_room(self) -> bool:
        return self._unsent < self._settings.max_stored_messages

    def deliver(self, delivery: Delivery, now: float) -> None:
        """Send it, or keep it until it can be sent; QoS 0 is never kept."""
        connection = self.connection
        if delivery.qos == 0:
            if connection is not None:
                self._transmit(connection, delivery, None, now, dup=False)
            return
        if connection is not None and self.ready:
            self._send(connection, delivery, now)
            return
        if self.has_room:
            (self._stored if connection is None else self._waiting).append(delivery)
            return
        self.dropped += 1
        if connection is not None:
            detail = f"client does not acknowledge: {self.pending} QoS 1 messages wait"
            connection.fail(ReasonCode.QUOTA_EXCEEDED, detail, reason=DisconnectReason.THROTTLED)

    def acknowledge(self, packet_id: int, now: float) -> None:
        """The client's PUBACK. One for an identifier that is not in flight is ignored: it can be late (4.4)."""
        if self._inflight.pop(packet_id, None) is None:
            return
        if packet_id in self._resend:  # late, for what the last connection sent
            self._resend.remove(packet_id)
        self._pump(now)

    def leave(self) -> list[Delivery]:
        """The connection is gone: what waited is stored now. Answers what the session has in the name of a group of
        shared subscribers, which is for the others of the group (developer guide, "shared subscriptions", D)."""
        for timer in (self._pace_timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        self._pace_timer = self._retry_timer = None
        self.connection = None
        self._resend.clear()
        shared = [sent.delivery for sent in self._inflight.values() if sent.delivery.shared is not None]
        if shared:
            for number in [number for number, sent in self._inflight.items() if sent.delivery.shared is not None]:
                del self._inflight[number]
        for delivery in self._waiting:
            (self._stored if delivery.shared is None else shared).append(delivery)
        self._waiting.clear()
        return shared

    def leave_group(self, shared: tuple[str, str]) -> list[Delivery]:
        """Nothing more in the name of this group. Answers what waits for its turn; what was sent may be acknowledged
        (MQTT-3.10.4-3)."""
        left = [delivery for delivery in self._waiting if delivery.shared == shared]
        if left:
            self._waiting[:] = [delivery for delivery in self._waiting if delivery.shared != shared]
        return left

    def resume(self, now: float) -> None:
        """The client is back: what was in flight again with the same identifiers, then what is stored (4.4)."""
        self._resend = list(self._inflight)
        if self._settings.stored_messages_per_second is None:  # in order, as fast as the window allows
            self._waiting[:0] = self._stored
            self._stored.clear()
        self._pace(now)
        if self._inflight and self._retry_timer is None:
            self._watch(now)

    def _pace(self, now: float) -> None:
        """A new second begins for what is stored."""
        self._pace_timer = None
        rate = self._settings.stored_messages_per_second
        self._allowance = len(self._inflight) if rate is None else rate
        self._pump(now)
        if self.online and (self._stored or self._resend):
            self._pace_timer = self._timers.schedule(now + 1.0, self._pace)

    def _pump(self, now: float) -> None:
        """Send what the window and this second's allowance let through."""
        connection = self.connection
        if connection is None:
            return
        while connection.phase is Phase.LIVE and self._resend and self._allowance > 0:
            if len(self._inflight) - len(self._resend) >= connection.send_window:
                break  # the last connection's window was wider
            number = self._resend.pop(0)
            sent = self._inflight[number]
            self._allowance -= 1
            sent.last = now
            dup = self._settings.redelivery_sets_dup
            if not self._transmit(connection, sent.delivery, number, now, dup=dup) and connection.phase is Phase.LIVE:
                self._inflight.pop(number, None)
        while connection.phase is Phase.LIVE and len(self._inflight) < connection.send_window:
            if self._waiting:
                self._send(connection, self._waiting.pop(0), now)
            elif self._stored and self._allowance > 0:
                self._allowance -= self._send(connection, self._stored.pop(0), now)
            else:
                break

    def _send(self, connection: Connection, delivery: Delivery, now: float) -> bool:
        """Whether it went out. What never will is forgotten; when the connection broke, it waits for the next."""
        packet_id = self._next_packet_id()
        self._inflight[packet_id] = _Sent(delivery, now)
        sent = self._transmit(connection, delivery, packet_id, now, dup=False)
        if not sent and connection.phase is Phase.LIVE:
            del self._inflight[packet_id]
        elif self._retry_timer is None:
            self._watch(now)
        return sent

    def _next_packet_id(self) -> int:
        number = self._last_packet_id
        while True:  # the window is far smaller than the 65,535 identifiers
            number = number % 0xFFFF + 1
            if number not in self._inflight:
                self._last_packet_id = number
                return number

    def _watch(self, now: float) -> None:
        """Look again when the oldest message in flight may have to be repeated or given up."""
        connection = self.connection
        if connection is None or connection.phase is not Phase.LIVE or not self._inflight:
            return
        due = min(self._given_up_at(sent) for sent in self._inflight.values())
        interval = None if connection.is_v5 else self._settings.qos1_retry_seconds
        if interval is not None:
            repeated = (each.last + interval for number, each in self._inflight.items() if number not in self._resend)
            due = min(due, min(repeated, default=due))
        self._retry_timer = self._timers.schedule(max(due, now + _LEAST_WAIT), self._retry)

    def _given_up_at(self, sent: _Sent) -> float:
        """One hour after it was sent, or when it expires, "such as when a device is not pubacking" (D)."""
        limit = sent.first + self._settings.qos1_retry_limit_seconds
        expiry = sent.delivery.message.expires_at
        return limit if expiry is None else min(limit, expiry)

    def _retry(self, now: float) -> None:
        """QoS 1 is "sent at least one time, and then repeatedly until a PUBACK response is received", for up to one
        hour (developer guide and quotas, D). An MQTT 5 server must not repeat on a live connection (MQTT-4.4.0-1)."""
        self._retry_timer = None
        connection = self.connection
        if connection is None or connection.phase is not Phase.LIVE:
            return
        interval = None if connection.is_v5 else self._settings.qos1_retry_seconds
        for number, sent in tuple(self._inflight.items()):
            if now >= self._given_up_at(sent):
                del self._inflight[number]
                if number in self._resend:
                    self._resend.remove(number)
                self.dropped += 1
            elif interval is not None and now >= sent.last + interval and number not in self._resend:
                sent.last = now
                self._transmit(connection, sent.delivery, number, now, dup=self._settings.redelivery_sets_dup)
        self._pump(now)
        if self._retry_timer is None:
            self._watch(now)

    def may_receive(self, topic: str, shared: tuple[str, str] | None) -> bool:
        """Whether policies let the client have a message of ``topic``."""
        connection = self.connection
        if connection is None:
            return False
        checked = self._settings.shared_subscription_policy
        if (shared is None or checked != "share") and not connection.permissions.allows(RECEIVE, "topic", topic):
            return False
        if shared is None or checked == "topic":
            return True
        return connection.permissions.allows(RECEIVE, "topic", f"$share/{shared[0]}/{topic}")

    def _transmit(
        self, connection: Connection, delivery: Delivery, packet_id: int | None, now: float, *, dup: bool
    ) -> bool:
        message = delivery.message
        if message.expired(now):
            return False
        if not self.may_receive(message.topic, delivery.shared):
            if not connection.receive_denied:
                connection.receive_denied = True
                detail = f"{RECEIVE} on {message.topic!r} denied: the message was not sent, nor are others like it"
                connection.refuse(detail, denied=True)
            return False
        properties = NO_PROPERTIES
        if connection.is_v5:
            properties = message.properties
            if message.expires_at is not None:  # MQTT-3.3.2-6; 0 below one second (developer guide, D)
                properties = replace(properties, message_expiry_interval=int(message.expires_at - now))
        return connection.send_publish(
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
