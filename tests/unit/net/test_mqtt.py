"""The MQTT client over a connection in memory: what is hard to bring about with sockets, made to happen."""

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import pytest
import trio
import trio.testing

from devicesim.net.engine import Engine, QoS
from devicesim.net.failures import ConnectionFailed, EndOfStreamError
from devicesim.net.mqtt import FAIR_SHARE, HIGH_WATER, MQTTClient, MQTTSettings, _Connection
from devicesim.net.stream import TLSConnection
from devicesim.net.tls import Deadlines, under_way
from devicesim.outcome import FailureKind, Stage, Trace

ACCEPT = b"\x20\x02\x00\x00"
ACCEPT_TWO_AT_ONCE = b"\x20\x06\x00\x00\x03\x21\x00\x02"
"""MQTT 5, with a Receive Maximum of 2."""


class FakeTLS:
    """A TLS connection in memory: what comes in is queued by the test, and what goes out has the room that it gives."""

    def __init__(self) -> None:
        self.incoming: deque[bytes | Exception] = deque()
        self.sent = bytearray()
        self.room: float = float("inf")
        self.write_fails: Exception | None = None
        self.closed = False
        self._changed = trio.Event()

    def say(self, *what: bytes | Exception) -> None:
        self.incoming.extend(what)
        self.change()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def receive_nowait(self) -> bytes:
        if self.closed:
            raise trio.ClosedResourceError
        if not self.incoming:
            raise trio.WouldBlock
        what = self.incoming.popleft()
        if isinstance(what, Exception):
            raise what
        return what

    def send_nowait(self, data: bytes | bytearray, *, more: bool = False) -> int:
        if self.write_fails is not None:
            raise self.write_fails
        if self.closed:
            raise trio.ClosedResourceError
        if self.room <= 0:
            raise trio.WouldBlock
        taken = int(min(len(data), self.room))
        self.room -= taken
        self.sent += data[:taken]
        return taken

    def flush_nowait(self) -> None:
        pass

    def settle(self) -> bool:
        return True

    async def wait_readable(self) -> None:
        while not self.incoming and not self.closed:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()
        if self.closed:
            raise trio.ClosedResourceError

    async def wait_writable(self) -> None:
        while self.room <= 0 and not self.closed:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    def end_sending(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        self.change()

    async def aclose(self, linger: float = 0) -> None:
        self.close()


def connection(
    tls: FakeTLS,
    settings: MQTTSettings | None = None,
    *,
    deadlines: Deadlines | None = None,
    trace: Trace | None = None,
    attended: bool = False,
) -> _Connection:
    """As open_mqtt makes it, but on this connection."""

    async def connect() -> MQTTClient:
        seen, how = trace or Trace(start=trio.current_time()), settings or MQTTSettings()
        engine = Engine("robot", version=how.version, clean_start=how.clean_start)
        limits = deadlines or Deadlines()
        client = MQTTClient(cast(TLSConnection, tls), engine, how, limits, seen)
        with under_way(Stage.TLS, limits.tls, seen) as way:
            await client._connect(trio.current_time, way)
        return client

    return _Connection(connect, attended=attended)


async def test_a_socket_without_room_for_connect_times_out_there(autojump_clock: trio.testing.MockClock) -> None:
    tls = FakeTLS()
    tls.room = 3
    trace = Trace(start=0)

    with pytest.raises(ConnectionFailed) as caught:
        async with connection(tls, deadlines=Deadlines(connect=7), trace=trace):
            pytest.fail("connected")

    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert caught.value.failure.stage is Stage.CONNECT
    assert caught.value.failure.detail == "no room for CONNECT in the socket within 7 s"
    assert trio.current_time() == 7
    assert Stage.CONNECT not in trace.reached


async def test_connect_is_written_in_pieces_as_there_is_room(autojump_clock: trio.testing.MockClock) -> None:
    tls = FakeTLS()
    tls.room = 3
    tls.say(ACCEPT)

    async def make_room() -> None:
        while not tls.closed:
            await trio.sleep(0.1)
            tls.room = 3
            tls.change()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_room)
        async with connection(tls):
            sent = bytes(tls.sent)

    assert sent == b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05robot"


