"""What a used-up quota does to devices and callers, without sockets (aws-iot-behaviour.md §6)."""

from dataclasses import replace

import pytest

from devicesim.emulator.apierrors import APIError
from devicesim.emulator.connection import DisconnectReason
from devicesim.emulator.history import Entry
from devicesim.emulator.packets import (
    ConnAck,
    Properties,
    PubAck,
    Publish,
    ReasonCode,
    SubAck,
    Subscribe,
    Subscription,
)
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.registry import Partition
from devicesim.emulator.settings import Settings
from tests.emulator_support import V5, V311, A, B, Client, World, device, template

LIFTED = Quotas.lifted()


def throttled(world: World) -> list[Entry]:
    return world.history.select(verdict="throttled")


class TestConnect:
    def test_the_account_s_rate_closes_what_is_more(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_second=2))
        account = world.ready_account(0, 1, 2)

        clients = [world.client(index, account.endpoint) for index in range(3)]
        answers = [client.connect(f"c{index}") for index, client in enumerate(clients)]

        assert answers == [[ConnAck()], [ConnAck()], []]
        assert [client.closed for client in clients] == [False, False, True]
        (entry,) = throttled(world)
        assert (entry.kind, entry.reason, entry.quota) == ("connection", "THROTTLED", "connects_per_second")
        assert (entry.account_id, entry.client_id) == (account.account_id, "c2")
        end = clients[2].connection.end
        assert end is not None
        assert end.reason is DisconnectReason.THROTTLED

    def test_it_comes_back_with_time(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_second=1))
        account = world.ready_account(0, 1)
        world.client(0, account.endpoint).connected("a")
        assert world.client(1, account.endpoint).connect("b") == []

        world.advance(1)

        world.client(1, account.endpoint).connected("b")

    def test_mqtt_5_is_told(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_second=1))
        account = world.ready_account(0, 1)
        world.client(0, account.endpoint).connected("a")

        (answer,) = world.client(1, account.endpoint, version=V5).connect("b")

        assert isinstance(answer, ConnAck)
        assert answer.reason_code == ReasonCode.QUOTA_EXCEEDED

    def test_mqtt_5_is_not_told_where_the_setting_says_close(self) -> None:
        world = World(Settings(throttled_connect_v5="close"), quotas=replace(LIFTED, connects_per_second=1))
        account = world.ready_account(0, 1)
        world.client(0, account.endpoint).connected("a")

        assert world.client(1, account.endpoint, version=V5).connect("b") == []

    def test_accounts_have_their_own_rates(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_second=1))
        first, second = world.ready_account(0), world.ready_account(0, account_id=B)

        world.client(0, first.endpoint).connected("c")
        world.client(0, second.endpoint).connected("c")

    def test_what_is_nobody_s_counts_against_nobody(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_second=1))
        account = world.ready_account(0)
        for _ in range(5):
            world.client(0, "nobody.iot.us-east-1.localhost").connect()

        world.client(0, account.endpoint).connected("c")

    def test_refused_ones_count_too(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_second=1))
        account = world.ready_account(0, 1)
        world.update(account, device(1), "INACTIVE")
        world.client(1, account.endpoint).connect("b")

        assert world.client(0, account.endpoint).connect("a") == []
        assert world.last().verdict in ("throttled", "disconnected")
        assert throttled(world)

    def test_one_client_id_connects_once_a_second(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_client_id_per_second=1))
        account = world.ready_account(0, 1)
        first = world.client(0, account.endpoint).connected("c")

        assert world.client(1, account.endpoint).connect("c") == []
        assert not first.closed  # who is throttled takes nothing over
        world.client(1, account.endpoint).connected("d")
        world.advance(1)
        world.client(1, account.endpoint).connected("c")
        assert first.closed

    def test_a_client_id_is_counted_once_its_certificate_is_authenticated(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_client_id_per_second=1))
        account = world.ready_account(0)
        stranger = world.client(5, account.endpoint)
        stranger.connect("c")  # registered just in time: not authenticated

        world.client(0, account.endpoint).connected("c")

    def test_a_policy_s_denial_counts(self) -> None:
        world = World(quotas=replace(LIFTED, connects_per_client_id_per_second=1))
        account = world.ready_account()
        world.register_leaf(account, device(0), policy=None)
        world.client(0, account.endpoint).connect("c")

        world.client(0, account.endpoint).connect("c")

        assert [entry.verdict for entry in world.history.select(kind="connection")] == ["denied", "throttled"]

    def test_the_number_of_connections_is_limited(self) -> None:
        world = World(quotas=replace(LIFTED, connections=2))
        account = world.ready_account(0, 1, 2)
        first = world.client(0, account.endpoint).connected("a")
        world.client(1, account.endpoint).connected("b")

        assert world.client(2, account.endpoint).connect("c") == []
        assert throttled(world)[0].quota == "connections"
        first.disconnect()
        world.client(2, account.endpoint).connected("c")

    def test_a_takeover_at_the_limit_is_no_further_connection(self) -> None:
        world = World(quotas=replace(LIFTED, connections=1))
        account = world.ready_account(0, 1)
        first = world.client(0, account.endpoint).connected("a")

        world.client(1, account.endpoint).connected("a")

        assert first.closed


