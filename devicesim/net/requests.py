"""PUBLISH and SUBSCRIBE packets that wait for their answer, by packet id."""

import trio

from devicesim.net.engine import Answer


class Requests:
    """All of one connection."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[int, Answer | trio.Event | None] | None = None
        """The answer once it is there; until then what wakes who waits for it, if somebody sleeps."""

    def __len__(self) -> int:
        return len(self._waiting) if self._waiting else 0

    def add(self, packet_id: int) -> None:
        """It was sent; :meth:`forget` is to follow."""
        if self._waiting is None:
            self._waiting = {}
        self._waiting[packet_id] = None

    def answer(self, packet_id: int) -> Answer | None:
        """The answer, if it is there."""
        assert self._waiting is not None
        found = self._waiting[packet_id]
        return found if isinstance(found, Answer) else None

    async def wait(self, packet_id: int) -> None:
        """Wait for the answer, or for the connection's end."""
        assert self._waiting is not None
        if self._waiting[packet_id] is None:
            event = self._waiting[packet_id] = trio.Event()
            await event.wait()

    def forget(self, packet_id: int) -> None:
        """Nobody waits for it any more."""
        assert self._waiting is not None
        del self._waiting[packet_id]
        if not self._waiting:
            self._waiting = None

    def answered(self, answer: Answer) -> None:
        if self._waiting and answer.packet_id in self._waiting:
            before = self._waiting[answer.packet_id]
            self._waiting[answer.packet_id] = answer
            if isinstance(before, trio.Event):
                before.set()

    def end(self) -> None:
        """No more answers come."""
        for each in self._waiting.values() if self._waiting else ():
            if isinstance(each, trio.Event):
                each.set()
