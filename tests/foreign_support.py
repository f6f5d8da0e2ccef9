"""A gateway on the real clock for programs that nobody here wrote, and what it takes to run them.

``*.localhost`` does not resolve everywhere, and the name that a program dials is what it sends as server name. So
programs dial the endpoint's name through a proxy on loopback, SOCKS5 or HTTP CONNECT, that takes every name for this
machine.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio

from devicesim.emulator.admission import Door
from devicesim.emulator.clock import Clock
from devicesim.emulator.core import Core
from devicesim.emulator.dataplane import DataPlane
from devicesim.emulator.gateway import Gateway, bind
from devicesim.emulator.history import History
from devicesim.emulator.quotas import Quotas
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.servertls import ServerContexts
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import CertificateMode, CertificateStatus, RegistrationConfig
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem, private_key_pem
from devicesim.pki.profile import KeyType, Profile
from tests.emulator_support import ALLOW_ALL, REGION, ROLE, A

SECONDS = 20


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"the program {program} is not installed")


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Emulator:
    """A gateway on the real clock, with the root's certificate on disk for foreign programs."""

    registry: Registry
    plane: DataPlane
    history: History
    port: int
    ca_file: Path
    directory: Path
    ca: Authority
    proxy: int
    """Port of the SOCKS5 proxy."""
    http_proxy: int
    """Port of the proxy that speaks HTTP CONNECT."""
    alpn_port: int
    """Of the second door, which stands for port 443."""

    def account(self, account_id: str = A) -> Partition:
        return self.registry.partition(account_id, REGION)

    def register_ca(self, account: Partition, mode: str = "SNI_ONLY", template_body: str | None = None) -> None:
        """For JITR; for JITP with a template."""
        config = None if template_body is None else RegistrationConfig(template_body=template_body, role_arn=ROLE)
        verification = None
        if mode == "DEFAULT":
            code = self.registry.cas.registration_code(account)
            start = now() - timedelta(minutes=1)
            proof = self.ca.verification_certificate(code, not_before=start, not_after=now() + timedelta(hours=1))
            verification = certificate_pem(proof.certificate)
        self.registry.cas.register(
            account,
            certificate_pem(self.ca.certificate),
            verification_pem=verification,
            mode=CertificateMode(mode),
            active=True,
            auto_registration=True,
            registration_config=config,
        )

    def activate(self, account: Partition, identity: Identity) -> None:
        if identity.certificate_id in account.certificates:
            self.registry.certificates.update(account, identity.certificate_id, CertificateStatus.ACTIVE)
        else:
            pem = certificate_pem(identity.certificate)
            self.registry.certificates.register(account, pem, status=CertificateStatus.ACTIVE)
        if "all" not in account.policies:
            self.registry.policies.create(account, "all", ALLOW_ALL)
        self.registry.policies.attach(account, "all", account.certificate_arn(identity.certificate_id))

    def device(self, index: int) -> tuple[Identity, tuple[Path, Path]]:
        """An identity, and the files of its certificate and key."""
        identity = self.ca.mint(index, secret=b"s" * 32, profile=Profile(names={"fleet": "robot"}))
        certificate, key = self.directory / f"{index}.crt", self.directory / f"{index}.key"
        certificate.write_text(certificate_pem(identity.certificate))
        key.write_text(private_key_pem(identity.key))
        return identity, (certificate, key)


Ports = Mapping[int, int]
"""Where a program that dials AWS's port is taken."""


