"""serve_http over real sockets: ports, what strange clients are told, and that nothing stays open behind it."""

import errno
import gc
import logging
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from devicesim.emulator import httpd
from devicesim.emulator.httpd import Receive, Scope, Send, serve_http
from tests.control_support import REGION, A, make_registry, running_api

SECONDS = 15


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def serving(app: httpd.ASGIApp = hello) -> AsyncIterator[int]:
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(serve_http, app, "127.0.0.1")
            nursery.cancel_scope.cancel()


async def ask(stream: trio.SocketStream, request: bytes = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") -> bytes:
    """One request and its whole answer."""
    await stream.send_all(request)
    answer = b""
    while True:
        head, blank, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if blank and length is not None and len(body) == int(length[1]):
            return answer
        piece = await stream.receive_some(65536)
        assert piece, f"closed after {answer!r}"
        answer += piece


async def read_to_end(stream: trio.SocketStream) -> bytes:
    return b"".join([piece async for piece in stream])


async def test_port_is_a_free_one_and_handed_back() -> None:
    async with serving() as first, serving() as second:
        assert first != second
        async with await trio.open_tcp_stream("127.0.0.1", first) as stream:
            assert (await ask(stream)).startswith(b"HTTP/1.1 200 ")


async def test_taken_port_is_an_os_error() -> None:
    async with serving() as port:
        with pytest.raises(OSError, match="in use") as caught:
            await serve_http(hello, "127.0.0.1", port)

    assert caught.value.errno == errno.EADDRINUSE


async def test_connection_serves_many_requests() -> None:
    async with serving() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for _ in range(3):
            assert (await ask(stream)).startswith(b"HTTP/1.1 200 ")


async def test_an_answer_is_sent_in_one_piece_with_and_without_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    send_all = trio.SocketStream.send_all

    async def noting(self: trio.SocketStream, data: bytes) -> None:
        sent.append(bytes(data))
        await send_all(self, data)

    monkeypatch.setattr(trio.SocketStream, "send_all", noting)
    async with serving() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        answer = await ask(stream)
        head = b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        await stream.send_all(head)
        without_body = await read_to_end(stream)

    assert answer.endswith(b"\r\n\r\nhello")
    assert without_body.startswith(b"HTTP/1.1 200 ")
    assert without_body.endswith(b"\r\n\r\n")
    assert [each for each in sent if each.startswith(b"HTTP")] == [answer, without_body]
    assert len(sent) == 4  # and the two requests


async def test_connections_that_are_idle_or_closed_by_the_client_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpd, "KEEP_ALIVE", 0.2)
    async with serving() as port:
        before = open_files()
        idle, halfway = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        await halfway.send_all(b"GET / HT")
        for _ in range(10):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await ask(stream)

        async with idle, halfway:
            assert await read_to_end(idle) == b""
            assert await read_to_end(halfway) == b""
        while open_files() > before:  # noqa: ASYNC110 - nothing tells of a descriptor that is closed
            await trio.sleep(0.01)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize(
    "request_bytes",
    [
        (
            b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
    ],
    ids=["websocket", "tls", "text"],
)
async def test_other_protocols_are_refused(request_bytes: bytes) -> None:
    async with serving() as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request_bytes)
        answer = await read_to_end(stream)

    assert answer[:12] in (b"HTTP/1.1 403", b"HTTP/1.1 400")


async def test_stopping_closes_every_connection_and_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle, half a request line, half a body, and a request that never ends: none may stay, or be warned of."""
    monkeypatch.setattr(httpd, "GRACE", 0.1)
    reached = trio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            reached.set()
            await trio.sleep_forever()
        while (await receive()).get("more_body"):
            pass
        await hello(scope, receive, send)

    async with serving(slow) as port:
        idle, line, body, never = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(4)]
        assert b"200" in await ask(idle)
        await line.send_all(b"POST /thi")
        await body.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1")
        await never.send_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await reached.wait()

    for stream in (idle, line, body, never):
        await read_to_end(stream)
        await stream.aclose()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    gc.collect()  # a socket that was left open would be warned of here


async def test_request_under_way_is_answered_while_stopping() -> None:
    started = trio.Event()
    connected: list[int] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await trio.sleep(0.05)  # the server is told to stop meanwhile, and closes its port first
        with socket.socket() as late:
            connected.append(late.connect_ex(scope["server"]))
        await hello(scope, receive, send)

    async with serving(slow) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await started.wait()
    answer = await read_to_end(stream)
    await stream.aclose()

    assert answer.endswith(b"hello")
    assert connected == [errno.ECONNREFUSED]


async def test_application_that_fails_is_a_500_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        async with serving(broken) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
            answer = await ask(stream)

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert "ZeroDivisionError" in caplog.text


async def test_control_plane_is_served(caplog: pytest.LogCaptureFixture) -> None:
    authorization = f"AWS4-HMAC-SHA256 Credential={A}/20260131/{REGION}/iot/aws4_request, Signature=x".encode()
    with caplog.at_level(logging.INFO):
        with trio.fail_after(SECONDS):
            async with running_api(make_registry()) as running:
                port = int(running.api.rpartition(":")[2])
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    answers = [
                        await ask(stream, b"GET /registrationcode HTTP/1.1\r\nhost: x\r\n%s\r\n" % header)
                        for header in (b"authorization: %s\r\n" % authorization, b"", b"authorization: Bearer x\r\n")
                    ]

    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200", b"HTTP/1.1 403", b"HTTP/1.1 403"]
    assert b"x-amzn-errortype: MissingAuthenticationTokenException" in answers[1]
    assert b"server: " not in answers[0]
    assert caplog.records == []


class TestClientsThatMisbehave:
    """Each costs its own connection: hypercorn's accept loop let some of them end every other, and the emulator."""

    async def test_a_body_that_breaks_off_while_it_is_answered_disturbs_nobody(self) -> None:
        async def large(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "GET":
                await hello(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(64):
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        with trio.fail_after(10):
            async with serving(large) as port:
                for length in (b"99999999999999999999", b"10"):
                    for pause in (0.0, 0.001, 0.01):
                        stream = await trio.open_tcp_stream("127.0.0.1", port)
                        await stream.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: " + length + b"\r\n\r\n")
                        await trio.sleep(pause)
                        await stream.send_eof()
                        await trio.sleep(0.01)
                        await stream.aclose()
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                async with stream:
                    assert (await ask(stream)).startswith(b"HTTP/1.1 200")

    async def test_an_answer_that_nobody_reads_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(httpd, "SEND_TIMEOUT", 0.2)
        given_up = trio.Event()

        async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                for _ in range(1000):
                    await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
            finally:
                given_up.set()

        before = open_files()
        with trio.fail_after(10):
            async with serving(endless) as port:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                await given_up.wait()
                await stream.aclose()
            assert open_files() == before

    async def test_nor_does_it_hold_up_the_stop(self) -> None:
        async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})

        with trio.fail_after(httpd.GRACE + 3):
            async with serving(endless) as port:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                await trio.sleep(0.2)
        await stream.aclose()

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n%s"
            % b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nnoise\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\x00\xff noise",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00noise, and more of it",
        ],
        ids=["websocket", "http/1.1", "http/2"],
    )
    async def test_noise_after_a_good_beginning_is_no_error_of_ours(
        self, request_bytes: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = open_files()
        async with serving() as port:
            for _ in range(5):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                async with stream:
                    await stream.send_all(request_bytes)
                    await stream.send_eof()
                    with suppress(trio.BrokenResourceError):
                        await read_to_end(stream)
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                assert (await ask(stream)).startswith(b"HTTP/1.1 200")
        assert open_files() == before
        assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
