"""Messages between the task that reads them and those that receive them, of bounded number."""

import trio

from devicesim.net.engine import Message

_Channel = tuple[trio.MemorySendChannel[Message], trio.MemoryReceiveChannel[Message]]


class Inbox:
    """A memory channel, made when it is first needed: most idle devices never receive anything."""

    __slots__ = ("_arrived", "_capacity", "_changed", "_channel", "_closed")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._arrived: list[Message] | None = None
        """Taken from the connection, not yet in the channel: what one bout of reading brought, at most."""
        self._channel: _Channel | None = None
        self._changed: trio.Event | None = None
        self._closed = False

    def put(self, message: Message) -> None:
        """Take a message; :meth:`deliver` is to follow before more is read."""
        if self._arrived is None:
            self._arrived = []
        self._arrived.append(message)

    def deliver_nowait(self) -> bool:
        """Make what was put receivable as far as there is room; whether that was all."""
        while self._arrived and not self._closed:
            try:
                self._open()[0].send_nowait(self._arrived[0])
            except trio.WouldBlock:
                return False
            self._arrived.pop(0)
        return True

    async def deliver(self, until: float) -> bool:
        """:meth:`deliver_nowait`, and wait for room; ``False`` when there was none until then."""
        while not self.deliver_nowait():
            self._changed = trio.Event()
            with trio.CancelScope(deadline=until) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                return False
        return True

    async def receive(self) -> Message:
        """The next message, or :class:`trio.EndOfChannel` when no more can come."""
        try:
            message = await self._open()[1].receive()
        except trio.EndOfChannel:
            if self._arrived:
                return self._arrived.pop(0)
            raise
        self._change()
        return message

    def holds_some(self) -> bool:
        """Whether :meth:`receive` returns at once."""
        return self._channel is not None and self._channel[0].statistics().current_buffer_used > 0

    def close(self) -> None:
        """No more can come. What was put can still be received, also what there was no room for."""
        self._closed = True
        if self._channel is not None:
            self._channel[0].close()
        self._change()

    def _change(self) -> None:
        """Wake :meth:`deliver`: there is room, or no need for it any more."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _open(self) -> _Channel:
        if self._channel is None:
            self._channel = trio.open_memory_channel[Message](self._capacity)
            if self._closed:
                self._channel[0].close()
        return self._channel
