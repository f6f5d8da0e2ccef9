"""Retained messages in an account's partition: what a broker finds there again."""

import pytest

from devicesim.emulator.clock import Clock
from devicesim.emulator.packets import Properties, Publish, Subscribe, Subscription
from devicesim.emulator.retained import RetainedMessages
from devicesim.emulator.session import Message
from devicesim.emulator.state.partition import Partition
from tests.emulator_support import A, World

EVERYTHING = Message(
    topic="a/b",
    payload=b"\x00\xff",
    qos=1,
    retain=True,
    properties=Properties(
        content_type="text/plain",
        response_topic="r",
        correlation_data=b"\x01",
        payload_format_indicator=1,
        user_properties=(("k", "v"), ("k", "w")),
    ),
    expires_at=160.0,
    publisher="robot",
    principal="f" * 64,
)


def clock(wall: float, now: float) -> Clock:
    return Clock(wall=lambda: wall, monotonic=lambda: now)


def test_a_message_is_found_again_on_another_brokers_clock() -> None:
    partition = Partition(account_id=A, region="us-east-1")
    RetainedMessages(partition, clock(1_000_100.0, 100.0))["a/b"] = (EVERYTHING, 90.0)

    again = RetainedMessages(partition, clock(1_000_130.0, 5.0))

    message, kept_at = again["a/b"]
    assert message == Message(
        **{name: getattr(EVERYTHING, name) for name in Message.__slots__ if name != "expires_at"}, expires_at=35.0
    )
    assert kept_at == -35.0
    assert again["a/b"][0] is message


def test_it_is_a_mapping_like_any_other() -> None:
    partition = Partition(account_id=A, region="us-east-1")
    retained = RetainedMessages(partition, clock(0.0, 0.0))
    retained["a/b"] = (EVERYTHING, 0.0)
    retained["c"] = (EVERYTHING, 0.0)

    assert (list(retained), len(retained), "c" in retained) == (["a/b", "c"], 2, True)
    assert retained.pop("a/b")[0] is EVERYTHING
    assert list(partition.retained) == ["c"]
    with pytest.raises(KeyError):
        del retained["a/b"]
    assert retained.get("a/b") is None


def test_a_new_broker_has_what_the_account_had() -> None:
    world = World()
    account = world.ready_account(1, 2)
    first = world.client(1, account.endpoint).connected("one")
    first.send(Publish(topic="t", payload=b"kept", retain=True, qos=1, packet_id=1))
    assert world.plane.load(account).retained == 1

    restarted = World()
    twin = restarted.ready_account(1, 2)
    twin.retained.update(account.retained)

    assert restarted.plane.load(twin).retained == 1
    assert [message.payload for message, _ in restarted.plane.retained(twin).values()] == [b"kept"]
    second = restarted.client(2, twin.endpoint).connected("two")
    second.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="t"),)))
    assert second.messages() == [("t", b"kept")]
    second.send(Publish(topic="t", payload=b"", retain=True))
    assert not twin.retained
