"""QoS 1 towards one client, beyond what the broker's tests show."""

import pytest

from devicesim.emulator.connection import Connection, Phase
from devicesim.emulator.decode import Decoder
from devicesim.emulator.packets import ProtocolVersion, Publish
from devicesim.emulator.session import Delivery, Message, Session
from devicesim.emulator.settings import Settings
from devicesim.emulator.timers import Timers


class Watcher:
    def output_waits(self, connection: Connection) -> None:
        pass

    def refused(self, connection: Connection, detail: str, *, denied: bool) -> None:
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
    session = Session("c", settings=Settings(), timers=Timers())
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
    session = Session("c", settings=Settings(), timers=Timers())
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
    session = Session("c", settings=Settings(), timers=Timers())
    session.connection = connection
    session.deliver(delivery(b"first"), 0.0)
    session.deliver(delivery(b"expired", expires_at=5.0), 0.0)
    session.deliver(delivery(b"last"), 0.0)
    (first,) = sent(connection)
    session.acknowledge(first.packet_id or 0, 10.0)

    assert [packet.payload for packet in sent(connection)] == [b"last"]
    assert session.pending == 1


def test_a_message_on_its_way_when_the_connection_broke_waits_for_the_next(connection: Connection) -> None:
    session = Session("c", settings=Settings(), timers=Timers())
    session.connection = connection
    connection.phase = Phase.ENDED
    session.deliver(delivery(b"kept"), 0.0)

    assert session.pending == 1

    fresh = Connection(settings=Settings(), watcher=Watcher(), now=0.0)
    fresh.phase, fresh.permissions = Phase.LIVE, Allow()
    session.connection = fresh
    session.resume(1.0)

    assert [packet.payload for packet in sent(fresh)] == [b"kept"]


class TestStored:
    """What is stored for a client that is back goes out at AWS's pace (developer guide, "persistent sessions", D)."""

    def away(self, count: int, settings: Settings | None = None) -> tuple[Session, Timers]:
        timers = Timers()
        session = Session("c", settings=settings or Settings(), timers=timers)
        for number in range(count):
            session.deliver(delivery(b"%d" % number), 0.0)
        return session, timers

    def payloads(self, connection: Connection) -> list[bytes]:
        return [packet.payload for packet in sent(connection)]

    def test_ten_at_once_and_ten_each_second_after(self, connection: Connection) -> None:
        session, timers = self.away(25)
        session.connection = connection
        session.resume(100.0)
        batches = [self.payloads(connection)]
        for now in (100.9, 101.0, 101.5, 102.0, 103.0):
            timers.run(now)
            batches.append(self.payloads(connection))

        assert [len(batch) for batch in batches] == [10, 0, 10, 0, 5, 0]
        assert [payload for batch in batches for payload in batch] == [b"%d" % number for number in range(25)]

    def test_current_traffic_does_not_wait_for_it(self, connection: Connection) -> None:
        session, _ = self.away(11)
        session.connection = connection
        session.resume(0.0)
        session.deliver(delivery(b"now"), 0.5)

        assert self.payloads(connection)[-1] == b"now"
        assert session.pending == 12

    def test_acknowledging_does_not_hurry_it_but_opens_the_window(self, connection: Connection) -> None:
        connection.send_window = 4
        session, timers = self.away(12)
        session.connection = connection
        session.resume(0.0)
        seen = []
        while packets := sent(connection):
            seen += packets
            for packet in packets:
                session.acknowledge(packet.packet_id or 0, 0.1)

        assert len(seen) == 10
        timers.run(1.0)
        assert len(sent(connection)) == 2

    def test_what_was_in_flight_counts(self, connection: Connection) -> None:
        session = Session("c", settings=Settings(), timers=Timers())
        session.connection = connection
        for number in range(15):
            session.deliver(delivery(b"%d" % number), 0.0)
        numbers = [packet.packet_id for packet in sent(connection)]
        session.leave()
        session.connection = connection
        session.resume(5.0)
        again = [packet.packet_id for packet in sent(connection)]

        assert again == numbers[:10]

    def test_a_late_puback_saves_the_repetition(self, connection: Connection) -> None:
        timers = Timers()
        session = Session("c", settings=Settings(), timers=timers)
        session.connection = connection
        for number in range(12):
            session.deliver(delivery(b"%d" % number), 0.0)
        numbers = [packet.packet_id or 0 for packet in sent(connection)]
        session.leave()
        session.connection = connection
        session.resume(5.0)
        sent(connection)
        session.acknowledge(numbers[10], 5.5)
        timers.run(6.0)

        assert [packet.packet_id for packet in sent(connection)] == [numbers[11]]

    def test_without_a_pace_everything_goes_in_order(self, connection: Connection) -> None:
        session, timers = self.away(25, Settings(stored_messages_per_second=None))
        connection.send_window = 20
        session.connection = connection
        session.resume(0.0)
        session.deliver(delivery(b"25"), 0.0)
        seen: list[Publish] = []
        while packets := sent(connection):
            seen += packets
            session.acknowledge(packets[0].packet_id or 0, 0.0)

        assert [packet.payload for packet in seen] == [b"%d" % number for number in range(26)]
        assert len(timers) == 1  # the one that watches for PUBACK

    def test_no_timer_outlives_the_connection(self, connection: Connection) -> None:
        session, timers = self.away(25)
        session.connection = connection
        session.resume(0.0)
        assert len(timers) == 2
        session.leave()

        assert len(timers) == 0
        assert session.pending == 25


