"""Sends the HTTP requests of topic rules: the engine decides what, this only moves bytes, on trio.

Requests wait in a queue and are sent by a few workers; what came of each is told to the engine in the event loop. Only
to this machine, unless the settings say otherwise.
"""

import ipaddress
import logging
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11
import trio

from devicesim.emulator.settings import Settings
from devicesim.emulator.state.destinations import is_loopback_name
from devicesim.emulator.topicrules.actions import HTTPPost
from devicesim.emulator.topicrules.engine import Done, RulesEngine

WORKERS: Final = 10
MAX_RESPONSE: Final = 16_384
"""Bytes of a response after which AWS does not try again (developer guide, D); nothing after them is read."""
TRIES: Final = 3
"""Developer guide, "HTTP action retry logic" (D)."""
_CHUNK: Final = 65_536

_log = logging.getLogger(__name__)


class _SendError(Exception):
    """The request was not answered; the message is for the history."""


@dataclass(slots=True)
class _Reply:
    status: int
    size: int
    closes: bool
    """Whether the connection cannot be used again."""


@dataclass(slots=True)
class HTTPActions:
    """The sender of one emulator.

    actions = HTTPActions(core.rules, settings, commit=core.plane.commit)
    await nursery.start(actions.run)
    """

    engine: RulesEngine
    settings: Settings
    commit: Callable[[], None]
    """Called before a request leaves: what led to it must outlast the process, where that is wanted."""
    _waiting: deque[tuple[HTTPPost, Done]] = field(default_factory=deque)
    _work: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(0))
    _tls: ssl.SSLContext | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled."""
        self.engine.send = self.offer
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(WORKERS):
                    nursery.start_soon(self._worker)
                task_status.started()
        finally:
            self.engine.send = None

    def offer(self, post: HTTPPost, done: Done) -> bool:
        """Take a request; ``False`` when too many wait."""
        if len(self._waiting) >= self.settings.rule_http_queue:
            return False
        self._waiting.append((post, done))
        self._work.release()
        return True

    async def _worker(self) -> None:
        while True:
            await self._work.acquire()
            post, done = self._waiting.popleft()
            try:
                self.commit()
                status, problem = await self._send(post), ""
            except (_SendError, OSError, h11.ProtocolError, trio.BrokenResourceError) as error:
                status, problem = None, str(error) or type(error).__name__
            except Exception as error:  # a worker must outlive a bug, and the firing must end
                _log.exception("failed to send to %s", post.url)
                status, problem = None, f"devicesim failed to send it: {error}"
            try:
                done(status, problem)
            except Exception:
                _log.exception("failed on the answer of %s", post.url)

    async def _send(self, post: HTTPPost) -> int:
        """The status of the answer, after at most three tries on one connection."""
        seconds = self.settings.rule_http_timeout
        with trio.move_on_after(seconds) as scope:
            parts = urlsplit(post.url)
            stream = await self._connect(parts)
            async with stream:
                status = await _exchange(stream, parts, post)
        if scope.cancelled_caught:
            raise _SendError(f"no answer within {seconds:g} s")
        return status

    async def _connect(self, parts: SplitResult) -> trio.abc.Stream:
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        addresses = await self._resolve(host, port)
        problem: OSError | None = None
        for address in addresses:
            try:
                stream = await trio.open_tcp_stream(address, port)
                break
            except OSError as error:
                problem = error
        else:
            raise _SendError(f"cannot connect to {host}:{port}: {_reason(problem)}")
        if not secure:
            return stream
        if self._tls is None:
            self._tls = ssl.create_default_context()
        secured = trio.SSLStream(stream, self._tls, server_hostname=host, https_compatible=True)
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            stream.socket.close()
            raise _SendError(f"TLS handshake with {host}:{port} failed: {error.__cause__}") from error
        except trio.Cancelled:
            stream.socket.close()
            raise
        return secured

    async def _resolve(self, host: str, port: int) -> list[str]:
        if host == "localhost" or host.endswith(".localhost"):
            return ["127.0.0.1"]  # RFC 6761; not every resolver knows the names below it
        if self.settings.rule_http_targets == "loopback" and not is_loopback_name(host):
            raise _SendError(f"{host} is not this machine; the setting rule_http_targets allows others")
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if self.settings.rule_http_targets == "loopback" and not all(
            ipaddress.ip_address(address).is_loopback for address in addresses
        ):
            raise _SendError(f"{host} is not this machine; the setting rule_http_targets allows others")
        return addresses


async def _exchange(stream: trio.abc.Stream, parts: SplitResult, post: HTTPPost) -> int:
    connection = h11.Connection(h11.CLIENT)
    for attempt in range(1, TRIES + 1):
        reply = await _try_once(connection, stream, parts, post)
        again = reply.status == 429 or 500 <= reply.status <= 599
        if not again or attempt == TRIES or reply.closes or reply.size > MAX_RESPONSE:
            break
        connection.start_next_cycle()
    return reply.status


async def _try_once(connection: h11.Connection, stream: trio.abc.Stream, parts: SplitResult, post: HTTPPost) -> _Reply:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = [("Host", parts.netloc.rpartition("@")[2]), ("Content-Length", str(len(post.body))), *post.headers]
    encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    data = connection.send(h11.Request(method=b"POST", target=target.encode("ascii"), headers=encoded))
    data = (data or b"") + (connection.send(h11.Data(data=post.body)) or b"")
    data += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(data)
    status, size = 0, 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            chunk = await stream.receive_some(_CHUNK)
            if not chunk and not status:
                raise _SendError("the connection was closed without an answer")
            connection.receive_data(bytes(chunk))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > MAX_RESPONSE:
                return _Reply(status, size, closes=True)
        elif isinstance(event, h11.EndOfMessage):
            closes = connection.their_state is not h11.DONE or connection.our_state is not h11.DONE
            return _Reply(status, size, closes=closes)
        elif isinstance(event, h11.ConnectionClosed):
            raise _SendError("the connection was closed without an answer")


def _reason(problem: OSError | None) -> str:
    while problem is not None and isinstance(problem.__cause__, BaseExceptionGroup):
        inner = problem.__cause__.exceptions[0]
        if not isinstance(inner, OSError):
            break
        problem = inner
    return str(problem)
