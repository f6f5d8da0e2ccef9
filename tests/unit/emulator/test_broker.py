"""The broker, through admitted clients: 3.1.1 and 5 within the limits of AWS. Clauses are MQTT 5's unless named."""

import pytest

from devicesim.emulator.packets import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    Properties,
    ProtocolVersion,
    PubAck,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
)
from devicesim.emulator.settings import Settings
from tests.emulator_support import V5, V311, B, Client, World, device, will

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
MAXIMA = Properties(
    receive_maximum=100,
    maximum_qos=1,
    retain_available=1,
    maximum_packet_size=149_504,
    topic_alias_maximum=8,
    wildcard_subscription_available=1,
    subscription_identifier_available=0,
    shared_subscription_available=1,
)


@pytest.fixture
def world() -> World:
    world = World()
    world.ready_account(0, 1, 2)
    return world


def new(world: World, index: int, version: ProtocolVersion = V311) -> Client:
    return world.client(index, world.account().endpoint, version=version)


def publish(topic: str, payload: bytes = b"x", **fields: object) -> Publish:
    return Publish(topic=topic, payload=payload, **fields)  # type: ignore[arg-type]


class TestConnect:
    def test_connack_of_3_1_1(self, world: World) -> None:
        assert new(world, 0).connect() == [ConnAck()]

    def test_connack_of_5_says_what_is_not_supported(self, world: World) -> None:
        answer = new(world, 0, V5).connect(keep_alive=60)

        assert answer == [ConnAck(properties=MAXIMA)]

    @pytest.mark.parametrize(
        ("asked", "told"), [(0, 1200), (1, 30), (29, 30), (30, None), (1200, None), (65_535, 1200)]
    )
    def test_keep_alive_is_clamped_and_mqtt_5_is_told(self, world: World, asked: int, told: int | None) -> None:
        """§5 of the behaviour page; 3.2.2.3.14."""
        (answer,) = new(world, 0, V5).connect(keep_alive=asked)

        assert isinstance(answer, ConnAck)
        assert answer.properties.server_keep_alive == told

    def test_session_expiry_is_shortened_to_the_accounts_maximum_and_told(self, world: World) -> None:
        (answer,) = new(world, 0, V5).connect(properties=Properties(session_expiry_interval=0xFFFF_FFFF))

        assert isinstance(answer, ConnAck)
        assert answer.properties.session_expiry_interval == 3600

    def test_a_client_id_is_assigned_to_mqtt_5(self, world: World) -> None:
        first, second = new(world, 0, V5), new(world, 1, V5)
        (one,), (two,) = first.connect(""), second.connect("")

        assert isinstance(one, ConnAck)
        assert isinstance(two, ConnAck)
        assert one.properties.assigned_client_identifier is not None
        assert one.properties.assigned_client_identifier != two.properties.assigned_client_identifier
        assert not first.closed

    def test_an_empty_client_id_of_3_1_1_is_closed_unless_set_otherwise(self, world: World) -> None:
        client = new(world, 0)

        assert client.connect("") == []
        assert client.closed

        world = World(Settings(empty_client_id_v311="assign"))
        world.ready_account(0)

        assert new(world, 0).connect("") == [ConnAck()]

        client = new(world, 0)

        assert client.connect("", clean_start=False) == []  # 3.1.1, MQTT-3.1.3-8
        assert client.closed

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"client_id": "x" * 129}, 0x85),
            ({"will": will(qos=2)}, 0x9B),
            ({"will": will("a/+")}, 0x90),
            ({"will": will("$aws/x")}, 0x90),
            ({"will": will("a/b/c/d/e/f/g/h/i")}, 0x90),
            ({"properties": Properties(authentication_method="m")}, 0x80),
        ],
    )
    def test_a_connect_that_cannot_be_accepted(self, world: World, fields: dict[str, object], code: int) -> None:
        """3.1.1 is closed without CONNACK, MQTT 5 is told."""
        client = new(world, 0, V5)

        assert client.connect(**{"client_id": "c", **fields}) == [ConnAck(reason_code=code)]  # type: ignore[arg-type]
        assert client.closed
        assert world.verdicts() == ["refused"]

        if "properties" not in fields:
            client = new(world, 0)

            assert client.connect(**{"client_id": "c", **fields}) == []  # type: ignore[arg-type]
            assert client.closed

    def test_the_longest_client_id(self, world: World) -> None:
        assert new(world, 0).connect("x" * 128) == [ConnAck()]

    @VERSIONS
    def test_a_client_must_wait_for_connack(self, world: World, version: ProtocolVersion) -> None:
        client = new(world, 0, version)
        client.send(Connect(client_id="c", version=version), PingReq())

        assert client.received() == []
        assert client.closed

    def test_or_not_when_so_set(self) -> None:
        world = World(Settings(packets_before_connack="accept"))
        world.ready_account(0)
        client = new(world, 0)
        client.send(Connect(client_id="c", version=V311), PingReq())

        assert client.received() == [ConnAck(), PingResp()]

    @VERSIONS
    def test_a_second_connect_is_a_protocol_error(self, world: World, version: ProtocolVersion) -> None:
        """MQTT-3.1.0-2."""
        client = new(world, 0, version).connected()
        client.send(Connect(client_id="c", version=version))

        assert client.received() == ([Disconnect(reason_code=0x82)] if version is V5 else [])
        assert client.closed

    @VERSIONS
    def test_only_a_server_sends_these(self, world: World, version: ProtocolVersion) -> None:
        packets: list[Packet] = [
            ConnAck(),
            SubAck(packet_id=1, reason_codes=(0,)),
            UnsubAck(packet_id=1, reason_codes=(0,)),
            PingResp(),
            PubRec(packet_id=1),
            PubRel(packet_id=1),
        ]
        if version is V5:
            packets.append(Auth())
        for packet in packets:
            client = new(world, 0, version).connected()
            client.send(packet)

            assert client.closed, packet
            assert client.received() == ([Disconnect(reason_code=0x82)] if version is V5 else [])


