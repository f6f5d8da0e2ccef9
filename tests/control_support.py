"""What the tests of the emulator's control plane share: a clock that is told the time, certificates of every kind."""

import base64
import queue
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from devicesim.emulator.api import ControlPlane
from devicesim.emulator.apierrors import APIError, invalid_request
from devicesim.emulator.httpd import ControlPlaneApp, serve_http
from devicesim.emulator.registry import Registry
from devicesim.emulator.state.environment import ControlSettings

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
A, B, C = "111111111111", "222222222222", "333333333333"
REGION = "us-east-1"
BAD_TEMPLATE = "not a template"

AnyKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float = NOW.timestamp()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def validate_template(body: str) -> None:
    """Stands for the template language: everything is a template but one text."""
    if body == BAD_TEMPLATE:
        raise invalid_request("Invalid registration template.")


def code_of(call: Callable[[], object]) -> str:
    """The error code with which the call is refused."""
    with pytest.raises(APIError) as caught:
        call()
    return caught.value.code


def make_registry(clock: Callable[[], float] | None = None, settings: ControlSettings | None = None) -> Registry:
    return Registry(
        clock=clock or Clock(),
        randbytes=random.Random(7).randbytes,
        template_validator=validate_template,
        settings=settings,
    )


@cache
def make_key(name: str = "", kind: str = "P-256") -> AnyKey:
    """One key for each name, made once: keys are slow to make and may be known in a test."""
    match kind:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "P-521":
            return ec.generate_private_key(ec.SECP521R1())
        case "secp256k1":
            return ec.generate_private_key(ec.SECP256K1())
        case "RSA-1024":
            return rsa.generate_private_key(65537, 1024)
        case "RSA-2048":
            return rsa.generate_private_key(65537, 2048)
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "DSA":
            return dsa.generate_private_key(2048)
    raise ValueError(kind)


def make_certificate(
    subject: str,
    *,
    key: AnyKey,
    issuer: str | None = None,
    issuer_key: AnyKey | None = None,
    ca: bool | None = False,
    not_before: datetime = NOW - timedelta(days=1),
    not_after: datetime = NOW + timedelta(days=365),
    algorithm: hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None,
    rsa_padding: padding.PSS | None = None,
    serial: int | None = None,
) -> x509.Certificate:
    """``ca=None`` leaves basicConstraints out."""
    signer = issuer_key or key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer or subject))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    eddsa = isinstance(signer, ed25519.Ed25519PrivateKey)
    return builder.sign(signer, None if eddsa else algorithm or hashes.SHA256(), rsa_padding=rsa_padding)


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def odd_certificate(kind: str) -> str:
    """The PEM of a certificate that ``cryptography`` can not look into, though TLS libraries take it."""
    key = make_key("odd")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    if kind == "version 2":
        der = make_certificate("odd", key=key).public_bytes(Encoding.DER)
        odd = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020101"), 1)
        assert odd != der
        return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(odd).decode()}-----END CERTIFICATE-----\n"
    tag = {"x400Address": "a3", "ediPartyName": "a5"}[kind]
    names = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), bytes.fromhex(f"3004{tag}020500"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("odd"))
        .issuer_name(name("odd"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(names, critical=False)
    )
    return pem(builder.sign(key, hashes.SHA256()))


@dataclass
class TestCA:
    """A CA that a test can sign with."""

    __test__ = False

    subject: str = "Shared CA"
    key: AnyKey = field(default_factory=lambda: make_key("ca"))
    serial: int = 1

    @property
    def certificate(self) -> x509.Certificate:
        return _ca_certificate(self.subject, self.key, self.serial)

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    def leaf(self, common_name: str = "device", *, key: AnyKey | None = None) -> x509.Certificate:
        key = key or make_key("leaf")
        return make_certificate(common_name, key=key, issuer=self.subject, issuer_key=self.key)

    def verification(self, code: str) -> str:
        """The PEM of a verification certificate for ``code``."""
        return pem(self.leaf(code, key=make_key("verification")))


@cache
def _ca_certificate(subject: str, key: AnyKey, serial: int) -> x509.Certificate:
    return make_certificate(subject, key=key, ca=True, serial=serial)


@dataclass(frozen=True)
class RunningAPI:
    """A control plane that listens on loopback."""

    api: str
    """Its URL."""


@asynccontextmanager
async def running_api(registry: Registry) -> AsyncIterator[RunningAPI]:
    """Serve the control plane alone for as long as the block lasts."""
    control_plane = ControlPlane(registry)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_http, ControlPlaneApp(control_plane), "127.0.0.1")
        yield RunningAPI(f"http://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()


@contextmanager
def running_api_in_a_thread(registry: Registry) -> Iterator[RunningAPI]:
    """The same for tests that block: boto3, subprocesses."""
    ready: queue.Queue[RunningAPI] = queue.Queue()
    stop = trio.Event()
    token: list[trio.lowlevel.TrioToken] = []

    async def run() -> None:
        token.append(trio.lowlevel.current_trio_token())
        async with running_api(registry) as running:
            ready.put(running)
            await stop.wait()

    thread = threading.Thread(target=trio.run, args=(run,), daemon=True)
    thread.start()
    try:
        yield ready.get(timeout=20)
    finally:
        token[0].run_sync_soon(stop.set)
        thread.join(timeout=20)
        assert not thread.is_alive()
