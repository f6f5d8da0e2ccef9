"""The front door of the data plane: sockets, TLS and waiting. It decides nothing but when bytes move.

One trio task serves every connection, from an epoll (kqueue) of its own on which it waits through
``trio.lowlevel.wait_readable``. The kernel hands events over in the order in which they came, and they are served in
that order; trio, which runs ready tasks in random order, would mix up what one client sent before another
(mqtt-measured.md, "Order matters"). It also costs less memory than a task for each connection.

A connection is accepted, has until ``handshake_timeout`` to finish its handshake, then belongs to the
:class:`~devicesim.emulator.dataplane.DataPlane`. Its end is unhurried: what is queued is written, close_notify and FIN
are sent, and the client's own end is waited for a moment. Closing at once with bytes unread would send a reset, and the
client would see an error where AWS shows it a close.

:meth:`Gateway._guarded` is the one boundary at which a failure costs a connection and not the emulator.
"""

import errno
import logging
import selectors
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

import trio
from OpenSSL import SSL

from devicesim.emulator import admission, servertls
from devicesim.emulator.admission import Door, Presented
from devicesim.emulator.connection import Connection, Phase
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.deviceconnection import DeviceConnection
from devicesim.emulator.faults import FaultKind
from devicesim.emulator.servertls import ALPNRefusedError, Flaw, ServerContexts, Shown
from devicesim.emulator.timers import Timer

_log = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that may wait to be accepted: a fleet that starts at once must not see SYNs dropped."""
_ACCEPT_BATCH = 64
_ACCEPT_PAUSE = 0.1
"""Seconds without accepting after the machine ran out of something (as trio's serve_listeners has it)."""
_OVERLOADED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_READ_SIZE = 16 * 1024
"""A TLS record."""
_READS_PER_TURN = 4
"""Records that one connection may send before others have their turn. OpenSSL reads no further than the record it is
asked for (``read_ahead`` is off), so what is left stays in the socket, whose events are level-triggered."""
_WRITE_SIZE = 64 * 1024
_TURN = 0.005
"""Seconds of work after which other tasks (the control plane's) have theirs."""
_TICK = 0.01
"""Deadlines are kept to this; a wake-up costs more than it is early."""
_LINGER = 2.0
"""Seconds that an ended connection's last bytes and the client's own close are waited for."""
_LINGER_BYTES = 64 * 1024


class _Stage(Enum):
    HANDSHAKE = "handshake"
    OPEN = "open"
    FLUSHING = "flushing"
    """Ended; queued bytes are being written."""
    LINGERING = "lingering"
    """FIN sent; whatever the client still sends is thrown away until it closes."""
    CLOSED = "closed"


class _Link:
    """One TCP connection."""

    __slots__ = (
        "connection",
        "door",
        "interest",
        "lingered",
        "paused",
        "peer",
        "sock",
        "stage",
        "timer",
        "tls",
        "wanted",
    )

    def __init__(self, sock: socket.socket, tls: SSL.Connection, door: Door, peer: tuple[str, int]) -> None:
        self.sock = sock
        self.tls = tls
        self.door = door
        self.peer = peer
        self.stage = _Stage.HANDSHAKE
        self.connection: DeviceConnection | None = None
        self.interest = self.wanted = selectors.EVENT_READ
        """What the selector watches for, and what it would watch for if nothing were paused."""
        self.paused = False
        """Not read from for a while: the client has sent more than its throughput."""
        self.timer: Timer | None = None
        self.lingered = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A bound socket that is one Region's front door."""

    door: Door
    sock: socket.socket

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])


