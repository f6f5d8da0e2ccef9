"""What somebody who watches a connection is told, while it comes about: the hooks of ``net``, all of them.

A fleet's connections are not watched: each hook costs them a comparison with ``None``, once. :mod:`devicesim.net.probe`
is the one that watches.
"""

import socket
from typing import Protocol

from OpenSSL import crypto

from devicesim.net.engine import Engine, Version
from devicesim.net.stream import TLSConnection
from devicesim.outcome import Alert


class Watcher(Protocol):
    """Stands in for the dialling and the engine of a watched context's connection, and is told of the rest.

    All but :meth:`dial` and :meth:`engine` may be called by OpenSSL from inside the handshake: they neither wait nor
    raise.
    """

    async def dial(self, host: str, port: int, source: str | None) -> socket.socket:
        """In place of :func:`devicesim.net.tcp.dial`, of which it has contract and deadline."""
        ...

    def handshake(self, state: str) -> None:
        """The handshake came one step on; ``state`` in OpenSSL's words (SSL_state_string_long)."""
        ...

    def server(
        self, presented: tuple[crypto.X509, ...], chain_refusal: Exception | None, name_refusal: Exception | None
    ) -> None:
        """The server's certificates as it sent them, the leaf first; why their chain, and the leaf's name, is refused.

        Called once, for refused ones too."""
        ...

    def alert(self, alert: Alert) -> None:
        """An alert, of either direction and any level; not close_notify."""
        ...

    def secured(self, connection: TLSConnection) -> None:
        """The handshake is done."""
        ...

    def engine(self, client_id: str, *, version: Version, clean_start: bool) -> Engine:
        """In place of :class:`devicesim.net.engine.Engine`, of which it gives one."""
        ...
