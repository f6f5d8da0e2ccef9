"""MQTT 3.1.1, OASIS Standard, 29 October 2014, clause by clause, in a world and over sockets.

Where AWS says that it differs, the case says so and holds AWS's behaviour.
"""

from devicesim.emulator.packets import (
    ConnAck,
    ProtocolVersion,
    PubAck,
    Publish,
    ReturnCode,
    Subscribe,
    Subscription,
    Will,
)
from devicesim.emulator.settings import Settings
from tests.conformance_cases import V311_CASES, hello, packet, raw_connect, raw_publish, string, violation
from tests.conformance_support import (
    Case,
    Lose,
    Open,
    Receive,
    Send,
    Steps,
    Wait,
    closed,
    connected,
    received,
    refused,
    run_in_world,
    run_over_sockets,
    several,
    silent,
    subscribed,
)
from tests.emulator_support import V311

case = V311_CASES


@case("MQTT-3.1.2-1")
def another_protocol_name_is_not_connected(version: ProtocolVersion) -> Steps:
    client = yield Open(version)
    assert isinstance(client, int)
    yield Send(client, raw_connect(version, name="MQIsdp"))
    assert (yield Receive(client)) == ConnAck(reason_code=ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION)
    yield from closed(client)


@case("MQTT-3.1.2-2", "MQTT-3.2.2-4", "MQTT-3.2.2-5")
def another_protocol_level_is_told_and_closed(version: ProtocolVersion) -> Steps:
    client = yield Open(version)
    assert isinstance(client, int)
    yield Send(client, packet(0x10, string("MQTT") + b"\x03\x02\0\x3c" + string("c")))
    answer = yield Receive(client)
    assert answer == ConnAck(session_present=False, reason_code=ReturnCode.UNACCEPTABLE_PROTOCOL_VERSION)
    yield from closed(client)


@case("MQTT-3.1.2-22")
def a_password_without_user_name_is_malformed(version: ProtocolVersion) -> Steps:
    yield from refused(version, raw_connect(version, 0b100_0010, string("c") + string("secret")))


@case("MQTT-3.1.2-19", "MQTT-3.1.2-21")
def a_user_name_and_password_do_not_disturb(version: ProtocolVersion) -> Steps:
    """AWS reads neither where a certificate authenticates."""
    yield from connected(version, username="me", password=b"secret")


@case("MQTT-3.1.3-8")
def a_persistent_session_without_client_id_is_refused(version: ProtocolVersion) -> Steps:
    """The standard has CONNACK 2 here; AWS closes 3.1.1 connections without CONNACK (§4.2)."""
    yield from refused(version, hello(version, "", clean_start=False))


@case("MQTT-3.1.3-6", settings=Settings(empty_client_id_v311="assign"))
def a_clean_session_without_client_id_is_given_one_where_so_set(version: ProtocolVersion) -> Steps:
    yield from connected(version, "")
    yield from connected(version, "")


@case("MQTT-3.1.2-14")
def a_will_of_qos_2_is_refused(version: ProtocolVersion) -> Steps:
    """The standard has it; AWS "supports MQTT quality of service levels 0 and 1 only"."""
    yield from refused(version, hello(version, will=Will(topic="w", payload=b"", qos=2)))


@case("MQTT-4.3.3-2")
def publishing_with_qos_2_ends_the_connection(version: ProtocolVersion) -> Steps:
    """AWS: "the message broker doesn't send a PUBACK or SUBACK"."""
    yield from violation(version, raw_publish(version, b"t", 0x34, b"\0\1"))


@case("MQTT-3.8.4-5")
def subscribing_with_qos_2_ends_the_connection(version: ProtocolVersion) -> Steps:
    """The standard has the code 0x80 or a lower QoS; AWS "doesn't send a PUBACK or SUBACK"."""
    yield from violation(version, Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="t", qos=2),)))


@case("MQTT-3.9.3-2")
def the_51st_subscription_is_refused_in_suback(version: ProtocolVersion) -> Steps:
    client = yield from connected(version)
    for start in range(0, 48, 8):
        yield from subscribed(client, *(f"t{number}" for number in range(start, start + 8)))
    filters = tuple(Subscription(topic_filter=f"more{number}") for number in range(3))
    yield Send(client, Subscribe(packet_id=2, subscriptions=filters))
    answer = yield Receive(client)
    assert getattr(answer, "reason_codes", None) == (0, 0, 0x80)


@case("MQTT-4.7.1-2", "MQTT-4.7.1-3")
def wildcards_that_are_not_whole_levels_end_the_connection(version: ProtocolVersion) -> Steps:
    for wrong in ("a/#/b", "a#", "a+", "+a/b"):
        yield from violation(version, Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter=wrong),)))


@case("MQTT-4.7.3-1")
def an_empty_filter_ends_the_connection(version: ProtocolVersion) -> Steps:
    yield from violation(version, Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter=""),)))


@case("MQTT-3.1.2-24", waits=True)
def a_keep_alive_of_none_is_1200_seconds(version: ProtocolVersion) -> Steps:
    """The standard has no limit then; AWS's is 1200 s (§5)."""
    client = yield from connected(version, keep_alive=0)
    yield Wait(1799)
    yield from silent(client)
    yield Wait(1801)
    yield from closed(client)


@case("MQTT-4.4.0-1", waits=True)
def a_live_client_that_does_not_acknowledge_gets_the_message_again_and_again(version: ProtocolVersion) -> Steps:
    """ "Repeatedly until a PUBACK response is received", and not longer than one hour (developer guide, quotas)."""
    client = yield from connected(version, keep_alive=1200)
    yield from subscribed(client, "t", qos=1)
    other = yield from connected(version, "p", keep_alive=1200)
    yield Send(other, Publish(topic="t", payload=b"x", qos=1, packet_id=1))
    first = yield from received(client)
    for _ in range(2):
        yield Wait(30)
        again = yield from received(client)
        assert again == first
    yield Send(client, PubAck(packet_id=first.packet_id or 0))
    yield Wait(60)
    yield from silent(client)


@case("MQTT-4.4.0-1", waits=True)
def a_message_is_given_up_after_an_hour(version: ProtocolVersion) -> Steps:
    client = yield from connected(version, "c", clean_start=False, keep_alive=1200)
    yield from subscribed(client, "t", qos=1)
    yield Send(client, Publish(topic="t", payload=b"x"))
    other = yield from connected(version, "p")
    yield Send(other, Publish(topic="t", payload=b"x", qos=1, packet_id=1))
    yield from several(client, 2)
    for _ in range(4):
        yield Wait(899)
        yield from received(client)
        yield from silent(client)
    yield Wait(30)
    yield Lose(client)
    back = yield from connected(version, "c", clean_start=False)
    yield from silent(back)


@V311_CASES.everywhere()
def test_in_a_world(case: Case) -> None:
    run_in_world(case, V311)


@V311_CASES.over_sockets()
async def test_over_sockets(case: Case) -> None:
    await run_over_sockets(case, V311)
