"""The emulator's time: a clock for people and one for deadlines, which can be put forward together. Pure.

What a test of expiry or of a slow quota needs is that the service's time leaps: ``advance`` is seen by everything that
is decided from the time of day or waits for a deadline of the service. The network's own time does not leap with it
(:meth:`~devicesim.emulator.dataplane.DataPlane.advance`).
"""

from collections.abc import Callable


class Clock:
    """Two sources of time, and how far they have been put forward."""

    def __init__(self, *, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """``wall`` answers seconds since the Unix epoch, ``monotonic`` seconds that never go back."""
        self._wall = wall
        self._monotonic = monotonic
        self.advanced = 0.0
        """Seconds by which both have been put forward."""

    def wall(self) -> float:
        """The time of day, in seconds since the Unix epoch: for records and validity."""
        return self._wall() + self.advanced

    def now(self) -> float:
        """Seconds that never go back: for deadlines."""
        return self._monotonic() + self.advanced

    def advance(self, seconds: float) -> None:
        """Put both forward; ``ValueError`` for a time that is not ahead."""
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"the clock cannot be advanced by {seconds} s, must be a number of at least 0")
        self.advanced += seconds
