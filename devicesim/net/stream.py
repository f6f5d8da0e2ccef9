"""A TLS connection: OpenSSL's state machine on one side, a non-blocking socket on the other, trio to wait with."""

import contextlib
import socket
from collections.abc import Awaitable, Callable

import trio
from OpenSSL import SSL

from devicesim.net import openssl, tcp
from devicesim.net.failures import EndOfStreamError

RECORD_BYTES = 16_384
"""Largest plaintext of one TLS record (RFC 8446, 5.1)."""
_RAW_BYTES = RECORD_BYTES + 5 + 256
"""The record with its header and the most that encryption adds (RFC 8446, 5.2)."""


class TLSConnection:
    """A TLS connection, established and verified once :func:`devicesim.net.tls.open_tls` gives it out.

    OpenSSL works on buffers in memory and the socket is ours, because OpenSSL is done for after a write that fails: the
    server's alert, which lies in the socket at that moment where a refusal met our CONNECT half-way, could no longer be
    decrypted. (Nor does pyOpenSSL empty OpenSSL's error queue then: the next connection would be taken to have failed.)

    Reading and writing never block; waiting is separate. They raise the exceptions of OpenSSL and of the socket as they
    are, for only the caller knows the stage at which to tell them. One task at a time may wait in either direction.
    """

    __slots__ = ("_broken", "_closed", "_dry", "_emptied", "_held", "_let_go", "_socket", "_ssl", "_unsent")

    def __init__(
        self, connection: SSL.Connection, sock: socket.socket, let_go: Callable[[SSL.Connection], None] | None = None
    ) -> None:
        """``let_go`` is called by :meth:`settle`, once, if at all."""
        self._ssl = connection
        self._let_go = let_go
        self._socket = sock
        self._unsent = b""
        """Ciphertext that the socket did not take yet."""
        self._held = False
        """There may be more of it in OpenSSL's buffer: some was held back for what comes next."""
        self._dry = False
        """OpenSSL has used up what it was given, and has nothing more to tell."""
        self._emptied = False
        """The last read took all that the socket had. It need not be asked again before it has been waited for."""
        self._broken = False
        """OpenSSL has given the connection up: no close_notify any more."""
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "broken" if self._broken else "open"
        return f"<TLSConnection {state}>"

    @property
    def version(self) -> str:
        """``TLSv1.2`` or ``TLSv1.3``."""
        return self._ssl.get_protocol_version_name()

    @property
    def cipher(self) -> str | None:
        """The cipher suite agreed on, in OpenSSL's words."""
        return self._ssl.get_cipher_name()

    @property
    def alpn_protocol(self) -> str | None:
        """The protocol that the server picked, or ``None``."""
        return self._ssl.get_alpn_proto_negotiated().decode("ascii") or None

    @property
    def group(self) -> str | None:
        """The key-exchange group agreed on, in OpenSSL's words."""
        return self._ssl.get_group_name()

    def receive_nowait(self) -> bytes:
        """At least one byte, or :class:`trio.WouldBlock`.

        Read until that before waiting: what lies in OpenSSL's buffers does not make the socket readable. The end
        raises ``SSL.ZeroReturnError`` (close_notify) or :class:`EndOfStreamError` (without one).
        """
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            if self._dry:
                if self._emptied:
                    self._emptied = False
                    raise trio.WouldBlock
                try:
                    self._fill()
                except BlockingIOError:
                    raise trio.WouldBlock from None
            try:
                data: bytes = self._ssl.recv(RECORD_BYTES)
            except SSL.WantReadError:
                self._dry = True
            except SSL.ZeroReturnError:
                raise
            except SSL.Error:
                self._give_up()
                raise
            else:
                return data

    def send_nowait(self, data: bytes | bytearray, *, more: bool = False) -> int:
        """How many bytes were taken, at least one, or :class:`trio.WouldBlock`. They may need :meth:`flush_nowait`.

        With ``more`` to come they do: what comes next goes out in one segment with them.
        """
        if self._unsent:
            self.flush_nowait()
        elif self._closed:
            raise trio.ClosedResourceError
        try:
            taken = self._ssl.send(data)
        except SSL.Error:
            self._give_up()
            raise
        if more:
            self._held = True
        else:
            with contextlib.suppress(trio.WouldBlock):
                self._push()
        return taken

    def flush_nowait(self) -> None:
        """Write what was taken and is not yet in the socket's buffer, or raise :class:`trio.WouldBlock`."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._unsent or self._held:
            self._push()

    def settle(self) -> bool:
        """Give back what only the handshake needed, some 7 KB; whether that could be done now.

        For a connection that is going to last: the handshake is over, and nothing lies in the buffers between OpenSSL
        and the socket.
        """
        if not self._dry or self._broken or self._closed:
            return False
        try:
            # OpenSSL may have something to say by itself, a key update's answer say
            self._push()
        except (trio.WouldBlock, OSError):
            return False  # the next write meets it again
        openssl.shrink_buffers(self._ssl)
        if self._let_go is not None:
            self._let_go(self._ssl)
            self._let_go = None
        return True

    def wait_readable(self) -> Awaitable[None]:
        """To be awaited. No coroutine of its own: it would be a frame for each connection that waits."""
        if self._closed:
            raise trio.ClosedResourceError
        return trio.lowlevel.wait_readable(self._socket)  # noqa: ASYNC105  # by the caller

    async def wait_writable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_writable(self._socket)

    async def aclose(self, linger: float = 0.0) -> None:
        """Send close_notify and FIN, wait up to ``linger`` seconds for the server's end, close. Always closes.

        The waiting is what makes it orderly: a close while the server still sends turns into a reset, which may destroy
        what the server has not read yet. What was left unsent, as ``more`` or for want of room, goes before.
        """
        if self._closed:
            return
        try:
            if linger > 0 and not self._broken:
                with trio.move_on_after(linger), contextlib.suppress(SSL.Error, OSError, EndOfStreamError):
                    self._notify()
                    await self._push_all()
                    tcp.shut_down_writing(self._socket)
                    await self._until_end()
            else:
                self.end_sending()
        finally:
            self.close()

    def end_sending(self) -> None:
        """Send close_notify and FIN as far as that goes without waiting."""
        if self._closed:
            return
        if not self._broken:
            with contextlib.suppress(OSError, trio.WouldBlock):
                self._notify()
                self._push()
        tcp.shut_down_writing(self._socket)

    def _notify(self) -> None:
        with contextlib.suppress(SSL.Error):
            self._ssl.shutdown()

    def close(self) -> None:
        """Close the socket now. May be called again."""
        if self._closed:
            return
        self._closed = True
        trio.lowlevel.notify_closing(self._socket)
        if self._broken:
            tcp.close_after_alert(self._socket)
        else:
            self._socket.close()

    async def handshake(self, *, more: bool = False) -> None:
        """Complete the handshake; :func:`devicesim.net.tls.open_tls` has done so.

        With ``more`` to come at once, our last flight of TLS 1.3 goes out in one segment with it: on loopback a system
        call that sends is a tenth of all that a connection costs.
        """
        while True:
            try:
                self._ssl.do_handshake()
                done = True
            except SSL.WantReadError:
                done = False
            except SSL.Error:
                self._give_up()
                raise
            if done and more:
                self._held = True
                return
            try:
                await self._push_all()
            except OSError:
                self._hear_last_words()
                raise
            if done:
                return
            await self.wait_readable()
            with contextlib.suppress(BlockingIOError):
                self._fill()

    def _fill(self) -> None:
        """Take ciphertext from the socket. Raises ``OSError``, among them ``BlockingIOError``."""
        data = self._socket.recv(_RAW_BYTES)
        if not data:
            raise EndOfStreamError
        self._ssl.bio_write(data)
        self._dry = False
        self._emptied = len(data) < _RAW_BYTES

    def _push(self) -> None:
        """Give the socket all ciphertext that there is, or raise :class:`trio.WouldBlock` or ``OSError``."""
        last = False
        while True:
            if not self._unsent:
                if not last:
                    with contextlib.suppress(SSL.WantReadError):
                        self._unsent = self._ssl.bio_read(_RAW_BYTES)
                if not self._unsent:
                    self._held = False
                    return
                last = len(self._unsent) < _RAW_BYTES
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                raise trio.WouldBlock from None
            except OSError:
                # what the server said before it hung up lies there now, if it said something
                self._emptied = False
                raise
            self._unsent = self._unsent[sent:]

    async def _push_all(self) -> None:
        while True:
            try:
                self._push()
            except trio.WouldBlock:
                await self.wait_writable()
            else:
                return

    def _give_up(self) -> None:
        """After a fatal error of OpenSSL: let its alert out."""
        self._broken = True
        self._emptied = False
        with contextlib.suppress(OSError, trio.WouldBlock):
            self._push()

    def _hear_last_words(self) -> None:
        """After a failed write in the handshake: raise what the server said before it hung up, if it said why."""
        with contextlib.suppress(OSError, EndOfStreamError):
            while True:
                self._fill()
        with contextlib.suppress(SSL.WantReadError):
            self._ssl.do_handshake()

    async def _until_end(self) -> None:
        while True:
            try:
                self.receive_nowait()
            except trio.WouldBlock:
                await self.wait_readable()
            except (SSL.Error, OSError, EndOfStreamError):
                return
