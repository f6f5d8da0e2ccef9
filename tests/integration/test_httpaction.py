"""The sender of HTTP actions, against servers on loopback that behave and that do not."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
import trustme

from devicesim.emulator.httpaction import HTTPActions
from devicesim.emulator.settings import Settings
from devicesim.emulator.topicrules.actions import HTTPPost
from tests.emulator_support import World
from tests.gateway_support import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Server:
    """Takes note of requests and answers what the test has written."""

    answers: list[bytes]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    pause: float = 0.0

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        while True:
            data = b""
            while not _whole(data):
                chunk = await stream.receive_some(65_536)
                if not chunk:
                    return
                data += chunk
            self.requests.append(data)
            await trio.sleep(self.pause)
            if not self.answers:
                return
            answer = self.answers.pop(0)
            await stream.send_all(answer)
            if b"connection: close" in answer.lower():
                return


def _whole(data: bytes) -> bool:
    head, separator, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0)
    return bool(separator) and len(body) >= length


@dataclass
class Sending:
    actions: HTTPActions
    results: list[tuple[int | None, str]] = field(default_factory=list)
    commits: int = 0

    async def send(self, url: str, body: bytes = b"{}") -> tuple[int | None, str]:
        known = len(self.results)
        assert self.actions.offer(HTTPPost(url=url, headers=(("X-Y", "z"),), body=body), self.told)
        await until(lambda: len(self.results) > known)
        return self.results[-1]

    def told(self, status: int | None, problem: str) -> None:
        self.results.append((status, problem))


@asynccontextmanager
async def sending(settings: Settings | None = None) -> AsyncIterator[Sending]:
    world = World(settings)
    made = Sending(HTTPActions(world.core.rules, world.settings, commit=lambda: None))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(made.actions.run)
            assert world.core.rules.send == made.actions.offer
            yield made
            nursery.cancel_scope.cancel()
    assert world.core.rules.send is None


@asynccontextmanager
async def serving(
    server: Server, wrap: Callable[[trio.abc.Stream], trio.abc.Stream] | None = None
) -> AsyncIterator[str]:
    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await server.serve(stream if wrap is None else wrap(stream))

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        server.port = listeners[0].socket.getsockname()[1]
        yield f"http://127.0.0.1:{server.port}"
        nursery.cancel_scope.cancel()


async def test_a_post_arrives_as_it_was_made() -> None:
    server = Server([OK])
    async with serving(server) as url, sending() as sender:
        assert await sender.send(f"{url}/in/7?a=b", b'{"id":7}') == (200, "")

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /in/7?a=b HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}".encode() in lines
    assert b"Content-Length: 8" in lines
    assert b"X-Y: z" in lines
    assert body == b'{"id":7}'


async def test_names_below_localhost_are_this_machine() -> None:
    server = Server([OK])
    async with serving(server), sending() as sender:
        assert (await sender.send(f"http://hook.localhost:{server.port}"))[0] == 200
    assert server.requests[0].startswith(b"POST / HTTP/1.1\r\n")


def _answer(status: int, size: int = 0, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n" % (status, size, extra) + b"x" * size


@pytest.mark.parametrize(
    ("answers", "status", "requests"),
    [
        ([_answer(503), _answer(429), OK], 200, 3),
        ([_answer(500)] * 4, 500, 3),
        ([_answer(404), OK], 404, 1),
        ([_answer(503, extra=b"Connection: close\r\n"), OK], 503, 1),
        ([_answer(503, 20_000), OK], 503, 1),
        ([_answer(503, 16_384), OK], 200, 2),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], 200, 1),
    ],
)
async def test_it_tries_again_where_aws_does(answers: list[bytes], status: int, requests: int) -> None:
    server = Server(list(answers))
    async with serving(server) as url, sending() as sender:
        assert await sender.send(url) == (status, "")

    assert (len(server.requests), server.connections) == (requests, 1)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (None, "the connection was closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nabc", "peer closed connection"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "illegal status line"),
    ],
)
async def test_what_is_no_answer_is_told(answer: bytes | None, problem: str) -> None:
    server = Server([] if answer is None else [answer])
    async with serving(server) as url, sending() as sender:
        status, told = await sender.send(url)

    assert status is None
    assert problem in told


async def test_a_server_that_is_slow_or_not_there_is_told() -> None:
    server = Server([OK], pause=30)
    async with serving(server) as url, sending(Settings(rule_http_timeout=0.2)) as sender:
        assert await sender.send(url) == (None, "no answer within 0.2 s")
    async with sending() as sender:
        status, told = await sender.send(f"http://127.0.0.1:{server.port}")
    assert status is None
    assert f"cannot connect to 127.0.0.1:{server.port}" in told


@pytest.mark.parametrize("url", ["https://192.0.2.1/", "https://10.0.0.1:8443/", "https://devicesim.invalid/"])
async def test_nothing_leaves_this_machine_unless_a_setting_says_so(url: str) -> None:
    async with sending() as sender:
        status, told = await sender.send(url)

    assert status is None
    assert "is not this machine; the setting rule_http_targets allows others" in told


async def test_https_is_verified() -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        return trio.SSLStream(stream, context, server_side=True, https_compatible=True)

    server = Server([OK])
    async with serving(server, wrap), sending() as sender:
        status, told = await sender.send(f"https://localhost:{server.port}/")
        assert status is None
        assert "certificate verify failed" in told
        assert server.requests == []
        trusting = ssl.create_default_context()
        ca.configure_trust(trusting)
        sender.actions._tls = trusting
        assert await sender.send(f"https://localhost:{server.port}/") == (200, "")


async def test_the_queue_has_an_end_and_a_slow_server_does_not_stop_others() -> None:
    slow, quick = Server([OK] * 5, pause=30), Server([OK] * 5)
    settings = Settings(rule_http_queue=3)
    async with serving(slow) as slow_url, serving(quick) as quick_url, sending(settings) as sender:
        assert sender.actions.offer(HTTPPost(url=slow_url, headers=(), body=b""), sender.told)
        await until(lambda: slow.connections == 1)

        assert (await sender.send(quick_url))[0] == 200

        post = HTTPPost(url=quick_url, headers=(), body=b"")
        assert [sender.actions.offer(post, sender.told) for _ in range(4)] == [True, True, True, False]
        await until(lambda: len(sender.results) == 4)


async def test_what_led_to_a_request_is_kept_before_it_leaves() -> None:
    order: list[str] = []
    server = Server([OK])
    world = World()
    actions = HTTPActions(world.core.rules, world.settings, commit=lambda: order.append(f"{len(server.requests)} seen"))
    with trio.fail_after(20):
        async with serving(server) as url, trio.open_nursery() as nursery:
            await nursery.start(actions.run)
            done = trio.Event()
            actions.offer(HTTPPost(url=url, headers=(), body=b""), lambda status, problem: done.set())
            await done.wait()
            nursery.cancel_scope.cancel()

    assert order == ["0 seen"]
