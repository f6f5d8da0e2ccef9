"""Messages between the task that reads them and those that receive them, of bounded number."""

import trio

from devicesim.net.engine import Message

_Channel = tuple[trio.MemorySendChannel[Message], trio.MemoryReceiveChannel[Message]]


class Inbox:
    """A memory channel, made when it is first needed: most idle devices never receive anything."""

    __slots__ = ("_arrived", "_capacity", "_channel", "_closed")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._arrived: list[Message] = []
        """Taken from the connection, not yet in the channel: what one bout of reading brought, at most."""
        self._channel: _Channel | None = None
        self._closed = False

    def put(self, message: Message) -> None:
        """Take a message; :meth:`deliver` is to follow before more is read."""
        self._arrived.append(message)

    async def deliver(self, until: float) -> bool:
        """Make room for all that was put; ``False`` when there was none until then. Waits only when it is full."""
        while self._arrived:
            sending = self._open()[0]
            try:
                sending.send_nowait(self._arrived[0])
            except trio.WouldBlock:
                with trio.CancelScope(deadline=until) as scope:
                    await sending.send(self._arrived[0])
                if scope.cancelled_caught:
                    return False
            self._arrived.pop(0)
        return True

    async def receive(self) -> Message:
        """The next message, or :class:`trio.EndOfChannel` when no more can come."""
        return await self._open()[1].receive()

    def holds_some(self) -> bool:
        """Whether :meth:`receive` returns at once."""
        return self._channel is not None and self._channel[0].statistics().current_buffer_used > 0

    def close(self) -> None:
        """No more can come. What is in the channel can still be received."""
        self._closed = True
        if self._channel is not None:
            self._channel[0].close()

    def _open(self) -> _Channel:
        if self._channel is None:
            self._channel = trio.open_memory_channel[Message](self._capacity)
            if self._closed:
                self._channel[0].close()
        return self._channel
