"""PUBLISH and SUBSCRIBE packets that wait for their answer, by packet id."""

import trio

from devicesim.net.engine import Answer


class _Request:
    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Answer | None = None


class Requests:
    """All of one connection."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[int, _Request] | None = None

    def __len__(self) -> int:
        return len(self._waiting) if self._waiting else 0

    def add(self, packet_id: int) -> None:
        """It was sent; :meth:`answer` is to follow."""
        if self._waiting is None:
            self._waiting = {}
        self._waiting[packet_id] = _Request()

    async def answer(self, packet_id: int) -> Answer | None:
        """Wait for the answer; ``None`` when the connection ended first."""
        assert self._waiting is not None
        request = self._waiting[packet_id]
        await request.done.wait()
        return request.answer

    def is_done(self, packet_id: int) -> bool:
        assert self._waiting is not None
        return self._waiting[packet_id].done.is_set()

    def forget(self, packet_id: int) -> None:
        """Nobody waits for it any more."""
        assert self._waiting is not None
        del self._waiting[packet_id]

    def answered(self, answer: Answer) -> None:
        request = self._waiting.get(answer.packet_id) if self._waiting else None
        if request is not None:
            request.answer = answer
            request.done.set()

    def end(self) -> None:
        """No more answers come."""
        for request in self._waiting.values() if self._waiting else ():
            request.done.set()
