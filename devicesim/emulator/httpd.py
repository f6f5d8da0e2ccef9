"""HTTP on trio, by hypercorn: :func:`serve_http` for every port of the emulator, and the control plane as ASGI."""

import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

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
GRACE = 1.0
"""Seconds for requests under way when the server is stopped."""
BACKLOG = 100

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
    config.bind = [f"fd://{listener.detach()}"]  # hypercorn's name for "this socket", which is its own from now on
    config.backlog = BACKLOG
    config.accesslog = None
    config.errorlog = _hypercorn_log
    config.graceful_timeout = GRACE + 1.0
    config.keep_alive_timeout = KEEP_ALIVE
    config.include_server_header = False
    application = _Application(app)
    stopping = trio.Event()

    async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
        # When it is cancelled, hypercorn leaves connections open; when it is told to stop, it closes them.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as shielded:
                shielded.start_soon(application.stop, stopping)
                await serve(
                    application,  # type: ignore[arg-type]  # hypercorn spells the messages of ASGI out as TypedDicts
                    config,
                    shutdown_trigger=stopping.wait,
                    task_status=task_status,
                    mode="asgi",
                )
                shielded.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(run)
            task_status.started(bound_port)
            await trio.sleep_forever()
        finally:
            stopping.set()


def _bind(host: str, port: int) -> tuple[socket.socket, int]:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # taken over by accepted sockets
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener, listener.getsockname()[1]


class _Application:
    """What hypercorn sees: answers its lifespan and websocket scopes, and ends requests that outlast the server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests: set[trio.CancelScope] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await _lifespan(receive, send)
            case "http":
                with trio.CancelScope() as request:
                    self._requests.add(request)
                    try:
                        await self._app(scope, receive, send)
                    finally:
                        self._requests.discard(request)
            case _:
                await send({"type": "websocket.close"})  # answered with 403

    async def stop(self, stopping: trio.Event) -> None:
        """Cancel what is still under way some time after ``stopping``; hypercorn then closes its connection."""
        await stopping.wait()
        await trio.sleep(GRACE)
        for request in self._requests:
            request.cancel()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


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