async def test_a_write_that_fails_tells_what_the_server_said_before() -> None:
    tls = FakeTLS()
    tls.say(b"\x20\x03\x00\x00\x00")
    async with connection(tls, MQTTSettings(version="5")) as client:
        tls.write_fails = BrokenPipeError(32, "Broken pipe")
        tls.incoming.extend([b"\x30\x04\x00\x01a\x00", b"\xe0\x01\x8e"])

        with pytest.raises(ConnectionFailed) as caught:
            await client.publish("a", b"")

        assert (await client.receive()).topic == "a"

    assert caught.value.failure.kind is FailureKind.DISCONNECTED_BY_SERVER
    assert caught.value.failure.detail == "0x8e Session taken over"


@pytest.mark.parametrize("then", [EndOfStreamError(), ConnectionResetError(104, "reset"), None], ids=repr)
async def test_a_write_that_fails_tells_itself_when_the_server_said_nothing(then: Exception | None) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with connection(tls) as client:
        tls.write_fails = ConnectionResetError(104, "Connection reset by peer")
        if then is not None:
            tls.incoming.append(then)

        with pytest.raises(ConnectionFailed) as caught:
            await client.publish("a", b"")
        with pytest.raises(ConnectionFailed):
            await client.wait_closed()

    assert caught.value.failure.kind is FailureKind.CONNECTION_RESET
    assert tls.closed


async def test_a_write_that_fails_later_ends_the_connection_too() -> None:
    """What waited for room, written by the task of its own."""
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with connection(tls) as client:
        tls.room = 2
        await client.publish("a", b"more than there is room for")
        tls.write_fails = BrokenPipeError(32, "Broken pipe")
        tls.room = 100
        tls.change()

        with pytest.raises(ConnectionFailed) as caught:
            await client.wait_closed()

    assert caught.value.failure.kind is FailureKind.CLOSED_AFTER_CONNACK
    assert "EPIPE" in caught.value.failure.detail


async def test_a_flood_leaves_other_tasks_their_turn() -> None:
    """The reading stops every now and then, without waiting for a socket that has nothing more to say."""
    tls = FakeTLS()
    tls.say(ACCEPT)
    count = FAIR_SHARE * 5
    turns = 0

    async def other() -> None:
        nonlocal turns
        while tls.incoming:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with connection(tls, MQTTSettings(receive_buffer=10_000)) as client, trio.open_nursery() as nursery:
        tls.say(*[b"\x30\x04\x00\x01ax"] * count)
        nursery.start_soon(other)
        received = [(await client.receive()).payload for _ in range(count)]

    assert received == [b"x"] * count
    assert turns > 1


async def test_who_waits_for_a_slot_is_told_of_the_end() -> None:
    tls = FakeTLS()
    tls.say(ACCEPT_TWO_AT_ONCE)
    kinds: list[FailureKind] = []

    async def publish(client: MQTTClient) -> None:
        with pytest.raises(ConnectionFailed) as caught:
            await client.publish("a", b"", qos=1)
        kinds.append(caught.value.failure.kind)

    async with connection(tls, MQTTSettings(version="5")) as client, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(publish, client)
        await trio.testing.wait_all_tasks_blocked()
        tls.say(EndOfStreamError())

    assert kinds == [FailureKind.CLOSED_AFTER_CONNACK] * 5


async def test_waiting_for_a_slot_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT_TWO_AT_ONCE)
    details: list[str] = []

    async def publish(client: MQTTClient) -> None:
        with pytest.raises(ConnectionFailed) as caught:
            await client.publish("a", b"", qos=1)
        details.append(caught.value.failure.detail)

    settings = MQTTSettings(version="5", keep_alive=0)
    async with connection(tls, settings, deadlines=Deadlines(request=5)) as client, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(publish, client)

    assert sorted(details) == ["no PUBACK of earlier messages within 5 s", *["no PUBACK within 5 s"] * 2]


