"""MQTT's keep-alive on the device's side (MQTT 5, 3.1.2.10): when to send PINGREQ, and when its PINGRESP is late.

Pure: every time is an argument, in seconds of one monotonic clock.
"""

from math import inf


class KeepAlive:
    """One connection's keep-alive."""

    __slots__ = ("_interval", "_last_sent", "_patience", "_pong_by")

    def __init__(self, interval: float, patience: float, now: float) -> None:
        """``interval`` seconds between two packets of ours, 0 for no pings; ``patience`` from PINGREQ to PINGRESP."""
        self._interval = interval or inf
        self._patience = patience
        self._last_sent = now
        self._pong_by = inf
        """When the PINGRESP that is awaited is late; ``inf`` while none is."""

    @property
    def ping_at(self) -> float:
        """When PINGREQ is to be sent if nothing else is."""
        return self._last_sent + self._interval

    @property
    def deadline(self) -> float:
        """When to look here again at the latest."""
        return min(self.ping_at, self._pong_by)

    def sent(self, now: float) -> None:
        """A packet of any kind went out."""
        self._last_sent = now

    def pinged(self, now: float) -> None:
        """A PINGREQ went out. The first that is not answered counts."""
        self._last_sent = now
        self._pong_by = min(self._pong_by, now + self._patience)

    def ponged(self) -> None:
        self._pong_by = inf

    def excuse(self, now: float) -> None:
        """Nothing has been read until now: an answer could not be seen, and its lateness is not the server's."""
        if self._pong_by is not inf:
            self._pong_by = now + self._patience

    def is_late(self, now: float) -> bool:
        return now >= self._pong_by