class TestTakeover:
    def test_the_newer_connection_wins_and_mqtt_5_is_told(self, world: World) -> None:
        """§5 of the behaviour page; 3.1.4."""
        old = new(world, 0, V5).connected("same")
        new(world, 1).connected("same")

        assert old.received() == [Disconnect(reason_code=0x8E)]
        assert old.closed
        assert world.last().reason == "DUPLICATE_CLIENTID"

    def test_3_1_1_is_only_closed(self, world: World) -> None:
        old = new(world, 0).connected("same")
        new(world, 1).connected("same")

        assert old.received() == []
        assert old.closed

    def test_the_old_ones_disconnect_stands_before_the_new_ones_connack(self, world: World) -> None:
        """Order is decided here: whoever writes the queues in the order given tells them in this order."""
        old = new(world, 0, V5).connected("same")
        world.plane.take_ready()
        other = new(world, 1)
        other.send(Connect(client_id="same", version=V311))

        assert world.plane.take_ready() == [old.connection, other.connection]

    def test_the_same_client_id_in_another_account_is_another_client(self, world: World) -> None:
        world.ready_account(0, account_id=B)
        one = new(world, 0).connected("same")
        two = world.client(0, world.account(B).endpoint).connected("same")

        assert not one.closed
        assert not two.closed

    def test_a_will_without_delay_is_published_when_its_client_is_taken_over(self, world: World) -> None:
        watcher = new(world, 2).connected("w").subscribe("wills/#")
        new(world, 0).connected("same", will=will())
        new(world, 1).connected("same")

        assert watcher.messages() == [("wills/c", b"gone")]


class TestPublish:
    @VERSIONS
    def test_qos_1_is_acknowledged_and_routed(self, world: World, version: ProtocolVersion) -> None:
        subscriber = new(world, 0, version).connected("s").subscribe("a/+", qos=1)
        publisher = new(world, 1, version).connected("p")
        publisher.send(publish("a/b", qos=1, packet_id=7))

        assert publisher.received() == [PubAck(packet_id=7)]
        assert subscriber.received() == [publish("a/b", qos=1, packet_id=1)]

    def test_the_lower_qos_counts(self, world: World) -> None:
        low = new(world, 0).connected("low").subscribe("a", qos=0)
        high = new(world, 1).connected("high").subscribe("a", qos=1)
        publisher = new(world, 2).connected("p")
        publisher.send(publish("a", qos=1, packet_id=1), publish("a", b"y"))

        assert low.received() == [publish("a"), publish("a", b"y")]
        assert high.received() == [publish("a", qos=1, packet_id=1), publish("a", b"y")]

    def test_overlapping_subscriptions_deliver_once_with_the_highest_qos(self, world: World) -> None:
        client = new(world, 0).connected().subscribe("a/#", qos=0).subscribe("a/b", qos=1)
        client.send(publish("a/b", qos=1, packet_id=1))

        assert client.received() == [publish("a/b", qos=1, packet_id=1), PubAck(packet_id=1)]

    def test_the_versions_talk_to_each_other(self, world: World) -> None:
        five = new(world, 0, V5).connected("five").subscribe("t")
        three = new(world, 1).connected("three").subscribe("t")
        five.send(publish("t", properties=Properties(content_type="text/plain", user_properties=(("k", "v"),))))
        three.send(publish("t", b"y"))

        assert three.received() == [publish("t"), publish("t", b"y")]
        assert five.received() == [
            publish("t", properties=Properties(content_type="text/plain", user_properties=(("k", "v"),))),
            publish("t", b"y"),
        ]

    @pytest.mark.parametrize(
        ("packet", "code"),
        [
            (publish("a", qos=2, packet_id=1), 0x9B),
            (publish("a/#"), 0x90),
            (publish("$aws/events/certificates/registered/x"), 0x90),
            (publish("$SYS/x"), 0x90),
            (publish("x" * 257), 0x90),
            (publish("1/2/3/4/5/6/7/8/9"), 0x90),
            (publish("a", bytes(131_073)), 0x97),
        ],
    )
    def test_what_may_not_be_published(self, world: World, packet: Publish, code: int) -> None:
        """§5 of the behaviour page: limits, QoS 2, the service's own topics."""
        client = new(world, 0, V5).connected()
        client.send(packet)

        assert client.received() == [Disconnect(reason_code=code)]

        client = new(world, 0).connected()
        client.send(packet)

        assert client.received() == []
        assert client.closed

    def test_the_largest_payload(self, world: World) -> None:
        client = new(world, 0).connected()
        client.send(publish("a", bytes(131_072), qos=1, packet_id=1))

        assert client.received() == [PubAck(packet_id=1)]

    def test_a_packet_above_the_maximum_size_is_refused_at_its_header(self, world: World) -> None:
        client = new(world, 0, V5).connected()
        client.send_bytes(bytes.fromhex("30 ff ff 7f"))

        assert client.received() == [Disconnect(reason_code=0x95)]

    @pytest.mark.parametrize(
        ("properties", "code"),
        [
            (Properties(subscription_identifiers=(1,)), 0x82),  # MQTT-3.3.4-6
            (Properties(response_topic="a/+"), 0x90),  # MQTT-3.3.2-14
            (Properties(topic_alias=9), 0x94),  # MQTT-3.2.2-17
        ],
    )
    def test_properties_that_a_client_may_not_send(self, world: World, properties: Properties, code: int) -> None:
        client = new(world, 0, V5).connected()
        client.send(publish("a", properties=properties))

        assert client.received() == [Disconnect(reason_code=code)]

    def test_topic_aliases(self, world: World) -> None:
        client = new(world, 0, V5).connected().subscribe("#")
        client.send(
            publish("a", b"1", properties=Properties(topic_alias=8)),
            publish("", b"2", properties=Properties(topic_alias=8)),
            publish("b", b"3", properties=Properties(topic_alias=8)),
            publish("", b"4", properties=Properties(topic_alias=8)),
        )

        assert client.messages() == [("a", b"1"), ("a", b"2"), ("b", b"3"), ("b", b"4")]

        client.send(publish("", properties=Properties(topic_alias=1)))

        assert client.received() == [Disconnect(reason_code=0x82)]

    def test_message_expiry_counts_down_while_the_message_waits(self, world: World) -> None:
        """MQTT-3.3.2-5 and -6."""
        away = new(world, 0, V5)
        away.connected("away", properties=Properties(session_expiry_interval=1000)).subscribe("t", qos=1)
        away.disconnect()
        publisher = new(world, 1, V5).connected("p")
        publisher.send(
            publish("t", b"long", qos=1, packet_id=1, properties=Properties(message_expiry_interval=60)),
            publish("t", b"short", qos=1, packet_id=2, properties=Properties(message_expiry_interval=10)),
        )
        world.advance(20)
        back = new(world, 0, V5)
        answers = back.connect("away", clean_start=False)

        assert answers[1:] == [
            publish("t", b"long", qos=1, packet_id=1, properties=Properties(message_expiry_interval=40))
        ]