class TestRegistration:
    def test_no_more_certificates_are_registered_than_allowed_and_the_rest_may_come_again(self) -> None:
        world = World(quotas=replace(LIFTED, certificate_registrations_per_second=2))
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")

        for index in range(3):
            assert world.client(index, account.endpoint).connect() == []

        assert [world.status(account, device(index)) for index in range(3)] == [
            "PENDING_ACTIVATION",
            "PENDING_ACTIVATION",
            None,
        ]
        assert throttled(world)[0].quota == "certificate_registrations_per_second"
        world.advance(1)
        world.client(2, account.endpoint).connect()
        assert world.status(account, device(2)) == "PENDING_ACTIVATION"

    def test_it_looks_like_any_unknown_certificate(self) -> None:
        for refusal, answered in (("close", False), ("connack", True)):
            world = World(
                Settings(refusal_v5=refusal),  # type: ignore[arg-type]
                quotas=replace(LIFTED, certificate_registrations_per_second=1),
            )
            account = world.account()
            world.register_ca(account, mode="SNI_ONLY")
            world.client(0, account.endpoint).connect()

            answer = world.client(1, account.endpoint, version=V5).connect()

            assert bool(answer) == answered
            if answered:
                assert isinstance(answer[0], ConnAck)
                assert answer[0].reason_code == ReasonCode.NOT_AUTHORIZED


