"""MQTT Version 5.0, OASIS Standard, 7 March 2019, clause by clause, in a world and over sockets.

Where AWS says that it differs, the case says so and holds AWS's behaviour.
"""

from typing import Any

from devicesim.emulator.packets import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Properties,
    ProtocolVersion,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from devicesim.emulator.settings import Settings
from tests.conformance_cases import V5_CASES, hello, packet, raw_connect, string, violation
from tests.conformance_support import (
    Case,
    Lose,
    Open,
    Receive,
    Send,
    Steps,
    Wait,
    closed,
    connect,
    connected,
    received,
    refused,
    run_in_world,
    run_over_sockets,
    several,
    silent,
    subscribed,
)
from tests.emulator_support import V5, will

case = V5_CASES


def refused_with(version: ProtocolVersion, first: Connect, code: int) -> Steps:
    """CONNACK with ``code``, and the end (MQTT-3.2.2-6, MQTT-3.2.2-7)."""
    client = yield Open(version)
    assert isinstance(client, int)
    yield Send(client, first)
    answer = yield Receive(client)
    assert isinstance(answer, ConnAck), answer
    assert (answer.reason_code, answer.session_present) == (code, False)
    yield from closed(client)


def subscribe_codes(client: int, *subscriptions: Subscription, **fields: object) -> Steps:
    yield Send(client, Subscribe(packet_id=9, subscriptions=subscriptions, **fields))  # type: ignore[arg-type]


# --- the format of control packets ---


@case("MQTT-1.5.5-1")
def a_length_in_more_bytes_than_needed_is_malformed(version: ProtocolVersion) -> Steps:
    yield from violation(version, b"\xc0\x80\x00")


@case("MQTT-2.2.2-1")
def a_packet_without_its_property_length_is_malformed(version: ProtocolVersion) -> Steps:
    yield from violation(version, packet(0x82, b"\0\1" + string("t") + b"\0"))


@case("MQTT-4.13.1-1")
def unknown_and_misplaced_properties_end_the_connection(version: ProtocolVersion) -> Steps:
    for section, code in ((b"\x02\x7f\0", 0x81), (b"\x03\x21\0\1", 0x82), (b"\x04\x01\0\x01\0", 0x82)):
        yield from violation(version, packet(0x30, string("t") + section + b"x"), code)


# --- CONNECT ---


@case("MQTT-3.1.2-1", "MQTT-3.1.2-2")
def another_protocol_or_version_is_told_in_the_form_that_every_client_reads(version: ProtocolVersion) -> Steps:
    """The standard asks for 0x84 in the form of 5; the client may speak anything (settings: I)."""
    for first in (
        raw_connect(version, name="MQISDP"),
        packet(0x10, string("MQTT") + b"\x06\x02\0\x3c\0" + string("c")),
    ):
        client = yield Open(ProtocolVersion.V311)
        assert isinstance(client, int)
        yield Send(client, first)
        assert (yield Receive(client)) == ConnAck(reason_code=1)
        yield from closed(client)


@case("MQTT-3.1.3-6", "MQTT-3.1.3-7", "MQTT-3.2.2-16")
def a_client_without_id_is_assigned_a_new_one(version: ProtocolVersion) -> Steps:
    _, one = yield from connect(version, "")
    _, two = yield from connect(version, "")
    names = {one.properties.assigned_client_identifier, two.properties.assigned_client_identifier}

    assert len(names) == 2
    assert None not in names


@case("MQTT-3.1.3-8")
def a_client_id_that_is_too_long_is_not_valid(version: ProtocolVersion) -> Steps:
    yield from refused_with(version, hello(version, "x" * 129), 0x85)


@case("MQTT-3.1.2-23", waits=True)
def a_session_without_expiry_ends_with_its_connection(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, clean_start=False)
    yield Lose(client)
    _, answer = yield from connect(version, clean_start=False)
    assert not answer.session_present


