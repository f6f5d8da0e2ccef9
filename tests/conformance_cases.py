"""What both versions of MQTT say alike: cases with the clauses of 3.1.1 and those of 5.

The files of tests/conformance run them beside their own.
"""

from collections.abc import Callable

from devicesim.emulator.packets import (
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    Properties,
    ProtocolVersion,
    PubAck,
    Publish,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
)
from devicesim.emulator.settings import Settings
from tests.conformance_support import (
    Body,
    Cases,
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
    several,
    silent,
    subscribed,
)
from tests.emulator_support import V5, will

V311_CASES, V5_CASES = Cases(), Cases()


def case(v311: str, v5: str, *, waits: bool = False, settings: Settings | None = None) -> Callable[[Body], Body]:
    """A case of both, under the clauses (separated by blanks) of each."""

    def add(body: Body) -> Body:
        V311_CASES(*v311.split(), waits=waits, settings=settings)(body)
        V5_CASES(*v5.split(), waits=waits, settings=settings)(body)
        return body

    return add


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes((first, len(body))) + body


def raw_connect(version: ProtocolVersion, flags: int = 0b10, payload: bytes = string("c"), name: str = "MQTT") -> bytes:
    """A CONNECT put together by hand."""
    properties = b"\0" if version is V5 else b""
    return packet(0x10, string(name) + bytes((version, flags)) + b"\0\x3c" + properties + payload)


def raw_publish(version: ProtocolVersion, topic: bytes, first: int = 0x30, number: bytes = b"") -> bytes:
    return packet(first, string(topic) + number + (b"\0" if version is V5 else b"") + b"x")


def raw_subscribe(version: ProtocolVersion, filters: bytes, first: int = 0x82, number: bytes = b"\0\1") -> bytes:
    return packet(first, number + (b"\0" if version is V5 else b"") + filters)


def hello(version: ProtocolVersion, client_id: str = "c", **fields: object) -> Connect:
    return Connect(client_id=client_id, version=version, **fields)  # type: ignore[arg-type]


def ended(version: ProtocolVersion, client: int, code: int) -> Steps:
    """By the server: MQTT 5 is told why (MQTT-4.13.1-1), 3.1.1 is not."""
    if version is V5:
        answer = yield Receive(client)
        assert isinstance(answer, Disconnect), answer
        assert answer.reason_code == code
    yield from closed(client)


def violation(version: ProtocolVersion, what: object, code: int = 0x81) -> Steps:
    """A connected client that sends ``what`` is disconnected."""
    client = yield from connected(version)
    yield Send(client, what)  # type: ignore[arg-type]
    yield from ended(version, client, code)


def exchange(publisher: int, message: Publish, *receivers: int) -> Steps:
    """``message`` goes out and arrives as it is, at each."""
    yield Send(publisher, message)
    for each in receivers:
        packet_seen = yield from received(each)
        assert (packet_seen.topic, packet_seen.payload) == (message.topic, message.payload)


# --- the format of control packets ---


@case("MQTT-1.5.3-1", "MQTT-1.5.4-1")
def ill_formed_utf_8_ends_the_connection(version: ProtocolVersion) -> Steps:
    for text in (b"\xc3", b"\xed\xa0\x80", b"\xff"):
        yield from violation(version, raw_publish(version, text))


@case("MQTT-1.5.3-2 MQTT-4.7.3-2", "MQTT-1.5.4-2 MQTT-4.7.3-2")
def a_null_character_ends_the_connection(version: ProtocolVersion) -> Steps:
    yield from violation(version, raw_publish(version, b"a\0b"))
    yield from violation(version, raw_subscribe(version, string(b"a\0b") + b"\0"))


@case("MQTT-1.5.3-3", "MQTT-1.5.4-3")
def a_byte_order_mark_is_a_character_like_any_other(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "\ufeffa", "a")
    yield from exchange(client, Publish(topic="\ufeffa", payload=b"marked"), client)
    yield from silent(client)


