"""How many QoS 1 messages the server takes at once: MQTT 5's Receive Maximum, one slot each."""

import trio


class Window:
    """Slots, each held from a message's sending to its PUBACK."""

    __slots__ = ("_holders", "_slots")

    def __init__(self, size: int) -> None:
        self._slots = trio.Semaphore(size)
        self._holders: set[int] = set()

    def has_room(self) -> bool:
        """Whether :meth:`acquire` returns at once."""
        return self._slots.value > 0

    async def acquire(self) -> None:
        await self._slots.acquire()

    def hold(self, packet_id: int) -> None:
        """The slot acquired is this message's."""
        self._holders.add(packet_id)

    def release(self) -> None:
        """The slot acquired is not needed: nothing was sent."""
        self._slots.release()

    def answered(self, packet_id: int) -> None:
        if packet_id in self._holders:
            self._holders.remove(packet_id)
            self._slots.release()

    def open(self) -> None:
        """Let everybody through who waits: the connection is over, which they find out next."""
        for _ in range(self._slots.statistics().tasks_waiting):
            self._slots.release()