class TestSubscribe:
    @VERSIONS
    def test_suback_answers_each_filter_in_order(self, world: World, version: ProtocolVersion) -> None:
        client = new(world, 0, version).connected()
        filters = (Subscription(topic_filter="a", qos=1), Subscription(topic_filter="b"))
        client.send(Subscribe(packet_id=9, subscriptions=filters))

        assert client.received() == [SubAck(packet_id=9, reason_codes=(1, 0))]

    @VERSIONS
    def test_unsubscribe(self, world: World, version: ProtocolVersion) -> None:
        client = new(world, 0, version).connected().subscribe("a", "b")
        client.send(Unsubscribe(packet_id=2, topic_filters=("a", "never")), publish("a"), publish("b"))

        codes = (0, 0x11) if version is V5 else ()
        assert client.received() == [UnsubAck(packet_id=2, reason_codes=codes), publish("b")]

    @VERSIONS
    def test_more_than_eight_filters_in_one_subscribe(self, world: World, version: ProtocolVersion) -> None:
        filters = tuple(Subscription(topic_filter=f"t{number}") for number in range(9))
        client = new(world, 0, version).connected()
        client.send(Subscribe(packet_id=1, subscriptions=filters[:8]))

        assert client.received() == [SubAck(packet_id=1, reason_codes=(0,) * 8)]

        client.send(Subscribe(packet_id=2, subscriptions=filters))

        assert client.received() == ([Disconnect(reason_code=0x97)] if version is V5 else [])
        assert client.closed

    @VERSIONS
    def test_the_fifty_first_subscription_fails_and_the_connection_stays(
        self, world: World, version: ProtocolVersion
    ) -> None:
        client = new(world, 0, version).connected()
        for start in range(0, 50, 5):
            client.subscribe(*(f"t{number}" for number in range(start, start + 5)))
        client.send(Subscribe(packet_id=3, subscriptions=(Subscription(topic_filter="more"),)))

        assert client.received() == [SubAck(packet_id=3, reason_codes=(0x97 if version is V5 else 0x80,))]
        assert not client.closed

        client.subscribe("t1")  # one that it has may be made again

    @pytest.mark.parametrize(
        ("topic_filter", "code"),
        [
            ("a/#/b", 0x8F),
            ("a+", 0x8F),
            ("x" * 257, 0x8F),
            ("1/2/3/4/5/6/7/8/9", 0x8F),
            ("$share/t", 0x8F),
            ("$SYS/#", 0x8F),
        ],
    )
    def test_filters_that_cannot_be_subscribed_to(self, world: World, topic_filter: str, code: int) -> None:
        subscribe = Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter=topic_filter),))
        client = new(world, 0, V5).connected()
        client.send(subscribe)

        assert client.received() == [SubAck(packet_id=1, reason_codes=(code,))]

        client = new(world, 0).connected()
        client.send(subscribe)

        assert client.received() == []
        assert client.closed

    def test_qos_2_is_refused(self, world: World) -> None:
        subscribe = Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a", qos=2),))
        client = new(world, 0, V5).connected()
        client.send(subscribe)

        assert client.received() == [Disconnect(reason_code=0x9B)]

        client = new(world, 0).connected()
        client.send(subscribe)

        assert client.received() == []
        assert client.closed

    def test_or_granted_as_1_in_mqtt_5_when_so_set(self) -> None:
        world = World(Settings(subscribe_qos_2_v5="grant_1"))
        world.ready_account(0)
        client = new(world, 0, V5).connected()
        client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a", qos=2),)))

        assert client.received() == [SubAck(packet_id=1, reason_codes=(1,))]

    @VERSIONS
    def test_a_subscribe_that_ends_the_connection_subscribes_to_nothing(
        self, world: World, version: ProtocolVersion
    ) -> None:
        """The session outlives the connection, and would have what no SUBACK has granted."""
        properties = Properties(session_expiry_interval=100 if version is V5 else None)
        client = new(world, 0, version).connected(clean_start=False, properties=properties)
        subscriptions = (Subscription(topic_filter="a", qos=1), Subscription(topic_filter="b", qos=2))
        client.send(Subscribe(packet_id=1, subscriptions=subscriptions))

        assert client.closed
        assert world.plane.load(world.account()).sessions == 1
        assert world.plane.load(world.account()).subscriptions == 0

    def test_the_fifty_first_may_stand_in_one_subscribe_with_those_before_it(self, world: World) -> None:
        client = new(world, 0, V5).connected()
        for start in range(0, 48, 8):
            client.subscribe(*(f"t{number}" for number in range(start, start + 8)))
        subscriptions = tuple(Subscription(topic_filter=each) for each in ("a", "b", "a", "c", "t1"))
        client.send(Subscribe(packet_id=3, subscriptions=subscriptions))

        assert client.received() == [SubAck(packet_id=3, reason_codes=(0, 0, 0, 0x97, 0))]

    def test_a_subscription_identifier_is_refused_in_the_words_of_aws(self, world: World) -> None:
        client = new(world, 0, V5).connected()
        properties = Properties(subscription_identifiers=(1,))
        client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a"),), properties=properties))

        text = "DISCONNECT:Subscription Id is not supported now"
        assert client.received() == [Disconnect(reason_code=0xA1, properties=Properties(reason_string=text))]

    def test_no_local(self, world: World) -> None:
        """3.8.3.1."""
        client = new(world, 0, V5).connected("me")
        client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a", no_local=True),)))
        client.received()
        client.send(publish("a", b"mine"))
        new(world, 1).connected("other").send(publish("a", b"theirs"))

        assert client.messages() == [("a", b"theirs")]


