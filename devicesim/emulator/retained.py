"""Retained messages, which are the account's like its things: they stand in its partition, not in its broker. Pure.

A partition knows the time of day, a broker only its own clock, which begins anew with each start of the emulator;
between the two is this.
"""

from collections.abc import Iterator, MutableMapping

from devicesim.emulator.clock import Clock
from devicesim.emulator.packets import NO_PROPERTIES, Properties
from devicesim.emulator.registry import Partition
from devicesim.emulator.session import Message
from devicesim.emulator.state.records import RetainedMessage


class RetainedMessages(MutableMapping[str, tuple[Message, float]]):
    """An account's retained messages by topic, with the time on the broker's clock at which each was kept."""

    def __init__(self, partition: Partition, clock: Clock) -> None:
        self._kept = partition.retained
        self._clock = clock
        self._messages: dict[str, tuple[Message, float]] = {}
        """Those that a broker has seen already; the others are made of their records when they are asked for."""

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __contains__(self, topic: object) -> bool:
        return topic in self._kept

    def __getitem__(self, topic: str) -> tuple[Message, float]:
        found = self._messages.get(topic)
        if found is None:
            found = self._messages[topic] = self._read(self._kept[topic])
        return found

    def __setitem__(self, topic: str, value: tuple[Message, float]) -> None:
        message, at = value
        epoch, properties = self._epoch(), message.properties
        self._messages[topic] = value
        self._kept[topic] = RetainedMessage(
            topic=topic,
            payload=message.payload,
            qos=message.qos,
            content_type=properties.content_type,
            response_topic=properties.response_topic,
            correlation_data=properties.correlation_data,
            payload_format_indicator=properties.payload_format_indicator,
            user_properties=properties.user_properties,
            expires_at=None if message.expires_at is None else message.expires_at + epoch,
            kept_at=at + epoch,
            publisher=message.publisher,
            principal=message.principal,
        )

    def __delitem__(self, topic: str) -> None:
        del self._kept[topic]
        self._messages.pop(topic, None)

    def _read(self, record: RetainedMessage) -> tuple[Message, float]:
        epoch = self._epoch()
        properties = Properties(
            content_type=record.content_type,
            response_topic=record.response_topic,
            correlation_data=record.correlation_data,
            payload_format_indicator=record.payload_format_indicator,
            user_properties=record.user_properties,
        )
        message = Message(
            topic=record.topic,
            payload=record.payload,
            qos=record.qos,
            retain=True,
            properties=NO_PROPERTIES if properties == NO_PROPERTIES else properties,
            expires_at=None if record.expires_at is None else record.expires_at - epoch,
            publisher=record.publisher,
            principal=record.principal,
        )
        return message, record.kept_at - epoch

    def _epoch(self) -> float:
        """When the broker's clock would have been at 0."""
        return self._clock.wall() - self._clock.now()
