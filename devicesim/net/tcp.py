"""TCP underneath: a connected, non-blocking socket, and how to close one without losing what was just written."""

import contextlib
import errno
import os
import socket
from functools import lru_cache

import trio

_DISCARD_BYTES = 16_384


async def dial(host: str, port: int, source: str | None = None) -> socket.socket:
    """A connected, non-blocking socket. Raises ``OSError``.

    ``source`` is the local IP address to dial from; ``None`` leaves it to the kernel. Each address has its own ports to
    a target, some 28,000 by Linux's default (net.ipv4.ip_local_port_range).

    An address is dialled here, at half the cost of :func:`trio.open_tcp_stream`; a name by that one, which tries all of
    the name's addresses (RFC 8305). Nothing is awaited where the connection is there at once, as it is on loopback.
    """
    family = literal_family(host)
    if family is None:
        stream = await trio.open_tcp_stream(host, port, local_address=source)
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        return sock
    sock = socket.socket(family, socket.SOCK_STREAM)
    done = False
    try:
        sock.setblocking(False)
        # small packets, each awaited by the other side
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            _bind(sock, source)
        code = sock.connect_ex((host, port))
        if code == errno.EINPROGRESS:
            if _is_connected(sock):
                code = 0
            else:
                await trio.lowlevel.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0 and is_connected_to_itself(sock):
            code = errno.ECONNREFUSED
        if code == errno.EADDRNOTAVAIL:
            raise OSError(code, f"no local port is left for {host}:{port}" + (f" at {source}" if source else ""))
        if code != 0:
            raise OSError(code, os.strerror(code))
        done = True
    finally:
        if not done:
            sock.close()
    return sock


def _bind(sock: socket.socket, source: str) -> None:
    """The port is left to ``connect``: one that is chosen here would be for this socket alone, whatever its target."""
    if hasattr(socket, "IP_BIND_ADDRESS_NO_PORT"):
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
    if literal_family(source) != sock.family:
        raise OSError(errno.EAFNOSUPPORT, f"source {source} is of another family than the address dialled")
    try:
        sock.bind((source, 0))
    except OSError as exc:
        if exc.errno == errno.EADDRNOTAVAIL:
            raise OSError(exc.errno, f"source {source} is no address of this machine") from exc
        raise


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def is_connected_to_itself(sock: socket.socket) -> bool:
    """Whether TCP's simultaneous open has joined the socket to itself.

    It happens on loopback when nobody listens on an ephemeral port and the kernel hands that very port to the client:
    seen soon enough by a fleet that dials an emulator which is gone. Go's ``net`` package guards against it too.
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False  # reset already: the first read will tell


def close_after_alert(sock: socket.socket) -> None:
    """Close so that an alert just written arrives. Does not wait.

    Bytes that lie unread turn a close into a reset, which may overtake the alert; so they are read first.
    """
    shut_down_writing(sock)
    with contextlib.suppress(OSError):  # no more to read now, or the connection is gone: it is closed next either way
        while sock.recv(_DISCARD_BYTES):
            pass
    sock.close()


def shut_down_writing(sock: socket.socket) -> None:
    """Send FIN, if there is still somebody to send it to."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


@lru_cache(maxsize=1024)
def literal_family(host: str) -> socket.AddressFamily | None:
    """Of an IP address; ``None`` for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return family
    return None
