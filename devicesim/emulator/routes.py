"""Who gets a message in one account and Region: subscriptions, groups of shared subscribers, retained messages; pure.

Knows sessions, not packets: what a client may ask is :mod:`~devicesim.emulator.broker`'s to judge.
"""

from collections.abc import Callable, Iterable, Iterator, MutableMapping

from devicesim.emulator.packets import Subscription
from devicesim.emulator.session import Delivery, Message, Session
from devicesim.emulator.settings import Settings
from devicesim.emulator.shared import SharedFilter, ShareGroup, parse_filter
from devicesim.emulator.timers import Timers
from devicesim.emulator.topics import SubscriptionTree

_GROUP = Subscription(topic_filter="")
"""What the tree holds for a group, whose members have options of their own."""


class Routes:
    """See the module."""

    def __init__(
        self,
        *,
        settings: Settings,
        timers: Timers,
        choose: Callable[[int], int],
        retained: MutableMapping[str, tuple[Message, float]] | None = None,
    ) -> None:
        """``choose(n)`` draws a number from 0 to n - 1: which member of a group gets a message. ``retained`` holds
        retained messages by topic, with the time at which each was kept."""
        self._settings = settings
        self._timers = timers
        self._choose = choose
        self._tree: SubscriptionTree[Session | ShareGroup, Subscription] = SubscriptionTree()
        self._groups: dict[SharedFilter, ShareGroup] = {}
        self._retained: MutableMapping[str, tuple[Message, float]] = {} if retained is None else retained
        self._first_expiry = float("-inf")
        """No retained message has expired before this time; those of an earlier broker have not been looked at."""
        self._shared = 0

    def __len__(self) -> int:
        """Subscriptions, each member of a group counted."""
        return len(self._tree) - len(self._groups) + self._shared

    def group(self, key: SharedFilter) -> ShareGroup | None:
        return self._groups.get(key)

    # --- subscriptions ---

    def subscribe(self, session: Session, option: Subscription) -> bool:
        """Subscribe, replacing what the session had under this very filter; ``True`` when it had nothing."""
        new = option.topic_filter not in session.subscriptions
        session.subscriptions[option.topic_filter] = option
        key = parse_filter(option.topic_filter)
        if key is None:
            self._tree.add(option.topic_filter, session, option)
            return new
        group = self._groups.get(key)
        if group is None:
            group = ShareGroup(key, settings=self._settings, timers=self._timers, choose=self._choose)
            self._groups[key] = group
            self._tree.add(key.topic_filter, group, _GROUP)
        self._shared += session not in group.members
        group.members[session] = option
        return new

    def unsubscribe(self, session: Session, topic_filter: str, now: float) -> bool:
        """``False`` when there was nothing."""
        if session.subscriptions.pop(topic_filter, None) is None:
            return False
        self._remove(session, topic_filter)
        key = parse_filter(topic_filter)
        if key is not None:
            self.return_shared(session.leave_group(key), now)
        return True

    def drop(self, session: Session) -> None:
        """The session has ended."""
        for topic_filter in session.subscriptions:
            self._remove(session, topic_filter)
        session.subscriptions.clear()

    def _remove(self, session: Session, topic_filter: str) -> None:
        key = parse_filter(topic_filter)
        if key is None:
            self._tree.remove(topic_filter, session)
            return
        group = self._groups[key]
        del group.members[session]
        self._shared -= 1
        if not group.members:
            group.close()
            del self._groups[key]
            self._tree.remove(key.topic_filter, group)

    def _groups_of(self, session: Session) -> Iterator[ShareGroup]:
        for topic_filter in tuple(session.subscriptions):
            key = parse_filter(topic_filter)
            if key is not None:
                yield self._groups[key]

    def serve_groups(self, session: Session, now: float) -> None:
        """The session is online, or new in a group: queued messages find somebody."""
        for group in self._groups_of(session):
            group.drain(now)

    def return_shared(self, deliveries: Iterable[Delivery], now: float) -> None:
        """What a session had in the name of its groups and will not have: to the others (4.8.2)."""
        for delivery in deliveries:
            if delivery.shared is None or delivery.qos == 0:
                continue
            group = self._groups.get(SharedFilter(*delivery.shared))
            if group is not None:
                group.offer(delivery.message, now)

    # --- messages ---

    def publish(self, message: Message, now: float) -> int:
        """Deliver to every session with a matching subscription, once each, and to one of each matching group;
        answers to how many."""
        best: dict[Session, tuple[int, bool]] = {}
        groups: list[ShareGroup] = []
        for receiver, option in self._tree.match(message.topic):
            if isinstance(receiver, ShareGroup):
                groups.append(receiver)
                continue
            if option.no_local and receiver.client_id == message.publisher:
                continue
            retain = message.retain and option.retain_as_published
            held = best.get(receiver)
            if held is None or option.qos > held[0]:
                best[receiver] = (option.qos, retain or (held is not None and held[1]))
        for session, (qos, retain) in best.items():
            session.deliver(Delivery(message=message, qos=min(qos, message.qos), retain=retain), now)
        return len(best) + sum([group.offer(message, now) for group in groups])

    def publish_to(self, session: Session, message: Message, now: float) -> bool:
        """Deliver to one session, in its own name; ``False`` when it has no subscription that matches."""
        options = [option for receiver, option in self._tree.match(message.topic) if receiver is session]
        if not options:
            return False
        qos = max(option.qos for option in options)
        session.deliver(Delivery(message=message, qos=min(qos, message.qos), retain=False), now)
        return True

    # --- retained messages ---

    @property
    def retained(self) -> int:
        return len(self._retained)

    def keep(self, message: Message, now: float) -> bool:
        """Retain, replace or remove the topic's retained message, when it is to be; ``False`` when there is no room."""
        if not message.retain:
            return True
        if not message.payload:
            self._retained.pop(message.topic, None)
            return True
        if not self.has_room(message, now):
            return False
        self._retained[message.topic] = (message, now)
        if message.expires_at is not None:
            self._first_expiry = min(self._first_expiry, message.expires_at)
        return True

    def has_room(self, message: Message, now: float) -> bool:
        """Whether the message can be retained, or is not to be; what has expired makes room."""
        if not message.retain or not message.payload or message.topic in self._retained:
            return True
        if len(self._retained) >= self._settings.max_retained_messages and now >= self._first_expiry:
            left = [self.retained_message(topic, now) for topic in tuple(self._retained)]
            expiries = (each.expires_at for each in left if each is not None and each.expires_at is not None)
            self._first_expiry = min(expiries, default=float("inf"))
        return len(self._retained) < self._settings.max_retained_messages

    def retained_message(self, topic: str, now: float) -> Message | None:
        """What is retained for ``topic``; what has expired is forgotten."""
        message, _ = self._retained.get(topic, (None, 0.0))
        if message is not None and message.expired(now):
            del self._retained[topic]
            return None
        return message

    def retained_since(self, topic: str) -> float:
        """When the topic's retained message, which there must be, was kept."""
        return self._retained[topic][1]

    def retained_topics(self) -> Iterator[str]:
        yield from tuple(self._retained)
