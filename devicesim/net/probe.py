"""One connection, told step by step: what ``openssl s_client`` does, through CONNACK.

It is a connection as the fleet's devices make them (:func:`devicesim.net.mqtt.open_mqtt`), watched. Two things are
done otherwise, both before TLS: where a name has several addresses they are tried one after the other, and each failure
is told, while a device's are tried side by side (RFC 8305); and each then has its share of the deadline.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio
from OpenSSL import crypto

from devicesim.net import tcp
from devicesim.net.clienthello import read_client_hello
from devicesim.net.engine import Connack, Disconnect, Engine, Event, Message, Pong, Version
from devicesim.net.failures import ConnectionFailed, failure_from, one_line
from devicesim.net.mqtt import MQTTClient, MQTTSettings, open_mqtt
from devicesim.net.names import is_ip_literal
from devicesim.net.steps import (
    AddressFailed,
    AlertSeen,
    CertificateFacts,
    ClientCertificate,
    ClientHelloSent,
    ConnackReceived,
    ConnectSent,
    DisconnectReceived,
    DisconnectSent,
    Failed,
    Held,
    MessageReceived,
    NameResolved,
    PingSent,
    PongReceived,
    ServerCertificates,
    Step,
    TCPConnected,
    TLSDone,
    Told,
    Unreadable,
    certificate_facts,
)
from devicesim.net.stream import TLSConnection
from devicesim.net.tls import Deadlines, TLSContext, TLSSettings
from devicesim.outcome import Alert, Failure, Stage, Trace
from devicesim.pki.identity import Identity

_CERTIFICATE_ANSWERED = "write client certificate"
"""How OpenSSL's state ends once the server's request is answered, be it by an empty list."""
_CERTIFICATE_PROVED = "write certificate verify"
"""Follows only where there was a certificate in that list (RFC 8446, 4.4.3; RFC 5246, 7.4.8)."""
_FINISHED = "write finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One connection that is to be made."""

    address: tuple[str, int]
    """What is dialled."""
    server_name: str | None
    """What is sent as SNI; ``None``: no extension."""
    verify_name: str
    """What the server's certificate must be for."""
    client_id: str
    identity: Identity | None
    """``None``: no client certificate."""
    tls: TLSSettings
    """Its chain and ``send_chain`` say what follows the identity's certificate."""
    mqtt: MQTTSettings
    deadlines: Deadlines
    hold: float = 0.0
    """Seconds to stay connected after CONNACK 0."""


async def probe(
    asked: Probe, tell: Callable[[Told], None], clock: Callable[[], float] = trio.current_time
) -> Failure | None:
    """Make the connection and tell each step as it is seen; how it failed, ``None`` where it was accepted and lasted.

    ``tell`` may be called from inside OpenSSL and must neither wait nor raise. Raises what :func:`open_mqtt` raises for
    settings that cannot be, before anything is sent; what the network and the server do is told.
    """
    watch = _Watch(asked, tell, clock)
    context = TLSContext(asked.tls, watch)
    watch.start = clock()
    failure: Failure | None = None
    try:
        async with open_mqtt(
            context,
            asked.address,
            identity=asked.identity,
            server_name=asked.server_name,
            verify_name=asked.verify_name,
            client_id=asked.client_id,
            settings=asked.mqtt,
            deadlines=asked.deadlines,
            trace=_WatchedTrace(start=watch.start, on_reach=watch.reached),
            clock=clock,
        ) as client:
            if asked.hold:
                await _hold(client, asked.hold)
                watch.tell(Held(seconds=asked.hold))
    except ConnectionFailed as exc:
        failure = exc.failure
        watch.tell(Failed(failure=failure))
    return failure


async def _hold(client: MQTTClient, seconds: float) -> None:
    """Stay, and take messages so that their way is free. Raises :class:`ConnectionFailed` when it ends before."""
    with trio.move_on_after(seconds):
        while True:
            await client.receive()


@dataclass(slots=True, kw_only=True)
class _WatchedTrace(Trace):
    on_reach: Callable[[Stage], None] = field(repr=False)

    def reach(self, stage: Stage, now: float) -> None:
        Trace.reach(self, stage, now)
        self.on_reach(stage)