@case("MQTT-3.1.2-23")
def a_session_that_is_to_last_longer_than_the_account_allows_is_shortened(version: ProtocolVersion) -> Steps:
    """Developer guide: "will return the adjusted value in the CONNACK"."""
    _, answer = yield from connect(version, properties=Properties(session_expiry_interval=0xFFFF_FFFF))
    assert answer.properties.session_expiry_interval == 3600


@case("MQTT-3.2.2-21")
def the_keep_alive_is_the_servers(version: ProtocolVersion) -> Steps:
    for asked, told in ((0, 1200), (5, 30), (30, None), (1200, None), (65535, 1200)):
        _, answer = yield from connect(version, keep_alive=asked)
        assert answer.properties.server_keep_alive == told


@case("MQTT-3.2.2-9")
def connack_says_what_is_supported(version: ProtocolVersion) -> Steps:
    """Developer guide, "MQTT 5 properties": no subscription identifiers, QoS 1, 8 aliases."""
    _, answer = yield from connect(version, keep_alive=60)
    assert answer.properties == Properties(
        maximum_qos=1,
        receive_maximum=100,
        retain_available=1,
        maximum_packet_size=149_504,
        topic_alias_maximum=8,
        wildcard_subscription_available=1,
        subscription_identifier_available=0,
        shared_subscription_available=1,
    )


@case("MQTT-3.2.2-12")
def a_will_of_qos_2_is_not_supported(version: ProtocolVersion) -> Steps:
    yield from refused_with(version, hello(version, will=Will(topic="w", payload=b"", qos=2)), 0x9B)


@case("MQTT-3.2.2-8")
def a_will_topic_that_cannot_be_is_told(version: ProtocolVersion) -> Steps:
    for topic in ("a/+", "$aws/events/x", "$SYS/x", "1/2/3/4/5/6/7/8/9"):
        yield from refused_with(version, hello(version, will=Will(topic=topic, payload=b"")), 0x90)


@case("MQTT-4.12.0-1")
def enhanced_authentication_is_not_supported(version: ProtocolVersion) -> Steps:
    yield from refused_with(version, hello(version, properties=Properties(authentication_method="SCRAM")), 0x80)


@case("MQTT-4.12.0-6", "MQTT-4.12.0-7")
def auth_without_a_method_is_a_protocol_error(version: ProtocolVersion) -> Steps:
    yield from violation(version, Auth(), 0x82)


@case("MQTT-3.15.1-1")
def auth_with_reserved_flags_is_malformed(version: ProtocolVersion) -> Steps:
    yield from violation(version, b"\xf1\x00", 0x81)


@case("MQTT-3.1.4-1")
def a_receive_maximum_or_packet_size_of_zero_is_a_protocol_error(version: ProtocolVersion) -> Steps:
    for section in (b"\x03\x21\0\0", b"\x05\x27\0\0\0\0"):
        body = string("MQTT") + b"\x05\x02\0\x3c" + section + string("c")
        yield from refused(version, packet(0x10, body))


@case("MQTT-3.1.2-29")
def a_client_that_wants_no_reason_strings_gets_none(version: ProtocolVersion) -> Steps:
    for wanted in (1, 0):
        client = yield from connected(version, f"c{wanted}", properties=Properties(request_problem_information=wanted))
        identifiers = Properties(subscription_identifiers=(1,))
        yield from subscribe_codes(client, Subscription(topic_filter="t"), properties=identifiers)
        answer = yield Receive(client)
        assert isinstance(answer, Disconnect)
        assert answer.reason_code == 0xA1
        assert (answer.properties.reason_string is not None) == bool(wanted)


@case("MQTT-3.1.2-24", "MQTT-3.1.2-25")
def packets_larger_than_the_client_takes_are_not_sent(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, properties=Properties(maximum_packet_size=60))
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t", payload=b"x" * 100, qos=1, packet_id=1))
    assert (yield Receive(other)) == PubAck(packet_id=1)
    yield Send(other, Publish(topic="t", payload=b"small"))
    assert (yield from received(client)).payload == b"small"
    yield from silent(client)


# --- the will ---


