"""A socket that is none: what paho-mqtt reads from and writes to in place of one. Pure."""


class Wire:
    """What paho takes for its socket: one packet to read, and room for all that it writes. It never fails."""

    __slots__ = ("_inbound", "_position", "outbound")

    def __init__(self) -> None:
        self.outbound = bytearray()
        self._inbound = b""
        self._position = 0

    def put(self, packet: bytes) -> None:
        self._inbound, self._position = packet, 0

    def recv(self, buffer_size: int) -> bytes:
        start = self._position
        if start >= len(self._inbound):
            raise BlockingIOError
        self._position = start + buffer_size
        return self._inbound[start : start + buffer_size]

    def send(self, buffer: bytes | bytearray) -> int:
        self.outbound += buffer
        return len(buffer)

    def close(self) -> None:
        """paho closes its socket when it is done with a connection; the real one is closed elsewhere."""

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""