class TestRepetition:
    @pytest.mark.parametrize("seconds", [None, 5.0])
    def test_a_message_without_puback_is_repeated_at_its_interval(
        self, connection: Connection, seconds: float | None
    ) -> None:
        timers = Timers()
        session = Session("c", settings=Settings(qos1_retry_seconds=seconds), timers=timers)
        session.connection = connection
        session.deliver(delivery(b"one"), 0.0)
        session.deliver(delivery(b"two"), 3.0)
        seen = [sent(connection)]
        for now in (4.9, 5.0, 7.0, 8.0, 10.0):
            timers.run(now)
            seen.append(sent(connection))
        repeated = [[packet.payload for packet in packets] for packets in seen[1:]]

        assert repeated == ([[], [b"one"], [], [b"two"], [b"one"]] if seconds else [[]] * 5)
        assert not any(packet.dup for packets in seen for packet in packets)

    def test_it_is_given_up_after_its_time_and_the_next_may_go(self, connection: Connection) -> None:
        connection.send_window = 1
        timers = Timers()
        settings = Settings(qos1_retry_seconds=None, qos1_retry_limit_seconds=60.0)
        session = Session("c", settings=settings, timers=timers)
        session.connection = connection
        session.deliver(delivery(b"never"), 0.0)
        session.deliver(delivery(b"next"), 1.0)
        sent(connection)
        timers.run(59.9)
        assert sent(connection) == []
        timers.run(60.0)

        assert [packet.payload for packet in sent(connection)] == [b"next"]
        assert (session.dropped, session.pending) == (1, 1)

    def test_what_is_not_sent_again_yet_is_not_due(self, connection: Connection) -> None:
        """A client that was away for longer than the interval, with more in flight than one second's share."""
        timers = Timers()
        session = Session("c", settings=Settings(), timers=timers)
        session.connection = connection
        for number in range(25):
            session.deliver(delivery(b"%d" % number), 0.0)
        sent(connection)
        session.leave()
        session.connection = connection
        session.resume(1000.0)
        batches = [len(sent(connection))]
        for now in (1000.0, 1001.0, 1002.0, 1029.9, 1030.1, 1031.1, 1032.1):
            timers.run(now)
            batches.append(len(sent(connection)))

        assert batches == [10, 0, 10, 5, 0, 10, 10, 5]

    def test_it_is_given_up_when_it_expires(self, connection: Connection) -> None:
        connection.send_window = 1
        timers = Timers()
        session = Session("c", settings=Settings(qos1_retry_seconds=None), timers=timers)
        session.connection = connection
        session.deliver(delivery(b"short", expires_at=20.0), 0.0)
        session.deliver(delivery(b"next"), 1.0)
        sent(connection)
        timers.run(19.9)
        assert sent(connection) == []
        timers.run(20.0)

        assert [packet.payload for packet in sent(connection)] == [b"next"]

    def test_nothing_is_watched_once_all_is_acknowledged(self, connection: Connection) -> None:
        timers = Timers()
        session = Session("c", settings=Settings(), timers=timers)
        session.connection = connection
        session.deliver(delivery(), 0.0)
        session.acknowledge(1, 0.1)
        timers.run(40.0)

        assert len(timers) == 0
