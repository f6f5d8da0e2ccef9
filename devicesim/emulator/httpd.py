"""HTTP on trio, by hypercorn: :func:`serve_http` for every port of the emulator, and the control plane as ASGI."""

import logging
import re
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import replace
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from devicesim.emulator.api import ControlPlane
from devicesim.emulator.apierrors import APIError
from devicesim.emulator.httpmessage import HTTPRequest, HTTPResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application; :func:`serve_http` asks it for ``http`` scopes only."""

MAX_BODY = 2 * 1024 * 1024
"""Bytes of a request's body; the largest that can be right is a policy document of 404,600 characters, all escaped."""
BODY_TIMEOUT = 30.0
"""Seconds for a request's body to arrive, so that a client that stops in the middle costs nothing for long."""
KEEP_ALIVE = 10.0
"""Seconds that a connection may be idle between requests, or take over a request's head. As short as that because
hypercorn also keeps a connection for so long that the client has closed, with its file descriptor."""
SEND_TIMEOUT = 30.0
"""Seconds in which a client must take some of what it is sent. hypercorn waits for ever, where no cancelling helps."""
GRACE = 1.0
"""Seconds for requests under way when the server is stopped."""
BACKLOG = 100
_PIECE = 64 * 1024
_HEAD = re.compile(rb"HTTP/1\.1 [2-5]")

_log = logging.getLogger(__name__)
_hypercorn_log = _log.getChild("hypercorn")
_hypercorn_log.setLevel(logging.WARNING)  # at INFO it tells people to press Ctrl-C


