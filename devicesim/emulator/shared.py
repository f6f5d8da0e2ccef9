"""Shared subscriptions: groups of sessions of which one gets each message (4.8.2); pure.

AWS has them in MQTT 3.1.1, too (developer guide, "Shared subscriptions", D). A message goes to a random member that is
online. What QoS 1 cannot be sent to anybody is queued, if a member has a persistent session, and sent in portions of a
second when members are back. QoS 0 is lost.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from devicesim.emulator.packets import Subscription
from devicesim.emulator.session import Delivery, Message, Session
from devicesim.emulator.settings import Settings
from devicesim.emulator.timers import Timer, Timers

PREFIX: Final = "$share/"


class SharedFilter(NamedTuple):
    """The two halves of ``$share/<name>/<filter>``: what names a group."""

    name: str
    topic_filter: str


def parse_filter(topic_filter: str) -> SharedFilter | None:
    """``None`` when ``topic_filter`` is not shared; a half that is missing is empty."""
    if not topic_filter.startswith(PREFIX):
        return None
    name, _, rest = topic_filter.removeprefix(PREFIX).partition("/")
    return SharedFilter(name, rest)


def name_problem(name: str, *, max_characters: int) -> str | None:
    """Why there is no group of this name; ``None`` when there can be (MQTT-4.8.2-1, MQTT-4.8.2-2)."""
    if not name:
        return "share name is empty"
    if "+" in name or "#" in name:
        return f"share name {name!r} has a wildcard"
    if len(name) > max_characters:
        return f"share name has {len(name)} characters, must be at most {max_characters}"
    return None


class ShareGroup:
    """Everyone who subscribed with one share name and filter."""

    def __init__(self, key: SharedFilter, *, settings: Settings, timers: Timers, choose: Callable[[int], int]) -> None:
        """``choose(n)`` draws a number from 0 to n - 1."""
        self.key = key
        self.members: dict[Session, Subscription] = {}
        self.dropped = 0
        """QoS 1 messages that found neither a member nor room in the queue."""
        self._settings = settings
        self._timers = timers
        self._choose = choose
        self._queue: list[tuple[Message, float]] = []
        """With the time until which each is kept."""
        self._timer: Timer | None = None
        self._second = float("-inf")
        """When the second began in which ``_sent`` messages of the queue have gone out."""
        self._sent = 0

    @property
    def queued(self) -> int:
        return len(self._queue)

    def offer(self, message: Message, now: float) -> bool:
        """Give it to one member, or queue it; ``False`` when nobody will have it."""
        member = self._pick(message)
        if member is not None:
            self._give(member, message, now)
            return True
        if message.qos == 0 or not any(session.expiry > 0 for session in self.members):
            return False
        if len(self._queue) >= self._settings.max_shared_queue:
            self.dropped += 1  # "does not replace older queued messages with newer ones" (D)
            return False
        until = message.expires_at
        if until is None:  # "the MEI takes precedence" (D)
            until = now + self._settings.persistent_session_seconds
        self._queue.append((message, until))
        return True

    def drain(self, now: float) -> None:
        """One second's portion of the queue to whoever is online, and a timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if now >= self._second + 1.0:  # as the timer was set
            self._second, self._sent = now, 0
        online = [session for session in self.members if session.online]
        left = len(online) * self._settings.shared_queue_messages_per_second - self._sent
        waiting: list[tuple[Message, float]] = []  # what no member that is online may receive holds nobody up
        position = 0
        while position < len(self._queue) and left > 0 and any(each.ready or each.has_room for each in online):
            message, until = self._queue[position]
            position += 1
            if until <= now:
                continue
            member = self._pick(message)
            if member is None:
                waiting.append((message, until))
                continue
            self._give(member, message, now)
            self._sent += 1
            left -= 1
        self._queue[:position] = waiting
        if self._queue and online:
            self._timer = self._timers.schedule(now + 1.0, self.drain)

    def close(self) -> None:
        """The last member has left: nothing is kept."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pick(self, message: Message) -> Session | None:
        """A random member that is online and may receive it; first among those to whom it can be sent at once."""
        online = [session for session in self.members if session.online]
        if not online:
            return None
        for candidates in (
            [session for session in online if session.ready],
            [session for session in online if not session.ready and session.has_room],
        ):
            for session in self._rotation(candidates):
                if session.may_receive(message.topic, self.key):
                    return session
        return None

    def _rotation(self, candidates: list[Session]) -> Iterator[Session]:
        """Every candidate once, from a random one on."""
        if candidates:
            start = self._choose(len(candidates))
            yield from candidates[start:]
            yield from candidates[:start]

    def _give(self, session: Session, message: Message, now: float) -> None:
        option = self.members[session]
        retain = message.retain and option.retain_as_published
        delivery = Delivery(message=message, qos=min(option.qos, message.qos), retain=retain, shared=self.key)
        session.deliver(delivery, now)