def bind(door: Door, host: str, port: int) -> Listener:
    """A listening socket; ``port`` 0 takes a free one. ``OSError`` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return Listener(door=door, sock=sock)


class Gateway:
    """Serves listeners until cancelled, and then closes every socket."""

    def __init__(self, plane: DataPlane, contexts: ServerContexts, listeners: Sequence[Listener]) -> None:
        self._plane = plane
        self._contexts = contexts
        self._listeners = tuple(listeners)
        self._selector = selectors.DefaultSelector()
        self._links: dict[int, _Link] = {}
        self._shaking: dict[SSL.Connection, _Link] = {}
        self._sleep: trio.CancelScope | None = None
        self.accepted = 0
        plane.wake = self.wake
        contexts.choose = self._to_show
        contexts.clock = plane.clock.wall

    @property
    def open_links(self) -> int:
        return len(self._links)

    def wake(self) -> None:
        """Have a look now: something waits that no socket will tell of."""
        if self._sleep is not None:
            self._sleep.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for listener in self._listeners:
                    nursery.start_soon(self._accept_from, listener)
                task_status.started()
                await self._serve()
        finally:
            self._close_all()

    # --- accepting ---

    async def _accept_from(self, listener: Listener) -> None:
        shown = _shown(listener.door)
        while True:
            await trio.lowlevel.wait_readable(listener.sock)
            try:
                for _ in range(_ACCEPT_BATCH):
                    sock, address = listener.sock.accept()
                    self._start(sock, address, listener.door, self._contexts.context(shown))
            except BlockingIOError:
                continue
            except ConnectionError:
                continue  # the client has given up while it waited
            except OSError as exc:
                if exc.errno not in _OVERLOADED:
                    raise
                _log.warning("cannot accept a connection, trying again in %g s: %s", _ACCEPT_PAUSE, exc)
                await trio.sleep(_ACCEPT_PAUSE)

    def _start(self, sock: socket.socket, address: tuple[str, int], door: Door, context: SSL.Context) -> None:
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # reset before it was looked at
            sock.close()
            return
        tls = SSL.Connection(context, sock)
        tls.set_accept_state()
        self.accepted += 1
        link = _Link(sock, tls, door, (address[0], address[1]))
        self._links[sock.fileno()] = link
        self._selector.register(sock, link.interest, link)
        self._shaking[tls] = link
        timeout = self._plane.settings.handshake_timeout

        late = self._plane.clock.now() + timeout
        link.timer = self._plane.timers.schedule(late, partial(self._too_late, link), leaps=False)

    def _too_late(self, link: _Link, now: float) -> None:
        if link.stage is _Stage.HANDSHAKE:
            timeout = self._plane.settings.handshake_timeout
            self._handshake_failed(link, f"the handshake was not complete within {timeout:g} s", now)

    def _to_show(self, tls: SSL.Connection) -> Shown | None:
        """What is shown beside the door's own certificate: that of a Region without a door, which exists once
        the API has seen it and is served by the first door; that of a custom domain; one that a fault asks for."""
        link = self._shaking.get(tls)
        if link is None:
            return None
        door, domain = link.door, None
        own = shown = _shown(door)
        name = admission.read_server_name(tls.get_servername(), self._plane.settings)
        if name.kind is admission.ServerNameKind.NAME:
            partition = admission.resolve(self._plane.registry, name.text, door)
            if partition is not None:
                domain = servertls.custom_domain(name.text, partition.region)
                shown = replace(shown, region=partition.region, domain=domain)
        if self._plane.server_certificates_fail:
            fault = self._plane.server_certificate_fault(self._seen(link), self._plane.clock.now())
            if fault is not None:
                shown = replace(shown, flaw=_FLAWS[fault.kind], seconds=fault.time)
        return None if shown == own else shown

    # --- serving ---

    async def _serve(self) -> None:
        while True:
            now = self._plane.clock.now()
            self._tick(now)
            await self._wait(now)
            await self._turn([(key.data, mask) for key, mask in self._selector.select(0)])

    async def _wait(self, now: float) -> None:
        seconds = max(self._plane.timers.next() - now, _TICK)
        with trio.CancelScope(deadline=trio.current_time() + seconds) as self._sleep:
            await trio.lowlevel.wait_readable(self._selector.fileno())
        self._sleep = None

    async def _turn(self, events: list[tuple[_Link, int]]) -> None:
        started = self._plane.clock.now()
        for link, mask in events:
            now = self._plane.clock.now()
            if now - started > _TURN:
                await trio.lowlevel.checkpoint()
                started = now = self._plane.clock.now()
            if link.stage is not _Stage.CLOSED:  # an earlier event of this turn may have ended it
                self._guarded(link, self._readable_or_writable, mask, now)
                self._move_ready(now)

    def _tick(self, now: float) -> None:
        try:
            self._plane.tick(now)
        except Exception:  # a deadline of one connection or run must not end the others
            _log.exception("a timer failed")
        self._move_ready(now)

    def _guarded(self, link: _Link, act: Callable[[_Link, int, float], None], mask: int, now: float) -> None:
        """The boundary: a failure on one connection is recorded and costs that connection."""
        try:
            act(link, mask, now)
        except Exception as exc:  # everything else was handled where it arose
            _log.exception("connection from %s:%d failed", *link.peer)
            detail = f"the emulator failed: {type(exc).__name__}"
            if link.connection is not None:
                self._plane.fault(link.connection, detail, now)
            else:
                self._plane.handshake_failed(self._seen(link), detail)
            self._close(link)

    def _readable_or_writable(self, link: _Link, mask: int, now: float) -> None:
        if link.stage is _Stage.HANDSHAKE:
            self._shake_hands(link, now)
        elif link.stage is _Stage.LINGERING:
            self._linger(link)
            return
        if link.stage is _Stage.OPEN and mask & selectors.EVENT_READ:
            self._read(link, now)
        if link.stage in (_Stage.OPEN, _Stage.FLUSHING):
            self._plane.commit()
            self._write(link, now)

    def _shake_hands(self, link: _Link, now: float) -> None:
        try:
            link.tls.do_handshake()
        except SSL.WantReadError:
            self._want(link, selectors.EVENT_READ)
            return
        except SSL.WantWriteError:
            self._want(link, selectors.EVENT_READ | selectors.EVENT_WRITE)
            return
        except SSL.Error as exc:
            self._handshake_failed(link, servertls.describe(exc), now)
            return
        except ALPNRefusedError as exc:
            self._handshake_failed(link, str(exc), now)
            return
        self._cancel_timer(link)
        self._shaking.pop(link.tls, None)
        self._want(link, selectors.EVENT_READ)
        connection = self._plane.open(self._seen(link), now)
        connection.link = link
        link.connection = connection
        link.stage = _Stage.OPEN

    def _handshake_failed(self, link: _Link, detail: str, now: float) -> None:
        self._plane.handshake_failed(self._seen(link), detail)
        self._cancel_timer(link)
        self._fin(link, now)  # OpenSSL's alert is on its way

    def _seen(self, link: _Link) -> Presented:
        return servertls.read_presented(link.tls, door=link.door, source_ip=link.peer[0], source_port=link.peer[1])

    def _read(self, link: _Link, now: float) -> None:
        connection = link.connection
        assert connection is not None
        for _ in range(_READS_PER_TURN):
            if connection.phase is Phase.ENDED:
                return
            try:
                data = link.tls.recv(_READ_SIZE)
            except (SSL.WantReadError, SSL.WantWriteError):
                return
            except SSL.Error as exc:
                self._plane.lost(connection, servertls.describe(exc), now)
                return
            self._plane.receive(connection, data, now)
            pause = self._plane.quotas.received(connection.number, len(data), now)
            if pause > 0:
                link.paused = True
                self._want(link, link.wanted)
                self._plane.timers.schedule(now + pause, partial(self._go_on, link), leaps=False)
                return

    def _go_on(self, link: _Link, _now: float) -> None:
        link.paused = False
        if link.stage is not _Stage.CLOSED:
            self._want(link, link.wanted)

    def _move_ready(self, now: float) -> None:
        """Write what the last decisions queued, in the order in which they queued it."""
        self._plane.commit()
        while ready := self._plane.take_ready():
            for connection in ready:
                link = _link_of(connection)
                if link is not None and link.stage in (_Stage.OPEN, _Stage.FLUSHING):
                    self._guarded(link, self._write_now, 0, now)

    def _write_now(self, link: _Link, _mask: int, now: float) -> None:
        self._write(link, now)

    def _write(self, link: _Link, now: float) -> None:
        connection = link.connection
        if connection is None:
            return
        end = connection.end
        if end is not None and not end.flush:
            self._close(link)
            return
        outbound = connection.outbound
        while outbound:
            try:
                sent = link.tls.send(bytes(outbound[:_WRITE_SIZE]))
            except SSL.WantWriteError:
                # Nobody reads from an ended connection any more: what it sends would wake us up for ever.
                reads = selectors.EVENT_READ if end is None else 0
                self._want(link, reads | selectors.EVENT_WRITE)
                self._flush_later(link, now)
                return
            except SSL.WantReadError:
                self._flush_later(link, now)
                return  # tried again after the next read
            except SSL.Error as exc:
                self._plane.lost(connection, servertls.describe(exc), now)
                self._close(link)
                return
            del outbound[:sent]
        if end is not None:
            self._shut(link, now)
        else:
            self._want(link, selectors.EVENT_READ)

    # --- ending ---

    def _flush_later(self, link: _Link, now: float) -> None:
        """The client does not read; of an ended connection's last bytes that is not waited for long."""
        if link.stage is _Stage.OPEN and link.connection is not None and link.connection.end is not None:
            link.stage = _Stage.FLUSHING
            self._close_after(link, now)

    def _shut(self, link: _Link, now: float) -> None:
        """close_notify and FIN; the rest is the client's."""
        with suppress(SSL.Error):  # it is being closed anyway
            link.tls.shutdown()
        self._fin(link, now)

    def _fin(self, link: _Link, now: float) -> None:
        try:
            link.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client was quicker
            self._close(link)
            return
        if link.stage is not _Stage.FLUSHING:  # whose time is already running
            self._close_after(link, now)
        link.stage = _Stage.LINGERING
        self._want(link, selectors.EVENT_READ)

    def _close_after(self, link: _Link, now: float) -> None:
        link.timer = self._plane.timers.schedule(now + _LINGER, lambda _at: self._close(link), leaps=False)

    def _linger(self, link: _Link) -> None:
        try:
            while data := link.sock.recv(_READ_SIZE):
                link.lingered += len(data)
                if link.lingered > _LINGER_BYTES:
                    break
        except BlockingIOError:
            return
        except OSError:
            pass  # a reset is an end, too
        self._close(link)

    def _close(self, link: _Link) -> None:
        if link.stage is _Stage.CLOSED:
            return
        link.stage = _Stage.CLOSED
        self._cancel_timer(link)
        self._shaking.pop(link.tls, None)
        self._links.pop(link.sock.fileno(), None)
        if link.interest:
            self._selector.unregister(link.sock)
        link.sock.close()
        if link.connection is not None:
            # OpenSSL's part of a connection is some 40 KB: no reference cycle may keep it until the collector comes by
            link.connection.link = None
            link.connection = None

    def _close_all(self) -> None:
        for link in tuple(self._links.values()):
            self._close(link)
        for listener in self._listeners:
            listener.sock.close()
        self._selector.close()

    def _want(self, link: _Link, interest: int) -> None:
        link.wanted = interest
        if link.paused and link.stage is _Stage.OPEN:
            interest &= ~selectors.EVENT_READ
        if link.interest == interest:
            return
        if not interest:
            self._selector.unregister(link.sock)
        elif not link.interest:
            self._selector.register(link.sock, interest, link)
        else:
            self._selector.modify(link.sock, interest, link)
        link.interest = interest

    def _cancel_timer(self, link: _Link) -> None:
        timer, link.timer = link.timer, None
        if timer is not None:
            timer.cancel()


_FLAWS = {
    FaultKind.SERVER_CERTIFICATE_EXPIRING: Flaw.EXPIRING,
    FaultKind.SERVER_CERTIFICATE_EXPIRED: Flaw.EXPIRED,
    FaultKind.SERVER_CERTIFICATE_WRONG_NAME: Flaw.WRONG_NAME,
}


def _shown(door: Door) -> Shown:
    return Shown(region=door.region, alpn=door.alpn)


def _link_of(connection: Connection) -> _Link | None:
    """``None`` once the link is closed."""
    assert isinstance(connection, DeviceConnection)
    link = connection.link
    assert link is None or isinstance(link, _Link)
    return link
