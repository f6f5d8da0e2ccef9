"""The second door (design.md §6), never on AWS's ports: :mod:`~devicesim.emulator.adminroutes` over HTTP.

Reading needs nothing. POST and DELETE change the emulator without credentials, and so they must not come from a web
page that somebody has open (the port is on loopback, where every page's scripts can send to): a request that a browser
sent for another site is refused, and one to a name that could be a page's own made to resolve to this address, too.
"""

import ipaddress
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from devicesim.emulator.adminroutes import AdminError, AdminRoutes
from devicesim.emulator.core import Core
from devicesim.emulator.httpd import BODY_TIMEOUT, Receive, Scope, Send

if TYPE_CHECKING:
    from devicesim.emulator.metrics import Metrics

_log = logging.getLogger(__name__)

MAX_BODY: Final = 64 * 1024
"""Bytes of a request's body; a certificate and a few words."""
_JSON: Final = "application/json"
_CHANGING: Final = frozenset({"POST", "DELETE"})


class AdminApp:
    """The ASGI application of the admin port."""

    def __init__(self, core: Core, *, hosts: frozenset[str] = frozenset()) -> None:
        """``hosts`` are names that the port is reached by, beside addresses, ``localhost`` and names without a dot."""
        self._core = core
        self._hosts = frozenset(each.lower() for each in hosts)
        self._metrics: Metrics | None = None
        self.routes = AdminRoutes(core)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method = scope["method"]
        kind = _JSON
        try:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            if method in _CHANGING:
                self.check_same_site(headers)
            body = await _body(receive) if method == "POST" else b""
            if scope["path"] == "/metrics":
                kind, payload = self._metrics_text(method)
            else:
                query = scope["query_string"].decode("latin-1")
                payload = _json(self.routes.answer(method, scope["path"], query, body))
            status = 200
        except AdminError as error:
            status, payload = error.status, _json({"error": str(error)})
        except Exception:  # the boundary: a bug of ours is told, and the port goes on
            _log.exception("admin request failed: %s %s", method, scope["path"])
            status, payload = 500, _json({"error": "devicesim failed on this request; its log says why"})
        answer = [(b"content-type", kind.encode()), (b"content-length", str(len(payload)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": answer})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else payload})

    def check_same_site(self, headers: Mapping[str, str]) -> None:
        """Raise :class:`AdminError` (403) for what a web page may have sent."""
        host = headers.get("host", "")
        name = _host_name(host)
        if not self._is_ours(name):
            raise AdminError(
                403, f"host {host!r} is not this port's, must be an address, localhost, a name without a dot or --host"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise AdminError(403, f"origin {origin!r} is another site, must be none or the port's own")
        site = headers.get("sec-fetch-site")
        if site not in (None, "same-origin", "none"):
            raise AdminError(403, f"the request comes from a {site} page, must come from none or the port's own")

    def _is_ours(self, name: str) -> bool:
        """Not a name that anybody could own: one that resolves to us today may have been a page's yesterday."""
        if not name:
            return False
        if name in self._hosts or name == "localhost" or name.endswith(".localhost") or "." not in name.strip("[]"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _metrics_text(self, method: str) -> tuple[str, bytes]:
        if method not in ("GET", "HEAD"):
            raise AdminError(405, f"method {method!r} is not allowed, must be 'GET'")
        from devicesim.emulator import metrics  # only who scrapes waits for prometheus_client

        if self._metrics is None:
            self._metrics = metrics.Metrics(self._core)
        return metrics.CONTENT_TYPE, self._metrics.text()


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


async def _body(receive: Receive) -> bytes:
    """The whole body, read to its end: closing on a client that is sending loses it the answer."""
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            if len(body) <= MAX_BODY:
                body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        if len(body) > MAX_BODY:
            raise AdminError(413, f"the request's body is longer than {MAX_BODY} bytes")
        return bytes(body)
    raise AdminError(408, f"the request's body did not arrive within {BODY_TIMEOUT:g} s")


def _json(document: object) -> bytes:
    """With a newline, for people at a terminal."""
    return json.dumps(document).encode() + b"\n"
