"""What a connected device publishes: so much, so often, to its topic. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """One device's messages."""

    topic: str
    every: float
    """Seconds from one to the next."""
    offset: float
    """Seconds from CONNACK to the first, so that devices that connected together do not publish together."""
    qos: int
    """0 or 1."""
    size: int
    """Bytes of a payload, at least."""

    def payload(self, number: int, at: float) -> bytes:
        """Message ``number`` of a connection, from 1, at ``at`` seconds since the Unix epoch: JSON, filled up with
        spaces."""
        # as json.dumps writes it, in a quarter of the time
        return f'{{"message":{number},"at":{round(at, 3)!r}}}'.encode("ascii").ljust(self.size)

    def next_due(self, due: float) -> float:
        """When the message after that of ``due`` is due, however late that one was: a server that is slow to
        acknowledge does not slow the load down, it is sent what it missed as soon as it answers."""
        return due + self.every
