"""The gateway against programs that nobody here wrote: mosquitto's clients and OpenSSL's s_client.

Each test is skipped, with its reason, only where the program is not installed (Debian: ``apt-get install
mosquitto-clients openssl``).
"""

import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
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
from devicesim.emulator.registry import Partition, Registry
from devicesim.emulator.servertls import ServerContexts
from devicesim.emulator.settings import Settings
from devicesim.emulator.state.records import CertificateMode, CertificateStatus
from devicesim.pki.authority import Authority, new_shared_authority
from devicesim.pki.identity import Identity, certificate_pem, private_key_pem
from devicesim.pki.profile import KeyType, Profile
from tests.emulator_support import ALLOW_ALL, REGION, A, B
from tests.gateway_support import until

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
    """Port of a SOCKS5 proxy that takes every name for this gateway's: ``*.localhost`` does not resolve everywhere."""

    def account(self, account_id: str = A) -> Partition:
        return self.registry.partition(account_id, REGION)

    def register_ca(self, account: Partition, mode: str = "SNI_ONLY") -> None:
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


async def relay(port: int, client: trio.SocketStream) -> None:
    """SOCKS5 (RFC 1928) without authentication: CONNECT by name, whatever the name, to 127.0.0.1:port."""
    greeting = await client.receive_some(300)
    assert greeting[:1] == b"\x05"
    await client.send_all(b"\x05\x00")
    request = await client.receive_some(300)
    assert request[:4] == b"\x05\x01\x00\x03"
    server = await trio.open_tcp_stream("127.0.0.1", port)
    await client.send_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    async with client, server, trio.open_nursery() as nursery:
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
async def open_emulator(directory: Path) -> AsyncIterator[Emulator]:
    settings = Settings()
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
    gateway = Gateway(plane, contexts, (listener,))
    ca = new_shared_authority("Shared CA", KeyType.EC_P256, now=now(), validity=timedelta(days=9))
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run)
            proxies = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, partial(relay, listener.port), proxies)
            proxy = proxies[0].socket.getsockname()[1]
            yield Emulator(registry, plane, history, listener.port, ca_file, directory, ca, proxy)
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


