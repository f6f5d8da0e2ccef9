"""MQTT packets cut out of a stream of bytes, by their fixed headers (MQTT 5, 2.1); nothing is known of their bodies.

Pure.
"""

from devicesim.net.failures import PacketError

MAX_PACKET = 1 << 20
"""Largest packet taken from a server, in bytes. AWS's payloads end at 128 KiB (aws-iot-behaviour.md 5); MQTT's own
limit of 256 MiB would let one hostile server take the memory of the whole fleet."""

_MAX_LENGTH_BYTES = 4
"""Of the remaining length (MQTT 5, 1.5.5)."""
_PREVIEW_BYTES = 24
_NAMES = (
    *("RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP"),
    *("SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"),
)
"""By packet type (MQTT 5, 2.1.2)."""


class PacketSplitter:
    """Cuts a stream of bytes into whole packets. However the stream is cut up, the packets are the same."""

    __slots__ = ("_buffer", "_limit", "_start")

    def __init__(self, limit: int = MAX_PACKET) -> None:
        self._limit = limit
        self._buffer: bytes | bytearray = b""
        self._start = 0

    def feed(self, data: bytes) -> None:
        if self._start == len(self._buffer):
            self._buffer = data
        else:
            rest = bytearray(self._buffer) if isinstance(self._buffer, bytes) else self._buffer
            del rest[: self._start]
            rest += data
            self._buffer = rest
        self._start = 0

    def next_kind(self) -> int | None:
        """The type of the next packet, as soon as its first byte is there."""
        return self._buffer[self._start] >> 4 if self._start < len(self._buffer) else None

    def next_packet(self) -> bytes | None:
        """The next whole packet, or ``None`` until more is fed. Raises :class:`PacketError` for what is no packet."""
        buffer, start = self._buffer, self._start
        length = 0
        for position in range(start + 1, start + 1 + _MAX_LENGTH_BYTES):
            if position >= len(buffer):
                return None
            byte = buffer[position]
            length |= (byte & 0x7F) << 7 * (position - start - 1)
            if byte < 0x80:
                break
        else:
            raise PacketError(f"{self.preview()} has a remaining length of more than {_MAX_LENGTH_BYTES} bytes")
        end = position + 1 + length
        if end - start > self._limit:
            raise PacketError(f"{self.preview()} is of {end - start} bytes; at most {self._limit} are taken")
        if end > len(buffer):
            return None
        packet = bytes(buffer[start:end])
        self._start = end
        if end == len(buffer):
            self._buffer, self._start = b"", 0
        return packet

    def preview(self) -> str:
        """The first bytes that are not yet cut off, for a message."""
        return preview(self._buffer[self._start : self._start + _PREVIEW_BYTES])


def remaining_length(length: int) -> bytes:
    """A length as a packet's fixed header says it (MQTT 5, 1.5.5)."""
    lengths = bytearray()
    while True:
        length, low = length >> 7, length & 0x7F
        lengths.append(low | 0x80 if length else low)
        if not length:
            return bytes(lengths)


def body_start(packet: bytes) -> int:
    """Where a whole packet's fixed header is over."""
    return next(at for at in range(1, len(packet)) if packet[at] < 0x80) + 1


def preview(packet: bytes | bytearray) -> str:
    """The first bytes of a packet, for a message."""
    return f"{_NAMES[packet[0] >> 4]} packet {bytes(packet[:_PREVIEW_BYTES])!r}"