async def test_a_message_that_cannot_be_gives_its_slot_back() -> None:
    tls = FakeTLS()
    tls.say(ACCEPT_TWO_AT_ONCE)
    async with connection(tls, MQTTSettings(version="5")) as client:
        for _ in range(5):
            with pytest.raises(ValueError, match="wildcard"):
                await client.publish("a/#", b"", qos=1)
        tls.say(b"\x40\x02\x00\x01")
        with trio.fail_after(5):
            await client.publish("a", b"", qos=1)


async def test_leaving_tells_other_tasks_that_the_client_is_closed() -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)
    closed = 0

    async def waits(call: str, client: MQTTClient) -> None:
        nonlocal closed
        with pytest.raises(trio.ClosedResourceError):
            await (client.receive() if call == "receive" else client.subscribe("a"))
        closed += 1

    async with trio.open_nursery() as outer:
        async with connection(tls) as client:
            outer.start_soon(waits, "receive", client)
            outer.start_soon(waits, "subscribe", client)
            outer.start_soon(client.wait_closed)
            await trio.testing.wait_all_tasks_blocked()
        outer.cancel_scope.deadline = trio.current_time() + 5

    assert closed == 2
    assert client.failure is None


async def test_a_crash_in_the_background_task_is_not_hidden() -> None:
    """A programming error is no failure of the connection."""
    tls = FakeTLS()
    tls.say(ACCEPT)

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - it comes out of the context manager
        async with connection(tls):
            tls.say(KeyError("a bug"))
            await trio.sleep_forever()

    assert caught.value.subgroup(KeyError) is not None
    assert tls.closed


async def test_an_attended_crash_comes_out_of_the_call_that_attends() -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)

    async with connection(tls, attended=True) as client:
        tls.say(KeyError("a bug"))
        with pytest.raises(KeyError):
            await client.wait_closed()

    assert tls.closed


async def test_an_attended_connection_makes_no_task(autojump_clock: trio.testing.MockClock) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)
    before = trio.lowlevel.current_statistics().tasks_living

    async with connection(tls, attended=True) as client:
        with trio.move_on_after(30):
            await client.wait_closed()
        during = trio.lowlevel.current_statistics().tasks_living

    assert during == before


async def test_an_attended_keep_alive_goes_on_while_a_request_waits(autojump_clock: trio.testing.MockClock) -> None:
    """And one that is not answered ends the connection there."""
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with connection(tls, MQTTSettings(keep_alive=4), deadlines=Deadlines(request=10), attended=True) as client:
        tls.sent.clear()
        with pytest.raises(ConnectionFailed, match="no PUBACK within 10 s"):
            await client.publish("a", b"", qos=1)
        pings = tls.sent.count(b"\xc0\x00")
        with pytest.raises(ConnectionFailed, match="no PINGRESP within 10 s"):
            await client.receive()

    assert pings == 2
    assert trio.current_time() == 14


@pytest.mark.parametrize("attended", [True, False])
async def test_waiting_for_the_end_until_a_time(autojump_clock: trio.testing.MockClock, attended: bool) -> None:
    """Before it is reached keep-alive goes on; after it the connection is as usable as before."""
    tls = FakeTLS()
    tls.say(ACCEPT)

    async def pong() -> None:
        while True:
            await trio.sleep(0.5)
            if tls.sent.endswith(b"\xc0\x00"):
                tls.sent.clear()
                tls.say(b"\xd0\x00")

    async with (
        trio.open_nursery() as nursery,
        connection(tls, MQTTSettings(keep_alive=60), attended=attended) as client,
    ):
        nursery.start_soon(pong)
        for until in (100, 200):
            await client.wait_closed(until=until)
            assert trio.current_time() == until
        tls.say(EndOfStreamError())
        with pytest.raises(ConnectionFailed, match="closed_after_connack"):
            await client.wait_closed(until=300)
        assert trio.current_time() == 200
        nursery.cancel_scope.cancel()


# --- attended: nobody but who waits reads and writes


MESSAGE = b"\x30\x04\x00\x01a"
"""One byte of payload is to follow."""


def messages(count: int) -> bytes:
    return b"".join(MESSAGE + bytes((number,)) for number in range(count))


async def received(client: MQTTClient, count: int) -> bytes:
    return b"".join([(await client.receive()).payload for _ in range(count)])


