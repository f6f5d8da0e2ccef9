"""Hostile input over real sockets: no crash, no growth, every connection a counted verdict.

The server runs in a process of its own (tests/hostile_server.py), whose memory and descriptors are read from outside.
"""

import contextlib
import json
import resource
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from devicesim.emulator import admission
from devicesim.emulator.encode import encode
from devicesim.emulator.packets import Connect, PingReq, ProtocolVersion, Publish, Subscribe, Subscription
from tests.hostile_support import (
    Server,
    authority,
    client,
    device,
    read_to_end,
    running_server,
    until,
)

V311, V5 = ProtocolVersion.V311, ProtocolVersion.V5
ALPN_MQTT = admission.ALPN_MQTT.encode()
RESET = struct.pack("ii", 1, 0)
GROWTH_MIB = 12.0
"""What the allocator may keep of the second wave; a leak of 10 KB a connection would be more."""
SECONDS = 1.0
"""Until a handshake and a CONNECT must be complete."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(
        tmp_path_factory.mktemp("hostile"), handshake_timeout=SECONDS, connect_timeout=SECONDS
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left(server: Server) -> Iterator[None]:
    """Whatever a test does, the server's descriptors come back to what they were."""
    until(lambda: server.fds() <= IDLE_FDS.setdefault(server.process.pid, server.fds()), "an idle server")
    before = server.fds()
    yield
    until(lambda: server.fds() <= before, f"the return to {before} descriptors")


IDLE_FDS: dict[int, int] = {}


def wait_for_verdicts(server: Server, count: int) -> None:
    until(lambda: server.decided() >= count, f"verdict number {count}")
    assert server.decided() == count, "a connection has been counted twice"


# --- bytes ------------------------------------------------------------------------------------------------------------

bytes_on_the_wire = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
DOORS = st.sampled_from(["mqtt", "mqtt_alpn"])


class TestBeforeTheHandshake:
    @bytes_on_the_wire
    @given(noise=st.binary(max_size=2000), door=DOORS)
    def test_random_bytes_are_closed_and_counted(self, server: Server, noise: bytes, door: str) -> None:
        before = server.decided()
        with server.tcp(server.door(door)) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(noise)
                sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
        wait_for_verdicts(server, before + 1)

    @pytest.mark.parametrize("how", ["fin", "reset"])
    def test_a_connection_that_goes_at_once(self, server: Server, how: str) -> None:
        before = server.decided()
        for _ in range(50):
            with server.tcp() as sock:
                if how == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        until(lambda: server.decided() == before + 50, "fifty verdicts")

    def test_a_client_that_trickles_has_no_more_time_than_others(self, server: Server) -> None:
        """A byte every 50 ms of a good ClientHello: cut at the deadline of the handshake."""
        hello = first_flight()
        before = server.decided()
        started = time.monotonic()
        with server.tcp() as sock, contextlib.suppress(ConnectionError):
            for byte in hello:
                sock.sendall(bytes((byte,)))
                time.sleep(0.05)
                if time.monotonic() - started > 4 * SECONDS:
                    break
            read_to_end(sock)
        wait_for_verdicts(server, before + 1)
        assert SECONDS * 0.9 < time.monotonic() - started < SECONDS + 4.0


def first_flight() -> bytes:
    """A ClientHello."""
    tls = client(device(0), "x.localhost", None)
    with contextlib.suppress(SSL.WantReadError):
        tls.do_handshake()
    return tls.bio_read(65_536)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]], int]:
    """Which flight of the client, (position, value) pairs, and how many bytes are cut off its end."""
    flight = draw(st.integers(0, 1))
    changes = draw(st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), max_size=4))
    return flight, changes, draw(st.sampled_from([0, 0, 0, 1, 7, 100]))


