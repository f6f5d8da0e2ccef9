"""``devicesim probe`` against servers that nobody here wrote: ``openssl s_server`` and mosquitto."""

import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from devicesim.net.mqtt import MQTTSettings
from devicesim.net.probe import Probe, probe
from devicesim.net.steps import (
    ClientCertificate,
    ClientHelloSent,
    ConnackReceived,
    DisconnectReceived,
    Failed,
    ServerCertificates,
    TLSDone,
    Told,
)
from devicesim.net.tls import Deadlines, TLSSettings
from devicesim.outcome import Failure, FailureKind
from devicesim.pki.identity import certificate_pem, private_key_pem
from tests.interop.test_net_mosquitto import PATIENT, TEST_SECONDS, mosquitto, mqtt
from tests.interop.test_net_mosquitto import pytestmark as needs_mosquitto
from tests.net_support import ENDPOINT, device, device_ca, roots, server_identity

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is not installed")
CONNACK = b"\x20\x02\x00\x00"
VERIFIED = re.compile(r"^depth=0 CN ?= ?device-000000$", re.MULTILINE)
"""What s_server writes of a client certificate that it looks at; how it spaces names changed from 3.0 to 3.2."""


def asked(address: tuple[str, int], **changes: Any) -> Probe:
    values: dict[str, Any] = {
        "address": address,
        "server_name": ENDPOINT,
        "verify_name": ENDPOINT,
        "client_id": "robot",
        "identity": device(),
        "tls": TLSSettings(roots=roots(), chain=device_ca().chain),
        "mqtt": MQTTSettings(),
        "deadlines": PATIENT,
    }
    return Probe(**{**values, **changes})


async def run(what: Probe) -> tuple[list[Told], Failure | None]:
    told: list[Told] = []
    with trio.fail_after(TEST_SECONDS):
        failure = await probe(what, told.append)
    return told, failure


def step(told: list[Told], kind: type) -> Any:
    (found,) = (each.step for each in told if isinstance(each.step, kind))
    return found


# --- openssl s_server, which answers with what stands on its standard input: a CONNACK


@asynccontextmanager
async def s_server(directory: Path, *options: str) -> AsyncIterator[tuple[tuple[str, int], Path]]:
    """Its address, and where it writes what it sees."""
    server = server_identity(ENDPOINT)
    (directory / "server.pem").write_text(certificate_pem(server.certificate))
    (directory / "server.key").write_text(private_key_pem(server.key))
    (directory / "clients.pem").write_text(certificate_pem(device_ca().certificate))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = (
        "-cert",
        f"{directory}/server.pem",
        "-key",
        f"{directory}/server.key",
        "-CAfile",
        f"{directory}/clients.pem",
    )
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", *files, "-naccept", "1", *options]
    log = directory / "s_server.log"
    with log.open("wb") as output:
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process, command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, check=False
            )
            process: trio.Process = await nursery.start(start)
            with trio.fail_after(TEST_SECONDS):
                while b"ACCEPT" not in log.read_bytes():  # noqa: ASYNC110 - it tells nobody but its output
                    await trio.sleep(0.02)
            assert process.stdin is not None
            await process.stdin.send_all(CONNACK)
            yield ("127.0.0.1", port), log
            process.kill()


