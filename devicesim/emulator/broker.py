"""The message broker of one account in one Region: sessions, subscriptions, routing; sans-io.

Order is decided here and nowhere else: each method finishes its decisions before it returns, and every packet they
cause stands in its connection's queue by then, in the order in which it was decided. Whatever task later writes the
bytes cannot change it (mqtt-measured.md, "Order matters").

A connection ends by its :meth:`~devicesim.emulator.connection.Connection.finish`; whoever watches it calls
:meth:`Broker.detach` after the method that caused it has returned, so that routing is never entered from within.

Not here, and refused rather than ignored: QoS 2, subscription identifiers, enhanced authentication; AWS has none of
them. Brokers share nothing: a message cannot leave its account and Region.
"""

from collections.abc import Callable, Collection, Iterator, MutableMapping
from dataclasses import replace
from typing import Final

from devicesim.emulator import limits
from devicesim.emulator.connection import Connection, DisconnectReason, End, Permissions, Phase
from devicesim.emulator.lifecycle import Lifecycle
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
from devicesim.emulator.routes import Routes
from devicesim.emulator.session import Delivery, Message, Session, client_message
from devicesim.emulator.settings import Settings
from devicesim.emulator.shared import parse_filter
from devicesim.emulator.timers import Timers

_PUBLISH: Final = ("iot:Publish",)
_PUBLISH_RETAINED: Final = ("iot:Publish", "iot:RetainPublish")
_FOR_EVER: Final = 0xFFFF_FFFF  # Session Expiry Interval (3.1.2.11.2)


def will_allowed(permissions: Permissions, will: Will) -> bool:
    """Whether policies let a client publish its will; one that may not cannot connect (developer guide, "connect
    attempt failure event", D)."""
    actions = _PUBLISH_RETAINED if will.retain else _PUBLISH
    return all(permissions.allows(action, "topic", will.topic) for action in actions)