async def test_who_attends_writes_what_another_tasks_publish_left_over(autojump_clock: trio.testing.MockClock) -> None:
    """At once when there is room, though the server says nothing meanwhile."""
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with (
        trio.open_nursery() as nursery,
        connection(tls, MQTTSettings(keep_alive=0), attended=True) as client,
    ):
        nursery.start_soon(client.wait_closed)
        await trio.testing.wait_all_tasks_blocked()
        tls.room = 5
        nursery.start_soon(partial(client.publish, "a", bytes(HIGH_WATER + 1)))
        await trio.sleep(3)
        tls.room = float("inf")
        tls.change()
        await trio.testing.wait_all_tasks_blocked()
        assert len(tls.sent) > HIGH_WATER
        assert trio.current_time() == 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("qos", [0, 1])
async def test_one_task_that_publishes_more_than_the_socket_takes_writes_it_itself(
    qos: QoS, autojump_clock: trio.testing.MockClock
) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)

    async def make_room() -> None:
        await trio.sleep(3)
        tls.room = float("inf")
        tls.say(b"\x40\x02\x00\x01")

    async with (
        trio.open_nursery() as nursery,
        connection(tls, MQTTSettings(keep_alive=0), attended=True) as client,
    ):
        tls.room = 5
        nursery.start_soon(make_room)
        with trio.fail_after(5):
            await client.publish("a", bytes(HIGH_WATER + 1), qos=qos)
        assert len(tls.sent) > HIGH_WATER
        assert trio.current_time() == 3


async def test_a_server_that_takes_nothing_until_it_is_read_is_read(autojump_clock: trio.testing.MockClock) -> None:
    """Both sides full: one of them has to read first."""
    tls = FakeTLS()
    tls.say(ACCEPT)

    async def take_when_read() -> None:
        while tls.incoming:  # noqa: ASYNC110 - a server polls here
            await trio.sleep(0.01)
        tls.room = float("inf")
        tls.change()

    async with (
        trio.open_nursery() as nursery,
        connection(tls, MQTTSettings(keep_alive=0), attended=True) as client,
    ):
        tls.room = 5
        # more than is read at once
        tls.say(*[MESSAGE + bytes((number,)) for number in range(3 * FAIR_SHARE)])
        nursery.start_soon(take_when_read)
        with trio.fail_after(5):
            await client.publish("a", bytes(HIGH_WATER + 1))
            assert await received(client, 3 * FAIR_SHARE) == bytes(range(3 * FAIR_SHARE))


async def test_a_full_inbox_does_not_keep_who_waits_until_a_time(autojump_clock: trio.testing.MockClock) -> None:
    """Nor is more read for it, however often that is asked for; and nothing is lost."""
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with connection(tls, MQTTSettings(receive_buffer=5, keep_alive=0), attended=True) as client:
        tls.say(messages(8))
        await client.wait_closed(until=10)
        tls.say(*[MESSAGE + bytes((number,)) for number in range(8, 40)])
        for until in (20, 30, 40):
            await client.wait_closed(until=until)
            assert trio.current_time() == until
            assert len(tls.incoming) == 32
        assert await received(client, 40) == bytes(range(40))


async def test_pings_go_on_while_the_inbox_is_full(autojump_clock: trio.testing.MockClock) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with connection(tls, MQTTSettings(receive_buffer=1, keep_alive=4), attended=True) as client:
        tls.say(messages(8))
        tls.sent.clear()
        await client.wait_closed(until=13)
        assert tls.sent == b"\xc0\x00" * 3
        assert client.failure is None


