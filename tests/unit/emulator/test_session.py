"""QoS 1 towards one client, beyond what the broker's tests show."""

import pytest

from devicesim.emulator.connection import Connection, Phase
from devicesim.emulator.decode import Decoder
from devicesim.emulator.packets import ProtocolVersion, Publish
from devicesim.emulator.session import Delivery, Message, Session
from devicesim.emulator.settings import Settings


class Watcher:
    def output_waits(self, connection: Connection) -> None:
        pass

    def ended(self, connection: Connection) -> None:
        pass


class Allow:
    def allows(self, action: str, kind: str, name: str) -> bool:
        return True


@pytest.fixture
def connection() -> Connection:
    connection = Connection(settings=Settings(), watcher=Watcher(), now=0.0)
    connection.phase = Phase.LIVE
    connection.permissions = Allow()
    return connection


def delivery(payload: bytes = b"x", expires_at: float | None = None) -> Delivery:
    message = Message(topic="t", payload=payload, qos=1, expires_at=expires_at)
    return Delivery(message=message, qos=1, retain=False)


def sent(connection: Connection) -> list[Publish]:
    decoder = Decoder(max_packet_size=1 << 20, version=ProtocolVersion.V311)
    decoder.feed(bytes(connection.outbound))
    connection.outbound.clear()
    packets = []
    while (packet := decoder.next_packet()) is not None:
        assert isinstance(packet, Publish)
        packets.append(packet)
    return packets


def test_identifiers_wrap_around_past_those_in_flight_and_zero(connection: Connection) -> None:
    """MQTT-2.2.1-3: an identifier is not used again before its PUBACK."""
    session = Session("c", settings=Settings())
    session.connection = connection
    session.deliver(delivery(), 0.0)
    for _ in range(0xFFFF - 1):
        session.deliver(delivery(), 0.0)
        packets = sent(connection)
        session.acknowledge(packets[-1].packet_id or 0, 0.0)
    session.deliver(delivery(), 0.0)

    assert [packet.packet_id for packet in sent(connection)] == [2]
    assert session.pending == 2


def test_messages_keep_their_order_when_the_window_opens(connection: Connection) -> None:
    connection.send_window = 1
    session = Session("c", settings=Settings())
    session.connection = connection
    for number in range(5):
        session.deliver(delivery(b"%d" % number), 0.0)
    order = []
    while packets := sent(connection):
        order += [packet.payload for packet in packets]
        session.acknowledge(packets[-1].packet_id or 0, 0.0)

    assert order == [b"0", b"1", b"2", b"3", b"4"]


def test_a_message_that_expired_in_the_queue_does_not_block_the_next(connection: Connection) -> None:
    connection.send_window = 1
    session = Session("c", settings=Settings())
    session.connection = connection
    session.deliver(delivery(b"first"), 0.0)
    session.deliver(delivery(b"expired", expires_at=5.0), 0.0)
    session.deliver(delivery(b"last"), 0.0)
    (first,) = sent(connection)
    session.acknowledge(first.packet_id or 0, 10.0)

    assert [packet.payload for packet in sent(connection)] == [b"last"]
    assert session.pending == 1


def test_a_message_on_its_way_when_the_connection_broke_waits_for_the_next(connection: Connection) -> None:
    session = Session("c", settings=Settings())
    session.connection = connection
    connection.phase = Phase.ENDED
    session.deliver(delivery(b"kept"), 0.0)

    assert session.pending == 1

    fresh = Connection(settings=Settings(), watcher=Watcher(), now=0.0)
    fresh.phase, fresh.permissions = Phase.LIVE, Allow()
    session.connection = fresh
    session.resume(1.0)

    assert [packet.payload for packet in sent(fresh)] == [b"kept"]