def mutated(data: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    out = bytearray(data)
    for position, value in changes:
        out[position % len(out)] = value
    return bytes(out[: max(len(out) - cut, 0)])


class TestInTheHandshake:
    @bytes_on_the_wire
    @given(mutation=mutations(), door=DOORS)
    def test_mutated_flights_are_closed_and_counted(
        self, server: Server, mutation: tuple[int, list[tuple[int, int]], int], door: str
    ) -> None:
        which, changes, cut = mutation
        before = server.decided()
        tls = client(device(0), server.endpoint, None, alpn=[ALPN_MQTT])
        with server.tcp(server.door(door)) as sock, contextlib.suppress(ConnectionError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 300_000))
            self._shake(tls, sock, which, changes, cut)
            sock.shutdown(socket.SHUT_WR)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 10, 0))
            read_to_end(sock)
        wait_for_verdicts(server, before + 1)

    def _shake(
        self, tls: SSL.Connection, sock: socket.socket, which: int, changes: list[tuple[int, int]], cut: int
    ) -> None:
        for flight in range(3):
            with contextlib.suppress(SSL.Error):
                tls.do_handshake()
            try:
                data = tls.bio_read(65_536)
            except SSL.WantReadError:
                return
            sock.sendall(mutated(data, changes, cut) if flight == which else data)
            if flight == which and cut:
                return
            try:
                answer = sock.recv(65_536)
            except BlockingIOError:
                return
            if not answer:
                return
            tls.bio_write(answer)

    def test_half_a_handshake_is_given_up_at_its_deadline(self, server: Server) -> None:
        before = server.decided()
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                sock = stack.enter_context(server.tcp())
                sock.sendall(first_flight())
            server.check_serves(device(0))
            wait_for_verdicts(server, before + 101)

    def test_a_chain_without_end_is_refused(self, server: Server) -> None:
        """More than OpenSSL's 100 KB of certificates."""
        chain: list[x509.Certificate] = [authority().certificate] * 400
        before = server.verdicts().get("handshake_failed", 0)
        with server.tcp() as sock, contextlib.suppress(SSL.Error):
            tls = client(device(0), server.endpoint, sock, chain)
            tls.do_handshake()
            tls.recv(1)
        until(lambda: server.verdicts().get("handshake_failed", 0) == before + 1, "a counted refusal")


def connect(version: ProtocolVersion, client_id: str = "fuzz") -> bytes:
    return encode(Connect(client_id=client_id, version=version, keep_alive=60), version)


def session(version: ProtocolVersion) -> bytes:
    """What follows CONNECT."""
    packets = (
        Subscribe(packet_id=1, subscriptions=(Subscription(topic_filter="a/+", qos=1),)),
        Publish(topic="a/b", payload=b"payload", qos=1, packet_id=2),
        PingReq(),
    )
    return b"".join(encode(packet, version) for packet in packets)