@case("MQTT-3.1.3-9", waits=True)
def a_delayed_will_is_not_published_when_the_client_is_back_in_time(version: ProtocolVersion) -> Steps:
    lasting: dict[str, Any] = {"clean_start": False, "properties": Properties(session_expiry_interval=100)}
    watcher = yield from connected(version, "w", keep_alive=1200)
    yield from subscribed(watcher, "wills/#")
    delayed = will(properties=Properties(will_delay_interval=50))
    client = yield from connected(version, "c", will=delayed, **lasting)
    yield Lose(client)
    yield Wait(49)
    back = yield from connected(version, "c", will=delayed, **lasting)
    yield Wait(10)
    yield from silent(watcher)
    yield Lose(back)
    yield Wait(49)
    yield from silent(watcher)
    yield Wait(2)
    yield from received(watcher)


@case("MQTT-3.1.2-8", waits=True)
def a_delayed_will_is_published_when_the_session_ends_first(version: ProtocolVersion) -> Steps:
    watcher = yield from connected(version, "w", keep_alive=1200)
    yield from subscribed(watcher, "wills/#")
    delayed = will(properties=Properties(will_delay_interval=500))
    lasting = Properties(session_expiry_interval=20)
    client = yield from connected(version, "c", will=delayed, properties=lasting)
    yield Lose(client)
    yield Wait(21)
    yield from received(watcher)


@case("MQTT-3.14.4-3")
def disconnect_with_reason_4_asks_for_the_will(version: ProtocolVersion) -> Steps:
    watcher = yield from connected(version, "w")
    yield from subscribed(watcher, "wills/#")
    client = yield from connected(version, "c", will=will())
    yield Send(client, Disconnect(reason_code=0x04))
    yield from closed(client)
    yield from received(watcher)


@case("MQTT-3.1.3-10")
def the_properties_of_a_will_travel_in_their_order(version: ProtocolVersion) -> Steps:
    carried = Properties(content_type="text/plain", user_properties=(("b", "2"), ("a", "1"), ("b", "3")))
    watcher = yield from connected(version, "w")
    yield from subscribed(watcher, "wills/#")
    client = yield from connected(version, "c", will=will(properties=carried))
    yield Lose(client)
    assert (yield from received(watcher)).properties == carried


# --- PUBLISH ---


@case("MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-18", "MQTT-3.3.2-20")
def the_properties_of_a_message_arrive_as_they_were_sent(version: ProtocolVersion) -> Steps:
    carried = Properties(
        payload_format_indicator=1,
        content_type="application/json",
        response_topic="answers/1",
        correlation_data=b"\0\xff",
        user_properties=(("z", "1"), ("a", ""), ("z", "2")),
    )
    client = yield from connected(version)
    yield from subscribed(client, "t")
    yield Send(client, Publish(topic="t", payload=b"{}", properties=carried))
    assert (yield from received(client)).properties == carried


@case("MQTT-3.3.2-14")
def a_response_topic_with_a_wildcard_ends_the_connection(version: ProtocolVersion) -> Steps:
    yield from violation(version, Publish(topic="t", properties=Properties(response_topic="a/#")), 0x90)


@case("MQTT-3.3.4-6")
def a_client_that_publishes_with_a_subscription_identifier_is_disconnected(version: ProtocolVersion) -> Steps:
    yield from violation(version, Publish(topic="t", properties=Properties(subscription_identifiers=(1,))), 0x82)


@case("MQTT-3.2.2-11")
def publishing_above_the_maximum_qos_ends_the_connection(version: ProtocolVersion) -> Steps:
    yield from violation(version, Publish(topic="t", qos=2, packet_id=1), 0x9B)


