"""A gateway on loopback sockets, and a TLS client for it that knows nothing of ``devicesim.net``."""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import trio
from cryptography import x509
from OpenSSL import SSL

from devicesim.emulator.admission import Door
from devicesim.emulator.decode import Decoder
from devicesim.emulator.encode import encode
from devicesim.emulator.gateway import Gateway, Listener, bind
from devicesim.emulator.packets import ConnAck, Connect, Packet, ProtocolVersion
from devicesim.emulator.servertls import ServerContexts
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity
from devicesim.pki.profile import KeyType
from tests.emulator_support import EPOCH, REGION, V311, World

TEST_SECONDS = 20
"""A test that waits longer for its sockets has failed."""
TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION

Result = TypeVar("Result")


@dataclass(slots=True)
class Running:
    """A gateway under way, one listener for each Region."""

    world: World
    gateway: Gateway
    listeners: dict[str, Listener]
    root: Authority
    alpn_listeners: dict[str, Listener]
    """By Region, when asked for."""

    @property
    def port(self) -> int:
        return self.listeners[REGION].port

    @property
    def alpn_port(self) -> int:
        return self.alpn_listeners[REGION].port


@asynccontextmanager
async def open_gateway(
    world: World,
    regions: Sequence[str] = (REGION,),
    *,
    listener: Callable[[Door], Listener] | None = None,
    alpn: bool = False,
) -> AsyncIterator[Running]:
    """Serve ``world`` on 127.0.0.1; ends with every socket closed. ``listener`` makes the sockets, for faulty ones;
    ``alpn`` adds a second door to each Region, as port 443."""
    world.monotonic = trio.current_time
    root = new_shared_authority("emulator root", KeyType.EC_P256, now=EPOCH, validity=timedelta(days=800))
    contexts = ServerContexts(root, settings=world.settings, now=world.epoch())
    listeners, alpn_listeners = {}, {}
    for region in regions:
        door = Door(region=region, elsewhere=frozenset(regions[1:]) if region == regions[0] else None)
        listeners[region] = bind(door, "127.0.0.1", 0) if listener is None else listener(door)
        if alpn:
            alpn_listeners[region] = bind(replace(door, alpn=True), "127.0.0.1", 0)
    gateway = Gateway(world.plane, contexts, (*listeners.values(), *alpn_listeners.values()))
    with trio.fail_after(TEST_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run)
            yield Running(world, gateway, listeners, root, alpn_listeners)
            nursery.cancel_scope.cancel()


class TLSClient:
    """One device's connection: MQTT packets over pyOpenSSL on a non-blocking socket."""

    def __init__(self, sock: socket.socket, tls: SSL.Connection, version: ProtocolVersion) -> None:
        self.sock = sock
        self.tls = tls
        self.version = version
        self._decoder = Decoder(max_packet_size=1 << 20, version=version)

    async def _drive(self, act: Callable[[], Result]) -> Result:
        while True:
            try:
                return act()
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(self.sock)
            except SSL.WantWriteError:
                await trio.lowlevel.wait_writable(self.sock)

    async def handshake(self) -> None:
        await self._drive(self.tls.do_handshake)

    async def send(self, *packets: Packet) -> None:
        await self.send_bytes(b"".join(encode(packet, self.version) for packet in packets))

    async def send_bytes(self, data: bytes) -> None:
        while data:
            sent = await self._drive(partial(self.tls.send, data))
            data = data[sent:]

    async def receive(self) -> Packet | None:
        """The next packet; ``None`` when the server has closed with close_notify. Anything ruder raises."""
        while True:
            packet = self._decoder.next_packet()
            if packet is not None:
                return packet
            try:
                data = await self._drive(lambda: self.tls.recv(65_536))
            except SSL.ZeroReturnError:
                return None
            self._decoder.feed(data)

    async def connect(self, client_id: str = "c", **fields: object) -> Packet | None:
        """CONNECT, and the first packet that came back; ``None`` is AWS's refusal."""
        await self.send(Connect(client_id=client_id, version=self.version, **fields))  # type: ignore[arg-type]
        return await self.receive()

    async def connected(self, client_id: str = "c", **fields: object) -> "TLSClient":
        answer = await self.connect(client_id, **fields)
        assert isinstance(answer, ConnAck), answer
        assert answer.reason_code == 0
        return self


def client_context(
    identity: Identity | None,
    *,
    tls_version: int | None = None,
    chain: Sequence[x509.Certificate] = (),
    alpn: Sequence[bytes] = (),
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if tls_version is not None:
        context.set_min_proto_version(tls_version)
        context.set_max_proto_version(tls_version)
    if identity is not None:
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
    if alpn:
        context.set_alpn_protos(list(alpn))
    return context


@asynccontextmanager
async def open_client(
    port: int,
    identity: Identity | None,
    server_name: str | bytes | None,
    *,
    version: ProtocolVersion = V311,
    tls_version: int | None = None,
    chain: bool = False,
    alpn: Sequence[bytes] = (),
    handshake: bool = True,
) -> AsyncIterator[TLSClient]:
    """A client whose handshake is complete; the server's certificate is not verified unless the test does it."""
    issuers = identity.chain if identity is not None and chain else ()
    context = client_context(identity, tls_version=tls_version, chain=issuers, alpn=alpn)
    async with open_tcp(port) as sock:
        tls = SSL.Connection(context, sock)
        tls.set_connect_state()
        if server_name is not None:
            raw = server_name.encode() if isinstance(server_name, str) else server_name
            tls.set_tlsext_host_name(raw)
        client = TLSClient(sock, tls, version)
        if handshake:
            await client.handshake()
        yield client


@asynccontextmanager
async def open_tcp(port: int) -> AsyncIterator[socket.socket]:
    """A plain non-blocking connection."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Nagle would send later what was said earlier
    try:
        try:
            sock.connect(("127.0.0.1", port))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        yield sock
    finally:
        sock.close()


async def read_to_end(sock: socket.socket) -> bytes:
    """Whatever comes until the peer closes."""
    data = b""
    while True:
        await trio.lowlevel.wait_readable(sock)
        chunk = sock.recv(65_536)
        if not chunk:
            return data
        data += chunk


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the gateway will have done soon; the test's deadline bounds it."""
    while not condition():  # noqa: ASYNC110 - the gateway has no events for tests
        await trio.sleep(0.002)