class TestAfterTheHandshake:
    @bytes_on_the_wire
    @given(noise=st.binary(min_size=1, max_size=600), door=DOORS, alpn=st.sampled_from([(), (ALPN_MQTT,)]))
    def test_random_bytes_instead_of_connect(
        self, server: Server, noise: bytes, door: str, alpn: tuple[bytes, ...]
    ) -> None:
        """On the ALPN door and without ALPN, what is garbled is HTTP."""
        before = server.decided()
        with server.tls(device(0), door, alpn) as tls, contextlib.suppress(SSL.Error):
            tls.send(noise)
            tls.shutdown()
            while tls.recv(65_536):
                pass
        wait_for_verdicts(server, before + 1)

    @bytes_on_the_wire
    @given(
        version=st.sampled_from([V311, V5]),
        connected=st.booleans(),
        changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4),
        cut=st.sampled_from([0, 0, 1, 5]),
    )
    def test_mutated_sessions(
        self, server: Server, version: ProtocolVersion, connected: bool, changes: list[tuple[int, int]], cut: int
    ) -> None:
        before = server.decided()
        with server.tls(device(0)) as tls, contextlib.suppress(SSL.Error):
            if connected:
                tls.send(connect(version))
                assert tls.recv(64)[0] == 0x20
                tls.send(mutated(session(version), changes, cut))
            else:
                tls.send(mutated(connect(version), changes, cut))
            tls.shutdown()
            while tls.recv(65_536):
                pass
        wait_for_verdicts(server, before + 1)

    def test_half_a_connect_is_given_up_at_its_deadline(self, server: Server) -> None:
        before = server.verdicts().get("no_connect", 0)
        with server.tls(device(0)) as tls:
            tls.send(connect(V311)[:5])
            with pytest.raises(SSL.ZeroReturnError):
                tls.recv(1)
        assert server.verdicts().get("no_connect", 0) == before + 1

    @pytest.mark.parametrize("version", [V311, V5])
    @pytest.mark.parametrize("connected", [False, True], ids=["instead of CONNECT", "after CONNECT"])
    @pytest.mark.parametrize(
        "header",
        [b"\x30\xff\xff\xff\x7f", b"\x30\xff\xff\xff\xff\x7f", b"\x10\xff\xff\xff\x7f\x00\x04MQTT"],
        ids=["256 MB", "a length of five bytes", "a giant CONNECT"],
    )
    def test_a_giant_packet_is_refused_by_its_length_and_not_waited_for(
        self, server: Server, version: ProtocolVersion, connected: bool, header: bytes
    ) -> None:
        memory = server.rss()
        with server.tls(device(0)) as tls:
            if connected:
                tls.send(connect(version, "giant"))
                assert tls.recv(64)[0] == 0x20
            started = time.monotonic()
            sent = 0
            with contextlib.suppress(SSL.Error):
                tls.send(header)
                while sent < 20 * 1024 * 1024:
                    sent += tls.send(b"x" * 16_384)
            assert sent < 20 * 1024 * 1024, "the server has read on"
            assert time.monotonic() - started < SECONDS + 4.0
        assert server.rss() - memory < GROWTH_MIB

    def test_a_flood_of_subscriptions_and_topics_is_bounded(self, server: Server) -> None:
        """Fifty subscriptions a connection, whatever is asked for (§5, D)."""
        with server.tls(device(0)) as tls:
            tls.send(connect(V311, "flood"))
            assert tls.recv(4) == b"\x20\x02\x00\x00"
            with contextlib.suppress(SSL.Error):
                for number in range(1, 200):
                    filters = tuple(Subscription(topic_filter=f"t/{number}/{each}", qos=0) for each in range(8))
                    tls.send(encode(Subscribe(packet_id=number, subscriptions=filters), V311))
            until(lambda: subscriptions(server) <= 50, "the limit of subscriptions")


def subscriptions(server: Server) -> int:
    status, body = server.request("admin", "GET", "/state")
    assert status == 200
    total: int = sum(account["counts"]["subscriptions"] for account in json.loads(body)["accounts"])
    return total


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_the_same_wave_again_costs_no_more_memory(server: Server) -> None:
    """Handshakes, noise, resets, pending devices, admitted ones: the second wave finds the room of the first."""

    def wave() -> None:
        for number in range(300):
            match number % 4:
                case 0:
                    with server.tcp() as sock:
                        sock.sendall(b"\x16\x03\x01\x00\xff" + bytes(200))
                case 1:
                    with server.tls(device(0)) as tls:
                        tls.send(b"\x00" * 50)
                case 2:
                    with server.tls(device(number)) as tls:
                        tls.send(connect(V5))
                case _:
                    with server.tls(device(0)) as tls:
                        tls.send(connect(V311))
                        assert tls.recv(4) == b"\x20\x02\x00\x00"
                        tls.send(session(V311))

    idle = server.fds()
    wave()
    until(lambda: server.fds() <= idle, "the end of the first wave")
    first = server.rss()
    wave()
    until(lambda: server.fds() <= idle, "the end of the second wave")
    assert server.rss() - first < GROWTH_MIB