async def test_an_answer_that_comes_with_more_than_the_inbox_holds_is_had(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with connection(tls, MQTTSettings(receive_buffer=1), attended=True) as client:
        tls.say(messages(8) + b"\x40\x02\x00\x01")
        await client.publish("a", b"", qos=1)
        assert trio.current_time() == 0
        assert await received(client, 8) == bytes(range(8))


@pytest.mark.parametrize("attended", [True, False])
async def test_an_end_behind_more_than_the_inbox_holds_is_told_and_nothing_lost(
    autojump_clock: trio.testing.MockClock, attended: bool
) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with connection(tls, MQTTSettings(receive_buffer=2), attended=attended) as client:
        tls.say(messages(8), EndOfStreamError())
        with pytest.raises(ConnectionFailed, match="closed_after_connack"):
            await client.wait_closed()
        assert trio.current_time() == 0
        assert await received(client, 8) == bytes(range(8))
        with pytest.raises(ConnectionFailed, match="closed_after_connack"):
            await client.receive()


@pytest.mark.parametrize("attended", [True, False])
async def test_an_answer_that_comes_with_the_end_is_had(attended: bool) -> None:
    tls = FakeTLS()
    tls.say(b"\x20\x03\x00\x00\x00")
    async with connection(tls, MQTTSettings(version="5"), attended=attended) as client:
        tls.say(b"\x40\x02\x00\x01\xe0\x01\x8b")
        await client.publish("a", b"", qos=1)
        with pytest.raises(ConnectionFailed, match="disconnected_by_server"):
            await client.publish("a", b"", qos=1)


async def test_a_late_answer_makes_room_for_the_next_message_also_when_attended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Receive Maximum: the slot is held until PUBACK, which somebody has to read."""
    tls = FakeTLS()
    tls.say(ACCEPT_TWO_AT_ONCE)
    async with connection(
        tls, MQTTSettings(version="5", keep_alive=0), deadlines=Deadlines(request=1), attended=True
    ) as client:
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match="no PUBACK within 1 s"):
                await client.publish("a", b"", qos=1)
        with pytest.raises(ConnectionFailed, match="no PUBACK of earlier messages within 1 s"):
            await client.publish("a", b"", qos=1)
        tls.say(b"\x40\x02\x00\x01")
        with pytest.raises(ConnectionFailed, match="no PUBACK within 1 s"):
            await client.publish("a", b"", qos=1)
        assert trio.current_time() == 4
        tls.say(EndOfStreamError())
        with pytest.raises(ConnectionFailed, match="closed_after_connack"):
            await client.publish("a", b"", qos=1)
        assert trio.current_time() == 4


async def test_who_waits_for_room_is_told_of_the_end_by_who_attends(autojump_clock: trio.testing.MockClock) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)
    ended: list[float] = []
    async with connection(tls, MQTTSettings(keep_alive=0), attended=True) as client:

        async def one(wait: Callable[[], Awaitable[None]]) -> None:
            with pytest.raises(ConnectionFailed, match="closed_after_connack"):
                await wait()
            ended.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, client.wait_closed)
            await trio.testing.wait_all_tasks_blocked()
            tls.room = 0
            nursery.start_soon(one, partial(client.publish, "a", bytes(HIGH_WATER + 1)))
            tls.say(EndOfStreamError())  # before who attends comes to write

    assert ended == [0, 0]


async def test_a_publish_cancelled_half_way_is_completed_by_the_next_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tls = FakeTLS()
    tls.say(ACCEPT)
    async with connection(tls, MQTTSettings(keep_alive=0), attended=True) as client:
        tls.sent.clear()
        tls.room = 100
        with trio.move_on_after(1):
            await client.publish("a", bytes(HIGH_WATER + 1))
        assert len(tls.sent) == 100
        tls.room = float("inf")
        tls.say(b"\x40\x02\x00\x02")
        await client.publish("b", b"", qos=1)

    assert len(tls.sent) == 1 + 3 + 3 + HIGH_WATER + 1 + 7 + 2


async def test_a_stage_reached_as_its_time_was_up_does_not_fail_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    trace = Trace(start=0)
    with under_way(Stage.TCP, 1, trace) as way:
        await trio.sleep(0.5)
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        way.then(Stage.TLS, 2)
        await trio.sleep(1)
        way.then(Stage.CONNECT, 2)

    with (  # noqa: PT012 - it comes out of the context manager
        pytest.raises(ConnectionFailed, match="no CONNACK within 3 s"),
        under_way(Stage.TCP, 1, trace) as way,
    ):
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        way.then(Stage.CONNACK, 3)
        await trio.sleep(4)

    assert trio.current_time() == 2.5 + 1 + 3