@needs_openssl
@pytest.mark.parametrize(("option", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
async def test_s_server_sees_what_is_told(tmp_path: Path, option: str, version: str) -> None:
    settings = TLSSettings(roots=roots(), chain=device_ca().chain, alpn=("http/1.1", "x-amzn-mqtt-ca"))

    async with s_server(tmp_path, "-Verify", "2", option, "-alpn", "x-amzn-mqtt-ca") as (address, log):
        told, failure = await run(asked(address, tls=settings))

    assert failure is None
    assert step(told, ConnackReceived).connack.code == 0
    assert (step(told, TLSDone).version, step(told, TLSDone).alpn) == (version, "x-amzn-mqtt-ca")
    assert step(told, ClientCertificate).sent.subject == "CN=device-000000"
    seen = log.read_text(errors="replace")
    assert "ALPN protocols advertised by the client: http/1.1, x-amzn-mqtt-ca" in seen
    assert VERIFIED.search(seen)


@needs_openssl
@pytest.mark.parametrize("name", [ENDPOINT, None])
async def test_s_server_is_sent_the_name_that_is_told(tmp_path: Path, name: str | None) -> None:
    files = ("-cert2", f"{tmp_path}/server.pem", "-key2", f"{tmp_path}/server.key")
    async with s_server(tmp_path, "-servername", ENDPOINT, *files) as (address, log):
        told, _ = await run(asked(address, server_name=name))

    assert step(told, ClientHelloSent).hello.server_name == name
    assert (f'Hostname in TLS extension: "{ENDPOINT}"' in log.read_text(errors="replace")) is (name is not None)


@needs_openssl
@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
async def test_s_server_that_takes_no_such_key_is_sent_no_certificate(tmp_path: Path, option: str) -> None:
    """It wants RSA signatures: OpenSSL answers with an empty list, says nothing of it, and goes on."""
    async with s_server(tmp_path, "-verify", "2", option, "-client_sigalgs", "RSA-PSS+SHA256") as (address, log):
        told, failure = await run(asked(address))

    assert failure is None
    seen = step(told, ClientCertificate)
    assert (seen.requested, seen.given, seen.sent) == (True, True, None)
    assert "depth=" not in log.read_text(errors="replace")


@needs_openssl
async def test_s_server_that_asks_nobody_is_sent_no_certificate(tmp_path: Path) -> None:
    async with s_server(tmp_path) as (address, _):
        told, failure = await run(asked(address))

    assert failure is None
    assert step(told, ClientCertificate).requested is False


# --- mosquitto


@needs_mosquitto
async def test_mosquitto_accepts_and_names_who_has_no_name(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker:
        told, failure = await run(asked(broker.address, client_id="", mqtt=MQTTSettings(version="5")))

    assert failure is None
    connack = step(told, ConnackReceived).connack
    assert connack.assigned_client_id.startswith("auto-")
    assert step(told, ServerCertificates).chain_refused == ""


@needs_mosquitto
async def test_mosquitto_says_that_it_is_over_when_another_takes_over(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker:
        told: list[Told] = []
        ended: list[Failure | None] = []

        async def hold() -> None:
            settings = MQTTSettings(version="5")
            what = asked(broker.address, mqtt=settings, hold=float(TEST_SECONDS))
            ended.append(await probe(what, told.append))

        with trio.fail_after(TEST_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hold)
                while not any(isinstance(each.step, ConnackReceived) for each in told):  # noqa: ASYNC110 - told in a list
                    await trio.sleep(0.01)
                async with mqtt(broker, MQTTSettings(version="5"), client_id="robot"):
                    while not ended:  # noqa: ASYNC110 - told in a list
                        await trio.sleep(0.01)

    # mosquitto 2.0.11 hangs up without a word; later ones say DISCONNECT 0x8e first
    assert ended[0] is not None
    said = [each.step.words for each in told if isinstance(each.step, DisconnectReceived)]
    assert ended[0].kind is (FailureKind.DISCONNECTED_BY_SERVER if said else FailureKind.CLOSED_AFTER_CONNACK)
    assert told[-1].step == Failed(failure=ended[0])


@needs_mosquitto
async def test_mosquitto_without_a_certificate_ends_the_handshake(tmp_path: Path) -> None:
    async with mosquitto(tmp_path) as broker:
        told, failure = await run(asked(broker.address, identity=None, deadlines=Deadlines(connack=TEST_SECONDS)))

    assert failure is not None
    assert failure.kind is FailureKind.TLS_ALERT
    assert failure.detail == "certificate_required"
    assert step(told, ClientCertificate).requested is True