@pytest.mark.slow
def test_ten_thousand_connections_without_connect_are_borne_and_given_up(tmp_path: Path) -> None:
    """As many as RLIMIT_NOFILE allows: most say nothing at all, one of twenty nothing after its handshake. Meanwhile a
    device connects; afterwards everything is as before. The first must not be given up before the last is there, on a
    busy machine either: hence the long timeouts and the few handshakes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with running_server(tmp_path, handshake_timeout=25.0, connect_timeout=25.0) as server:
            idle, before, memory = server.fds(), server.decided(), server.rss()
            with contextlib.ExitStack() as stack:
                shaken = [stack.enter_context(server.tls(device(0))) for _ in range(count // 20)]
                silent = [stack.enter_context(server.tcp()) for _ in range(count - len(shaken))]
                until(lambda: server.fds() >= idle + count - 20, f"{count} open connections")  # idle had its own
                started = time.monotonic()
                server.check_serves(device(0))
                assert time.monotonic() - started < 5.0
                assert (server.rss() - memory) * 1024 / count < 60, "KiB for each connection"
                until(lambda: server.decided() >= before + count + 1, "a verdict on each", seconds=60)
                assert all(read_to_end(sock) == b"" for sock in silent[:100])
            until(lambda: server.fds() <= idle + 1, "the return of all descriptors")
            verdicts = server.verdicts()
            assert verdicts["no_connect"] == len(shaken)
            assert verdicts["handshake_failed"] == len(silent)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- the HTTP ports ---------------------------------------------------------------------------------------------------

HTTP = pytest.mark.parametrize("which", ["api", "admin"])
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade"
OPENINGS = (
    b"",
    HTTP2,
    HTTP2 + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",  # an empty SETTINGS frame
    UPGRADE + b", HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    UPGRADE + b"\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b"A" * 22 + b"==\r\n\r\n",
    b"POST /things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
)


@HTTP
class TestHTTP:
    @bytes_on_the_wire
    @given(opening=st.sampled_from(OPENINGS), noise=st.binary(min_size=1, max_size=2000))
    def test_random_bytes(self, server: Server, which: str, opening: bytes, noise: bytes) -> None:
        """From the start, and where HTTP/1.1, HTTP/2 or a websocket was begun."""
        with server.tcp(server.http(which)) as sock, contextlib.suppress(OSError):
            sock.sendall(opening + noise)
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
        assert server.request("admin", "GET", "/health")[0] == 200

    @bytes_on_the_wire
    @given(
        method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"]),
        path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200),
        body=st.binary(max_size=500),
    )
    def test_requests_that_make_no_sense_are_answered_and_never_with_a_bug(
        self, server: Server, which: str, method: str, path: str, body: bytes
    ) -> None:
        head = f"{method} /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        head += "Authorization: AWS4-HMAC-SHA256 Credential=111111111111/20260101/us-east-1/iot/aws4_request\r\n\r\n"
        with server.tcp(server.http(which)) as sock:
            sock.sendall(head.encode() + body)
            answer = read_to_end(sock)
        assert answer.startswith(b"HTTP/1.1 ")
        assert int(answer[9:12]) not in (500, 502, 503), answer

    @pytest.mark.parametrize(
        "head",
        [
            b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 100_000,
            b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
        ],
        ids=["giant target", "headers without end", "giant length", "negative length", "giant chunk", "broken http/2"],
    )
    def test_giant_heads_cost_no_memory(self, server: Server, which: str, head: bytes) -> None:
        memory = server.rss()
        with server.tcp(server.http(which)) as sock, contextlib.suppress(OSError):
            sock.sendall(head)
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
        assert server.rss() - memory < GROWTH_MIB
        assert server.request("admin", "GET", "/health")[0] == 200

    def test_five_hundred_idle_connections_do_not_keep_a_caller_out(self, server: Server, which: str) -> None:
        with contextlib.ExitStack() as stack:
            for number in range(500):
                sock = stack.enter_context(server.tcp(server.http(which)))
                if number % 2:
                    sock.sendall(b"POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert server.request(which, "GET", "/health")[0] in (200, 400, 403, 404, 501)