@needs("mosquitto_pub")
class TestMosquitto:
    @pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
    async def test_first_connection_is_lost_and_the_next_publishes(self, tmp_path: Path, version: str) -> None:
        """§3 "what the device sees": "The connection was lost", and then it works."""
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            identity, files = emulator.device(1)
            command = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-V", version, "-i", "robot-1")
            publish = [*command, "-q", "1", "-t", "t", "-m", "hello"]
            refused = await run(*publish)

            assert refused.returncode != 0
            assert account.certificates[identity.certificate_id].status == "PENDING_ACTIVATION"

            emulator.activate(account, identity)
            accepted = await run(*publish)

            assert (accepted.returncode, accepted.stderr) == (0, b"")

    @pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
    async def test_a_subscriber_gets_what_a_publisher_sends(self, tmp_path: Path, version: str) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            devices = [emulator.device(index) for index in (1, 2)]
            for identity, _ in devices:
                emulator.activate(account, identity)
            (_, sub), (_, pub) = devices
            where = (account.endpoint, "-V", version, "-q", "1")
            subscribe = mosquitto(emulator, "mosquitto_sub", sub, *where, "-i", "s", "-t", "site/+", "-C", "2", "-v")
            results: list[subprocess.CompletedProcess[bytes]] = []

            async def listen() -> None:
                results.append(await run(*subscribe))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await until(lambda: emulator.plane.load(account).subscriptions == 1)
                for text in ("one", "x" * 100_000):
                    publish = mosquitto(emulator, "mosquitto_pub", pub, *where, "-i", "p", "-t", "site/a", "-m", text)
                    done = await run(*publish)
                    assert (done.returncode, done.stderr) == (0, b"")
            assert results[0].returncode == 0
            assert results[0].stdout.decode().splitlines() == ["site/a one", "site/a " + "x" * 100_000]

    async def test_qos_2_is_refused_by_version(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            identity, files = emulator.device(1)
            emulator.activate(account, identity)
            publish = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-i", "c", "-t", "t", "-m", "x")
            for version in ("mqttv311", "mqttv5"):
                done = await run(*publish, "-q", "2", "-V", version)
                assert done.returncode != 0 or b"QoS" in done.stderr
            assert emulator.history.select(verdict="disconnected")[0].detail == "PUBLISH with QoS 2"

    async def test_the_will_of_a_client_that_is_killed(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account)
            devices = [emulator.device(index) for index in (1, 2)]
            for identity, _ in devices:
                emulator.activate(account, identity)
            (_, watcher), (_, victim) = devices
            watch = mosquitto(
                emulator, "mosquitto_sub", watcher, account.endpoint, "-i", "w", "-t", "wills/#", "-C", "1"
            )
            live = mosquitto(emulator, "mosquitto_sub", victim, account.endpoint, "-i", "v", "-t", "other")
            live += ["--will-topic", "wills/v", "--will-payload", "gone"]
            results: list[subprocess.CompletedProcess[bytes]] = []

            async def listen() -> None:
                results.append(await run(*watch))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await until(lambda: emulator.plane.load(account).subscriptions == 1)
                process: trio.Process = await nursery.start(partial(trio.run_process, words(live), check=False))
                await until(lambda: emulator.plane.load(account).subscriptions == 2)
                process.kill()
            assert results[0].stdout == b"gone\n"

    async def test_dialling_an_address_sends_it_as_name_and_counts_as_none(self, tmp_path: Path) -> None:
        """RFC 6066 forbids it, mosquitto does it all the same; §4.1 takes it for none."""
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account, "DEFAULT")
            identity, files = emulator.device(1)
            emulator.activate(account, identity)
            publish = mosquitto(emulator, "mosquitto_pub", files, "127.0.0.1", "-t", "t", "-m", "x")
            publish[5:7] = []  # the address needs no proxy
            done = await run(*publish, "-i", "c")

            assert (done.returncode, done.stderr) == (0, b"")
            assert emulator.history.select(verdict="admitted")[0].server_name in ("127.0.0.1", None)

    async def test_the_old_protocol_is_told_so(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            _, files = emulator.device(1)
            publish = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-V", "mqttv31", "-t", "t")
            done = await run(*publish, "-m", "x")

            assert done.returncode != 0
            assert b"protocol" in done.stderr.lower()

    async def test_a_wrong_root_is_refused_by_the_device(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            _, files = emulator.device(1)
            other = tmp_path / "other.pem"
            other.write_text(certificate_pem(emulator.ca.certificate))
            publish = mosquitto(emulator, "mosquitto_pub", files, account.endpoint, "-t", "t", "-m", "x")
            publish[publish.index("--cafile") + 1] = other
            done = await run(*publish)

            assert done.returncode != 0
            await until(lambda: bool(emulator.history.select(verdict="handshake_failed")))
            assert "unknown ca" in emulator.history.select()[0].detail


CONNECT = bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 63")  # client id "c"
CONNACK = bytes.fromhex("20 02 00 00")


@needs("openssl")
class TestOpenSSL:
    """``openssl s_client -servername`` and ``-noservername``: the way people test it by hand."""

    @pytest.mark.parametrize("tls", ["-tls1_2", "-tls1_3"])
    async def test_servername_decides_the_account(self, tmp_path: Path, tls: str) -> None:
        async with open_emulator(tmp_path) as emulator:
            accounts = [emulator.account(each) for each in (A, B)]
            identity, files = emulator.device(1)
            for account in accounts:
                emulator.register_ca(account)
            emulator.activate(accounts[0], identity)
            session = Session(emulator, files, tls)

            assert await session.answer("-servername", accounts[0].endpoint) == CONNACK
            assert await session.answer("-servername", accounts[1].endpoint) == b""
            assert accounts[1].certificates[identity.certificate_id].status == "PENDING_ACTIVATION"
            assert await session.answer("-servername", "nobody.iot.us-east-1.localhost") == b""
            assert await session.answer("-noservername") == b""

    async def test_noservername_takes_the_default_record_or_the_chain(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            emulator.register_ca(account, "DEFAULT")
            identity, files = emulator.device(1)

            assert await Session(emulator, files).answer("-noservername") == b""
            assert account.certificates == {}

            chain = tmp_path / "chain.pem"
            chain.write_text(certificate_pem(emulator.ca.certificate))

            assert await Session(emulator, files).answer("-noservername", "-cert_chain", str(chain)) == b""
            assert account.certificates[identity.certificate_id].status == "PENDING_ACTIVATION"

            emulator.activate(account, identity)

            assert await Session(emulator, files).answer("-noservername") == CONNACK

    async def test_the_server_s_chain_and_name_verify(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            _, files = emulator.device(1)
            session = Session(emulator, files)
            good = await session.verify(account.endpoint)
            bad = await session.verify("somewhere.else.example")

            assert b"Verify return code: 0 (ok)" in good
            assert b"hostname mismatch" in bad.lower()

    @pytest.mark.parametrize("tls", ["-tls1_2", "-tls1_3"])
    async def test_no_session_is_resumed(self, tmp_path: Path, tls: str) -> None:
        """§4.3: no session tickets. OpenSSL sends them in TLS 1.3 all the same; they resume nothing."""
        async with open_emulator(tmp_path) as emulator:
            account = emulator.account()
            identity, files = emulator.device(1)
            emulator.register_ca(account)
            emulator.activate(account, identity)
            session = Session(emulator, files, tls)
            kept = tmp_path / "session"
            first = await session.text("-servername", account.endpoint, "-sess_out", str(kept))
            more = ("-sess_in", str(kept)) if kept.exists() else ()
            second = await session.text("-servername", account.endpoint, *more)

            assert b"New, " in first
            assert b"New, " in second
            assert b"Reused, " not in second

    async def test_alpn(self, tmp_path: Path) -> None:
        async with open_emulator(tmp_path) as emulator:
            _, files = emulator.device(1)
            said = await Session(emulator, files).text("-noservername", "-alpn", "x-amzn-mqtt-ca")

            assert b"ALPN protocol: x-amzn-mqtt-ca" in said


@dataclass
class Session:
    """s_client with one device's certificate."""

    emulator: Emulator
    files: Files
    tls: str = "-tls1_3"

    def command(self, *more: str) -> list[str]:
        emulator = self.emulator
        certificate, key = self.files
        return [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{emulator.port}", "-CAfile", str(emulator.ca_file)),
            *("-cert", str(certificate), "-key", str(key), self.tls, *more),
        ]

    async def answer(self, *more: str) -> bytes:
        """What came back to a CONNECT: CONNACK (then it is told to go), or nothing and the server's close."""
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    [*self.command(*more), "-quiet"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
            )
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send_all(CONNECT)
            data = bytes(await process.stdout.receive_some(100))
            process.terminate()
            return data

    async def text(self, *more: str) -> bytes:
        """What it says of a connection that it ends itself after the CONNECT was answered or refused."""
        done = await run(*self.command(*more), stdin=CONNECT)
        return done.stdout + done.stderr

    async def verify(self, name: str) -> bytes:
        return await self.text("-servername", name, "-verify_hostname", name)
