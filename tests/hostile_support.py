"""What the hostile tests share: a server whose memory, descriptors and verdicts are looked at from outside, and
clients that use nothing but sockets and OpenSSL."""

import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from devicesim.emulator.encode import encode
from devicesim.emulator.packets import Connect, ProtocolVersion
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem
from devicesim.pki.profile import KeyType, Profile, Subject
from tests.hostile_server import ACCOUNT, REGION

ROOT = Path(__file__).parents[1]
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
PATIENCE = 20.0
"""Seconds after which something that should have happened has not."""
CONNECTION_VERDICTS = ("admitted", "registered", "pending", "refused", "denied", "no_connect", "handshake_failed")
"""One of them for every connection that was ever accepted, but those that are not through yet."""


@cache
def authority() -> Authority:
    return new_shared_authority("hostile", KeyType.EC_P256, now=datetime.now(UTC), validity=timedelta(days=30))


@cache
def device(index: int) -> Identity:
    return authority().mint(index, secret=b"h" * 32, profile=Profile(subject=Subject(common_name="robot-{index}")))


@dataclass
class Server:
    """A running emulator."""

    process: subprocess.Popen[bytes]
    ready: dict[str, Any]
    log: Path
    endpoint: str = field(init=False)

    def __post_init__(self) -> None:
        self.endpoint = self.ready["accounts"][0]["endpoint"]

    @property
    def mqtt(self) -> tuple[str, int]:
        return self.door("mqtt")

    def door(self, name: str) -> tuple[str, int]:
        """Address of ``mqtt`` (AWS's 8883) or ``mqtt_alpn`` (its 443)."""
        return self.ready[name]["host"], self.ready[name]["port"]

    def http(self, which: str) -> tuple[str, int]:
        """Address of ``api`` or ``admin``."""
        host, _, port = self.ready[which].removeprefix("http://").rpartition(":")
        return host, int(port)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One good API call, which must succeed."""
        scope = f"{ACCOUNT}/{datetime.now(UTC):%Y%m%d}/{REGION}/iot/aws4_request"
        headers = {
            "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={'0' * 64}",
            "content-type": "application/json",
            "connection": "close",
        }
        status, answer = self.request("api", method, path, json.dumps(body) if body is not None else None, headers)
        assert status == 200, answer
        return json.loads(answer) if answer else None

    def request(
        self, which: str, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self.http(which), timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {"connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def verdicts(self) -> dict[str, int]:
        """How many of each there ever were."""
        status, body = self.request("admin", "GET", "/health")
        assert status == 200, body
        counts: dict[str, int] = json.loads(body)["verdicts"]
        return counts

    def decided(self) -> int:
        """Connections that have come to a verdict."""
        counts = self.verdicts()
        return sum(counts.get(verdict, 0) for verdict in CONNECTION_VERDICTS)

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss(self) -> float:
        """Resident memory in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def register(self, identity: Identity) -> None:
        """An ACTIVE certificate that may do everything."""
        body = {"certificatePem": certificate_pem(identity.certificate), "status": "ACTIVE"}
        arn = self.call("POST", "/certificate/register-no-ca", body)["certificateArn"]
        self.call("PUT", "/target-policies/all", {"target": arn})

    def check_serves(self, identity: Identity, client_id: str = "good") -> None:
        """A device that behaves connects, as if nothing else were going on."""
        with self.tls(identity) as tls:
            tls.send(
                encode(Connect(client_id=client_id, version=ProtocolVersion.V311, keep_alive=60), ProtocolVersion.V311)
            )
            assert tls.recv(4) == b"\x20\x02\x00\x00"

    @contextmanager
    def tcp(self, address: tuple[str, int] | None = None) -> Iterator[socket.socket]:
        """A connection on which neither side waits for ever."""
        sock = socket.create_connection(address or self.mqtt, timeout=PATIENCE)
        sock.settimeout(None)  # pyOpenSSL takes a socket with a timeout for a non-blocking one
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(PATIENCE), 0))
        with sock:
            yield sock

    @contextmanager
    def tls(
        self, identity: Identity | None, door: str = "mqtt", alpn: Sequence[bytes] = ()
    ) -> Iterator[SSL.Connection]:
        """A connection whose handshake is complete."""
        with self.tcp(self.door(door)) as sock:
            tls = client(identity, self.endpoint, sock, alpn=alpn)
            tls.do_handshake()
            yield tls


def client(
    identity: Identity | None,
    server_name: str,
    sock: socket.socket | None,
    chain: Sequence[x509.Certificate] = (),
    alpn: Sequence[bytes] = (),
) -> SSL.Connection:
    """A TLS client before its handshake; without ``sock`` it is in memory."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if identity is not None:
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        for certificate in chain:
            context.add_extra_chain_cert(certificate)
    if alpn:
        context.set_alpn_protos(list(alpn))
    tls = SSL.Connection(context, sock)
    tls.set_tlsext_host_name(server_name.encode())
    tls.set_connect_state()
    return tls


def read_to_end(sock: socket.socket) -> bytes:
    """Until the peer closes or resets."""
    data = b""
    try:
        while chunk := sock.recv(65_536):
            data += chunk
    except ConnectionError:
        pass
    return data


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Poll; a condition that does not come about fails the test."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not happened within {seconds:g} s"
        time.sleep(0.02)


@contextmanager
def running_server(directory: Path, **settings: object) -> Iterator[Server]:
    """A server with one policy ``all`` and device 0 registered. Whatever came, at the end it lives and has logged no
    failure of its own."""
    log = directory / "server.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile_server", json.dumps(settings)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text(encoding="utf-8")
        server = Server(process, json.loads(line), log)
        server.call("POST", "/policies/all", {"policyDocument": POLICY})
        server.register(device(0))
        yield server
        assert process.poll() is None, "the server has died"
        server.check_serves(device(0))
        assert "failed" not in server.verdicts()
        assert "Traceback" not in log.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.communicate()