@case("MQTT-2.2.2-2 MQTT-3.14.1-1", "MQTT-2.1.3-1 MQTT-3.14.1-1")
def reserved_flags_that_are_set_end_the_connection(version: ProtocolVersion) -> Steps:
    yield from violation(version, b"\xc1\x00")
    yield from violation(version, b"\xe1\x00")


@case("MQTT-2.3.1-1", "MQTT-2.2.1-3")
def a_packet_identifier_is_never_zero(version: ProtocolVersion) -> Steps:
    yield from violation(version, raw_publish(version, b"t", 0x32, b"\0\0"), 0x82)
    yield from violation(version, raw_subscribe(version, string("t") + b"\0", number=b"\0\0"), 0x82)


@case("MQTT-2.3.1-6", "MQTT-2.2.1-5")
def an_acknowledgement_has_the_identifier_of_what_it_acknowledges(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    for number in (1, 0x1234, 0xFFFF):
        yield Send(client, Publish(topic="t", qos=1, packet_id=number))
        assert (yield Receive(client)) == PubAck(packet_id=number)


@case("MQTT-4.8.0-1", "MQTT-4.13.1-1")
def packets_that_only_servers_send_end_the_connection(version: ProtocolVersion) -> Steps:
    for wrong in (ConnAck(), SubAck(packet_id=1, reason_codes=(0,)), PingResp(), UnsubAck(packet_id=1)):
        yield from violation(version, wrong, 0x82)


@case("MQTT-4.8.0-1", "MQTT-4.13.1-1")
def the_packets_of_qos_2_end_the_connection(version: ProtocolVersion) -> Steps:
    """Developer guide: "AWS IoT doesn't support ... PUBREC, PUBREL, and PUBCOMP"."""
    yield from violation(version, PubRel(packet_id=1), 0x82)


# --- CONNECT ---


@case("MQTT-3.1.0-1", "MQTT-3.1.0-1")
def the_first_packet_must_be_connect(version: ProtocolVersion) -> Steps:
    for first in (PingReq(), Publish(topic="t"), Disconnect(), b"GET / HTTP/1.1\r\n\r\n", b"\0"):
        yield from refused(version, first)


@case("MQTT-3.1.0-2", "MQTT-3.1.0-2")
def a_second_connect_ends_the_connection(version: ProtocolVersion) -> Steps:
    yield from violation(version, hello(version), 0x82)


@case("MQTT-3.1.2-3", "MQTT-3.1.2-3")
def connect_with_its_reserved_flag_set_is_closed(version: ProtocolVersion) -> Steps:
    yield from refused(version, raw_connect(version, 0b11))


@case("MQTT-3.1.2-14", "MQTT-3.1.2-12")
def a_will_of_qos_3_is_malformed(version: ProtocolVersion) -> Steps:
    last = (b"\0" if version is V5 else b"") + string("w") + string("gone")
    yield from refused(version, raw_connect(version, 0b1_1110, string("c") + last))


@case("MQTT-3.1.2-13 MQTT-3.1.2-15", "MQTT-3.1.2-11 MQTT-3.1.2-13")
def will_qos_or_retain_without_a_will_is_malformed(version: ProtocolVersion) -> Steps:
    yield from refused(version, raw_connect(version, 0b1010))
    yield from refused(version, raw_connect(version, 0b10_0010))


@case("MQTT-3.1.4-1", "MQTT-3.1.4-1")
def connect_with_bytes_left_over_or_missing_is_closed(version: ProtocolVersion) -> Steps:
    yield from refused(version, raw_connect(version, payload=string("c") + b"more"))
    yield from refused(version, raw_connect(version, payload=b"\0\x09c"))


@case("MQTT-3.1.3-5", "MQTT-3.1.3-5")
def client_ids_of_23_letters_and_digits_are_allowed(version: ProtocolVersion) -> Steps:
    yield from connected(version, "0123456789abcdefghiJKLM")


@case("MQTT-3.1.4-2", "MQTT-3.1.4-3")
def a_client_id_in_use_takes_the_connection_over(version: ProtocolVersion) -> Steps:
    older = yield from connected(version, "same")
    newer = yield from connected(version, "same")
    yield from ended(version, older, 0x8E)
    yield from silent(newer)


@case("MQTT-3.2.0-1 MQTT-3.1.4-4", "MQTT-3.2.0-1 MQTT-3.1.4-5")
def connack_is_the_first_packet_also_where_messages_wait(version: ProtocolVersion) -> Steps:
    lasting = persistent(version)
    client = yield from connected(version, "c", **lasting)
    yield from subscribed(client, "t", qos=1)
    yield Lose(client)
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t", payload=b"stored", qos=1, packet_id=1))
    assert (yield Receive(other)) == PubAck(packet_id=1)
    back, answer = yield from connect(version, "c", **lasting)

    assert answer.session_present
    assert (yield from received(back)).payload == b"stored"


@case("MQTT-3.1.4-5", "MQTT-3.1.4-6")
def nothing_after_a_refused_connect_is_processed(version: ProtocolVersion) -> Steps:
    """AWS wants silence until CONNACK in any case ("the client must wait for the CONNACK message")."""
    watcher = yield from connected(version, "w")
    yield from subscribed(watcher, "t")
    client = yield Open(version)
    assert isinstance(client, int)
    yield Send(client, raw_connect(version, 0b11) + raw_publish(version, b"t"))
    yield from closed(client)
    yield from silent(watcher)


def persistent(version: ProtocolVersion) -> dict[str, object]:
    """Fields of a CONNECT whose session is to last."""
    lasting: dict[str, object] = {"clean_start": False}
    if version is V5:
        lasting["properties"] = Properties(session_expiry_interval=600)
    return lasting


@case("MQTT-3.2.2-1 MQTT-3.1.2-6", "MQTT-3.2.2-2 MQTT-3.1.2-4")
def a_clean_start_ends_the_session_that_was(version: ProtocolVersion) -> Steps:
    lasting = persistent(version)
    client = yield from connected(version, "c", **lasting)
    yield from subscribed(client, "t", qos=1)
    yield Lose(client)
    fresh, answer = yield from connect(version, "c", **(lasting | {"clean_start": True}))
    assert not answer.session_present
    yield Send(fresh, Publish(topic="t", payload=b"x"))
    yield from silent(fresh)


@case("MQTT-3.2.2-2 MQTT-3.1.2-4 MQTT-4.5.0-1", "MQTT-3.2.2-3 MQTT-3.1.2-5 MQTT-4.5.0-1")
def a_session_is_resumed_with_its_subscriptions(version: ProtocolVersion) -> Steps:
    lasting = persistent(version)
    client = yield from connected(version, "c", **lasting)
    yield from subscribed(client, "t", qos=1)
    yield Send(client, Disconnect())
    yield from closed(client)
    back, answer = yield from connect(version, "c", **lasting)
    assert answer.session_present
    yield Send(back, Publish(topic="t", payload=b"mine"))
    assert (yield from received(back)).payload == b"mine"


@case("MQTT-3.2.2-3", "MQTT-3.1.2-6 MQTT-3.2.2-3")
def a_session_that_does_not_exist_is_not_present(version: ProtocolVersion) -> Steps:
    _, answer = yield from connect(version, "c", **persistent(version))
    assert not answer.session_present


@case("MQTT-3.1.2-24", "MQTT-3.1.2-22", waits=True)
def silence_of_one_and_a_half_keep_alives_ends_the_connection(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, keep_alive=40)
    yield Wait(59)
    yield from silent(client)
    yield Wait(59)
    yield from silent(client)
    yield Wait(61)
    yield from ended(version, client, 0x8D)


# --- the will ---


@case("MQTT-3.1.2-8", "MQTT-3.1.2-8")
def the_will_is_published_when_the_network_goes(version: ProtocolVersion) -> Steps:
    watcher = yield from connected(version, "w")
    yield from subscribed(watcher, "wills/#", qos=1)
    client = yield from connected(version, "c", will=will(qos=1))
    yield Lose(client)
    seen = yield from received(watcher)

    assert (seen.topic, seen.payload, seen.qos, seen.retain) == ("wills/c", b"gone", 1, False)


@case("MQTT-3.1.2-8", "MQTT-3.1.2-8")
def the_will_is_published_on_a_protocol_error(version: ProtocolVersion) -> Steps:
    watcher = yield from connected(version, "w")
    yield from subscribed(watcher, "wills/#")
    client = yield from connected(version, "c", will=will())
    yield Send(client, b"\xc1\x00")
    yield from ended(version, client, 0x81)
    yield from received(watcher)


@case("MQTT-3.1.2-8", "MQTT-3.1.2-8")
def the_will_is_published_when_the_client_is_replaced(version: ProtocolVersion) -> Steps:
    watcher = yield from connected(version, "w")
    yield from subscribed(watcher, "wills/#")
    yield from connected(version, "c", will=will())
    yield from connected(version, "c")
    yield from received(watcher)


@case("MQTT-3.1.2-8 MQTT-3.1.2-24", "MQTT-3.1.2-8 MQTT-3.1.2-22", waits=True)
def the_will_is_published_when_the_keep_alive_runs_out(version: ProtocolVersion) -> Steps:
    watcher = yield from connected(version, "w", keep_alive=1200)
    yield from subscribed(watcher, "wills/#")
    yield from connected(version, "c", will=will(), keep_alive=30)
    yield Wait(46)
    yield from received(watcher)


@case("MQTT-3.1.2-10 MQTT-3.14.4-3", "MQTT-3.1.2-10 MQTT-3.14.4-3")
def disconnect_throws_the_will_away(version: ProtocolVersion) -> Steps:
    watcher = yield from connected(version, "w")
    yield from subscribed(watcher, "wills/#")
    client = yield from connected(version, "c", will=will())
    yield Send(client, Disconnect())
    yield from closed(client)
    yield from silent(watcher)


@case("MQTT-3.1.2-16 MQTT-3.1.2-17", "MQTT-3.1.2-14 MQTT-3.1.2-15")
def a_will_is_retained_when_it_says_so(version: ProtocolVersion) -> Steps:
    for retain in (False, True):
        client = yield from connected(version, "c", will=will(retain=retain))
        yield Lose(client)
    late = yield from connected(version, "late")
    yield from subscribed(late, "wills/c")
    seen = yield from received(late)

    assert (seen.payload, seen.retain) == (b"gone", True)
    yield from silent(late)


# --- PUBLISH ---


@case("MQTT-3.3.1-4", "MQTT-3.3.1-4")
def qos_3_ends_the_connection(version: ProtocolVersion) -> Steps:
    yield from violation(version, raw_publish(version, b"t", 0x36, b"\0\1"))


@case("MQTT-3.3.1-2", "MQTT-3.3.1-2")
def dup_with_qos_0_ends_the_connection(version: ProtocolVersion) -> Steps:
    yield from violation(version, raw_publish(version, b"t", 0x38))


@case("MQTT-3.3.1-3", "MQTT-3.3.1-3")
def the_publishers_dup_is_not_passed_on(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "t", qos=1)
    yield Send(client, Publish(topic="t", payload=b"x", qos=1, packet_id=7, dup=True))
    packets = [(yield Receive(client)), (yield Receive(client))]
    (seen,) = [each for each in packets if isinstance(each, Publish)]

    assert not seen.dup
    assert PubAck(packet_id=7) in packets


@case("MQTT-3.3.2-2 MQTT-4.7.1-1", "MQTT-3.3.2-2 MQTT-4.7.0-1")
def wildcards_in_a_topic_name_end_the_connection(version: ProtocolVersion) -> Steps:
    for topic in ("a/+", "#"):
        yield from violation(version, Publish(topic=topic), 0x90)


@case("MQTT-3.3.2-3 MQTT-4.7.3-4", "MQTT-3.3.2-3 MQTT-4.7.3-4")
def filters_and_names_are_compared_character_by_character(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "a/B", "/a", "u\u00e9")
    for topic in ("a/b", "a/B/", "a//B", "//a", "ue\u0301"):
        yield Send(client, Publish(topic=topic))
    yield from silent(client)
    for topic in ("a/B", "/a", "u\u00e9"):
        yield from exchange(client, Publish(topic=topic), client)


@case("MQTT-3.3.4-1 MQTT-4.3.2-2", "MQTT-3.3.4-1 MQTT-4.3.2-4")
def qos_1_is_acknowledged_and_qos_0_is_not(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield Send(client, Publish(topic="t"))
    yield from silent(client)
    yield Send(client, Publish(topic="t", qos=1, packet_id=3))
    assert (yield Receive(client)) == PubAck(packet_id=3)


@case("MQTT-4.3.2-2", "MQTT-4.3.2-5")
def the_same_identifier_after_its_puback_is_a_new_message(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, "s")
    yield from subscribed(client, "t")
    other = yield from connected(version, "p")
    for dup in (False, True):
        yield Send(other, Publish(topic="t", payload=b"x", qos=1, packet_id=5, dup=dup))
        assert (yield Receive(other)) == PubAck(packet_id=5)
        yield from received(client)


@case("MQTT-3.8.4-6", "MQTT-3.8.4-8")
def a_message_has_the_lower_qos_of_publisher_and_subscription(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, "s")
    yield from subscribed(client, "0")
    yield from subscribed(client, "1", qos=1)
    other = yield from connected(version, "p")
    for granted in (0, 1):
        for qos in (0, 1):
            yield Send(other, Publish(topic=str(granted), qos=qos, packet_id=1 if qos else None))
            assert (yield from received(client)).qos == min(qos, granted)


@case("MQTT-3.3.5-1", "MQTT-3.3.4-2")
def overlapping_subscriptions_give_the_highest_qos(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, "s")
    yield from subscribed(client, "t/#")
    yield from subscribed(client, "t/+", qos=1)
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t/u", qos=1, packet_id=1))
    assert (yield from received(client)).qos == 1


@case("MQTT-4.6.0-5 MQTT-4.6.0-6", "MQTT-4.6.0-5 MQTT-4.6.0-6")
def messages_of_a_topic_arrive_in_the_order_in_which_they_were_published(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, "s")
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    for number in range(20):
        yield Send(other, Publish(topic="t", payload=b"%d" % number, qos=1, packet_id=number + 1))
    seen = []
    for _ in range(20):
        each = yield from received(client)
        seen.append(each.payload)
        yield Send(client, PubAck(packet_id=each.packet_id or 0))
    assert seen == [b"%d" % number for number in range(20)]


# --- retained messages ---


@case("MQTT-3.3.1-5 MQTT-3.3.1-6 MQTT-3.3.1-8", "MQTT-3.3.1-5 MQTT-3.3.1-9")
def a_new_subscription_gets_the_retained_message(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    for payload in (b"old", b"new"):
        yield Send(client, Publish(topic="t", payload=payload, qos=1, packet_id=1, retain=True))
        assert (yield Receive(client)) == PubAck(packet_id=1)
    yield from subscribed(client, "t", qos=1)
    seen = yield from received(client)

    assert (seen.payload, seen.retain, seen.qos) == (b"new", True, 1)


@case("MQTT-3.3.1-9", "MQTT-3.3.1-12")
def an_established_subscription_sees_no_retain_flag(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "t")
    yield Send(client, Publish(topic="t", payload=b"x", retain=True))
    assert not (yield from received(client)).retain


@case("MQTT-3.3.1-10 MQTT-3.3.1-11", "MQTT-3.3.1-6 MQTT-3.3.1-7")
def an_empty_retained_message_removes_what_is_retained_and_is_delivered(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield Send(client, Publish(topic="t", payload=b"x", retain=True))
    yield from subscribed(client, "other", "t")
    yield from received(client)
    yield Send(client, Publish(topic="t", payload=b"", retain=True))
    assert (yield from received(client)).payload == b""
    yield from subscribed(client, "t")
    yield from silent(client)


@case("MQTT-3.3.1-12", "MQTT-3.3.1-8")
def a_message_without_retain_leaves_the_retained_one(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield Send(client, Publish(topic="t", payload=b"kept", retain=True))
    yield Send(client, Publish(topic="t", payload=b"passing"))
    yield from subscribed(client, "t")
    assert (yield from received(client)).payload == b"kept"


# --- SUBSCRIBE and UNSUBSCRIBE ---


@case("MQTT-3.8.1-1", "MQTT-3.8.1-1")
def subscribe_must_have_its_flags(version: ProtocolVersion) -> Steps:
    yield from violation(version, raw_subscribe(version, string("t") + b"\0", first=0x80))


@case("MQTT-3.8.3-3", "MQTT-3.8.3-2")
def subscribe_without_a_filter_is_a_protocol_error(version: ProtocolVersion) -> Steps:
    yield from violation(version, raw_subscribe(version, b""), 0x82)


@case("MQTT-3.8.3-4", "MQTT-3.8.3-5")
def subscribe_with_reserved_bits_is_malformed(version: ProtocolVersion) -> Steps:
    for options in (0b11, 0b1100_0000):
        yield from violation(version, raw_subscribe(version, string("t") + bytes((options,))))


@case("MQTT-3.8.4-1 MQTT-3.8.4-2 MQTT-3.9.3-1", "MQTT-3.8.4-1 MQTT-3.8.4-2 MQTT-3.9.3-1")
def suback_has_the_identifier_and_a_code_for_each_filter(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    filters = (Subscription(topic_filter="a", qos=1), Subscription(topic_filter="b"), Subscription(topic_filter="c/+"))
    yield Send(client, Subscribe(packet_id=0xABCD, subscriptions=filters))
    assert (yield Receive(client)) == SubAck(packet_id=0xABCD, reason_codes=(1, 0, 0))


@case("MQTT-3.8.4-3", "MQTT-3.8.4-3 MQTT-3.8.4-4")
def the_same_filter_again_replaces_the_subscription_and_sends_what_is_retained_again(
    version: ProtocolVersion,
) -> Steps:
    client = yield from connected(version)
    yield Send(client, Publish(topic="t", payload=b"kept", retain=True))
    yield from subscribed(client, "t")
    yield from received(client)
    yield from subscribed(client, "t", qos=1)
    assert (yield from received(client)).retain
    yield Send(client, Publish(topic="t", payload=b"x"))
    yield from received(client)
    yield from silent(client)


@case("MQTT-4.7.1-2 MQTT-4.7.1-3", "MQTT-4.7.1-1 MQTT-4.7.1-2")
def wildcards_match_whole_levels(version: ProtocolVersion) -> Steps:
    """But for the parent, which AWS does not match (developer guide, "differences")."""
    client = yield from connected(version)
    yield from subscribed(client, "a/+/c", "sensor/#", "+/leaf", "/+")
    for topic in ("a/b/c", "a//c", "sensor/", "sensor/t/u", "x/leaf", "/x"):
        yield from exchange(client, Publish(topic=topic), client)
    for topic in ("a/c", "a/b/c/d", "sensor", "leaf", "x/y/leaf", "x"):
        yield Send(client, Publish(topic=topic))
    yield from silent(client)


@case("MQTT-4.7.2-1", "MQTT-4.7.2-1")
def wildcards_at_the_front_do_not_match_topics_of_the_service(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, "s")
    yield from subscribed(client, "#", "+/events/#")
    yield from connected(version, "other")
    yield from silent(client)


@case("MQTT-3.10.1-1", "MQTT-3.10.1-1")
def unsubscribe_must_have_its_flags(version: ProtocolVersion) -> Steps:
    yield from violation(version, raw_subscribe(version, string("t"), first=0xA0))


@case("MQTT-3.10.3-2", "MQTT-3.10.3-2")
def unsubscribe_without_a_filter_is_a_protocol_error(version: ProtocolVersion) -> Steps:
    yield from violation(version, raw_subscribe(version, b"", first=0xA2), 0x82)


@case("MQTT-3.10.4-1 MQTT-3.10.4-2 MQTT-3.10.4-4", "MQTT-3.10.4-1 MQTT-3.10.4-2 MQTT-3.10.4-4")
def unsubscribe_ends_the_subscription_that_is_the_same(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "t/+", "t/#")
    yield Send(client, Unsubscribe(packet_id=5, topic_filters=("t/#",)))
    answer = yield Receive(client)
    assert isinstance(answer, UnsubAck)
    assert answer.packet_id == 5
    yield from exchange(client, Publish(topic="t/u"), client)
    yield Send(client, Publish(topic="t/u/v"))
    yield from silent(client)


@case("MQTT-3.10.4-5 MQTT-3.10.4-6", "MQTT-3.10.4-5 MQTT-3.10.4-6 MQTT-3.11.3-1")
def unsuback_comes_also_where_there_was_nothing(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from subscribed(client, "b")
    yield Send(client, Unsubscribe(packet_id=5, topic_filters=("a", "b")))
    codes = (0x11, 0x00) if version is V5 else ()
    assert (yield Receive(client)) == UnsubAck(packet_id=5, reason_codes=codes)


@case("MQTT-3.10.4-3", "MQTT-3.10.4-3")
def unsubscribe_does_not_take_back_what_was_sent(version: ProtocolVersion) -> Steps:
    lasting = persistent(version)
    client = yield from connected(version, "c", **lasting)
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t", payload=b"begun", qos=1, packet_id=1))
    first = yield from received(client)
    yield Send(client, Unsubscribe(packet_id=5, topic_filters=("t",)))
    yield Receive(client)
    yield Lose(client)
    back = yield from connected(version, "c", **lasting)
    again = yield from received(back)

    assert (again.payload, again.packet_id) == (b"begun", first.packet_id)


# --- the rest ---


@case("MQTT-3.12.4-1", "MQTT-3.12.4-1")
def pingreq_is_answered(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    yield from silent(client)


@case("MQTT-3.14.4-2", "MQTT-3.14.4-1")
def nothing_after_disconnect_is_processed(version: ProtocolVersion) -> Steps:
    watcher = yield from connected(version, "w")
    yield from subscribed(watcher, "t")
    client = yield from connected(version)
    yield Send(client, b"\xe0\x00" + raw_publish(version, b"t"))
    yield from closed(client)
    yield from silent(watcher)


@case("MQTT-4.4.0-1", "MQTT-4.4.0-1")
def what_was_not_acknowledged_is_sent_again_with_its_identifier(version: ProtocolVersion) -> Steps:
    lasting = persistent(version)
    client = yield from connected(version, "c", **lasting)
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    for number in (1, 2, 3):
        yield Send(other, Publish(topic="t", payload=b"%d" % number, qos=1, packet_id=number))
    seen = yield from several(client, 3)
    yield Send(client, PubAck(packet_id=seen[1].packet_id or 0))
    yield from silent(client)
    yield Lose(client)
    back = yield from connected(version, "c", **lasting)
    again = yield from several(back, 2)

    assert [(each.payload, each.packet_id) for each in again] == [
        (b"1", seen[0].packet_id),
        (b"3", seen[2].packet_id),
    ]
    yield from silent(back)


@case("MQTT-3.3.1-1", "MQTT-3.3.1-1", settings=Settings(redelivery_sets_dup=True))
def dup_marks_what_is_sent_again_where_the_emulator_is_told_to_follow_the_standard(version: ProtocolVersion) -> Steps:
    lasting = persistent(version)
    client = yield from connected(version, "c", **lasting)
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t", qos=1, packet_id=1))
    assert not (yield from received(client)).dup
    yield Lose(client)
    back = yield from connected(version, "c", **lasting)
    assert (yield from received(back)).dup


@case("MQTT-3.1.2-4", "MQTT-3.1.2-23 MQTT-4.1.0-2", waits=True)
def a_session_outlives_its_connection_for_its_time(version: ProtocolVersion) -> Steps:
    lasting = persistent(version)
    limit = 600 if version is V5 else 3600
    for away, present in ((limit - 1, True), (limit + 1, False)):
        client = yield from connected(version, "c", **lasting)
        yield Lose(client)
        yield Wait(away)
        back, answer = yield from connect(version, "c", **lasting)
        assert answer.session_present is present
        yield Lose(back)
