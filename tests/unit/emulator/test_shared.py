"""Shared subscriptions as AWS has them (developer guide, "Shared subscriptions", D), beyond the conformance cases."""

import json
from collections import Counter

import pytest

from devicesim.emulator.packets import (
    Properties,
    ProtocolVersion,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from devicesim.emulator.settings import Settings
from tests.emulator_support import V5, V311, Client, World, device

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
SHARED = "$share/g/t"


def ready(settings: Settings | None = None, devices: int = 4) -> World:
    world = World(settings)
    world.ready_account(*range(devices))
    return world


def new(world: World, index: int, version: ProtocolVersion = V311) -> Client:
    return world.client(index, world.account().endpoint, version=version)


def publish(client: Client, *payloads: bytes, **properties: int) -> None:
    for payload in payloads:
        told = Properties(**properties)  # type: ignore[arg-type]
        client.send(Publish(topic="t", payload=payload, qos=1, packet_id=1, properties=told))
        assert client.received() == [PubAck(packet_id=1)]


def back(world: World, index: int, **fields: object) -> tuple[Client, list[bytes]]:
    """A persistent member that is here again, and what came with its CONNACK, acknowledged."""
    client = new(world, index)
    packets = client.connect(f"m{index}", clean_start=False, **fields)
    assert packets
    messages = [each for each in packets if isinstance(each, Publish)]
    client.send(*(PubAck(packet_id=each.packet_id) for each in messages if each.packet_id is not None))
    return client, [each.payload for each in messages] + payloads(client)


def payloads(client: Client) -> list[bytes]:
    """What came, acknowledged."""
    packets = [each for each in client.received() if isinstance(each, Publish)]
    client.send(*(PubAck(packet_id=each.packet_id) for each in packets if each.packet_id is not None))
    return [each.payload for each in packets]


@VERSIONS
def test_each_message_goes_to_a_random_member(version: ProtocolVersion) -> None:
    world = ready()
    draws = iter([0.0, 0.9, 0.0, 0.0, 0.9])
    world.plane._uniform = lambda low, high: low + (high - low) * next(draws)
    members = [new(world, index, version).connected(f"m{index}").subscribe(SHARED, qos=1) for index in (0, 1)]
    publisher = new(world, 2).connected("p")
    publish(publisher, b"1", b"2", b"3", b"4", b"5")

    assert [payloads(each) for each in members] == [[b"1", b"3", b"4"], [b"2", b"5"]]


def test_qos_0_without_a_member_online_is_lost_and_qos_1_of_a_clean_group_too() -> None:
    world = ready()
    member = new(world, 0).connected("m").subscribe(SHARED, qos=1)
    member.lose()
    publisher = new(world, 2).connected("p")
    publisher.send(Publish(topic="t", payload=b"0"))
    publish(publisher, b"1")
    back = new(world, 0).connected("m").subscribe(SHARED, qos=1)

    assert payloads(back) == []


class TestQueue:
    def away(self, world: World, *indices: int) -> Client:
        """A group with persistent members, all of them away, and a publisher."""
        for index in indices:
            new(world, index).connected(f"m{index}", clean_start=False).subscribe(SHARED, qos=1)
        for index in indices:
            new(world, index).connected(f"m{index}", clean_start=False).lose()
        return new(world, 3).connected("p", keep_alive=1200)

    def test_qos_1_waits_for_a_persistent_group_that_is_away_and_qos_0_does_not(self) -> None:
        world = ready()
        publisher = self.away(world, 0)
        publisher.send(Publish(topic="t", payload=b"lost"))
        publish(publisher, b"1", b"2")

        assert back(world, 0)[1] == [b"1", b"2"]

    def test_a_new_member_gets_what_is_queued(self) -> None:
        world = ready()
        publish(self.away(world, 0), b"1")
        member = new(world, 1).connected("m1")
        member.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter=SHARED, qos=1),)))
        answer = member.received()

        assert answer[0] == SubAck(packet_id=1, reason_codes=(1,))
        assert [each.payload for each in answer[1:] if isinstance(each, Publish)] == [b"1"]

    def test_it_goes_out_at_twenty_a_second_for_each_member(self) -> None:
        world = ready()
        publisher = self.away(world, 0, 1)
        publish(publisher, *(b"%d" % number for number in range(70)))
        one, first = back(world, 0, keep_alive=1200)
        two, at_once = back(world, 1, keep_alive=1200)
        second = at_once + payloads(one)
        world.advance(1.0)
        third = payloads(one) + payloads(two)

        assert [len(each) for each in (first, second, third)] == [20, 20, 30]
        assert Counter(first + second + third) == Counter(b"%d" % number for number in range(70))

    def test_it_is_bounded_and_keeps_the_older(self) -> None:
        world = ready(Settings(max_shared_queue=2))
        publish(self.away(world, 0), b"1", b"2", b"3")

        assert back(world, 0)[1] == [b"1", b"2"]

    def test_messages_expire_in_it(self) -> None:
        world = ready(Settings(persistent_session_seconds=7200))
        self.away(world, 0)
        publisher = new(world, 3, V5).connected("p", keep_alive=1200)
        publish(publisher, b"short", message_expiry_interval=60)
        publish(publisher, b"long")
        world.advance(61)

        assert back(world, 0)[1] == [b"long"]

    def test_it_ends_with_the_last_member(self) -> None:
        world = ready()
        publisher = self.away(world, 0)
        publish(publisher, b"1")
        publisher.disconnect()
        world.advance(3601)
        fresh = new(world, 0).connected("m0", clean_start=False).subscribe(SHARED, qos=1)

        assert payloads(fresh) == []
        assert world.plane.load(world.account()).subscriptions == 1

    def test_what_a_member_did_not_acknowledge_goes_to_another(self) -> None:
        world = ready()
        one = new(world, 0).connected("m0", clean_start=False).subscribe(SHARED, qos=1)
        publish(new(world, 3).connected("p"), b"1")
        two = new(world, 1).connected("m1").subscribe(SHARED, qos=1)
        one.lose()

        assert payloads(two) == [b"1"]
        assert back(world, 0)[1] == []

    def test_nothing_is_left_of_a_group_that_is_gone(self) -> None:
        world = ready()
        publisher = self.away(world, 0, 1)
        publish(publisher, *(b"%d" % number for number in range(50)))
        one = new(world, 0).connected("m0", clean_start=False)
        one.send(Unsubscribe(packet_id=1, topic_filters=(SHARED,)))
        one.disconnect()
        publisher.disconnect()
        world.advance(8 * 24 * 3600)

        assert len(world.plane.timers) == 0
        assert world.plane.load(world.account()).subscriptions == 0


