"""What has to happen at a later time, in order of time; the clock is the caller's."""

import heapq
from collections.abc import Callable

_COMPACT_ABOVE = 64
"""Below this many cancelled timers the heap is not worth rebuilding."""


class Timer:
    """One call to come. Made by :meth:`Timers.schedule`."""

    __slots__ = ("_timers", "at", "call", "leaps")

    def __init__(self, at: float, call: Callable[[float], None], timers: "Timers", *, leaps: bool) -> None:
        self.at = at
        self.leaps = leaps
        self.call: Callable[[float], None] | None = call
        self._timers = timers

    def cancel(self) -> None:
        """Let go of the call; cancelling again, or after the call, does nothing."""
        if self.call is not None:
            self.call = None
            self._timers.cancelled()


class Timers:
    """A heap of calls. Cancelled ones are swept out before they outnumber the others, so that it does not grow."""

    __slots__ = ("_dead", "_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def schedule(self, at: float, call: Callable[[float], None], *, leaps: bool = True) -> Timer:
        """Call ``call(now)`` at ``at`` or as soon after it as :meth:`run` is called; equal times keep their order.

        ``leaps``: it is due the sooner when the clock is put forward. What is waited for from the network is not.
        """
        timer = Timer(at, call, self, leaps=leaps)
        self._sequence += 1
        heapq.heappush(self._heap, (at, self._sequence, timer))
        return timer

    def run(self, now: float) -> None:
        """Make every call that is due, among them those that these schedule for no later than ``now``."""
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            call, timer.call = timer.call, None
            if call is None:
                self._dead -= 1
            else:
                call(now)

    def advanced(self, seconds: float) -> None:
        """The clock was put forward: what does not leap with it is due as much later."""
        for _, _, timer in self._heap:
            if not timer.leaps:
                timer.at += seconds
        self._heap = [(timer.at, sequence, timer) for _, sequence, timer in self._heap]
        heapq.heapify(self._heap)

    def next(self) -> float:
        """When the next call is due; infinity when there is none."""
        while self._heap and self._heap[0][2].call is None:
            heapq.heappop(self._heap)
            self._dead -= 1
        return self._heap[0][0] if self._heap else float("inf")

    def cancelled(self) -> None:
        """For :class:`Timer` alone."""
        self._dead += 1
        if self._dead > _COMPACT_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._dead = 0
