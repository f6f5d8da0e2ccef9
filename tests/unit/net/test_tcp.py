"""Sockets that are not what they seem."""

import errno
import resource
import socket

import pytest
import trio

from devicesim.net import tcp
from devicesim.net.failures import failure_from
from devicesim.outcome import FailureKind, Stage


def test_a_socket_that_is_connected_to_itself_is_noticed() -> None:
    """TCP's simultaneous open: dialling one's own port on loopback succeeds."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())

        assert tcp.is_connected_to_itself(sock)


def test_a_socket_that_is_connected_to_another_is_not() -> None:
    with socket.socket() as listener, socket.socket() as sock:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sock.connect(listener.getsockname())

        assert not tcp.is_connected_to_itself(sock)


def test_a_socket_that_is_not_connected_is_not() -> None:
    with socket.socket() as sock:
        assert not tcp.is_connected_to_itself(sock)


async def test_ipv6_is_dialled() -> None:
    try:
        listeners = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with listeners[0]:
        sock = await tcp.dial("::1", listeners[0].socket.getsockname()[1])
        with sock:
            assert sock.family == socket.AF_INET6
            assert sock.gettimeout() == 0


async def test_packets_are_not_held_back() -> None:
    async with (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] as listener:
        port = listener.socket.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            with await tcp.dial(host, port) as sock:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                assert not sock.getblocking()


async def test_running_out_of_descriptors_is_this_machines_lack() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] as listener:
        port = listener.socket.getsockname()[1]
        with socket.socket() as probe:
            lowest_free = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            with pytest.raises(OSError) as caught:
                await tcp.dial("127.0.0.1", port)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert failure_from(caught.value, Stage.TCP).kind is FailureKind.LOCAL_RESOURCES


async def test_a_source_leaves_its_ports_to_other_targets() -> None:
    """The port is chosen by connect, which knows the target; one chosen by bind would be taken for all of them."""
    async with (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] as listener:
        port = listener.socket.getsockname()[1]
        with await tcp.dial("127.0.0.1", port, "127.0.0.9") as sock:
            assert sock.getsockname()[0] == "127.0.0.9"
            assert sock.getsockname()[1] != 0
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT) == 1


async def test_running_out_of_ports_is_this_machines_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoPortLeft(socket.socket):
        def connect_ex(self, address: object, /) -> int:
            return errno.EADDRNOTAVAIL

    monkeypatch.setattr(socket, "socket", NoPortLeft)
    for source, where in ((None, ""), ("127.0.0.9", " at 127.0.0.9")):
        with pytest.raises(OSError) as caught:
            await tcp.dial("127.0.0.1", 8883, source)

        failure = failure_from(caught.value, Stage.TCP)
        assert failure.kind is FailureKind.LOCAL_RESOURCES
        assert failure.detail == f"no local port is left for 127.0.0.1:8883{where} (EADDRNOTAVAIL)"


async def test_a_source_of_another_family_is_told_as_such() -> None:
    with pytest.raises(OSError, match="source ::1 is of another family than the address dialled"):
        await tcp.dial("127.0.0.1", 1, "::1")


def test_closing_after_an_alert_lets_the_other_side_read_it() -> None:
    """Bytes that lie unread would turn the close into a reset."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        with far:
            far.sendall(b"x" * 100_000)
            near.setblocking(False)
            near.send(b"alert")
            tcp.close_after_alert(near)
            far.settimeout(5)

            assert far.recv(100) == b"alert"
            assert far.recv(100) == b""


def test_closing_what_is_not_connected_is_quiet() -> None:
    sock = socket.socket()
    sock.setblocking(False)

    tcp.close_after_alert(sock)

    assert sock.fileno() == -1