class TestJITP:
    def world(self, how: str, rate: float = 1) -> tuple[World, Partition]:
        quotas = replace(LIFTED, api={"RegisterThing": rate})
        world = World(Settings(jitp_delay=(2.0, 2.0), jitp_throttled=how), quotas=quotas)  # type: ignore[arg-type]
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY", template_body=template())
        return world, account

    def statuses(self, world: World, account: Partition, count: int = 3) -> list[str | None]:
        return [world.status(account, device(index)) for index in range(count)]

    def test_what_finds_no_room_waits_for_the_device_s_next_connect(self) -> None:
        world, account = self.world("wait_for_connect")
        for index in range(3):
            world.client(index, account.endpoint).connect(f"c{index}")
        world.advance(2)

        assert self.statuses(world, account) == ["ACTIVE", "PENDING_ACTIVATION", "PENDING_ACTIVATION"]
        failed = world.history.select(verdict="provisioning_failed")
        assert [(entry.reason, entry.quota) for entry in failed] == [("ThrottlingException", "api.RegisterThing")] * 2
        world.advance(60)
        assert self.statuses(world, account)[1] == "PENDING_ACTIVATION"

        world.client(1, account.endpoint).connect("c1")
        world.advance(2)
        assert self.statuses(world, account)[1] == "ACTIVE"
        assert world.plane.provisioning_runs == 0

    def test_or_waits_for_its_turn(self) -> None:
        world, account = self.world("queue")
        for index in range(3):
            world.client(index, account.endpoint).connect(f"c{index}")
        world.advance(2)
        assert self.statuses(world, account) == ["ACTIVE", "PENDING_ACTIVATION", "PENDING_ACTIVATION"]
        assert world.plane.provisioning_runs == 2

        world.client(1, account.endpoint).connect("c1")  # does not start a second run
        assert world.plane.provisioning_runs == 2
        world.advance(1)
        assert self.statuses(world, account) == ["ACTIVE", "ACTIVE", "PENDING_ACTIVATION"]
        world.advance(1)
        assert self.statuses(world, account) == ["ACTIVE"] * 3
        assert world.plane.provisioning_runs == 0

    def test_the_api_and_jitp_share_the_rate(self) -> None:
        world, account = self.world("wait_for_connect")
        world.client(0, account.endpoint).connect()
        world.advance(1.5)
        world.plane.guard.call(account, "iot", "RegisterThing")
        world.advance(0.5)

        assert self.statuses(world, account, 1) == ["PENDING_ACTIVATION"]

    def test_ten_a_second_is_the_default(self) -> None:
        world, account = self.world("queue", rate=10)
        for index in range(30):
            world.client(index, account.endpoint).connect(f"c{index}")
        world.advance(2)
        at_once = self.statuses(world, account, 30).count("ACTIVE")
        world.advance(1)
        later = self.statuses(world, account, 30).count("ACTIVE")

        assert (at_once, later) == (10, 20)