@case("MQTT-3.3.2-5", waits=True)
def a_message_that_expired_while_the_client_was_away_is_not_delivered(version: ProtocolVersion) -> Steps:
    lasting: dict[str, Any] = {"clean_start": False, "properties": Properties(session_expiry_interval=600)}
    client = yield from connected(version, **lasting)
    yield from subscribed(client, "t", qos=1)
    yield Lose(client)
    other = yield from connected(version, "p")
    for number, seconds in ((1, 10), (2, 100)):
        expiring = Properties(message_expiry_interval=seconds)
        yield Send(other, Publish(topic="t", payload=b"%d" % seconds, qos=1, packet_id=number, properties=expiring))
    yield Wait(11)
    back = yield from connected(version, **lasting)
    assert (yield from received(back)).payload == b"100"
    yield from silent(back)


@case("MQTT-3.3.2-6", waits=True)
def the_time_that_a_message_waited_is_taken_off_its_expiry(version: ProtocolVersion) -> Steps:
    """And 0 is told below one second; 0 asked counts as 1, a week is the most (developer guide, "message expiry")."""
    client = yield from connected(version, keep_alive=1200)
    for asked, waited, told in ((30, 20, 10), (30, 29.5, 0), (0, 0, 1), (0xFFFF_FFFF, 0, 604_800)):
        expiring = Properties(message_expiry_interval=asked)
        yield Send(client, Publish(topic="t", payload=b"x", retain=True, properties=expiring))
        yield Wait(waited)
        yield from subscribed(client, "t")
        assert (yield from received(client)).properties.message_expiry_interval == told
        yield Send(client, Unsubscribe(packet_id=4, topic_filters=("t",)))
        yield Receive(client)


