"""One connection: how it ends in each version, and the limits of its output."""

from dataclasses import dataclass, field

import pytest

from devicesim.emulator.connection import Connection, DisconnectReason, End, Phase
from devicesim.emulator.encode import encode
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
    ReasonCode,
)
from devicesim.emulator.settings import Settings

V311, V5 = ProtocolVersion.V311, ProtocolVersion.V5


@dataclass
class Watcher:
    waiting: int = 0
    ends: list[End] = field(default_factory=list)

    def output_waits(self, connection: Connection) -> None:
        self.waiting += 1

    def refused(self, connection: Connection, detail: str, *, denied: bool) -> None:
        pass

    def ended(self, connection: Connection) -> None:
        assert connection.end is not None
        self.ends.append(connection.end)


def live(version: ProtocolVersion, **settings: int) -> tuple[Connection, Watcher]:
    watcher = Watcher()
    connection = Connection(settings=Settings(**settings), watcher=watcher, now=0.0)  # type: ignore[arg-type]
    connection.feed(encode(Connect(client_id="c", version=version), version))
    assert isinstance(connection.next_packet(1.0), Connect)
    connection.phase = Phase.LIVE
    return connection, watcher


def test_a_failure_is_told_to_mqtt_5_and_only_closes_3_1_1() -> None:
    connection, watcher = live(V5)
    connection.fail(ReasonCode.PROTOCOL_ERROR, "why", reason_string="text")

    expected = Disconnect(reason_code=0x82, properties=Properties(reason_string="text"))
    assert bytes(connection.outbound) == encode(expected, V5)
    assert watcher.ends == [End(reason=DisconnectReason.CLIENT_ERROR, detail="why")]

    connection, watcher = live(V311)
    connection.fail(ReasonCode.PROTOCOL_ERROR, "why")

    assert connection.outbound == b""
    assert watcher.ends == [End(reason=DisconnectReason.CLIENT_ERROR, detail="why")]


def test_reason_strings_are_not_sent_to_who_does_not_want_them() -> None:
    connection, _ = live(V5)
    connection.problem_information = False
    connection.fail(ReasonCode.PROTOCOL_ERROR, "why", reason_string="text")

    assert bytes(connection.outbound) == encode(Disconnect(reason_code=0x82), V5)


def test_before_connack_even_mqtt_5_is_only_closed() -> None:
    """4.13.1: DISCONNECT is not sent before CONNACK."""
    connection, _ = live(V5)
    connection.phase = Phase.WAITING
    connection.fail(ReasonCode.MALFORMED_PACKET, "why")

    assert connection.outbound == b""


@pytest.mark.parametrize("garbage", ["00", "16 03 01 02 00", "47 45 54", "30 02 0000", "10 ff ff ff 7f"])
def test_garbage_instead_of_connect_is_closed_without_a_word(garbage: str) -> None:
    watcher = Watcher()
    connection = Connection(settings=Settings(), watcher=watcher, now=0.0)
    connection.feed(bytes.fromhex(garbage))

    assert connection.next_packet(0.0) is None
    assert connection.outbound == b""
    assert [end.reason for end in watcher.ends] == [DisconnectReason.CLIENT_ERROR]


@pytest.mark.parametrize("connect", ["10 0e 0006 4d5149736470 03 02 003c 0000", "10 0c 0004 4d515454 06 02 003c 0000"])
def test_other_protocol_levels_are_told_so_as_mqtt_3_1_1_asks(connect: str) -> None:
    """MQTT-3.1.2-2 of 3.1.1: CONNACK 0x01, then close."""
    connection = Connection(settings=Settings(), watcher=Watcher(), now=0.0)
    connection.feed(bytes.fromhex(connect))

    assert connection.next_packet(0.0) is None
    assert connection.outbound.hex() == "20020001"
    assert connection.phase is Phase.ENDED


def test_nothing_is_read_or_written_after_the_end_and_the_first_end_counts() -> None:
    connection, watcher = live(V5)
    connection.finish(End(reason=DisconnectReason.CONNECTION_LOST, detail="first"))
    connection.fail(ReasonCode.PROTOCOL_ERROR, "second")
    connection.feed(encode(PingReq(), V5))

    assert connection.next_packet(2.0) is None
    assert not connection.send(PingResp())
    assert connection.outbound == b""
    assert [end.detail for end in watcher.ends] == ["first"]


def test_a_client_that_does_not_read_is_given_up() -> None:
    connection, watcher = live(V311, max_outbound_bytes=1000)
    sent = 0
    while connection.send(Publish(topic="t", payload=bytes(90))):
        sent += 1

    assert sent == 10
    assert watcher.ends[0].reason is DisconnectReason.THROTTLED
    assert not watcher.ends[0].flush
    assert len(connection.outbound) < 1200


