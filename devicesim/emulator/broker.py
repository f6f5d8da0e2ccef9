"""The message broker of one account in one Region: sessions, subscriptions, routing; sans-io.

Order is decided here and nowhere else: each method finishes its decisions before it returns, and every packet they
cause stands in its connection's queue by then, in the order in which it was decided. Whatever task later writes the
bytes cannot change it (mqtt-measured.md, "Order matters").

A connection ends by its :meth:`~devicesim.emulator.connection.Connection.finish`; whoever watches it calls
:meth:`Broker.detach` after the method that caused it has returned, so that routing is never entered from within.

Not here, and refused rather than ignored: QoS 2, shared subscriptions, subscription identifiers, enhanced
authentication. Brokers share nothing: a message cannot leave its account and Region.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from devicesim.emulator import topics
from devicesim.emulator.connection import Connection, DisconnectReason, End, Phase
from devicesim.emulator.packets import (
    NO_PROPERTIES,
    SUBSCRIBE_FAILURE,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    Properties,
    PubAck,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from devicesim.emulator.session import Delivery, Message, Session
from devicesim.emulator.settings import Settings
from devicesim.emulator.timers import Timers

_SHARED: Final = "$share/"
_PUBLISH: Final = ("iot:Publish",)
_PUBLISH_RETAINED: Final = ("iot:Publish", "iot:RetainPublish")
_FOR_EVER: Final = 0xFFFF_FFFF  # Session Expiry Interval (3.1.2.11.2)


class Broker:
    """One account in one Region. Made by the data plane when the account's first client is admitted."""

    def __init__(
        self,
        *,
        settings: Settings,
        timers: Timers,
        published: Callable[[Message, float], None] | None = None,
        reserved: Callable[[Connection, Publish, float], bool] | None = None,
    ) -> None:
        """``published`` is told of every message after its delivery. ``reserved`` is asked what to do with a PUBLISH to
        a topic of the service's own that policies allow, and answers whether it is one that devices may publish to."""
        self._published = published
        self._reserved = reserved
        self._settings = settings
        self._timers = timers
        self._sessions: dict[str, Session] = {}
        self._bound: dict[Connection, Session] = {}
        self._tree: topics.SubscriptionTree[Session, Subscription] = topics.SubscriptionTree()
        self._retained: dict[str, Message] = {}

    @property
    def connected(self) -> int:
        return len(self._bound)

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def subscriptions(self) -> int:
        return len(self._tree)

    @property
    def retained(self) -> int:
        return len(self._retained)

    def session_of(self, client_id: str) -> Session | None:
        return self._sessions.get(client_id)

    # --- CONNECT ---

    def connect(self, connection: Connection, packet: Connect, client_id: str, now: float) -> None:
        """Take in an admitted client and queue its CONNACK; an older connection of its client id goes (3.1.4).

        ``client_id`` is the packet's own, or the one assigned to a client that sent none.
        """
        settings = self._settings
        previous = self._sessions.get(client_id)
        if previous is not None and previous.connection is not None:
            self._take_over(previous.connection, now)
            previous = self._sessions.get(client_id)
        if previous is not None and packet.clean_start:
            self._end_session(previous, now)
            previous = None

        connection.client_id = client_id
        session = previous or Session(client_id, settings=settings)
        self._sessions[client_id] = session
        self._bound[connection] = session
        session.connection = connection
        for timer in (session.expiry_timer, session.will_timer):
            if timer is not None:
                timer.cancel()
        session.expiry_timer = session.will_timer = None
        session.will = packet.will
        session.expiry = float(self._session_expiry(connection, packet))

        keep_alive = _clamped(packet.keep_alive, settings)
        connection.keep_alive_timeout = keep_alive * settings.keep_alive_factor
        connection.last_packet = now
        asked = packet.properties
        properties = NO_PROPERTIES
        if connection.is_v5:
            shortened = (asked.session_expiry_interval or 0) != session.expiry
            properties = Properties(
                session_expiry_interval=round(session.expiry) if shortened else None,
                receive_maximum=settings.max_inflight,
                maximum_qos=1,
                retain_available=1,
                maximum_packet_size=settings.max_packet_bytes,
                assigned_client_identifier=None if packet.client_id else client_id,
                topic_alias_maximum=settings.max_topic_alias,
                wildcard_subscription_available=1,
                subscription_identifier_available=0,
                shared_subscription_available=0,
                server_keep_alive=keep_alive if keep_alive != packet.keep_alive else None,
            )
        connection.phase = Phase.LIVE
        connection.send(ConnAck(session_present=previous is not None, properties=properties))
        if previous is not None:
            session.resume(now)

    def connect_problem(self, connection: Connection, packet: Connect) -> tuple[ReasonCode, str] | None:
        """Why a CONNECT cannot be taken in whoever sends it: (code for MQTT 5, detail)."""
        settings = self._settings
        size = len(packet.client_id.encode("utf-8"))
        if size > settings.max_client_id_bytes:
            detail = f"client id has {size} bytes, must be at most {settings.max_client_id_bytes}"
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, detail
        if not packet.client_id and not connection.is_v5 and settings.empty_client_id_v311 == "close":
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "client id is empty"
        if not packet.client_id and not connection.is_v5 and not packet.clean_start:
            return ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "client id is empty in a persistent session"  # MQTT-3.1.3-8
        if packet.properties.authentication_method is not None:
            # AWS's list of CONNACK codes (§5) has no 0x8C
            return ReasonCode.UNSPECIFIED_ERROR, "enhanced authentication is not supported"
        will = packet.will
        if will is None:
            return None
        if will.qos > 1:
            return ReasonCode.QOS_NOT_SUPPORTED, "will has QoS 2"
        problem = self._topic_problem(will.topic)
        if problem is not None:
            return ReasonCode.TOPIC_NAME_INVALID, f"will: {problem}"
        if len(will.payload) > settings.max_payload_bytes:
            detail = f"will has {len(will.payload)} bytes, must be at most {settings.max_payload_bytes}"
            return ReasonCode.QUOTA_EXCEEDED, detail
        return None

    def _session_expiry(self, connection: Connection, packet: Connect) -> int:
        if connection.is_v5:
            return min(packet.properties.session_expiry_interval or 0, self._settings.max_session_expiry_seconds)
        return 0 if packet.clean_start else self._settings.persistent_session_seconds

    def _take_over(self, old: Connection, now: float) -> None:
        old.fail(
            ReasonCode.SESSION_TAKEN_OVER,
            f"another client connected with client id {old.client_id!r}",
            reason=DisconnectReason.DUPLICATE_CLIENTID,
        )
        self.detach(old, now)

    # --- the end of a connection ---

    def detach(self, connection: Connection, now: float) -> None:
        """The connection has ended: its session ends or starts to expire, its will is published or thrown away."""
        session = self._bound.pop(connection, None)
        if session is None:
            return
        end = connection.end
        session.connection = None
        will = None if end is not None and end.graceful else session.will
        session.will = will
        if will is not None:
            self._start_will(session, will, connection, now)
        if session.expiry == 0:
            self._end_session(session, now)
        elif session.expiry < _FOR_EVER:

            def expire(at: float) -> None:
                if session.connection is None:
                    self._end_session(session, at)

            session.expiry_timer = self._timers.schedule(now + session.expiry, expire)

    def _start_will(self, session: Session, will: Will, connection: Connection, now: float) -> None:
        """Publish after the will's delay, or when the session ends before that (3.1.3.2.2)."""
        actions = _PUBLISH_RETAINED if will.retain else _PUBLISH
        if not all(connection.permissions.allows(action, "topic", will.topic) for action in actions):
            session.will = None
            return
        delay = min(will.properties.will_delay_interval or 0, session.expiry)
        if delay <= 0:
            self._publish_will(session, now)
            return

        def publish(at: float) -> None:
            if session.connection is None:
                self._publish_will(session, at)

        session.will_timer = self._timers.schedule(now + delay, publish)

    def _publish_will(self, session: Session, now: float) -> None:
        will, session.will = session.will, None
        if will is not None:
            message = _message(will.topic, will.payload, will.qos, will.retain, will.properties, session.client_id, now)
            self._keep(message)
            self.publish(message, now)

    def _end_session(self, session: Session, now: float) -> None:
        for timer in (session.expiry_timer, session.will_timer):
            if timer is not None:
                timer.cancel()
        session.expiry_timer = session.will_timer = None
        if session.connection is None:
            self._publish_will(session, now)
        for topic_filter in session.subscriptions:
            self._tree.remove(topic_filter, session)
        session.subscriptions.clear()
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]

    # --- routing ---

    def publish(self, message: Message, now: float) -> int:
        """Deliver to every session with a matching subscription, once each; answers how many."""
        best: dict[Session, tuple[int, bool]] = {}
        for session, option in self._tree.match(message.topic):
            if option.no_local and session.client_id == message.publisher:
                continue
            retain = message.retain and option.retain_as_published
            held = best.get(session)
            if held is None or option.qos > held[0]:
                best[session] = (option.qos, retain or (held is not None and held[1]))
        for session, (qos, retain) in best.items():
            session.deliver(Delivery(message=message, qos=min(qos, message.qos), retain=retain), now)
        if self._published is not None:
            self._published(message, now)
        return len(best)

    def _keep(self, message: Message) -> bool:
        """Retain, replace or remove the topic's retained message; ``False`` when there is no room."""
        if not message.retain:
            return True
        if not message.payload:
            self._retained.pop(message.topic, None)
            return True
        if message.topic not in self._retained and len(self._retained) >= self._settings.max_retained_messages:
            return False
        self._retained[message.topic] = message
        return True

    # --- packets of an admitted client ---

    def handle(self, connection: Connection, packet: Packet, now: float) -> None:
        """Decide what a packet after CONNECT does."""
        session = self._bound[connection]
        match packet:
            case Publish():
                self._handle_publish(connection, packet, now)
            case PubAck(packet_id=number):
                session.acknowledge(number, now)
            case Subscribe():
                self._handle_subscribe(connection, session, packet, now)
            case Unsubscribe():
                self._handle_unsubscribe(connection, session, packet)
            case PingReq():
                connection.send(PingResp())
            case Disconnect():
                self._handle_disconnect(connection, session, packet)
            case Connect():
                connection.fail(ReasonCode.PROTOCOL_ERROR, "second CONNECT")  # MQTT-3.1.0-2
            case Auth():
                connection.fail(ReasonCode.PROTOCOL_ERROR, "AUTH without an authentication method")
            case _:
                connection.fail(ReasonCode.PROTOCOL_ERROR, f"{type(packet).__name__.upper()} from a client")

    def _handle_disconnect(self, connection: Connection, session: Session, packet: Disconnect) -> None:
        expiry = packet.properties.session_expiry_interval
        if expiry is not None and connection.is_v5:
            if expiry and not session.expiry:
                connection.fail(ReasonCode.PROTOCOL_ERROR, "DISCONNECT revives a session that ends with it")
                return
            session.expiry = float(min(expiry, self._settings.max_session_expiry_seconds))
        connection.finish(
            End(
                reason=DisconnectReason.CLIENT_INITIATED_DISCONNECT,
                detail=f"DISCONNECT with reason code {packet.reason_code:#04x}",
                graceful=packet.reason_code != ReasonCode.DISCONNECT_WITH_WILL,
            )
        )

    def _topic_problem(self, topic: str) -> str | None:
        """Why a device cannot publish to ``topic``."""
        if topic.startswith("$"):
            return f"topic {topic!r} is the service's own"  # §2: devices cannot forge $aws/..., M; §5: disconnect
        return self._length_problem(topic)

    def _length_problem(self, topic: str) -> str | None:
        return topics.topic_problem(
            topic, max_bytes=self._settings.max_topic_bytes, max_slashes=self._settings.max_topic_slashes
        )

    def _handle_publish(self, connection: Connection, packet: Publish, now: float) -> None:
        if packet.qos > 1:
            connection.fail(ReasonCode.QOS_NOT_SUPPORTED, "PUBLISH with QoS 2")
            return
        topic = self._resolve_alias(connection, packet)
        if topic is None:
            return
        reserved = topic.startswith("$") and self._reserved is not None
        problem = self._length_problem(topic) if reserved else self._topic_problem(topic)
        if problem is not None:
            connection.fail(ReasonCode.TOPIC_NAME_INVALID, problem)
            return
        if len(packet.payload) > self._settings.max_payload_bytes:
            detail = f"payload has {len(packet.payload)} bytes, must be at most {self._settings.max_payload_bytes}"
            connection.fail(ReasonCode.PACKET_TOO_LARGE, detail)
            return
        properties = packet.properties
        if properties.subscription_identifiers:  # MQTT-3.3.4-6
            connection.fail(ReasonCode.PROTOCOL_ERROR, "PUBLISH of a client with a subscription identifier")
            return
        if properties.response_topic is not None and topics.has_wildcard(properties.response_topic):
            connection.fail(ReasonCode.TOPIC_NAME_INVALID, "response topic has a wildcard")  # MQTT-3.3.2-14
            return
        for action in _PUBLISH_RETAINED if packet.retain else _PUBLISH:
            if not connection.permissions.allows(action, "topic", topic):
                self._refuse_publish(connection, packet, ReasonCode.NOT_AUTHORIZED, f"{action} on {topic!r} denied")
                return
        if reserved:
            self._publish_reserved(connection, replace(packet, topic=topic), now)
            return
        message = _message(topic, packet.payload, packet.qos, packet.retain, properties, connection.client_id, now)
        if not self._keep(message):
            detail = f"{len(self._retained)} messages are retained, the most there can be"
            self._refuse_publish(connection, packet, ReasonCode.QUOTA_EXCEEDED, detail)
            return
        self.publish(message, now)
        if packet.packet_id is not None:
            connection.send(PubAck(packet_id=packet.packet_id))

    def _publish_reserved(self, connection: Connection, packet: Publish, now: float) -> None:
        """A topic of the service's own, with its alias resolved: a request to it, or abuse (§2, §5)."""
        assert self._reserved is not None
        if packet.retain or not self._reserved(connection, packet, now):
            connection.fail(ReasonCode.TOPIC_NAME_INVALID, f"topic {packet.topic!r} is the service's own")
        elif packet.packet_id is not None:
            connection.send(PubAck(packet_id=packet.packet_id))

    def _refuse_publish(self, connection: Connection, packet: Publish, code: ReasonCode, detail: str) -> None:
        if connection.is_v5 and packet.packet_id is not None and self._settings.publish_denied_v5 == "puback":
            connection.send(PubAck(packet_id=packet.packet_id, reason_code=code))
            return
        reason = DisconnectReason.FORBIDDEN_ACCESS if code is ReasonCode.NOT_AUTHORIZED else DisconnectReason.THROTTLED
        connection.fail(code, detail, reason=reason)

    def _resolve_alias(self, connection: Connection, packet: Publish) -> str | None:
        alias = packet.properties.topic_alias
        if alias is None:
            return packet.topic
        if alias > self._settings.max_topic_alias:
            connection.fail(ReasonCode.TOPIC_ALIAS_INVALID, f"topic alias {alias} is above the maximum")
            return None
        if packet.topic:
            connection.aliases[alias] = packet.topic
            return packet.topic
        topic = connection.aliases.get(alias)
        if topic is None:
            connection.fail(ReasonCode.PROTOCOL_ERROR, f"topic alias {alias} has not been set")  # 3.3.2.3.4
        return topic

    def _handle_subscribe(self, connection: Connection, session: Session, packet: Subscribe, now: float) -> None:
        settings = self._settings
        if packet.properties.subscription_identifiers:
            connection.fail(
                ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
                "SUBSCRIBE with a subscription identifier",
                reason_string="DISCONNECT:Subscription Id is not supported now",  # node-red #4115, M
            )
            return
        if len(packet.subscriptions) > settings.max_filters_per_subscribe:
            detail = f"SUBSCRIBE has {len(packet.subscriptions)} filters, must be at most"
            connection.fail(ReasonCode.QUOTA_EXCEEDED, f"{detail} {settings.max_filters_per_subscribe}")
            return
        codes: list[int] = []
        retained: list[Delivery] = []
        for asked in packet.subscriptions:
            option = asked
            if asked.qos > 1:
                if not connection.is_v5 or settings.subscribe_qos_2_v5 == "disconnect":
                    connection.fail(ReasonCode.QOS_NOT_SUPPORTED, f"SUBSCRIBE {asked.topic_filter!r} with QoS 2")
                    return
                option = replace(asked, qos=1)
            refusal = self._subscription_problem(connection, session, option)
            if refusal is None:
                codes.append(option.qos)
                retained += self._subscribe(session, option, now)
                continue
            code, detail = refusal
            if connection.is_v5 or code is ReasonCode.QUOTA_EXCEEDED:
                codes.append(code if connection.is_v5 else SUBSCRIBE_FAILURE)
                continue
            if code is ReasonCode.NOT_AUTHORIZED and settings.subscribe_denied_v311 == "suback":
                codes.append(SUBSCRIBE_FAILURE)
                continue
            reason = (
                DisconnectReason.FORBIDDEN_ACCESS
                if code is ReasonCode.NOT_AUTHORIZED
                else DisconnectReason.CLIENT_ERROR
            )
            connection.fail(code, detail, reason=reason)
            return
        connection.send(SubAck(packet_id=packet.packet_id, reason_codes=tuple(codes)))
        for delivery in retained:
            session.deliver(delivery, now)

    def _subscription_problem(
        self, connection: Connection, session: Session, option: Subscription
    ) -> tuple[ReasonCode, str] | None:
        settings = self._settings
        topic_filter = option.topic_filter
        if topic_filter.startswith(_SHARED):
            return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, f"shared subscription {topic_filter!r}"
        problem = topics.filter_problem(
            topic_filter, max_bytes=settings.max_topic_bytes, max_slashes=settings.max_topic_slashes
        )
        if problem is not None:
            return ReasonCode.TOPIC_FILTER_INVALID, problem
        if not connection.permissions.allows("iot:Subscribe", "topicfilter", topic_filter):
            return ReasonCode.NOT_AUTHORIZED, f"iot:Subscribe on {topic_filter!r} denied"
        limit = settings.max_subscriptions_per_connection
        if topic_filter not in session.subscriptions and len(session.subscriptions) >= limit:
            return ReasonCode.QUOTA_EXCEEDED, f"the connection has {limit} subscriptions, the most there can be"
        return None

    def _subscribe(self, session: Session, option: Subscription, now: float) -> list[Delivery]:
        """Answers the retained messages to send: only of a filter without wildcard that names the topic exactly (AWS,
        developer guide "retained messages", D)."""
        topic_filter = option.topic_filter
        session.subscriptions[topic_filter] = option
        new = self._tree.add(topic_filter, session, option)
        message = self._retained.get(topic_filter)
        if message is not None and message.expired(now):
            del self._retained[topic_filter]
            message = None
        if message is None or option.retain_handling == 2 or (option.retain_handling == 1 and not new):
            return []
        return [Delivery(message=message, qos=min(option.qos, message.qos), retain=True)]

    def _handle_unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe) -> None:
        codes = []
        for topic_filter in packet.topic_filters:
            known = session.subscriptions.pop(topic_filter, None) is not None
            if known:
                self._tree.remove(topic_filter, session)
            codes.append(ReasonCode.SUCCESS if known else ReasonCode.NO_SUBSCRIPTION_EXISTED)
        connection.send(UnsubAck(packet_id=packet.packet_id, reason_codes=tuple(codes)))


def _clamped(keep_alive: int, settings: Settings) -> int:
    """§5: 0 or more than 1200 is 1200, less than 30 is 30."""
    if keep_alive == 0:
        return settings.keep_alive_maximum
    return min(max(keep_alive, settings.keep_alive_minimum), settings.keep_alive_maximum)


def _message(
    topic: str, payload: bytes, qos: int, retain: bool, properties: Properties, publisher: str, now: float
) -> Message:
    expiry = properties.message_expiry_interval
    carried = properties
    if properties is not NO_PROPERTIES:
        carried = replace(properties, message_expiry_interval=None, topic_alias=None, will_delay_interval=None)
        if carried == NO_PROPERTIES:
            carried = NO_PROPERTIES
    return Message(
        topic=topic,
        payload=payload,
        qos=qos,
        retain=retain,
        properties=carried,
        expires_at=None if expiry is None else now + expiry,
        publisher=publisher,
    )
