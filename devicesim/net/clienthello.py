"""What a ClientHello says, read off the bytes that went out (RFC 8446, 4.1.2). Pure."""

from dataclasses import dataclass

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_RANDOM_BYTES = 32
_SERVER_NAME, _SUPPORTED_GROUPS, _ALPN, _SUPPORTED_VERSIONS = 0, 10, 16, 43
_HOST_NAME = 0

VERSIONS = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
GROUPS = {
    23: "secp256r1",
    24: "secp384r1",
    25: "secp521r1",
    29: "x25519",
    30: "x448",
    41: "curveSM2",
    256: "ffdhe2048",
    257: "ffdhe3072",
    4587: "SecP256r1MLKEM768",
    4588: "X25519MLKEM768",
    4589: "SecP384r1MLKEM1024",
    4590: "curveSM2MLKEM768",
}
"""IANA's TLS Supported Groups registry, as far as OpenSSL offers them by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What the client offered."""

    server_name: str | None
    """``None``: no server_name extension."""
    alpn: tuple[str, ...]
    """In the order sent; empty: no extension."""
    versions: tuple[str, ...]
    """In the order sent: ``TLSv1.3``, ``TLSv1.2``."""
    groups: tuple[str, ...]
    """Key-exchange groups by IANA's names, in the order sent."""
    cipher_suites: int
    """How many."""


def read_client_hello(sent: bytes) -> ClientHello | None:
    """The ClientHello at the start of what a client sent, or ``None`` while it is not whole.

    ``ValueError`` for what is none.
    """
    message, at = b"", 0
    while len(message) < _MESSAGE_HEADER or len(message) < _MESSAGE_HEADER + int.from_bytes(message[1:4], "big"):
        head = sent[at : at + _RECORD_HEADER]
        if head and head[0] != _HANDSHAKE:
            raise ValueError(f"TLS record of type {head[0]} where a ClientHello must stand")
        end = at + _RECORD_HEADER + int.from_bytes(head[3:5], "big")
        if len(head) < _RECORD_HEADER or len(sent) < end:
            return None
        message += sent[at + _RECORD_HEADER : end]
        at = end
    if message[0] != _CLIENT_HELLO:
        raise ValueError(f"handshake message of type {message[0]} where a ClientHello must stand")
    return _parse(_Reader(message[_MESSAGE_HEADER:]))


def _parse(body: "_Reader") -> ClientHello:
    legacy_version = body.number(2)
    body.take(_RANDOM_BYTES)
    body.vector(1)  # session id
    suites = body.vector(2)
    body.vector(1)  # compression methods
    extensions: dict[int, _Reader] = {}
    block = body.vector(2) if body else _Reader(b"")
    while block:
        kind = block.number(2)
        extensions[kind] = block.vector(2)
    versions = extensions.get(_SUPPORTED_VERSIONS)
    groups = extensions.get(_SUPPORTED_GROUPS)
    return ClientHello(
        server_name=_server_name(extensions.get(_SERVER_NAME)),
        alpn=_alpn(extensions.get(_ALPN)),
        versions=_named([legacy_version] if versions is None else versions.vector(1).numbers(2), VERSIONS),
        groups=_named([] if groups is None else groups.vector(2).numbers(2), GROUPS),
        cipher_suites=len(suites.numbers(2)),
    )


def _server_name(extension: "_Reader | None") -> str | None:
    if extension is None:
        return None
    names = extension.vector(2)
    while names:
        kind = names.number(1)
        name = names.vector(2).rest()
        if kind == _HOST_NAME:
            return name.decode("ascii", "backslashreplace")
    return None


def _alpn(extension: "_Reader | None") -> tuple[str, ...]:
    if extension is None:
        return ()
    protocols, found = extension.vector(2), []
    while protocols:
        found.append(protocols.vector(1).rest().decode("ascii", "backslashreplace"))
    return tuple(found)


def _named(numbers: list[int], names: dict[int, str]) -> tuple[str, ...]:
    return tuple(names.get(each, f"0x{each:04x}") for each in numbers)


class _Reader:
    """Bytes to be read from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError(f"ClientHello ends {count - len(self._data) + self._at} bytes too soon")
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def numbers(self, size: int) -> list[int]:
        found = []
        while self:
            found.append(self.number(size))
        return found

    def vector(self, size: int) -> "_Reader":
        """A vector whose length stands before it in ``size`` bytes."""
        return _Reader(self.take(self.number(size)))
