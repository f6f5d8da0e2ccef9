"""The inbox: bounded, in order, and nothing lost when it is closed."""

import pytest
import trio
import trio.testing

from devicesim.net.engine import Message
from devicesim.net.inbox import Inbox


def message(number: int) -> Message:
    return Message(topic="t", payload=str(number).encode(), qos=0, retain=False)


async def test_messages_come_out_in_order() -> None:
    inbox = Inbox(10)
    for number in range(3):
        inbox.put(message(number))

    assert await inbox.deliver(until=0)
    assert [await inbox.receive() for _ in range(3)] == [message(number) for number in range(3)]


async def test_delivery_into_a_full_inbox_gives_up_in_time(autojump_clock: trio.testing.MockClock) -> None:
    inbox = Inbox(1)
    for number in range(3):
        inbox.put(message(number))

    assert not await inbox.deliver(until=5)
    assert trio.current_time() == 5


async def test_delivery_goes_on_as_room_is_made() -> None:
    inbox = Inbox(1)
    for number in range(5):
        inbox.put(message(number))
    received: list[Message] = []

    async def receive() -> None:
        received.extend([await inbox.receive() for _ in range(5)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        assert await inbox.deliver(until=trio.current_time() + 5)

    assert received == [message(number) for number in range(5)]


async def test_what_could_not_be_delivered_is_delivered_later(autojump_clock: trio.testing.MockClock) -> None:
    inbox = Inbox(1)
    inbox.put(message(0))
    inbox.put(message(1))
    assert not await inbox.deliver(until=5)

    assert await inbox.receive() == message(0)
    assert await inbox.deliver(until=5)
    assert await inbox.receive() == message(1)


@pytest.mark.parametrize("used", [True, False])
async def test_closing_ends_receiving_after_what_is_there(used: bool) -> None:
    inbox = Inbox(10)
    if used:
        inbox.put(message(0))
        await inbox.deliver(until=0)
    inbox.close()
    inbox.close()

    if used:
        assert await inbox.receive() == message(0)
    with pytest.raises(trio.EndOfChannel):
        await inbox.receive()


async def test_closing_wakes_who_waits() -> None:
    inbox = Inbox(1)

    async def receive() -> None:
        with pytest.raises(trio.EndOfChannel):
            await inbox.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        inbox.close()


async def test_what_there_was_no_room_for_is_received_after_closing() -> None:
    """In order, and without anybody to deliver it."""
    inbox = Inbox(2)
    for number in range(5):
        inbox.put(message(number))
    assert not inbox.deliver_nowait()
    inbox.close()

    assert [await inbox.receive() for _ in range(5)] == [message(number) for number in range(5)]
    with pytest.raises(trio.EndOfChannel):
        await inbox.receive()


async def test_closing_ends_the_waiting_for_room_and_each_message_comes_once() -> None:
    """Also the one that room has just been made for."""
    inbox = Inbox(1)
    for number in range(3):
        inbox.put(message(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.deliver, trio.current_time() + 5)
        await trio.testing.wait_all_tasks_blocked()
        first = await inbox.receive()
        inbox.close()

    assert [first, await inbox.receive(), await inbox.receive()] == [message(number) for number in range(3)]


async def test_a_cancelled_delivery_loses_nothing() -> None:
    inbox = Inbox(1)
    for number in range(3):
        inbox.put(message(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.deliver, trio.current_time() + 5)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    for number in range(3):
        inbox.deliver_nowait()
        assert await inbox.receive() == message(number)