class TestRetained:
    @pytest.fixture
    def publisher(self, world: World) -> Client:
        client = new(world, 0).connected("p")
        client.send(publish("state", b"on", qos=1, packet_id=1, retain=True))
        client.received()
        return client

    def test_is_sent_to_a_new_exact_subscription_with_the_flag(self, world: World, publisher: Client) -> None:
        client = new(world, 1).connected("s")
        client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="state", qos=1),)))

        assert client.received() == [
            SubAck(packet_id=1, reason_codes=(1,)),
            publish("state", b"on", qos=1, packet_id=1, retain=True),
        ]

    @pytest.mark.parametrize("topic_filter", ["#", "+", "state/#"])
    def test_is_not_sent_to_a_wildcard(self, world: World, publisher: Client, topic_filter: str) -> None:
        """AWS: the filter must match the retained topic exactly."""
        client = new(world, 1).connected("s").subscribe(topic_filter)

        assert client.messages() == []

    def test_live_delivery_has_no_flag_unless_asked_as_published(self, world: World, publisher: Client) -> None:
        client = new(world, 1, V5).connected("s").subscribe("other")
        as_published = Subscription(topic_filter="asis", retain_as_published=True)
        client.send(Subscribe(packet_id=2, subscriptions=(as_published,)))
        client.received()
        publisher.send(publish("other", retain=True), publish("asis", retain=True))

        assert client.received() == [publish("other"), publish("asis", retain=True)]

    def test_an_empty_payload_removes_it(self, world: World, publisher: Client) -> None:
        publisher.send(publish("state", b"", retain=True))
        client = new(world, 1).connected("s").subscribe("state")

        assert client.messages() == []

    @pytest.mark.parametrize(("handling", "first", "again"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
    def test_retain_handling(self, world: World, publisher: Client, handling: int, first: int, again: int) -> None:
        """3.8.3.1."""
        client = new(world, 1, V5).connected("s")
        option = Subscription(topic_filter="state", retain_handling=handling)
        counts = []
        for number in (1, 2):
            client.send(Subscribe(packet_id=number, subscriptions=(option,)))
            counts.append(len(client.messages()))

        assert counts == [first, again]

    def test_the_store_is_bounded(self) -> None:
        world = World(Settings(max_retained_messages=1))
        world.ready_account(0)
        client = new(world, 0, V5).connected()
        client.send(publish("a", retain=True), publish("a", b"y", retain=True))

        assert not client.closed

        client.send(publish("b", qos=1, packet_id=1, retain=True))

        assert client.received() == [PubAck(packet_id=1, reason_code=0x97)]

    def test_what_has_expired_makes_room(self) -> None:
        world = World(Settings(max_retained_messages=2))
        account = world.ready_account(0)
        client = new(world, 0, V5).connected()
        for topic, seconds in (("a", 10), ("b", 20)):
            client.send(publish(topic, retain=True, properties=Properties(message_expiry_interval=seconds)))
        for elapsed, code in ((9, 0x97), (2, 0), (1, 0x97), (10, 0)):
            world.advance(elapsed)
            client.send(publish(f"c{world.now}", qos=1, packet_id=1, retain=True))
            assert client.received() == [PubAck(packet_id=1, reason_code=code)]

        assert world.plane.load(account).retained == 2

    def test_an_expired_one_is_not_sent(self, world: World) -> None:
        client = new(world, 0, V5).connected()
        client.send(publish("a", retain=True, properties=Properties(message_expiry_interval=5)))
        world.advance(6)

        assert client.subscribe("a").messages() == []


class TestSessions:
    def test_a_persistent_session_keeps_subscriptions_and_messages(self, world: World) -> None:
        client = new(world, 0)
        client.connected("c", clean_start=False).subscribe("t", qos=1)
        client.disconnect()
        publisher = new(world, 1).connected("p")
        publisher.send(publish("t", b"1", qos=1, packet_id=1), publish("t", b"lost"))
        answers = new(world, 0).connect("c", clean_start=False)

        assert answers == [ConnAck(session_present=True), publish("t", b"1", qos=1, packet_id=1)]

    def test_session_present_is_never_said_of_what_was_not_kept(self, world: World) -> None:
        """MQTT-3.2.2-2, -3."""
        assert new(world, 0).connect("c", clean_start=False) == [ConnAck(session_present=False)]
        assert new(world, 0).connect("c", clean_start=True) == [ConnAck(session_present=False)]
        assert new(world, 0).connect("c", clean_start=False) == [ConnAck(session_present=False)]
        assert new(world, 0).connect("c", clean_start=False) == [ConnAck(session_present=True)]

    def test_a_session_ends_an_hour_after_its_client_has_gone(self, world: World) -> None:
        client = new(world, 0)
        client.connected("c", clean_start=False).disconnect()
        world.advance(3599)
        client = new(world, 0)

        assert client.connect("c", clean_start=False) == [ConnAck(session_present=True)]

        world.advance(10)
        client.disconnect()
        world.advance(3601)

        assert new(world, 0).connect("c", clean_start=False) == [ConnAck(session_present=False)]

    def test_mqtt_5_says_how_long_and_may_change_it_when_it_goes(self, world: World) -> None:
        keep = Properties(session_expiry_interval=100)
        client = new(world, 0, V5)
        client.connected("c", properties=keep).disconnect(properties=Properties(session_expiry_interval=10))
        world.advance(11)
        (answer,) = new(world, 0, V5).connect("c", clean_start=False, properties=keep)

        assert isinstance(answer, ConnAck)
        assert not answer.session_present

    def test_a_session_cannot_be_revived_by_disconnect(self, world: World) -> None:
        """MQTT-3.14.2.2.2: from zero it cannot be changed."""
        client = new(world, 0, V5).connected("c")
        client.disconnect(properties=Properties(session_expiry_interval=10))

        assert client.received() == [Disconnect(reason_code=0x82)]

    @pytest.mark.parametrize("dup", [False, True])
    def test_unacknowledged_messages_come_again_with_the_same_identifier(self, dup: bool) -> None:
        """MQTT-4.4.0-1; "The MQTT DUP flag is not supported" by AWS, contrary to MQTT-3.3.1-1."""
        world = World(Settings(redelivery_sets_dup=dup))
        world.ready_account(0, 1)
        client = new(world, 0)
        client.connected("c", clean_start=False).subscribe("t", qos=1)
        publisher = new(world, 1).connected("p")
        for number in (1, 2):
            publisher.send(publish("t", b"%d" % number, qos=1, packet_id=number))
        client.received()
        client.send(PubAck(packet_id=1))
        client.lose()
        answers = new(world, 0).connect("c", clean_start=False)

        assert answers[1:] == [publish("t", b"2", qos=1, packet_id=2, dup=dup)]

    def test_no_more_than_the_clients_receive_maximum_is_in_flight(self, world: World) -> None:
        """MQTT-3.1.2-..., 4.9."""
        client = new(world, 0, V5).connected("c", properties=Properties(receive_maximum=2)).subscribe("t", qos=1)
        publisher = new(world, 1).connected("p")
        for number in range(1, 5):
            publisher.send(publish("t", b"%d" % number, qos=1, packet_id=number))

        assert [payload for _, payload in client.messages()] == [b"1", b"2"]

        client.send(PubAck(packet_id=2), PubAck(packet_id=77))

        assert [payload for _, payload in client.messages()] == [b"3"]

        client.send(PubAck(packet_id=1))
        client.send(PubAck(packet_id=3))

        assert [payload for _, payload in client.messages()] == [b"4"]

    @VERSIONS
    def test_the_largest_messages_that_may_come_at_once_are_not_taken_for_a_client_that_does_not_read(
        self, version: ProtocolVersion
    ) -> None:
        """Ten that were stored, and a second's share of a group's queue, each as large as can be."""
        world = World()
        world.ready_account(0, 1)
        properties = Properties(session_expiry_interval=60 if version is V5 else None)
        new(world, 0, version).connected("s", clean_start=False, properties=properties).subscribe(
            "a", "$share/g/b", qos=1
        ).lose()
        publisher = new(world, 1, V5).connected("p")
        long = Properties(user_properties=(("k", "v" * 17_000),))
        for topic in ("a", "b") * 20:
            publisher.send(publish(topic, bytes(131_072), qos=1, packet_id=1, properties=long))
        client = new(world, 0, version)
        packets = client.connect("s", clean_start=False, properties=properties)

        assert not client.closed
        assert len([each for each in packets if isinstance(each, Publish)]) == 30

    def test_a_whole_window_of_the_largest_messages_is_sent_at_once(self, world: World) -> None:
        client = new(world, 0).connected("s").subscribe("a", qos=1)
        publisher = new(world, 1).connected("p")
        for _ in range(200):
            publisher.send(publish("a", bytes(131_072)))
            publisher.send(publish("a", bytes(131_072), qos=1, packet_id=1))
            for packet in client.received():
                assert isinstance(packet, Publish)
                assert packet.payload
        client.send(*(PubAck(packet_id=number) for number in range(1, 101)))

        assert not client.closed
        assert len(client.messages()) == 100

    def test_a_client_that_never_acknowledges_is_disconnected(self) -> None:
        world = World(Settings(max_inflight=2, max_stored_messages=3))
        world.ready_account(0, 1)
        client = new(world, 0, V5).connected("c").subscribe("t", qos=1)
        publisher = new(world, 1).connected("p")
        for number in range(1, 7):
            publisher.send(publish("t", qos=1, packet_id=number))

        assert client.received()[-1] == Disconnect(reason_code=0x97)
        assert world.last().reason == "THROTTLED"

    def test_what_waits_for_an_absent_client_is_bounded(self) -> None:
        world = World(Settings(max_inflight=2, max_stored_messages=3))
        world.ready_account(0, 1)
        client = new(world, 0)
        client.connected("c", clean_start=False).subscribe("t", qos=1)
        client.lose()
        publisher = new(world, 1).connected("p")
        for number in range(1, 7):
            publisher.send(publish("t", b"%d" % number, qos=1, packet_id=number))
        back = new(world, 0)
        back.connected("c", clean_start=False)
        for number in range(1, 7):
            back.send(PubAck(packet_id=number))
        assert back.connection.broker is not None
        session = back.connection.broker.session_of("c")

        assert session is not None
        assert session.dropped == 3
        assert session.pending == 0


class TestWills:
    @pytest.fixture
    def watcher(self, world: World) -> Client:
        return new(world, 2).connected("watcher").subscribe("wills/#")

    @VERSIONS
    def test_is_published_when_the_network_goes(self, world: World, watcher: Client, version: ProtocolVersion) -> None:
        new(world, 0, version).connected(will=will()).lose()

        assert watcher.messages() == [("wills/c", b"gone")]

    @VERSIONS
    def test_is_not_published_after_disconnect(self, world: World, watcher: Client, version: ProtocolVersion) -> None:
        """MQTT-3.14.4-3."""
        new(world, 0, version).connected(will=will()).disconnect()

        assert watcher.messages() == []

    def test_is_published_after_a_disconnect_that_asks_for_it(self, world: World, watcher: Client) -> None:
        new(world, 0, V5).connected(will=will()).disconnect(reason_code=0x04)

        assert watcher.messages() == [("wills/c", b"gone")]

    def test_is_published_after_a_protocol_error(self, world: World, watcher: Client) -> None:
        new(world, 0).connected(will=will()).send_bytes(b"\x00")

        assert watcher.messages() == [("wills/c", b"gone")]

    def test_waits_for_its_delay_and_is_forgotten_when_the_client_comes_back(
        self, world: World, watcher: Client
    ) -> None:
        """MQTT-3.1.3-9."""
        keep = Properties(session_expiry_interval=100)
        delayed = will(properties=Properties(will_delay_interval=10))
        client = new(world, 0, V5).connected(will=delayed, properties=keep)
        client.lose()
        world.advance(9)

        assert watcher.messages() == []

        new(world, 0, V5).connected(clean_start=False, properties=keep).lose()
        world.advance(50)

        assert watcher.messages() == []

        new(world, 0, V5).connected(will=delayed, properties=keep).lose()
        world.advance(10)

        assert watcher.messages() == [("wills/c", b"gone")]

    def test_comes_with_the_end_of_the_session_when_that_is_earlier(self, world: World, watcher: Client) -> None:
        """3.1.3.2.2."""
        delayed = will(properties=Properties(will_delay_interval=60))
        short = Properties(session_expiry_interval=5)
        new(world, 0, V5).connected(will=delayed, properties=short).lose()
        world.advance(5)

        assert watcher.messages() == [("wills/c", b"gone")]

    def test_may_be_retained(self, world: World, watcher: Client) -> None:
        new(world, 0).connected(will=will(retain=True)).lose()
        late = new(world, 1).connected("late")
        late.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="wills/c"),)))

        assert late.messages() == [("wills/c", b"gone")]