@case("MQTT-3.3.2-5", waits=True)
def a_retained_message_that_expired_is_not_sent(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    expiring = Properties(message_expiry_interval=10)
    yield Send(client, Publish(topic="t", payload=b"x", retain=True, properties=expiring))
    yield Wait(10)
    yield from subscribed(client, "t")
    yield from silent(client)


# --- topic aliases ---


@case("MQTT-3.3.2-12")
def an_alias_stands_for_the_topic_that_it_was_set_with_last(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "a", "b")
    for topic, seen in (("a", "a"), ("", "a"), ("b", "b"), ("", "b")):
        yield Send(client, Publish(topic=topic, properties=Properties(topic_alias=8)))
        message = yield from received(client)
        assert message.topic == seen
        assert message.properties.topic_alias is None


@case("MQTT-3.3.2-8", "MQTT-3.3.2-9")
def aliases_of_zero_or_above_the_maximum_are_invalid(version: ProtocolVersion) -> Steps:
    yield from violation(version, Publish(topic="t", properties=Properties(topic_alias=9)), 0x94)
    yield from violation(version, packet(0x30, string("t") + b"\x03\x23\0\0" + b"x"), 0x94)


@case("MQTT-3.3.2-7")
def aliases_end_with_the_connection(version: ProtocolVersion) -> Steps:
    first = yield from connected(version, "a")
    yield Send(first, Publish(topic="t", properties=Properties(topic_alias=1)))
    yield from silent(first)
    yield from violation(version, Publish(topic="", properties=Properties(topic_alias=1)), 0x82)


@case("MQTT-3.1.2-26")
def the_server_sets_no_more_aliases_than_the_client_takes(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, properties=Properties(topic_alias_maximum=2))
    yield from subscribed(client, "t/+")
    seen = []
    for topic in ("t/1", "t/2", "t/3", "t/1", "t/2", "t/3"):
        yield Send(client, Publish(topic=topic))
        message = yield from received(client)
        seen.append((message.topic, message.properties.topic_alias))

    assert seen == [("t/1", 1), ("t/2", 2), ("t/3", None), ("", 1), ("", 2), ("t/3", None)]


@case("MQTT-3.1.2-27")
def the_server_sets_no_alias_for_a_client_that_takes_none(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "t")
    for _ in range(2):
        yield Send(client, Publish(topic="t"))
        message = yield from received(client)
        assert (message.topic, message.properties.topic_alias) == ("t", None)


# --- flow control ---


@case("MQTT-3.3.4-9", "MQTT-4.9.0-1", "MQTT-4.9.0-2")
def no_more_is_in_flight_than_the_client_receives(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, properties=Properties(receive_maximum=2))
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    for number in range(1, 5):
        yield Send(other, Publish(topic="t", payload=b"%d" % number, qos=1, packet_id=number))
        assert (yield Receive(other)) == PubAck(packet_id=number)
    first, _ = yield from several(client, 2)
    yield from silent(client)
    yield Send(client, PubAck(packet_id=first.packet_id or 0))
    assert (yield from received(client)).payload == b"3"
    yield from silent(client)


@case("MQTT-3.3.4-9")
def a_narrower_window_holds_for_what_is_sent_again_too(version: ProtocolVersion) -> Steps:
    def lasting(window: int) -> dict[str, Any]:
        told = Properties(session_expiry_interval=600, receive_maximum=window)
        return {"clean_start": False, "properties": told}

    client = yield from connected(version, **lasting(5))
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    for number in range(1, 6):
        yield Send(other, Publish(topic="t", payload=b"%d" % number, qos=1, packet_id=number))
    yield from several(client, 5)
    yield Lose(client)
    back = yield from connected(version, **lasting(2))
    seen = yield from several(back, 2)
    yield from silent(back)
    while len(seen) < 5:
        yield Send(back, PubAck(packet_id=seen[-2].packet_id or 0))
        message = yield from received(back)
        seen.append(message)
    yield from silent(back)

    assert [each.payload for each in seen] == [b"%d" % number for number in range(1, 6)]


@case("MQTT-4.9.0-3", "MQTT-3.3.4-10")
def other_packets_and_qos_0_pass_while_the_window_is_shut(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, properties=Properties(receive_maximum=1))
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    for number in (1, 2):
        yield Send(other, Publish(topic="t", qos=1, packet_id=number))
        assert (yield Receive(other)) == PubAck(packet_id=number)
    yield from received(client)
    yield Send(other, Publish(topic="t", payload=b"qos 0"))
    assert (yield from received(client)).payload == b"qos 0"
    yield from subscribed(client, "u")


@case("MQTT-4.8.2-6", "MQTT-4.4.0-2")
def a_puback_with_an_error_is_the_end_of_a_message(version: ProtocolVersion) -> Steps:
    one = yield from connected(version, "one", properties=Properties(session_expiry_interval=600))
    two = yield from connected(version, "two")
    for client in (one, two):
        yield from subscribed(client, "$share/g/t", qos=1)
    yield Send(two, Publish(topic="other"))
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t", qos=1, packet_id=1))
    assert (yield Receive(other)) == PubAck(packet_id=1)
    yield Send(one, b"\x40\x03\x00\x01\x97")
    yield Send(two, b"\x40\x03\x00\x01\x97")
    seen = 0
    for client in (one, two):
        yield Send(client, b"\xc0\x00")
        while isinstance((yield Receive(client)), Publish):
            seen += 1
    yield Lose(one)
    yield from silent(two)

    assert seen == 1


@case("MQTT-4.4.0-1", waits=True)
def nothing_is_sent_again_on_a_live_connection(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, keep_alive=1200)
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t", qos=1, packet_id=1))
    yield from received(client)
    yield Wait(600)
    yield from silent(client)


# --- SUBSCRIBE ---


@case("MQTT-3.3.1-9", "MQTT-3.3.1-10", "MQTT-3.3.1-11")
def retain_handling_decides_when_retained_messages_are_sent(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield Send(client, Publish(topic="t", payload=b"kept", retain=True))
    for handling, often in ((2, 0), (1, 0), (0, 1)):
        yield from subscribed(client, "t", retain_handling=handling)
        yield from several(client, often)
        yield from silent(client)
    yield Send(client, Unsubscribe(packet_id=4, topic_filters=("t",)))
    yield Receive(client)
    yield from subscribed(client, "t", retain_handling=1)
    yield from received(client)


@case("MQTT-3.3.1-13")
def retain_as_published_keeps_the_flag(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "t", retain_as_published=True)
    for retain in (True, False):
        yield Send(client, Publish(topic="t", payload=b"x", retain=retain))
        assert (yield from received(client)).retain is retain


@case("MQTT-3.8.3-3")
def no_local_spares_the_publisher(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    other = yield from connected(version, "other")
    for each in (client, other):
        yield from subscribed(each, "t", no_local=True)
    yield Send(client, Publish(topic="t", payload=b"x"))
    yield from received(other)
    yield from silent(client)


@case("MQTT-3.8.3-4")
def no_local_on_a_shared_subscription_is_a_protocol_error(version: ProtocolVersion) -> Steps:
    wrong = Subscription(topic_filter="$share/g/t", no_local=True)
    yield from violation(version, Subscribe(packet_id=1, subscriptions=(wrong,)), 0x82)


@case("MQTT-3.9.3-2")
def each_filter_has_its_own_reason_code(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    filters = ("good", "a/#/b", "", "x" * 257, "also/good")
    yield from subscribe_codes(client, *(Subscription(topic_filter=each, qos=1) for each in filters))
    assert (yield Receive(client)) == SubAck(packet_id=9, reason_codes=(1, 0x8F, 0x8F, 0x8F, 1))


@case("MQTT-3.8.4-7")
def subscribing_with_qos_2_ends_the_connection(version: ProtocolVersion) -> Steps:
    """The standard has a lower QoS granted (MQTT-3.2.2-10); AWS "doesn't send a PUBACK or SUBACK"."""
    wrong = Subscription(topic_filter="t", qos=2)
    yield from violation(version, Subscribe(packet_id=1, subscriptions=(wrong,)), 0x9B)


@case("MQTT-3.2.2-10", settings=Settings(subscribe_qos_2_v5="grant_1"))
def qos_1_is_granted_for_qos_2_where_the_emulator_is_told_to_follow_the_standard(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribe_codes(client, Subscription(topic_filter="t", qos=2))
    assert (yield Receive(client)) == SubAck(packet_id=9, reason_codes=(1,))


# --- shared subscriptions ---


@case("MQTT-4.8.2-1", "MQTT-4.8.2-2")
def a_shared_filter_has_a_name_and_a_filter(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    filters = ("$share", "$share/", "$share/g", "$share/g/", "$share//t", "$share/a+/t", f"$share/{'n' * 129}/t")
    yield from subscribe_codes(client, *(Subscription(topic_filter=each) for each in filters))
    assert (yield Receive(client)) == SubAck(packet_id=9, reason_codes=(0x8F,) * 7)


@case("MQTT-4.8.2-3")
def a_shared_message_has_the_qos_granted_to_its_receiver(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "$share/g/t")
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t", qos=1, packet_id=1))
    assert (yield from received(client)).qos == 0


@case("4.8.2")
def each_message_goes_to_one_of_each_group_and_to_who_does_not_share(version: ProtocolVersion) -> Steps:
    clients = []
    for number, topic_filter in enumerate(("$share/g/t", "$share/g/t", "t")):
        client = yield from connected(version, f"c{number}")
        yield from subscribed(client, topic_filter)
        clients.append(client)
    other = yield from connected(version, "p")
    yield from subscribed(other, "$share/h/#", "$share/g/+")
    for number in range(10):
        yield Send(other, Publish(topic="t", payload=b"%d" % number))
    seen: list[list[bytes]] = []
    for client in (other, *clients):  # when the publisher's PINGREQ is answered, everything has been distributed
        yield Send(client, b"\xc0\x00")
        seen.append([])
        while isinstance(message := (yield Receive(client)), Publish):
            seen[-1].append(message.payload)
    published = [b"%d" % number for number in range(10)]
    of_publisher, one, two, alone = seen

    assert alone == published
    assert sorted(one + two) == published
    assert sorted(of_publisher) == sorted(published * 2)


@V5_CASES.everywhere()
def test_in_a_world(case: Case) -> None:
    run_in_world(case, V5)


@V5_CASES.over_sockets()
async def test_over_sockets(case: Case) -> None:
    await run_over_sockets(case, V5)