async def socks5(ports: Ports, client: trio.SocketStream) -> None:
    """SOCKS5 (RFC 1928) without authentication: CONNECT by name, whatever the name, to this machine."""
    greeting = await client.receive_some(300)
    assert greeting[:1] == b"\x05"
    await client.send_all(b"\x05\x00")
    request = await client.receive_some(300)
    assert request[:4] == b"\x05\x01\x00\x03"
    port = int.from_bytes(request[-2:], "big")
    await relay(client, ports.get(port, port), b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")


async def http_connect(ports: Ports, client: trio.SocketStream) -> None:
    """HTTP CONNECT (RFC 9110, 9.3.6) to this machine, whatever the name."""
    request = b""
    while b"\r\n\r\n" not in request:
        data = await client.receive_some(4096)
        if not data:
            return
        request += data
    target = request.split(b" ", 2)[1]
    assert request.startswith(b"CONNECT ")
    port = int(target.rpartition(b":")[2])
    await relay(client, ports.get(port, port), b"HTTP/1.1 200 Connection established\r\n\r\n")


async def relay(client: trio.SocketStream, port: int, answer: bytes) -> None:
    """Say ``answer``, and carry bytes both ways between the client and 127.0.0.1:port."""
    server = await trio.open_tcp_stream("127.0.0.1", port)
    async with client, server, trio.open_nursery() as nursery:
        await client.send_all(answer)
        nursery.start_soon(pipe, client, server, nursery.cancel_scope)
        nursery.start_soon(pipe, server, client, nursery.cancel_scope)


async def pipe(source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some():
            await target.send_all(data)
        await target.send_eof()
    except trio.BrokenResourceError:
        both.cancel()  # a reset (a killed client has bytes unread) ends the connection in both directions


@asynccontextmanager
async def open_emulator(directory: Path, seconds: float = SECONDS) -> AsyncIterator[Emulator]:
    settings = Settings(quotas=Quotas.lifted())  # programs connect again at once, with the same client id
    numbers = iter(range(1 << 30))
    core = Core(
        settings=settings,
        clock=Clock(wall=lambda: now().timestamp(), monotonic=trio.current_time),
        randbytes=lambda size: next(numbers).to_bytes(size, "big"),
        uniform=lambda low, high: 0.05,
        new_id=lambda: f"id-{next(numbers)}",
    )
    registry, plane, history = core.registry, core.plane, core.history
    root = new_shared_authority("emulator root", KeyType.EC_P256, now=now(), validity=timedelta(days=400))
    ca_file = directory / "root.pem"
    ca_file.write_text(certificate_pem(root.certificate))
    contexts = ServerContexts(root, settings=settings, now=now().timestamp())
    listener = bind(Door(region=REGION, elsewhere=frozenset()), "127.0.0.1", 0)
    alpn = bind(Door(region=REGION, elsewhere=frozenset(), alpn=True), "127.0.0.1", 0)
    gateway = Gateway(plane, contexts, (listener, alpn))
    ca = new_shared_authority("Shared CA", KeyType.EC_P256, now=now(), validity=timedelta(days=9))
    with trio.fail_after(seconds):
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run)
            ports = []
            known = {8883: listener.port, 443: alpn.port}
            for proxy in (partial(socks5, known), partial(http_connect, known)):
                (listening,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                nursery.start_soon(trio.serve_listeners, proxy, [listening])
                ports.append(listening.socket.getsockname()[1])
            yield Emulator(
                registry=registry,
                plane=plane,
                history=history,
                port=listener.port,
                alpn_port=alpn.port,
                ca_file=ca_file,
                directory=directory,
                ca=ca,
                proxy=ports[0],
                http_proxy=ports[1],
            )
            nursery.cancel_scope.cancel()


def words(command: Sequence[str | Path]) -> list[str]:
    return [str(part) for part in command]


async def run(*command: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A program to its end, whatever its exit code."""
    return await trio.run_process(words(command), stdin=stdin, capture_stdout=True, capture_stderr=True, check=False)


Files = tuple[Path, Path]
"""A device's certificate and key."""


def mosquitto(emulator: Emulator, program: str, files: Files, host: str, *more: str) -> list[str | Path]:
    """mosquitto's SNI is the host that it dials; ``host`` is a name here, and dialled through the proxy."""
    certificate, key = files
    return [
        program,
        *("-h", host, "-p", str(emulator.port), "--proxy", f"socks5h://127.0.0.1:{emulator.proxy}"),
        *("--cafile", emulator.ca_file, "--cert", certificate, "--key", key),
        *more,
    ]