async def serve_http(
    app: ASGIApp, host: str, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve ``app`` until cancelled; then let requests under way end within ``GRACE`` and close every socket.

    Hands back the port, which is a free one for ``port`` 0. Raises ``OSError`` when the address can not be had.
    """
    listener, bound_port = _bind(host, port)
    config = Config()
    config.accesslog = None
    config.errorlog = _hypercorn_log
    config.keep_alive_timeout = KEEP_ALIVE
    config.include_server_header = False
    application = _Application(app)
    stopping = trio.Event()

    async def run() -> None:
        # When it is cancelled, hypercorn leaves connections open; when it is told to stop, it closes them.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as shielded:
                shielded.start_soon(application.stop, stopping)
                await _serve_connections(application, config, listener, stopping)
                shielded.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        try:
            nursery.start_soon(run)
            task_status.started(bound_port)
            await trio.sleep_forever()
        finally:
            stopping.set()


async def _serve_connections(
    application: "_Application", config: Config, listener: socket.socket, stopping: trio.Event
) -> None:
    """Accept until ``stopping``, and then have hypercorn end what is open.

    hypercorn's own accept loop lets what one connection raises take all of them with it: a client that breaks off in
    the middle of a body while it is being answered was enough. So each has a boundary of its own here.
    """
    context = WorkerContext(None)
    wrapped = wrap_app(application, config.wsgi_max_body_size, "asgi")  # type: ignore[arg-type]  # as TypedDicts

    open_streams: set[trio.SocketStream] = set()

    async def connection(stream: trio.SocketStream) -> None:
        open_streams.add(stream)
        try:
            await TCPServer(wrapped, config, context, ConnectionState({}), _Stream(stream))  # type: ignore[arg-type]
        except BaseExceptionGroup as group:
            failures, others = group.split(Exception)
            _log.info("an HTTP connection was broken off: %r", failures)
            if others is not None:
                raise others from None
        except Exception as exc:  # the boundary: it costs this connection
            _log.info("an HTTP connection was broken off: %r", exc)
        finally:
            open_streams.discard(stream)

    async with trio.open_nursery() as closing:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
                accepting.start_soon(partial(trio.serve_listeners, connection, listeners, handler_nursery=connections))
                await stopping.wait()
                accepting.cancel_scope.cancel()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + GRACE + 1.0
            closing.start_soon(_close_after, GRACE + 0.5, open_streams)
        closing.cancel_scope.cancel()


async def _close_after(seconds: float, streams: Collection[trio.SocketStream]) -> None:
    """Close what is still open then: an answer that nobody reads could not be cancelled."""
    await trio.sleep(seconds)
    for stream in tuple(streams):
        stream.socket.close()


class _Stream:
    """A connection as hypercorn uses it, which is given up when the client does not read. hypercorn writes to it and
    ends it from several tasks at a time; here they wait for each other."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.receive_some = stream.receive_some
        self.aclose = stream.aclose
        self._sending = trio.Lock()
        self._head = b""

    async def send_all(self, data: bytes) -> None:
        """The head of an answer waits for what hypercorn sends next, which is its body or nothing: each call of the
        system costs as much as all of a handler."""
        if not data and not self._head:
            return  # hypercorn sends nothing three times for each answer
        async with self._sending:
            if _HEAD.match(data):
                self._head += data
            else:
                await self._send(data)

    async def _send(self, data: bytes) -> None:
        view = memoryview(self._head + data)
        self._head = b""
        for start in range(0, len(view), _PIECE):
            with trio.move_on_after(SEND_TIMEOUT) as sending:
                await self._stream.send_all(view[start : start + _PIECE])
            if sending.cancelled_caught:
                self.socket.close()  # which also ends the wait for what the client may still ask
                raise trio.BrokenResourceError(f"the client has taken nothing for {SEND_TIMEOUT:g} s")

    async def send_eof(self) -> None:
        async with self._sending:
            await self._send(b"")
            await self._stream.send_eof()


def _bind(host: str, port: int) -> tuple[socket.socket, int]:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # taken over by accepted sockets
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener, listener.getsockname()[1]


class _UnanswerableError(Exception):
    """The client's doing, and no failure of the application."""


class _Application:
    """What hypercorn sees: refuses websockets, and ends requests that outlast the server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests: set[trio.CancelScope] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: MutableMapping[str, Any]) -> None:
            try:
                await send(message)
            except Exception as exc:  # of hypercorn's protocols, when the client has broken them in the meantime
                raise _UnanswerableError from exc

        try:
            await self._call(scope, receive, answer)
        except _UnanswerableError as exc:
            _log.info("an HTTP request could not be answered: %r", exc.__cause__)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # answered with 403
            return
        with trio.CancelScope() as request:
            self._requests.add(request)
            try:
                await self._app(scope, receive, send)
            finally:
                self._requests.discard(request)

    async def stop(self, stopping: trio.Event) -> None:
        """Cancel what is still under way some time after ``stopping``; hypercorn then closes its connection."""
        await stopping.wait()
        await trio.sleep(GRACE)
        for request in self._requests:
            request.cancel()


class ControlPlaneApp:
    """The ASGI face of the control plane. The one boundary at which a bug of the emulator becomes a 500."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._control_plane.request_id()
        response = await self._answer(scope, receive, request_id)
        if response is None:
            return  # the client has gone
        headers = {
            **response.headers,
            "content-length": str(len(response.body)),
            "x-amzn-requestid": request_id,
        }
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": response.body})

    async def _answer(self, scope: Scope, receive: Receive, request_id: str) -> HTTPResponse | None:
        request = HTTPRequest(
            method=scope["method"],
            path=scope["raw_path"].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
        )
        with trio.move_on_after(BODY_TIMEOUT) as reading:
            body = await _body(receive)
        if reading.cancelled_caught:
            error = APIError("RequestTimeoutException", f"The request body did not arrive within {BODY_TIMEOUT:g} s")
            return self._control_plane.refuse(request, error, request_id)
        if body is None:
            return None
        if len(body) > MAX_BODY:
            error = APIError("RequestEntityTooLargeException", f"The request body is longer than {MAX_BODY} bytes")
            return self._control_plane.refuse(request, error, request_id)
        request = replace(request, body=body)
        try:
            return self._control_plane.handle(request, request_id)
        except Exception:  # the boundary: whatever goes wrong is told to the caller and to the log
            _log.exception("request %s failed: %s %s", request_id, request.method, request.path)
            return self._control_plane.failure(request, request_id)


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or a little more than ``MAX_BODY`` of a longer one; ``None`` when the client went away.

    A body that is too long is still read to its end: closing on a client that is sending loses it the answer.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= MAX_BODY:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)