def test_the_watcher_is_told_of_output_once_until_it_has_taken_it() -> None:
    connection, watcher = live(V311)
    connection.send(PingResp())
    connection.send(PingResp())

    assert watcher.waiting == 1

    connection.outbound.clear()
    connection.send(PingResp())

    assert watcher.waiting == 2


def test_messages_above_the_clients_maximum_packet_size_are_dropped() -> None:
    """MQTT-3.1.2-25: as if they had been sent."""
    connection, watcher = live(V5)
    connection.max_outbound_packet = 20

    assert not connection.send(Publish(topic="t", payload=bytes(20)))
    assert connection.send(Publish(topic="t", payload=bytes(10)))
    assert watcher.ends == []


def test_answers_above_the_clients_maximum_packet_size_lose_their_reason_string() -> None:
    """MQTT-3.1.2-24."""
    connection, _ = live(V5)
    connection.max_outbound_packet = 8
    long = Properties(reason_string="x" * 50)

    assert connection.send(PubAck(packet_id=1, reason_code=0x87, properties=long))
    assert connection.outbound.hex() == "400400018700"


def test_a_client_whose_maximum_packet_size_is_too_small_for_connack_is_closed() -> None:
    connection, watcher = live(V5)
    connection.max_outbound_packet = 4

    assert not connection.send(ConnAck(properties=Properties(maximum_qos=1)))
    assert "packets of 4 bytes" in watcher.ends[0].detail


def test_a_packet_that_does_not_fit_even_without_its_reason_ends_the_connection() -> None:
    connection, watcher = live(V5)
    connection.max_outbound_packet = 3

    assert not connection.send(PubAck(packet_id=1, reason_code=0x87))
    assert watcher.ends[0].reason is DisconnectReason.CLIENT_ERROR


def test_a_refusal_loses_its_reason_string_rather_than_exceed_the_clients_limit() -> None:
    """3.2.2.3.9."""
    connection, watcher = live(V5)
    connection.max_outbound_packet = 10

    assert connection.send(ConnAck(reason_code=0x87, properties=Properties(reason_string="x" * 50)))
    assert connection.outbound.hex() == "2003008700"
    assert watcher.ends == []


def test_the_clients_limits_count_from_its_connect_on() -> None:
    connection = Connection(settings=Settings(), watcher=Watcher(), now=0.0)
    asked = Properties(receive_maximum=3, maximum_packet_size=99, request_problem_information=0)
    connection.feed(encode(Connect(client_id="c", version=V5, properties=asked), V5))
    connection.next_packet(0.0)

    assert (connection.send_window, connection.max_outbound_packet, connection.problem_information) == (3, 99, False)


class TestOutboundAliases:
    """MQTT 5, 3.3.2.3.4: beyond the conformance cases."""

    def connection(self, maximum: int | None, ours: int = 8) -> Connection:
        connection = Connection(settings=Settings(max_topic_alias_outbound=ours), watcher=Watcher(), now=0.0)
        connect = Connect(client_id="c", version=V5, properties=Properties(topic_alias_maximum=maximum))
        connection.feed(encode(connect, V5))
        connection.next_packet(0.0)
        connection.phase = Phase.LIVE
        return connection

    @pytest.mark.parametrize(("maximum", "ours", "used"), [(None, 8, 0), (3, 8, 3), (100, 8, 8), (100, 0, 0)])
    def test_the_lower_limit_holds(self, maximum: int | None, ours: int, used: int) -> None:
        connection = self.connection(maximum, ours)
        for number in range(20):
            connection.send_publish(Publish(topic=f"t{number}"))

        assert len(connection.outbound_aliases) == used

    def test_a_topic_that_did_not_go_out_has_no_alias(self) -> None:
        connection = self.connection(8)
        connection.max_outbound_packet = 40

        assert not connection.send_publish(Publish(topic="t", payload=b"x" * 100))
        assert connection.outbound_aliases == {}
        assert connection.send_publish(Publish(topic="t"))
        assert connection.outbound_aliases == {"t": 1}

    @pytest.mark.parametrize("topic", ["t", "t/t", "t/t/t/t"])
    def test_an_alias_never_makes_a_message_too_long_for_the_client(self, topic: str) -> None:
        connection = self.connection(8)
        connection.max_outbound_packet = 40
        for size in (*range(20, 36), *range(20, 36)):
            packet = Publish(topic=topic, payload=bytes(size))
            fits = len(encode(packet, V5)) <= 40
            assert connection.send_publish(packet) or not fits, f"{size} bytes"
