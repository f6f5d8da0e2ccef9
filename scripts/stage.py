"""What contenders of bench_connect.py connect to: mosquitto in a process of its own, and a certificate for each device.

mosquitto wants a certificate of the devices' CA, and its log names the subject of each that connected: by that log the
bench knows that every connection was there, each with its own certificate.
"""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from floor import TLSVersion

from devicesim.pki.authority import new_shared_authority
from devicesim.pki.identity import certificate_pem, private_key_pem
from devicesim.pki.profile import KeyType, Profile, Subject

HOST = "127.0.0.1"
SERVER_NAME = "broker.localhost"
"""On the server's certificate beside the address: most peers can verify only what they dial, and dial the address, so
that nobody's figure has the resolution of a name in it."""
PATIENCE = 20.0
"""Seconds for mosquitto to listen."""

_SECRET = b"bench_connect.py: keys of no value"
_CLIENT = re.compile(r"New client connected from \S+ as (\S+) \(p\d+, c\d, k\d+, u'([^']*)'\)")
_MAX_PROTOCOL = """openssl_conf = top
[top]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
MinProtocol = TLSv{version}
MaxProtocol = TLSv{version}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    port: int
    pid: int
    log: Path

    def clients(self) -> list[tuple[str, str]]:
        """Client id and common name of everybody who was accepted so far, in this order."""
        return _CLIENT.findall(self.log.read_text(encoding="utf-8", errors="replace"))


def find_mosquitto() -> str:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit("mosquitto is not installed; on Debian: apt install mosquitto")
    return found


def mint(directory: Path, count: int) -> None:
    """Devices 0 to ``count`` - 1 as ``NNNNNN.pem``, the broker's ``server.pem``, and the CAs, all P-256."""
    now = datetime.now(UTC)
    devices = new_shared_authority("bench devices", KeyType.EC_P256, now=now, validity=timedelta(days=1))
    servers = new_shared_authority("bench servers", KeyType.EC_P256, now=now, validity=timedelta(days=1))
    server = servers.issue_server(
        [SERVER_NAME, HOST],
        key_type=KeyType.EC_P256,
        not_before=now - timedelta(minutes=5),
        not_after=now + timedelta(days=1),
    )
    (directory / "servers-ca.pem").write_text(certificate_pem(servers.certificate))
    (directory / "devices-ca.pem").write_text(certificate_pem(devices.certificate))
    (directory / "server.pem").write_text(certificate_pem(server.certificate))
    (directory / "server.key").write_text(private_key_pem(server.key))
    profile = Profile(subject=Subject(common_name="device-{index:06d}"))
    for number in range(count):
        (directory / f"{number:06d}.pem").write_text(devices.mint(number, secret=_SECRET, profile=profile).pem())


@contextmanager
def mosquitto(directory: Path, version: TLSVersion, prepare: Callable[[], None]) -> Iterator[Broker]:
    """A broker that speaks only this version; ``prepare`` is called in its process before it is one."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    lines = [
        # without it CONNACK waits for the acknowledgement of TLS 1.3's session tickets, which clients delay by 40 ms
        "set_tcp_nodelay true",
        f"listener {port} {HOST}",
        f"cafile {directory}/devices-ca.pem",
        f"certfile {directory}/server.pem",
        f"keyfile {directory}/server.key",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        *(["user root"] if os.geteuid() == 0 else []),
    ]
    (directory / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    # mosquitto's own tls_version says the lowest only
    (directory / "openssl.cnf").write_text(_MAX_PROTOCOL.format(version=version))
    log = directory / "mosquitto.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [find_mosquitto(), "-c", directory / "mosquitto.conf"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OPENSSL_CONF": str(directory / "openssl.cnf")},
            preexec_fn=prepare,
        )
    try:
        spoken = _wait_for(process, port, directory)
        if spoken != f"TLSv{version}":
            raise SystemExit(f"mosquitto speaks {spoken}, not TLSv{version}: its OpenSSL does not heed OPENSSL_CONF")
        yield Broker(port=port, pid=process.pid, log=log)
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, directory: Path) -> str | None:
    """The TLS version that it speaks, as soon as it listens."""
    context = ssl.create_default_context(cafile=str(directory / "servers-ca.pem"))
    context.load_cert_chain(directory / "000000.pem")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with (
                socket.create_connection((HOST, port), timeout=PATIENCE) as sock,
                context.wrap_socket(sock, server_hostname=SERVER_NAME) as tls,
            ):
                return tls.version()
        except ConnectionRefusedError:
            time.sleep(0.02)
    log = (directory / "mosquitto.log").read_text(encoding="utf-8", errors="replace").strip()
    raise SystemExit(f"mosquitto does not listen on port {port}, exit code {process.poll()}: {log[-300:]}")