class Broker:
    """One account in one Region. Made by the data plane when the account's first client is admitted."""

    def __init__(
        self,
        *,
        settings: Settings,
        timers: Timers,
        choose: Callable[[int], int],
        lifecycle: Callable[["Broker"], Lifecycle],
        published: Callable[[Message, float], None] | None = None,
        reserved: Callable[[Connection, Publish, float], bool] | None = None,
        retained: MutableMapping[str, tuple[Message, float]] | None = None,
    ) -> None:
        """``choose(n)`` draws a number from 0 to n - 1; ``lifecycle`` makes what tells of this broker's clients.
        ``published`` is told of every message after its delivery. ``reserved`` is asked what to do with a PUBLISH to a
        topic of the service's own that policies allow, and answers whether it is one that devices may publish to.
        ``retained`` holds retained messages, which may outlive the broker."""
        self._published = published
        self._reserved = reserved
        self._settings = settings
        self._timers = timers
        self._sessions: dict[str, Session] = {}
        self._bound: dict[Connection, Session] = {}
        self.taken: dict[int, int] = {0: 0, 1: 0}
        """Messages of clients that were delivered and, where they ask for it, acknowledged, by QoS."""
        self._routes = Routes(settings=settings, timers=timers, choose=choose, retained=retained)
        self._lifecycle = lifecycle(self)

    @property
    def connected(self) -> int:
        return len(self._bound)

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def subscriptions(self) -> int:
        return len(self._routes)

    @property
    def retained(self) -> int:
        return self._routes.retained

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
        session = previous or Session(
            client_id, settings=settings, timers=self._timers, identifier=self._lifecycle.new_session()
        )
        self._sessions[client_id] = session
        self._bound[connection] = session
        session.connection = connection
        for timer in (session.expiry_timer, session.will_timer):
            if timer is not None:
                timer.cancel()
        session.expiry_timer = session.will_timer = None
        session.will = packet.will
        session.principal = connection.principal
        session.expiry = float(limits.session_expiry(packet, settings))

        keep_alive = limits.keep_alive(packet.keep_alive, settings)
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
                shared_subscription_available=1,
                server_keep_alive=keep_alive if keep_alive != packet.keep_alive else None,
            )
        connection.phase = Phase.LIVE
        connection.send(ConnAck(session_present=previous is not None, properties=properties))
        self._lifecycle.connected(connection, session, now, resumed=previous is not None)
        if previous is not None:
            session.resume(now)
            self._routes.serve_groups(session, now)

    def connect_failed(self, connection: Connection, now: float) -> None:
        """Policies did not let it in."""
        self._lifecycle.connect_failed(connection, now)

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
        shared = session.leave()
        if end is not None:
            self._lifecycle.disconnected(connection, session, end, now)
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
        self._routes.return_shared(shared, now)

    def delete_connection(self, client_id: str, *, clean_session: bool, prevent_will: bool, now: float) -> bool:
        """Disconnect a client (DeleteConnection of the data API); ``False`` when it has neither connection nor session.

        ``clean_session`` ends a persistent session with it, ``prevent_will`` throws its will away.
        """
        session = self._sessions.get(client_id)
        if session is None:
            return False
        if prevent_will:
            session.will = None
        connection = session.connection
        if connection is not None:
            connection.fail(
                ReasonCode.ADMINISTRATIVE_ACTION,
                "DeleteConnection was called",
                reason=DisconnectReason.API_INITIATED_DISCONNECT,
            )
            self.detach(connection, now)
        if clean_session and self._sessions.get(client_id) is session:
            self._end_session(session, now)
        return True

    def close(self, now: float) -> None:
        """End every connection and session, without a will and without a word to anybody: the account is no more."""
        self._published = None
        for session in tuple(self._sessions.values()):
            session.will = None
            session.expiry = 0.0
            connection = session.connection
            if connection is None:
                self._end_session(session, now)
                continue
            connection.fail(
                ReasonCode.ADMINISTRATIVE_ACTION,
                "the emulator was reset",
                reason=DisconnectReason.SERVER_INITIATED_DISCONNECT,
            )

    def _start_will(self, session: Session, will: Will, connection: Connection, now: float) -> None:
        """Publish after the will's delay, or when the session ends before that (3.1.3.2.2)."""
        if not will_allowed(connection.permissions, will):
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
            self.publish(client_message(will, session.client_id, session.principal, now, self._settings), now)

    def _end_session(self, session: Session, now: float) -> None:
        for timer in (session.expiry_timer, session.will_timer):
            if timer is not None:
                timer.cancel()
        session.expiry_timer = session.will_timer = None
        if session.connection is None:
            self._publish_will(session, now)
        self._routes.drop(session)
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]

    # --- routing ---

    def publish(self, message: Message, now: float) -> int:
        """Retain what is to be, if there is room, and deliver; answers to how many sessions."""
        self._routes.keep(message, now)
        return self._deliver(message, now)

    def _deliver(self, message: Message, now: float) -> int:
        receivers = self._routes.publish(message, now)
        if self._published is not None:
            self._published(message, now)
        return receivers

    def retained_messages(self, now: float) -> Iterator[Message]:
        """In no order; those that have expired are not among them."""
        for topic in self._routes.retained_topics():
            message = self._routes.retained_message(topic, now)
            if message is not None:
                yield message

    def retained_since(self, topic: str) -> float:
        """When the topic's retained message, which there must be, was kept, on the broker's clock."""
        return self._routes.retained_since(topic)

    def has_room(self, message: Message, now: float) -> bool:
        """Whether the message can be retained, or is not to be."""
        return self._routes.has_room(message, now)

    def publish_to(self, client_id: str, message: Message, now: float) -> bool:
        """Deliver to one client alone, in answer to it; ``False`` when it has not subscribed to that topic."""
        session = self._sessions.get(client_id)
        return session is not None and self._routes.publish_to(session, message, now)

    def retained_message(self, topic: str, now: float) -> Message | None:
        return self._routes.retained_message(topic, now)

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
                self._handle_unsubscribe(connection, session, packet, now)
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

    def _handle_publish(self, connection: Connection, packet: Publish, now: float) -> None:
        if packet.qos > 1:
            connection.fail(ReasonCode.QOS_NOT_SUPPORTED, "PUBLISH with QoS 2")
            return
        topic = connection.resolve_alias(packet)
        if topic is None:
            return
        reserved = topic.startswith("$") and self._reserved is not None
        problem = limits.publish_problem(packet, topic, self._settings, reserved=reserved)
        if problem is not None:
            connection.fail(*problem)
            return
        for action in _PUBLISH_RETAINED if packet.retain else _PUBLISH:
            if not connection.permissions.allows(action, "topic", topic):
                self._refuse_publish(connection, packet, ReasonCode.NOT_AUTHORIZED, f"{action} on {topic!r} denied")
                return
        if reserved:
            self._publish_reserved(connection, replace(packet, topic=topic), now)
            return
        said = replace(packet, topic=topic)
        message = client_message(said, connection.client_id, connection.principal, now, self._settings)
        enrichment = connection.enrichment()
        if enrichment:
            carried = message.properties
            carried = replace(carried, user_properties=(*carried.user_properties, *enrichment))
            message = replace(message, properties=carried)
        if not self._routes.keep(message, now):
            detail = f"{self.retained} messages are retained, the most there can be"
            self._refuse_publish(connection, packet, ReasonCode.QUOTA_EXCEEDED, detail)
            return
        self._deliver(message, now)
        self.taken[packet.qos] += 1
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
            connection.refuse(f"PUBLISH: {detail}", denied=code is ReasonCode.NOT_AUTHORIZED)
            return
        reason = DisconnectReason.FORBIDDEN_ACCESS if code is ReasonCode.NOT_AUTHORIZED else DisconnectReason.THROTTLED
        connection.fail(code, detail, reason=reason)

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
        granted: list[Subscription] = []
        held = set(session.subscriptions)
        for asked in packet.subscriptions:  # nothing is subscribed before it is clear that the connection survives it
            option = asked
            if asked.qos > 1:
                if not connection.is_v5 or settings.subscribe_qos_2_v5 == "disconnect":
                    connection.fail(ReasonCode.QOS_NOT_SUPPORTED, f"SUBSCRIBE {asked.topic_filter!r} with QoS 2")
                    return
                option = replace(asked, qos=1)
            shared = parse_filter(option.topic_filter)
            if shared is not None and option.no_local:  # MQTT-3.8.3-4
                connection.fail(ReasonCode.PROTOCOL_ERROR, f"SUBSCRIBE {asked.topic_filter!r} with No Local")
                return
            refusal = self._subscription_problem(connection, session, option, held)
            if refusal is None:
                codes.append(option.qos)
                granted.append(option)
                held.add(option.topic_filter)
                continue
            code, detail = refusal
            denied = code is ReasonCode.NOT_AUTHORIZED
            told_v311 = code is ReasonCode.QUOTA_EXCEEDED or (denied and settings.subscribe_denied_v311 == "suback")
            if connection.is_v5 or told_v311:
                codes.append(code if connection.is_v5 else SUBSCRIBE_FAILURE)
                connection.refuse(f"SUBSCRIBE: {detail}", denied=denied)
                continue
            reason = (
                DisconnectReason.FORBIDDEN_ACCESS
                if code is ReasonCode.NOT_AUTHORIZED
                else DisconnectReason.CLIENT_ERROR
            )
            connection.fail(code, detail, reason=reason)
            return
        retained = [delivery for option in granted for delivery in self._subscribe(session, option, now)]
        connection.send(SubAck(packet_id=packet.packet_id, reason_codes=tuple(codes)))
        for delivery in retained:
            session.deliver(delivery, now)
        accepted = [option.topic_filter for option in granted]
        self._lifecycle.subscribed(connection, session, accepted, now)
        if any(parse_filter(topic_filter) is not None for topic_filter in accepted):
            self._routes.serve_groups(session, now)

    def _subscription_problem(
        self, connection: Connection, session: Session, option: Subscription, held: Collection[str]
    ) -> tuple[ReasonCode, str] | None:
        """Why ``option`` is not granted to a session that has, or is about to have, the filters ``held``."""
        settings = self._settings
        topic_filter = option.topic_filter
        shared = parse_filter(topic_filter)
        problem = limits.filter_problem(topic_filter, shared, settings)
        if problem is not None:
            return ReasonCode.TOPIC_FILTER_INVALID, problem
        plain = topic_filter if shared is None else shared.topic_filter
        checked = {"both": (topic_filter, plain), "share": (topic_filter,), "topic": (plain,)}
        for resource in dict.fromkeys(checked[settings.shared_subscription_policy]):
            if not connection.permissions.allows("iot:Subscribe", "topicfilter", resource):
                return ReasonCode.NOT_AUTHORIZED, f"iot:Subscribe on {resource!r} denied"
        group = None if shared is None else self._routes.group(shared)
        if group is not None and session not in group.members and len(group.members) >= settings.max_shared_subscribers:
            detail = f"{topic_filter!r} has {len(group.members)} subscribers, the most there can be"
            return ReasonCode.QUOTA_EXCEEDED, detail
        limit = settings.max_subscriptions_per_connection
        if topic_filter not in held and len(held) >= limit:
            return ReasonCode.QUOTA_EXCEEDED, f"the connection has {limit} subscriptions, the most there can be"
        return None

    def _subscribe(self, session: Session, option: Subscription, now: float) -> list[Delivery]:
        """Answers the retained messages to send: only of a filter without wildcard that names the topic exactly (AWS,
        developer guide "retained messages", D), so none of a shared one (4.8.2)."""
        new = self._routes.subscribe(session, option)
        message = self._routes.retained_message(option.topic_filter, now)
        if message is None or option.retain_handling == 2 or (option.retain_handling == 1 and not new):
            return []
        return [Delivery(message=message, qos=min(option.qos, message.qos), retain=True)]

    def _handle_unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe, now: float) -> None:
        removed, codes = [], []
        for topic_filter in packet.topic_filters:
            known = self._routes.unsubscribe(session, topic_filter, now)
            codes.append(ReasonCode.SUCCESS if known else ReasonCode.NO_SUBSCRIPTION_EXISTED)
            if known:
                removed.append(topic_filter)
        connection.send(UnsubAck(packet_id=packet.packet_id, reason_codes=tuple(codes)))
        self._lifecycle.unsubscribed(connection, session, removed, now)