class TestPolicies:
    """Each action is checked when it is asked for (§4.1 "order of checks" 3; §5)."""

    @staticmethod
    def statement(*actions: str, resource: str = "*", effect: str = "Allow") -> str:
        listed = ",".join(f'"{action}"' for action in actions)
        return f'{{"Effect":"{effect}","Action":[{listed}],"Resource":"{resource}"}}'

    def world_with(self, *statements: str, settings: Settings | None = None) -> World:
        world = World(settings)
        account = world.account()
        world.register_ca(account, mode="SNI_ONLY")
        document = f'{{"Version":"2012-10-17","Statement":[{",".join(statements)}]}}'
        world.register_leaf(account, device(0), policy=document)
        world.register_leaf(account, device(1))
        return world

    def test_publish_denied(self) -> None:
        world = self.world_with(self.statement("iot:Connect"))
        client = new(world, 0).connected()
        client.send(publish("a", qos=1, packet_id=1))

        assert client.received() == []
        assert client.closed
        assert world.last().reason == "FORBIDDEN_ACCESS"

        client = new(world, 0, V5).connected()
        client.send(publish("a", qos=1, packet_id=1))

        assert client.received() == [PubAck(packet_id=1, reason_code=0x87)]

        client.send(publish("a"))

        assert client.received() == [Disconnect(reason_code=0x87)]

    def test_publish_denied_disconnects_mqtt_5_when_so_set(self) -> None:
        world = self.world_with(self.statement("iot:Connect"), settings=Settings(publish_denied_v5="disconnect"))
        client = new(world, 0, V5).connected()
        client.send(publish("a", qos=1, packet_id=1))

        assert client.received() == [Disconnect(reason_code=0x87)]

    def test_subscribe_denied(self) -> None:
        world = self.world_with(self.statement("iot:Connect"))
        subscribe = Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a"),))
        client = new(world, 0).connected()
        client.send(subscribe)

        assert client.received() == []
        assert client.closed

        client = new(world, 0, V5).connected()
        client.send(subscribe)

        assert client.received() == [SubAck(packet_id=1, reason_codes=(0x87,))]

    def test_subscribe_denied_is_a_suback_for_3_1_1_when_so_set(self) -> None:
        world = self.world_with(self.statement("iot:Connect"), settings=Settings(subscribe_denied_v311="suback"))
        client = new(world, 0).connected()
        client.send(Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a"),)))

        assert client.received() == [SubAck(packet_id=1, reason_codes=(0x80,))]

    def test_what_may_not_be_received_is_not_delivered(self) -> None:
        allowed = self.statement("iot:Receive", resource="arn:aws:iot:us-east-1:111111111111:topic/a/ok")
        world = self.world_with(self.statement("iot:Connect", "iot:Subscribe"), allowed)
        client = new(world, 0).connected("s").subscribe("a/#", qos=1)
        publisher = new(world, 1).connected("p")
        publisher.send(publish("a/secret", qos=1, packet_id=1), publish("a/ok", qos=1, packet_id=2))

        assert client.messages() == [("a/ok", b"x")]

    def test_retaining_takes_a_permission_of_its_own(self) -> None:
        world = self.world_with(self.statement("iot:Connect", "iot:Publish"))
        client = new(world, 0, V5).connected()
        client.send(publish("a", qos=1, packet_id=1, retain=True))

        assert client.received() == [PubAck(packet_id=1, reason_code=0x87)]

    @pytest.mark.parametrize("version", [V311, V5])
    def test_a_will_that_may_not_be_published_keeps_the_client_out(self, version: ProtocolVersion) -> None:
        """Developer guide, "connect attempt failure event"."""
        world = self.world_with(self.statement("iot:Connect", "iot:Publish"))
        refused = new(world, 0, version).connect("c", will=will(retain=True))

        assert [each.reason_code for each in refused if isinstance(each, ConnAck)] == [0x87] * (version is V5)
        assert world.last().verdict == "denied"

        new(world, 0, version).connected("c", will=will())

    def test_a_will_that_may_not_be_published_any_more_is_not(self) -> None:
        world = self.world_with(self.statement("iot:Connect", "iot:Publish"))
        watcher = new(world, 1).connected("w").subscribe("wills/#")
        client = new(world, 0).connected("c", will=will())
        account = world.account()
        document = f'{{"Version":"2012-10-17","Statement":[{self.statement("iot:Connect")}]}}'
        world.allow(account, device(0), document)
        world.registry.policies.detach(account, "p0", account.certificate_arn(device(0).certificate_id))
        client.lose()

        assert watcher.messages() == []

    def test_policy_variables_of_the_client_and_its_certificate(self) -> None:
        resource = "arn:aws:iot:us-east-1:111111111111:topic/${iot:Certificate.Subject.SerialNumber}/${iot:ClientId}"
        world = self.world_with(self.statement("iot:Connect"), self.statement("iot:Publish", resource=resource))
        client = new(world, 0, V5).connected("me")
        client.send(publish("SN0000/me", qos=1, packet_id=1), publish("SN0001/me", qos=1, packet_id=2))

        assert client.received() == [PubAck(packet_id=1), PubAck(packet_id=2, reason_code=0x87)]

    def test_a_policy_that_is_changed_counts_from_the_next_packet_on(self) -> None:
        world = self.world_with(self.statement("iot:Connect"))
        client = new(world, 0, V5).connected()
        world.allow(world.account(), device(0))
        client.send(publish("a", qos=1, packet_id=1))

        assert client.received() == [PubAck(packet_id=1)]


def test_a_closed_client_leaves_nothing_behind(world: World) -> None:
    account = world.account()
    for version in (V311, V5):
        client = new(world, 0, version).connected(will=will()).subscribe("a", "b/+", qos=1)
        client.lose()
    load = world.plane.load(account)

    assert (load.connections, load.sessions, load.subscriptions) == (0, 0, 0)
    assert len(world.plane.timers) == 0


class TestRefusalsAreTold:
    """What the wire hardly says stands in the history, also where the connection lives on."""

    ONLY_CONNECT = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'

    def client(self, document: str) -> tuple[World, Client]:
        world = World()
        account = world.ready_account(1)
        world.register_leaf(account, device(0), policy=document)
        return world, new(world, 0, V5).connected("c")

    def told(self, world: World) -> list[tuple[str | None, str]]:
        return [(each.reason, each.detail) for each in world.history.select(verdict="request_refused")]

    def test_a_denied_publish_and_a_denied_subscription(self) -> None:
        world, client = self.client(self.ONLY_CONNECT)
        client.send(publish("t", qos=1, packet_id=1))
        client.send(Subscribe(packet_id=2, subscriptions=(Subscription(topic_filter="t/#"),)))

        assert not client.closed
        assert self.told(world) == [
            ("AUTHORIZATION_FAILURE", "PUBLISH: iot:Publish on 't' denied"),
            ("AUTHORIZATION_FAILURE", "SUBSCRIBE: iot:Subscribe on 't/#' denied"),
        ]

    def test_a_filter_that_cannot_be(self, world: World) -> None:
        client = new(world, 0, V5).connected()
        client.send(Subscribe(packet_id=2, subscriptions=(Subscription(topic_filter="a/#/b"),)))
        ((reason, detail),) = self.told(world)

        assert reason is None
        assert "'a/#/b'" in detail

    def test_a_denied_delivery_once_for_each_connection(self) -> None:
        subscribe = self.ONLY_CONNECT.replace('"iot:Connect"', '["iot:Connect","iot:Subscribe"]')
        world, client = self.client(subscribe)
        client.subscribe("t")
        publisher = new(world, 1).connected("p")
        publisher.send(publish("t"), publish("t"))

        assert client.messages() == []
        ((reason, detail),) = self.told(world)
        assert reason == "AUTHORIZATION_FAILURE"
        assert detail.startswith("iot:Receive on 't' denied")


class TestDeleteConnection:
    """DeleteConnection of the data API (developer guide, "Managing MQTT connections", D)."""

    def delete(self, world: World, client_id: str, *, clean: bool = False, prevent: bool = False) -> bool:
        return world.plane.delete_connection(
            world.account(), client_id, clean_session=clean, prevent_will=prevent, now=world.now
        )

    @VERSIONS
    def test_the_client_is_disconnected_and_its_will_published(self, world: World, version: ProtocolVersion) -> None:
        watcher = new(world, 1).connected("w").subscribe("wills/#")
        client = new(world, 0, version).connected("c", will=will())

        assert self.delete(world, "c")
        assert client.closed
        assert client.received() == ([Disconnect(reason_code=0x98)] if version is V5 else [])
        assert watcher.messages() == [("wills/c", b"gone")]
        assert world.last().reason == "API_INITIATED_DISCONNECT"
        assert world.plane.load(world.account()).connections == 1

    def test_the_will_can_be_prevented(self, world: World) -> None:
        watcher = new(world, 1).connected("w").subscribe("wills/#")
        new(world, 0).connected("c", will=will())

        assert self.delete(world, "c", prevent=True)
        assert watcher.messages() == []

    @pytest.mark.parametrize("clean", [False, True])
    def test_a_persistent_session_stays_unless_it_is_cleaned(self, world: World, clean: bool) -> None:
        new(world, 0).connected("c", clean_start=False).subscribe("t")

        assert self.delete(world, "c", clean=clean)
        (answer,) = new(world, 0).connect("c", clean_start=False)
        assert isinstance(answer, ConnAck)
        assert answer.session_present is not clean

    def test_a_session_whose_client_is_away_can_be_cleaned(self, world: World) -> None:
        new(world, 0).connected("c", clean_start=False).subscribe("t").lose()

        assert self.delete(world, "c", clean=True)
        assert world.plane.load(world.account()).sessions == 0
        assert len(world.plane.timers) == 0

    def test_who_is_not_there_is_not_found(self, world: World) -> None:
        assert not self.delete(world, "c")
        new(world, 0).connected("c")
        assert not self.delete(world, "other")