def test_a_member_whose_window_is_shut_is_passed_over() -> None:
    world = ready()
    slow = new(world, 0, V5).connected("slow", properties=Properties(receive_maximum=1)).subscribe(SHARED, qos=1)
    quick = new(world, 1, V5).connected("quick").subscribe(SHARED, qos=1)
    world.plane._uniform = lambda low, high: low
    publisher = new(world, 3).connected("p")
    publish(publisher, b"1", b"2", b"3")

    assert payloads(quick) == [b"2", b"3"]
    assert payloads(slow) == [b"1"]


def test_each_member_has_its_own_options() -> None:
    world = ready()
    one = new(world, 0, V5).connected("one").subscribe(SHARED, qos=1)
    two = new(world, 1, V5).connected("two")
    wanted = Subscription(topic_filter=SHARED, qos=0, retain_as_published=True)
    two.send(Subscribe(packet_id=1, subscriptions=(wanted,)))
    two.received()
    publisher = new(world, 3).connected("p")
    seen = []
    for draw, member in ((0.0, one), (0.9, two)):
        world.plane._uniform = lambda low, high, draw=draw: low + (high - low) * draw  # type: ignore[misc]
        publisher.send(Publish(topic="t", payload=b"x", qos=1, packet_id=1, retain=True))
        (message,) = member.received()
        assert isinstance(message, Publish)
        seen.append((message.qos, message.retain))

    assert seen == [(1, False), (0, True)]


def test_an_unsubscribed_member_hands_over_what_waited() -> None:
    world = ready()
    one = new(world, 0, V5).connected("one", properties=Properties(receive_maximum=1)).subscribe(SHARED, qos=1)
    publisher = new(world, 3).connected("p")
    publish(publisher, b"1", b"2")
    two = new(world, 1).connected("two").subscribe(SHARED, qos=1)
    one.send(Unsubscribe(packet_id=1, topic_filters=(SHARED,)))

    assert payloads(two) == [b"2"]