class TestMessages:
    def connected(self, world: World, version: object = V311) -> tuple[Client, Client]:
        account = world.ready_account(0, 1)
        receiver = world.client(0, account.endpoint).connected("receiver").subscribe("t", qos=1)
        return world.client(1, account.endpoint, version=version).connected("sender"), receiver  # type: ignore[arg-type]

    def publish(self, count: int, qos: int = 1) -> list[Publish]:
        numbers = range(1, count + 1)
        return [Publish(topic="t", payload=b"%d" % n, qos=qos, packet_id=n if qos else None) for n in numbers]

    def test_what_is_more_is_discarded_and_the_connection_goes_on(self) -> None:
        world = World(quotas=replace(LIFTED, publishes_per_connection_per_second=3))
        sender, receiver = self.connected(world)

        sender.send(*self.publish(5))

        assert sender.received() == [PubAck(packet_id=n) for n in (1, 2, 3)]
        assert [payload for _, payload in receiver.messages()] == [b"1", b"2", b"3"]
        assert not sender.closed
        world.advance(1)
        sender.send(Publish(topic="t", payload=b"6", qos=1, packet_id=6))
        assert sender.received() == [PubAck(packet_id=6)]

    def test_the_history_tells_it_once_a_second_and_the_counter_each_time(self) -> None:
        world = World(quotas=replace(LIFTED, publishes_per_connection_per_second=1))
        sender, _ = self.connected(world)
        sender.send(*self.publish(50))
        world.advance(1)
        sender.send(*self.publish(50))

        assert len(throttled(world)) == 2
        entry = throttled(world)[0]
        assert (entry.kind, entry.client_id, entry.quota) == (
            "throttle",
            "sender",
            "publishes_per_connection_per_second",
        )
        assert world.core.quotas.throttled["publishes_per_connection_per_second"] == 98

    def test_mqtt_5_can_be_told_by_puback(self) -> None:
        world = World(
            Settings(throttled_publish="puback"), quotas=replace(LIFTED, publishes_per_connection_per_second=1)
        )
        sender, _ = self.connected(world, V5)

        sender.send(*self.publish(2))

        codes = [packet.reason_code for packet in sender.received() if isinstance(packet, PubAck)]
        assert codes[1] == ReasonCode.QUOTA_EXCEEDED

    def test_the_connection_can_be_ended(self) -> None:
        world = World(
            Settings(throttled_publish="disconnect"), quotas=replace(LIFTED, publishes_per_connection_per_second=1)
        )
        sender, _ = self.connected(world)

        sender.send(*self.publish(2))

        assert sender.closed
        assert world.last().reason == "THROTTLED"

    def test_a_topic_alias_of_a_discarded_message_counts(self) -> None:
        world = World(quotas=replace(LIFTED, publishes_per_connection_per_second=1))
        sender, receiver = self.connected(world, V5)
        sender.send(Publish(topic="other", payload=b"", qos=0))
        sender.send(Publish(topic="t", payload=b"lost", qos=0, properties=Properties(topic_alias=1)))
        world.advance(1)

        sender.send(Publish(topic="", payload=b"by alias", qos=0, properties=Properties(topic_alias=1)))

        assert receiver.messages() == [("t", b"by alias")]

    def test_the_account_s_inbound_rate_is_all_devices(self) -> None:
        world = World(quotas=replace(LIFTED, inbound_publishes_per_second=1))
        sender, receiver = self.connected(world)
        sender.send(*self.publish(1, qos=0))
        receiver.send(*self.publish(1, qos=0))

        assert len(receiver.messages()) == 1

    def test_qos_0_to_a_device_is_discarded_over_the_rate_and_qos_1_is_not(self) -> None:
        world = World(quotas=replace(LIFTED, outbound_publishes_per_second=2))
        sender, receiver = self.connected(world)

        sender.send(*self.publish(4, qos=0))
        assert len(receiver.messages()) == 2
        sender.send(*self.publish(4, qos=1))
        assert len(receiver.messages()) == 4

    def test_every_filter_of_a_subscribe_counts(self) -> None:
        world = World(quotas=replace(LIFTED, subscribes_per_second=3))
        account = world.ready_account(0)
        client = world.client(0, account.endpoint).connected()
        filters = tuple(Subscription(topic_filter=name, qos=0) for name in "ab")

        answers = []
        for number in (1, 2, 3):
            client.send(Subscribe(packet_id=number, subscriptions=filters))
            answers += client.received()

        assert answers == [
            SubAck(packet_id=1, reason_codes=(0, 0)),
            SubAck(packet_id=2, reason_codes=(0, 0)),  # one was still allowed
            SubAck(packet_id=3, reason_codes=(0x80, 0x80)),
        ]

    @pytest.mark.parametrize("how", ["suback", "disconnect"])
    def test_mqtt_5_is_told_of_a_throttled_subscribe(self, how: str) -> None:
        world = World(
            Settings(throttled_subscribe=how),  # type: ignore[arg-type]
            quotas=replace(LIFTED, subscribes_per_second=1),
        )
        account = world.ready_account(0)
        client = world.client(0, account.endpoint, version=V5).connected()
        client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a", qos=0),)))
        client.received()

        client.send(Subscribe(packet_id=2, subscriptions=(Subscription(topic_filter="b", qos=0),)))

        if how == "suback":
            assert client.received() == [SubAck(packet_id=2, reason_codes=(ReasonCode.QUOTA_EXCEEDED,))]
        assert client.closed == (how == "disconnect")
        client.send(Publish(topic="b", payload=b"", qos=0))
        assert client.messages() == []


class TestAPI:
    def test_a_call_over_its_rate_is_a_throttling_exception(self) -> None:
        world = World(quotas=replace(LIFTED, api={"CreateThing": 1}))
        account = world.account()
        world.plane.guard.call(account, "iot", "CreateThing")

        with pytest.raises(APIError) as caught:
            world.plane.guard.call(account, "iot", "CreateThing")

        assert (caught.value.code, caught.value.message) == ("ThrottlingException", "Rate exceeded")
        entry = world.last()
        assert (entry.kind, entry.verdict, entry.account_id, entry.detail, entry.quota) == (
            "throttle",
            "throttled",
            A,
            "CreateThing",
            "api.CreateThing",
        )

    def test_sts_has_no_quota(self) -> None:
        world = World(quotas=Quotas())
        for _ in range(1000):
            world.plane.guard.call(world.account(), "sts", "GetCallerIdentity")