class _Watch:
    """The watcher: makes steps of what it is told."""

    def __init__(self, asked: Probe, tell: Callable[[Told], None], clock: Callable[[], float]) -> None:
        self._asked = asked
        self._tell = tell
        self._clock = clock
        self.start = clock()
        """When the connection begins; not before what it needs is made."""
        self._certificate_requested = False
        self._certificate_told = False

    def tell(self, step: Step) -> None:
        self._tell(Told(at=self._clock() - self.start, step=step))

    # --- TCP

    async def dial(self, host: str, port: int, source: str | None) -> socket.socket:
        if is_ip_literal(host):
            return await self._dial(host, port, source)
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
        self.tell(NameResolved(host=host, addresses=addresses))
        first: Exception | None = None
        for number, address in enumerate(addresses):
            left = len(addresses) - number
            # the last one has all the time that is left: the caller's deadline
            share = (trio.current_effective_deadline() - trio.current_time()) / left if left > 1 else float("inf")
            try:
                with trio.fail_after(share):
                    return await self._dial(address, port, source)
            except (OSError, trio.TooSlowError) as exc:
                first = first or exc
                slow = isinstance(exc, trio.TooSlowError)
                why = f"no TCP connection within {share:.3g} s" if slow else failure_from(exc, Stage.TCP).detail
                self.tell(AddressFailed(address=_with_port(address, port), why=why))
        assert first is not None, "a name that resolves has an address"
        raise first

    async def _dial(self, address: str, port: int, source: str | None) -> socket.socket:
        plain = await tcp.dial(address, port, source)
        sock = _TappedSocket(fileno=plain.detach())
        sock.setblocking(False)
        sock.tapped = self._sent
        self.tell(TCPConnected(address=_with_port(address, port), local_address=_local_address(sock)))
        return sock

    def _sent(self, flight: bytes) -> bool:
        """Bytes went out; whether more of them are wanted."""
        hello = read_client_hello(flight)
        if hello is not None:
            self.tell(ClientHelloSent(hello=hello))
        return hello is None

    # --- TLS

    def handshake(self, state: str) -> None:
        if state.endswith(_CERTIFICATE_ANSWERED):
            self._certificate_requested = True
        elif state.endswith(_CERTIFICATE_PROVED):
            self._tell_certificate(sent=True)
        elif state.endswith(_FINISHED):
            self._tell_certificate(sent=False)

    def _tell_certificate(self, *, sent: bool) -> None:
        if self._certificate_told:
            return
        self._certificate_told = True
        identity, tls = self._asked.identity, self._asked.tls
        facts = None if identity is None or not sent else certificate_facts(identity.certificate)
        self.tell(
            ClientCertificate(
                requested=self._certificate_requested,
                given=identity is not None,
                sent=facts,
                issuers=len(tls.chain) if facts is not None and tls.send_chain else 0,
            )
        )

    def server(
        self, presented: tuple[crypto.X509, ...], chain_refusal: Exception | None, name_refusal: Exception | None
    ) -> None:
        self.tell(
            ServerCertificates(
                presented=tuple(map(_facts, presented)),
                verify_name=self._asked.verify_name,
                chain_refused=_why(chain_refusal),
                name_refused=_why(name_refusal),
            )
        )

    def alert(self, alert: Alert) -> None:
        self.tell(AlertSeen(alert=alert))

    def secured(self, connection: TLSConnection) -> None:
        self.tell(
            TLSDone(
                version=connection.version,
                cipher=connection.cipher,
                group=connection.group,
                alpn=connection.alpn_protocol,
            )
        )

    # --- MQTT

    def engine(self, client_id: str, *, version: Version, clean_start: bool) -> Engine:
        return _WatchedEngine(self, client_id, version=version, clean_start=clean_start)

    def reached(self, stage: Stage) -> None:
        if stage is Stage.CONNECT:
            settings = self._asked.mqtt
            self.tell(
                ConnectSent(
                    client_id=self._asked.client_id,
                    version=settings.version,
                    keep_alive=settings.keep_alive,
                    clean_start=settings.clean_start,
                )
            )

    def received(self, event: Event) -> None:
        match event:
            case Connack():
                self.tell(ConnackReceived(connack=event))
            case Message():
                self.tell(MessageReceived(message=event))
            case Pong():
                self.tell(PongReceived())
            case Disconnect():
                self.tell(DisconnectReceived(words=event.words))


class _WatchedEngine(Engine):
    """Tells what comes in, and what it sends by itself."""

    __slots__ = ("_watch",)

    def __init__(self, watch: _Watch, client_id: str, *, version: Version, clean_start: bool) -> None:
        super().__init__(client_id, version=version, clean_start=clean_start)
        self._watch = watch

    def next_event(self) -> Event | None:
        event = super().next_event()
        if event is not None:
            self._watch.received(event)
        return event

    def ping(self) -> None:
        super().ping()
        self._watch.tell(PingSent())

    def disconnect(self) -> None:
        super().disconnect()
        self._watch.tell(DisconnectSent())


class _TappedSocket(socket.socket):
    """Shows what goes out, from the start, for as long as somebody wants to see it."""

    tapped: Callable[[bytes], bool] | None = None
    _shown = b""

    def send(self, data: bytes, flags: int = 0, /) -> int:  # type: ignore[override]  # bytes are all that is sent
        count = super().send(data, flags)
        if self.tapped is not None:
            self._shown += data[:count]
            if not self.tapped(self._shown):
                self.tapped = None
        return count


def _facts(certificate: crypto.X509) -> CertificateFacts | Unreadable:
    try:
        return certificate_facts(certificate.to_cryptography())
    except ValueError as exc:
        return Unreadable(why=one_line(str(exc)))


def _why(refusal: Exception | None) -> str:
    return "" if refusal is None else failure_from(refusal, Stage.TLS).detail


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _local_address(sock: socket.socket) -> str:
    with suppress(OSError):  # reset already: the first read will tell
        name = sock.getsockname()
        return _with_port(name[0], name[1])
    return ""
