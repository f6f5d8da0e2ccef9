"""What answers on the ALPN port when no protocol was chosen: HTTP, which sends the client away. Pure.

On port 443 without ALPN AWS speaks HTTPS and WebSocket (aws-iot-behaviour.md §4.3, D). Neither is emulated: a request
is answered with 403 as for one without credentials, and bytes that are no HTTP, such as an MQTT CONNECT, with 400.
Statuses and body: I.
"""

import re
from typing import Final

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request's head that are waited for."""
_REQUEST_LINE: Final = re.compile(rb"[A-Z]{1,20} \S+ HTTP/1\.[01]\r?\n")
_BEGINS_LIKE_ONE: Final = re.compile(rb"[A-Z]{1,20}( |\Z)")


class HTTPRefusal:
    """Reads a request's head and answers it."""

    __slots__ = ("_head", "request_line")

    def __init__(self) -> None:
        self._head = bytearray()
        self.request_line = ""
        """Of what was asked for, once it is known; empty when it was no HTTP."""

    def receive(self, data: bytes) -> bytes | None:
        """Bytes of the client; the answer when there is one, after which the connection is to be closed."""
        self._head += data[: MAX_HEAD + 1 - len(self._head)]
        end = self._head.find(b"\n")
        if end < 0:
            whole = len(self._head) > MAX_HEAD or not _BEGINS_LIKE_ONE.match(self._head)
            return _answer(400, "Bad Request", "BadRequestException") if whole else None
        if not _REQUEST_LINE.match(self._head):
            return _answer(400, "Bad Request", "BadRequestException")
        self.request_line = self._head[:end].decode("latin-1").strip()
        if b"\r\n\r\n" in self._head or b"\n\n" in self._head or len(self._head) > MAX_HEAD:
            return _answer(403, "Forbidden", "ForbiddenException")
        return None


def _answer(status: int, reason: str, error: str) -> bytes:
    body = b'{"message":"%s"}' % reason.encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-amzn-ErrorType: {error}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