def test_retained_messages_are_not_for_shared_subscriptions() -> None:
    world = ready()
    publisher = new(world, 3).connected("p")
    publisher.send(Publish(topic="t", payload=b"kept", retain=True))
    member = new(world, 0).connected("m").subscribe(SHARED)

    assert member.received() == []


def test_subscriptions_and_members_are_counted() -> None:
    world = ready(Settings(max_shared_subscribers=2))
    members = [new(world, index, V5).connected(f"m{index}") for index in range(3)]
    for member in members[:2]:
        member.subscribe(SHARED, "plain")
    members[2].send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter=SHARED),)))

    assert members[2].received() == [SubAck(packet_id=1, reason_codes=(0x97,))]
    assert world.plane.load(world.account()).subscriptions == 4
    members[0].subscribe(SHARED, qos=1)  # again is not more
    assert world.plane.load(world.account()).subscriptions == 4


class TestPolicies:
    """Which resource AWS looks at is not known; the samples of its SDKs allow both (S)."""

    def world(self, subscribe: str, receive: str, checked: str) -> tuple[World, Client]:
        world = World(Settings(shared_subscription_policy=checked))  # type: ignore[arg-type]
        account = world.ready_account(3)
        statements = [
            ("iot:Connect", "*"),
            ("iot:Subscribe", f"arn:aws:iot:us-east-1:{account.account_id}:topicfilter/{subscribe}"),
            ("iot:Receive", f"arn:aws:iot:us-east-1:{account.account_id}:topic/{receive}"),
        ]
        listed = ",".join(f'{{"Effect":"Allow","Action":"{a}","Resource":"{r}"}}' for a, r in statements)
        document = f'{{"Version":"2012-10-17","Statement":[{listed}]}}'
        world.register_leaf(account, device(0), policy=document)
        client = new(world, 0, V5).connected("c")
        client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter=SHARED, qos=1),)))
        return world, client

    @pytest.mark.parametrize(
        ("allowed", "checked", "code"),
        [
            ("$share/g/t", "share", 1),
            ("$share/g/t", "topic", 0x87),
            ("$share/g/t", "both", 0x87),
            ("t", "share", 0x87),
            ("t", "topic", 1),
            ("t", "both", 0x87),
            ("*t", "both", 1),
        ],
    )
    def test_subscribing(self, allowed: str, checked: str, code: int) -> None:
        _, client = self.world(allowed, "*", checked)

        assert client.received() == [SubAck(packet_id=1, reason_codes=(code,))]

    @pytest.mark.parametrize(
        ("allowed", "checked", "seen"),
        [
            ("$share/g/t", "share", [b"x"]),
            ("$share/g/t", "topic", []),
            ("$share/g/t", "both", []),
            ("t", "topic", [b"x"]),
            ("t", "share", []),
            ("*t", "both", [b"x"]),
        ],
    )
    def test_receiving(self, allowed: str, checked: str, seen: list[bytes]) -> None:
        world, client = self.world("*", allowed, checked)
        client.received()
        publish(new(world, 3).connected("p"), b"x")

        assert payloads(client) == seen

    def test_a_member_that_may_not_receive_costs_the_group_nothing(self) -> None:
        world, client = self.world("*", "nothing", "both")
        other = new(world, 3).connected("o").subscribe(SHARED, qos=1)
        publisher = new(world, 3).connected("p")
        publish(publisher, b"1", b"2")
        client.received()

        assert payloads(other) == [b"1", b"2"]

    def test_a_message_that_no_member_may_receive_does_not_hold_up_the_others_of_the_queue(self) -> None:
        world = World()
        account = world.account()
        world.ready_account(1)
        statement = {"Effect": "Deny", "Action": "iot:Receive", "Resource": account.arn("topic", "*secret")}
        allow = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement, allow]})
        world.register_leaf(account, device(0), policy=document)
        new(world, 0).connected("m0", clean_start=False).subscribe("$share/g/+", qos=1).lose()
        publisher = new(world, 1).connected("p")
        for topic in ("a", "secret", "b"):
            publisher.send(Publish(topic=topic, payload=topic.encode(), qos=1, packet_id=1))

        _, seen = back(world, 0)

        assert seen == [b"a", b"b"]
